//! Requests that are wrong, by mistake or on purpose.

use crate::http::request;

/// Requests, each for a connection of its own, and the status that each is answered with: by any server, however small.
#[must_use]
pub fn bad_requests() -> Vec<(u16, Vec<u8>)> {
    let long = "x".repeat(9_000);
    let many: String = (0..40).map(|n| format!("H{n}: v\r\n")).collect();
    let body = "b".repeat(1 << 20);
    vec![
        (405, request("PUT", "/debug/pprof/heap", &[], b"")),
        (405, request("BREW", "/debug/pprof/", &[], b"")),
        (405, request("POST", "/debug/pprof/heap", &[], b"seconds=1")),
        (404, request("GET", "/debug/pprof/nothing", &[], b"")),
        (404, request("GET", "/", &[], b"")),
        // Go's mux sends paths that are not clean to where they lead.
        (
            307,
            request("GET", "/debug/pprof/../../etc/passwd", &[], b""),
        ),
        (404, request("GET", "/etc/passwd", &[], b"")),
        (404, request("GET", "/debug/pprof/%2e%2e%00", &[], b"")),
        (
            400,
            request("GET", "/debug/pprof/heap?seconds=-1", &[], b""),
        ),
        (
            400,
            request(
                "GET",
                "/debug/pprof/heap?seconds=99999999999999999999",
                &[],
                b"",
            ),
        ),
        (
            400,
            request("GET", "/debug/pprof/heap?seconds=1&debug=1", &[], b""),
        ),
        (
            431,
            request("GET", &format!("/debug/pprof/{long}"), &[], b""),
        ),
        (
            431,
            request("GET", "/debug/pprof/", &[&format!("Cookie: {long}")], b""),
        ),
        (431, format!("GET / HTTP/1.1\r\n{many}\r\n").into_bytes()),
        (431, long.clone().into_bytes()),
        (
            411,
            request(
                "POST",
                "/debug/pprof/symbol",
                &["Transfer-Encoding: chunked"],
                b"",
            ),
        ),
        (400, b"GET /debug/pprof/ HTTP/1.1\r\n\r\n".to_vec()),
        (
            400,
            b"GET /debug/pprof/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(),
        ),
        (
            400,
            b"GET /debug/pprof/ HTTP/1.1\r\nHost: test\r\nContent-Length: x\r\n\r\n".to_vec(),
        ),
        (
            400,
            b"GET /debug/pprof/ HTTP/1.1\r\nHost : test\r\n\r\n".to_vec(),
        ),
        (
            505,
            b"GET /debug/pprof/ HTTP/2.0\r\nHost: test\r\n\r\n".to_vec(),
        ),
        (
            400,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client's TLS hello".to_vec(),
        ),
        (400, b"\0\xff\xfe\r\n\r\n".to_vec()),
        // A body that nobody asked for is no offence.
        (200, request("GET", "/debug/pprof/cmdline", &[], b"a body")),
        (
            200,
            request("GET", "/debug/pprof/cmdline", &[], body.as_bytes()),
        ),
        (200, b"GET /debug/pprof/cmdline HTTP/1.0\r\n\r\n".to_vec()),
        (
            200,
            b"\r\n\r\nGET /debug/pprof/cmdline HTTP/1.1\r\nHost:test\r\n\r\n".to_vec(),
        ),
    ]
}

//! Clients that do wrong, by mistake or on purpose: each gets a clear answer, memory stays bounded, and the next client
//! is served.

#![forbid(unsafe_code)]

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use picoprof_tests::hostile::bad_requests;
use picoprof_tests::http::{self, Client, Response, request};
use picoprof_tests::process::{command, run};
use picoprof_tests::subject::{Subject, finish, profile_in};

const HOST: &str = env!("CARGO_BIN_EXE_host");
const SOON: Duration = Duration::from_secs(5);

fn host() -> Subject {
    Subject::start(command(HOST, ["loopback"]))
}

fn connect(subject: &Subject) -> Client {
    let mut client = Client::connect(subject.address()).expect("it listens");
    client.set_limit(Duration::from_secs(45));
    client
}

/// A client that has asked and waits.
fn connect_and_ask(subject: &Subject, target: &str) -> Client {
    let mut client = connect(subject);
    let bytes = request("GET", &format!("/debug/pprof/{target}"), &[], b"");
    client.send(&bytes).expect("it listens");
    client
}

/// The answer to these bytes, on a connection of their own.
fn answer_to(subject: &Subject, bytes: &[u8]) -> io::Result<Response> {
    let mut client = connect(subject);
    client.send(bytes)?;
    client.read_response()
}

#[track_caller]
fn status_of(subject: &Subject, bytes: &[u8]) -> u16 {
    match answer_to(subject, bytes) {
        Ok(response) => response.status,
        Err(error) => panic!("{error} to {:?}", String::from_utf8_lossy(bytes)),
    }
}

/// A plain request is answered, before anybody is given up.
#[track_caller]
fn assert_serves(subject: &mut Subject) {
    let begun = Instant::now();
    assert_eq!(subject.get("cmdline").status, 200);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Resident memory of a process in KiB, without what it shares with its file.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    kib.expect("the kernel tells")
}

#[test]
fn bad_requests_get_clear_answers() {
    let mut subject = host();
    for (status, bytes) in bad_requests() {
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(90)]).into_owned();
        assert_eq!(status_of(&subject, &bytes), status, "{head:?}");
    }
    assert_serves(&mut subject);
    subject.end();
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let subject = host();
    let mut client = connect(&subject);
    let one = |target: &str| request("GET", target, &[], b"");
    // Twenty at once, one of which has a body, and one an error's answer.
    let mut bytes = Vec::new();
    for _ in 0..6 {
        bytes.extend(one("/debug/pprof/cmdline"));
        bytes.extend(one("/debug/pprof/nothing"));
        bytes.extend(request("POST", "/debug/pprof/symbol", &[], b"0x1+0x2"));
    }
    client.send(&bytes).unwrap();
    for _ in 0..6 {
        let answers = [(); 3].map(|()| client.read_response().unwrap());
        assert_eq!(answers.each_ref().map(|it| it.status), [200, 404, 200]);
        assert!(
            answers[2].text().starts_with("num_symbols: 1"),
            "{}",
            answers[2].text()
        );
    }
    // Byte by byte.
    let slow = Duration::from_millis(2);
    client
        .send_in_pieces(&one("/debug/pprof/cmdline"), 1, slow)
        .unwrap();
    assert_eq!(client.read_response().unwrap().status, 200);
    // Its side closed: what was asked is still answered.
    client.send(&one("/debug/pprof/cmdline")).unwrap();
    client.finish_sending().unwrap();
    assert_eq!(client.read_response().unwrap().status, 200);
    assert!(client.is_closed_within(SOON));
    // HTTP/1.0 closes.
    let mut client = connect(&subject);
    client
        .send(b"GET /debug/pprof/cmdline HTTP/1.0\r\n\r\n")
        .unwrap();
    assert_eq!(client.read_response().unwrap().status, 200);
    assert!(client.is_closed_within(SOON));
    subject.end();
}

#[test]
fn a_head_that_does_not_end_is_timed_out() {
    let mut subject = host();
    let mut client = connect(&subject);
    let begun = Instant::now();
    let mut stream = client.stream().try_clone().unwrap();
    let drip = thread::spawn(move || {
        stream
            .write_all(b"GET /debug/pprof/ HTTP/1.1\r\nHost: test\r\nX: ")
            .unwrap();
        // Until it is told that nobody listens.
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(300));
        }
    });
    assert_serves(&mut subject);
    assert_eq!(client.read_response().unwrap().status, 408);
    let took = begun.elapsed();
    assert!((9..14).contains(&took.as_secs()), "{took:?}");
    drop(client);
    drip.join().unwrap();
    subject.end();
}

#[test]
fn a_client_that_goes_ends_its_profile() {
    let mut subject = host();
    for closes in [true, false] {
        let mut client = connect(&subject);
        client
            .send(&request("GET", "/debug/pprof/profile?seconds=30", &[], b""))
            .unwrap();
        thread::sleep(Duration::from_millis(300));
        // A second one meanwhile: Go's words.
        let refused = subject.get("profile?seconds=1");
        assert_eq!(refused.status, 500);
        assert_eq!(refused.header("X-Go-Pprof"), Some("1"));
        assert_eq!(
            refused.text(),
            "Could not enable CPU profiling: cpu profiling already in use\n"
        );
        if closes {
            drop(client);
        } else {
            client.finish_sending().unwrap();
        }
        let begun = Instant::now();
        thread::sleep(Duration::from_millis(50));
        subject.profile("profile?seconds=1");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    subject.end();
}

/// Nanoseconds that a process has run for.
fn cpu_time(process: u32) -> u64 {
    let folder = format!("/proc/{process}/task");
    let threads = fs::read_dir(folder).expect("it runs");
    let times = threads.map(|thread| {
        let path = thread.expect("it's there").path().join("schedstat");
        let text = fs::read_to_string(path).expect("the kernel tells");
        let time = text.split(' ').next().map(str::parse::<u64>);
        time.expect("a number").expect("a number")
    });
    times.sum()
}

#[test]
fn a_client_that_goes_ends_its_trace() {
    let mut subject = host();
    // More requests than there's room for may follow.
    for (closes, pipelined) in [(true, 0), (false, 0), (true, 1000), (false, 1000)] {
        let mut client = connect(&subject);
        let mut bytes = request("GET", "/debug/pprof/trace?seconds=60", &[], b"");
        bytes.extend(request("GET", "/debug/pprof/cmdline", &[], b"").repeat(pipelined));
        client.send(&bytes).unwrap();
        thread::sleep(Duration::from_millis(300));
        let refused = subject.get("trace?seconds=0.1");
        assert_eq!(refused.status, 500);
        let text = "Could not enable tracing: execution tracer already enabled\n";
        assert_eq!(refused.text(), text);
        if closes {
            drop(client);
        } else {
            client.finish_sending().unwrap();
        }
        thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        let response = subject.get("trace?seconds=0.1");
        assert_eq!(response.status, 200, "{closes} {pipelined}");
        assert!(response.body.starts_with(b"go 1.22 trace\0\0\0"));
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    subject.end();
}

/// It is asked for what there is again and again, and waits in between.
#[test]
fn a_trace_of_nothing_costs_little() {
    let subject = host();
    let mut client = connect(&subject);
    client
        .send(&request("GET", "/debug/pprof/trace?seconds=3", &[], b""))
        .unwrap();
    thread::sleep(Duration::from_millis(500));
    let before = cpu_time(subject.id());
    thread::sleep(Duration::from_secs(2));
    let took = Duration::from_nanos(cpu_time(subject.id()) - before);
    assert!(took < Duration::from_millis(500), "{took:?} of 2 s");
    assert_eq!(client.read_response().unwrap().status, 200);
    subject.end();
}

#[test]
fn a_client_that_does_not_read_costs_little() {
    let mut subject = host();
    assert_serves(&mut subject);
    subject.profile("heap");
    let before = resident(subject.id());
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(subject.address()).unwrap();
        stream.set_nonblocking(true).unwrap();
        // More pages than sockets' buffers hold the answers to. The server may stop reading.
        let page = request("GET", "/debug/pprof/heap?debug=1", &[], b"").repeat(100);
        for _ in 0..100 {
            if !matches!(stream.write(&page), Ok(n) if n == page.len()) {
                break;
            }
        }
        stalled.push(stream);
        assert_serves(&mut subject);
    }
    thread::sleep(Duration::from_secs(1));
    let grown = resident(subject.id()).saturating_sub(before);
    println!("20 stalled clients: {grown} KiB more");
    assert!(grown < 8 * 1024, "{grown} KiB");
    // They are given up after their 30 seconds.
    let begun = Instant::now();
    let all_closed = || {
        let sockets = fs::read_dir(format!("/proc/{}/fd", subject.id())).unwrap();
        sockets.count() < 15
    };
    while !all_closed() {
        assert!(
            begun.elapsed() < Duration::from_secs(45),
            "they are still there"
        );
        thread::sleep(Duration::from_millis(200));
    }
    let took = begun.elapsed();
    println!("given up after {took:?}");
    drop(stalled);
    assert_serves(&mut subject);
    subject.end();
}

#[test]
fn idle_connections_keep_nobody_out() {
    let mut subject = host();
    let idle: Vec<Client> = (0..64).map(|_| connect(&subject)).collect();
    for _ in 0..10 {
        assert_serves(&mut subject);
    }
    // More than there is room for: the longest idle go.
    let more: Vec<Client> = (0..200).map(|_| connect(&subject)).collect();
    for mut client in more.into_iter().rev().take(100) {
        client
            .send(&request("GET", "/debug/pprof/cmdline", &[], b""))
            .unwrap();
        assert_eq!(client.read_response().unwrap().status, 200);
    }
    for mut client in idle {
        assert!(client.is_closed_within(SOON));
    }
    assert_serves(&mut subject);
    subject.end();
}

#[test]
fn half_a_request_each_keeps_nobody_out_for_long() {
    let mut subject = host();
    let mut slow: Vec<Client> = (0..140).map(|_| connect(&subject)).collect();
    for client in &mut slow {
        // Those beyond the limit may be closed already.
        let _ = client.send(b"GET /debug");
    }
    thread::sleep(Duration::from_millis(200));
    // A clear answer, if it is no.
    let answer = answer_to(&subject, &request("GET", "/debug/pprof/cmdline", &[], b""));
    let status = answer.map(|answer| answer.status);
    println!("with 128 heads half sent: {status:?}");
    assert!(
        matches!(status, Ok(200 | 503)) || status.is_err(),
        "{status:?}"
    );
    thread::sleep(Duration::from_secs(11));
    assert_serves(&mut subject);
    subject.end();
}

#[test]
fn many_differences_at_once_are_all_answered() {
    let mut subject = host();
    subject.profile("heap");
    let before = resident(subject.id());
    let address = subject.address();
    let begun = Instant::now();
    let clients: Vec<_> = (0..50)
        .map(|at| {
            let target = ["heap", "allocs", "threadcreate"][at % 3];
            let target = format!("/debug/pprof/{target}?seconds=1");
            thread::spawn(move || http::get(address, &target))
        })
        .collect();
    let join = |client: thread::JoinHandle<_>| client.join().unwrap();
    let responses: Vec<_> = clients.into_iter().map(join).collect();
    let took = begun.elapsed();
    println!("50 differences took {took:?}");
    // Far from one after the other.
    assert!(
        took > Duration::from_secs(1) && took < Duration::from_secs(20),
        "{took:?}"
    );
    for response in responses {
        profile_in("difference", &response.unwrap());
    }
    let grown = resident(subject.id()).saturating_sub(before);
    println!("50 differences: {grown} KiB more");
    subject.end();
}

#[test]
fn ten_thousand_addresses_are_answered() {
    let subject = host();
    let addresses: Vec<String> = (0..10_000).map(|n| format!("{:#x}", n * 4099)).collect();
    let body = addresses.join("+");
    let response = answer_to(
        &subject,
        &request("POST", "/debug/pprof/symbol", &[], body.as_bytes()),
    );
    let response = response.unwrap();
    assert_eq!(response.status, 200);
    assert!(response.text().starts_with("num_symbols: 1\n"));
    // A body that is not as long as it says.
    let mut client = connect(&subject);
    client
        .send(
            b"POST /debug/pprof/symbol HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n0x1+",
        )
        .unwrap();
    client.finish_sending().unwrap();
    client.read_to_end().unwrap();
    subject.end();
}

#[test]
fn only_known_names_are_served() {
    let subject = host();
    let port = subject.address().port();
    for (name, status) in [
        ("evil.example".to_owned(), 403),
        (format!("evil.example:{port}"), 403),
        ("127.0.0.1.evil.example".to_owned(), 403),
        (String::new(), 403),
        ("test".to_owned(), 200),
        ("localhost".to_owned(), 200),
        (format!("LocalHost:{port}"), 200),
        (format!("127.0.0.1:{port}"), 200),
        (format!("[::1]:{port}"), 200),
    ] {
        let bytes = format!("GET /debug/pprof/cmdline HTTP/1.1\r\nHost: {name}\r\n\r\n");
        assert_eq!(status_of(&subject, bytes.as_bytes()), status, "{name}");
    }
    subject.end();
}

#[test]
fn a_barrage_leaves_nothing_behind() {
    let mut subject = host();
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut garbage = move |len: usize| -> Vec<u8> {
        (0..len)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as u8
            })
            .collect()
    };
    let mut volley = |count: usize| {
        for at in 0..count {
            let bytes = match at % 5 {
                0 => garbage(1 + at % 3000),
                1 => request("GET", "/debug/pprof/heap?debug=7&seconds=x", &[], b""),
                2 => request("PATCH", "/debug/pprof/profile", &[], &garbage(200)),
                3 => b"GET /debug/pprof/allocs HTTP/1.1\r\nHost: test\r\n\r\n".to_vec(),
                _ => [b"GET /".as_slice(), &vec![b'a'; 10_000]].concat(),
            };
            let mut client = connect(&subject);
            // It may be told to stop.
            let _ = client.send(&bytes);
            if at % 2 == 0 {
                let _ = client.finish_sending();
                let _ = client.read_to_end();
            }
        }
    };
    volley(300);
    let before = resident(subject.id());
    volley(2_000);
    let after = resident(subject.id());
    println!("2,000 bad requests: {before} to {after} KiB");
    assert!(after < before + 3 * 1024, "{before} to {after} KiB");
    assert_serves(&mut subject);
    subject.end();
}

/// A program that waits for its signals blocks them in its own threads, and knows nothing of these.
#[test]
fn the_programs_signals_do_not_go_to_the_servers_threads() {
    let mut subject = host();
    let profile = subject.begin_profile("profile?seconds=2");
    let mut seen = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", subject.id())).unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap();
        let status = fs::read_to_string(task.join("status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let mask = u64::from_str_radix(mask.unwrap().trim(), 16).unwrap();
        let blocks = |signal: i32| mask >> (signal - 1) & 1 == 1;
        let is_ours = name.starts_with("picoprof");
        for signal in [
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGCHLD,
            libc::SIGUSR1,
            libc::SIGRTMIN(),
        ] {
            assert_eq!(blocks(signal), is_ours, "{name}: {mask:x}");
        }
        // Its own faults and its own CPU time are another matter.
        for signal in [libc::SIGSEGV, libc::SIGABRT, libc::SIGPROF] {
            assert!(!blocks(signal), "{name}: {mask:x}");
        }
        seen.push(name);
    }
    seen.sort();
    assert!(
        seen.ends_with(&["picoprof\n".to_owned(), "picoprof-scan\n".to_owned()]),
        "{seen:?}"
    );
    let _ = finish(profile);
    subject.end();
}

#[test]
fn the_guard_closes_the_port_at_once() {
    let mut subject = host();
    for target in ["profile?seconds=30", "heap?seconds=30"] {
        let mut client = connect(&subject);
        let target = format!("/debug/pprof/{target}");
        client.send(&request("GET", &target, &[], b"")).unwrap();
        thread::sleep(Duration::from_millis(200));
        let [millis] = subject.numbers("stop");
        assert!(millis < 500, "{millis} ms");
        assert!(TcpStream::connect(subject.address()).is_err());
        assert!(client.is_closed_within(SOON));
        assert_eq!(subject.ask("again"), "bound");
        subject.profile("profile?seconds=1");
    }
    subject.end();
}

#[test]
fn a_collection_calls_the_programs_hook() {
    let mut subject = host();
    subject.profile("heap");
    subject.profile("heap?gc=0");
    assert_eq!(subject.ask("collected"), "0");
    subject.profile("heap?gc=1");
    assert_eq!(subject.ask("collected"), "1");
    subject.end();
}

/// Whatever panics on the way to an answer, it costs one client that answer.
#[test]
fn a_panic_ends_one_connection_and_not_the_server() {
    let mut subject = Subject::start(command(HOST, ["loopback", "panics"]));
    let differs = connect_and_ask(&subject, "heap?seconds=2");
    for _ in 0..3 {
        let bytes = request("GET", "/debug/pprof/heap?gc=1", &[], b"");
        assert!(answer_to(&subject, &bytes).is_err());
        assert_serves(&mut subject);
    }
    let _ = finish(differs);
    subject.end();
}

#[test]
fn the_command_line_is_shown_or_not() {
    for redacts in [true, false] {
        let words = [
            "loopback",
            "secret",
            if redacts { "redact" } else { "shows" },
        ];
        let mut subject = Subject::start(command(HOST, words));
        let answer = subject.get("cmdline");
        let line = answer.text();
        assert!(line.starts_with(HOST), "{line}");
        assert_eq!(line.contains("secret"), !redacts, "{line:?}");
        subject.end();
    }
}

/// An address that other machines can reach is listened on only when asked for by its own call.
#[test]
fn loopback_is_the_default_and_any_address_a_call_of_its_own() {
    let subject = host();
    assert_eq!(subject.address().ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    let port = subject.address().port();
    // 127.0.0.2 stands for an address that it does not listen on.
    let other = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port));
    assert!(TcpStream::connect(other).is_err());
    subject.end();
    let mut subject = Subject::start(command(HOST, ["public", "127.0.0.2:0"]));
    assert_eq!(
        subject.address().ip(),
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))
    );
    assert_serves(&mut subject);
    subject.end();
}

fn get_unix(path: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    // Any name: nobody's browser comes here.
    stream
        .write_all(b"GET /debug/pprof/cmdline HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_unix_socket_is_this_users_alone() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("pprof");
    let text = path.to_str().unwrap();
    let mut subject = Subject::start(command(HOST, ["unix", text]));
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(get_unix(&path).unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    // It is taken.
    let second = run(&mut command(HOST, ["unix", text]), Duration::from_secs(20)).unwrap();
    assert!(
        !second.status.success() && second.stderr.contains("AddrInUse"),
        "{second:?}"
    );
    assert!(get_unix(&path).is_ok());
    // One that was killed leaves its socket behind, which the next one replaces.
    drop(subject);
    assert!(path.exists() && get_unix(&path).is_err());
    subject = Subject::start(command(HOST, ["unix", text]));
    assert!(get_unix(&path).unwrap().ends_with(text), "its command line");
    subject.end();
    assert!(!path.exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // Nor does what one that was killed in the middle of it left behind: the next may have the same number.
    let leaves = format!(
        "mkdir $(printf '{0}/.p%x {0}/.p%x.0' $$ $$) && exec \"$0\" \"$@\"",
        folder.path().display()
    );
    subject = Subject::start(command("sh", ["-c", &leaves, HOST, "unix", text]));
    assert!(get_unix(&path).is_ok());
    subject.end();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    // What is no socket is left alone.
    fs::write(&path, "a file").unwrap();
    let third = run(&mut command(HOST, ["unix", text]), Duration::from_secs(20)).unwrap();
    assert!(
        !third.status.success() && third.stderr.contains("AlreadyExists"),
        "{third:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"a file");
}

//! A device at a serial line: a pseudo-terminal, of which the device has the other end.

use core::net::Ipv4Addr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use picoprof_tests::go::Go;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::device::{Device, read_from};
use crate::program::elf;
use picoprof_tests::bridge::Bridge;

/// The ends of a line.
struct Wire {
    device: File,
    path: PathBuf,
    /// As long as somebody has the other end open, the line is not cut.
    _other: File,
}

impl Wire {
    fn new() -> Self {
        let device = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there are ptys");
        grantpt(&device)
            .and_then(|()| unlockpt(&device))
            .expect("it is ours");
        let name = ptsname(&device, Vec::new())
            .expect("it has a name")
            .into_bytes();
        let path = PathBuf::from(std::ffi::OsString::from_vec(name));
        let other = OpenOptions::new().read(true).write(true).open(&path);
        let other = other.expect("it is unlocked");
        // A device's UART has no echo.
        let mut modes = tcgetattr(&other).expect("it is a terminal");
        modes.make_raw();
        tcsetattr(&other, OptionalActions::Now, &modes).expect("it is a terminal");
        Self {
            device: device.into(),
            path,
            _other: other,
        }
    }

    fn bridge(&self) -> Bridge {
        let place = format!("{},921600", self.path.display());
        Bridge::start(&elf(), ["--serial", &place])
    }

    fn say(&self, bytes: &[u8]) {
        (&self.device).write_all(bytes).expect("the line is there");
    }

    /// One connection after the other, for ever.
    fn serve(&self, device: &'static Device) {
        let received = read_from(self.device.try_clone().expect("there are descriptors"));
        let to = self.device.try_clone().expect("there are descriptors");
        thread::spawn(move || {
            loop {
                device.converse(&received, &to);
            }
        });
    }
}

fn expect_names(bridge: &Bridge) {
    let profile = bridge.profile("block");
    assert_eq!(profile.total("contentions", "bridge::program::checksum"), 3);
}

#[test]
fn a_line_is_as_good_as_a_socket() {
    let (wire, device) = (Wire::new(), Device::new());
    wire.serve(device);
    let bridge = wire.bridge();
    let introduction = bridge.introduction();
    assert!(
        introduction.contains("the device runs this file"),
        "{introduction}"
    );
    expect_names(&bridge);
    assert!(
        bridge
            .text("goroutine?debug=2")
            .contains("bridge::program::checksum(...)")
    );
    assert!(
        bridge
            .text("threadcreate?debug=1")
            .contains("\tbridge::program::parse_reading\t")
    );
    // Answers after which a server closes the connection.
    assert_eq!(bridge.ask("GET", "nosuch", "").status, 404);
    assert_eq!(bridge.ask("POST", "block", "a=b").status, 405);
    assert_eq!(bridge.ask("HEAD", "block", "").status, 200);
    let top = Go::new()
        .pprof(["-top", &bridge.url("profile?seconds=1")])
        .succeeded();
    assert!(
        top.text().contains("bridge::program::checksum"),
        "{}",
        top.text()
    );
}

#[test]
fn questions_at_a_line_come_one_after_the_other() {
    let (wire, device) = (Wire::new(), Device::new());
    wire.serve(device);
    let bridge = wire.bridge();
    expect_names(&bridge);
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..3 {
            // All of them, though a device takes one CPU profile at a time.
            scope.spawn(|| assert_eq!(bridge.profile("profile?seconds=1").sample.len(), 1));
        }
        for _ in 0..5 {
            scope.spawn(|| expect_names(&bridge));
        }
    });
    assert!(begun.elapsed() >= Duration::from_secs(3));
}

/// The device can't be told, so it goes on: the next one waits for it, and gets its own answer. Who leaves before
/// it was asked at all is forgotten.
#[test]
fn a_client_that_leaves_a_line_leaves_it_in_order() {
    let (wire, device) = (Wire::new(), Device::new());
    wire.serve(device);
    let bridge = wire.bridge();
    expect_names(&bridge);
    let begun = Instant::now();
    let leaving = bridge.asking("GET", "profile?seconds=2", "");
    while !device.is_sampling.load(Ordering::Relaxed) {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "it does not begin"
        );
        thread::sleep(Duration::from_millis(5));
    }
    let waiting = bridge.asking("GET", "profile?seconds=600", "");
    thread::sleep(Duration::from_millis(200));
    drop(waiting);
    drop(leaving);
    expect_names(&bridge);
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert!(begun.elapsed() < Duration::from_mins(2));
}

#[test]
fn noise_is_read_away() {
    let (wire, device) = (Wire::new(), Device::new());
    // Of a device that starts, and of one that answers somebody who was here before.
    wire.say(b"\xff\x00\x80 boot: 1.2.3\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel");
    wire.serve(device);
    let bridge = wire.bridge();
    expect_names(&bridge);
    // A reset.
    wire.say(b"panicked at main.rs\r\nboot: 1.2.3\r\n");
    thread::sleep(Duration::from_millis(100));
    expect_names(&bridge);
    // Noise within an answer can't be told from it; it is the only one that is lost.
    let is_noisy = Arc::new(AtomicBool::new(true));
    thread::scope(|scope| {
        let (noise, line) = (Arc::clone(&is_noisy), &wire);
        scope.spawn(move || {
            while noise.load(Ordering::Relaxed) {
                line.say(b"\0tick\r\n\r\n");
                thread::sleep(Duration::from_millis(30));
            }
        });
        let lost = bridge.ask("GET", "profile?seconds=1", "");
        is_noisy.store(false, Ordering::Relaxed);
        assert_eq!(
            lost.status,
            502,
            "{:?}",
            String::from_utf8_lossy(&lost.body)
        );
    });
    expect_names(&bridge);
}

#[test]
fn a_line_without_a_device_is_told() {
    let wire = Wire::new();
    let bridge = wire.bridge();
    let begun = Instant::now();
    let silent = bridge.ask("GET", "block", "");
    assert_eq!(silent.status, 502);
    assert!(
        silent.text().contains("did not answer on"),
        "{}",
        silent.text()
    );
    assert!(begun.elapsed() < Duration::from_mins(1));
    // Someone switches it on: what was asked meanwhile is answered, and is no matter any more.
    wire.serve(Device::new());
    expect_names(&bridge);
    let missing = Bridge::start(&elf(), ["--serial", "/dev/does-not-exist"]);
    let refused = missing.ask("GET", "block", "");
    assert_eq!(refused.status, 502);
    assert!(
        refused.text().contains("No such file"),
        "{}",
        refused.text()
    );
    let no_line = Bridge::start(&elf(), ["--serial", "/dev/null"]);
    assert_eq!(no_line.ask("GET", "block", "").status, 502);
}

/// As an emulator's serial port: whoever connects is at the line, and the device knows nothing of that.
#[test]
fn a_line_behind_a_socket() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let place = format!("tcp:{}", listener.local_addr().expect("it is bound"));
    let device = Device::new();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("it is open");
            stream.set_nodelay(true).expect("it is open");
            let received = read_from(stream.try_clone().expect("there are descriptors"));
            // It is cut after three connections of the device's.
            for _ in 0..3 {
                device.converse(&received, &stream);
            }
            stream
                .shutdown(std::net::Shutdown::Both)
                .expect("it is open");
        }
    });
    let bridge = Bridge::start(&elf(), ["--serial", &place]);
    for _ in 0..8 {
        assert_eq!(bridge.ask("GET", "nosuch", "").status, 404);
        expect_names(&bridge);
    }
}

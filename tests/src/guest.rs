//! Machines in QEMU, with the firmware of examples/firmware: their networks, serial ports and consoles, and their end.
//!
//! A [`Guest`] begins in a tenth of a second, so each test has one of its own. What ends it early fails the test, with what
//! the guest said last.

use core::fmt::Write as _;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use tempfile::TempDir;

use crate::http::{Client, Response, request};
use crate::process::{Group, command, free_port};
use crate::profile_proto::Profile;
use crate::subject::profile_in;

/// A machine, and what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// A Cortex-M3 with 64 KB of RAM, without a heap.
    Lm3s6965evb,
    /// A Cortex-M3 with 4 MB of RAM.
    Mps2An385,
    /// The same, with a program for processors that have no compare-and-swap.
    Mps2An385V6m,
    /// A RISC-V of 64 bits.
    RiscvVirt,
    /// A RISC-V of 32 bits with a serial port and nothing else: its profiles are there, and there is no application.
    RiscvUart,
}

impl Machine {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Lm3s6965evb,
        Self::Mps2An385,
        Self::Mps2An385V6m,
        Self::RiscvVirt,
        Self::RiscvUart,
    ];

    /// The package with its firmware, which is also the name that the firmware has of itself.
    #[must_use]
    pub const fn package(self) -> &'static str {
        match self {
            Self::Lm3s6965evb => "lm3s6965evb",
            Self::Mps2An385 | Self::Mps2An385V6m => "mps2-an385",
            Self::RiscvVirt => "riscv-virt",
            Self::RiscvUart => "riscv-uart",
        }
    }

    /// The target that its firmware is built for.
    #[must_use]
    pub const fn target(self) -> &'static str {
        match self {
            Self::Lm3s6965evb | Self::Mps2An385 => "thumbv7m-none-eabi",
            Self::Mps2An385V6m => "thumbv6m-none-eabi",
            Self::RiscvVirt => "riscv64gc-unknown-none-elf",
            Self::RiscvUart => "riscv32imac-unknown-none-elf",
        }
    }

    /// Whether its firmware has a heap.
    #[must_use]
    pub const fn has_heap(self) -> bool {
        !matches!(self, Self::Lm3s6965evb | Self::RiscvUart)
    }

    /// Whether it is on a network.
    #[must_use]
    pub const fn has_network(self) -> bool {
        !matches!(self, Self::RiscvUart)
    }

    /// Whether there is memory for the counters of a CPU profile as it begins.
    #[must_use]
    pub const fn takes_snapshots(self) -> bool {
        !matches!(self, Self::Lm3s6965evb)
    }

    /// How many clients its firmware serves at once.
    #[must_use]
    pub const fn clients(self) -> usize {
        match self {
            Self::Lm3s6965evb => 5,
            Self::Mps2An385 | Self::Mps2An385V6m | Self::RiscvVirt => 8,
            Self::RiscvUart => 1,
        }
    }

    /// Whether profiles can be had over its serial port, too.
    #[must_use]
    pub const fn serves_uart(self) -> bool {
        matches!(self, Self::Mps2An385 | Self::Mps2An385V6m | Self::RiscvUart)
    }

    /// The firmware, in the target directory that `PICOPROF_FIRMWARE` names, else where `tests/run` builds it.
    ///
    /// # Panics
    ///
    /// If it is not there: a test that needs it is never skipped.
    #[must_use]
    #[track_caller]
    pub fn image(self) -> PathBuf {
        image(self.target(), self.package())
    }

    /// QEMU, with everything but the network and the monitor. What the firmware writes by semihosting is QEMU's output.
    fn qemu(self, folder: &Path, port: SerialPort) -> Command {
        let serial = format!("file:{}", folder.join(SERIAL).display());
        let port = match port {
            SerialPort::Tcp => "tcp:127.0.0.1:0,server=on,wait=off",
            SerialPort::Terminal => "pty",
        };
        let mut qemu = match self {
            Self::Lm3s6965evb => command("qemu-system-arm", ["-M", "lm3s6965evb"]),
            Self::Mps2An385 | Self::Mps2An385V6m => {
                let ports = ["-serial", port, "-serial", &serial];
                let mut qemu = command("qemu-system-arm", ["-M", "mps2-an385"]);
                qemu.args(ports);
                qemu
            }
            Self::RiscvVirt => {
                let machine = "-M virt -smp 2 -m 32M -bios none -serial";
                let mut qemu = command("qemu-system-riscv64", machine.split(' '));
                qemu.arg(&serial);
                qemu
            }
            Self::RiscvUart => {
                let mut qemu = command("qemu-system-riscv32", ["-M", "virt"]);
                qemu.args(["-m", "32M", "-bios", "none", "-serial", "chardev:serial0"]);
                // What it says before anybody is connected is kept, too.
                let log = folder.join(SERIAL);
                qemu.arg("-chardev").arg(format!(
                    "socket,id=serial0,host=127.0.0.1,port=0,server=on,wait=off,logfile={}",
                    log.display()
                ));
                qemu
            }
        };
        qemu.args(["-semihosting-config", "enable=on,target=native"]);
        qemu.args(["-display", "none", "-monitor", "none", "-kernel"]);
        qemu.arg(self.image());
        qemu
    }

    fn network(self) -> Vec<String> {
        // QEMU chooses the ports.
        let forwarded = [PROFILER, APPLICATION].iter().fold(
            String::from("user,id=network"),
            |mut options, port| {
                let _ = write!(options, ",hostfwd=tcp:127.0.0.1:0-10.0.2.15:{port}");
                options
            },
        );
        match self {
            Self::RiscvVirt => vec![
                "-netdev".to_owned(),
                forwarded,
                "-device".to_owned(),
                "virtio-net-device,netdev=network".to_owned(),
            ],
            Self::RiscvUart => vec!["-nic".to_owned(), "none".to_owned()],
            _ => vec!["-nic".to_owned(), forwarded],
        }
    }
}

/// What the first serial port leads to, where the console is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialPort {
    /// A TCP port of this machine.
    Tcp,
    /// A terminal, as a serial port of this machine would be.
    Terminal,
}

/// A machine that runs until the test ends it.
#[derive(Debug)]
pub struct Guest {
    machine: Machine,
    group: Group,
    folder: TempDir,
    monitor: Mutex<Monitor>,
    profiler: SocketAddr,
    /// If it has an application.
    application_port: Option<SocketAddr>,
    application: Mutex<Option<BufReader<TcpStream>>>,
}

impl Guest {
    /// Switches it on, and waits until it is up.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    #[must_use]
    #[track_caller]
    pub fn start(machine: Machine) -> Self {
        Self::start_with(machine, SerialPort::Tcp)
    }

    /// As [`start`](Self::start).
    ///
    /// # Panics
    ///
    /// If it does not come up.
    #[must_use]
    #[track_caller]
    pub fn start_with(machine: Machine, port: SerialPort) -> Self {
        let folder = TempDir::new().expect("a folder can be made");
        let socket = folder.path().join("monitor");
        let mut qemu = machine.qemu(folder.path(), port);
        qemu.args(machine.network()).args([
            "-qmp",
            &format!("unix:{},server=on,wait=off", socket.display()),
        ]);
        let [output, errors] = [OUTPUT, ERRORS].map(|name| {
            Stdio::from(File::create(folder.path().join(name)).expect("a file can be made"))
        });
        let mut group = Group::start(&mut qemu, output, errors).unwrap_or_else(|error| {
            panic!("cannot start {qemu:?} (Debian: qemu-system-arm, qemu-system-misc): {error}")
        });
        let mut monitor = Monitor::connect(&socket, &mut group);
        let (profiler, application_port) = if machine.has_network() {
            let ports = monitor.ask("info usernet");
            let [profiler, application] = [PROFILER, APPLICATION].map(|port| {
                let forwarded = forwarded_port(&ports, port);
                let port = forwarded.unwrap_or_else(|| panic!("no port {port}: {ports:?}"));
                SocketAddr::from((Ipv4Addr::LOCALHOST, port))
            });
            (profiler, Some(application))
        } else {
            let serial = monitor.serial_port();
            (serial.parse().expect("an address"), None)
        };
        let mut guest = Self {
            machine,
            group,
            folder,
            monitor: Mutex::new(monitor),
            profiler,
            application_port,
            application: Mutex::new(None),
        };
        guest.wait_until_up();
        guest
    }

    /// Which one it is.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// Where `/debug/pprof/` is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.profiler
    }

    /// What `go tool pprof` is given, for an endpoint and its query.
    #[must_use]
    pub fn url(&self, target: &str) -> String {
        format!("http://{}/debug/pprof/{target}", self.profiler)
    }

    /// Where its serial port is: an address, or the path of a terminal.
    ///
    /// # Panics
    ///
    /// If it has none.
    #[must_use]
    #[track_caller]
    pub fn serial(&self) -> String {
        self.monitor().serial_port()
    }

    /// What it has said so far.
    #[must_use]
    pub fn console(&self) -> String {
        let file = match self.machine {
            Machine::Lm3s6965evb => OUTPUT,
            _ => SERIAL,
        };
        String::from_utf8_lossy(&self.output(file)).into_owned()
    }

    /// What it has logged so far, as it encodes it.
    ///
    /// # Panics
    ///
    /// If it is a machine that logs nothing.
    #[must_use]
    pub fn log(&self) -> Vec<u8> {
        assert!(
            matches!(self.machine, Machine::Mps2An385 | Machine::Mps2An385V6m),
            "{:?} has no log",
            self.machine
        );
        self.output(OUTPUT)
    }

    /// A connection to its profiler, which QEMU has accepted.
    ///
    /// It listens with room for one that waits to be accepted. Linux drops the ends of the others' handshakes: they are
    /// connected, as far as they know, and what they send is sent again later and later, in the end after more than a
    /// minute. So one at a time connects.
    ///
    /// # Panics
    ///
    /// If QEMU does not listen any more.
    #[must_use]
    #[track_caller]
    pub fn connect(&self) -> Client {
        let mut monitor = self.monitor();
        let connected = Client::connect(self.profiler);
        // The loop that accepts it answers here, too.
        monitor.is_there();
        drop(monitor);
        let mut client = connected.unwrap_or_else(|error| panic!("{error}; {}", self.fate()));
        client.set_limit(LIMIT);
        client
    }

    /// A client that has asked for something below `/debug/pprof/` and waits.
    ///
    /// # Panics
    ///
    /// If it can't.
    #[must_use]
    #[track_caller]
    pub fn connect_and_ask(&self, target: &str) -> Client {
        let mut client = self.connect();
        let bytes = request("GET", &format!("/debug/pprof/{target}"), &[], b"");
        if let Err(error) = client.send(&bytes) {
            panic!("{target}: {error}; {}", self.fate());
        }
        client
    }

    /// Its answer to a GET below `/debug/pprof/`.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        let mut client = self.connect();
        let path = format!("/debug/pprof/{target}");
        let sent = client.send(&request("GET", &path, &["Connection: close"], b""));
        match sent.and_then(|()| client.read_response()) {
            Ok(response) => response,
            Err(error) => panic!("{target}: {error}; {}", self.fate()),
        }
    }

    /// A sound profile of its own.
    ///
    /// # Panics
    ///
    /// If it is not sound.
    #[track_caller]
    pub fn profile(&self, target: &str) -> Profile {
        profile_in(target, &self.get(target))
    }

    /// Its application's answer to a line, and to the bytes after it. One who asks waits for the others' answers.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[track_caller]
    pub fn ask(&self, line: &str, bytes: &[u8]) -> String {
        let mut application = self.application();
        let answer = self.try_ask(&mut application, line, bytes);
        let answer = answer.unwrap_or_else(|error| panic!("{line}: {error}; {}", self.fate()));
        assert!(!answer.starts_with("error"), "{line}: {answer}");
        answer
    }

    /// Lets it do so many rounds of its work; answers their hash.
    ///
    /// # Panics
    ///
    /// If it does something else.
    #[track_caller]
    pub fn work(&self, rounds: u32) -> String {
        let answer = self.ask(&format!("work {rounds}"), b"");
        let hash = answer.strip_prefix("work ");
        hash.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Lets it work on these bytes; answers their hash, and how small they have become.
    ///
    /// # Panics
    ///
    /// If it does something else.
    #[track_caller]
    pub fn put(&self, bytes: &[u8]) -> (String, usize) {
        let answer = self.ask(&format!("put {}", bytes.len()), bytes);
        let words: Vec<&str> = answer.split(' ').collect();
        match words[..] {
            ["put", len, hash, compressed] if len == bytes.len().to_string() => {
                let compressed = compressed.parse().expect("a number");
                (hash.to_owned(), compressed)
            }
            _ => panic!("{answer}"),
        }
    }

    /// What it has counted itself.
    ///
    /// # Panics
    ///
    /// If it does not say so.
    #[must_use]
    #[track_caller]
    pub fn stats(&self) -> Stats {
        Stats::parse(&self.ask("stats", b""))
    }

    /// Lets it work on a stack that is broken, for some 300 ms.
    ///
    /// # Panics
    ///
    /// If it does not survive that.
    #[track_caller]
    pub fn corrupt(&self) {
        assert_eq!(self.ask("corrupt", b""), "corrupt ok");
    }

    /// Lets it end itself, and sees that it ends well and came up once only. One without an application is switched off.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[track_caller]
    pub fn end(mut self) {
        let is_well = if self.application_port.is_some() {
            let sent = {
                let mut application = self.application();
                let connected = connected(&mut application, self.application_port);
                connected.and_then(|stream| stream.get_mut().write_all(b"exit\n"))
            };
            let status = self.wait(LIMIT);
            sent.is_ok() && status.is_some_and(|status| status.success())
        } else {
            self.wait(Duration::ZERO).is_none()
        };
        let console = self.console();
        assert!(is_well, "{}", self.fate());
        let ups = console.lines().filter(|line| line.starts_with(UP));
        assert_eq!(ups.count(), 1, "{console}");
    }

    /// How it ended; `None` if `limit` passes first.
    ///
    /// # Panics
    ///
    /// If the kernel does not know the process.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.group.wait(limit).expect("a child can be waited for")
    }

    /// How many bytes of its stack were never used, as far as can be seen: its memory is zeros in the beginning.
    ///
    /// # Panics
    ///
    /// If it is a machine whose stack isn't at the beginning of its memory.
    #[must_use]
    #[track_caller]
    pub fn unused_stack(&self) -> usize {
        assert_eq!(self.machine, Machine::Lm3s6965evb);
        // Lines of an address, a colon and four words.
        let lines = self.monitor().ask("xp /4096xw 0x20000000");
        let words = lines.iter().flat_map(|line| line.split(' ').skip(1));
        4 * words.take_while(|word| *word == "0x00000000").count()
    }

    /// What has become of it, and what it said; if it still runs, where it is and who is connected.
    #[must_use]
    pub fn fate(&self) -> String {
        // One that has just panicked takes a moment.
        thread::sleep(Duration::from_millis(300));
        let mut monitor = self.monitor();
        let fate = if monitor.is_there() {
            let mut seen = ["info registers -a", "info usernet"].map(|look| monitor.ask(look));
            // The end of what it is quoted in.
            seen.iter_mut().for_each(|lines| drop(lines.pop()));
            format!("it is still running:\n{}\nIt", seen.concat().join("\n"))
        } else {
            "it has ended, and".to_owned()
        };
        drop(monitor);
        let errors = String::from_utf8_lossy(&self.output(ERRORS)).into_owned();
        format!(
            "{:?}: {fate} said:\n{}{errors}",
            self.machine,
            self.console()
        )
    }

    fn output(&self, file: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(file)).unwrap_or_default()
    }

    fn wait_until_up(&mut self) {
        let expected = format!("{UP} {}", self.machine.package());
        let begun = Instant::now();
        loop {
            let ended = self.wait(Duration::ZERO);
            let console = self.console();
            let mut whole_lines = console
                .split_inclusive('\n')
                .filter(|it| it.ends_with('\n'));
            if whole_lines.any(|line| line.starts_with(&expected)) {
                return;
            }
            if ended.is_some() || begun.elapsed() > LIMIT {
                panic!(
                    "no line {expected:?} after {:?}; {}",
                    begun.elapsed(),
                    self.fate()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn monitor(&self) -> MutexGuard<'_, Monitor> {
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The application serves one client at a time: all of a test's questions go over one connection.
    fn application(&self) -> MutexGuard<'_, Option<BufReader<TcpStream>>> {
        let application = self.application.lock();
        application.unwrap_or_else(PoisonError::into_inner)
    }

    fn try_ask(
        &self,
        application: &mut Option<BufReader<TcpStream>>,
        line: &str,
        bytes: &[u8],
    ) -> io::Result<String> {
        let stream = connected(application, self.application_port)?;
        let question = [line.as_bytes(), b"\n", bytes].concat();
        stream.get_mut().write_all(&question)?;
        let mut answer = String::new();
        if stream.read_line(&mut answer)? == 0 || !answer.ends_with('\n') {
            let cut = format!("the connection was closed after {answer:?}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut));
        }
        Ok(answer.trim_end().to_owned())
    }
}

#[track_caller]
fn image(target: &str, package: &str) -> PathBuf {
    let built = std::env::var_os("PICOPROF_FIRMWARE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/firmware"),
        PathBuf::from,
    );
    let image = (built.join(target).join("release")).join(package);
    assert!(
        image.is_file(),
        "{} is missing. Run tests/run once, whose step \"images and examples\" builds it, or set PICOPROF_FIRMWARE to a \
         target directory of examples/firmware.",
        image.display()
    );
    image
}

/// A machine that has nothing but a serial line, a RISC-V of 32 bits, until the test ends it. It works all the time.
#[derive(Debug)]
pub struct Station {
    /// It ends with this.
    _group: Group,
    address: SocketAddr,
}

impl Station {
    /// Its firmware.
    ///
    /// # Panics
    ///
    /// If it is not there: a test that needs it is never skipped.
    #[must_use]
    #[track_caller]
    pub fn image() -> PathBuf {
        image("riscv32imac-unknown-none-elf", "riscv-uart")
    }

    /// Switches it on, and waits until it is up.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let machine = "-M virt -m 32M -bios none -display none -monitor none -serial";
        let mut qemu = command("qemu-system-riscv32", machine.split(' '));
        // It begins when somebody listens, who then hears that it is up.
        qemu.arg(format!("tcp:{address},server=on,wait=on"));
        qemu.arg("-kernel").arg(Self::image());
        let group = Group::start(&mut qemu, Stdio::null(), Stdio::null());
        let group = group.unwrap_or_else(|error| {
            panic!("cannot start {qemu:?} (Debian: qemu-system-misc): {error}")
        });
        let begun = Instant::now();
        let line = loop {
            match TcpStream::connect(address) {
                Ok(line) => break line,
                Err(error) => assert!(begun.elapsed() < LIMIT, "{qemu:?}: {error}"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        line.set_read_timeout(Some(LIMIT)).expect("it is connected");
        let mut heard = String::new();
        let read = BufReader::new(line).read_line(&mut heard);
        assert!(read.is_ok() && heard.starts_with(UP), "{read:?}: {heard:?}");
        Self {
            _group: group,
            address,
        }
    }

    /// Where its line is: for one client at a time.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What a guest has counted itself, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats(BTreeMap<String, u64>);

impl Stats {
    /// From the answer to `stats`.
    ///
    /// # Panics
    ///
    /// If it is something else.
    #[must_use]
    #[track_caller]
    pub fn parse(answer: &str) -> Self {
        let mut words = answer.split(' ');
        assert_eq!(words.next(), Some("stats"), "{answer}");
        let counts = words.map(|word| {
            let count = word.split_once('=').and_then(|(name, number)| {
                let number = number.parse().ok()?;
                Some((name.to_owned(), number))
            });
            count.unwrap_or_else(|| panic!("{word:?} in {answer}"))
        });
        Self(counts.collect())
    }

    /// The count with that name.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn of(&self, name: &str) -> u64 {
        let count = self.0.get(name);
        *count.unwrap_or_else(|| panic!("no {name} among {:?}", self.0))
    }
}

/// QEMU's own: what it has opened for the guest.
#[derive(Debug)]
struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    #[track_caller]
    fn connect(socket: &Path, qemu: &mut Group) -> Self {
        let begun = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => {
                    let ended = qemu
                        .wait(Duration::ZERO)
                        .expect("a child can be waited for");
                    assert!(
                        ended.is_none() && begun.elapsed() < LIMIT,
                        "QEMU's monitor: {error}; {ended:?}"
                    );
                    thread::sleep(Duration::from_millis(2));
                }
            }
        };
        stream
            .set_read_timeout(Some(LIMIT))
            .expect("it is connected");
        let mut monitor = Self {
            stream: BufReader::new(stream),
        };
        monitor
            .execute(r#"{"execute": "qmp_capabilities"}"#)
            .expect("QEMU answers");
        monitor
    }

    /// The lines that the monitor for people answers a command with.
    #[track_caller]
    fn ask(&mut self, command: &str) -> Vec<String> {
        let answer = self
            .execute(&format!(
                r#"{{"execute": "human-monitor-command", "arguments": {{"command-line": "{command}"}}}}"#
            ))
            .unwrap_or_else(|error| panic!("{command}: {error}"));
        answer.split(r"\r\n").map(str::to_owned).collect()
    }

    /// Where the first serial port is.
    #[track_caller]
    fn serial_port(&mut self) -> String {
        let devices = self.ask("info chardev");
        let line = devices.iter().find(|line| line.starts_with("serial0:"));
        let path = line.and_then(|line| {
            let (_, path) = line.split_once("pty:").or(line.split_once("tcp:"))?;
            path.split([',', ' ']).next()
        });
        path.unwrap_or_else(|| panic!("{devices:?}")).to_owned()
    }

    /// Whether QEMU still runs.
    fn is_there(&mut self) -> bool {
        self.execute(r#"{"execute": "query-status"}"#).is_ok()
    }

    /// What follows `{"return": `, and a quotation mark where there is one.
    fn execute(&mut self, command: &str) -> io::Result<String> {
        self.stream.get_mut().write_all(command.as_bytes())?;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Greetings and events come in between.
            if let Some(answer) = line.strip_prefix(r#"{"return": "#) {
                return Ok(answer.trim_start_matches('"').to_owned());
            }
            if line.starts_with(r#"{"error""#) {
                return Err(io::Error::other(line));
            }
        }
    }
}

/// The port of this machine that leads to the guest's `port`, in the answer to `info usernet`.
fn forwarded_port(lines: &[String], port: u16) -> Option<u16> {
    let forwarded = lines.iter().filter(|line| line.contains("HOST_FORWARD"));
    let mut ports = forwarded.map(|line| {
        // Protocol, file descriptor, address and port here, address and port there, queues.
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(3).copied(), fields.get(5).copied())
    });
    let port = port.to_string();
    let (here, _) = ports.find(|(_, there)| *there == Some(port.as_str()))?;
    here?.parse().ok()
}

fn connected(
    application: &mut Option<BufReader<TcpStream>>,
    address: Option<SocketAddr>,
) -> io::Result<&mut BufReader<TcpStream>> {
    if application.is_none() {
        let address = address.ok_or(io::ErrorKind::Unsupported)?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        *application = Some(BufReader::new(stream));
    }
    Ok(application.as_mut().expect("it was put there"))
}

/// The ports of the guest.
const PROFILER: u16 = 80;
const APPLICATION: u16 = 7;

/// What a guest says first, and once.
const UP: &str = "picoprof: up";

/// Files in the guest's folder: what the last serial port, semihosting, and QEMU have to say.
const SERIAL: &str = "serial";
const OUTPUT: &str = "output";
const ERRORS: &str = "errors";

/// More than any step takes, on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemus_ports_are_found() {
        let answer = r"Hub -1 (#net067):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[ESTABLISHED]   7       127.0.0.1 30001       10.0.2.15    80     0     0\r\n  TCP[HOST_FORWARD]   9       127.0.0.1 37657       10.0.2.15    80     0     0\r\n  TCP[HOST_FORWARD]   8       127.0.0.1 34985       10.0.2.15     7     0     0\r\n";
        let lines: Vec<String> = answer.split(r"\r\n").map(str::to_owned).collect();
        assert_eq!(forwarded_port(&lines, 80), Some(37657));
        assert_eq!(forwarded_port(&lines, 7), Some(34985));
        assert_eq!(forwarded_port(&lines, 37657), None);
    }

    #[test]
    fn counts_have_names() {
        let stats = Stats::parse("stats ticks=12 lost=0");
        assert_eq!((stats.of("ticks"), stats.of("lost")), (12, 0));
    }

    #[test]
    #[should_panic(expected = "no idle among")]
    fn a_count_that_is_missing_is_told() {
        let _ = Stats::parse("stats ticks=12").of("idle");
    }
}

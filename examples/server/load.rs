//! The load: clients that write, read and search as people do, only more of it.

#![forbid(unsafe_code)]

use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::document::Document;
use crate::http::{self, Received};

/// Clients that run.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    service: SocketAddr,
    vocabulary: Vec<String>,
    stopping: AtomicBool,
    failed: AtomicU64,
}

const CLIENTS: usize = 8;
/// A client pauses as long as its requests took, so many times. So all of them together keep about
/// one processor busy, however fast it is, and less if it is busy already.
const PAUSE: u32 = 1;
/// Pauses are saved up to this, for shorter sleeps are mostly overhead.
const SHORTEST_SLEEP: Duration = Duration::from_millis(2);
/// How many requests a client makes on one connection.
const REQUESTS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(5);

/// How many different documents there are: more than the store has room for.
const DOCUMENTS: u64 = 8_000;
const AUTHORS: u64 = 60;
const VOCABULARY: u64 = 20_000;
const LENGTHS: core::ops::Range<f64> = 200.0..102_400.0;

impl Load {
    /// Starts the clients of a service.
    ///
    /// # Errors
    ///
    /// When the system has no thread to give. Those already started end with the program.
    pub(crate) fn spawn(service: SocketAddr) -> io::Result<Self> {
        let mut load = Self {
            shared: Arc::new(Shared {
                service,
                vocabulary: (0..VOCABULARY).map(spell).collect(),
                stopping: AtomicBool::new(false),
                failed: AtomicU64::new(0),
            }),
            threads: Vec::new(),
        };
        for number in 0..CLIENTS {
            let shared = Arc::clone(&load.shared);
            let thread = thread::Builder::new().name(format!("client-{number}"));
            load.threads
                .push(thread.spawn(move || use_service(&shared, number as u64))?);
        }
        Ok(load)
    }

    /// Ends the clients. Returns how many requests failed.
    pub(crate) fn stop(self) -> u64 {
        self.shared.stopping.store(true, Ordering::Release);
        for thread in self.threads {
            // The panic of a thread has been printed where it happened.
            drop(thread.join());
        }
        self.shared.failed.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

fn use_service(shared: &Shared, seed: u64) {
    let mut random = Random(seed);
    let mut pace = Pace::default();
    while !shared.is_stopping() {
        if use_connection(shared, &mut random, &mut pace).is_err() {
            shared.failed.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn use_connection(shared: &Shared, random: &mut Random, pace: &mut Pace) -> io::Result<()> {
    let mut connection = Connection::open(shared.service)?;
    for _ in 0..REQUESTS {
        if shared.is_stopping() {
            break;
        }
        let started = Instant::now();
        let (method, target, body) = make_request(random, &shared.vocabulary);
        let (status, _) = connection.ask(method, &target, &body)?;
        // Not every document that is asked for is still there.
        if !matches!(status, 200 | 201 | 404) {
            shared.failed.fetch_add(1, Ordering::Relaxed);
        }
        pace.pause_after(started.elapsed());
    }
    Ok(())
}

/// A client's end of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    received: Received,
}

impl Connection {
    pub(crate) fn open(service: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(service)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            received: Received::default(),
        })
    }

    /// The answer to a request: its status and its body.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        target: &str,
        body: &[u8],
    ) -> io::Result<(u16, Vec<u8>)> {
        self.stream
            .write_all(&http::request(method, target, body))?;
        let mut chunk = [0; 16 << 10];
        loop {
            let response = self.received.take_response();
            if let Some(response) = response.map_err(|_| io::ErrorKind::InvalidData)? {
                return Ok(response);
            }
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.received.extend(&chunk[..length]),
            }
        }
    }
}

fn make_request(random: &mut Random, vocabulary: &[String]) -> (&'static str, String, Vec<u8>) {
    match random.below(1000) {
        0..400 => {
            let id = random.below(DOCUMENTS);
            let document = write_document(random, vocabulary);
            // A struct of strings has a JSON form.
            let body = serde_json::to_vec(&document).unwrap_or_default();
            ("PUT", format!("/documents/{id}"), body)
        }
        400..800 => {
            // Some documents are read a lot, most hardly ever.
            let id = random.skewed_below(DOCUMENTS);
            ("GET", format!("/documents/{id}"), Vec::new())
        }
        800..995 => {
            let words: Vec<&str> = (0..=random.below(3))
                .map(|_| pick_word(random, vocabulary))
                .collect();
            ("GET", format!("/search?q={}", words.join("+")), Vec::new())
        }
        _ => ("GET", "/report".to_owned(), Vec::new()),
    }
}

fn write_document(random: &mut Random, vocabulary: &[String]) -> Document {
    // As many short documents as there are long ones, on a scale of powers.
    let length = LENGTHS.start * (LENGTHS.end / LENGTHS.start).powf(random.fraction());
    let mut left = length as usize;
    let mut paragraphs = Vec::new();
    while left > 0 {
        let paragraph = write_paragraph(random, vocabulary, left.min(800));
        left = left.saturating_sub(paragraph.len());
        paragraphs.push(paragraph);
    }
    Document {
        title: write_sentence(random, vocabulary, 4),
        author: format!("{} & Co.", spell(random.skewed_below(AUTHORS))),
        tags: (0..random.below(4))
            .map(|_| pick_word(random, vocabulary).to_owned())
            .collect(),
        paragraphs,
    }
}

/// A paragraph of at least so many bytes.
fn write_paragraph(random: &mut Random, vocabulary: &[String], length: usize) -> String {
    let mut paragraph = String::with_capacity(length + 200);
    while paragraph.len() < length {
        if !paragraph.is_empty() {
            paragraph.push(' ');
        }
        let words = 5 + random.below(15);
        paragraph.push_str(&write_sentence(random, vocabulary, words));
        paragraph.push('.');
    }
    paragraph
}

fn write_sentence(random: &mut Random, vocabulary: &[String], words: u64) -> String {
    let mut sentence = String::new();
    for number in 0..words {
        let word = pick_word(random, vocabulary);
        if number > 0 {
            sentence.push(' ');
            sentence.push_str(word);
        } else {
            let mut letters = word.chars();
            sentence.extend(letters.next().into_iter().flat_map(char::to_uppercase));
            sentence.push_str(letters.as_str());
        }
    }
    sentence
}

fn pick_word<'a>(random: &mut Random, vocabulary: &'a [String]) -> &'a str {
    let number = random.skewed_below(vocabulary.len() as u64);
    vocabulary.get(number as usize).map_or("", String::as_str)
}

/// The word of that number: its digits as syllables, so that frequent words are short.
fn spell(mut number: u64) -> String {
    const SYLLABLES: [&str; 16] = [
        "ba", "ce", "di", "fo", "gu", "ha", "ke", "li", "mo", "nü", "ra", "se", "ti", "vo", "wu",
        "zä",
    ];
    let mut word = String::new();
    loop {
        word.push_str(SYLLABLES[(number % 16) as usize]);
        number /= 16;
        if number == 0 {
            return word;
        }
        number -= 1;
    }
}

/// What a client owes in pauses.
#[derive(Debug, Default)]
struct Pace {
    owed: Duration,
}

impl Pace {
    fn pause_after(&mut self, busy: Duration) {
        self.owed += busy * PAUSE;
        if self.owed >= SHORTEST_SLEEP {
            let before = Instant::now();
            thread::sleep(self.owed.min(PATIENCE));
            // A sleep that was too long makes the next one shorter.
            self.owed = self.owed.saturating_sub(before.elapsed());
        }
    }
}

/// SplitMix64: the same requests in every run.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// From 0 up to, not including, 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `limit`, all as likely.
    fn below(&mut self, limit: u64) -> u64 {
        // The bias is limit / 2^64.
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// A number below `limit`, the smaller the likelier: as often as words are used (Zipf's law).
    fn skewed_below(&mut self, limit: u64) -> u64 {
        let rank = ((limit + 1) as f64).powf(self.fraction()) as u64;
        rank.clamp(1, limit) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;
    use std::collections::HashSet;

    #[test]
    fn words_differ() {
        let words: HashSet<String> = (0..VOCABULARY).map(spell).collect();
        assert_eq!(words.len() as u64, VOCABULARY);
    }

    #[test]
    fn documents_are_valid_and_of_all_lengths() {
        let vocabulary: Vec<String> = (0..VOCABULARY).map(spell).collect();
        let mut random = Random(1);
        let lengths: Vec<usize> = (0..300)
            .map(|_| {
                let document = write_document(&mut random, &vocabulary);
                let json = serde_json::to_vec(&document).unwrap();
                document::parse(&json).unwrap();
                json.len()
            })
            .collect();
        assert!(lengths.iter().any(|length| *length < 500));
        assert!(lengths.iter().any(|length| *length > 60_000));
        assert!(lengths.iter().all(|length| *length < 120_000));
    }

    #[test]
    fn a_seed_gives_the_same_requests_again() {
        let vocabulary: Vec<String> = (0..100).map(spell).collect();
        let (mut one, mut two) = (Random(7), Random(7));
        for _ in 0..50 {
            assert_eq!(
                make_request(&mut one, &vocabulary),
                make_request(&mut two, &vocabulary)
            );
        }
    }

    #[test]
    fn small_numbers_are_likelier_and_large_ones_occur() {
        let mut random = Random(3);
        let drawn: Vec<u64> = (0..10_000).map(|_| random.skewed_below(100)).collect();
        assert!(drawn.iter().all(|number| *number < 100));
        assert!(drawn.contains(&0) && drawn.contains(&99));
        let small = drawn.iter().filter(|number| **number < 10).count();
        assert!((4_000..7_000).contains(&small), "{small}");
    }
}

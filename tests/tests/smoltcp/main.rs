//! The smoltcp server over a simulated network, in virtual time.

#![forbid(unsafe_code)]

mod network;
mod world;

use picoprof_tests::hostile::bad_requests;
use picoprof_tests::http::{Response, parse_answers, request};
use picoprof_tests::model::{Model, talk};
use proptest::prelude::*;
use smoltcp::phy::Medium;
use smoltcp::time::{Duration, Instant};

use self::network::Faults;
use self::world::{Outcome, Sizes, World};

const HEAD: usize = 512;
const TINY: Sizes = Sizes {
    received: 16,
    to_send: 64,
};

fn model() -> Box<Model> {
    let model = Box::<Model>::default();
    model.sample_cpu(&[0x1001, 0x2003], None, 3);
    model.sample_cpu(&[0x1007, 0x2003, 0x3004], None, 5);
    model.allocate(&[0x4001, 0x2003, 0x3004], 0x10_0000, 100);
    model.create_thread(&[0x1234, 0x3004]);
    model.wait(&[0x2222, 0x3004], 1_000_000);
    model.release(&[0x2223, 0x3004], 1_000_000);
    model
}

fn get(target: &str) -> Vec<u8> {
    request("GET", &format!("/debug/pprof/{target}"), &[], b"")
}

/// The last request of a connection.
fn get_last(target: &str) -> Vec<u8> {
    let target = format!("/debug/pprof/{target}");
    request("GET", &target, &["Connection: close"], b"")
}

/// Every endpoint in every form, and some errors.
fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let targets = [
        "",
        "cmdline",
        "symbol",
        "symbol?0x1001+0x1002",
        "profile?seconds=1",
        "profile?seconds=x&hz=50",
        "heap",
        "heap?gc=1",
        "heap?debug=1",
        "heap?seconds=2",
        "allocs",
        "allocs?debug=1",
        "threadcreate",
        "threadcreate?debug=1",
        "block",
        "block?debug=1&all=1",
        "mutex",
        "mutex?seconds=1",
        "goroutine",
        "goroutine?debug=1",
        "goroutine?debug=2",
        "nothing",
        "heap?seconds=-1",
    ];
    let mut requests: Vec<_> = targets.map(|target| ("GET", get(target))).into();
    requests.push((
        "POST",
        request("POST", "/debug/pprof/symbol", &[], b"0x1001+0x1002+0x3"),
    ));
    requests.push(("HEAD", request("HEAD", "/debug/pprof/heap", &[], b"")));
    requests.push(("PUT", request("PUT", "/debug/pprof/heap", &[], b"a body")));
    requests.push((
        "GET",
        request(
            "GET",
            "/debug/pprof/cmdline",
            &[],
            b"a body that is not asked for",
        ),
    ));
    requests
}

/// What the connection itself says to these, one after another, without a network.
fn expected(methods: &[&str], bytes: &[u8]) -> Vec<Response> {
    let said = talk::<HEAD>(&model(), &[bytes], 1024).sent;
    let answers = parse_answers(&said, methods).expect("HTTP");
    assert_eq!(answers.len(), methods.len());
    comparable(answers)
}

/// How long a profile took depends on the network.
fn comparable(mut answers: Vec<Response>) -> Vec<Response> {
    for answer in &mut answers {
        if answer.header("content-type") == Some("application/octet-stream")
            && !answer.body.is_empty()
        {
            let mut profile = picoprof_tests::profile::decode(&answer.body).expect("a profile");
            profile.duration_nanos = 0;
            answer.body = prost::Message::encode_to_vec(&profile);
        }
    }
    answers
}

// ---- what is said

#[test]
fn every_answer_is_that_of_the_connection_itself() {
    let requests = requests();
    let methods = requests.iter().map(|(method, _)| *method);
    let methods: Vec<&str> = methods.chain(["GET"]).collect();
    let all: Vec<u8> = requests
        .iter()
        .flat_map(|(_, bytes)| bytes.clone())
        .chain(get_last("cmdline"))
        .collect();
    let expected = expected(&methods, &all);
    for (here, there) in [
        (Sizes::ROOMY, Sizes::ROOMY),
        (TINY, Sizes::ROOMY),
        (Sizes::ROOMY, TINY),
        (TINY, TINY),
        (
            Sizes {
                received: 1,
                to_send: 1,
            },
            Sizes::ROOMY,
        ),
    ] {
        for medium in [Medium::Ip, Medium::Ethernet] {
            let faults = Faults {
                medium,
                ..Faults::NONE
            };
            // Pipelined, on one connection.
            let model = model();
            let mut world = World::<2, HEAD>::new(&model, faults, here);
            let peer = world.ask(there, &all);
            world.run_to_end(&[peer]);
            assert_eq!(comparable(world.answers(peer, &methods)), expected);
            let accepted = world.server.counters().accepted;
            assert_eq!((world.end(peer), accepted), (Some(Outcome::Closed), 1));
        }
    }
}

#[test]
fn connections_are_kept_between_requests_for_a_minute() {
    let model = model();
    let mut world = World::<2, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    let peer = world.connect(Sizes::ROOMY);
    for n in 1..=20 {
        world.send(peer, &get("cmdline"));
        world.run_until_answered(peer, n);
        world.run_for(Duration::from_secs(40));
        assert_eq!(world.end(peer), None);
    }
    let asked = world.now - Duration::from_secs(40);
    world.run_to_end(&[peer]);
    assert_eq!(world.end(peer), Some(Outcome::Closed));
    let idle = world.now - asked;
    assert!((60_000..60_100).contains(&idle.total_millis()), "{idle}");
    assert_eq!(world.server.counters().accepted, 1);
}

#[test]
fn bad_requests_get_clear_answers() {
    let of_a_foreign_site = b"GET /debug/pprof/ HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec();
    for (status, bytes) in bad_requests().into_iter().chain([(403, of_a_foreign_site)]) {
        for here in [Sizes::ROOMY, TINY] {
            let model = model();
            let mut world = World::<2, HEAD>::new(&model, Faults::NONE, here);
            let peer = world.ask(Sizes::ROOMY, &bytes);
            world.run_until(|world| world.answered(peer) == 1);
            let head = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            assert_eq!(world.answers(peer, &[])[0].status, status, "{head:?}");
            // The next is served.
            let next = world.ask(Sizes::ROOMY, &get_last("cmdline"));
            world.run_to_end(&[next]);
            assert_eq!(world.answers(next, &[])[0].status, 200, "{head:?}");
        }
    }
}

#[test]
fn a_client_that_sends_on_has_its_answer_before_it_is_cut_off() {
    let model = model();
    let mut world = World::<2, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    let endless = vec![b'x'; 64 << 20];
    let peer = world.ask(Sizes::ROOMY, &endless);
    world.run_until_answered(peer, 1);
    let answered = world.now;
    assert_eq!(world.answers(peer, &[])[0].status, 431);
    world.run_until(|world| world.listening() == 2);
    let lingered = world.now - answered;
    // At once if it closes its side, as this one does; in a second if it doesn't.
    assert!(lingered.total_millis() < 1_500, "{lingered}");
}

/// Or four clients that make a connection for each request would use up eight sockets, and be refused.
#[test]
fn a_client_that_has_closed_makes_room_at_once() {
    let model = model();
    let mut world = World::<2, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    let peer = world.ask(Sizes::ROOMY, &get_last("cmdline"));
    world.run_until_answered(peer, 1);
    let answered = world.now;
    world.run_until(|world| world.listening() == 2);
    let took = world.now - answered;
    assert!(took.total_millis() < 100, "{took}");
}

#[test]
fn a_client_that_sends_all_before_it_reads_gets_its_answer() {
    let model = model();
    let mut world = World::<1, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    let peer = world.connect(Sizes::ROOMY);
    world.set_reads(peer, false);
    // More than the server reads of it, and than any buffer holds.
    let body = vec![b'b'; 1 << 20];
    world.send(peer, &request("GET", "/debug/pprof/cmdline", &[], &body));
    world.run_until(|world| world.unsent(peer) == 0);
    world.set_reads(peer, true);
    world.run_to_end(&[peer]);
    assert_eq!(world.end(peer), Some(Outcome::Closed));
    assert_eq!(world.answers(peer, &[])[0].status, 200);
}

#[test]
fn a_profile_is_answered_when_its_time_is_over() {
    let model = model();
    let mut world = World::<2, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    let peer = world.ask(Sizes::ROOMY, &get("profile?seconds=7"));
    world.run_until_answered(peer, 1);
    let took = world.now.total_micros();
    assert!((7_000_000..7_002_000).contains(&took), "{took}");
    let answers = world.answers(peer, &[]);
    let profile = picoprof_tests::profile::decode(&answers[0].body).expect("a profile");
    assert_eq!(profile.duration_nanos, 7_000_000_000);
}

// ---- clients that go

#[test]
fn a_client_that_closes_its_side_is_still_answered() {
    for sizes in [Sizes::ROOMY, TINY] {
        let model = model();
        let mut world = World::<2, HEAD>::new(&model, Faults::NONE, sizes);
        let peer = world.ask(
            Sizes::ROOMY,
            &[get("heap"), get("goroutine?debug=2")].concat(),
        );
        world.finish(peer);
        world.run_to_end(&[peer]);
        assert_eq!(world.end(peer), Some(Outcome::Closed));
        let methods = ["GET"; 2];
        let bytes = [get("heap"), get("goroutine?debug=2")].concat();
        assert_eq!(
            comparable(world.answers(peer, &methods)),
            expected(&methods, &bytes)
        );
    }
}

#[test]
fn a_client_that_goes_ends_its_profile_at_once() {
    // More requests than there's room for may follow.
    for pipelined in [0, 3, 40] {
        for resets in [false, true] {
            let model = model();
            let mut world = World::<2, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
            let mut bytes = get("profile?seconds=3600");
            bytes.extend(get("cmdline").repeat(pipelined));
            let peer = world.ask(Sizes::ROOMY, &bytes);
            world.run_until(|_| model.is_sampling());
            world.run_for(Duration::from_secs(100));
            assert!(model.is_sampling() && world.end(peer).is_none());
            let polls = world.polls;
            assert!(polls < 60, "{polls} polls in 100 seconds of nothing");
            // A second one meanwhile is refused, and keeps its connection.
            let second = world.ask(Sizes::ROOMY, &get_last("profile?seconds=1"));
            world.run_to_end(&[second]);
            assert_eq!(world.answers(second, &[])[0].status, 500);
            let gone = world.now;
            if resets {
                world.reset(peer);
            } else {
                world.finish(peer);
            }
            world.run_until(|_| !model.is_sampling());
            assert!(world.now - gone < Duration::from_millis(1), "{pipelined}");
            world.run_until(|world| world.listening() == 2);
            assert!(world.received(peer).is_empty());
        }
    }
}

/// The same of a trace; and one to its end. There is one at a time, so this is the only test of it here.
#[test]
fn a_trace_is_sent_while_it_is_taken() {
    let model = model();
    model.keep_trace();
    for sizes in [Sizes::ROOMY, TINY] {
        let mut world = World::<2, HEAD>::new(&model, Faults::NONE, sizes);
        let peer = world.ask(Sizes::ROOMY, &get_last("trace?seconds=3"));
        world.run_for(Duration::from_secs(2));
        assert!(world.received(peer).starts_with(b"HTTP/1.1 200 OK"));
        let polls = world.polls;
        assert!((100..2000).contains(&polls), "{polls} polls in 2 seconds");
        world.run_to_end(&[peer]);
        let took = world.now.total_micros();
        assert!((3_000_000..3_100_000).contains(&took), "{took}");
        let answers = world.answers(peer, &[]);
        let _whole = picoprof_tests::trace::Trace::of(&answers[0].body);
    }
    // More requests than there's room for may follow.
    for pipelined in [0, 3, 40] {
        for resets in [false, true] {
            let mut world = World::<2, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
            let mut bytes = get("trace?seconds=3600");
            bytes.extend(get("cmdline").repeat(pipelined));
            let peer = world.ask(Sizes::ROOMY, &bytes);
            world.run_for(Duration::from_secs(100));
            assert!(picoprof::trace::is_on() && world.end(peer).is_none());
            let second = world.ask(Sizes::ROOMY, &get_last("trace"));
            world.run_to_end(&[second]);
            assert_eq!(world.answers(second, &[])[0].status, 500);
            let gone = world.now;
            if resets {
                world.reset(peer);
            } else {
                world.finish(peer);
            }
            world.run_until(|_| !picoprof::trace::is_on());
            assert!(world.now - gone < Duration::from_millis(1), "{pipelined}");
            world.run_until(|world| world.listening() == 2);
        }
    }
    // One that takes nothing is given up, though there's ever more for it.
    let mut world = World::<2, HEAD>::new(&model, Faults::NONE, TINY);
    let peer = world.connect(TINY);
    world.set_reads(peer, false);
    world.send(peer, &get("trace?seconds=3600"));
    world.run_until(|world| world.end(peer).is_some());
    assert_eq!(world.end(peer), Some(Outcome::Reset));
    assert!(world.now.secs() < 40 && !picoprof::trace::is_on());
}

#[test]
fn a_client_that_vanishes_is_missed() {
    let model = model();
    let mut world = World::<2, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    world.ask(Sizes::ROOMY, &get("profile?seconds=3600"));
    world.run_until(|_| model.is_sampling());
    world.run_for(Duration::from_secs(300));
    assert!(model.is_sampling(), "it answers when it is asked");
    let gone = world.now;
    world.link.borrow_mut().is_cut = [true; 2];
    world.run_until(|_| !model.is_sampling());
    let missed = world.now - gone;
    assert!((50..=61).contains(&missed.secs()), "{missed}");
    world.run_until(|world| world.listening() == 2);
    assert_eq!(world.server.counters().reset, 1);
}

#[test]
fn a_reset_in_the_middle_of_an_answer_costs_nobody_else_anything() {
    let model = model();
    let mut world = World::<2, HEAD>::new(&model, Faults::NONE, TINY);
    for at in 0..200 {
        let peer = world.ask(TINY, &get("goroutine?debug=2"));
        let begun = world.now;
        // At every stage, from the SYN on.
        world.run_for(Duration::from_micros(37 * at));
        world.reset(peer);
        assert!(begun <= world.now);
        let other = world.ask(Sizes::ROOMY, &get_last("cmdline"));
        world.run_to_end(&[peer, other]);
        assert_eq!(world.answers(other, &[]).len(), 1, "{at}");
        world.run_until(|world| world.listening() == 2);
        world.forget_ended();
    }
    assert!(world.server.counters().reset > 50);
}

#[test]
fn a_client_that_never_reads_is_given_up() {
    for (sizes, target) in [(Sizes::ROOMY, "cmdline"), (Sizes::ROOMY, ""), (TINY, "")] {
        let model = model();
        let mut world = World::<2, HEAD>::new(&model, Faults::NONE, sizes);
        let peer = world.connect(TINY);
        world.set_reads(peer, false);
        world.send(peer, &get(target).repeat(50));
        world.run_for(Duration::from_secs(29));
        assert_eq!(world.end(peer), None);
        // Others are served meanwhile.
        let other = world.ask(Sizes::ROOMY, &get_last("heap"));
        world.run_to_end(&[other]);
        assert_eq!(world.end(other), Some(Outcome::Closed));
        world.run_until(|world| world.end(peer).is_some());
        assert_eq!(world.end(peer), Some(Outcome::Reset));
        let took = world.now.total_millis();
        assert!((30_000..30_500).contains(&took), "{took}");
        assert_eq!(world.server.counters().stalled, 1);
        world.run_until(|world| world.listening() == 2);
    }
}

#[test]
fn a_client_that_reads_slowly_is_not_given_up() {
    let model = model();
    let mut world = World::<2, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    let peer = world.connect(Sizes {
        received: 600,
        ..TINY
    });
    world.set_reads(peer, false);
    world.send(peer, &get_last(""));
    while world.end(peer).is_none() {
        world.run_for(Duration::from_secs(25));
        world.set_reads(peer, true);
        world.set_reads(peer, false);
    }
    assert_eq!(world.end(peer), Some(Outcome::Closed));
    assert!(world.now > Instant::from_secs(60));
    assert_eq!(world.answers(peer, &[])[0].status, 200);
}

#[test]
fn a_head_that_does_not_end_is_timed_out() {
    let model = model();
    let mut world = World::<2, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    let peer = world.ask(Sizes::ROOMY, b"GET /debug");
    for _ in 0..9 {
        world.run_for(Duration::from_secs(1));
        world.send(peer, b"/");
    }
    assert_eq!(world.answered(peer), 0);
    world.run_to_end(&[peer]);
    assert_eq!(world.answers(peer, &[])[0].status, 408);
    let took = world.now.total_millis();
    assert!((10_000..10_100).contains(&took), "{took}");
}

// ---- many clients

#[test]
fn all_sockets_serve_at_once_and_more_clients_are_refused() {
    let model = model();
    let mut world = World::<4, HEAD>::new(&model, Faults::NONE, TINY);
    let peers = [(); 4].map(|()| world.ask(Sizes::ROOMY, &get_last("heap?seconds=20")));
    world.run_for(Duration::from_secs(10));
    let late = world.ask(Sizes::ROOMY, &get_last("cmdline"));
    world.run_to_end(&[late]);
    assert_eq!(world.end(late), Some(Outcome::Reset));
    world.run_to_end(&peers);
    for peer in peers {
        assert_eq!(world.answers(peer, &[])[0].status, 200);
    }
    assert_eq!(world.server.counters().full, 1);
    world.run_until(|world| world.listening() == 4);
    let next = world.ask(Sizes::ROOMY, &get_last("cmdline"));
    world.run_to_end(&[next]);
    assert_eq!(world.answers(next, &[]).len(), 1);
}

#[test]
fn a_client_that_asks_without_end_leaves_others_their_turn() {
    let model = model();
    let mut world = World::<2, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    let greedy = world.ask(Sizes::ROOMY, &get("goroutine?debug=2").repeat(20_000));
    world.run_for(Duration::from_millis(20));
    let begun = world.now;
    let other = world.ask(Sizes::ROOMY, &get_last("cmdline"));
    world.run_to_end(&[other]);
    let took = world.now - begun;
    assert!(took < Duration::from_millis(5), "{took}");
    assert!(world.end(greedy).is_none());
}

#[test]
fn idle_connections_keep_nobody_out_for_long() {
    for takes_notice in [true, false] {
        let model = model();
        let mut world = World::<4, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
        let mut idle = Vec::new();
        for n in 0..20 {
            let peer = world.connect(Sizes::ROOMY);
            // Some have not asked for anything yet.
            if n % 3 != 0 {
                world.send(peer, &get("cmdline"));
                world.run_until_answered(peer, 1);
            }
            if !takes_notice {
                world.stay(peer);
            }
            world.run_for(Duration::from_millis(50));
            idle.push(peer);
            let open = idle.iter().filter(|peer| world.end(**peer).is_none());
            assert_eq!(open.count(), idle.len().min(4), "{n}");
            // It's the one that is idle for longest that goes.
            world.run_for(Duration::from_millis(550));
            let open = idle.iter().filter(|peer| world.end(**peer).is_none());
            assert_eq!(open.count(), idle.len().min(3), "{n}");
            assert_eq!(world.end(peer), None);
            assert!(world.listening() >= 1);
        }
        for peer in &idle[..17] {
            assert_eq!(world.end(*peer), Some(Outcome::Closed));
        }
        assert_eq!(world.server.counters().made_room, 17);
    }
}

#[test]
fn clients_that_ask_again_and_again_keep_their_connections() {
    let model = model();
    let mut world = World::<4, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    let peers = [(); 4].map(|()| world.connect(Sizes::ROOMY));
    for n in 1..=100 {
        for peer in peers {
            world.send(peer, &get("cmdline"));
        }
        world.run_until(|world| peers.iter().all(|peer| world.answered(*peer) == n));
        world.run_for(Duration::from_millis(1_900));
    }
    assert_eq!(peers.map(|peer| world.end(peer)), [None; 4]);
    assert_eq!((world.listening(), world.server.counters().full), (0, 1));
}

#[test]
fn a_single_socket_serves_one_client_after_another() {
    let model = model();
    let mut world = World::<1, HEAD>::new(&model, Faults::NONE, TINY);
    for _ in 0..20 {
        // One asks to be the last, one is dismissed.
        for request in [get_last("heap"), get("heap")] {
            let peer = world.ask(Sizes::ROOMY, &request);
            world.run_to_end(&[peer]);
            assert_eq!(world.end(peer), Some(Outcome::Closed));
            assert_eq!(world.answers(peer, &[])[0].status, 200);
            world.run_until(|world| world.listening() == 1);
        }
    }
    assert!(world.now < Instant::from_secs(50), "{}", world.now);
}

#[test]
fn a_client_that_has_its_answer_and_stays_keeps_nobody_out() {
    let model = model();
    let mut world = World::<1, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    for _ in 0..20 {
        let peer = world.ask(Sizes::ROOMY, &get_last("heap"));
        world.stay(peer);
        world.run_until_answered(peer, 1);
        // As long as it takes to acknowledge that.
        world.run_for(Duration::from_millis(20));
        assert_eq!(
            (world.end(peer), world.listening()),
            (Some(Outcome::Closed), 1)
        );
    }
}

#[test]
fn who_begins_to_connect_and_does_not_go_on_keeps_nobody_out() {
    let model = model();
    let mut world = World::<4, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    for from in 100..200 {
        world.forge_syn(from, 5000);
    }
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.listening(), 0);
    let begun = world.now;
    // As clients do, it tries again.
    let peer = loop {
        let peer = world.ask(Sizes::ROOMY, &get_last("cmdline"));
        world.run_to_end(&[peer]);
        if world.end(peer) == Some(Outcome::Closed) {
            break peer;
        }
        world.run_for(Duration::from_millis(200));
    };
    assert_eq!(world.answers(peer, &[])[0].status, 200);
    let took = world.now - begun;
    assert!(took < Duration::from_secs(3), "{took}");
    assert!(world.server.counters().half_open >= 1);
    // The rest is given up in time, even if nobody wants to come.
    world.run_for(Duration::from_secs(40));
    assert_eq!(world.listening(), 4);
    assert_eq!(world.server_wakes(), None);
}

#[test]
fn a_syn_that_comes_again_does_not_end_its_connection() {
    let model = model();
    let mut world = World::<3, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    let first = world.connect(Sizes::ROOMY);
    let second = world.connect_from(60_000, Sizes::ROOMY);
    world.run_for(Duration::from_millis(1));
    world.finish(first);
    world.run_for(Duration::from_millis(1));
    // The first socket listens, the second has its client.
    assert_eq!((world.listening(), world.end(second)), (2, None));
    world.forge_syn(2, 60_000);
    world.run_for(Duration::from_millis(1));
    world.send(second, &get_last("cmdline"));
    world.run_to_end(&[second]);
    assert_eq!(world.answers(second, &[]).len(), 1);
    world.run_until(|world| world.listening() == 3);
    assert_eq!(world.server.counters().accepted, 2);
}

#[test]
fn who_takes_a_connection_back_makes_nobody_wait() {
    let model = model();
    let mut world = World::<1, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    let first = world.connect(Sizes::ROOMY);
    world.run_for(Duration::from_micros(150));
    world.reset(first);
    world.run_for(Duration::from_secs(300));
    assert_eq!(world.listening(), 1);
    // What is sent to the next one is lost, once.
    let second = world.connect(Sizes::ROOMY);
    world.run_for(Duration::from_millis(1));
    world.link.borrow_mut().is_cut[1] = true;
    let asked = world.now;
    world.send(second, &get_last("cmdline"));
    world.run_for(Duration::from_millis(1));
    world.link.borrow_mut().is_cut[1] = false;
    world.run_to_end(&[second]);
    let took = world.now - asked;
    assert!(took < Duration::from_secs(2), "{took}");
}

#[test]
fn thousands_of_connections_leave_nothing_behind() {
    let model = model();
    let mut world = World::<2, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    for n in 0..4_000 {
        // From few ports; each side closes first in turn.
        let peer = world.connect_from(50_000 + n % 3, Sizes::ROOMY);
        if n % 2 == 0 {
            world.send(peer, &get_last("cmdline"));
        } else {
            world.send(peer, &get("cmdline"));
            world.run_until_answered(peer, 1);
            world.finish(peer);
        }
        world.run_to_end(&[peer]);
        assert_eq!((n, world.end(peer)), (n, Some(Outcome::Closed)));
        world.forget_ended();
    }
    // Nobody waited for TIME-WAIT.
    assert!(world.now < Instant::from_secs(20), "{}", world.now);
    assert_eq!(world.server.counters().accepted, 4_000);
    let polls = world.polls / 4_000;
    assert!(polls < 20, "{polls} polls for each");
    world.run_for(Duration::from_secs(12));
    assert_eq!((world.listening(), world.server_wakes()), (2, None));
}

#[test]
fn nobody_there_is_nothing_to_wait_for() {
    let model = model();
    let mut world = World::<4, HEAD>::new(&model, Faults::NONE, Sizes::ROOMY);
    assert_eq!(world.listening(), 4);
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.server_wakes(), None);
}

// ---- bad networks

fn faults() -> impl Strategy<Value = Faults> {
    let delay = (50u64..5_000, 0u64..40_000);
    let media = prop::sample::select(vec![Medium::Ip, Medium::Ethernet]);
    (
        any::<u64>(),
        0u64..100,
        0u64..200,
        delay,
        150usize..1500,
        media,
    )
        .prop_map(
            |(seed, lost, doubled, (least, jitter), mtu, medium)| Faults {
                seed,
                lost,
                doubled,
                delay: (least, least + jitter),
                mtu,
                medium,
            },
        )
}

/// Buffers here and there. Not the smallest: a byte at a time, each of them lost now and then, takes longer than a server
/// waits. And a client has room for all that may be under way to it: smoltcp's fast retransmit takes no notice of the
/// receiver's window, and smoltcp as a receiver takes a FIN for good whose data it had no room for.
fn sizes() -> impl Strategy<Value = (Sizes, Sizes)> {
    (64usize..1200, 64usize..1200, 0usize..1200, 200usize..1200).prop_map(
        |(received, to_send, spare, asked)| {
            let here = Sizes { received, to_send };
            let there = Sizes {
                received: 2 * to_send + spare,
                to_send: asked,
            };
            (here, there)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn bad_networks_change_nothing_of_what_is_said(
        faults in faults(),
        (here, there) in sizes(),
        chosen in prop::collection::vec(prop::collection::vec(0usize..27, 1..5), 1..4),
    ) {
        let requests = requests();
        let model = model();
        let mut world = World::<4, HEAD>::new(&model, faults, here);
        let mut peers = Vec::new();
        for chosen in &chosen {
            let chosen = chosen.iter().map(|at| &requests[at % requests.len()]);
            let (mut methods, pieces): (Vec<_>, Vec<_>) = chosen.cloned().unzip();
            methods.push("GET");
            let bytes = [pieces.concat(), get_last("cmdline")].concat();
            peers.push((world.ask(there, &bytes), methods, bytes));
        }
        let ids: Vec<_> = peers.iter().map(|(peer, ..)| *peer).collect();
        world.run_to_end(&ids);
        let mut refused = 0;
        for (mut peer, methods, bytes) in peers {
            // A network that doubles a SYN and is slow may have two sockets answer, so that a client is refused.
            while world.end(peer) == Some(Outcome::Reset) && world.received(peer).is_empty() {
                refused += 1;
                peer = world.ask(there, &bytes);
                world.run_to_end(&[peer]);
            }
            prop_assert_eq!(world.end(peer), Some(Outcome::Closed), "{:?} {:?}", peer, world);
            let answers = comparable(world.answers(peer, &methods));
            // Only one may sample at a time.
            let expected = expected(&methods, &bytes);
            prop_assert_eq!(answers.len(), expected.len());
            for (answer, expected) in answers.iter().zip(&expected) {
                if answer.status != 500 {
                    prop_assert_eq!(answer, expected);
                }
            }
        }
        prop_assert!(!model.is_sampling() && refused <= 2, "{refused} refused");
        world.run_for(Duration::from_secs(120));
        prop_assert_eq!(world.listening(), 4);
    }

    #[test]
    fn clients_that_go_at_any_time_leave_nothing_behind(
        faults in faults(),
        (here, there) in sizes(),
        deeds in prop::collection::vec((0usize..27, 0u64..400, 0u8..4), 1..8),
    ) {
        let requests = requests();
        let model = model();
        let mut world = World::<3, HEAD>::new(&model, faults, here);
        for (at, millis, deed) in deeds {
            let (_, bytes) = &requests[at % requests.len()];
            let peer = world.ask(there, &bytes.repeat(3));
            world.run_for(Duration::from_millis(millis));
            match deed {
                0 => world.reset(peer),
                1 => world.finish(peer),
                2 => world.set_reads(peer, false),
                _ => {}
            }
        }
        // Idle connections live for a minute, those that do not read for half of one.
        world.run_for(Duration::from_secs(180));
        prop_assert!(!model.is_sampling());
        prop_assert_eq!(world.listening(), 3);
        let last = world.ask(Sizes::ROOMY, &get_last("cmdline"));
        world.run_to_end(&[last]);
        prop_assert_eq!(world.answers(last, &[])[0].status, 200);
    }
}

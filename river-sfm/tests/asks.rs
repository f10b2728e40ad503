//! Questions, posted receives, handlers and templates.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use river_core::testing::threads;
use river_core::{QueueLimit, Result, Vr, VrId, WhenFull};
use river_sfm::{ANY, AskError, Message, RecvError, SendError, Sfm, Template, msg, not, one_of, pat};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(5);

fn run(count: usize, body: impl Fn(&Vr, usize, &[VrId]) -> Result + Sync) {
    threads(count, body).into_iter().collect::<Result<Vec<()>>>().unwrap();
}

#[test]
fn a_reply_reaches_the_question_and_nothing_else() {
    run(2, |vr, index, ids| {
        if index == 0 {
            let first = vr.recv(pat! { ask: ANY })?;
            vr.send(ids[1], msg! { n: "no reply, but any message" })?;
            return Ok(vr.reply(&first, msg! { n: first.get::<i32>("n")? + 1 })?);
        }
        assert_eq!(vr.ask(ids[0], msg! { tag: "next", n: 1 })?.get::<i32>("n")?, 2);
        assert_eq!(vr.recv(pat! {})?.get::<String>("n")?, "no reply, but any message");
        Ok(())
    });
}

#[test]
fn a_question_to_who_is_gone_ends() {
    run(2, |vr, index, ids| {
        if index == 0 {
            vr.recv(pat! { ask: ANY })?;
            return Ok(());
        }
        let error = vr.ask_timeout(ids[0], msg! { tag: "x" }, LONG).unwrap_err();
        assert!(error.is_disconnected() && !error.is_timeout(), "{error}");
        assert!(vr.ask(ids[0], msg! {}).unwrap_err().is_disconnected());
        Ok(())
    });
}

#[test]
fn a_late_reply_is_dropped() {
    run(2, |vr, index, ids| {
        if index == 0 {
            let late = vr.recv(pat! { n: 1 })?;
            let second = vr.recv(pat! { n: 2 })?;
            vr.reply(&late, msg! { n: 1 })?;
            vr.reply(&second, msg! { n: 2 })?;
            vr.reply(&vr.recv(pat! { n: 3 })?, msg! { n: 3 })?;
            return Ok(());
        }
        let error = vr.ask_timeout(ids[0], msg! { n: 1 }, SHORT).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(error.to_string().contains("the reply to {n: 1}"), "{error}");
        assert_eq!(vr.ask(ids[0], msg! { n: 2 })?.get::<i32>("n")?, 2);
        assert_eq!(vr.ask(ids[0], msg! { n: 3 })?.get::<i32>("n")?, 3);
        assert!(vr.queue().messages == 0, "{:?}", vr.queue());
        Ok(())
    });
}

#[test]
fn a_late_reply_of_who_got_the_question_from_one_that_is_gone_is_dropped() {
    run(3, |vr, index, ids| {
        match index {
            0 => {
                let m = vr.recv(pat! { ask: ANY })?;
                vr.forward(ids[1], &m)?;
            }
            1 => {
                let late = vr.recv(pat! { n: 1 })?;
                vr.recv(pat! { gone: true })?;
                vr.reply(&late, msg! { n: 1 })?;
                for n in 2..4 {
                    vr.reply(&vr.recv(pat! { n: n })?, msg! { n: n })?;
                }
            }
            _ => {
                assert!(vr.ask(ids[0], msg! { n: 1 }).unwrap_err().is_disconnected());
                vr.send(ids[1], msg! { gone: true })?;
                for n in 2..4 {
                    assert_eq!(vr.ask(ids[1], msg! { n: n })?.get::<i32>("n")?, n);
                }
                assert_eq!(vr.queue().messages, 0);
            }
        }
        Ok(())
    });
}

#[test]
fn of_any_number_of_late_replies_none_stays() {
    const QUESTIONS: usize = 1000;
    run(2, |vr, index, ids| {
        if index == 0 {
            let late: Vec<Message> = (0..QUESTIONS)
                .map(|_| vr.recv(pat! { late: true }))
                .collect::<std::result::Result<_, _>>()?;
            vr.recv(pat! { tag: "go" })?;
            for question in late {
                vr.reply(&question, msg! {})?;
            }
            vr.send(ids[1], msg! { tag: "gone" })?;
            return Ok(vr.reply(&vr.recv(pat! { src: ids[1], late: false })?, msg! {})?);
        }
        for _ in 0..QUESTIONS {
            assert!(vr.ask_timeout(ids[0], msg! { late: true }, Duration::ZERO).unwrap_err().is_timeout());
        }
        vr.send(ids[0], msg! { tag: "go" })?;
        vr.recv(pat! { tag: "gone" })?;
        assert_eq!(vr.queue().messages, 0);
        vr.ask(ids[0], msg! { late: false })?;
        assert_eq!(vr.queue().messages, 0);
        Ok(())
    });
}

/// A handler may ask in the middle of another question.
#[test]
fn a_handler_may_ask_while_a_late_reply_is_dropped() {
    run(2, |vr, index, ids| {
        if index == 0 {
            let late = vr.recv(pat! { n: 1 })?;
            vr.recv(pat! { tag: "go" })?;
            // It is handled by the same receive that drops the reply.
            vr.reply(&late, msg! { n: 1 })?;
            vr.send(ids[1], msg! { tag: "event" })?;
            vr.send(ids[1], msg! { tag: "now" })?;
            for _ in 0..2 {
                let m = vr.recv(pat! { src: ids[1], ask: ANY, tag: "x" })?;
                vr.reply(&m, msg! {})?;
            }
            return Ok(());
        }
        assert!(vr.ask_timeout(ids[0], msg! { n: 1 }, SHORT).unwrap_err().is_timeout());
        let peer = ids[0];
        let asked = Rc::new(Cell::new(false));
        let has_asked = asked.clone();
        vr.send(peer, msg! { tag: "go" })?;
        vr.recv(pat! { tag: "now" })?;
        let handler = vr.on(pat! { tag: "event" }, move |vr, _| {
            vr.ask(peer, msg! { tag: "x" }).unwrap();
            has_asked.set(true);
        })?;
        vr.ask(peer, msg! { tag: "x" })?;
        assert!(asked.get());
        drop(handler);
        Ok(())
    });
}

#[test]
fn a_forwarded_question_is_answered_by_who_got_it() {
    run(3, |vr, index, ids| {
        match index {
            0 => {
                let m = vr.recv(pat! { ask: ANY })?;
                vr.forward(ids[1], &m)?;
                vr.recv(pat! { over: true })?;
            }
            1 => {
                let m = vr.recv(pat! { src: ids[0], ask: ANY })?;
                vr.reply(&m, msg! { who: vr.id() })?;
            }
            _ => {
                let reply = vr.ask(ids[0], msg! { tag: "who" })?;
                assert_eq!((reply.src(), reply.get("who")), (ids[1], Ok(ids[1])));
                vr.send(ids[0], msg! { over: true })?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_question_can_be_passed_on_as_a_question() {
    run(3, |vr, index, ids| {
        match index {
            0 => {
                let m = vr.recv(pat! { ask: ANY })?;
                let reply = vr.ask(ids[1], m.clone())?;
                vr.reply(&m, reply)?;
            }
            1 => {
                let m = vr.recv(pat! { src: ids[0], ask: ANY })?;
                vr.reply(&m, msg! { n: 2 * m.get::<i32>("n")? })?;
            }
            _ => assert_eq!(vr.ask(ids[0], msg! { n: 4 })?.get::<i32>("n")?, 8),
        }
        Ok(())
    });
}

#[test]
fn the_systems_names_cannot_be_sent() {
    run(1, |vr, _, ids| {
        for name in ["src", "ask"] {
            let error = vr.send(ids[0], Message::new().with(name, &1)).unwrap_err();
            assert_eq!(error, SendError::Reserved(name.into()));
            assert!(matches!(
                vr.ask(ids[0], Message::new().with(name, &1)),
                Err(AskError::Send(SendError::Reserved(_)))
            ));
        }
        vr.send(ids[0], msg! { n: 1 })?;
        assert_eq!(vr.reply(&vr.recv(pat! {})?, msg! {}).unwrap_err(), SendError::NotAsked);
        Ok(())
    });
}

#[test]
fn iterators_take_what_matches() {
    run(1, |vr, _, ids| {
        for n in 0..6 {
            vr.send(ids[0], msg! { n: n, tag: n % 2 })?;
        }
        let n = |m: std::result::Result<Message, RecvError>| m.unwrap().get::<i32>("n").unwrap();
        assert_eq!(vr.try_iter(pat! { tag: 1 }).map(n).collect::<Vec<_>>(), [1, 3, 5]);
        assert_eq!(vr.iter(pat! {}).map(n).take(3).collect::<Vec<_>>(), [0, 2, 4]);
        assert_eq!(vr.try_iter(pat! {}).count(), 0);
        Ok(())
    });
    run(2, |vr, index, ids| {
        if index == 0 {
            return Ok((0..3).try_for_each(|n| vr.send(ids[1], msg! { n: n }))?);
        }
        let all: Vec<_> = vr.iter(pat! { src: ids[0] }).collect();
        assert_eq!(all.len(), 4);
        assert!(matches!(all[3], Err(RecvError::Down(_))));
        Ok(())
    });
}

#[test]
fn posted_receives_get_theirs_in_the_order_in_which_they_were_posted() {
    run(1, |vr, _, ids| {
        let first = vr.post_recv(pat! { n: 1.. })?;
        let mut second = vr.post_recv(pat! { n: ANY })?;
        let taken_back = vr.post_recv(pat! { n: ANY })?;
        for n in [1, 2, 3, 4] {
            vr.send(ids[0], msg! { n: n })?;
        }
        assert_eq!(vr.recv(pat! {})?.get::<i32>("n")?, 4);
        assert_eq!(second.test()?.unwrap().get::<i32>("n")?, 2);
        assert_eq!(first.wait()?.get::<i32>("n")?, 1);
        drop(taken_back);
        assert_eq!(vr.recv(pat! {})?.get::<i32>("n")?, 3);
        let error = vr.post_recv(pat! { n: 9 })?.wait_timeout(SHORT).unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("{n: 9}"), "{error}");
        assert!(matches!(vr.post_recv(pat! { src: 5 }), Err(RecvError::Pattern { .. })));
        Ok(())
    });
}

#[test]
fn handlers_run_inside_any_receive_and_in_order() {
    run(1, |vr, _, ids| {
        let me = ids[0];
        vr.send(me, msg! { tag: "log", n: 0 })?;
        let log = Rc::new(RefCell::new(Vec::new()));
        let seen = log.clone();
        let handler = vr.on(pat! { tag: "log", n: not(9) }, move |_, m| {
            seen.borrow_mut().push(m.get::<i32>("n").unwrap());
        })?;
        vr.send(me, msg! { tag: "log", n: 1 })?;
        assert!(vr.try_recv(pat! { tag: "other" })?.is_none());
        assert_eq!(log.borrow()[..], [0, 1]);
        vr.send(me, msg! { tag: "log", n: 2 })?;
        vr.send(me, msg! { tag: "log", n: 9 })?;
        assert_eq!(vr.recv(pat! {})?.get::<i32>("n")?, 9);
        assert_eq!(log.borrow()[..], [0, 1, 2]);
        drop(handler);
        vr.send(me, msg! { tag: "log", n: 3 })?;
        assert_eq!(vr.recv(pat! {})?.get::<i32>("n")?, 3);
        Ok(())
    });
}

#[test]
fn a_handler_answers_while_its_vr_waits_for_something_else() {
    run(2, |vr, index, ids| {
        let peer = ids[1 - index];
        // Each asks the other while it waits for the other's answer itself.
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        let _handler = vr.on(pat! { tag: "double" }, move |vr, m| {
            count.set(count.get() + 1);
            vr.reply(&m, msg! { n: 2 * m.get::<i32>("n").unwrap() }).unwrap();
        })?;
        assert_eq!(vr.ask(peer, msg! { tag: "double", n: 4 })?.get::<i32>("n")?, 8);
        vr.send(peer, msg! { over: true })?;
        vr.recv(pat! { over: true })?;
        assert_eq!(asked.get(), 1);
        Ok(())
    });
}

#[test]
fn a_handler_may_receive_and_is_not_entered_twice() {
    run(1, |vr, _, ids| {
        let me = ids[0];
        let order = Rc::new(RefCell::new(Vec::new()));
        let (seen, inner) = (order.clone(), order.clone());
        let _outer = vr.on(pat! { tag: "outer" }, move |vr, m| {
            let n: i32 = m.get("n").unwrap();
            vr.recv(pat! { tag: "go" }).unwrap();
            seen.borrow_mut().push(n);
        })?;
        let _other = vr.on(pat! { tag: "inner" }, move |_, _| inner.borrow_mut().push(10))?;
        for m in [
            msg! { tag: "outer", n: 1 },
            msg! { tag: "outer", n: 2 },
            msg! { tag: "inner" },
            msg! { tag: "go" },
            msg! { tag: "go" },
            msg! { tag: "end" },
        ] {
            vr.send(me, m)?;
        }
        vr.recv(pat! { tag: "end" })?;
        assert_eq!(order.borrow()[..], [10, 1, 2]);
        Ok(())
    });
}

#[test]
fn a_template_is_received_by_and_found_in_its_lane() {
    run(2, |vr, index, ids| {
        let peer = ids[1 - index];
        if index == 0 {
            vr.send(peer, msg! { tag: "b", n: 3 })?;
            vr.send(peer, msg! { tag: "a", n: 30 })?;
            vr.send(peer, msg! { tag: "a", n: 3, data: [1u8] })?;
            let template = pat! { src: vr.id(), tag: "a", n: one_of([1..5, 7..9]), data: ANY }.template()?;
            vr.send(peer, msg! { tag: "want", this: template })?;
            vr.recv(pat! { over: true })?;
            return Ok(());
        }
        let want: Template = vr.recv(pat! { tag: "want" })?.get("this")?;
        let m = vr.recv(want.pattern())?;
        assert!(m.has("data") && want.matches(&m));
        vr.send(peer, msg! { over: true })?;
        Ok(())
    });
}

#[test]
fn a_full_queue_is_an_error_that_says_so() {
    run(1, |vr, _, ids| {
        vr.limit_queue(Some(QueueLimit { messages: 2, bytes: usize::MAX, when_full: WhenFull::Refuse }));
        vr.multicast(&[ids[0], ids[0]], msg! { n: 1 })?;
        let error = vr.send(ids[0], msg! { n: 2 }).unwrap_err();
        assert!(error.is_full() && error.to_string().ends_with("its mailbox is full"), "{error}");
        assert!(vr.ask(ids[0], msg! { n: 3 }).is_err());
        assert_eq!(vr.try_iter(pat! { n: 1 }).count(), 2);
        Ok(vr.send(ids[0], msg! { n: 2 })?)
    });
}

#[test]
fn a_posted_receive_that_times_out_shows_near_misses_too() {
    run(1, |vr, _, ids| {
        vr.send(ids[0], msg! { tag: "near", n: 1 })?;
        let posted = || vr.post_recv(pat! { tag: "near", n: 2 });
        let errors = [posted()?.wait_timeout(SHORT), posted()?.wait_deadline(Instant::now())];
        for error in errors.map(|result| result.unwrap_err()) {
            let RecvError::Timeout { queued: 1, near, .. } = &error else { panic!("{error}") };
            assert_eq!((near.len(), &near[0].failed[..]), (1, &["n: 2".to_owned()][..]));
        }
        let posted = vr.post_recv(pat! { n: 1 })?;
        assert_eq!(posted.wait_deadline(Instant::now() + LONG)?.get::<i32>("n")?, 1);
        Ok(())
    });
}

#[test]
fn a_deadline_ends_a_receive_and_a_question_and_what_is_there_is_received() {
    run(2, |vr, index, ids| {
        if index == 0 {
            let late = vr.recv(pat! { n: 1 })?;
            let question = vr.recv_timeout(pat! { n: 2 }, LONG)?;
            vr.reply(&question, msg! { n: 2 })?;
            vr.reply(&late, msg! { n: 1 })?;
            return Ok(());
        }
        let past = Instant::now();
        assert!(vr.recv_deadline(pat! { n: ANY }, past).unwrap_err().is_timeout());
        assert!(vr.ask_deadline(ids[0], msg! { n: 1 }, past).unwrap_err().is_timeout());
        assert_eq!(vr.ask_deadline(ids[0], msg! { n: 2 }, past + LONG)?.get::<i32>("n")?, 2);
        vr.send(ids[1], msg! { n: 3 })?;
        // It is there, though the time is up.
        assert_eq!(vr.recv_deadline(pat! { n: 3 }, past)?.get::<i32>("n")?, 3);
        vr.send(ids[1], msg! { n: 4 })?;
        assert_eq!(vr.recv_deadline(pat! { n: 4 }, Instant::now() + LONG)?.get::<i32>("n")?, 4);
        Ok(())
    });
}

#[test]
fn a_multicast_reaches_all_but_those_that_are_gone() {
    run(4, |vr, index, ids| {
        if index == 3 {
            return Ok(());
        }
        if index > 0 {
            let m = vr.recv(pat! { src: ids[0], tag: "all" })?;
            vr.send(ids[0], msg! { n: m.get::<i32>("n")?, data: m.get::<Vec<i32>>("data")? })?;
            vr.recv(pat! { src: ids[0], tag: "over" })?;
            return Ok(());
        }
        assert!(matches!(vr.recv(pat! { src: ids[3] }), Err(RecvError::Down(_))));
        let all = msg! { tag: "all", n: 5, data: vec![7; 100] };
        let error = vr.multicast(&[ids[3], ids[1], ids[2]], all).unwrap_err();
        assert!(
            matches!(&error, SendError::Core(river_core::SendError::Down(down)) if down.who == ids[3]),
            "{error}"
        );
        for receiver in &ids[1..3] {
            let m = vr.recv_timeout(pat! { src: *receiver }, LONG)?;
            assert_eq!((m.get("n"), m.get("data")), (Ok(5), Ok(vec![7; 100])));
        }
        Ok(vr.multicast(&ids[1..3], msg! { tag: "over" })?)
    });
}

#[test]
fn near_misses_come_first() {
    run(1, |vr, _, ids| {
        for n in 0..20 {
            vr.send(ids[0], msg! { tag: "far", n: n })?;
        }
        vr.send(ids[0], msg! { tag: "near", n: 0, m: 1 })?;
        let error = vr.recv_timeout(pat! { tag: "near", n: 0, m: 2 }, SHORT).unwrap_err();
        let RecvError::Timeout { queued, near, .. } = &error else { panic!("{error}") };
        assert_eq!((*queued, near.len()), (21, 5));
        assert_eq!(near[0].failed, ["m: 2"]);
        assert!(near[0].message.starts_with(r#"{tag: "near", n: 0, m: 1}"#));
        Ok(())
    });
}

use std::cell::RefCell;

use super::*;
use crate::coll::{Input, input, output};
use crate::lend::Region;

/// Records the calls made to it.
#[derive(Default)]
struct Noted(RefCell<Vec<&'static str>>);

impl Noted {
    fn note<R>(&self, what: &'static str, result: R) -> R {
        self.0.borrow_mut().push(what);
        result
    }
}

impl Wire for Noted {
    type Error = Mismatch;

    fn send(&self, _: usize, _: i32, _: &[u8]) -> Result<(), Mismatch> {
        self.note("send", Ok(()))
    }

    fn send_shared(&self, _: usize, _: i32, _: Bytes) -> Result<(), Mismatch> {
        self.note("send", Ok(()))
    }

    fn offers(&self, _: usize, _: usize) -> bool {
        true
    }

    fn offer(&self, _: usize, _: i32, _: &[u8]) -> Result<u64, Mismatch> {
        self.note("offer", Ok(1))
    }

    fn settle(&self, _: u64, _: bool) -> bool {
        self.note("settle", true)
    }

    fn try_receive(&self, _: usize, _: i32) -> Result<Option<Message>, Mismatch> {
        self.receive(0, 0).map(Some)
    }

    fn receive(&self, _: usize, _: i32) -> Result<Message, Mismatch> {
        self.note("receive", Ok(Message::Whole(vec![7].into())))
    }
}

/// Two ranks that waited, before they receive, until the other has read what they offered would deadlock.
#[test]
fn what_is_in_its_place_already_is_not_waited_for() {
    let mut plan = Plan::new();
    plan.send(input(0..1), 1);
    plan.copy(input(0..1), output(1..2));
    plan.recv(output(0..1), 1);
    for in_place in [true, false] {
        let (wire, own) = (Noted::default(), [5]);
        let mut buffer = [0_u8, if in_place { 5 } else { 0 }];
        let input = if in_place { Input::InOutput(1) } else { Input::Apart(Region::read_only(&own)) };
        let (output, scratch) = (Region::new(&mut buffer), Region::new(&mut []));
        let mut memory = Memory { input, output, scratch };
        Execution::new(Rc::new(plan.clone()), 0).run(&wire, &mut memory, &NoOperator).unwrap();
        drop(memory);
        assert_eq!(*wire.0.borrow(), ["offer", "receive", "settle"]);
        assert_eq!(buffer, [7, 5]);
    }
}

/// A wire on which a message arrives while the rank copies.
struct There(RefCell<Option<Message>>);

impl Wire for There {
    type Error = Mismatch;

    fn send(&self, _: usize, _: i32, _: &[u8]) -> Result<(), Mismatch> {
        unreachable!("nothing is sent")
    }

    fn send_shared(&self, _: usize, _: i32, _: Bytes) -> Result<(), Mismatch> {
        unreachable!("nothing is sent")
    }

    fn lends_from(&self, _: usize) -> Option<usize> {
        Some(1)
    }

    fn try_receive(&self, _: usize, _: i32) -> Result<Option<Message>, Mismatch> {
        Ok(self.0.take())
    }

    fn receive(&self, from: usize, tag: i32) -> Result<Message, Mismatch> {
        Ok(self.try_receive(from, tag)?.expect("it was taken before"))
    }
}

#[test]
fn what_comes_while_a_rank_copies_is_received_once_and_checked() {
    let len = 2 * Loan::LONG;
    let (own, theirs) = (vec![5_u8; len], vec![7; len]);
    for (lent, right) in [(true, true), (false, true), (true, false)] {
        let mut plan = Plan::new();
        plan.copy(input(0..len), output(len..2 * len));
        plan.recv(output(0..len), 1);
        let mut lender = Region::read_only(&theirs);
        let theirs = if right { 0..len } else { 0..len - 1 };
        let message = if lent {
            Message::Lent(lender.lend(theirs))
        } else {
            Message::Whole(Bytes::copy_from_slice(lender.part(theirs)))
        };
        let wire = There(RefCell::new(Some(message)));
        let mut buffer = vec![0; 2 * len];
        let input = Input::Apart(Region::read_only(&own));
        let (output, scratch) = (Region::new(&mut buffer), Region::new(&mut []));
        let mut memory = Memory { input, output, scratch };
        let mut execution = Execution::new(Rc::new(plan), 0).with_pieces_of(len);
        let result = execution.run(&wire, &mut memory, &NoOperator);
        drop((memory, wire));
        assert_eq!(result.is_ok(), right);
        assert!(buffer[len..].iter().all(|&byte| byte == 5));
        assert!(!right || buffer[..len].iter().all(|&byte| byte == 7));
    }
}

use river_core::Result;
use river_sfm::{ANY, Message, Pattern, msg, pat};

use super::{Request, Tuples};

fn request(pattern: &Pattern<'_>, wait: bool, number: u64) -> Result<Request> {
    Request::read(msg! { linda: (true, wait, number), template: pattern.template()? })
}

fn values(tuples: Vec<(Request, Option<Message>)>) -> Vec<Option<u8>> {
    tuples.into_iter().map(|(_, tuple)| tuple.and_then(|tuple| tuple.get("n").ok())).collect()
}

#[test]
fn a_space_from_which_all_is_taken_keeps_nothing() -> Result {
    let mut tuples = Tuples::default();
    for n in 0..10_u8 {
        tuples.out(msg! { tag: format!("only {n}"), n: n });
        tuples.out(msg! { n: n });
        let named = pat! { tag: format!("only {n}") };
        assert_eq!(values(tuples.ask(request(&named, true, 1)?)), [Some(n)]);
        assert_eq!(values(tuples.ask(request(&pat! { n: ANY }, true, 2)?)), [Some(n)]);
    }
    assert!(tuples.here.is_empty() && tuples.waiting.is_empty());
    Ok(())
}

#[test]
fn a_tuple_that_nobody_waited_for_any_more_is_given_to_who_does() -> Result {
    let mut tuples = Tuples::default();
    let pattern = pat! { n: ANY };
    assert!(tuples.ask(request(&pattern, true, 1)?).is_empty());
    assert_eq!(values(tuples.out(msg! { n: 7_u8 })), [Some(7)]);
    let client = request(&pattern, true, 2)?.question.src();
    assert!(tuples.ask(request(&pattern, true, 2)?).is_empty());
    assert_eq!(values(tuples.withdraw(client, Some(1))), [Some(7)]);
    assert!(tuples.withdraw(client, Some(1)).is_empty());
    // What was withdrawn before is not given anything.
    assert!(tuples.ask(request(&pattern, true, 3)?).is_empty());
    assert!(tuples.withdraw(client, Some(3)).is_empty());
    assert!(tuples.out(msg! { n: 8_u8 }).is_empty());
    Ok(())
}

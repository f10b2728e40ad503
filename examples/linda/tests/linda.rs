//! The guarantees of Linda, across virtual machines.

use std::collections::HashSet;

use linda::Space;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use river_core::testing::for_each_topology;
use river_core::{Result, VmInfo, Vr};
use river_sfm::{ABSENT, ANY, Message, msg, not, one_of, pat};

fn everywhere(places: usize, body: impl Fn(&Vr, &[VmInfo]) -> Result) {
    for_each_topology(|name, make_vms| {
        river_core::try_run(|vr| body(vr, &make_vms(vr, places)?))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    });
}

#[test]
fn tuples_are_put_read_and_taken() {
    everywhere(2, |vr, vms| {
        let space = Space::create(vr, &vms[0])?;
        space.out(msg! { tag: "point", x: 1, y: 2.5 })?;
        space.out(msg! { tag: "point", x: 2, y: 2.5 })?;
        space.out(msg! { name: "no tag", items: vec![Some("a"), None] })?;
        assert_eq!(space.rd(pat! { x: 1..2 })?.get::<f64>("y")?, 2.5);
        assert_eq!(space.in_(pat! { tag: "point", y: 2.5, x: not(2) })?.get::<i32>("x")?, 1);
        assert!(space.inp(pat! { x: 1 })?.is_none());
        assert!(space.rdp(pat! { x: one_of([1, 2]) })?.is_some());
        assert!(space.rdp(pat! { tag: ABSENT, items: ANY })?.is_some());
        // Tuples keep their source, and a template may require one.
        assert!(space.inp(pat! { src: vr.id(), x: 2 })?.is_some());
        assert!(space.inp(pat! { tag: "point" })?.is_none());

        let error = space.in_(pat! { x: |x: &i32| *x > 1 }).unwrap_err();
        assert!(error.to_string().contains("cannot be sent"), "{error}");
        assert!(space.out(msg! { linda: 1 }).is_err());
        Ok(())
    });
}

#[test]
fn who_waits_is_served_when_the_tuple_comes() {
    everywhere(3, |vr, vms| {
        let space = Space::create(vr, &vms[0])?;
        let reader = |space: &Space<'_>, n: u32| {
            Ok(msg! { reader: n, n: space.rd(pat! { tag: "go" })?.get::<u32>("n")? })
        };
        for (n, vm) in vms.iter().enumerate() {
            space.eval(vm, reader, n as u32)?;
        }
        let taker = |space: &Space<'_>, n: u32| {
            Ok(msg! { taker: n, got: space.in_(pat! { tag: "go" })?.get::<u32>("n")? })
        };
        space.eval(&vms[1], taker, 7)?;
        space.out(msg! { tag: "go", n: 1 })?;
        assert_eq!(space.in_(pat! { taker: ANY })?.get::<u32>("got")?, 1);
        // A reader may have arrived after the tuple had been taken.
        space.out(msg! { tag: "go", n: 2 })?;
        for n in 0..vms.len() {
            assert!(space.in_(pat! { reader: n })?.get::<u32>("n")? <= 2);
        }
        Ok(())
    });
}

/// Takes tickets until there are none left.
fn greedy(space: &Space<'_>, _: ()) -> Result<Message> {
    let mut taken = Vec::new();
    while let Some(ticket) = space.inp(pat! { tag: "ticket" })? {
        taken.push(ticket.get::<u32>("n")?);
    }
    Ok(msg! { taken: taken })
}

#[test]
fn a_tuple_is_taken_once() {
    everywhere(3, |vr, vms| {
        let space = Space::create(vr, &vms[0])?;
        (0..200).try_for_each(|n| space.out(msg! { tag: "ticket", n: n }))?;
        vms.iter().try_for_each(|vm| space.eval(vm, greedy, ()).map(drop))?;
        let mut all = Vec::new();
        for _ in vms {
            all.extend(space.in_(pat! { taken: ANY })?.get::<Vec<u32>>("taken")?);
        }
        assert_eq!(all.len(), 200);
        assert_eq!(all.into_iter().collect::<HashSet<_>>().len(), 200);
        Ok(())
    });
}

#[test]
fn spaces_are_apart_and_shared_by_name() {
    everywhere(2, |vr, vms| {
        let (a, b) = (Space::named(vr, &vms[0], "a")?, Space::named(vr, &vms[0], "b")?);
        a.out(msg! { n: 1 })?;
        assert!(b.inp(pat! {})?.is_none());
        let again = Space::named(vr, &vms[0], "a")?;
        assert_eq!(again.id(), a.id());
        let elsewhere = |space: &Space<'_>, _: ()| Ok(space.in_(pat! { n: 1 })?.with("seen", &true));
        again.eval(&vms[1], elsewhere, ())?;
        assert!(Space::join(vr, a.id()).in_(pat! { seen: true })?.has("n"));
        Ok(())
    });
}

#[test]
fn the_dead_take_nothing_and_their_end_is_told() {
    everywhere(2, |vr, vms| {
        let space = Space::create(vr, &vms[0])?;
        let panics = |space: &Space<'_>, _: ()| -> Result<Message> {
            space.out(msg! { tag: "alive" })?;
            // Waits together with a second one, which panics: both are threads of one host or of two.
            space.rd(pat! { tag: "panic" })?;
            panic!("the tuple is too hot")
        };
        space.eval(&vms[1], panics, ())?;
        space.in_(pat! { tag: "alive" })?;
        space.out(msg! { tag: "panic" })?;
        let error = space.in_(pat! { tag: "never" }).unwrap_err().to_string();
        assert!(error.contains("the tuple is too hot"), "{error}");
        // A tuple that the initiator waited for is not given to that old request.
        space.out(msg! { tag: "after" })?;
        assert!(space.inp(pat! { tag: "after" })?.is_some());
        space.out(msg! { tag: "never" })?;
        assert!(space.inp(pat! { tag: "never" })?.is_some());
        Ok(())
    });
}

#[derive(Clone, Debug)]
enum Step {
    Out(Option<u8>, u8),
    Inp(Option<u8>, Option<u8>),
    Rdp(Option<u8>, Option<u8>),
}

/// A space is a bag of tuples, whatever its index does.
#[test]
fn a_space_is_a_bag() {
    let (tag, n) = (|| prop::option::of(0..2u8), || prop::option::of(0..3u8));
    let step = prop_oneof![
        (tag(), 0..3u8).prop_map(|(tag, n)| Step::Out(tag, n)),
        (tag(), n()).prop_map(|(tag, n)| Step::Inp(tag, n)),
        (tag(), n()).prop_map(|(tag, n)| Step::Rdp(tag, n)),
    ];
    let steps = prop::collection::vec(step, 0..60);
    let name = |tag: u8| ["a", "b"][usize::from(tag)];
    let tag_of = |m: &Message| m.get::<String>("tag").ok().map(|tag| u8::from(tag == "b"));
    river_core::try_run(|vr| {
        let vms = vr.start_local(1)?;
        let mut runner = TestRunner::new(Config { cases: 40, ..Config::default() });
        let result = runner.run(&steps, |steps| {
            let space = Space::create(vr, &vms[0]).unwrap();
            let mut bag: Vec<(Option<u8>, u8)> = Vec::new();
            for step in steps {
                let (found, tag, n, take) = match step {
                    Step::Out(tag, n) => {
                        bag.push((tag, n));
                        let tuple = msg! { n: n };
                        space.out(tag.map_or(tuple.clone(), |tag| tuple.with("tag", name(tag)))).unwrap();
                        continue;
                    }
                    Step::Inp(tag, n) | Step::Rdp(tag, n) => {
                        let mut pattern = pat! { n: ANY };
                        pattern = tag.map_or(pat! { n: ANY }, |tag| pattern.with("tag", name(tag)));
                        pattern = match n {
                            Some(n) => pattern.with("n", n),
                            None => pattern,
                        };
                        let take = matches!(step, Step::Inp(..));
                        let found = if take { space.inp(&pattern) } else { space.rdp(&pattern) };
                        (found.unwrap(), tag, n, take)
                    }
                };
                let fits = |&(of, value): &(Option<u8>, u8)| {
                    tag.is_none_or(|tag| of == Some(tag)) && n.is_none_or(|n| n == value)
                };
                match found {
                    None => prop_assert!(!bag.iter().any(fits)),
                    Some(m) => {
                        let tuple = (tag_of(&m), m.get::<u8>("n").unwrap());
                        let index = bag.iter().position(|other| *other == tuple);
                        prop_assert!(fits(&tuple) && index.is_some());
                        if let (true, Some(index)) = (take, index) {
                            bag.swap_remove(index);
                        }
                    }
                }
            }
            Ok(())
        });
        result.map_err(|error| river_core::VrError::msg(error.to_string()))
    })
    .unwrap();
}

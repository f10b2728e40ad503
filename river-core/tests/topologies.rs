//! Checks that the topologies are as described.

use std::collections::HashSet;

use river_core::testing::for_each_topology;
use river_core::{Channel, Result, Selector, VirtualResource, Vr};
use serde::{Deserialize, Serialize};

const CHANNEL: Channel = Channel::named("test");
const PLACES: usize = 3;

/// Reports on which VM and in which process it is, which process started that, and its links.
#[derive(Serialize, Deserialize)]
struct Whereabouts;

impl VirtualResource for Whereabouts {
    fn main(&mut self, vr: &Vr) -> Result {
        let vm = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        let links = std::env::var("RIVER_LINKS").unwrap_or_default();
        let text = format!("{};{};{vm};{links}", vr.vm(), std::process::id());
        vr.send_bytes(vr.parent().unwrap(), CHANNEL, 0, text.into_bytes())?;
        Ok(())
    }
}

#[test]
fn each_is_what_it_is_called() {
    let seen = std::cell::RefCell::new(Vec::new());
    for_each_topology(|name, make_vms| {
        seen.borrow_mut().push(name.to_owned());
        let texts = river_core::try_run(|vr| {
            let group = vr.deploy(&make_vms(vr, PLACES)?, |_| Whereabouts)?;
            let texts = group.iter().map(|id| {
                let envelope = vr.receive(Selector::on(CHANNEL).from(id))?;
                Ok(String::from_utf8_lossy(&envelope.payload.to_bytes()).into_owned())
            });
            texts.collect::<Result<Vec<String>>>()
        })
        .unwrap();
        let column = |index: usize| -> HashSet<&str> {
            texts.iter().filter_map(|text| text.split(';').nth(index)).collect()
        };
        let own = std::process::id().to_string();
        let (names, hosts, vms) = (column(0), column(1), column(2));
        assert!(!hosts.contains(&*own), "{name}: {texts:?}");
        match name {
            "one VM" => assert_eq!((names.len(), hosts.len(), vms), (1, 1, [&*own].into()), "{texts:?}"),
            "VMs in one process" => {
                assert_eq!((names.len(), hosts.len(), vms), (PLACES, PLACES, [&*own].into()), "{texts:?}");
            }
            "VM processes over TCP" => {
                assert_eq!((names.len(), hosts.len(), vms.len()), (PLACES, PLACES, PLACES), "{texts:?}");
                assert!(!vms.contains(&*own), "{texts:?}");
                assert_eq!(column(3), ["tcp"].into(), "{texts:?}");
            }
            other => panic!("{other}"),
        }
    });
    assert_eq!(seen.borrow().len(), 3);
}

#[test]
fn a_body_may_run_several_programs_with_several_groups() {
    for_each_topology(|name, make_vms| {
        for _ in 0..2 {
            river_core::try_run(|vr| {
                for places in 1..=2 {
                    let group = vr.deploy(&make_vms(vr, places)?, |_| Whereabouts)?;
                    for id in group.iter() {
                        vr.receive(Selector::on(CHANNEL).from(id))?;
                    }
                }
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    });
}

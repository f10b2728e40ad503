//! Programs over virtual machines, real processes on loopback.

use river_core::{Channel, Count, Down, RecvError, Result, Selector, VirtualResource, Vr, Why};
use serde::{Deserialize, Serialize};

const CHANNEL: Channel = Channel::named("test");

#[derive(Serialize, Deserialize)]
struct Greeter {
    number: usize,
}

impl VirtualResource for Greeter {
    fn main(&mut self, vr: &Vr) -> Result {
        let text = format!("{} on {} in process {}", self.number, vr.vm(), std::process::id());
        println!("greeter {} speaks", self.number);
        vr.send_bytes(vr.parent().unwrap(), CHANNEL, 0, text.into_bytes())?;
        Ok(())
    }
}

#[test]
fn vrs_run_on_local_vms_and_report_to_their_parent() {
    let texts = river_core::try_run(|vr| {
        let vms = vr.start_local(3)?;
        let group = vr.deploy(&vms, |number| Greeter { number })?;
        let mut texts = Vec::new();
        for id in group.iter() {
            let envelope = vr.receive(Selector::on(CHANNEL).from(id))?;
            texts.push(String::from_utf8_lossy(&envelope.payload.to_bytes()).into_owned());
        }
        for id in group.iter() {
            let error = vr.receive(Selector::on(CHANNEL).from(id)).unwrap_err();
            assert!(matches!(error, RecvError::Down(Down { why: Why::Finished, .. })), "{error}");
        }
        Ok(texts)
    })
    .unwrap();
    for (i, text) in texts.iter().enumerate() {
        assert!(text.starts_with(&format!("{i} on local-{i}")), "{text}");
        assert!(!text.ends_with(&format!("process {}", std::process::id())), "{text}");
    }
}

#[derive(Serialize, Deserialize)]
enum Fate {
    Panic,
    Fail,
    Exit,
    Kill,
}

impl VirtualResource for Fate {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.send_bytes(vr.parent().unwrap(), CHANNEL, 0, std::process::id().to_le_bytes().to_vec())?;
        eprintln!("last words");
        match self {
            Fate::Panic => panic!("as asked"),
            Fate::Fail => Err(river_core::VrError::msg("cannot go on")),
            Fate::Exit => std::process::exit(3),
            Fate::Kill => {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
                Ok(())
            }
        }
    }
}

fn fate(fate: impl Fn() -> Fate) -> Why {
    river_core::try_run(|vr| {
        let vms = vr.start_local(1)?;
        let group = vr.deploy(&vms, |_| fate())?;
        vr.receive(Selector::on(CHANNEL).from(group[0]))?;
        match vr.receive(Selector::on(CHANNEL)).unwrap_err() {
            RecvError::Down(Down { who, why }) => {
                assert_eq!(who, group[0]);
                Ok(why)
            }
            other => panic!("{other}"),
        }
    })
    .unwrap()
}

#[test]
fn a_panic_is_told_with_its_text() {
    let why = fate(|| Fate::Panic);
    assert!(
        matches!(&why, Why::Panicked(text) if text.contains("as asked") && text.contains("core.rs")),
        "{why}"
    );
}

#[test]
fn an_error_is_told_with_its_text() {
    let why = fate(|| Fate::Fail);
    assert_eq!(why, Why::Failed("cannot go on".into()));
}

#[test]
fn a_host_that_exits_is_told_with_its_code_and_last_lines() {
    let why = fate(|| Fate::Exit);
    let Why::HostDied { vm, how, last_lines } = &why else { panic!("{why}") };
    assert_eq!((vm.as_str(), how.as_str()), ("local-0", "exit code 3"));
    assert_eq!(last_lines.last().map(String::as_str), Some("last words"));
}

#[test]
fn a_host_that_is_killed_is_told_with_the_signal() {
    let why = fate(|| Fate::Kill);
    assert!(matches!(&why, Why::HostDied { how, .. } if how == "signal 9 (SIGKILL)"), "{why}");
}

#[derive(Serialize, Deserialize)]
struct Ring {
    rounds: u64,
}

impl VirtualResource for Ring {
    fn main(&mut self, vr: &Vr) -> Result {
        let next = vr.receive(Selector::on(CHANNEL).from(vr.parent().unwrap()))?;
        let next = river_core::VrId::from_uuid(uuid::Uuid::from_slice(next.payload.head())?);
        for _ in 0..self.rounds {
            let token = vr.receive(Selector::on(CHANNEL))?;
            let count = u64::from_le_bytes(token.payload.head()[..8].try_into()?) + 1;
            vr.send_bytes(next, CHANNEL, 0, count.to_le_bytes().to_vec())?;
        }
        Ok(())
    }
}

#[test]
fn a_token_goes_round_a_ring_of_vrs_that_only_know_names() {
    for (vms, vrs) in [(1, 4), (4, 4)] {
        let count = river_core::try_run(|vr| {
            let vms: Vec<_> = vr.start_local(vms)?.into_iter().cycle().take(vrs).collect();
            let ring = vr.deploy(&vms, |_| Ring { rounds: 100 })?;
            for i in 0..vrs {
                let next = if i + 1 < vrs { ring[i + 1] } else { vr.id() };
                vr.send_bytes(ring[i], CHANNEL, 0, next.as_uuid().as_bytes().to_vec())?;
            }
            let mut count = 0_u64;
            for _ in 0..100 {
                vr.send_bytes(ring[0], CHANNEL, 0, count.to_le_bytes().to_vec())?;
                let token = vr.receive(Selector::on(CHANNEL).from(ring[vrs - 1]))?;
                count = u64::from_le_bytes(token.payload.head()[..8].try_into()?);
            }
            Ok(count)
        });
        assert_eq!(count.unwrap(), 400);
    }
}

#[test]
fn two_programs_never_hold_the_same_vm() {
    let vm = river_core::Vm::start(river_core::VmConfig::default().hidden()).unwrap();
    river_core::try_run(|first| {
        let leased = first.allocate(vec![vm.info()], 1)?;
        let error = river_core::try_run(|second| Ok(second.allocate(vec![vm.info()], 1)?)).unwrap_err();
        assert!(error.to_string().contains("in use by"), "{error}");
        first.release(&leased)?;
        river_core::try_run(|second| Ok(second.allocate(vec![vm.info()], Count::AtLeast(1))?)).unwrap();
        Ok(())
    })
    .unwrap();
}

//! User code that panics in unexpected places, and hosts that leave something behind.

use std::cell::Cell;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use river_core::{
    Channel, DeployError, Down, RecvError, Result, Selector, VirtualResource, Vm, VmConfig, Vr, VrId, Why,
};
use serde::{Deserialize, Deserializer, Serialize};

const CHANNEL: Channel = Channel::named("test");
const OTHER: Channel = Channel::named("other");

/// State that can be encoded, but panics when it is decoded.
#[derive(Debug, Serialize)]
struct Unreadable;

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        panic!("it cannot be read")
    }
}

impl VirtualResource for Unreadable {
    fn main(&mut self, _: &Vr) -> Result {
        Ok(())
    }
}

/// Sends back what it receives.
#[derive(Serialize, Deserialize)]
struct Echo;

impl VirtualResource for Echo {
    fn main(&mut self, vr: &Vr) -> Result {
        let envelope = vr.receive(Selector::on(CHANNEL))?;
        Ok(vr.send_bytes(envelope.src, CHANNEL, 0, envelope.payload)?)
    }
}

#[test]
fn a_state_that_panics_when_it_is_read_is_an_error_and_harms_nobody() {
    river_core::try_run(|vr| {
        let vms = vr.start_local(1)?;
        let echo = vr.deploy(&vms, |_| Echo)?[0];
        let error = vr.deploy(&vms, |_| Unreadable).unwrap_err();
        assert!(matches!(&error, DeployError::State { .. }), "{error}");
        assert!(error.to_string().contains("it cannot be read"), "{error}");
        vr.send_bytes(echo, CHANNEL, 0, vec![7])?;
        assert_eq!(vr.receive(Selector::on(CHANNEL).from(echo))?.payload.head()[..], [7]);
        Ok(())
    })
    .unwrap();
}

/// Panics when it is dropped.
struct Grudge;

impl Drop for Grudge {
    fn drop(&mut self) {
        panic!("it holds a grudge");
    }
}

/// A VR that keeps a value which panics when it is dropped.
#[derive(Serialize, Deserialize)]
struct Resentful;

impl VirtualResource for Resentful {
    fn main(&mut self, vr: &Vr) -> Result {
        let grudge = Grudge;
        std::mem::forget(vr.handle(Selector::on(CHANNEL), |_| true, move |_, _| _ = &grudge));
        Ok(())
    }
}

#[test]
fn what_panics_when_a_vr_ends_is_told_to_those_who_wait_for_it() {
    river_core::try_run(|vr| {
        let id = vr.deploy(&vr.start_local(1)?, |_| Resentful)?[0];
        let error = vr.receive(Selector::on(CHANNEL).from(id)).unwrap_err();
        assert!(
            matches!(&error, RecvError::Down(Down { why: Why::Panicked(text), .. }) if text.contains("grudge")),
            "{error}"
        );
        Ok(())
    })
    .unwrap();
}

/// Starts a process in a group of its own, which keeps inherited files open; then it is killed.
#[derive(Serialize, Deserialize)]
struct Parent;

impl VirtualResource for Parent {
    fn main(&mut self, vr: &Vr) -> Result {
        // The child reads from its parent, and so ends with it, though later than anybody waits.
        let mut child = Command::new("sh");
        child.args(["-c", "while read _; do :; done; sleep 8"]).stdin(Stdio::piped()).process_group(0);
        let child = child.spawn()?;
        vr.send_bytes(vr.parent().unwrap(), CHANNEL, 0, child.id().to_le_bytes().to_vec())?;
        std::mem::forget(child);
        eprintln!("last words");
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
        Ok(())
    }
}

#[test]
fn a_process_that_outlives_its_host_does_not_hide_how_the_host_died() {
    river_core::try_run(|vr| {
        let id = vr.deploy(&vr.start_local(1)?, |_| Parent)?[0];
        vr.receive(Selector::on(CHANNEL).from(id))?;
        let error = vr.receive(Selector::on(CHANNEL).from(id)).unwrap_err();
        let RecvError::Down(Down { why: Why::HostDied { how, last_lines, .. }, .. }) = &error else {
            panic!("{error}")
        };
        assert_eq!(how, "signal 9 (SIGKILL)");
        assert_eq!(last_lines.last().map(String::as_str), Some("last words"));
        Ok(())
    })
    .unwrap();
}

/// A handler may receive envelopes that are behind the one that its VR waits for.
#[test]
fn what_comes_while_a_handler_receives_ends_the_outer_wait() {
    river_core::testing::threads(2, |vr, index, ids| {
        if index == 1 {
            vr.send_bytes(ids[0], OTHER, 0, vec![]).unwrap();
            // Its handler runs now.
            vr.receive(Selector::on(OTHER)).unwrap();
            vr.send_bytes(ids[0], CHANNEL, 1, b"end".to_vec()).unwrap();
            vr.send_bytes(ids[0], CHANNEL, 2, b"go".to_vec()).unwrap();
            return;
        }
        let handler = vr.handle(
            Selector::on(OTHER),
            |_| true,
            |vr, envelope| {
                vr.send_bytes(envelope.src, OTHER, 0, vec![]).unwrap();
                vr.receive(Selector::on(CHANNEL).lane(2)).unwrap();
            },
        );
        let end = vr.receive(Selector::on(CHANNEL).lane(1)).unwrap();
        assert_eq!(&end.payload.head()[..], b"end");
        drop(handler);
    });
}

#[test]
fn a_handler_that_has_panicked_handles_what_comes_next() {
    river_core::testing::threads(1, |vr, _, ids| {
        let handled = Rc::new(Cell::new(0));
        let count = handled.clone();
        let action = move |_: &Vr, _| {
            count.set(count.get() + 1);
            assert!(count.get() != 1, "not the first");
        };
        let handler = vr.handle(Selector::on(OTHER), |_| true, action);
        let mut went_well = Vec::new();
        for _ in 0..3 {
            vr.send_bytes(ids[0], OTHER, 0, vec![]).unwrap();
            vr.send_bytes(ids[0], CHANNEL, 0, vec![]).unwrap();
            let receive = || vr.try_receive_where(Selector::on(CHANNEL), |_| true).unwrap();
            went_well.push(river_core::catch_panic(receive).is_ok());
        }
        assert_eq!((went_well, handled.get()), (vec![false, true, true], 3));
        drop(handler);
    });
}

#[test]
fn a_handler_that_sends_to_its_own_vr_holds_up_nobody_who_does_not_wait() {
    const LAST: u32 = 10_000;
    river_core::testing::threads(1, |vr, _, ids| {
        let me = ids[0];
        let runs = Rc::new(Cell::new(0));
        let count = runs.clone();
        let again = move |vr: &Vr, _| {
            count.set(count.get() + 1);
            if count.get() < LAST {
                vr.send_bytes(me, OTHER, 0, vec![]).unwrap();
            }
        };
        vr.handle(Selector::on(OTHER), |_| true, again).detach();
        vr.send_bytes(me, OTHER, 0, vec![]).unwrap();
        assert!(vr.try_receive_where(Selector::on(CHANNEL), |_| true).unwrap().is_none());
        assert!(vr.post(Selector::on(CHANNEL), |_| true).test().unwrap().is_none());
        let late = vr.receive_until(Selector::on(CHANNEL), Some(Instant::now()), |_| true);
        assert!(matches!(late, Err(RecvError::Timeout { .. })));
        assert!(runs.get() < LAST);
    });
}

#[test]
fn a_posted_receive_gives_its_envelope_once() {
    river_core::testing::threads(1, |vr, _, _| {
        let mut posted = vr.post(Selector::on(CHANNEL), |_| true);
        vr.send_bytes(vr.id(), CHANNEL, 0, vec![1]).unwrap();
        assert!(posted.test().unwrap().is_some());
        assert!(posted.test().unwrap().is_none());
        assert!(matches!(posted.wait(), Err(RecvError::HandedOut)));
    });
}

#[test]
fn patience_may_be_endless() {
    let vm = Vm::start(VmConfig::default().hidden()).unwrap();
    river_core::try_run(|vr| {
        let got = vr.allocate_within(vec![vm.info()], 1, Duration::MAX)?;
        assert_eq!(got.len(), 1);
        Ok(())
    })
    .unwrap();
}

/// Has no file left when it first sends to `to`; then some become free again.
#[derive(Serialize, Deserialize)]
struct Hoarder {
    to: VrId,
}

impl VirtualResource for Hoarder {
    fn main(&mut self, vr: &Vr) -> Result {
        let parent = vr.parent().unwrap();
        vr.send_bytes(parent, OTHER, 0, vec![])?;
        let mut files = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }
        let error = vr.send_bytes(self.to, CHANNEL, 0, vec![]).unwrap_err();
        drop(files);
        vr.send_bytes(self.to, CHANNEL, 0, vec![])?;
        vr.send_bytes(parent, CHANNEL, 0, error.to_string().into_bytes())?;
        Ok(())
    }
}

/// Forwards one message to its parent.
#[derive(Serialize, Deserialize)]
struct Relay;

impl VirtualResource for Relay {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.receive(Selector::on(CHANNEL))?;
        vr.send_bytes(vr.parent().unwrap(), CHANNEL, 0, vec![])?;
        Ok(())
    }
}

#[test]
fn who_has_no_file_left_does_not_take_its_peers_along() {
    let limits = river_core::HostLimits { open_files: Some(100), ..Default::default() };
    let vm = Vm::start(VmConfig::default().hidden().limits(limits)).unwrap();
    river_core::try_run(|vr| {
        let relay = vr.deploy(&vr.start_local(1)?, |_| Relay)?;
        let vms = vr.allocate(vec![vm.info()], 1)?;
        let hoarder = vr.deploy(&vms, |_| Hoarder { to: relay[0] })?;
        vr.receive(Selector::on(CHANNEL).from(relay[0]))?;
        let said = vr.receive(Selector::on(CHANNEL).from(hoarder[0]))?;
        let said = String::from_utf8_lossy(&said.payload.to_bytes()).into_owned();
        assert!(said.contains("from here: Too many open files"), "{said}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_trace_that_cannot_be_written_is_an_error() {
    let traced = || river_core::Launch::new().trace("/dev/full");
    let error = traced().try_run(|_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("cannot write the trace /dev/full"), "{error}");
    // The program's own error comes first.
    let error = traced().try_run(|_| Result::<()>::Err(river_core::VrError::msg("no luck"))).unwrap_err();
    assert_eq!(error.to_string(), "no luck");
}

/// Writes to a pipe that nobody reads.
#[derive(Serialize, Deserialize)]
struct Piper;

impl VirtualResource for Piper {
    fn main(&mut self, _: &Vr) -> Result {
        let (reader, mut writer) = std::io::pipe()?;
        drop(reader);
        writer.write_all(b"hello?")?;
        Ok(())
    }
}

#[test]
fn a_broken_pipe_is_an_error_and_kills_no_host() {
    river_core::try_run(|vr| {
        let piper = vr.deploy(&vr.start_local(1)?, |_| Piper)?;
        let error = vr.receive(Selector::on(CHANNEL).from(piper[0])).unwrap_err();
        assert!(
            matches!(&error, RecvError::Down(Down { why: Why::Failed(text), .. }) if text.contains("Broken pipe")),
            "{error}"
        );
        Ok(())
    })
    .unwrap();
}

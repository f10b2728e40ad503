//! Helpers for the tests of this crate and of the layers above.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::discovery::{self, Announcement, Network, VmState};
use crate::id::{HostId, ProgramId, VmId, VrId};
use crate::key::ClusterKey;
use crate::node::Node;
use crate::protocol::Place;
use crate::rt;
use crate::vr::Vr;

mod topology;

pub use topology::{MakeVms, for_each_topology};

/// Runs `count` VRs as threads of this process, without VMs, and returns their results. Each is passed its number and the ids
/// of all. There are no VMs to discover or deploy on.
///
/// # Panics
/// If one of them does.
pub fn threads<T: Send>(count: usize, body: impl Fn(&Vr, usize, &[VrId]) -> T + Sync) -> Vec<T> {
    let (requests, _) = rt::unbounded();
    let place = Place { host: HostId::fresh(), address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) };
    let key = ClusterKey::from_bytes([0; 32]);
    let node =
        Node::start((place, Network::Loopback), ProgramId::fresh(), "test".into(), key, requests, false);
    let node = node.expect("a node starts");
    let ids: Vec<VrId> = (0..count).map(|_| VrId::fresh()).collect();
    let inboxes: Vec<_> = ids.iter().map(|&id| node.add(id)).collect();
    let results = thread::scope(|scope| {
        let running: Vec<_> = inboxes
            .into_iter()
            .enumerate()
            .map(|(index, inbox)| {
                let (node, ids, body) = (Arc::clone(&node), &ids, &body);
                scope.spawn(move || {
                    let mut result = None;
                    let why = crate::vr::thread::catch(|| {
                        let vr = Vr::new(ids[index], None, node.clone(), inbox);
                        result = Some(body(&vr, index, ids));
                        Ok(())
                    });
                    node.remove(ids[index], &why);
                    result.unwrap_or_else(|| panic!("VR {index} {why}"))
                })
            })
            .collect();
        running.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    results
        .into_iter()
        .map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        .collect()
}

/// Answers searches on a UDP port like a VM of another protocol version, with the key of this user, until the process ends.
///
/// # Panics
/// If there is no key, or the port is taken.
pub fn vm_of_version(port: u16, version: u16) {
    let key = ClusterKey::load_or_create().expect("there is a key");
    let ours = Announcement {
        id: VmId::fresh(),
        name: "foreign".into(),
        port: 1,
        cores: 1,
        memory: 1,
        triple: "foreign".into(),
        labels: Vec::new(),
        state: VmState::Idle,
        uptime: Duration::ZERO,
        version: "foreign".into(),
    };
    for socket in discovery::bind_responder(port).expect("the port is free") {
        let (key, ours) = (key.clone(), ours.clone());
        thread::spawn(move || {
            let mut datagram = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                if let Some(answer) = discovery::answer_as(version, &key, &ours, &datagram[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
    }
}

/// Checks that a crate's modules depend on each other in one direction only, as its `lib.rs` says: under the heading
/// "Layers, lowest first" it lists its modules ("* `name`: ..."), and a module may use only those above it.
///
/// `crate_dir` is the caller's `env!("CARGO_MANIFEST_DIR")`.
///
/// # Panics
/// If a module is not in the list, the list names none, or a module uses one that is not above it.
pub fn check_layers(crate_dir: &str) {
    let src = Path::new(crate_dir).join("src");
    let map = fs::read_to_string(src.join("lib.rs")).expect("lib.rs can be read");
    let layers: Vec<&str> = map
        .lines()
        .skip_while(|line| !line.contains("Layers, lowest first"))
        .filter_map(|line| line.strip_prefix("//! * `")?.split('`').next())
        .collect();
    assert!(!layers.is_empty(), "lib.rs has no list of layers");
    let declared = map.lines().filter_map(|line| line.split("mod ").nth(1)?.strip_suffix(';'));
    for module in declared {
        assert!(layers.contains(&module), "module `{module}` is not in the list of layers");
    }
    let mut wrong = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let files = source_files(&src.join(format!("{layer}.rs"))).chain(source_files(&src.join(layer)));
        for file in files {
            let text = fs::read_to_string(&file).expect("a source file can be read");
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for (above, name) in layers.iter().enumerate().skip(index + 1) {
                let uses = |line: &str| {
                    line.match_indices(&format!("crate::{name}")).any(|(at, found)| {
                        !line[at + found.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
                    })
                };
                if code.clone().any(uses) {
                    wrong.push(format!(
                        "`{layer}` uses `{}`, which is above it ({})",
                        layers[above],
                        file.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns a file, or all files below a directory; nothing if there is no such path.
fn source_files(path: &Path) -> Box<dyn Iterator<Item = PathBuf>> {
    if path.is_file() {
        return Box::new(std::iter::once(path.to_owned()));
    }
    let entries: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().collect();
    Box::new(entries.into_iter().flat_map(|entry| source_files(&entry.path())))
}

#[cfg(test)]
mod tests {
    use crate::envelope::Channel;
    use crate::error::RecvError;
    use crate::mailbox::Selector;
    use crate::{Down, Why};

    const CHANNEL: Channel = Channel::named("test");

    #[test]
    fn vrs_talk_and_learn_of_each_others_end() {
        let results = super::threads(2, |vr, index, ids| {
            let peer = ids[1 - index];
            if index == 0 {
                for i in 0..1000u32 {
                    vr.send_bytes(peer, CHANNEL, 0, i.to_le_bytes().to_vec()).unwrap();
                }
                vr.receive(Selector::on(CHANNEL)).unwrap();
                return None;
            }
            for i in 0..1000u32 {
                let envelope = vr.receive(Selector::on(CHANNEL).from(peer)).unwrap();
                assert_eq!(envelope.payload.head()[..], i.to_le_bytes());
                assert_eq!(envelope.seq, u64::from(i));
            }
            vr.send_bytes(peer, CHANNEL, 0, vec![]).unwrap();
            Some(vr.receive(Selector::on(CHANNEL).from(peer)).unwrap_err())
        });
        assert!(
            matches!(results[1], Some(RecvError::Down(Down { why: Why::Finished, .. }))),
            "{:?}",
            results[1]
        );
    }
}

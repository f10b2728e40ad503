//! Entry points for fuzzers: each function feeds bytes to a decoder of external input, and must return, whatever the bytes
//! are. `river-core/fuzz` has the targets.

use std::io::Cursor;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use crate::discovery::{
    self, Announcement, Query, Search, ServiceAnnouncement, ServiceQuery, Sought, VmState,
};
use crate::frame::Decoder;
use crate::id::{HostId, ProgramId, VmId, VrId};
use crate::image;
use crate::key::ClusterKey;
use crate::noise::{Dialer, FIRST_LEN, Listener, REPLY_LEN};
use crate::protocol::{FromHost, FromProgram, FromVm, Hello, ToHost, ToProgram, ToVm, Visiting, Welcome};
use crate::state::{Base, Header, Origin, Ran, Record, Saved, Twin, file, tape};
use crate::trace::{self, Reader, Run};

fn key() -> ClusterKey {
    ClusterKey::from_bytes([7; 32])
}

/// Decodes frames of a data connection. The first byte sets the size of the pieces in which they arrive.
pub fn frames(bytes: &[u8]) {
    let Some((&size, mut bytes)) = bytes.split_first() else { return };
    let mut decoder = Decoder::new(Arc::default());
    while !bytes.is_empty() {
        let space = decoder.space();
        let n = bytes.len().min(space.len()).min(usize::from(size) + 1);
        space[..n].copy_from_slice(&bytes[..n]);
        decoder.advance(n);
        bytes = &bytes[n..];
        while let Ok(Some(_)) = decoder.next() {}
    }
}

/// Decodes a search's probe, as VMs and programs with services read it: with a valid MAC, as otherwise nothing else is
/// examined.
pub fn probe(bytes: &[u8]) {
    static OURS: OnceLock<Announcement> = OnceLock::new();
    let ours = OURS.get_or_init(|| Announcement {
        id: VmId::fresh(),
        name: "fuzz".into(),
        port: 1,
        cores: 1,
        memory: 1,
        triple: image::host_triple(),
        labels: vec!["label".into()],
        state: VmState::Idle,
        uptime: Duration::ZERO,
        version: "fuzz".into(),
    });
    let for_vms = discovery::sealed_probe::<Announcement>(&key(), bytes);
    let for_services = discovery::sealed_probe::<ServiceAnnouncement>(&key(), bytes);
    for datagram in [bytes, &for_vms, &for_services] {
        let _ = discovery::answer(&key(), ours.id, || ours.clone(), datagram);
        let _ = discovery::answer_service(&key(), HostId::fresh(), datagram, |_| Some(service()));
        let _ = discovery::relayed(&key(), datagram, true);
    }
}

fn service() -> ServiceAnnouncement {
    let (host, vr, program) = (HostId::fresh(), VrId::fresh(), ProgramId::fresh());
    ServiceAnnouncement { host, port: 1, vr, program, process: "fuzz".into() }
}

/// Decodes the answer of a VM, or of a program with a service, as a search reads it.
pub fn answer(bytes: &[u8]) {
    if let Ok(search) = Search::new(&key(), &Query::default()) {
        hear(search, bytes);
    }
    if let Ok(search) = Search::service(&key(), &ServiceQuery { name: "fuzz".into() }) {
        hear(search, bytes);
    }
}

fn hear<A: Sought>(mut search: Search<A>, bytes: &[u8]) {
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    search.handle(bytes, from);
    let sealed = discovery::sealed_answer::<A>(&key(), search.datagram(), bytes);
    let _ = discovery::is_answer(&key(), search.datagram(), &sealed);
    search.handle(&sealed, from);
}

/// Decodes both messages of a handshake.
pub fn handshake(bytes: &[u8]) {
    if let Some(first) = bytes.first_chunk::<FIRST_LEN>() {
        let _ = Listener::accept(&key(), first);
    }
    if let (Some(reply), Ok((dialer, _))) =
        (bytes.first_chunk::<REPLY_LEN>(), Dialer::new(&key(), b"fuzz", false))
    {
        let _ = dialer.finish(reply);
    }
}

/// Decodes the messages of authenticated peers, and what is sent to the twin of a mirrored VR.
pub fn control(bytes: &[u8]) {
    let _ = postcard::from_bytes::<Hello>(bytes);
    let _ = postcard::from_bytes::<Welcome>(bytes);
    let _ = postcard::from_bytes::<ToVm>(bytes);
    let _ = postcard::from_bytes::<FromVm>(bytes);
    let _ = postcard::from_bytes::<ToHost>(bytes);
    let _ = postcard::from_bytes::<FromHost>(bytes);
    let _ = postcard::from_bytes::<Visiting>(bytes);
    let _ = postcard::from_bytes::<ToProgram>(bytes);
    let _ = postcard::from_bytes::<FromProgram>(bytes);
    let id = VrId::fresh();
    let origin = Origin { id, parent: None, code: None, name: "fuzz".into(), program: ProgramId::fresh() };
    let record = Record::new(Base::new(id, Bytes::new()));
    let mut twin = Twin::new(Saved { origin, record, pending: Vec::new() });
    let _ = twin.log(1, bytes);
    let _ = twin.take_over([].into_iter().collect(), |_| false);
}

/// Decodes a checkpoint, or a part of one: also with a valid checksum, as otherwise nothing else is examined.
pub fn checkpoint(bytes: &[u8]) {
    let _ = Saved::decode(bytes);
    let _ = postcard::from_bytes::<Header>(bytes);
    let sealed = file::sealed(bytes).unwrap_or_default();
    for bytes in [bytes, &sealed] {
        let _ = file::read(bytes);
        let _ = file::read_header(Cursor::new(bytes));
    }
}

/// Decodes a recording: also with a valid checksum, as otherwise nothing else is examined.
pub fn recording(bytes: &[u8]) {
    let _ = postcard::from_bytes::<Ran>(bytes);
    for bytes in [bytes, &tape::sealed(bytes)] {
        for stretch in tape::read(bytes).into_iter().flat_map(|content| content.stretches) {
            stretch.record.said().for_each(drop);
        }
    }
}

/// Decodes a trace, and puts it on one clock.
pub fn trace(bytes: &[u8]) {
    for bytes in [bytes, &trace::framed(bytes)] {
        let _ = Reader::new(bytes).map(Run::from_pieces);
    }
}

/// Decodes an executable.
pub fn executable(bytes: &[u8]) {
    let once = image::truncate(bytes.to_vec());
    assert_eq!(image::truncate(once.clone()), once, "cutting twice cuts no more");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Does briefly what a fuzzer does for hours.
        #[test]
        fn every_decoder_survives_anything(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
            for decode in [frames, probe, answer, handshake, control, checkpoint, recording, trace, executable] {
                decode(&bytes);
            }
        }
    }
}

//! Entry points for fuzzers: each function feeds bytes to a decoder of external input, and must return, whatever the bytes
//! are. `river-core/fuzz` has the targets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::discovery::{self, Announcement, Query, VmState};
use crate::frame::Decoder;
use crate::id::VmId;
use crate::image;
use crate::key::ClusterKey;
use crate::noise::{Dialer, FIRST_LEN, Listener, REPLY_LEN};
use crate::protocol::{FromHost, FromVm, Hello, ToHost, ToVm, Visiting, Welcome};

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

/// Decodes a search's probe, as a VM reads it: with a valid MAC, as otherwise nothing else is examined.
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
    let _ = discovery::answer(&key(), ours.id, || ours.clone(), bytes);
    let _ = discovery::answer(&key(), ours.id, || ours.clone(), &discovery::sealed_probe(&key(), bytes));
}

/// Decodes a VM's answer, as a search reads it.
pub fn answer(bytes: &[u8]) {
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    if let Ok(mut search) = discovery::Search::new(&key(), &Query::default()) {
        search.handle(bytes, from);
        let sealed = discovery::sealed_answer(&key(), search.datagram(), bytes);
        search.handle(&sealed, from);
    }
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

/// Decodes the messages of authenticated peers.
pub fn control(bytes: &[u8]) {
    let _ = postcard::from_bytes::<Hello>(bytes);
    let _ = postcard::from_bytes::<Welcome>(bytes);
    let _ = postcard::from_bytes::<ToVm>(bytes);
    let _ = postcard::from_bytes::<FromVm>(bytes);
    let _ = postcard::from_bytes::<ToHost>(bytes);
    let _ = postcard::from_bytes::<FromHost>(bytes);
    let _ = postcard::from_bytes::<Visiting>(bytes);
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
            for decode in [frames, probe, answer, handshake, control, executable] {
                decode(&bytes);
            }
        }
    }
}

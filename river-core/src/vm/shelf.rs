//! The checkpoints that a VM keeps in memory for programs that use it: up to a limit of bytes, and for a limited time.
//!
//! A state machine without a clock: the caller passes the current time where it matters.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::id::ProgramId;
use crate::protocol::KeptImage;

/// How long images are kept after their program has lost its lease: long enough to restart from them.
const KEPT_FOR: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Shelf {
    limit: u64,
    /// Bytes that are kept or reserved.
    taken: u64,
    items: BTreeMap<(ProgramId, u64, u32), Item>,
}

#[derive(Debug)]
struct Item {
    image: KeptImage,
    /// The program that put it there. It is kept for as long as that program has the lease.
    owner: ProgramId,
    /// `None` until it has arrived completely.
    bytes: Option<Bytes>,
    seen: Instant,
}

impl Shelf {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, taken: 0, items: BTreeMap::new() }
    }

    /// Reserves room for an image before any of it is received. Replaces one with the same name.
    pub(super) fn reserve(
        &mut self,
        image: &KeptImage,
        owner: ProgramId,
        now: Instant,
    ) -> Result<(), String> {
        self.remove(image);
        let free = self.limit - self.taken;
        if image.length > free {
            return Err(format!(
                "an image of {} bytes has no room in its memory: {free} of {} bytes for checkpoints are free (start it with \
                 a larger --checkpoint-memory, or use more VMs)",
                image.length, self.limit
            ));
        }
        self.taken += image.length;
        let item = Item { image: image.clone(), owner, bytes: None, seen: now };
        self.items.insert(image.key(), item);
        Ok(())
    }

    /// Stores an image, if its reservation still exists and has its length. Returns whether it did.
    pub(super) fn put(&mut self, image: &KeptImage, bytes: Bytes) -> bool {
        match self.items.get_mut(&image.key()) {
            Some(item) if item.image.length == bytes.len() as u64 => {
                item.bytes = Some(bytes);
                true
            }
            _ => false,
        }
    }

    pub(super) fn remove(&mut self, image: &KeptImage) {
        if let Some(item) = self.items.remove(&image.key()) {
            self.taken -= item.image.length;
        }
    }

    /// The complete images of a run's checkpoints.
    pub(super) fn list(&self, run: ProgramId) -> Vec<KeptImage> {
        let whole = self.items.values().filter(|item| item.image.run == run && item.bytes.is_some());
        whole.map(|item| item.image.clone()).collect()
    }

    pub(super) fn get(&self, image: &KeptImage) -> Option<Bytes> {
        self.items.get(&image.key())?.bytes.clone()
    }

    /// Drops a run's checkpoints with these numbers.
    pub(super) fn forget(&mut self, run: ProgramId, numbers: &Range<u64>) {
        self.drop_those(|key, _| key.0 == run && numbers.contains(&key.1));
    }

    /// Drops images whose program lost its lease too long ago. `tenant` is the program that has the lease.
    pub(super) fn expire(&mut self, tenant: Option<ProgramId>, now: Instant) {
        for item in self.items.values_mut().filter(|item| Some(item.owner) == tenant) {
            item.seen = now;
        }
        self.drop_those(|_, item| now.saturating_duration_since(item.seen) > KEPT_FOR);
    }

    fn drop_those(&mut self, goes: impl Fn(&(ProgramId, u64, u32), &Item) -> bool) {
        let taken = &mut self.taken;
        self.items.retain(|key, item| {
            let goes = goes(key, item);
            if goes {
                *taken -= item.image.length;
            }
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(run: ProgramId, number: u64, part: u32, length: u64) -> KeptImage {
        KeptImage { run, number, part, parts: 2, length }
    }

    #[test]
    fn what_has_no_room_is_refused_before_it_is_taken() {
        let (run, now) = (ProgramId::fresh(), Instant::now());
        let mut shelf = Shelf::new(100);
        shelf.reserve(&image(run, 1, 0, 60), run, now).unwrap();
        let error = shelf.reserve(&image(run, 1, 1, 41), run, now).unwrap_err();
        assert!(error.contains("41 bytes") && error.contains("40 of 100 bytes"), "{error}");
        assert!(shelf.reserve(&image(run, 1, 1, u64::MAX), run, now).is_err());
        // A reservation is not an image, and the image must have the reserved length.
        assert!(shelf.list(run).is_empty());
        assert!(!shelf.put(&image(run, 1, 0, 60), Bytes::from(vec![7; 59])));
        assert!(shelf.put(&image(run, 1, 0, 60), Bytes::from(vec![7; 60])));
        assert_eq!(shelf.list(run), [image(run, 1, 0, 60)]);
        // The same image again takes the same place.
        shelf.reserve(&image(run, 1, 0, 100), run, now).unwrap();
        shelf.remove(&image(run, 1, 0, 0));
        assert_eq!(shelf.taken, 0);
    }

    #[test]
    fn old_ones_go_and_those_of_others_stay() {
        let (run, other, now) = (ProgramId::fresh(), ProgramId::fresh(), Instant::now());
        let mut shelf = Shelf::new(100);
        for (run, number) in [(run, 1), (run, 2), (run, 3), (other, 1)] {
            shelf.reserve(&image(run, number, 0, 10), run, now).unwrap();
            assert!(shelf.put(&image(run, number, 0, 10), Bytes::from(vec![number as u8; 10])));
        }
        shelf.forget(run, &(0..3));
        assert_eq!(shelf.list(run), [image(run, 3, 0, 10)]);
        assert_eq!(shelf.get(&image(other, 1, 0, 10)).unwrap()[..], [1; 10]);
        // The program of the first is gone; the other one is not.
        let later = now + KEPT_FOR + Duration::from_secs(1);
        shelf.expire(Some(other), later);
        assert_eq!((shelf.list(run).len(), shelf.list(other).len(), shelf.taken), (0, 1, 10));
        assert!(shelf.get(&image(run, 3, 0, 10)).is_none());
    }
}

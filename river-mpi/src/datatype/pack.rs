//! Packing: copying the data that a datatype describes into a message and out of it.

use std::ops::Range;

use bytemuck::Pod;

use super::Committed;
use super::runs::{Run, Runs};
use crate::error::{MpiError, Result};

impl Committed {
    /// The size in bytes of `count` copies of this type in a message (`MPI_Pack_size`).
    #[must_use]
    pub fn pack_size(&self, count: usize) -> usize {
        self.size().saturating_mul(count)
    }

    /// Packs `count` copies of this type from a buffer into a contiguous vector (`MPI_Pack`).
    ///
    /// # Errors
    /// [`MpiError::Type`] if the type reaches beyond the buffer.
    pub fn pack<T: bytemuck::NoUninit>(&self, buffer: &[T], count: usize) -> Result<Vec<u8>> {
        let mut packed = Vec::new();
        self.pack_onto(buffer, count, &mut packed)?;
        Ok(packed)
    }

    /// Like [`pack`](Self::pack), but appends to data that was packed before.
    ///
    /// # Errors
    /// Those of [`pack`](Self::pack).
    pub fn pack_onto<T: bytemuck::NoUninit>(
        &self,
        buffer: &[T],
        count: usize,
        packed: &mut Vec<u8>,
    ) -> Result {
        self.pack_copies(buffer, 0..count, packed)
    }

    /// Like [`pack_onto`](Self::pack_onto), for a range of the copies in the buffer.
    pub(crate) fn pack_copies<T: bytemuck::NoUninit>(
        &self,
        buffer: &[T],
        copies: Range<usize>,
        packed: &mut Vec<u8>,
    ) -> Result {
        if self.size() == 0 {
            return Ok(());
        }
        let bytes: &[u8] = bytemuck::cast_slice(buffer);
        self.check(bytes.len(), copies.clone())?;
        packed.try_reserve(self.pack_size(copies.len())).map_err(|_| {
            MpiError::Type(format!("there is no memory for {} copies of the datatype, packed", copies.len()))
        })?;
        for copy in copies {
            let base = self.extent() * super::signed(copy);
            for run in &self.runs().0 {
                match run.len {
                    4 => gather::<4>(bytes, base, run, packed),
                    8 => gather::<8>(bytes, base, run, packed),
                    16 => gather::<16>(bytes, base, run, packed),
                    len => {
                        for piece in 0..run.count {
                            let at = (base + run.piece(piece)).cast_unsigned();
                            packed.extend_from_slice(&bytes[at..at + len]);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Unpacks data into a buffer as at most `count` copies of this type; returns the number of bytes consumed
    /// (`MPI_Unpack`). If the data ends earlier, only the part that it covers is written.
    ///
    /// # Errors
    /// [`MpiError::Type`] if the type reaches beyond the buffer.
    pub fn unpack<T: Pod>(&self, packed: &[u8], buffer: &mut [T], count: usize) -> Result<usize> {
        self.unpack_copies(packed, buffer, 0..count)
    }

    /// Like [`unpack`](Self::unpack), for a range of the copies in the buffer.
    pub(crate) fn unpack_copies<T: Pod>(
        &self,
        packed: &[u8],
        buffer: &mut [T],
        copies: Range<usize>,
    ) -> Result<usize> {
        if self.size() == 0 {
            return Ok(0);
        }
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(buffer);
        self.check(bytes.len(), copies.clone())?;
        let mut left = packed;
        for copy in copies {
            let base = self.extent() * super::signed(copy);
            for run in &self.runs().0 {
                if left.len() >= run.len * run.count {
                    match run.len {
                        4 => scatter::<4>(&mut left, base, run, bytes),
                        8 => scatter::<8>(&mut left, base, run, bytes),
                        16 => scatter::<16>(&mut left, base, run, bytes),
                        _ => scatter_any(&mut left, base, run, bytes),
                    }
                } else {
                    scatter_any(&mut left, base, run, bytes);
                }
            }
        }
        Ok(packed.len() - left.len())
    }

    /// Fails if these copies of the type reach beyond a buffer of this many bytes.
    pub(crate) fn check(&self, bytes: usize, copies: Range<usize>) -> Result {
        let Some((first, end)) = self.runs().reach().filter(|_| !copies.is_empty()) else { return Ok(()) };
        let shift = |copy| self.extent().saturating_mul(super::signed(copy));
        let (a, b) = (shift(copies.start), shift(copies.end - 1));
        let (first, end) = (first.saturating_add(a.min(b)), end.saturating_add(a.max(b)));
        if first >= 0 && end <= super::signed(bytes) {
            return Ok(());
        }
        Err(MpiError::Type(format!(
            "copies {copies:?} of the datatype are the bytes {first}..{end} of a buffer, which has {bytes}"
        )))
    }

    /// Fails if data received into these copies of the type would be written beyond a buffer of this many bytes, or to one
    /// byte twice (MPI 1.3, section 3.12.5).
    pub(crate) fn check_receive(&self, bytes: usize, blocks: &[Range<usize>]) -> Result {
        for block in blocks {
            self.check(bytes, block.clone())?;
        }
        let copies = blocks.iter().fold(0_usize, |sum, block| sum.saturating_add(block.len()));
        if self.size() == 0 || copies == 0 {
            return Ok(());
        }
        // Data longer than the buffer must overlap. This also bounds the work below.
        let overlap = self.pack_size(copies) > bytes
            || self.overlaps()
            || copies > 1
                && match follow_one_another(blocks) {
                    true => self.copies_overlap() && self.row_overlaps(copies),
                    false => (self.copies_overlap() || share_copies(blocks)) && self.blocks_overlap(blocks),
                };
        if !overlap {
            return Ok(());
        }
        Err(MpiError::Type(format!(
            "copies {blocks:?} of a datatype of {} bytes, each {} bytes behind the one before, overlap: what is received needs a type whose pieces lie apart",
            self.size(),
            self.extent()
        )))
    }

    /// Whether this many consecutive copies overlap.
    fn row_overlaps(&self, copies: usize) -> bool {
        let cache = &self.0.0.row_overlaps;
        if cache.get().0 != copies {
            cache.set((copies, self.blocks_overlap(std::slice::from_ref(&(0..copies)))));
        }
        cache.get().1
    }

    fn blocks_overlap(&self, blocks: &[Range<usize>]) -> bool {
        let mut all = Runs::default();
        for block in blocks {
            let at = self.extent().saturating_mul(super::signed(block.start));
            all.push_copies(self.runs(), at, block.len(), self.extent());
        }
        all.overlap()
    }

    /// Whether the spans of two consecutive copies overlap.
    fn copies_overlap(&self) -> bool {
        self.runs().reach().is_some_and(|(first, end)| first.abs_diff(end) > self.extent().unsigned_abs())
    }
}

/// Whether each block begins where the previous one ends.
fn follow_one_another(blocks: &[Range<usize>]) -> bool {
    let mut blocks = blocks.iter().filter(|block| !block.is_empty());
    let first = blocks.next().map_or(0, |block| block.end);
    blocks.try_fold(first, |end, block| (block.start == end).then_some(block.end)).is_some()
}

/// Whether a copy belongs to two blocks.
fn share_copies(blocks: &[Range<usize>]) -> bool {
    let mut sorted: Vec<_> = blocks.iter().filter(|block| !block.is_empty()).collect();
    sorted.sort_unstable_by_key(|block| block.start);
    sorted.windows(2).any(|pair| pair[1].start < pair[0].end)
}

/// Copies pieces whose length is known at compile time.
fn gather<const N: usize>(bytes: &[u8], base: isize, run: &Run, packed: &mut Vec<u8>) {
    for piece in 0..run.count {
        let at = (base + run.piece(piece)).cast_unsigned();
        if let Some(piece) = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()) {
            packed.extend_from_slice(piece);
        }
    }
}

fn scatter<const N: usize>(left: &mut &[u8], base: isize, run: &Run, bytes: &mut [u8]) {
    for piece in 0..run.count {
        let at = (base + run.piece(piece)).cast_unsigned();
        if let Some((data, rest)) = left.split_first_chunk::<N>()
            && let Some(target) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<N>())
        {
            *target = *data;
            *left = rest;
        }
    }
}

fn scatter_any(left: &mut &[u8], base: isize, run: &Run, bytes: &mut [u8]) {
    for piece in 0..run.count {
        let len = run.len.min(left.len());
        let at = (base + run.piece(piece)).cast_unsigned();
        let (data, rest) = left.split_at(len);
        bytes[at..at + len].copy_from_slice(data);
        *left = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Datatype;

    /// A datatype, and its bytes according to the definition: a list of displacements in order, and the extent.
    #[derive(Clone, Debug)]
    struct Model {
        made: Datatype,
        map: Vec<isize>,
    }

    fn copies(model: &Model, blocks: &[(usize, isize)]) -> Vec<isize> {
        let extent = model.made.extent();
        let place = |&(count, at): &(usize, isize)| {
            (0..count).flat_map(move |i| model.map.iter().map(move |byte| at + i as isize * extent + byte))
        };
        blocks.iter().flat_map(place).collect()
    }

    fn blocks() -> impl Strategy<Value = Vec<(usize, isize)>> {
        prop::collection::vec((0..4usize, 0..9isize), 0..4)
    }

    fn model() -> impl Strategy<Value = Model> {
        let basic = prop_oneof![
            Just(Model { made: Datatype::of::<u8>(), map: vec![0] }),
            Just(Model { made: Datatype::of::<f32>(), map: (0..4).collect() }),
            Just(Model { made: Datatype::of::<f64>(), map: (0..8).collect() }),
        ];
        basic.prop_recursive(3, 200, 4, |inner| {
            prop_oneof![
                (inner.clone(), 0..4usize).prop_map(|(m, count)| Model {
                    made: m.made.contiguous(count),
                    map: copies(&m, &[(count, 0)]),
                }),
                (inner.clone(), 0..4usize, 0..3usize, 0..5isize).prop_map(|(m, count, length, stride)| {
                    let extent = m.made.extent();
                    let blocks: Vec<_> = (0..count).map(|i| (length, i as isize * stride * extent)).collect();
                    Model { made: m.made.vector(count, length, stride), map: copies(&m, &blocks) }
                }),
                (inner.clone(), blocks()).prop_map(|(m, blocks)| Model {
                    made: m.made.hindexed(&blocks),
                    map: copies(&m, &blocks),
                }),
                (inner.clone(), blocks()).prop_map(|(m, blocks)| {
                    let extent = m.made.extent();
                    let bytes: Vec<_> = blocks.iter().map(|&(count, at)| (count, at * extent)).collect();
                    Model { made: m.made.indexed(&blocks), map: copies(&m, &bytes) }
                }),
                (inner.clone(), inner.clone(), 0..3usize, 0..40isize).prop_map(|(a, b, count, at)| {
                    let mut map = copies(&a, &[(1, 0)]);
                    map.extend(copies(&b, &[(count, at)]));
                    Model {
                        made: Datatype::structure(&[(1, 0, a.made.clone()), (count, at, b.made.clone())]),
                        map,
                    }
                }),
                (inner, 0..9isize).prop_map(|(m, more)| Model {
                    made: m.made.with_bounds(m.made.lower_bound(), m.made.upper_bound() + more),
                    map: m.map,
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn packing_takes_the_bytes_that_the_definition_says(model in model(), count in 0..3usize) {
            let data: Vec<u8> = (0..200_000).map(|i| (i % 251) as u8).collect();
            let committed = model.made.commit();
            prop_assert_eq!(committed.size(), model.map.len());
            let all = copies(&model, &[(count, 0)]);
            prop_assume!(all.iter().all(|&at| (0..data.len() as isize).contains(&at)));
            let expected: Vec<u8> = all.iter().map(|&at| data[at as usize]).collect();
            let packed = committed.pack(&data, count).unwrap();
            prop_assert_eq!(&packed, &expected);
            // Unpacking restores them, and changes nothing else.
            let mut back = vec![0_u8; data.len()];
            prop_assert_eq!(committed.unpack(&packed, &mut back, count).unwrap(), packed.len());
            let mut same = vec![0_u8; data.len()];
            all.iter().for_each(|&at| same[at as usize] = data[at as usize]);
            prop_assert!(back == same);
        }

        #[test]
        fn what_would_be_written_twice_is_not_received(
            model in model(),
            cuts in (0..3usize, 0..3usize, 0..3usize),
            apart in 0..3usize,
        ) {
            let committed = model.made.commit();
            let blocks = [cuts.0..cuts.0 + cuts.1, apart..apart + cuts.2];
            let extent = model.made.extent();
            let copy = |copy: usize| model.map.iter().map(move |byte| copy as isize * extent + byte);
            let mut all: Vec<isize> = blocks.iter().cloned().flatten().flat_map(copy).collect();
            prop_assume!(all.iter().all(|&at| (0..200_000).contains(&at)));
            all.sort_unstable();
            let twice = all.windows(2).any(|pair| pair[0] == pair[1]);
            // Twice, as the second call finds the result in the cache.
            for _ in 0..2 {
                prop_assert_eq!(committed.check_receive(200_000, &blocks).is_err(), twice);
            }
        }

        #[test]
        fn what_is_known_of_some_copies_is_not_said_of_others(
            model in model(),
            counts in prop::collection::vec(0..4usize, 5),
        ) {
            let committed = model.made.commit();
            let extent = model.made.extent();
            for count in counts {
                let copy = |copy: usize| model.map.iter().map(move |byte| copy as isize * extent + byte);
                let mut all: Vec<isize> = (0..count).flat_map(copy).collect();
                prop_assume!(all.iter().all(|&at| (0..200_000).contains(&at)));
                all.sort_unstable();
                let twice = all.windows(2).any(|pair| pair[0] == pair[1]);
                prop_assert_eq!(committed.check_receive(200_000, std::slice::from_ref(&(0..count))).is_err(), twice);
            }
        }

        #[test]
        fn a_short_message_is_unpacked_as_far_as_it_goes(model in model(), cut in 0..50usize) {
            let data: Vec<u8> = (0..200_000).map(|i| (i % 251) as u8).collect();
            let committed = model.made.commit();
            prop_assume!(model.map.iter().all(|&at| (0..data.len() as isize).contains(&at)));
            let packed = committed.pack(&data, 1).unwrap();
            let short = &packed[..packed.len() - cut.min(packed.len())];
            let mut back = vec![0_u8; data.len()];
            prop_assert_eq!(committed.unpack(short, &mut back, 1).unwrap(), short.len());
            let mut same = vec![0_u8; data.len()];
            model.map[..short.len()].iter().for_each(|&at| same[at as usize] = data[at as usize]);
            prop_assert!(back == same);
        }
    }

    #[test]
    fn a_type_that_reaches_beyond_the_buffer_is_refused() {
        let column = Datatype::of::<f64>().vector(3, 1, 3).commit();
        assert!(column.pack(&[0.0; 7], 1).is_ok());
        assert!(column.pack(&[0.0; 6], 1).is_err());
        assert!(column.pack(&[0.0; 6], 0).is_ok());
        assert!(Datatype::of::<f64>().hindexed(&[(1, -8)]).commit().pack(&[0.0; 9], 1).is_err());
        let far = Datatype::of::<u8>().hvector(3, 1, isize::MAX / 2).commit();
        assert!(far.pack(&[0_u8; 9], 2).is_err());
    }
}

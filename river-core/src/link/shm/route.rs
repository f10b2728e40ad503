//! Routes: sender, receiver, channel and lane. A route is spelled out once in a ring, and named by a number afterwards, so
//! that a short envelope fits into a cache line.
//!
//! Both ends keep the same table. The writer chooses the place of a route, which may have held another one before.

use crate::envelope::{Channel, Label};
use crate::id::VrId;
use bytemuck::{Pod, Zeroable};
use uuid::Uuid;

/// Places in the table: a power of two.
const PLACES: usize = 64;

/// A route in its full form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Route {
    src: [u8; 16],
    dst: [u8; 16],
    lane: u64,
    channel: u32,
    zero: u32,
}

pub(super) const ROUTE: usize = size_of::<Route>();

impl Route {
    pub(super) fn of(label: &Label) -> Self {
        Self {
            src: label.src.as_uuid().into_bytes(),
            dst: label.dst.as_uuid().into_bytes(),
            lane: label.lane,
            channel: label.channel.to_wire(),
            zero: 0,
        }
    }

    pub(super) fn label(&self, seq: u64) -> Label {
        Label {
            src: VrId::from_uuid(Uuid::from_bytes(self.src)),
            dst: VrId::from_uuid(Uuid::from_bytes(self.dst)),
            seq,
            channel: Channel::from_wire(self.channel),
            lane: self.lane,
        }
    }

    fn place(&self) -> usize {
        let half = |id: &[u8; 16], at| u64::from_ne_bytes(std::array::from_fn(|i| id[at + i]));
        let mixed = half(&self.src, 0) ^ half(&self.dst, 8) ^ self.lane ^ u64::from(self.channel) << 32;
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % PLACES
    }
}

/// One end's table.
#[derive(Debug)]
pub(super) struct Routes([Option<Route>; PLACES]);

impl Default for Routes {
    fn default() -> Self {
        Self([None; PLACES])
    }
}

impl Routes {
    /// Returns the route's number, and whether the reader knows it already.
    pub(super) fn number(&mut self, route: &Route) -> (u16, bool) {
        let place = route.place();
        let known = self.0[place].as_ref() == Some(route);
        if !known {
            self.0[place] = Some(*route);
        }
        (place as u16, known)
    }

    /// Records a route that was spelled out. Returns `false` if there is no such number.
    pub(super) fn learn(&mut self, number: u16, route: Route) -> bool {
        let place = self.0.get_mut(usize::from(number));
        place.map(|place| *place = Some(route)).is_some()
    }

    pub(super) fn get(&self, number: u16) -> Option<&Route> {
        self.0.get(usize::from(number))?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_reader_knows_what_the_writer_thinks_it_knows(
            which in prop::collection::vec((0..20_usize, 0..20_usize, 0..5_u64), 1..300),
        ) {
            let ids: Vec<VrId> = (0..20).map(|_| VrId::fresh()).collect();
            let (mut writer, mut reader) = (Routes::default(), Routes::default());
            for (src, dst, lane) in which {
                let channel = Channel::named("test");
                let label = Label { src: ids[src], dst: ids[dst], seq: 7, channel, lane };
                let route = Route::of(&label);
                let (number, known) = writer.number(&route);
                if !known {
                    prop_assert!(reader.learn(number, route));
                }
                prop_assert_eq!(reader.get(number).map(|route| route.label(7)), Some(label));
            }
        }
    }

    #[test]
    fn a_number_out_of_range_is_no_route() {
        let mut routes = Routes::default();
        assert!(!routes.learn(PLACES as u16, Route::zeroed()));
        assert!(routes.get(u16::MAX).is_none());
    }
}

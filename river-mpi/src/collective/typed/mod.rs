//! Collective operations on what datatypes describe: it is packed, moved in one piece, and unpacked.
//!
//! * here: packing, and a call on what was packed, which is carried out at once or started
//! * `moves`: operations that move data
//! * `reductions`: operations that combine it

mod moves;
mod reductions;

use std::borrow::Cow;
use std::ops::Range;

use bytemuck::Pod;

use crate::coll::Input;
use crate::communicator::Communicator;
use crate::datatype::Committed;
use crate::element::{self, Element};
use crate::error::{MpiError, Result};
use crate::op::Operator;
use crate::request::Request;

use super::pending::Slices;
use super::prepare::{Lengths, Prepared};

/// Some copies of a datatype for each rank, as ranges of the copies in a buffer.
#[derive(Clone)]
struct Layout<'a> {
    blocks: Cow<'a, [Range<usize>]>,
    datatype: &'a Committed,
}

impl<'a> Layout<'a> {
    /// `count` copies for each of so many ranks.
    fn equal(ranks: usize, (count, datatype): (usize, &'a Committed)) -> Self {
        let block = |rank: usize| rank.saturating_mul(count)..(rank + 1).saturating_mul(count);
        Self { blocks: (0..ranks).map(block).collect(), datatype }
    }

    /// A block for each rank.
    fn of((blocks, datatype): (&'a [Range<usize>], &'a Committed)) -> Self {
        Self { blocks: Cow::Borrowed(blocks), datatype }
    }

    /// Nothing, on ranks where this buffer does not count.
    fn nothing(datatype: &'a Committed) -> Self {
        Self { blocks: Cow::Borrowed(&[]), datatype }
    }

    fn only_if(self, counts: bool) -> Self {
        if counts { self } else { Self::nothing(self.datatype) }
    }

    /// How many elements of `E` the data of each rank is, packed.
    fn counts<E>(&self) -> Result<Vec<usize>> {
        let (size, element) = (self.datatype.size(), size_of::<E>().max(1));
        if !size.is_multiple_of(element) {
            return Err(MpiError::Type(format!(
                "the datatype has {size} bytes, which is no whole number of elements of {element}"
            )));
        }
        Ok(self.blocks.iter().map(|block| block.len().saturating_mul(size / element)).collect())
    }

    /// Where the data of each rank is among that of all, packed.
    fn packed<E>(&self) -> Result<Vec<Range<usize>>> {
        Ok(crate::coll::consecutive(&self.counts::<E>()?))
    }

    /// The data of all ranks, one behind the other.
    fn pack<T: Pod, E: Element>(&self, buffer: &[T]) -> Result<Vec<E>> {
        let mut packed = Vec::new();
        for block in &*self.blocks {
            self.datatype.pack_copies(buffer, block.clone(), &mut packed)?;
        }
        element::elements(&packed)
    }

    /// Room for the data of all ranks in `buffer`, checked before anything is sent.
    fn room<T: Pod, E: Pod>(&self, buffer: &[T]) -> Result<Vec<E>> {
        self.datatype.check_receive(size_of_val(buffer), &self.blocks)?;
        Ok(vec![E::zeroed(); self.counts::<E>()?.iter().sum()])
    }

    fn unpack<T: Pod>(&self, mut packed: &[u8], buffer: &mut [T]) -> Result {
        for block in &*self.blocks {
            let taken = self.datatype.unpack_copies(packed, buffer, block.clone())?;
            packed = &packed[taken..];
        }
        Ok(())
    }

    fn into_owned(self) -> (Vec<Range<usize>>, Committed) {
        (self.blocks.into_owned(), self.datatype.clone())
    }
}

/// What becomes of packed data that was received.
type Deliver<'a, E> = Box<dyn FnMut(&[E]) -> Result + 'a>;

/// A call on packed data that can be carried out.
struct Call<'a, E> {
    prepared: Prepared,
    send: Vec<E>,
    recv: Vec<E>,
    deliver: Deliver<'a, E>,
}

impl<'a, E: Element + Pod> Call<'a, E> {
    /// A call with this to give and this to get.
    fn new<S: Pod, R: Pod>(
        (send, given): (&[S], &Layout<'_>),
        (recv, got): (&'a mut [R], Layout<'_>),
        prepare: impl FnOnce(Lengths) -> Result<Prepared>,
    ) -> Result<Self> {
        let (packed, room) = (given.pack::<S, E>(send)?, got.room::<R, E>(recv)?);
        let prepared = prepare(Lengths::of(&packed, &room))?;
        let (blocks, datatype) = got.into_owned();
        let deliver = move |packed: &[E]| {
            let layout = Layout { blocks: Cow::Borrowed(&blocks), datatype: &datatype };
            layout.unpack(element::bytes_of(packed), recv)
        };
        Ok(Self { prepared, send: packed, recv: room, deliver: Box::new(deliver) })
    }
}

impl<'v> Communicator<'v> {
    /// Carries a call out.
    fn carry_out_packed<E: Element>(&self, call: Result<Call<'_, E>>, operator: &dyn Operator<E>) -> Result {
        let (tag, Call { prepared, send, mut recv, mut deliver }) = self.numbered(call)?;
        let carried_out = self.carry_out(&prepared, tag, &Input::Apart(&send), &mut recv, operator);
        self.guard(carried_out.and_then(|()| deliver(&recv)))
    }

    /// Starts a call.
    fn start_packed<'a, E: Element>(
        &self,
        call: Result<Call<'a, E>>,
        operator: impl Operator<E> + 'static,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let (tag, Call { prepared: Prepared { team, planned }, send, recv, mut deliver }) =
            self.numbered(call)?;
        let work = Slices::new(planned.plan.clone(), tag, Input::Apart(send), recv, Box::new(operator));
        Ok(self.go(planned.operation, team, work, move |output: &Vec<E>| deliver(output)))
    }
}

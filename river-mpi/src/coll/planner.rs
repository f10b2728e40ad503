//! Who chooses algorithms and makes plans for one rank of one communicator, and keeps those that are used
//! again.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::algorithm::{Operation, plan_of};
use super::inter::{Inter, InterCall, MakeInter, Sides};
use super::plan::Plan;
use super::shape::{Call, Hosts, Shape};
use super::tuning::{Tuned, Tuning};
use super::wire::SHORT;
use crate::element::Element;
use crate::error::{MpiError, Result};

/// The most plans that are kept for a communicator: a program calls few operations in many sizes.
const KEPT: usize = 64;

/// Plans of one rank, of all operations.
pub(crate) struct Planner {
    rank: usize,
    hosts: Arc<Hosts>,
    tuning: Tuning,
    /// The one that was used last comes first.
    kept: RefCell<Vec<Entry>>,
    scratch: RefCell<FxHashMap<TypeId, Box<dyn Any>>>,
    /// Room for a message that is to be combined with something.
    room: Cell<Vec<u64>>,
}

struct Entry {
    operation: TypeId,
    call: Known,
    planned: Rc<Planned>,
}

/// A call that there is a plan for.
enum Known {
    Within(Shape),
    Between(InterCall),
}

/// A plan that can be carried out.
pub(crate) struct Planned {
    /// The operation's name.
    pub(crate) operation: &'static str,
    pub(crate) plan: Rc<Plan>,
    /// Whether all its messages, and its elements, have [`SHORT`] bytes at most.
    pub(crate) short: bool,
    /// Whether all messages of all ranks have, whatever the algorithm, and all ranks know that.
    pub(crate) all_short: bool,
    /// Where in the output the input may lie, and how long it is.
    pub(crate) place: Range<usize>,
    /// Whether it may.
    pub(crate) in_place: bool,
}

impl Planner {
    pub(crate) fn new(rank: usize, hosts: Hosts, tuning: Tuning) -> Self {
        Self::of(rank, Arc::new(hosts), tuning)
    }

    fn of(rank: usize, hosts: Arc<Hosts>, tuning: Tuning) -> Self {
        let (kept, scratch, room) = Default::default();
        Self { rank, hosts, tuning, kept, scratch, room }
    }

    /// The same ranks with another tuning.
    pub(crate) fn with_tuning(&self, tuning: Tuning) -> Self {
        let hosts = self.hosts.clone();
        Self::of(self.rank, hosts, tuning)
    }

    pub(crate) fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// The shape of an operation of all ranks.
    pub(crate) fn shape<T>(&self, size: usize, count: usize) -> Shape {
        Shape::of(size, count, size_of::<T>().max(1), self.hosts.clone())
    }

    /// This rank's plan.
    pub(crate) fn plan<O: Tuned>(&self, shape: Shape) -> Result<Rc<Planned>> {
        let known = self.find::<O>(|known| matches!(known, Known::Within(known) if *known == shape));
        known.map_or_else(|| self.plan_new::<O>(shape), Ok)
    }

    /// The same for a call of so many ranks whose blocks are equal.
    // Its shape is made only if there is no plan yet: to count who shares the hosts in it takes as long as a short message.
    #[inline]
    pub(crate) fn plan_call<O: Tuned>(&self, size: usize, call: Call) -> Result<Rc<Planned>> {
        let known = self.find::<O>(|known| matches!(known, Known::Within(known) if known.is_of(size, call)));
        known.map_or_else(|| self.plan_new::<O>(Shape::of_call(size, call, self.hosts.clone())), Ok)
    }

    #[inline(never)]
    fn plan_new<O: Tuned>(&self, shape: Shape) -> Result<Rc<Planned>> {
        let planned = self.make::<O>(&shape)?;
        Ok(self.keep::<O>(Known::Within(shape), planned))
    }

    /// This rank's plan of a call between two groups.
    pub(crate) fn plan_between<'a, O: Operation>(
        &'a self,
        sides: &'a Sides,
        call: InterCall,
        make: MakeInter<'a>,
    ) -> Result<Rc<Planned>> {
        let known = self.find::<O>(|known| matches!(known, Known::Between(known) if *known == call));
        if let Some(known) = known {
            return Ok(known);
        }
        let plan = make(&Inter { sides, rank: self.rank, tuning: &self.tuning }, &call)?;
        // Its parts may be of algorithms that the program brought along.
        plan.check(sides.members.len(), call.send, call.recv, true)
            .map_err(|wrong| MpiError::Arg(format!("an operation between two groups has {wrong}")))?;
        let planned = Planned {
            operation: O::NAME,
            plan: Rc::new(plan),
            short: false,
            all_short: false,
            place: 0..0,
            in_place: false,
        };
        Ok(self.keep::<O>(Known::Between(call), planned))
    }

    #[inline]
    fn find<O: Operation>(&self, is_it: impl Fn(&Known) -> bool) -> Option<Rc<Planned>> {
        let is_it = |kept: &Entry| kept.operation == TypeId::of::<O>() && is_it(&kept.call);
        if let Some(first) = self.kept.borrow().first()
            && is_it(first)
        {
            return Some(first.planned.clone());
        }
        self.find_later(is_it)
    }

    #[inline(never)]
    fn find_later(&self, is_it: impl Fn(&Entry) -> bool) -> Option<Rc<Planned>> {
        let mut kept = self.kept.borrow_mut();
        let at = kept.iter().position(is_it)?;
        kept[..=at].rotate_right(1);
        Some(kept[0].planned.clone())
    }

    fn keep<O: Operation>(&self, call: Known, planned: Planned) -> Rc<Planned> {
        let planned = Rc::new(planned);
        let mut kept = self.kept.borrow_mut();
        kept.truncate(KEPT - 1);
        kept.insert(0, Entry { operation: TypeId::of::<O>(), call, planned: planned.clone() });
        planned
    }

    fn make<O: Tuned>(&self, shape: &Shape) -> Result<Planned> {
        let algorithm = O::choose(&self.tuning, shape)?;
        tracing::debug!(
            operation = O::NAME,
            algorithm = algorithm.name(),
            size = shape.size(),
            bytes = shape.bytes()
        );
        let plan = plan_of(algorithm, self.rank, shape);
        let (input, output) = O::buffers(self.rank, shape);
        plan.check(shape.size(), input, output, O::REDUCES).map_err(|wrong| {
            let name = algorithm.name();
            MpiError::Arg(format!(
                "the algorithm `{name}` for {} has made an impossible plan: {wrong}",
                O::NAME
            ))
        })?;
        let start = O::in_place(self.rank, shape);
        Ok(Planned {
            operation: O::NAME,
            short: plan.longest_message().max(1).saturating_mul(shape.element()) <= SHORT,
            all_short: shape.is_regular() && shape.bytes().saturating_mul(shape.size()) <= SHORT,
            place: start..start + input,
            in_place: O::IN_PLACE && plan.allows_input_in_output(start),
            plan: Rc::new(plan),
        })
    }

    /// Room for a message, to be kept for the next one.
    pub(crate) fn room(&self) -> &Cell<Vec<u64>> {
        &self.room
    }

    /// Memory for a plan's scratch buffer, kept from the last time. Give it back by
    /// [`keep_scratch`](Self::keep_scratch).
    pub(crate) fn scratch<T: Element>(&self, len: usize, filler: Option<T>) -> Vec<T> {
        if len == 0 {
            return Vec::new();
        }
        let known = self.scratch.borrow_mut().remove(&TypeId::of::<T>());
        let mut scratch: Vec<T> =
            known.and_then(|known| known.downcast().ok()).map_or_else(Vec::new, |known| *known);
        // There is one: what is passed through a rank's scratch memory has the length of what it gives or
        // gets itself.
        if let Some(filler) = filler
            && scratch.len() < len
        {
            scratch.resize(len, filler);
        }
        scratch
    }

    pub(crate) fn keep_scratch<T: Element>(&self, scratch: Vec<T>) {
        if !scratch.is_empty() {
            self.scratch.borrow_mut().insert(TypeId::of::<T>(), Box::new(scratch));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coll::{Allreduce, InterRoot, Scan};

    #[test]
    fn a_plan_is_made_once_for_a_shape() {
        let planner = Planner::new(1, Hosts::apart(4), Tuning::default());
        let plan = |count| planner.plan::<Allreduce>(planner.shape::<f64>(4, count)).unwrap().plan.clone();
        let first = plan(1);
        assert!(!Rc::ptr_eq(&first, &plan(2)));
        assert!(Rc::ptr_eq(&first, &plan(1)));
        let scan = planner.plan::<Scan>(planner.shape::<f64>(4, 1)).unwrap().plan.clone();
        assert!(!Rc::ptr_eq(&first, &scan));
        (100..100 + KEPT).for_each(|count| drop(plan(count)));
        assert!(!Rc::ptr_eq(&first, &plan(1)), "old plans are forgotten");
    }

    #[test]
    fn a_plan_between_groups_is_made_once_for_a_call() {
        let sides = Sides::new(&[0, 1], &[2], |ranks| Hosts::apart(ranks.len()));
        let planner = Planner::new(1, Hosts::apart(2), Tuning::default());
        let plan = |call: &InterCall| {
            planner.plan_between::<Allreduce>(&sides, call.clone(), Inter::allreduce).unwrap()
        };
        let call = InterCall {
            send: 5,
            recv: 5,
            element: 8,
            root: InterRoot::Elsewhere,
            commutative: true,
            outgoing: Vec::new(),
            incoming: Vec::new(),
        };
        let first = plan(&call);
        for other in [
            InterCall { element: 4, ..call.clone() },
            InterCall { commutative: false, ..call.clone() },
            InterCall { send: 6, recv: 6, ..call.clone() },
        ] {
            assert!(!Rc::ptr_eq(&first, &plan(&other)));
        }
        assert!(Rc::ptr_eq(&first, &plan(&call)));
    }

    #[test]
    fn scratch_memory_is_used_again() {
        let planner = Planner::new(0, Hosts::apart(1), Tuning::default());
        let scratch = planner.scratch(10, Some(1.5_f64));
        let at = scratch.as_ptr();
        planner.keep_scratch(scratch);
        let again = planner.scratch(5, Some(0.0_f64));
        assert_eq!((again.as_ptr(), again[4]), (at, 1.5));
        assert_eq!(planner.scratch(3, Some(1_u8)), [1, 1, 1]);
    }
}

//! The VR that runs a rank: a function that is sent to its VM and called there.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use river_core::code::Trampoline;
use river_core::{Selector, VirtualResource, Vr, VrError, VrId};
use serde::{Deserialize, Serialize};

use crate::coll::Tuning;
use crate::communicator::Communicator;
use crate::engine::{Engine, LANE, MESSAGES};
use crate::error::MpiError;
use crate::header::HEADER;
use crate::job::{Life, Order, Past, Report};

/// The function that each rank runs, with its result encoded.
type Boxed = Box<dyn Fn(&Communicator<'_>) -> river_core::Result<Vec<u8>>>;

/// Makes a [`Boxed`] of a code pointer.
pub(crate) struct Body<T>(PhantomData<fn() -> T>);

impl<T, F> Trampoline<F> for Body<T>
where
    T: Serialize + 'static,
    F: Fn(&Communicator<'_>) -> river_core::Result<T> + 'static,
{
    fn enter(f: F, context: &mut dyn Any) {
        // A code pointer that was made for another purpose gets a different context, and does nothing.
        if let Some(boxed) = context.downcast_mut::<Option<Boxed>>() {
            *boxed = Some(Box::new(move |world| Ok(postcard::to_stdvec(&f(world)?)?)));
        }
    }
}

/// A rank in the form in which it is sent.
#[derive(Serialize, Deserialize)]
pub(crate) struct RankVr(pub(crate) Life);

impl VirtualResource for RankVr {
    fn main(&mut self, vr: &Vr) -> river_core::Result {
        let mut boxed: Option<Boxed> = None;
        self.0.body.resolve()?(&mut boxed as &mut dyn Any);
        let body = boxed.ok_or_else(|| VrError::msg("the code pointer leads to no rank's function"))?;
        let supervisor = vr.parent().ok_or_else(|| VrError::msg("a rank is deployed"))?;
        be_rank(vr, (self.0.rank, self.0.survive), supervisor, Some(&self.0), &body)
    }

    fn label(&self) -> Option<String> {
        Some(format!("rank {}", self.0.rank))
    }
}

/// Runs a rank from its start to its end.
pub(crate) fn be_rank(
    vr: &Vr,
    (rank, survive): (u32, bool),
    supervisor: VrId,
    life: Option<&Life>,
    body: &dyn Fn(&Communicator<'_>) -> river_core::Result<Vec<u8>>,
) -> river_core::Result {
    let past = life.and_then(|life| life.past.clone());
    let start = match &past {
        Some(past) => past.start.clone(),
        None => {
            let start = vr.receive(Selector::on(MESSAGES).lane(LANE).from(supervisor))?.payload;
            start.slice(HEADER, start.len()).unwrap_or_default().to_vec()
        }
    };
    let Order::Start { ranks, places, algorithms } = postcard::from_bytes(&start)? else { return Ok(()) };
    let nothing = Past { start, engine: Vec::new(), collectives: 0, agreements: 0, state: Vec::new() };
    let from_safepoint = past.is_some();
    let past = past.unwrap_or(nothing);
    let life = life.map(|life| Life { past: Some(past.clone()), ..life.clone() });
    let engine = Rc::new(Engine::new(vr, rank, supervisor, ranks, places).living(life));
    let run = || {
        let tuning = Tuning::default().with_names(&algorithms)?;
        let world = Communicator::world(engine.clone(), tuning);
        if from_safepoint {
            world.take_up(&past)?;
        }
        let result = body(&world)?;
        Ok(engine.finish(result)?)
    };
    let result = run();
    let Err(error) = result else { return Ok(()) };
    if survive {
        // Ranks that wait for this one get its error from the core, after all messages that it had sent.
        return Err(error);
    }
    let because_of = match error.downcast_ref::<MpiError>() {
        Some(MpiError::Stopped) => return Ok(()),
        Some(MpiError::ProcFailed { rank, .. }) => u32::try_from(*rank).ok(),
        _ => None,
    };
    engine.report(&Report::Failed { text: error.to_string(), because_of });
    Ok(())
}

impl fmt::Debug for RankVr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RankVr({})", self.0.rank)
    }
}

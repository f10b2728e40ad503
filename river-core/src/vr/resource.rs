//! The trait of virtual resources: a value with a `main`, decoded from its bytes on the VM that runs it.

use std::any::Any;
use std::marker::PhantomData;
use std::ops::Index;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::code::Trampoline;
use crate::error::Result;
use crate::id::VrId;
use crate::vr::Vr;

/// A process-like unit: a value with a thread, a name and a message queue of its own.
///
/// Its fields are its arguments and its state; they are encoded by serde. `main` runs on a thread of its own and interacts
/// with the world through `vr` only. When it returns, the VR is gone; an error or a panic is reported to the VRs that wait
/// for it, and affects nothing else.
///
/// ```
/// use river_core::{Channel, Result, Selector, VirtualResource, Vr};
/// use serde::{Deserialize, Serialize};
///
/// const GREETINGS: Channel = Channel::named("greetings");
///
/// #[derive(Serialize, Deserialize)]
/// struct Greeter {
///     name: String,
/// }
///
/// impl VirtualResource for Greeter {
///     fn main(&mut self, vr: &Vr) -> Result {
///         let parent = vr.parent().expect("a deployed VR has a parent");
///         vr.send_bytes(parent, GREETINGS, 0, format!("hello from {}", self.name).into_bytes())?;
///         Ok(())
///     }
/// }
/// ```
pub trait VirtualResource: Serialize + DeserializeOwned + Send + 'static {
    /// Runs the VR. When this returns, the VR ends.
    ///
    /// # Errors
    /// Whatever ends the VR before its work is done; the text is passed to the VRs that watch it.
    fn main(&mut self, vr: &Vr) -> Result;

    /// Returns a name for people, shown in traces and by `river top`, if the name of the type does not say enough: `rank 3`.
    /// Called once, before `main`, on the VR's thread. If it panics or returns a blank label, the VR is shown under its
    /// type's name. A label is cut after 80 characters, and several colons in a row become one, since `::` marks the names of
    /// types.
    fn label(&self) -> Option<String> {
        None
    }
}

/// The length at which a label is cut, in characters.
const LABEL: usize = 80;

/// A virtual resource of any type.
pub(crate) trait Resource: Send {
    fn run(&mut self, vr: &Vr) -> Result;

    fn called(&self) -> Option<String> {
        None
    }
}

impl<V: VirtualResource> Resource for V {
    fn run(&mut self, vr: &Vr) -> Result {
        self.main(vr)
    }

    fn called(&self) -> Option<String> {
        self.label().and_then(|label| shown(&label))
    }
}

/// Returns a label as it is shown; `None` if nothing would be visible.
fn shown(label: &str) -> Option<String> {
    let mut last = ' ';
    let kept = label.trim().chars().filter(|c| !c.is_control());
    let kept = kept.filter(|c| std::mem::replace(&mut last, *c) != ':' || *c != ':');
    Some(kept.take(LABEL).collect()).filter(|label: &String| !label.trim().is_empty())
}

/// A helper, which runs once.
impl<F: FnOnce(&Vr) -> Result + Send> Resource for Option<F> {
    fn run(&mut self, vr: &Vr) -> Result {
        self.take().map_or(Ok(()), |body| body(vr))
    }
}

/// The trampoline that decodes a `V` from its bytes.
pub(crate) struct Create<V>(PhantomData<fn() -> V>);

/// The context of [`Create`].
pub(crate) struct Creation {
    pub(crate) state: Vec<u8>,
    pub(crate) made: Option<std::result::Result<Box<dyn Resource>, String>>,
}

impl<V: VirtualResource> Trampoline<()> for Create<V> {
    fn enter((): (), context: &mut dyn Any) {
        // A pointer made for another purpose finds a different context and does nothing.
        if let Some(creation) = context.downcast_mut::<Creation>() {
            let value = postcard::from_bytes::<V>(&creation.state);
            creation.made =
                Some(value.map(|v| Box::new(v) as Box<dyn Resource>).map_err(|error| error.to_string()));
        }
    }
}

/// VRs that were deployed together, in the order of the VMs that were given.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Group<V> {
    ids: Vec<VrId>,
    kind: PhantomData<fn() -> V>,
}

impl<V> Group<V> {
    pub(crate) fn new(ids: Vec<VrId>) -> Self {
        Self { ids, kind: PhantomData }
    }

    /// Returns the ids of the VRs.
    #[must_use]
    pub fn ids(&self) -> &[VrId] {
        &self.ids
    }

    /// Returns the number of VRs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the group is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns an iterator over the ids of the VRs.
    pub fn iter(&self) -> impl Iterator<Item = VrId> + '_ {
        self.ids.iter().copied()
    }
}

impl<V> Index<usize> for Group<V> {
    type Output = VrId;

    fn index(&self, index: usize) -> &VrId {
        &self.ids[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_never_blank_nor_taken_for_the_name_of_a_type() {
        let shown = |label| shown(label).unwrap_or_default();
        assert_eq!(shown(" rank 3\n"), "rank 3");
        assert_eq!(shown("db::shard 3"), "db:shard 3");
        assert_eq!(shown("a:\u{7}:::b:c"), "a:b:c");
        assert_eq!((shown(""), shown(" \t"), shown("\u{7} \u{7}")), Default::default());
        assert_eq!(shown(&"é".repeat(200)).chars().count(), LABEL);
    }
}

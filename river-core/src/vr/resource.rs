//! What a virtual resource is: a value with a `main`, made anew from its bytes on the VM that runs it.

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
/// Its fields are its arguments and its state; they travel by serde. `main` runs on a thread of its own and sees the
/// world through `vr` only. When it returns, the VR is gone; an error or a panic is reported to whoever waits for it,
/// and hurts no one else.
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
    /// The VR's life.
    ///
    /// # Errors
    /// Whatever ends it before its work is done; the text reaches those who watch it.
    fn main(&mut self, vr: &Vr) -> Result;

    /// What people call the VR, in traces and in `river top`, if the name of its type does not say enough: `rank 3`. Asked
    /// once, before `main`, on the VR's thread; if it panics, the VR lives on under its type's name, and so does one whose
    /// label is blank. What is longer than 80 characters is cut, and of several colons in a row one is left: `::` marks the
    /// names of types.
    fn label(&self) -> Option<String> {
        None
    }
}

/// Of a label there are so many characters.
const LABEL: usize = 80;

/// A virtual resource of whatever type.
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

/// A label as it is shown; `None` if there is nothing to be seen.
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

/// The trampoline that makes a `V` of its bytes.
pub(crate) struct Create<V>(PhantomData<fn() -> V>);

/// What [`Create`] works on.
pub(crate) struct Creation {
    pub(crate) state: Vec<u8>,
    pub(crate) made: Option<std::result::Result<Box<dyn Resource>, String>>,
}

impl<V: VirtualResource> Trampoline<()> for Create<V> {
    fn enter((): (), context: &mut dyn Any) {
        // A pointer made for another purpose finds another context and does nothing.
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

    /// The names of the VRs.
    #[must_use]
    pub fn ids(&self) -> &[VrId] {
        &self.ids
    }

    /// How many VRs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the group is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The names of the VRs, one by one.
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

//! Active tuples: processes that become tuples when they end.

use std::any::Any;
use std::marker::PhantomData;

use river_core::code::{CodePtr, Trampoline};
use river_core::{Result, VirtualResource, Vr, VrError, VrId};
use river_sfm::{ANY, Message, Sfm, pat};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Space;

/// The virtual resource that computes a tuple.
#[derive(Serialize, Deserialize)]
pub(crate) struct Active {
    pub(crate) space: VrId,
    pub(crate) code: CodePtr,
}

/// A function that decodes its arguments from a message.
type Call = Box<dyn Fn(&Space<'_>, &Message) -> Result<Message>>;

/// Leads from a code pointer to the function that it names; the core calls it.
pub(crate) struct Function<A>(PhantomData<A>);

impl<A: DeserializeOwned + 'static, F: Fn(&Space<'_>, A) -> Result<Message> + 'static> Trampoline<F>
    for Function<A>
{
    fn enter(f: F, context: &mut dyn Any) {
        if let Some(call) = context.downcast_mut::<Option<Call>>() {
            *call = Some(Box::new(move |space, m| f(space, m.get("args")?)));
        }
    }
}

impl VirtualResource for Active {
    fn main(&mut self, vr: &Vr) -> Result {
        let mut call: Option<Call> = None;
        self.code.resolve()?(&mut call);
        let call = call.ok_or_else(|| VrError::msg("the code pointer names no active tuple"))?;
        let arguments = vr.recv(pat! { linda: "arguments", args: ANY })?;
        let space = Space::join(vr, self.space);
        space.out(call(&space, &arguments)?)
    }
}

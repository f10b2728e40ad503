//! The virtual resource that runs a process.

use std::any::Any;
use std::marker::PhantomData;

use river_core::code::{CodePtr, Trampoline};
use river_core::{Result, VirtualResource, Vr, VrError};
use river_sfm::{Message, Sfm, msg, pat};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Bsp;

#[derive(Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: usize,
    pub(crate) code: CodePtr,
}

/// A function that decodes its arguments from a message and encodes its result into one.
type Call = Box<dyn Fn(&mut Bsp<'_>, &Message) -> Result<Message>>;

/// Leads from a code pointer to the function that it names; the core calls it.
pub(crate) struct Function<A, R>(PhantomData<(A, R)>);

impl<A, R, F> Trampoline<F> for Function<A, R>
where
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
    F: Fn(&mut Bsp<'_>, A) -> Result<R> + 'static,
{
    fn enter(f: F, context: &mut dyn Any) {
        if let Some(call) = context.downcast_mut::<Option<Call>>() {
            *call =
                Some(Box::new(move |bsp, m| Ok(msg! { tag: "bsp end", result: f(bsp, m.get("args")?)? })));
        }
    }
}

impl VirtualResource for Process {
    fn main(&mut self, vr: &Vr) -> Result {
        let mut call: Option<Call> = None;
        self.code.resolve()?(&mut call);
        let call = call.ok_or_else(|| VrError::msg("the code pointer names no process"))?;
        let parent = vr.parent().expect("a process is deployed");
        let start = vr.recv(pat! { src: parent, tag: "bsp start" })?;
        let end = call(&mut Bsp::new(vr, self.pid, start.get("ids")?), &start)?;
        Ok(vr.send(parent, end)?)
    }
}

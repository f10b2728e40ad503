//! What a remotely called function can learn of the call and of the server that runs it.
//!
//! Everything here refers to the calling thread: outside of a remote call there is no server, and nothing is cancelled.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use river_core::{Vr, VrId};

use crate::handed_out::HandedOut;
use crate::intake::Intake;
use crate::protocol::{Target, Ticket};
use crate::store::Store;

scoped_tls::scoped_thread_local!(static SERVING: Vr);

/// The state of a VR that executes calls.
#[derive(Default)]
struct Place {
    store: OnceCell<Arc<Store>>,
    /// Set if the VR is a helper, whose calls are cancelled through the server.
    helps: OnceCell<HandedOut>,
    call: Cell<Option<(VrId, Ticket)>>,
}

/// The objects of the server that this VR is, or that it helps.
pub(crate) fn store(vr: &Vr) -> Arc<Store> {
    vr.slot::<Place>().store.get_or_init(Arc::default).clone()
}

/// Makes this VR a helper of a server.
pub(crate) fn help(vr: &Vr, store: Arc<Store>, calls: HandedOut) {
    let place = vr.slot::<Place>();
    let _ = place.store.set(store);
    let _ = place.helps.set(calls);
}

/// Records the call that this helper begins.
pub(crate) fn begin(vr: &Vr, call: Option<(VrId, Ticket)>) {
    vr.slot::<Place>().call.set(call);
}

/// Runs a remote call on the server's VR.
pub(crate) fn serving<R>(vr: &Vr, call: impl FnOnce() -> R) -> R {
    SERVING.set(vr, call)
}

/// Passes the server's own VR to a closure: with it a remote function can send messages, call other servers and open
/// handles. Returns `None` outside of a remote call.
///
/// The closure must not receive envelopes of this layer: the server's requests arrive on a channel that only this layer
/// may receive from.
pub fn with_vr<R>(look: impl FnOnce(&Vr) -> R) -> Option<R> {
    SERVING.is_set().then(|| SERVING.with(look))
}

/// Whether the result of this call is no longer wanted: it was cancelled, its deadline has passed, its client is gone, or the
/// server is to end with its parent, its [guardian](crate::RaiServer::ends_with) or the program. Long-running functions should
/// check this from time to time; it costs about as much as a receive that finds nothing.
///
/// ```no_run
/// # fn example(r: river_rai::Rai<'_>) -> Result<(), river_rai::CallError> {
/// fn search(mut n: u64) -> Option<u64> {
///     while !river_rai::current::is_cancelled() {
///         n += 1;
///     }
///     None
/// }
/// let pending = r.call_async(search, (1,))?;
/// pending.cancel();
/// # Ok(()) }
/// ```
#[must_use]
pub fn is_cancelled() -> bool {
    with_vr(|vr| {
        let place = vr.slot::<Place>();
        match (place.helps.get(), place.call.get()) {
            (Some(calls), call) => calls.is_over() || call.is_some_and(|call| calls.is_cancelled(call)),
            (None, _) => vr.slot::<Intake>().is_cancelled(vr),
        }
    })
    .unwrap_or(false)
}

/// Gives a function that runs on the server access, without a copy, to the value that was put there under a name.
///
/// Returns `None` if there is no value of that name and type, if a caller further up the stack is using it, or outside
/// of a remote call. On a [concurrent](crate::RaiServer::concurrent) server also if two functions would deadlock, each
/// using the value that the other waits for.
///
/// # Blocking
/// On a concurrent server, while another function or a method uses the value. `look` must not wait for a call of the
/// same server that needs it.
///
/// ```no_run
/// # fn example(r: river_rai::Rai<'_>) -> Result<(), river_rai::CallError> {
/// use std::collections::HashMap;
///
/// fn translate(word: String) -> Option<String> {
///     river_rai::current::with_named("table", |table: &mut HashMap<String, String>| table.get(&word).cloned())?
/// }
/// let _table = r.put("table", HashMap::from([("cat".to_string(), "gato".to_string())]))?;
/// assert_eq!(r.call(translate, ("cat".into(),))?, Some("gato".into()));
/// # Ok(()) }
/// ```
pub fn with_named<T: Send + 'static, R>(name: &str, look: impl FnOnce(&mut T) -> R) -> Option<R> {
    with_vr(|vr| {
        let store = store(vr);
        // Put back even if `look` panics.
        let mut out = store.take(&Target::Named(name.into()), vr.id())?;
        out.kept.as_mut()?.value.downcast_mut::<T>().map(look)
    })?
}

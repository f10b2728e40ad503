//! A VR's thread.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Once};
use std::thread;

use crate::down::Why;
use crate::id::VrId;
use crate::node::Node;
use crate::vr::Vr;
use crate::vr::resource::Resource;

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Starts the thread of a VR; `ended` is called on it when everybody who watches has been told.
pub(crate) fn spawn(
    node: &Arc<Node>,
    id: VrId,
    name: &str,
    parent: VrId,
    mut resource: Box<dyn Resource>,
    ended: impl FnOnce(VrId, Why) + Send + 'static,
) -> std::io::Result<()> {
    let inbox = node.add(id);
    node.add_watcher(parent, id);
    let (thread_node, name) = (node.clone(), name.to_owned());
    let body = move || {
        let why = {
            let vr = Vr::new(id, Some(parent), thread_node.clone(), inbox);
            catch(|| resource.run(&vr))
        };
        // A panic has been reported by the hook; an error would be seen only by who asks for it.
        if let Why::Failed(_) = why {
            eprintln!("VR {} ({name}) {why}", id.short());
        }
        thread_node.remove(id, &why);
        ended(id, why);
    };
    let started = thread::Builder::new().name(format!("river-vr-{}", id.short())).spawn(body);
    if let Err(error) = &started {
        node.remove(id, &Why::Failed(error.to_string()));
    }
    started.map(drop)
}

/// Runs a VR's body; its end, of whatever kind, as a reason.
pub(crate) fn catch(body: impl FnOnce() -> crate::error::Result) -> Why {
    note_panics();
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Why::Finished,
        Ok(Err(error)) => Why::Failed(error.to_string()),
        Err(payload) => Why::Panicked(panic_text(&*payload)),
    }
}

/// The text of the panic that has just been caught on this thread, with its place.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is not text".into());
    match LAST_PANIC.take() {
        Some(place) => format!("{text} ({place})"),
        None => text,
    }
}

/// Has every panic leave its place for whoever catches it, besides the usual report.
fn note_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            LAST_PANIC.set(info.location().map(ToString::to_string));
            usual(info);
        }));
    });
}

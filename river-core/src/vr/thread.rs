//! A VR's thread.

use std::sync::Arc;
use std::thread;

use crate::down::Why;
use crate::error::Result;
use crate::id::VrId;
use crate::inbox::Inbox;
use crate::node::Node;
use crate::notice::say;
use crate::panics::catch_panic;
use crate::state::Recorder;
use crate::vr::Vr;
use crate::vr::resource::Resource;

/// Starts the thread of a VR. `ended` is called on it once every VR that watches it has been told.
pub(crate) fn spawn(
    node: &Arc<Node>,
    id: VrId,
    name: &str,
    parent: VrId,
    resource: Box<dyn Resource>,
    recorder: Option<Arc<Recorder>>,
    ended: impl FnOnce(VrId, Why) + Send + 'static,
) -> std::io::Result<()> {
    let inbox = node.add(id);
    node.add_watcher(parent, id);
    start(node, Beginning { id, name, parent, inbox, resource, recorder }, ended)
}

/// A VR whose inbox already exists.
pub(crate) struct Beginning<'a> {
    pub(crate) id: VrId,
    pub(crate) name: &'a str,
    pub(crate) parent: VrId,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) resource: Box<dyn Resource>,
    pub(crate) recorder: Option<Arc<Recorder>>,
}

/// Starts the thread of a VR; `ended` is called as by [`spawn`].
pub(crate) fn start(
    node: &Arc<Node>,
    beginning: Beginning,
    ended: impl FnOnce(VrId, Why) + Send + 'static,
) -> std::io::Result<()> {
    let Beginning { id, name, parent, inbox, mut resource, recorder } = beginning;
    if recorder.is_none() {
        node.states.add_unrecorded(id, name);
    }
    let (thread_node, name) = (node.clone(), name.to_owned());
    let body = move || {
        // This is the user's code, which may panic or block.
        let name = catch_panic(|| resource.called()).ok().flatten().unwrap_or(name);
        let vr = match &recorder {
            None => Vr::new(id, Some(parent), thread_node.clone(), inbox),
            Some(recorder) => Vr::recorded(thread_node.clone(), inbox, recorder.clone()),
        };
        vr.is_called(&name);
        let mut why = catch(|| resource.run(&vr));
        // Values that handlers and layers keep in the VR belong to the user, so their destructors may panic too.
        if let Err(text) = catch_panic(|| drop(vr))
            && why.is_normal()
        {
            why = Why::Panicked(text);
        }
        match recorder {
            Some(recorder) => match recorder.finish(why) {
                Some(said) => {
                    thread_node.commit(&recorder);
                    why = said;
                }
                // The VR lives on elsewhere.
                None => return,
            },
            None => thread_node.states.remove(id),
        }
        // A panic has been reported by the hook; an error would otherwise be seen only by VRs that ask for it.
        if let Why::Failed(_) = why
            && !thread_node.is_stopped()
        {
            say!("VR {} ({name}) {why}", id.short());
        }
        if let Some(traces) = thread_node.traces.get() {
            // A VR that waits when the program ends gets an error, but has not failed.
            let stopped = matches!(why, Why::Failed(_)) && thread_node.is_stopped();
            traces.ended(id, if stopped { &Why::ProgramEnded } else { &why });
        }
        thread_node.remove(id, &why);
        ended(id, why);
        thread_node.states.remove(id);
    };
    let started = thread::Builder::new().name(format!("river-vr-{}", id.short())).spawn(body);
    if let Err(error) = &started {
        node.remove(id, &Why::Failed(error.to_string()));
        node.states.remove(id);
    }
    started.map(drop)
}

/// Runs a VR's body, and returns how it ended.
pub(crate) fn catch(body: impl FnOnce() -> Result) -> Why {
    match catch_panic(body) {
        Ok(Ok(())) => Why::Finished,
        Ok(Err(error)) => Why::Failed(error.to_string()),
        Err(text) => Why::Panicked(text),
    }
}

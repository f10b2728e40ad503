//! The tuples in a space, and the requests that wait for them: a state machine that knows nothing of VRs and threads.

use std::collections::HashMap;

use river_core::{Result, VrId};
use river_sfm::{Message, Template};

/// A request for a tuple.
pub(crate) struct Request {
    pub(crate) question: Message,
    template: Template,
    take: bool,
    wait: bool,
}

impl Request {
    pub(crate) fn read(question: Message) -> Result<Self> {
        let (take, wait) = question.get("linda")?;
        Ok(Self { template: question.get("template")?, take, wait, question })
    }
}

/// Which request gets which tuple; `None` answers a request that does not wait.
pub(crate) type Given = Vec<(Request, Option<Message>)>;

#[derive(Default)]
pub(crate) struct Tuples {
    /// Indexed by the attribute `tag`: most templates name the tag they want, and only its tuples are compared.
    here: HashMap<Option<String>, Vec<Message>>,
    /// In order of arrival. There is at most one per process, so a search is cheap.
    waiting: Vec<Request>,
}

impl Tuples {
    /// Adds a tuple: it answers all waiting requests to read it, and the first to take it; without the latter it stays.
    pub(crate) fn out(&mut self, tuple: Message) -> Given {
        let mut taken = false;
        let gets = |request: &mut Request| {
            let gets = !(taken && request.take) && request.template.matches(&tuple);
            taken |= gets && request.take;
            gets
        };
        let given = self.waiting.extract_if(.., gets).map(|request| (request, Some(tuple.clone()))).collect();
        if !taken {
            self.here.entry(tuple.get("tag").ok()).or_default().push(tuple);
        }
        given
    }

    /// Handles a request: answers it with a tuple or with `None`, or lets it wait.
    pub(crate) fn ask(&mut self, request: Request) -> Given {
        let found = match request.template.value("tag") {
            tag @ Some(_) => self.here.get_mut(&tag).and_then(|tuples| find(tuples, &request)),
            None => self.here.values_mut().find_map(|tuples| find(tuples, &request)),
        };
        if found.is_none() && request.wait {
            self.waiting.push(request);
            return Given::new();
        }
        vec![(request, found)]
    }

    /// Drops the requests of a VR that is gone.
    pub(crate) fn forget(&mut self, who: VrId) {
        self.waiting.retain(|request| request.question.src() != who);
    }
}

fn find(tuples: &mut Vec<Message>, request: &Request) -> Option<Message> {
    let pattern = request.template.pattern();
    let index = tuples.iter().position(|tuple| pattern.matches(tuple))?;
    // Linda specifies no order, so the last tuple may fill the gap.
    Some(if request.take { tuples.swap_remove(index) } else { tuples[index].clone() })
}

//! What is in a space, and who waits for what: a state machine that knows nothing of VRs and threads.

use std::collections::HashMap;

use river_core::{Result, VrId};
use river_sfm::{Message, Template};

/// Somebody who wants a tuple.
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

/// Who gets which tuple; `None` is for those who do not wait for one.
pub(crate) type Given = Vec<(Request, Option<Message>)>;

#[derive(Default)]
pub(crate) struct Tuples {
    /// By their attribute `tag`: most templates say which they want, and only those are compared.
    here: HashMap<Option<String>, Vec<Message>>,
    /// In the order in which they came. At most one of each process, so a search is cheap.
    waiting: Vec<Request>,
}

impl Tuples {
    /// A tuple comes: all who wait to read it get it, then the first who waits to take it, or it stays.
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

    /// Somebody asks for a tuple: gets one, or waits, or hears that there is none.
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

    /// Somebody is gone, and waits no longer.
    pub(crate) fn forget(&mut self, who: VrId) {
        self.waiting.retain(|request| request.question.src() != who);
    }
}

fn find(tuples: &mut Vec<Message>, request: &Request) -> Option<Message> {
    let pattern = request.template.pattern();
    let index = tuples.iter().position(|tuple| pattern.matches(tuple))?;
    // Linda promises no order, so the last may fill the gap.
    Some(if request.take { tuples.swap_remove(index) } else { tuples[index].clone() })
}

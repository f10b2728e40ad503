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
    number: u64,
}

impl Request {
    pub(crate) fn read(question: Message) -> Result<Self> {
        let (take, wait, number) = question.get("linda")?;
        Ok(Self { template: question.get("template")?, take, wait, number, question })
    }
}

/// Who gets which tuple; `None` is for those who do not wait for one.
pub(crate) type Given = Vec<(Request, Option<Message>)>;

#[derive(Default)]
pub(crate) struct Tuples {
    /// By their attribute `tag`: most templates say which they want, and only those are compared.
    here: HashMap<Option<String>, Vec<Message>>,
    /// In the order in which they came. A process has more than one only if its handlers ask, so a search is cheap.
    waiting: Vec<Request>,
    /// What each process has taken last, and by which request: it comes back if nobody waited for it any more.
    taken: HashMap<VrId, (u64, Message)>,
}

impl Tuples {
    /// A tuple comes: all who wait to read it get it, then the first who waits to take it, or it stays.
    pub(crate) fn out(&mut self, tuple: Message) -> Given {
        let mut taken = false;
        let gets = |request: &mut Request| {
            let gets = !(taken && request.take) && request.template.matches(&tuple);
            if gets && request.take {
                taken = true;
                self.taken.insert(request.question.src(), (request.number, tuple.clone()));
            }
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
        let tag = request.template.value("tag");
        let found = match tag {
            Some(_) => self.here.get_mut(&tag).and_then(|all| find(all, &request)).map(|found| (tag, found)),
            None => self.here.iter_mut().find_map(|(tag, all)| Some((tag.clone(), find(all, &request)?))),
        };
        if found.is_none() && request.wait {
            self.waiting.push(request);
            return Given::new();
        }
        if let (true, Some((tag, tuple))) = (request.take, &found) {
            self.taken.insert(request.question.src(), (request.number, tuple.clone()));
            if self.here[tag].is_empty() {
                self.here.remove(tag);
            }
        }
        vec![(request, found.map(|(_, tuple)| tuple))]
    }

    /// Somebody waits no longer: for this one, whose tuple comes back if there was one; or at all, as it is gone.
    pub(crate) fn withdraw(&mut self, who: VrId, number: Option<u64>) -> Given {
        let of_another = |request: &Request| number.is_some_and(|number| number != request.number);
        self.waiting.retain(|request| request.question.src() != who || of_another(request));
        let taken = self.taken.remove(&who).filter(|(by, _)| Some(*by) == number);
        taken.map(|(_, tuple)| self.out(tuple)).unwrap_or_default()
    }
}

fn find(tuples: &mut Vec<Message>, request: &Request) -> Option<Message> {
    let pattern = request.template.pattern();
    let index = tuples.iter().position(|tuple| pattern.matches(tuple))?;
    // Linda promises no order, so the last may fill the gap.
    Some(if request.take { tuples.swap_remove(index) } else { tuples[index].clone() })
}

#[cfg(test)]
mod tests;

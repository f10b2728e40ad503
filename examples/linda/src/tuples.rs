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
    number: u64,
}

impl Request {
    pub(crate) fn read(question: Message) -> Result<Self> {
        let (take, wait, number) = question.get("linda")?;
        Ok(Self { template: question.get("template")?, take, wait, number, question })
    }
}

/// Which request gets which tuple; `None` answers a request that does not wait.
pub(crate) type Given = Vec<(Request, Option<Message>)>;

#[derive(Default)]
pub(crate) struct Tuples {
    /// Indexed by the attribute `tag`: most templates name the tag they want, and only its tuples are compared.
    here: HashMap<Option<String>, Vec<Message>>,
    /// In order of arrival. A process has more than one only if its handlers ask, so a search is cheap.
    waiting: Vec<Request>,
    /// What each process has taken last, and by which request: it comes back if nobody waited for it any more.
    taken: HashMap<VrId, (u64, Message)>,
}

impl Tuples {
    /// Adds a tuple: it answers all waiting requests to read it, and the first to take it; without the latter it stays.
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

    /// Handles a request: answers it with a tuple or with `None`, or lets it wait.
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

    /// Drops a request of a VR, whose tuple is put back if it has been given; or all requests of a VR that is gone.
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
    // Linda specifies no order, so the last tuple may fill the gap.
    Some(if request.take { tuples.swap_remove(index) } else { tuples[index].clone() })
}

#[cfg(test)]
mod tests;

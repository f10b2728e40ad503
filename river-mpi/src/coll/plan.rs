//! The steps of one rank in a collective operation, as data: libNBC and MPICH call this a *schedule*.
//!
//! An algorithm writes a [`Plan`]; the executor carries it out, blocking or not; the simulator runs the plans of all ranks
//! against each other without a network. No other code depends on how a collective operation works.

use super::span::{Buffer, Span};

/// The side of the operator on which an operand stands. It matters if the operator does not commute: the elements of lower
/// ranks stand on the left of those of higher ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// `it + other`
    Left,
    /// `other + it`
    Right,
}

impl Side {
    /// The side on which data of rank `from` stands when combined with data of rank `here`.
    #[must_use]
    pub fn of(from: usize, here: usize) -> Self {
        if from < here { Side::Left } else { Side::Right }
    }
}

/// A list of spans, stored in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    first: u32,
    count: u32,
}

/// One step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Send { what: Parts, to: usize },
    Recv { into: Parts, from: usize },
    RecvReduce { side: Side, operand: Span, into: Span, from: usize },
    Copy { from: Span, into: Span },
    Reduce { side: Side, what: Span, into: Span },
}

impl Step {
    /// The rank that it sends to or receives from.
    fn peer(&self) -> Option<usize> {
        match *self {
            Step::Send { to: peer, .. }
            | Step::Recv { from: peer, .. }
            | Step::RecvReduce { from: peer, .. } => Some(peer),
            Step::Copy { .. } | Step::Reduce { .. } => None,
        }
    }
}

/// The steps of one rank.
///
/// Steps are carried out in the order in which they are written. A send does not wait: it sends what the span contains at
/// that point, and the next step may overwrite the span. A receive waits. Messages from one rank to another arrive in the
/// order in which they are sent, so the n-th receive from a rank gets the n-th message that this rank sends here; both must
/// have the same length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Step>,
    spans: Vec<Span>,
    scratch: usize,
}

impl Plan {
    /// Creates an empty plan.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends elements to a rank; several spans are joined into one message. Does not wait.
    pub fn send(&mut self, what: impl IntoIterator<Item = Span>, to: usize) {
        let what = self.parts(what);
        self.steps.push(Step::Send { what, to });
    }

    /// Waits for the next message from a rank and stores it in the span, or in several spans, one after the other.
    pub fn recv(&mut self, into: impl IntoIterator<Item = Span>, from: usize) {
        let into = self.parts(into);
        self.steps.push(Step::Recv { into, from });
    }

    /// Waits for the next message from a rank, combines it, as the operand on that side of the operator, with `operand`, and
    /// stores the result in `into`, which may be `operand` itself.
    pub fn recv_reduce(&mut self, side: Side, operand: Span, into: Span, from: usize) {
        self.steps.push(Step::RecvReduce { side, operand, into, from });
    }

    /// Copies elements. Adds no step if both spans are the same.
    pub fn copy(&mut self, from: Span, into: Span) {
        if from != into && from.len > 0 {
            self.steps.push(Step::Copy { from, into });
        }
    }

    /// Combines `what`, which stands on that side of the operator, with `into`, and stores the result there.
    pub fn reduce(&mut self, side: Side, what: Span, into: Span) {
        self.steps.push(Step::Reduce { side, what, into });
    }

    /// Reserves memory for this many elements, for the duration of the operation.
    pub fn scratch(&mut self, len: usize) -> Span {
        let start = self.scratch;
        self.scratch += len;
        Span { buffer: Buffer::Scratch, start, len }
    }

    /// Adds the steps of another plan, made for a group of ranks: `ranks[i]` is the rank of the group's i-th member, and the
    /// given spans serve as its input and output. This way an algorithm can be composed of others.
    ///
    /// A span of the other plan that does not lie within `input` or `output` becomes a span outside of the buffer; the check
    /// of the whole plan rejects it.
    pub fn embed(&mut self, plan: &Plan, ranks: &[usize], input: Span, output: Span) {
        let scratch = self.scratch(plan.scratch);
        let place = |span: Span| {
            let home = match span.buffer {
                Buffer::Input => input,
                Buffer::Output => output,
                Buffer::Scratch => scratch,
            };
            // An empty span may lie anywhere; one that is too long must not silently extend into its neighbour.
            if span.end() > home.len && span.len > 0 {
                return Span { buffer: Buffer::Scratch, start: usize::MAX - span.len, len: span.len };
            }
            home.part(span.start.min(home.len)..span.end().min(home.len))
        };
        for step in &plan.steps {
            match *step {
                Step::Send { what, to } => self.send(plan.spans(what).iter().copied().map(place), ranks[to]),
                Step::Recv { into, from } => {
                    self.recv(plan.spans(into).iter().copied().map(place), ranks[from]);
                }
                Step::RecvReduce { side, operand, into, from } => {
                    self.recv_reduce(side, place(operand), place(into), ranks[from]);
                }
                Step::Copy { from, into } => self.copy(place(from), place(into)),
                Step::Reduce { side, what, into } => self.reduce(side, place(what), place(into)),
            }
        }
    }

    /// The number of steps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether the plan has no steps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(super) fn step(&self, index: usize) -> Option<Step> {
        self.steps.get(index).copied()
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The number of elements in its longest message.
    pub(super) fn longest_message(&self) -> usize {
        let len = |spans: &[Span]| spans.iter().map(|span| span.len).sum::<usize>();
        let messages = self.steps.iter().filter(|step| step.peer().is_some());
        messages.map(|step| len(self.reads(step)).max(len(self.writes(step)))).max().unwrap_or(0)
    }

    /// The spans that a step reads: those that it sends, or its operand.
    fn reads<'a>(&'a self, step: &'a Step) -> &'a [Span] {
        match step {
            Step::Send { what, .. } => self.spans(*what),
            Step::Recv { .. } => &[],
            Step::RecvReduce { operand: from, .. }
            | Step::Copy { from, .. }
            | Step::Reduce { what: from, .. } => std::slice::from_ref(from),
        }
    }

    /// The spans that a step writes.
    fn writes<'a>(&'a self, step: &'a Step) -> &'a [Span] {
        match step {
            Step::Send { .. } => &[],
            Step::Recv { into, .. } => self.spans(*into),
            Step::RecvReduce { into, .. } | Step::Copy { into, .. } | Step::Reduce { into, .. } => {
                std::slice::from_ref(into)
            }
        }
    }

    pub(super) fn spans(&self, parts: Parts) -> &[Span] {
        &self.spans[parts.first as usize..][..parts.count as usize]
    }

    /// The number of elements of scratch memory that it needs.
    pub(crate) fn scratch_len(&self) -> usize {
        self.scratch
    }

    fn parts(&mut self, spans: impl IntoIterator<Item = Span>) -> Parts {
        let first = self.spans.len();
        for span in spans {
            match self.spans[first..].last_mut() {
                // Adjacent spans become one, which can be sent without gathering.
                Some(last) if last.buffer == span.buffer && last.end() == span.start => last.len += span.len,
                _ => self.spans.push(span),
            }
        }
        // More than 2^32 spans do not fit into memory.
        Parts { first: first as u32, count: (self.spans.len() - first) as u32 }
    }

    /// Checks that the executor can carry out the plan: ranks exist, spans lie in their buffers, results do not overlap what
    /// they are computed from. The error describes what is wrong.
    pub(crate) fn check(
        &self,
        size: usize,
        input: usize,
        output: usize,
        reduces: bool,
    ) -> Result<(), String> {
        let inside = |span: Span| {
            let len = match span.buffer {
                Buffer::Input => input,
                Buffer::Output => output,
                Buffer::Scratch => self.scratch,
            };
            span.len == 0 || (span.start <= len && span.len <= len - span.start)
        };
        for (index, step) in self.steps.iter().enumerate() {
            let (reads, writes) = (self.reads(step), self.writes(step));
            let wrong = |what: &str| Err(format!("step {index}, {}, {what}", self.describe(*step)));
            if step.peer().is_some_and(|peer| peer >= size) {
                return wrong(&format!("names a rank that is none of the {size}"));
            }
            if !reads.iter().chain(writes).all(|&span| inside(span)) {
                return wrong(&format!(
                    "reaches beyond a buffer (input {input}, output {output}, scratch {} elements)",
                    self.scratch
                ));
            }
            if writes.iter().any(|span| span.buffer == Buffer::Input && span.len > 0) {
                return wrong("writes into the input");
            }
            match *step {
                Step::RecvReduce { .. } | Step::Reduce { .. } if !reduces => {
                    return wrong("reduces in an operation that has no operator");
                }
                Step::RecvReduce { operand, into, .. }
                    if operand.len != into.len || (operand != into && operand.overlaps(into)) =>
                {
                    return wrong("has an operand and a result that do not fit together");
                }
                Step::Copy { from, into } | Step::Reduce { what: from, into, .. }
                    if from.len != into.len || from.overlaps(into) =>
                {
                    return wrong("has a source and a result that do not fit together");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether any step writes to the output.
    pub(crate) fn writes_output(&self) -> bool {
        let mut written = self.steps.iter().flat_map(|step| self.writes(step));
        written.any(|span| span.buffer == Buffer::Output && span.len > 0)
    }

    /// Whether the input may lie in the output, with its first element at `offset`: no step reads input whose place in the
    /// output was already overwritten.
    pub(super) fn allows_input_in_output(&self, offset: usize) -> bool {
        let mut written: Vec<Span> = Vec::new();
        let moved = |span: Span| Span { buffer: Buffer::Output, start: span.start + offset, len: span.len };
        for step in &self.steps {
            let (reads, mut writes) = (self.reads(step), self.writes(step));
            if let (&[from], &[into]) = (reads, writes)
                && from.buffer == Buffer::Input
            {
                let same = moved(from) == into;
                match step {
                    _ if !same && moved(from).overlaps(into) => return false,
                    Step::Reduce { .. } if same => return false,
                    // The element is in its place already, provided that it was not overwritten.
                    Step::Copy { .. } if same => writes = &[],
                    _ => {}
                }
            }
            let mut input = reads.iter().filter(|span| span.buffer == Buffer::Input && span.len > 0);
            if input.any(|&span| written.iter().any(|&written| written.overlaps(moved(span)))) {
                return false;
            }
            for &span in writes.iter().filter(|span| span.buffer == Buffer::Output) {
                match written.last_mut() {
                    Some(last) if last.end() == span.start => last.len += span.len,
                    _ => written.push(span),
                }
            }
        }
        true
    }

    fn describe(&self, step: Step) -> String {
        let list = |parts| self.spans(parts).iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ");
        match step {
            Step::Send { what, to } => format!("send {} to rank {to}", list(what)),
            Step::Recv { into, from } => format!("receive {} from rank {from}", list(into)),
            Step::RecvReduce { side: Side::Left, operand, into, from } => {
                format!("receive {into} = (from rank {from}) op {operand}")
            }
            Step::RecvReduce { side: Side::Right, operand, into, from } => {
                format!("receive {into} = {operand} op (from rank {from})")
            }
            Step::Copy { from, into } => format!("copy {into} = {from}"),
            Step::Reduce { side: Side::Left, what, into } => format!("reduce {into} = {what} op {into}"),
            Step::Reduce { side: Side::Right, what, into } => format!("reduce {into} = {into} op {what}"),
        }
    }
}

/// Shows one step per line.
impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.steps.iter().try_for_each(|&step| writeln!(f, "{}", self.describe(step)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coll::span::{NOTHING, input, output};

    #[test]
    fn a_plan_reads_like_a_protocol() {
        let mut plan = Plan::new();
        let scratch = plan.scratch(2);
        plan.send(NOTHING, 1);
        plan.send([output(0..2), output(2..4), input(0..1)], 2);
        plan.recv_reduce(Side::Left, input(0..2), scratch, 1);
        plan.reduce(Side::Right, scratch, output(0..2));
        assert_eq!(
            plan.to_string(),
            "send nothing to rank 1\n\
             send output[0..4] + input[0..1] to rank 2\n\
             receive scratch[0..2] = (from rank 1) op input[0..2]\n\
             reduce output[0..2] = output[0..2] op scratch[0..2]\n"
        );
    }

    #[test]
    fn what_cannot_be_carried_out_is_found_and_named() {
        let wrong = |write: &dyn Fn(&mut Plan)| {
            let mut plan = Plan::new();
            write(&mut plan);
            plan.check(4, 10, 10, true).unwrap_err()
        };
        assert!(wrong(&|p| p.send(NOTHING, 4)).contains("none of the 4"));
        assert!(wrong(&|p| p.recv(output(8..11), 0)).contains("beyond a buffer"));
        assert!(wrong(&|p| p.recv(input(0..1), 0)).contains("writes into the input"));
        assert!(wrong(&|p| p.copy(output(0..5), output(4..9))).contains("do not fit"));
        assert!(wrong(&|p| p.recv_reduce(Side::Left, input(0..2), output(0..3), 1)).contains("do not fit"));
        let mut plan = Plan::new();
        plan.reduce(Side::Left, input(0..1), output(0..1));
        assert!(plan.check(4, 10, 10, false).unwrap_err().contains("no operator"));
        assert!(plan.check(4, 10, 10, true).is_ok());
    }

    #[test]
    fn an_embedded_plan_cannot_leave_its_buffers() {
        let mut inner = Plan::new();
        inner.send(output(0..3), 1);
        let mut plan = Plan::new();
        plan.embed(&inner, &[5, 3], input(0..0), output(4..6));
        assert!(plan.check(9, 0, 100, false).is_err());
        let mut plan = Plan::new();
        plan.embed(&inner, &[5, 3], input(0..0), output(4..7));
        assert_eq!(plan.to_string(), "send output[4..7] to rank 3\n");
    }

    #[test]
    fn what_has_no_element_overlaps_nothing() {
        assert!(output(0..3).overlaps(output(2..4)) && !output(0..3).overlaps(input(2..4)));
        assert!(!output(0..3).overlaps(output(3..4)) && !output(0..3).overlaps(output(1..1)));
        assert!(!output(1..1).overlaps(output(0..3)));
    }

    #[test]
    fn in_place_is_seen_to_be_safe_or_not() {
        let mut safe = Plan::new();
        safe.send(input(0..4), 1);
        safe.recv_reduce(Side::Left, input(0..4), output(0..4), 1);
        assert!(safe.allows_input_in_output(0));
        assert!(!safe.allows_input_in_output(2));
        let mut late = Plan::new();
        late.recv(output(0..4), 1);
        late.send(input(0..4), 1);
        assert!(!late.allows_input_in_output(0));
        assert!(late.allows_input_in_output(4));
    }
}

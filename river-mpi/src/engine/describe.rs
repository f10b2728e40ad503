//! Texts for errors and deadlock reports: the names of communicators, and what a rank waits for.

use super::arrival::Arrival;
use super::{Ask, Engine, OpId, OpState, Sources, State};
use crate::matching::{Key, Pattern};

/// What a rank waits for, unless it is the one message that a hook asks for.
#[derive(Clone, Copy)]
pub(super) enum WaitReason<'a> {
    /// Any of these operations.
    Ops(&'a [OpId]),
    /// Any of these operations, or of those in the background.
    Started(&'a [OpId]),
    Agreement,
}

impl<'a> WaitReason<'a> {
    pub(super) fn ops(self) -> &'a [OpId] {
        match self {
            Self::Ops(ops) | Self::Started(ops) => ops,
            Self::Agreement => &[],
        }
    }
}

impl Engine<'_> {
    /// Notes which collective operation this rank is in, and returns the previous one, so that a background operation can
    /// restore it.
    #[inline]
    pub(crate) fn enter(&self, operation: &'static str) -> &'static str {
        self.operation.replace(operation)
    }

    /// Returns the name of a context: that of its communicator or, for a communicator's second context, that of the
    /// collective operation on it.
    pub(crate) fn name_of(&self, context: u32) -> String {
        let comm = self.state.borrow().name_of(context & !1);
        if context.is_multiple_of(2) { comm } else { format!("{} on {comm}", self.operation.get()) }
    }

    /// Gives a communicator a name.
    pub(crate) fn set_name(&self, context: u32, name: String) {
        self.state.borrow_mut().names.insert(context, name);
    }

    /// Forgets the name of a communicator that is no longer used.
    pub(crate) fn forget_name(&self, context: u32) {
        self.state.borrow_mut().names.remove(&context);
    }

    /// Describes what is waited for: what `ask` asks for or, without it, `what`.
    pub(super) fn describe(&self, ask: Option<&Ask>, what: WaitReason<'_>) -> String {
        let started = match (ask, what) {
            (Some(ask), _) => return self.describe_ask(ask),
            (None, WaitReason::Agreement) => return "an agreement".to_owned(),
            (None, WaitReason::Ops(_)) => None,
            (None, WaitReason::Started(_)) => self.describe_background(),
        };
        let ops = what.ops().iter().filter_map(|&op| self.describe_op(op));
        ops.chain(started).collect::<Vec<_>>().join(", or ")
    }

    pub(super) fn describe_op(&self, op: OpId) -> Option<String> {
        let state = self.state.borrow();
        Some(match &state.ops.get(op.key())?.state {
            OpState::Posted(ask) => {
                let ask = ask.clone();
                drop(state);
                self.describe_ask(&ask)
            }
            OpState::Due(offer) => format!("the data of a message from rank {}", offer.header.from),
            OpState::Arriving(Arrival { header, .. }) => {
                format!("the rest of a message from rank {}", header.from)
            }
            OpState::Offered { to, key, .. }
            | OpState::Wanted { to, key, .. }
            | OpState::Unmatched { to, key } => self.describe_send(*to, *key),
            _ => "the answer to a cancel".to_owned(),
        })
    }

    /// Describes what a send waits for.
    pub(super) fn describe_send(&self, to: u32, Key { context, tag, .. }: Key) -> String {
        if !context.is_multiple_of(2) {
            return format!("rank {to} in {}", self.name_of(context));
        }
        format!("rank {to} to receive what was sent with tag {tag} ({})", self.name_of(context))
    }

    pub(super) fn describe_ask(&self, ask: &Ask) -> String {
        let Pattern { context, tag, .. } = ask.pattern;
        let from = match &ask.sources {
            Sources::One(rank) => format!("rank {rank}"),
            Sources::Any(_) => "any rank".to_owned(),
        };
        if !context.is_multiple_of(2) {
            return format!("{from} in {}", self.name_of(context));
        }
        let tag = tag.map_or_else(|| "any tag".to_owned(), |tag| format!("tag {tag}"));
        format!("a message from {from} with {tag} ({})", self.name_of(context))
    }
}

impl State {
    /// Returns the name of a communicator.
    pub(super) fn name_of(&self, context: u32) -> String {
        let unnamed = || match context {
            0 => "the world".to_owned(),
            _ => format!("communicator {}", context / 2),
        };
        self.names.get(&context).cloned().unwrap_or_else(unnamed)
    }
}

//! Which VRs a mailbox knows to be gone, and which receive must report it.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{Found, Selector};
use crate::down::{Down, Why};
use crate::id::VrId;

#[derive(Debug, Default)]
pub(super) struct Deaths {
    pub(super) watched: HashSet<VrId>,
    /// VRs whose abnormal end is reported without a watch.
    pub(super) children: HashSet<VrId>,
    pub(super) down: HashMap<VrId, Why>,
    /// The notices that the next receives that find no envelope report.
    pub(super) notices: VecDeque<Down>,
    /// The VRs whose notices were reported or dropped since the inbox was last told.
    pub(super) heard: Vec<VrId>,
}

impl Deaths {
    /// Records that a VR is gone.
    pub(super) fn hear(&mut self, Down { who, why }: Down) {
        if self.down.contains_key(&who) {
            self.heard.push(who);
            return;
        }
        if self.watched.contains(&who) || (self.children.contains(&who) && !why.is_normal()) {
            self.notices.push_back(Down { who, why: why.clone() });
        } else {
            self.heard.push(who);
        }
        self.down.insert(who, why);
    }

    /// Returns what a receive that finds no envelope must report.
    pub(super) fn news(&mut self, selector: &Selector) -> Found {
        if let Some(src) = selector.awaited()
            && let Some(why) = self.down.get(&src)
        {
            let down = Down { who: src, why: why.clone() };
            self.drop_notice(src);
            return Found::Down(down);
        }
        let Some(down) = self.notices.pop_front() else { return Found::Nothing };
        self.heard.push(down.who);
        Found::Down(down)
    }

    fn drop_notice(&mut self, who: VrId) {
        if let Some(index) = self.notices.iter().position(|notice| notice.who == who) {
            self.notices.remove(index);
            self.heard.push(who);
        }
    }

    pub(super) fn watch(&mut self, who: VrId) -> bool {
        if let Some(why) = self.down.get(&who)
            && self.notices.iter().all(|notice| notice.who != who)
        {
            self.notices.push_back(Down { who, why: why.clone() });
        }
        self.watched.insert(who)
    }

    pub(super) fn unwatch(&mut self, who: VrId) {
        self.watched.remove(&who);
        self.drop_notice(who);
    }

    pub(super) fn revive(&mut self, who: VrId) {
        self.down.remove(&who);
        self.unwatch(who);
    }
}

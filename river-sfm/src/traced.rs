//! Labels messages in a trace by their tags.

use river_core::trace::Label;
use river_core::{Channel, Envelope, Vr};

use crate::message::{SFM, TAG};
use crate::receive::open;

/// Tells a VR how to label the channels of this layer. Costs a branch, unless the program is traced.
#[inline]
pub(crate) fn describe(vr: &Vr) {
    vr.describe_channel(SFM, "sfm", Label::Lane(tag));
}

/// Tells a VR how to label the channel of replies.
#[inline]
pub(crate) fn describe_replies(vr: &Vr, replies: Channel) {
    vr.describe_channel(replies, "sfm reply", Label::None);
}

/// The tag of a message, as text.
fn tag(envelope: &Envelope) -> Option<String> {
    let message = open(envelope.clone()).ok()?;
    let tag = message.view().find(TAG)?.to_string();
    Some(tag.trim_matches('"').to_owned())
}

//! The decoders of input from other VRs, for fuzzers: each function feeds bytes to one decoder and must return,
//! whatever the bytes are. The targets are in `river-sfm/fuzz`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use river_core::{Payload, VrId};
use uuid::Uuid;

use crate::blob::Blob;
use crate::constraint::{ANY, not};
use crate::message::Message;
use crate::pattern::Pattern;
use crate::template::Template;

/// Decodes a message and reads everything in it, as values of many types.
pub fn message(bytes: &[u8]) {
    let _ = look(Payload::from(Bytes::copy_from_slice(bytes)));
}

/// Decodes a template, matches it with a message, and encodes it again.
pub fn template(bytes: &[u8]) {
    if let Ok(template) = postcard::from_bytes::<Template>(bytes) {
        let _ = template.matches(&Message::new().with("tag", "x").with("n", &1).with("x", &[0.5]));
        let again = template.pattern().template().expect("a template has no code");
        // NaNs differ from themselves; their text does not.
        assert_eq!(again.to_string(), template.to_string());
        let encoded = postcard::to_stdvec(&again).expect("a template can be sent");
        let decoded: Template = postcard::from_bytes(&encoded).expect("what was sent can be read");
        assert_eq!(decoded.to_string(), template.to_string());
    }
}

/// Decodes the message in a payload, after reading everything in it.
pub(crate) fn look(payload: Payload) -> Option<Message> {
    let message = Message::received(VrId::from_uuid(Uuid::nil()), payload)?;
    let _ = message.to_string();
    for name in message.names() {
        let _ = message.get::<String>(name).is_ok();
        let _ = message.get::<u8>(name).is_ok();
        let _ = message.get::<i128>(name).is_ok();
        let _ = message.get::<char>(name).is_ok();
        let _ = message.get::<Vec<f32>>(name).is_ok();
        let _ = message.get::<[i64; 3]>(name).is_ok();
        let _ = message.get::<Option<Vec<String>>>(name).is_ok();
        let _ = message.get::<BTreeMap<String, Vec<(u8, Duration)>>>(name).is_ok();
        if let Ok(blob) = message.get::<Blob>(name) {
            let _ = (blob.as_slice::<f64>().is_ok(), blob.to_vec::<u16>().is_ok());
        }
        let pattern = Pattern::new().with(name, ANY).with(name, not(1)).with(name, 1..5);
        let _ = pattern.matches(&message);
    }
    let _ = message.fields::<BTreeMap<String, u64>>();
    let _ = message.clone().without("tag").with("tag", "more");
    Some(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use river_core::{Channel, Envelope};

    use super::*;

    fn accepts(pattern: &Pattern<'_>, payload: Payload) -> bool {
        let (src, dst) = (VrId::fresh(), VrId::fresh());
        pattern.accepts(&Envelope { src, dst, seq: 0, channel: Channel::named("sfm"), lane: 0, payload })
    }

    proptest! {
        /// A short run of what a fuzzer does for hours.
        #[test]
        fn every_decoder_survives_anything(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            message(&bytes);
            template(&bytes);
            let payload = Payload::from(bytes);
            prop_assert!(!accepts(&Pattern::new().with("a", 1), payload.clone()));
            prop_assert!(look(payload).is_none());
        }

        #[test]
        fn damaged_messages_do_no_harm(
            n in any::<i64>(), text in ".{0,9}", xs in prop::collection::vec(any::<f64>(), 0..5),
            options in prop::collection::vec(any::<Option<(u8, String)>>(), 0..3), blob in any::<bool>(),
            at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<bool>(),
        ) {
            let whole = Message::new().with("tag", &n).with("größe", &text).with("xs", &xs).with("o", &options);
            let whole = if blob { whole.with("b", &Blob::from(xs)) } else { whole };
            let mut bytes = whole.seal().unwrap().payload.to_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if cut {
                bytes.truncate(at);
            }
            let payload = Payload::from(Bytes::from(bytes));
            let pattern = Pattern::new().with("tag", not(1)).with("xs", |_: &Vec<f64>| true);
            let accepted = accepts(&pattern, payload.clone());
            prop_assert!(look(payload).is_some() || !accepted);
        }

        #[test]
        fn damaged_templates_do_no_harm(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<bool>()) {
            let pattern = Pattern::new().with("tag", "x").with("n", not(1..5)).with("b", Blob::from(vec![1u16]));
            let mut bytes = postcard::to_stdvec(&pattern.template().unwrap()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if cut {
                bytes.truncate(at);
            }
            template(&bytes);
        }
    }
}

//! [`Message`]: a set of named attributes, whether being written, in transit or received.

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use river_core::{Channel, Envelope, Payload, VrId};

use crate::decode::FromAttr;
use crate::encode::{EncodeError, ToAttr};
use crate::error::{GetError, SendError};
use crate::value::{Kind, Scalar};
use crate::wire::{self, Attr, Head};

/// The attribute, set by the system, that holds the source.
pub(crate) const SRC: &str = "src";
/// The attribute that a question carries.
pub(crate) const ASK: &str = "ask";
/// The attribute by whose value messages are found without a search.
pub(crate) const TAG: &str = "tag";

/// All messages of this layer travel on this channel.
pub(crate) const SFM: Channel = Channel::named("sfm");

/// A message: a set of (name, value) pairs, each value of any type that serde supports, or a [`Blob`](crate::Blob).
///
/// Made by [`msg!`](crate::msg) or by [`new`](Message::new) and [`with`](Message::with), which encode at once, so the
/// message keeps no reference to the values. A value that cannot be encoded becomes an error when the message is sent.
#[derive(Clone)]
pub struct Message {
    src: Option<VrId>,
    body: Body,
}

#[derive(Clone)]
enum Body {
    Draft(Draft),
    /// Checked when it was received, or written here.
    Sealed {
        head: Bytes,
        payload: Payload,
    },
}

#[derive(Clone)]
struct Draft {
    head: Vec<u8>,
    blobs: Vec<Bytes>,
    /// The first thing that went wrong, reported when the message is sent.
    error: Option<Box<SendError>>,
}

/// A payload ready to be sent.
pub(crate) struct Sealed {
    pub(crate) payload: Payload,
    pub(crate) lane: u64,
}

impl Message {
    /// The message that an envelope carries; `None` if the envelope belongs to another layer or is malformed. For
    /// tools; to receive messages use [`Sfm::recv`](crate::Sfm::recv).
    #[must_use]
    pub fn of(envelope: &Envelope) -> Option<Self> {
        (envelope.channel == SFM).then(|| Self::received(envelope.src, envelope.payload.clone()))?
    }

    /// A message without attributes.
    #[must_use]
    pub fn new() -> Self {
        Self { src: None, body: Body::Draft(Draft::new()) }
    }

    /// Adds an attribute. The value is encoded at once.
    ///
    /// The name may be any string except `src` and `ask`, which are reserved. A name that is refused or already
    /// present, or a value that cannot be encoded, is an error when the message is sent.
    #[must_use]
    #[inline]
    pub fn with<T: ToAttr + ?Sized>(mut self, name: impl AsRef<str>, value: &T) -> Self {
        let name = name.as_ref();
        let draft = self.draft();
        if is_reserved(name) {
            draft.fail(SendError::Reserved(name.to_owned()));
        } else {
            draft.add(name, value);
        }
        self
    }

    /// Adds an attribute, even a reserved one.
    pub(crate) fn with_any<T: ToAttr + ?Sized>(mut self, name: &str, value: &T) -> Self {
        self.draft().add(name, value);
        self
    }

    /// Adds an attribute of another message, unchanged, under the given name: nothing is decoded, and the memory of a
    /// blob is shared.
    ///
    /// ```
    /// use river_sfm::{Message, msg};
    ///
    /// let m = msg! { tag: "a", items: vec![1, 2] };
    /// let copy = m.attrs().fold(Message::new(), |copy, attr| copy.with_attr(&format!("old {}", attr.name()), &attr));
    /// assert_eq!(copy.get::<Vec<i32>>("old items")?, [1, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_attr(mut self, name: &str, attr: &Attr<'_>) -> Self {
        let draft = self.draft();
        if is_reserved(name) {
            draft.fail(SendError::Reserved(name.to_owned()));
        } else {
            draft.copy(name, attr);
        }
        self
    }

    /// The message without the attribute of that name, if it has one. Nothing is decoded.
    #[must_use]
    pub fn without(self, name: &str) -> Self {
        if self.attr(name).is_none() {
            return self;
        }
        let mut draft = Draft::new();
        if let Body::Draft(Draft { error: Some(error), .. }) = &self.body {
            draft.error = Some(error.clone());
        }
        self.attrs().filter(|attr| attr.name() != name).for_each(|attr| draft.copy(attr.name(), &attr));
        Self { src: self.src, body: Body::Draft(draft) }
    }

    /// The VR that sent it: the attribute `src`. The nil UUID in a message that has not been received.
    #[must_use]
    pub fn src(&self) -> VrId {
        self.src.unwrap_or(VrId::from_uuid(uuid::Uuid::nil()))
    }

    /// Reads the value of an attribute.
    ///
    /// Integers convert by value, whatever width they were sent with; so do floats (to `f32` by rounding) and the
    /// elements of numeric sequences. An integer does not convert to a float, nor a float to an integer. Any other
    /// value must be read as the type that was sent; borrowed types are read as their owned form. `src` is a [`VrId`].
    ///
    /// # Errors
    /// [`GetError`]: there is no such attribute, it is of another type, or its value does not fit.
    pub fn get<T: FromAttr>(&self, name: &str) -> Result<T, GetError> {
        if name == SRC
            && let Some(src) = self.src
        {
            return SrcAttr::new(src).attr().get();
        }
        self.attr(name).ok_or_else(|| self.missing(name))?.get()
    }

    pub(crate) fn missing(&self, name: &str) -> GetError {
        GetError::Missing { name: name.to_owned(), present: self.names().map(str::to_owned).collect() }
    }

    /// Whether there is an attribute of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.attr(name).is_some() || (name == SRC && self.src.is_some())
    }

    /// The names of the attributes in the order in which they were added, without `src`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.attrs().map(|attr| attr.name())
    }

    /// The attributes in the order in which they were added, without `src`.
    pub fn attrs(&self) -> impl Iterator<Item = Attr<'_>> {
        self.view().walk()
    }

    fn attr(&self, name: &str) -> Option<Attr<'_>> {
        self.view().find(name)
    }

    pub(crate) fn view(&self) -> Head<'_> {
        match &self.body {
            Body::Draft(draft) => Head::own(&draft.head, &draft.blobs),
            Body::Sealed { head, payload } => Head::checked(head, payload),
        }
    }

    /// The message in a payload that a pattern has found to be valid.
    pub(crate) fn accepted(src: VrId, payload: Payload) -> Option<Self> {
        let length = usize::try_from(wire::head_len(payload.head())?).ok()?;
        let head = payload.slice(0, length)?;
        Some(Self { src: Some(src), body: Body::Sealed { head, payload } })
    }

    /// The message in a payload that has arrived; `None` if the payload is not a message.
    pub(crate) fn received(src: VrId, payload: Payload) -> Option<Self> {
        let message = Self::accepted(src, payload)?;
        let whole = match &message.body {
            Body::Sealed { head, payload } => Head::check(head, payload).is_some(),
            Body::Draft(_) => false,
        };
        whole.then_some(message)
    }

    pub(crate) fn seal(self) -> Result<Sealed, SendError> {
        let lane = lane(&self.view());
        let payload = match self.body {
            Body::Draft(draft) => draft.seal()?,
            Body::Sealed { payload, .. } => payload,
        };
        Ok(Sealed { payload, lane })
    }

    /// The message in the form in which attributes can be added.
    fn draft(&mut self) -> &mut Draft {
        if let Body::Sealed { head, .. } = &self.body {
            let blobs = self.attrs().filter_map(|attr| attr.memory()).collect();
            self.body = Body::Draft(Draft { head: head.to_vec(), blobs, error: None });
        }
        match &mut self.body {
            Body::Draft(draft) => draft,
            Body::Sealed { .. } => unreachable!("it has just been made a draft"),
        }
    }
}

/// Whether the name is reserved for an attribute that the system sets.
#[inline]
fn is_reserved(name: &str) -> bool {
    name.len() == 3 && (name == SRC || name == ASK)
}

impl Default for Message {
    fn default() -> Self {
        Self::new()
    }
}

impl Draft {
    fn new() -> Self {
        let mut head = Vec::with_capacity(128);
        head.extend_from_slice(&[0; wire::PREFIX]);
        Self { head, blobs: Vec::new(), error: None }
    }

    fn add<T: ToAttr + ?Sized>(&mut self, name: &str, value: &T) {
        if self.error.is_some() {
            return;
        }
        let start = self.head.len();
        if let Err(error) = self.try_add(name, value) {
            self.head.truncate(start);
            self.fail(error);
        }
    }

    #[cold]
    fn fail(&mut self, error: SendError) {
        self.error.get_or_insert_with(|| Box::new(error));
    }

    fn try_add<T: ToAttr + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), SendError> {
        let failed = |error: String| SendError::Encode { name: name.to_owned(), error };
        let start = self.head.len();
        if !wire::begin_attribute(&mut self.head, name) {
            return Err(failed("its name is too long".into()));
        }
        let encoded = value.encode(&mut self.head).map_err(|error: EncodeError| failed(error.to_string()))?;
        let blob = encoded.blob.as_ref().map(Bytes::len);
        wire::end_attribute(&mut self.head, start, name, encoded.kind, &encoded.ty, blob);
        self.blobs.extend(encoded.blob);
        self.count_one();
        Ok(())
    }

    /// Adds an attribute of another message.
    fn copy(&mut self, name: &str, attr: &Attr<'_>) {
        let (start, memory) = (self.head.len(), attr.memory());
        if !wire::begin_attribute(&mut self.head, name) {
            let error = SendError::Encode { name: name.to_owned(), error: "its name is too long".into() };
            self.fail(error);
            return;
        }
        self.head.extend_from_slice(attr.body);
        let blob = memory.as_ref().map(Bytes::len);
        wire::end_attribute(&mut self.head, start, name, attr.kind, attr.ty(), blob);
        self.blobs.extend(memory);
        self.count_one();
    }

    fn count_one(&mut self) {
        let count = self.head.first_chunk().map_or(0, |count| u32::from_le_bytes(*count));
        self.head[..4].copy_from_slice(&(count + 1).to_le_bytes());
    }

    fn seal(mut self) -> Result<Payload, SendError> {
        if let Some(error) = self.error {
            return Err(*error);
        }
        if let Some(name) = duplicate(&Head::own(&self.head, &self.blobs)) {
            return Err(SendError::Duplicate(name.to_owned()));
        }
        let length = self.head.len() as u64;
        self.head[4..wire::PREFIX].copy_from_slice(&length.to_le_bytes());
        if !self.blobs.is_empty() {
            self.head.resize(self.head.len().next_multiple_of(wire::ALIGN as usize), 0);
        }
        let mut payload = Payload::from(self.head);
        for blob in self.blobs {
            let padding = payload.len().next_multiple_of(wire::ALIGN as usize) - payload.len();
            payload.push(Bytes::from_static(&[0; wire::ALIGN as usize][..padding]));
            payload.push(blob);
        }
        Ok(payload)
    }
}

/// Returns a name that occurs twice, if any.
fn duplicate<'a>(head: &Head<'a>) -> Option<&'a str> {
    /// Up to this many names are compared pairwise, without allocating.
    const FEW: usize = 16;
    if head.walk().nth(FEW).is_none() {
        let twice = |(i, attr): (usize, Attr<'a>)| {
            head.walk().take(i).any(|before| before.name() == attr.name()).then_some(attr.name())
        };
        return head.walk().enumerate().find_map(twice);
    }
    let mut seen = HashSet::new();
    head.walk().map(|attr| attr.name()).find(|name| !seen.insert(*name))
}

/// The lane of a message: the hash of its tag's value, or none.
pub(crate) fn lane(head: &Head<'_>) -> u64 {
    head.find(TAG).map_or(0, |tag| tag_lane(tag.kind, tag.body))
}

/// A hash of a tag's value. Only scalars have one: only for them do equal values have equal bytes.
pub(crate) fn tag_lane(kind: Kind, body: &[u8]) -> u64 {
    if !kind.is_scalar() {
        return 0;
    }
    if let (Kind::Float, Some(Scalar::Float(v))) = (kind, Scalar::read(kind, body))
        && v == 0.0
    {
        // -0.0 equals 0.0.
        return hash(kind.code(), &0f64.to_le_bytes());
    }
    hash(kind.code(), body)
}

/// A multiplicative hash, eight bytes at a time, never 0. Both ends must agree on it.
fn hash(seed: u8, bytes: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = (bytes.len() as u64 ^ (u64::from(seed) << 56)).wrapping_mul(K);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = (state.rotate_left(29) ^ u64::from_le_bytes(word)).wrapping_mul(K);
    }
    (state ^ (state >> 32)).max(1)
}

/// `src` as an attribute, so that constraints can treat it like any other.
pub(crate) struct SrcAttr([u8; 17]);

impl SrcAttr {
    pub(crate) fn new(src: VrId) -> Self {
        // The encoding that postcard gives a UUID: its length and its bytes.
        let mut body = [16; 17];
        body[1..].copy_from_slice(src.as_uuid().as_bytes());
        Self(body)
    }

    pub(crate) fn attr(&self) -> Attr<'_> {
        Attr::lone(SRC, Kind::Encoded, std::any::type_name::<VrId>(), &self.0)
    }
}

/// `{tag: "x", n: 3, items: Vec<i32>(4)}`
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_attrs(f, &self.view())
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Message ")?;
        if let Some(src) = self.src {
            write!(f, "from {} ", src.short())?;
        }
        write_attrs(f, &self.view())?;
        match &self.body {
            Body::Draft(Draft { error: Some(error), .. }) => write!(f, " ({error})"),
            _ => Ok(()),
        }
    }
}

fn write_attrs(f: &mut fmt::Formatter<'_>, head: &Head<'_>) -> fmt::Result {
    f.write_str("{")?;
    for (i, attr) in head.walk().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        write!(f, "{comma}{}: {attr}", attr.name())?;
    }
    f.write_str("}")
}

//! Decodes the body of an attribute to a value.

use std::fmt;
use std::marker::PhantomData;

use river_core::naming::without_paths;
use serde::de::value::SeqDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Unexpected, Visitor,
};

use crate::error::GetError;
use crate::typename::{TypeName, shorten};
use crate::value::{Elem, Kind, Scalar};
use crate::wire::Attr;

/// A type as which an attribute can be read: everything that is `DeserializeOwned`, and [`Blob`](crate::Blob).
///
/// There is nothing to implement: derive `Deserialize`. For types that cannot be read see [`ToAttr`](crate::ToAttr).
#[diagnostic::on_unimplemented(
    message = "an attribute of a message cannot be read as `{Self}`",
    note = "derive `serde::Deserialize` for it; what is borrowed cannot be read, its owned form can: `String`, `Vec<T>`"
)]
pub trait FromAttr: Sized {
    /// Decodes the value.
    #[doc(hidden)]
    fn decode(attr: &Attr<'_>) -> Result<Self, DecodeError>;
}

/// Why a value was not decoded.
#[doc(hidden)]
#[derive(Debug, PartialEq)]
pub enum DecodeError {
    /// It is of another type.
    Type,
    /// It is a number that does not fit; as text.
    Range(String),
    /// It is damaged, or its `Deserialize` refuses it.
    Failed(String),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Type => f.write_str("wrong type"),
            DecodeError::Range(value) => write!(f, "{value} does not fit"),
            DecodeError::Failed(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(error: T) -> Self {
        DecodeError::Failed(error.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, _: &dyn de::Expected) -> Self {
        DecodeError::Type
    }
}

impl<T: DeserializeOwned> FromAttr for T {
    fn decode(attr: &Attr<'_>) -> Result<Self, DecodeError> {
        decode_as(attr, PhantomData)
    }
}

/// Decodes the value by the given seed.
pub(crate) fn decode_as<'de, S: DeserializeSeed<'de>>(
    attr: &Attr<'de>,
    seed: S,
) -> Result<S::Value, DecodeError> {
    match attr.kind {
        Kind::Encoded => encoded(attr, seed),
        Kind::Array(elem) => array(elem, attr.body, seed),
        Kind::Blob => {
            let elem = Elem::from_name(attr.ty()).ok_or(DecodeError::Type)?;
            array(elem, &attr.memory().ok_or_else(damaged)?, seed)
        }
        kind => seed.deserialize(Scalar::read(kind, attr.body).ok_or_else(damaged)?),
    }
}

fn damaged() -> DecodeError {
    DecodeError::Failed("the bytes are damaged".into())
}

fn encoded<'de, S: DeserializeSeed<'de>>(attr: &Attr<'de>, seed: S) -> Result<S::Value, DecodeError> {
    if !attr.is_of(&TypeName::of::<S::Value>().name) {
        return Err(DecodeError::Type);
    }
    let failed = |error: postcard::Error| DecodeError::Failed(error.to_string());
    let mut body = postcard::Deserializer::from_bytes(attr.body);
    let value = seed.deserialize(&mut body).map_err(failed)?;
    if !body.finalize().map_err(failed)?.is_empty() {
        return Err(DecodeError::Failed("there are bytes behind the value".into()));
    }
    Ok(value)
}

/// Only types that are numeric sequences themselves can be read from one; a set or a tuple is another type.
fn array<'de, S: DeserializeSeed<'de>>(elem: Elem, body: &[u8], seed: S) -> Result<S::Value, DecodeError> {
    let wanted = TypeName::of::<S::Value>().element.ok_or(DecodeError::Type)?;
    let chunks = body.chunks_exact(elem.size());
    if !chunks.remainder().is_empty() {
        return Err(damaged());
    }
    if elem != wanted {
        return all(chunks.map(|chunk| Element(elem, chunk)), seed);
    }
    // Nothing to convert: serde is handed the numbers as they are.
    macro_rules! numbers {
        ($($variant:ident $type:ident)*) => {
            match elem {
                $(Elem::$variant => {
                    let number = |chunk: &[u8]| {
                        $type::from_le_bytes(chunk.first_chunk().copied().unwrap_or_default())
                    };
                    all(chunks.map(number), seed)
                })*
            }
        };
    }
    numbers! {
        I8 i8 I16 i16 I32 i32 I64 i64 I128 i128 U8 u8 U16 u16 U32 u32 U64 u64 U128 u128 F32 f32 F64 f64
    }
}

fn all<'de, S, E>(elements: impl ExactSizeIterator<Item = E>, seed: S) -> Result<S::Value, DecodeError>
where
    S: DeserializeSeed<'de>,
    E: IntoDeserializer<'de, DecodeError>,
{
    let total = elements.len();
    let mut elements = SeqDeserializer::new(elements);
    let value = seed.deserialize(Sequence(&mut elements))?;
    elements.end().map_err(|_| DecodeError::Failed(format!("{total} elements are too many")))?;
    Ok(value)
}

struct Element<'a>(Elem, &'a [u8]);

impl<'de> IntoDeserializer<'de, DecodeError> for Element<'_> {
    type Deserializer = Scalar<'static>;

    #[inline]
    fn into_deserializer(self) -> Scalar<'static> {
        // The chunk has the element's size; if it did not, the empty string would be refused as the wrong type.
        self.0.read(self.1).unwrap_or(Scalar::Str(""))
    }
}

struct Sequence<'s, I: Iterator>(&'s mut SeqDeserializer<I, DecodeError>);

impl<'de, I> Deserializer<'de> for Sequence<'_, I>
where
    I: Iterator<Item: IntoDeserializer<'de, DecodeError>>,
{
    type Error = DecodeError;

    fn is_human_readable(&self) -> bool {
        false
    }
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(self.0)
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident;)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            visitor.$visit(self.integer()?)
        })*
    };
}

macro_rules! never {
    ($($method:ident($($arg:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(self, $(_: $arg,)* _: V) -> Result<V::Value, DecodeError> {
            Err(DecodeError::Type)
        })*
    };
}

impl Scalar<'_> {
    #[inline]
    fn integer<N: TryFrom<u128> + TryFrom<i128>>(self) -> Result<N, DecodeError> {
        let fits = match self {
            Scalar::Uint(v) => N::try_from(v).ok(),
            Scalar::Negative(v) => N::try_from(v).ok(),
            _ => return Err(DecodeError::Type),
        };
        fits.ok_or_else(|| DecodeError::Range(self.to_string()))
    }

    #[inline]
    fn float(self) -> Result<f64, DecodeError> {
        if let Scalar::Float(v) = self { Ok(v) } else { Err(DecodeError::Type) }
    }
}

/// Stricter than serde's own: a type that asks for a float is not given an integer, nor one that asks for a char a
/// string.
impl<'de> Deserializer<'de> for Scalar<'_> {
    type Error = DecodeError;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self {
            Scalar::Uint(v) => match u64::try_from(v) {
                Ok(v) => visitor.visit_u64(v),
                Err(_) => visitor.visit_u128(v),
            },
            Scalar::Negative(v) => match i64::try_from(v) {
                Ok(v) => visitor.visit_i64(v),
                Err(_) => visitor.visit_i128(v),
            },
            Scalar::Float(v) => visitor.visit_f64(v),
            Scalar::Bool(v) => visitor.visit_bool(v),
            Scalar::Char(v) => visitor.visit_char(v),
            Scalar::Str(v) => visitor.visit_str(v),
            Scalar::Bytes(v) => visitor.visit_bytes(v),
        }
    }

    integers! {
        deserialize_i8 visit_i8;
        deserialize_i16 visit_i16;
        deserialize_i32 visit_i32;
        deserialize_i64 visit_i64;
        deserialize_i128 visit_i128;
        deserialize_u8 visit_u8;
        deserialize_u16 visit_u16;
        deserialize_u32 visit_u32;
        deserialize_u64 visit_u64;
        deserialize_u128 visit_u128;
    }

    #[inline]
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let v = self.float()?;
        if v.is_finite() && !(v as f32).is_finite() {
            return Err(DecodeError::Range(self.to_string()));
        }
        visitor.visit_f32(v as f32)
    }
    #[inline]
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_f64(self.float()?)
    }
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if let Scalar::Bool(v) = self { visitor.visit_bool(v) } else { Err(DecodeError::Type) }
    }
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if let Scalar::Char(v) = self { visitor.visit_char(v) } else { Err(DecodeError::Type) }
    }
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if let Scalar::Str(v) = self { visitor.visit_str(v) } else { Err(DecodeError::Type) }
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if let Scalar::Bytes(v) = self { visitor.visit_bytes(v) } else { Err(DecodeError::Type) }
    }
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_bytes(visitor)
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }
    never! {
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(&'static str);
        deserialize_newtype_struct(&'static str);
        deserialize_seq();
        deserialize_tuple(usize);
        deserialize_tuple_struct(&'static str, usize);
        deserialize_map();
        deserialize_struct(&'static str, &'static [&'static str]);
        deserialize_enum(&'static str, &'static [&'static str]);
        deserialize_identifier();
    }
}

impl Attr<'_> {
    /// The value, if it is a `T` or converts to one.
    ///
    /// # Errors
    /// [`GetError::Type`], [`GetError::Range`] or [`GetError::Decode`].
    pub fn get<T: FromAttr>(&self) -> Result<T, GetError> {
        T::decode(self).map_err(|error| self.error::<T>(error))
    }

    /// What went wrong when a `T` was wanted.
    pub(crate) fn error<T>(&self, error: DecodeError) -> GetError {
        let name = self.name().to_owned();
        let (sent, wanted) = self.and_wanted::<T>();
        match error {
            DecodeError::Type => GetError::Type { name, sent, wanted },
            DecodeError::Range(value) => GetError::Range { name, sent, value, wanted },
            DecodeError::Failed(error) => GetError::Decode { name, wanted, error },
        }
    }

    /// The type that was sent, in readable form: `integer`, `String`, `Vec<i32>`, `Stack`, `Blob<f64>`.
    #[must_use]
    pub fn type_name(&self) -> String {
        without_paths(&self.full_type_name())
    }

    fn full_type_name(&self) -> String {
        match self.kind {
            Kind::Encoded => self.ty().into(),
            Kind::Array(elem) => format!("Vec<{}>", elem.name()),
            Kind::Blob => format!("Blob<{}>", self.ty()),
            kind => Scalar::read(kind, self.body).map_or("damaged bytes", Scalar::sort).into(),
        }
    }

    fn and_wanted<T>(&self) -> (String, String) {
        shorten(&self.full_type_name(), &TypeName::of::<T>().name)
    }
}

/// As in a message shown to people: a scalar by its value, anything else by its type and length.
impl fmt::Display for Attr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Array(elem) => write!(f, "{}({})", self.type_name(), self.body.len() / elem.size()),
            Kind::Blob => match Elem::from_name(self.ty()) {
                Some(elem) => write!(f, "{}({})", self.type_name(), self.memory_len() / elem.size() as u64),
                None => write!(f, "{}({} bytes)", self.type_name(), self.memory_len()),
            },
            kind => match Scalar::read(kind, self.body) {
                Some(scalar) => scalar.fmt(f),
                None => f.write_str(&self.type_name()),
            },
        }
    }
}

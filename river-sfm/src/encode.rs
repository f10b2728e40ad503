//! Encodes a value as the body of an attribute.
//!
//! The value is classified while serde walks it: a scalar is written by value, a sequence of numbers as it lies in
//! memory, anything else by postcard, together with the name of its type.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::ser::{Impossible, SerializeSeq, SerializeTuple, Serializer};
use serde::{Serialize, ser};

use crate::typename::TypeName;
use crate::value::{Elem, Kind, Scalar};

/// A type that can be the value of an attribute: everything that is `Serialize`, and [`Blob`](crate::Blob).
///
/// There is nothing to implement: derive `Serialize`. The encoding contains no names or types within a value. What needs
/// these is sent but cannot be read (`serde_json::Value`, enums with `tag` or `untagged`) or cannot be sent (`flatten`),
/// and `skip_serializing_if` must not be used.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an attribute of a message",
    note = "derive `serde::Serialize` for it"
)]
pub trait ToAttr {
    /// Appends the body and returns what must be written besides it.
    #[doc(hidden)]
    fn encode(&self, out: &mut Vec<u8>) -> Result<Encoded, EncodeError>;
}

/// What belongs to an encoded value besides its body.
#[doc(hidden)]
#[derive(Debug)]
pub struct Encoded {
    pub(crate) kind: Kind,
    /// The name of the type, or of a blob's elements; empty for kinds that need none.
    pub(crate) ty: Cow<'static, str>,
    /// A blob's memory, which is not copied into the body.
    pub(crate) blob: Option<Bytes>,
}

/// Why a value was not encoded.
#[doc(hidden)]
#[derive(Debug)]
pub enum EncodeError {
    /// Not a kind that this serializer writes; another serializer will.
    Other,
    /// The value cannot be encoded at all.
    Failed(String),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::Other => f.write_str("not of the expected kind"),
            EncodeError::Failed(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for EncodeError {}

impl ser::Error for EncodeError {
    fn custom<T: fmt::Display>(error: T) -> Self {
        EncodeError::Failed(error.to_string())
    }
}

impl<T: Serialize + ?Sized> ToAttr for T {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<Encoded, EncodeError> {
        match self.serialize(Scalars(out)) {
            Ok(kind) => Ok(Encoded { kind, ty: Cow::Borrowed(""), blob: None }),
            Err(EncodeError::Other) => compound(self, out),
            Err(failed) => Err(failed),
        }
    }
}

fn compound<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<Encoded, EncodeError> {
    let name = TypeName::of::<T>();
    let start = out.len();
    if let Some(elem) = name.element {
        match value.serialize(Numbers { out, elem }) {
            Ok(()) => return Ok(Encoded { kind: Kind::Array(elem), ty: Cow::Borrowed(""), blob: None }),
            Err(EncodeError::Other) => out.truncate(start),
            Err(failed) => return Err(failed),
        }
    }
    postcard::serialize_with_flavor(value, Append(out))
        .map_err(|error| EncodeError::Failed(error.to_string()))?;
    Ok(Encoded { kind: Kind::Encoded, ty: Cow::Borrowed(&name.name), blob: None })
}

/// Lets postcard append to a buffer that is already in use.
struct Append<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The methods by which serde announces that a value is not a scalar. `$seq` and `$tuple` are the types by which the
/// serializer handles sequences.
macro_rules! no_compounds {
    ($ok:ty) => {
        type SerializeTupleStruct = Impossible<$ok, EncodeError>;
        type SerializeTupleVariant = Impossible<$ok, EncodeError>;
        type SerializeMap = Impossible<$ok, EncodeError>;
        type SerializeStruct = Impossible<$ok, EncodeError>;
        type SerializeStructVariant = Impossible<$ok, EncodeError>;
        type Ok = $ok;
        type Error = EncodeError;

        fn is_human_readable(&self) -> bool {
            false
        }
        fn serialize_none(self) -> Result<$ok, EncodeError> {
            Err(EncodeError::Other)
        }
        fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<$ok, EncodeError> {
            Err(EncodeError::Other)
        }
        fn serialize_unit(self) -> Result<$ok, EncodeError> {
            Err(EncodeError::Other)
        }
        fn serialize_unit_struct(self, _: &'static str) -> Result<$ok, EncodeError> {
            Err(EncodeError::Other)
        }
        fn serialize_unit_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
        ) -> Result<$ok, EncodeError> {
            Err(EncodeError::Other)
        }
        fn serialize_newtype_struct<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: &T,
        ) -> Result<$ok, EncodeError> {
            Err(EncodeError::Other)
        }
        fn serialize_newtype_variant<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: &T,
        ) -> Result<$ok, EncodeError> {
            Err(EncodeError::Other)
        }
        fn serialize_tuple_struct(
            self,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleStruct, EncodeError> {
            Err(EncodeError::Other)
        }
        fn serialize_tuple_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleVariant, EncodeError> {
            Err(EncodeError::Other)
        }
        fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, EncodeError> {
            Err(EncodeError::Other)
        }
        fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, EncodeError> {
            Err(EncodeError::Other)
        }
        fn serialize_struct_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeStructVariant, EncodeError> {
            Err(EncodeError::Other)
        }
    };
}

macro_rules! no_sequences {
    ($ok:ty) => {
        type SerializeSeq = Impossible<$ok, EncodeError>;
        type SerializeTuple = Impossible<$ok, EncodeError>;

        fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, EncodeError> {
            Err(EncodeError::Other)
        }
        fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, EncodeError> {
            Err(EncodeError::Other)
        }
    };
}

macro_rules! scalars {
    ($ok:ty: $($method:ident $type:ty, |$self:ident, $v:ident| $body:expr;)*) => {
        $(#[inline]
        fn $method($self, $v: $type) -> Result<$ok, EncodeError> {
            $body
        })*
    };
}

/// Writes scalars and refuses everything else.
struct Scalars<'a>(&'a mut Vec<u8>);

impl Serializer for Scalars<'_> {
    no_compounds!(Kind);
    no_sequences!(Kind);
    scalars! { Kind:
        serialize_bool bool, |self, v| Ok(Scalar::Bool(v).write(self.0));
        serialize_i8 i8, |self, v| Ok(Scalar::signed(v.into()).write(self.0));
        serialize_i16 i16, |self, v| Ok(Scalar::signed(v.into()).write(self.0));
        serialize_i32 i32, |self, v| Ok(Scalar::signed(v.into()).write(self.0));
        serialize_i64 i64, |self, v| Ok(Scalar::signed(v.into()).write(self.0));
        serialize_i128 i128, |self, v| Ok(Scalar::signed(v).write(self.0));
        serialize_u8 u8, |self, v| Ok(Scalar::Uint(v.into()).write(self.0));
        serialize_u16 u16, |self, v| Ok(Scalar::Uint(v.into()).write(self.0));
        serialize_u32 u32, |self, v| Ok(Scalar::Uint(v.into()).write(self.0));
        serialize_u64 u64, |self, v| Ok(Scalar::Uint(v.into()).write(self.0));
        serialize_u128 u128, |self, v| Ok(Scalar::Uint(v).write(self.0));
        serialize_f32 f32, |self, v| Ok(Scalar::Float(v.into()).write(self.0));
        serialize_f64 f64, |self, v| Ok(Scalar::Float(v).write(self.0));
        serialize_char char, |self, v| Ok(Scalar::Char(v).write(self.0));
        serialize_str &str, |self, v| Ok(Scalar::Str(v).write(self.0));
        serialize_bytes &[u8], |self, v| Ok(Scalar::Bytes(v).write(self.0));
    }
}

/// Writes a sequence of numbers of one type and refuses everything else.
struct Numbers<'a> {
    out: &'a mut Vec<u8>,
    elem: Elem,
}

impl Serializer for Numbers<'_> {
    no_compounds!(());
    type SerializeSeq = Self;
    type SerializeTuple = Self;

    fn serialize_seq(self, len: Option<usize>) -> Result<Self, EncodeError> {
        self.out.reserve(len.unwrap_or(0).saturating_mul(self.elem.size()));
        Ok(self)
    }
    fn serialize_tuple(self, len: usize) -> Result<Self, EncodeError> {
        self.serialize_seq(Some(len))
    }
    scalars! { ():
        serialize_bool bool, |self, _v| Err(EncodeError::Other);
        serialize_i8 i8, |self, v| self.number(Elem::I8, &v.to_le_bytes());
        serialize_i16 i16, |self, v| self.number(Elem::I16, &v.to_le_bytes());
        serialize_i32 i32, |self, v| self.number(Elem::I32, &v.to_le_bytes());
        serialize_i64 i64, |self, v| self.number(Elem::I64, &v.to_le_bytes());
        serialize_i128 i128, |self, v| self.number(Elem::I128, &v.to_le_bytes());
        serialize_u8 u8, |self, v| self.number(Elem::U8, &v.to_le_bytes());
        serialize_u16 u16, |self, v| self.number(Elem::U16, &v.to_le_bytes());
        serialize_u32 u32, |self, v| self.number(Elem::U32, &v.to_le_bytes());
        serialize_u64 u64, |self, v| self.number(Elem::U64, &v.to_le_bytes());
        serialize_u128 u128, |self, v| self.number(Elem::U128, &v.to_le_bytes());
        serialize_f32 f32, |self, v| self.number(Elem::F32, &v.to_le_bytes());
        serialize_f64 f64, |self, v| self.number(Elem::F64, &v.to_le_bytes());
        serialize_char char, |self, _v| Err(EncodeError::Other);
        serialize_str &str, |self, _v| Err(EncodeError::Other);
        serialize_bytes &[u8], |self, _v| Err(EncodeError::Other);
    }
}

impl Numbers<'_> {
    #[inline]
    fn number(self, elem: Elem, bytes: &[u8]) -> Result<(), EncodeError> {
        if elem != self.elem {
            return Err(EncodeError::Other);
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

impl SerializeSeq for Numbers<'_> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(Numbers { out: self.out, elem: self.elem })
    }
    fn end(self) -> Result<(), EncodeError> {
        Ok(())
    }
}

impl SerializeTuple for Numbers<'_> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(Numbers { out: self.out, elem: self.elem })
    }
    fn end(self) -> Result<(), EncodeError> {
        Ok(())
    }
}

//! Structs as messages: each field is an attribute, and the variant of an enum is the `tag`.

use std::fmt;

use river_core::naming::without_paths;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::ser::{self, Impossible, SerializeMap, SerializeStruct, SerializeStructVariant, Serializer};
use serde::{Serialize, forward_to_deserialize_any};

use crate::decode::decode_as;
use crate::encode::ToAttr;
use crate::error::{GetError, SendError};
use crate::message::{ASK, Message, TAG};
use crate::typename::TypeName;
use crate::value::Kind;
use crate::wire::Attr;

impl Message {
    /// A message with one attribute for each field of a struct, named as the field. For an enum, whose variants must
    /// have named fields or none, the attribute `tag` holds the variant as well. A map whose keys are strings is also
    /// accepted.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// use river_sfm::Message;
    ///
    /// #[derive(Debug, PartialEq, Serialize, Deserialize)]
    /// enum Job {
    ///     Work { first: u32, items: Vec<f64> },
    ///     Stop,
    /// }
    ///
    /// let job = Job::Work { first: 7, items: vec![0.5] };
    /// let m = Message::of_fields(&job)?;
    /// assert_eq!(m.to_string(), r#"{tag: "Work", first: 7, items: Vec<f64>(1)}"#);
    /// assert_eq!(m.fields::<Job>()?, job);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendError::Encode`] if the value is none of these, or if a field cannot be encoded.
    pub fn of_fields<T: Serialize + ?Sized>(value: &T) -> Result<Self, SendError> {
        value.serialize(Fields(Message::new())).map_err(|Failed(error)| SendError::Encode {
            name: without_paths(&TypeName::of::<T>().name),
            error,
        })
    }

    /// Reads the message as a struct, or an enum, as [`of_fields`](Self::of_fields) writes it. Attributes that are not
    /// fields are ignored. A field without an attribute takes its serde default: that of `#[serde(default)]`, or `None`
    /// for an `Option`; otherwise it is an error.
    ///
    /// # Errors
    /// [`GetError`] names the field.
    pub fn fields<T: DeserializeOwned>(&self) -> Result<T, GetError> {
        T::deserialize(Record(self)).map_err(|error| match error {
            FieldError::Get(error) => error,
            FieldError::Missing(name) => self.missing(name),
            FieldError::Other(error) => {
                let wanted = without_paths(&TypeName::of::<T>().name);
                GetError::Decode { name: "*".into(), wanted, error }
            }
        })
    }
}

// ---- from a struct to a message ----

struct Fields(Message);

#[derive(Debug)]
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl ser::Error for Failed {
    fn custom<T: fmt::Display>(error: T) -> Self {
        Failed(error.to_string())
    }
}

fn no_fields<T>() -> Result<T, Failed> {
    Err(Failed("only what has named fields can be sent field by field".into()))
}

macro_rules! no_fields {
    ($($method:ident($($type:ty),*);)*) => {
        $(fn $method(self, $(_: $type),*) -> Result<Message, Failed> {
            no_fields()
        })*
    };
}

impl Serializer for Fields {
    type Ok = Message;
    type Error = Failed;
    type SerializeSeq = Impossible<Message, Failed>;
    type SerializeTuple = Impossible<Message, Failed>;
    type SerializeTupleStruct = Impossible<Message, Failed>;
    type SerializeTupleVariant = Impossible<Message, Failed>;
    type SerializeMap = Entries;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    fn is_human_readable(&self) -> bool {
        false
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Failed> {
        Ok(self)
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<Message, Failed> {
        Ok(self.0)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self, Failed> {
        Ok(Self(self.0.with(TAG, variant)))
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Message, Failed> {
        Ok(self.0.with(TAG, variant))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Entries, Failed> {
        Ok(Entries { message: self.0, key: String::new() })
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Message, Failed> {
        value.serialize(self)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Message, Failed> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Message, Failed> {
        no_fields()
    }
    no_fields! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_none();
        serialize_unit();
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Failed> {
        no_fields()
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Failed> {
        no_fields()
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Failed> {
        no_fields()
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Failed> {
        no_fields()
    }
}

impl Fields {
    fn add<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.0 = std::mem::take(&mut self.0).with(name, value);
    }
}

impl SerializeStruct for Fields {
    type Ok = Message;
    type Error = Failed;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Failed> {
        self.add(name, value);
        Ok(())
    }
    fn end(self) -> Result<Message, Failed> {
        Ok(self.0)
    }
}

impl SerializeStructVariant for Fields {
    type Ok = Message;
    type Error = Failed;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Failed> {
        self.add(name, value);
        Ok(())
    }
    fn end(self) -> Result<Message, Failed> {
        Ok(self.0)
    }
}

/// The entries of a map, or of a struct with `#[serde(flatten)]`.
struct Entries {
    message: Message,
    key: String,
}

impl SerializeMap for Entries {
    type Ok = Message;
    type Error = Failed;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Failed> {
        let mut name = Vec::new();
        match key.encode(&mut name) {
            Ok(encoded) if encoded.kind == Kind::Str => {
                self.key = String::from_utf8_lossy(&name).into_owned();
                Ok(())
            }
            _ => Err(Failed("the keys of a map that is sent field by field must be strings".into())),
        }
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        self.message = std::mem::take(&mut self.message).with(&self.key, value);
        Ok(())
    }
    fn end(self) -> Result<Message, Failed> {
        Ok(self.message)
    }
}

// ---- from a message to a struct ----

#[derive(Debug)]
enum FieldError {
    Get(GetError),
    Missing(&'static str),
    Other(String),
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldError::Get(error) => error.fmt(f),
            FieldError::Missing(name) => write!(f, "there is no `{name}`"),
            FieldError::Other(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for FieldError {}

impl de::Error for FieldError {
    fn custom<T: fmt::Display>(error: T) -> Self {
        FieldError::Other(error.to_string())
    }
    fn missing_field(name: &'static str) -> Self {
        FieldError::Missing(name)
    }
}

#[derive(Clone, Copy)]
struct Record<'m>(&'m Message);

impl<'de> Deserializer<'de> for Record<'de> {
    type Error = FieldError;

    fn is_human_readable(&self) -> bool {
        false
    }
    /// All attributes but those that the system sets, for maps and for structs with `#[serde(flatten)]`.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        let of_sender = self.0.attrs().filter(|attr| attr.name() != ASK);
        visitor.visit_map(Attributes { rest: of_sender, next: None })
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        let of_struct = self.0.attrs().filter(|attr| fields.contains(&attr.name()));
        visitor.visit_map(Attributes { rest: of_struct, next: None })
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_enum(self)
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_some(self)
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_unit()
    }
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Attributes<'m, I> {
    rest: I,
    next: Option<Attr<'m>>,
}

impl<'de, I: Iterator<Item = Attr<'de>>> de::MapAccess<'de> for Attributes<'de, I> {
    type Error = FieldError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, FieldError> {
        self.next = self.rest.next();
        self.next.map(|attr| seed.deserialize(attr.name().into_deserializer())).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, FieldError> {
        let attr = self.next.take().ok_or_else(|| FieldError::Other("a value without a name".into()))?;
        decode_as(&attr, seed).map_err(|error| FieldError::Get(attr.error::<S::Value>(error)))
    }
}

impl<'de> de::EnumAccess<'de> for Record<'de> {
    type Error = FieldError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), FieldError> {
        let variant: String = self.0.get(TAG).map_err(FieldError::Get)?;
        Ok((seed.deserialize(variant.into_deserializer())?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Record<'de> {
    type Error = FieldError;

    fn unit_variant(self) -> Result<(), FieldError> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, FieldError> {
        Err(FieldError::Other("the variant has no named fields".into()))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, FieldError> {
        Err(FieldError::Other("the variant has no named fields".into()))
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        self.deserialize_struct("", fields, visitor)
    }
}

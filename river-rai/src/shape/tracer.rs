//! A deserializer without data.

use std::any::type_name;
use std::collections::HashMap;
use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::{Definition, Form, Part, fields};

/// How many requests a type may make.
const STEPS: usize = 100_000;
/// The maximum nesting of values.
const DEEPEST: usize = 128;
/// The nesting of values without a name, as a vector in a vector, below which whatever can be empty is empty.
const NAMELESS: usize = 12;
/// The maximum length of a shape: no longer one is written by a person.
const LONGEST: usize = 4 << 10;

/// Gives a type whatever it asks for, and records that.
#[derive(Default)]
pub(super) struct Tracer {
    pub(super) definitions: Vec<Definition>,
    /// Indexed by the type name of the visitor, which includes the arguments of generic types.
    known: HashMap<&'static str, usize>,
    /// The definitions that are being traced, outermost first.
    open: Vec<Open>,
    /// The nesting depth of the value that is asked for.
    depth: usize,
    /// How many of the open definitions are inside themselves: if any, nothing is recorded, and whatever can be empty
    /// is empty.
    deep: usize,
    /// How many times a definition was inside itself.
    recursions: usize,
    steps: usize,
    /// The shape that was asked for last.
    shape: String,
}

/// A struct or an enum that is being traced.
struct Open {
    id: usize,
    depth: usize,
}

/// The error if there is no value; nobody reads it.
#[derive(Debug)]
pub(super) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not with these values")
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl Tracer {
    /// Whether the limits are exceeded, so that it gives no more values.
    pub(super) fn is_tired(&self) -> bool {
        self.steps > STEPS
    }

    /// Records that a value of this shape is asked for.
    fn step(&mut self, shape: &str) -> Result<(), Refused> {
        self.steps += 1;
        shape.clone_into(&mut self.shape);
        if self.is_tired() || self.depth > DEEPEST { Err(Refused) } else { Ok(()) }
    }

    /// Gives a value that is nested in another.
    fn within<R>(&mut self, give: impl FnOnce(&mut Self) -> R) -> R {
        self.depth += 1;
        let result = give(self);
        self.depth -= 1;
        result
    }

    /// Whether to give empty values where possible: inside a struct or an enum that is inside itself, or where values
    /// without a name are nested too deeply.
    fn is_enough(&self) -> bool {
        self.deep > 0 || self.depth - self.open.last().map_or(0, |open| open.depth) > NAMELESS
    }

    fn is_open(&self, id: usize) -> bool {
        self.open.iter().any(|open| open.id == id)
    }

    /// Begins a struct or an enum, which a visitor of type `V` asks for; returns its index.
    fn enter<V>(
        &mut self,
        name: &'static str,
        form: Form,
        parts: impl Iterator<Item = &'static str>,
    ) -> Result<usize, Refused> {
        self.step(name)?;
        let next = self.definitions.len();
        let id = *self.known.entry(type_name::<V>()).or_insert(next);
        if id == next {
            let parts = parts.map(|name| Part { name, ..Part::default() }).collect();
            self.definitions.push(Definition { name, form, parts, plain: None, turn: 0 });
        }
        if self.is_open(id) {
            self.deep += 1;
            self.recursions += 1;
        }
        self.open.push(Open { id, depth: self.depth });
        Ok(id)
    }

    fn leave(&mut self, id: usize, shapes: Vec<String>) {
        for (part, shape) in self.definitions[id].parts.iter_mut().zip(shapes) {
            if self.deep == 0 && part.shape.is_empty() {
                part.shape = shape;
            }
        }
        self.open.pop();
        if self.is_open(id) {
            self.deep -= 1;
        }
        self.definitions[id].name.clone_into(&mut self.shape);
    }

    /// Has a visitor take `left` values, one after the other; returns their shapes.
    fn sequence<'de, V: Visitor<'de>>(
        &mut self,
        left: usize,
        visitor: V,
    ) -> (Result<V::Value, Refused>, Vec<String>) {
        let mut shapes = Vec::new();
        let result = visitor.visit_seq(Elements { tracer: self, left, shapes: &mut shapes });
        (result, shapes)
    }

    fn tuple<'de, V: Visitor<'de>>(&mut self, length: usize, visitor: V) -> Result<V::Value, Refused> {
        let (result, shapes) = self.sequence(length, visitor);
        self.shape = match &shapes[..] {
            [first, _, ..] if shapes.len() == length && shapes.iter().all(|shape| shape == first) => {
                format!("[{first}; {length}]")
            }
            shapes => format!("({})", shapes.join(", ")),
        };
        result
    }
}

struct Elements<'t> {
    tracer: &'t mut Tracer,
    left: usize,
    shapes: &'t mut Vec<String>,
}

impl Elements<'_> {
    fn next<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        self.tracer.shape.clear();
        let result = self.tracer.within(|tracer| seed.deserialize(tracer));
        let mut shape = std::mem::take(&mut self.tracer.shape);
        shape.truncate(shape.floor_char_boundary(LONGEST));
        self.shapes.push(shape);
        result
    }
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Refused;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        self.next(seed).map(Some)
    }
}

impl<'de> MapAccess<'de> for Elements<'_> {
    type Error = Refused;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        self.next(seed)
    }
}

/// The variant of an enum that is chosen.
struct Chosen<'t> {
    tracer: &'t mut Tracer,
    variant: usize,
    shape: &'t mut String,
}

impl<'de> EnumAccess<'de> for Chosen<'_> {
    type Error = Refused;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Refused> {
        let index = u32::try_from(self.variant).unwrap_or(u32::MAX);
        let value = seed.deserialize(IntoDeserializer::<Refused>::into_deserializer(index))?;
        Ok((value, self))
    }
}

impl<'de> VariantAccess<'de> for Chosen<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        "()".clone_into(self.shape);
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refused> {
        let result = self.tracer.within(|tracer| seed.deserialize(tracer));
        *self.shape = format!("({})", self.tracer.shape);
        result
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Refused> {
        let (result, shapes) = self.tracer.sequence(length, visitor);
        *self.shape = format!("({})", shapes.join(", "));
        result
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let (result, shapes) = self.tracer.sequence(names.len(), visitor);
        let shapes = shapes.into_iter().chain(std::iter::repeat("?".into()));
        *self.shape = fields(names.iter().copied().zip(shapes));
        result
    }
}

/// The values given for shapes without parts.
macro_rules! leaves {
    ($($ask:ident $give:ident $value:expr, $shape:expr;)*) => {
        $(
            fn $ask<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
                self.step($shape)?;
                visitor.$give($value)
            }
        )*
    };
}

impl<'de> Deserializer<'de> for &mut Tracer {
    type Error = Refused;

    leaves! {
        deserialize_bool visit_bool true, "bool";
        deserialize_i8 visit_i8 1, "i8";
        deserialize_i16 visit_i16 1, "i16";
        deserialize_i32 visit_i32 1, "i32";
        deserialize_i64 visit_i64 1, "i64";
        deserialize_i128 visit_i128 1, "i128";
        deserialize_u8 visit_u8 1, "u8";
        deserialize_u16 visit_u16 1, "u16";
        deserialize_u32 visit_u32 1, "u32";
        deserialize_u64 visit_u64 1, "u64";
        deserialize_u128 visit_u128 1, "u128";
        deserialize_f32 visit_f32 1.0, "f32";
        deserialize_f64 visit_f64 1.0, "f64";
        deserialize_char visit_char 'a', "char";
        deserialize_str visit_borrowed_str "a", "String";
        deserialize_string visit_borrowed_str "a", "String";
        // The length of a UUID.
        deserialize_bytes visit_borrowed_bytes &[1; 16], "bytes";
        deserialize_byte_buf visit_borrowed_bytes &[1; 16], "bytes";
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    /// The encoding is not self-describing.
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.step("()")?;
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.step("")?;
        if self.is_enough() {
            return visitor.visit_none();
        }
        let result = self.within(|tracer| visitor.visit_some(tracer));
        self.shape = format!("Option<{}>", self.shape);
        result
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.step("")?;
        let (result, shapes) = self.sequence(usize::from(!self.is_enough()), visitor);
        self.shape = format!("[{}]", shapes.concat());
        result
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Refused> {
        self.step("")?;
        self.tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.step("")?;
        let (left, mut shapes) = (usize::from(!self.is_enough()), Vec::new());
        let result = visitor.visit_map(Elements { tracer: &mut *self, left, shapes: &mut shapes });
        self.shape = format!("{{{}}}", shapes.join(": "));
        result
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let id = self.enter::<V>(name, Form::Tuple, [].into_iter())?;
        self.leave(id, Vec::new());
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let id = self.enter::<V>(name, Form::Tuple, [""].into_iter())?;
        let result = self.within(|tracer| visitor.visit_newtype_struct(tracer));
        let shape = std::mem::take(&mut self.shape);
        self.leave(id, vec![shape]);
        result
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let id = self.enter::<V>(name, Form::Tuple, std::iter::repeat_n("", length))?;
        let (result, shapes) = self.sequence(length, visitor);
        self.leave(id, shapes);
        result
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let id = self.enter::<V>(name, Form::Fields, names.iter().copied())?;
        let (result, shapes) = self.sequence(names.len(), visitor);
        self.leave(id, shapes);
        result
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let id = self.enter::<V>(name, Form::Variants, names.iter().copied())?;
        if names.is_empty() {
            self.leave(id, Vec::new());
            return Err(Refused);
        }
        let (deep, recursions) = (self.deep > 0, self.recursions);
        let depth = self.open.iter().filter(|open| open.id == id).count();
        let definition = &mut self.definitions[id];
        let variant = if deep { definition.last(depth) } else { definition.next() };
        let mut shape = String::new();
        let result = visitor.visit_enum(Chosen { tracer: &mut *self, variant, shape: &mut shape });
        let mut shapes = vec![String::new(); variant];
        shapes.push(shape);
        self.leave(id, shapes);
        let plain = result.is_ok() && self.recursions == recursions;
        let definition = &mut self.definitions[id];
        if plain {
            definition.plain = Some(variant);
        }
        if !deep {
            definition.parts[variant].tried = true;
            definition.parts[variant].works |= result.is_ok();
        }
        result
    }
}

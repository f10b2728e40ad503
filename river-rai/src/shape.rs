//! The structs and enums that a type is made of, as its `Deserialize` reveals them.
//!
//! The type is deserialized without data: everything it asks for is recorded and given to it, until all variants of all
//! enums have been asked for. (The crate `serde-reflection` does the same for several languages.) A `Deserialize` that
//! validates may refuse the values; then the rest of its shape is unknown, in every program alike.

#[cfg(test)]
mod tests;
mod tracer;

use std::fmt;

use river_core::catch_panic_quietly;
use serde::de::DeserializeOwned;

use tracer::Tracer;

/// The maximum number of times that a type is deserialized.
const PASSES: usize = 256;

/// Returns the definitions of the structs and enums in the type, outermost first.
///
/// ```text
/// Order { customer: String, items: [Item] }
/// Item = Book(Isbn) | Record { length: Option<u32> }
/// Isbn(u64)
/// ```
pub(crate) fn definitions<T: DeserializeOwned>() -> Vec<String> {
    let mut tracer = Tracer::default();
    for _ in 0..PASSES {
        let traced = catch_panic_quietly(|| drop(T::deserialize(&mut tracer)));
        if traced.is_err() || tracer.is_tired() || tracer.definitions.iter().all(Definition::is_tried) {
            break;
        }
    }
    tracer.definitions.iter().map(Definition::to_string).collect()
}

/// A struct or an enum.
struct Definition {
    name: &'static str,
    form: Form,
    parts: Vec<Part>,
    /// A variant that does not contain the enum itself.
    plain: Option<usize>,
    /// Which of the working variants comes next.
    turn: usize,
}

/// The kind of parts it has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Fields,
    Tuple,
    Variants,
}

/// A field or a variant.
#[derive(Clone, Default)]
struct Part {
    name: &'static str,
    /// Its shape; empty if unknown.
    shape: String,
    /// For a variant: whether it was chosen, and whether it could be deserialized.
    tried: bool,
    works: bool,
}

impl Definition {
    fn is_tried(&self) -> bool {
        self.form != Form::Variants || self.parts.iter().all(|part| part.tried)
    }

    /// The variant to choose next: first each of them, then again those that work.
    fn next(&mut self) -> usize {
        if let Some(new) = self.parts.iter().position(|part| !part.tried) {
            return new;
        }
        self.turn += 1;
        let working: Vec<usize> = (0..self.parts.len()).filter(|index| self.parts[*index].works).collect();
        match working.len() {
            0 => self.turn % self.parts.len(),
            count => working[self.turn % count],
        }
    }

    /// A variant that ends a recursion, as far as is known; the first and the last variants are tried first.
    fn last(&self, depth: usize) -> usize {
        let (count, half) = (self.parts.len(), depth / 2 % self.parts.len());
        self.plain.unwrap_or(if depth.is_multiple_of(2) { half } else { count - 1 - half })
    }
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = |part: &Part| if part.shape.is_empty() { "?".to_owned() } else { part.shape.clone() };
        let parts = self.parts.iter();
        f.write_str(self.name)?;
        match self.form {
            Form::Tuple if self.parts.is_empty() => Ok(()),
            Form::Tuple => write!(f, "({})", parts.map(shape).collect::<Vec<_>>().join(", ")),
            Form::Fields => f.write_str(&fields(parts.map(|part| (part.name, shape(part))))),
            Form::Variants => {
                let variants = parts.map(|part| match part.shape.as_str() {
                    "()" => part.name.to_owned(),
                    _ => part.name.to_owned() + &shape(part),
                });
                write!(f, " = {}", variants.collect::<Vec<_>>().join(" | "))
            }
        }
    }
}

/// Fields with their names and shapes.
fn fields(of: impl Iterator<Item = (&'static str, String)>) -> String {
    let fields: Vec<String> = of.map(|(name, shape)| format!("{name}: {shape}")).collect();
    format!(" {{ {} }}", fields.join(", "))
}

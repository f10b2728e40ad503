//! Translation of code pointers between two images of a program, by the names of functions.
//!
//! An entry of one table corresponds to the entry of the other that has the same name. Names are unique except for closures
//! (all closures in one function have the same name, and the same trampoline if they are used in the same way), and for
//! functions that the compiler has instantiated in several places, which are the same function. What has no counterpart, or
//! several, is refused wherever it would have to be translated. Among processes that run the same image it may still be used,
//! so a pointer to it names the image, too:
//!
//! ```text
//! bit 31 = 0   bits 0-30: an index into the table of the initiator's image
//! bit 31 = 1   bits 16-30: an image other than the initiator's; bits 0-15: an index into its table
//! ```

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::CodeError;

const OTHER_IMAGE: u32 = 1 << 31;
/// How many of the bits are the index.
const INDEX_BITS: u32 = 16;
/// How many images can be told apart; one number is left for pointers that lead nowhere.
const IMAGES: u16 = 0x7fff;

/// An entry of an image's table, as processes that run another image know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Export {
    pub(crate) name: String,
    /// Whether another function has the same name.
    pub(crate) ambiguous: bool,
}

/// How pointers are translated in a process whose image is not the initiator's.
pub(super) struct Translation {
    initiators: Vec<Export>,
    /// By the initiator's index.
    to_ours: Vec<Result<u32, CodeError>>,
    /// By this image's index.
    to_others: Vec<Option<u32>>,
    /// Which of the program's images this is, and that it is not the initiator's: the upper half of a pointer.
    image: u32,
}

/// Whether a pointer names a function of an image that is not the initiator's.
pub(super) fn is_of_other_image(pointer: u32) -> bool {
    pointer & OTHER_IMAGE != 0
}

/// Lists the entries of a table from their names, each with something that is equal for entries of the same function.
pub(super) fn exports<Id: PartialEq + Copy>(entries: impl Iterator<Item = (String, Id)>) -> Vec<Export> {
    let entries: Vec<(String, Id)> = entries.collect();
    let mut functions: HashMap<&str, (Id, bool)> = HashMap::new();
    for (name, id) in &entries {
        functions.entry(name).and_modify(|(first, differ)| *differ |= first != id).or_insert((*id, false));
    }
    let ambiguous: Vec<bool> = entries.iter().map(|(name, _)| functions[&**name].1).collect();
    let exports = entries.into_iter().zip(ambiguous);
    exports.map(|((name, _), ambiguous)| Export { name, ambiguous }).collect()
}

impl Translation {
    /// Matches the table of this image, which is number `image` and for machines of type `triple`, with the initiator's.
    pub(super) fn new(ours: &[Export], initiators: Vec<Export>, image: u16, triple: &str) -> Self {
        let (we, they) = (by_name(ours), by_name(&initiators));
        let to_ours = |theirs: &Export| {
            let (function, triple) = (theirs.name.clone(), triple.to_owned());
            match we.get(&*theirs.name) {
                None => Err(CodeError::Missing { function, triple }),
                Some((_, own)) if theirs.ambiguous || own.ambiguous => {
                    Err(CodeError::Ambiguous { function, triple })
                }
                Some((index, _)) => Ok(*index),
            }
        };
        let to_others = |own: &Export| {
            let (index, theirs) = they.get(&*own.name)?;
            (!theirs.ambiguous && !own.ambiguous).then_some(*index)
        };
        Self {
            to_ours: initiators.iter().map(to_ours).collect(),
            to_others: ours.iter().map(to_others).collect(),
            image: OTHER_IMAGE | u32::from(image % IMAGES) << INDEX_BITS,
            initiators,
        }
    }

    /// Returns the table of the initiator's image.
    pub(super) fn initiators(&self) -> &[Export] {
        &self.initiators
    }

    /// Returns the pointer by which other processes know an entry of this image.
    pub(super) fn to_others(&self, index: u32) -> u32 {
        match self.to_others.get(index as usize) {
            Some(Some(theirs)) => *theirs,
            // One that does not fit is refused everywhere.
            _ => u16::try_from(index).map_or(u32::MAX, |index| self.image | u32::from(index)),
        }
    }

    /// Returns the index of the entry in this image that a pointer names.
    pub(super) fn to_ours(&self, pointer: u32) -> Result<u32, CodeError> {
        if is_of_other_image(pointer) {
            let index = pointer ^ self.image;
            return u16::try_from(index).map(u32::from).map_err(|_| CodeError::OtherImage);
        }
        let entries = self.to_ours.len();
        self.to_ours.get(pointer as usize).cloned().unwrap_or(Err(CodeError::Unknown { pointer, entries }))
    }
}

/// The first entry of each name.
fn by_name(exports: &[Export]) -> HashMap<&str, (u32, &Export)> {
    let mut names = HashMap::new();
    for (index, export) in (0..).zip(exports) {
        names.entry(&*export.name).or_insert((index, export));
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A table with these functions; two that differ in the part behind `#` have the same name.
    fn table(functions: &[&'static str]) -> Vec<Export> {
        exports(functions.iter().map(|function| (function.split('#').next().unwrap().to_owned(), *function)))
    }

    fn function(error: &CodeError) -> &str {
        match error {
            CodeError::Missing { function, .. } => function,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_function_is_found_by_its_name_wherever_it_is_in_the_tables() {
        let (ours, initiators) = (table(&["c", "a", "b"]), table(&["a", "b", "c"]));
        let translation = Translation::new(&ours, initiators.clone(), 1, "other");
        assert_eq!([0, 1, 2].map(|pointer| translation.to_ours(pointer).unwrap()), [1, 2, 0]);
        assert_eq!([0, 1, 2].map(|index| translation.to_others(index)), [2, 0, 1]);
        assert_eq!(translation.to_ours(3), Err(CodeError::Unknown { pointer: 3, entries: 3 }));
    }

    #[test]
    fn a_function_that_stands_in_a_table_twice_is_one() {
        let (ours, initiators) = (table(&["a", "b", "a"]), table(&["b", "a", "b"]));
        let translation = Translation::new(&ours, initiators.clone(), 1, "other");
        assert_eq!([0, 1, 2].map(|pointer| translation.to_ours(pointer).unwrap()), [1, 0, 1]);
        assert_eq!([0, 1, 2].map(|index| translation.to_others(index)), [1, 0, 1]);
    }

    #[test]
    fn functions_of_the_same_name_are_refused_and_so_is_what_is_missing() {
        let (closures, one) = (["f", "g#1", "g#2"], ["g#1", "f", "h"]);
        for (ours, initiators) in [(&closures, &one), (&one, &closures)] {
            let (ours, initiators) = (table(ours), table(initiators));
            let translation = Translation::new(&ours, initiators.clone(), 1, "other");
            for (pointer, export) in (0..).zip(&initiators) {
                match (&*export.name, translation.to_ours(pointer)) {
                    ("f", Ok(index)) => assert_eq!(ours[index as usize].name, "f"),
                    ("g", Err(CodeError::Ambiguous { function, .. })) => assert_eq!(function, "g"),
                    ("h", Err(error)) => assert_eq!(function(&error), "h"),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn what_has_no_counterpart_can_be_used_where_the_same_image_runs() {
        let (ours, initiators) = (table(&["f", "g#1", "g#2", "h"]), table(&["f", "g#1"]));
        let translation = |image| Translation::new(&ours, initiators.clone(), image, "other");
        let (one, two) = (translation(1), translation(IMAGES - 1));
        for index in [1, 2, 3] {
            let pointer = one.to_others(index);
            assert!(is_of_other_image(pointer));
            assert_eq!(one.to_ours(pointer), Ok(index));
            assert_eq!(translation(1).to_ours(pointer), Ok(index));
            assert_eq!(two.to_ours(pointer), Err(CodeError::OtherImage));
            assert_eq!(two.to_ours(two.to_others(index)), Ok(index));
        }
        assert!(!is_of_other_image(one.to_others(0)));
        assert_eq!(one.to_others(1 << 16), u32::MAX);
        assert_eq!(
            [&one, &two].map(|image| image.to_ours(u32::MAX)),
            [const { Err(CodeError::OtherImage) }; 2]
        );
    }

    proptest! {
        #[test]
        fn whatever_is_translated_keeps_its_name(
            ours in proptest::collection::vec(0..12_u8, 0..12),
            initiators in proptest::collection::vec(0..12_u8, 0..12),
        ) {
            // Every two functions have one name.
            let table = |of: &[u8]| exports(of.iter().map(|id| ((id / 2).to_string(), *id)));
            let (ours, initiators) = (table(&ours), table(&initiators));
            let translation = Translation::new(&ours, initiators.clone(), 1, "other");
            for (pointer, export) in (0..).zip(&initiators) {
                if let Ok(index) = translation.to_ours(pointer) {
                    prop_assert_eq!(&ours[index as usize], export);
                    prop_assert!(!export.ambiguous);
                    prop_assert_eq!(&initiators[translation.to_others(index) as usize], export);
                }
            }
            for (index, own) in (0..).zip(&ours) {
                let pointer = translation.to_others(index);
                let same = &ours[translation.to_ours(pointer).unwrap() as usize];
                prop_assert_eq!(&same.name, &own.name);
            }
        }
    }
}

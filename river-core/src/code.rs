//! Code pointers: how a function is named across the processes of a program.
//!
//! Every instantiation of [`code_ptr`] leaves one entry in a table that the linker assembles in a section of its own: the
//! distances from the entry to a trampoline made for exactly that type, and to a function that describes it. A code pointer
//! is an index into this table. Equal images have equal tables, so an index means the same function everywhere, and an index
//! that a stranger makes up either names another legal entry point or is refused.
//!
//! A program may have further images, built from the same sources for other machines, whose tables differ. Between processes,
//! code pointers are always indices into the table of the initiator's image. A process that runs another image is told what
//! is in that table, and translates by the functions' names.
//!
//! What is `unsafe` here (the other unsafe code is for memory shared with other processes, `link/shm/memory.rs`, and the hook
//! of test executables): reading the table, turning an address in it into a function, and creating a function item, which has
//! no bytes, from nothing.
#![allow(unsafe_code)]

use std::any::{Any, TypeId, type_name};
use std::arch::asm;
use std::mem::{self, MaybeUninit};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

pub(crate) use translation::Export;
use translation::Translation;

mod translation;

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("River's code pointers exist for Linux on x86-64 and aarch64");

/// A name for a function of this program.
///
/// Meaningful only within the program. Where another of its images runs, it leads to the function of the same name; a closure
/// beside others in the same function has no name of its own, and is refused there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CodePtr(u32);

/// The function that a code pointer leads to. It finds its arguments in, and leaves its result in, a value that both
/// sides know.
pub type Entry = fn(&mut dyn Any);

/// How a call through a code pointer reaches `F`, defined by the layer that chooses what `context` is.
///
/// `F` is the type of a function item or of a closure that captures nothing; `()` if the trampoline needs none.
pub trait Trampoline<F>: 'static {
    /// Calls `f`, or does whatever else this trampoline is for.
    fn enter(f: F, context: &mut dyn Any);
}

/// Why a code pointer leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// It is not in the table, so it was not made by this program.
    #[error("code pointer {pointer} is not one of this image's {entries} entry points")]
    Unknown {
        /// The pointer.
        pointer: u32,
        /// How many entries the table has.
        entries: usize,
    },
    /// The image that runs here lacks the function.
    #[error(
        "the image for {triple} that runs here has no {function}: build all images of the program (RIVER_IMAGES) from the \
         same sources"
    )]
    Missing {
        /// The function.
        function: String,
        /// The kind of machine that this image is for.
        triple: String,
    },
    /// The initiator's image, or the one that runs here, has several functions of this name.
    #[error(
        "several functions are called {function}, and the image for {triple} that runs here is not the initiator's, so they \
         cannot be told apart: give it a name of its own (a `fn` instead of a closure)"
    )]
    Ambiguous {
        /// The function.
        function: String,
        /// The kind of machine that this image is for.
        triple: String,
    },
    /// It was made where another image runs, for a function that has no counterpart in the initiator's image, or several.
    #[error(
        "the function was named by a process that runs another image, and cannot be told apart in this one: give it a name \
         of its own (a `fn` instead of a closure), and build all images of the program (RIVER_IMAGES) from the same sources"
    )]
    OtherImage,
}

/// The translation, in a process that does not run the initiator's image.
static TRANSLATION: OnceLock<Translation> = OnceLock::new();

/// An entry of the table: distances from the fields themselves.
#[repr(C)]
struct Slot {
    enter: i32,
    describe: i32,
}

/// What an entry is for.
struct Description {
    /// Equal for entries of the same function, of which there may be several.
    id: TypeId,
    name: String,
}

/// Returns the code pointer of `T::enter` for `f`.
///
/// That `f` captures nothing is checked at compile time:
///
/// ```compile_fail
/// # use river_core::code::{code_ptr, Trampoline};
/// # struct T; impl<F: 'static> Trampoline<F> for T { fn enter(_: F, _: &mut dyn std::any::Any) {} }
/// let captured = 5;
/// code_ptr::<T, _>(move |x: i64| x + captured); // error: pass what a shipped closure needs as arguments
/// ```
#[inline(never)]
pub fn code_ptr<T: Trampoline<F>, F: Copy + Send + 'static>(f: F) -> CodePtr {
    const {
        assert!(size_of::<F>() == 0, "a shipped function must capture nothing: pass the values as arguments");
    }
    let _witness = f;
    let entry: *const Slot;
    // SAFETY: the block writes no memory and keeps the stack; it adds one 8-byte entry, the distances to two functions, to
    // the section and loads the entry's address.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!(
            ".pushsection rvtramp,\"aR\",@progbits",
            ".p2align 2",
            "77: .long {t} - .",
            ".long {d} - .",
            ".popsection",
            "lea {entry}, [rip + 77b]",
            t = sym enter::<T, F>,
            d = sym describe::<T, F>,
            entry = out(reg) entry,
            options(nomem, nostack, preserves_flags),
        );
        #[cfg(target_arch = "aarch64")]
        asm!(
            ".pushsection rvtramp,\"aR\",@progbits",
            ".p2align 2",
            "77: .long {t} - .",
            ".long {d} - .",
            ".popsection",
            "adrp {entry}, 77b",
            "add {entry}, {entry}, :lo12:77b",
            t = sym enter::<T, F>,
            d = sym describe::<T, F>,
            entry = out(reg) entry,
            options(nomem, nostack, preserves_flags),
        );
    }
    let index = (entry.addr() - table().as_ptr().addr()) / size_of::<Slot>();
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    CodePtr(TRANSLATION.get().map_or(index, |translation| translation.to_others(index)))
}

impl CodePtr {
    /// Returns the function that this pointer names, if it is one of this program's entry points.
    ///
    /// # Errors
    /// [`CodeError`] if the pointer was made up, comes from another program, or has no counterpart in the image that runs
    /// here.
    pub fn resolve(self) -> Result<Entry, CodeError> {
        let table = table();
        let index = match TRANSLATION.get() {
            Some(translation) => translation.to_ours(self.0)?,
            None if translation::is_of_other_image(self.0) => return Err(CodeError::OtherImage),
            None => self.0,
        };
        let Some(slot) = table.get(index as usize) else {
            return Err(CodeError::Unknown { pointer: self.0, entries: table.len() });
        };
        // SAFETY: the linker put the distance from this field to a function of type `Entry` there; nothing but
        // `code_ptr` writes this section.
        Ok(unsafe { mem::transmute::<*const (), Entry>(target(&slot.enter)) })
    }
}

/// Returns the address that a distance in the table leads to.
fn target(distance: &i32) -> *const () {
    let address = std::ptr::from_ref(distance).expose_provenance().wrapping_add_signed(*distance as isize);
    std::ptr::with_exposed_provenance(address)
}

/// Returns what is in the table of this image.
pub(crate) fn exports() -> &'static [Export] {
    static EXPORTS: OnceLock<Vec<Export>> = OnceLock::new();
    EXPORTS.get_or_init(|| {
        let describe = |slot: &Slot| {
            // SAFETY: as for the other field, which leads to an instance of `enter`; this one leads to one of `describe`.
            let describe =
                unsafe { mem::transmute::<*const (), fn() -> Description>(target(&slot.describe)) };
            describe()
        };
        translation::exports(table().iter().map(describe).map(|Description { id, name }| (name, id)))
    })
}

/// Translates code pointers from now on: the initiator runs another image, which has these entries. `image` tells the image
/// that runs here, for machines of type `triple`, from other images of the program. Only the first call has an effect.
pub(crate) fn translate(initiators: Vec<Export>, image: u16, triple: &str) {
    TRANSLATION.get_or_init(|| Translation::new(exports(), initiators, image, triple));
}

/// Returns the table whose indices code pointers are between processes, if it is not that of this image. A program that is
/// started by a VR of a process that translates has code pointers like all others of that process.
pub(crate) fn foreign_exports() -> Option<&'static [Export]> {
    TRANSLATION.get().map(Translation::initiators)
}

fn enter<T: Trampoline<F>, F: Copy + Send + 'static>(context: &mut dyn Any) {
    const { assert!(size_of::<F>() == 0) }
    // A value of `F` existed in `code_ptr`; the lint warns of values that have bytes.
    #[allow(clippy::uninit_assumed_init)]
    // SAFETY: `F` has no bytes to initialise, and `code_ptr` was given a value of it, so one may exist.
    let f: F = unsafe { MaybeUninit::uninit().assume_init() };
    T::enter(f, context);
}

fn describe<T: Trampoline<F>, F: Copy + Send + 'static>() -> Description {
    let (function, trampoline) = (type_name::<F>(), type_name::<T>());
    Description { id: TypeId::of::<(T, F)>(), name: format!("{function} (by {trampoline})") }
}

/// Returns all entry points of this image, in the order in which the linker found them.
fn table() -> &'static [Slot] {
    // An empty object in the section makes sure that the linker defines the symbols of its bounds.
    #[used]
    // SAFETY: adds no bytes.
    #[unsafe(link_section = "rvtramp")]
    static ANCHOR: [Slot; 0] = [];
    unsafe extern "C" {
        #[link_name = "__start_rvtramp"]
        static START: Slot;
        #[link_name = "__stop_rvtramp"]
        static STOP: Slot;
    }
    let (start, stop) = (&raw const START, &raw const STOP);
    // SAFETY: the symbols are the bounds of the section, which holds 4-byte aligned entries only.
    unsafe { std::slice::from_raw_parts(start, (stop.addr() - start.addr()) / size_of::<Slot>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Call;
    impl<F: Fn(i64) -> i64 + 'static> Trampoline<F> for Call {
        fn enter(f: F, context: &mut dyn Any) {
            let value = context.downcast_mut::<i64>().unwrap();
            *value = f(*value);
        }
    }

    fn add_ten(x: i64) -> i64 {
        x + 10
    }

    fn twice<T: std::ops::Add<Output = T> + Copy>(x: T) -> T {
        x + x
    }

    fn call(pointer: CodePtr, mut value: i64) -> i64 {
        pointer.resolve().unwrap()(&mut value);
        value
    }

    #[test]
    fn functions_generics_and_closures_have_pointers_of_their_own() {
        assert_eq!(call(code_ptr::<Call, _>(add_ten), 5), 15);
        assert_eq!(call(code_ptr::<Call, _>(twice::<i64>), 5), 10);
        assert_eq!(call(code_ptr::<Call, _>(|x| x * x), 5), 25);
        assert_eq!(call(code_ptr::<Call, _>(|x| x - 1), 5), 4);
    }

    #[test]
    fn a_made_up_pointer_is_refused() {
        assert!(CodePtr(u32::MAX).resolve().is_err());
        assert!(CodePtr(table().len() as u32).resolve().is_err());
    }

    #[test]
    fn entries_are_known_by_the_names_of_functions() {
        let of = |pointer: CodePtr| &exports()[pointer.0 as usize];
        let (add, twice) = (of(code_ptr::<Call, _>(add_ten)), of(code_ptr::<Call, _>(twice::<i64>)));
        assert_eq!(add.name, "river_core::code::tests::add_ten (by river_core::code::tests::Call)");
        assert_eq!(twice.name, "river_core::code::tests::twice<i64> (by river_core::code::tests::Call)");
        assert!(!add.ambiguous && !twice.ambiguous);
        let (one, two) = (of(code_ptr::<Call, _>(|x| x + 1)), of(code_ptr::<Call, _>(|x| x + 2)));
        assert!(one.name == two.name && one.ambiguous && two.ambiguous, "{one:?} {two:?}");
    }
}

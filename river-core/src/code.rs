//! Code pointers: how a function is named across processes that run the same image.
//!
//! Every instantiation of [`code_ptr`] leaves one entry in a table that the linker assembles in a section of its own: the
//! distance from the entry to a trampoline made for exactly that type. A code pointer is an index into this table. Equal
//! images have equal tables, so an index means the same function everywhere, and an index that a stranger makes up either
//! names another legal entry point or is refused.
//!
//! What is `unsafe` here (the other unsafe code is for memory shared with other processes, `link/shm/memory.rs`, and the hook
//! of test executables): reading the table, turning an address in it into a function, and creating a function item, which has
//! no bytes, from nothing.
#![allow(unsafe_code)]

use std::any::Any;
use std::arch::asm;
use std::mem::{self, MaybeUninit};

use serde::{Deserialize, Serialize};

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("River's code pointers exist for Linux on x86-64 and aarch64");

/// A name for a function of this image.
///
/// Meaningful only where the very same image runs; the core ensures that before it hands one out.
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

/// A code pointer is not in the table, so it was not made by this image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("code pointer {0} is not one of this image's {1} entry points")]
pub struct CodeError(u32, usize);

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
    let entry: *const i32;
    // SAFETY: the block writes no memory and keeps the stack; it adds one 4-byte entry, the distance to the
    // trampoline, to the section and loads the entry's address.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!(
            ".pushsection rvtramp,\"aR\",@progbits",
            ".p2align 2",
            "77: .long {t} - .",
            ".popsection",
            "lea {entry}, [rip + 77b]",
            t = sym enter::<T, F>,
            entry = out(reg) entry,
            options(nomem, nostack, preserves_flags),
        );
        #[cfg(target_arch = "aarch64")]
        asm!(
            ".pushsection rvtramp,\"aR\",@progbits",
            ".p2align 2",
            "77: .long {t} - .",
            ".popsection",
            "adrp {entry}, 77b",
            "add {entry}, {entry}, :lo12:77b",
            t = sym enter::<T, F>,
            entry = out(reg) entry,
            options(nomem, nostack, preserves_flags),
        );
    }
    let index = (entry.addr() - table().as_ptr().addr()) / size_of::<i32>();
    CodePtr(u32::try_from(index).unwrap_or(u32::MAX))
}

impl CodePtr {
    /// Returns the function that this pointer names, if it is one of this image's entry points.
    ///
    /// # Errors
    /// [`CodeError`] if the pointer was made up or comes from another image.
    pub fn resolve(self) -> Result<Entry, CodeError> {
        let table = table();
        let Some(entry) = table.get(self.0 as usize) else {
            return Err(CodeError(self.0, table.len()));
        };
        let target = std::ptr::from_ref(entry).expose_provenance().wrapping_add_signed(*entry as isize);
        // SAFETY: the linker put the distance from the entry to a function of type `Entry` there; nothing but
        // `code_ptr` writes this section.
        Ok(unsafe { mem::transmute::<*const (), Entry>(std::ptr::with_exposed_provenance(target)) })
    }
}

fn enter<T: Trampoline<F>, F: Copy + Send + 'static>(context: &mut dyn Any) {
    const { assert!(size_of::<F>() == 0) }
    // A value of `F` existed in `code_ptr`; the lint warns of values that have bytes.
    #[allow(clippy::uninit_assumed_init)]
    // SAFETY: `F` has no bytes to initialise, and `code_ptr` was given a value of it, so one may exist.
    let f: F = unsafe { MaybeUninit::uninit().assume_init() };
    T::enter(f, context);
}

/// Returns all entry points of this image, in the order in which the linker found them.
fn table() -> &'static [i32] {
    // An empty object in the section makes sure that the linker defines the symbols of its bounds.
    #[used]
    // SAFETY: adds no bytes.
    #[unsafe(link_section = "rvtramp")]
    static ANCHOR: [i32; 0] = [];
    unsafe extern "C" {
        #[link_name = "__start_rvtramp"]
        static START: i32;
        #[link_name = "__stop_rvtramp"]
        static STOP: i32;
    }
    let (start, stop) = (&raw const START, &raw const STOP);
    // SAFETY: the symbols are the bounds of the section, which holds 4-byte aligned entries only.
    unsafe { std::slice::from_raw_parts(start, (stop.addr() - start.addr()) / size_of::<i32>()) }
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
}

//! Panics as text with their location, and their backtraces.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::{Once, OnceLock};

use serde::{Deserialize, Serialize};

/// How many calls of a backtrace are kept: those nearest to the panic.
const MAX_CALLS: usize = 128;
/// How many bytes of a backtrace are sent as text.
const MAX_TEXT: usize = 16 << 10;

/// The kind of machine that this process's image is for, if it is not the one that the program's initiator runs.
static OTHER_IMAGE: OnceLock<String> = OnceLock::new();

thread_local! {
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    /// Whether the next panic of this thread is not reported.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What the hook recorded of the last panic.
struct Last {
    place: Option<String>,
    trace: Option<Trace>,
}

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panic {
    /// Its message, with file and line.
    pub text: String,
    /// Its backtrace, if `RUST_BACKTRACE` is set where it happened.
    pub trace: Option<Trace>,
}

/// The backtrace of a panic, perhaps in another process: the nearest 128 calls.
///
/// Hosts run their program's image without its symbols, so a backtrace is sent as offsets in the image. Names are looked up
/// when it is printed, by a process of the same program that was started from the complete executable. It takes a few hundred
/// bytes.
///
/// Where a program's VMs run another of its images than its initiator does, a backtrace is text: the addresses in that image's
/// file, which `addr2line` takes.
///
/// Both its `Display` and its `Debug` output have many lines.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace(Box<Calls>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Calls {
    /// The return addresses, innermost first, as distances from a fixed place in the image.
    Image(Vec<i64>),
    Text(String),
}

/// Runs `body` and turns a panic into an error: the panic's message and location.
///
/// For layers that run a user's functions one by one and continue after one of them has failed. Whatever `body` had changed
/// before it panicked stays changed. The usual report on stderr is printed as well.
///
/// # Errors
/// The message of the panic, with file and line.
///
/// ```
/// let error = river_core::catch_panic(|| -> u32 { panic!("no input") }).unwrap_err();
/// assert!(error.starts_with("no input ("));
/// assert_eq!(river_core::catch_panic(|| 6), Ok(6));
/// ```
pub fn catch_panic<R>(body: impl FnOnce() -> R) -> Result<R, String> {
    catch_traced(body).map_err(|panic| panic.text)
}

/// Like [`catch_panic`], but returns the backtrace, too, if `RUST_BACKTRACE` is set.
///
/// # Errors
/// The panic.
pub fn catch_traced<R>(body: impl FnOnce() -> R) -> Result<R, Panic> {
    note_places();
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|payload| caught(&*payload))
}

/// Like [`catch_panic`], but prints nothing: for code that is run only to see what it does, whose panics matter to nobody.
/// Panics of threads that `body` starts are printed as usual.
///
/// # Errors
/// The message of the panic, with file and line.
///
/// ```
/// let tried = river_core::catch_panic_quietly(|| "nine".parse::<u32>().unwrap());
/// assert!(tried.is_err());
/// ```
pub fn catch_panic_quietly<R>(body: impl FnOnce() -> R) -> Result<R, String> {
    let before = QUIET.replace(true);
    let result = catch_panic(body);
    QUIET.set(before);
    result
}

fn caught(payload: &(dyn Any + Send)) -> Panic {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is not text".into());
    match LAST.take() {
        Some(Last { place: Some(place), trace }) => Panic { text: format!("{text} ({place})"), trace },
        _ => Panic { text, trace: None },
    }
}

/// Installs a hook, as only a hook learns where a panic happened; it leaves that for the code that catches the panic on the
/// same thread.
fn note_places() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string);
            LAST.set(Some(Last { place, trace: traces_wanted().then(Trace::here) }));
            // Only one panic is kept quiet: a second one, in a destructor, ends the process, which must not happen silently.
            if !QUIET.replace(false) {
                usual(info);
            }
        }));
    });
}

/// Decides as std does: `RUST_LIB_BACKTRACE`, or else `RUST_BACKTRACE`, is set and not 0.
fn traces_wanted() -> bool {
    static WANTED: OnceLock<bool> = OnceLock::new();
    *WANTED.get_or_init(|| {
        let set = std::env::var_os("RUST_LIB_BACKTRACE").or_else(|| std::env::var_os("RUST_BACKTRACE"));
        set.is_some_and(|value| value != "0")
    })
}

/// Makes all backtraces of this process text from now on, since it does not run the initiator's image, but the one for machines
/// of type `triple`.
pub(crate) fn trace_as_text(triple: String) {
    let _ = OTHER_IMAGE.set(triple);
}

/// Returns the fixed place in the image.
fn origin() -> usize {
    note_places as fn() as *const () as usize
}

/// Returns where the image is mapped in this process, if the system says so.
fn image() -> Option<&'static Range<usize>> {
    static IMAGE: OnceLock<Option<Range<usize>>> = OnceLock::new();
    IMAGE.get_or_init(|| find_image(&fs::read_to_string("/proc/self/maps").ok()?, origin())).as_ref()
}

/// Returns the range of all mappings of the file that is mapped at `within`.
fn find_image(maps: &str, within: usize) -> Option<Range<usize>> {
    let mappings = maps.lines().filter_map(|line| {
        // 55e0c0a00000-55e0c0a21000 r-xp 00021000 fe:01 1234   /path
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        let file: Vec<&str> = fields.skip(2).take(2).collect();
        Some((start..end, file))
    });
    let mappings: Vec<_> = mappings.collect();
    let (_, ours) = mappings.iter().find(|(range, _)| range.contains(&within))?;
    let same = mappings.iter().filter(|(_, file)| file == ours).map(|(range, _)| range);
    same.fold(None, |all: Option<Range<usize>>, range| {
        let all = all.unwrap_or(range.clone());
        Some(all.start.min(range.start)..all.end.max(range.end))
    })
}

impl Trace {
    /// Captures the calls that led here, of this program's own code only.
    fn here() -> Self {
        let other_image = OTHER_IMAGE.get();
        let mut calls = Vec::new();
        if let Some(image) = image() {
            let origin = match other_image {
                None => origin(),
                Some(_) if has_fixed_addresses() => 0,
                Some(_) => image.start,
            };
            backtrace::trace(|frame| {
                let at = frame.ip() as usize;
                if image.contains(&at) {
                    calls.push(at.wrapping_sub(origin) as i64);
                }
                calls.len() < MAX_CALLS
            });
        }
        Self(Box::new(match other_image {
            Some(triple) => Calls::Text(addresses(triple, &calls)),
            None => Calls::Image(calls),
        }))
    }

    /// Converts it to text, at most 16 KiB, for a process of another program, which could not resolve its addresses.
    #[must_use]
    pub fn into_text(self) -> Self {
        let mut text = self.to_string();
        if text.len() > MAX_TEXT {
            text.truncate(text.floor_char_boundary(MAX_TEXT));
            text.push_str("\n    and so on");
        }
        Self(Box::new(Calls::Text(text)))
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = match &*self.0 {
            Calls::Image(calls) => calls,
            Calls::Text(text) => return f.write_str(text),
        };
        let mut lines: Vec<(String, Option<String>)> = Vec::new();
        for call in calls {
            let at = origin().wrapping_add(*call as usize);
            // The call is just before the return address.
            let inside = ptr::with_exposed_provenance_mut(at.wrapping_sub(1));
            let known = lines.len();
            backtrace::resolve(inside, |symbol| {
                let Some(name) = symbol.name() else { return };
                let file = symbol.filename().map(|file| file.display().to_string());
                let place = file.map(|file| format!("{file}:{}", symbol.lineno().unwrap_or_default()));
                // Omit the hash.
                lines.push((format!("{name:#}"), place));
            });
            if lines.len() == known {
                lines.push((format!("image{call:+#x}"), None));
            }
        }
        for (number, (name, place)) in of_the_user(&lines).iter().enumerate() {
            write!(f, "{}{number:>4}: {name}", if number == 0 { "" } else { "\n" })?;
            if let Some(place) = place {
                write!(f, "\n          at {place}")?;
            }
        }
        Ok(())
    }
}

/// Whether this executable is always loaded at the addresses that are in its file.
fn has_fixed_addresses() -> bool {
    const TYPE: usize = 16;
    const EXEC: [u8; 2] = 2_u16.to_ne_bytes();
    let mut header = [0; TYPE + EXEC.len()];
    let read = File::open("/proc/self/exe").and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header[TYPE..] == EXEC
}

/// The text of a backtrace whose names this process cannot look up, nor can the one that prints it.
fn addresses(triple: &str, calls: &[i64]) -> String {
    // The call is just before the return address.
    let lines = calls.iter().enumerate().map(|(number, call)| format!("\n{number:>4}: {:#x}", call - 1));
    format!("in the image for {triple} (addr2line -Cfie IMAGE ADDRESS):{}", lines.collect::<String>())
}

/// Omits the calls from the panic to the hook, and those from this layer to the function that was called.
fn of_the_user(lines: &[(String, Option<String>)]) -> &[(String, Option<String>)] {
    let machinery = |(name, _): &(String, Option<String>)| {
        name.contains("core::panicking::")
            || name.contains("rust_begin_unwind")
            || name.contains("begin_panic")
    };
    let start = lines.iter().rposition(machinery).map_or(0, |at| at + 1);
    let lines = &lines[start..];
    let caller = |(name, _): &(String, Option<String>)| {
        name.contains("panicking::try")
            || name.contains("panicking::catch_unwind")
            || name.contains("__rust_try")
    };
    let end = lines.iter().position(caller).unwrap_or(lines.len());
    &lines[..end]
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}\n")
    }
}

/// An error, so that a report can find it in a chain of causes.
impl std::error::Error for Trace {}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn deep(levels: u64) -> Trace {
        if levels == 0 { Trace::here() } else { std::hint::black_box(deep(levels - 1)) }
    }

    #[test]
    fn calls_have_names_here_and_after_travelling() {
        let trace = deep(3);
        let bytes = postcard::to_stdvec(&trace).unwrap();
        let text = postcard::from_bytes::<Trace>(&bytes).unwrap().to_string();
        assert!(text.matches("panics::tests::deep").count() >= 3, "{text}");
        let travelled = trace.into_text();
        assert_eq!(travelled.to_string(), text);
    }

    #[test]
    fn calls_in_another_image_are_addresses() {
        let text = addresses("aarch64-linux-gnu", &[0x1f0, 0x20]);
        assert!(text.starts_with("in the image for aarch64-linux-gnu"), "{text}");
        assert!(text.ends_with("\n   0: 0x1ef\n   1: 0x1f"), "{text}");
        assert!(addresses("", &[i64::MAX; MAX_CALLS]).len() < MAX_TEXT);
    }

    #[test]
    fn the_size_is_bounded() {
        let trace = deep(1000);
        assert!(matches!(&*trace.0, Calls::Image(calls) if calls.len() == MAX_CALLS));
        assert!(postcard::to_stdvec(&trace).unwrap().len() < 10 * MAX_CALLS);
        assert!(
            Trace(Box::new(Calls::Text("x".repeat(1 << 20)))).into_text().to_string().len() < MAX_TEXT + 100
        );
    }

    #[test]
    fn the_image_is_all_that_is_mapped_of_the_file() {
        let maps = "1000-2000 r--p 0 fe:01 7 /bin/x\n2000-3000 r-xp 1000 fe:01 7 /bin/x\n\
                    3000-4000 rw-p 0 00:00 0\n4000-5000 r-xp 0 fe:01 8 /lib/y\nnonsense\n";
        assert_eq!(find_image(maps, 0x2500), Some(0x1000..0x3000));
        assert_eq!(find_image(maps, 0x9000), None);
        assert!(image().unwrap().contains(&origin()));
    }
}

//! The program's own executable as bytes, which are sent to VMs, and whose hash names the program.
//!
//! Only the part that is loaded into memory is sent. Of a debug build that is a sixth; the rest, symbols and debug
//! information, is for tools. The part that is cut off lies behind everything that is loaded, so no code moves and code
//! pointers stay valid.

mod cache;
mod directory;
mod memory;
mod packed;
mod place;

use std::env::consts;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::id::ImageHash;

pub(crate) use cache::{ImageCache, InsertError, retry_busy};
pub(crate) use packed::{Packed, pieces};
pub use place::{CacheError, CachePlace, cache_place};

/// The file that this process was started from. Its ordinary path would lead to another program after a rebuild, and to
/// nothing in a doc test, whose executable is deleted while it runs.
const SELF: &str = "/proc/self/exe";

/// How much is read to find out how much there is to read: the program headers are at the beginning.
const HEAD_LEN: u64 = 4096;

/// An executable that can be sent.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// The name of the image.
    pub hash: ImageHash,
    /// The loadable part of the executable.
    pub bytes: Bytes,
    /// The kind of machine that can run it.
    pub triple: String,
    /// Its pieces, compressed, once they have been needed.
    packed: Arc<OnceLock<Vec<Packed>>>,
}

impl Image {
    /// Creates the image of an executable for machines of type `triple`.
    #[must_use]
    pub(crate) fn new(executable: Vec<u8>, triple: String) -> Self {
        let bytes = truncate(executable);
        let hash = ImageHash::from_bytes(*blake3::hash(&bytes).as_bytes());
        Self { hash, bytes: bytes.into(), triple, packed: Arc::default() }
    }

    /// Whether these are the bytes of an executable for the architecture of its triple.
    pub(crate) fn is_for_its_machine(&self) -> bool {
        let machine = match self.triple.split('-').next() {
            Some("x86_64") => EM_X86_64,
            Some("aarch64") => EM_AARCH64,
            _ => return false,
        };
        self.bytes.starts_with(ELF_64_LE) && u16_at(&self.bytes, E_MACHINE) == Some(machine)
    }

    /// Returns its pieces as they travel to other machines. Compresses it the first time, for all machines.
    pub(crate) fn packed(&self) -> &[Packed] {
        self.packed.get_or_init(|| packed::pack(&self.bytes))
    }
}

/// Returns the image of the running program. Reads and hashes the executable every time, so keep the result.
///
/// # Errors
///
/// When `/proc` is not mounted or the executable may not be read.
pub(crate) fn own_image() -> io::Result<Image> {
    read_image(Path::new(SELF), host_triple())
}

/// Returns the image in a file, which is for machines of type `triple`.
///
/// # Errors
///
/// When the file cannot be read.
pub(crate) fn read_image(path: &Path, triple: String) -> io::Result<Image> {
    let mut file = File::open(path)?;
    let mut executable = Vec::new();
    file.by_ref().take(HEAD_LEN).read_to_end(&mut executable)?;
    // The part that is cut off need not even be read: it can be 30 MB of debug information.
    if let Some(end) = loadable_end(&executable, file.metadata()?.len()) {
        let rest = (end as u64).saturating_sub(executable.len() as u64);
        file.take(rest).read_to_end(&mut executable)?;
        cut(&mut executable, end);
    } else {
        file.read_to_end(&mut executable)?;
    }
    Ok(Image::new(executable, triple))
}

/// Returns the target of this build: architecture, system, C library. An image runs where [`machine`] is the same and its C
/// library is installed; a static image needs none.
#[must_use]
pub(crate) fn host_triple() -> String {
    let library = if cfg!(target_env = "gnu") {
        "-gnu"
    } else if cfg!(target_env = "musl") {
        "-musl"
    } else {
        ""
    };
    format!("{}-{}{library}", consts::ARCH, consts::OS)
}

/// Returns the part of a target that a VM must have in common with a program: architecture and system.
#[must_use]
pub(crate) fn machine(triple: &str) -> &str {
    triple.match_indices('-').nth(1).map_or(triple, |(end, _)| &triple[..end])
}

/// Returns what Rust calls a target: `x86_64-unknown-linux-gnu` for `x86_64-linux-gnu`.
#[must_use]
pub(crate) fn rust_target(triple: &str) -> String {
    triple.replacen('-', "-unknown-", 1)
}

/// Returns the loadable part of an executable: the bytes up to the end of the last segment, without a section table.
///
/// A file that it does not understand is returned unchanged, and so is one that is truncated already.
#[must_use]
pub(crate) fn truncate(mut executable: Vec<u8>) -> Vec<u8> {
    if let Some(end) = loadable_end(&executable, executable.len() as u64) {
        cut(&mut executable, end);
    }
    executable
}

/// The beginning of an executable: magic, 64 bits, little-endian.
const ELF_64_LE: &[u8] = b"\x7fELF\x02\x01";
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
// Offsets of the fields of a 64-bit ELF header (elf(5)).
const E_MACHINE: usize = 0x12;
const E_PHOFF: usize = 0x20;
const E_SHOFF: usize = 0x28;
const E_PHENTSIZE: usize = 0x36;
const E_PHNUM: usize = 0x38;
const E_SHENTSIZE: usize = 0x3a;
const E_SHNUM: usize = 0x3c;
const E_SHSTRNDX: usize = 0x3e;
const EHDR_LEN: usize = 0x40;
// The same for a program header.
const P_OFFSET: usize = 0x08;
const P_FILESZ: usize = 0x20;
const PHDR_LEN: usize = 0x38;

const PT_LOAD: u32 = 1;
/// This many program headers mean that their number is stored elsewhere.
const PN_XNUM: u16 = 0xffff;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Returns where the loadable part of a file of `length` bytes ends, if `head`, its beginning, is that of an executable from
/// which something may be cut off.
fn loadable_end(head: &[u8], length: u64) -> Option<usize> {
    if !head.starts_with(ELF_64_LE) || head.len() < EHDR_LEN {
        return None;
    }
    let count = u16_at(head, E_PHNUM)?;
    if count == PN_XNUM || usize::from(u16_at(head, E_PHENTSIZE)?) != PHDR_LEN {
        return None;
    }
    let table_offset = usize::try_from(u64_at(head, E_PHOFF)?).ok()?;
    // Cutting would change a table inside the header, which would then be wrong.
    if table_offset < EHDR_LEN {
        return None;
    }
    let table_end = table_offset.checked_add(usize::from(count) * PHDR_LEN)?;
    let table = head.get(table_offset..table_end)?;

    let mut end = table_end as u64;
    let mut loads = false;
    for header in table.chunks_exact(PHDR_LEN) {
        loads |= u32_at(header, 0)? == PT_LOAD;
        end = end.max(u64_at(header, P_OFFSET)?.checked_add(u64_at(header, P_FILESZ)?)?);
    }

    // The section table is the last thing in a file. Anything behind it was put there for the program to find, as
    // self-extracting programs do, so it must stay.
    let sections_end = match u64_at(head, E_SHOFF)? {
        0 => end,
        offset => {
            let count = u64::from(u16_at(head, E_SHNUM)?);
            let size = u64::from(u16_at(head, E_SHENTSIZE)?);
            if count == 0 {
                // The number is stored elsewhere.
                return None;
            }
            offset.checked_add(count * size)?
        }
    };
    if !loads || end > length || end.max(sections_end) != length {
        return None;
    }
    usize::try_from(end).ok()
}

/// Truncates an executable at `end`, and removes the sections from its header.
fn cut(executable: &mut Vec<u8>, end: usize) {
    executable.truncate(end);
    for field in [E_SHOFF..E_SHOFF + 8, E_SHNUM..E_SHNUM + 2, E_SHSTRNDX..E_SHSTRNDX + 2] {
        if let Some(bytes) = executable.get_mut(field) {
            bytes.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Creates a miniature executable: header, one segment of `code` bytes, `debug` bytes for tools, `sections` entries of a
    /// section table.
    fn elf(code: usize, debug: usize, sections: usize) -> Vec<u8> {
        let start = EHDR_LEN + PHDR_LEN;
        let mut file = vec![0; start];
        let mut put = |at: usize, value: &[u8]| file[at..at + value.len()].copy_from_slice(value);
        put(0, b"\x7fELF\x02\x01\x01");
        put(E_PHOFF, &(EHDR_LEN as u64).to_le_bytes());
        put(E_SHOFF, &((start + code + debug) as u64).to_le_bytes());
        put(E_PHENTSIZE, &(PHDR_LEN as u16).to_le_bytes());
        put(E_PHNUM, &1_u16.to_le_bytes());
        put(E_SHENTSIZE, &64_u16.to_le_bytes());
        put(E_SHNUM, &(sections as u16).to_le_bytes());
        put(E_SHSTRNDX, &1_u16.to_le_bytes());
        put(EHDR_LEN, &PT_LOAD.to_le_bytes());
        put(EHDR_LEN + P_FILESZ, &((start + code) as u64).to_le_bytes());
        file.resize(start + code, b'c');
        file.resize(start + code + debug + sections * 64, b'd');
        file
    }

    #[test]
    fn a_machine_is_the_same_whatever_its_c_library() {
        assert_eq!(machine("x86_64-linux-gnu"), machine("x86_64-linux-musl"));
        assert_ne!(machine("x86_64-linux-gnu"), machine("aarch64-linux-gnu"));
        assert_ne!(machine("x86_64-linux-gnu"), machine("x86_64-freebsd"));
        assert_eq!(machine(&host_triple()), format!("{}-{}", consts::ARCH, consts::OS));
        assert_eq!(machine("x86_64"), "x86_64");
    }

    #[test]
    fn what_is_not_loaded_is_cut_off() {
        let full = elf(1000, 5000, 3);
        let image = truncate(full.clone());
        assert_eq!(image.len(), EHDR_LEN + PHDR_LEN + 1000);
        assert_eq!(image[EHDR_LEN..], full[EHDR_LEN..image.len()]);
        assert_eq!((u64_at(&image, E_SHOFF), u16_at(&image, E_SHNUM)), (Some(0), Some(0)));
        assert_eq!(truncate(image.clone()), image);
    }

    #[test]
    fn what_is_not_understood_stays() {
        let good = elf(1000, 5000, 3);
        let changed = |at: usize, value: u8| {
            let mut file = good.clone();
            file[at] = value;
            file
        };
        let mut cases = vec![
            Vec::new(),
            b"#!/bin/sh\nexit 0\n".to_vec(),
            good[..40].to_vec(),
            good[..good.len() - 1].to_vec(),
            [&good[..], b"payload"].concat(),
            changed(4, 1),             // 32 bits
            changed(5, 2),             // big-endian
            changed(E_PHENTSIZE, 57),  // other program headers
            changed(E_PHNUM, 0),       // no segments
            changed(E_SHNUM, 0),       // the number of sections is elsewhere
            changed(EHDR_LEN, 2),      // nothing to load
            changed(E_PHOFF + 7, 255), // far away
            changed(EHDR_LEN + P_FILESZ + 7, 255),
            changed(E_SHOFF + 7, 255),
        ];
        let mut many = good.clone();
        many[E_PHNUM..E_PHNUM + 2].fill(0xff);
        cases.push(many);
        for case in cases {
            assert_eq!(truncate(case.clone()), case);
        }
    }

    #[test]
    fn the_own_image_is_the_truncated_executable() {
        let image = own_image().unwrap();
        let full = std::fs::read(SELF).unwrap();
        assert!(image.bytes.len() < full.len(), "{} of {} bytes", image.bytes.len(), full.len());
        assert_eq!(image.bytes, truncate(full));
        assert_eq!(image.bytes, truncate(image.bytes.to_vec()));
        assert_eq!(image.hash, Image::new(image.bytes.to_vec(), image.triple.clone()).hash);
        assert!(image.is_for_its_machine());
        for triple in ["riscv64-linux-gnu", if cfg!(target_arch = "x86_64") { "aarch64" } else { "x86_64" }] {
            assert!(!Image { triple: triple.into(), ..image.clone() }.is_for_its_machine());
        }
        assert_eq!(image.hash, own_image().unwrap().hash);
        assert!(image.triple.starts_with(consts::ARCH), "{}", image.triple);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_truncated(
            code in 0..300_usize,
            debug in 0..300_usize,
            sections in 0..5_usize,
            changes in proptest::collection::vec((0..EHDR_LEN + PHDR_LEN, any::<u8>()), 0..4),
            length in 0..1000_usize,
        ) {
            let mut file = elf(code, debug, sections);
            for (at, value) in changes {
                file[at] = value;
            }
            file.truncate(length);
            let once = truncate(file.clone());
            prop_assert!(once.len() <= file.len());
            prop_assert_eq!(truncate(once.clone()), once);
        }
    }
}

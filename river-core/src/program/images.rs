//! Which of the program's images a VM gets: the initiator's own, or one from the directory `RIVER_IMAGES`, which has images
//! that were built from the same sources for other machines.
//!
//! The images are found as Cargo lays them out. That for machines of type `aarch64-linux-gnu` is
//! `$RIVER_IMAGES/aarch64-unknown-linux-gnu/NAME`, where NAME is the file name of the executable. If the executable itself is
//! below the directory, say `target/release/examples/NAME`, it may also be
//! `target/aarch64-unknown-linux-gnu/release/examples/NAME`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::code;
use crate::image::{self, Image};
use crate::protocol::ToHost;
use crate::rt;

/// The environment variable that names the directory.
const VARIABLE: &str = "RIVER_IMAGES";

/// What a VM gets.
pub(super) struct Choice {
    pub(super) image: Image,
    /// Whether it is the image of this process.
    pub(super) is_own: bool,
    /// What its host must be told first, if code pointers are not indices into the table of the image.
    pub(super) translate: Option<ToHost>,
}

impl Choice {
    fn new(image: Image, own: &Image) -> Self {
        let is_own = image.hash == own.hash;
        let hash = image.hash.as_bytes();
        let number = u16::from_le_bytes([hash[0], hash[1]]);
        let table = code::foreign_exports().or_else(|| (!is_own).then(code::exports));
        let translate = table.map(|table| ToHost::Translate { image: number, exports: table.to_vec() });
        Self { image, is_own, translate }
    }
}

/// Chooses the image for a VM on a machine of type `triple`. The error says what the user can do.
pub(super) async fn choose(own: &Image, triple: &str) -> Result<Choice, String> {
    let unchanged = || Choice::new(own.clone(), own);
    if triple == own.triple {
        return Ok(unchanged());
    }
    let directory = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut candidates = Vec::new();
    if let Some(directory) = &directory {
        candidates = self::candidates(directory, triple, &executable());
        // A static image of the other kind runs there, too.
        if image::machine(triple) != image::machine(&own.triple)
            && let Some(other) = with_other_library(triple)
        {
            candidates.extend(self::candidates(directory, &other, &executable()));
        }
    }
    let Some(path) = candidates.iter().find(|path| path.exists()) else {
        // The C libraries differ, and the VM's machine may have the right one, too.
        if image::machine(triple) == image::machine(&own.triple) {
            return Ok(unchanged());
        }
        return Err(no_image(&own.triple, triple, &candidates));
    };
    Ok(Choice::new(read(path.clone(), triple.to_owned()).await?, own))
}

/// The same machine with the other C library.
fn with_other_library(triple: &str) -> Option<String> {
    let gnu = triple.strip_suffix("-gnu").map(|machine| format!("{machine}-musl"));
    gnu.or_else(|| triple.strip_suffix("-musl").map(|machine| format!("{machine}-gnu")))
}

/// Where images for machines of type `triple` are looked for.
fn candidates(directory: &Path, triple: &str, executable: &Path) -> Vec<PathBuf> {
    // It becomes part of a path, and is whatever the VM says.
    if !triple.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
        return Vec::new();
    }
    let directory_of_images = directory.join(image::rust_target(triple));
    let mut candidates: Vec<PathBuf> =
        executable.file_name().map(|name| directory_of_images.join(name)).into_iter().collect();
    let inside = directory.canonicalize().ok();
    if let Some(inside) = inside.and_then(|directory| executable.strip_prefix(directory).ok()) {
        // An executable that was built with `--target` is in a directory of this kind itself.
        let own = image::rust_target(&image::host_triple());
        let inside = inside.strip_prefix(own).unwrap_or(inside);
        candidates.push(directory_of_images.join(inside));
    }
    candidates.dedup();
    candidates
}

/// The file of this process. A program that goes on from a checkpoint runs from another file, but under its old name.
fn executable() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let name = std::env::args_os().next().map(PathBuf::from);
    match name.as_deref().and_then(Path::file_name) {
        Some(name) => own.with_file_name(name),
        None => own,
    }
}

/// Reads an image, once in this process: all VMs get the same one, even if the file is replaced meanwhile.
async fn read(path: PathBuf, triple: String) -> Result<Image, String> {
    static IMAGES: Mutex<Option<HashMap<PathBuf, Image>>> = Mutex::new(None);
    let images = || IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(image) = images().as_ref().and_then(|images| images.get(&path).cloned()) {
        return Ok(image);
    }
    let file = path.clone();
    let read = rt::blocking(move || image::read_image(&file, triple)).await;
    let image = read.map_err(|error| {
        format!("cannot read the program's image {} ({VARIABLE}): {error}", path.display())
    })?;
    if !image.is_for_its_machine() {
        let (path, triple) = (path.display(), image::rust_target(&image.triple));
        return Err(format!(
            "{path} ({VARIABLE}) is not an executable for {triple}: build it with --target={triple}"
        ));
    }
    Ok(images().get_or_insert_default().entry(path).or_insert(image).clone())
}

fn no_image(own: &str, triple: &str, candidates: &[PathBuf]) -> String {
    let target = image::rust_target(triple);
    let mut text = format!(
        "it runs on {triple}, the program is built for {own}: choose VMs by Query::arch, or build the program with \
         --target={target} as well"
    );
    if candidates.is_empty() {
        text += &format!(" and set {VARIABLE}=DIRECTORY, where DIRECTORY/{target}/ has that executable");
    } else {
        let paths: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        text += &format!(" ({VARIABLE} is set, but there is no {})", paths.join(" and no "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(paths: &[PathBuf]) -> Vec<&str> {
        paths.iter().map(|path| path.to_str().unwrap()).collect()
    }

    #[test]
    fn images_are_where_cargo_puts_them() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let place = directory.to_str().unwrap();
        let at = |executable: &Path| candidates(&directory, "aarch64-linux-gnu", executable);
        let by_name = format!("{place}/aarch64-unknown-linux-gnu/wfreq");
        assert_eq!(shown(&at(Path::new("/usr/bin/wfreq"))), [&by_name]);
        let by_path = format!("{place}/aarch64-unknown-linux-gnu/release/examples/wfreq");
        assert_eq!(shown(&at(&directory.join("release/examples/wfreq"))), [&by_name, &by_path]);
        let own = image::rust_target(&image::host_triple());
        let built_for = directory.join(own).join("release/examples/wfreq");
        assert_eq!(shown(&at(&built_for)), [&by_name, &by_path]);
        assert!(candidates(&directory, "../linux-gnu", Path::new("wfreq")).is_empty());
    }

    #[test]
    fn without_an_image_the_user_learns_what_to_build_and_where_to_put_it() {
        let own = Image::new(b"image".to_vec(), image::host_triple());
        let error = rt::block_on(choose(&own, "riscv64-linux-gnu")).err().unwrap();
        for word in
            [&*own.triple, "riscv64-linux-gnu", "--target=riscv64-unknown-linux-gnu", VARIABLE, "Query::arch"]
        {
            assert!(error.contains(word), "{error}");
        }
        let error = no_image("a-b-c", "x-y-z", &["/images/x/name".into()]);
        assert!(error.contains("there is no /images/x/name"), "{error}");
    }

    #[test]
    fn a_vm_with_another_c_library_gets_the_own_image_unless_there_is_a_better_one() {
        let own = Image::new(b"image".to_vec(), image::host_triple());
        let other = format!("{}-other", image::machine(&own.triple));
        for triple in [&own.triple, &other] {
            let choice = rt::block_on(choose(&own, triple)).ok().unwrap();
            assert!(choice.is_own && choice.translate.is_none());
        }
    }

    #[test]
    fn the_other_library_is_that_of_the_same_machine() {
        assert_eq!(with_other_library("aarch64-linux-gnu").as_deref(), Some("aarch64-linux-musl"));
        assert_eq!(with_other_library("aarch64-linux-musl").as_deref(), Some("aarch64-linux-gnu"));
        assert_eq!(with_other_library("aarch64-linux-android"), None);
    }

    #[test]
    fn a_file_that_cannot_run_there_is_no_image() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("name");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        let read = |path: &Path| rt::block_on(read(path.to_owned(), "aarch64-linux-gnu".into())).unwrap_err();
        assert!(read(&path).contains("--target=aarch64-unknown-linux-gnu"), "{}", read(&path));
        assert!(read(directory.path()).contains("cannot read"), "{}", read(directory.path()));
    }
}

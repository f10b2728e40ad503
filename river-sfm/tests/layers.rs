//! The modules of this crate use only modules below them, in the order that `src/lib.rs` lists.

use std::fs;
use std::path::Path;

/// The modules in a doc list of the form "//! - `name`: ...", in its order.
fn layers(lib: &str) -> Vec<String> {
    let list = lib.split("lowest first").nth(1).expect("lib.rs lists its modules, lowest first");
    let items = list.lines().skip(1).take_while(|line| line.starts_with("//!"));
    items.filter_map(|line| Some(line.strip_prefix("//! - `")?.split('`').next()?.to_owned())).collect()
}

/// The modules that a file names as `crate::module`, outside comments and unit tests.
fn used(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    code.flat_map(|line| line.split("crate::").skip(1).map(name).collect::<Vec<_>>()).collect()
}

#[test]
fn modules_use_only_modules_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).unwrap();
    let layers = layers(&lib);
    let mut files: Vec<String> = fs::read_dir(&src)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "lib")
        .collect();
    let mut listed = layers.clone();
    files.sort();
    listed.sort();
    assert_eq!(files, listed, "every module is in the list of lib.rs");

    for (level, module) in layers.iter().enumerate() {
        // What the macros name, they name as their users do: through the crate's root.
        let source = fs::read_to_string(src.join(format!("{module}.rs"))).unwrap();
        let users = source.replace("$crate::", "");
        for used in &used(&users) {
            // Names at the crate's root and lists in braces would hide which module is meant.
            assert!(listed.contains(used), "{module} names crate::{used}, which is no module");
            assert!(layers[..level].contains(used), "{module} uses {used}, which is not below it");
        }
    }
}

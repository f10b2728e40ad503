//! Arrows point one way: a module uses only modules above it in the list in `src/lib.rs`.

use std::fs;
use std::path::Path;

#[test]
fn modules_use_only_modules_above_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = fs::read_to_string(src.join("lib.rs")).unwrap();
    let (_, list) = map.split_once("# Layers, lowest first").expect("lib.rs lists the layers");
    let layers: Vec<&str> = list
        .lines()
        .filter_map(|line| line.strip_prefix("//! * `"))
        .filter_map(|line| line.split('`').next())
        .collect();
    let declared =
        map.lines().filter_map(|line| line.strip_prefix("mod ")).filter_map(|m| m.strip_suffix(';'));
    let mut declared: Vec<&str> = declared.collect();
    declared.sort_unstable();
    let mut listed = layers.clone();
    listed.sort_unstable();
    assert_eq!(declared, listed, "the list names every module once");

    for (level, module) in layers.iter().enumerate() {
        let source = fs::read_to_string(src.join(format!("{module}.rs"))).unwrap();
        for used in source.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(used_modules)
        {
            let allowed = layers[..level].contains(&used) || used == *module;
            assert!(allowed, "`{module}` uses `{used}`, which is not above it");
        }
    }
}

/// The `x` of every `crate::x` in a line.
fn used_modules(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
}

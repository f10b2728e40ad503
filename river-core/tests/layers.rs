//! The modules depend on each other in one direction only.

#[test]
fn modules_use_only_those_below() {
    river_core::testing::check_layers(env!("CARGO_MANIFEST_DIR"));
}

/// async-std is discontinued: when it is replaced, only one file must change.
#[test]
fn the_runtime_is_named_in_one_file_only() {
    let src = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let mut named = Vec::new();
    let mut directories = vec![std::path::PathBuf::from(src)];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if std::fs::read_to_string(&path).unwrap().contains("async_std") {
                named.push(path.file_name().unwrap().to_owned());
            }
        }
    }
    assert_eq!(named, ["rt.rs"]);
}

//! The modules depend on each other in one direction only.

#[test]
fn modules_use_only_those_below() {
    river_core::testing::check_layers(env!("CARGO_MANIFEST_DIR"));
}

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| river_core::fuzzing::recording(bytes));

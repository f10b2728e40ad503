//! Tracing types prints nothing. (A process has only one panic hook, so this test has a process of its own.)

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use river_core::catch_panic;
use river_rai::Exports;
use serde::{Deserialize, Deserializer, Serialize};

/// Does not check what it reads.
#[derive(Serialize)]
struct Address(String);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let address: Ipv4Addr = String::deserialize(deserializer)?.parse().unwrap();
        Ok(Self(address.to_string()))
    }
}

#[test]
fn a_type_that_panics_on_made_up_values_is_exported_without_a_word() {
    static REPORTED: AtomicUsize = AtomicUsize::new(0);
    std::panic::set_hook(Box::new(|_| {
        REPORTED.fetch_add(1, SeqCst);
    }));
    let exports = Exports::new().function("host", |address: Address| address.0);
    assert_eq!(REPORTED.load(SeqCst), 0);
    assert!(format!("{exports:?}").contains("(Address,) -> String"));
    // Any other panic is reported.
    assert!(catch_panic(|| panic!("as ever")).is_err());
    assert_eq!(REPORTED.load(SeqCst), 1);
}

//! Ids: everything that another process may refer to has an id of its own type.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(Uuid);

        impl $name {
            /// Creates a unique id: a random (version 4) UUID.
            #[must_use]
            pub fn fresh() -> Self {
                Self(Uuid::new_v4())
            }

            /// Creates an id from an existing UUID.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Returns the UUID.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }

            /// Returns the first eight hexadecimal digits, which are enough for people.
            #[must_use]
            pub fn short(self) -> String {
                let mut text = self.0.simple().to_string();
                text.truncate(8);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }
    };
}

uuid_id! {
    /// Identifies a virtual resource. Each VR that is deployed gets a new one.
    VrId
}
uuid_id! {
    /// Identifies a virtual machine. A VM gets a new one each time it starts.
    VmId
}
uuid_id! {
    /// Identifies a running program: an initiator and everything that it has deployed.
    ProgramId
}
uuid_id! {
    /// Identifies a process that runs VRs of a program: the initiator's own, or a host on a VM.
    HostId
}

/// A map whose keys are ids.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;
/// A set of ids.
pub(crate) type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// Hashes an id to a part of itself, since it is random already. Only a holder of the cluster key can choose an id.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        // The halves of a version 4 UUID have fixed bits in different places.
        for half in bytes.chunks_exact(8) {
            self.0 ^= u64::from_ne_bytes(std::array::from_fn(|i| half[i]));
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The BLAKE3 hash of an executable's loadable bytes: equal hashes mean equal code at equal offsets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageHash(pub(crate) [u8; 32]);

impl ImageHash {
    /// Creates the hash from its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ImageHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ImageHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageHash({:02x}{:02x}{:02x}{:02x})", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

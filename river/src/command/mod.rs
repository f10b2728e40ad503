//! The subcommands, one file each.

pub(crate) mod ls;
pub(crate) mod vm;

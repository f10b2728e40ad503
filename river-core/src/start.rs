//! Lets test executables become hosts without their author's doing: a hook that runs before `main`.

#![allow(unsafe_code)]

use std::ffi::c_int;

/// Runs before `main` with the arguments that every initialiser gets on Linux.
extern "C" fn start(_argc: c_int, _argv: *const *const u8, _envp: *const *const u8) {
    crate::host::become_host_if_asked();
}

#[used]
// SAFETY: the section holds pointers to functions of this signature, called once before `main`; this one does
// nothing but read an environment variable unless the process is a host, and then it never returns.
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn(c_int, *const *const u8, *const *const u8) = start;

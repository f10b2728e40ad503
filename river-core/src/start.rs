//! Lets test executables become hosts without the author's help: a hook that runs before `main`.

#![allow(unsafe_code)]

use std::ffi::c_int;

const SIGPIPE: c_int = 13;
const SIG_IGN: usize = 1;

unsafe extern "C" {
    fn signal(number: c_int, handler: usize) -> usize;
}

/// Runs before `main` with the arguments that every initialiser gets on Linux.
extern "C" fn start(_argc: c_int, _argv: *const *const u8, _envp: *const *const u8) {
    if std::env::var_os(crate::host::HOST_VARIABLE).is_some() {
        // As Rust's runtime does before `main`, which a host never reaches.
        // SAFETY: the C library's function of that signature; no handler is installed, and 13 is this signal on every Linux.
        unsafe { signal(SIGPIPE, SIG_IGN) };
    }
    crate::host::become_host_if_asked();
}

#[used]
// SAFETY: the section holds pointers to functions of this signature, each called once before `main`; this one only reads an
// environment variable, unless the process is a host, and then it never returns.
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn(c_int, *const *const u8, *const *const u8) = start;

//! A host's lifeline: ends it, and what its VRs have started, with its VM, whatever way that goes.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, getpgrp, getpid, getppid};

/// How often a host looks whether its parent is another. A child that its VM has forked may hold the lifeline open.
const LOOK: Duration = Duration::from_secs(1);

/// Ties this process to `vm`, its parent, which holds the other end of the pipe `lifeline`. Done before anything of the
/// user's runs. Nothing is read from the pipe.
pub(crate) fn tie(lifeline: OwnedFd, vm: Pid) -> io::Result<()> {
    thread::Builder::new().name("river-lifeline".into()).spawn(move || {
        wait(&lifeline, vm);
        end();
    })?;
    // Wakes a process that is stopped, to look. A signal that kills would hit this process alone, before it can end what
    // its VRs have started.
    rustix::process::set_parent_process_death_signal(Some(Signal::CONT))?;
    Ok(())
}

/// Returns when the VM is gone.
fn wait(lifeline: &OwnedFd, vm: Pid) {
    let look = Timespec::try_from(LOOK).ok();
    while getppid() == Some(vm) {
        // That nobody is at the other end is said unasked.
        let mut watched = [PollFd::new(lifeline, PollFlags::empty())];
        match poll(&mut watched, look.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Ends this process at once: nobody is left to say goodbye to.
fn end() {
    let this = getpid();
    if getpgrp() == this {
        let _ = rustix::process::kill_process_group(this, Signal::KILL);
    }
    let _ = rustix::process::kill_process(this, Signal::KILL);
}

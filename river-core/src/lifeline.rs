//! A host's lifeline: when its VM ends, for whatever reason, it ends the host and everything that the host's VRs have
//! started.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, getpgrp, getpid, getppid};

/// How often a host checks whether its parent has changed. A child that its VM has forked may hold the lifeline open.
const LOOK: Duration = Duration::from_secs(1);

/// Ties this process to `vm`, its parent, which holds the other end of the pipe `lifeline`. Called before any code of the
/// user runs. Nothing is read from the pipe.
pub(crate) fn tie(lifeline: OwnedFd, vm: Pid) -> io::Result<()> {
    thread::Builder::new().name("river-lifeline".into()).spawn(move || {
        wait(&lifeline, vm);
        end();
    })?;
    // Continues a stopped process, so that it checks. A deadly signal would hit this process alone, before it can end what
    // its VRs have started.
    rustix::process::set_parent_process_death_signal(Some(Signal::CONT))?;
    Ok(())
}

/// Returns once the VM is gone.
fn wait(lifeline: &OwnedFd, vm: Pid) {
    let look = Timespec::try_from(LOOK).ok();
    while getppid() == Some(vm) {
        // A hang-up is reported without being asked for.
        let mut watched = [PollFd::new(lifeline, PollFlags::empty())];
        match poll(&mut watched, look.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Ends this process and all others of its group at once: there is nobody left to notify.
pub(crate) fn end() {
    let this = getpid();
    if getpgrp() == this {
        let _ = rustix::process::kill_process_group(this, Signal::KILL);
    }
    let _ = rustix::process::kill_process(this, Signal::KILL);
}

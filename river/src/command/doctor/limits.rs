//! The system's limits for this user: open files, threads, memory, cores.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;

use rustix::fs::MemfdFlags;
use rustix::process::{Resource, Rlimit, getrlimit};

use super::finding::Finding;
use crate::command::size::mebibytes;

/// A host has a few open files of its own, and two for each process that it talks to.
const FEW_FILES: u64 = 1024;
const TOO_FEW_FILES: u64 = 64;
/// Every VR is a thread.
const FEW_THREADS: u64 = 512;
const TOO_FEW_THREADS: u64 = 32;
/// Enough for the rings to a hundred processes and the program itself.
const LITTLE_MEMORY: u64 = 256 << 20;

pub(super) fn check() -> Vec<Finding> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    vec![
        judge_files(&getrlimit(Resource::Nofile)),
        judge_threads(threads_left()),
        judge_memory(memory),
        judge_shared_memory(share_memory()),
        Finding::ok("cores", format!("{cores}: `river run` without -n starts {cores} VMs")),
    ]
}

fn judge_files(limit: &Rlimit) -> Finding {
    let (Some(now), most) = (limit.current, limit.maximum) else {
        return Finding::ok("open files", "there is no limit");
    };
    let message = format!("a process may have at most {now}");
    let fix = match most {
        Some(most) if most < FEW_FILES => {
            "raise `nofile` in /etc/security/limits.conf, or LimitNOFILE= of the service, and log in again"
                .into()
        }
        _ => format!(
            "`ulimit -n {}` in the shell that starts VMs and programs",
            most.unwrap_or(65_536).min(65_536)
        ),
    };
    match now {
        0..TOO_FEW_FILES => Finding::fail("open files", message, fix),
        TOO_FEW_FILES..FEW_FILES => {
            Finding::warn("open files", format!("{message}: enough for some dozens of VMs"), fix)
        }
        _ => Finding::ok("open files", message),
    }
}

/// How many more threads this user and this control group may have.
fn threads_left() -> Option<u64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let user = getrlimit(Resource::Nproc).current.map(|limit| limit.saturating_sub(threads_of_user()));
    // Root's processes are not counted.
    let user = user.filter(|_| !rustix::process::geteuid().is_root());
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| {
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned();
        let file = |name: &str| number(&format!("/sys/fs/cgroup{path}/{name}"));
        Some(file("pids.max")?.saturating_sub(file("pids.current")?))
    });
    [user, group].into_iter().flatten().min()
}

fn threads_of_user() -> u64 {
    let user = rustix::process::getuid().as_raw().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let threads = processes.filter_map(|process| {
        let status = fs::read_to_string(process.path().join("status")).ok()?;
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next();
        (field("Uid:")? == user).then(|| field("Threads:")?.parse::<u64>().ok()).flatten()
    });
    threads.sum()
}

fn judge_threads(left: Option<u64>) -> Finding {
    let fix = "end processes that you do not need, or raise `ulimit -u`, TasksMax= of the service or the limit of the container";
    match left {
        None => Finding::ok("threads", "there is no limit"),
        Some(left @ 0..TOO_FEW_THREADS) => {
            Finding::fail("threads", format!("only {left} more may be started, and a VM takes a dozen"), fix)
        }
        Some(left @ TOO_FEW_THREADS..FEW_THREADS) => {
            Finding::warn("threads", format!("only {left} more may be started, and every VR takes one"), fix)
        }
        Some(left) => Finding::ok("threads", format!("{left} more may be started")),
    }
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn judge_memory(available: Option<u64>) -> Finding {
    match available {
        None => Finding::warn("memory", "/proc/meminfo does not say how much is free", "mount /proc"),
        Some(bytes) if bytes < LITTLE_MEMORY => Finding::warn(
            "memory",
            format!("only {} are free", mebibytes(bytes)),
            "end processes that you do not need, before the system kills one",
        ),
        Some(bytes) => Finding::ok("memory", format!("{} are free", mebibytes(bytes))),
    }
}

/// Shares memory as two processes do that exchange messages: creates it without a file system, and opens it through
/// `/proc`.
fn share_memory() -> io::Result<()> {
    let file = rustix::fs::memfd_create("river doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.write_all(&[7; 4096])?;
    let mut again =
        File::options().read(true).write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let mut bytes = Vec::new();
    again.rewind()?;
    again.read_to_end(&mut bytes)?;
    if bytes == [7; 4096] { Ok(()) } else { Err(io::Error::other("its content differs on the other side")) }
}

fn judge_shared_memory(result: io::Result<()>) -> Finding {
    match result {
        Ok(()) => Finding::ok("shared memory", "processes can share memory (memfd; /dev/shm is not used)"),
        Err(error) => Finding::warn(
            "shared memory",
            format!(
                "processes cannot share memory, so they exchange messages by TCP, which is slower: {error}"
            ),
            "mount /proc, and let this container use memfd_create",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::finding::Verdict::{Fail, Ok, Warn};

    #[test]
    fn files_and_threads_are_judged_by_what_vms_need() {
        let files = |current, maximum| judge_files(&Rlimit { current, maximum });
        assert_eq!(files(Some(20), Some(4096)).verdict, Fail);
        assert!(files(Some(20), Some(4096)).fix.unwrap().contains("ulimit -n 4096"));
        assert_eq!(files(Some(256), Some(256)).verdict, Warn);
        assert!(files(Some(256), Some(256)).fix.unwrap().contains("limits.conf"));
        assert_eq!(files(Some(1024), None).verdict, Ok);
        assert_eq!(files(None, None).verdict, Ok);
        let threads = [None, Some(10_000), Some(100), Some(3)].map(|left| judge_threads(left).verdict);
        assert_eq!(threads, [Ok, Ok, Warn, Fail]);
    }

    #[test]
    fn memory_is_read_in_kilobytes() {
        assert_eq!(available("MemTotal: 5 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemTotal: 5 kB\n"), None);
        assert_eq!([Some(1), Some(8 << 30), None].map(|free| judge_memory(free).verdict), [Warn, Ok, Warn]);
    }

    #[test]
    fn memory_can_be_shared_here() {
        share_memory().unwrap();
        assert_eq!(judge_shared_memory(Err(io::ErrorKind::NotFound.into())).verdict, Warn);
    }
}

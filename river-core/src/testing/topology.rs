//! Runs the same test body on every layout of VMs.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::discovery::VmInfo;
use crate::error::Result;
use crate::image::{self, ImageCache};
use crate::key::ClusterKey;
use crate::vm::{Vm, VmConfig};
use crate::vr::Vr;

/// Set in a process that must act as a VM.
const VM: &str = "RIVER_TEST_VM";
/// What such a process prints before its address.
const READY: &str = "river test vm: ";
/// A body that takes longer than this on one topology hangs, and its process is aborted.
const LIMIT: Duration = Duration::from_secs(120);

/// Returns this many leased places to deploy on: VMs, or the same VM several times.
pub type MakeVms<'a> = dyn Fn(&Vr, usize) -> Result<Vec<VmInfo>> + 'a;

/// Runs a test body on each topology:
///
/// * `one VM`: all VRs that are deployed share one host; they talk to the initiator through shared memory.
/// * `VMs in one process`: a VM for each place, all in the initiator's process, each with a host of its own.
/// * `VM processes over TCP`: a VM process for each place, and no shared memory.
///
/// The body is passed the topology's name and a function that makes places: `make_vms(vr, 3)?` returns three, on which
/// `vr.deploy` starts three VRs. The body calls [`try_run`](crate::try_run) itself.
///
/// It must be called on the thread of a test of the standard harness, before the test does anything else: the VM processes
/// are this executable, told to run only this test, and never return from this call.
///
/// # Panics
/// If the body does, if a VM process cannot be started, or if the thread is not a test's. If the body does not end
/// within two minutes on one topology, the process is aborted.
pub fn for_each_topology(body: impl Fn(&str, &MakeVms)) {
    if std::env::var_os(VM).is_some() {
        be_a_vm();
    }
    let test = thread::current().name().filter(|name| *name != "main").map(str::to_owned);
    let test = test.expect("the topologies are for tests, on the thread that the harness gives them");
    let one = RefCell::new(None);
    watched("one VM", |name| {
        body(name, &|vr, count| {
            // Leased by this program; another program of the same body gets another VM.
            let mut one = one.borrow_mut();
            let vm = match one.take() {
                Some((program, vm)) if program == vr.program() => vm,
                _ => vr.start_local(1)?.swap_remove(0),
            };
            *one = Some((vr.program(), vm.clone()));
            Ok(vec![vm; count])
        });
    });
    watched("VMs in one process", |name| body(name, &|vr, count| Ok(vr.start_local(count)?)));
    let processes = RefCell::new(Vec::new());
    watched("VM processes over TCP", |name| {
        body(name, &|vr, count| {
            let mut vms = Vec::new();
            for _ in 0..count {
                let process = VmProcess::start(&test)?;
                vms.push(process.info.clone());
                processes.borrow_mut().push(process);
            }
            Ok(vr.allocate(vms, count)?)
        });
    });
}

/// Runs a body, and aborts the process if that takes too long, so that a hang is a failure and not an endless test.
fn watched(name: &str, body: impl FnOnce(&str)) {
    let (done, ended) = mpsc::channel::<()>();
    let topology = name.to_owned();
    thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            eprintln!("the test has not ended within {LIMIT:?} on the topology \"{topology}\"");
            std::process::abort();
        }
    });
    // Printed even if the test fails.
    println!("topology: {name}");
    body(name);
    drop(done);
}

/// A VM in a process of its own. Killed when this handle is dropped; it also ends when this process does.
struct VmProcess {
    child: Child,
    info: VmInfo,
}

impl VmProcess {
    fn start(test: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
            .env(VM, std::process::id().to_string())
            .env("RIVER_LINKS", "tcp")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let info = child.stdout.take().and_then(|stdout| {
            let mut lines = BufReader::new(stdout).lines().map_while(io::Result::ok);
            // The harness may have printed something without a newline before it.
            lines.find_map(|line| Some(line.split_once(READY)?.1.to_owned()))
        });
        match info.as_deref().and_then(decode) {
            Some(info) => Ok(Self { child, info }),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err(io::Error::other("the VM process did not say where it is").into())
            }
        }
    }
}

impl Drop for VmProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a VM until its standard input ends, which is when the test's process ends at the latest.
fn be_a_vm() -> ! {
    let started = ClusterKey::load_or_create().map_err(Into::into).and_then(|key| {
        // It runs this very executable, so nothing is sent, and nothing is left in the user's cache.
        let cache = Arc::new(ImageCache::of_own_image(image::own_image()?.hash));
        let config = VmConfig::default().hidden().name(format!("process-{}", std::process::id()));
        Result::Ok(Vm::start_with(config, key, cache)?)
    });
    match started {
        Ok(vm) => {
            println!("\n{READY}{}", encode(&vm.info()));
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            drop(vm);
            std::process::exit(0)
        }
        Err(error) => {
            eprintln!("the VM process cannot start: {error}");
            std::process::exit(1)
        }
    }
}

fn encode(info: &VmInfo) -> String {
    let bytes = postcard::to_stdvec(info).unwrap_or_default();
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn decode(text: &str) -> Option<VmInfo> {
    let digits = text.trim().as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> =
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    postcard::from_bytes(&bytes?).ok()
}

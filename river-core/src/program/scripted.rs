//! VMs and hosts that do what a test says.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use super::Program;
use crate::control::{self, Connection};
use crate::discovery::{VmInfo, VmState};
use crate::id::VmId;
use crate::protocol::{FromHost, FromVm, Hello, Report, Step, ToHost, ToVm, Welcome};
use crate::rt;

/// By what a host is heard.
#[derive(Clone)]
pub(super) struct Voice {
    host: rt::Sender<FromHost>,
    vm: rt::Sender<FromVm>,
}

impl Voice {
    pub(super) fn say(&self, message: FromHost) {
        let _ = self.host.try_send(message);
    }

    pub(super) fn report(&self, round: u64, report: Report) {
        self.say(FromHost::State { round, report });
    }

    /// The host dies.
    pub(super) fn exit(&self) {
        let _ = self.vm.try_send(FromVm::Exited { how: "as it was told".into(), last_lines: Vec::new() });
    }

    /// Does what a host does on which nothing runs.
    pub(super) fn obey(&self, message: ToHost) {
        match message {
            ToHost::State { round, step: Step::Freeze } => {
                self.report(round, Report::Frozen { sent: Vec::new(), unrecorded: Vec::new() });
            }
            ToHost::State { round, step: Step::Settle(_) } => self.report(round, Report::Settled),
            ToHost::Restore { ticket, .. } => self.say(FromHost::Created { ticket, result: Ok(()) }),
            ToHost::Stop => self.exit(),
            _ => {}
        }
    }
}

/// A VM that lets itself be leased, and starts a host as soon as `begins` is over, which does `hears` with what it is told.
/// Unless it is `deaf` it ends a lease when it is told to.
pub(super) fn vm<F: Future<Output = ()> + Send + 'static>(
    program: &Arc<Program>,
    name: &str,
    deaf: bool,
    begins: impl Fn() -> F + Clone + Send + Sync + 'static,
    hears: impl Fn(&Voice, ToHost) + Clone + Send + Sync + 'static,
) -> VmInfo {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (id, address) = (VmId::fresh(), listener.local_addr().unwrap());
    let key = program.key.clone();
    let (tenant, initiator) = (program.tenant.program, program.node.place.address);
    let serve = move |_: Hello, stream: Connection| {
        let (key, begins, hears) = (key.clone(), begins.clone(), hears.clone());
        async move {
            let (vm, mut from) = control::split::<FromVm, ToVm>(stream);
            while let Ok(Some(message)) = from.next().await {
                match message {
                    ToVm::Acquire(_) => vm.try_send(FromVm::Acquired).unwrap(),
                    ToVm::Renew => vm.try_send(FromVm::Alive).unwrap(),
                    ToVm::Start(spec) => {
                        vm.try_send(FromVm::Started { shipped: false }).unwrap();
                        begins().await;
                        let hello = Hello::Join { program: tenant, host: spec.host, port: address.port() };
                        let (_, stream) = control::dial(initiator, &key, &hello).await.unwrap();
                        let (host, mut told) = control::split::<FromHost, ToHost>(stream);
                        let (voice, hears) = (Voice { host, vm: vm.clone() }, hears.clone());
                        rt::spawn(async move {
                            while let Ok(Some(message)) = told.next().await {
                                hears(&voice, message);
                            }
                        });
                    }
                    ToVm::Release if !deaf => break,
                    _ => {}
                }
            }
        }
    };
    let listen = control::listen(listener.into(), program.key.clone(), Welcome::Vm(id), serve);
    program.tasks().push(rt::spawn(listen));
    VmInfo {
        id,
        name: name.into(),
        address,
        cores: 1,
        memory: 0,
        triple: crate::image::host_triple(),
        labels: Vec::new(),
        state: VmState::Idle,
        uptime: Duration::ZERO,
        version: String::new(),
    }
}

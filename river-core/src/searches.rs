//! How VMs, and programs with services, answer searches: one task for each address on which they may arrive, and one that
//! looks for new interfaces.
//!
//! If several VMs run on a machine, the kernel delivers a probe that was sent to that machine alone to only one of them. That
//! VM asks all that listen there, itself too, by a broadcast on the loopback network, and passes their answers on. A program
//! does not take part in that: a probe that it received would be lost to the VMs.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::discovery::{self, Ear, Ears, Network, Replays, ResponderError};
use crate::key::ClusterKey;
use crate::rt;

/// How long to wait after a failed receive.
const PAUSE: Duration = Duration::from_millis(250);
/// How often the interfaces are checked, as they come and go.
const RESCAN: Duration = Duration::from_secs(5);
/// How long the other VMs of this machine may take to answer.
const PASS_ON: Duration = Duration::from_millis(100);
/// How many probes may be passed on at once; more are lost, as datagrams may be.
const PASSING: usize = 16;

/// A VM or program that answers searches.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Returns the reply to the sender of this datagram, if there is one.
    fn answer(&self, probe: &[u8]) -> Option<Vec<u8>>;
    /// Whether no more searches are answered.
    fn is_over(&self) -> bool;
    /// Whether it stands for its machine: receives probes sent to the machine alone, and asks the others.
    fn stands_for_machine(&self) -> bool;
}

/// State shared by the tasks.
struct Searches {
    of: Arc<dyn Answers>,
    key: ClusterKey,
    network: Network,
    port: u16,
    replays: Mutex<Replays>,
    passing: AtomicUsize,
}

/// The tasks; dropping this cancels them.
struct Tasks(HashMap<Ear, rt::JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.drain().for_each(|(_, task)| rt::cancel(task));
    }
}

/// Listens for searches; the returned future answers them, until no more are answered.
pub(crate) fn start(
    of: Arc<dyn Answers>,
    key: ClusterKey,
    network: Network,
    port: u16,
) -> Result<impl Future<Output = ()> + Send + use<>, ResponderError> {
    let alone = of.stands_for_machine();
    let wanted = move |ear: &Ear| alone || !matches!(ear, Ear::Unicast(_));
    let Ears { mut sockets, deaf } = discovery::bind_ears(network, port, wanted)?;
    if let Some((address, error)) = deaf {
        tracing::info!(%error, "searches sent to {address} alone are not answered");
    }
    let (replays, passing) = (Mutex::default(), AtomicUsize::new(0));
    let searches = Arc::new(Searches { of, key, network, port, replays, passing });
    Ok(async move {
        let mut tasks = Tasks(HashMap::new());
        loop {
            for (ear, socket) in sockets.drain(..) {
                tasks.0.insert(ear, rt::spawn(searches.clone().listen(ear, socket.into())));
            }
            if network == Network::Loopback {
                std::future::pending::<()>().await;
            }
            rt::sleep(RESCAN).await;
            let Ok(ears) = discovery::responder_ears(network, port) else { continue };
            let (kept, gone): (HashMap<_, _>, HashMap<_, _>) =
                tasks.0.drain().partition(|(ear, _)| ears.contains(ear));
            gone.into_values().for_each(rt::cancel);
            tasks.0 = kept;
            for ear in ears.into_iter().filter(|ear| wanted(ear) && !tasks.0.contains_key(ear)) {
                match discovery::bind_ear(ear, port) {
                    Ok(socket) => sockets.push((ear, socket)),
                    Err(error) => tracing::debug!(?ear, %error, "cannot listen on a new interface yet"),
                }
            }
        }
    })
}

impl Searches {
    async fn listen(self: Arc<Self>, ear: Ear, socket: rt::UdpSocket) {
        let socket = Arc::new(socket);
        let mut datagram = vec![0; 2048];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut datagram).await else {
                rt::sleep(PAUSE).await;
                continue;
            };
            if self.of.is_over() {
                return;
            }
            let probe = &datagram[..length];
            let scope = discovery::scope(probe);
            if scope.relayed && (!ear.is_local() || scope.from_network && self.network == Network::Loopback) {
                continue;
            }
            if matches!(ear, Ear::Unicast(_)) {
                let relayed = discovery::relayed(&self.key, probe, !ear.is_local());
                if let Some(relayed) = relayed.filter(|_| self.admit(probe)) {
                    rt::spawn(self.clone().pass_on(socket.clone(), from, relayed));
                }
            } else if let Some(answer) = self.of.answer(probe)
                && self.admit(probe)
            {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    }

    fn admit(&self, probe: &[u8]) -> bool {
        self.replays.lock().unwrap_or_else(PoisonError::into_inner).admit(probe)
    }

    /// Asks all that listen on this machine on behalf of `asker`.
    async fn pass_on(self: Arc<Self>, socket: Arc<rt::UdpSocket>, asker: SocketAddr, probe: Vec<u8>) {
        if self.passing.fetch_add(1, Relaxed) < PASSING {
            let asking = async {
                let near = rt::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                near.set_broadcast(true)?;
                for ear in discovery::responder_ears(Network::Loopback, self.port).unwrap_or_default() {
                    if let Ear::Broadcast(ip) = ear {
                        near.send_to(&probe, (ip, self.port)).await?;
                    }
                }
                let mut answer = vec![0; 2048];
                loop {
                    let (length, _) = near.recv_from(&mut answer).await?;
                    if discovery::is_answer(&self.key, &probe, &answer[..length]) {
                        socket.send_to(&answer[..length], asker).await?;
                    }
                }
            };
            // Always ends by the time-out; an error is the same as a lost datagram.
            let _: Result<std::io::Result<()>, _> = rt::timeout(PASS_ON, asking).await;
        }
        self.passing.fetch_sub(1, Relaxed);
    }
}

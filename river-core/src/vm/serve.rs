//! A VM's side of its conversation with a program.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::process::HostProcess;
use super::tenancy::{STOPPED, Shared};
use crate::control::{self, Connection, ControlError, Incoming};
use crate::host::HostConfig;
use crate::id::ProgramId;
use crate::image::{self, InsertError, Packed};
use crate::lease;
use crate::protocol::{FromVm, Hello, HostSpec, KeptImage, Tenant, ToVm, pieces};
use crate::rt;

/// The maximum size of an executable.
const MAX_IMAGE: u64 = 4 << 30;

/// Serves one connection from a program until it ends, and then ends everything that the program has here.
pub(super) async fn conversation(shared: Arc<Shared>, hello: Hello, stream: Connection) {
    let Hello::Lease { program } = hello else {
        tracing::warn!(vm = shared.name, "refused a connection that is not for a VM");
        return;
    };
    let (to, mut from) = control::split::<FromVm, ToVm>(stream);
    let mut tenant = None;
    if let Err(error) = converse(&shared, program, &mut tenant, &to, &mut from).await {
        tracing::info!(vm = shared.name, %program, %error, "lost a program");
    }
    if let Some(tenant) = tenant {
        shared.release(&tenant);
    }
}

async fn converse(
    shared: &Arc<Shared>,
    program: ProgramId,
    tenant: &mut Option<Tenant>,
    to: &rt::Sender<FromVm>,
    from: &mut Incoming<ToVm>,
) -> Result<(), ControlError> {
    let mut sign = SignOfLife::of(to);
    while let Some(message) = from.next().await? {
        match (message, &mut *tenant) {
            (ToVm::Acquire(new), tenant) => {
                shared.expire(Instant::now());
                let acquired = {
                    let mut state = shared.state();
                    if state.stopped || state.draining {
                        return Ok(());
                    }
                    let acquired = state.lease.acquire(new.clone(), Instant::now());
                    if acquired.is_ok() {
                        state.to_tenant = Some(to.clone());
                    }
                    acquired
                };
                match acquired {
                    Ok(()) => {
                        tracing::info!(vm = shared.name, program = new.name, "leased");
                        *tenant = Some(new);
                        let _ = to.try_send(FromVm::Acquired);
                    }
                    Err(holder) => {
                        let _ = to.try_send(FromVm::Busy(holder.name));
                    }
                }
            }
            (ToVm::Renew, Some(tenant)) => {
                if !shared.state().lease.renew(tenant, Instant::now()) {
                    return Ok(());
                }
                let _ = to.try_send(FromVm::Alive);
            }
            (ToVm::EndHost, Some(tenant)) => shared.end_host(tenant),
            (ToVm::Start(spec), Some(tenant)) => {
                let started = start(shared, tenant, spec, to, from).await?;
                let _ = to.try_send(match started {
                    Ok(shipped) => FromVm::Started { shipped },
                    Err(NoHost::Refused(why)) => FromVm::Refused(why),
                    Err(NoHost::GivenBack) => return Ok(()),
                });
            }
            (ToVm::Release, _) => return Ok(()),
            (ToVm::FindInitiator, _) => {
                let initiator = shared.state().initiator;
                let _ = to.try_send(FromVm::Initiator(initiator));
            }
            (ToVm::Inspect, _) => {
                let _ = to.try_send(FromVm::Inspected(shared.status()));
            }
            (ToVm::Keep(image), _) => {
                let kept = keep(shared, program, image, to, from).await?;
                let _ = to.try_send(FromVm::Kept(kept));
            }
            (ToVm::List(run), _) => {
                let images = shared.shelf().list(run);
                let _ = to.try_send(FromVm::Images(images));
            }
            (ToVm::Fetch(image), _) => {
                let bytes = shared.shelf().get(&image);
                send_pieces(bytes, to);
            }
            (ToVm::FetchProgram(hash), _) => {
                let cache = shared.cache.clone();
                let read = move || std::fs::read(cache.spawnable(hash)?.path());
                let bytes = rt::blocking(read).await;
                send_pieces(bytes.ok().map(Bytes::from), to);
            }
            (ToVm::Forget { run, from, before }, _) => shared.shelf().forget(run, &(from..before)),
            (ToVm::Stop, _) => {
                tracing::info!(vm = shared.name, "told to stop");
                shared.stop();
                return Ok(());
            }
            (ToVm::Drain, _) => {
                tracing::info!(vm = shared.name, "told to end when no program has it");
                shared.drain();
                return Ok(());
            }
            // The rest of an image that was refused: its program goes on sending until it learns of that, and its renewals
            // queue behind the image.
            (ToVm::Image(_) | ToVm::Packed { .. }, Some(tenant)) => {
                shared.state().lease.renew(tenant, Instant::now());
                sign.give();
            }
            // Requests that need a lease.
            (ToVm::Image(_) | ToVm::Packed { .. } | ToVm::Renew | ToVm::Start(_) | ToVm::EndHost, _) => {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Receives the pieces of an image of a checkpoint, if there is room. The inner error says why there is no room, or that
/// the image was incomplete.
async fn keep(
    shared: &Shared,
    program: ProgramId,
    image: KeptImage,
    to: &rt::Sender<FromVm>,
    from: &mut Incoming<ToVm>,
) -> Result<Result<(), String>, ControlError> {
    if !shared.state().lease.is_held_by(program) {
        return Ok(Err("it is not leased by the program".into()));
    }
    if let Err(error) = shared.shelf().reserve(&image, program, Instant::now()) {
        return Ok(Err(error));
    }
    let _ = to.try_send(FromVm::Kept(Ok(())));
    let (mut bytes, mut sign) = (Vec::new(), SignOfLife::of(to));
    let arrived = loop {
        match from.next().await {
            Ok(Some(ToVm::Image(piece))) if piece.is_empty() => break Ok(()),
            Ok(Some(ToVm::Image(piece))) if (bytes.len() + piece.len()) as u64 <= image.length => {
                bytes.extend_from_slice(&piece);
                sign.give();
            }
            Ok(_) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let mut shelf = shared.shelf();
    if shelf.put(&image, bytes.into()) {
        return arrived.map(Ok);
    }
    shelf.remove(&image);
    arrived.map(|()| Err("the image did not arrive whole".into()))
}

fn send_pieces(bytes: Option<Bytes>, to: &rt::Sender<FromVm>) {
    let Some(bytes) = bytes else {
        let _ = to.try_send(FromVm::NotThere);
        return;
    };
    pieces(&bytes).for_each(|piece| drop(to.try_send(FromVm::Piece(piece))));
    let _ = to.try_send(FromVm::Piece(Bytes::new()));
}

/// Why there is no host.
enum NoHost {
    Refused(String),
    /// The program gives the VM back.
    GivenBack,
}

impl From<String> for NoHost {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

/// Starts the host, fetching its image first if necessary. Returns whether the image was fetched; the inner error says why
/// there is no host.
async fn start(
    shared: &Arc<Shared>,
    tenant: &Tenant,
    spec: HostSpec,
    to: &rt::Sender<FromVm>,
    from: &mut Incoming<ToVm>,
) -> Result<Result<bool, NoHost>, ControlError> {
    let ours = image::host_triple();
    if image::machine(&spec.triple) != image::machine(&ours) {
        let theirs = &spec.triple;
        return Ok(Err(format!("the program's image is for {theirs}, this VM runs on {ours}").into()));
    }
    if spec.image_len > MAX_IMAGE {
        return Ok(Err(format!(
            "the program's executable has {} bytes, the limit is {MAX_IMAGE}",
            spec.image_len
        )
        .into()));
    }
    let (cache, hash) = (shared.cache.clone(), spec.image);
    let busy = Busy { shared, tenant, to };
    // Even this may take seconds on a slow disk.
    let shipped = !busy.with(move || cache.has(hash)).await;
    if shipped {
        let _ = to.try_send(FromVm::NeedImage);
        if let Err(error) = receive_image(shared, tenant, &spec, to, from).await? {
            return Ok(Err(error));
        }
        tracing::info!(vm = shared.name, bytes = spec.image_len, "image received");
    } else {
        tracing::info!(vm = shared.name, image = %hash, "image was in the cache");
    }
    let (shared, tenant, report) = (shared.clone(), tenant.clone(), to.clone());
    let started = busy.with(move || {
        let image = shared.cache.spawnable(hash).map_err(|error| error.to_string())?;
        let key = shared.key.to_bytes();
        let initiator = spec.initiator;
        let (program, vm, limits) = (tenant.program, shared.name.clone(), shared.limits);
        let config = HostConfig { program, vm, key, limits, spec };
        let host = HostProcess::start(image.path(), &config, report)
            .map_err(|error| cannot_start(&error, &config.spec.triple))?;
        let mut state = shared.state();
        // The lease may have ended while the host was being started; then dropping the host ends it.
        if state.stopped {
            return Err(STOPPED.into());
        }
        if !state.lease.is_held_by(tenant.program) {
            return Err("the lease has ended".into());
        }
        state.host = Some(host);
        state.initiator = Some(initiator);
        Ok(())
    });
    Ok(started.await.map(|()| shipped).map_err(NoHost::Refused))
}

/// The executable itself exists, since it was opened just before. So if something is not found, it is the dynamic loader.
fn cannot_start(error: &io::Error, triple: &str) -> String {
    if error.kind() != io::ErrorKind::NotFound {
        return format!("cannot start the program's host: {error}");
    }
    format!(
        "cannot start the program's host: this machine has not the C library that a program for {triple} needs; one that is \
         built for a target that ends with -musl is static, and needs none"
    )
}

/// Receives the pieces of an image into the cache. The inner error says why that failed.
async fn receive_image(
    shared: &Shared,
    tenant: &Tenant,
    spec: &HostSpec,
    to: &rt::Sender<FromVm>,
    from: &mut Incoming<ToVm>,
) -> Result<Result<(), NoHost>, ControlError> {
    let text = |error: InsertError| NoHost::Refused(format!("cannot keep the image: {error}"));
    let (cache, hash) = (shared.cache.clone(), spec.image);
    let busy = Busy { shared, tenant, to };
    let mut draft = match busy.with(move || cache.begin(hash)).await {
        Ok(draft) => draft,
        Err(error) => return Ok(Err(text(error))),
    };
    let (mut length, mut sign) = (0, SignOfLife::of(to));
    loop {
        let message = match from.next().await? {
            Some(ToVm::Packed { length, bytes }) => match (Packed { length, bytes }).unpack() {
                Ok(piece) => Some(ToVm::Image(piece)),
                Err(error) => return Ok(Err(error.to_string().into())),
            },
            message => message,
        };
        match message {
            Some(ToVm::Image(piece)) if piece.is_empty() => break,
            Some(ToVm::Image(piece)) => {
                length += piece.len() as u64;
                if length > spec.image_len {
                    return Ok(Err("the image is longer than announced".to_owned().into()));
                }
                draft = match busy.with(move || draft.write(&piece).map(|()| draft)).await {
                    Ok(draft) => draft,
                    Err(error) => return Ok(Err(text(error))),
                };
                sign.give();
            }
            Some(ToVm::Renew) => drop(shared.state().lease.renew(tenant, Instant::now())),
            Some(ToVm::Forget { run, from, before }) => shared.shelf().forget(run, &(from..before)),
            Some(ToVm::Release) => return Ok(Err(NoHost::GivenBack)),
            _ => return Ok(Err("the image did not arrive".to_owned().into())),
        }
    }
    let cache = shared.cache.clone();
    Ok(busy.with(move || cache.finish(draft)).await.map_err(text))
}

/// Signs of life for a program that sends a lot of data: it gets no answer meanwhile, and must not take that for silence.
struct SignOfLife<'a> {
    to: &'a rt::Sender<FromVm>,
    last: Instant,
}

impl<'a> SignOfLife<'a> {
    fn of(to: &'a rt::Sender<FromVm>) -> Self {
        Self { to, last: Instant::now() }
    }

    /// Sends one, unless the last one was sent only recently.
    fn give(&mut self) {
        if self.last.elapsed() >= lease::RENEWAL {
            self.last = Instant::now();
            let _ = self.to.try_send(FromVm::Alive);
        }
    }
}

/// Long-running work for a tenant. The VM does not read the tenant's messages meanwhile, so it renews the lease itself and
/// sends signs of life.
struct Busy<'a> {
    shared: &'a Shared,
    tenant: &'a Tenant,
    to: &'a rt::Sender<FromVm>,
}

impl Busy<'_> {
    async fn with<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let mut work = pin!(rt::blocking(work));
        loop {
            if let Ok(done) = rt::timeout(lease::RENEWAL, work.as_mut()).await {
                self.shared.state().lease.renew(self.tenant, Instant::now());
                return done;
            }
            self.shared.state().lease.renew(self.tenant, Instant::now());
            let _ = self.to.try_send(FromVm::Alive);
        }
    }
}

#[cfg(test)]
mod tests;

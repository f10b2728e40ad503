//! The asynchronous runtime of the control plane. No other file names it.
//!
//! One thread per process, `river-net`, runs every task. No envelope passes through it.

use std::future::Future;
use std::sync::Once;

pub(crate) use async_std::channel::{Receiver, Sender, unbounded};
pub(crate) use async_std::future::timeout;
pub(crate) use async_std::io::{ReadExt, WriteExt};
pub(crate) use async_std::net::{TcpListener, TcpStream, UdpSocket};
pub(crate) use async_std::task::{JoinHandle, sleep};

/// Limits the runtime to one network thread, instead of one per core. Must run before the runtime is first used.
fn init() {
    static ONE_THREAD: Once = Once::new();
    ONE_THREAD.call_once(|| {
        let config = async_global_executor::GlobalExecutorConfig::default()
            .with_min_threads(1)
            .with_max_threads(1)
            .with_thread_name_fn(|| "river-net".into());
        async_global_executor::init_with_config(config);
    });
}

/// Starts a task on the network thread.
pub(crate) fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    init();
    async_std::task::spawn(future)
}

/// Waits for a future on the calling thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    init();
    async_std::task::block_on(future)
}

/// Runs blocking work on a thread of its own, so that other tasks continue.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    async_std::task::spawn_blocking(work).await
}

/// Cancels a task at its next await point, without waiting for it to end.
pub(crate) fn cancel(task: JoinHandle<()>) {
    spawn(async move {
        let _ = task.cancel().await;
    });
}

//! The asynchronous runtime of the control plane: the only file that names it.
//!
//! One thread per process, `river-net`, runs every task. Nothing here is in the way of an envelope.

use std::future::Future;
use std::sync::Once;

pub(crate) use async_std::channel::{Receiver, Sender, unbounded};
pub(crate) use async_std::future::timeout;
pub(crate) use async_std::io::{ReadExt, WriteExt};
pub(crate) use async_std::net::{TcpListener, TcpStream, UdpSocket};
pub(crate) use async_std::task::{JoinHandle, sleep};

/// Sees to it that there is one network thread, not one per core, before anything of the runtime is used.
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

/// Runs something that blocks on a thread of its own, so that other tasks go on.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    async_std::task::spawn_blocking(work).await
}

/// Ends a task at its next point of waiting, without waiting for that.
pub(crate) fn cancel(task: JoinHandle<()>) {
    spawn(async move {
        let _ = task.cancel().await;
    });
}

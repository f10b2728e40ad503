//! A baseline for River's calls: the same exchange with tarpc, over TCP, with client and server in two processes.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/tarpc/Cargo.toml
//! ```
//!
//! Prints one line of JSON, in the units of `farm.py`: `call`, `pipelined` calls a second with 1,000 outstanding, `mib1` and
//! `mib64` there and back. Each number is the best of three.

use std::error::Error;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::{StreamExt, future, stream};
use serde_bytes::ByteBuf;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport::tcp};
use tokio::io::{AsyncBufReadExt, BufReader};

const CALLS: u32 = 20_000;
const ROUNDS: u32 = 3;
const WINDOW: usize = 1000;

#[tarpc::service]
trait Peer {
    async fn add_one(x: u64) -> u64;
    async fn echo(x: ByteBuf) -> ByteBuf;
}

#[derive(Clone)]
struct Server;

impl Peer for Server {
    async fn add_one(self, _: context::Context, x: u64) -> u64 {
        x + 1
    }

    async fn echo(self, _: context::Context, x: ByteBuf) -> ByteBuf {
        x
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let mut listener = tcp::listen("127.0.0.1:0", Bincode::default).await?;
    listener.config_mut().max_frame_length(1 << 30);
    println!("{}", listener.local_addr());
    std::io::stdout().flush()?;
    let channels = listener.filter_map(|accepted| future::ready(accepted.ok()));
    channels
        .map(BaseChannel::with_defaults)
        .for_each(|channel| {
            channel.execute(Server.serve()).for_each(|response| async {
                tokio::spawn(response);
            })
        })
        .await;
    Ok(())
}

fn context() -> context::Context {
    let mut context = context::current();
    context.deadline = Instant::now() + Duration::from_secs(600);
    context
}

async fn measure(client: &PeerClient) -> Result<[f64; 4], Box<dyn Error>> {
    let start = Instant::now();
    for x in 0..CALLS {
        assert_eq!(client.add_one(context(), x.into()).await?, u64::from(x) + 1);
    }
    let call = start.elapsed().as_secs_f64() / f64::from(CALLS) * 1e6;
    let start = Instant::now();
    let calls = stream::iter(0..5 * CALLS).map(|x| client.add_one(context(), x.into()));
    let done = calls.buffer_unordered(WINDOW).filter(|sum| future::ready(sum.is_ok())).count().await;
    assert_eq!(done, 5 * CALLS as usize);
    let pipelined = done as f64 / start.elapsed().as_secs_f64();
    let mut blobs = [0.0; 2];
    for (milliseconds, size) in blobs.iter_mut().zip([1 << 20, 64 << 20]) {
        let blob = ByteBuf::from(vec![7; size]);
        let start = Instant::now();
        assert_eq!(client.echo(context(), blob).await?.len(), size);
        *milliseconds = start.elapsed().as_secs_f64() * 1e3;
    }
    Ok([call, pipelined, blobs[0], blobs[1]])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).is_some_and(|part| part == "serve") {
        return serve().await;
    }
    let mut server = tokio::process::Command::new(std::env::current_exe()?)
        .arg("serve")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let said = server.stdout.take().ok_or("the server has no output")?;
    let address = BufReader::new(said).lines().next_line().await?.ok_or("the server says nothing")?;
    let mut connect = tcp::connect(address, Bincode::default);
    connect.config_mut().max_frame_length(1 << 30);
    let mut config = client::Config::default();
    config.pending_request_buffer = WINDOW;
    config.max_in_flight_requests = WINDOW;
    let client = PeerClient::new(config, connect.await?).spawn();
    let mut best = measure(&client).await?;
    for _ in 1..ROUNDS {
        let [call, pipelined, mib1, mib64] = measure(&client).await?;
        best = [best[0].min(call), best[1].max(pipelined), best[2].min(mib1), best[3].min(mib64)];
    }
    let [call, pipelined, mib1, mib64] = best;
    println!(r#"{{"call": {call}, "pipelined": {pipelined}, "mib1": {mib1}, "mib64": {mib64}}}"#);
    Ok(())
}

//! A link of TCP connections.

use super::{Quality, State};
use infernet_node::clock;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

/// Chunks in flight per direction; more wait in the kernel's socket.
const IN_FLIGHT: usize = 1_024;
/// What is read at once.
const CHUNK: usize = 64 * 1024;

/// Listens; dropping the task's handle does not end it, aborting it does, with all connections.
pub(super) async fn spawn(state: watch::Receiver<State>, quality: Quality) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let addr = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let mut carried = JoinSet::new();
        while let Ok((near, _)) = listener.accept().await {
            while carried.try_join_next().is_some() {}
            let target = state.borrow().open_target();
            if let Some(target) = target {
                carried.spawn(carry(near, target, quality.delay, state.clone()));
            }
        }
    });
    Ok((addr, task))
}

/// Until one side closes, or the link is cut.
async fn carry(near: TcpStream, target: SocketAddr, delay: Duration, mut state: watch::Receiver<State>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let both = async { tokio::join!(pass(near_in, far_out, delay), pass(far_in, near_out, delay)) };
    tokio::select! {
        _ = both => {}
        _ = state.wait_for(|state| !state.up) => {}
    }
}

async fn pass(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, delay: Duration) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let chunk = buffer.get(..n).unwrap_or_default().to_vec();
            if sender.send((clock::deadline(delay), chunk)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = chunks.recv().await {
            sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

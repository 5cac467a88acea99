//! Connections: accepted, bounded, served, closed.
//!
//! A connection that sends no request head in time, sends it too large, or does not take its answer is closed, so that neither
//! half-open sockets nor slow readers hold anything for long. More than so many are turned away at once. Requests carry the address
//! that they come from, as [`ConnectInfo`].

use crate::clock;
use axum::{Router, extract::ConnectInfo};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{Sleep, sleep, sleep_until, timeout},
};
use tracing::{debug, warn};

/// Connections of a node's endpoint at once: every request that it takes at once, and idle ones beside.
pub const MAX_CONNECTIONS: usize = 5_120;
/// For a whole request head, and for an idle connection's next one. Clients keep theirs for some seconds.
const HEAD: Duration = Duration::from_secs(30);
/// A request head: cookies and keys fit many times.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// What waits to be read or written at most; then the worker waits, as it should.
const MAX_BUFFER: usize = 128 * 1024;
/// A reader that takes nothing for this long is gone. Shorter than [`TAKE`](crate::chat::deadline::TAKE), after which the
/// buyer cancels the job: so a client sees a cut connection, never a short answer.
const TAKE: Duration = Duration::from_secs(20);
/// After an accept that failed for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is true, then closes each connection after the answer it is giving. Returns at once then; when all `most`
/// places of what it returns are free, the last is closed.
///
/// `wrap` makes of a socket what is spoken on, such as TLS; `left_out` is told of each connection that is turned away, when
/// there are `most`.
pub async fn serve<S, F>(
    listener: TcpListener,
    wrap: impl Fn(TcpStream) -> F,
    router: Router,
    most: usize,
    left_out: impl Fn(),
    mut stop: watch::Receiver<bool>,
) -> Arc<Semaphore>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let connections = Arc::new(Semaphore::new(most));
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return connections,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!("the API can't accept a connection: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            left_out();
            debug!("more than {most} connections to the API: one is turned away");
            continue;
        };
        // Tokens are small writes; with Nagle's algorithm they would wait for each other.
        let _ = stream.set_nodelay(true);
        let (wrapped, router, stop) = (wrap(stream), router.clone(), stop.clone());
        tokio::spawn(async move {
            match timeout(HEAD, wrapped).await {
                Ok(Ok(stream)) => connection(stream, peer, router, stop).await,
                Ok(Err(error)) => debug!("a connection to the API did not begin: {error}"),
                Err(_) => debug!("a connection to the API did not begin in time"),
            }
            drop(permit);
        });
    }
}

async fn connection<S>(stream: S, peer: SocketAddr, router: Router, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_header_size(MAX_HEAD_BYTES).max_buf_size(MAX_BUFFER);
    let routes = TowerToHyperService::new(router);
    // The router is one for all connections; a layer of it for each would be tens of kilobytes.
    let told = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        routes.call(request)
    });
    let served = builder.serve_connection(TokioIo::new(Taking::new(stream)), told);
    let mut served = pin!(served);
    let stopped = async move {
        // The sender gone is a stop, too.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let early = tokio::select! {
        result = served.as_mut() => Some(result),
        () = stopped => None,
    };
    let result = match early {
        Some(result) => result,
        None => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        debug!("a connection to the API ended: {error}");
    }
}

/// A stream whose other side must take what is written.
struct Taking<S> {
    stream: S,
    /// Runs while a write waits.
    late: Option<Pin<Box<Sleep>>>,
}

impl<S> Taking<S> {
    fn new(stream: S) -> Self {
        Taking { stream, late: None }
    }

    /// `written`, or an error if it has been pending for too long.
    fn in_time<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.late = None;
            return written;
        }
        let late = self.late.get_or_insert_with(|| Box::pin(sleep_until(clock::deadline(TAKE))));
        ready!(late.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Taking<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taking<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.in_time(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

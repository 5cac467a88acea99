//! Links that are worse than loopback: whatever goes in comes out `delay` later, in both directions, or not at all.
//!
//! A node is given a link as if it were the other side's address, so nodes need no fault switch, and whole nodes can be put far
//! away. TCP links carry the mesh (`tcp`), UDP links carry chat (`udp`); both can be cut and mended while they are in use.
//! Where a link leads may be told later than where it begins, since a node must know what it is reached by before it listens.

mod tcp;
mod udp;

use std::{io, net::SocketAddr, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

/// How bad a link is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quality {
    /// One way.
    pub delay: Duration,
    /// Datagrams lost of a hundred, in each direction. TCP links lose none: the kernel would send again.
    pub loss_percent: u8,
}

impl Quality {
    /// Lossless, with half of `rtt` each way.
    pub fn of_rtt(rtt: Duration) -> Self {
        Quality { delay: rtt / 2, loss_percent: 0 }
    }
}

/// Where a link leads, and whether anything gets there.
#[derive(Debug, Clone, Copy)]
struct State {
    target: Option<SocketAddr>,
    up: bool,
}

impl State {
    fn open_target(&self) -> Option<SocketAddr> {
        self.target.filter(|_| self.up)
    }
}

/// A link. Dropping it cuts it for good.
pub struct Link {
    addr: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl Link {
    /// A TCP link to `target`.
    pub async fn tcp(target: SocketAddr, quality: Quality) -> io::Result<Self> {
        let (state, seen) = watch::channel(State { target: Some(target), up: true });
        let (addr, task) = tcp::spawn(seen, quality).await?;
        Ok(Link { addr, state, task })
    }

    /// A UDP link that leads nowhere until it is aimed.
    pub async fn udp(quality: Quality) -> io::Result<Self> {
        let (state, seen) = watch::channel(State { target: None, up: true });
        let (addr, task) = udp::spawn(seen, quality).await?;
        Ok(Link { addr, state, task })
    }

    /// Where to connect instead of the target.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Leads to `target` from now on: new TCP connections, and all datagrams.
    pub fn aim(&self, target: SocketAddr) {
        self.state.send_modify(|state| state.target = Some(target));
    }

    /// Lets nothing through. TCP connections break; datagrams vanish.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.up = false);
    }

    /// Lets everything through again.
    pub fn mend(&self) {
        self.state.send_modify(|state| state.up = true);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_node::clock;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream, UdpSocket},
        time::timeout,
    };

    const DELAY: Duration = Duration::from_millis(30);
    const SOON: Duration = Duration::from_secs(10);

    async fn echo_udp() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let addr = socket.local_addr().expect("an address");
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
                let _ = socket.send_to(&buffer[..n], from).await;
            }
        });
        addr
    }

    async fn asks(socket: &UdpSocket, what: &[u8]) {
        socket.send(what).await.expect("sends");
        let mut buffer = [0; 64];
        let n = timeout(SOON, socket.recv(&mut buffer)).await.expect("an echo").expect("receives");
        assert_eq!(&buffer[..n], what);
    }

    #[tokio::test]
    async fn datagrams_of_each_client_come_back_to_it_a_round_trip_later() {
        let link = Link::udp(Quality { delay: DELAY, loss_percent: 0 }).await.expect("a link");
        link.aim(echo_udp().await);
        for name in [b"one", b"two"] {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
            socket.connect(link.addr()).await.expect("connects");
            let started = clock::instant();
            asks(&socket, name).await;
            assert!(started.elapsed() >= 2 * DELAY, "{:?}", started.elapsed());
            asks(&socket, b"again").await;
        }
    }

    #[tokio::test]
    async fn a_cut_link_loses_datagrams_until_it_is_mended() {
        let link = Link::udp(Quality::default()).await.expect("a link");
        link.aim(echo_udp().await);
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        socket.connect(link.addr()).await.expect("connects");
        asks(&socket, b"before").await;
        link.cut();
        socket.send(b"lost").await.expect("sends");
        assert!(timeout(DELAY, socket.recv(&mut [0; 64])).await.is_err());
        link.mend();
        asks(&socket, b"after").await;
    }

    #[tokio::test]
    async fn a_lossy_link_loses_about_what_it_says() {
        let link = Link::udp(Quality { delay: Duration::ZERO, loss_percent: 50 }).await.expect("a link");
        let target = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        link.aim(target.local_addr().expect("an address"));
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        socket.connect(link.addr()).await.expect("connects");
        for n in 0..200u8 {
            socket.send(&[n]).await.expect("sends");
            // A pause, so that no buffer overflows.
            tokio::task::yield_now().await;
        }
        let mut arrived = 0;
        while timeout(5 * DELAY, target.recv(&mut [0; 8])).await.is_ok() {
            arrived += 1;
        }
        assert!((60..140).contains(&arrived), "{arrived} of 200");
    }

    #[tokio::test]
    async fn datagrams_follow_where_a_link_is_aimed() {
        let link = Link::udp(Quality::default()).await.expect("a link");
        let gone = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        link.aim(gone.local_addr().expect("an address"));
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        socket.connect(link.addr()).await.expect("connects");
        socket.send(b"nobody answers").await.expect("sends");
        gone.recv(&mut [0; 64]).await.expect("arrives");
        link.aim(echo_udp().await);
        asks(&socket, b"here?").await;
    }

    #[tokio::test]
    async fn a_tcp_link_delays_and_breaks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let target = listener.local_addr().expect("an address");
        let link = Link::tcp(target, Quality { delay: DELAY, loss_percent: 0 }).await.expect("a link");
        let mut near = TcpStream::connect(link.addr()).await.expect("connects");
        let (mut far, _) = listener.accept().await.expect("accepts");
        let started = clock::instant();
        near.write_all(b"ping").await.expect("writes");
        let mut buffer = [0; 4];
        far.read_exact(&mut buffer).await.expect("arrives");
        assert!(started.elapsed() >= DELAY && &buffer == b"ping");
        link.cut();
        let ended = timeout(SOON, near.read(&mut buffer)).await.expect("it breaks");
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
}

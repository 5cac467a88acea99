//! Programs that send and hear, behind NATs.

use super::*;
use tokio::{net::UdpSocket, time::timeout};

const SOON: Duration = Duration::from_secs(5);
/// For what must not come.
const NEVER: Duration = Duration::from_millis(200);

struct Program {
    host: Host,
    socket: UdpSocket,
}

impl Program {
    async fn behind(kind: NatKind, model: &mut Model) -> Program {
        let host = model.host(kind).await.expect("a host");
        let socket = UdpSocket::bind((host.world.inside(host.n), MESH_PORT)).await.expect("binds");
        Program { host, socket }
    }

    /// Where others find it, if it is open.
    fn outside(&self) -> SocketAddr {
        (self.host.world.outside(self.host.n, self.host.moves), MESH_PORT).into()
    }

    async fn hears(&self, within: Duration) -> Option<SocketAddr> {
        Some(timeout(within, self.socket.recv_from(&mut [0; 64])).await.ok()?.expect("receives").1)
    }

    /// Sends it; where it seems to come from, if it gets there.
    async fn sends(&self, to: SocketAddr, other: &Program, within: Duration) -> Option<SocketAddr> {
        self.socket.send_to(b"hello", to).await.expect("sends");
        other.hears(within).await
    }
}

#[tokio::test]
async fn an_answer_comes_back_through_the_nat_and_a_stranger_does_not() {
    let mut model = Model::new(Duration::ZERO).expect("a model");
    let server = Program::behind(NatKind::Open, &mut model).await;
    let stranger = Program::behind(NatKind::Open, &mut model).await;
    for kind in NatKind::ALL {
        let client = Program::behind(kind, &mut model).await;
        let seen = client.sends(server.outside(), &server, SOON).await.expect("arrives");
        assert_eq!(seen.ip(), client.outside().ip());
        assert_eq!(seen.port() == MESH_PORT, kind != NatKind::Symmetric, "{kind}: {seen}");
        assert_eq!(server.sends(seen, &client, SOON).await, Some(server.outside()), "{kind}");
        let lets_all_in = matches!(kind, NatKind::Open | NatKind::EndpointIndependent);
        let within = if lets_all_in { SOON } else { NEVER };
        assert_eq!(stranger.sends(seen, &client, within).await.is_some(), lets_all_in, "{kind}");
    }
    let tally = model.tally().await.expect("told");
    assert_eq!((tally.passed, tally.filtered, tally.unknown), (10, 2, 0), "{tally:?}");
}

#[tokio::test]
async fn a_dial_back_from_a_port_of_its_own_comes_from_its_host() {
    let mut model = Model::new(Duration::ZERO).expect("a model");
    let relay = Program::behind(NatKind::Open, &mut model).await;
    let client = Program::behind(NatKind::AddressDependent, &mut model).await;
    let seen = client.sends(relay.outside(), &relay, SOON).await.expect("arrives");
    let anywhere = UdpSocket::bind("0.0.0.0:0").await.expect("binds");
    anywhere.send_to(b"who?", seen).await.expect("sends");
    assert_eq!(client.hears(NEVER).await, None, "nobody knows whose it is");
    relay.host.runs(std::process::id()).await.expect("told");
    anywhere.send_to(b"hello", seen).await.expect("sends");
    let from = client.hears(SOON).await.expect("its address is one that the client has sent to");
    assert_eq!(from.ip(), relay.outside().ip());
    assert_ne!(from.port(), MESH_PORT);
    assert_eq!(model.tally().await.expect("told").unknown, 1);
}

#[tokio::test]
async fn a_guess_that_reaches_nobody_still_lets_in_whom_it_was_meant_for() {
    let mut model = Model::new(Duration::ZERO).expect("a model");
    let relay = Program::behind(NatKind::Open, &mut model).await;
    let careful = Program::behind(NatKind::AddressDependent, &mut model).await;
    let fickle = Program::behind(NatKind::Symmetric, &mut model).await;
    let seen = careful.sends(relay.outside(), &relay, SOON).await.expect("arrives");
    assert_eq!(fickle.sends(seen, &careful, NEVER).await, None);
    assert_eq!(careful.sends(fickle.outside(), &fickle, NEVER).await, None, "its port outside is another");
    let from = fickle.sends(seen, &careful, SOON).await.expect("its address is known now");
    assert_eq!(careful.sends(from, &fickle, SOON).await, Some(seen));
    let tally = model.tally().await.expect("told");
    assert_eq!((tally.filtered, tally.unmapped), (1, 1), "{tally:?}");
}

#[tokio::test]
async fn another_outside_address_forgets_everything() {
    let mut model = Model::new(Duration::ZERO).expect("a model");
    let server = Program::behind(NatKind::Open, &mut model).await;
    let mut client = Program::behind(NatKind::EndpointIndependent, &mut model).await;
    let before = client.sends(server.outside(), &server, SOON).await.expect("arrives");
    client.host.move_elsewhere().await.expect("moves");
    assert_eq!(server.sends(before, &client, NEVER).await, None);
    let after = client.sends(server.outside(), &server, SOON).await.expect("arrives");
    assert_ne!(before.ip(), after.ip());
    assert!(server.sends(after, &client, SOON).await.is_some());
}

#[tokio::test]
async fn datagrams_take_their_time_and_some_are_lost() {
    let delay = Duration::from_millis(40);
    let mut model = Model::new(delay).expect("a model");
    let server = Program::behind(NatKind::Open, &mut model).await;
    let client = Program::behind(NatKind::Symmetric, &mut model).await;
    let begun = infernet_node::clock::instant();
    client.sends(server.outside(), &server, SOON).await.expect("arrives");
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    client.host.lose(500).await.expect("told");
    for _ in 0..200 {
        client.socket.send_to(b"hello", server.outside()).await.expect("sends");
    }
    let mut heard = 0;
    while server.hears(NEVER).await.is_some() {
        heard += 1;
    }
    assert!((60..140).contains(&heard), "{heard} of 200");
}

#[tokio::test]
async fn two_internets_on_one_machine_are_apart() {
    let (one, other) = (Model::new(Duration::ZERO).expect("a model"), Model::new(Duration::ZERO).expect("another"));
    assert_ne!(one.world.0, other.world.0);
}

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(10);

fn key(n: u8) -> NodeKey {
    NodeKey::from_bytes(&[n; 32]).expect("a valid scalar")
}

fn endpoint(n: u8) -> Endpoint {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Endpoint::bind(&key(n), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("binds a free port")
}

/// A worker that answers each stream with the peer id it sees.
fn serve(worker: Endpoint) -> SocketAddr {
    let addr = worker.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Some(dialling) = worker.accept().await {
            let Some(connection) = dialling.finish().await else { continue };
            while let Some(mut stream) = connection.accept().await {
                let _ = stream.send.write_all(stream.peer.to_string().as_bytes()).await;
                let _ = stream.send.shutdown().await;
            }
        }
    });
    addr
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let addr = serve(endpoint(2));
    let buyer = endpoint(1);
    let connection = buyer.connect(key(2).id(), &[addr]).await.expect("connects");
    assert_eq!(connection.peer(), key(2).id());
    let mut stream = connection.open().await.expect("a stream");
    stream.send.write_all(b"hello").await.expect("writes");
    let mut seen = String::new();
    timeout(SOON, stream.recv.read_to_string(&mut seen)).await.expect("in time").expect("reads");
    assert_eq!(seen, key(1).id().to_string());
    assert_eq!(stream.path.to_string(), format!("direct quic {addr}"));
}

#[tokio::test]
async fn another_node_at_the_address_is_refused() {
    let addr = serve(endpoint(2));
    let refused = endpoint(1).connect(key(3).id(), &[addr]).await.err();
    assert_eq!(refused, Some(ConnectError::WrongPeer(key(2).id())));
}

#[tokio::test]
async fn a_bad_address_among_good_ones_does_no_harm() {
    let addr = serve(endpoint(2));
    let bad = ["0.0.0.0:1", "224.0.0.1:9", "127.0.0.1:0", "[::1]:9"].map(|a| a.parse().expect("an address"));
    let buyer = endpoint(1);
    assert_eq!(buyer.connect(key(2).id(), &bad).await.err(), Some(ConnectError::NoAddress));
    let all: Vec<_> = bad.into_iter().chain([addr]).collect();
    assert!(buyer.connect(key(2).id(), &all).await.is_ok());
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_fix() {
    let taken = endpoint(1);
    let error = Endpoint::bind(&key(2), taken.local_addr().expect("bound")).err().expect("refused").to_string();
    assert!(error.contains("--chat-listen"), "{error}");
}

#[tokio::test]
async fn another_alpn_or_no_certificate_is_refused() {
    let addr = serve(endpoint(2));
    let keypair = keypair(&key(1)).expect("a key");
    let mut tls = libp2p_tls::make_client_config(&keypair, None).expect("TLS");
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC")));
    let stranger = endpoint(1);
    let connecting = stranger.inner.connect_with(config, addr, "l").expect("dials");
    assert!(timeout(SOON, connecting).await.expect("in time").is_err());
}

/// Pieces of a stream that a worker echoes.
async fn echoed(stream: &mut ChatStream, piece: &[u8]) {
    stream.send.write_all(piece).await.expect("writes");
    stream.send.flush().await.expect("writes");
    let mut back = vec![0; piece.len()];
    timeout(SOON, stream.recv.read_exact(&mut back)).await.expect("in time").expect("reads");
    assert_eq!(back, piece);
}

#[tokio::test]
async fn a_stream_outlives_a_change_of_its_buyers_address() {
    let worker = endpoint(2);
    let addr = worker.local_addr().expect("bound");
    let (shown, mut connections) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(dialling) = worker.accept().await {
            let connection = dialling.finish().await.expect("a handshake");
            let _ = shown.send(connection.clone()).await;
            let ChatStream { mut recv, mut send, .. } = connection.accept().await.expect("a stream");
            tokio::spawn(async move { tokio::io::copy(&mut recv, &mut send).await });
        }
    });
    let buyer = endpoint(1);
    let mut stream = buyer.connect(key(2).id(), &[addr]).await.expect("connects").open().await.expect("a stream");
    echoed(&mut stream, b"before").await;
    let connection = connections.recv().await.expect("a connection");
    let mut places = vec![connection.inner.remote_address()];
    for n in 0..3u8 {
        let socket = bind_udp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("binds");
        buyer.inner.rebind(socket).expect("another port");
        echoed(&mut stream, &[n; 2_000]).await;
        places.push(connection.inner.remote_address());
    }
    places.dedup();
    assert_eq!(places.len(), 4, "each time from another address: {places:?}");
    assert!(connections.is_empty(), "over one connection");
}

//! Attacks on the chat endpoint: handshakes that are made and left, handshakes that are never finished, streams that never say
//! what they want, answers that nobody reads, and noise.

use super::{dice::Dice, tally::Tally};
use crate::stranger::{Stranger, fresh_key};
use infernet_node::{
    chat::{
        deadline,
        endpoint::{Connection, Endpoint},
        framing::FrameWriter,
        stream::ChatStream,
    },
    clock,
};
use infernet_wire::{
    accept::JobAccept,
    bid::{Answer, JobBid},
    chat::{Frame, Open},
    envelope::Verified,
    id::{Hash, JobId, NodeId},
    limits,
};
use libp2p::Multiaddr;
use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::UdpSocket,
    time::{sleep, timeout},
};

/// Connections that one dialler keeps open with half-open streams on them.
const KEPT: usize = 32;
/// Streams opened on each.
const STREAMS: usize = 8;
/// How long a dial that is given up half-way gets: less than a handshake takes.
const HALF_WAY: Duration = Duration::from_micros(300);
/// Bytes of a QUIC Initial packet at least (RFC 9000 §14.1).
const INITIAL: usize = 1_200;
/// Tokens that a slow reader asks for: far more than fit into the windows that it never reads.
const LONG_ANSWER: u32 = 100_000;
/// Between two answers that a slow reader does not read.
const NEXT_ANSWER: Duration = Duration::from_secs(5);

/// Whom to attack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Victim {
    pub(super) id: NodeId,
    pub(super) chat: SocketAddr,
}

/// Dials every `pause`, for ever: a third is left half-way, the others keep half-open streams until they are pushed out.
pub(super) async fn dial(victim: Victim, pause: Duration, mut dice: Dice, tally: Arc<Tally>) {
    let mut kept = VecDeque::new();
    loop {
        sleep(pause).await;
        let Ok(endpoint) = Endpoint::bind(&fresh_key(), (Ipv4Addr::LOCALHOST, 0).into()) else { continue };
        if dice.one_in(3) {
            tally.count("half-open handshakes");
            let _ = timeout(HALF_WAY, endpoint.connect(victim.id, &[victim.chat])).await;
            continue;
        }
        tally.count("dials");
        let Ok(connection) = endpoint.connect(victim.id, &[victim.chat]).await else {
            tally.count("dials refused");
            continue;
        };
        let streams = half_open(&connection, &mut dice, &tally).await;
        kept.push_back((endpoint, connection, streams));
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
}

/// Streams that begin with nothing, with a part of a length, or with the length of a frame that never comes.
async fn half_open(connection: &Connection, dice: &mut Dice, tally: &Tally) -> Vec<ChatStream> {
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let Ok(Ok(mut stream)) = timeout(deadline::OPENED, connection.open()).await else { break };
        let begin: &[u8] = match dice.below(3) {
            0 => &[0],
            1 => &[0, 0, 1],
            _ => &[0, 0, 4, 0, 0xa2, 1],
        };
        let _ = stream.send.write_all(begin).await;
        tally.count("half-open streams");
        streams.push(stream);
    }
    streams
}

/// Datagrams that look like the beginning of a handshake, every `pause`, for ever.
pub(super) async fn noise(victim: Victim, pause: Duration, mut dice: Dice, tally: Arc<Tally>) {
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else { return };
    loop {
        sleep(pause).await;
        let mut datagram: Vec<u8> = (0..INITIAL).map(|_| dice.below(256) as u8).collect();
        // Long header, Initial, version 1.
        if dice.one_in(2) {
            datagram.splice(..5, [0xc3, 0, 0, 0, 1]);
        }
        let _ = socket.send_to(&datagram, victim.chat).await;
        tally.count("noise datagrams");
    }
}

/// Buys long answers as an honest buyer would, and does not read them, for ever.
pub(super) async fn slow_reader(bootstrap: Vec<Multiaddr>, victim: Victim, model: String, tally: Arc<Tally>) {
    let Ok(mut buyer) = Stranger::join(bootstrap).await else { return };
    let Ok(endpoint) = Endpoint::bind(buyer.key(), (Ipv4Addr::LOCALHOST, 0).into()) else { return };
    loop {
        let opened = open_job(&mut buyer, &endpoint, victim, &model).await;
        tally.count(if opened.is_some() { "answers not read" } else { "answers not had" });
        sleep(NEXT_ANSWER).await;
        drop(opened);
    }
}

/// What must be kept so that a stream stays open.
type Unread = (Connection, FrameWriter<std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>>, Box<dyn Send>);

async fn open_job(buyer: &mut Stranger, endpoint: &Endpoint, victim: Victim, model: &str) -> Option<Unread> {
    let asked = buyer.ask(model, LONG_ANSWER)?;
    buyer.publish(&asked.offer).await;
    let bid = timeout(Duration::from_secs(2), bid_of(buyer, victim.id, asked.offer.digest())).await.ok()??;
    let accept = buyer.sign(accept(&bid))?;
    let connection = endpoint.connect(victim.id, &[victim.chat]).await.ok()?;
    let stream = timeout(deadline::OPENED, connection.open()).await.ok()?.ok()?;
    let open = Frame::Open(Open {
        accept: accept.raw().to_vec().into(),
        salt: asked.salt.into(),
        request_len: u32::try_from(asked.request.len()).ok()?,
        offer: None,
        resume_from: None,
        payment: buyer.promises().whole(&accept, &asked.request, asked.offer.budget),
    });
    let mut writer = FrameWriter::new(stream.send);
    writer.write_with(&open.encode(), &asked.request, deadline::WRITE).await.ok()?;
    Some((connection, writer, Box::new(stream.recv)))
}

async fn bid_of(buyer: &mut Stranger, worker: NodeId, offer: Hash) -> Option<Verified<JobBid>> {
    loop {
        match buyer.answer().await? {
            Answer::Bid(bid) if bid.signer() == worker && bid.offer == offer => return Some(bid),
            Answer::NoBid(no) if no.signer() == worker && no.offer == offer => return None,
            _ => {}
        }
    }
}

fn accept(bid: &Verified<JobBid>) -> JobAccept {
    let now = clock::now();
    JobAccept {
        offer: bid.offer,
        bid: bid.digest(),
        winner: bid.signer(),
        model: bid.model.clone(),
        price: bid.price,
        job: JobId(clock::random()),
        attempt: 1,
        runners_up: Vec::new(),
        bids: Hash([0; 32]),
        score: 1,
        issued: now,
        expires: now.after(limits::ACCEPT_TTL_MS),
        rate: None,
    }
}

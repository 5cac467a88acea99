//! A member of the mesh without a node's manners: it signs what it likes and writes what it likes.

use super::{MODEL, Stage, soon};
use infernet_node::{
    chat::{
        deadline,
        endpoint::{Connection, Endpoint},
        framing::{FrameError, FrameReader, FrameWriter, RawFrame},
    },
    clock,
    net::{self, Event, Net, NetConfig},
};
use infernet_testnet::{
    cluster::{Member, NETWORK},
    pay::Promises,
};
use infernet_wire::{
    accept::JobAccept,
    bid::{Answer, JobBid},
    capability::{Abilities, CapabilityAd, ModelAd, SocketAddrText},
    chat::{ChatMessage, ChatRequest, ErrorCode, Frame, Open, Payment, Role, StreamError},
    envelope::{Envelope, Verified},
    id::{Hash, JobId, NodeId, OfferId},
    key::NodeKey,
    limits,
    money::{MicroUsd, Price},
    offer::{JobOffer, SelectionRule, commitment},
    receipt::{Countersign, JobReceipt},
    time::UnixMillis,
    topic::{self, NetworkId},
};
use libp2p::Multiaddr;
use std::{net::Ipv4Addr, pin::Pin};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

pub(crate) fn network() -> NetworkId {
    NETWORK.parse().expect("a name")
}

pub(crate) fn fresh_key() -> NodeKey {
    NodeKey::from_bytes(&clock::random()).expect("a valid scalar")
}

pub(crate) fn chat_endpoint(key: &NodeKey) -> Endpoint {
    Endpoint::bind(key, (Ipv4Addr::LOCALHOST, 0).into()).expect("it binds")
}

pub(crate) fn chat_address(endpoint: &Endpoint) -> SocketAddrText {
    SocketAddrText(endpoint.local_addr().expect("an address"))
}

/// A request for `max_tokens` of a story.
pub(crate) fn request(max_tokens: u32) -> ChatRequest {
    let messages = vec![ChatMessage::new(Role::User, "Tell me a story about a fox.")];
    ChatRequest { temperature: Some(0.0), ..ChatRequest::new(MODEL, messages, max_tokens) }
}

pub(crate) struct Rogue {
    pub(crate) key: NodeKey,
    pub(crate) net: Net,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) endpoint: Endpoint,
    pub(crate) promises: Promises,
}

/// A slot that a worker holds for a rogue.
pub(crate) struct Deal {
    pub(crate) offer: Verified<JobOffer>,
    pub(crate) bid: Verified<JobBid>,
    pub(crate) request: Vec<u8>,
    pub(crate) salt: [u8; 32],
    promises: Promises,
}

impl Deal {
    /// The bytes of an `Open` frame with this accept.
    pub(crate) fn open(&self, accept: &[u8]) -> Vec<u8> {
        self.open_with(accept, u32::try_from(self.request.len()).expect("a small request"))
    }

    pub(crate) fn open_with(&self, accept: &[u8], request_len: u32) -> Vec<u8> {
        self.open_paying(accept, request_len, self.payment(accept))
    }

    /// For the whole job, if this is an accept.
    pub(crate) fn payment(&self, accept: &[u8]) -> Option<Payment> {
        let accept = Envelope::decode(accept).ok()?.open_stored::<JobAccept>(&network()).ok()?.verify().ok()?;
        self.promises.whole(&accept, &self.request, self.offer.budget)
    }

    pub(crate) fn open_paying(&self, accept: &[u8], request_len: u32, payment: Option<Payment>) -> Vec<u8> {
        Frame::Open(Open {
            accept: accept.to_vec().into(),
            salt: self.salt.into(),
            request_len,
            offer: None,
            resume_from: None,
            payment,
        })
        .encode()
    }
}

impl Rogue {
    /// Joins by way of `hub`.
    pub(crate) async fn join(hub: &Member) -> Self {
        Rogue::join_at(hub.addresses().await).await
    }

    /// Joins by way of these addresses.
    pub(crate) async fn join_at(bootstrap: Vec<Multiaddr>) -> Self {
        let key = fresh_key();
        let config = NetConfig { network: network(), bootstrap, ..NetConfig::default() };
        let (net, events) = net::start(&key, config).await.expect("it joins");
        assert!(net.wait_connected(clock::now().after(30_000)).await, "nobody listens");
        Rogue { endpoint: chat_endpoint(&key), promises: Promises::new(key.clone(), network()), key, net, events }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.key.id()
    }

    /// Says that it serves the model for next to nothing.
    pub(crate) async fn advertise(&self) {
        let now = clock::now();
        let price = Price { input: MicroUsd(1), output: MicroUsd(1) };
        let model =
            ModelAd { id: MODEL.into(), context: 4_096, price, ttft_ms: 1, tokens_per_second: 10_000, ..ModelAd::default() };
        let ad = CapabilityAd {
            sequence: now.0,
            issued: now,
            expires: now.after(limits::AD_TTL_MS),
            tags: Vec::new(),
            models: vec![model],
            slots: 8,
            chat: vec![chat_address(&self.endpoint)],
            mesh: Vec::new(),
            evm: Vec::new(),
        };
        let ad = self.key.sign(&network(), ad).expect("an ad");
        let published = self.net.publish(topic::CAPABILITIES.into(), ad.raw().clone(), now.after(10_000)).await;
        published.expect("it is published");
    }

    /// An offer that commits to `request`.
    pub(crate) fn offer(&self, request: &[u8], salt: &[u8; 32], max_tokens: u32) -> JobOffer {
        let now = clock::now();
        JobOffer {
            id: OfferId(clock::random()),
            issued: now,
            expires: now.after(limits::OFFER_TTL_MS),
            workload: topic::INFERENCE.into(),
            model: MODEL.into(),
            abilities: Abilities::default(),
            input_tokens: 1_000,
            output_tokens: max_tokens,
            ceiling: Price { input: MicroUsd(10_000_000), output: MicroUsd(10_000_000) },
            budget: MicroUsd(1_000_000),
            deadline: now.after(60_000),
            window_ms: 2_000,
            rule: SelectionRule::BALANCED,
            commitment: commitment(salt, request),
            invited: Vec::new(),
        }
    }

    /// Offers an ordinary job and takes the worker's bid.
    pub(crate) async fn deal(&mut self, max_tokens: u32) -> Deal {
        self.deal_for(request(max_tokens).encode().expect("a request"), max_tokens, |_| {}).await
    }

    pub(crate) async fn deal_for(&mut self, request: Vec<u8>, max_tokens: u32, change: impl FnOnce(&mut JobOffer)) -> Deal {
        let salt = clock::random();
        let mut body = self.offer(&request, &salt, max_tokens);
        change(&mut body);
        let offer = self.key.sign(&network(), body).expect("an offer");
        let published = self.net.publish(topic::jobs(topic::INFERENCE), offer.raw().clone(), offer.window_end()).await;
        published.expect("it is published");
        let bid = soon("a bid", async {
            loop {
                match self.events.recv().await.expect("the mesh runs") {
                    Event::Answer(Answer::Bid(bid)) if bid.offer == offer.digest() => return bid,
                    Event::Answer(Answer::NoBid(no)) if no.offer == offer.digest() => panic!("refused: {}", no.reason),
                    _ => {}
                }
            }
        })
        .await;
        Deal { offer, bid, request, salt, promises: self.promises.clone() }
    }

    /// What an honest buyer would accept `deal` with.
    pub(crate) fn accept_body(&self, deal: &Deal) -> JobAccept {
        let now = clock::now();
        JobAccept {
            offer: deal.offer.digest(),
            bid: deal.bid.digest(),
            winner: deal.bid.signer(),
            model: deal.bid.model.clone(),
            price: deal.bid.price,
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

    pub(crate) fn accept(&self, deal: &Deal, change: impl FnOnce(&mut JobAccept)) -> Verified<JobAccept> {
        let mut body = self.accept_body(deal);
        change(&mut body);
        self.key.sign(&network(), body).expect("an accept")
    }

    pub(crate) async fn dial(&self, worker: &Member) -> Connection {
        let addresses = [worker.node.chat_addr()];
        soon("a connection", self.endpoint.connect(worker.node.id(), &addresses)).await.expect("the worker answers")
    }

    /// A job begun as an honest buyer would.
    pub(crate) async fn begin(&mut self, stage: &Stage, max_tokens: u32) -> Line {
        let deal = self.deal(max_tokens).await;
        let accept = self.accept(&deal, |_| {});
        let mut line = Line::open(self.dial(&stage.worker).await).await;
        line.write(&deal.open(accept.raw()), &deal.request).await;
        assert!(matches!(line.next().await, Frame::Opened(_)));
        line
    }
}

/// Both ends of one stream, read and written frame by frame.
pub(crate) struct Line {
    pub(crate) connection: Connection,
    pub(crate) reader: FrameReader<Pin<Box<dyn AsyncRead + Send>>>,
    pub(crate) writer: FrameWriter<Pin<Box<dyn AsyncWrite + Send>>>,
}

impl Line {
    pub(crate) async fn open(connection: Connection) -> Self {
        let stream = soon("a stream", connection.open()).await.expect("it opens");
        Line { connection, reader: FrameReader::new(stream.recv), writer: FrameWriter::new(stream.send) }
    }

    /// A stream that begins with `bytes`, whatever they are.
    pub(crate) async fn shout(connection: Connection, bytes: &[u8]) -> Self {
        let mut stream = soon("a stream", connection.open()).await.expect("it opens");
        let _ = stream.send.write_all(bytes).await;
        Line { connection, reader: FrameReader::new(stream.recv), writer: FrameWriter::new(stream.send) }
    }

    /// The other side may have given up on us already, so that it fails is no surprise.
    pub(crate) async fn write(&mut self, frame: &[u8], raw: &[u8]) {
        let _ = self.writer.write_with(frame, raw, deadline::WRITE).await;
    }

    pub(crate) async fn raw(&mut self) -> Result<RawFrame, FrameError> {
        soon("a frame", self.reader.next()).await
    }

    /// The next frame that says something.
    pub(crate) async fn next(&mut self) -> Frame {
        loop {
            match self.raw().await.expect("a frame").frame {
                Frame::KeepAlive => {}
                frame => return frame,
            }
        }
    }

    pub(crate) async fn refusal(&mut self) -> StreamError {
        match self.next().await {
            Frame::Error(error) => error,
            other => panic!("a {} frame instead of a refusal", other.label()),
        }
    }

    pub(crate) async fn refused(&mut self, code: ErrorCode) {
        let refusal = self.refusal().await;
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(self.raw().await.is_err_and(|error| super::is_over(&error)));
    }

    /// Reads on to the receipt. Returns it with the running count of tokens delivered before it.
    pub(crate) async fn receipt(&mut self) -> (Verified<JobReceipt>, u32) {
        let mut tokens = 0;
        loop {
            match self.next().await {
                Frame::Delta(delta) => tokens = delta.tokens,
                Frame::Opened(_) | Frame::Usage(_) => {}
                Frame::Receipt(bytes) => return (read_receipt(&bytes), tokens),
                other => panic!("unexpected {}", other.label()),
            }
        }
    }

    pub(crate) async fn countersign(&mut self, key: &NodeKey, receipt: Hash) {
        let signed = key.sign(&network(), Countersign { receipt, issued: clock::now() }).expect("a signature");
        self.write(&Frame::Countersign(signed.raw().to_vec().into()).encode(), &[]).await;
    }
}

pub(crate) fn read_receipt(bytes: &[u8]) -> Verified<JobReceipt> {
    let envelope = Envelope::decode(bytes).expect("an envelope");
    envelope.open(&network(), clock::now()).expect("a receipt").verify().expect("the worker's signature")
}

/// `ms` before now.
pub(crate) fn ago(ms: u64) -> UnixMillis {
    UnixMillis(clock::now().0 - ms)
}

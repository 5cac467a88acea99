//! The task that owns the swarm. It carries out what `gossip`, `routes`, `outbox` and `discovery` decide, and never waits for
//! anybody: events go out by `try_send`.

mod ads;
mod answers;
mod pages;
mod reaching;

use super::{
    Event, NetConfig, NetError, PublishError, Route,
    behaviour::{self, Behaviour, BehaviourEvent},
    bootstrap,
    command::Command,
    counters::Counters,
    discovery::{self, Discovery},
    generations::Generations,
    gossip::{Gate, Verdict},
    inbound,
    outbox::{Outbox, Waiting},
    peers::{Peers, node_id, peer_id},
    probe::NoCircuit,
    reach::{Reach, Reached, Setup},
    score,
    streams::StreamRefused,
    transport,
};
use crate::clock;
use futures::StreamExt;
use infernet_wire::{id::NodeId, key::NodeKey, limits, time::UnixMillis, topic::NetworkId};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::{ConnectedPoint, transport::ListenerId},
    gossipsub::{self, MessageAcceptance, TopicHash},
    identify, mdns, ping, relay,
    request_response::OutboundRequestId,
    swarm::{
        ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tracing::{Instrument, debug, warn};

/// For goodbyes to leave the sockets.
const GOODBYE: Duration = Duration::from_millis(500);

/// The task's ends of the channels to [`super::Net`].
pub(super) struct Ends {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) subscribers: watch::Sender<usize>,
    pub(super) reached: watch::Sender<Reached>,
}

/// Peers of other networks that are named in the log.
const MAX_STRANGERS: usize = 64;

/// Who waits for a message to be published.
#[derive(Debug)]
enum Publisher {
    Caller(oneshot::Sender<Result<(), PublishError>>),
    Answer(oneshot::Sender<Route>),
}

/// Owns the swarm and everything that is decided with.
pub(super) struct NetTask {
    key: NodeKey,
    network: NetworkId,
    swarm: Swarm<Behaviour>,
    gate: Gate,
    peers: Peers,
    discovery: Discovery,
    outbox: Outbox<Publisher>,
    pending: BTreeMap<OutboundRequestId, answers::Pending>,
    counters: Counters,
    pages: pages::Pages,
    ad_pages: ads::AdPages,
    tap: Option<mpsc::Sender<(String, Vec<u8>)>>,
    /// Peers of other networks that the log has named.
    strangers: BTreeSet<NodeId>,
    reach: Reach,
    /// Whose reservation each of these listeners is.
    reserving: HashMap<ListenerId, PeerId>,
    /// The relay that is being tried, and how that ends: one at most.
    proving: JoinSet<(PeerId, Result<(), NoCircuit>)>,
    /// Where workers say in their ads that they are.
    places: Generations<NodeId, Vec<Multiaddr>>,
    /// From how near they may be.
    least: discovery::Reach,
    callers: Vec<reaching::Caller>,
    serves: bool,
    ends: Ends,
}

type Happening = SwarmEvent<BehaviourEvent>;

/// Binds the sockets and starts the task, which ends by [`Command::Shutdown`] or with the last handle.
pub(super) async fn spawn(key: &NodeKey, config: NetConfig, ends: Ends) -> Result<(), NetError> {
    let keypair = transport::keypair(key)?;
    let (circuits, relay) = relay::client::new(keypair.public().to_peer_id());
    let mut swarm = transport::swarm(&keypair, circuits, Behaviour::new(&keypair, &config, relay)?)?;
    let listen: &[Multiaddr] = if config.reach.mode.listens() { &config.listen } else { &[] };
    let backlog = transport::listen(&mut swarm, listen).await?;
    let least = discovery::least_of_ads(&config.listen, &config.bootstrap);
    let me = key.id();
    let seeds = config.known_peers.into_iter().chain(config.bootstrap);
    let setup = Setup {
        me: *swarm.local_peer_id(),
        mode: config.reach.mode,
        serves: config.serves,
        external: config.reach.external,
        hidden: config.reach.hidden,
        relays: config.reach.relays,
    };
    let mut task = NetTask {
        gate: Gate::new(key.clone(), config.network.clone(), clock::now(), config.ad_sequences),
        key: key.clone(),
        network: config.network,
        swarm,
        peers: Peers::default(),
        discovery: Discovery::new(seeds, config.max_peers),
        outbox: Outbox::new(),
        pending: BTreeMap::new(),
        counters: Counters::default(),
        pages: pages::Pages::new(config.receipts),
        ad_pages: ads::AdPages::new(),
        tap: config.tap,
        strangers: BTreeSet::new(),
        reach: Reach::new(setup),
        reserving: HashMap::new(),
        proving: JoinSet::new(),
        places: Generations::new(reaching::PLACES, limits::AD_TTL_MS),
        least,
        callers: Vec::new(),
        serves: config.serves,
        ends,
    };
    let bound: Vec<Multiaddr> = task.swarm.listeners().cloned().collect();
    bound.iter().for_each(|address| task.reach.listens(address));
    task.follow_reach();
    tokio::spawn(task.run(backlog).instrument(tracing::info_span!("net", me = me.short())));
    Ok(())
}

impl NetTask {
    async fn run(mut self, backlog: Vec<Happening>) {
        backlog.into_iter().for_each(|event| self.on_swarm_event(event));
        loop {
            let sleep = clock::until(self.next_wake());
            tokio::select! {
                biased;
                command = self.ends.commands.recv() => match command {
                    None | Some(Command::Shutdown) => break,
                    Some(command) => self.on_command(command),
                },
                // Before the network: timers are few, and a flood of messages must not hold up a deadline.
                () = tokio::time::sleep(sleep) => self.on_timer(clock::now()),
                Some(tried) = self.proving.join_next() => self.on_tried(tried),
                Some((channel, page)) = self.pages.next_answer() => self.send_page(channel, page),
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
            }
        }
        self.say_goodbye().await;
    }

    fn next_wake(&self) -> UnixMillis {
        let others = [self.outbox.next_deadline(), self.reach.due(clock::now()), self.next_caller_deadline()];
        others.into_iter().flatten().fold(self.discovery.next(), UnixMillis::min)
    }

    async fn say_goodbye(mut self) {
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.network_info().connection_counters().num_established() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE, closed).await;
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish { topic, bytes, deadline, reply } => {
                self.publish(Waiting { topic, bytes, deadline, reply: Publisher::Caller(reply) });
            }
            Command::Answer { buyer, answer, reply } => self.answer(buyer, answer, reply),
            Command::ReceiptPage { peer, request, reply } => self.ask_for_page(peer, &request, reply),
            Command::ListenAddresses { reply } => tell(reply, self.listen_addresses()),
            Command::Peers { reply } => tell(reply, self.peers.infos(|id| self.swarm.behaviour().score(id))),
            Command::Peer { id, reply } => tell(reply, self.peers.info(&id)),
            Command::Connect { peer, addresses, deadline, reply } => self.connect(peer, addresses, deadline, reply),
            Command::Relays { reply } => tell(reply, self.reach.relays().infos()),
            Command::Counters { reply } => tell(reply, self.counters()),
            Command::AdSequences { reply } => tell(reply, self.gate.ad_sequences()),
            Command::OpenChat { peer, reply } => match peer_id(&peer) {
                Some(id) => {
                    if !self.peers.is_connected(&peer) {
                        // Else it would only be looked for where the DHT knows it.
                        let _ = self.dial_worker(&peer, id, Vec::new());
                    }
                    self.swarm.behaviour_mut().streams.open_chat(id, reply);
                }
                None => tell(reply, Err(StreamRefused::NotConnected)),
            },
            Command::OpenStream { peer, protocol, reply } => match peer_id(&peer) {
                Some(peer) => self.swarm.behaviour_mut().streams.open(peer, protocol, reply),
                None => tell(reply, Err(StreamRefused::NotConnected)),
            },
            Command::Dial { address } => self.dial(address),
            Command::Begin { relays } => self.begin_at(relays),
            Command::Shutdown => {}
        }
    }

    /// A page named these: they are dialled in the next round, which is now, and may hold a place for us.
    fn begin_at(&mut self, relays: bootstrap::Relays) {
        let now = clock::now();
        for (peer, addresses) in relays {
            self.discovery.told(&addresses, now);
            self.reach.told_of(peer, addresses, now);
        }
        self.follow_reach();
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = self.counters.snapshot();
        counters.insert("chat_streams.dropped".into(), self.swarm.behaviour().streams.dropped());
        counters
    }

    fn listen_addresses(&self) -> Vec<Multiaddr> {
        let me = *self.swarm.local_peer_id();
        let own = self.swarm.listeners().filter(|address| discovery::relay_of(address).is_none());
        let addresses: BTreeSet<_> = own.map(|address| address.clone().with_p2p(me)).collect();
        addresses.into_iter().map(|address| address.unwrap_or_else(|address| address)).collect()
    }

    fn on_timer(&mut self, now: UnixMillis) {
        for late in self.outbox.take_expired(now) {
            self.published(late.reply, Err(PublishError::NoPeers));
        }
        if self.reach.due(now).is_some_and(|due| due <= now) {
            self.follow_reach();
        }
        self.drop_late_callers(now);
        if self.discovery.next() <= now {
            self.drop_graylisted();
            self.look_for_peers(now);
        }
    }

    // ---- publishing

    fn publish(&mut self, message: Waiting<Publisher>) {
        match self.gate.publish(&message.topic, &message.bytes, clock::now()) {
            Ok(()) => self.hand_out(message),
            Err(reason) => self.published(message.reply, Err(PublishError::Refused(reason))),
        }
    }

    fn hand_out(&mut self, message: Waiting<Publisher>) {
        let topic = TopicHash::from_raw(message.topic.clone());
        let outcome = match self.swarm.behaviour_mut().gossip.publish(topic, message.bytes.to_vec()) {
            Ok(_) => {
                self.tap(&message.topic, &message.bytes);
                Ok(())
            }
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => return self.queue(message),
            Err(gossipsub::PublishError::AllQueuesFull(_)) => Err(PublishError::Busy),
            Err(error) => {
                tracing::error!(%error, "gossipsub refuses a checked message");
                Err(PublishError::Refused("gossipsub"))
            }
        };
        self.published(message.reply, outcome);
    }

    fn queue(&mut self, message: Waiting<Publisher>) {
        self.counters.add("publish", "queued");
        if let Err(message) = self.outbox.try_push(message) {
            self.published(message.reply, Err(PublishError::Busy));
        }
    }

    fn published(&mut self, publisher: Publisher, outcome: Result<(), PublishError>) {
        let what = match &outcome {
            Ok(()) => "sent",
            Err(PublishError::NoPeers) => "no_peers",
            Err(PublishError::Refused(reason)) => reason,
            Err(PublishError::Busy) => "busy",
            Err(PublishError::Stopped) => "stopped",
        };
        self.counters.add("publish", what);
        match publisher {
            Publisher::Caller(reply) => tell(reply, outcome),
            Publisher::Answer(reply) => self.answered(reply, outcome.map_or(Route::Nowhere, |()| Route::Topic)),
        }
    }

    // ---- what the swarm says

    fn on_swarm_event(&mut self, event: Happening) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => self.on_disconnected(peer_id, &connection_id),
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                tracing::debug!(?peer_id, %error, "could not connect");
                self.counters.add("connection", "dial_failed");
                if let Some((peer, id)) = peer_id.and_then(|peer| Some((peer, node_id(&peer)?))) {
                    self.punch_failed(peer, &error);
                    self.answer_callers(&id);
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(%send_back_addr, %error, "a connection was not taken");
                self.counters.add("connection", "refused");
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.on_listener_closed(listener_id, &addresses, &reason);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.on_stopped_listening(&[address]),
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "trouble with a listening socket"),
            SwarmEvent::NewListenAddr { address, .. } => self.on_listening(&address),
            // Of its own accord libp2p tells what one peer has confirmed; we, what follows from all that is known.
            SwarmEvent::ExternalAddrConfirmed { .. } | SwarmEvent::ExternalAddrExpired { .. } => self.tell_addresses(),
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Answers(event) => self.on_answers(event),
            BehaviourEvent::Receipts(event) => self.on_receipts(event),
            BehaviourEvent::Ads(event) => self.on_ads(event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => self.on_identified(peer_id, &info),
            BehaviourEvent::Ping(ping::Event { peer, result: Ok(rtt), .. }) => self.on_ping(peer, rtt),
            BehaviourEvent::Ping(ping::Event { connection, result: Err(ping::Failure::Timeout), .. }) => {
                self.counters.add("connection", "silent");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Doors(inbound::Refused(count)) => self.counters.add_many("inbound", "refused", count),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => self.on_found_nearby(found),
            BehaviourEvent::Circuits(event) => self.on_circuits(&event),
            BehaviourEvent::Probe(event) => self.on_probed(&event),
            BehaviourEvent::Upnp(event) => self.on_upnp(&event),
            BehaviourEvent::Punch(event) => self.on_punched(&event),
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(id) = node_id(&peer) else {
            let _ = self.swarm.disconnect_peer_id(peer);
            return self.counters.add("connection", "not_secp256k1");
        };
        match endpoint {
            ConnectedPoint::Dialer { address, .. } => self.discovery.answered(address, peer),
            ConnectedPoint::Listener { local_addr, .. } => self.on_carried(local_addr),
        }
        let is_first = self.peers.connected(id, connection, endpoint, clock::now());
        if let Some(path) = self.peers.path(&id, &connection) {
            self.count_path(path);
        }
        if is_first {
            self.counters.add("connection", "opened");
            self.emit(Event::PeerConnected(id));
        }
        self.answer_callers(&id);
    }

    fn on_disconnected(&mut self, peer: PeerId, connection: &ConnectionId) {
        let Some(id) = node_id(&peer) else { return };
        if !self.peers.disconnected(&id, connection) {
            return;
        }
        self.reach.relays_mut().left(&peer, clock::now(), chance());
        self.follow_reach();
        self.counters.add("connection", "closed");
        self.emit(Event::PeerDisconnected(id));
        self.tell_subscribers();
        if self.peers.len() == 0 {
            self.ad_pages.alone();
            self.discovery.hurry(clock::now(), chance());
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let acceptance = self.on_message(&propagation_source, &message);
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
            }
            gossipsub::Event::Subscribed { peer_id, topic, .. } => self.on_subscribed(peer_id, topic),
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                if let Some(id) = node_id(&peer_id) {
                    self.peers.unsubscribed(&id, &topic);
                }
                self.tell_subscribers();
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => self.on_slow(peer_id),
            gossipsub::Event::GossipsubNotSupported { .. } => self.counters.add("connection", "no_gossipsub"),
        }
    }

    /// Its queue is full. If that lasts it does not read, and all that we keep for it is waste.
    fn on_slow(&mut self, peer: PeerId) {
        self.counters.add("connection", "slow_peer");
        if node_id(&peer).is_some_and(|id| self.peers.slow(&id, clock::now())) {
            self.counters.add("connection", "deaf_peer");
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn on_message(&mut self, source: &PeerId, message: &gossipsub::Message) -> MessageAcceptance {
        self.tap(message.topic.as_str(), &message.data);
        let author = message.source.as_ref().and_then(node_id);
        let (Some(author), Some(forwarder)) = (author, node_id(source)) else {
            self.counters.add("gossip", "no_author");
            return MessageAcceptance::Reject;
        };
        let admitted = self.gate.admit(message.topic.as_str(), &message.data, author, forwarder, clock::now());
        self.counters.add("gossip", admitted.reason);
        if admitted.fault {
            self.counters.add("gossip", "own_flood");
            self.blame(source, forwarder);
        }
        let taken = admitted.event.is_none_or(|event| self.emit(event));
        match admitted.verdict {
            Verdict::Accept if taken => MessageAcceptance::Accept,
            Verdict::Accept | Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => {
                tracing::debug!(from = forwarder.short(), reason = admitted.reason, "a peer passed on what it should not");
                MessageAcceptance::Reject
            }
        }
    }

    fn on_subscribed(&mut self, peer: PeerId, topic: TopicHash) {
        let waiting = self.outbox.take_topic(topic.as_str());
        if let Some(id) = node_id(&peer) {
            self.peers.subscribed(&id, topic);
        }
        self.tell_subscribers();
        waiting.into_iter().for_each(|message| self.hand_out(message));
    }

    fn on_identified(&mut self, peer: PeerId, info: &identify::Info) {
        let Some(id) = node_id(&peer) else { return };
        if let Some(other) = behaviour::network_of(&info.agent_version).filter(|name| *name != self.network.as_str()) {
            return self.leave_other_network(&peer, id, other);
        }
        let Some(remote) = self.peers.remote(&id) else { return };
        let claimed = info.listen_addrs.iter().filter(|address| discovery::is_usable(address, remote));
        let usable: Vec<Multiaddr> = claimed.take(discovery::MAX_ADDRESSES).cloned().collect();
        self.peers.identified(&id, &info.agent_version, &usable);
        // What it said before is forgotten, or it could make us remember ever more.
        let kad = &mut self.swarm.behaviour_mut().kad;
        kad.remove_peer(&peer);
        if info.protocols.contains(&behaviour::KAD) {
            for address in &usable {
                kad.add_address(&peer, address.clone());
            }
        }
        if info.protocols.contains(&super::ads::PROTOCOL) {
            self.ask_for_ads(&peer);
        }
        self.on_seen_at(&info.observed_addr);
        self.on_maybe_relay(peer, info, usable);
    }

    /// Nothing that it says counts here, and nothing of ours there.
    fn leave_other_network(&mut self, peer: &PeerId, id: NodeId, other: &str) {
        let other: String = other.chars().filter(|c| !c.is_control()).take(limits::MAX_NETWORK_BYTES).collect();
        let first = self.strangers.len() < MAX_STRANGERS && self.strangers.insert(id);
        let ours = self.network.as_str();
        if first {
            warn!(
                peer = id.short(),
                "a peer is of the network {other:?}, this node of {ours:?}: see --network and --bootstrap"
            );
        } else {
            debug!(peer = id.short(), "a peer of another network again");
        }
        self.counters.add("connection", "other_network");
        let _ = self.swarm.disconnect_peer_id(*peer);
    }

    fn on_ping(&mut self, peer: PeerId, rtt: Duration) {
        let Some(id) = node_id(&peer) else { return };
        let ms = u32::try_from(rtt.as_millis()).unwrap_or(u32::MAX);
        self.peers.pinged(&id, ms);
        self.reach.relays_mut().pinged(&peer, ms);
        self.emit(Event::Rtt { peer: id, ms });
    }

    // ---- discovery

    fn on_found_nearby(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        for (peer, address) in found {
            if self.discovery.wants_more(self.peers.len()) {
                self.dial_peer(peer, vec![address]);
            }
        }
    }

    /// Frees the places of those who are not listened to. Should they come back, their score is as it was.
    fn drop_graylisted(&mut self) {
        let infos = self.peers.infos(|id| self.swarm.behaviour().score(id));
        for peer in infos.iter().filter(|peer| score::is_graylisted(peer.score)).filter_map(|peer| peer_id(&peer.id)) {
            self.counters.add("connection", "graylisted");
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn look_for_peers(&mut self, now: UnixMillis) {
        let peers = &self.peers;
        let is_connected = |peer: &PeerId| node_id(peer).is_some_and(|id| peers.is_connected(&id));
        let round = self.discovery.round(peers.len(), is_connected, now, chance());
        round.dial.into_iter().for_each(|address| self.dial(address));
        if round.look_for > 0 {
            self.look_around(round.look_for);
        }
    }

    /// Asks the DHT about a random place, and dials a few of those it has told about before.
    fn look_around(&mut self, wanted: usize) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        kad.get_closest_peers(clock::random::<32>().to_vec());
        let mut known = Vec::new();
        for bucket in kad.kbuckets() {
            known.extend(bucket.iter().map(|entry| (*entry.node.key.preimage(), entry.node.value.iter().cloned().collect())));
        }
        let strangers = known.into_iter().filter(|(peer, _)| node_id(peer).is_some_and(|id| !self.peers.is_connected(&id)));
        let strangers: Vec<(PeerId, Vec<Multiaddr>)> = strangers.take(wanted).collect();
        strangers.into_iter().for_each(|(peer, addresses)| self.dial_peer(peer, addresses));
    }

    fn dial(&mut self, address: Multiaddr) {
        match discovery::peer_of(&address) {
            Some(peer) => self.dial_peer(peer, vec![address]),
            None => self.start_dial(DialOpts::unknown_peer_id().address(address).build()),
        }
    }

    fn dial_peer(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if peer != *self.swarm.local_peer_id() {
            let once = PeerCondition::DisconnectedAndNotDialing;
            self.start_dial(DialOpts::peer_id(peer).condition(once).addresses(addresses).build());
        }
    }

    fn start_dial(&mut self, opts: DialOpts) {
        if let Err(error) = self.swarm.dial(opts) {
            tracing::debug!(%error, "not dialled");
        }
    }

    // ---- to the node

    /// Whether the node takes the event, or does not want any.
    fn emit(&mut self, event: Event) -> bool {
        if let Event::Ad(ad) = &event {
            self.learn_place(ad);
        }
        match self.ends.events.try_send(event) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.counters.add("event", "dropped");
                false
            }
        }
    }

    fn tell_subscribers(&mut self) {
        self.ends.subscribers.send_replace(self.peers.subscribers());
    }

    fn tap(&self, topic: &str, bytes: &[u8]) {
        if let Some(tap) = &self.tap {
            let _ = tap.try_send((topic.to_owned(), bytes.to_vec()));
        }
    }
}

/// Whoever asked may be gone.
fn tell<T>(reply: oneshot::Sender<T>, value: T) {
    let _ = reply.send(value);
}

fn chance() -> u64 {
    u64::from_be_bytes(clock::random())
}

//! What goes over the control socket, and what `--json` prints.

mod wallet;

pub use wallet::{
    AccountReport, BalanceReport, ChainReport, ChannelReport, PayoutBody, PrepaidReport, StepReport, WalletBody, WalletReport,
};

use crate::{
    buyer::{ChatEvent, ChatOrder},
    chat::{client::Progress, stream::Way},
    disputes::Dispute,
    engines::EngineReport,
    hardware::Reading,
    jobs::JobReport,
    market::{registry::KnownModel, standing::PathChoice, trust::Trust},
    net::{Direction, Mode, Path, PeerInfo, Reachability, Reached, RelayInfo, Transport},
    report::{AuctionReport, ChatReport},
    seller,
    today::TodayReport,
    why::Finding,
};
use infernet_wire::{
    chat::{Channel, ChatMessage, ChatRequest, ToolCallDelta},
    id::{JobId, NodeId},
    money::{MicroUsd, Price},
    offer::SelectionRule,
    time::UnixMillis,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// `infernet status`, and what `infernet start --json` prints when it is ready.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StatusReport {
    /// Version of the software.
    pub version: String,
    /// The node.
    #[schemars(with = "String")]
    pub id: NodeId,
    /// The network it takes part in.
    pub network: String,
    /// Multiaddrs of the mesh.
    pub listen: Vec<String>,
    /// UDP address of the chat endpoint.
    pub chat: String,
    /// How others reach it.
    #[serde(default)]
    pub reach: ReachReport,
    /// `base_url` of the OpenAI endpoint, as `infernet start` tells it; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub api: Option<String>,
    /// Whom it meets first; absent with a node that does not tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub meets: Option<MeetsReport>,
    /// Control planes that its operator named, and how it goes with them.
    #[serde(default)]
    pub planes: Vec<PlaneReport>,
    /// Connected peers.
    pub peers: usize,
    /// Which ways lead to them.
    #[serde(default)]
    pub paths: PathsReport,
    /// The worker's side, if it has one.
    pub seller: Option<seller::Status>,
    /// For how long it has been running, in milliseconds.
    #[serde(default)]
    pub uptime_ms: u64,
    /// What its models cost, in micro-USD per million input tokens; absent if it sells nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub price_in: Option<u64>,
    /// The same for output tokens.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub price_out: Option<u64>,
    /// Its engines.
    #[serde(default)]
    pub engines: Vec<EngineReport>,
    /// The machine it sells on; absent if it sells nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub machine: Option<Reading>,
    /// What it keeps.
    #[serde(default)]
    pub store: StoreReport,
    /// What came of this UTC day.
    #[serde(default)]
    pub today: TodayReport,
    /// The running jobs and the last ones, the newest first; at most 8. `infernet jobs` has all.
    #[serde(default)]
    pub jobs: Vec<JobReport>,
    /// Its account on an EVM chain; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chain: Option<ChainReport>,
    /// What should be mended, the worst first.
    #[serde(default)]
    pub warnings: Vec<Finding>,
}

/// A control plane that a node tells of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlaneReport {
    /// Which.
    pub url: String,
    /// When it last took a heartbeat, in unix milliseconds; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub told: Option<u64>,
    /// Why it did not take the last one, or what the node wanted to know of it; absent if all went well, or nothing has ended yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// Whom a node meets first, as it was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MeetsReport {
    /// Multiaddrs of peers that its operator named.
    pub bootstrap: Vec<String>,
    /// Whether it looks for peers on the local network.
    pub mdns: bool,
}

/// How others reach a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReachReport {
    /// What its operator wants: `auto`, `direct`, `outbound-only` or `relay-only`.
    pub mode: String,
    /// Whether it can be dialled.
    pub state: Reachability,
    /// How that is known.
    pub why: String,
    /// Multiaddrs that its ad names, without its id at the end.
    pub advertised: Vec<String>,
    /// Relays that it knows, those that hold a place for it first.
    pub relays: Vec<RelayReport>,
}

impl ReachReport {
    /// Describes `reached`.
    pub fn new(mode: Mode, reached: &Reached, relays: &[RelayInfo]) -> Self {
        ReachReport {
            mode: mode.to_string(),
            state: reached.state,
            why: reached.why.clone(),
            advertised: reached.advertised.iter().map(ToString::to_string).collect(),
            relays: relays.iter().map(RelayReport::from).collect(),
        }
    }
}

/// A relay as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RelayReport {
    /// Its peer id.
    pub id: String,
    /// `held` if it holds a place for the node, `asked` if it was asked for one, else `known`.
    pub state: String,
    /// Whether the operator named it.
    pub configured: bool,
    /// Round trip time in milliseconds, once measured.
    pub rtt_ms: Option<u32>,
    /// Times in a row that it did not grant a place.
    pub failures: u32,
    /// Times in a row that it granted one and carried nothing; then it is let go, and others are asked first.
    #[serde(default)]
    pub barren: u32,
}

impl RelayReport {
    /// Whether it holds a place.
    pub fn is_held(&self) -> bool {
        self.state == "held"
    }
}

impl From<&RelayInfo> for RelayReport {
    fn from(relay: &RelayInfo) -> Self {
        RelayReport {
            id: relay.id.to_string(),
            state: relay.state.into(),
            configured: relay.configured,
            rtt_ms: relay.rtt_ms,
            failures: relay.failures,
            barren: relay.barren,
        }
    }
}

/// What a node keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StoreReport {
    /// Receipts.
    pub receipts: u64,
    /// Those without the buyer's signature.
    pub unacknowledged: u64,
    /// Times that a receipt could not be read.
    pub unreadable: u64,
    /// Why no new work is taken; absent if all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A connected peer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PeerReport {
    /// Who.
    #[schemars(with = "String")]
    pub id: NodeId,
    /// The other end of the connection.
    pub remote: String,
    /// `tcp` or `quic`.
    pub transport: String,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// `direct`, `punched` or `relayed`.
    #[serde(default)]
    pub path: String,
    /// The relay's peer id, if it is relayed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub via: Option<String>,
    /// Why there is no direct connection; absent if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why_not_direct: Option<String>,
    /// Round trip time in milliseconds, once measured.
    pub rtt_ms: Option<u32>,
    /// What software it says it runs.
    pub agent: Option<String>,
    /// gossipsub's score; below zero means trouble.
    pub score: f64,
    /// For how long it has been connected, in milliseconds.
    pub connected_ms: u64,
}

impl PeerReport {
    /// Describes `peer` at `now`.
    pub fn new(peer: &PeerInfo, now: UnixMillis) -> Self {
        PeerReport {
            id: peer.id,
            remote: peer.remote.to_string(),
            transport: match peer.transport {
                Transport::Tcp => "tcp".into(),
                Transport::Quic => "quic".into(),
            },
            direction: match peer.direction {
                Direction::Inbound => "inbound".into(),
                Direction::Outbound => "outbound".into(),
            },
            path: peer.path.label().into(),
            via: match peer.path {
                Path::Relayed { via } => Some(via.to_string()),
                Path::Direct | Path::Punched => None,
            },
            why_not_direct: peer.why_not_direct.clone(),
            rtt_ms: peer.rtt_ms,
            agent: peer.agent.clone(),
            score: peer.score,
            connected_ms: now.since(peer.connected_since),
        }
    }
}

/// Which ways lead to connected peers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PathsReport {
    /// Peers with a direct connection.
    pub direct: usize,
    /// Those with one through a hole that both have punched into their NATs.
    pub punched: usize,
    /// Those that are reached through a relay.
    pub relayed: usize,
    /// The relays of these, those with the most peers first.
    pub relays: Vec<ViaReport>,
}

/// The peers that are reached through one relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ViaReport {
    /// The relay's peer id.
    pub relay: String,
    /// How many.
    pub peers: usize,
    /// There and back to the nearest of them, in milliseconds, once measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rtt_ms: Option<u32>,
    /// Why the first of them is not connected directly.
    pub why_not_direct: String,
}

impl PathsReport {
    /// Counts the ways to `peers`.
    pub fn of(peers: &[PeerReport]) -> Self {
        let by = |path: &str| peers.iter().filter(|peer| peer.path == path).count();
        let mut relays: BTreeMap<&str, ViaReport> = BTreeMap::new();
        for peer in peers {
            let Some(via) = &peer.via else { continue };
            let relay = relays.entry(via).or_insert_with(|| ViaReport {
                relay: via.clone(),
                peers: 0,
                rtt_ms: None,
                why_not_direct: peer.why_not_direct.clone().unwrap_or_default(),
            });
            relay.peers += 1;
            relay.rtt_ms = relay.rtt_ms.into_iter().chain(peer.rtt_ms).min();
        }
        let mut relays: Vec<ViaReport> = relays.into_values().collect();
        relays.sort_by_key(|relay| std::cmp::Reverse(relay.peers));
        PathsReport { direct: by("direct"), punched: by("punched"), relayed: by("relayed"), relays }
    }

    /// `2 direct, 1 relayed`: the ways that somebody takes.
    pub fn said(&self) -> String {
        let ways = [(self.direct, "direct"), (self.punched, "punched"), (self.relayed, "relayed")];
        let taken = ways.into_iter().filter(|(count, _)| *count > 0);
        taken.map(|(count, way)| format!("{count} {way}")).collect::<Vec<_>>().join(", ")
    }
}

impl ViaReport {
    /// `1 through 12D3…, 80 ms away: hole punching failed`.
    pub fn said(&self) -> String {
        format!("{} through {}{}: {}", self.peers, self.relay, away(self.rtt_ms), self.why_not_direct)
    }
}

/// `, 80 ms away`, or nothing if that is not known.
pub fn away(rtt_ms: Option<u32>) -> String {
    match rtt_ms {
        Some(0) => ", under 1 ms away".into(),
        Some(ms) => format!(", {ms} ms away"),
        None => String::new(),
    }
}

/// A model that live ads name.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ModelReport {
    /// Its id.
    pub id: String,
    /// Workers that serve it.
    pub workers: usize,
    /// The cheapest price for input, in micro-USD per million tokens.
    pub price_in: u64,
    /// The same worker's price for output.
    pub price_out: u64,
    /// The longest context offered, in tokens; 0 if unknown.
    pub context: u32,
}

impl From<&KnownModel> for ModelReport {
    fn from(model: &KnownModel) -> Self {
        ModelReport {
            id: model.id.clone(),
            workers: model.workers,
            price_in: model.price.input.0,
            price_out: model.price.output.0,
            context: model.context,
        }
    }
}

/// Receipts as they are stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReceiptRows {
    /// Each in hex, newest first.
    pub rows: Vec<String>,
    /// Rows that could not be read meanwhile: nobody knows any more what they were.
    pub unreadable: u64,
}

/// What to ask, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatOrderBody {
    /// The model.
    pub model: String,
    /// The conversation.
    pub messages: Vec<ChatMessage>,
    /// The most output tokens.
    pub max_tokens: u32,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Sampling seed.
    pub seed: Option<i64>,
    /// The most to pay per million tokens, input or output, in micro-USD.
    pub max_price: u64,
    /// The most to pay for the job, in micro-USD.
    pub budget: Option<u64>,
    /// How to choose: 0 balanced, 1 cheapest, 2 fastest.
    pub rule: u8,
    /// How long to collect bids at most, in milliseconds.
    pub window_ms: u16,
    /// Who may do it, and how it is found.
    #[serde(default)]
    pub wishes: WishesBody,
}

/// How a worker is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PathName {
    /// An advertised price if an auction would hardly find better, else an auction.
    #[default]
    Auto,
    /// Always an auction.
    Auction,
    /// Always an advertised price.
    Standing,
}

/// Whose work will do. What the node itself is set to holds in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WishesBody {
    /// How a worker is found.
    pub path: PathName,
    /// How long to wait while nobody has room or nobody is there, in milliseconds.
    pub wait_ms: u64,
    /// Settled receipts that a worker must have.
    pub min_reputation: u32,
    /// The only workers that will do; empty: all.
    pub allow: BTreeSet<NodeId>,
    /// Workers that won't do.
    pub deny: BTreeSet<NodeId>,
    /// The only regions that will do; empty: all.
    pub regions: BTreeSet<String>,
}

impl From<ChatOrderBody> for ChatOrder {
    fn from(body: ChatOrderBody) -> Self {
        let request = ChatRequest {
            temperature: body.temperature,
            seed: body.seed,
            ..ChatRequest::new(body.model, body.messages, body.max_tokens)
        };
        ChatOrder {
            ceiling: Price { input: MicroUsd(body.max_price), output: MicroUsd(body.max_price) },
            budget: body.budget.map(MicroUsd),
            rule: SelectionRule(body.rule),
            window_ms: body.window_ms,
            path: match body.wishes.path {
                PathName::Auto => PathChoice::Auto,
                PathName::Auction => PathChoice::Auction,
                PathName::Standing => PathChoice::Standing,
            },
            wait_ms: body.wishes.wait_ms,
            trust: Trust {
                min_reputation: body.wishes.min_reputation,
                allow: body.wishes.allow,
                deny: body.wishes.deny,
                regions: body.wishes.regions,
            },
            ..ChatOrder::new(request)
        }
    }
}

/// A step of a chat.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatStep {
    /// An auction was decided.
    Auction(Box<AuctionReport>),
    /// A worker failed before its first token.
    Retry {
        /// Who.
        worker: NodeId,
        /// How.
        reason: String,
    },
    /// Nobody has room now; it is tried again.
    Waiting {
        /// Why the last try came to nothing.
        reason: String,
        /// When the next one begins, in milliseconds from now.
        next_ms: u64,
    },
    /// The winner has the job.
    Opened {
        /// How the stream goes.
        path: String,
        /// There and back to the worker, in milliseconds, once measured.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        rtt_ms: Option<u32>,
        /// Why the way is not direct; absent if it is.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        why_not_direct: Option<String>,
        /// Input tokens charged at most.
        input_tokens: u32,
    },
    /// The stream was lost, and the job goes on in another.
    Resumed {
        /// How the stream goes now.
        path: String,
        /// There and back to the worker, in milliseconds, once measured.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        rtt_ms: Option<u32>,
        /// Why the way is not direct; absent if it is.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        why_not_direct: Option<String>,
    },
    /// A piece of the answer.
    Text {
        /// Whether it is reasoning, not answer.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        reasoning: bool,
        /// The text.
        text: String,
    },
    /// A piece of a tool call.
    ToolCall {
        /// Which call: 0, 1, 2 …
        index: u32,
        /// The tool; in its first piece.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        name: Option<String>,
        /// More of its arguments.
        arguments: String,
    },
    /// The vector of a text.
    Embedding {
        /// Which text.
        index: u32,
        /// The vector.
        vector: Vec<f32>,
    },
    /// The answer is whole.
    Usage {
        /// Input tokens charged.
        input_tokens: u32,
        /// Output tokens charged.
        output_tokens: u32,
        /// Why it ended.
        finish: String,
    },
    /// The end.
    Done(Box<ChatReport>),
    /// The end, without an answer.
    Error(ErrorReport),
}

impl From<ChatEvent> for ChatStep {
    fn from(event: ChatEvent) -> Self {
        match event {
            ChatEvent::Auction(report) => ChatStep::Auction(report),
            ChatEvent::Retry { worker, reason } => ChatStep::Retry { worker, reason },
            ChatEvent::Waiting { reason, next_ms } => ChatStep::Waiting { reason, next_ms },
            ChatEvent::Stream(Progress::Opened { path, way: Way { rtt_ms, why_not_direct }, input_tokens, .. }) => {
                ChatStep::Opened { path: path.to_string(), rtt_ms, why_not_direct, input_tokens }
            }
            ChatEvent::Stream(Progress::Resumed { path, way: Way { rtt_ms, why_not_direct } }) => {
                ChatStep::Resumed { path: path.to_string(), rtt_ms, why_not_direct }
            }
            ChatEvent::Stream(Progress::Text { channel, text, .. }) => {
                ChatStep::Text { reasoning: channel == Channel::REASONING, text }
            }
            ChatEvent::Stream(Progress::ToolCall(ToolCallDelta { index, name, arguments, .. })) => {
                ChatStep::ToolCall { index, name, arguments }
            }
            ChatEvent::Stream(Progress::Embedding(embedding)) => {
                ChatStep::Embedding { index: embedding.index, vector: embedding.numbers().collect() }
            }
            ChatEvent::Stream(Progress::Usage(usage)) => ChatStep::Usage {
                input_tokens: usage.input_tokens,
                output_tokens: usage.output_tokens,
                finish: usage.finish.label().into(),
            },
        }
    }
}

/// What the node is to do about its engines.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnginesBody {
    /// Offer these models alone, all for an empty list; absent: as before.
    pub only: Option<Vec<String>>,
}

/// What it offers after that.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OfferedReport {
    /// Models.
    pub models: Vec<String>,
}

/// A command that was obeyed, or is being obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommandReport {
    /// What was done.
    pub verb: String,
    /// Who said so.
    #[schemars(with = "String")]
    pub operator: NodeId,
    /// The command's number; lower ones count no more.
    pub sequence: u64,
    /// Whether it is done; false if nobody waited for that.
    #[serde(default)]
    pub done: bool,
    /// What came of it: `draining`, `offers` (models), or `in`, `out` and perhaps `model` of a price.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<serde_json::Value>,
}

/// What `POST /v0/drain` and `/v0/resume` answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    /// Whether the node takes no new jobs.
    pub draining: bool,
}

/// What one buyer owes, and may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CreditReport {
    /// The buyer.
    #[schemars(with = "String")]
    pub buyer: NodeId,
    /// What it owes now, in micro-USD; running jobs count with what they may cost.
    pub owed_micro_usd: u64,
    /// What it may owe, in micro-USD.
    pub limit_micro_usd: u64,
    /// Its highest voucher, in micro-USD: what it has promised in all.
    pub promised_micro_usd: u64,
    /// What its jobs came to, in micro-USD.
    pub came_to_micro_usd: u64,
    /// What of that it has paid, as the operator has noted, in micro-USD.
    pub paid_micro_usd: u64,
}

/// What buyers may owe from now on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreditBody {
    /// Anybody, in micro-USD.
    pub free: u64,
    /// Certain buyers, in micro-USD.
    pub limits: BTreeMap<NodeId, u64>,
}

/// A buyer has paid outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearBody {
    /// Who.
    pub buyer: NodeId,
    /// How much, in micro-USD.
    pub micro_usd: u64,
}

/// The newest tranche that this node has bought of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrancheReport {
    /// The worker.
    #[schemars(with = "String")]
    pub worker: NodeId,
    /// Which it is between the two, from 1 on.
    pub number: u64,
    /// How much, in micro-USD.
    pub micro_usd: u64,
    /// How far it is: `on its way`, `paid and waiting for a job`, `taken`, `written off`, `failed` or `given up`.
    pub state: String,
    /// The transaction that was signed last for it, in base58.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub transaction: Option<String>,
    /// Why it moved nothing, as the chain says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<String>,
    /// What no job has used yet of all that the worker was prepaid, in micro-USD, as this node knows it; absent before a tranche is paid.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub left_micro_usd: Option<u64>,
}

/// A tranche to buy.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrancheBody {
    /// Of whom.
    pub worker: NodeId,
    /// How much, in micro-USD; what the worker would like, up to `solana_tranche`, if nothing is said.
    pub micro_usd: Option<u64>,
    /// And of whom else, all or none.
    #[serde(default)]
    pub also: Vec<NodeId>,
}

/// A worker that got no signature: it broke the protocol, or its receipt is not what happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DisputeReport {
    /// When, in unix milliseconds.
    pub at: u64,
    /// In which job.
    #[schemars(with = "String")]
    pub job_id: JobId,
    /// Who.
    #[schemars(with = "String")]
    pub worker: NodeId,
    /// What was wrong.
    pub cause: String,
    /// Output tokens that had come.
    pub output_tokens: u32,
    /// What vouchers promise it for the job, in micro-USD.
    pub promised_micro_usd: u64,
    /// The receipt that was not signed, in hex, as it came; absent if none came.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub receipt: Option<String>,
}

impl From<Dispute> for DisputeReport {
    fn from(dispute: Dispute) -> Self {
        let Dispute { at, job, worker, cause, output_tokens, promised, receipt } = dispute;
        DisputeReport { at: at.0, job_id: job, worker, cause, output_tokens, promised_micro_usd: promised.0, receipt }
    }
}

/// A tranche to write off.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropBody {
    /// Whose.
    pub worker: NodeId,
    /// Which, so that none is meant but the newest.
    pub number: u64,
}

/// An error, in one sentence.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ErrorReport {
    /// The exit code that `infernet` ends with.
    pub exit: u8,
    /// What is wrong and what to do.
    pub message: String,
    /// What had arrived of the answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub partial: Option<String>,
}

//! One fixed message of each kind, for the vectors and the property tests.

use infernet_wire::{
    accept::{JobAccept, Rate},
    bid::{JobBid, NoBid, NoBidReason, SealedAnswer},
    capability::{Abilities, CapabilityAd, MeshAddress, ModelAd, SocketAddrText},
    command::{DRAIN, OperatorCommand},
    evm::EvmAddress,
    id::{ChannelId, Hash, JobId, OfferId},
    key::NodeKey,
    money::{MicroUsd, Price},
    offer::{Invitation, JobOffer, SelectionRule},
    receipt::{Countersign, JobReceipt, JobStatus},
    rotation::KeyRotation,
    settle::{EvmTerms, PaidOn},
    standing::StandingOffer,
    time::UnixMillis,
    topic::{INFERENCE, NetworkId},
};
use serde_bytes::ByteBuf;

pub(crate) const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

pub(crate) fn network() -> NetworkId {
    "vectors".parse().expect("a valid name")
}

pub(crate) fn key(n: u8) -> NodeKey {
    NodeKey::from_bytes(&[n; 32]).expect("a valid scalar")
}

fn price() -> Price {
    Price { input: MicroUsd(150_000), output: MicroUsd(600_000) }
}

fn chat() -> Vec<SocketAddrText> {
    ["192.0.2.7:46337", "[2001:db8::7]:46337"].map(|a| SocketAddrText(a.parse().expect("an address"))).into()
}

pub(crate) fn ad() -> CapabilityAd {
    CapabilityAd {
        sequence: 7,
        issued: NOW,
        expires: NOW.after(90_000),
        tags: vec!["c0mpute:role:infernet".into(), "c0mpute:cpu".into()],
        models: vec![ModelAd {
            id: "llama3.1:8b".into(),
            aliases: vec!["meta-llama/Llama-3.1-8B-Instruct".into()],
            family: "llama".into(),
            parameters: 8_030_261_248,
            quantisation: "Q4_K_M".into(),
            context: 131_072,
            weights: Some(Hash([0xab; 32])),
            abilities: Abilities::TOOLS.with(Abilities::JSON_SCHEMA),
            price: price(),
            ttft_ms: 85,
            tokens_per_second: 110,
            template: None,
        }],
        slots: 4,
        chat: chat(),
        mesh: Vec::new(),
        evm: Vec::new(),
    }
}

/// The same, with the digest of its model's template.
pub(crate) fn ad_with_template() -> CapabilityAd {
    let mut ad = ad();
    ad.models.iter_mut().for_each(|model| model.template = Some(Hash([0xcd; 32])));
    ad
}

/// The same, of a worker behind a NAT: reached through a relay alone.
pub(crate) fn relayed_ad() -> CapabilityAd {
    let circuit = "/ip4/192.0.2.9/tcp/46337/p2p/16Uiu2HAm9hxjkpxSdLpKPqVt2AGwGQEVMh8fH2dXYzkjnEKkVK4r/p2p-circuit";
    CapabilityAd { chat: Vec::new(), mesh: MeshAddress::new(circuit.into()).into_iter().collect(), ..ad() }
}

fn contract() -> EvmAddress {
    "0x5FbDB2315678afecb367f032d93F642f64180aa3".parse().expect("an address")
}

/// The same, of a worker that is paid on channels: in a token of six decimals, and in a coin.
pub(crate) fn ad_with_channels() -> CapabilityAd {
    let token = EvmTerms { chain: 31_337, contract: contract(), token: EvmAddress([0x44; 20]), rate: 1 };
    CapabilityAd { evm: vec![token, EvmTerms { token: EvmAddress::ZERO, rate: 400_000_000, ..token }], ..ad() }
}

/// The accept of a job that is paid in a chain's coin.
pub(crate) fn accept_in_coin() -> JobAccept {
    JobAccept { rate: Some(Rate(400_000_000)), ..accept() }
}

/// The receipt of a job that was paid on a channel.
pub(crate) fn receipt_of_channel() -> JobReceipt {
    let on = PaidOn { chain: 31_337, contract: contract(), channel: ChannelId([0x99; 32]), rate: 1 };
    JobReceipt { paid: MicroUsd(159), paid_on: Some(on), ..receipt() }
}

/// The same, with two workers invited.
pub(crate) fn inviting_offer() -> JobOffer {
    let offer = offer();
    let invited = [key(2).id(), key(3).id()].map(|worker| Invitation::of(&offer.id, &worker)).to_vec();
    JobOffer { invited, ..offer }
}

pub(crate) fn offer() -> JobOffer {
    JobOffer {
        id: OfferId([0x11; 16]),
        issued: NOW,
        expires: NOW.after(30_000),
        workload: INFERENCE.into(),
        model: "llama3.1:8b".into(),
        abilities: Abilities::default(),
        input_tokens: 120,
        output_tokens: 512,
        ceiling: Price { input: MicroUsd(200_000), output: MicroUsd(800_000) },
        budget: MicroUsd(1_000),
        deadline: NOW.after(60_000),
        window_ms: 1_000,
        rule: SelectionRule::BALANCED,
        commitment: infernet_wire::offer::commitment(&[0x22; 32], b"request"),
        invited: Vec::new(),
    }
}

pub(crate) fn bid() -> JobBid {
    JobBid {
        offer: Hash([0x33; 32]),
        issued: NOW,
        hold_until: NOW.after(1_500),
        model: "llama3.1:8b".into(),
        price: price(),
        queue_ms: 0,
        ttft_ms: 85,
        tokens_per_second: 110,
        chat: chat(),
    }
}

pub(crate) fn no_bid() -> NoBid {
    NoBid { offer: Hash([0x33; 32]), issued: NOW, reason: NoBidReason::NO_SLOT }
}

pub(crate) fn accept() -> JobAccept {
    JobAccept {
        offer: Hash([0x33; 32]),
        bid: Hash([0x44; 32]),
        winner: key(2).id(),
        model: "llama3.1:8b".into(),
        price: price(),
        job: JobId([0x55; 16]),
        attempt: 1,
        runners_up: vec![key(3).id()],
        bids: infernet_wire::bid::bids_commitment(vec![Hash([0x44; 32]), Hash([0x45; 32])]),
        score: 451,
        issued: NOW,
        expires: NOW.after(10_000),
        rate: None,
    }
}

/// The accept of `ad` for the same job as `offer`, without an auction.
pub(crate) fn standing_accept(ad: Hash) -> (StandingOffer, JobAccept) {
    let offer = StandingOffer::new(offer()).expect("within limits");
    let bids = infernet_wire::bid::bids_commitment(vec![ad]);
    let accept = JobAccept { offer: offer.digest(), bid: ad, runners_up: vec![], bids, ..accept() };
    (offer, accept)
}

pub(crate) fn receipt() -> JobReceipt {
    JobReceipt {
        job: JobId([0x55; 16]),
        accept: Hash([0x66; 32]),
        buyer: key(1).id(),
        worker: key(2).id(),
        workload: INFERENCE.into(),
        model: "llama3.1:8b".into(),
        weights: None,
        input_tokens: 31,
        output_tokens: 256,
        price: price(),
        amount: MicroUsd(159),
        paid: MicroUsd(0),
        started: NOW,
        finished: NOW.after(2_400),
        status: JobStatus::COMPLETED,
        request: infernet_wire::chat::request_hash(b"request"),
        transcript: Hash([0x77; 32]),
        paid_on: None,
    }
}

pub(crate) fn countersign() -> Countersign {
    Countersign { receipt: Hash([0x88; 32]), issued: NOW }
}

pub(crate) fn sealed() -> SealedAnswer {
    SealedAnswer {
        offer: Hash([0x33; 32]),
        to: key(1).id(),
        issued: NOW,
        ephemeral: key(9).id(),
        ciphertext: ByteBuf::from(vec![0x99; 48]),
    }
}

pub(crate) fn command() -> OperatorCommand {
    OperatorCommand {
        node: key(3).id(),
        sequence: 12,
        issued: NOW,
        expires: NOW.after(300_000),
        verb: DRAIN.into(),
        argument: String::new(),
    }
}

/// From the key of the vectors, 2, to 4.
pub(crate) fn rotation() -> KeyRotation {
    KeyRotation { old: key(2).id(), new: key(4).id(), issued: NOW }
}

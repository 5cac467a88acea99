//! Fuzz targets: every decoder of this crate as a function of bytes that must not panic. Compiled for tests, which replay the
//! corpora in `fuzz/corpus`, and for the fuzzer (`fuzz/run`); absent from every other build.

use crate::{
    accept::JobAccept,
    ad_page::{AdPage, AdRequest},
    bid::{Answer, JobBid, NoBid, SealedAnswer},
    capability::CapabilityAd,
    chat::{ChatRequest, Frame},
    codec,
    command::OperatorCommand,
    envelope::{Envelope, Message, Refusal, Verified, check_age},
    evm::EvmAddress,
    http_auth,
    id::{Hash, JobId},
    key::NodeKey,
    model_name,
    money::{MicroUsd, Price},
    offer::JobOffer,
    receipt::{Countersign, JobReceipt, ReceiptParts, SignedReceipt},
    receipt_page::{Page, PageRequest},
    rotation::{KeyRotation, SignedRotation},
    solana::{SolanaAddress, SolanaSignature, SolanaTerms, Tranche},
    standing::{StandingAccept, StandingOffer},
    time::UnixMillis,
    topic::NetworkId,
    voucher::{SignedVoucher, UnverifiedVoucher},
};
use std::sync::OnceLock;

/// A target: its name, which is its corpus' too, and what it does with any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this crate.
pub const TARGETS: [Target; 20] = [
    ("pages", pages),
    ("envelope", envelope),
    ("capability", payload::<CapabilityAd>),
    ("offer", payload::<JobOffer>),
    ("bid", payload::<JobBid>),
    ("no_bid", payload::<NoBid>),
    ("accept", payload::<JobAccept>),
    ("receipt", payload::<JobReceipt>),
    ("countersign", payload::<Countersign>),
    ("command", payload::<OperatorCommand>),
    ("key_rotation", payload::<KeyRotation>),
    ("sealed", sealed),
    ("signed_receipt", signed_receipt),
    ("rotation", rotation),
    ("standing", standing),
    ("frame", frame),
    ("chat_request", chat_request),
    ("voucher", voucher),
    ("solana", solana),
    ("texts", texts),
];

/// The time of the vectors, from which the corpora began.
const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

fn network() -> NetworkId {
    "vectors".parse().expect("a valid name")
}

fn key() -> &'static NodeKey {
    static KEY: OnceLock<NodeKey> = OnceLock::new();
    KEY.get_or_init(|| NodeKey::from_bytes(&[1; 32]).expect("a valid scalar"))
}

/// An envelope as gossip, streams and files bring it: opened as what it says it is, and as something else.
fn envelope(data: &[u8]) {
    fn open<T: Message>(envelope: &Envelope) {
        let opened = envelope.clone().open::<T>(&network(), NOW);
        if let Ok(unverified) = opened {
            assert_eq!(envelope.kind(), T::KIND);
            let _ = unverified.verify();
        }
    }
    let Ok(envelope) = Envelope::decode(data) else { return };
    open::<CapabilityAd>(&envelope);
    open::<JobOffer>(&envelope);
    open::<JobBid>(&envelope);
    open::<NoBid>(&envelope);
    open::<JobAccept>(&envelope);
    open::<JobReceipt>(&envelope);
    open::<Countersign>(&envelope);
    open::<OperatorCommand>(&envelope);
    open::<KeyRotation>(&envelope);
    open::<SealedAnswer>(&envelope);
    let _ = Answer::read(data, &network(), NOW);
}

/// A payload, which a signature would otherwise keep the fuzzer from changing. What can be read is written the one way; what is
/// within the limits can be signed, and everybody reads it.
fn payload<T: Message>(data: &[u8]) {
    let Ok(body) = codec::decode::<T>(data) else { return };
    let (good, _) = (body.check(), check_age(&body, NOW));
    let bytes = codec::encode(&body);
    let again: T = codec::decode(&bytes).expect("what was written can be read");
    assert_eq!(codec::encode(&again), bytes, "there is one way to write it");
    if good.is_ok()
        && let Some(signed) = signed(again)
    {
        assert_eq!(codec::encode(&*signed), bytes);
    }
}

/// Signed, and read again by everybody; `None` if it is too large.
fn signed<T: Message>(body: T) -> Option<Verified<T>> {
    let signed = match key().sign(&network(), body) {
        Ok(signed) => signed,
        Err(Refusal::TooLarge) => return None,
        Err(other) => panic!("within the limits, and yet {other}"),
    };
    let envelope = Envelope::decode(signed.raw()).expect("our own envelope");
    Some(envelope.open_stored::<T>(&network()).expect("our own body").verify().expect("our own signature"))
}

fn sealed(data: &[u8]) {
    let Ok(body) = codec::decode::<SealedAnswer>(data) else { return };
    if let Some(signed) = signed(body) {
        let _ = signed.unseal(key(), &network(), NOW);
    }
}

fn signed_receipt(data: &[u8]) {
    let _ = ReceiptParts::decode(data);
    if let Ok(receipt) = SignedReceipt::decode_stored(data, &network()) {
        assert_eq!(receipt.encode(), data);
    }
}

fn rotation(data: &[u8]) {
    if let Ok(rotation) = SignedRotation::decode_stored(data, &network()) {
        assert_eq!(rotation.encode(), data);
    }
}

/// The offer beside an accept of an ad: no signature of its own, so all of it is the sender's.
fn standing(data: &[u8]) {
    let digest =
        codec::decode::<JobOffer>(data).ok().and_then(|body| StandingOffer::new(body).ok()).map(|offer| offer.digest());
    let read = StandingAccept::read(accept_of(digest.unwrap_or(Hash([0; 32]))), data, NOW);
    assert!(read.is_err() || digest.is_some());
}

fn accept_of(offer: Hash) -> Verified<JobAccept> {
    let body = JobAccept {
        offer,
        bid: Hash([1; 32]),
        winner: key().id(),
        model: "tiny".into(),
        price: Price { input: MicroUsd(1), output: MicroUsd(1) },
        job: JobId([1; 16]),
        attempt: 1,
        runners_up: Vec::new(),
        bids: Hash([1; 32]),
        score: 1,
        issued: NOW,
        expires: NOW,
        rate: None,
    };
    key().sign(&network(), body).expect("within the limits")
}

fn pages(data: &[u8]) {
    fn one_form<T>(data: &[u8], decoded: Result<T, Refusal>, encode: impl Fn(&T) -> Vec<u8>) {
        assert!(decoded.is_err() || decoded.is_ok_and(|page| encode(&page) == data), "one form");
    }
    one_form(data, Page::decode(data), Page::encode);
    one_form(data, PageRequest::decode(data), PageRequest::encode);
    one_form(data, AdPage::decode(data), AdPage::encode);
    one_form(data, AdRequest::decode(data), AdRequest::encode);
}

fn frame(data: &[u8]) {
    let Ok(frame) = Frame::decode(data) else { return };
    let (bytes, _) = (frame.encode(), frame.label());
    let again = Frame::decode(&bytes).expect("what was written can be read");
    assert_eq!(again.encode(), bytes, "there is one way to write it");
    match again {
        Frame::Open(open) => envelope(&open.accept),
        Frame::Embedding(embedding) => assert!(embedding.numbers().count() <= embedding.vector.len()),
        Frame::ToolCall(call) => assert!(call.text_bytes() <= data.len()),
        Frame::Receipt(bytes) | Frame::Countersign(bytes) => envelope(&bytes),
        _ => {}
    }
}

fn chat_request(data: &[u8]) {
    let Ok(request) = ChatRequest::decode(data) else { return };
    let _ = (request.abilities(), request.input_token_bound());
    let bytes = request.encode().expect("what was read is within the limits");
    assert_eq!(ChatRequest::decode(&bytes).expect("what was written can be read"), request);
}

fn voucher(data: &[u8]) {
    let Ok(read) = UnverifiedVoucher::decode(data) else { return };
    let (claim, payer) = (*read.claim(), key().id().evm_address());
    assert_eq!(read.verify(&payer).map_or(data.to_vec(), |signed| signed.encode()), data);
    let signed = SignedVoucher::sign(key(), claim).expect("what can be read can be signed");
    let again = UnverifiedVoucher::decode(&signed.encode()).expect("what was written can be read");
    assert_eq!(again.verify(&payer), Ok(signed));
}

/// What an ad says of Solana, and what a buyer shows of a tranche.
fn solana(data: &[u8]) {
    fn one_form<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq>(read: &T) {
        let again: T = codec::decode(&codec::encode(read)).expect("what was written can be read");
        assert!(again == *read);
    }
    if let Ok(terms) = codec::decode::<SolanaTerms>(data) {
        one_form(&terms);
        let _ = (
            terms.check(),
            terms.coin().units(MicroUsd(u64::MAX)),
            terms.coin().worth(u64::MAX),
            terms.verify(&network(), &key().id()),
        );
    }
    if let Ok(tranche) = codec::decode::<Tranche>(data) {
        one_form(&tranche);
        let _ = (tranche.check(), tranche.payer.verify(&network(), &key().id()));
    }
}

/// What comes as text: a header, names of models, networks and kinds, addresses.
fn texts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let request = http_auth::Request { method: "POST", path: "/", body: rest.as_bytes() };
    let _ = http_auth::verify(Some(first), request, 1_752_570_000);
    let (second, third) = rest.split_once('\n').unwrap_or((rest, ""));
    let _ = model_name::meets(first, second, third);
    assert!(model_name::meets(first, first, ""), "every model is itself");
    let _ = first.parse::<NetworkId>();
    if let Ok(address) = first.parse::<EvmAddress>() {
        assert_eq!(address.to_string(), first);
    }
    if let Ok(address) = first.parse::<SolanaAddress>() {
        assert_eq!(address.to_string(), first);
    }
    if let Ok(signature) = first.parse::<SolanaSignature>() {
        assert_eq!(signature.to_string(), first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    #[test]
    fn corpora_replay() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            let inputs: Vec<_> = fs::read_dir(root.join(name)).expect("every target has a corpus").collect();
            assert!(!inputs.is_empty(), "the corpus of {name} is empty");
            for input in inputs {
                target(&fs::read(input.expect("a file").path()).expect("readable"));
            }
        }
    }
}

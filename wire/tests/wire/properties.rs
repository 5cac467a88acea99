//! What must hold for any message and any bytes.

use crate::samples::{NOW, key, network};
use infernet_wire::{
    chat::{ChatRequest, Delta, Frame, Transcript},
    codec,
    envelope::{Envelope, Kind, Refusal},
    id::{Hash, NodeId, Signature},
    model_name::meets,
    offer::JobOffer,
    receipt::{ReceiptParts, SignedReceipt},
    time::UnixMillis,
};
use proptest::prelude::*;

fn read(raw: &[u8], now: UnixMillis) -> Result<JobOffer, Refusal> {
    Ok(Envelope::decode(raw)?.open::<JobOffer>(&network(), now)?.verify()?.into_body())
}

proptest! {
    #[test]
    fn a_changed_bit_anywhere_is_refused(bit in 0usize..8 * 420) {
        let signed = key(2).sign(&network(), crate::samples::offer()).unwrap();
        let mut raw = signed.raw().to_vec();
        let bit = bit % (raw.len() * 8);
        raw[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(read(&raw, NOW).is_err());
    }

    #[test]
    fn a_truncated_message_is_refused(len in 0usize..420) {
        let signed = key(2).sign(&network(), crate::samples::offer()).unwrap();
        let len = len % signed.raw().len();
        prop_assert!(read(&signed.raw()[..len], NOW).is_err());
    }

    #[test]
    fn any_offer_round_trips(id in any::<[u8; 16]>(), input in any::<u32>(), output in 0u32..1 << 20, budget in any::<u64>(),
                             model in "[a-zA-Z0-9:./_-]{1,128}", window in 0u16..=2000) {
        let mut offer = crate::samples::offer();
        offer.id.0 = id;
        offer.input_tokens = input;
        offer.output_tokens = output;
        offer.budget.0 = budget;
        offer.model = model;
        offer.window_ms = window;
        let signed = key(2).sign(&network(), offer.clone()).unwrap();
        prop_assert_eq!(read(signed.raw(), NOW), Ok(offer));
    }

    #[test]
    fn decoding_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Envelope::decode(&bytes);
        let _ = Frame::decode(&bytes);
        let _ = ChatRequest::decode(&bytes);
        let _ = ReceiptParts::decode(&bytes);
        let _ = SignedReceipt::decode_stored(&bytes, &network());
        let _ = infernet_wire::rotation::SignedRotation::decode_stored(&bytes, &network());
    }

    #[test]
    fn decoding_mangled_messages_never_panics(at in 0usize..420, with in any::<u8>(), cut in 0usize..420) {
        let signed = key(2).sign(&network(), crate::samples::ad()).unwrap();
        let mut raw = signed.raw().to_vec();
        let at = at % raw.len();
        raw[at] = with;
        raw.truncate(raw.len() - cut % raw.len());
        if let Ok(envelope) = Envelope::decode(&raw) {
            let _ = envelope.open::<infernet_wire::capability::CapabilityAd>(&network(), NOW);
        }
    }

    #[test]
    fn any_name_means_itself(name in "[ -~é🦊]{0,60}", other in "[a-z0-9.:/_-]{0,40}", tail in "[ -~]{0,20}") {
        prop_assert!(meets(&name, &name, "Q4_K_M"));
        let _ = meets(&other, &name, &tail);
        let _ = meets(&format!("llama{other}"), &format!("Meta-Llama{tail}"), &tail);
    }

    #[test]
    fn any_frame_round_trips(seq in any::<u64>(), text in ".{0,200}", tokens in any::<u32>()) {
        let frame = Frame::Delta(Delta { seq, channel: Default::default(), text, tokens, logprobs: vec![] });
        prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }

    #[test]
    fn a_transcript_tells_drop_reorder_and_splice(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 2..8), i in 0usize..8) {
        let run = |frames: &[Vec<u8>]| {
            let mut t = Transcript::seed(b"open", b"request");
            frames.iter().for_each(|f| t.absorb(f));
            t.value()
        };
        let whole = run(&frames);
        let i = i % (frames.len() - 1);
        let mut dropped = frames.clone();
        dropped.remove(i);
        prop_assert_ne!(whole, run(&dropped));
        let mut spliced = frames.clone();
        let tail = spliced.remove(i + 1);
        spliced[i].extend(tail);
        prop_assert_ne!(whole, run(&spliced));
        if frames[i] != frames[i + 1] {
            let mut swapped = frames.clone();
            swapped.swap(i, i + 1);
            prop_assert_ne!(whole, run(&swapped));
        }
    }
}

/// A payload of the next minor version: our offer with one more field.
fn newer_offer() -> Vec<u8> {
    let mut payload = codec::encode(&crate::samples::offer());
    assert_eq!(payload[0], 0xae, "a map of 14");
    payload[0] = 0xaf;
    payload.extend([15, 0x63, b'n', b'e', b'w']);
    payload
}

#[test]
fn a_newer_minor_version_verifies_and_is_forwarded_byte_for_byte() {
    let raw = key(2).sign_foreign(Kind::JobOffer, 9, &network(), newer_offer());
    let read = Envelope::decode(&raw).unwrap().open::<JobOffer>(&network(), NOW).unwrap().verify().unwrap();
    assert_eq!(read.raw(), &raw);
    assert_eq!(read.into_body(), crate::samples::offer());
}

#[test]
fn a_newer_payload_that_we_cannot_read_is_ignored_not_punished() {
    let raw = key(2).sign_foreign(Kind::JobOffer, 9, &network(), vec![0xa0]);
    let refusal = Envelope::decode(&raw).unwrap().open::<JobOffer>(&network(), NOW).unwrap_err();
    assert_eq!(refusal, Refusal::Unknown);
    assert!(!refusal.is_fault());
    let raw = key(2).sign_foreign(Kind::JobOffer, 0, &network(), vec![0xa0]);
    assert_eq!(Envelope::decode(&raw).unwrap().open::<JobOffer>(&network(), NOW).unwrap_err(), Refusal::Malformed);
}

#[test]
fn the_other_parity_of_the_same_key_is_another_signer() {
    // BIP-340 verifies against x alone: were the signer not signed, this would pass as another PeerId.
    let signed = key(2).sign(&network(), crate::samples::offer()).unwrap();
    let id = key(2).id();
    let at = signed.raw().windows(33).position(|w| w == id.0).unwrap();
    let mut raw = signed.raw().to_vec();
    raw[at] ^= 1;
    let read = Envelope::decode(&raw).unwrap().open::<JobOffer>(&network(), NOW).unwrap();
    assert_ne!(read.signer(), id);
    assert_eq!(read.verify().unwrap_err(), Refusal::BadSignature);
}

#[test]
fn another_encoding_of_the_same_envelope_is_refused() {
    let signed = key(2).sign(&network(), crate::samples::offer()).unwrap();
    // The map's length in two bytes instead of one.
    let mut raw = vec![0xb8, 7];
    raw.extend(&signed.raw()[1..]);
    assert_eq!(read(&raw, NOW), Err(Refusal::NotCanonical));
}

#[test]
fn age_network_kind_and_size_are_checked() {
    let signed = key(2).sign(&network(), crate::samples::offer()).unwrap();
    assert_eq!(read(signed.raw(), UnixMillis(NOW.0 - 10_000)).map(|_| ()), Ok(()));
    assert_eq!(read(signed.raw(), UnixMillis(NOW.0 - 10_001)).unwrap_err(), Refusal::Future);
    assert_eq!(read(signed.raw(), NOW.after(40_000)).map(|_| ()), Ok(()));
    assert_eq!(read(signed.raw(), NOW.after(40_001)).unwrap_err(), Refusal::Expired);

    let mut long = crate::samples::offer();
    long.expires = NOW.after(30_001);
    let long = key(2).sign(&network(), long).unwrap();
    assert_eq!(read(long.raw(), NOW).unwrap_err(), Refusal::Field("expires"));

    let other = "other".parse().unwrap();
    let foreign = key(2).sign(&other, crate::samples::offer()).unwrap();
    assert_eq!(read(foreign.raw(), NOW).unwrap_err(), Refusal::WrongNetwork);

    let bid = key(2).sign(&network(), crate::samples::bid()).unwrap();
    assert_eq!(read(bid.raw(), NOW).unwrap_err(), Refusal::UnexpectedKind);
    assert_eq!(Envelope::decode(&[0; 70_000]).unwrap_err(), Refusal::TooLarge);
}

#[test]
fn a_receipts_parts_belong_together() {
    let receipt = key(2).sign(&network(), crate::samples::receipt()).unwrap();
    let forged = key(3).sign(&network(), crate::samples::receipt()).unwrap();
    assert!(SignedReceipt::new(forged, None).is_err(), "signed by somebody else than its worker");
    let countersign = |by: u8, of: Hash| {
        let body = infernet_wire::receipt::Countersign { receipt: of, issued: NOW };
        Some(key(by).sign(&network(), body).unwrap())
    };
    assert!(SignedReceipt::new(receipt.clone(), countersign(1, receipt.digest())).is_ok());
    assert!(SignedReceipt::new(receipt.clone(), countersign(3, receipt.digest())).is_err(), "not the buyer's");
    assert!(SignedReceipt::new(receipt.clone(), countersign(1, Hash([0; 32]))).is_err(), "for another receipt");
    let mut wrong = crate::samples::receipt();
    wrong.amount.0 += 1;
    assert_eq!(key(2).sign(&network(), wrong).unwrap_err(), Refusal::Field("amount"));
}

#[test]
fn ids_are_text_for_people_and_bytes_on_the_wire() {
    let id = key(2).id();
    assert!(id.to_string().starts_with("16Uiu2H"));
    assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
    assert_eq!(serde_json::from_str::<NodeId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    assert_eq!(codec::encode(&id).len(), 2 + 33);
    assert!("12D3KooWGatU9tW9n6uvDbt4YXZr5rJbGqQ8BNS7pKHkiC5TmdGQ".parse::<NodeId>().is_err(), "an ed25519 PeerId");
    assert!("zz".parse::<Signature>().is_err());
}

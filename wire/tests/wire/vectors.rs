//! Golden vectors: the bytes on the wire, kept as JSON for other implementations. `INFERNET_BLESS=1 cargo test` writes them
//! anew after an intended change; a diff in them is a change of protocol.

use crate::samples::{NOW, key, network};
use infernet_wire::{
    bid::{Answer, SealedAnswer},
    chat::{
        Channel, ChatMessage, ChatRequest, Delta, ErrorCode, FinishReason, Frame, Open, Opened, Role, StreamError, Transcript,
        Usage,
    },
    envelope::{Envelope, Message, Refusal},
    id::JobId,
    receipt::SignedReceipt,
};
use serde::Serialize;
use serde_bytes::{ByteArray, ByteBuf};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

fn check_file(name: &str, actual: Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    let text = serde_json::to_string_pretty(&actual).expect("JSON") + "\n";
    if std::env::var_os("INFERNET_BLESS").is_some() {
        fs::write(&path, &text).expect("writes the vectors");
    }
    let kept = fs::read_to_string(&path).expect("the vectors exist; make them with INFERNET_BLESS=1");
    assert_eq!(kept, text, "{name} differs: the wire format changed");
}

fn message<T: Message + Serialize>(body: T) -> Value {
    let shown = serde_json::to_value(&body).expect("JSON");
    let signed = key(2).sign(&network(), body).expect("within limits");
    let read: T = Envelope::decode(signed.raw()).unwrap().open::<T>(&network(), NOW).unwrap().verify().unwrap().into_body();
    assert_eq!(serde_json::to_value(&read).unwrap(), shown, "reads back what was written");
    json!({
        "body": shown,
        "secret_key": hex::encode([2; 32]),
        "network": "vectors",
        "digest": signed.digest(),
        "signature": signed.signature(),
        "envelope": hex::encode(signed.raw()),
    })
}

#[test]
fn messages() {
    let signed_receipt = {
        let receipt = key(2).sign(&network(), crate::samples::receipt()).unwrap();
        let agreed = infernet_wire::receipt::Countersign { receipt: receipt.digest(), issued: NOW };
        let countersign = key(1).sign(&network(), agreed).unwrap();
        SignedReceipt::new(receipt, Some(countersign)).unwrap()
    };
    let bytes = signed_receipt.encode();
    assert!(SignedReceipt::decode_stored(&bytes, &network()).is_ok());
    check_file(
        "messages.json",
        json!({
            "node_id": { "secret_key": hex::encode([2; 32]), "public_key": hex::encode(key(2).id().0), "peer_id": key(2).id() },
            "capability_ad": message(crate::samples::ad()),
            "job_offer": message(crate::samples::offer()),
            "job_bid": message(crate::samples::bid()),
            "no_bid": message(crate::samples::no_bid()),
            "job_accept": message(crate::samples::accept()),
            "job_receipt": message(crate::samples::receipt()),
            "countersign": message(crate::samples::countersign()),
            "sealed_answer": message(crate::samples::sealed()),
            "signed_receipt": hex::encode(bytes),
        }),
    );
}

#[test]
fn sealed_answer() {
    let bid = key(2).sign(&network(), crate::samples::bid()).unwrap();
    let answer = Answer::Bid(bid.clone());
    let sealed = SealedAnswer::seal(&answer, &key(1).id(), NOW, &[9; 32]).unwrap();
    let sealed = key(2).sign(&network(), sealed).unwrap();
    let opened = sealed.unseal(&key(1), &network(), NOW).unwrap();
    assert_eq!(opened.raw(), bid.raw());
    assert!(sealed.unseal(&key(3), &network(), NOW).is_err());
    // Somebody else's bid can't be passed off as one's own.
    let stolen = SealedAnswer::seal(&answer, &key(1).id(), NOW, &[9; 32]).unwrap();
    let stolen = key(3).sign(&network(), stolen).unwrap();
    assert_eq!(stolen.unseal(&key(1), &network(), NOW).unwrap_err(), Refusal::Field("signer"));
    check_file(
        "sealed.json",
        json!({
            "bid": hex::encode(bid.raw()),
            "buyer_secret_key": hex::encode([1; 32]),
            "ephemeral_secret_key": hex::encode([9; 32]),
            "envelope": hex::encode(sealed.raw()),
        }),
    );
}

#[test]
fn frames_and_transcript() {
    let request = ChatRequest {
        temperature: Some(0.5),
        seed: Some(42),
        stop: vec!["\n\n".into()],
        ..ChatRequest::new("tiny-chat", vec![ChatMessage::new(Role::User, "What is the capital of France?")], 64)
    };
    let bytes = request.encode().unwrap();
    assert_eq!(ChatRequest::decode(&bytes).unwrap(), request);
    let frames = [
        Frame::Open(Open {
            accept: ByteBuf::from(vec![1, 2, 3]),
            salt: ByteArray::new([0x22; 32]),
            request_len: u32::try_from(bytes.len()).unwrap(),
            offer: None,
        }),
        Frame::Opened(Opened { job: JobId([0x55; 16]), input_tokens: 110 }),
        Frame::Delta(Delta { seq: 0, channel: Channel::ANSWER, text: "The capital".into(), tokens: 2, logprobs: vec![] }),
        Frame::Delta(Delta { seq: 1, channel: Channel::REASONING, text: " é🦊".into(), tokens: 3, logprobs: vec![] }),
        Frame::Usage(Usage { input_tokens: 19, output_tokens: 3, finish: FinishReason::STOP }),
        Frame::Receipt(ByteBuf::from(vec![4, 5])),
        Frame::Countersign(ByteBuf::from(vec![6])),
        Frame::Cancel,
        Frame::Error(StreamError { code: ErrorCode::ENGINE, retryable: true, message: "engine is down".into() }),
        Frame::KeepAlive,
    ];
    let mut transcript: Option<Transcript> = None;
    let mut shown = Vec::new();
    for frame in &frames {
        let encoded = frame.encode();
        assert_eq!(Frame::decode(&encoded).as_ref(), Ok(frame));
        match (frame, &mut transcript) {
            (Frame::Open(_), none) => *none = Some(Transcript::seed(&encoded, &bytes)),
            (Frame::Delta(_) | Frame::Usage(_), Some(t)) => t.absorb(&encoded),
            _ => {}
        }
        shown.push(json!({ "kind": frame.label(), "hex": hex::encode(&encoded), "transcript": transcript.map(|t| t.value()) }));
    }
    check_file("chat.json", json!({ "request": hex::encode(&bytes), "frames": shown }));
}

//! Golden vectors: the bytes on the wire, kept as JSON for other implementations. `INFERNET_BLESS=1 cargo test` writes them
//! anew after an intended change; a diff in them is a change of protocol.

use crate::samples::{NOW, key, network};
use infernet_wire::{
    ad_page::{AdPage, AdRequest},
    bid::{Answer, SealedAnswer},
    chat::{
        Alternative, Channel, ChatMessage, ChatRequest, Closed, Closing, Delta, Embedding, ErrorCode, FinishReason, Frame,
        Open, Opened, Payment, ResponseFormat, Role, StreamError, Task, TokenLogprob, Tool, ToolCall, ToolCallDelta,
        ToolChoice, Transcript, Usage,
    },
    command::OperatorCommand,
    envelope::{Envelope, Message, Refusal},
    evm::EvmAddress,
    id::{ChannelId, Hash, JobId},
    money::MicroUsd,
    receipt::SignedReceipt,
    receipt_page::{Page, PageRequest, Place},
    rotation::{KeyRotation, SignedRotation},
    standing::StandingAccept,
    voucher::{Close, LEDGER, SignedVoucher, Voucher, ledger_channel},
};
use serde::Serialize;
use serde_bytes::{ByteArray, ByteBuf};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

/// Frames as the files have them; each is read as it was written.
fn shown(frames: &[Frame]) -> Vec<Value> {
    let each = |frame: &Frame| {
        assert_eq!(Frame::decode(&frame.encode()).as_ref(), Ok(frame));
        json!({ "kind": frame.label(), "hex": hex::encode(frame.encode()) })
    };
    frames.iter().map(each).collect()
}

pub(crate) fn check_file(name: &str, actual: Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    let text = serde_json::to_string_pretty(&actual).expect("JSON") + "\n";
    if std::env::var_os("INFERNET_BLESS").is_some() {
        fs::write(&path, &text).expect("writes the vectors");
    }
    let kept = fs::read_to_string(&path).expect("the vectors exist; make them with INFERNET_BLESS=1");
    assert_eq!(kept, text, "{name} differs: the wire format changed");
}

fn message<T: Message + Serialize + Clone>(body: T) -> Value {
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
            "capability_ad_with_template": message(crate::samples::ad_with_template()),
            "capability_ad_relayed": message(crate::samples::relayed_ad()),
            "capability_ad_with_channels": message(crate::samples::ad_with_channels()),
            "job_offer": message(crate::samples::offer()),
            "job_offer_with_invitations": message(crate::samples::inviting_offer()),
            "job_bid": message(crate::samples::bid()),
            "no_bid": message(crate::samples::no_bid()),
            "job_accept": message(crate::samples::accept()),
            "job_accept_in_coin": message(crate::samples::accept_in_coin()),
            "job_receipt": message(crate::samples::receipt()),
            "job_receipt_of_channel": message(crate::samples::receipt_of_channel()),
            "countersign": message(crate::samples::countersign()),
            "sealed_answer": message(crate::samples::sealed()),
            "signed_receipt": hex::encode(bytes),
            "operator_command": message(crate::samples::command()),
            "key_rotation": message(crate::samples::rotation()),
            "signed_rotation": signed_rotation(),
        }),
    );
}

fn signed_rotation() -> Value {
    let signed = |n: u8| key(n).sign(&network(), crate::samples::rotation()).unwrap();
    let rotation = SignedRotation::new(signed(2), signed(4)).unwrap();
    let bytes = rotation.encode();
    let read = SignedRotation::decode_stored(&bytes, &network()).unwrap();
    assert_eq!(read.statement(), &crate::samples::rotation());
    json!({ "new_secret_key": hex::encode([4; 32]), "bytes": hex::encode(bytes) })
}

#[test]
fn a_rotation_needs_both_keys_and_one_statement() {
    let statement = crate::samples::rotation;
    let signed = |n: u8, body| key(n).sign(&network(), body).unwrap();
    let put = |old, new| SignedRotation::new(old, new).map(|_| ());
    assert_eq!(put(signed(2, statement()), signed(4, statement())), Ok(()));
    assert_eq!(put(signed(3, statement()), signed(4, statement())), Err(Refusal::Field("old")));
    assert_eq!(put(signed(2, statement()), signed(2, statement())), Err(Refusal::Field("new")));
    let later = KeyRotation { issued: NOW.after(1), ..statement() };
    assert_eq!(put(signed(2, statement()), signed(4, later)), Err(Refusal::Field("statement")));
    let same = KeyRotation { new: key(2).id(), ..statement() };
    assert_eq!(key(2).sign(&network(), same).unwrap_err(), Refusal::Field("new"));
}

#[test]
fn a_command_lives_five_minutes_and_has_a_number() {
    let read = |body: OperatorCommand, now| {
        let signed = key(2).sign(&network(), body).unwrap();
        Envelope::decode(signed.raw()).unwrap().open::<OperatorCommand>(&network(), now).map(|_| ())
    };
    let command = crate::samples::command;
    assert_eq!(read(command(), NOW.after(300_000)), Ok(()));
    assert_eq!(read(command(), NOW.after(320_000)), Err(Refusal::Expired));
    let long = OperatorCommand { expires: NOW.after(300_001), ..command() };
    assert_eq!(read(long, NOW), Err(Refusal::Field("expires")));
    let check = |body: OperatorCommand, field| assert_eq!(key(2).sign(&network(), body).unwrap_err(), Refusal::Field(field));
    check(OperatorCommand { sequence: 0, ..command() }, "sequence");
    check(OperatorCommand { verb: String::new(), ..command() }, "verb");
    check(OperatorCommand { argument: "a\nb".into(), ..command() }, "argument");
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
fn standing_price() {
    let ad = key(2).sign(&network(), crate::samples::ad()).unwrap();
    let (offer, accept) = crate::samples::standing_accept(ad.digest());
    let accept = key(1).sign(&network(), accept).unwrap();
    let read = StandingAccept::read(accept.clone(), offer.payload(), NOW).unwrap();
    assert_eq!((read.offer(), read.accept().bid), (&crate::samples::offer(), ad.digest()));
    let open = Frame::Open(Open {
        accept: ByteBuf::from(accept.raw().to_vec()),
        salt: ByteArray::new([0x22; 32]),
        request_len: 7,
        offer: Some(ByteBuf::from(offer.payload().to_vec())),
        resume_from: None,
        payment: None,
        tranche: None,
    });
    assert_eq!(Frame::decode(&open.encode()), Ok(open.clone()));
    check_file(
        "standing.json",
        json!({
            "ad_digest": ad.digest(),
            "buyer_secret_key": hex::encode([1; 32]),
            "offer": hex::encode(offer.payload()),
            "offer_digest": offer.digest(),
            "accept": hex::encode(accept.raw()),
            "open": hex::encode(open.encode()),
        }),
    );
}

#[test]
fn an_accept_vouches_for_its_own_offer_only() {
    let (offer, accept) = crate::samples::standing_accept(Hash([1; 32]));
    let accept = key(1).sign(&network(), accept).unwrap();
    let read = |payload: &[u8], now| StandingAccept::read(accept.clone(), payload, now).map(|_| ());
    assert_eq!(read(offer.payload(), NOW), Ok(()));
    for at in 0..offer.payload().len() {
        let mut changed = offer.payload().to_vec();
        changed[at] ^= 1;
        assert_eq!(read(&changed, NOW), Err(Refusal::Field("offer")), "byte {at}");
    }
    assert_eq!(read(offer.payload(), NOW.after(40_001)), Err(Refusal::Expired));
    assert_eq!(read(&[0; 1_025], NOW), Err(Refusal::TooLarge));
    let auctioned = key(1).sign(&network(), crate::samples::offer()).unwrap();
    assert_ne!(auctioned.digest(), offer.digest(), "the same offer, auctioned, is another");
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
            resume_from: None,
            payment: None,
            tranche: None,
        }),
        Frame::Opened(Opened { job: JobId([0x55; 16]), input_tokens: 110, grace_ms: None, chunk: None }),
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

/// A request with everything that may be in one.
fn full_request() -> ChatRequest {
    let call = ToolCall { id: "call_1".into(), name: "weather".into(), arguments: r#"{"city":"Oslo"}"#.into() };
    let tool =
        Tool { name: "weather".into(), description: "Tells the weather.".into(), parameters: r#"{"type":"object"}"#.into() };
    let messages = vec![
        ChatMessage {
            images: vec![ByteBuf::from(vec![0x89, 0x50])],
            ..ChatMessage::new(Role::User, "Where is this, and is it raining?")
        },
        ChatMessage { tool_calls: vec![call], ..ChatMessage::new(Role::Assistant, "") },
        ChatMessage { tool_call_id: Some("call_1".into()), ..ChatMessage::new(Role::Tool, "rain") },
    ];
    ChatRequest {
        temperature: Some(0.5),
        tools: vec![tool],
        tool_choice: Some(ToolChoice::Named("weather".into())),
        format: Some(ResponseFormat::JsonSchema(r#"{"type":"object"}"#.into())),
        logprobs: Some(2),
        presence_penalty: Some(-0.5),
        frequency_penalty: Some(0.25),
        ..ChatRequest::new("tiny-chat", messages, 64)
    }
}

#[test]
fn requests_and_frames_of_every_ability() {
    let text = |text: &str| vec![ChatMessage::new(Role::User, text)];
    let requests = [
        ("everything", full_request()),
        (
            "completion",
            ChatRequest { task: Task::COMPLETION, suffix: Some("}".into()), ..ChatRequest::new("m", text("fn main() {"), 9) },
        ),
        (
            "embeddings",
            ChatRequest { task: Task::EMBEDDINGS, dimensions: Some(256), ..ChatRequest::new("m", text("hello"), 1) },
        ),
        ("json object", ChatRequest { format: Some(ResponseFormat::JsonObject), ..ChatRequest::new("m", text("hello"), 1) }),
    ];
    let requests: Vec<Value> = requests
        .iter()
        .map(|(name, request)| {
            let bytes = request.encode().unwrap();
            assert_eq!(ChatRequest::decode(&bytes).as_ref(), Ok(request), "{name}");
            json!({ "name": name, "hex": hex::encode(&bytes), "input_token_bound": request.input_token_bound(), "abilities": request.abilities().0 })
        })
        .collect();
    let top = vec![Alternative { token: " Oslo".into(), logprob: -0.25 }, Alternative { token: " Rome".into(), logprob: -2.5 }];
    let logprobs = vec![TokenLogprob { token: " Oslo".into(), logprob: -0.25, top }];
    let frames = [
        Frame::Open(Open {
            accept: ByteBuf::from(vec![1]),
            salt: ByteArray::new([0x22; 32]),
            request_len: 7,
            offer: Some(ByteBuf::from(vec![2, 3])),
            resume_from: None,
            payment: None,
            tranche: None,
        }),
        Frame::Delta(Delta { seq: 0, channel: Channel::ANSWER, text: " Oslo".into(), tokens: 1, logprobs }),
        Frame::ToolCall(ToolCallDelta {
            seq: 1,
            index: 0,
            id: Some("call_1".into()),
            name: Some("weather".into()),
            arguments: "{}".into(),
            tokens: 2,
        }),
        Frame::ToolCall(ToolCallDelta { seq: 2, index: 0, id: None, name: None, arguments: " ".into(), tokens: 2 }),
        Frame::Embedding(Embedding { seq: 3, index: 0, vector: Embedding::pack(&[1.0, -0.5]) }),
        Frame::Usage(Usage { input_tokens: 19, output_tokens: 2, finish: FinishReason::TOOL_CALLS }),
    ];
    let shown = shown(&frames);
    check_file("chat-abilities.json", json!({ "requests": requests, "frames": shown }));
}

/// As nodes without resume knew the two frames.
mod before_resume {
    use infernet_wire::id::JobId;
    use serde::{Deserialize, Serialize};
    use serde_bytes::{ByteArray, ByteBuf};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Open {
        pub(super) accept: ByteBuf,
        pub(super) salt: ByteArray<32>,
        pub(super) request_len: u32,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub(super) offer: Option<ByteBuf>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Opened {
        pub(super) job: JobId,
        pub(super) input_tokens: u32,
    }
}

#[test]
fn frames_of_a_resumed_stream() {
    let open = |request_len, resume_from| Open {
        accept: ByteBuf::from(vec![1, 2, 3]),
        salt: ByteArray::new([0x22; 32]),
        request_len,
        offer: None,
        resume_from,
        payment: None,
        tranche: None,
    };
    let frames = [
        Frame::Open(open(7, Some(0))),
        Frame::Opened(Opened { job: JobId([0x55; 16]), input_tokens: 110, grace_ms: Some(30_000), chunk: None }),
        Frame::Ack(64),
        Frame::Open(open(0, Some(70))),
        Frame::Error(StreamError { code: ErrorCode::REPLACED, retryable: false, message: "a newer stream goes on".into() }),
    ];
    let shown = shown(&frames);
    check_file("chat-resume.json", json!({ "frames": shown }));
    assert_eq!(open(7, Some(0)).resumes_at(), None, "a new job");
    assert_eq!(open(0, Some(70)).resumes_at(), Some(70));
    assert_eq!(open(0, None).resumes_at(), None, "an empty request");
}

#[test]
fn frames_of_a_paid_stream() {
    let (buyer, seller) = (key(1), key(2).id());
    let pay = |job: u8, amount: u128, paid| {
        let channel = ledger_channel(&network(), &buyer.id(), &seller);
        let voucher = Voucher { chain: LEDGER, contract: EvmAddress::ZERO, channel, job: JobId([job; 16]), amount };
        let voucher = SignedVoucher::sign(&buyer, voucher).unwrap();
        Payment { voucher: ByteBuf::from(voucher.encode()), paid: MicroUsd(paid) }
    };
    let open = Open {
        accept: ByteBuf::from(vec![1, 2, 3]),
        salt: ByteArray::new([0x22; 32]),
        request_len: 7,
        offer: None,
        resume_from: Some(0),
        payment: Some(pay(0x55, 900, 11)),
        tranche: None,
    };
    let frames = [
        Frame::Open(open),
        Frame::Opened(Opened { job: JobId([0x55; 16]), input_tokens: 110, grace_ms: Some(30_000), chunk: Some(64) }),
        Frame::Voucher(pay(0x55, 924, 35)),
        Frame::Usage(Usage { input_tokens: 19, output_tokens: 3, finish: FinishReason::UNPAID }),
        Frame::Error(StreamError { code: ErrorCode::PAYMENT, retryable: false, message: "no credit".into() }),
    ];
    let shown = shown(&frames);
    check_file("chat-paid.json", json!({ "buyer_secret_key": hex::encode([1; 32]), "frames": shown }));
}

#[test]
fn chat_frames_of_a_channels_end() {
    let contract = "0x5FbDB2315678afecb367f032d93F642f64180aa3".parse().unwrap();
    let (chain, channel, amount) = (31_337, ChannelId([0x99; 32]), 159);
    let signature = Close { chain, contract, channel, amount }.sign(&key(2));
    let frames = [Frame::Close(Closing { chain, contract, channel }), Frame::Closed(Closed { amount, signature })];
    let shown = shown(&frames);
    check_file("chat-close.json", json!({ "worker_secret_key": hex::encode([2; 32]), "frames": shown }));
}

#[test]
fn nodes_before_and_after_resume_understand_each_other() {
    let old =
        before_resume::Open { accept: ByteBuf::from(vec![1]), salt: ByteArray::new([2; 32]), request_len: 7, offer: None };
    let new = Open {
        accept: old.accept.clone(),
        salt: old.salt,
        request_len: 7,
        offer: None,
        resume_from: Some(0),
        payment: None,
        tranche: None,
    };
    assert_eq!(serde_cbor::from_slice::<before_resume::Open>(&serde_cbor::ser::to_vec_packed(&new).unwrap()).unwrap(), old);
    let read: Open = serde_cbor::from_slice(&serde_cbor::ser::to_vec_packed(&old).unwrap()).unwrap();
    assert_eq!(read.resume_from, None, "it can't resume, and is not asked to acknowledge");
    let old = before_resume::Opened { job: JobId([3; 16]), input_tokens: 9 };
    let new = Opened { job: old.job, input_tokens: 9, grace_ms: Some(30_000), chunk: None };
    assert_eq!(serde_cbor::from_slice::<before_resume::Opened>(&serde_cbor::ser::to_vec_packed(&new).unwrap()).unwrap(), old);
    let read: Opened = serde_cbor::from_slice(&serde_cbor::ser::to_vec_packed(&old).unwrap()).unwrap();
    assert_eq!(read.grace_ms, None, "it keeps nothing");
}

#[test]
fn a_request_that_contradicts_itself_is_refused() {
    let check = |change: fn(&mut ChatRequest), expected: &str| {
        let mut request = full_request();
        change(&mut request);
        let error = request.encode().expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(|r| r.tool_choice = Some(ToolChoice::Named("other".into())), "tool_choice names a tool");
    check(|r| r.tools.clear(), "tool_choice names a tool");
    check(|r| r.task = Task::COMPLETION, "a completion has one text");
    check(|r| r.task = Task::EMBEDDINGS, "no tools");
    check(|r| r.task = Task(9), "not known");
    check(|r| r.logprobs = Some(21), "top_logprobs");
    check(|r| r.presence_penalty = Some(2.5), "presence_penalty");
    check(|r| r.frequency_penalty = Some(f64::NAN), "frequency_penalty");
    check(|r| r.suffix = Some("x".into()), "suffix");
    check(|r| r.tools[0].name.clear(), "tool's name");
    check(|r| r.messages[0].images = vec![ByteBuf::new(); 65], "64 images");
}

#[test]
fn receipt_pages() {
    let receipt = key(2).sign(&network(), crate::samples::receipt()).unwrap();
    let agreed = infernet_wire::receipt::Countersign { receipt: receipt.digest(), issued: NOW };
    let countersign = key(1).sign(&network(), agreed).unwrap();
    let signed = SignedReceipt::new(receipt, Some(countersign)).unwrap();
    let request = |before| PageRequest { network: network(), limit: 100, before };
    let requests = [request(None), request(Some(Place::of(&signed)))];
    let pages = [Page::new(&[signed.clone(), signed], true), Page::default(), Page::busy(200)];
    for request in &requests {
        assert_eq!(PageRequest::decode(&request.encode()).as_ref(), Ok(request));
    }
    for page in &pages {
        assert_eq!(Page::decode(&page.encode()).as_ref(), Ok(page));
    }
    check_file(
        "receipt_page.json",
        json!({
            "protocol": infernet_wire::receipt_page::PROTOCOL,
            "newest_request": hex::encode(requests[0].encode()),
            "next_request": hex::encode(requests[1].encode()),
            "page_of_two": hex::encode(pages[0].encode()),
            "empty_page": hex::encode(pages[1].encode()),
            "busy_page": hex::encode(pages[2].encode()),
        }),
    );
}

#[test]
fn ad_pages() {
    let ad = key(2).sign(&network(), crate::samples::ad()).unwrap();
    let request = AdRequest { network: network() };
    assert_eq!(AdRequest::decode(&request.encode()).as_ref(), Ok(&request));
    let pages = [AdPage::new([&**ad.raw(); 2]), AdPage::default()];
    for page in &pages {
        assert_eq!(AdPage::decode(&page.encode()).as_ref(), Ok(page));
    }
    check_file(
        "ad_page.json",
        json!({
            "protocol": infernet_wire::ad_page::PROTOCOL,
            "request": hex::encode(request.encode()),
            "page_of_two": hex::encode(pages[0].encode()),
            "empty_page": hex::encode(pages[1].encode()),
        }),
    );
    let largest = vec![0; infernet_wire::limits::MAX_AD_BYTES];
    let full = AdPage::new(std::iter::repeat_n(&*largest, 1_000));
    assert!(full.ads.len() < 1_000 && AdPage::decode(&full.encode()).as_ref() == Ok(&full), "as many as fit");
    let many = AdPage { ads: vec![ByteBuf::new(); infernet_wire::limits::MAX_PAGE_ADS + 1] };
    assert_eq!(AdPage::decode(&many.encode()), Err(Refusal::TooLarge));
    assert_eq!(AdRequest::decode(&[0; 100]), Err(Refusal::TooLarge));
}

#[test]
fn pages_are_bounded_and_have_one_form() {
    let receipts = vec![ByteBuf::from(vec![0; 10]); infernet_wire::limits::MAX_PAGE_RECEIPTS + 1];
    let mut page = Page { receipts, ..Page::default() };
    assert_eq!(Page::decode(&page.encode()), Err(Refusal::TooLarge));
    page.receipts = vec![ByteBuf::from(vec![0; infernet_wire::limits::MAX_PAGE_BYTES])];
    assert_eq!(Page::decode(&page.encode()), Err(Refusal::TooLarge));
    assert_eq!(Page::decode(b"\xa0"), Err(Refusal::Malformed));
    let long_form = [&[0xb8, 2, 0][..], &Page::default().encode()[2..]].concat();
    assert_eq!(Page::decode(&long_form), Err(Refusal::NotCanonical));
    assert_eq!(PageRequest::decode(&[0; 200]), Err(Refusal::TooLarge));
}

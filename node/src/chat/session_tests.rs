use super::*;
use infernet_wire::{chat::ErrorCode, key::NodeKey, topic::NetworkId};
use proptest::prelude::*;
use serde_bytes::ByteBuf;

const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
const OPEN: &[u8] = b"open frame";
const REQUEST: &[u8] = b"request";

fn key(n: u8) -> NodeKey {
    NodeKey::from_bytes(&[n; 32]).expect("a valid scalar")
}

fn terms(budget: u64) -> Terms {
    Terms {
        job: JobId([1; 16]),
        accept: Hash([2; 32]),
        buyer: key(1).id(),
        worker: key(2).id(),
        workload: "infernet.inference".into(),
        model: "tiny".into(),
        weights: None,
        price: Price { input: MicroUsd(1_000_000), output: MicroUsd(2_000_000) },
        budget: MicroUsd(budget),
        input_tokens: 10,
        output_tokens: 100,
        rate: 1,
    }
}

/// Both sides over a perfect wire; `tamper` may change a frame before the buyer sees it.
struct Pair {
    worker: WorkerSession,
    buyer: BuyerSession,
}

impl Pair {
    fn new(budget: u64) -> Self {
        let (worker, opened) = WorkerSession::open(terms(budget), OPEN, REQUEST, true, NOW);
        let mut buyer = BuyerSession::new(terms(budget), OPEN, REQUEST);
        deliver(&mut buyer, &opened).expect("opens");
        Pair { worker, buyer }
    }

    fn say(&mut self, text: &str, tokens: u32) {
        let frame = self.worker.delta(Channel::ANSWER, text.into(), tokens, vec![]);
        deliver(&mut self.buyer, &frame).expect("a good delta");
    }

    fn end(self, finish: FinishReason, input: Option<u32>, output: Option<u32>) -> (BuyerSession, Option<JobReceipt>) {
        let Pair { worker, mut buyer } = self;
        let finished = worker.finish(finish, (input, output), Paid::default(), NOW.after(5));
        deliver(&mut buyer, &finished.usage).expect("good usage");
        (buyer, finished.receipt)
    }
}

fn deliver(buyer: &mut BuyerSession, frame: &[u8]) -> Result<BuyerEvent, Violation> {
    buyer.on_frame(Frame::decode(frame).expect("a frame"), frame)
}

fn sign(receipt: JobReceipt, by: u8) -> Verified<JobReceipt> {
    key(by).sign(&NetworkId::default(), receipt).expect("a valid receipt")
}

#[test]
fn a_finished_job_has_a_receipt_the_buyer_agrees_with() {
    let mut pair = Pair::new(1_000);
    pair.say("Hello", 1);
    pair.say(" world", 2);
    let (buyer, receipt) = pair.end(FinishReason::STOP, Some(7), Some(2));
    let receipt = receipt.expect("a receipt");
    assert_eq!((receipt.input_tokens, receipt.output_tokens, receipt.amount), (7, 2, MicroUsd(11)));
    assert_eq!(receipt.status, JobStatus::COMPLETED);
    assert_eq!(buyer.check_receipt(&sign(receipt, 2), Paid::default()), Ok(()));
}

#[test]
fn the_end_token_is_counted_if_the_engine_counts_it_and_nothing_more() {
    let counted = |counted, finish| {
        let mut pair = Pair::new(1_000);
        pair.say("Hello", 1);
        let last = pair.worker.end_token(counted, finish);
        if let Some(frame) = &last {
            assert!(matches!(deliver(&mut pair.buyer, frame), Ok(BuyerEvent::Text { text, tokens: 2, .. }) if text.is_empty()));
        }
        let (buyer, receipt) = pair.end(finish, Some(7), counted);
        let receipt = receipt.expect("a receipt");
        assert_eq!(buyer.check_receipt(&sign(receipt.clone(), 2), Paid::default()), Ok(()));
        (last.is_some(), receipt.output_tokens)
    };
    assert_eq!(counted(Some(2), FinishReason::STOP), (true, 2));
    assert_eq!(counted(Some(2), FinishReason::TOOL_CALLS), (true, 2));
    assert_eq!(counted(Some(2), FinishReason::LENGTH), (false, 1), "it did not end by itself");
    assert_eq!(counted(Some(3), FinishReason::STOP), (false, 1), "two are no end token");
    assert_eq!(counted(Some(1), FinishReason::STOP), (false, 1));
    assert_eq!(counted(None, FinishReason::STOP), (false, 1));
    let mut short = Pair::new(1_000);
    short.say("a", 1);
    assert_eq!(short.worker.end_token(Some(2), FinishReason::STOP), None, "more tokens than bytes");
    assert_eq!(Pair::new(1_000).worker.end_token(Some(1), FinishReason::STOP), None, "nothing was said");
}

#[test]
fn any_change_to_a_receipt_is_found() {
    let mut pair = Pair::new(1_000);
    pair.say("Hello", 1);
    let (buyer, receipt) = pair.end(FinishReason::STOP, Some(7), Some(1));
    let receipt = receipt.expect("a receipt");
    let check = |field: &'static str, change: fn(&mut JobReceipt)| {
        let mut changed = receipt.clone();
        change(&mut changed);
        changed.amount = changed.price.cost(changed.input_tokens, changed.output_tokens).unwrap_or_default();
        assert_eq!(buyer.check_receipt(&sign(changed, 2), Paid::default()), Err(Violation::Receipt(field)));
    };
    check("job", |r| r.job.0[0] ^= 1);
    check("accept", |r| r.accept.0[0] ^= 1);
    check("buyer", |r| r.buyer = key(3).id());
    check("worker", |r| r.worker = key(3).id());
    check("workload", |r| r.workload.push('x'));
    check("model", |r| r.model.push('x'));
    check("price", |r| r.price.output.0 += 1);
    check("input tokens", |r| r.input_tokens += 1);
    check("output tokens", |r| r.output_tokens += 1);
    check("status", |r| r.status = JobStatus::FAILED);
    check("request", |r| r.request.0[0] ^= 1);
    check("transcript", |r| r.transcript.0[0] ^= 1);
    assert_eq!(buyer.check_receipt(&sign(receipt.clone(), 3), Paid::default()), Err(Violation::Receipt("worker")));
}

#[test]
fn calls_and_vectors_are_in_the_transcript_at_their_place() {
    let mut pair = Pair::new(1_000);
    pair.say("Let me see.", 1);
    let call = |arguments: &str, tokens| ToolCallDelta {
        seq: 0,
        index: 0,
        id: Some("c1".into()),
        name: Some("weather".into()),
        arguments: arguments.into(),
        tokens,
    };
    let frame = pair.worker.tool_call(call(r#"{"city":"#, 5));
    assert!(matches!(deliver(&mut pair.buyer, &frame), Ok(BuyerEvent::ToolCall(piece)) if piece.seq == 1 && piece.tokens == 5));
    let vector = pair.worker.embedding(0, &[1.5, -2.0]);
    let Ok(BuyerEvent::Embedding(embedding)) = deliver(&mut pair.buyer, &vector) else { panic!("a vector") };
    assert_eq!((embedding.seq, embedding.numbers().collect::<Vec<_>>()), (2, vec![1.5, -2.0]));
    let (buyer, receipt) = pair.end(FinishReason::TOOL_CALLS, Some(3), Some(5));
    let receipt = receipt.expect("a receipt");
    assert_eq!((receipt.status, receipt.output_tokens), (JobStatus::COMPLETED, 5));
    assert_eq!(buyer.check_receipt(&sign(receipt, 2), Paid::default()), Ok(()));
}

#[test]
fn a_call_is_worth_no_more_tokens_than_its_bytes_and_a_vector_none() {
    let mut pair = Pair::new(1_000);
    let claim = |tokens| ToolCallDelta { seq: 0, index: 0, id: None, name: Some("f".into()), arguments: "{}".into(), tokens };
    let honest = pair.worker.tool_call(claim(50));
    assert!(matches!(deliver(&mut pair.buyer, &honest), Ok(BuyerEvent::ToolCall(piece)) if piece.tokens == 3));
    let mut pair = Pair::new(1_000);
    let lie = Frame::ToolCall(claim(4)).encode();
    assert_eq!(deliver(&mut pair.buyer, &lie).err(), Some(Violation::Tokens { claimed: 4, most: 3 }));
    let mut pair = Pair::new(1_000);
    deliver(&mut pair.buyer, &pair.worker.embedding(0, &[0.0; 64])).expect("a vector");
    let late = pair.worker.delta(Channel::ANSWER, String::new(), 9, vec![]);
    assert!(matches!(deliver(&mut pair.buyer, &late), Ok(BuyerEvent::Text { tokens: 0, .. })));
}

#[test]
fn a_dropped_or_repeated_delta_is_a_violation() {
    let mut pair = Pair::new(1_000);
    let first = pair.worker.delta(Channel::ANSWER, "a".into(), 1, vec![]);
    let second = pair.worker.delta(Channel::ANSWER, "b".into(), 2, vec![]);
    assert!(matches!(deliver(&mut pair.buyer, &second), Err(Violation::Sequence { expected: 0, got: 1 })));
    let mut pair = Pair::new(1_000);
    deliver(&mut pair.buyer, &first).expect("the first");
    assert!(matches!(deliver(&mut pair.buyer, &first), Err(Violation::Sequence { expected: 1, got: 0 })));
}

#[test]
fn spliced_text_voids_the_receipt() {
    let mut pair = Pair::new(1_000);
    let Ok(Frame::Delta(mut delta)) = Frame::decode(&pair.worker.delta(Channel::ANSWER, "yes".into(), 1, vec![])) else {
        panic!("a delta")
    };
    delta.text = "no!".into();
    deliver(&mut pair.buyer, &Frame::Delta(delta).encode()).expect("well-formed");
    let (buyer, receipt) = pair.end(FinishReason::STOP, None, None);
    assert_eq!(
        buyer.check_receipt(&sign(receipt.expect("a receipt"), 2), Paid::default()),
        Err(Violation::Receipt("transcript"))
    );
}

#[test]
fn more_tokens_than_bytes_or_than_asked_for_are_a_violation() {
    let claim = |text: &str, tokens: u32| {
        let mut pair = Pair::new(u64::MAX);
        let frame =
            Frame::Delta(Delta { seq: 0, channel: Channel::ANSWER, text: text.into(), tokens, logprobs: vec![] }).encode();
        deliver(&mut pair.buyer, &frame).map(|_| ())
    };
    assert_eq!(claim("abc", 3), Ok(()));
    assert_eq!(claim("abc", 4), Err(Violation::Tokens { claimed: 4, most: 3 }));
    assert_eq!(claim(&"x".repeat(200), 101), Err(Violation::Tokens { claimed: 101, most: 100 }));
}

#[test]
fn usage_lowers_never_raises() {
    let mut pair = Pair::new(1_000);
    pair.say("Hello", 3);
    let (_, receipt) = pair.end(FinishReason::STOP, Some(50), Some(50));
    let receipt = receipt.expect("a receipt");
    assert_eq!((receipt.input_tokens, receipt.output_tokens), (10, 3));

    for (usage, expected) in [
        (Usage { input_tokens: 11, output_tokens: 0, finish: FinishReason::STOP }, Violation::Input { claimed: 11, most: 10 }),
        (Usage { input_tokens: 0, output_tokens: 1, finish: FinishReason::STOP }, Violation::Tokens { claimed: 1, most: 0 }),
    ] {
        let mut pair = Pair::new(1_000);
        assert_eq!(deliver(&mut pair.buyer, &Frame::Usage(usage).encode()).map(|_| ()), Err(expected));
    }
}

#[test]
fn the_budget_is_a_hard_ceiling() {
    let mut pair = Pair::new(15);
    for n in 1..=5 {
        pair.say("token", n);
    }
    let (buyer, receipt) = pair.end(FinishReason::LENGTH, Some(10), Some(5));
    let receipt = receipt.expect("a receipt");
    assert_eq!((receipt.input_tokens, receipt.output_tokens, receipt.amount), (10, 2, MicroUsd(14)));
    assert_eq!(buyer.check_receipt(&sign(receipt, 2), Paid::default()), Ok(()));

    let mut greedy = Pair::new(15);
    greedy.say("tokens of text", 8);
    let usage = Frame::Usage(Usage { input_tokens: 10, output_tokens: 8, finish: FinishReason::STOP }).encode();
    assert!(matches!(deliver(&mut greedy.buyer, &usage), Err(Violation::Budget(MicroUsd(26), MicroUsd(15)))));
}

#[test]
fn the_engine_is_asked_for_what_the_budget_allows() {
    // Input is taken as 3 tokens of 1 micro-USD, output costs 2.
    let check = |budget: u64, expected: u32| assert_eq!(terms(budget).engine_limit(), expected, "budget {budget}");
    check(1_000, 100);
    check(203, 100);
    check(202, 99);
    check(5, 1);
    check(0, 1);
}

#[test]
fn full_at_the_token_limit() {
    let mut pair = Pair::new(1_000);
    pair.say(&"x".repeat(100), 99);
    assert!(!pair.worker.is_full());
    pair.say("x", 100);
    assert!(pair.worker.is_full());
}

#[test]
fn leaving_before_the_first_token_is_free() {
    let (buyer, receipt) = Pair::new(1_000).end(FinishReason::CANCELLED, Some(7), None);
    assert!(receipt.is_none());
    assert!(!buyer.has_received());
    let (_, receipt) = Pair::new(1_000).end(FinishReason::STOP, Some(7), Some(0));
    assert_eq!(receipt.expect("an empty answer is an answer").amount, MicroUsd(7));
}

#[test]
fn a_cancelled_job_is_receipted_for_what_was_delivered() {
    let mut pair = Pair::new(1_000);
    pair.say("Hel", 1);
    let (buyer, receipt) = pair.end(FinishReason::CANCELLED, None, None);
    let receipt = receipt.expect("a receipt");
    assert_eq!(receipt.status, JobStatus::CANCELLED);
    assert_eq!(buyer.check_receipt(&sign(receipt, 2), Paid::default()), Ok(()));
}

#[test]
fn frames_out_of_order_are_violations() {
    let fresh = || BuyerSession::new(terms(1), OPEN, REQUEST);
    let delta = Frame::Delta(Delta { seq: 0, channel: Channel::ANSWER, text: "x".into(), tokens: 1, logprobs: vec![] });
    let usage = Frame::Usage(Usage { input_tokens: 0, output_tokens: 0, finish: FinishReason::STOP });
    for frame in [delta, usage, Frame::Receipt(ByteBuf::new()), Frame::Cancel, Frame::Countersign(ByteBuf::new())] {
        assert!(matches!(deliver(&mut fresh(), &frame.encode()), Err(Violation::Unexpected(_))), "{frame:?}");
    }
    let other = Frame::Opened(Opened { job: JobId([9; 16]), input_tokens: 0, grace_ms: None, chunk: None });
    assert!(matches!(deliver(&mut fresh(), &other.encode()), Err(Violation::Job)));
    let greedy = Frame::Opened(Opened { job: JobId([1; 16]), input_tokens: 11, grace_ms: None, chunk: None });
    assert!(matches!(deliver(&mut fresh(), &greedy.encode()), Err(Violation::Input { .. })));
    let mut over = fresh();
    let error = StreamError { code: ErrorCode::BUSY, retryable: true, message: String::new() };
    assert!(matches!(deliver(&mut over, &Frame::Error(error).encode()), Ok(BuyerEvent::Failed(_))));
    assert!(matches!(deliver(&mut over, &Frame::KeepAlive.encode()), Err(Violation::Unexpected(_))));
}

proptest! {
    /// Whatever an engine says, the buyer of an honest worker agrees with the receipt, and never pays above the budget.
    #[test]
    fn honest_sides_always_agree(chunks in proptest::collection::vec((".{0,8}", 0u32..200), 0..20), budget in 0u64..400,
                                 input in proptest::option::of(0u32..40), output in proptest::option::of(0u32..300), finish in 0u8..4) {
        let mut pair = Pair::new(budget);
        for (text, tokens) in &chunks {
            pair.say(text, *tokens);
        }
        let (buyer, receipt) = pair.end(FinishReason(finish), input, output);
        if let Some(receipt) = receipt {
            prop_assert!(receipt.amount.0 <= budget);
            prop_assert_eq!(buyer.check_receipt(&sign(receipt, 2), Paid::default()), Ok(()));
        } else {
            prop_assert!(chunks.is_empty());
        }
    }

    #[test]
    fn no_sequence_of_frames_panics(frames in proptest::collection::vec((0u8..9, any::<u64>(), any::<u32>(), ".{0,10}"), 0..20)) {
        let mut buyer = BuyerSession::new(terms(50), OPEN, REQUEST);
        for (kind, seq, n, text) in frames {
            let frame = match kind {
                0 => Frame::Opened(Opened { job: JobId([1; 16]), input_tokens: n % 12, grace_ms: Some(n), chunk: None }),
                1 | 2 => Frame::Delta(Delta { seq: seq % 3, channel: Channel(0), text, tokens: n % 20, logprobs: vec![] }),
                3 => Frame::Usage(Usage { input_tokens: n % 12, output_tokens: n % 20, finish: FinishReason(kind) }),
                4 => Frame::Receipt(ByteBuf::from(text.into_bytes())),
                5 => Frame::KeepAlive,
                6 => Frame::Cancel,
                7 => Frame::Countersign(ByteBuf::new()),
                _ => Frame::Error(StreamError { code: ErrorCode(1), retryable: true, message: text }),
            };
            let _ = deliver(&mut buyer, &frame.encode());
        }
    }
}

/// A pair that can resume, with one delta on each side.
fn lasting() -> Pair {
    let mut pair = Pair::new(1_000);
    pair.say("Hello", 1);
    pair
}

fn opened_again(input_tokens: u32) -> Vec<u8> {
    Frame::Opened(Opened { job: JobId([1; 16]), input_tokens, grace_ms: Some(limits::RESUME_GRACE_MS), chunk: None }).encode()
}

const GRACE: Duration = Duration::from_secs(30);

#[test]
fn a_lost_stream_goes_on_in_another_and_the_receipt_does_not_tell() {
    let mut pair = lasting();
    let missed = pair.worker.delta(Channel::ANSWER, " wor".into(), 2, vec![]);
    assert_eq!(pair.buyer.lost(), Some(Resume { from: 1, within: GRACE }));
    assert!(matches!(deliver(&mut pair.buyer, &opened_again(10)), Ok(BuyerEvent::Resumed)));
    deliver(&mut pair.buyer, &missed).expect("what was missed");
    pair.say("ld", 3);
    let (buyer, receipt) = pair.end(FinishReason::STOP, Some(7), Some(3));
    let receipt = receipt.expect("a receipt");
    assert_eq!(receipt.output_tokens, 3, "each once");
    assert_eq!(buyer.check_receipt(&sign(receipt, 2), Paid::default()), Ok(()));
}

#[test]
fn a_stream_lost_before_the_receipt_gets_the_same_usage_again_once() {
    let Pair { worker, mut buyer } = lasting();
    let finished = worker.finish(FinishReason::STOP, (Some(7), Some(1)), Paid::default(), NOW.after(5));
    deliver(&mut buyer, &finished.usage).expect("good usage");
    for _ in 0..3 {
        assert_eq!(buyer.lost(), Some(Resume { from: 1, within: GRACE }));
        deliver(&mut buyer, &opened_again(10)).expect("resumes");
        assert!(matches!(deliver(&mut buyer, &finished.usage), Ok(BuyerEvent::KeepAlive)), "nothing new");
        assert!(matches!(deliver(&mut buyer, &finished.usage), Err(Violation::Unexpected("usage"))));
    }
    let other = Frame::Usage(Usage { input_tokens: 7, output_tokens: 0, finish: FinishReason::STOP });
    buyer.lost();
    deliver(&mut buyer, &opened_again(10)).expect("resumes");
    assert!(matches!(deliver(&mut buyer, &other.encode()), Err(Violation::Unexpected("usage"))), "another count");
    assert_eq!(buyer.check_receipt(&sign(finished.receipt.expect("a receipt"), 2), Paid::default()), Ok(()));
}

#[test]
fn only_a_worker_that_waits_is_come_back_to_and_only_within_the_answer() {
    let (worker, opened) = WorkerSession::open(terms(9), OPEN, REQUEST, false, NOW);
    let mut pair = Pair { worker, buyer: BuyerSession::new(terms(9), OPEN, REQUEST) };
    assert_eq!(pair.buyer.lost(), None, "not opened");
    deliver(&mut pair.buyer, &opened).expect("opens");
    pair.say("Hello", 1);
    assert_eq!(pair.buyer.lost(), None, "it does not wait");
    assert_eq!(Pair::new(9).buyer.lost(), None, "before the first piece another worker does as well");
    let (mut buyer, receipt) = lasting().end(FinishReason::STOP, None, None);
    deliver(&mut buyer, &Frame::Receipt(ByteBuf::from(sign(receipt.expect("a receipt"), 2).raw().to_vec())).encode())
        .expect("it");
    assert_eq!(buyer.lost(), None, "over");
}

#[test]
fn a_new_stream_must_begin_with_the_same_job_on_the_same_terms() {
    let lost = || {
        let mut buyer = lasting().buyer;
        buyer.lost().expect("it may resume");
        buyer
    };
    assert!(matches!(deliver(&mut lost(), &opened_again(11)), Err(Violation::Input { .. })));
    assert!(matches!(deliver(&mut lost(), &opened_again(9)), Err(Violation::Input { .. })), "it was told otherwise before");
    let other = Frame::Opened(Opened { job: JobId([9; 16]), input_tokens: 10, grace_ms: None, chunk: None });
    assert!(matches!(deliver(&mut lost(), &other.encode()), Err(Violation::Job)));
    let delta = Frame::Delta(Delta { seq: 1, channel: Channel::ANSWER, text: "x".into(), tokens: 2, logprobs: vec![] });
    let usage = Frame::Usage(Usage { input_tokens: 0, output_tokens: 1, finish: FinishReason::STOP });
    for frame in [delta.clone(), usage, Frame::Receipt(ByteBuf::new()), Frame::KeepAlive, Frame::Ack(1)] {
        assert!(matches!(deliver(&mut lost(), &frame.encode()), Err(Violation::Unexpected(_))), "{frame:?}");
    }
    let mut buyer = lost();
    deliver(&mut buyer, &opened_again(10)).expect("resumes");
    let repeated = Frame::Delta(Delta { seq: 0, channel: Channel::ANSWER, text: "Hello".into(), tokens: 1, logprobs: vec![] });
    assert_eq!(deliver(&mut buyer, &repeated.encode()).map(|_| ()), Err(Violation::Sequence { expected: 1, got: 0 }));
    let mut refused = lost();
    let error = StreamError { code: ErrorCode::BUSY, retryable: true, message: String::new() };
    assert!(matches!(deliver(&mut refused, &Frame::Error(error).encode()), Ok(BuyerEvent::Failed(_))));
    assert!(refused.lost().is_some(), "the next try may do better");
}

#[test]
fn a_buyer_acknowledges_by_frames_and_by_bytes_if_the_worker_waits() {
    let mut pair = Pair::new(1_000);
    for n in 1..=limits::ACK_FRAMES {
        assert_eq!(pair.buyer.acknowledge(), None);
        pair.say("x", n as u32);
    }
    assert_eq!(pair.buyer.acknowledge(), Some(limits::ACK_FRAMES));
    assert_eq!(pair.buyer.acknowledge(), None, "once");
    pair.say(&"x".repeat(limits::ACK_BYTES), 65);
    assert_eq!(pair.buyer.acknowledge(), Some(limits::ACK_FRAMES + 1));
    let (worker, opened) = WorkerSession::open(terms(9), OPEN, REQUEST, false, NOW);
    let mut pair = Pair { worker, buyer: BuyerSession::new(terms(9), OPEN, REQUEST) };
    deliver(&mut pair.buyer, &opened).expect("opens");
    pair.say(&"x".repeat(limits::ACK_BYTES), 1);
    assert_eq!(pair.buyer.acknowledge(), None, "an older worker would not understand");
}

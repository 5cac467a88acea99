//! Workers who cheat a buyer: what the buyer's client makes of it, and that it signs and keeps nothing.

use super::{
    MODEL, SOON, Stage,
    rogue::{Line, Rogue, chat_address, chat_endpoint, fresh_key, network, request},
    soon,
};
use futures::{FutureExt, future::BoxFuture};
use infernet_node::{
    buyer::{ChatError, ChatEvent, ChatOrder, PathChoice},
    chat::{
        client::{self, Buyer, Caller, Cause, Completed, Failure, Order, Progress},
        deadline,
        endpoint::Endpoint,
        framing::{FrameError, FrameReader, FrameWriter},
        pool::Pool,
        session::{MAX_ANSWER_BYTES, Paid, Terms, Violation, WorkerSession},
    },
    clock,
    disputes::{Dispute, Disputes},
    ledger::Ledger,
    net::{self, Event, NetConfig},
    report::ChatReport,
    settlement::tabs::{Credit, Tabs},
    store::{MemoryStore, Store},
};
use infernet_testnet::demo::order;
use infernet_wire::{
    accept::JobAccept,
    bid::{Answer, JobBid},
    chat::{Channel, Delta, ErrorCode, FinishReason, Frame, Opened, StreamError, Usage},
    envelope::{Envelope, Verified},
    id::{Hash, JobId},
    key::NodeKey,
    limits,
    money::{MicroUsd, Price},
    offer::{JobOffer, SelectionRule},
    receipt::JobReceipt,
    topic,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};

/// A worker at the moment when the buyer's `Open` and request have come.
struct Cheat {
    key: NodeKey,
    line: Line,
    session: WorkerSession,
    opened: Vec<u8>,
    terms: Terms,
}

type Script = fn(Cheat) -> BoxFuture<'static, Cheat>;

impl Cheat {
    async fn send(&mut self, frame: &Frame) {
        self.line.write(&frame.encode(), &[]).await;
    }

    async fn open(&mut self) {
        let opened = self.opened.clone();
        self.line.write(&opened, &[]).await;
    }

    async fn say(&mut self, text: &str, tokens: u32) {
        let frame = self.session.delta(Channel::ANSWER, text.into(), tokens, vec![]);
        self.line.write(&frame, &[]).await;
    }

    async fn delta(&mut self, seq: u64, text: &str, tokens: u32) {
        self.send(&Frame::Delta(Delta { seq, channel: Channel::ANSWER, text: text.into(), tokens, logprobs: vec![] })).await;
    }

    /// Goes well up to the receipt, which `change` bends and `key` signs.
    async fn receipt(mut self, key: Option<NodeKey>, change: fn(&mut JobReceipt)) -> Self {
        self.open().await;
        self.say("Once upon", 2).await;
        self.settle(FinishReason::STOP, 2, key, change).await
    }

    /// Usage and receipt after `output` tokens; `change` bends the receipt and `key` signs it.
    async fn settle(self, finish: FinishReason, output: u32, key: Option<NodeKey>, change: fn(&mut JobReceipt)) -> Self {
        let Cheat { key: own, mut line, session, opened, terms } = self;
        let finished = session.finish(finish, (Some(5), Some(output)), Paid::default(), clock::now());
        line.write(&finished.usage, &[]).await;
        let mut body = finished.receipt.expect("a receipt");
        change(&mut body);
        body.amount = body.price.cost(body.input_tokens, body.output_tokens).expect("a small amount");
        let signed = key.as_ref().unwrap_or(&own).sign(&network(), body).expect("a receipt");
        line.write(&Frame::Receipt(signed.raw().to_vec().into()).encode(), &[]).await;
        let (session, _) = WorkerSession::open(terms.clone(), &[], &[], false, clock::now());
        Cheat { key: own, line, session, opened, terms }
    }
}

/// What became of a job that a cheat got.
struct Seen {
    result: Result<Completed, Failure>,
    /// The answer as far as it came.
    partial: String,
    /// Whether the buyer signed anything.
    countersigned: bool,
    /// Receipts that it kept.
    kept: u64,
    /// What it has paid for the job.
    paid: MicroUsd,
    /// The evidence that it kept.
    disputes: Vec<Dispute>,
}

fn terms(buyer: &NodeKey, worker: &NodeKey, accept: Hash, job: JobId, budget: MicroUsd) -> Terms {
    Terms {
        job,
        accept,
        buyer: buyer.id(),
        worker: worker.id(),
        workload: topic::INFERENCE.into(),
        model: MODEL.into(),
        weights: None,
        price: Price { input: MicroUsd(1_000_000), output: MicroUsd(1_000_000) },
        budget,
        input_tokens: request(100).input_token_bound(),
        output_tokens: 100,
        rate: 1,
    }
}

/// How the caller takes the answer.
#[derive(Clone, Copy, PartialEq)]
enum Listener {
    /// As it comes.
    Keen,
    /// It cancels after so many pieces.
    CancelsAfter(usize),
    /// It takes so many pieces, and no more until the job is over.
    StallsAfter(usize),
}

/// How long a listener that stalls may take for one step.
const PATIENCE: Duration = Duration::from_millis(100);

/// Gives a job to a worker that follows `script`; the buyer has `within` for the whole answer.
async fn cheated(script: Script, listener: Listener, within: Duration) -> Seen {
    cheated_of(script, listener, within, MicroUsd(60)).await
}

async fn cheated_of(script: Script, listener: Listener, within: Duration, budget: MicroUsd) -> Seen {
    let (key, worker) = (fresh_key(), fresh_key());
    let (net, _events) = net::start(&key, NetConfig { network: network(), ..NetConfig::default() }).await.expect("a net");
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let pool = Pool::new(chat_endpoint(&key));
    let buyer = Buyer {
        key: key.clone(),
        network: network(),
        ledger: Ledger::new(store.clone(), net, [key.id()].into()),
        tabs: Tabs::new(key.clone(), &[], network(), store.clone(), Credit::default()),
        pool,
        relayed: None,
    };

    let (now, job) = (clock::now(), JobId(clock::random()));
    let accept = JobAccept {
        offer: Hash([1; 32]),
        bid: Hash([2; 32]),
        winner: worker.id(),
        model: MODEL.into(),
        price: Price { input: MicroUsd(1_000_000), output: MicroUsd(1_000_000) },
        job,
        attempt: 1,
        runners_up: Vec::new(),
        bids: Hash([3; 32]),
        score: 1,
        issued: now,
        expires: now.after(limits::ACCEPT_TTL_MS),
        rate: None,
    };
    let accept = key.sign(&network(), accept).expect("an accept");
    let terms = terms(&key, &worker, accept.digest(), job, budget);
    let endpoint = chat_endpoint(&worker);
    let order = Order {
        offer: None,
        accept,
        salt: [0; 32],
        request: request(100).encode().expect("a request"),
        terms: terms.clone(),
        addrs: vec![endpoint.local_addr().expect("an address")],
        deadline: now.after(within.as_millis() as u64),
    };
    let serving = tokio::spawn(async move {
        let mut line = first_stream(&endpoint).await;
        let first = line.raw().await.expect("a frame");
        let Frame::Open(open) = first.frame else { panic!("not open") };
        let request = line.reader.read_raw(open.request_len as usize, SOON).await.expect("a request");
        let (session, opened) = WorkerSession::open(terms.clone(), &first.bytes, &request, false, clock::now());
        let mut paid = open.payment.map(|payment| payment.paid).unwrap_or_default();
        let mut cheat = script(Cheat { key: worker, line, session, opened, terms }).await;
        loop {
            match cheat.line.raw().await {
                Ok(raw) if matches!(raw.frame, Frame::Countersign(_)) => return (true, paid),
                Ok(raw) => {
                    if let Frame::Voucher(payment) = raw.frame {
                        paid = paid.max(payment.paid);
                    }
                }
                Err(_) => return (false, paid),
            }
        }
    });
    let (progress, mut steps) = mpsc::channel::<Progress>(1);
    let (cancel_now, mut cancel) = watch::channel(false);
    let (job_over, mut over) = watch::channel(false);
    let listening = tokio::spawn(async move {
        let (mut partial, mut pieces) = (String::new(), 0);
        while let Some(step) = steps.recv().await {
            if let Progress::Text { text, .. } = step {
                partial.push_str(&text);
                pieces += 1;
            }
            match listener {
                Listener::CancelsAfter(n) if n == pieces => _ = cancel_now.send_replace(true),
                Listener::StallsAfter(n) if n == pieces => _ = over.wait_for(|over| *over).await,
                _ => {}
            }
        }
        partial
    });
    let patience = if matches!(listener, Listener::StallsAfter(_)) { PATIENCE } else { deadline::TAKE };
    let caller = Caller { progress: &progress, cancel: &mut cancel, on_step: &mut |_| {}, patience };
    let result = soon("the job ends", client::run(&buyer, order, caller)).await;
    job_over.send_replace(true);
    drop(progress);
    let (countersigned, paid) = soon("the cheat ends", serving).await.expect("the cheat runs");
    drop(buyer);
    let partial = listening.await.expect("the listener ends");
    let kept = store.counts().expect("the store").receipts;
    Seen { result, partial, countersigned, kept, paid, disputes: Disputes::new(store).all().await.expect("the store") }
}

/// The buyer must fail as `expected` says, having heard `partial`; it signs nothing, and keeps the evidence of what was no accident.
async fn check(script: Script, partial: &str, expected: fn(&Cause) -> bool) {
    let seen = cheated(script, Listener::Keen, SOON).await;
    let failure = seen.result.expect_err("a cheat gets nothing");
    assert!(expected(&failure.cause), "{:?}", failure.cause);
    assert_eq!(seen.partial, partial, "{failure}");
    assert_eq!((failure.after_first_token, failure.is_retryable()), (!partial.is_empty(), partial.is_empty()), "{failure}");
    assert_eq!((seen.countersigned, seen.kept), (false, 0), "{failure}");
    let deliberate = matches!(failure.cause, Cause::Violation(_) | Cause::Receipt(_));
    let claimed = matches!(failure.cause, Cause::Violation(Violation::Receipt(_)) | Cause::Receipt(_));
    let told: Vec<_> = seen.disputes.iter().map(|dispute| (dispute.cause.clone(), dispute.receipt.is_some())).collect();
    let expected = deliberate.then(|| (failure.cause.to_string(), claimed));
    assert_eq!(told, Vec::from_iter(expected), "{failure}");
    assert!(seen.disputes.iter().all(|dispute| dispute.promised == seen.paid), "{:?}, {}", seen.disputes, seen.paid);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_script_goes_well() {
    let seen = cheated(|cheat| cheat.receipt(None, |_| {}).boxed(), Listener::Keen, SOON).await;
    let completed = seen.result.expect("an answer");
    assert_eq!((seen.partial.as_str(), seen.countersigned, seen.kept), ("Once upon", true, 1));
    assert_eq!(completed.receipt.expect("a receipt").receipt().amount, MicroUsd(7));
}

/// It wants the whole answer paid ahead, says a word, and is gone with what it got: the input's price and one piece's.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_after_a_payment_has_one_piece_at_most() {
    fn takes_and_leaves(mut c: Cheat) -> BoxFuture<'static, Cheat> {
        async move {
            let (job, input_tokens) = (c.terms.job, c.terms.input_tokens);
            c.send(&Frame::Opened(Opened { job, input_tokens, grace_ms: None, chunk: Some(1_000_000) })).await;
            c.say("Once", 1).await;
            let error = StreamError { code: ErrorCode::ENGINE, retryable: false, message: "thank you".into() };
            c.send(&Frame::Error(error)).await;
            c
        }
        .boxed()
    }
    let seen = cheated_of(takes_and_leaves, Listener::Keen, SOON, MicroUsd(100_000)).await;
    let failure = seen.result.expect_err("no answer");
    assert!(failure.after_first_token && matches!(failure.cause, Cause::Worker(_)), "{failure}");
    let price = Price { input: MicroUsd(1_000_000), output: MicroUsd(1_000_000) };
    let most = price.cost(request(100).input_token_bound(), limits::CHUNK_TOKENS).expect("small");
    assert_eq!(seen.paid, most, "the input and one piece");
    assert_eq!((seen.countersigned, seen.kept), (false, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_beginning_is_a_violation_that_another_worker_can_mend() {
    check(
        |mut c| {
            async move {
                c.send(&Frame::Opened(Opened { job: JobId([9; 16]), input_tokens: 1, grace_ms: None, chunk: None })).await;
                c
            }
            .boxed()
        },
        "",
        |cause| matches!(cause, Cause::Violation(Violation::Job)),
    )
    .await;
    check(
        |mut c| {
            async move {
                let input_tokens = c.terms.input_tokens + 1;
                c.send(&Frame::Opened(Opened { job: c.terms.job, input_tokens, grace_ms: None, chunk: None })).await;
                c
            }
            .boxed()
        },
        "",
        |cause| matches!(cause, Cause::Violation(Violation::Input { .. })),
    )
    .await;
    check(
        |mut c| async move { (c.delta(0, "early", 1).await, c).1 }.boxed(),
        "",
        |cause| matches!(cause, Cause::Violation(Violation::Unexpected("delta"))),
    )
    .await;
    check(
        |mut c| async move { (c.line.write(b"no frame", &[]).await, c).1 }.boxed(),
        "",
        |cause| matches!(cause, Cause::Stream(FrameError::Malformed)),
    )
    .await;
    // To end before the first token, unasked, is to refuse the job; that is not the caller's cancel.
    check(
        |mut c| {
            async move {
                c.open().await;
                let finish = FinishReason::CANCELLED;
                c.send(&Frame::Usage(Usage { input_tokens: 0, output_tokens: 0, finish })).await;
                c
            }
            .boxed()
        },
        "",
        |cause| matches!(cause, Cause::Violation(Violation::Unexpected("usage"))),
    )
    .await;
    check(
        |mut c| {
            async move {
                let error = StreamError { code: ErrorCode::BUSY, retryable: true, message: "no".into() };
                c.send(&Frame::Error(error)).await;
                c
            }
            .boxed()
        },
        "",
        |cause| matches!(cause, Cause::Worker(_)),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bent_answer_is_a_violation_with_the_partial_answer() {
    check(
        |mut c| {
            async move {
                c.open().await;
                c.say("Once", 1).await;
                c.delta(2, " upon", 2).await;
                c
            }
            .boxed()
        },
        "Once",
        |cause| matches!(cause, Cause::Violation(Violation::Sequence { expected: 1, got: 2 })),
    )
    .await;
    check(
        |mut c| {
            async move {
                c.open().await;
                c.say("Once", 1).await;
                c.delta(1, "!", 6).await;
                c
            }
            .boxed()
        },
        "Once",
        |cause| matches!(cause, Cause::Violation(Violation::Tokens { claimed: 6, most: 5 })),
    )
    .await;
    check(
        |mut c| {
            async move {
                c.open().await;
                c.say("Once", 1).await;
                c.send(&Frame::Usage(Usage { input_tokens: 0, output_tokens: 2, finish: FinishReason::STOP })).await;
                c
            }
            .boxed()
        },
        "Once",
        |cause| matches!(cause, Cause::Violation(Violation::Tokens { claimed: 2, most: 1 })),
    )
    .await;
    // 61 micro-USD of a budget of 60.
    check(
        |mut c| {
            async move {
                c.open().await;
                c.say("Once", 1).await;
                c.send(&Frame::Usage(Usage { input_tokens: 60, output_tokens: 1, finish: FinishReason::STOP })).await;
                c
            }
            .boxed()
        },
        "Once",
        |cause| matches!(cause, Cause::Violation(Violation::Budget(MicroUsd(61), MicroUsd(60)))),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_is_not_what_happened_is_not_signed() {
    let receipt = |cause: &Cause| matches!(cause, Cause::Violation(Violation::Receipt(_)));
    check(|c| c.receipt(None, |r| r.output_tokens += 1).boxed(), "Once upon", receipt).await;
    check(|c| c.receipt(None, |r| r.price.output.0 *= 2).boxed(), "Once upon", receipt).await;
    check(|c| c.receipt(None, |r| r.transcript.0[0] ^= 1).boxed(), "Once upon", receipt).await;
    check(|c| c.receipt(None, |r| r.job.0[0] ^= 1).boxed(), "Once upon", receipt).await;
    check(|c| c.receipt(Some(fresh_key()), |_| {}).boxed(), "Once upon", receipt).await;
    check(
        |c| c.receipt(None, |r| (r.started, r.finished) = (clock::now(), clock::now().after(60_000))).boxed(),
        "Once upon",
        |cause| matches!(cause, Cause::Receipt(_)),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_or_silent_stream_is_never_a_clean_end() {
    check(
        |mut c| {
            async move {
                c.open().await;
                c.say("Once", 1).await;
                let _ = c.line.writer.finish().await;
                c
            }
            .boxed()
        },
        "Once",
        |cause| matches!(cause, Cause::Stream(FrameError::Closed)),
    )
    .await;
    // After `Usage`, without a receipt.
    check(
        |mut c| {
            async move {
                c.open().await;
                c.say("Once", 1).await;
                c.send(&Frame::Usage(Usage { input_tokens: 1, output_tokens: 1, finish: FinishReason::STOP })).await;
                let _ = c.line.writer.finish().await;
                c
            }
            .boxed()
        },
        "Once",
        |cause| matches!(cause, Cause::Stream(FrameError::Closed)),
    )
    .await;
    let timeout = |cause: &Cause| matches!(cause, Cause::Stream(FrameError::Timeout(_)));
    check(|c| async move { c }.boxed(), "", timeout).await;
    check(|mut c| async move { (c.open().await, c).1 }.boxed(), "", timeout).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_only_keeps_busy_is_left_at_the_jobs_deadline() {
    let forever: Script = |mut c| {
        async move {
            c.open().await;
            c.say("Once", 1).await;
            while c.line.connection.is_open() {
                c.send(&Frame::KeepAlive).await;
                tokio::task::yield_now().await;
            }
            c
        }
        .boxed()
    };
    let seen = cheated(forever, Listener::Keen, Duration::from_millis(1_500)).await;
    let failure = seen.result.expect_err("no answer");
    assert!(matches!(failure.cause, Cause::Stream(FrameError::Timeout(_))), "{failure}");
    assert_eq!((seen.partial.as_str(), failure.after_first_token, seen.countersigned), ("Once", true, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_takes_nothing_is_cancelled_and_pays_for_what_came() {
    let patient: Script = |mut c| {
        async move {
            c.open().await;
            for (n, letter) in (1..).zip("abcdefghij".chars()) {
                c.say(&letter.to_string(), n).await;
            }
            assert!(matches!(c.line.next().await, Frame::Cancel));
            c.settle(FinishReason::CANCELLED, 10, None, |_| {}).await
        }
        .boxed()
    };
    let seen = cheated(patient, Listener::StallsAfter(2), SOON).await;
    let completed = seen.result.expect("what came is settled");
    assert_eq!((completed.usage.finish, completed.usage.output_tokens), (FinishReason::CANCELLED, 10));
    assert_eq!((seen.countersigned, seen.kept), (true, 1));
    // Two were taken, one waited in the channel; what came after the gap must not look like the answer's end.
    assert_eq!(seen.partial, "abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_goes_on_after_a_cancel_is_left_in_time() {
    let deaf: Script = |mut c| {
        async move {
            c.open().await;
            while c.line.connection.is_open() {
                c.say("x", 1).await;
            }
            c
        }
        .boxed()
    };
    let seen = cheated(deaf, Listener::CancelsAfter(1), SOON).await;
    let failure = seen.result.expect_err("no answer");
    assert!(matches!(failure.cause, Cause::Stream(FrameError::Timeout(_))), "{failure}");
    assert_eq!((failure.is_retryable(), seen.countersigned, seen.kept), (false, false, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_cut_at_its_bound() {
    let flood: Script = |mut c| {
        async move {
            c.open().await;
            let text = "x".repeat(60_000);
            while c.line.connection.is_open()
                && c.line.writer.write(&c.session.delta(Channel::ANSWER, text.clone(), 1, vec![]), SOON).await.is_ok()
            {
            }
            c
        }
        .boxed()
    };
    let seen = cheated(flood, Listener::Keen, SOON).await;
    let failure = seen.result.expect_err("no answer");
    assert!(matches!(failure.cause, Cause::Violation(Violation::TooLong)), "{failure}");
    assert!(seen.partial.len() as u64 <= MAX_ANSWER_BYTES);
}

// ---- in the mesh: the cheat wins an auction

async fn underbid(key: &NodeKey, net: &net::Net, endpoint: &Endpoint, offer: &Verified<JobOffer>, price: Price) {
    let bid = JobBid {
        offer: offer.digest(),
        issued: clock::now(),
        hold_until: clock::now().after(u64::from(offer.window_ms) + limits::HOLD_SLACK_MS),
        model: MODEL.into(),
        price,
        queue_ms: 0,
        ttft_ms: 1,
        tokens_per_second: 10_000,
        chat: vec![chat_address(endpoint)],
    };
    let bid = key.sign(&network(), bid).expect("a bid");
    net.answer(offer.signer(), Answer::Bid(bid)).await;
}

async fn first_stream(endpoint: &Endpoint) -> Line {
    let connection = endpoint.accept().await.expect("it runs").finish().await.expect("a handshake");
    let stream = connection.accept().await.expect("a stream");
    Line { connection, reader: FrameReader::new(stream.recv), writer: FrameWriter::new(stream.send) }
}

/// Bids next to nothing on every offer, and serves the first stream that comes of it by `script`.
async fn undercut(mut rogue: Rogue, script: Script) {
    let Rogue { key, net, events, endpoint, .. } = &mut rogue;
    let bidding = async {
        while let Some(event) = events.recv().await {
            if let Event::Offer(offer) = event {
                underbid(key, net, endpoint, &offer, Price { input: MicroUsd(1), output: MicroUsd(1) }).await;
            }
        }
    };
    let mut line = tokio::select! {
        () = bidding => panic!("the mesh ends"),
        line = first_stream(endpoint) => line,
    };
    let first = line.raw().await.expect("a frame");
    let Frame::Open(open) = first.frame else { panic!("not open") };
    let accept = Envelope::decode(&open.accept).expect("an envelope");
    let accept = accept.open::<JobAccept>(&network(), clock::now()).expect("an accept").verify().expect("signed");
    assert_eq!(accept.winner, rogue.id());
    let mut terms = terms(&rogue.key, &rogue.key, accept.digest(), accept.job, MicroUsd(60));
    (terms.buyer, terms.input_tokens) = (accept.signer(), 1);
    let request = line.reader.read_raw(open.request_len as usize, SOON).await.expect("a request");
    let (session, opened) = WorkerSession::open(terms.clone(), &first.bytes, &request, false, clock::now());
    let mut cheat = script(Cheat { key: rogue.key.clone(), line, session, opened, terms }).await;
    while cheat.line.raw().await.is_ok() {}
}

/// The honest buyer's first job that a cheat wins, with the number of retries that the caller heard of, and what was promised for
/// nothing. A cheat has to be
/// known for its answers before an auction waits for them, so some jobs go to the honest worker first.
async fn won_by(script: Script) -> (Result<ChatReport, ChatError>, usize, MicroUsd) {
    let stage = Stage::start().await;
    let rogue = Rogue::join(&stage.worker).await;
    rogue.advertise().await;
    stage.honest.knows(MODEL, 2, SOON).await.expect("the cheat is known");
    let cheat = rogue.id();
    let cheating = tokio::spawn(undercut(rogue, script));
    let mut honest = Vec::new();
    for _ in 0..20 {
        let (events, mut heard) = mpsc::channel(64);
        let (_never, mut cancel) = watch::channel(false);
        let counting = tokio::spawn(async move {
            let (mut retries, mut winner) = (0, None);
            while let Some(event) = heard.recv().await {
                match event {
                    ChatEvent::Retry { .. } => retries += 1,
                    ChatEvent::Auction(report) => winner = Some((report.winner, report.bids.len(), report.closed.clone())),
                    ChatEvent::Stream(_) | ChatEvent::Waiting { .. } => {}
                }
            }
            (retries, winner)
        });
        let (rule, path) = (SelectionRule::CHEAPEST, PathChoice::Auction);
        let asked = ChatOrder { rule, path, ..order(MODEL, "Tell me a story about a fox.", 8) };
        let lost = asked.lost.clone();
        let result = soon("the job", stage.honest.node.buyer().chat(asked, &events, &mut cancel)).await;
        drop(events);
        let (retries, winner) = counting.await.expect("the counter ends");
        if winner.as_ref().is_some_and(|(id, ..)| *id == cheat) {
            soon("the cheat ends", cheating).await.expect("it was given the job");
            return (result, retries, lost.amount());
        }
        result.expect("an honest answer");
        honest.push(winner);
    }
    panic!("the cheat never wins: {honest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_winner_that_breaks_off_is_an_error_with_the_partial_answer() {
    let (result, retries, _) = won_by(|mut c| {
        async move {
            c.open().await;
            c.say("Once", 1).await;
            let _ = c.line.writer.finish().await;
            c
        }
        .boxed()
    })
    .await;
    let Err(ChatError::Failed { failure, partial }) = result else { panic!("{result:?}") };
    assert_eq!((partial.as_str(), failure.after_first_token, retries), ("Once", true, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_winner_that_cheats_before_the_first_token_is_replaced_unseen() {
    let (result, retries, lost) = won_by(|mut c| async move { (c.delta(0, "early", 1).await, c).1 }.boxed()).await;
    let report = result.expect("the runner-up answers");
    assert!(!report.answer.contains("early") && report.receipt.is_some_and(|r| r.verified));
    // What it has in writing for the input counts on the day's cap, though no receipt says it.
    assert_eq!((report.stream.retries, retries, lost), (1, 1, MicroUsd(1)));
}

/// A worker that took a payment and broke off is expected to do so again: whoever asks a little more gets the next jobs.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cheated_is_passed_over_though_it_asks_for_less() {
    let stage = Stage::start().await;
    let mut rogue = Rogue::join(&stage.worker).await;
    rogue.advertise().await;
    stage.honest.knows(MODEL, 2, SOON).await.expect("the cheat is known");
    let cheat = rogue.id();
    // The honest worker asks for 1 % more.
    let price = Price { input: MicroUsd(99_000), output: MicroUsd(396_000) };
    let cheating = tokio::spawn(async move {
        let Rogue { key, net, events, endpoint, .. } = &mut rogue;
        let bidding = async {
            while let Some(event) = events.recv().await {
                if let Event::Offer(offer) = event {
                    underbid(key, net, endpoint, &offer, price).await;
                }
            }
        };
        let serving = async {
            let mut line = first_stream(endpoint).await;
            let Frame::Open(open) = line.raw().await.expect("a frame").frame else { panic!("not open") };
            let _ = line.writer.finish().await;
            open.payment.expect("the input is paid beforehand").paid
        };
        tokio::join!(bidding, serving).1
    });
    let (mut cheated, mut passed_over) = (0, 0);
    let jobs = async {
        while passed_over < 3 {
            let (events, mut heard) = mpsc::channel(64);
            let (_never, mut cancel) = watch::channel(false);
            let listening = tokio::spawn(async move { while heard.recv().await.is_some() {} });
            let (rule, path) = (SelectionRule::CHEAPEST, PathChoice::Auction);
            let asked = ChatOrder { rule, path, ..order(MODEL, "Tell me a story about a fox.", 8) };
            let report = stage.honest.node.buyer().chat(asked, &events, &mut cancel).await.expect("an answer in any case");
            drop(events);
            listening.await.expect("the listener ends");
            let bid = report.auction.bids.iter().any(|bid| bid.worker == cheat);
            match report.auction.winner == cheat {
                true => cheated += 1,
                false if cheated > 0 && bid => passed_over += 1,
                false => {}
            }
        }
    };
    tokio::time::timeout(3 * SOON, jobs).await.expect("three auctions in which both bid");
    assert_eq!(cheated, 1);
    cheating.abort();
}

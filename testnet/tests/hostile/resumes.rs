//! Buyers who misuse the right to come back for their job, and strangers who come back for somebody else's.

use super::{
    SOON, Stage,
    rogue::{Deal, Line, Rogue},
    soon,
    support::{Reply, Scripted},
};
use futures::future::join_all;
use infernet_testnet::cluster::eventually;
use infernet_wire::{
    chat::{ErrorCode, Frame, Open},
    limits,
};
use std::time::Duration;
use tokio::time::timeout;

/// Tokens of a job that outlasts a test's first half, at a hundred a second.
const LONG: u32 = 200;

/// A job of a buyer that may come back for it.
struct Job {
    deal: Deal,
    accept: Vec<u8>,
    line: Line,
}

impl Job {
    async fn begin(stage: &Stage, buyer: &mut Rogue, tokens: u32) -> Self {
        let deal = buyer.deal(tokens).await;
        let accept = buyer.accept(&deal, |_| {}).raw().to_vec();
        let mut line = Line::open(buyer.dial(&stage.worker).await).await;
        let len = u32::try_from(deal.request.len()).expect("a small request");
        line.write(&open(&deal, &accept, len, 0), &deal.request).await;
        let job = Job { deal, accept, line };
        job.opened().await
    }

    async fn opened(mut self) -> Self {
        let Frame::Opened(opened) = self.line.next().await else { panic!("not opened") };
        assert_eq!(opened.grace_ms, Some(limits::RESUME_GRACE_MS), "it waits for a buyer that may come back");
        self
    }

    /// Reads content up to `seq`, which must come in order.
    async fn read_to(&mut self, from: u64, to: u64) {
        for expected in from..to {
            let Frame::Delta(delta) = self.line.next().await else { panic!("no delta") };
            assert_eq!(delta.seq, expected);
        }
    }

    /// Another stream of `who` for this job.
    async fn come_back(&self, stage: &Stage, who: &Rogue, from: u64) -> Line {
        let mut line = Line::open(who.dial(&stage.worker).await).await;
        line.write(&open(&self.deal, &self.accept, 0, from), &[]).await;
        line
    }
}

fn open(deal: &Deal, accept: &[u8], request_len: u32, from: u64) -> Vec<u8> {
    let payment = deal.payment(accept).filter(|_| request_len > 0);
    let (accept, salt) = (accept.to_vec().into(), deal.salt.into());
    Frame::Open(Open { accept, salt, request_len, offer: None, resume_from: Some(from), payment, tranche: None }).encode()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_with_a_stolen_accept_gets_nothing_and_disturbs_nobody() {
    let stage = Stage::start().await;
    let (mut buyer, thief) = (Rogue::join(&stage.worker).await, Rogue::join(&stage.worker).await);
    let mut job = Job::begin(&stage, &mut buyer, 60).await;
    job.read_to(0, 5).await;
    for from in [0, 5, 1_000] {
        job.come_back(&stage, &thief, from).await.refused(ErrorCode::NO_HOLD).await;
    }
    stage.counted("chat.refused.no_hold", 3).await;
    let (receipt, tokens) = job.line.receipt().await;
    assert_eq!((receipt.buyer, receipt.output_tokens), (buyer.id(), tokens));
    job.line.countersign(&buyer.key, receipt.digest()).await;
    stage.counted("chat.acknowledged", 1).await;
    stage.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_sent_or_is_let_go_is_refused_and_the_stream_that_is_there_goes_on() {
    let stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let mut job = Job::begin(&stage, &mut buyer, LONG).await;
    job.read_to(0, 8).await;
    job.come_back(&stage, &buyer, u64::MAX).await.refused(ErrorCode::BAD_RESUME).await;
    job.read_to(8, 10).await;
    // To come back at the sixth says that the first five have arrived.
    let newer = job.come_back(&stage, &buyer, 5).await;
    // To close its connection in order before that would be to leave.
    let _older = std::mem::replace(&mut job.line, newer);
    job = job.opened().await;
    job.read_to(5, 12).await;
    job.come_back(&stage, &buyer, 3).await.refused(ErrorCode::BAD_RESUME).await;
    let (receipt, _) = job.line.receipt().await;
    job.line.countersign(&buyer.key, receipt.digest()).await;
    stage.counted("chat.acknowledged", 1).await;
    stage.counted("chat.resumed.direct", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_stream_takes_over_and_the_older_is_told() {
    let stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let mut job = Job::begin(&stage, &mut buyer, LONG).await;
    job.read_to(0, 3).await;
    let newer = job.come_back(&stage, &buyer, 3).await;
    let mut older = std::mem::replace(&mut job.line, newer);
    job = job.opened().await;
    let told = loop {
        match older.next().await {
            Frame::Delta(_) => {}
            Frame::Error(error) => break error.code,
            other => panic!("unexpected {}", other.label()),
        }
    };
    assert_eq!(told, ErrorCode::REPLACED);
    job.read_to(3, 6).await;
    let (receipt, tokens) = job.line.receipt().await;
    assert_eq!(receipt.output_tokens, tokens, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_for_a_job_that_is_over_gets_its_receipt_again_and_it_counts_once() {
    let stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let mut job = Job::begin(&stage, &mut buyer, 8).await;
    let (first, _) = job.line.receipt().await;
    for _ in 0..3 {
        job.line.connection.abandon();
        // At the start, so that all of it comes again.
        job.line = job.come_back(&stage, &buyer, 0).await;
        job = job.opened().await;
        let (again, tokens) = job.line.receipt().await;
        assert_eq!((again.digest(), again.output_tokens), (first.digest(), tokens));
    }
    job.line.countersign(&buyer.key, first.digest()).await;
    stage.counted("chat.acknowledged", 1).await;
    assert_eq!(stage.receipts(1).await, 1, "one receipt, signed by both");
    stage.idle().await;
    job.come_back(&stage, &buyer, 0).await.refused(ErrorCode::NO_HOLD).await;
    assert_eq!(stage.counter("chat.started").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_come_back_at_once_are_one_job_and_one_of_them_gets_it() {
    let stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let job = Job::begin(&stage, &mut buyer, 60).await;
    let mut lines = Vec::new();
    for _ in 0..1_000 {
        let mut line = Line::open(job.line.connection.clone()).await;
        line.write(&open(&job.deal, &job.accept, 0, 0), &[]).await;
        lines.push(line);
    }
    assert!(stage.running().await <= 1, "one slot");
    let ends = join_all(lines.into_iter().map(|mut line| async move {
        loop {
            match line.next().await {
                Frame::Opened(_) | Frame::Delta(_) | Frame::Usage(_) => {}
                Frame::Receipt(_) => return None,
                Frame::Error(error) => return Some(error.code),
                other => panic!("unexpected {}", other.label()),
            }
        }
    }));
    let ends = soon("all are told", ends).await;
    let expected = [ErrorCode::REPLACED, ErrorCode::BAD_RESUME, ErrorCode::BUSY, ErrorCode::NO_HOLD];
    assert!(ends.iter().flatten().all(|code| expected.contains(code)), "{ends:?}");
    assert_eq!(ends.iter().filter(|end| end.is_none()).count(), 1, "the last that was let in");
    assert!(stage.counter("chat.resumed.direct").await <= u64::from(limits::MAX_RESUMES));
    stage.receipts(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_acknowledges_what_was_never_sent_is_let_go() {
    let stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let mut job = Job::begin(&stage, &mut buyer, LONG).await;
    job.read_to(0, 3).await;
    job.line.write(&Frame::Ack(1_000_000).encode(), &[]).await;
    stage.counted("chat.unacknowledged", 1).await;
    stage.idle().await;
    job.come_back(&stage, &buyer, 3).await.refused(ErrorCode::NO_HOLD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_acknowledges_holds_up_its_own_engine_and_no_more_than_is_kept() {
    let (pieces, size) = (1_500, 1_000);
    let engine = Scripted::start(move |_| Reply::Say(vec!["x".repeat(size); pieces])).await;
    let stage = Stage::over(&engine.url()).await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let mut job = Job::begin(&stage, &mut buyer, pieces as u32).await;
    let mut came = 0;
    while let Ok(frame) = timeout(Duration::from_secs(1), job.line.next()).await {
        assert!(matches!(frame, Frame::Delta(_)), "{}", frame.label());
        came += 1;
    }
    let most = limits::MAX_UNACKED_BYTES / size + 1;
    assert!((most / 2..=most).contains(&came), "{came} frames of {size} bytes");
    // Others are served meanwhile.
    assert_eq!(stage.running().await, 1);
    // It goes on as soon as it hears something.
    while came < pieces {
        job.line.write(&Frame::Ack(came as u64).encode(), &[]).await;
        let before = came;
        for _ in 0..(most / 2).min(pieces - before) {
            assert!(matches!(job.line.next().await, Frame::Delta(_)));
            came += 1;
        }
    }
    job.line.receipt().await;
    eventually("the slot is free", SOON, || async { stage.running().await == 0 }).await.expect("it is");
}

//! Buyers who don't pay, or pay with what is worth nothing; and a worker that asks for more than its due. Each gets at most what the
//! protocol states: the input, or one piece of the answer.

use super::{
    SLOTS, Stage,
    rogue::{Deal, Line, Rogue, fresh_key, network, request},
    soon,
};
use infernet_node::{chat::deadline, clock};
use infernet_testnet::engine::{EngineEvent, EngineOptions, EngineServer};
use infernet_wire::{
    accept::JobAccept,
    chat::{ErrorCode, FinishReason, Frame, Payment},
    envelope::Verified,
    evm::EvmAddress,
    id::ChannelId,
    limits,
    money::MicroUsd,
    voucher::{LEDGER, SignedVoucher, Voucher, ledger_channel},
};

/// Tokens of a job that is far longer than what is delivered unpaid.
const LONG: u32 = 400;

struct Job {
    deal: Deal,
    accept: Verified<JobAccept>,
    line: Line,
}

impl Job {
    async fn new(stage: &Stage, buyer: &mut Rogue, tokens: u32) -> Self {
        let deal = buyer.deal(tokens).await;
        let accept = buyer.accept(&deal, |_| {});
        Job { line: Line::open(buyer.dial(&stage.worker).await).await, deal, accept }
    }

    async fn open(&mut self, payment: Option<Payment>) {
        let len = u32::try_from(self.deal.request.len()).expect("a small request");
        let open = self.deal.open_paying(self.accept.raw(), len, payment);
        self.line.write(&open, &self.deal.request).await;
    }

    /// What the input may cost.
    fn input(&self) -> MicroUsd {
        self.accept.price.cost(request(1).input_token_bound(), 0).expect("small")
    }

    /// What one piece of the answer costs.
    fn piece(&self) -> MicroUsd {
        self.accept.price.cost(0, limits::CHUNK_TOKENS).expect("small")
    }

    /// A payment for the input alone, good in every way.
    fn beforehand(&self, buyer: &Rogue) -> Payment {
        buyer.promises.pay(&self.accept.winner, self.accept.job, self.input(), self.input()).expect("signed")
    }

    /// A payment of `paid` with a voucher that `change` bends before it is signed.
    fn bent(&self, buyer: &Rogue, paid: MicroUsd, change: impl FnOnce(&mut Voucher)) -> Payment {
        let channel = ledger_channel(&network(), &buyer.id(), &self.accept.winner);
        let mut voucher =
            Voucher { chain: LEDGER, contract: EvmAddress::ZERO, channel, job: self.accept.job, amount: paid.0.into() };
        change(&mut voucher);
        Payment { voucher: SignedVoucher::sign(&buyer.key, voucher).expect("signed").encode().into(), paid }
    }

    async fn pay(&mut self, payment: Payment) {
        self.line.write(&Frame::Voucher(payment).encode(), &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_voucher_for_the_input_no_engine_hears_of_a_job() {
    let mut stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    type Bend = fn(&Job, &Rogue) -> Option<Payment>;
    let bends: [(&str, Bend); 8] = [
        ("missing", |_, _| None),
        ("bad_voucher", |job, _| Some(Payment { voucher: vec![1, 2, 3].into(), paid: job.input() })),
        ("bad_voucher", |job, buyer| {
            let stranger = fresh_key();
            let mine = job.bent(buyer, job.input(), |_| {});
            let voucher = infernet_wire::voucher::UnverifiedVoucher::decode(&mine.voucher).expect("a voucher");
            let theirs = SignedVoucher::sign(&stranger, *voucher.claim()).expect("signed");
            Some(Payment { voucher: theirs.encode().into(), ..mine })
        }),
        ("foreign", |job, buyer| Some(job.bent(buyer, job.input(), |voucher| voucher.channel = ChannelId([9; 32])))),
        ("chain", |job, buyer| {
            Some(job.bent(buyer, job.input(), |voucher| (voucher.chain, voucher.contract) = (1, EvmAddress([7; 20]))))
        }),
        ("other_job", |job, buyer| {
            Some(job.bent(buyer, job.input(), |voucher| voucher.job = infernet_wire::id::JobId([1; 16])))
        }),
        ("too_little", |job, buyer| Some(job.bent(buyer, MicroUsd(job.input().0 - 1), |_| {}))),
        ("not_covered", |job, buyer| Some(job.bent(buyer, job.input(), |voucher| voucher.amount -= 1))),
    ];
    for (label, bend) in bends {
        let before = stage.counter(&format!("chat.payment_refused.{label}")).await;
        let mut job = Job::new(&stage, &mut buyer, 20).await;
        let payment = bend(&job, &buyer);
        job.open(payment).await;
        job.line.refused(ErrorCode::PAYMENT).await;
        stage.counted(&format!("chat.payment_refused.{label}"), before + 1).await;
        stage.idle().await;
    }
    stage.engine_heard_nothing();
    assert_eq!(stage.running().await, 0);
    let owed = stage.worker.node.tabs().sold_to(&buyer.id()).expect("the store answers");
    assert_eq!(owed.owed(), MicroUsd(0), "nothing is owed for nothing");
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_that_stops_paying_gets_one_piece_and_the_engine_stops() {
    let mut stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let mut job = Job::new(&stage, &mut buyer, LONG).await;
    let beforehand = job.beforehand(&buyer);
    job.open(Some(beforehand.clone())).await;
    let began = clock::instant();
    let (receipt, tokens) = job.line.receipt().await;
    let took = began.elapsed();
    let worth = receipt.price.cost(0, tokens).expect("small");
    let token = receipt.price.cost(0, 1).expect("small");
    assert!(worth.0 <= job.piece().0 + token.0, "{tokens} tokens were delivered unpaid");
    assert!(took >= deadline::VOUCHER, "it was waited for: {took:?}");
    assert_eq!(receipt.paid.min(job.input()), receipt.paid);
    // It may have come to its end meanwhile.
    let over = |event| matches!(event, EngineEvent::Cancelled { .. } | EngineEvent::Finished { .. });
    stage.engine("the engine is let go", over).await;
    // It signs what it got, and owes that; with a signature it has the amount on its tab.
    job.line.countersign(&buyer.key, receipt.digest()).await;
    stage.counted("chat.acknowledged", 1).await;
    stage.counted("chat.payment_refused.none", 1).await;
    stage.counted("chat.ended.unpaid", 1).await;
    stage.idle().await;
    let tab = stage.worker.node.tabs().sold_to(&buyer.id()).expect("the store answers");
    assert_eq!((tab.settled(), tab.promised()), (receipt.amount, u128::from(beforehand.paid.0)));
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voucher_that_is_shown_again_pays_nothing_again() {
    let stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let mut job = Job::new(&stage, &mut buyer, LONG).await;
    let first = job.beforehand(&buyer);
    job.open(Some(first.clone())).await;
    assert!(matches!(job.line.next().await, Frame::Opened(_)));
    assert!(matches!(job.line.next().await, Frame::Delta(_)));
    // To say the same again is to say that one is there; to claim more with it is a lie.
    job.pay(first.clone()).await;
    job.pay(Payment { paid: MicroUsd(first.paid.0 + 1), ..first }).await;
    let (receipt, tokens) = job.line.receipt().await;
    assert!(receipt.price.cost(0, tokens).expect("small") <= MicroUsd(job.piece().0 + 1));
    stage.counted("chat.payment_refused.not_covered", 1).await;
    stage.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vouchers_that_pay_next_to_nothing_are_looked_at_only_so_often() {
    let stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    // No more tokens than a piece: nothing else ends the job.
    let mut job = Job::new(&stage, &mut buyer, 64).await;
    let mut paid = job.beforehand(&buyer);
    job.open(Some(paid.clone())).await;
    assert!(matches!(job.line.next().await, Frame::Opened(_)));
    // Eight and one for sixteen tokens each, of which one came with the beginning.
    for _ in 0..12 {
        let more = MicroUsd(paid.paid.0 + 1);
        paid = buyer.promises.pay(&job.accept.winner, job.accept.job, more, MicroUsd(1)).expect("signed");
        job.pay(paid.clone()).await;
    }
    stage.counted("chat.payment_refused.too_many", 1).await;
    stage.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_pays_piece_by_piece_gets_the_whole_answer_and_owes_its_amount() {
    let stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let mut job = Job::new(&stage, &mut buyer, LONG).await;
    let mut paid = job.beforehand(&buyer);
    job.open(Some(paid.clone())).await;
    let Frame::Opened(opened) = job.line.next().await else { panic!("not opened") };
    assert_eq!(opened.chunk, Some(limits::CHUNK_TOKENS));
    let (input, budget) = (opened.input_tokens, job.deal.offer.budget);
    let (mut vouchers, mut tokens) = (1, 0);
    let receipt = loop {
        match job.line.next().await {
            Frame::Delta(delta) => {
                tokens = delta.tokens;
                let due = job.accept.price.cost(input, (tokens / 64 + 1) * 64).expect("small").min(budget);
                let most = job.accept.price.cost(input, LONG).expect("small");
                let due = due.min(most);
                if due > paid.paid {
                    let more = MicroUsd(due.0 - paid.paid.0);
                    paid = buyer.promises.pay(&job.accept.winner, job.accept.job, due, more).expect("signed");
                    job.pay(paid.clone()).await;
                    vouchers += 1;
                }
            }
            Frame::Usage(usage) => assert_ne!(usage.finish, FinishReason::UNPAID),
            Frame::Receipt(bytes) => break super::rogue::read_receipt(&bytes),
            other => panic!("unexpected {}", other.label()),
        }
    };
    assert!(vouchers <= 2 + tokens / limits::CHUNK_TOKENS + 1, "{vouchers} vouchers for {tokens} tokens");
    assert!(receipt.paid <= paid.paid && receipt.amount <= paid.paid);
    job.line.countersign(&buyer.key, receipt.digest()).await;
    stage.counted("chat.acknowledged", 1).await;
    stage.idle().await;
    let tab = stage.worker.node.tabs().sold_to(&buyer.id()).expect("the store answers");
    assert_eq!((tab.settled(), tab.promised()), (receipt.amount, u128::from(paid.paid.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credit_there_is_no_bid_and_no_job_and_with_some_there_is() {
    let engine = EngineServer::start(EngineOptions::default()).await.expect("an engine");
    let stage = Stage::with_slots(&engine.url(), SLOTS).await;
    let tabs = stage.worker.node.tabs();
    tabs.set_credit(Default::default());
    let (events, mut heard) = tokio::sync::mpsc::channel(16);
    let (_never, mut cancel) = tokio::sync::watch::channel(false);
    tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let order = || infernet_testnet::demo::order(super::MODEL, "Tell me a story about a fox.", 8);
    let refused = soon("an answer", stage.honest.node.buyer().chat(order(), &events, &mut cancel)).await;
    let refused = refused.expect_err("nobody gives it credit").to_string();
    assert!(refused.contains("credit"), "{refused}");
    stage.counted("no_bid.no_credit", 1).await;
    let buyer = stage.honest.node.id();
    tabs.set_credit(infernet_node::settlement::tabs::Credit {
        limits: [(buyer, MicroUsd(1_000_000))].into(),
        ..Default::default()
    });
    let report =
        soon("an answer", stage.honest.node.buyer().chat(order(), &events, &mut cancel)).await.expect("it has credit now");
    stage.idle().await;
    let receipt = report.receipt.expect("a receipt");
    let tab = tabs.sold_to(&buyer).expect("the store answers");
    assert_eq!(tab.owed(), receipt.amount());
    assert!(tab.promised() >= receipt.amount().0.into());
    let cleared = tabs.clear(&buyer, receipt.amount()).await.expect("kept");
    assert_eq!((cleared.owed(), cleared.cleared()), (MicroUsd(0), receipt.amount()), "it has paid");
}

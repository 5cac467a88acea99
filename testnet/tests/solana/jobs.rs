//! Jobs on a tranche: a real buyer and a real worker that gives no credit, an engine with a script, and Solana's runtime.

use crate::{FAST, Scene};
use infernet_node::{
    buyer::ChatError,
    report::ChatReport,
    settlement::{
        solana::{
            account::Account,
            book::{Book, Bought, FIRST_STEP, Means, NotBegun, NotDropped, WALLETS_STEP, Wanted, together},
            desk::Desk,
            key::SolanaKey,
            payee::check_paid,
            payment::{Payment, Stage},
            tranches::{NotBought, Tranches},
            transaction::{Address, Asset, Order, Transfer, TxSignature},
            verify::Expected,
        },
        tabs::Credit,
    },
    store::{self, Store},
};
use infernet_testnet::{
    cluster::{Member, MemberSpec, Sells, eventually},
    demo::order,
    scripted::{CHAT_MODEL, ScriptedEngine},
    svm::Faults,
};
use infernet_wire::{
    codec,
    id::NodeId,
    key::NodeKey,
    money::MicroUsd,
    solana::{Coin, SolanaTerms, Tranche, tranche_hash, units},
    topic::NetworkId,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

const SOON: Duration = Duration::from_secs(60);
/// Enough for some jobs of the script.
const TRANCHE: MicroUsd = MicroUsd(50_000);

/// Which both use.
fn account(scene: &Scene, coin: Coin, tranche: MicroUsd) -> Account {
    Account {
        rpc: vec![scene.nodes[0].url().parse().expect("a URL")],
        genesis: scene.cluster.genesis(),
        coin,
        tranche,
        unit_price: 0,
        payout: Some(scene.payee),
        rules: FAST,
        poll: Duration::from_millis(20),
    }
}

fn network() -> NetworkId {
    infernet_testnet::cluster::NETWORK.parse().expect("a name")
}

/// Pays by this alone; its transaction.
async fn pays(scene: &Scene, transfer: Transfer) -> TxSignature {
    let (order, mut payment) = (Order { transfers: vec![transfer], unit_price: 0 }, Payment::default());
    scene.wallet().advance(&order, &mut payment, &mut crate::keeps).await.expect("sent");
    payment.attempts[0].signature
}

/// What a buyer has bought, in a home that outlives its processes.
struct Books<'a> {
    scene: &'a Scene,
    _home: TempDir,
    store: Arc<dyn Store>,
    means: Means,
}

impl<'a> Books<'a> {
    fn new(scene: &'a Scene, unit_price: u64) -> Self {
        let (home, network) = (tempfile::tempdir().expect("a folder"), network());
        let store = store::open(home.path(), &network).expect("a store");
        let buyer = NodeKey::from_bytes(&[1; 32]).expect("a key").id();
        let coin = Coin::Token { mint: scene.mint, decimals: 6 };
        Books { scene, _home: home, store, means: Means { network, buyer, coin, tranche: TRANCHE, unit_price } }
    }

    fn start(&self) -> Tranches {
        let payer = self.scene.payer.bind(&self.means.network, &self.means.buyer);
        Tranches::start(self.means.clone(), payer, self.scene.wallet(), self.store.clone()).expect("started")
    }

    /// A tranche of a worker with a wallet of its own.
    fn wants(&self, n: u8) -> Wanted {
        let worker = NodeKey::from_bytes(&[n; 32]).expect("a key").id();
        let own = SolanaKey::from_bytes(&[n; 32]).bind(&self.means.network, &worker);
        Wanted { worker, terms: SolanaTerms::new(own, self.means.coin, TRANCHE), amount: TRANCHE }
    }

    /// In a process of its own: its tasks end with it.
    fn in_a_process(&self, act: impl AsyncFnOnce(Tranches) + Send) {
        std::thread::scope(|scope| {
            let process = scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(async { act(self.start()).await });
            });
            tokio::task::block_in_place(|| process.join().expect("no panic"));
        });
    }
}

/// A buyer and a worker, both with a wallet, and nobody else.
struct Market {
    scene: Scene,
    _engine: ScriptedEngine,
    worker: Member,
    buyer: Member,
}

impl Market {
    async fn new() -> Self {
        let scene = Scene::new(1).await;
        let coin = Coin::Token { mint: scene.mint, decimals: 6 };
        Self::at(scene, coin, TRANCHE).await
    }

    /// Both pay and are paid in `coin`.
    async fn at(scene: Scene, coin: Coin, tranche: MicroUsd) -> Self {
        let engine = ScriptedEngine::start().await.expect("an engine");
        let worker = MemberSpec::worker(Vec::new(), Sells::new(engine.url(), 1_000_000, 10_000_000, 2));
        let worker = Member::start(worker).await.expect("a worker");
        worker.node.tabs().set_credit(Credit::default());
        let buyer = Member::start(MemberSpec::buyer(worker.addresses().await)).await.expect("a buyer");
        let account = account(&scene, coin, tranche);
        worker.node.use_solana(account.clone(), &SolanaKey::from_bytes(&[40; 32])).expect("a desk");
        buyer.node.use_solana(account, &scene.payer).expect("a desk");
        let market = Market { scene, _engine: engine, worker, buyer };
        market.buyer.knows(CHAT_MODEL, 1, SOON).await.expect("heard");
        let heard = || async { market.buyer.node.tabs().solana().terms_of(&market.worker.node.id()).is_some() };
        eventually("the ad with the worker's terms", SOON, heard).await.expect("heard");
        market
    }

    /// A worker's, which is paid there.
    fn account(&self, payout: Option<Address>) -> Account {
        let coin = Coin::Token { mint: self.scene.mint, decimals: 6 };
        Account { payout, ..account(&self.scene, coin, TRANCHE) }
    }

    fn worker_id(&self) -> NodeId {
        self.worker.node.id()
    }

    async fn job(&self) -> Result<ChatReport, ChatError> {
        let (events, mut heard) = mpsc::channel(64);
        let (_never, mut cancel) = watch::channel(false);
        let role = self.buyer.node.buyer().clone();
        let asked = tokio::spawn(async move { role.chat(order(CHAT_MODEL, "Go.", 16), &events, &mut cancel).await });
        while heard.recv().await.is_some() {}
        tokio::time::timeout(SOON, asked).await.expect("an end").expect("no panic")
    }

    /// Buys a tranche, and waits until it is paid.
    async fn buys(&self) -> u64 {
        let desk = self.buyer.node.tabs().solana();
        let number = desk.buy(self.worker_id(), None).await.expect("begun");
        self.paid().await;
        number
    }

    async fn paid(&self) {
        let desk = self.buyer.node.tabs().solana();
        let _clock = self.scene.cluster.tick(1, Duration::from_millis(2));
        let paid = || async { desk.to_show(&self.worker_id()).is_some() };
        eventually("the tranche to be final", SOON, paid).await.expect("final");
    }

    fn prepayments(&self) -> u64 {
        self.worker.node.tabs().sold_to(&self.buyer.node.id()).expect("a tab").prepayments()
    }
}

#[tokio::test]
async fn a_job_without_a_tranche_is_refused_and_with_one_it_runs_on_it() {
    let market = Market::new().await;
    let refused = market.job().await.expect_err("no credit");
    assert!(refused.to_string().contains("no credit"), "{refused}");
    assert_eq!(market.buys().await, 1);
    assert_eq!(market.scene.paid(), 50_000, "to the cold address");
    let report = market.job().await.expect("runs");
    assert!(report.receipt.is_some(), "{report:?}");
    assert_eq!(market.prepayments(), 1);
    // It is shown no more, and pays for the next job too.
    assert_eq!(market.buyer.node.tabs().solana().to_show(&market.worker_id()), None);
    market.job().await.expect("runs");
    assert_eq!((market.prepayments(), market.scene.cluster.landed().len()), (1, 1));
    // Then the next can be bought.
    assert_eq!(market.buys().await, 2);
    market.job().await.expect("runs");
    assert_eq!((market.prepayments(), market.scene.paid()), (2, 100_000));
}

#[tokio::test]
async fn there_is_one_tranche_at_a_time_and_only_of_workers_that_take_them() {
    let market = Market::new().await;
    market.buys().await;
    let again = market.buyer.node.tabs().solana().buy(market.worker_id(), None).await.expect_err("one at a time");
    assert!(matches!(again, NotBought::NotBegun(NotBegun::Open { number: 1, .. })), "{again}");
    let unknown = market.buyer.node.tabs().solana().buy(market.buyer.node.id(), None).await.expect_err("sells nothing");
    assert!(matches!(unknown, NotBought::NotTaken), "{unknown}");
    // What an ad would like beyond our own tranche is paid only if the buyer says so.
    let (dear, desk) = (NodeKey::from_bytes(&[9; 32]).expect("a key").id(), market.buyer.node.tabs().solana());
    let terms = desk.terms_of(&market.worker_id()).expect("heard");
    desk.heard(dear, Some(SolanaTerms { tranche: MicroUsd(50_001), ..terms }));
    let told = desk.buy(dear, None).await.expect_err("too dear").to_string();
    assert!(["$0.050001", "$0.050000", "name the dollars"].iter().all(|word| told.contains(word)), "{told}");
    let told = desk.buy_of(&[market.worker_id(), dear], None).await.expect_err("too dear");
    assert!(matches!(&told, NotBought::Among { worker, .. } if *worker == dear), "{told}");
    assert_eq!(market.scene.cluster.landed().len(), 1);
}

/// A worker has left the wallet that was paid, too long ago: the buyer writes it off, and the two go on with the next.
#[tokio::test]
async fn a_tranche_that_is_refused_for_good_is_written_off_and_the_next_counts() {
    let market = Market::new().await;
    market.buys().await;
    let (worker, desk) = (market.worker_id(), market.buyer.node.tabs().solana());
    let payee = market.worker.node.tabs().solana();
    (50..55).for_each(|n| assert!(payee.pay_to(SolanaKey::from_bytes(&[n; 32]).address())));
    let refused = market.job().await.expect_err("paid to nobody");
    assert!(refused.to_string().contains("goes to another account"), "{refused}");
    let tranches = desk.tranches().expect("a wallet");
    assert!(matches!(tranches.write_off(&worker, 2).await, Err(NotBought::NotDropped(NotDropped::Other(1)))));
    tranches.write_off(&worker, 1).await.expect("written off");
    desk.heard(worker, payee.terms());
    assert_eq!(market.buys().await, 2);
    market.job().await.expect("runs");
    let tab = market.worker.node.tabs().sold_to(&market.buyer.node.id()).expect("a tab");
    assert_eq!((tab.prepayments(), tab.prepaid()), (2, TRANCHE));
    let last = tranches.all().into_iter().next().expect("one worker");
    assert_eq!((last.state(), last.prepaid()), ("taken", TRANCHE));
}

/// What a dishonest buyer may show: a tranche that is not final, one of another number, of another buyer, of more than was paid, and
/// one that somebody else's key has paid.
#[tokio::test]
async fn the_worker_counts_no_tranche_but_a_paid_one_of_that_buyer() {
    let market = Market::new().await;
    let (scene, buyer) = (&market.scene, market.buyer.node.id());
    let network = network();
    let payer = scene.payer.bind(&network, &buyer);
    let hash = |number, amount| tranche_hash(&network, &buyer, &market.worker_id(), number, amount, None).0;
    let desk = market.worker.node.tabs().solana();
    let count = async |who: &NodeId, tranche: Tranche| {
        desk.count(market.worker.node.tabs(), who, &tranche).await.map_err(|error| (error.label(), error.retryable()))
    };
    let pay = async |number: u64, amount: MicroUsd| {
        let transfer = Transfer { hash: hash(number, amount), ..scene.transfer(units(amount, 6).expect("fits")) };
        Tranche { number, amount, transaction: pays(scene, transfer).await, payer, rate: None }
    };
    let first = pay(1, TRANCHE).await;
    assert_eq!(count(&buyer, first).await, Err(("not_final", true)));
    scene.cluster.advance(40);
    let stranger = market.worker.node.id();
    assert_eq!(count(&stranger, first).await, Err(("bad_binding", false)), "the key is not that buyer's");
    let theirs = Tranche { payer: scene.payer.bind(&network, &stranger), ..first };
    assert_eq!(count(&stranger, theirs).await, Err(("not_paid", false)), "the memo names another buyer");
    assert_eq!(count(&buyer, Tranche { number: 2, ..first }).await, Err(("not_paid", false)), "its number is in the memo");
    assert_eq!(count(&buyer, Tranche { amount: MicroUsd(60_000), ..first }).await, Err(("not_paid", false)));
    let other = SolanaKey::from_bytes(&[41; 32]).bind(&network, &buyer);
    assert_eq!(count(&buyer, Tranche { payer: other, ..first }).await, Err(("not_paid", false)), "another key paid");
    assert_eq!(market.prepayments(), 0);
    assert_eq!(count(&buyer, first).await, Ok(()));
    // Again and again, at once too: it is counted once.
    let (a, b) = tokio::join!(count(&buyer, first), count(&buyer, first));
    assert_eq!((a, b, market.prepayments()), (Ok(()), Ok(()), 1));
    let left = market.worker.node.tabs().credit_left(&buyer);
    assert_eq!(left, TRANCHE);
    let replayed = Tranche { number: 2, ..first };
    assert_eq!(count(&buyer, replayed).await, Err(("not_paid", false)), "one transfer pays one tranche");
    let second = pay(2, MicroUsd(7)).await;
    scene.cluster.advance(40);
    let (a, b) = tokio::join!(count(&buyer, second), count(&buyer, second));
    assert_eq!((a, b, market.prepayments()), (Ok(()), Ok(()), 2));
    assert_eq!(market.worker.node.tabs().credit_left(&buyer), MicroUsd(50_007));
    // A worker whose node of the chain is silent says so in time.
    scene.nodes[0].set(Faults { silent: true, ..Faults::default() });
    let began = tokio::time::Instant::now();
    let third = Tranche { number: 3, ..second };
    assert_eq!(count(&buyer, third).await, Err(("chain", true)));
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// The buyer's process ends while a payment is on its way, and the next with the same store goes on with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tranche_on_its_way_goes_on_after_a_restart() {
    let scene = Scene::new(1).await;
    let books = Books::new(&scene, 0);
    let worker = NodeKey::from_bytes(&[2; 32]).expect("a key").id();
    let terms = SolanaTerms { address: scene.payee, proof: None, mint: scene.mint, decimals: 6, tranche: TRANCHE, rate: None };
    let wanted = [Wanted { worker, terms, amount: TRANCHE }];
    scene.nodes[0].set(Faults { holds: true, ..Faults::default() });
    books.in_a_process(async |tranches| {
        assert_eq!(tranches.buy(&wanted).await.expect("begun"), [1]);
        let sent = || async { matches!(tranches.all()[0].payment.stage, Stage::Sent { .. }) };
        eventually("the payment to be sent", SOON, sent).await.expect("sent");
    });
    scene.nodes[0].set(Faults::default());
    assert_eq!(scene.cluster.landed().len(), 0);
    scene.cluster.release();
    let tranches = books.start();
    let _clock = scene.cluster.tick(1, Duration::from_millis(2));
    eventually("the tranche to be final", SOON, || async { tranches.to_show(&worker).is_some() }).await.expect("final");
    assert_eq!((scene.paid(), scene.cluster.landed().len()), (50_000, 1));
}

/// A SOL is worth 150 dollars.
const RATE: u64 = 6_666_667;

#[tokio::test]
async fn a_job_runs_on_a_tranche_in_sol_at_the_workers_rate() {
    let tranche = MicroUsd(200_000);
    let market = Market::at(Scene::new(1).await, Coin::Sol { rate: RATE }, tranche).await;
    let (cluster, payee) = (&market.scene.cluster, market.scene.payee);
    let desk = market.buyer.node.tabs().solana();
    let too_small = desk.buy(market.worker_id(), Some(MicroUsd(50_000))).await.expect_err("an empty wallet");
    assert!(too_small.to_string().contains("890880 lamports"), "{too_small}");
    let before = cluster.lamports(&market.scene.payer.address());
    assert_eq!(market.buys().await, 1);
    // A fifth of a dollar, rounded up, and the fee of one signature.
    assert_eq!(cluster.lamports(&payee), 1_333_334);
    assert_eq!(before - cluster.lamports(&market.scene.payer.address()), 1_333_334 + 5_000);
    assert_eq!(desk.to_show(&market.worker_id()).and_then(|shown| shown.rate), Some(RATE));
    market.job().await.expect("runs");
    let tab = market.worker.node.tabs().sold_to(&market.buyer.node.id()).expect("a tab");
    assert_eq!((tab.prepayments(), tab.prepaid()), (1, tranche));
    // A wallet that is there takes less, too.
    desk.buy(market.worker_id(), Some(MicroUsd(50_000))).await.expect("begun");
    market.paid().await;
    assert_eq!(cluster.lamports(&payee), 1_333_334 + 333_334);
}

/// The worker's price may have changed on the way, and a buyer may claim any rate: what was paid counts for what it is worth.
#[tokio::test]
async fn sol_counts_for_what_was_paid_and_no_more() {
    let market = Market::at(Scene::new(1).await, Coin::Sol { rate: RATE }, MicroUsd(200_000)).await;
    let (scene, buyer) = (&market.scene, market.buyer.node.id());
    let network = network();
    let desk = market.worker.node.tabs().solana();
    let show = async |number: u64, amount: MicroUsd, rate: u64, lamports: u64| {
        let hash = tranche_hash(&network, &buyer, &market.worker_id(), number, amount, Some(rate)).0;
        let transfer = Transfer { hash, asset: Asset::Sol, amount: lamports, ..scene.transfer(1) };
        let (transaction, payer) = (pays(scene, transfer).await, scene.payer.bind(&network, &buyer));
        scene.cluster.advance(40);
        let tranche = Tranche { number, amount, transaction, payer, rate: Some(rate) };
        let counted = desk.count(market.worker.node.tabs(), &buyer, &tranche).await;
        let tab = market.worker.node.tabs().sold_to(&buyer).expect("a tab");
        (counted.map_err(|error| error.label()), tab.prepaid())
    };
    let dollar = MicroUsd(1_000_000);
    assert_eq!(show(1, dollar, RATE, RATE - 1).await, (Err("not_paid"), MicroUsd(0)), "less than it says");
    assert_eq!(show(1, dollar, 1, 2_000_000).await, (Err("bad_tranche"), MicroUsd(0)), "a lamport is no dollar");
    assert_eq!(show(1, dollar, RATE / 2, RATE / 2).await, (Ok(()), MicroUsd(499_999)), "half the rate, half of it");
    assert_eq!(show(2, dollar, RATE * 2, RATE * 2).await, (Ok(()), MicroUsd(1_499_999)), "no more than it says");
    // A token is not SOL, whatever it is worth.
    let transfer =
        Transfer { hash: tranche_hash(&network, &buyer, &market.worker_id(), 3, dollar, None).0, ..scene.transfer(9) };
    let (payer, transaction) = (scene.payer.bind(&network, &buyer), pays(scene, transfer).await);
    let token = Tranche { number: 3, amount: dollar, transaction, payer, rate: None };
    let told = desk.count(market.worker.node.tabs(), &buyer, &token).await.expect_err("not taken").to_string();
    assert!(told.contains("SOL"), "{told}");
}

/// Seven workers, five of whose tranches fit one transaction; the process ends while they are on their way, and the next goes on.
#[tokio::test(flavor = "multi_thread")]
async fn tranches_of_several_workers_share_a_transaction_and_are_paid_once() {
    let scene = Scene::new(1).await;
    let books = Books::new(&scene, 10_000);
    let Means { network, buyer: us, coin, .. } = &books.means;
    let wanted: Vec<Wanted> = (50..57).map(|n| books.wants(n)).collect();
    scene.nodes[0].set(Faults { holds: true, ..Faults::default() });
    books.in_a_process(async |tranches| {
        assert_eq!(tranches.buy(&wanted).await.expect("begun"), [1; 7]);
        let is_sent = |payment: &Payment| matches!(payment.stage, Stage::Sent { .. });
        let sent = || async { tranches.all().iter().all(|bought| is_sent(&bought.payment)) };
        eventually("the payments to be sent", SOON, sent).await.expect("sent");
        let again = tranches.buy(&wanted[6..]).await.expect_err("one at a time");
        assert!(matches!(again, NotBought::NotBegun(NotBegun::Open { number: 1, .. })), "{again}");
    });
    scene.nodes[0].set(Faults::default());
    scene.cluster.release();
    let tranches = books.start();
    let _clock = scene.cluster.tick(1, Duration::from_millis(2));
    let paid = || async { wanted.iter().all(|one| tranches.to_show(&one.worker).is_some()) };
    eventually("the tranches to be final", SOON, paid).await.expect("final");
    let signatures: BTreeSet<_> =
        wanted.iter().filter_map(|one| tranches.to_show(&one.worker)).map(|tranche| tranche.transaction).collect();
    assert_eq!((signatures.len(), scene.cluster.landed().len()), (2, 2), "five and two");
    assert!(wanted.iter().all(|one| scene.cluster.tokens(&scene.mint, &one.terms.address) == TRANCHE.0));
    // Each worker finds its own in it.
    for Wanted { worker, terms, .. } in &wanted {
        let tranche = tranches.to_show(worker).expect("paid");
        let transfer =
            Transfer { to: terms.address, asset: (*coin).into(), amount: TRANCHE.0, hash: tranche.hash(network, us, worker).0 };
        let expected = Expected { payer: scene.payer.address(), transfer };
        check_paid(&scene.rpcs(), &expected, &[], tranche.transaction).await.expect("paid");
    }
    // All or none.
    let stranger = SolanaKey::from_bytes(&[60; 32]).bind(network, us);
    let forged = Wanted { terms: SolanaTerms::new(stranger, *coin, TRANCHE), ..wanted[0] };
    let none = tranches.buy(&[forged, wanted[1]]).await.expect_err("another's wallet");
    assert!(matches!(&none, NotBought::Among { worker, .. } if *worker == wanted[0].worker), "{none}");
    assert_eq!(scene.cluster.landed().len(), 2);
}

/// The worker names another wallet while a tranche is on its way to the one before.
#[tokio::test]
async fn a_tranche_to_the_wallet_before_still_counts() {
    let market = Market::new().await;
    market.buys().await;
    let rail = market.worker.node.rails().named("solana").expect("a rail");
    let other = SolanaKey::from_bytes(&[42; 32]).address();
    rail.pay_to("0x12").expect_err("no address");
    rail.pay_to(&other.to_string()).expect("an address");
    assert_eq!(market.worker.node.tabs().solana().terms().map(|terms| (terms.address, terms.proof)), Some((other, None)));
    market.job().await.expect("runs");
    assert_eq!((market.prepayments(), market.scene.paid()), (1, TRANCHE.0));
    assert_eq!(market.scene.nodes[0].asked("getTransaction"), 1, "once for all wallets");
    let told = market.buyer.node.rails().holdings().await;
    let [("solana", holdings)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&holdings.trouble, holdings.balances.len()), (&None, 2), "{holdings:?}");
    assert_eq!(holdings.balances[1].worth, Some(MicroUsd(crate::TOKENS - TRANCHE.0)));
}

/// The worker names another wallet, and starts again, before the job that shows the tranche.
#[tokio::test]
async fn a_tranche_to_the_wallet_before_counts_after_a_restart() {
    let market = Market::new().await;
    market.buys().await;
    let (scene, worker, buyer) = (&market.scene, market.worker_id(), market.buyer.node.id());
    let tranche = market.buyer.node.tabs().solana().to_show(&worker).expect("paid");
    let network = network();
    let (homes, key) = ([(); 2].map(|()| tempfile::tempdir().expect("a folder")), SolanaKey::from_bytes(&[40; 32]));
    let [store, fresh] = [0, 1].map(|n| store::open(homes[n].path(), &network).expect("a store"));
    let open = |store: &Arc<dyn Store>, payout| {
        let desk = Desk::default();
        let account = market.account(payout);
        account.open(&desk, &key, (worker, &network), store.clone(), true).expect("a desk");
        desk
    };
    let count = async |desk: Desk| desk.count(market.worker.node.tabs(), &buyer, &tranche).await.map_err(|error| error.label());
    let [second, third] = [42, 43].map(|n| Some(SolanaKey::from_bytes(&[n; 32]).address()));
    for (payout, named) in [(Some(scene.payee), 1), (second, 2), (None, 2), (third, 3), (third, 3)] {
        drop(open(&store, payout));
        let kept = || async {
            let steps = store.steps(WALLETS_STEP).expect("steps");
            steps.first().is_some_and(|(_, bytes)| codec::decode::<Vec<Address>>(bytes).is_ok_and(|kept| kept.len() == named))
        };
        eventually("the wallets to be kept", SOON, kept).await.expect("kept");
    }
    assert_eq!(count(open(&fresh, third)).await, Err("not_paid"), "never paid there");
    assert_eq!((count(open(&store, third)).await, market.prepayments()), (Ok(()), 1));
}

/// The process ended when one of two copies of what was signed was on disk: the other has it too before the chain is asked anything.
#[tokio::test]
async fn copies_of_a_payment_are_the_same_before_it_goes_on() {
    let scene = Scene::new(1).await;
    let books = Books::new(&scene, 0);
    let wanted = [50, 51].map(|n| books.wants(n));
    let mut book = Book::default();
    let batch = together(book.next(&books.means, &wanted).expect("begun"), |_| true).remove(0);
    let (order, mut signed) = (batch[0].1.order.clone(), Payment::default());
    scene.nodes[0].set(Faults { drops: true, ..Faults::default() });
    scene.wallet().advance(&order, &mut signed, &mut crate::keeps).await.expect("signed");
    scene.nodes[0].set(Faults { silent: true, ..Faults::default() });
    for ((step, bought), payment) in batch.into_iter().zip([signed.clone(), Payment::default()]) {
        let (step, bytes) = book.put(step, Bought { payment, ..bought });
        books.store.keep_step(step, bytes).await.expect("kept");
    }
    let tranches = books.start();
    let same = || async {
        let us = (&books.means.network, &books.means.buyer);
        let kept = Book::recover(us, books.store.steps(FIRST_STEP).expect("steps"));
        kept.all().all(|bought| bought.payment.attempts == signed.attempts)
    };
    eventually("both copies to be the same", SOON, same).await.expect("kept");
    assert_eq!(scene.cluster.landed().len(), 0);
    scene.nodes[0].set(Faults::default());
    let _clock = scene.cluster.tick(1, Duration::from_millis(2));
    let paid = || async { wanted.iter().all(|one| tranches.to_show(&one.worker).is_some()) };
    eventually("both to be final", SOON, paid).await.expect("final");
    assert!(wanted.iter().all(|one| scene.cluster.tokens(&scene.mint, &one.terms.address) == TRANCHE.0));
    assert_eq!(scene.cluster.landed().len(), 1);
}

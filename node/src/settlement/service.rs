//! This node's account on an EVM chain while the node runs: one task that looks at the chain, wants what is due, and drives one step at a
//! time. Thin: [`super::steps`] says what is under way, [`due`] what is due, [`super::evm::step`] what a transaction does next.
//!
//! An [`Account`] is the handle: the control socket asks it for deposits, exits and payouts. All it does is to want steps, which are on the
//! disk when it answers. A chain's node that is away, on another chain, or without our contract holds everything up and loses nothing.

use super::{
    channels::{Known, least, turn},
    evm::{
        EvmSettings,
        contract::{self, CHALLENGE_SECS, CLOSED},
        rpc::{Rpc, RpcError},
        sole::Sole,
        step::{Next, Step},
        wallet::{EvmError, Wallet},
    },
    rail::REPORT,
    steps::{ALL, CHANNELS, Entry, FOREIGN, Purpose, Steps, Wanted},
    tab::{PayeeTab, units},
    tabs::Tabs,
    watch::Watch,
};
use crate::{
    buyer::Buyer,
    chat::client::Cause,
    clock,
    store::{Store, StoreError},
};
use infernet_wire::{
    chat::{Closed, Closing},
    evm::EvmAddress,
    id::{ChannelId, EvmSignature, NodeId},
    key::NodeKey,
    money::MicroUsd,
    settle::EvmTerms,
    time::UnixMillis,
    voucher::{ChannelTerms, SignedVoucher},
};
use serde_bytes::ByteBuf;
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

/// Between two looks: the pace of fast chains.
pub const POLL: Duration = Duration::from_secs(4);
/// What the node wants by itself and has failed is tried again after so long.
const RETRY_MS: u64 = 60_000;
/// Seconds that a buyer has to send what both have signed, until its worker redeems: as many as it would have on the slow way out.
const TO_CLOSE: u64 = CHALLENGE_SECS;
/// Channels outside the book that one payout asks for; the next goes on with the others. It takes some seconds.
const MAX_OUTSIDE: usize = 64;

/// How an account is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The chain.
    pub evm: EvmSettings,
    /// Unredeemed money at which a channel is redeemed; 0: never.
    pub payout_at: MicroUsd,
    /// Where payouts go.
    pub payout_to: Option<EvmAddress>,
    /// Between two looks at the chain.
    pub poll: Duration,
}

/// Why nothing is done. Nothing has begun, but for redemptions of a payout that were asked for before the chain failed: those go on.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The chain.
    #[error(transparent)]
    Evm(#[from] EvmError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The chain was not read yet, or can't be.
    #[error("the chain is not ready: {0}")]
    NotReady(String),
    /// Too little money.
    #[error("{account} has {found} units of {what}, and {needed} are needed: send some there first")]
    TooLittle {
        /// Whose.
        account: EvmAddress,
        /// Of what.
        what: String,
        /// How much it has.
        found: u128,
        /// How much it takes.
        needed: u128,
    },
    /// A node has no channel with itself.
    #[error("that is this node: name the worker that is to be paid")]
    Ourselves,
    /// The worker does not sign.
    #[error("{0}; without the worker, the slow way out is --exit")]
    Close(#[from] Box<Cause>),
    /// There is none.
    #[error("there is no open channel to that worker; `infernet wallet balance` shows all")]
    NoChannel,
    /// The coin has no price here.
    #[error("this node knows no price of the chain's coin: write all instead of an amount")]
    NoPrice,
    /// The amount.
    #[error("write at least a cent: less is not worth the gas to redeem it")]
    Dust,
    /// Too many steps.
    #[error("a thousand steps are under way already: see `infernet payout list`")]
    Full,
}

/// What the task last saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Whether the chain was read, and nothing holds it up.
    pub ready: bool,
    /// Why not.
    pub error: Option<String>,
    /// Why the step whose turn it is waits.
    pub waits: Option<String>,
    /// The newest block; 0 before the first look.
    pub head: u64,
    /// The last block that was read for new channels.
    pub read: Option<u64>,
}

/// A handle; cheap to clone.
#[derive(Clone)]
pub struct Account {
    shared: Arc<Shared>,
}

struct Shared {
    wallet: Wallet,
    terms: EvmTerms,
    store: Arc<dyn Store>,
    tabs: Tabs,
    payout_at: MicroUsd,
    payout_to: Mutex<Option<EvmAddress>>,
    steps: Mutex<Steps>,
    state: Mutex<State>,
    wake: Notify,
    poll: Duration,
    sole: Mutex<Sole>,
    /// The last channel outside the book that a payout asked for.
    outside: Mutex<Option<ChannelId>>,
    started: UnixMillis,
    /// An allowance is for the deposit right after it: nobody else's comes in between.
    depositing: tokio::sync::Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete before the lock is given back.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Account {
    /// Goes on where the journal says, with the account of `key`. The task runs until it is aborted; what it has begun goes on after the
    /// next start.
    pub fn spawn(
        settings: Settings,
        key: NodeKey,
        store: Arc<dyn Store>,
        tabs: Tabs,
    ) -> Result<(Self, JoinHandle<()>), AccountError> {
        let Settings { evm, payout_at, payout_to, poll } = settings;
        let rpc = Rpc::new(evm.rpc.clone(), evm.terms.chain).map_err(EvmError::from)?;
        let wallet = Wallet::new(rpc, key, evm.rules(), poll);
        let (steps, others): (Vec<_>, Vec<_>) =
            records(&*store)?.into_iter().partition(|(number, _)| (1..CHANNELS).contains(number));
        let (steps, unreadable) = Steps::recover((evm.terms.chain, evm.terms.contract), wallet.address(), steps);
        if unreadable > 0 {
            warn!(unreadable, "steps in the journal can't be read: what they were for does not go on");
        }
        let watch = Watch::new(wallet.clone(), evm.terms, payout_at, tabs.clone(), store.clone(), &others);
        let state = State { ready: false, error: None, waits: None, head: 0, read: watch.read() };
        let shared = Shared {
            wallet,
            terms: evm.terms,
            store,
            tabs,
            payout_at,
            payout_to: Mutex::new(payout_to),
            steps: Mutex::new(steps),
            state: Mutex::new(state),
            wake: Notify::new(),
            poll,
            sole: Mutex::default(),
            outside: Mutex::default(),
            started: clock::now(),
            depositing: tokio::sync::Mutex::default(),
        };
        let account = Account { shared: Arc::new(shared) };
        let task = tokio::spawn(run(account.shared.clone(), watch));
        Ok((account, task))
    }

    /// Its address.
    pub fn address(&self) -> EvmAddress {
        self.shared.wallet.address()
    }

    /// Where channels are, and what they are worth.
    pub fn terms(&self) -> EvmTerms {
        self.shared.terms
    }

    /// What the task last saw.
    pub fn state(&self) -> State {
        lock(&self.shared.state).clone()
    }

    /// All steps that are open, and the last that are not, in order.
    pub fn steps(&self) -> Vec<(u64, Entry)> {
        lock(&self.shared.steps).all().map(|(number, entry)| (number, entry.clone())).collect()
    }

    /// Where payouts go.
    pub fn payout_to(&self) -> Option<EvmAddress> {
        *lock(&self.shared.payout_to)
    }

    /// Payouts go there from now on.
    pub fn set_payout_to(&self, to: EvmAddress) {
        *lock(&self.shared.payout_to) = Some(to);
    }

    /// What it has of the coin and of the token; why not, if the chain's node does not say.
    pub async fn balances(&self) -> Result<(u128, u128), String> {
        let Shared { wallet, terms, .. } = &*self.shared;
        let asked = async {
            let us = wallet.address();
            Ok((wallet.balance(&EvmAddress::ZERO, &us).await?, wallet.balance(&terms.token, &us).await?))
        };
        let answered = timeout(REPORT, asked).await.map_err(|_| "the chain's node takes too long".to_owned())?;
        answered.map_err(|error: EvmError| error.to_string())
    }

    /// Opens a channel to `worker`, or adds to the one that there is. The numbers of the steps.
    pub async fn deposit(&self, worker: NodeId, usd: MicroUsd) -> Result<Vec<u64>, AccountError> {
        let Shared { wallet, terms, tabs, .. } = &*self.shared;
        if worker.evm_address() == wallet.address() {
            return Err(AccountError::Ourselves);
        }
        if usd < super::channels::MIN_DEPOSIT {
            return Err(AccountError::Dust);
        }
        self.ready()?;
        wallet.check_contract(&terms.contract).await?;
        let amount = units(usd, terms.rate);
        self.has(&terms.token, amount).await?;
        // Gas is paid in coin.
        self.has(&EvmAddress::ZERO, 1).await?;
        self.alone().await?;
        let _turn = self.shared.depositing.lock().await;
        let there = tabs.channels().to(&worker).into_iter().next();
        let opening = self.steps().into_iter().find_map(|(number, entry)| match entry.purpose {
            Purpose::Open { worker: to, .. } if to == worker && !entry.is_done() => Some(number),
            _ => None,
        });
        if let (None, Some(number)) = (there, opening) {
            return Ok(vec![number]);
        }
        let purpose = match there {
            Some(Known { terms, .. }) => Purpose::TopUp { channel: terms.id(), token: terms.token, amount },
            None => {
                let EvmTerms { chain, contract, token, .. } = *terms;
                let (payer, payee) = (wallet.address(), worker.evm_address());
                let terms = ChannelTerms { chain, contract, payer, payee, token, salt: clock::random() };
                Purpose::Open { worker, terms, amount }
            }
        };
        let mut wanted = Vec::new();
        if let Some(channel) = purpose.channel().filter(|_| terms.token != EvmAddress::ZERO) {
            wanted.push(self.shared.want(Purpose::Approve { token: terms.token, amount, channel }).await?);
        }
        wanted.push(self.shared.want(purpose).await?);
        Ok(wanted)
    }

    /// Wants out of all open channels to `worker`; a day later what is left comes back, by itself.
    pub async fn exit(&self, worker: NodeId) -> Result<Vec<u64>, AccountError> {
        self.ready()?;
        let mut wanted = Vec::new();
        for known in self.to(&worker) {
            wanted.push(self.shared.want(Purpose::StartExit { channel: known.terms.id() }).await?);
        }
        if wanted.is_empty() { Err(AccountError::NoChannel) } else { Ok(wanted) }
    }

    /// Ends all channels to `worker` at once, at what its jobs came to, as both sides sign it: [`Buyer::close_channel`] asks the worker.
    pub async fn close(&self, worker: NodeId, buyer: &Buyer) -> Result<Vec<u64>, AccountError> {
        self.ready()?;
        let mut wanted = Vec::new();
        for known in self.to(&worker) {
            let (ChannelTerms { chain, contract, .. }, channel) = (known.terms, known.terms.id());
            let (closed, payer) = buyer.close_channel(worker, Closing { chain, contract, channel }).await.map_err(Box::new)?;
            wanted.push(self.end(channel, &closed, payer).await?);
        }
        if wanted.is_empty() { Err(AccountError::NoChannel) } else { Ok(wanted) }
    }

    /// Ends a channel as its worker has signed it, and `payer` besides. The number of the step.
    pub async fn end(&self, channel: ChannelId, closed: &Closed, payer: EvmSignature) -> Result<u64, AccountError> {
        self.shared.want(Purpose::Close { channel, amount: closed.amount, payer, payee: closed.signature }).await
    }

    /// All channels to `worker` that are not on their way out; those whose end is signed are among them, since it may have gone wrong.
    fn to(&self, worker: &NodeId) -> Vec<Known> {
        let (us, them) = (self.address(), worker.evm_address());
        let ours = |known: &Known| known.terms.payer == us && known.terms.payee == them && known.exit_at == 0;
        self.shared.tabs.channels().all().into_iter().filter(ours).collect()
    }

    /// Sends so much of the channels' token, or of the coin, to `to`; `None`: all that is there when its turn comes.
    pub async fn withdraw(&self, to: EvmAddress, usd: Option<MicroUsd>, coin: bool) -> Result<Vec<u64>, AccountError> {
        let terms = &self.shared.terms;
        let token = if coin { EvmAddress::ZERO } else { terms.token };
        let amount = match usd {
            None => ALL,
            Some(_) if token != terms.token => return Err(AccountError::NoPrice),
            Some(usd) => units(usd, terms.rate),
        };
        if amount != ALL {
            self.has(&token, amount).await?;
        }
        self.alone().await?;
        Ok(vec![self.shared.want(Purpose::Withdraw { to, token, amount }).await?])
    }

    /// Redeems whatever vouchers say beyond what was redeemed; then all of the token goes to the payout address, if there is one.
    pub async fn payout(&self) -> Result<Vec<u64>, AccountError> {
        self.ready()?;
        let shared = &self.shared;
        let vouchers = shared.vouchers().await?;
        let mut wanted = shared.outside(&vouchers).await?;
        for known in shared.tabs.channels().all() {
            let voucher = vouchers.get(&known.terms.id()).map(|sold| &sold.voucher);
            let worth = voucher.filter(|voucher| unredeemed(&known, voucher) > 0);
            if let Some(purpose) = worth.and_then(|voucher| redeems(&known.terms.payer, voucher)) {
                wanted.push(shared.want(purpose).await?);
            }
        }
        if let Some(to) = self.payout_to() {
            wanted.push(shared.want(Purpose::Withdraw { to, token: shared.terms.token, amount: ALL }).await?);
        }
        Ok(wanted)
    }

    fn ready(&self) -> Result<(), AccountError> {
        let state = self.state();
        let why = || state.error.unwrap_or_else(|| "it is being read; try again in a moment".into());
        if state.ready { Ok(()) } else { Err(AccountError::NotReady(why())) }
    }

    /// Whether nobody else uses the account. If the chain's node does not say, what is wanted begins when it does. What the node wants by
    /// itself is not held up: it is due, and each step happens at most once whoever else sends.
    async fn alone(&self) -> Result<(), AccountError> {
        let Shared { wallet, terms, steps, sole, .. } = &*self.shared;
        let Ok(found) = wallet.used().await else { return Ok(()) };
        let last = lock(steps).last_nonce(terms.chain);
        lock(sole).check(wallet.address(), last, found, clock::now()).map_err(EvmError::from)?;
        Ok(())
    }

    async fn has(&self, token: &EvmAddress, needed: u128) -> Result<(), AccountError> {
        let account = self.address();
        let found = self.shared.wallet.balance(token, &account).await?;
        if found >= needed {
            return Ok(());
        }
        let what = if *token == EvmAddress::ZERO { "the chain's coin".into() } else { format!("the token {token}") };
        Err(AccountError::TooLittle { account, what, found, needed })
    }
}

/// All records of ours: those of another chain come after [`FOREIGN`].
pub(super) fn records(store: &dyn Store) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let page = store.steps(from)?;
        let Some((last, _)) = page.last() else { return Ok(all) };
        let last = *last;
        all.extend(page.into_iter().filter(|(number, _)| *number < FOREIGN));
        if last >= FOREIGN {
            return Ok(all);
        }
        from = last + 1;
    }
}

/// What a voucher would still pay.
pub fn unredeemed(known: &Known, voucher: &SignedVoucher) -> u128 {
    if known.exit_at == CLOSED { 0 } else { voucher.amount.min(known.deposit).saturating_sub(known.redeemed) }
}

fn redeems(payer: &EvmAddress, voucher: &SignedVoucher) -> Option<Purpose> {
    let voucher = voucher.for_contract(payer)?;
    Some(Purpose::Redeem { channel: voucher.channel, amount: voucher.amount, voucher: ByteBuf::from(voucher.encode()) })
}

/// What `us` should do about a channel at a block's `time` by itself: redeem when the payer is on the way out or `worth` units are
/// unredeemed (0: never for that), and end our own exits.
pub fn due(us: &EvmAddress, known: &Known, voucher: Option<&SignedVoucher>, worth: u128, time: u64) -> Option<Purpose> {
    let Known { terms, exit_at, closing, .. } = known;
    if terms.payer == *us {
        let over = *exit_at != 0 && *exit_at != CLOSED && time >= *exit_at;
        return over.then(|| Purpose::FinishExit { channel: terms.id() });
    }
    let voucher = voucher?;
    let unredeemed = unredeemed(known, voucher);
    // What both have signed is not spoiled by a redemption, unless the payer goes another way.
    let wanted = unredeemed > 0 && (*exit_at != 0 || !closing && worth > 0 && unredeemed >= worth);
    if wanted { redeems(&terms.payer, voucher) } else { None }
}

/// The highest voucher of a channel, and since when its end is signed.
#[derive(Debug, Clone, Copy)]
struct Sold {
    voucher: SignedVoucher,
    closed: Option<UnixMillis>,
}

impl Sold {
    fn of(tab: &PayeeTab, started: UnixMillis) -> Option<Self> {
        // Older records don't say when: the buyer has its time from `started` on.
        let closed = tab.closed().map(|at| if at.0 == 0 { started } else { at });
        Some(Sold { voucher: *tab.highest()?, closed })
    }

    /// Whether the buyer had its time to send that end, at a block's `time`.
    fn is_given_up(&self, time: u64) -> bool {
        self.closed.is_some_and(|at| time >= (at.0 / 1_000).saturating_add(TO_CLOSE))
    }
}

/// Looks, wants, drives. Never ends.
async fn run(shared: Arc<Shared>, mut watch: Watch) {
    let mut checked = false;
    loop {
        let looked = shared.look(&mut watch, &mut checked).await;
        let driven = if checked { shared.drive().await } else { Ok(()) };
        let read = watch.read();
        shared.note(looked, driven, read);
        tokio::select! {
            () = sleep(shared.poll) => {}
            () = shared.wake.notified() => {}
        }
    }
}

impl Shared {
    async fn look(&self, watch: &mut Watch, checked: &mut bool) -> Result<(u64, bool), EvmError> {
        let book = self.tabs.channels();
        if !*checked {
            self.wallet.check_contract(&self.terms.contract).await?;
            book.set_means(Some(self.terms));
            *checked = true;
        }
        let looked = match self.wallet.rpc().check_chain().await {
            Ok(()) => watch.look().await,
            Err(error) => Err(error.into()),
        };
        if matches!(looked, Err(EvmError::Rpc(RpcError::WrongChain { .. }))) {
            book.set_means(None);
            *checked = false;
        }
        let ((head, time), all) = looked?;
        // An exit that is known is met whatever holds up the rest.
        self.want_due(time).await?;
        Ok((head, all?))
    }

    async fn want_due(&self, time: u64) -> Result<(), EvmError> {
        let (us, known) = (self.wallet.address(), self.tabs.channels().all());
        if known.is_empty() {
            return Ok(());
        }
        let kept = |error: StoreError| EvmError::Keep(error.to_string());
        let vouchers = self.vouchers().await.map_err(kept)?;
        let worth = units(self.payout_at, self.terms.rate);
        let early = UnixMillis(clock::now().0.saturating_sub(RETRY_MS));
        let mut wanted = Vec::new();
        for known in known {
            let sold = vouchers.get(&known.terms.id());
            // What both have signed and nobody has sent is spoiled by nothing any more; and no more comes that it would be worth to wait for.
            let given_up = sold.is_some_and(|sold| sold.is_given_up(time));
            let (known, worth) =
                if given_up { (Known { closing: false, ..known }, least(self.terms.rate)) } else { (known, worth) };
            let Some(purpose) = due(&us, &known, sold.map(|sold| &sold.voucher), worth, time) else { continue };
            // What would be lost comes first, the most of it before the rest: steps are done one after the other.
            let lost = if known.exit_at == 0 { 0 } else { sold.map_or(0, |sold| unredeemed(&known, &sold.voucher)) };
            wanted.push((lost, known.terms.id(), purpose));
        }
        wanted.sort_by_key(|(lost, ..)| Reverse(*lost));
        for (_, channel, purpose) in wanted {
            if !lock(&self.steps).failed_since(&purpose, early) {
                let label = purpose.label();
                let number = self.want(purpose).await.map_err(|error| EvmError::Keep(error.to_string()))?;
                debug!(number, label, %channel, "due");
            }
        }
        Ok(())
    }

    /// Wants what vouchers pay whose channel is not in the book: it made room for a larger one, or is closed.
    async fn outside(&self, vouchers: &BTreeMap<ChannelId, Sold>) -> Result<Vec<u64>, AccountError> {
        let (book, EvmTerms { chain, contract, rate, .. }) = (self.tabs.channels(), self.terms);
        let worth =
            |voucher: &SignedVoucher| (voucher.chain, voucher.contract) == (chain, contract) && voucher.amount >= least(rate);
        let asked = *lock(&self.outside);
        let turn = turn(vouchers, asked).filter(|(id, sold)| book.get(id).is_none() && worth(&sold.voucher));
        let (mut wanted, contract) = (Vec::new(), contract::Channels(contract));
        for (id, Sold { voucher, .. }) in turn.take(MAX_OUTSIDE) {
            let there = self.wallet.channel(&contract, id).await?;
            let pays = there.filter(|there| there.unredeemed(voucher.amount) > 0);
            if let Some(purpose) = pays.and_then(|there| redeems(&there.payer, voucher)) {
                wanted.push(self.want(purpose).await?);
            }
            *lock(&self.outside) = Some(*id);
        }
        Ok(wanted)
    }

    /// What came of each channel that was ever paid on.
    async fn vouchers(&self) -> Result<BTreeMap<ChannelId, Sold>, StoreError> {
        let tabs = self.tabs.clone();
        let read = tokio::task::spawn_blocking(move || tabs.all_sold_on_channels()).await;
        let sold = read.map_err(|error| StoreError::Interrupted(error.to_string()))??;
        // After a restart the chain alone has told of a channel.
        for (_, channel, _) in sold.iter().filter(|(.., tab)| tab.is_closed()) {
            self.tabs.channels().close(channel);
        }
        let sold = sold.iter().filter_map(|(_, channel, tab)| Some((*channel, Sold::of(tab, self.started)?)));
        Ok(sold.collect())
    }

    /// Wants a step; its number, once it is on the disk.
    async fn want(&self, purpose: Purpose) -> Result<u64, AccountError> {
        let label = purpose.label();
        let wanted = lock(&self.steps).want(purpose, clock::now());
        let number = match wanted {
            Wanted::Before(number) => return Ok(number),
            Wanted::Full => return Err(AccountError::Full),
            Wanted::New(number) => number,
        };
        let record = lock(&self.steps).get(number).map(Entry::record).unwrap_or_default();
        if let Err(error) = self.store.keep_step(number, record).await {
            lock(&self.steps).forget(number);
            return Err(error.into());
        }
        info!(step = number, what = label, "wanted");
        self.wake.notify_one();
        Ok(number)
    }

    /// Makes a step's new state durable; then it counts.
    async fn keep(&self, number: u64, entry: Entry) -> Result<(), String> {
        self.store.keep_step(number, entry.record()).await.map_err(|error| error.to_string())?;
        if entry.is_done() {
            info!(step = number, what = entry.purpose.label(), how = entry.word(), "ended");
        }
        lock(&self.steps).set(number, entry);
        Ok(())
    }

    /// Drives steps in their order, until one has to wait; why it does, if something is wrong.
    async fn drive(&self) -> Result<(), EvmError> {
        loop {
            let Some((number, mut entry)) = lock(&self.steps).next() else { return Ok(()) };
            let mut step = match entry.turn().cloned() {
                Some(step) => step,
                None => match self.prepare(&mut entry).await {
                    Ok(step) => {
                        self.keep(number, entry.clone()).await.map_err(EvmError::Keep)?;
                        step
                    }
                    Err(error) if is_final(&entry.purpose, &error) => {
                        let refused = Some(error.to_string());
                        self.keep(number, Entry { refused, ..entry }).await.map_err(EvmError::Keep)?;
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            let mut keep = |step: Step| self.keep(number, entry.with(step));
            match self.wallet.advance(&mut step, &mut keep).await {
                Ok(Next::Done) => {}
                Ok(_) => return Ok(()),
                // What sends away the coin that its gas would take never goes on by itself, and everything waits behind it.
                Err(error @ EvmError::Poor { .. })
                    if step.attempts.is_empty() && step.call.value > 0 && entry.purpose.is_asked_for() =>
                {
                    let refused = Some(error.to_string());
                    self.keep(number, Entry { refused, ..entry }).await.map_err(EvmError::Keep)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts the next transaction of an entry into it.
    async fn prepare(&self, entry: &mut Entry) -> Result<Step, EvmError> {
        let contract = self.wallet.check_contract(&self.terms.contract).await?;
        if let Purpose::Withdraw { token, amount, .. } = &mut entry.purpose
            && *amount == ALL
        {
            let there = self.wallet.balance(token, &self.wallet.address()).await?;
            let gas = if *token == EvmAddress::ZERO { self.wallet.transfer_cost() } else { 0 };
            *amount = there.saturating_sub(gas);
            if *amount == 0 {
                *amount = ALL;
                return Err(EvmError::Refused("there is nothing to send"));
            }
        }
        let call = entry.purpose.call(&contract).ok_or(EvmError::Refused("the voucher that was kept can't be read"))?;
        let prepared = self.wallet.prepare(call).await;
        if let (Err(EvmError::Rpc(RpcError::Refused { .. })), None) = (&prepared, &entry.clearing)
            && let Some(step) = self.clear(&entry.purpose).await?
        {
            entry.clearing = Some(step.clone());
            return Ok(step);
        }
        let step = prepared?;
        entry.step = Some(step.clone());
        Ok(step)
    }

    /// Some tokens, such as USDT, take no new allowance while there is one: what a deposit that came to nothing has left is taken back
    /// first. Once, whatever the chain's node says then.
    async fn clear(&self, purpose: &Purpose) -> Result<Option<Step>, EvmError> {
        let Purpose::Approve { token, .. } = purpose else { return Ok(None) };
        let spender = &self.terms.contract;
        if self.wallet.allowance(token, spender).await? == 0 {
            return Ok(None);
        }
        self.wallet.prepare(contract::approve(token, spender, 0)).await.map(Some)
    }

    fn note(&self, looked: Result<(u64, bool), EvmError>, driven: Result<(), EvmError>, read: Option<u64>) {
        let mut state = lock(&self.state);
        let (was, waits) = (state.clone(), driven.err().map(|error| error.to_string()));
        *state = match looked {
            Ok((head, all)) => State { ready: all, error: None, waits, head, read },
            Err(error) => State { ready: false, error: Some(error.to_string()), waits, head: was.head, read },
        };
        let news = state.error.as_ref().or(state.waits.as_ref());
        if news != was.error.as_ref().or(was.waits.as_ref()) {
            match news {
                Some(why) => warn!("the chain: {why}"),
                None => info!(head = state.head, "the chain is there"),
            }
        }
    }
}

/// Whether to try again is of no use. What the node wants by itself waits for gas.
fn is_final(purpose: &Purpose, error: &EvmError) -> bool {
    match error {
        EvmError::Refused(_) | EvmError::TooMuchGas { .. } => true,
        EvmError::NotOurContract { .. } => purpose.is_asked_for(),
        EvmError::Rpc(RpcError::Refused { message, .. }) => purpose.is_asked_for() || !message.contains("insufficient funds"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::tab::Cover;
    use infernet_wire::{id::JobId, voucher::Voucher};

    fn key(n: u8) -> NodeKey {
        NodeKey::from_bytes(&[n; 32]).expect("a key")
    }

    fn address(n: u8) -> EvmAddress {
        key(n).id().evm_address()
    }

    fn known(payer: u8, payee: u8) -> Known {
        let contract = EvmAddress([9; 20]);
        let (payer, payee) = (address(payer), address(payee));
        let terms = ChannelTerms { chain: 5, contract, payer, payee, token: contract, salt: [1; 32] };
        Known { terms, deposit: 1_000, redeemed: 100, exit_at: 0, closing: false }
    }

    fn voucher(known: &Known, amount: u128) -> SignedVoucher {
        let ChannelTerms { chain, contract, .. } = known.terms;
        let voucher = Voucher { chain, contract, channel: known.terms.id(), job: JobId([1; 16]), amount };
        SignedVoucher::sign(&key(1), voucher).expect("signed")
    }

    #[test]
    fn a_worker_redeems_what_is_worth_it_and_all_when_the_buyer_wants_out() {
        let (us, open) = (address(2), known(1, 2));
        let amount = |known: &Known, amount, worth| {
            due(&us, known, Some(&voucher(known, amount)), worth, 0).and_then(|purpose| purpose.amount())
        };
        assert_eq!(amount(&open, 599, 500), None);
        assert_eq!(amount(&open, 600, 500), Some(600));
        assert_eq!(amount(&open, 900, 0), None, "only by payout now");
        assert_eq!(amount(&open, 5_000, 901), None, "no more than the deposit");
        assert_eq!(amount(&Known { closing: true, ..open }, 900, 1), None, "its end is signed");
        let leaving = Known { exit_at: 7, ..open };
        assert_eq!(amount(&leaving, 101, 500), Some(101));
        assert_eq!(amount(&leaving, 100, 500), None, "nothing new");
        assert_eq!(amount(&Known { exit_at: CLOSED, ..open }, 900, 1), None);
        assert_eq!(due(&us, &leaving, None, 1, 0), None);
    }

    #[test]
    fn a_buyer_has_a_day_to_send_what_both_have_signed() {
        let sold = |closed| Sold { voucher: voucher(&known(1, 2), 900), closed };
        let day = 100_000 + TO_CLOSE;
        let given_up = [day - 1, day].map(|time| sold(Some(UnixMillis(100_000_999))).is_given_up(time));
        assert_eq!(given_up, [false, true]);
        assert!(!sold(None).is_given_up(u64::MAX));
    }

    #[test]
    fn an_end_that_was_signed_nobody_knows_when_was_signed_at_the_start() {
        let (known, job) = (known(1, 2), JobId([1; 16]));
        let mut tab = PayeeTab::default();
        tab.open(job, MicroUsd(900), Cover::Deposit { units: 1_000, rate: 1 }).expect("covered");
        tab.take(&job, 900, Some(voucher(&known, 900)), MicroUsd(900)).expect("taken");
        tab.settle(&job, MicroUsd(900), true);
        let closed = |tab: &PayeeTab| Sold::of(tab, UnixMillis(7)).and_then(|sold| sold.closed);
        assert_eq!(closed(&tab), None);
        tab.close(UnixMillis(0)).expect("idle");
        assert_eq!(closed(&tab), Some(UnixMillis(7)));
    }

    #[test]
    fn a_buyer_ends_its_own_exits_when_the_workers_time_is_over() {
        let (us, open) = (address(1), known(1, 2));
        let ends = |known: &Known, time| due(&us, known, None, 1, time).is_some();
        assert!(!ends(&open, 99));
        let leaving = Known { exit_at: 100, ..open };
        assert_eq!([99, 100, 101].map(|time| ends(&leaving, time)), [false, true, true]);
        assert!(!ends(&Known { exit_at: CLOSED, ..open }, u64::MAX));
    }
}

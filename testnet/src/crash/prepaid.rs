//! One life on Solana: a worker is prepaid, counts that and opens a job, twice; then money leaves the buyer's wallet. Where that is killed,
//! and what must then be there.

use super::{
    account::Told,
    process::{self, Wrong},
    stop::{Moment, Stop, Write},
    wallet::{self, Orders, Said, TRANCHE, Task},
};
use crate::{
    bench::BenchError,
    svm::{Clock, Cluster, Node},
};
use infernet_node::settlement::solana::{
    key::SolanaKey,
    payment::Persist,
    transaction::{Address, Asset},
};
use infernet_wire::{key::NodeKey, money::MicroUsd};
use serde_bytes::ByteBuf;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use tempfile::TempDir;

/// A blockhash lives for three seconds, and a block is final within one: processes come and go in a fraction of that.
const BLOCK: Duration = Duration::from_millis(20);
/// What the buyer begins with: for more lives than anybody waits for.
const FUNDS: MicroUsd = MicroUsd(10_000_000_000);
/// What it sends away, to whom.
const SENT: MicroUsd = MicroUsd(7);
const AWAY: [u8; 32] = [41; 32];
/// Tranches of each worker.
const TRANCHES: u64 = 2;

fn stage(error: impl ToString) -> BenchError {
    BenchError::Options(error.to_string())
}

/// A party's keys and home.
struct Party {
    node: NodeKey,
    wallet: SolanaKey,
    home: TempDir,
}

impl Party {
    fn new(secret: [u8; 32]) -> Result<Self, BenchError> {
        let node = NodeKey::from_bytes(&secret).map_err(stage)?;
        let home = tempfile::Builder::new().prefix("infernet-").tempdir()?;
        Ok(Party { node, wallet: SolanaKey::from_bytes(&secret), home })
    }
}

/// What is there for all lives.
pub(super) struct Scene {
    cluster: Cluster,
    endpoint: Node,
    _clock: Clock,
    mint: Address,
    binary: PathBuf,
    buyer: Party,
    /// What the buyer should have, and what should have gone away.
    has: u64,
    away: u64,
    /// Transactions that there should be.
    sent: usize,
    /// The number of its last withdrawal.
    withdrawal: u64,
    passed: u64,
}

impl Scene {
    pub(super) async fn new(binary: PathBuf) -> Result<Self, BenchError> {
        let (cluster, buyer) = (Cluster::new(), Party::new([1; 32])?);
        let Ok(Asset::Token { mint, .. }) = cluster.token(7, 6) else { return Err(stage("there is no token")) };
        cluster.give(&mint, &buyer.wallet.address(), FUNDS.0).map_err(stage)?;
        // Accounts of tokens cost two thousandths of a SOL each.
        cluster.airdrop(&buyer.wallet.address(), 100_000_000_000);
        let (endpoint, clock) = (cluster.node().await.map_err(stage)?, cluster.tick(1, BLOCK));
        let (has, sent) = (FUNDS.0, cluster.landed().len());
        Ok(Scene { cluster, endpoint, _clock: clock, mint, binary, buyer, has, away: 0, sent, withdrawal: 0, passed: 0 })
    }

    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    pub(super) fn transactions(&self) -> u64 {
        u64::try_from(self.sent).unwrap_or_default()
    }
}

/// One life.
pub(super) struct Life<'a> {
    scene: &'a mut Scene,
    worker: Party,
    number: u32,
    kills: &'a mut BTreeMap<Stop, u64>,
}

impl<'a> Life<'a> {
    pub(super) fn new(scene: &'a mut Scene, number: u32, kills: &'a mut BTreeMap<Stop, u64>) -> Result<Self, BenchError> {
        let mut secret = [2; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        Ok(Life { scene, worker: Party::new(secret)?, number, kills })
    }

    /// From the first tranche to what is sent away.
    pub(super) async fn live(mut self) -> Result<(), Wrong> {
        let (buyer, worker) = (self.scene.buyer.node.id(), self.worker.node.id());
        let terms = wallet::terms(&self.worker.wallet, &worker, self.scene.mint);
        for number in 1..=TRANCHES {
            let turn = usize::try_from(number).unwrap_or_default();
            let stops = self.stops(turn, Write::Tranche);
            let said = self.act(true, Task::Buy(worker, terms, number), stops).await?;
            let tranche = said.shown.ok_or_else(|| Wrong::Found("a paid tranche is not shown".into()))?;
            self.scene.has -= TRANCHE.0;
            self.check(number, 1)?;
            let stop = Stop { write: Write::Voucher, moment: self.moment(turn) };
            let said = self.act(false, Task::Count(buyer, tranche), vec![stop]).await?;
            let counted = Some((number, MicroUsd(number * TRANCHE.0)));
            if said.counted != counted {
                return Err(Wrong::Found(format!("counted {:?} instead of {counted:?}", said.counted)));
            }
            let stop = Stop { write: Write::Taken, moment: self.moment(turn + 1) };
            let said = self.act(true, Task::Take(worker, number), vec![stop]).await?;
            let of: Vec<_> = said.bought.iter().filter(|bought| bought.worker == worker).collect();
            if !matches!(of.as_slice(), [one] if one.number == number && one.state() == "taken") {
                return Err(Wrong::Found(format!("tranche {number} is not taken: {of:?}")));
            }
        }
        let (to, after) = (SolanaKey::from_bytes(&AWAY).address(), self.scene.withdrawal);
        let stops = self.stops(TRANCHES as usize + 1, Write::Withdrawal);
        let said = self.act(true, Task::Withdraw(to, SENT, after), stops).await?;
        self.scene.withdrawal = said.withdrawn.map_or(after, |withdrawn| withdrawn.number);
        self.scene.has -= SENT.0;
        self.scene.away += SENT.0;
        self.check(TRANCHES, 1)
    }

    /// See [`Moment::of_turn`].
    fn moment(&self, turn: usize) -> Moment {
        Moment::of_turn(turn, self.number)
    }

    /// One at each point of a payment.
    fn stops(&self, place: usize, write: fn(Persist) -> Write) -> Vec<Stop> {
        let stop = |(point, at): (usize, Persist)| Stop { write: write(at), moment: self.moment(place + point) };
        Persist::ALL.into_iter().enumerate().map(stop).collect()
    }

    /// The buyer does it, or the worker.
    async fn act(&mut self, buys: bool, task: Task, stops: Vec<Stop>) -> Result<Said, Wrong> {
        let party = if buys { &self.scene.buyer } else { &self.worker };
        let orders = Orders {
            key: ByteBuf::from(party.node.secret_bytes().to_vec()),
            wallet: ByteBuf::from(party.wallet.seed().to_vec()),
            home: party.home.path().to_string_lossy().into_owned(),
            rpc: self.scene.endpoint.url().into(),
            genesis: self.scene.cluster.genesis(),
            mint: self.scene.mint,
            task,
            stops: Vec::new(),
        };
        let told = |stops| Told::Solana(Orders { stops, ..orders.clone() });
        let ended = process::to_its_end(&self.scene.binary, stops, self.kills, told).await?;
        self.scene.passed += ended.passed;
        ended.said()
    }

    /// Whether everybody has what it should after so many tranches, and `more` transactions did it.
    fn check(&mut self, tranches: u64, more: usize) -> Result<(), Wrong> {
        let Scene { cluster, mint, buyer, has, away, sent, .. } = &mut *self.scene;
        *sent += more;
        let should = [
            ("the buyer", buyer.wallet.address(), *has),
            ("the worker", self.worker.wallet.address(), tranches * TRANCHE.0),
            ("who was sent money", SolanaKey::from_bytes(&AWAY).address(), *away),
        ];
        for (who, address, should) in should {
            let has = cluster.tokens(mint, &address);
            if has != should {
                return Err(Wrong::Found(format!("{who} has {has} units instead of {should}")));
            }
        }
        let landed = cluster.landed();
        if landed.len() != *sent || landed.iter().any(|landed| landed.error.is_some()) {
            return Err(Wrong::Found(format!("{} transactions instead of {sent}", landed.len())));
        }
        Ok(())
    }
}

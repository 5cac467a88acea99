//! One life: what is asked for, where it is killed, and what must then be there.

use super::{
    account::{JOB, Orders, Task, Told},
    process::{self, Wrong},
    stop::{Moment, Stop, Write},
};
use crate::{bank::Bank, bench::BenchError, evm::CHAIN};
use infernet_node::settlement::{
    evm::contract::CHALLENGE_SECS,
    steps::{Entry, Persist},
};
use infernet_wire::{
    chat::{Closed, Payment},
    evm::EvmAddress,
    id::ChannelId,
    key::NodeKey,
    money::MicroUsd,
    voucher::{Close, SignedVoucher, Voucher},
};
use serde_bytes::ByteBuf;
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf};
use tempfile::TempDir;

/// What the buyer begins with: for more lives than anybody waits for.
const FUNDS: MicroUsd = MicroUsd(10_000_000_000);
/// What it puts into a channel, and what it adds.
const DEPOSIT: MicroUsd = MicroUsd(1_000_000);
const TOP_UP: MicroUsd = MicroUsd(500_000);
/// What the worker's job came to.
const SOLD: MicroUsd = MicroUsd(700_003);
/// What the buyer sends away.
const SENT: MicroUsd = MicroUsd(7);
/// Into the channel that it leaves the slow way.
const LEFT: MicroUsd = MicroUsd(300_000);
/// To whom money is sent.
const AWAY: EvmAddress = EvmAddress([0x11; 20]);

/// All steps that are killed, in the order in which a life comes to them.
const LABELS: [&str; 8] = ["approve", "open", "top_up", "redeem", "withdraw", "close", "start_exit", "finish_exit"];

/// A party's key and home, and how its account should be.
struct Party {
    key: NodeKey,
    home: TempDir,
    /// The number of its last step.
    last: u64,
    /// What it should have of the token.
    has: u64,
    /// Its transactions.
    sent: u64,
}

impl Party {
    async fn new(bank: &Bank, secret: [u8; 32], has: MicroUsd) -> Result<Self, BenchError> {
        let key = NodeKey::from_bytes(&secret).map_err(|error| BenchError::Options(error.to_string()))?;
        bank.fund(&key.id(), has).await?;
        let home = tempfile::Builder::new().prefix("infernet-").tempdir()?;
        Ok(Party { key, home, last: 0, has: has.0, sent: 0 })
    }

    fn address(&self) -> EvmAddress {
        self.key.id().evm_address()
    }
}

/// What is there for all lives.
pub(super) struct Scene {
    bank: Bank,
    binary: PathBuf,
    buyer: Party,
    /// What the contract should hold, and what should have gone away.
    held: u64,
    away: u64,
    /// Transactions of workers that are dead.
    before: u64,
    /// Stops that no process came to.
    passed: u64,
}

impl Scene {
    pub(super) async fn new(bank: Bank, binary: PathBuf) -> Result<Self, BenchError> {
        let buyer = Party::new(&bank, [1; 32], FUNDS).await?;
        Ok(Scene { bank, binary, buyer, held: 0, away: 0, before: 0, passed: 0 })
    }

    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    pub(super) fn transactions(&self) -> u64 {
        self.before + self.buyer.sent
    }
}

/// Who does it.
#[derive(Clone, Copy)]
enum Who {
    Buyer,
    Worker,
}

/// One life.
pub(super) struct Life<'a> {
    scene: &'a mut Scene,
    worker: Party,
    number: u32,
    kills: &'a mut BTreeMap<Stop, u64>,
}

impl<'a> Life<'a> {
    pub(super) async fn new(scene: &'a mut Scene, number: u32, kills: &'a mut BTreeMap<Stop, u64>) -> Result<Self, BenchError> {
        let mut secret = [2; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        let worker = Party::new(&scene.bank, secret, MicroUsd(0)).await?;
        Ok(Life { scene, worker, number, kills })
    }

    /// From the first deposit to the last exit.
    pub(super) async fn live(mut self) -> Result<(), Wrong> {
        let worker = self.worker.key.id();
        let stops = [self.stops("approve"), self.stops("open")].concat();
        let opened = self.act(Who::Buyer, Task::Deposit(worker, DEPOSIT), stops).await?;
        self.deposited(DEPOSIT).await?;
        let channel = opened.purpose.channel().ok_or_else(|| Wrong::Found("a deposit into no channel".into()))?;
        self.act(Who::Buyer, Task::Deposit(worker, TOP_UP), self.stops("top_up")).await?;
        self.deposited(TOP_UP).await?;

        let voucher = Stop { write: Write::Voucher, moment: self.moment(0) };
        let stops = [vec![voucher], self.stops("redeem")].concat();
        let sold = Task::Sell(self.scene.buyer.key.id(), channel, self.payment(channel)?);
        self.act(Who::Worker, sold, stops).await?;
        self.paid_out(SOLD).await?;

        self.act(Who::Buyer, Task::Withdraw(AWAY, SENT), self.stops("withdraw")).await?;
        self.scene.buyer.has -= SENT.0;
        self.scene.away += SENT.0;
        self.check().await?;

        self.act(Who::Buyer, self.close(channel), self.stops("close")).await?;
        self.back(MicroUsd(DEPOSIT.0 + TOP_UP.0 - SOLD.0)).await?;

        self.act(Who::Buyer, Task::Deposit(worker, LEFT), Vec::new()).await?;
        self.deposited(LEFT).await?;
        self.act(Who::Buyer, Task::Exit(worker), self.stops("start_exit")).await?;
        self.check().await?;
        self.scene.bank.anvil().pass(CHALLENGE_SECS + 1).await.map_err(BenchError::from)?;
        self.act(Who::Buyer, Task::FinishExit, self.stops("finish_exit")).await?;
        self.back(LEFT).await?;
        self.scene.before += self.worker.sent;
        Ok(())
    }

    async fn deposited(&mut self, amount: MicroUsd) -> Result<(), Wrong> {
        self.scene.buyer.has -= amount.0;
        self.scene.held += amount.0;
        self.check().await
    }

    async fn paid_out(&mut self, amount: MicroUsd) -> Result<(), Wrong> {
        self.scene.held -= amount.0;
        self.worker.has += amount.0;
        self.check().await
    }

    async fn back(&mut self, amount: MicroUsd) -> Result<(), Wrong> {
        self.scene.held -= amount.0;
        self.scene.buyer.has += amount.0;
        self.check().await
    }

    /// The moment goes by turns: through the points of a step, from step to step, and from life to life.
    fn moment(&self, turn: usize) -> Moment {
        Moment::of_turn(turn, self.number)
    }

    /// One at each point of a step.
    fn stops(&self, label: &str) -> Vec<Stop> {
        let place = LABELS.iter().position(|known| *known == label).unwrap_or_default();
        let stop =
            |(point, at): (usize, Persist)| Stop { write: Write::Step(label.into(), at), moment: self.moment(place + point) };
        Persist::ALL.into_iter().enumerate().map(stop).collect()
    }

    /// The buyer's voucher.
    fn payment(&self, channel: ChannelId) -> Result<Payment, BenchError> {
        let contract = self.scene.bank.terms().contract;
        let voucher = Voucher { chain: CHAIN, contract, channel, job: JOB, amount: SOLD.0.into() };
        let signed = SignedVoucher::sign(&self.scene.buyer.key, voucher);
        let signed = signed.map_err(|error| BenchError::Options(error.to_string()))?;
        Ok(Payment { voucher: ByteBuf::from(signed.encode()), paid: SOLD })
    }

    /// The end of a channel, as both sign it.
    fn close(&self, channel: ChannelId) -> Task {
        let contract = self.scene.bank.terms().contract;
        let close = Close { chain: CHAIN, contract, channel, amount: SOLD.0.into() };
        let closed = Closed { amount: close.amount, signature: close.sign(&self.worker.key) };
        Task::Close(channel, closed, close.sign(&self.scene.buyer.key))
    }

    /// Does it, killed at each of the `stops`. The one step that it came to.
    async fn act(&mut self, who: Who, task: Task, stops: Vec<Stop>) -> Result<Entry, Wrong> {
        let party = self.party(who);
        let orders = Orders {
            key: ByteBuf::from(party.key.secret_bytes().to_vec()),
            home: party.home.path().to_string_lossy().into_owned(),
            rpc: self.scene.bank.anvil().url().into(),
            terms: *self.scene.bank.terms(),
            after: party.last,
            task: task.clone(),
            stops: Vec::new(),
        };
        let told = |stops| Told::Evm(Orders { stops, ..orders.clone() });
        let ended = process::to_its_end(&self.scene.binary, stops, self.kills, told).await?;
        self.scene.passed += ended.passed;
        self.look_through(who, &task, &ended.said::<Vec<_>>()?)
    }

    fn party(&self, who: Who) -> &Party {
        match who {
            Who::Buyer => &self.scene.buyer,
            Who::Worker => &self.worker,
        }
    }

    /// Whether every step is settled, under a number of its own, and there is one new one that `task` comes to.
    fn look_through(&mut self, who: Who, task: &Task, steps: &[(u64, Entry)]) -> Result<Entry, Wrong> {
        if let Some((number, entry)) = steps.iter().find(|(_, entry)| entry.word() != "settled") {
            return Err(Wrong::Found(format!("step {number} is {}: {entry:?}", entry.word())));
        }
        let party = match who {
            Who::Buyer => &mut self.scene.buyer,
            Who::Worker => &mut self.worker,
        };
        let new: Vec<_> =
            steps.iter().filter(|(number, entry)| *number > party.last && task.comes_to(&entry.purpose)).collect();
        let [(_, one)] = new.as_slice() else {
            return Err(Wrong::Found(format!("{} steps for one {task:?}", new.len())));
        };
        // What ended long ago is not in memory any more; it was counted when it was.
        let fresh = steps.iter().filter(|(number, _)| *number > party.last);
        let sent = fresh.flat_map(|(_, entry)| entry.clearing.iter().chain(&entry.step));
        let mut nonces: Vec<u64> = sent.map(|step| step.nonce).collect();
        nonces.sort_unstable();
        let expected: Vec<u64> = (party.sent..).take(nonces.len()).collect();
        if nonces != expected {
            return Err(Wrong::Found(format!("nonces {nonces:?} instead of {expected:?}")));
        }
        party.sent += u64::try_from(nonces.len()).unwrap_or_default();
        party.last = steps.last().map_or(party.last, |(number, _)| *number);
        Ok((*one).clone())
    }

    /// Whether everybody has what it should, and the chain no transaction that is not in a journal.
    async fn check(&self) -> Result<(), Wrong> {
        let Scene { bank, buyer, held, away, .. } = &*self.scene;
        let should = [
            ("the buyer", buyer.address(), buyer.has),
            ("the worker", self.worker.address(), self.worker.has),
            ("the contract", bank.terms().contract, *held),
            ("who was sent money", AWAY, *away),
        ];
        for (who, account, should) in should {
            let has = bank.balance(&account).await.map_err(BenchError::from)?.0;
            if has != should {
                return Err(Wrong::Found(format!("{who} has {has} units instead of {should}")));
            }
        }
        for party in [buyer, &self.worker] {
            let asked = json!([party.address().to_string(), "latest"]);
            let rpc = bank.anvil().rpc().map_err(BenchError::from)?;
            let sent = rpc.count("eth_getTransactionCount", asked).await;
            let sent = sent.map_err(|error| BenchError::Options(error.to_string()))?;
            if sent != party.sent {
                return Err(Wrong::Found(format!(
                    "{sent} transactions of {}, and {} in its journal",
                    party.address(),
                    party.sent
                )));
            }
        }
        Ok(())
    }
}

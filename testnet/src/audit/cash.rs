//! Money on a real chain: who pays in when, how channels end, and what the chain has then.
//!
//! Each mesh buyer opens a channel to each worker and tops it up while jobs run; workers redeem by themselves whenever there is
//! [`WORTH`]; web clients pay to the plane's account. In the end the first buyer closes its channels with its workers' word, the
//! last one wants out of the first of its, workers redeem what is left, and the last channel stays open. Nodes are killed as soon
//! as they have said that they will do these, and must then do them, once.

use super::{
    chain::{ChainBooks, Channel, Holding},
    web::failed,
};
use crate::{
    bank::Bank,
    bench::BenchError,
    chaos::{
        Fault,
        plan::{Strike, Who},
        stage::Stage,
    },
    cluster::eventually,
    evm::CHAIN,
};
use infernet_node::{
    clock,
    control::{
        client::Client,
        schema::{StepReport, WalletBody, WalletReport},
    },
    settlement::evm::{
        contract::{self, CHALLENGE_SECS},
        rpc::Log,
    },
};
use infernet_plane::cashier::transfer;
use infernet_wire::{
    evm::{EvmAddress, address_word, keccak},
    id::{ChannelId, NodeId},
    key::NodeKey,
    money::MicroUsd,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{sync::watch, time::sleep};

/// What buyers and web clients have to begin with.
const PURSE: MicroUsd = MicroUsd(10_000_000);
/// What is put into a channel, and later added to it.
const DEPOSIT: u64 = 1_000_000;
const TOP_UP: u64 = 50_000;
/// What web clients pay in at first, and while the plane is killed.
const FIRST: MicroUsd = MicroUsd(5_000_000);
const SECOND: MicroUsd = MicroUsd(1_000_000);
/// Workers redeem at it, in micro-USD: a few jobs' worth, so that there is always a step under way.
const WORTH: u64 = 300;
/// What the plane may owe a worker, in micro-USD: it pays on no channel.
const CREDIT: u64 = 10_000_000;
/// Between two wishes of the owner of some node.
const PAUSE: Duration = Duration::from_millis(700);
/// Before what was refused is asked for again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a node is down.
const DOWN: Duration = Duration::from_millis(200);
/// For an answer of a node, which asks the chain some questions first.
const ASKED: Duration = Duration::from_secs(10);
/// For all steps of a node to end: nodes look at the chain every 4 s, and a step takes one look or two.
const MOVED: Duration = Duration::from_secs(90);

/// The chain, and who is on it.
pub(super) struct Cash {
    bank: Bank,
    nodes: BTreeMap<Who, (NodeId, PathBuf)>,
    plane: EvmAddress,
    wallets: Vec<NodeKey>,
    before: Vec<Holding>,
}

impl Cash {
    /// A chain, on which `clients` web clients have wallets.
    pub(super) async fn start(clients: usize) -> Result<Self, BenchError> {
        let wallet = |n: usize| NodeKey::from_bytes(&[u8::try_from(n + 32).unwrap_or(u8::MAX); 32]);
        let wallets = (0..clients).map(wallet).collect::<Result<_, _>>();
        let wallets = wallets.map_err(|error| failed("a wallet", &error))?;
        let (bank, plane) = (Bank::start().await?, EvmAddress::ZERO);
        Ok(Cash { bank, nodes: BTreeMap::new(), plane, wallets, before: Vec::new() })
    }

    /// What a node's config.toml says of it.
    pub(super) fn config(&self) -> String {
        let (terms, url) = (self.bank.terms(), self.bank.anvil().url());
        let (chain, contract, token) = (terms.chain, terms.contract, terms.token);
        format!(
            "evm_rpc = \"{url}\"\nevm_chain = {chain}\nevm_contract = \"{contract}\"\nevm_token = \"{token}\"\n\
             evm_depth = 1\npayout_at = {WORTH}\n"
        )
    }

    /// A worker's flags: nobody owes it anything but the plane.
    pub(super) fn worker(&self, plane: &NodeId) -> Vec<String> {
        ["--free-credit", "0", "--credit", &format!("{plane}={CREDIT}")].map(str::to_owned).to_vec()
    }

    /// The plane's flags.
    pub(super) fn cashier(&self) -> Vec<String> {
        let (terms, url) = (self.bank.terms(), self.bank.anvil().url());
        let (chain, token) = (terms.chain.to_string(), terms.token.to_string());
        let flags = ["--evm-rpc", url, "--evm-chain", &chain, "--evm-token", &token, "--evm-depth", "1"];
        flags.map(str::to_owned).to_vec()
    }

    /// Where each web client pays from.
    pub(super) fn wallets(&self) -> Vec<EvmAddress> {
        self.wallets.iter().map(|key| key.id().evm_address()).collect()
    }

    fn of(&self, is: fn(&Who) -> bool) -> Vec<(Who, NodeId, &Path)> {
        let nodes = self.nodes.iter().filter(|(who, _)| is(who));
        nodes.map(|(who, (id, home))| (*who, *id, home.as_path())).collect()
    }

    fn buyers(&self) -> Vec<(Who, NodeId, &Path)> {
        self.of(|who| matches!(who, Who::Buyer(_)))
    }

    fn workers(&self) -> Vec<(Who, NodeId, &Path)> {
        self.of(|who| matches!(who, Who::Worker(_)))
    }

    /// Everybody gets money, clients pay in, and channels are opened; `struck` is who was killed meanwhile, if anybody may be.
    pub(super) async fn open(
        &mut self,
        stage: &mut Stage,
        plane: &NodeId,
        mut struck: Option<&mut Vec<Strike>>,
    ) -> Result<(), BenchError> {
        let is_party = |who: &Who| !matches!(who, Who::Hub(_));
        let homes = stage.homes();
        let party = |(who, id): (Who, NodeId)| Some((who, (id, homes.get(&who)?.clone())));
        self.nodes = stage.ids().into_iter().filter(|(who, _)| is_party(who)).filter_map(party).collect();
        self.plane = plane.evm_address();
        for (name, id, amount) in self.accounts(plane) {
            self.bank.fund(&id, amount).await?;
            let address = id.evm_address();
            let before = self.bank.balance(&address).await?.0;
            self.before.push(Holding { name, address, before, after: 0 });
        }
        self.clients_send(FIRST).await?;
        for (_, _, home) in self.buyers() {
            for (_, worker, _) in self.workers() {
                wanted(home, &WalletBody::Deposit { worker, micro_usd: DEPOSIT }).await?;
            }
        }
        strike(stage, &self.buyers(), &mut struck).await?;
        self.rest().await?;
        let buyers = self.buyers().len();
        for (_, _, home) in self.workers() {
            let seen = || async { told(home).await.is_ok_and(|told| told.channels.len() >= buyers) };
            eventually("a worker's seeing its channels", MOVED, seen).await?;
        }
        Ok(())
    }

    /// Who has money, and how much to begin with.
    fn accounts(&self, plane: &NodeId) -> Vec<(String, NodeId, MicroUsd)> {
        let buyers = self.buyers().into_iter().map(|(who, id, _)| (format!("{who:?}"), id, PURSE));
        let workers = self.workers().into_iter().map(|(who, id, _)| (format!("{who:?}"), id, MicroUsd(0)));
        let clients = self.wallets.iter().enumerate().map(|(n, key)| (format!("web-{n}"), key.id(), PURSE));
        buyers.chain(workers).chain(clients).chain([("plane".to_owned(), *plane, MicroUsd(0))]).collect()
    }

    async fn clients_send(&self, amount: MicroUsd) -> Result<(), BenchError> {
        for wallet in &self.wallets {
            self.bank.send(wallet, &self.plane, amount).await?;
        }
        Ok(())
    }

    /// Clients pay in once more.
    pub(super) async fn more(&self) -> Result<(), BenchError> {
        self.clients_send(SECOND).await
    }

    /// What each client has paid in.
    pub(super) async fn sent(&self) -> Result<Vec<u64>, BenchError> {
        let sent = self.transfers().await?;
        let of = |wallet: EvmAddress| sent.iter().filter(|(from, _)| *from == wallet).map(|(_, amount)| amount).sum();
        Ok(self.wallets().into_iter().map(of).collect())
    }

    /// Channels are topped up in turn until `stop`; that a node is gone, or its answer, is no matter.
    pub(super) fn top_ups(&self, stop: watch::Receiver<bool>) -> impl Future<Output = ()> + Send + use<> {
        let mut pairs: Vec<(PathBuf, NodeId)> = Vec::new();
        for (_, worker, _) in self.workers() {
            pairs.extend(self.buyers().iter().map(|(.., home)| (home.to_path_buf(), worker)));
        }
        async move {
            for (home, worker) in pairs.iter().cycle() {
                if *stop.borrow() {
                    return;
                }
                let _ = want(home, &WalletBody::Deposit { worker: *worker, micro_usd: TOP_UP }).await;
                sleep(PAUSE).await;
            }
        }
    }

    /// Ends channels, each in one of the ways.
    pub(super) async fn settle(&self, stage: &mut Stage, mut struck: Option<&mut Vec<Strike>>) -> Result<(), BenchError> {
        self.rest().await?;
        let (buyers, workers) = (self.buyers(), self.workers());
        if let Some((_, _, home)) = buyers.first() {
            for (_, worker, _) in &workers {
                wanted(home, &WalletBody::Close { worker: *worker }).await?;
            }
        }
        if let (Some((_, _, home)), Some((_, worker, _))) = (buyers.last(), workers.first()) {
            wanted(home, &WalletBody::Exit { worker: *worker }).await?;
        }
        strike(stage, &buyers, &mut struck).await?;
        self.rest().await?;
        for (_, _, home) in &workers {
            wanted(home, &WalletBody::Payout).await?;
        }
        strike(stage, &workers, &mut struck).await?;
        self.rest().await?;
        self.bank.anvil().pass(CHALLENGE_SECS + 1).await?;
        if let Some((_, _, home)) = buyers.last() {
            let is_out = |told: WalletReport| told.channels.iter().all(|channel| channel.state == "open");
            eventually("the end of an exit", MOVED, || async { told(home).await.is_ok_and(is_out) }).await?;
        }
        self.rest().await
    }

    /// Until nobody has a step under way.
    async fn rest(&self) -> Result<(), BenchError> {
        for (who, (_, home)) in &self.nodes {
            let rests = |told: WalletReport| told.chain.is_some_and(|chain| chain.ready && chain.open_steps == 0);
            let what = format!("the end of all steps of {who:?}");
            eventually(&what, MOVED, || async { told(home).await.is_ok_and(rests) }).await?;
        }
        Ok(())
    }

    async fn transfers(&self) -> Result<Vec<(EvmAddress, u64)>, BenchError> {
        let topics = [Some(transfer::topic()), None, Some(address_word(&self.plane))];
        let logs = self.bank.logs(&self.bank.terms().token, &topics).await?;
        let read = |log: &Log| transfer::read(log).and_then(|sent| Some((sent.from, u64::try_from(sent.value).ok()?)));
        logs.iter().map(read).collect::<Option<_>>().ok_or_else(|| failed("a token's log", &"it is no transfer"))
    }

    /// All that the chain has.
    pub(super) async fn books(&self) -> Result<ChainBooks, BenchError> {
        let (terms, mut channels) = (self.bank.terms(), BTreeMap::new());
        for log in self.bank.logs(&terms.contract, &[]).await? {
            hear(&mut channels, &terms.contract, &log).ok_or_else(|| failed("the contract's log", &"it can't be read"))?;
        }
        for (id, channel) in &mut channels {
            let state = self.bank.channel(id).await?.ok_or_else(|| failed("a channel", &"its contract does not know it"))?;
            (channel.deposit, channel.redeemed) = (units(state.deposit), units(state.redeemed));
        }
        let mut holdings = self.before.clone();
        for holding in &mut holdings {
            holding.after = self.bank.balance(&holding.address).await?.0;
        }
        let minted = (self.buyers().len() + self.wallets.len()) as u64 * PURSE.0;
        let (contract, sent) = (self.bank.balance(&terms.contract).await?.0, self.transfers().await?);
        let channels = channels.into_values().collect();
        Ok(ChainBooks { channels, holdings, contract, minted, plane: self.plane, sent })
    }
}

fn units(amount: u128) -> u64 {
    u64::try_from(amount).unwrap_or(u64::MAX)
}

/// What a log of the contract says; `None` if that can't be read.
fn hear(channels: &mut BTreeMap<ChannelId, Channel>, contract: &EvmAddress, log: &Log) -> Option<()> {
    let (event, id) = (log.topics.first()?, ChannelId(*log.topics.get(1)?));
    let (words, []) = log.data.as_chunks::<32>() else { return None };
    let number = |n: usize| contract::number(words.get(n)?).map(units);
    if *event == contract::opened() {
        let (terms, deposit) = contract::read_opened(CHAIN, contract, &log.topics, &log.data)?;
        let (payer, payee, deposits) = (terms.payer, terms.payee, vec![units(deposit)]);
        let channel = Channel { id, payer, payee, deposits, redemptions: Vec::new(), closed: None, deposit: 0, redeemed: 0 };
        return channels.insert(id, channel).is_none().then_some(());
    }
    let channel = channels.get_mut(&id)?;
    let is = |signature: &str| *event == keccak(&[signature.as_bytes()]);
    if is("ToppedUp(bytes32,uint96)") {
        channel.deposits.push(number(0)?.checked_sub(channel.deposits.iter().sum())?);
    } else if is("Redeemed(bytes32,bytes16,uint96,uint96)") {
        channel.redemptions.push(number(1)?);
    } else if is("Closed(bytes32,uint96,uint96)") {
        channel.closed = Some((number(0)?, number(1)?));
    }
    Some(())
}

/// SIGKILL for all of these, if anybody is to be killed, and new processes soon.
async fn strike(
    stage: &mut Stage,
    nodes: &[(Who, NodeId, &Path)],
    struck: &mut Option<&mut Vec<Strike>>,
) -> Result<(), BenchError> {
    let Some(struck) = struck else { return Ok(()) };
    let strikes = nodes.iter().map(|(who, ..)| Strike { at: Duration::ZERO, lasts: DOWN, fault: Fault::Kill, who: *who });
    let strikes: Vec<Strike> = strikes.collect();
    for strike in &strikes {
        stage.begin(strike).await?;
    }
    sleep(DOWN).await;
    for strike in &strikes {
        stage.end(strike).await?;
    }
    struck.extend(strikes);
    Ok(())
}

/// What the node of `home` says of its account; why it does not.
async fn told(home: &Path) -> Result<WalletReport, String> {
    let node = Client::connect(home).ok_or("it does not run")?;
    let told = node.ask(ASKED, "wallet").await.map_err(|error| error.to_string())?;
    told.map_err(|refused| refused.message)
}

/// What its owner wants of it.
async fn want(home: &Path, body: &WalletBody) -> Result<Vec<StepReport>, String> {
    let node = Client::connect(home).ok_or("it does not run")?;
    let body = serde_json::to_string(body).map_err(|error| error.to_string())?;
    let told = node.post_within(ASKED, "wallet", body).await.map_err(|error| error.to_string())?;
    told.map_err(|refused| refused.message)
}

/// The same, asked for until it is promised: the chain may not be read yet, or a worker not be back.
async fn wanted(home: &Path, body: &WalletBody) -> Result<(), BenchError> {
    let ends = clock::instant() + MOVED;
    loop {
        match want(home, body).await {
            Ok(_) => return Ok(()),
            Err(why) if clock::instant() >= ends => return Err(failed(&format!("{body:?}"), &why)),
            Err(_) => sleep(AGAIN).await,
        }
    }
}

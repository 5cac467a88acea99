//! What a chain has, against what those who trade on it kept. Pure; amounts are units of the token, which are micro-USD.
//!
//! | must be the same |
//! |---|
//! | what a buyer's steps put into a channel, what the contract says was deposited, the sum of its deposits |
//! | what the worker's highest voucher is worth, or what both signed in the end, and what the contract paid for the channel |
//! | a deposit, and what of it was paid, given back, and is still there |
//! | an account's balance before and all of that, and its balance after |
//! | the contract's balance, and what is still there of all channels |
//! | all balances together, before and after, and what was ever minted |
//! | what a web client's wallet sent to the plane, and what the plane gave the client for it |
//!
//! What is paid twice, lost or made up is in no two places the same.

use super::ledger::{Account, Pair};
use crate::chaos::{books::Book, plan::Who};
use infernet_wire::{
    evm::EvmAddress,
    id::{ChannelId, NodeId},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Channel {
    pub(super) id: ChannelId,
    pub(super) payer: EvmAddress,
    pub(super) payee: EvmAddress,
    /// What was put in, by the contract's events.
    pub(super) deposits: Vec<u64>,
    /// What was paid by vouchers, likewise.
    pub(super) redemptions: Vec<u64>,
    /// What its payee then had in all and what its payer got back, if it is closed, likewise.
    pub(super) closed: Option<(u64, u64)>,
    /// By the contract's state: all that was deposited, and paid.
    pub(super) deposit: u64,
    pub(super) redeemed: u64,
}

impl Channel {
    fn returned(&self) -> u64 {
        self.closed.map_or(0, |(_, returned)| returned)
    }

    /// What is still in the contract.
    fn left(&self) -> u64 {
        if self.closed.is_some() { 0 } else { self.deposit.saturating_sub(self.redeemed) }
    }

    /// Whether its events say what its state says, and nothing is in two places.
    fn is_sound(&self) -> bool {
        let (deposited, paid) = (self.deposits.iter().sum::<u64>(), self.redemptions.iter().sum::<u64>());
        let ended = self.closed.is_none_or(|(in_all, returned)| {
            in_all == self.redeemed && paid <= in_all && in_all.checked_add(returned) == Some(deposited)
        });
        deposited == self.deposit && ended && (self.closed.is_some() || paid == self.redeemed) && self.redeemed <= self.deposit
    }
}

/// What somebody had of the token, and has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// Who.
    pub name: String,
    /// Its address.
    #[serde(skip)]
    pub(super) address: EvmAddress,
    /// Before the first deposit, in micro-USD.
    pub before: u64,
    /// In the end.
    pub after: u64,
}

/// All that a chain has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChainBooks {
    pub(super) channels: Vec<Channel>,
    /// Everybody's but the contract's.
    pub(super) holdings: Vec<Holding>,
    /// What the contract has.
    pub(super) contract: u64,
    /// All that was ever made of the token.
    pub(super) minted: u64,
    /// The account that web clients pay to.
    pub(super) plane: EvmAddress,
    /// What was sent there, and by whom.
    pub(super) sent: Vec<(EvmAddress, u64)>,
}

/// What the chain has of a buyer and a worker, in micro-USD.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct OnChain {
    /// Channels.
    pub channels: u64,
    /// What the buyer put in.
    pub deposited: u64,
    /// What the worker was paid.
    pub paid: u64,
    /// What the buyer got back.
    pub returned: u64,
    /// What is still there.
    pub left: u64,
}

/// The chain's side of a pair, and what does not fit.
pub(super) fn pair(chain: &ChainBooks, (b, bought): (NodeId, &Book), (w, sold): (NodeId, &Book)) -> (OnChain, Vec<String>) {
    let (payer, payee) = (b.evm_address(), w.evm_address());
    let (mut sum, mut complaints) = (OnChain::default(), Vec::new());
    for channel in chain.channels.iter().filter(|channel| (channel.payer, channel.payee) == (payer, payee)) {
        let Channel { id, deposit, redeemed, .. } = channel;
        let mut must = |fits: bool, text: String| {
            if !fits {
                complaints.push(format!("channel {id}: {text}"));
            }
        };
        must(channel.is_sound(), format!("its events are not its state: {channel:?}"));
        let steps = bought.deposited.get(id).copied().unwrap_or_default();
        must(steps == *deposit, format!("its buyer's steps put in {steps}, the contract has noted {deposit}"));
        let worth = worth(channel, sold, &b);
        must(worth == *redeemed, format!("it is worth {worth}, and its worker was paid {redeemed}"));
        sum.channels += 1;
        sum.deposited += deposit;
        sum.paid += redeemed;
        sum.returned += channel.returned();
        sum.left += channel.left();
    }
    let unknown = |id: &ChannelId| !chain.channels.iter().any(|channel| channel.id == *id);
    complaints.extend(bought.deposited.keys().filter(|id| unknown(id)).map(|id| format!("channel {id} is not on the chain")));
    (sum, complaints)
}

/// What a worker must have been paid by now: its highest voucher, or what it signed in the end.
fn worth(channel: &Channel, sold: &Book, buyer: &NodeId) -> u64 {
    let Some(tab) = sold.sold.get(&(*buyer, channel.id)) else { return 0 };
    let redeemed: u64 = channel.redemptions.iter().sum();
    let worth = if tab.is_closed && channel.closed.is_some() { tab.came_to.max(redeemed) } else { tab.voucher };
    worth.min(channel.deposit)
}

/// What does not fit of a pair that trades on channels alone.
pub(super) fn receipts(pair: &Pair, on: &OnChain, on_ledger: u64) -> Vec<String> {
    let mut complaints = Vec::new();
    if pair.receipts > 0 && on_ledger > 0 {
        complaints.push(format!("a voucher of {on_ledger} that is on no channel"));
    }
    if on.paid < pair.debits {
        complaints.push(format!("receipts of {}, and {} were paid for them", pair.debits, on.paid));
    }
    complaints
}

/// Balances, and what clients sent: what does not fit.
pub(super) fn whole(chain: &ChainBooks, books: &BTreeMap<Who, Book>, accounts: &[Account]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut must = |fits: bool, text: String| {
        if !fits {
            complaints.push(text);
        }
    };
    for Holding { name, address, before, after } in &chain.holdings {
        let expected = i128::from(*before) + moved(chain, address);
        must(expected == i128::from(*after), format!("{name} had {before} and has {after}, where it must be {expected}"));
    }
    let left: u64 = chain.channels.iter().map(Channel::left).sum();
    must(chain.contract == left, format!("the contract has {}, and its channels {left}", chain.contract));
    let [before, after] = [|holding: &Holding| holding.before, |holding: &Holding| holding.after]
        .map(|of| chain.holdings.iter().map(of).sum::<u64>());
    must(before == chain.minted, format!("{} were made, and all had {before}", chain.minted));
    must(
        after + chain.contract == chain.minted,
        format!("{} were made, and all have {}", chain.minted, after + chain.contract),
    );
    let waiting: usize = books.values().map(|book| book.open_steps).sum();
    must(waiting == 0, format!("{waiting} steps have not ended"));
    let mut sent: BTreeMap<EvmAddress, u64> = BTreeMap::new();
    chain.sent.iter().for_each(|(from, amount)| *sent.entry(*from).or_default() += amount);
    for Account { name, given, wallet, .. } in accounts {
        let sent = wallet.and_then(|wallet| sent.remove(&wallet)).unwrap_or_default();
        must(sent == *given, format!("{name}: its wallet sent {sent}, and it was credited {given}"));
    }
    must(sent.is_empty(), format!("sent by nobody that is known: {sent:?}"));
    complaints
}

/// What an account must have more in the end.
fn moved(chain: &ChainBooks, account: &EvmAddress) -> i128 {
    let of_channel = |channel: &Channel| {
        let earned = if channel.payee == *account { i128::from(channel.redeemed) } else { 0 };
        let spent = if channel.payer == *account { i128::from(channel.deposit) - i128::from(channel.returned()) } else { 0 };
        earned - spent
    };
    let of_deposit = |(from, amount): &(EvmAddress, u64)| {
        let [got, gave] = [chain.plane == *account, from == account].map(|is| if is { i128::from(*amount) } else { 0 });
        got - gave
    };
    chain.channels.iter().map(of_channel).sum::<i128>() + chain.sent.iter().map(of_deposit).sum::<i128>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::ledger::{self, Hurt, PlaneBooks},
        chaos::books::{Entry, Sold, samples::entry},
    };
    use infernet_wire::key::NodeKey;

    type Change = fn(&mut Scene);

    fn id(n: u8) -> NodeId {
        NodeKey::from_bytes(&[n; 32]).expect("a key").id()
    }

    const OPEN: ChannelId = ChannelId([1; 32]);
    const CLOSED: ChannelId = ChannelId([2; 32]);

    struct Scene {
        books: BTreeMap<Who, Book>,
        plane: PlaneBooks,
        chain: ChainBooks,
    }

    impl Scene {
        fn buyer(&mut self) -> &mut Book {
            self.books.get_mut(&Who::Buyer(0)).expect("a buyer")
        }

        fn worker(&mut self) -> &mut Book {
            self.books.get_mut(&Who::Worker(0)).expect("a worker")
        }

        fn complaints(&self) -> Vec<String> {
            let hurt = Hurt { broken: 1, ..Hurt::default() };
            ledger::audit(&self.books, &self.plane, Some(&self.chain), &hurt).complaints
        }
    }

    fn holding(n: u8, before: u64, after: u64) -> Holding {
        Holding { name: n.to_string(), address: id(n).evm_address(), before, after }
    }

    /// Three jobs of ten: two on a channel that is open and was redeemed, one on a channel that both closed before its last voucher
    /// was. And a web client's deposit.
    fn scene() -> Scene {
        let (buyer, worker, plane, client) = (id(1), id(2), id(3), id(4));
        let entries: Vec<Entry> = (1..=3).map(|job| Entry { buyer, worker, ..entry(job) }).collect();
        let bought = Book {
            id: Some(buyer),
            entries: entries.clone(),
            bought: [((worker, OPEN), 20), ((worker, CLOSED), 12)].into(),
            deposited: [(OPEN, 100), (CLOSED, 50)].into(),
            ..Book::default()
        };
        let tab = |voucher, came_to, is_closed| Sold { voucher, came_to, is_closed };
        let sold = [((buyer, OPEN), tab(20, 20, false)), ((buyer, CLOSED), tab(12, 10, true))].into();
        let sold = Book { id: Some(worker), entries: entries.clone(), sold, ..Book::default() };
        let books =
            [(Who::Buyer(0), bought), (Who::Buyer(1), Book { id: Some(plane), ..Book::default() }), (Who::Worker(0), sold)];
        let account = Account {
            name: "web".into(),
            given: 70,
            balance: 70,
            reserved: 0,
            drops: 0,
            charges: Vec::new(),
            wallet: Some(client.evm_address()),
        };
        let known = entries.iter().map(|entry| entry.digest).collect();
        let plane_books = PlaneBooks { indexed: [((buyer, worker), 30)].into(), volume: 30, known, accounts: vec![account] };
        let (payer, payee) = (buyer.evm_address(), worker.evm_address());
        let (open, redeemed) = (vec![60, 40], vec![12, 8]);
        let open =
            Channel { id: OPEN, payer, payee, deposits: open, redemptions: redeemed, closed: None, deposit: 100, redeemed: 20 };
        let closed = Channel { id: CLOSED, closed: Some((10, 40)), deposits: vec![50], redemptions: vec![5], ..open.clone() };
        let channels = vec![open, Channel { deposit: 50, redeemed: 10, ..closed }];
        let holdings = vec![holding(1, 1_000, 890), holding(2, 0, 30), holding(3, 0, 70), holding(4, 500, 430)];
        let sent = vec![(client.evm_address(), 70)];
        let chain = ChainBooks { channels, holdings, contract: 80, minted: 1_500, plane: plane.evm_address(), sent };
        Scene { books: books.into(), plane: plane_books, chain }
    }

    #[test]
    fn a_chain_that_has_what_the_books_say_is_well() {
        let Scene { books, plane, chain } = scene();
        let audit = ledger::audit(&books, &plane, Some(&chain), &Hurt { broken: 1, ..Hurt::default() });
        assert_eq!(audit.complaints, [""; 0]);
        let on = OnChain { channels: 2, deposited: 150, paid: 30, returned: 40, left: 80 };
        assert_eq!(audit.pairs.iter().map(|pair| (pair.voucher, pair.chain)).collect::<Vec<_>>(), [(32, Some(on))]);
    }

    #[test]
    fn what_is_paid_twice_lost_or_made_up_is_told() {
        let checks: [(&str, Change); 16] = [
            ("is worth 20, and its worker was paid 28", |scene| {
                scene.chain.channels[0].redemptions.push(8);
                scene.chain.channels[0].redeemed += 8;
                scene.chain.holdings[1].after += 8;
                scene.chain.contract -= 8;
            }),
            ("2 had 0 and has 38", |scene| {
                scene.chain.holdings[1].after += 8;
                scene.chain.contract -= 8;
            }),
            ("is worth 20, and its worker was paid 12", |scene| {
                scene.chain.channels[0].redemptions.pop();
                scene.chain.channels[0].redeemed -= 8;
                scene.chain.holdings[1].after -= 8;
                scene.chain.contract += 8;
            }),
            ("is worth 10, and its worker was paid 9", |scene| {
                scene.chain.channels[1].closed = Some((9, 41));
                scene.chain.channels[1].redeemed -= 1;
                scene.chain.holdings[1].after -= 1;
                scene.chain.holdings[0].after += 1;
            }),
            ("its events are not its state", |scene| {
                scene.chain.channels[1].closed = Some((10, 41));
                scene.chain.holdings[0].after += 1;
                scene.chain.contract -= 1;
            }),
            ("steps put in 101, the contract has noted 100", |scene| _ = scene.buyer().deposited.insert(OPEN, 101)),
            ("steps put in 100, the contract has noted 140", |scene| {
                scene.chain.channels[0].deposits.push(40);
                scene.chain.channels[0].deposit += 40;
                scene.chain.holdings[0].after -= 40;
                scene.chain.contract += 40;
            }),
            ("is not on the chain", |scene| _ = scene.buyer().deposited.insert(ChannelId([3; 32]), 1)),
            ("sent 70, and it was credited 71", |scene| {
                scene.plane.accounts[0].given += 1;
                scene.plane.accounts[0].balance += 1;
            }),
            ("sent 75, and it was credited 70", |scene| {
                let wallet = scene.chain.sent[0].0;
                scene.chain.sent.push((wallet, 5));
                scene.chain.holdings[3].after -= 5;
                scene.chain.holdings[2].after += 5;
            }),
            ("sent by nobody that is known", |scene| scene.chain.sent.push((EvmAddress([9; 20]), 0))),
            ("3 had 0 and has 69", |scene| scene.chain.holdings[2].after -= 1),
            ("1499 were made", |scene| scene.chain.minted -= 1),
            ("receipts of 40, and 30 were paid", |scene| {
                let more = Entry { buyer: id(1), worker: id(2), ..entry(4) };
                scene.buyer().entries.push(more);
                scene.worker().entries.push(more);
                scene.plane.indexed.insert((id(1), id(2)), 40);
                scene.plane.volume = 40;
            }),
            ("a voucher of 1 that is on no channel", |scene| {
                scene.worker().vouchers.insert(id(1), 1);
                scene.buyer().promised.insert(id(2), 1);
            }),
            ("1 steps have not ended", |scene| scene.worker().open_steps = 1),
        ];
        for (part, change) in checks {
            let mut scene = scene();
            change(&mut scene);
            let told = scene.complaints();
            assert!(told.iter().any(|complaint| complaint.contains(part)), "{part}: {told:?}");
        }
    }
}

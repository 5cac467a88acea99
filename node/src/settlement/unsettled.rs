//! What a node's key still has on chains, as the journal tells without a look at them: for whoever wants to replace that key. Nobody
//! but the key can redeem its vouchers, leave its channels, or end what it began.

use super::{
    service::{self, unredeemed},
    solana::{
        book::{Book, Bought},
        tranches,
    },
    steps::{CHANNELS, Entry, Purpose},
    tab::{PayeeTab, PayerTab},
};
use crate::{
    settlement::channels::Known,
    store::{Side, Store, StoreError, TabOf},
};
use infernet_wire::{
    codec,
    evm::EvmAddress,
    id::{ChannelId, NodeId},
    money::MicroUsd,
    topic::NetworkId,
};
use std::{
    collections::BTreeMap,
    fmt::{self, Display},
};

/// Something that only the key can end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsettled {
    /// A step on the EVM chain that has not ended.
    Step {
        /// Its number.
        number: u64,
        /// What it is for.
        what: &'static str,
    },
    /// A channel with a deposit of ours.
    Deposit(ChannelId),
    /// A voucher of ours that is worth more than was redeemed.
    Voucher {
        /// On which channel.
        channel: ChannelId,
        /// How much more, in the token's units.
        units: u128,
    },
    /// What a worker was prepaid, and no job has used.
    Prepaid {
        /// To whom.
        worker: NodeId,
        /// How much.
        left: MicroUsd,
    },
    /// A tranche that is paid, or on its way, and that its worker has not counted.
    Tranche {
        /// To whom.
        worker: NodeId,
        /// Which.
        number: u64,
    },
}

impl Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsettled::Step { number, what } => write!(f, "step {number} ({what}) is under way: `infernet start` ends it"),
            Unsettled::Deposit(channel) => write!(f, "channel {channel} has a deposit: `infernet wallet close` brings it back"),
            Unsettled::Voucher { channel, units } => {
                write!(f, "channel {channel} owes {units} units of its token: `infernet payout now` redeems them")
            }
            Unsettled::Prepaid { worker, left } => {
                write!(f, "{left} that {worker} was prepaid are not used: `infernet chat` uses them")
            }
            Unsettled::Tranche { worker, number } => {
                write!(
                    f,
                    "tranche {number} to {worker} waits for a job: `infernet chat` uses it, `infernet tranche drop` gives it up"
                )
            }
        }
    }
}

/// What the node `me` has left on a network, in that one's `store`. What was redeemed since the last step of ours is not known here, so
/// that a voucher may be named that is paid.
pub fn unsettled(store: &dyn Store, (network, me): (&NetworkId, &NodeId)) -> Result<Vec<Unsettled>, StoreError> {
    let us = me.evm_address();
    let records = service::records(store)?;
    let (steps, channels): (Vec<_>, Vec<_>) =
        records.into_iter().filter(|(number, _)| *number > 0).partition(|(number, _)| *number < CHANNELS);
    let read = |(number, record): &(u64, Vec<u8>)| Some((*number, codec::decode::<Entry>(record).ok()?));
    let steps: Vec<(u64, Entry)> = steps.iter().filter_map(read).filter(|(_, entry)| entry.is_of(entry.place, us)).collect();
    let known: BTreeMap<ChannelId, Known> = channels
        .iter()
        .filter_map(|(_, record)| codec::decode::<Known>(record).ok())
        .filter(|known| [known.terms.payer, known.terms.payee].contains(&us))
        .map(|known| {
            let id = known.terms.id();
            (id, Known { redeemed: known.redeemed.max(redeemed(&id, &steps).min(known.deposit)), ..known })
        })
        .collect();
    let open = steps.iter().filter(|(_, entry)| !entry.is_done());
    let mut left: Vec<_> =
        open.map(|(number, entry)| Unsettled::Step { number: *number, what: entry.purpose.label() }).collect();
    left.extend(known.values().filter(|known| known.terms.payer == us).map(|known| Unsettled::Deposit(known.terms.id())));
    left.extend(vouchers(store, me, us, &known, &steps)?);
    let book = Book::recover((network, me), tranches::all_steps(store)?);
    let waits = |bought: &&Bought| !bought.payment.is_done() || book.to_show(&bought.worker).is_some();
    left.extend(
        book.all().filter(waits).map(|Bought { worker, number, .. }| Unsettled::Tranche { worker: *worker, number: *number }),
    );
    for bought in book.all() {
        let tab = store.tab(&TabOf::ledger(Side::Bought, *me, bought.worker))?;
        let used = tab.as_deref().and_then(PayerTab::recover).map_or(0, |tab| tab.settled());
        // One that waits for a job is named above.
        let counted = if bought.taken { bought.prepaid() } else { bought.before };
        let unused = u64::try_from(u128::from(counted.0).saturating_sub(used)).unwrap_or(u64::MAX);
        if unused > 0 {
            left.push(Unsettled::Prepaid { worker: bought.worker, left: MicroUsd(unused) });
        }
    }
    Ok(left)
}

/// What our own steps have redeemed on a channel.
fn redeemed(channel: &ChannelId, steps: &[(u64, Entry)]) -> u128 {
    let of = |(_, entry): &(u64, Entry)| match entry.purpose {
        Purpose::Redeem { channel: on, amount, .. } if on == *channel && entry.word() == "settled" => Some(amount),
        _ => None,
    };
    steps.iter().filter_map(of).max().unwrap_or(0)
}

fn vouchers(
    store: &dyn Store,
    me: &NodeId,
    us: EvmAddress,
    known: &BTreeMap<ChannelId, Known>,
    steps: &[(u64, Entry)],
) -> Result<Vec<Unsettled>, StoreError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.tabs(Side::Sold, me, after.as_ref())?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        after = Some(*last);
        for (of, record) in &page {
            let Some(tab) = PayeeTab::recover(record) else { continue };
            let Some((channel, voucher)) = of.channel.zip(tab.highest()) else { continue };
            let units = match known.get(&channel) {
                Some(known) if known.terms.payee == us => unredeemed(known, voucher),
                Some(_) => 0,
                // It made room for another in the book, or is over; what it has is not known here.
                None if tab.is_closed() => 0,
                None => voucher.amount.saturating_sub(redeemed(&channel, steps)),
            };
            if units > 0 {
                found.push(Unsettled::Voucher { channel, units });
            }
        }
    }
}

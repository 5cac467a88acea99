//! What a node's key still has on chains, as the journal tells without a look at them: for whoever wants to replace that key. Nobody
//! but the key can redeem its vouchers, leave its channels, or end what it began.

use super::{
    service::{self, unredeemed},
    solana::{
        book::{Book, Bought},
        tranches,
    },
    steps::{CHANNELS, Entry, Purpose},
    tab::PayeeTab,
};
use crate::{
    settlement::channels::Known,
    store::{Side, Store, StoreError},
};
use infernet_wire::{
    codec,
    evm::EvmAddress,
    id::{ChannelId, NodeId},
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
            Unsettled::Tranche { worker, number } => {
                write!(
                    f,
                    "tranche {number} to {worker} waits for a job: `infernet chat` uses it, `infernet tranche drop` gives it up"
                )
            }
        }
    }
}

/// What the node `me` has left in `store`. What was redeemed since the last step of ours is not known here, so that a voucher may be
/// named that is paid.
pub fn unsettled(store: &dyn Store, me: &NodeId) -> Result<Vec<Unsettled>, StoreError> {
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
        .map(|known| (known.terms.id(), redeemed(known, &steps)))
        .collect();
    let open = steps.iter().filter(|(_, entry)| !entry.is_done());
    let mut left: Vec<_> =
        open.map(|(number, entry)| Unsettled::Step { number: *number, what: entry.purpose.label() }).collect();
    left.extend(known.values().filter(|known| known.terms.payer == us).map(|known| Unsettled::Deposit(known.terms.id())));
    left.extend(vouchers(store, me, us, &known)?);
    let book = Book::recover(tranches::all_steps(store)?);
    let waits = |bought: &&Bought| !bought.payment.is_done() || book.to_show(&bought.worker).is_some();
    left.extend(
        book.all().filter(waits).map(|Bought { worker, number, .. }| Unsettled::Tranche { worker: *worker, number: *number }),
    );
    Ok(left)
}

/// With what our own steps have redeemed since the channel was written down.
fn redeemed(known: Known, steps: &[(u64, Entry)]) -> Known {
    let of = |(_, entry): &(u64, Entry)| match entry.purpose {
        Purpose::Redeem { channel, amount, .. } if channel == known.terms.id() && entry.word() == "settled" => Some(amount),
        _ => None,
    };
    let redeemed = steps.iter().filter_map(of).max().unwrap_or(0);
    Known { redeemed: known.redeemed.max(redeemed.min(known.deposit)), ..known }
}

fn vouchers(
    store: &dyn Store,
    me: &NodeId,
    us: EvmAddress,
    known: &BTreeMap<ChannelId, Known>,
) -> Result<Vec<Unsettled>, StoreError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.tabs(Side::Sold, me, after.as_ref())?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        after = Some(*last);
        for (of, record) in &page {
            let Some(known) = of.channel.and_then(|id| known.get(&id)).filter(|known| known.terms.payee == us) else {
                continue;
            };
            let Some(voucher) = PayeeTab::recover(record).and_then(|tab| tab.highest().copied()) else { continue };
            let units = unredeemed(known, &voucher);
            if units > 0 {
                found.push(Unsettled::Voucher { channel: known.terms.id(), units });
            }
        }
    }
}

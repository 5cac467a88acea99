//! Keeps the book of channels as the chain has it: new ones by the logs of deep blocks, deposits as deep, exits by the newest block. Thin.
//!
//! How far the chain was read, and which channels there are, is in the journal, so that a restart reads only what came since. A node that
//! starts for the first time looks back for a while: nobody opens a channel to a worker that nobody knows.

use super::{
    channels::{Channels, Known, MAX_CHANNELS},
    evm::{
        contract::{self, CLOSED, Channel},
        rpc::{Log, MAX_LOG_BLOCKS},
        wallet::{EvmError, Wallet},
    },
    steps::{CHANNELS, CURSOR, Place},
    tabs::Tabs,
};
use crate::store::Store;
use infernet_wire::{codec, evm::address_word, id::ChannelId, settle::EvmTerms, voucher::ChannelTerms};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};
use tracing::{debug, info, warn};

/// Blocks that a first start looks back: more than a day on chains of two seconds.
const FIRST_LOOK: u64 = 50_000;
/// Questions for logs in one look; the rest is read in the next.
const MAX_SPANS: usize = 20;
/// Channels that are asked for in one look. All have their turn within five minutes, and an exit takes a day.
const MAX_ASKED: usize = 64;
/// How far it was read is kept so often, in blocks: as much as one question reads.
const KEEP_EVERY: u64 = MAX_LOG_BLOCKS;

/// How far the chain was read.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Cursor {
    place: Place,
    block: u64,
}

/// See the module.
pub(super) struct Watch {
    wallet: Wallet,
    contract: contract::Channels,
    terms: EvmTerms,
    book: Channels,
    tabs: Tabs,
    store: Arc<dyn Store>,
    /// The last block that was read for new channels.
    read: Option<u64>,
    kept: u64,
    slots: BTreeMap<ChannelId, u64>,
    /// The last channel that was asked for.
    asked: Option<ChannelId>,
}

impl Watch {
    /// Goes on from `records` of the journal: [`CURSOR`], and those from [`CHANNELS`] on.
    pub(super) fn new(wallet: Wallet, terms: EvmTerms, tabs: Tabs, store: Arc<dyn Store>, records: &[(u64, Vec<u8>)]) -> Self {
        let (place, book) = ((terms.chain, terms.contract), tabs.channels().clone());
        let cursor = records.iter().find(|(number, _)| *number == CURSOR);
        let cursor = cursor.and_then(|(_, record)| codec::decode::<Cursor>(record).ok()).filter(|cursor| cursor.place == place);
        let read = cursor.map(|cursor| cursor.block);
        let mut slots = BTreeMap::new();
        for (number, record) in records.iter().filter(|(number, _)| *number >= CHANNELS) {
            let Ok(known) = codec::decode::<Known>(record) else { continue };
            if (known.terms.chain, known.terms.contract, known.terms.token) == (place.0, place.1, terms.token)
                && book.put(known)
            {
                slots.insert(known.terms.id(), *number);
            }
        }
        let contract = contract::Channels(terms.contract);
        Watch { wallet, contract, terms, book, tabs, store, read, kept: read.unwrap_or_default(), slots, asked: None }
    }

    /// The last block that was read for new channels.
    pub(super) fn read(&self) -> Option<u64> {
        self.read
    }

    /// Looks at the chain. Its newest block's number and time, and whether all that is deep was read.
    pub(super) async fn look(&mut self) -> Result<((u64, u64), bool), EvmError> {
        let head = self.wallet.head().await?;
        let deep = self.wallet.deep(head.0);
        let mut read = self.read.unwrap_or_else(|| deep.saturating_sub(FIRST_LOOK));
        for _ in 0..MAX_SPANS {
            if read >= deep {
                break;
            }
            let to = deep.min(read.saturating_add(MAX_LOG_BLOCKS));
            let found = self.opened(read + u64::from(self.read.is_some()), to).await?;
            let new = !found.is_empty();
            for terms in found.into_values() {
                self.meet(terms, deep).await?;
            }
            read = to;
            self.read = Some(read);
            if new || read >= self.kept.saturating_add(KEEP_EVERY) {
                self.keep_cursor(read).await?;
            }
        }
        self.read.get_or_insert(read);
        self.ask_again(deep).await?;
        Ok((head, read >= deep))
    }

    /// Channels in our token, to us and from us, that were opened in these blocks.
    async fn opened(&self, from: u64, to: u64) -> Result<BTreeMap<ChannelId, ChannelTerms>, EvmError> {
        let address = self.wallet.address();
        let us = Some(address_word(&address));
        let ours = |terms: &ChannelTerms| terms.token == self.terms.token && [terms.payer, terms.payee].contains(&address);
        let event = Some(contract::opened());
        let mut found = BTreeMap::new();
        for topics in [vec![event, None, None, us], vec![event, None, us]] {
            let logs = self.wallet.rpc().logs(&self.terms.contract, &topics, (from, to)).await?;
            let read = |log: &Log| contract::read_opened(self.terms.chain, &self.terms.contract, &log.topics, &log.data);
            found.extend(logs.iter().filter_map(read).filter(ours).map(|terms| (terms.id(), terms)));
        }
        Ok(found)
    }

    /// Takes a new channel into the book, and keeps it.
    async fn meet(&mut self, terms: ChannelTerms, deep: u64) -> Result<(), EvmError> {
        let id = terms.id();
        let Some(there) = self.wallet.channel_at(&self.contract, &id, deep).await? else { return Ok(()) };
        let known = Known { terms, deposit: there.deposit, redeemed: there.redeemed, exit_at: there.exit_at, closing: false };
        if there.exit_at == CLOSED || self.slots.contains_key(&id) {
            return Ok(());
        }
        if !self.book.put(known) && !self.put_instead(known).await? {
            debug!(channel = %id, deposit = there.deposit, "a channel that is too small");
            return Ok(());
        }
        let Some(slot) = self.free_slot() else { return Ok(()) };
        self.slots.insert(id, slot);
        self.keep(slot, codec::encode(&known)).await
    }

    /// Puts it into a full book in the place of a smaller one; whether it is there.
    async fn put_instead(&mut self, known: Known) -> Result<bool, EvmError> {
        let tabs = self.tabs.clone();
        let made = tokio::task::spawn_blocking(move || tabs.make_room(&known)).await;
        let made = made.map_err(|error| EvmError::Keep(error.to_string()))?;
        let Some(gone) = made.map_err(|error| EvmError::Keep(error.to_string()))? else { return Ok(false) };
        // Its record is written over by the next that takes the slot.
        self.slots.remove(&gone);
        info!(channel = %gone, "the book is full: a channel made room for one with a larger deposit");
        Ok(self.book.put(known))
    }

    /// A place in the journal that no channel has: there is one for each in the book.
    fn free_slot(&self) -> Option<u64> {
        let taken: BTreeSet<u64> = self.slots.values().copied().collect();
        let most = u64::try_from(MAX_CHANNELS).unwrap_or(u64::MAX);
        (CHANNELS..CHANNELS.saturating_add(most)).find(|slot| !taken.contains(slot))
    }

    /// How some of the channels are now; each has its turn.
    async fn ask_again(&mut self, deep: u64) -> Result<(), EvmError> {
        let ids: Vec<ChannelId> = {
            let after = self.asked.map_or(Bound::Unbounded, Bound::Excluded);
            let before = self.asked.map(|asked| self.slots.range(..=asked));
            let turn = self.slots.range((after, Bound::Unbounded)).chain(before.into_iter().flatten());
            turn.map(|(id, _)| *id).take(MAX_ASKED).collect()
        };
        for id in ids {
            let Some(known) = self.book.get(&id) else { continue };
            if let Some(now) = self.wallet.channel(&self.contract, &id).await? {
                self.on_channel(known, now, deep).await?;
            }
            self.asked = Some(id);
        }
        Ok(())
    }

    async fn on_channel(&mut self, known: Known, now: Channel, deep: u64) -> Result<(), EvmError> {
        let id = known.terms.id();
        let mut news = Known { redeemed: now.redeemed, exit_at: now.exit_at, ..known };
        if now.deposit != known.deposit || now.exit_at == CLOSED {
            match self.wallet.channel_at(&self.contract, &id, deep).await? {
                Some(there) if there.exit_at == CLOSED => return self.forget(&id).await,
                Some(there) => news.deposit = there.deposit,
                None => {}
            }
        }
        if news != known {
            self.book.put(news);
        }
        Ok(())
    }

    /// It is closed for ever, and deep.
    async fn forget(&mut self, id: &ChannelId) -> Result<(), EvmError> {
        self.book.remove(id);
        let Some(slot) = self.slots.remove(id) else { return Ok(()) };
        self.keep(slot, Vec::new()).await
    }

    async fn keep_cursor(&mut self, block: u64) -> Result<(), EvmError> {
        let place = (self.terms.chain, self.terms.contract);
        self.keep(CURSOR, codec::encode(&Cursor { place, block })).await?;
        self.kept = block;
        Ok(())
    }

    async fn keep(&self, number: u64, record: Vec<u8>) -> Result<(), EvmError> {
        let kept = self.store.keep_step(number, record).await;
        kept.inspect_err(|error| warn!("can't keep how far the chain was read: {error}"))
            .map_err(|error| EvmError::Keep(error.to_string()))
    }
}

//! Keeps the book of channels as the chain has it: new ones by the logs of deep blocks, deposits as deep, exits by the newest block. Thin.
//!
//! How far the chain was read, and which channels there are, is in the journal, so that a restart reads only what came since. A node that
//! starts for the first time is ready at once: nobody opens a channel to a worker that nobody knows. But its home may be a restored one,
//! with the key and without the store. So it goes on to look back, some pages at a time, until the block that made the contract; how far
//! that has come is in the journal, too. What was promised on a channel that we opened before this store began nobody knows any more: it can
//! be closed or left, and pays for no more jobs.

use super::{
    channels::{Channels, Known, least, turn},
    evm::{
        contract::{self, CLOSED, Channel},
        rpc::{Log, MAX_LOG_BLOCKS, RpcError, Unusable},
        wallet::{EvmError, Wallet},
    },
    steps::{CHANNELS, CURSOR, FOREIGN, Place},
    tab::units,
    tabs::Tabs,
};
use crate::store::Store;
use infernet_wire::{codec, evm::address_word, id::ChannelId, money::MicroUsd, settle::EvmTerms, voucher::ChannelTerms};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tracing::{debug, info, warn};

/// Blocks that a first start looks back before it is ready: those of one question. A day's worth is found some seconds later.
const FIRST_LOOK: u64 = MAX_LOG_BLOCKS;
/// Blocks in one question at most, if the chain's node takes that many: as many as most public ones do.
const MAX_SPAN: u64 = 10_000;
/// Questions for logs in one look; the rest is read in the next.
const MAX_SPANS: usize = 20;
/// Channels that are asked for in one look. All have their turn within five minutes, and an exit takes a day.
const MAX_ASKED: usize = 64;
/// How far it was read is kept so often, in blocks: what is read again after a crash, but for one question.
const KEEP_EVERY: u64 = MAX_LOG_BLOCKS;

/// How far the chain was read.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Cursor {
    place: Place,
    block: u64,
    /// Those before it are still to be read; 0: none.
    #[serde(default)]
    before: u64,
    /// The block that was the newest deep one when this store began.
    #[serde(default)]
    began: u64,
}

/// How many blocks are asked for at once. **Pure.**
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span(u64);

impl Span {
    /// There was an answer: some more, to see whether the limit has gone.
    fn answered(&mut self) {
        self.0 = self.0.saturating_add(self.0.div_ceil(8)).min(MAX_SPAN);
    }

    /// So many were too many, perhaps: half. Whether fewer can be asked for.
    fn refused(&mut self) -> bool {
        let one = self.0 <= 1;
        self.0 = self.0.div_ceil(2);
        !one
    }
}

/// Whether fewer blocks may help: nodes say so in many words, or take too long, or answer with more than is read.
fn is_too_much(error: &EvmError) -> bool {
    matches!(error, EvmError::Rpc(RpcError::Refused { .. } | RpcError::Malformed { .. } | RpcError::Silent { .. }))
}

/// Logs that were `found`, `None` if fewer blocks are to be asked for. One block's that are too many for us are none: no channel of
/// ours that is in there is known, which is better than to stand still in front of it.
fn had<T: Default>(found: Result<T, EvmError>, span: &mut Span, (from, to): (u64, u64)) -> Result<Option<T>, EvmError> {
    match found {
        Err(error) if is_too_much(&error) && span.refused() => Ok(None),
        Err(error @ EvmError::Rpc(RpcError::Malformed { with: Unusable::TooLong { .. }, .. })) => {
            warn!(from, to, "channels that were opened here are not known: {error}");
            Ok(Some(T::default()))
        }
        found => {
            let found = found?;
            span.answered();
            Ok(Some(found))
        }
    }
}

/// What a log tells of a new channel.
struct Opened {
    terms: ChannelTerms,
    block: u64,
    /// The first.
    deposit: u128,
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
    span: Span,
    /// Blocks before this one are still to be read; 0: none.
    before: u64,
    /// The newest deep block when this store began.
    began: u64,
    span_back: Span,
    /// The block that made the contract, once it was looked for.
    made: Option<u64>,
    /// Why it can't look back, as it was said last.
    told: Option<String>,
    slots: BTreeMap<ChannelId, u64>,
    /// Records of channels that are not in the book: of another chain, contract or token, which the node may settle in again.
    foreign: BTreeSet<u64>,
    /// A channel keeps its place in a full book for so many unredeemed units: what is redeemed by itself soon, or by the operator.
    worth: u128,
    /// The last channel that was asked for.
    asked: Option<ChannelId>,
}

impl Watch {
    /// Goes on from `records` of the journal: [`CURSOR`], and those from [`CHANNELS`] on. At `payout_at` a channel is redeemed; 0: never.
    pub(super) fn new(
        wallet: Wallet,
        terms: EvmTerms,
        payout_at: MicroUsd,
        tabs: Tabs,
        store: Arc<dyn Store>,
        records: &[(u64, Vec<u8>)],
    ) -> Self {
        let (place, book) = ((terms.chain, terms.contract), tabs.channels().clone());
        let cursor = records.iter().find(|(number, _)| *number == CURSOR);
        let cursor = cursor.and_then(|(_, record)| codec::decode::<Cursor>(record).ok()).filter(|cursor| cursor.place == place);
        let (read, before) = cursor.map(|cursor| (cursor.block, cursor.before)).unzip();
        let began = cursor.map_or(0, |cursor| cursor.began);
        let (mut slots, mut foreign) = (BTreeMap::new(), BTreeSet::new());
        let is_ours =
            |known: &Known| (known.terms.chain, known.terms.contract, known.terms.token) == (place.0, place.1, terms.token);
        for (number, record) in records.iter().filter(|(number, record)| *number >= CHANNELS && !record.is_empty()) {
            match codec::decode::<Known>(record) {
                Ok(known) if is_ours(&known) && book.put(known) => _ = slots.insert(known.terms.id(), *number),
                _ => _ = foreign.insert(*number),
            }
        }
        let contract = contract::Channels(terms.contract);
        let (kept, before, span) = (read.unwrap_or_default(), before.unwrap_or_default(), Span(MAX_LOG_BLOCKS));
        let (span_back, made, told, asked) = (span, None, None, None);
        let worth = if payout_at.0 == 0 { least(terms.rate) } else { units(payout_at, terms.rate) };
        Watch {
            wallet,
            contract,
            terms,
            book,
            tabs,
            store,
            read,
            kept,
            span,
            before,
            began,
            span_back,
            made,
            told,
            slots,
            foreign,
            worth,
            asked,
        }
    }

    /// The last block that was read for new channels.
    pub(super) fn read(&self) -> Option<u64> {
        self.read
    }

    /// Looks at the chain. Its newest block's number and time, and whether all that is deep was read.
    pub(super) async fn look(&mut self) -> Result<((u64, u64), Result<bool, EvmError>), EvmError> {
        let head = self.wallet.head().await?;
        let deep = self.wallet.deep(head.0);
        // Exits first: anybody can make logs that hold up the rest.
        let asked = self.ask_again(deep).await;
        let all = match asked {
            Ok(()) => self.read_on(deep).await,
            Err(error) => Err(error),
        };
        Ok((head, all))
    }

    /// Reads blocks up to `deep`; whether that was all.
    async fn read_on(&mut self, deep: u64) -> Result<bool, EvmError> {
        let mut read = match self.read {
            Some(read) => read,
            None => {
                (self.before, self.began) = (deep.saturating_sub(FIRST_LOOK), deep);
                self.before
            }
        };
        let (first, mut left) = (self.read.is_none(), MAX_SPANS);
        while read < deep && left > 0 {
            left -= 1;
            let to = deep.min(read.saturating_add(self.span.0));
            let blocks = (read + u64::from(self.read.is_some()), to);
            let Some(found) = had(self.opened(blocks).await, &mut self.span, blocks)? else { continue };
            let new = !found.is_empty();
            // What is new has what it was opened with; dust is worth no question, and anybody can make as much as fits into a block.
            let least = least(self.terms.rate);
            for Opened { terms, block, .. } in found.into_values().filter(|opened| opened.deposit >= least) {
                self.meet(terms, block, deep).await?;
            }
            read = to;
            self.read = Some(read);
            if new || read >= self.kept.saturating_add(KEEP_EVERY) {
                self.keep_cursor().await?;
            }
        }
        self.read.get_or_insert(read);
        if first {
            // Before anything is wanted here, which waits until it is ready.
            self.keep_cursor().await?;
        }
        if read >= deep {
            // What can't be had of old blocks holds up nothing.
            let why = self.look_back(deep, left).await.err().map(|error| error.to_string());
            if let Some(why) = why.as_ref().filter(|_| why != self.told) {
                warn!(before = self.before, "channels of older blocks are not found yet: {why}");
            }
            self.told = why;
        }
        Ok(read >= deep)
    }

    /// Reads the blocks before those that were read, from the newest on, in `left` questions.
    async fn look_back(&mut self, deep: u64, left: usize) -> Result<(), EvmError> {
        if self.before == 0 {
            return Ok(());
        }
        let made = match self.made {
            Some(made) => made,
            None => *self.made.insert(self.made(deep).await?),
        };
        for _ in 0..left {
            if self.before <= made {
                break;
            }
            let from = made.max(self.before.saturating_sub(self.span_back.0));
            let blocks = (from, self.before - 1);
            let Some(found) = had(self.opened(blocks).await, &mut self.span_back, blocks)? else { continue };
            for Opened { terms, block, .. } in found.into_values() {
                self.meet(terms, block, deep).await?;
            }
            self.before = from;
            self.keep_cursor().await?;
        }
        if self.before <= made {
            self.before = 0;
            self.keep_cursor().await?;
            info!(made, "all blocks since the contract was made are read");
        }
        Ok(())
    }

    /// The block that made the contract; 0 if the chain's node does not say what there was in old blocks.
    async fn made(&self, deep: u64) -> Result<u64, EvmError> {
        let (mut without, mut with) = (0, deep);
        while without + 1 < with {
            let middle = without + (with - without) / 2;
            match self.wallet.has_code(&self.terms.contract, middle).await {
                Ok(true) => with = middle,
                Ok(false) => without = middle,
                Err(EvmError::Rpc(RpcError::Refused { .. })) => return Ok(0),
                Err(error) => return Err(error),
            }
        }
        Ok(with)
    }

    /// Channels in our token, to us and from us, that were opened in these blocks, and in which of them.
    async fn opened(&self, blocks: (u64, u64)) -> Result<BTreeMap<ChannelId, Opened>, EvmError> {
        let address = self.wallet.address();
        let us = Some(address_word(&address));
        let ours = |terms: &ChannelTerms| terms.token == self.terms.token && [terms.payer, terms.payee].contains(&address);
        let event = Some(contract::opened());
        let mut found = BTreeMap::new();
        for topics in [vec![event, None, None, us], vec![event, None, us]] {
            let logs = self.wallet.rpc().logs(&self.terms.contract, &topics, blocks).await?;
            let read = |log: &Log| {
                let (terms, deposit) = contract::read_opened(self.terms.chain, &self.terms.contract, &log.topics, &log.data)?;
                ours(&terms).then(|| (terms.id(), Opened { terms, block: log.block, deposit }))
            };
            found.extend(logs.iter().filter_map(read));
        }
        Ok(found)
    }

    /// Takes a new channel into the book, and keeps it.
    async fn meet(&mut self, terms: ChannelTerms, block: u64, deep: u64) -> Result<(), EvmError> {
        let id = terms.id();
        if self.slots.contains_key(&id) {
            return Ok(());
        }
        let Some(there) = self.wallet.channel_at(&self.contract, &id, deep).await? else { return Ok(()) };
        let closing = terms.payer == self.wallet.address() && block <= self.began;
        let known = Known { terms, deposit: there.deposit, redeemed: there.redeemed, exit_at: there.exit_at, closing };
        if there.exit_at == CLOSED {
            return Ok(());
        }
        if !self.book.put(known) && !self.put_instead(known).await? {
            debug!(channel = %id, deposit = there.deposit, "a channel that is too small");
            return Ok(());
        }
        self.enter(&known).await
    }

    /// Keeps a channel of the book. One that is not on the disk has no slot: it is met again, and the cursor stays before it.
    async fn enter(&mut self, known: &Known) -> Result<(), EvmError> {
        let Some(slot) = self.free_slot() else { return Ok(()) };
        self.keep(slot, codec::encode(known)).await?;
        self.slots.insert(known.terms.id(), slot);
        Ok(())
    }

    /// Puts it into a full book in the place of a smaller one; whether it is there.
    async fn put_instead(&mut self, known: Known) -> Result<bool, EvmError> {
        let (tabs, worth) = (self.tabs.clone(), self.worth);
        let made = tokio::task::spawn_blocking(move || tabs.make_room(&known, worth)).await;
        let made = made.map_err(|error| EvmError::Keep(error.to_string()))?;
        let Some(gone) = made.map_err(|error| EvmError::Keep(error.to_string()))? else { return Ok(false) };
        // Its record is written over by the next that takes the slot.
        self.slots.remove(&gone);
        info!(channel = %gone, "the book is full: a channel made room for one with a larger deposit");
        Ok(self.book.put(known))
    }

    /// A place in the journal that no channel has: there is one for each in the book, beside those of others.
    fn free_slot(&self) -> Option<u64> {
        let taken: BTreeSet<u64> = self.slots.values().chain(&self.foreign).copied().collect();
        (CHANNELS..FOREIGN).find(|slot| !taken.contains(slot))
    }

    /// How some of the channels are now; each has its turn.
    async fn ask_again(&mut self, deep: u64) -> Result<(), EvmError> {
        let ids: Vec<ChannelId> = { turn(&self.slots, self.asked).map(|(id, _)| *id).take(MAX_ASKED).collect() };
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

    async fn keep_cursor(&mut self) -> Result<(), EvmError> {
        let block = self.read.unwrap_or_default();
        let place = (self.terms.chain, self.terms.contract);
        self.keep(CURSOR, codec::encode(&Cursor { place, block, before: self.before, began: self.began })).await?;
        self.kept = block;
        Ok(())
    }

    async fn keep(&self, number: u64, record: Vec<u8>) -> Result<(), EvmError> {
        let kept = self.store.keep_step(number, record).await;
        kept.inspect_err(|error| warn!("can't keep how far the chain was read: {error}"))
            .map_err(|error| EvmError::Keep(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        settlement::{
            evm::{rpc::Rpc, step::Rules},
            tabs::Credit,
        },
        store::{JournaledStore, MemoryStore, TestDisk},
    };
    use infernet_wire::{evm::EvmAddress, key::NodeKey, receipt::SignedReceipt, topic::NetworkId};
    use std::time::Duration;

    const TERMS: EvmTerms = EvmTerms { chain: 5, contract: EvmAddress([9; 20]), token: EvmAddress([8; 20]), rate: 1 };

    /// A watch whose chain's node nobody asks.
    fn watch(store: Arc<dyn Store>) -> Watch {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = NodeKey::from_bytes(&[2; 32]).expect("a key");
        let rpc = Rpc::new("http://127.0.0.1:1".parse().expect("a URL"), TERMS.chain).expect("a client");
        let wallet = Wallet::new(rpc, key.clone(), Rules::default(), Duration::ZERO);
        let tabs = Tabs::new(key, &[], NetworkId::default(), store.clone(), Credit::default());
        let records = store.steps(0).expect("read");
        Watch::new(wallet, TERMS, MicroUsd(0), tabs, store, &records)
    }

    fn known(token: EvmAddress, salt: u8) -> Known {
        let EvmTerms { chain, contract, .. } = TERMS;
        let terms =
            ChannelTerms { chain, contract, payer: EvmAddress([1; 20]), payee: EvmAddress([2; 20]), token, salt: [salt; 32] };
        Known { terms, deposit: 1_000_000, redeemed: 0, exit_at: 0, closing: false }
    }

    #[tokio::test]
    async fn a_channel_that_is_not_on_the_disk_is_met_again() {
        let disk = TestDisk::default();
        let open = JournaledStore::open(disk.clone(), &NetworkId::default(), [7; 16], SignedReceipt::decode_stored);
        let mut watch = watch(Arc::new(open.expect("opens")));
        disk.crash_at(disk.operations());
        let channel = known(TERMS.token, 1);
        for _ in 0..2 {
            assert!(matches!(watch.enter(&channel).await, Err(EvmError::Keep(_))));
            assert!(watch.slots.is_empty(), "it has no place yet");
        }
    }

    #[tokio::test]
    async fn channels_of_another_token_keep_their_records() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let other = known(EvmAddress::ZERO, 1);
        let records = [codec::encode(&other), Vec::new(), codec::encode(&known(TERMS.token, 2)), vec![0xff]];
        for (n, record) in (CHANNELS..).zip(records) {
            store.put_step(n, record).expect("kept");
        }
        let mut watch = watch(store.clone());
        for salt in [3, 4] {
            let channel = known(TERMS.token, salt);
            assert!(watch.book.put(channel));
            watch.enter(&channel).await.expect("kept");
        }
        let slots: BTreeSet<u64> = watch.slots.values().map(|slot| slot - CHANNELS).collect();
        assert_eq!(slots, BTreeSet::from([1, 2, 4]), "the empty one, its own, and one behind all");
        assert_eq!(store.steps(CHANNELS).expect("read")[0].1, codec::encode(&other));
    }

    #[test]
    fn a_span_finds_the_limit_of_a_node_and_comes_back_when_it_is_gone() {
        let (mut span, mut refusals) = (Span(MAX_LOG_BLOCKS), 0);
        let ask = |span: &mut Span, limit: u64| {
            let fits = span.0 <= limit;
            if fits {
                span.answered()
            } else {
                assert!(span.refused())
            }
            !fits
        };
        for _ in 0..100 {
            refusals += u32::from(ask(&mut span, 300));
        }
        assert!((150..=340).contains(&span.0) && refusals < 25, "{span:?}, {refusals}");
        for _ in 0..100 {
            ask(&mut span, u64::MAX);
        }
        assert_eq!(span.0, MAX_SPAN);
        let halves = std::iter::repeat_with(|| span.refused()).take_while(|again| *again).count();
        assert_eq!((halves, span.0), (14, 1), "one block is the least");
        span.answered();
        assert_eq!(span.0, 2);
    }

    #[test]
    fn one_block_with_too_many_logs_is_passed_over_and_one_that_is_not_told_is_not() {
        let (node, method) = (String::new(), "eth_getLogs");
        let had = |with, span: u64| {
            let (found, mut span) = (Err(RpcError::Malformed { node: node.clone(), method, with }.into()), Span(span));
            super::had::<Vec<u8>>(found, &mut span, (7, 7)).ok().map(|had| (had, span.0))
        };
        let long = Unusable::TooLong { most: 1 };
        assert_eq!([2, 1].map(|span| had(long, span)), [Some((None, 1)), Some((Some(vec![]), 1))]);
        assert_eq!([2, 1].map(|span| had(Unusable::Other, span)), [Some((None, 1)), None]);
        assert!(matches!(super::had(Ok(vec![5]), &mut Span(8), (7, 7)), Ok(Some(found)) if found == [5]));
    }

    #[test]
    fn a_cursor_of_before_looks_back_no_further() {
        #[derive(serde::Serialize)]
        struct Fields {
            place: Place,
            block: u64,
        }
        let place = (5, EvmAddress([9; 20]));
        let read = codec::decode::<Cursor>(&codec::encode(&Fields { place, block: 7 })).expect("a cursor");
        assert_eq!((read.place, read.block, read.before, read.began), (place, 7, 0, 0));
    }
}

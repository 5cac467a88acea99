//! Payments: drives `settlement::tab` as `settlement/tabs.rs` does, on simulated disks. Vouchers carry no signature here, as all that
//! simulated nodes sign.
//!
//! Looked at with every payment: an honest buyer's is never refused, and no buyer has promised more than it meant to, but for one step
//! at each of its crashes; with every token: no worker is further ahead of what is paid than one piece; and in the end, on the
//! disks: no seller has a promise in writing that its buyer does not know of.

use super::{Who, World, check::Invariant, member::Member, plant::Plant};
use infernet_node::{
    settlement::tab::{Authorise, BadPayment, Cover, Funds, PayeeTab, PayerTab, STEP},
    store::{JournaledStore, Side, Store, StoreError, TabOf},
};
use infernet_wire::{
    chat::Payment,
    evm::EvmAddress,
    id::{JobId, NodeId},
    money::MicroUsd,
    topic::NetworkId,
    voucher::{LEDGER, SignedVoucher, UnverifiedVoucher, Voucher, ledger_channel},
};
use std::collections::BTreeMap;

/// Writes a tab; on these disks that takes no time.
fn keep(store: &JournaledStore, side: Side, (me, other): (&NodeId, &NodeId), tab: Vec<u8>) -> Result<(), StoreError> {
    store.put_tab(&TabOf::ledger(side, *me, *other), tab)
}

impl World {
    fn payer(&mut self, who: Who, worker: &NodeId) -> Option<&mut PayerTab> {
        let forgets = self.scenario.plant == Some(Plant::ForgetsVouchers);
        let Member { id, buyer, store, .. } = self.member_mut(who);
        let kept = store
            .as_ref()
            .filter(|_| !forgets)
            .and_then(|store| store.tab(&TabOf::ledger(Side::Bought, *id, *worker)).ok().flatten());
        let recovered = || kept.as_deref().and_then(PayerTab::recover).unwrap_or_default();
        Some(buyer.as_deref_mut()?.payers.entry(*worker).or_insert_with(recovered))
    }

    fn payee(&mut self, who: Who, buyer: &NodeId) -> Option<&mut PayeeTab> {
        let Member { id, worker, store, .. } = self.member_mut(who);
        let kept = store.as_ref().and_then(|store| store.tab(&TabOf::ledger(Side::Sold, *id, *buyer)).ok().flatten());
        let recovered = || kept.as_deref().and_then(PayeeTab::recover).unwrap_or_default();
        Some(worker.as_deref_mut()?.payees.entry(*buyer).or_insert_with(recovered))
    }

    /// Pays `paid` for a job in all, never less than before. `None` if the disk fails.
    pub(super) fn pay(&mut self, who: Who, worker: &NodeId, job: JobId, paid: MicroUsd) -> Option<Payment> {
        let me = self.member(who).id;
        let before = self.payer(who, worker)?.paid(&job);
        let amount = loop {
            let tab = self.payer(who, worker)?;
            match tab.pay(job, paid, Funds::LEDGER) {
                Authorise::Ready { amount, more } => {
                    if let Some(total) = more {
                        let record = tab.ahead(total);
                        self.keep(who, |store| keep(store, Side::Bought, (&me, worker), record))?;
                        self.payer(who, worker)?.authorised(total);
                    }
                    break amount;
                }
                Authorise::First(total) => {
                    let record = tab.ahead(total);
                    self.keep(who, |store| keep(store, Side::Bought, (&me, worker), record))?;
                    self.payer(who, worker)?.authorised(total);
                }
                Authorise::Refused => return None,
            }
        };
        self.check_promise(who, worker, amount, paid.0.saturating_sub(before.0));
        self.stats.vouchers += 1;
        let channel = ledger_channel(&NetworkId::default(), &me, worker);
        let voucher = Voucher { chain: LEDGER, contract: EvmAddress::ZERO, channel, job, amount };
        Some(Payment { voucher: SignedVoucher::simulated(voucher).encode().into(), paid })
    }

    fn check_promise(&mut self, who: Who, worker: &NodeId, amount: u128, more: u64) {
        let (ms, lives) = (self.ms, u64::from(self.member(who).epoch) + 1);
        let meant = self.meant.entry((who, *worker)).or_default();
        *meant += more;
        let most = *meant + lives * 2 * STEP;
        self.checks.ensure(amount <= most.into(), Invariant::PaymentsHold, ms, || {
            format!("buyer {who} has promised {amount} micro-USD and meant to pay {most} at most")
        });
    }

    /// A bought job is over; `owed` as `Payer::close` has it. What was promised, if nobody knows what is owed.
    pub(super) fn settle_bought(&mut self, who: Who, worker: &NodeId, job: &JobId, owed: Option<MicroUsd>) -> MicroUsd {
        let Some(tab) = self.payer(who, worker) else { return MicroUsd(0) };
        let promised = if owed.is_none() { tab.paid(job) } else { MicroUsd(0) };
        tab.settle(job, owed);
        promised
    }

    /// A job runs on its buyer's tab.
    pub(super) fn open_tab(&mut self, who: Who, buyer: &NodeId, job: JobId, most: MicroUsd) {
        if let Some(tab) = self.payee(who, buyer) {
            // Without a limit it is never refused.
            let _ = tab.open(job, most, Cover::Credit(MicroUsd(u64::MAX)));
        }
    }

    /// A payment came. It counts if it is good, and on the disk.
    pub(super) fn take_payment(
        &mut self,
        who: Who,
        buyer: &NodeId,
        job: &JobId,
        payment: Option<&Payment>,
    ) -> Result<(), BadPayment> {
        let taken = payment.ok_or(BadPayment::Missing).and_then(|payment| self.take(who, buyer, job, payment));
        let (ms, from) = (self.ms, self.by_id.get(buyer).copied());
        if let Err(error) = &taken {
            self.stats.count("payment_refused", error.label());
        }
        // A disk that fails is no fault of the buyer's.
        let honest = from.is_some_and(|from| self.is_honest(from));
        let excused = matches!(taken, Err(BadPayment::NoJob | BadPayment::Missing));
        self.checks.ensure(taken.is_ok() || !honest || excused, Invariant::PaymentsHold, ms, || {
            format!("worker {who} refuses a payment of an honest buyer: {:?}", taken.as_ref().err())
        });
        taken
    }

    fn take(&mut self, who: Who, buyer: &NodeId, job: &JobId, payment: &Payment) -> Result<(), BadPayment> {
        let me = self.member(who).id;
        let voucher = UnverifiedVoucher::decode(&payment.voucher)?.as_kept();
        let tab = self.payee(who, buyer).ok_or(BadPayment::NoJob)?;
        if tab.take(job, voucher.amount, Some(voucher), payment.paid)? {
            let record = tab.record();
            self.keep(who, |store| keep(store, Side::Sold, (&me, buyer), record)).ok_or(BadPayment::NoJob)?;
        }
        Ok(())
    }

    /// What was paid for a job that runs.
    pub(super) fn paid(&mut self, who: Who, buyer: &NodeId, job: &JobId) -> MicroUsd {
        self.payee(who, buyer).map(|tab| tab.paid(job)).unwrap_or_default()
    }

    /// The answer is over and comes to `amount`: before its buyer is told, and on the disk by then.
    pub(super) fn end_of_answer(&mut self, who: Who, buyer: &NodeId, job: &JobId, amount: MicroUsd) {
        let me = self.member(who).id;
        let Some(tab) = self.payee(who, buyer) else { return };
        tab.end(job, amount);
        let record = tab.record();
        let _ = self.keep(who, |store| keep(store, Side::Sold, (&me, buyer), record));
    }

    /// A sold job is over and came to `amount`.
    pub(super) fn settle_sold(&mut self, who: Who, buyer: &NodeId, job: &JobId, amount: MicroUsd, agreed: bool) {
        let me = self.member(who).id;
        let Some(tab) = self.payee(who, buyer) else { return };
        tab.settle(job, amount, agreed);
        let record = tab.record();
        let _ = self.keep(who, |store| keep(store, Side::Sold, (&me, buyer), record));
    }

    /// What sellers have in writing, their buyers know of.
    pub(super) fn audit_tabs(&mut self, stores: &BTreeMap<Who, JournaledStore>) {
        let ms = self.ms;
        let mut wrong = Vec::new();
        for (who, store) in stores {
            let me = self.member(*who).id;
            for (TabOf { other: buyer, .. }, record) in store.tabs(Side::Sold, &me, None).unwrap_or_default() {
                let promised = PayeeTab::recover(&record).map_or(0, |tab| tab.promised());
                let Some(other) = self.by_id.get(&buyer).filter(|other| self.is_honest(**other)) else { continue };
                let kept =
                    stores.get(other).and_then(|store| store.tab(&TabOf::ledger(Side::Bought, buyer, me)).ok().flatten());
                let known = kept.as_deref().and_then(PayerTab::recover).map_or(0, |tab| tab.promised());
                if promised > known {
                    wrong.push(format!("worker {who} has a voucher of {promised}, buyer {other} knows of {known}"));
                }
                self.stats.tabs += 1;
            }
        }
        self.checks.ensure(wrong.is_empty(), Invariant::PaymentsHold, ms, || wrong.join("; "));
    }
}

//! What must hold when all is over: books, receipts, and that nothing is left behind.
//!
//! Before anybody looks, the power goes everywhere: only what the disks have kept counts.

use super::{
    Who,
    check::Invariant,
    job::End,
    member::{Member, Role},
    world::World,
};
use infernet_node::{
    earnings::Sum,
    spend::day,
    store::{JournaledStore, Page, Position, Store, Tear},
};
use infernet_wire::{
    id::{JobId, NodeId},
    receipt::{JobStatus, SignedReceipt},
    topic::NetworkId,
};
use std::collections::BTreeMap;

/// The receipts of one node by job and worker.
type Kept = BTreeMap<(JobId, NodeId), SignedReceipt>;

impl World {
    /// Looks at everything once.
    pub(super) fn audit(&mut self) {
        self.audit_rest();
        self.audit_running_sums();
        let (kept, stores) = self.after_a_power_cut();
        self.audit_tabs(&stores);
        self.audit_shown(&kept);
        self.audit_jobs(&kept);
        self.audit_books(&kept);
        self.audit_caps(&kept);
    }

    /// Nothing runs, waits or is held any more.
    fn audit_rest(&mut self) {
        let ms = self.ms;
        let unended: Vec<String> = self
            .jobs
            .iter()
            .filter(|job| job.ended.is_none())
            .map(|job| format!("job {} of buyer {} is still {}", job.no, job.buyer, job.phase.label()))
            .collect();
        self.checks.ensure(unended.is_empty(), Invariant::JobsEnd, ms, || unended.join("; "));
        let left: Vec<String> = self.members.iter().filter(|member| member.role != Role::Attacker).filter_map(left).collect();
        // What hangs on a job that has not ended is that job's fault.
        let excused = !unended.is_empty();
        self.checks.ensure(left.is_empty() || excused, Invariant::NothingHangs, ms, || left.join("; "));
    }

    /// What a node shows as earned and spent is the sum of its receipts.
    fn audit_running_sums(&mut self) {
        let ms = self.ms;
        let mut wrong = Vec::new();
        for member in self.members.iter().filter(|member| member.is_up()) {
            let Some(store) = &member.store else { continue };
            let (mut earned, mut spent) = (Sum::default(), Sum::default());
            for receipt in all(store).values() {
                let sum = if receipt.receipt().worker == member.id { &mut earned } else { &mut spent };
                sum.add(receipt);
            }
            if earned != member.books.earned || spent != member.books.spent {
                wrong.push(format!("node {} shows {:?}, its receipts say {earned:?}", member.who, member.books.earned));
            }
        }
        self.checks.ensure(wrong.is_empty(), Invariant::BooksBalance, ms, || wrong.join("; "));
    }

    /// What every node that has a disk finds on it; the disks are looked through for prompts and answers too.
    fn after_a_power_cut(&mut self) -> (BTreeMap<Who, Kept>, BTreeMap<Who, JournaledStore>) {
        let ms = self.ms;
        let (mut found, mut stores) = (BTreeMap::new(), BTreeMap::new());
        for who in 0..self.members.len() as Who {
            let disk = self.member(who).disk.after_crash(Tear::LOST);
            let bytes = disk.bytes();
            self.look_for_leaks(&bytes, "a disk");
            match JournaledStore::open(disk, &NetworkId::default(), [0; 16], SignedReceipt::decode_simulated) {
                Ok(store) => {
                    let unreadable = store.counts().map_or(0, |counts| counts.unreadable);
                    self.checks.ensure(unreadable == 0, Invariant::ReceiptsSurvive, ms, || {
                        format!("node {who} can't read {unreadable} of its receipts")
                    });
                    found.insert(who, all(&store));
                    stores.insert(who, store);
                }
                Err(error) => {
                    self.checks.ensure(false, Invariant::ReceiptsSurvive, ms, || format!("node {who}: {error}"));
                }
            }
        }
        (found, stores)
    }

    /// What was shown is there.
    fn audit_shown(&mut self, kept: &BTreeMap<Who, Kept>) {
        let ms = self.ms;
        let mut lost = Vec::new();
        for ((job, worker, who), digest) in &self.shown {
            let found = kept.get(who).and_then(|kept| kept.get(&(*job, *worker)));
            if found.is_none_or(|receipt| receipt.receipt().digest() != *digest) {
                lost.push(format!("node {who} has shown a receipt of job {job} that it does not have"));
            }
        }
        self.checks.ensure(lost.is_empty(), Invariant::ReceiptsSurvive, ms, || lost.join("; "));
    }

    /// Each job that was answered has its receipt, and no job has two.
    fn audit_jobs(&mut self, kept: &BTreeMap<Who, Kept>) {
        let ms = self.ms;
        let mut wrong = Vec::new();
        for job in &self.jobs {
            let of_buyer = kept.get(&job.buyer).into_iter().flatten().filter(|((id, _), _)| *id == job.id);
            let completed: Vec<&SignedReceipt> = of_buyer
                .map(|(_, receipt)| receipt)
                .filter(|receipt| receipt.countersign().is_some() && receipt.receipt().status == JobStatus::COMPLETED)
                .collect();
            let answered = matches!(job.ended, Some((_, End::Answered)));
            if answered && completed.len() != 1 || completed.len() > 1 {
                let (no, ended) = (job.no, job.ended.map_or("running", |(_, end)| end.label()));
                wrong.push(format!("job {no} ({ended}) has {} countersigned receipts", completed.len()));
            }
        }
        self.checks.ensure(wrong.is_empty(), Invariant::OneReceiptPerJob, ms, || wrong.join("; "));
    }

    /// Debits are credits: what both have is the same, what one has with both signatures the other has too.
    fn audit_books(&mut self, kept: &BTreeMap<Who, Kept>) {
        let ms = self.ms;
        let (mut debits, mut credits, mut wrong) = (0u64, 0u64, Vec::new());
        for (who, receipts) in kept {
            let me = self.member(*who).id;
            for ((job, worker), receipt) in receipts {
                let body = receipt.receipt();
                let is_mine = *worker == me;
                let other = if is_mine { body.buyer } else { *worker };
                let mirror = self.by_id.get(&other).and_then(|who| kept.get(who)).and_then(|kept| kept.get(&(*job, *worker)));
                let same = mirror.map(|mirror| mirror.receipt().digest() == body.digest());
                if receipt.countersign().is_some() && same != Some(true) {
                    wrong.push(format!("node {who} has a receipt of job {job} with both signatures, the other side has not"));
                }
                if receipt.countersign().is_some() && !is_mine {
                    debits += body.amount.0;
                }
                let buyer_signed = mirror.is_some_and(|mirror| mirror.countersign().is_some());
                if is_mine && buyer_signed {
                    credits += body.amount.0;
                }
            }
        }
        self.checks.ensure(wrong.is_empty(), Invariant::BooksBalance, ms, || wrong.join("; "));
        let what = || format!("buyers owe {debits} micro-USD, workers have {credits} in writing");
        self.checks.ensure(debits == credits, Invariant::BooksBalance, ms, what);
        self.stats.volume = debits;
        let (published, unknown) = self.published_volume(kept);
        let what =
            || format!("{unknown} published receipts are on no disk; observers add up {published} of {debits} micro-USD");
        self.checks.ensure(unknown == 0 && published <= debits, Invariant::BooksBalance, ms, what);
    }

    /// Nobody has signed to owe more in a day than its cap allows, however often it was killed.
    fn audit_caps(&mut self, kept: &BTreeMap<Who, Kept>) {
        let ms = self.ms;
        let mut wrong = Vec::new();
        for (who, receipts) in kept {
            let member = self.member(*who);
            let Some(cap) = member.caps.per_day else { continue };
            let mut days: BTreeMap<u32, u64> = BTreeMap::new();
            for signed in receipts.values().filter(|r| r.receipt().buyer == member.id && r.countersign().is_some()) {
                *days.entry(day(signed.receipt().finished)).or_default() += signed.receipt().amount.0;
            }
            let over = days.values().find(|spent| **spent > cap.0);
            wrong.extend(over.map(|spent| format!("buyer {who} owes {spent} micro-USD of one day's cap of {cap}")));
        }
        self.checks.ensure(wrong.is_empty(), Invariant::SpendWithinCaps, ms, || wrong.join("; "));
    }

    /// What somebody who hears every receipt adds up, and how many of them nobody has.
    fn published_volume(&self, kept: &BTreeMap<Who, Kept>) -> (u64, usize) {
        let mut unknown = 0;
        for (key, (amount, buyer)) in &self.published {
            let has = |id: &NodeId| {
                let receipt = self.by_id.get(id).and_then(|who| kept.get(who)).and_then(|kept| kept.get(key));
                receipt.is_some_and(|receipt| receipt.receipt().amount.0 == *amount)
            };
            unknown += usize::from(!has(buyer) || !has(&key.1));
        }
        (self.published.values().map(|(amount, _)| amount).sum(), unknown)
    }
}

fn left(member: &Member) -> Option<String> {
    let mut left = Vec::new();
    if let Some(working) = member.worker.as_deref() {
        let admission = working.market.admission();
        for (what, count) in [
            ("running slots", admission.running()),
            ("settling jobs", admission.settling()),
            ("held slots", admission.held()),
            ("streams", working.serving.len()),
        ] {
            if count > 0 {
                left.push(format!("{count} {what}"));
            }
        }
    }
    if let Some(buying) = member.buyer.as_deref() {
        let turn = usize::from(buying.turn.is_some()) + buying.waiting.len();
        for (what, count) in [("auctions", buying.market.open_auctions()), ("streams", buying.running.len()), ("turns", turn)] {
            if count > 0 {
                left.push(format!("{count} {what}"));
            }
        }
    }
    (!left.is_empty()).then(|| format!("node {} has {} left", member.who, left.join(", ")))
}

fn all(store: &JournaledStore) -> Kept {
    let (mut found, mut before) = (Kept::new(), None);
    loop {
        let page = store.receipts(Page { before, limit: 512 }).unwrap_or_default();
        let Some(last) = page.last() else { return found };
        before = Some(Position::of(last));
        found.extend(page.into_iter().map(|receipt| ((receipt.receipt().job, receipt.receipt().worker), receipt)));
    }
}

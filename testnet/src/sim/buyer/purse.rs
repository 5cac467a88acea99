//! What a buyer may spend: its cap for the day, kept as `spend` keeps it.

use crate::sim::{JobNo, Who, World, job::End, member::Role, plant::Plant};
use infernet_node::{
    spend::{ALL, Book, Caps, Decision, day},
    store::Store,
};
use infernet_wire::money::{MicroUsd, Price};

impl World {
    /// Gives a buyer its cap, if buyers have one.
    pub(in crate::sim) fn draw_cap(&mut self, who: Who) {
        let Some(jobs) = self.scenario.load.cap_jobs else { return };
        let load = self.scenario.load;
        // The first model is asked for most.
        let usual = self.models().first().map_or(0, |(_, usual)| *usual);
        let price = Price { input: MicroUsd(usual / 4), output: MicroUsd(usual) };
        let long = price.cost(load.prompt_bytes.1 as u32, load.answer_tokens.1 as u32).unwrap_or_default();
        let jobs = self.load_dice.within(jobs.ends());
        self.member_mut(who).caps = Caps { per_request: None, per_day: Some(MicroUsd(jobs * long.0)) };
    }

    /// What a node that starts finds authorised counts as spent.
    pub(in crate::sim) fn open_purse(&mut self, who: Who) {
        let (day, forgets) = (day(self.local(who)), self.scenario.plant == Some(Plant::ForgetsSpend));
        let member = self.member_mut(who);
        if member.role != Role::Buyer || member.caps.per_day.is_none() {
            return;
        }
        let records = member.store.as_ref().and_then(|store| store.spend_since(day).ok()).unwrap_or_default();
        member.purse = if forgets { Book::default() } else { Book::recover(records, MicroUsd::default(), day) };
    }

    /// Reserves the most that a job may cost. Whether it may begin; if not, it has ended.
    pub(in crate::sim) fn authorise(&mut self, no: JobNo) -> bool {
        let (who, most) = (self.job(no).buyer, self.job(no).order.budget());
        let (day, caps) = (day(self.local(who)), self.member(who).caps);
        if caps.per_day.is_none() {
            return true;
        }
        // Once more after what may be spent is on the disk.
        for _ in 0..2 {
            match self.member_mut(who).purse.draw(&[(ALL, caps)], day, most) {
                Ok(Decision::Drawn(draw)) => {
                    let job = self.job_mut(no);
                    job.order.most = draw.most;
                    job.draw = Some(draw);
                    return true;
                }
                Ok(Decision::Extend(records)) => {
                    for record in records {
                        if self.keep(who, |store| store.put_spend(&record)).is_none() {
                            self.end(no, End::Failed("cap_not_kept"));
                            return false;
                        }
                        self.member_mut(who).purse.extended(&record);
                    }
                }
                Err(_) => break,
            }
        }
        self.end(no, End::Failed("spend_cap"));
        false
    }

    /// A job's reservation becomes what it cost, as `spend` has it: the receipt that this node has signed; without one, what broke
    /// off in the middle counts whole, since its worker may still ask for it.
    pub(super) fn settle_purse(&mut self, no: JobNo) {
        let job = self.job_mut(no);
        let Some(draw) = job.draw.take() else { return };
        let lost = job.lost;
        let broken_off = !job.answer.is_empty();
        let (who, id) = (job.buyer, job.id);
        let signed = self.signed.get(&id).copied();
        let actual = signed.or(broken_off.then_some(draw.most)).unwrap_or_default();
        self.member_mut(who).purse.settle(&draw, actual, lost);
    }
}

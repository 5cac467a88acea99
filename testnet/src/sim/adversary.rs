//! Who attacks, how, and what it does to the honest: each attack is a scenario of its own, and comes with the defence that it
//! tries and with numbers, measured against the same network without the attack.

use super::{
    Who,
    dice::Dice,
    event::Event,
    gossip::Said,
    job::Order,
    member::{Life, Role},
    outcome::{self, Outcome},
    scenario::Scenario,
    stats::Samples,
    stream::{OpenPiece, Piece, Stream},
    worker::{Conduct, Profile},
    world::World,
};
use infernet_wire::{
    bid::{Answer, JobBid},
    envelope::{SimulatedKey, Verified},
    id::{NodeId, OfferId},
    limits,
    money::{MicroUsd, Price},
    offer::JobOffer,
    topic::NetworkId,
};
use serde::{Deserialize, Serialize};
use std::{fmt, rc::Rc};

/// Milliseconds between two turns of the attackers.
const TURN_MS: u64 = 10;
/// Bids that a spammer sends for one offer: more than a buyer looks at and a neighbour passes on.
const SPAM_BIDS: u64 = 100;
/// Keys of passers-by: none of a node.
const STRANGERS_WORLD: u64 = 1 << 63;

/// An attack.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adversary {
    /// Which.
    pub kind: Attack,
    /// Attacking nodes.
    pub nodes: u64,
    /// What they do a second, all together, where that is their attack.
    #[serde(default)]
    pub per_second: u64,
}

/// What attackers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// They advertise at tempting prices, many for each honest worker, and never answer.
    SybilAds,
    /// They publish offers under keys that were never seen.
    OfferSpam,
    /// They answer every offer with many cheap bids under keys that were never seen.
    BidSpam,
    /// They publish offers under ever new keys and let the slots that are held for them lapse.
    HoldExhaustion,
    /// They bid when the window is about to end.
    Sniping,
    /// They use each accept twice.
    DoubleAccept,
    /// They say again all that was said.
    Replay,
    /// They charge more tokens than they deliver.
    InflatedUsage,
    /// They take answers and sign nothing.
    DeadbeatBuyer,
    /// They advertise half their price and a speed that they don't have.
    Lying,
    /// They advertise and never answer.
    SilentWorker,
    /// They are most of a buyer's neighbours, and pass nothing on.
    Eclipse,
}

impl Attack {
    /// What keeps it from doing harm.
    pub fn defence(self) -> &'static str {
        match self {
            Attack::SybilAds => {
                "half of the turns are invitations (market/select); silent ads are not waited for (market/record)"
            }
            Attack::OfferSpam => "a share of gossip (net/rules) and of slots (market/newcomers) is all that new keys get",
            Attack::BidSpam => {
                "bids of workers without an ad rank last, and only so many are looked at (market/rank, market/auction, net/routes)"
            }
            Attack::HoldExhaustion => "strangers hold at most half of the free slots (market/admission)",
            Attack::Sniping => "auctions close as soon as waiting is not worth it (market/patience)",
            Attack::DoubleAccept => "a hold becomes a slot once, an ad's accept is good once (market/admission, market/used)",
            Attack::Replay => "what was seen, or made before the start, is ignored (net/rules)",
            Attack::InflatedUsage => "no more tokens than bytes, never above the budget (chat/session)",
            Attack::DeadbeatBuyer => "who has settled nothing stays a stranger (market/admission)",
            Attack::Lying => {
                "what was measured counts instead of what is claimed; broken promises are doubted (market/rank, market/record)"
            }
            Attack::SilentWorker => "who does not answer is not waited for (market/record, market/patience)",
            Attack::Eclipse => "own offers go to all neighbours, and some neighbours are of one's own choice (net)",
        }
    }

    fn poses_as_worker(self) -> Option<Conduct> {
        match self {
            Attack::SybilAds | Attack::SilentWorker => Some(Conduct::Silent),
            Attack::Sniping => Some(Conduct::Sniping),
            Attack::InflatedUsage => Some(Conduct::Inflating),
            Attack::Lying => Some(Conduct::Boastful),
            _ => None,
        }
    }

    /// Whether it buys.
    pub fn poses_as_buyer(self) -> bool {
        matches!(self, Attack::DoubleAccept | Attack::DeadbeatBuyer)
    }

    fn has_turns(self) -> bool {
        matches!(self, Attack::OfferSpam | Attack::HoldExhaustion | Attack::Replay)
    }
}

impl World {
    /// Which attack this world is under.
    pub(super) fn attack(&self) -> Option<Attack> {
        self.scenario.adversary.map(|adversary| adversary.kind)
    }

    fn attackers(&self) -> Vec<Who> {
        self.members.iter().filter(|member| member.role == Role::Attacker).map(|member| member.who).collect()
    }

    /// The attackers take their places.
    pub(super) fn start_attack(&mut self) {
        let Some(Adversary { kind, .. }) = self.scenario.adversary else { return };
        let (attackers, warmup) = (self.attackers(), self.scenario.load.warmup_s * 1_000);
        for who in &attackers {
            self.start(*who);
            if kind.poses_as_buyer() {
                let first = warmup + self.load_dice.below(self.scenario.load.pause_ms.1);
                self.wheel.put(first, Event::Order(*who));
            }
        }
        if kind == Attack::Eclipse {
            self.surround(&attackers);
        }
        if kind.has_turns() {
            // Buyers have become known by then.
            let later =
                if matches!(kind, Attack::HoldExhaustion | Attack::OfferSpam) { self.scenario.seconds * 1_000 / 3 } else { 0 };
            self.wheel.put(warmup + later, Event::Attack);
        }
    }

    /// Every buyer has all attackers for neighbours, and of its own choice the half that it keeps for that.
    fn surround(&mut self, attackers: &[Who]) {
        let buyers: Vec<Who> =
            self.members.iter().filter(|member| member.role == Role::Buyer).map(|member| member.who).collect();
        let honest: Vec<Who> = self.members.iter().filter(|member| member.role != Role::Attacker).map(|m| m.who).collect();
        buyers.iter().for_each(|buyer| _ = self.mesh.leave(*buyer));
        for buyer in buyers {
            self.mesh.join(buyer, &honest, &mut self.fault_dice);
            attackers.iter().for_each(|attacker| _ = self.mesh.connect(buyer, *attacker));
        }
    }

    /// Whether `who` keeps to itself what others say.
    pub(super) fn swallows(&self, who: Who) -> bool {
        self.attack() == Some(Attack::Eclipse) && self.member(who).role == Role::Attacker
    }

    /// What an attacker that poses as a worker is.
    pub(super) fn attacker_profile(&self, who: Who) -> Option<Profile> {
        let conduct = self.attack()?.poses_as_worker()?;
        let mut dice = Dice::new(u64::from(who), &self.member(who).id.to_string());
        let mut profile = self.drawn_profile(&mut dice, conduct);
        let cheap = self.scenario.market.price_percent.0 * if conduct == Conduct::Silent { 9 } else { 10 } / 10;
        for model in &mut profile.models {
            let usual = self.models().iter().find(|(id, _)| *id == model.id).map_or(0, |(_, usual)| *usual);
            let output = usual * cheap / 100;
            model.price = Price { input: MicroUsd(output / 4), output: MicroUsd(output) };
            if conduct == Conduct::Boastful {
                (model.ttft_ms, model.tokens_per_second) = (1, 10_000);
            }
        }
        if conduct == Conduct::Boastful {
            (profile.ttft_ms, profile.tokens_per_second) = (3_000, 4);
        }
        Some(profile)
    }

    /// The attackers' turn.
    pub(super) fn on_attack(&mut self) {
        let Some(Adversary { kind, per_second, .. }) = self.scenario.adversary else { return };
        if self.ms + TURN_MS < self.scenario.seconds * 1_000 {
            self.wheel.put(self.ms + TURN_MS, Event::Attack);
        }
        let attackers = self.attackers();
        let turn = self.ms / TURN_MS;
        let times = per_second * (turn + 1) * TURN_MS / 1_000 - per_second * turn * TURN_MS / 1_000;
        for _ in 0..times {
            let Some(who) = self.fault_dice.pick(&attackers).copied() else { return };
            // Who was thrown out comes back.
            if self.mesh.degree(who) == 0 {
                self.look_for_neighbours(who);
            }
            match kind {
                Attack::Replay => {
                    let kept = self.rumours.kept.len();
                    let Some(no) = self.rumours.kept.get(self.fault_dice.below(kept as u64) as usize).copied() else { return };
                    self.repeat(who, no);
                }
                _ => self.cry(who),
            }
        }
    }

    /// An offer of somebody who was never seen and wants nothing.
    fn cry(&mut self, who: Who) {
        self.cried += 1;
        let key = SimulatedKey::new(STRANGERS_WORLD, self.cried);
        let (model, usual) = self.models().first().cloned().unwrap_or_default();
        let each = MicroUsd(usual * 3);
        let order = Order::new(model, 80, 20, Price { input: each, output: each }, self.fault_dice.bytes());
        let body = order.offer(OfferId(self.fault_dice.bytes()), self.local(who));
        if let Ok(offer) = key.sign(&NetworkId::default(), body) {
            self.spread(who, Said::Offer(offer), key.id(), false, None);
        }
    }

    /// A spammer has heard an offer.
    pub(super) fn answer_with_spam(&mut self, who: Who, from: Who, offer: &Verified<JobOffer>) {
        if self.attack() != Some(Attack::BidSpam) || self.member(who).role != Role::Attacker {
            return;
        }
        let now = self.local(who);
        for _ in 0..SPAM_BIDS {
            self.cried += 1;
            let key = SimulatedKey::new(STRANGERS_WORLD, self.cried);
            let body = JobBid {
                offer: offer.digest(),
                issued: now,
                hold_until: now.after(u64::from(offer.window_ms) + limits::HOLD_SLACK_MS),
                model: offer.model.clone(),
                price: Price { input: MicroUsd(1), output: MicroUsd(1) },
                queue_ms: 0,
                ttft_ms: 1,
                tokens_per_second: 1_000,
                chat: vec![],
            };
            let Ok(bid) = key.sign(&NetworkId::default(), body) else { return };
            let via = self.member(from).id;
            self.forward_answer(who, offer.signer(), via, Answer::Bid(bid), 0);
        }
    }

    /// A bid as its worker's conduct has it, and how long it waits with it.
    pub(super) fn disguised(&self, conduct: Conduct, body: JobBid) -> (JobBid, u64) {
        let window = body.hold_until.since(body.issued).saturating_sub(limits::HOLD_SLACK_MS);
        match conduct {
            Conduct::Boastful => (JobBid { ttft_ms: 1, tokens_per_second: 10_000, ..body }, 0),
            Conduct::Sniping => (body, window * 8 / 10),
            _ => (body, 0),
        }
    }

    /// A buyer that uses each accept twice does so now.
    pub(super) fn open_twice(&mut self, stream: u32, open: &OpenPiece) {
        let Some(first) = self.stream(stream) else { return };
        let (job, buyer, worker, epochs) = (first.job, first.buyer, first.worker, first.epochs);
        if self.attack() == Some(Attack::DoubleAccept) && self.member(buyer).role == Role::Attacker {
            self.streams.push(Stream::new(job, buyer, worker, epochs));
            let second = self.streams.len() as u32 - 1;
            self.send_after(second, true, Piece::Open(Rc::new(open.clone())), 200);
            self.stats.count("attack", "second_use");
        }
    }

    /// Whether this buyer signs nothing.
    pub(super) fn is_deadbeat(&self, who: Who) -> bool {
        self.attack() == Some(Attack::DeadbeatBuyer) && self.member(who).role == Role::Attacker
    }

    /// Whether a node is one of the honest.
    pub(super) fn is_honest(&self, who: Who) -> bool {
        self.member(who).role != Role::Attacker
    }

    /// Who won, for the share of attackers over time.
    pub(super) fn note_winner(&mut self, worker: &NodeId) {
        let attacker = self.by_id.get(worker).is_none_or(|who| !self.is_honest(*who));
        let late = usize::from(self.ms > self.scenario.seconds * 500);
        if let Some((won, all)) = self.stats.won_by_attackers.get_mut(late) {
            *won += u64::from(attacker);
            *all += 1;
        }
    }

    /// How much of a worker strangers have.
    pub(super) fn note_strangers(&mut self, who: Who) {
        if self.attack().is_none() || !self.is_honest(who) || self.member(who).life != Life::Up {
            return;
        }
        let Some(working) = self.member(who).worker.as_deref() else { return };
        let admission = working.market.admission();
        if admission.slots() > 1 {
            let permille = admission.taken_by_strangers() as u64 * 1_000 / admission.slots() as u64;
            self.stats.strangers_permille = self.stats.strangers_permille.max(permille);
        }
    }
}

/// A number of an attack.
#[derive(Debug, Clone, Serialize)]
pub struct Number {
    /// Of what.
    pub what: &'static str,
    /// How much, in the unit that `what` names.
    pub value: u64,
    /// The same without the attack, where that can be told.
    pub without: Option<u64>,
    /// What must hold of it, and whether it does.
    pub bound: Option<(String, bool)>,
}

/// What an attack did.
#[derive(Debug, Clone, Serialize)]
pub struct Harm {
    /// The scenario.
    pub scenario: String,
    /// Which attack.
    pub attack: Attack,
    /// What keeps it from doing harm.
    pub defence: &'static str,
    /// The seeds that were run.
    pub seeds: u64,
    /// Jobs of honest buyers.
    pub jobs: u64,
    /// Invariants that did not hold, over all seeds.
    pub violations: usize,
    /// The numbers.
    pub numbers: Vec<Number>,
}

/// What honest buyers got, over some seeds.
#[derive(Debug, Default)]
struct Honest {
    jobs: u64,
    answered: u64,
    offers: u64,
    reached: u64,
    auction_ms: Samples,
    won: [(u64, u64); 2],
    outcomes: Vec<Outcome>,
}

fn honest(scenario: &Scenario, name: &str, seeds: u64) -> Honest {
    let mut found = Honest::default();
    for seed in 1..=seeds {
        let outcome = outcome::run(scenario, name, seed, false);
        found.jobs += outcome.stats.honest_jobs;
        found.answered += outcome.stats.honest_answered;
        found.offers += outcome.offers;
        found.reached += outcome.reached;
        found.auction_ms.add(&outcome.stats.auction_ms);
        for (sum, half) in found.won.iter_mut().zip(outcome.stats.won_by_attackers) {
            *sum = (sum.0 + half.0, sum.1 + half.1);
        }
        found.outcomes.push(outcome);
    }
    found
}

impl Honest {
    fn answered_permille(&self) -> u64 {
        (self.answered * 1_000).checked_div(self.jobs).unwrap_or_default()
    }

    fn reached_permille(&self) -> u64 {
        (self.reached * 1_000).checked_div(self.offers).unwrap_or_default()
    }

    fn won_permille(&self, half: usize) -> u64 {
        self.won.get(half).and_then(|(won, all)| (won * 1_000).checked_div(*all)).unwrap_or_default()
    }

    fn sum(&self, of: impl Fn(&Outcome) -> u64) -> u64 {
        self.outcomes.iter().map(of).sum()
    }
}

/// Runs `scenario` with its attack and without, `seeds` times each. `None` if it has none.
pub fn measure(scenario: &Scenario, name: &str, seeds: u64) -> Option<Harm> {
    let attack = scenario.adversary?.kind;
    let calm = honest(&Scenario { adversary: None, ..scenario.clone() }, name, seeds);
    let attacked = honest(scenario, name, seeds);
    Some(Harm {
        scenario: name.into(),
        attack,
        defence: attack.defence(),
        seeds,
        jobs: attacked.jobs,
        violations: attacked.outcomes.iter().map(|outcome| outcome.violations.len()).sum(),
        numbers: numbers(attack, &calm, &attacked),
    })
}

fn numbers(attack: Attack, calm: &Honest, attacked: &Honest) -> Vec<Number> {
    let plain = |what, value, without| Number { what, value, without, bound: None };
    let bounded = |what, value, without, bound: String, holds| Number { what, value, without, bound: Some((bound, holds)) };
    let p99 = |honest: &Honest| honest.auction_ms.summary().p99;
    let mut numbers = vec![plain("jobs answered, ‰", attacked.answered_permille(), Some(calm.answered_permille()))];
    let auction = plain("auction p99, ms", p99(attacked), Some(p99(calm)));
    match attack {
        Attack::SybilAds | Attack::Eclipse => {
            let reached = attacked.reached_permille();
            let what = "offers that reach an honest worker, ‰";
            numbers.push(bounded(what, reached, Some(calm.reached_permille()), "≥ 990".into(), reached >= 990));
            numbers.push(auction);
        }
        Attack::OfferSpam => {
            // Of jobs that were answered: an attack under which none is has no slow auction either.
            let (answered, least) = (attacked.answered_permille(), calm.answered_permille() * 9 / 10);
            let what = "jobs answered beside it, ‰";
            numbers.push(bounded(what, answered, None, format!("≥ {least}"), answered >= least));
            let most = p99(calm) * 120 / 100;
            let (value, without) = (p99(attacked), Some(p99(calm)));
            numbers.push(bounded("auction p99, ms", value, without, format!("≤ {most}"), value <= most));
            numbers.push(plain("bogus offers, in thousands", attacked.sum(|o| o.stats.cried) / 1_000, None));
        }
        Attack::HoldExhaustion => {
            let most = attacked.outcomes.iter().map(|outcome| outcome.stats.strangers_permille).max().unwrap_or_default();
            let what = "most slots of a worker that strangers had, ‰";
            numbers.push(bounded(what, most, None, "≤ 500".into(), most <= 500));
            let refused = |honest: &Honest| {
                let of = |what: &'static str| honest.sum(|outcome| outcome.stats.counted("known_buyer", what));
                (of("refused") * 1_000).checked_div(of("refused") + of("bid")).unwrap_or_default()
            };
            let what = "offers of known buyers refused by a worker, ‰";
            numbers.push(plain(what, refused(attacked), Some(refused(calm))));
        }
        Attack::Replay => {
            let effects = attacked.sum(|outcome| outcome.stats.replay_effects);
            numbers.push(bounded("effects of replays", effects, None, "0".into(), effects == 0));
            numbers.push(plain("messages repeated", attacked.sum(|outcome| outcome.stats.replayed), None));
        }
        Attack::DoubleAccept => {
            let uses = attacked.sum(|outcome| outcome.stats.counted("attack", "second_use"));
            let refused = attacked.sum(|outcome| outcome.stats.area("claim_refused").values().sum());
            numbers.push(plain("second uses of an accept", uses, None));
            numbers.push(bounded("claims refused", refused, None, format!("≥ {}", uses * 9 / 10), refused >= uses * 9 / 10));
        }
        Attack::InflatedUsage => {
            let (inflated, tokens) = (attacked.sum(|o| o.stats.inflated), attacked.sum(|o| o.stats.charged));
            let share = (inflated * 1_000).checked_div(tokens).unwrap_or_default();
            numbers.push(plain("tokens charged and not delivered, ‰ of all", share, None));
        }
        Attack::Sniping | Attack::SilentWorker | Attack::BidSpam => numbers.push(auction),
        Attack::Lying => {
            numbers.push(plain("jobs won by liars in the first half, ‰", attacked.won_permille(0), None));
            let (early, late) = (attacked.won_permille(0), attacked.won_permille(1));
            let what = "jobs won by liars in the second half, ‰";
            numbers.push(bounded(what, late, None, format!("≤ {}", early.max(50)), late <= early.max(50)));
        }
        Attack::DeadbeatBuyer => {
            let most = attacked.outcomes.iter().map(|outcome| outcome.stats.strangers_permille).max().unwrap_or_default();
            numbers.push(plain("most slots of a worker that strangers held, ‰", most, None));
            numbers.push(plain("micro-USD served and not signed", attacked.sum(|o| o.stats.unsigned), None));
        }
    }
    numbers
}

impl Harm {
    /// Whether every bound holds.
    pub fn is_well(&self) -> bool {
        self.violations == 0 && self.numbers.iter().all(|number| number.bound.as_ref().is_none_or(|(_, holds)| *holds))
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} honest jobs in {} seeds", self.scenario, self.jobs, self.seeds)?;
        write!(f, "  defence: {}", self.defence)?;
        for number in &self.numbers {
            write!(f, "\n  {:<48}{:>8}", number.what, number.value)?;
            if let Some(without) = number.without {
                write!(f, "  without the attack {without}")?;
            }
            if let Some((bound, holds)) = &number.bound {
                write!(f, "  must be {bound}: {}", if *holds { "holds" } else { "DOES NOT HOLD" })?;
            }
        }
        if self.violations > 0 {
            write!(f, "\n  {} violations of invariants", self.violations)?;
        }
        Ok(())
    }
}

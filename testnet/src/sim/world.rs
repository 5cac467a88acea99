//! The simulated world: nodes, their network, what is under way, and the one loop in which everything happens.
//!
//! There is one order of events, one source of chance for each concern, and no clock, so a seed has one history.

use super::{
    JobNo, StreamNo, Who,
    adversary::Attack,
    buyer::Buying,
    check::{Checks, Invariant},
    coverage::Coverage,
    dice::Dice,
    event::{Event, Timer},
    fault::Aimed,
    gossip::Rumours,
    job::{ANSWER_MARK, Job, Order, PROMPT_MARK, Phase, turn_digest},
    log::{Fact, Log},
    member::{Books, Life, Member, Role},
    mesh::Mesh,
    plant::Plant,
    scenario::Scenario,
    stats::Stats,
    stream::Stream,
    wheel::Wheel,
    worker::{Conduct, Profile, Working},
};
use infernet_node::{
    market::{
        affinity::{Conversation, Prefix},
        auction::Won,
        buyer::{Input as BuyerInput, Observation, Wishes},
        course::{Course, Pauses},
        quote,
        rank::{Terms, Weight},
        standing::PathChoice,
        trust::Trust,
    },
    net::{
        routes::{NextHop, Routes},
        rules::Rules,
    },
    recall::{Met, met},
    store::{JournaledStore, Page, Position, Store, StoreError},
};
use infernet_wire::{
    bid::Answer,
    capability::ModelAd,
    envelope::{Message, Verified},
    id::{Hash, JobId, NodeId},
    money::{MicroUsd, Price},
    offer::SelectionRule,
    receipt::SignedReceipt,
    time::UnixMillis,
    topic::NetworkId,
};
use std::{collections::BTreeMap, sync::Arc};

/// How often a node writes down others' ad sequences, as `node.rs` has it.
const SAVE_MS: u64 = 60_000;
/// How long a world goes on after the last order, at most: longer than every deadline of a job.
const DRAIN_MS: u64 = 200_000;
/// How long it goes on after the last job: until every hold has lapsed, a worker has noticed that its buyer is away
/// and waited for it, and every countersignature is given up.
const QUIET_MS: u64 = 60_000;

/// See the module.
pub struct World {
    /// What it is of.
    pub scenario: Scenario,
    /// Virtual milliseconds since the beginning.
    pub ms: u64,
    /// What comes.
    pub wheel: Wheel<Event>,
    /// What nodes draw.
    pub dice: Dice,
    /// What ways draw.
    pub way_dice: Dice,
    /// What faults draw.
    pub fault_dice: Dice,
    /// What callers draw.
    pub load_dice: Dice,
    /// What happened.
    pub log: Log,
    /// The network.
    pub mesh: Mesh,
    /// Gossip under way.
    pub rumours: Rumours,
    /// The nodes.
    pub members: Vec<Member>,
    /// Their numbers.
    pub by_id: BTreeMap<NodeId, Who>,
    /// Until when a node is busy with gossip, in virtual microseconds.
    pub busy_until_us: Vec<u64>,
    /// All jobs.
    pub jobs: Vec<Job>,
    /// Those that have not ended.
    pub open_jobs: u64,
    /// All chat streams.
    pub streams: Vec<Stream>,
    /// Faults that wait for their job.
    pub aimed: Vec<Aimed>,
    /// Receipts that a node has shown another, by job, worker and the node that showed it.
    pub shown: BTreeMap<(JobId, NodeId, Who), Hash>,
    /// What buyers have signed to owe, by job.
    pub signed: BTreeMap<JobId, MicroUsd>,
    /// Receipts that were published, by job and worker: amount and buyer.
    pub published: BTreeMap<(JobId, NodeId), (u64, NodeId)>,
    /// What a buyer meant to pay a worker, all payments together.
    pub meant: BTreeMap<(Who, NodeId), u64>,
    /// What must hold.
    pub checks: Checks,
    /// Which faults met what.
    pub coverage: Coverage,
    /// What is counted.
    pub stats: Stats,
    /// Offers that attackers have made up.
    pub cried: u64,
    /// Models' usual prices.
    models: Vec<(String, u64)>,
}

impl World {
    /// The world of `scenario` and `seed`, before anything has happened.
    pub fn new(scenario: Scenario, seed: u64, traced: bool) -> Self {
        let mut setup = Dice::new(seed, "setup");
        let buyers = setup.within(scenario.nodes.buyers.ends());
        let workers = setup.within(scenario.nodes.workers.ends());
        // Of ten workers one comes later, if anything happens at all.
        let later = if scenario.faults.count.is_some() { workers.div_ceil(10) } else { 0 };
        let attackers = scenario.adversary.map_or(0, |adversary| adversary.nodes);
        let roles = (0..buyers)
            .map(|_| Role::Buyer)
            .chain((0..workers + later).map(|_| Role::Worker))
            .chain((0..attackers).map(|_| Role::Attacker));
        let skew = scenario.network.skew_ms;
        let members: Vec<Member> = (0..)
            .zip(roles)
            .map(|(who, role)| Member::new(who, role, seed, setup.within((0, 2 * skew)) as i64 - skew as i64))
            .collect();
        let mesh = Mesh::new(scenario.network, members.len(), &mut setup);
        let models = (0..scenario.market.models).map(|n| (format!("sim-model-{n}"), setup.within((100_000, 3_000_000))));
        let mut world = World {
            ms: 0,
            wheel: Wheel::default(),
            dice: Dice::new(seed, "nodes"),
            way_dice: Dice::new(seed, "ways"),
            fault_dice: Dice::new(seed, "faults"),
            load_dice: Dice::new(seed, "load"),
            log: Log::new(traced),
            rumours: Rumours::new(scenario.faults.count.is_some() || scenario.adversary.is_some()),
            by_id: members.iter().map(|member| (member.id, member.who)).collect(),
            busy_until_us: vec![0; members.len()],
            jobs: Vec::new(),
            open_jobs: 0,
            streams: Vec::new(),
            aimed: Vec::new(),
            shown: BTreeMap::new(),
            signed: BTreeMap::new(),
            published: BTreeMap::new(),
            meant: BTreeMap::new(),
            checks: Checks::default(),
            coverage: Coverage::default(),
            stats: Stats::default(),
            cried: 0,
            models: models.collect(),
            mesh,
            members,
            scenario,
        };
        (0..buyers as Who).for_each(|who| world.draw_cap(who));
        let begin = (buyers + workers) as Who;
        (0..begin).for_each(|who| world.start(who));
        world.start_attack();
        world.plan_faults();
        for who in 0..buyers as Who {
            let first = world.scenario.load.warmup_s * 1_000 + world.load_dice.below(world.scenario.load.pause_ms.1);
            world.wheel.put(first, Event::Order(who));
        }
        world
    }

    /// Lets everything happen, to the end.
    pub fn run(&mut self) {
        let last_order = self.scenario.seconds * 1_000;
        self.run_to(last_order);
        while self.open_jobs > 0 && self.ms < last_order + DRAIN_MS {
            self.run_to(self.ms + 1_000);
        }
        self.run_to(self.ms + QUIET_MS);
        self.stats.cried = self.cried;
        self.audit();
    }

    fn run_to(&mut self, end: u64) {
        while let Some((ms, event)) = self.wheel.next(end) {
            self.ms = ms;
            self.on_event(event);
        }
        self.ms = end;
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Rumour { to, from, rumour } => self.on_rumour(to, from, rumour),
            Event::Checked { to, epoch, from, rumour } => {
                if self.member(to).epoch == epoch && self.member(to).is_up() {
                    self.on_checked(to, from, rumour);
                } else {
                    self.rumours.arrived(rumour);
                }
            }
            Event::Answer { to, answer } => {
                let (from, answer) = *answer;
                self.on_answer(to, from, answer);
            }
            Event::Piece { stream, to_worker, way, piece } => self.on_piece(stream, to_worker, way, *piece),
            Event::Timer { who, epoch, timer } => {
                if self.member(who).epoch == epoch && self.member(who).is_up() {
                    self.on_timer(who, timer);
                }
            }
            Event::Order(who) => self.on_order(who),
            Event::Fault => self.on_fault(),
            Event::Strike { kind, job } => self.on_strike(kind, job),
            Event::Over(recovery) => self.on_over(recovery),
            Event::Attack => self.on_attack(),
        }
    }

    fn on_timer(&mut self, who: Who, timer: Timer) {
        match timer {
            Timer::BuyerWake => self.on_buyer_wake(who),
            Timer::WorkerWake => self.on_worker_wake(who),
            Timer::Advertise => self.on_advertise(who),
            Timer::SaveSequences => self.save_sequences(who),
            Timer::Silence(stream) => self.on_silence(who, stream),
            Timer::Token(stream) => self.on_token(who, stream),
            Timer::KeepAlive(stream) => self.on_keep_alive(who, stream),
            Timer::Countersign(stream) => self.on_countersign_due(who, stream),
            Timer::KeepLate(stream) => self.on_keep_late(who, stream),
            Timer::Turn(job) => self.on_turn_missed(who, job),
            Timer::Again(job) => self.on_waited(job),
            Timer::BuyerLost(stream, way) => self.on_buyer_lost(who, stream, way),
            Timer::WorkerLost(stream, way) => self.on_worker_lost(who, stream, way),
            Timer::ComeBack(stream) => self.on_come_back(who, stream),
            Timer::Grace(stream, way) => self.on_grace(who, stream, way),
            Timer::Cancel(job) => self.on_cancel(who, job),
            Timer::Unreachable(stream) => self.on_unreachable(who, stream),
        }
    }

    /// Node `who`.
    pub fn member(&self, who: Who) -> &Member {
        self.members.get(who as usize).expect("nodes are numbered and never removed")
    }

    /// Node `who`, to change.
    pub fn member_mut(&mut self, who: Who) -> &mut Member {
        self.members.get_mut(who as usize).expect("nodes are numbered and never removed")
    }

    /// What the clock of `who` shows.
    pub fn local(&self, who: Who) -> UnixMillis {
        self.member(who).clock(self.ms)
    }

    /// Notes what `who` does.
    pub fn note(&mut self, who: Who, what: &'static str, facts: &[Fact]) {
        let name = self.member(who).name();
        self.log.note(self.ms, name, who, what, facts);
    }

    /// Sets a timer of `who`.
    pub fn set(&mut self, who: Who, at: u64, timer: Timer) {
        let epoch = self.member(who).epoch;
        self.wheel.put(at, Event::Timer { who, epoch, timer });
    }

    /// A message in the name of `who`.
    pub fn sign<T: Message>(&self, who: Who, body: T) -> Verified<T> {
        self.member(who).key.sign(&NetworkId::default(), body).expect("what nodes say is within the limits")
    }

    /// Has the store of `who` keep something. `None` if it can't; a node that is to die writing dies of that.
    pub fn keep<T>(&mut self, who: Who, write: impl FnOnce(&JournaledStore) -> Result<T, StoreError>) -> Option<T> {
        let member = self.member_mut(who);
        let written = write(member.store.as_ref()?);
        if written.is_err() && member.dies_writing {
            member.store = None;
            self.wheel.put(self.ms, Event::Over(super::event::Recovery::Die(who)));
            return None;
        }
        if written.is_err() {
            self.stats.count("store", "refused");
        }
        written.ok()
    }

    /// Starts a node, for the first time or again.
    pub fn start(&mut self, who: Who) {
        let ms = self.ms;
        let fresh_id = self.dice.bytes();
        let now = self.local(who);
        let keeps_everything = self.scenario.plant == Some(Plant::KeepsEverything);
        let max_ads = if keeps_everything { usize::MAX } else { self.scenario.market.max_ads };
        let profile = self.profile(who);
        let buys = self.attack().is_some_and(Attack::poses_as_buyer);
        let member = self.member_mut(who);
        let disk = member.disk.clone();
        let opened = JournaledStore::open(disk, &NetworkId::default(), fresh_id, SignedReceipt::decode_simulated);
        member.life = Life::Up;
        member.rules = Rules::new(now, member.sequences.clone());
        member.routes = Routes::new();
        member.blamed.clear();
        member.books = Books::default();
        if member.role == Role::Buyer || member.role == Role::Attacker && buys {
            member.buyer = Some(Box::new(Buying::new(max_ads)));
        }
        if let Some(profile) = profile {
            member.worker = Some(Box::new(Working::new(member.id, profile, now)));
        }
        let id = member.id;
        match opened {
            Ok(store) => member.store = Some(store),
            Err(error) => {
                let what = format!("node {who} can't open its store: {error}");
                self.checks.ensure(false, Invariant::ReceiptsSurvive, ms, || what);
            }
        }
        self.note(who, "starts", &[]);
        self.rumours.forget(who);
        self.recall(who, id);
        self.open_purse(who);
        self.look_for_neighbours(who);
        self.start_worker(who);
        let spread = self.dice.below(SAVE_MS);
        self.set(who, ms + SAVE_MS + spread, Timer::SaveSequences);
    }

    /// What its own receipts tell a node that starts, as `recall.rs` has it.
    fn recall(&mut self, who: Who, id: NodeId) {
        let mut before = None;
        loop {
            let member = self.member_mut(who);
            let Some(store) = &member.store else { return };
            let receipts = store.receipts(Page { before, limit: 512 }).unwrap_or_default();
            let Some(last) = receipts.last() else { return };
            before = Some(Position::of(last));
            for receipt in &receipts {
                let sold = receipt.receipt().worker == id;
                let sum = if sold { &mut member.books.earned } else { &mut member.books.spent };
                sum.add(receipt);
            }
            let Met { buyers, workers } = met(&[id].into(), &receipts);
            if let Some(working) = member.worker.as_deref_mut() {
                buyers.into_iter().for_each(|buyer| working.market.mark_known(buyer));
            }
            if let Some(buying) = member.buyer.as_deref_mut() {
                workers.into_iter().for_each(|worker| buying.market.observe(worker, Observation::Settled));
            }
        }
    }

    fn save_sequences(&mut self, who: Who) {
        let member = self.member_mut(who);
        let mut sequences = member.rules.ad_sequences();
        // The rules' own map has no order.
        sequences.sort_unstable();
        member.sequences = sequences;
        self.set(who, self.ms + SAVE_MS, Timer::SaveSequences);
    }

    /// A node connects to others until it has enough; newcomers hear of its ad, and it of their distance.
    pub fn look_for_neighbours(&mut self, who: Who) {
        let up: Vec<Who> = self.members.iter().filter(|member| member.is_up() && member.who != who).map(|m| m.who).collect();
        for other in self.mesh.join(who, &up, &mut self.way_dice) {
            for (a, b) in [(who, other), (other, who)] {
                self.greet(a, b);
            }
        }
    }

    fn greet(&mut self, who: Who, other: Who) {
        let (now, rtt, peer) = (self.local(who), 2 * self.mesh.base_ms(who, other), self.member(other).id);
        let member = self.member_mut(who);
        if let Some(buying) = member.buyer.as_deref_mut() {
            buying.market.observe(peer, Observation::Rtt(u32::try_from(rtt).unwrap_or(u32::MAX)));
        }
        if let Some(working) = member.worker.as_deref_mut().filter(|working| !working.advert.models().is_empty()) {
            working.advert.advertise_soon(now);
            let due = working.advert.due();
            let at = self.member(who).virtual_ms(due);
            self.set(who, at, Timer::Advertise);
        }
    }

    /// What a worker is; `None` for others. It is the same in all its lives.
    fn profile(&mut self, who: Who) -> Option<Profile> {
        if let Some(working) = &self.member(who).worker {
            return Some(working.profile.clone());
        }
        if self.member(who).role == Role::Buyer {
            return None;
        }
        if self.member(who).role == Role::Attacker {
            return self.attacker_profile(who);
        }
        // From its number, so that a crash changes nothing.
        let mut dice = Dice::new(u64::from(who), &self.member(who).id.to_string());
        Some(self.drawn_profile(&mut dice, Conduct::Honest))
    }

    /// A worker drawn from what the scenario says of workers.
    pub fn drawn_profile(&self, dice: &mut Dice, conduct: Conduct) -> Profile {
        let market = &self.scenario.market;
        let count = dice.within(market.models_each.ends()).min(market.models);
        let weights: Vec<u64> = (1..=market.models).map(|n| 1_000 / n).collect();
        let mut names = std::collections::BTreeSet::new();
        while (names.len() as u64) < count {
            names.insert(dice.weighted(&weights));
        }
        let price = |usual: u64, dice: &mut Dice| usual * dice.within(market.price_percent.ends()) / 100;
        let models = names.into_iter().filter_map(|n| self.models.get(n)).map(|(id, usual)| {
            let output = price(*usual, dice);
            let price = Price { input: MicroUsd(output / 4), output: MicroUsd(output) };
            ModelAd { id: id.clone(), context: 8_192, price, ..ModelAd::default() }
        });
        Profile {
            models: models.collect(),
            slots: dice.within(market.slots.ends()) as u16,
            ttft_ms: dice.within(market.ttft_ms.ends()),
            tokens_per_second: dice.within(market.tokens_per_second.ends()),
            conduct,
        }
    }

    /// The models that are served, and their usual prices.
    pub fn models(&self) -> &[(String, u64)] {
        &self.models
    }

    /// A caller wants something, and will want something again.
    fn on_order(&mut self, who: Who) {
        let next = self.ms + self.load_dice.within(self.scenario.load.pause_ms.ends());
        if next < self.scenario.seconds * 1_000 {
            self.wheel.put(next, Event::Order(who));
        }
        if self.member(who).is_up() && self.ms < self.scenario.seconds * 1_000 {
            let order = self.draw_order(who);
            self.begin(who, order);
        }
    }

    /// A job begins.
    pub fn begin(&mut self, who: Who, order: Order) {
        let no = self.jobs.len() as JobNo;
        let (path, pauses) = (order.wishes.path, Pauses::new(order.wait_ms));
        let id = JobId(self.load_dice.bytes());
        self.jobs.push(Job {
            no,
            buyer: who,
            id,
            order,
            course: Course::new(path),
            pauses,
            draw: None,
            lost: MicroUsd(0),
            attempts: None,
            won: None,
            phase: Phase::Queued,
            worker: None,
            cancelled: false,
            answer: String::new(),
            began: self.ms,
            auctioned: self.ms,
            retries: 0,
            ended: None,
            last_failure: None,
        });
        self.open_jobs += 1;
        if self.load_dice.chance(self.scenario.load.cancel_permille) {
            let at = self.ms + self.load_dice.below(3_000);
            self.set(who, at, Timer::Cancel(no));
        }
        self.note(who, "begins", &[("job", no.into())]);
        if self.authorise(no) {
            self.proceed(no);
        }
    }

    fn draw_order(&mut self, who: Who) -> Order {
        let load = self.scenario.load;
        let weights: Vec<u64> = (1..=self.models.len() as u64).map(|n| 1_000 / n).collect();
        let dice = &mut self.load_dice;
        let follows = dice.chance(300);
        let (model, usual) = self.models.get(dice.weighted(&weights)).cloned().unwrap_or_default();
        let each = MicroUsd(usual * 3);
        let (bytes, tokens) = (dice.within(load.prompt_bytes.ends()) as usize, dice.within(load.answer_tokens.ends()) as u32);
        let mut order = Order::new(model, bytes, tokens, Price { input: each, output: each }, dice.bytes());
        order.rule = SelectionRule(dice.weighted(&[6, 2, 2]) as u8);
        order.window_ms = dice.within(load.window_ms.ends()) as u16;
        if dice.chance(load.wait_permille) {
            order.wait_ms = dice.within(load.wait_ms.ends());
        }
        let path = if dice.chance(load.auction_permille) { PathChoice::Auction } else { PathChoice::Auto };
        let fresh = dice.throw();
        let member = self.members.get_mut(who as usize);
        let before = member.as_ref().and_then(|member| member.conversation.clone()).filter(|_| follows);
        let (number, turn) = before.as_ref().map_or((fresh, 1), |(number, turn, _)| (*number, turn + 1));
        if let Some((_, _, earlier)) = before {
            order.model = earlier.model;
            order = Order { ceiling: earlier.ceiling, ..order };
            // The request names the model.
            order = Order::new(order.model.clone(), bytes, tokens, order.ceiling, order.salt).like(&order);
        }
        let prefixes = (1..=turn).map(|turn| Prefix { digest: turn_digest(who, number, turn), tokens: 100 * turn as u32 });
        let conversation = Conversation(prefixes.collect());
        order.wishes = Arc::new(Wishes { trust: Trust::default(), path, conversation });
        if let Some(member) = member {
            member.conversation = Some((number, turn, order.clone()));
        }
        order
    }

    /// How many tokens the engine will say on a stream.
    pub fn wanted_tokens(&mut self, stream: StreamNo) -> u32 {
        let job = self.stream(stream).and_then(|stream| self.jobs.get(stream.job as usize));
        job.map_or(1, |job| job.order.output_tokens)
    }

    /// An answer arrives, at its buyer or on its way.
    fn on_answer(&mut self, to: Who, from: NodeId, answer: Answer) {
        let now = self.local(to);
        let member = self.member_mut(to);
        if !member.is_up() {
            return;
        }
        if let Err(refused) = member.rules.take_forwarder(from, now) {
            return self.stats.count("answer_lost", refused.label());
        }
        let of_age = match &answer {
            Answer::Bid(bid) => bid.check_age(now),
            Answer::NoBid(no) => no.check_age(now),
        };
        if let Err(refusal) = of_age {
            return self.stats.count("answer_lost", refusal.label());
        }
        match member.routes.claim(&answer.offer(), answer.signer()) {
            Ok(NextHop::Here) => self.tell_buyer(to, BuyerInput::Answer(answer)),
            Ok(NextHop::There { buyer, via }) => self.forward_answer(to, buyer, via, answer, 0),
            Err(reason) => self.stats.count("answer_lost", reason),
        }
    }

    /// What an auction brought, against what there was.
    pub fn measure_auction(&mut self, no: JobNo, won: &Won) {
        let who = self.jobs.get(no as usize).map_or(0, |job| job.buyer);
        let Some(best) = won.ranking.first() else { return };
        if !self.is_honest(who) {
            return;
        }
        self.stats.auction_ms.note(won.elapsed_ms);
        self.note_winner(&best.worker);
        let Some(bid) = won.bids.get(&best.worker) else { return };
        let offer = &*won.offer;
        let Some(buying) = self.member(who).buyer.as_deref() else { return };
        let weigh = |terms: &Terms, worker: &NodeId| Weight::of(offer, terms, &buying.market.facts(worker)).order(offer.rule).0;
        let (mut least, mut lowest) = (weigh(&Terms::from(&**bid), &best.worker), bid.price.output.0);
        let (won_weight, won_price) = (least, lowest);
        for member in self.members.iter().filter(|member| member.is_up() && member.role == Role::Worker) {
            let Some(working) = member.worker.as_deref() else { continue };
            let admission = working.market.admission();
            let holds = admission.holder(&won.offer.digest()).is_some();
            if !holds && admission.running() + admission.held() >= admission.slots() {
                continue;
            }
            if let Ok((model, _)) = quote::best(offer, working.advert.models()) {
                least = least.min(weigh(&Terms::from(model), &member.id));
                lowest = lowest.min(model.price.output.0);
            }
        }
        self.stats.price_permille.note(won_price * 1_000 / lowest.max(1));
        self.stats.weight_permille.note((won_weight * 1_000 / least.max(1)) as u64);
    }

    /// Whether what everybody can read holds what nobody may.
    pub fn look_for_leaks(&mut self, bytes: &[u8], place: &'static str) {
        let holds = |mark: &str| bytes.windows(mark.len()).any(|window| window == mark.as_bytes());
        let leaks = holds(PROMPT_MARK) || holds(ANSWER_MARK);
        self.checks.ensure(!leaks, Invariant::NothingLeaks, self.ms, || format!("a prompt or an answer is in {place}"));
    }

    /// Whether a worker charges what it did not deliver, by trade.
    pub fn inflates(&self, worker: Who) -> bool {
        let conduct = self.member(worker).worker.as_ref().map(|working| working.profile.conduct);
        conduct == Some(Conduct::Inflating)
    }
}

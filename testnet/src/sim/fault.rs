//! What goes wrong: crashes, disks, networks, clocks, engines.
//!
//! A fault is aimed: its kind and the state of the job that it is to meet are drawn first, and it strikes as soon as a job is in
//! that state, or after a while whatever there is. So states that last a millisecond are met as often as those that last a
//! minute, and [`super::coverage`] shows it.

use super::{
    JobNo, Who, World,
    event::{Event, Recovery},
    job::{End, Phase},
    member::{Life, Role},
};
use infernet_node::store::{Names, Tear};
use serde::Serialize;

/// How long an aimed fault waits for a job in the state that it is to meet.
const PATIENCE_MS: u64 = 4_000;
/// How long after a job has entered a state a fault strikes at most.
const DELAY_MS: u64 = 25;
/// After how long a node notices that the other end of a connection is gone: quinn's idle timeout.
pub const IDLE_MS: u64 = 10_000;
/// Messages that are repeated at once.
const REPLAYED: usize = 40;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A worker's process is killed, and started again.
    KillWorker,
    /// A buyer's process is killed, and started again.
    KillBuyer,
    /// The power goes: what a disk was told to keep it keeps, the rest is torn or garbage.
    PowerCut,
    /// A process dies in the middle of a write.
    DieWriting,
    /// A worker leaves for good.
    Leave,
    /// A worker joins.
    Join,
    /// The connections of a node break, as if its uplink changed.
    BreakStreams,
    /// The network falls into two parts.
    Partition,
    /// Gossip is lost.
    LoseGossip,
    /// Every way takes longer.
    SlowNetwork,
    /// A clock jumps.
    ClockJump,
    /// A worker's engine fails.
    EngineFails,
    /// A worker's engine stops for a while.
    EngineStalls,
    /// A disk is full.
    DiskFull,
    /// Somebody repeats what was said.
    Replay,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [FaultKind; 15] = [
        FaultKind::KillWorker,
        FaultKind::KillBuyer,
        FaultKind::PowerCut,
        FaultKind::DieWriting,
        FaultKind::Leave,
        FaultKind::Join,
        FaultKind::BreakStreams,
        FaultKind::Partition,
        FaultKind::LoseGossip,
        FaultKind::SlowNetwork,
        FaultKind::ClockJump,
        FaultKind::EngineFails,
        FaultKind::EngineStalls,
        FaultKind::DiskFull,
        FaultKind::Replay,
    ];

    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            FaultKind::KillWorker => "kill_worker",
            FaultKind::KillBuyer => "kill_buyer",
            FaultKind::PowerCut => "power_cut",
            FaultKind::DieWriting => "die_writing",
            FaultKind::Leave => "leave",
            FaultKind::Join => "join",
            FaultKind::BreakStreams => "break_streams",
            FaultKind::Partition => "partition",
            FaultKind::LoseGossip => "lose_gossip",
            FaultKind::SlowNetwork => "slow_network",
            FaultKind::ClockJump => "clock_jump",
            FaultKind::EngineFails => "engine_fails",
            FaultKind::EngineStalls => "engine_stalls",
            FaultKind::DiskFull => "disk_full",
            FaultKind::Replay => "replay",
        }
    }

    /// Whether it can meet a job in `phase`: a job that waits has no worker yet, one without an asked worker no stream.
    pub fn can_meet(self, phase: Phase) -> bool {
        match phase {
            Phase::Waiting | Phase::Queued => !self.strikes_workers() && self != FaultKind::BreakStreams,
            Phase::Auction => self != FaultKind::BreakStreams,
            _ => true,
        }
    }

    fn strikes_workers(self) -> bool {
        use FaultKind::{EngineFails, EngineStalls, KillWorker, Leave};
        matches!(self, KillWorker | Leave | EngineFails | EngineStalls)
    }
}

/// What is wrong with an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineTrouble {
    /// It answers with an error.
    Fails,
    /// It says nothing.
    Stalls,
}

/// A fault that waits for a job in a state.
#[derive(Debug, Clone, Copy)]
pub struct Aimed {
    kind: FaultKind,
    phase: Phase,
    until: u64,
}

impl World {
    /// Draws when faults come.
    pub(super) fn plan_faults(&mut self) {
        let Some(count) = self.scenario.faults.count else { return };
        let (first, last) = (self.scenario.load.warmup_s * 1_000 + 2_000, self.scenario.seconds * 1_000);
        for _ in 0..self.fault_dice.within(count.ends()) {
            let at = self.fault_dice.within((first.min(last), last));
            self.wheel.put(at, Event::Fault);
        }
    }

    /// Draws a fault, and what it is to meet.
    pub(super) fn on_fault(&mut self) {
        let kind = *self.fault_dice.pick(&FaultKind::ALL).unwrap_or(&FaultKind::KillWorker);
        let phases: Vec<Phase> = Phase::LIVE.into_iter().filter(|phase| kind.can_meet(*phase)).collect();
        let phase = *self.fault_dice.pick(&phases).unwrap_or(&Phase::Streaming);
        let until = self.ms + PATIENCE_MS;
        self.aimed.push(Aimed { kind, phase, until });
        self.wheel.put(until, Event::Strike { kind, job: None });
        if let Some(job) = self.jobs.iter().find(|job| job.ended.is_none() && job.phase == phase).map(|job| job.no) {
            self.aim(job, phase);
        }
    }

    /// A job has entered a state: a fault may be aimed at it.
    pub(super) fn aim(&mut self, job: JobNo, phase: Phase) {
        let (ms, aimed) = (self.ms, self.aimed.iter().position(|aimed| aimed.phase == phase && aimed.until > self.ms));
        if let Some(Aimed { kind, .. }) = aimed.map(|at| self.aimed.swap_remove(at)) {
            let at = ms + self.fault_dice.below(DELAY_MS);
            self.wheel.put(at, Event::Strike { kind, job: Some(job) });
        }
    }

    /// A fault strikes: one that is aimed at a job, or one that has found none.
    pub(super) fn on_strike(&mut self, kind: FaultKind, job: Option<JobNo>) {
        let job = match job {
            Some(job) => Some(job),
            // It has struck already, unless it still waits.
            None => {
                let Some(at) = self.aimed.iter().position(|aimed| aimed.kind == kind && aimed.until <= self.ms) else { return };
                self.aimed.swap_remove(at);
                let met = self.jobs.iter().filter(|job| job.ended.is_none() && kind.can_meet(job.phase));
                let live: Vec<JobNo> = met.map(|job| job.no).collect();
                self.fault_dice.pick(&live).copied()
            }
        };
        let target = self.target(kind, job);
        let met = self.met(kind, target);
        self.coverage.note(kind, met);
        self.note(target.unwrap_or(0), kind.label(), &[("target", target.unwrap_or(0).into())]);
        self.strike(kind, target);
    }

    /// Which node is struck.
    fn target(&mut self, kind: FaultKind, job: Option<JobNo>) -> Option<Who> {
        let found = job.and_then(|no| self.jobs.get(no as usize)).map(|job| (job.buyer, job.worker));
        let is_up = |who: &Who| self.members.get(*who as usize).is_some_and(|member| member.is_up());
        let honest = |role: Role| {
            let members = self.members.iter().filter(move |member| member.is_up() && member.role == role);
            members.map(|member| member.who).collect::<Vec<_>>()
        };
        let worker = found.and_then(|(_, worker)| worker).filter(is_up);
        let buyer = found.map(|(buyer, _)| buyer).filter(is_up);
        match kind {
            FaultKind::KillWorker | FaultKind::Leave | FaultKind::EngineFails | FaultKind::EngineStalls => {
                let workers = honest(Role::Worker);
                worker.or_else(|| self.fault_dice.pick(&workers).copied())
            }
            FaultKind::KillBuyer => buyer,
            FaultKind::Join => {
                let absent = self.members.iter().find(|member| member.life == Life::Absent && member.role == Role::Worker);
                absent.map(|member| member.who)
            }
            _ if self.fault_dice.chance(500) => buyer.or(worker),
            _ => worker.or(buyer),
        }
    }

    /// The states of the jobs that a fault meets.
    fn met(&self, kind: FaultKind, target: Option<Who>) -> Vec<Phase> {
        use FaultKind::{Join, LoseGossip, Partition, Replay, SlowNetwork};
        let everybody = matches!(kind, Join | LoseGossip | Partition | Replay | SlowNetwork);
        let concerned = |job: &&super::job::Job| {
            let holds = |who: Who| {
                let member = self.members.get(who as usize);
                let buyer = self.members.get(job.buyer as usize).map(|member| member.id);
                job.phase == Phase::Auction
                    && member.and_then(|member| member.worker.as_ref()).is_some_and(|working| working.holds_for(buyer))
            };
            let with_worker = job.phase >= Phase::Opening;
            everybody || target.is_some_and(|who| job.buyer == who || with_worker && job.worker == Some(who) || holds(who))
        };
        self.jobs.iter().filter(|job| job.ended.is_none()).filter(concerned).map(|job| job.phase).collect()
    }

    fn strike(&mut self, kind: FaultKind, target: Option<Who>) {
        let (ms, pause) = (self.ms, self.fault_dice.within((300, 6_000)));
        let later = ms + pause;
        match (kind, target) {
            (FaultKind::KillWorker | FaultKind::KillBuyer, Some(who)) => {
                // The operating system keeps what the process has written.
                self.crash(who, Tear::KEPT);
                self.wheel.put(later, Event::Over(Recovery::Restart(who)));
            }
            (FaultKind::PowerCut, Some(who)) => {
                let names = *self.fault_dice.pick(&[Names::Synced, Names::Seen, Names::Fewest]).unwrap_or(&Names::Synced);
                let (kept, garbage) = (self.fault_dice.below(200) as usize, self.fault_dice.below(60) as usize);
                self.crash(who, Tear { kept, garbage, names });
                self.wheel.put(later, Event::Over(Recovery::Restart(who)));
            }
            (FaultKind::DieWriting, Some(who)) => {
                let more = self.fault_dice.below(3);
                let member = self.member_mut(who);
                member.disk.crash_at(member.disk.operations() + more);
                member.dies_writing = true;
            }
            (FaultKind::Leave, Some(who)) => {
                let workers = self.members.iter().filter(|member| member.is_up() && member.role == Role::Worker).count();
                self.crash(who, Tear::KEPT);
                // Somebody must stay.
                if workers > 6 {
                    self.member_mut(who).life = Life::Gone;
                } else {
                    self.wheel.put(later, Event::Over(Recovery::Restart(who)));
                }
            }
            (FaultKind::Join, Some(who)) => self.start(who),
            (FaultKind::BreakStreams, Some(who)) => {
                let streams = 0..self.streams.len() as super::StreamNo;
                let its = |no: &super::StreamNo| {
                    self.stream(*no).is_some_and(|stream| stream.open && (stream.buyer == who || stream.worker == who))
                };
                let broken: Vec<_> = streams.filter(its).collect();
                broken.into_iter().for_each(|no| self.break_stream(no));
            }
            (FaultKind::Partition, _) => {
                let members: Vec<Who> = self.members.iter().map(|member| member.who).collect();
                let far = members.into_iter().filter(|_| self.fault_dice.chance(400)).collect();
                self.mesh.partition(&far);
                self.wheel.put(later, Event::Over(Recovery::Heal));
            }
            (FaultKind::LoseGossip, _) => {
                self.mesh.lossy_permille = self.fault_dice.within((100, 500));
                self.wheel.put(later, Event::Over(Recovery::LessLoss));
            }
            (FaultKind::SlowNetwork, _) => {
                self.mesh.slower_ms = self.fault_dice.within((50, 400));
                self.wheel.put(later, Event::Over(Recovery::Faster));
            }
            (FaultKind::ClockJump, Some(who)) => {
                let jump = self.fault_dice.within((0, 8_000)) as i64 - 4_000;
                self.member_mut(who).skew += jump;
            }
            (FaultKind::EngineFails, Some(who)) => self.trouble(who, EngineTrouble::Fails, later),
            (FaultKind::EngineStalls, Some(who)) => self.trouble(who, EngineTrouble::Stalls, later),
            (FaultKind::DiskFull, Some(who)) => {
                let disk = &self.member(who).disk;
                disk.limit(Some(disk.used() + 600));
                self.wheel.put(later, Event::Over(Recovery::Room(who)));
            }
            (FaultKind::Replay, _) => self.replay(),
            (_, None) => {}
        }
    }

    fn trouble(&mut self, who: Who, trouble: EngineTrouble, until: u64) {
        let Some(working) = self.member_mut(who).worker.as_deref_mut() else { return };
        working.trouble = Some(trouble);
        let streams: Vec<_> = working.serving.keys().copied().collect();
        if trouble == EngineTrouble::Fails {
            streams.into_iter().for_each(|stream| self.on_engine_failure(who, stream));
        }
        self.wheel.put(until, Event::Over(Recovery::Engine(who)));
    }

    /// Somebody who has listened says it all again.
    fn replay(&mut self) {
        let up: Vec<Who> = self.members.iter().filter(|member| member.is_up()).map(|member| member.who).collect();
        let recent: Vec<u32> = self.rumours.kept.iter().rev().take(200).copied().collect();
        for _ in 0..REPLAYED {
            let (Some(who), Some(no)) = (self.fault_dice.pick(&up).copied(), self.fault_dice.pick(&recent).copied()) else {
                return;
            };
            self.repeat(who, no);
        }
    }

    /// `who` says again what it has heard.
    pub(super) fn repeat(&mut self, who: Who, no: u32) {
        let Some(rumour) = self.rumours.get(no) else { return };
        let (said, author) = (rumour.said.clone(), rumour.author());
        self.stats.replayed += 1;
        self.spread(who, said, author, false, Some(no));
    }

    /// A fault is over.
    pub(super) fn on_over(&mut self, recovery: Recovery) {
        match recovery {
            Recovery::Restart(who) if self.member(who).life == Life::Down => self.start(who),
            Recovery::Restart(_) => {}
            Recovery::Heal => {
                self.mesh.heal();
                self.send_held();
            }
            Recovery::Faster => self.mesh.slower_ms = 0,
            Recovery::LessLoss => self.mesh.lossy_permille = 0,
            Recovery::Engine(who) => {
                if let Some(working) = self.member_mut(who).worker.as_deref_mut() {
                    working.trouble = None;
                }
            }
            Recovery::Room(who) => self.member(who).disk.limit(None),
            Recovery::Die(who) if self.member(who).is_up() => {
                self.crash(who, Tear::LOST);
                let later = self.ms + self.fault_dice.within((300, 6_000));
                self.wheel.put(later, Event::Over(Recovery::Restart(who)));
            }
            Recovery::Die(_) => {}
        }
    }

    /// A process is gone, and what its disk keeps is what `tear` leaves.
    pub(super) fn crash(&mut self, who: Who, tear: Tear) {
        if !self.member(who).is_up() {
            return;
        }
        let mine: Vec<JobNo> =
            self.jobs.iter().filter(|job| job.buyer == who && job.ended.is_none()).map(|job| job.no).collect();
        mine.into_iter().for_each(|no| self.end(no, End::Died));
        let member = self.member_mut(who);
        member.life = Life::Down;
        member.epoch += 1;
        member.dies_writing = false;
        member.disk = member.disk.after_crash(tear);
        member.store = None;
        member.worker = None;
        let buyer = member.buyer.take();
        // The workers' ends notice when nothing comes any more.
        for stream in buyer.iter().flat_map(|buying| buying.running.keys()) {
            let event =
                Event::Piece { stream: *stream, to_worker: true, way: None, piece: Box::new(super::stream::Piece::Reset) };
            self.wheel.put(self.ms + IDLE_MS, event);
        }
        for neighbour in self.mesh.leave(who) {
            self.look_for_neighbours(neighbour);
        }
    }
}

//! Which daemon has which job, and what it may still say. Pure.

use super::{FIRST_MS, MAX_ACTIVE, MAX_ANSWER_BYTES, MAX_JOB_MS, MAX_OPEN, MAX_TRIES, NEXT_MS, WAIT_MS};
use crate::store::Pubkey;
use infernet_wire::{model_name, time::UnixMillis};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// Ends that are remembered, so that a daemon may say twice that it is done.
const MAX_OVER: usize = 4_096;
/// Daemons that are remembered, with what they serve: some megabytes.
const MAX_DAEMONS: usize = 4_096;

/// A job for a daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// A UUID.
    pub id: String,
    /// The model asked for.
    pub model: String,
    /// The conversation, as `[{"role","content"}]`.
    pub messages: Value,
    /// The longest answer.
    pub max_tokens: u32,
    /// How the answer is sampled.
    pub temperature: f64,
    /// When it came.
    pub created: UnixMillis,
}

/// A daemon that asks for work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Its key.
    pub pubkey: Pubkey,
    /// The models that it says it serves.
    pub models: Vec<String>,
}

impl Daemon {
    /// Whether it would be given `job`.
    pub fn takes(&self, job: &Job) -> bool {
        self.models.iter().any(|model| model_name::same(model, &job.model))
    }
}

/// What a daemon says of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// That it began.
    Meta,
    /// A piece of the answer.
    Text(String),
    /// That the answer is whole; it still has to complete the job.
    Done,
    /// That it failed; likewise.
    Failed(String),
}

/// How a daemon ended a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With this answer, if it says it again.
    Completed(Option<String>),
    /// With this reason.
    Failed(String),
}

/// What whoever gave the job is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// This daemon has it.
    Assigned(Pubkey),
    /// A piece of the answer.
    Text(String),
    /// The answer is whole.
    Done,
    /// There is no more.
    Failed {
        /// A short stable name.
        code: &'static str,
        /// For people.
        message: String,
    },
}

impl Told {
    /// Whether nothing follows.
    pub fn is_last(&self) -> bool {
        matches!(self, Told::Done | Told::Failed { .. })
    }
}

/// Something to tell whoever gave the job `id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) id: String,
    pub(super) told: Told,
}

/// What became of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed {
    /// `completed` or `failed`.
    pub status: &'static str,
    /// Whether it was over already.
    pub noop: bool,
}

/// Why a daemon is not listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such job, or it is long over.
    #[error("job not found")]
    Unknown,
    /// It is another daemon's.
    #[error("job is not assigned to this provider")]
    NotAssigned,
    /// It is over.
    #[error("job is over")]
    Over,
    /// The answer is too long.
    #[error("the answer is larger than {MAX_ANSWER_BYTES} bytes")]
    TooLong,
}

struct Open {
    job: Job,
    /// Who has it, and until when it must say something.
    taken: Option<(Pubkey, UnixMillis)>,
    /// Since when it waits.
    waits: UnixMillis,
    tries: u32,
    text: String,
}

/// How a job ended, for the daemon that had it.
struct Over {
    id: String,
    daemon: Option<Pubkey>,
    status: &'static str,
}

/// All open jobs, and who asks for some.
#[derive(Default)]
pub struct Desk {
    open: BTreeMap<String, Open>,
    over: VecDeque<Over>,
    /// What each daemon serves, and when it last asked.
    daemons: BTreeMap<Pubkey, (Vec<String>, UnixMillis)>,
}

impl Desk {
    /// Adds a job; `false` if there is no room.
    pub fn open(&mut self, job: Job, now: UnixMillis) -> bool {
        if self.open.len() >= MAX_OPEN || self.open.contains_key(&job.id) {
            return false;
        }
        self.open.insert(job.id.clone(), Open { job, taken: None, waits: now, tries: 0, text: String::new() });
        true
    }

    /// Whether somebody who has asked since `since` would be given `job`.
    pub(super) fn is_served(&self, job: &Job, since: UnixMillis) -> bool {
        let serves = |models: &Vec<String>| models.iter().any(|model| model_name::same(model, &job.model));
        self.daemons.values().any(|(models, asked)| *asked >= since && serves(models))
    }

    pub(super) fn left(&mut self, daemon: Pubkey) {
        self.daemons.remove(&daemon);
    }

    fn remember(&mut self, daemon: &Daemon, now: UnixMillis) {
        if self.daemons.len() >= MAX_DAEMONS && !self.daemons.contains_key(&daemon.pubkey) {
            let quietest = self.daemons.iter().min_by_key(|(_, (_, asked))| *asked).map(|(pubkey, _)| *pubkey);
            quietest.map(|pubkey| self.daemons.remove(&pubkey));
        }
        self.daemons.insert(daemon.pubkey, (daemon.models.clone(), now));
    }

    /// The next job for `daemon`, which is its own from now on.
    pub(super) fn poll(&mut self, daemon: &Daemon, now: UnixMillis) -> (Vec<Job>, Vec<Output>) {
        self.remember(daemon, now);
        let has = |open: &&Open| open.taken.is_some_and(|(by, _)| by == daemon.pubkey);
        if self.open.values().filter(has).count() >= MAX_ACTIVE {
            return Default::default();
        }
        let waiting = self.open.values_mut().filter(|open| open.taken.is_none() && daemon.takes(&open.job));
        let Some(open) = waiting.min_by_key(|open| open.job.created) else { return Default::default() };
        open.taken = Some((daemon.pubkey, now.after(FIRST_MS)));
        open.tries += 1;
        let told = Output { id: open.job.id.clone(), told: Told::Assigned(daemon.pubkey) };
        (vec![open.job.clone()], vec![told])
    }

    /// What `daemon` says of the job `id`.
    pub(super) fn events(
        &mut self,
        id: &str,
        daemon: Pubkey,
        events: &[Event],
        now: UnixMillis,
    ) -> Result<Vec<Output>, Refused> {
        let open = self.owned(id, daemon)?;
        let new: String = events
            .iter()
            .filter_map(|event| match event {
                Event::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        if open.text.len() + new.len() > MAX_ANSWER_BYTES {
            return Err(Refused::TooLong);
        }
        open.taken = Some((daemon, now.after(NEXT_MS)));
        open.text.push_str(&new);
        let told = (!new.is_empty()).then(|| Output { id: id.into(), told: Told::Text(new) });
        Ok(told.into_iter().collect())
    }

    /// `daemon` ends the job `id`, now or again.
    pub(super) fn complete(
        &mut self,
        id: &str,
        daemon: Pubkey,
        ended: Ended,
        _now: UnixMillis,
    ) -> Result<(Completed, Vec<Output>), Refused> {
        if let Some(over) = self.over.iter().find(|over| over.id == id) {
            return match over.daemon {
                Some(by) if by == daemon => Ok((Completed { status: over.status, noop: true }, Vec::new())),
                _ => Err(Refused::NotAssigned),
            };
        }
        let open = self.owned(id, daemon)?;
        let last = last(&open.text, ended)?;
        let status = if last.last() == Some(&Told::Done) { "completed" } else { "failed" };
        self.end(id, status);
        let outputs = last.into_iter().map(|told| Output { id: id.into(), told }).collect();
        Ok((Completed { status, noop: false }, outputs))
    }

    /// Jobs whose time is over: they wait for another daemon, or end.
    pub(super) fn sweep(&mut self, now: UnixMillis) -> Vec<Output> {
        let mut failed = Vec::new();
        for open in self.open.values_mut() {
            let lost = open.taken.is_some_and(|(_, lease)| lease <= now);
            let end = if now.since(open.job.created) >= MAX_JOB_MS {
                Some(("timeout", "the job took too long"))
            } else if lost && !open.text.is_empty() {
                Some(("node_disconnected", "the node went away in the middle of its answer"))
            } else if lost && open.tries >= MAX_TRIES {
                Some(("node_disconnected", "the nodes that took the job went away"))
            } else if open.taken.is_none() && now.since(open.waits) >= WAIT_MS {
                Some(("no_capacity", "no node took the job"))
            } else {
                None
            };
            if let Some((code, message)) = end {
                failed.push(Output { id: open.job.id.clone(), told: Told::Failed { code, message: message.into() } });
            } else if lost {
                (open.taken, open.waits) = (None, now);
            }
        }
        failed.iter().for_each(|output| self.end(&output.id, "failed"));
        failed
    }

    /// Nobody wants the job any more. One that is over stays as it ended.
    pub fn cancel(&mut self, id: &str, _now: UnixMillis) {
        self.end(id, "failed");
    }

    fn end(&mut self, id: &str, status: &'static str) {
        let Some(open) = self.open.remove(id) else { return };
        if self.over.len() >= MAX_OVER {
            self.over.pop_front();
        }
        self.over.push_back(Over { id: id.into(), daemon: open.taken.map(|(by, _)| by), status });
    }

    fn owned(&mut self, id: &str, daemon: Pubkey) -> Result<&mut Open, Refused> {
        if let Some(over) = self.over.iter().find(|over| over.id == id) {
            return Err(if over.daemon == Some(daemon) { Refused::Over } else { Refused::NotAssigned });
        }
        let open = self.open.get_mut(id).ok_or(Refused::Unknown)?;
        let is_its = open.taken.is_some_and(|(by, _)| by == daemon);
        if is_its { Ok(open) } else { Err(Refused::NotAssigned) }
    }
}

/// What is left to tell at the end. A whole answer that does not begin with what was streamed has lost some on its way.
fn last(streamed: &str, ended: Ended) -> Result<Vec<Told>, Refused> {
    let failed = |code, message: String| vec![Told::Failed { code, message }];
    let whole = match ended {
        Ended::Failed(reason) => return Ok(failed("node_failed", format!("the node says: {reason}"))),
        Ended::Completed(None) => return Ok(vec![Told::Done]),
        Ended::Completed(Some(whole)) => whole,
    };
    if whole.len() > MAX_ANSWER_BYTES {
        return Err(Refused::TooLong);
    }
    Ok(match whole.strip_prefix(streamed) {
        Some("") => vec![Told::Done],
        Some(rest) => vec![Told::Text(rest.into()), Told::Done],
        None => failed("incomplete_answer", "the node lost a part of its answer on the way".into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: UnixMillis = UnixMillis(1_000_000);
    const A: Pubkey = Pubkey([1; 32]);
    const B: Pubkey = Pubkey([2; 32]);

    fn job(id: &str) -> Job {
        let messages = json!([{ "role": "user", "content": "Say hi" }]);
        Job { id: id.into(), model: "m".into(), messages, max_tokens: 8, temperature: 0.7, created: NOW }
    }

    fn daemon(pubkey: Pubkey) -> Daemon {
        Daemon { pubkey, models: vec!["m:latest".into()] }
    }

    /// A desk with the job `j`, which A has.
    fn taken() -> Desk {
        let mut desk = Desk::default();
        assert!(desk.open(job("j"), NOW));
        let (jobs, outputs) = desk.poll(&daemon(A), NOW);
        assert_eq!((jobs, outputs), (vec![job("j")], vec![output(Told::Assigned(A))]));
        desk
    }

    fn output(told: Told) -> Output {
        Output { id: "j".into(), told }
    }

    fn text(text: &str) -> Event {
        Event::Text(text.into())
    }

    fn failed(code: &'static str, outputs: &[Output]) -> bool {
        matches!(outputs, [Output { told: Told::Failed { code: found, .. }, .. }] if *found == code)
    }

    #[test]
    fn an_answer_is_streamed_and_completed_once() {
        let mut desk = taken();
        assert_eq!(desk.poll(&daemon(B), NOW), Default::default(), "it is A's");
        assert_eq!(desk.poll(&daemon(A), NOW), Default::default(), "A has it already");
        let told = desk.events("j", A, &[Event::Meta, text("a"), text("b")], NOW);
        assert_eq!(told, Ok(vec![output(Told::Text("ab".into()))]));
        let (completed, told) = desk.complete("j", A, Ended::Completed(Some("abc".into())), NOW).expect("its own");
        assert_eq!(completed, Completed { status: "completed", noop: false });
        assert_eq!(told, [output(Told::Text("c".into())), output(Told::Done)]);
        let again = desk.complete("j", A, Ended::Failed("late".into()), NOW);
        assert_eq!(again, Ok((Completed { status: "completed", noop: true }, vec![])));
        assert_eq!(desk.events("j", A, &[text("more")], NOW), Err(Refused::Over));
    }

    #[test]
    fn nobody_else_is_heard() {
        let mut desk = taken();
        assert_eq!(desk.events("j", B, &[text("x")], NOW), Err(Refused::NotAssigned));
        assert_eq!(desk.complete("j", B, Ended::Completed(None), NOW), Err(Refused::NotAssigned));
        assert_eq!(desk.events("k", A, &[], NOW), Err(Refused::Unknown));
        let mut desk = Desk::default();
        desk.open(job("j"), NOW);
        assert_eq!(desk.events("j", A, &[], NOW), Err(Refused::NotAssigned), "nobody has it yet");
    }

    #[test]
    fn a_daemon_that_vanishes_before_its_first_token_loses_the_job_to_another() {
        let mut desk = taken();
        desk.events("j", A, &[Event::Meta], NOW).expect("its own");
        assert_eq!(desk.sweep(NOW.after(NEXT_MS - 1)), []);
        assert_eq!(desk.sweep(NOW.after(NEXT_MS)), []);
        assert_eq!(desk.events("j", A, &[text("late")], NOW.after(NEXT_MS)), Err(Refused::NotAssigned));
        let (jobs, _) = desk.poll(&daemon(B), NOW.after(NEXT_MS + 1));
        assert_eq!(jobs, [job("j")]);
        assert!(desk.events("j", B, &[text("a")], NOW.after(NEXT_MS + 2)).is_ok());
        assert!(failed("node_disconnected", &desk.sweep(NOW.after(3 * NEXT_MS))), "no second answer after a first token");
        assert_eq!(desk.events("j", B, &[text("b")], NOW.after(3 * NEXT_MS)), Err(Refused::Over));
    }

    #[test]
    fn a_job_is_lost_by_so_many_and_waits_for_so_long() {
        let mut desk = Desk::default();
        desk.open(job("j"), NOW);
        let mut now = NOW;
        for _ in 1..MAX_TRIES {
            assert_eq!(desk.poll(&daemon(A), now).0.len(), 1);
            now = now.after(FIRST_MS);
            assert_eq!(desk.sweep(now), []);
        }
        assert_eq!(desk.poll(&daemon(B), now).0.len(), 1);
        assert!(failed("node_disconnected", &desk.sweep(now.after(FIRST_MS))));

        let mut desk = Desk::default();
        desk.open(job("j"), NOW);
        assert_eq!(desk.sweep(NOW.after(WAIT_MS - 1)), []);
        assert!(failed("no_capacity", &desk.sweep(NOW.after(WAIT_MS))));
    }

    #[test]
    fn a_job_that_never_ends_is_ended() {
        let mut desk = taken();
        let mut now = NOW;
        while now.since(NOW) + NEXT_MS < MAX_JOB_MS {
            now = now.after(NEXT_MS - 1);
            desk.events("j", A, &[text(".")], now).expect("still its own");
            assert_eq!(desk.sweep(now), []);
        }
        assert!(failed("timeout", &desk.sweep(NOW.after(MAX_JOB_MS))));
    }

    #[test]
    fn answers_with_gaps_and_endless_ones_are_not_sold() {
        let mut desk = taken();
        desk.events("j", A, &[text("ac")], NOW).expect("its own");
        let (completed, told) = desk.complete("j", A, Ended::Completed(Some("abc".into())), NOW).expect("its own");
        assert_eq!((completed.status, failed("incomplete_answer", &told)), ("failed", true));

        let mut desk = taken();
        let half = "x".repeat(MAX_ANSWER_BYTES / 2 + 1);
        assert!(desk.events("j", A, &[text(&half)], NOW).is_ok());
        assert_eq!(desk.events("j", A, &[text(&half)], NOW), Err(Refused::TooLong));
    }

    #[test]
    fn jobs_go_to_those_who_serve_them_while_they_ask() {
        let mut desk = Desk::default();
        let other = Job { model: "other".into(), ..job("a") };
        desk.open(other.clone(), NOW);
        assert_eq!(desk.poll(&daemon(A), NOW).0, []);
        assert!(desk.is_served(&job("b"), NOW) && !desk.is_served(&other, NOW));
        assert!(!desk.is_served(&job("b"), NOW.after(1)), "it has not asked since");
    }

    #[test]
    fn the_daemons_that_are_remembered_are_bounded_and_the_quietest_goes() {
        let mut desk = Desk::default();
        for n in 0..MAX_DAEMONS as u64 + 9 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_be_bytes());
            desk.poll(&Daemon { pubkey: Pubkey(key), models: vec!["m".into()] }, NOW.after(n));
        }
        assert_eq!(desk.daemons.len(), MAX_DAEMONS);
        assert!(desk.daemons.values().all(|(_, asked)| *asked >= NOW.after(9)));
    }

    #[test]
    fn everything_is_bounded() {
        let mut desk = Desk::default();
        for n in 0..2 * MAX_OPEN {
            assert_eq!(desk.open(job(&n.to_string()), NOW), n < MAX_OPEN);
        }
        let given: usize = (0..99).map(|_| desk.poll(&daemon(A), NOW).0.len()).sum();
        assert_eq!(given, MAX_ACTIVE);
        for n in 0..2 * MAX_OVER {
            desk.open(job(&format!("x{n}")), NOW);
            desk.cancel(&format!("x{n}"), NOW);
            desk.cancel(&n.to_string(), NOW);
        }
        assert!(desk.over.len() <= MAX_OVER && desk.open.is_empty());
    }
}

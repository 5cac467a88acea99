//! Jobs at a steady rate, and what became of each.

use super::{plan::Who, stage::Outages};
use crate::{cluster::question, machine::Distribution};
use infernet_node::{
    clock,
    control::{
        client::{AskError, Client},
        schema::ChatStep,
    },
    report::millis,
};
use infernet_wire::id::{JobId, NodeId};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Between two jobs of a client: three clients of one buyer stay below what workers allow one buyer.
const PAUSE: Duration = Duration::from_millis(600);
/// Before a node that does not run is looked for again.
const LOOK: Duration = Duration::from_millis(100);
/// A job that takes longer hangs: the longest wait of a job is for a first token (120 s), which an engine that says nothing at
/// all can cause; no engine is silent for longer than 12 s here, and each of a few attempts may meet one.
const HUNG: Duration = Duration::from_secs(90);
/// Tokens of an answer, in turn: from one packet to two seconds.
const TOKENS: [u32; 5] = [1, 16, 4, 200, 64];
/// How an answer ends that is all there is.
const WHOLE: [&str; 2] = ["length", "stop"];
/// Different errors that are told apart.
const MAX_ERRORS: usize = 32;

/// A receipt that a client was shown, signed by both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Promise {
    pub(crate) buyer: Who,
    pub(crate) worker: NodeId,
    pub(crate) job: JobId,
    pub(crate) micro_usd: u64,
}

/// What became of all jobs.
#[derive(Debug, Clone, Default)]
struct Results {
    latencies: Vec<f64>,
    promises: Vec<Promise>,
    report: JobsReport,
}

/// What to show of them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct JobsReport {
    /// Begun.
    pub asked: u64,
    /// Whole answers.
    pub answered: u64,
    /// Of those, without a receipt that both sides signed: the worker was gone before it could ask for the signature.
    pub unsigned: u64,
    /// A part of the answer, told as such, and paid for as that.
    pub cut: u64,
    /// Ended with an error that says what is wrong.
    pub refused: u64,
    /// The buyer's own node was killed or frozen meanwhile.
    pub node_gone: u64,
    /// Ended with less than was asked for, as if that were all.
    pub short: u64,
    /// Ended without an error while the buyer's node was well.
    pub broken_off: u64,
    /// Did not end.
    pub hung: u64,
    /// The errors by what they say, numbers left out, and how often each.
    pub errors: BTreeMap<String, u64>,
    /// Whole answers, from the question to the receipt, in milliseconds.
    pub latency_ms: Option<Distribution>,
}

/// How one job ended.
enum End {
    Answered {
        tokens: u32,
        promise: Option<Promise>,
    },
    /// A part of an answer, said to be one, with its receipt.
    Cut {
        finish: String,
        promise: Option<Promise>,
    },
    Refused(String),
    Lost(String),
}

/// Jobs of all clients.
#[derive(Clone, Default)]
pub(crate) struct Load {
    results: Arc<Mutex<Results>>,
    outages: Outages,
}

impl Load {
    pub(crate) fn new(outages: Outages) -> Self {
        Load { outages, ..Load::default() }
    }

    /// Runs jobs on the node of `home` until `stop`; the job that runs then is waited for.
    pub(crate) async fn client(self, buyer: Who, home: PathBuf, first: usize, stop: watch::Receiver<bool>) {
        for tokens in TOKENS.into_iter().cycle().skip(first) {
            if *stop.borrow() {
                return;
            }
            match Client::connect(&home) {
                Some(node) => {
                    self.one(buyer, &node, tokens).await;
                    sleep(PAUSE).await;
                }
                None => sleep(LOOK).await,
            }
        }
    }

    async fn one(&self, buyer: Who, node: &Client, tokens: u32) {
        let began = clock::instant();
        let end = timeout(HUNG, ask(buyer, node, tokens)).await;
        self.note(buyer, tokens, began, end.ok());
    }

    fn note(&self, buyer: Who, asked: u32, began: Instant, end: Option<End>) {
        let was_out = self.was_out(buyer, began);
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let results = &mut *results;
        let report = &mut results.report;
        report.asked += 1;
        match end {
            Some(End::Answered { tokens, promise }) if tokens == asked => {
                report.answered += 1;
                report.unsigned += u64::from(promise.is_none());
                results.promises.extend(promise);
                results.latencies.push(millis(began.elapsed()));
            }
            Some(End::Answered { tokens, promise }) => {
                report.short += 1;
                results.promises.extend(promise);
                tell(&mut report.errors, format!("{tokens} tokens instead of {asked}"));
            }
            Some(End::Cut { finish, promise }) => {
                report.cut += 1;
                results.promises.extend(promise);
                tell(&mut report.errors, format!("cut off: {finish}"));
            }
            Some(End::Refused(error)) => {
                report.refused += 1;
                tell(&mut report.errors, without_numbers(&error));
            }
            _ if was_out => report.node_gone += 1,
            Some(End::Lost(error)) => {
                report.broken_off += 1;
                tell(&mut report.errors, without_numbers(&error));
            }
            None => report.hung += 1,
        }
    }

    fn was_out(&self, buyer: Who, since: Instant) -> bool {
        let outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        outages.get(&buyer).is_some_and(|all| all.iter().any(|(_, until)| until.is_none_or(|until| until >= since)))
    }

    /// What became of all of them, and the receipts that were shown.
    pub(crate) fn report(&self) -> (JobsReport, Vec<Promise>) {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = results.report.clone();
        report.latency_ms = Some(Distribution::of(results.latencies.clone()));
        (report, results.promises.clone())
    }
}

fn tell(errors: &mut BTreeMap<String, u64>, error: String) {
    if errors.len() < MAX_ERRORS || errors.contains_key(&error) {
        *errors.entry(error).or_default() += 1;
    }
}

/// The same sentence for the same thing: addresses, ids and numbers say which, not what.
fn without_numbers(error: &str) -> String {
    let plain = |word: &str| !word.chars().any(|c| c.is_ascii_digit());
    error.split_whitespace().map(|word| if plain(word) { word } else { "…" }).collect::<Vec<_>>().join(" ")
}

/// One job of a node that must go well; why it did not.
pub(crate) async fn first(buyer: Who, home: &Path) -> Result<(), String> {
    let node = Client::connect(home).ok_or("its node does not run")?;
    match timeout(HUNG, ask(buyer, &node, 4)).await {
        Ok(End::Answered { tokens: 4, promise: Some(_) }) => Ok(()),
        Ok(End::Answered { .. } | End::Cut { .. }) => Err("half an answer".into()),
        Ok(End::Refused(error) | End::Lost(error)) => Err(error),
        Err(_) => Err("it hangs".into()),
    }
}

async fn ask(buyer: Who, node: &Client, max_tokens: u32) -> End {
    let order = question(super::MODEL, max_tokens);
    match node.chat(&order, |_| ControlFlow::Continue(())).await {
        Ok(Some(ChatStep::Done(report))) => {
            let signed = report.receipt.filter(|receipt| receipt.verified);
            let promise = signed.map(|r| Promise { buyer, worker: r.worker, job: r.job_id, micro_usd: r.amount_micro_usd });
            let (tokens, finish) = (report.stream.tokens, report.stream.finish);
            if WHOLE.contains(&finish.as_str()) { End::Answered { tokens, promise } } else { End::Cut { finish, promise } }
        }
        Ok(Some(ChatStep::Error(error))) => End::Refused(error.message),
        Ok(_) => End::Lost("the node ended without saying how".into()),
        Err(error @ (AskError::Http(_) | AskError::Cut | AskError::Malformed | AskError::Silent)) => {
            End::Lost(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(outage: Option<(Instant, Option<Instant>)>) -> Load {
        let outages = Outages::default();
        outages.lock().expect("free").insert(Who::Buyer(0), outage.into_iter().collect());
        Load::new(outages)
    }

    #[test]
    fn a_broken_line_is_excused_only_by_an_outage_of_the_buyers_own_node() {
        let now = clock::instant();
        let earlier = now - Duration::from_secs(2);
        let lost = || Some(End::Lost("cut".into()));
        for (outage, excused) in [
            (None, false),
            (Some((earlier, Some(now - Duration::from_secs(1)))), false),
            (Some((earlier, Some(now))), true),
            (Some((earlier, None)), true),
        ] {
            let load = load(outage);
            load.note(Who::Buyer(0), 1, now, lost());
            load.note(Who::Buyer(0), 1, now, None);
            let (report, _) = load.report();
            let (gone, wrong) = (report.node_gone, report.broken_off + report.hung);
            assert_eq!((gone, wrong), if excused { (2, 0) } else { (0, 2) });
        }
    }

    #[test]
    fn a_short_answer_is_no_answer() {
        let load = load(None);
        load.note(Who::Buyer(0), 16, clock::instant(), Some(End::Answered { tokens: 3, promise: None }));
        let (report, _) = load.report();
        assert_eq!((report.asked, report.answered, report.short), (1, 0, 1));
    }

    #[test]
    fn errors_that_differ_only_in_numbers_are_one() {
        assert_eq!(without_numbers("worker 12ab is busy for 3 s"), without_numbers("worker 77cd is busy for 10 s"));
    }
}

//! What each pane says of what is known: rows for a width. Pure.

use super::{
    income::{HOURS, MINUTES},
    log::Place,
    state::{Facts, Pane, Snapshot},
    text::{Column, Row, Tone, Words, bars, foreign, gauge, table, wrapped},
};
use crate::{
    cli::{
        counted, dollars,
        status::{self, load, machine as machine_rows, plane_said},
        watch::span,
    },
    control::schema::PeerReport,
    earnings::Sum,
    engines::EngineReport,
    hardware::Reading,
    jobs::{JobReport, State as JobState},
    seller::{self, Outcome},
    why::Finding,
};
use infernet_wire::{money::MicroUsd, time::UnixMillis};
use std::collections::BTreeMap;

/// How the terminal is: what may be drawn on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Whether it shows colours.
    pub(super) colour: bool,
    /// Whether it shows more than ASCII: lines and blocks.
    pub(super) blocks: bool,
}

/// Columns of the bar of slots.
const SLOTS_BAR: usize = 16;
/// Below this, half of the last hour's minutes are left out.
const WIDE: usize = MINUTES + 10;

/// The rows of `pane` at `now`.
pub(super) fn rows(pane: Pane, facts: &Facts, now: UnixMillis, width: usize, look: Look) -> Vec<Row> {
    let rows = unwrapped(pane, facts, now, width, look);
    rows.into_iter().flat_map(|row| wrapped(row, width)).collect()
}

fn unwrapped(pane: Pane, facts: &Facts, now: UnixMillis, width: usize, look: Look) -> Vec<Row> {
    let Some(snapshot) = &facts.snapshot else { return vec![Row::of(Tone::Faint, "waiting for the node's first answer")] };
    match pane {
        Pane::Node => node(snapshot, now, look),
        Pane::Peers => peers(snapshot, width),
        Pane::Auctions => auctions(snapshot, now, width),
        Pane::Streams => streams(snapshot, width),
        Pane::Engine => engine(snapshot, width),
        Pane::Earnings => earnings(facts, snapshot, now, width, look),
        Pane::Log => log(facts, width).into_iter().map(|(_, row)| row).collect(),
    }
}

fn node(snapshot: &Snapshot, now: UnixMillis, look: Look) -> Vec<Row> {
    let status = &snapshot.status;
    let plain = |what, said: String| Row::labelled(what, Tone::Plain, said);
    let mut rows = vec![
        Row::labelled("id", Tone::Strong, status.id.to_string()),
        plain("up", format!("{}, version {}, network {}", span(status.uptime_ms), status.version, status.network)),
    ];
    rows.extend(status.seller.as_ref().map(|seller| slots(seller, look)));
    let store = &status.store;
    let receipts = counted(usize::try_from(store.receipts).unwrap_or(usize::MAX), "receipt");
    rows.push(match &store.problem {
        None => plain("store", format!("{receipts}, {} unacknowledged; takes work", store.unacknowledged)),
        Some(problem) => Row::labelled("store", Tone::Bad, foreign(problem)),
    });
    rows.extend(status.warnings.iter().flat_map(warned));
    rows.extend(status.listen.iter().map(|address| plain("mesh", foreign(address))));
    rows.push(plain("chat", format!("udp {}", foreign(&status.chat))));
    rows.extend(status::reach(&status.reach).iter().map(|(what, said)| plain(what, foreign(said))));
    rows.extend(status.api.iter().map(|api| plain("api", foreign(api))));
    rows.extend(status.planes.iter().map(|plane| {
        let (fine, said) = plane_said(plane, now);
        Row::labelled("plane", if fine { Tone::Plain } else { Tone::Bad }, foreign(&format!("{}: {said}", plane.url)))
    }));
    for (n, said) in status::peers(status).iter().enumerate() {
        rows.push(plain(if n == 0 { "peers" } else { "" }, foreign(said)));
    }
    rows
}

fn slots(seller: &seller::Status, look: Look) -> Row {
    let taken = seller.running + seller.held;
    let bar = gauge(taken as u64, seller.slots.into(), SLOTS_BAR, look.blocks);
    let free = usize::from(seller.slots).saturating_sub(taken);
    let text = format!(" {} running, {} held, {free} free of {}", seller.running, seller.held, seller.slots);
    let mut words = vec![(Tone::Faint, "slots   ".to_owned()), (Tone::Good, bar), (Tone::Plain, text)];
    if seller.draining {
        words.push((Tone::Bad, "  draining: no new jobs".into()));
    }
    Row(words)
}

/// What is wrong, and below it what to do.
fn warned(warning: &Finding) -> Vec<Row> {
    let mut rows = vec![Row::of(Tone::Bad, foreign(&format!("! {}: {}", warning.seen, warning.means)))];
    let changes = warning.change.iter().flat_map(|change| change.lines());
    rows.extend(changes.map(|line| Row::of(Tone::Strong, format!("  > {}", foreign(line)))));
    rows
}

const PEERS: [Column; 9] = [
    Column::left("PEER", 8, 0),
    Column::left("PATH", 7, 1),
    Column::left("OVER", 4, 3),
    Column::left("WAY", 3, 4),
    Column::right("RTT", 7, 2),
    Column::right("SCORE", 6, 6),
    Column::right("SINCE", 6, 5),
    Column::left("SOFTWARE", 14, 8),
    Column::left("REMOTE", 14, 7),
];

fn peers(snapshot: &Snapshot, width: usize) -> Vec<Row> {
    if snapshot.peers.is_empty() {
        let text = "no peers: name one with --bootstrap, or wait for the local network to answer";
        return vec![Row::of(Tone::Bad, text)];
    }
    let rows = snapshot.peers.iter().map(|peer| {
        let way = if peer.direction == "inbound" { "in" } else { "out" };
        let score = if peer.score < 0.0 { Tone::Bad } else { Tone::Plain };
        vec![
            (Tone::Strong, peer.id.short()),
            plain(foreign(&peer.path)),
            plain(foreign(&peer.transport)),
            plain(way),
            plain(peer.rtt_ms.map_or("-".into(), |ms| format!("{ms} ms"))),
            (score, format!("{:.1}", peer.score)),
            plain(brief(peer.connected_ms)),
            plain(foreign(peer.agent.as_deref().unwrap_or("-"))),
            plain(foreign(&peer.remote)),
        ]
    });
    let mut rows = table(&PEERS, rows, width);
    rows.extend(snapshot.peers.iter().filter_map(relayed));
    rows
}

/// Through whom a peer is reached, and why.
fn relayed(peer: &PeerReport) -> Option<Row> {
    let (via, why) = (peer.via.as_ref()?, peer.why_not_direct.as_ref()?);
    Some(Row::of(Tone::Faint, foreign(&format!("{} is relayed through {via}: {why}", peer.id.short()))))
}

const OUTCOMES: [Column; 6] = [
    Column::right("AGO", 6, 2),
    Column::left("OUTCOME", 18, 0),
    Column::right("OURS", 9, 3),
    Column::right("WINNER", 9, 4),
    Column::right("CEILING", 9, 5),
    Column::left("MODEL", 12, 1),
];

fn auctions(snapshot: &Snapshot, now: UnixMillis, width: usize) -> Vec<Row> {
    let Some(seller) = &snapshot.status.seller else {
        return vec![Row::of(Tone::Faint, "this node only buys: it bids in no auction; its own jobs are under streams")];
    };
    let count = |name: &str| seller.counters.get(name).copied().unwrap_or_default();
    let won = count("claims") + count("standing");
    let offers = count("offers").saturating_sub(count("ignored.own") + count("ignored.replayed"));
    let mut rows = vec![Row(vec![
        plain(format!("offers {offers}  bids {}  ", count("bids"))),
        (Tone::Good, format!("won {won}")),
        plain(format!(" ({} at the ad's price)  lost {}  lapsed {}", count("standing"), count("lost"), count("lapsed"))),
    ])];
    for (what, area) in [("lost", "lost."), ("no bid", "no_bid."), ("refused", "claim_refused.")] {
        rows.extend(reasons(&seller.counters, area).map(|said| Row::labelled(what, Tone::Plain, said)));
    }
    rows.push(Row::default());
    if seller.recent.is_empty() {
        rows.push(Row::of(Tone::Faint, "no offer was heard yet"));
        return rows;
    }
    rows.extend(table(&OUTCOMES, seller.recent.iter().rev().map(|outcome| ended(outcome, now)), width));
    rows
}

/// `dearer 3, slower 1`: the counters below `area`, the largest first.
fn reasons(counters: &BTreeMap<String, u64>, area: &str) -> Option<String> {
    let mut all: Vec<_> = counters.iter().filter_map(|(name, n)| Some((name.strip_prefix(area)?, *n))).collect();
    all.sort_by_key(|(_, n)| u64::MAX - n);
    let named: Vec<String> = all.iter().map(|(reason, n)| format!("{} {n}", foreign(reason))).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

fn ended(outcome: &Outcome, now: UnixMillis) -> Vec<Words> {
    let price = |asked: Option<&seller::Asking>| asked.map_or("-".into(), |asked| dollars(asked.price_out));
    let (reason, tone) = match outcome.reason.as_str() {
        "won" => ("won", Tone::Good),
        // No auction, so there was nobody to win against.
        "standing" => ("got at ad's price", Tone::Good),
        other if outcome.bid => (other, Tone::Plain),
        other => (other, Tone::Faint),
    };
    let winner = if tone == Tone::Good { "us".into() } else { price(outcome.winner.as_ref()) };
    vec![
        plain(brief(now.since(UnixMillis(outcome.at)))),
        (tone, foreign(reason)),
        plain(price(outcome.ours.as_ref())),
        plain(winner),
        plain(price(Some(&outcome.ceiling))),
        plain(foreign(&outcome.model)),
    ]
}

/// A time in its largest unit, in six columns: `45 s`, `12 min`, `3 h`, `200 d`.
fn brief(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

const JOBS: [Column; 10] = [
    Column::left("JOB", 8, 6),
    Column::left("ROLE", 6, 4),
    Column::left("STATE", 9, 0),
    Column::left("PEER", 8, 7),
    Column::right("TOKENS", 6, 1),
    Column::right("AMOUNT", 9, 2),
    Column::right("TOK/S", 5, 3),
    Column::right("TTFT", 7, 8),
    Column::right("TIME", 10, 5),
    Column::left("MODEL, PATH", 11, 1),
];

fn streams(snapshot: &Snapshot, width: usize) -> Vec<Row> {
    let running: Vec<&JobReport> = snapshot.jobs.iter().filter(|job| !job.state.is_ended()).collect();
    let speed: u64 = running.iter().filter_map(|job| job.tokens_per_second).map(u64::from).sum();
    let mut rows = vec![Row(vec![
        (if running.is_empty() { Tone::Faint } else { Tone::Good }, format!("{} running", counted(running.len(), "job"))),
        plain(format!(", {speed} tokens/s together")),
    ])];
    if !snapshot.jobs.is_empty() {
        rows.push(Row::default());
        rows.extend(table(&JOBS, snapshot.jobs.iter().map(job), width));
    }
    rows
}

fn job(job: &JobReport) -> Vec<Words> {
    let dash = || "-".to_owned();
    let state = match job.state {
        JobState::Auction | JobState::Opened | JobState::Streaming => Tone::Good,
        JobState::Failed => Tone::Bad,
        JobState::Settled | JobState::Unsigned | JobState::Cancelled => Tone::Faint,
    };
    let note = job.error.as_deref().or(job.path.as_deref()).map(|note| format!("  {note}")).unwrap_or_default();
    vec![
        plain(job.id.to_string().chars().take(8).collect::<String>()),
        plain(job.role.label()),
        (state, job.state.label().into()),
        plain(job.peer.map_or_else(dash, |peer| peer.short())),
        plain(job.tokens.to_string()),
        // Of a job that runs, nobody knows yet.
        plain(job.amount_micro_usd.map_or_else(dash, |amount| MicroUsd(amount).to_string())),
        plain(job.tokens_per_second.map_or_else(dash, |speed| speed.to_string())),
        plain(job.ttft_ms.map_or_else(dash, span)),
        plain(span(job.ms)),
        plain(foreign(&format!("{}{note}", job.model))),
    ]
}

fn engine(snapshot: &Snapshot, width: usize) -> Vec<Row> {
    let status = &snapshot.status;
    let mut rows: Vec<Row> = status.engines.iter().flat_map(engine_rows).collect();
    match &status.seller {
        None => rows.push(Row::of(Tone::Faint, "this node only buys: it has no engine")),
        Some(_) => {
            let price = |price: Option<u64>| dollars(price.unwrap_or_default());
            let said = format!("{} in, {} out per million tokens", price(status.price_in), price(status.price_out));
            rows.push(Row::labelled("price", Tone::Plain, said));
        }
    }
    rows.extend(status.machine.iter().flat_map(host));
    // Last, since they may be many.
    rows.extend(status.seller.iter().flat_map(|seller| models(seller, width)));
    rows
}

/// GPUs, and the load of the machine.
fn host(machine: &Reading) -> Vec<Row> {
    let mut rows: Vec<Row> = machine_rows(machine)
        .into_iter()
        .map(|(label, said)| Row::labelled(label, Tone::Plain, foreign(&said.replace(" °C", " C"))))
        .collect();
    if machine.gpus.is_empty() {
        rows.push(Row::labelled("gpu", Tone::Faint, "none that this node can read"));
    }
    rows
}

fn engine_rows(engine: &EngineReport) -> Vec<Row> {
    let name = foreign(&engine.engine);
    match &engine.error {
        None => {
            vec![Row::labelled("engine", Tone::Good, format!("{name}: {}{}", counted(engine.models, "model"), load(engine)))]
        }
        Some(error) => vec![
            Row::labelled("engine", Tone::Bad, format!("{name}: does not answer")),
            Row::labelled("", Tone::Bad, foreign(error)),
        ],
    }
}

/// One below the other: there may be 64, and a pane can be scrolled.
fn models(seller: &seller::Status, width: usize) -> Vec<Row> {
    if seller.models.is_empty() {
        return vec![Row::labelled("models", Tone::Bad, "none, so nothing is offered")];
    }
    let label = |n| if n == 0 { "models" } else { "" };
    let fits = width.saturating_sub(8);
    let row = |(n, model): (usize, &String)| {
        let name = super::text::fitted(&foreign(model), fits, false);
        Row::labelled(label(n), Tone::Plain, name.trim_end())
    };
    seller.models.iter().enumerate().map(row).collect()
}

fn earnings(facts: &Facts, snapshot: &Snapshot, now: UnixMillis, width: usize, look: Look) -> Vec<Row> {
    let (today, minutes, hours) = (&snapshot.status.today, facts.income.minutes(now), facts.income.hours(now));
    let shown = if width < WIDE { MINUTES / 2 } else { MINUTES };
    let last = minutes.get(MINUTES - shown..).unwrap_or(&minutes);
    let chart = |values: &[u64]| Row(vec![(Tone::Good, bars(values, look.blocks))]);
    let total = |values: &[u64]| MicroUsd(values.iter().fold(0, |sum, value| sum.saturating_add(*value)));
    vec![
        Row::labelled("today", Tone::Strong, format!("earned {} ({} UTC)", sum(&today.earned), today.day)),
        Row::labelled("", Tone::Plain, format!("spent {}", sum(&today.spent))),
        Row::default(),
        Row(vec![(Tone::Faint, format!("last {shown} minutes  ")), plain(total(last).to_string())]),
        chart(last),
        Row::default(),
        Row(vec![(Tone::Faint, format!("last {HOURS} hours  ")), plain(total(&hours).to_string())]),
        chart(&hours),
    ]
}

fn sum(sum: &Sum) -> String {
    let unsigned = match sum.unacknowledged() {
        MicroUsd(0) => String::new(),
        amount => format!(", {amount} more unacknowledged"),
    };
    format!("{} in {}{unsigned}", sum.acknowledged(), counted(usize::try_from(sum.jobs).unwrap_or(usize::MAX), "job"))
}

/// The log's rows, the newest last, each with its place.
pub(super) fn log(facts: &Facts, width: usize) -> Vec<(Place, Row)> {
    if facts.log.is_empty() {
        let text = "no log: log_file = false, or nothing was logged yet";
        return vec![(Place { line: 0, row: 0 }, Row::of(Tone::Faint, text))];
    }
    let tone = |line: &str| match line.get(20..25) {
        Some("ERROR" | "WARN ") => Tone::Bad,
        _ => Tone::Plain,
    };
    let rows = |(line, text): (u64, &String)| {
        let rows = wrapped(Row::of(tone(text), foreign(text)), width).into_iter().enumerate();
        rows.map(move |(row, words)| (Place { line, row }, words))
    };
    (facts.log_gone..).zip(&facts.log).flat_map(rows).collect()
}

fn plain(text: impl Into<String>) -> Words {
    (Tone::Plain, text.into())
}

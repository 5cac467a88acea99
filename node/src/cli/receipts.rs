//! `infernet receipts`: lists them, shows one whole, checks all. Whatever is read here has been verified here, whether it comes
//! from the running node or from the disk.

use super::{Context, dollars, exit, exit::Exit, income::quoted, query};
use crate::{
    config::{Config, Partial},
    control::{client::Client, schema::DisputeReport},
    disputes::Disputes,
    local_time,
    report::ReceiptReport,
    store,
};
use clap::{Args, Subcommand};
use infernet_wire::{
    id::{Hash, JobId},
    money::MicroUsd,
    receipt::SignedReceipt,
    time::UnixMillis,
    topic::NetworkId,
};
use schemars::JsonSchema;
use serde::Serialize;

/// Receipts that are listed unless told otherwise.
const LISTED: usize = 50;
/// Receipts that are looked through for a job of which only the first digits are known: those of some weeks, in seconds.
const SEARCHED: usize = 10_000;
/// Hex digits of a job's id, and how many tell one from the others: `infernet jobs` shows eight.
const ID_DIGITS: usize = 32;
const MIN_DIGITS: usize = 6;

#[derive(Debug, Args)]
pub(super) struct ReceiptsArgs {
    /// Receipts at most [default: 50, all to verify]
    #[arg(long, global = true, value_name = "N")]
    limit: Option<usize>,
    /// Network that the receipts are of [default: the running node's, else main]
    #[arg(long, global = true, value_name = "NAME")]
    network: Option<String>,
    /// Print comma separated values, for a spreadsheet.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    #[command(subcommand)]
    command: Option<ReceiptsCommand>,
}

#[derive(Debug, Subcommand)]
enum ReceiptsCommand {
    /// Show all that a receipt says.
    Show {
        /// The job, or its first digits, as `infernet jobs` shows them.
        #[arg(value_name = "JOB", value_parser = digits)]
        job: String,
    },
    /// Check every signature again, and say which receipts both sides signed.
    Verify,
    /// Show the last 1024 that this node did not sign, or got none of: workers that broke the protocol, or asked for what they had
    /// not done, with what they have in writing.
    Disputes,
}

/// `infernet receipts verify --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct VerifyReport {
    /// Receipts that both sides signed.
    signed_by_both: usize,
    /// Receipts that the worker alone signed.
    unacknowledged: usize,
    /// Receipts that do not verify.
    invalid: u64,
}

/// `infernet receipts show --json`: what is in a list, and the rest of what was signed.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct WholeReceipt {
    #[serde(flatten)]
    listed: ReceiptReport,
    /// The network that it was signed for.
    network: String,
    /// Digest of the worker's statement, which the buyer's signature names.
    #[schemars(with = "String")]
    digest: Hash,
    /// Digest of the accept that the job ran under.
    #[schemars(with = "String")]
    accept: Hash,
    /// What kind of work it was.
    workload: String,
    /// Digest of the model's weights; absent if its engine tells none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    weights: Option<Hash>,
    /// The agreed price, in micro-USD per million input tokens.
    price_in: u64,
    /// The same for output tokens.
    price_out: u64,
    /// What vouchers had covered already, in micro-USD.
    paid_micro_usd: u64,
    /// When the worker opened the job, in unix milliseconds.
    started: u64,
    /// Hash of the request.
    #[schemars(with = "String")]
    request: Hash,
    /// The last value of the hash chain over the answer's frames.
    #[schemars(with = "String")]
    transcript: Hash,
    /// When the buyer signed, in unix milliseconds; absent while the receipt is unacknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged: Option<u64>,
    /// The signed bytes in hex, for whoever verifies them elsewhere.
    bytes: String,
}

impl WholeReceipt {
    fn new(signed: &SignedReceipt, network: &NetworkId) -> Self {
        let body = signed.receipt();
        WholeReceipt {
            listed: ReceiptReport::from(signed),
            network: network.to_string(),
            digest: body.digest(),
            accept: body.accept,
            workload: body.workload.clone(),
            weights: body.weights,
            price_in: body.price.input.0,
            price_out: body.price.output.0,
            paid_micro_usd: body.paid.0,
            started: body.started.0,
            request: body.request,
            transcript: body.transcript,
            acknowledged: signed.countersign().map(|countersign| countersign.issued.0),
            bytes: hex::encode(signed.encode()),
        }
    }
}

/// The first hex digits of an id, or all of them.
fn digits(text: &str) -> Result<String, String> {
    let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    if hex && (MIN_DIGITS..=ID_DIGITS).contains(&text.len()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("a job is {MIN_DIGITS} to {ID_DIGITS} hex digits, as `infernet jobs` and `infernet receipts` show them"))
}

/// Where receipts are read.
enum Source {
    Node(Client),
    Disk,
}

pub(super) async fn run(context: &Context, args: ReceiptsArgs) -> Result<(), Exit> {
    let flags = Partial { network: args.network.clone(), ..Partial::default() };
    let mut network = Config::load(&context.home, flags)?.network;
    let source = match Client::connect(&context.home) {
        Some(node) => {
            network = query::network_of(&node, args.network.is_some().then_some(network)).await?;
            Source::Node(node)
        }
        None => Source::Disk,
    };
    let read = async |limit| match &source {
        Source::Node(node) => query::ask_receipts(node, &network, limit).await,
        Source::Disk => query::read_receipts(context, &network, limit),
    };
    match args.command {
        None if args.csv => {
            csv(context, &read(args.limit.unwrap_or(usize::MAX)).await?.0);
            Ok(())
        }
        None => list(context, &read(args.limit.unwrap_or(LISTED)).await?.0),
        Some(ReceiptsCommand::Verify) => {
            let (receipts, bad) = read(args.limit.unwrap_or(usize::MAX)).await?;
            verify(context, &receipts, bad)
        }
        Some(ReceiptsCommand::Disputes) => disputes(context, &source, &network).await,
        Some(ReceiptsCommand::Show { job }) => {
            let (found, bad) = match whole_id(&job) {
                Some(id) => of_job(context, &source, &network, &id).await?,
                None => begins_with(read(args.limit.unwrap_or(SEARCHED)).await?, &job)?,
            };
            show(context, &found, (&job, bad), &network)
        }
    }
}

async fn disputes(context: &Context, source: &Source, network: &NetworkId) -> Result<(), Exit> {
    let all: Vec<DisputeReport> = match source {
        Source::Node(node) => node.get("disputes").await?,
        Source::Disk if context.home.is_dir() => {
            let all = Disputes::new(store::open(&context.home, network)?).all().await?;
            all.into_iter().map(DisputeReport::from).collect()
        }
        Source::Disk => Vec::new(),
    };
    if context.json {
        return context.print_json(&all);
    }
    if all.is_empty() {
        context.note("no disputes");
    }
    for DisputeReport { at, job_id, worker, cause, output_tokens, promised_micro_usd, receipt } in all {
        let at = local_time::shown(UnixMillis(at));
        let asked = if receipt.is_some() { "; its receipt is in --json" } else { "" };
        let promised = MicroUsd(promised_micro_usd);
        context.print(format!("{at} {job_id} {worker} {cause}: {output_tokens} tokens came, {promised} was promised{asked}"));
    }
    Ok(())
}

const COLUMNS: &str = "finished_unix_ms,job,worker,buyer,model,input_tokens,output_tokens,amount_micro_usd,paid_micro_usd,\
    status,signed_by_both,channel";

/// RFC 4180, with a header; amounts in micro-USD, so that no spreadsheet rounds them.
fn csv(context: &Context, receipts: &[SignedReceipt]) {
    context.print(COLUMNS);
    for signed in receipts {
        let receipt = signed.receipt();
        let channel = receipt.paid_on.as_ref().map(|on| on.channel.to_string()).unwrap_or_default();
        context.print(format!(
            "{},{},{},{},{},{},{},{},{},{},{},{channel}",
            receipt.finished.0,
            receipt.job,
            receipt.worker,
            receipt.buyer,
            quoted(&receipt.model),
            receipt.input_tokens,
            receipt.output_tokens,
            receipt.amount.0,
            receipt.paid.0,
            receipt.status,
            signed.countersign().is_some()
        ));
    }
}

fn whole_id(digits: &str) -> Option<JobId> {
    hex::decode(digits).ok()?.try_into().ok().map(JobId)
}

/// All receipts of one job: one from each worker that did a part of it.
async fn of_job(
    context: &Context,
    source: &Source,
    network: &NetworkId,
    job: &JobId,
) -> Result<(Vec<SignedReceipt>, u64), Exit> {
    match source {
        Source::Node(node) => query::receipts_of(node, network, job).await,
        Source::Disk if context.home.is_dir() => {
            let store = store::open(&context.home, network)?;
            Ok((store.receipts_of(job)?, store.counts()?.unreadable))
        }
        Source::Disk => Ok((Vec::new(), 0)),
    }
}

/// Of `receipts`, those of the one job that begins so.
fn begins_with((receipts, bad): (Vec<SignedReceipt>, u64), digits: &str) -> Result<(Vec<SignedReceipt>, u64), Exit> {
    let id = |receipt: &SignedReceipt| receipt.receipt().job;
    let found: Vec<_> = receipts.into_iter().filter(|receipt| id(receipt).to_string().starts_with(digits)).collect();
    let other = found.iter().find(|receipt| found.first().is_some_and(|first| id(first) != id(receipt)));
    if let (Some(first), Some(other)) = (found.first(), other) {
        let text = format!("{} and {} both begin with {digits}: write more of the one you mean", id(first), id(other));
        return Err(Exit::new(exit::USAGE, text));
    }
    Ok((found, bad))
}

fn show(context: &Context, found: &[SignedReceipt], (job, bad): (&str, u64), network: &NetworkId) -> Result<(), Exit> {
    if found.is_empty() {
        let unread =
            if bad > 0 { format!(", and {bad} could not be verified: see `infernet receipts verify`") } else { String::new() };
        let text = format!("no receipt of job {job} is here on network {network}{unread}; `infernet receipts` lists them");
        return Err(Exit::new(if bad > 0 { exit::UNVERIFIED } else { exit::FAILED }, text));
    }
    let whole: Vec<WholeReceipt> = found.iter().map(|receipt| WholeReceipt::new(receipt, network)).collect();
    if context.json {
        return context.print_json(&whole);
    }
    let texts: Vec<String> = whole.iter().map(text).collect();
    context.print(texts.join("\n\n"));
    Ok(())
}

/// A receipt as lines.
fn text(receipt: &WholeReceipt) -> String {
    let ReceiptReport { job_id, worker, buyer, model, input_tokens, output_tokens, status, finished, .. } = &receipt.listed;
    let at = |ms| local_time::shown(UnixMillis(ms));
    let tokens = |n: &u32, price| format!("{n} tokens at {} per million", dollars(price));
    let by_buyer = match (&receipt.listed.buyer_signature, receipt.acknowledged) {
        (Some(signature), Some(when)) => format!("{signature}, on {}: verifies", at(when)),
        _ => "not yet: the receipt is unacknowledged".into(),
    };
    let mut lines = vec![
        ("job", job_id.to_string()),
        ("network", receipt.network.clone()),
        ("status", status.clone()),
        ("started", at(receipt.started)),
        ("finished", at(*finished)),
        ("worker", worker.to_string()),
        ("buyer", buyer.to_string()),
        ("workload", receipt.workload.clone()),
        ("model", super::watch::cell(model, 128)),
    ];
    lines.extend(receipt.weights.map(|weights| ("weights", weights.to_string())));
    lines.extend([
        ("input", tokens(input_tokens, receipt.price_in)),
        ("output", tokens(output_tokens, receipt.price_out)),
        ("amount", receipt.listed.amount().to_string()),
        ("paid", format!("{} by vouchers", MicroUsd(receipt.paid_micro_usd))),
        ("accept", receipt.accept.to_string()),
        ("request", receipt.request.to_string()),
        ("transcript", receipt.transcript.to_string()),
        ("digest", receipt.digest.to_string()),
        ("by worker", format!("{}: verifies", receipt.listed.worker_signature)),
        ("by buyer", by_buyer),
    ]);
    lines.iter().map(|(what, said)| format!("{what:<11} {said}")).collect::<Vec<_>>().join("\n")
}

fn list(context: &Context, receipts: &[SignedReceipt]) -> Result<(), Exit> {
    let receipts: Vec<ReceiptReport> = receipts.iter().map(ReceiptReport::from).collect();
    if context.json {
        return context.print_json(&receipts);
    }
    if receipts.is_empty() {
        context.note("no receipts yet");
        return Ok(());
    }
    context.print(format!(
        "{:<32} {:<19} {:<8} {:<8} {:<24} {:>8} {:>8} {:>12} {:<10} {}",
        "JOB", "FINISHED", "WORKER", "BUYER", "MODEL", "IN", "OUT", "AMOUNT", "STATUS", "SIGNED BY"
    ));
    for r in &receipts {
        context.print(format!(
            "{:<32} {:<19} {:<8} {:<8} {:<24} {:>8} {:>8} {:>12} {:<10} {}",
            r.job_id,
            local_time::shown(UnixMillis(r.finished)),
            r.worker.short(),
            r.buyer.short(),
            r.model,
            r.input_tokens,
            r.output_tokens,
            r.amount().to_string(),
            r.status,
            if r.verified { "both" } else { "worker only" }
        ));
    }
    Ok(())
}

/// Reading a receipt verifies it; here that is counted and told.
fn verify(context: &Context, receipts: &[SignedReceipt], bad: u64) -> Result<(), Exit> {
    let both = receipts.iter().filter(|receipt| receipt.countersign().is_some()).count();
    let unacknowledged = receipts.len() - both;
    if context.json {
        context.print_json(&VerifyReport { signed_by_both: both, unacknowledged, invalid: bad })?;
    } else {
        context.print(format!("{both} signed by both, {unacknowledged} by the worker only, {bad} invalid"));
    }
    if bad > 0 {
        let text = format!("{bad} of the receipts did not verify: the store was changed by something else; keep a copy of it");
        return Err(Exit::new(exit::UNVERIFIED, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_by_its_digits_or_the_first_of_them() {
        assert_eq!(digits("89DB78ae").as_deref(), Ok("89db78ae"));
        assert!(digits("89db7").is_err() && digits("no-such-job").is_err() && digits(&"0".repeat(33)).is_err());
        assert_eq!(whole_id(&"07".repeat(16)), Some(JobId([7; 16])));
        assert_eq!((whole_id("89db78ae"), whole_id("89db78a")), (None, None));
    }
}

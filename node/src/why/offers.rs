//! Why single offers did not become jobs, by the market's own reasons.

use super::{Counts, Evidence, Finding, counted, part, price, pull, wanted};
use crate::seller::Status;

/// A share of lapsed bids that is no chance any more: buyers do go away, but not half of them.
const MANY_LAPSED_PERCENT: u64 = 50;
/// Fewer bids tell nothing.
const MIN_BIDS: u64 = 4;
/// A short answer of a usual model costs a hundredth of it.
const CREDIT: &str = "infernet credit set anybody 0.10";

pub(super) fn findings(evidence: &Evidence<'_>, seller: &Status) -> Vec<Finding> {
    let priced = [price::dearer(evidence, seller), price::ceiling(evidence, seller), price::rivals(evidence, seller)];
    let others = [
        other_models(seller),
        not_selected(seller),
        newcomers(seller),
        lapsed(seller),
        superseded(seller),
        claims(seller),
        unsigned(evidence),
    ];
    let lost = ["slower", "outranked"].map(|reason| lost(reason, seller));
    priced.into_iter().chain(others).chain(lost).flatten().chain(refusals(seller)).collect()
}

/// Offers for models that are not served: demand.
fn other_models(seller: &Status) -> Option<Finding> {
    let counts = Counts(seller);
    let (missed, wanted) = (counts.get("ignored.other_model"), wanted(seller));
    (missed > 0).then(|| {
        let seen = format!("{} asked for models that you do not serve", part(missed, counts.heard(), "offer"));
        let finding = |means: String| Finding::new("other_model", seen, means).about(missed);
        let Some(most) = wanted.first() else { return finding("nobody knows any more for which".into()) };
        let by = format!("{} of {}", counted(most.offers, "offer"), counted(most.buyers, "buyer"));
        if !most.is_demand() {
            let means = "no model is wanted by several buyers, and one buyer is no demand";
            return finding(format!("{means}; the most wanted is {} ({by})", most.model));
        }
        let change = pull(&most.model);
        Finding { change, ..finding(format!("most want {} ({by}); you could serve it", most.model)) }
    })
}

fn not_selected(seller: &Status) -> Option<Finding> {
    let counts = Counts(seller);
    let n = counts.get("ignored.not_selected");
    (n > 0).then(|| {
        let seen = format!("{} went to other workers' turn", part(n, counts.heard(), "offer"));
        Finding::new("not_selected", seen, "of many workers 32 answer each offer, by lot; more slots win it more often")
            .about(n)
    })
}

fn newcomers(seller: &Status) -> Option<Finding> {
    let counts = Counts(seller);
    let n = counts.get("ignored.newcomer");
    (n > 0).then(|| {
        let seen = format!("{} of buyers never seen before got no answer", part(n, counts.heard(), "offer"));
        let means =
            "the newcomers before them let your slots lapse, one after the other: somebody floods the network with new keys";
        Finding::new("newcomer", seen, means).about(n)
    })
}

/// Lost though no dearer.
fn lost(reason: &str, seller: &Status) -> Option<Finding> {
    let counts = Counts(seller);
    let n = counts.get(&format!("lost.{reason}"));
    let (how, means, change) = match reason {
        "slower" => (
            "lost to a faster worker",
            "at no higher price they are sooner done; a smaller quantisation, a GPU, or fewer jobs at once make yours faster",
            format!("slots = {}", (seller.slots / 2).max(1)),
        ),
        _ => (
            "lost though your price and speed were no worse",
            "buyers know more: a shorter way to the winner, its record, or failed jobs of yours",
            "infernet logs | grep -i failed".to_owned(),
        ),
    };
    let finding = || Finding::new(reason, format!("{} {how}", part(n, counts.get("bids"), "bid")), means).about(n);
    // With one slot there is nothing to halve.
    (n > 0).then(|| if reason == "slower" && seller.slots < 2 { finding() } else { finding().change(change) })
}

/// Nobody told what became of a bid. If that is usual and no job ever began, nobody can reach us.
fn lapsed(seller: &Status) -> Option<Finding> {
    let counts = Counts(seller);
    let (n, bids) = (counts.get("lapsed"), counts.get("bids"));
    (n > 0).then(|| {
        let seen = format!("{} lapsed: the buyer left, or its news did not arrive", part(n, bids, "bid"));
        let unreachable = counts.jobs() == 0 && bids >= MIN_BIDS && n * 100 >= bids * MANY_LAPSED_PERCENT;
        if unreachable {
            let means = "no bid ever became a job: buyers may not reach the chat port, UDP 46337, from outside";
            Finding::new("unreachable", seen, means).about(n).change("chat_advertise = [\"PUBLIC.IP:46337\"]")
        } else {
            Finding::new("lapsed", seen, "a few of these are usual").about(n)
        }
    })
}

fn superseded(seller: &Status) -> Option<Finding> {
    let counts = Counts(seller);
    let n = counts.get("superseded");
    (n > 0).then(|| {
        let seen = format!("{} taken back: the buyer made a newer offer first", part(n, counts.get("bids"), "bid"));
        Finding::new("superseded", seen, "the buyer's doing; nothing to change").about(n)
    })
}

/// Streams that came with an accept that was not good.
fn claims(seller: &Status) -> Option<Finding> {
    let refused = Counts(seller).below("claim_refused");
    let (chief, most) = *refused.first()?;
    let n: u64 = refused.iter().map(|(_, n)| n).sum();
    let seen = format!("{} refused at the door, most as {chief} ({most})", counted(n, "job"));
    let means = match chief {
        "lapsed" | "expired" | "no_hold" => {
            "their buyers came after the slot's time was over: slow ways, or clocks that differ"
        }
        "no_slot" | "stranger_pool_full" => "no slot was free for a job at your advertised price",
        "no_credit" => "their buyers may not owe you as much as the job may cost",
        "before_start" => "they were made before this node started, as after every restart",
        _ => "their accepts were not good, or repeated; nothing was lost",
    };
    let finding = Finding::new("claim_refused", seen, means).about(n);
    Some(match chief {
        "no_slot" | "stranger_pool_full" => finding.change(more_slots(seller)),
        "no_credit" => finding.change(CREDIT),
        "lapsed" | "expired" | "no_hold" => finding.change("timedatectl set-ntp true"),
        _ => finding,
    })
}

fn unsigned(evidence: &Evidence<'_>) -> Option<Finding> {
    let (signed, unsigned) = evidence.signed;
    (unsigned > 0).then(|| {
        let seen = format!("{} ended without the buyer's signature", part(unsigned, signed + unsigned, "job"));
        Finding::new("unacknowledged", seen, "the buyer vanished or would not sign; `infernet earnings` shows these apart")
            .about(unsigned)
    })
}

/// Offers that were refused, by reason, but for those about the price.
fn refusals(seller: &Status) -> Vec<Finding> {
    let counts = Counts(seller);
    let finding = |(reason, n): (&str, u64)| {
        let (how, means, change) = refusal(reason, seller)?;
        let seen = format!("{} {how}", part(n, counts.answered(), "offer"));
        let finding = Finding::new(reason, seen, means).about(n);
        Some(match change {
            Some(line) => finding.change(line),
            None => finding,
        })
    };
    counts.below("no_bid").into_iter().filter_map(finding).collect()
}

/// How the offers came to be refused, what that means, and what to change. `None` if another finding tells.
fn refusal(reason: &str, seller: &Status) -> Option<(&'static str, &'static str, Option<String>)> {
    let told = |how, means| Some((how, means, None));
    let change = |how, means, line: &str| Some((how, means, Some(line.to_owned())));
    match reason {
        "ceiling_too_low" => None,
        "no_slot" => Some((
            "found every slot busy or held",
            "more came at once than you take; let the engine run as many (OLLAMA_NUM_PARALLEL)",
            Some(more_slots(seller)),
        )),
        "stranger_pool_full" => Some((
            "came from new buyers while their half of the free slots was held",
            "buyers without a settled job share half of the free slots; more slots make more room",
            Some(more_slots(seller)),
        )),
        "context_too_long" => change(
            "were too long for your context",
            "the engine keeps fewer tokens than they need",
            "OLLAMA_CONTEXT_LENGTH=32768 ollama serve",
        ),
        "no_credit" => change(
            "came from buyers who may not owe you as much as the job may cost",
            "jobs are paid as they stream, and nobody may owe anything until you say so: give all buyers a little credit, or one by its id",
            CREDIT,
        ),
        "missing_ability" => change(
            "needed what your models can't do",
            "they want tools, images, a JSON schema, log probabilities or embeddings; qwen3 calls tools, for example",
            "infernet model pull qwen3",
        ),
        "budget_too_low" => change(
            "had a smaller budget than your price makes of their longest answer",
            "a lower price fits more budgets; see what others ask",
            "infernet models",
        ),
        "deadline_too_close" => {
            told("wanted to be done sooner than your measured speed allows", "a faster model or machine would serve them")
        }
        "rate_limited" => told("came from buyers above five offers a second", "they are too fast, not you; nothing to change"),
        "store_full" => told("came while the disk was full", "no job is taken whose receipt could be lost"),
        "off_schedule" => told("came outside your schedule", "the schedule says when you sell; more hours catch more offers"),
        "too_hot" => told("came while a GPU was too hot", "better cooling, or a higher max_celsius, catches them"),
        "too_much_power" => told("came while the GPUs drew too much", "a higher max_watts, or fewer slots, catches them"),
        "busy_host" => told("came while somebody else used the machine", "only_idle and idle_percent say when that is"),
        "no_engine" => told("came while no engine had a model", "the engine was down or still starting"),
        "draining" => told("came while the node took no new jobs", "it was stopping, or an operator said so"),
        "unknown_model" => {
            told("asked for a model that you advertised and have no more", "it was removed; the ad is renewed at once")
        }
        _ => told("were refused for another reason", "see `infernet status --json`"),
    }
}

fn more_slots(seller: &Status) -> String {
    format!("slots = {}", seller.slots.saturating_mul(2).max(2))
}

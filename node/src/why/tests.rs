//! What a worker's counts say to its operator.

use super::*;
use crate::seller::{Asking, ClosedReport, Outcome};
use infernet_wire::{
    id::Hash,
    money::{MicroUsd, Price},
};
use std::sync::LazyLock;

fn price(input: u64, output: u64) -> Price {
    Price { input: MicroUsd(input), output: MicroUsd(output) }
}

/// A worker of two slots that has counted `counters`.
fn seller(counters: &[(&str, u64)]) -> Status {
    Status {
        running: 0,
        settling: 0,
        held: 0,
        slots: 2,
        models: vec!["tiny".into()],
        prices: Vec::new(),
        closed: None,
        counters: counters.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
        recent: Vec::new(),
        wanted: Default::default(),
        wanted_by: Default::default(),
        draining: false,
    }
}

fn engine(error: Option<&str>) -> EngineReport {
    let (running, waiting) = (None, None);
    EngineReport {
        engine: "ollama at http://localhost:11434".into(),
        models: 1,
        running,
        waiting,
        error: error.map(str::to_owned),
    }
}

/// Every model at ten cents in and forty out.
fn usual() -> &'static Pricing {
    static USUAL: LazyLock<Pricing> = LazyLock::new(|| Pricing::flat(price(100_000, 400_000)));
    &USUAL
}

/// An hour of a node with five peers and nothing to complain of.
fn evidence<'a>(seller: &'a Status, engines: &'a [EngineReport]) -> Evidence<'a> {
    Evidence {
        seller: Some(seller),
        pricing: usual(),
        engines,
        unserved: &[],
        peers: 5,
        uptime_ms: 3_600_000,
        now: 1_000_000,
        store: None,
        rivals: &[],
        clocks: (0, 1_000),
        signed: (0, 0),
    }
}

/// The first finding on `evidence` is `code`, says every one of `parts`, and changes `change`.
fn check(evidence: &Evidence<'_>, code: &str, parts: &[&str], change: Option<&str>) {
    let report = why(evidence);
    let first = report.findings.first().expect("a finding");
    let said = format!("{}: {}", first.seen, first.means);
    assert_eq!((first.code.as_str(), first.change.as_deref()), (code, change), "{report:?}");
    parts.iter().for_each(|part| assert!(said.contains(part), "{part:?} in {said:?}"));
}

fn counted_as(counters: &[(&str, u64)], code: &str, parts: &[&str], change: Option<&str>) {
    check(&evidence(&seller(counters), &[engine(None)]), code, parts, change);
}

fn outcome(reason: &str, ceiling: Price, winner: Option<Price>) -> Outcome {
    let asking = |price: Price| Asking { price_in: price.input.0, price_out: price.output.0, score: None };
    Outcome {
        at: 0,
        offer: Hash([0; 32]),
        model: "tiny".into(),
        reason: reason.into(),
        bid: winner.is_some(),
        ceiling: asking(ceiling),
        ours: winner.map(|_| asking(price(100_000, 400_000))),
        winner: winner.map(asking),
    }
}

#[test]
fn a_dear_worker_is_told_the_price_that_wins() {
    let winners = [price(100_000, 300_000), price(100_000, 200_000), price(100_000, 250_000)];
    let recent = winners.map(|winner| outcome("dearer", price(1, 1), Some(winner))).to_vec();
    let seller = Status { recent, ..seller(&[("offers", 6), ("bids", 6), ("lost", 5), ("lost.dearer", 5), ("claims", 1)]) };
    let parts = ["5 of 6 bids (83 %)", "cheaper worker", "$0.250000 out", "you $0.100000 in and $0.400000 out"];
    check(&evidence(&seller, &[]), "dearer", &parts, Some("price_out = 247500"));
}

#[test]
fn each_model_is_compared_at_its_own_price_and_changed_alone() {
    let lost = |model: &str, winner| Outcome { model: model.into(), ..outcome("dearer", price(1, 1), Some(winner)) };
    let big = price(500_000, 800_000);
    let recent = vec![lost("tiny", price(1, 1)), lost("big:70b", big), lost("big:70b", big)];
    let models = vec!["big:70b".to_owned(), "tiny:latest".to_owned()];
    let of_two = Status { models, recent, ..seller(&[("bids", 3), ("lost.dearer", 3)]) };
    // The price for all is below the winners', that of the model is not.
    let own = Pricing { models: [("big:70b".to_owned(), price(600_000, 900_000))].into(), ..usual().clone() };
    let parts = ["for big:70b winners ask $0.500000 in", "you $0.600000 in and $0.900000 out"];
    let change = "[prices.\"big:70b\"]\nin = 495000\nout = 792000";
    check(&Evidence { pricing: &own, ..evidence(&of_two, &[]) }, "dearer", &parts, Some(change));
    let floor = Pricing { floor: price(0, 850_000), ..own };
    let change = format!("price_floor_out = 792000\n{change}");
    check(&Evidence { pricing: &floor, ..evidence(&of_two, &[]) }, "dearer", &parts, Some(&change));
    // One of several that has no price of its own gets one: the others stay as they are.
    let of_two = Status { recent: vec![lost("tiny", price(100_000, 200_000))], ..of_two };
    let change = "[prices.\"tiny:latest\"]\nout = 198000";
    check(&evidence(&of_two, &[]), "dearer", &["for tiny winners ask"], Some(change));
}

#[test]
fn at_equal_prices_each_part_is_undercut() {
    let recent = vec![outcome("dearer", price(1, 1), Some(price(100_000, 400_000)))];
    let seller = Status { recent, ..seller(&[("offers", 1), ("bids", 1), ("lost.dearer", 1)]) };
    check(&evidence(&seller, &[]), "dearer", &["1 of 1 bid (100 %)"], Some("price_in = 99000\nprice_out = 396000"));
}

#[test]
fn buyers_who_pay_less_are_told_apart_from_rivals() {
    let recent = vec![outcome("ceiling_too_low", price(100_000, 300_000), None)];
    let seller = Status { recent, ..seller(&[("offers", 4), ("bids", 3), ("no_bid.ceiling_too_low", 1), ("claims", 3)]) };
    check(&evidence(&seller, &[]), "ceiling_too_low", &["1 of 4 offers (25 %)", "$0.300000 out"], Some("price_out = 300000"));
}

#[test]
fn a_cheaper_ad_is_seen_before_any_auction_is_lost() {
    let rival = |id: &str, out| ModelReport { id: id.into(), workers: 1, price_in: 100_000, price_out: out, context: 0 };
    let rivals = [rival("other", 1), rival("tiny", 200_000)];
    let seller = seller(&[("offers", 1), ("bids", 1), ("claims", 1)]);
    let evidence = Evidence { rivals: &rivals, ..evidence(&seller, &[]) };
    check(&evidence, "rivals", &["tiny is advertised from", "$0.200000 out"], Some("price_out = 198000"));
}

/// `seller`, asked for models that it does not serve: their names, by how many offers and buyers.
fn wanting(seller: Status, models: &[(&str, u64, u64)]) -> Status {
    let wanted = models.iter().map(|(model, offers, _)| ((*model).to_owned(), *offers)).collect();
    let wanted_by = models.iter().map(|(model, _, buyers)| ((*model).to_owned(), *buyers)).collect();
    Status { wanted, wanted_by, ..seller }
}

#[test]
fn demand_for_other_models_names_the_most_wanted() {
    let models = [("llama3.2", 7, 3), ("qwen3", 2, 2), ("$(rm -rf ~)", 90, 1)];
    let seller = wanting(seller(&[("offers", 10), ("ignored.other_model", 10)]), &models);
    let evidence = evidence(&seller, &[]);
    let parts = ["10 of 10 offers (100 %)", "llama3.2 (7 offers of 3 buyers)"];
    check(&evidence, "other_model", &parts, Some("infernet model pull llama3.2"));
    let wanted = why(&evidence).wanted;
    let told = wanted.iter().map(|w| (w.model.as_str(), w.offers, w.buyers)).collect::<Vec<_>>();
    assert_eq!(told, [models[0], models[1], models[2]]);
}

#[test]
fn what_one_stranger_asks_for_again_and_again_is_no_reason_to_fetch_it() {
    let seller = wanting(seller(&[("offers", 900), ("ignored.other_model", 900)]), &[("evil", 900, 1), ("other", 1, 1)]);
    check(&evidence(&seller, &[]), "other_model", &["one buyer is no demand", "evil (900 offers of 1 buyer)"], None);
    let empty = [EngineReport { models: 0, ..engine(None) }];
    let without = Status { models: Vec::new(), ..seller };
    check(&evidence(&without, &empty), "no_model", &["no model"], Some("infernet model pull llama3.2"));
}

#[test]
fn nothing_that_a_buyer_wrote_becomes_a_command() {
    for model in ["$(rm -rf ~)", "a b", "-x", "a;b", "a`b`", "a\nb"] {
        assert_eq!(pull(model), None, "{model:?}");
    }
    assert_eq!(
        pull("hf.co/bartowski/Qwen_3-GGUF:Q4_K_M").as_deref(),
        Some("infernet model pull hf.co/bartowski/Qwen_3-GGUF:Q4_K_M")
    );
    assert_eq!(plain("a\u{1b}[2Jb"), "a?[2Jb");
}

#[test]
fn busy_slots_and_strangers_want_more_slots() {
    let counters = [("offers", 5), ("bids", 3), ("claims", 3), ("no_bid.no_slot", 2)];
    counted_as(&counters, "no_slot", &["2 of 5 offers (40 %)", "OLLAMA_NUM_PARALLEL"], Some("slots = 4"));
    let counters = [("offers", 5), ("bids", 4), ("claims", 4), ("no_bid.stranger_pool_full", 1)];
    counted_as(&counters, "stranger_pool_full", &["1 of 5 offers (20 %)", "new buyers"], Some("slots = 4"));
}

#[test]
fn every_refusal_has_its_meaning() {
    for (reason, part, change) in [
        ("context_too_long", "context", Some("OLLAMA_CONTEXT_LENGTH=32768 ollama serve")),
        ("no_credit", "may not owe", Some("infernet credit set anybody 0.10")),
        ("missing_ability", "tools", Some("infernet model pull qwen3")),
        ("budget_too_low", "budget", Some("infernet models")),
        ("deadline_too_close", "speed", None),
        ("rate_limited", "five offers a second", None),
        ("store_full", "disk", None),
        ("no_engine", "engine", None),
        ("off_schedule", "schedule", None),
        ("too_hot", "max_celsius", None),
        ("too_much_power", "max_watts", None),
        ("busy_host", "only_idle", None),
        ("draining", "no new jobs", None),
        ("unknown_model", "advertised", None),
        ("other", "another reason", None),
    ] {
        let counters = [("offers", 2), ("bids", 1), ("claims", 1), (&*format!("no_bid.{reason}"), 1)];
        counted_as(&counters, reason, &["1 of 2 offers (50 %)", part], change);
    }
}

#[test]
fn what_blocks_comes_first() {
    let seller = seller(&[("offers", 5), ("bids", 1), ("no_bid.no_slot", 4)]);
    let down = [engine(Some("connection refused"))];
    check(&evidence(&seller, &down), "engine_down", &["1 of 1 engine", "connection refused"], Some("ollama serve"));
    let alone = Evidence { peers: 0, ..evidence(&seller, &down) };
    check(&alone, "no_peers", &["no peer"], Some("bootstrap = [\"/ip4/ADDRESS/tcp/46337/p2p/ID\"]"));
    let full = "the disk of /home/a is full: free some space";
    let full = Evidence { store: Some(full), ..evidence(&seller, &[]) };
    check(&full, "store", &["the disk of /home/a is full", "no new job is taken"], Some("free some space"));
    let draining = Status { draining: true, ..seller };
    assert_eq!(why(&evidence(&draining, &[])).findings.first().map(|f| f.code.as_str()), Some("draining"));
}

#[test]
fn a_policy_that_says_no_is_told_with_its_end() {
    let closed = |reason: &str, opens| Some(ClosedReport { reason: reason.into(), opens });
    let shut = Status { closed: closed("off_schedule", Some(1_000_000 + 90 * 60_000)), ..seller(&[]) };
    check(&evidence(&shut, &[]), "off_schedule", &["outside the schedule", "opens in 90 minutes"], Some("schedule = []"));
    let hot = Status { closed: closed("too_hot", None), ..seller(&[]) };
    check(&evidence(&hot, &[]), "too_hot", &["max_celsius", "by itself"], Some("max_celsius = 85"));
    assert!(why(&evidence(&hot, &[])).findings[0].blocks);
}

#[test]
fn an_engine_without_models_is_told_what_is_wanted() {
    let counted = seller(&[("offers", 3), ("ignored.other_model", 3)]);
    let seller = Status { models: Vec::new(), ..wanting(counted, &[("qwen3:4b", 3, 3)]) };
    let empty = [EngineReport { models: 0, ..engine(None) }];
    check(&evidence(&seller, &empty), "no_model", &["no model"], Some("infernet model pull qwen3:4b"));
    let parts = ["none of those", "nothing to sell"];
    check(&evidence(&seller, &[engine(None)]), "none_offered", &parts, Some("infernet model use --all"));
}

#[test]
fn silence_is_told_from_a_start() {
    let seller = seller(&[]);
    check(&evidence(&seller, &[]), "quiet", &["no offer", "5 peers", "60 minutes", "nobody on this network buys"], None);
    check(&Evidence { uptime_ms: 5_000, ..evidence(&seller, &[]) }, "quiet", &["in 5 seconds", "just started"], None);
}

#[test]
fn bids_that_all_lapse_mean_a_closed_port() {
    counted_as(
        &[("offers", 9), ("bids", 9), ("lapsed", 9)],
        "unreachable",
        &["9 of 9 bids", "46337"],
        Some("chat_advertise = [\"PUBLIC.IP:46337\"]"),
    );
    counted_as(&[("offers", 9), ("bids", 9), ("lapsed", 9), ("claims", 1)], "lapsed", &["usual"], None);
    counted_as(
        &[("offers", 2), ("bids", 2), ("superseded", 1), ("claims", 1)],
        "superseded",
        &["1 of 2 bids", "newer offer"],
        None,
    );
}

#[test]
fn lost_to_the_faster_and_the_better_known() {
    counted_as(
        &[("offers", 4), ("bids", 4), ("lost.slower", 3), ("claims", 1)],
        "slower",
        &["3 of 4 bids (75 %)", "faster"],
        Some("slots = 1"),
    );
    counted_as(
        &[("offers", 4), ("bids", 4), ("lost.outranked", 3), ("claims", 1)],
        "outranked",
        &["no worse", "record"],
        Some("infernet logs | grep -i failed"),
    );
}

#[test]
fn doors_closed_on_accepts_and_receipts_without_a_signature() {
    let counters = [("offers", 4), ("bids", 4), ("claims", 2), ("claim_refused.lapsed", 2)];
    counted_as(&counters, "claim_refused", &["2 jobs refused", "lapsed (2)", "clocks"], Some("timedatectl set-ntp true"));
    let seller = seller(&[("offers", 4), ("bids", 4), ("claims", 4)]);
    let evidence = Evidence { signed: (3, 1), ..evidence(&seller, &[]) };
    check(&evidence, "unacknowledged", &["1 of 4 jobs (25 %)", "without the buyer's signature"], None);
}

#[test]
fn a_wrong_clock_is_a_warning() {
    let seller = seller(&[("offers", 1), ("bids", 1), ("claims", 1)]);
    let off = Evidence { clocks: (30, 100), ..evidence(&seller, &[]) };
    check(&off, "clock", &["30 of 100 messages (30 %)"], Some("timedatectl set-ntp true"));
    assert_eq!(warnings(&Evidence { clocks: (3, 4), ..off }), [], "a few tell nothing");
    assert_eq!(warnings(&Evidence { seller: None, peers: 0, ..off }).first().map(|w| w.code.as_str()), Some("no_peers"));
}

#[test]
fn a_worker_that_earns_is_told_so() {
    let seller = seller(&[("offers", 3), ("bids", 3), ("claims", 3), ("standing", 2)]);
    let report = why(&evidence(&seller, &[engine(None)]));
    assert_eq!(
        (report.summary.as_str(), report.jobs, report.findings),
        ("earns: 5 jobs so far, 3 offers heard", 5, Vec::new())
    );
    let buys = why(&Evidence { seller: None, ..evidence(&seller, &[]) });
    assert!(buys.findings[0].blocks && buys.summary.contains("only buys"));
}

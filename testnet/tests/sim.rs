//! The simulator: one seed has one history, everything holds in many of them, and every check is able to fail.

use infernet_testnet::sim::{
    self, adversary,
    coverage::Coverage,
    plant::Plant,
    scenario::{ATTACKS, Scenario},
};
use std::{env, fs, path::Path};

/// Seeds that every test run looks at; CI runs a thousand (`infernet-testnet sim --scenario faults --seeds 1..1000`).
const SEEDS: u64 = 60;

fn load(name: &str) -> Scenario {
    Scenario::load(name).expect("it is built in")
}

#[test]
fn a_seed_has_one_history_whoever_looks() {
    for name in ["honest", "faults"] {
        let (first, again) = (sim::run(&load(name), name, 7, false), sim::run(&load(name), name, 7, true));
        assert_eq!((&first.digest, first.lines), (&again.digest, again.lines), "{name}");
        assert_eq!(again.trace.len() as u64, again.lines);
        assert_ne!(first.digest, sim::run(&load(name), name, 8, false).digest, "{name}");
    }
}

/// The histories of some seeds, so that a machine, a compiler or a build profile that sees another one says so. A change of any
/// decider changes them: `INFERNET_BLESS=1` writes them anew.
#[test]
fn every_machine_sees_the_same_history() {
    let told: String = ["honest", "faults", "replay", "bid-spam"]
        .into_iter()
        .map(|name| format!("{name} 7 {}\n", sim::run(&load(name), name, 7, false).digest))
        .collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sim-digests.txt");
    if env::var_os("INFERNET_BLESS").is_some() {
        fs::write(&path, &told).expect("the fixture can be written");
    }
    let known = fs::read_to_string(&path).expect("the fixture is there");
    assert_eq!(told, known, "if a decider was meant to change, run this test with INFERNET_BLESS=1");
}

#[test]
fn whatever_goes_wrong_everything_holds() {
    let mut runs = 0;
    let coverage = sim::run_many(&load("faults"), "faults", 1..=SEEDS, |outcome| {
        assert!(outcome.is_well(), "{outcome}");
        let (nodes, jobs, faults) = (outcome.nodes, outcome.jobs, outcome.faults);
        assert!(
            nodes >= 20 && jobs >= 50 && faults >= 10,
            "seed {}: {nodes} nodes, {jobs} jobs, {faults} faults",
            outcome.seed
        );
        runs += 1;
    });
    assert_eq!(runs, SEEDS);
    // A table that is empty would hold, too. The last state is the shortest; a thousand seeds fill its column.
    let gaps = coverage.gaps();
    assert!(gaps.len() < Coverage::default().gaps().len() / 2, "{coverage}");
}

#[test]
fn every_check_finds_its_planted_bug() {
    for plant in Plant::ALL {
        let scenario = Scenario { plant: Some(plant), ..load("faults") };
        let found = (1..=1_000).find(|seed| {
            let outcome = sim::run(&scenario, "faults", *seed, false);
            outcome.violations.iter().any(|violation| violation.invariant == plant.found_by())
        });
        assert!(found.is_some(), "no seed of a thousand finds {plant} by {}", plant.found_by());
    }
}

#[test]
fn a_failing_seed_says_how_to_see_it_again() {
    let scenario = Scenario { plant: Some(Plant::CountsTwice), ..load("faults") };
    let outcome = sim::run(&scenario, "faults", 3, true);
    let text = outcome.to_string();
    assert!(!outcome.is_well() && text.contains("sim --scenario faults --seed 3 --plant counts-twice --trace"), "{text}");
    assert!(outcome.trace.iter().any(|line| line.contains("buyer") && line.contains("answered")));
}

fn check(name: &str) {
    let harm = adversary::measure(&load(name), name, 2).expect("it has an attack");
    assert!(harm.is_well(), "{harm}");
}

macro_rules! attacks {
    ($($test:ident: $name:literal),* $(,)?) => {
        $(#[test] fn $test() { check($name); })*

        #[test]
        fn every_attack_has_its_test() {
            let tested = [$($name),*];
            let missing: Vec<_> = ATTACKS.iter().copied().filter(|name| !tested.contains(name)).collect();
            assert!(missing.is_empty(), "{missing:?}");
        }
    };
}

attacks! {
    a_swarm_of_ads_does_not_hide_the_honest: "sybil-ads",
    ten_thousand_offers_a_second_keep_nobody_waiting: "offer-spam",
    a_hundred_bids_for_nothing_win_nothing: "bid-spam",
    strangers_leave_half_of_the_slots: "hold-exhaustion",
    snipers_break_nothing: "sniping",
    an_accept_is_good_once: "double-accept",
    what_is_said_again_has_no_effect: "replay",
    nobody_charges_beyond_the_budget: "inflated-usage",
    who_signs_nothing_stays_a_stranger: "deadbeat-buyer",
    a_boast_wins_once: "lying",
    the_silent_are_not_waited_for: "silent-worker",
    a_surrounded_buyer_is_still_heard: "eclipse",
}

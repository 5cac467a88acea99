//! A short flood: worker and buyer come through it. `infernet-testnet flood` is the long one.

use infernet_testnet::flood::{self, FloodOptions};
use std::{path::Path, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_leaves_memory_flat_and_honest_jobs_unharmed() {
    let options = FloodOptions {
        attack: Duration::from_secs(20),
        seed: 7,
        // What two cores carry in a debug build beside the attackers themselves.
        gossip_per_second: 160,
        dials_per_second: 5,
        binary: Path::new(env!("CARGO_BIN_EXE_infernet-testnet")).to_owned(),
    };
    let result = flood::run(options, &mut std::io::sink()).await.expect("it runs");
    assert!(result.is_well(), "{result}");
    for attack in ["sly gossip said", "crude gossip said", "bogus bids", "half-open streams", "half-open TCP connections"] {
        assert!(result.attacks.get(attack).is_some_and(|n| *n > 10), "{attack}: {result}");
    }
    // Which quota is met first, and where, depends on how fast the attackers get to run.
    let mut counters = result.worker_counters.keys().chain(result.buyer_counters.keys());
    assert!(counters.any(|name| name == "gossip.author_quota"), "{result}");
}

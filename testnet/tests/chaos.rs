//! A short chaos: every job ends, the books balance. `infernet-testnet chaos` is the long one.

use infernet_testnet::chaos::{self, ChaosOptions, Fault};
use std::{path::Path, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn books_balance_after_kills_cuts_freezes_and_full_disks() {
    let options = ChaosOptions {
        time: Duration::from_secs(20),
        kills: 8,
        workers: 3,
        buyers: 2,
        seed: 5,
        binary: Path::new(env!("CARGO_BIN_EXE_infernet-testnet")).to_owned(),
    };
    let result = chaos::run(options, &mut std::io::sink()).await.expect("it runs");
    assert!(result.is_well(), "{result}");
    assert!(result.jobs.answered > 20 && result.balance.settled > 20, "{result}");
    assert_eq!(result.faults.get(&Fault::Kill), Some(&8));
}

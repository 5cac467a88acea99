//! A short audit: every micro-USD is accounted for. `infernet-testnet audit` is the long one.

use infernet_testnet::audit::{self, AuditOptions};
use std::{path::Path, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn every_micro_usd_is_accounted_for_while_processes_are_killed() {
    let options = AuditOptions {
        jobs: 40,
        time: Duration::from_secs(20),
        seed: 3,
        kills: 3,
        binary: Path::new(env!("CARGO_BIN_EXE_infernet-testnet")).to_owned(),
    };
    let result = audit::run(options, &mut std::io::sink()).await.expect("it runs");
    assert!(result.is_well(), "{result}");
    assert!(result.web.answered > 3 && result.mesh.answered > 10, "{result}");
}

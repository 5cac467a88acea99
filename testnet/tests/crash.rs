//! One life of channels, whose process is killed at every write of money. `infernet-testnet crash` is the long one.

use infernet_testnet::{
    crash::{self, CrashOptions},
    evm,
};
use std::path::Path;

/// Eight steps with five points each, and a voucher.
const KILLS: u64 = 41;

#[tokio::test(flavor = "multi_thread")]
async fn money_is_paid_once_whatever_write_its_process_is_killed_at() {
    if !evm::can_start("nobody was killed amid a payment") {
        return;
    }
    let options = CrashOptions { lives: 1, binary: Path::new(env!("CARGO_BIN_EXE_infernet-testnet")).to_owned() };
    let result = crash::run(options, &mut std::io::sink()).await.expect("it runs");
    assert!(result.is_well(), "{result}");
    assert_eq!((result.kills + result.passed, result.points.len() as u64), (KILLS, result.kills), "{:?}", result.points);
    assert!(result.passed < 4, "{result}");
    assert!(result.transactions >= 10, "{result}");
}

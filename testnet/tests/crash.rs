//! Lives of channels and tranches, whose processes are killed at every write of money. `infernet-testnet crash` is the long one.

use infernet_testnet::{
    crash::{self, CrashOptions},
    demo::Settle,
    evm,
};
use std::path::{Path, PathBuf};

fn binary() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_infernet-testnet")).to_owned()
}

/// Eight steps with five points each, and a voucher.
const KILLS: u64 = 41;

#[tokio::test(flavor = "multi_thread")]
async fn money_is_paid_once_whatever_write_its_process_is_killed_at() {
    if !evm::can_start("nobody was killed amid a payment") {
        return;
    }
    let options = CrashOptions { lives: 1, settle: Settle::Evm, binary: binary() };
    let result = crash::run(options, &mut std::io::sink()).await.expect("it runs");
    assert!(result.is_well(), "{result}");
    assert_eq!((result.kills + result.passed, result.points.len() as u64), (KILLS, result.kills), "{:?}", result.points);
    assert!(result.passed < 4, "{result}");
    assert!(result.transactions >= 10, "{result}");
}

/// Three payments with five points each, and for each of two tranches that it counts and that it is taken; three lives.
const PREPAID_KILLS: u64 = 3 * 19;

#[tokio::test(flavor = "multi_thread")]
async fn tranches_are_paid_and_counted_once_whatever_write_their_process_is_killed_at() {
    let options = CrashOptions { lives: 3, settle: Settle::Solana, binary: binary() };
    let result = crash::run(options, &mut std::io::sink()).await.expect("it runs");
    assert!(result.is_well(), "{result}");
    assert_eq!(result.kills + result.passed, PREPAID_KILLS, "{:?}", result.points);
    assert!(result.passed < 12 && result.transactions == 9, "{result}");
}

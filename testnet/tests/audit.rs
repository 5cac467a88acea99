//! Short audits: every micro-USD is accounted for. `infernet-testnet audit` is the long one.

use infernet_testnet::{
    audit::{self, AuditOptions, AuditResult, Settle},
    evm,
};
use std::{path::Path, time::Duration};

async fn audited(settle: Option<Settle>) -> AuditResult {
    let options = AuditOptions {
        jobs: 40,
        time: Duration::from_secs(20),
        seed: 3,
        kills: 3,
        settle,
        binary: Path::new(env!("CARGO_BIN_EXE_infernet-testnet")).to_owned(),
    };
    let result = audit::run(options, &mut std::io::sink()).await.expect("it runs");
    assert!(result.is_well(), "{result}");
    assert!(result.web.answered > 3 && result.mesh.answered > 10, "{result}");
    let debits: u64 = result.audit.pairs.iter().map(|pair| pair.debits).sum();
    assert_eq!(result.audit.volume, debits, "{result}");
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn every_micro_usd_is_accounted_for_while_processes_are_killed() {
    audited(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_pays_every_voucher_once_while_processes_are_killed_amid_jobs_and_payments() {
    if !evm::can_start("no voucher was paid on a chain") {
        return;
    }
    let result = audited(Some(Settle::Evm)).await;
    assert!(result.steps_met > 0, "{result}");
    let (mesh, credit): (Vec<_>, Vec<_>) = result.audit.pairs.iter().partition(|pair| pair.chain.is_some());
    let on_chain: Vec<_> = mesh.iter().filter_map(|pair| pair.chain).collect();
    assert!(on_chain.len() > 2 && on_chain.iter().map(|on| on.paid).sum::<u64>() > 0, "{result}");
    assert!(on_chain.iter().any(|on| on.returned > 0) && on_chain.iter().any(|on| on.left > 0), "{result}");
    assert!(credit.iter().all(|pair| pair.buyer == "Buyer(2)"), "only the plane buys on credit: {result}");
    assert!(result.audit.accounts.iter().all(|account| account.given == 6_000_000), "{result}");
}

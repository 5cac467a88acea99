//! Tranches on Solana: what was prepaid covers jobs, and the desk buys and counts it.

use super::{Balance, Holdings, REPORT, Rail};
use crate::settlement::{
    solana::{tranches::Tranches, wallet::SolanaError},
    tabs::Tabs,
};
use futures::{FutureExt, future::BoxFuture};
use infernet_wire::{
    capability::CapabilityAd,
    envelope::Verified,
    id::NodeId,
    money::MicroUsd,
    solana::{BadSolanaText, worth},
};
use tokio::time::timeout;

pub(super) struct Solana(pub(super) Tabs);

/// What the wallet that pays has; why not, if the cluster's nodes do not say.
async fn balances(tranches: &Tranches) -> Result<Vec<Balance>, String> {
    let (wallet, means) = (tranches.wallet(), tranches.means());
    let asked = async { Ok((wallet.lamports().await?, wallet.tokens(&means.mint).await?)) };
    let told = timeout(REPORT, asked).await.map_err(|_| "the cluster's nodes take too long".to_owned())?;
    let (lamports, tokens) = told.map_err(|error: SolanaError| error.to_string())?;
    let sol = Balance { asset: "SOL".into(), units: lamports.into(), worth: None };
    let worth = Some(worth(tokens, means.decimals));
    Ok(vec![sol, Balance { asset: means.mint.to_string(), units: tokens.into(), worth }])
}

impl Rail for Solana {
    fn name(&self) -> &'static str {
        "solana"
    }

    fn advertise(&self, ad: &mut CapabilityAd) {
        ad.solana = self.0.solana().terms();
    }

    fn heard(&self, ad: &Verified<CapabilityAd>) {
        self.0.solana().heard(ad.signer(), ad.solana);
    }

    /// Its next job may come with a tranche, which nobody has seen yet: whether it does shows when the job is opened. What was counted
    /// is on the ledger.
    fn covers(&self, _buyer: &NodeId) -> MicroUsd {
        self.0.solana().terms().map_or(MicroUsd(0), |terms| terms.tranche)
    }

    fn holdings(&self) -> BoxFuture<'_, Option<Holdings>> {
        async {
            let desk = self.0.solana();
            let tranches = desk.tranches().ok()?;
            let (balances, trouble) = match balances(tranches).await {
                Ok(balances) => (balances, None),
                Err(why) => (Vec::new(), Some(why)),
            };
            let ours = tranches.wallet().address();
            let payout_to = desk.terms().map(|terms| terms.address).filter(|to| *to != ours).map(|to| to.to_string());
            Some(Holdings { address: ours.to_string(), trouble, payout_to, balances })
        }
        .boxed()
    }

    fn pay_to(&self, address: &str) -> Result<(), String> {
        let to = address.parse().map_err(|error: BadSolanaText| error.to_string())?;
        if self.0.solana().pay_to(to) { Ok(()) } else { Err("this node sells nothing on Solana".into()) }
    }
}

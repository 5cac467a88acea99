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
    solana::{BadSolanaText, Coin},
};
use tokio::time::timeout;

pub(super) struct Solana(pub(super) Tabs);

/// What the wallet that pays has; why not, if the cluster's nodes do not say.
async fn balances(tranches: &Tranches) -> Result<Vec<Balance>, String> {
    let wallet = tranches.wallet();
    let (coin, sol) = (tranches.means().coin, "SOL".to_owned());
    let what = |asset, units: u64, worth| Balance { asset, units: units.into(), worth };
    let asked = async {
        let lamports = wallet.lamports().await?;
        let Coin::Token { mint, .. } = coin else { return Ok(vec![what(sol, lamports, Some(coin.worth(lamports)))]) };
        let tokens = wallet.tokens(&mint).await?;
        Ok(vec![what(sol, lamports, None), what(mint.to_string(), tokens, Some(coin.worth(tokens)))])
    };
    let told = timeout(REPORT, asked).await.map_err(|_| "the cluster's nodes take too long".to_owned())?;
    told.map_err(|error: SolanaError| error.to_string())
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
        if self.0.solana().pay_to(to) {
            Ok(())
        } else {
            Err("this node sells nothing on Solana: write solana_rpc into config.toml, let it serve a model, and start it again".into())
        }
    }
}

//! Tranches on Solana: what was prepaid covers jobs, and the desk buys and counts it.

use super::Rail;
use crate::settlement::tabs::Tabs;
use infernet_wire::{capability::CapabilityAd, envelope::Verified, id::NodeId, money::MicroUsd};

pub(super) struct Solana(pub(super) Tabs);

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
}

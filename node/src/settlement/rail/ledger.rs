//! The ledger: buyers owe, as far as the operator lets them, and pay outside.

use super::Rail;
use crate::settlement::tabs::Tabs;
use infernet_wire::{capability::CapabilityAd, id::NodeId, money::MicroUsd};

pub(super) struct Ledger(pub(super) Tabs);

impl Rail for Ledger {
    fn name(&self) -> &'static str {
        "ledger"
    }

    // It is there for everybody, and whom it trusts is nobody else's business.
    fn advertise(&self, _ad: &mut CapabilityAd) {}

    fn covers(&self, buyer: &NodeId) -> MicroUsd {
        self.0.credit_left(buyer)
    }
}

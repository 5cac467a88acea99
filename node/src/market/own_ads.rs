//! The worker's own ads, as long as a buyer may take them at their word.
//!
//! An ad is a standing bid until it expires, also after a newer one with other prices: whoever read it in time pays what it
//! says. Ads of an earlier run of this node are not known here, so no accept of one is honoured.

use infernet_wire::{
    capability::{CapabilityAd, ModelAd},
    envelope::Verified,
    id::Hash,
    limits::CLOCK_SKEW_MS,
    time::UnixMillis,
};
use std::collections::VecDeque;

/// Ads kept: an ad lives 90 s and the skew at both ends, and there is one in 10 s at most, and now and then one more that takes
/// something back.
const MAX_OWN_ADS: usize = 14;

/// Live ads of this worker, the newest last.
#[derive(Debug, Clone, Default)]
pub struct OwnAds {
    ads: VecDeque<Verified<CapabilityAd>>,
}

impl OwnAds {
    /// Keeps an ad that was just made.
    pub fn keep(&mut self, ad: Verified<CapabilityAd>, now: UnixMillis) {
        self.ads.retain(|kept| is_live(kept, now) && kept.digest() != ad.digest());
        if self.ads.len() >= MAX_OWN_ADS {
            self.ads.pop_front();
        }
        self.ads.push_back(ad);
    }

    /// What the live ad with digest `ad` says of `model`.
    pub fn model(&self, ad: &Hash, model: &str, now: UnixMillis) -> Option<&ModelAd> {
        let live = self.ads.iter().find(|kept| kept.digest() == *ad && is_live(kept, now))?;
        live.models.iter().find(|offered| offered.id == model)
    }

    /// Whether the ad with digest `ad` is live.
    pub fn has(&self, ad: &Hash, now: UnixMillis) -> bool {
        self.ads.iter().any(|kept| kept.digest() == *ad && is_live(kept, now))
    }
}

/// The buyer's clock may be behind ours.
fn is_live(ad: &CapabilityAd, now: UnixMillis) -> bool {
    ad.expires.after(CLOCK_SKEW_MS) >= now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{T0, ad, at};
    use infernet_wire::limits::AD_TTL_MS;

    #[test]
    fn an_older_ad_binds_until_it_expires() {
        let mut ads = OwnAds::default();
        let (old, new) = (ad(1, 1, 100, T0), ad(1, 2, 900, at(30_000)));
        ads.keep(old.clone(), T0);
        ads.keep(new.clone(), at(30_000));
        let price = |digest, ms| ads.model(&digest, "tiny", at(ms)).map(|model| model.price.output.0);
        let end = AD_TTL_MS + CLOCK_SKEW_MS;
        assert_eq!((price(old.digest(), 30_000), price(new.digest(), 30_000)), (Some(100), Some(900)));
        assert_eq!((price(old.digest(), end), price(old.digest(), end + 1)), (Some(100), None));
        assert_eq!(ads.model(&new.digest(), "other", at(30_000)), None);
    }

    #[test]
    fn only_the_last_ones_are_kept() {
        let mut ads = OwnAds::default();
        let first = ad(1, 1, 1, T0);
        ads.keep(first.clone(), T0);
        (2..100).for_each(|sequence| ads.keep(ad(1, sequence, 1, T0), T0));
        assert_eq!((ads.ads.len(), ads.has(&first.digest(), T0)), (MAX_OWN_ADS, false));
    }
}

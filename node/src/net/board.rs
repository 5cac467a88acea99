//! The newest live ad of each worker, as bytes, for neighbours that have just come. Pure.

use infernet_wire::{ad_page::AdPage, capability::CapabilityAd, envelope::Verified, id::NodeId, limits, time::UnixMillis};
use std::{collections::BTreeMap, sync::Arc};

/// Workers whose ads are kept, of 4 KiB at most each. In a larger network a newcomer hears of some now, and of the others when
/// they advertise again.
const MAX_ADS: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Board {
    ads: BTreeMap<NodeId, (UnixMillis, Arc<[u8]>)>,
}

impl Board {
    /// Takes an ad that is newer than all of its worker before. One that offers nothing only takes the earlier ones away.
    pub(super) fn take(&mut self, ad: &Verified<CapabilityAd>, now: UnixMillis) {
        if ad.models.is_empty() {
            self.ads.remove(&ad.signer());
            return;
        }
        if self.ads.len() >= MAX_ADS && !self.ads.contains_key(&ad.signer()) {
            self.ads.retain(|_, (expires, _)| *expires > now);
        }
        if self.ads.len() < MAX_ADS || self.ads.contains_key(&ad.signer()) {
            self.ads.insert(ad.signer(), (ad.expires, ad.raw().clone()));
        }
    }

    /// Those that live, as many as fit, from a place that `chance` picks on.
    pub(super) fn page(&self, chance: u64, now: UnixMillis) -> AdPage {
        let live = || self.ads.values().filter(|(expires, _)| *expires > now);
        let begin = usize::try_from(chance % live().count().max(1) as u64).unwrap_or_default();
        let all = live().count().min(limits::MAX_PAGE_ADS);
        AdPage::new(live().cycle().skip(begin).take(all).map(|(_, raw)| &**raw))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ads.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::{
        capability::{Abilities, ModelAd},
        key::NodeKey,
        topic::NetworkId,
    };

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn ad(n: u16, models: usize) -> Verified<CapabilityAd> {
        let mut secret = [1; 32];
        secret[..2].copy_from_slice(&n.to_be_bytes());
        let model = ModelAd { id: "tiny".into(), abilities: Abilities::default(), ..ModelAd::default() };
        let (tags, models, chat, mesh) = (vec![], vec![model; models], vec![], vec![]);
        let (issued, expires) = (NOW, NOW.after(limits::AD_TTL_MS));
        let ad = CapabilityAd { sequence: 1, issued, expires, tags, models, slots: 1, chat, mesh, evm: Vec::new() };
        NodeKey::from_bytes(&secret).unwrap().sign(&NetworkId::default(), ad).unwrap()
    }

    fn page(board: &Board, chance: u64, now: UnixMillis) -> Vec<Vec<u8>> {
        board.page(chance, now).ads.into_iter().map(serde_bytes::ByteBuf::into_vec).collect()
    }

    #[test]
    fn what_lives_and_offers_something_is_shown() {
        let mut board = Board::default();
        assert!(page(&board, 7, NOW).is_empty());
        board.take(&ad(1, 1), NOW);
        board.take(&ad(2, 1), NOW);
        assert_eq!(page(&board, 0, NOW).len(), 2);
        assert_eq!(page(&board, 1, NOW), [ad(2, 1), ad(1, 1)].map(|ad| ad.raw().to_vec()), "from another place on");
        assert!(page(&board, 0, NOW.after(limits::AD_TTL_MS)).is_empty(), "they have expired");
        board.take(&ad(1, 0), NOW);
        assert_eq!(page(&board, 0, NOW), [ad(2, 1).raw().to_vec()], "the first has closed");
    }

    #[test]
    fn it_is_bounded_and_a_page_is() {
        let mut board = Board::default();
        (0..600).for_each(|n| board.take(&ad(n, 1), NOW));
        assert_eq!((board.len(), page(&board, u64::MAX, NOW).len()), (MAX_ADS, limits::MAX_PAGE_ADS));
        board.take(&ad(700, 1), NOW.after(limits::AD_TTL_MS));
        assert_eq!(board.len(), 1, "what has expired makes room");
        let page = AdPage::decode(&board.page(3, NOW).encode()).unwrap();
        assert_eq!(page.ads.len(), 1);
    }
}

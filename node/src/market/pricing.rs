//! What each model costs, and how a price follows the load.
//!
//! A price is the model's own, else the one for all. With every slot that is taken it rises in proportion, up to
//! `1 + rise_percent / 100` times the base with the last one. No price is ever below the floor. A bid has the price of its
//! moment; an ad binds at the price that it was published with, until it expires ([`super::own_ads`]).

use infernet_wire::{
    model_name,
    money::{MicroUsd, Price},
};
use std::collections::BTreeMap;

/// The prices of a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pricing {
    /// Of every model that has none of its own.
    pub base: Price,
    /// By model.
    pub models: BTreeMap<String, Price>,
    /// Below which nothing is sold.
    pub floor: Price,
    /// By how much the price of the last slot is above that of the first, in percent.
    pub rise_percent: u32,
    /// Jobs at once of a model, where that is less than all slots.
    pub slots: BTreeMap<String, u16>,
}

impl Pricing {
    /// Everything at `price`.
    pub fn flat(price: Price) -> Self {
        Pricing { base: price, ..Pricing::default() }
    }

    /// Whether nothing costs anything.
    pub fn is_free(&self) -> bool {
        let prices = self.models.values().chain([&self.base, &self.floor]);
        prices.copied().all(|price| price == Price::default())
    }

    /// The price of `model` while nothing runs.
    pub fn of(&self, model: &str) -> Price {
        let own = find(&self.models, model).map_or(self.base, |(_, price)| *price);
        self.at_least(own)
    }

    /// The name under which `model` has a price of its own.
    pub fn name_of(&self, model: &str) -> Option<&str> {
        find(&self.models, model).map(|(name, _)| name.as_str())
    }

    /// `price` while `taken` of `slots` are taken.
    pub fn under_load(&self, price: Price, taken: usize, slots: usize) -> Price {
        // The last slot is sold while all others are taken.
        let (taken, last) = (taken as u128, slots.saturating_sub(1) as u128);
        let (share, of) = (u128::from(self.rise_percent) * taken.min(last), 100 * last.max(1));
        let rise = |part: MicroUsd| {
            let more = (u128::from(part.0) * share).div_ceil(of);
            MicroUsd(u64::try_from(u128::from(part.0) + more).unwrap_or(u64::MAX))
        };
        self.at_least(Price { input: rise(price.input), output: rise(price.output) })
    }

    /// Jobs of `model` at once; `None` if all slots are its.
    pub fn slots_of(&self, model: &str) -> Option<u16> {
        find(&self.slots, model).map(|(_, slots)| *slots)
    }

    fn at_least(&self, price: Price) -> Price {
        Price { input: price.input.max(self.floor.input), output: price.output.max(self.floor.output) }
    }
}

/// By the model's name; Ollama's `:latest` may be left out on either side. The exact one counts first.
fn find<'a, T>(table: &'a BTreeMap<String, T>, model: &str) -> Option<(&'a String, &'a T)> {
    table.get_key_value(model).or_else(|| table.iter().find(|(name, _)| model_name::same(name, model)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::price;

    #[test]
    fn a_model_has_its_own_price_or_that_of_all_and_none_below_the_floor() {
        let pricing = Pricing {
            models: [("big:70b".to_owned(), price(900, 1_800)), ("small".to_owned(), price(1, 2))].into(),
            floor: price(50, 100),
            ..Pricing::flat(price(100, 200))
        };
        let check = |model: &str, expected| assert_eq!(pricing.of(model), expected, "{model}");
        check("big:70b", price(900, 1_800));
        check("small:latest", price(50, 100));
        check("other", price(100, 200));
        assert_eq!((pricing.name_of("small:latest"), pricing.name_of("other")), (Some("small"), None));
    }

    #[test]
    fn a_price_rises_with_every_slot_up_to_the_factor() {
        let pricing = Pricing { rise_percent: 50, ..Pricing::flat(price(100, 201)) };
        let at = |taken, slots| pricing.under_load(pricing.base, taken, slots);
        assert_eq!([0, 1, 2, 3, 4].map(|taken| at(taken, 4).input.0), [100, 117, 134, 150, 150]);
        assert_eq!(at(3, 4).output.0, 302, "rounded up");
        assert_eq!((at(0, 1), at(1, 1)), (pricing.base, pricing.base), "one slot is never sold while it is taken");
        let flat = Pricing { rise_percent: 0, ..pricing.clone() };
        assert_eq!(flat.under_load(flat.base, 3, 4), flat.base);
        let most = Pricing { rise_percent: u32::MAX, ..Pricing::flat(price(u64::MAX, 1)) };
        assert_eq!(most.under_load(most.base, 9, 9).input.0, u64::MAX);
    }

    #[test]
    fn more_load_never_makes_it_cheaper_nor_anything_goes_below_the_floor() {
        for rise_percent in [0, 1, 33, 100, 1_000] {
            for slots in 1..9 {
                let pricing = Pricing { rise_percent, floor: price(10, 0), ..Pricing::flat(price(7, 1_003)) };
                let prices: Vec<Price> =
                    (0..=slots + 1).map(|taken| pricing.under_load(pricing.of("a"), taken, slots)).collect();
                assert!(prices.windows(2).all(|p| p[0].input <= p[1].input && p[0].output <= p[1].output), "{prices:?}");
                let most = 1_003 * (100 + u64::from(rise_percent)) / 100 + 1;
                assert!(prices.iter().all(|p| p.input.0 >= 10 && p.output.0 <= most), "{prices:?}");
            }
        }
    }
}

//! Models that the operator names and no engine has. Such a name is no mistake for sure, as the model may come later, so it stops
//! nothing; but a mistyped one would sell less, or at another price, than was meant, and nobody would know. Pure.

use super::Offers;
use crate::spelling;
use infernet_wire::model_name;
use std::collections::BTreeMap;

/// Models that are named of those that are there: what fits in a sentence.
const MAX_THERE: usize = 5;
/// Names that are told: more is another engine than was meant, which these show as well.
const MAX_UNSERVED: usize = 8;

/// A model that is named in the configuration, and in no engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// Its name there.
    pub model: String,
    /// The keys that name it.
    pub keys: Vec<&'static str>,
    /// The model whose name is most like it, if one is.
    pub meant: Option<String>,
    /// What the engines have, in a few words.
    pub there: String,
}

impl Unserved {
    /// What was seen.
    pub fn seen(&self) -> String {
        format!("no engine has {}, which {} of your configuration {}", self.model, self.keys.join(" and "), self.verb())
    }

    /// What there is instead.
    pub fn means(&self) -> String {
        format!("there is {}", self.there)
    }

    /// What to do about it.
    pub fn change(&self) -> String {
        match &self.meant {
            Some(meant) => format!("write {meant} there, if that was meant"),
            None => "take it out there, or fetch it with `infernet model pull`".into(),
        }
    }

    fn verb(&self) -> &'static str {
        if self.keys.len() == 1 { "names" } else { "name" }
    }
}

/// The names in `offers` of no model that is `there`, in order. Without any model there is another thing to tell.
pub fn unserved(offers: &Offers, there: &[String]) -> Vec<Unserved> {
    if there.is_empty() {
        return Vec::new();
    }
    let mut strange: BTreeMap<&String, Vec<&'static str>> = BTreeMap::new();
    for (key, model) in named(offers) {
        if !there.iter().any(|has| model_name::same(has, model)) {
            let keys = strange.entry(model).or_default();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    let told = |(model, keys): (&String, _)| Unserved {
        model: model.clone(),
        keys,
        meant: spelling::nearest(model, there.iter().map(String::as_str)).map(str::to_owned),
        there: some_of(there),
    };
    strange.into_iter().take(MAX_UNSERVED).map(told).collect()
}

/// Every name of a model, and the key that names it.
fn named(offers: &Offers) -> impl Iterator<Item = (&'static str, &String)> {
    let only = offers.only.iter().map(|model| ("models", model));
    let prices = offers.pricing.models.keys().map(|model| ("prices", model));
    let slots = offers.pricing.slots.keys().map(|model| ("model_slots", model));
    let aliases = offers.aliases.iter().map(|alias| ("aliases", &alias.model));
    only.chain(prices).chain(slots).chain(aliases)
}

fn some_of(there: &[String]) -> String {
    let first: Vec<&str> = there.iter().take(MAX_THERE).map(String::as_str).collect();
    match there.len().saturating_sub(MAX_THERE) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Alias,
        market::{fixture::price, pricing::Pricing},
    };

    fn offers() -> Offers {
        let alias = |model: &str| Alias { model: model.into(), alias: "x".into() };
        Offers {
            pricing: Pricing {
                models: [("nope".to_owned(), price(1, 2)), ("TINY-chat".to_owned(), price(1, 2))].into(),
                slots: [("tiny-caht".to_owned(), 1)].into(),
                ..Pricing::default()
            },
            aliases: vec![alias("nope"), alias("nope"), alias("tiny-chat:latest")],
            only: vec!["tiny-chat".into()],
        }
    }

    #[test]
    fn a_name_that_no_engine_has_is_told_once_with_its_keys_and_what_there_is() {
        let told = unserved(&offers(), &["tiny-chat:latest".into()]);
        let said: Vec<String> = told.iter().map(|one| format!("{}: {}", one.seen(), one.means())).collect();
        let expected = [
            "no engine has nope, which prices and aliases of your configuration name: there is tiny-chat:latest",
            "no engine has tiny-caht, which model_slots of your configuration names: there is tiny-chat:latest",
        ];
        assert_eq!(said, expected);
        assert!(told[0].change().contains("model pull"), "{told:?}");
    }

    #[test]
    fn a_name_like_one_that_is_there_was_meant_for_it() {
        let there = ["llama3.1:8b".to_owned(), "qwen2.5:7b".to_owned()];
        let typo = Offers { only: vec!["lama3.1:8b".into()], ..Offers::default() };
        assert!(unserved(&typo, &there)[0].change().contains("llama3.1:8b"));
        assert!(unserved(&typo, &[]).is_empty(), "that there is none is told elsewhere");
    }
}

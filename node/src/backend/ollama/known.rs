//! What `/api/show` has said of each model: a second question would say the same until the model, or Ollama itself, is another.
//! Only what is advertised is kept, a few hundred bytes for each.
//!
//! Who was asked and did not answer in time is asked again after all others: one that is always slow keeps no other from being
//! known. A model of which nothing is known is not offered, as it may run elsewhere.

use super::{Show, Tag, Version, ability};
use crate::backend::template_digest;
use infernet_wire::{capability::Abilities, hash::sha256, id::Hash};
use std::collections::BTreeMap;

/// What a list tells of a model; of another one it tells something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen(Hash);

/// What of a model's description is advertised.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) parameters: Option<u64>,
    /// The context that it was trained for.
    pub(super) trained: Option<u32>,
    /// The context that its Modelfile sets.
    pub(super) num_ctx: Option<u32>,
    pub(super) weights: Option<Hash>,
    pub(super) template: Option<Hash>,
    pub(super) can: Option<Can>,
    pub(super) is_remote: bool,
}

/// What a list of capabilities says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Can {
    pub(super) chats: bool,
    pub(super) embeds: bool,
    pub(super) abilities: Abilities,
}

impl Can {
    /// `None` for an empty list: versions before 0.6.4 tell no capabilities at all.
    pub(super) fn of(capabilities: &[String]) -> Option<Self> {
        let has = |name: &str| capabilities.iter().any(|capability| capability == name);
        let abilities = capabilities.iter().fold(Abilities::default(), |all, name| all.with(ability(name)));
        (!capabilities.is_empty()).then(|| Can { chats: has("completion"), embeds: has("embedding"), abilities })
    }
}

impl From<Show> for Facts {
    fn from(show: Show) -> Self {
        Facts {
            parameters: show.parameter_count(),
            trained: show.context_length(),
            num_ctx: show.num_ctx(),
            weights: show.weights(),
            template: template_digest(&show.template),
            can: Can::of(&show.capabilities),
            is_remote: !show.remote_host.is_empty(),
        }
    }
}

impl Tag {
    /// A newer Ollama may tell more of the same model.
    pub(super) fn seen(&self, version: &Version) -> Seen {
        let Tag { digest, modified_at, size, .. } = self;
        Seen(sha256(format!("{digest}\n{modified_at}\n{size}\n{}", version.version).as_bytes()))
    }
}

/// What is known of the models of one Ollama. As many as were in its list last.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(BTreeMap<String, Entry>);

#[derive(Debug, Clone)]
struct Entry {
    seen: Seen,
    asked: u32,
    facts: Option<Facts>,
    /// Whether the facts are what it said; if it refused to say anything, they are empty.
    is_told: bool,
}

impl Known {
    /// Forgets what is not in the list any more, and returns what to ask about, in this order: that of the list, by which a full ad is
    /// filled, too.
    pub(super) fn open(&mut self, list: &[(&str, Seen)]) -> Vec<String> {
        let places: BTreeMap<&str, (usize, Seen)> =
            list.iter().enumerate().map(|(place, (name, seen))| (*name, (place, *seen))).collect();
        self.0.retain(|name, entry| places.get(name.as_str()).is_some_and(|(_, seen)| *seen == entry.seen));
        for (name, seen) in list {
            let new = || Entry { seen: *seen, asked: 0, facts: None, is_told: false };
            self.0.entry((*name).to_owned()).or_insert_with(new);
        }
        let place = |name: &str| places.get(name).map_or(usize::MAX, |(place, _)| *place);
        let open = self.0.iter().filter(|(_, entry)| !entry.is_told);
        let mut open: Vec<_> = open.map(|(name, entry)| (entry.asked, place(name), name)).collect();
        open.sort();
        open.into_iter().map(|(.., name)| name.clone()).collect()
    }

    /// It is being asked about.
    pub(super) fn asked(&mut self, name: &str) {
        self.update(name, |entry| entry.asked = entry.asked.saturating_add(1));
    }

    /// What it said.
    pub(super) fn told(&mut self, name: &str, facts: Facts) {
        self.update(name, |entry| (entry.facts, entry.is_told) = (Some(facts), true));
    }

    /// It said that it won't say: nothing is known but what the list tells, and it is asked again.
    pub(super) fn refused(&mut self, name: &str) {
        self.update(name, |entry| entry.facts = Some(Facts::default()));
    }

    /// What is known of a model.
    pub(super) fn facts(&self, name: &str) -> Option<&Facts> {
        self.0.get(name)?.facts.as_ref()
    }

    fn update(&mut self, name: &str, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.0.get_mut(name) {
            change(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Seen {
        Seen(sha256(text.as_bytes()))
    }

    #[test]
    fn one_that_does_not_answer_is_asked_after_the_others_and_one_that_changes_is_asked_again() {
        let mut known = Known::default();
        let list = [("c", seen("1")), ("b", seen("1")), ("a", seen("1"))];
        assert_eq!(known.open(&list), ["c", "b", "a"], "as they are listed");
        let list = [("a", seen("1")), ("b", seen("1")), ("c", seen("1"))];
        assert_eq!(known.open(&list), ["a", "b", "c"]);
        known.asked("a");
        known.asked("b");
        known.told("b", Facts { parameters: Some(7), ..Facts::default() });
        assert_eq!(known.open(&list), ["c", "a"]);
        known.asked("c");
        known.refused("c");
        assert_eq!(known.open(&list), ["a", "c"]);
        assert!(known.facts("a").is_none() && known.facts("c").is_some());
        let list = [("a", seen("1")), ("b", seen("2"))];
        assert_eq!(known.open(&list), ["b", "a"]);
        assert!(known.facts("b").is_none() && known.facts("c").is_none(), "what was said of another model is forgotten");
    }
}

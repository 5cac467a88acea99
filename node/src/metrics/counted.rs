//! Counts that parts of the node keep by name, as families with labels. Pure.
//!
//! The market, the mesh and the chat streams count under names such as `no_bid.no_slot`; this table tells which family and label
//! each is. A name that nobody thought of ends up in `infernet_events`, so that no count is lost for want of a line here.

use super::family::{Family, Sample};
use std::collections::BTreeMap;

/// Which counts belong to a family.
enum From {
    /// The one of this name, without a label.
    One(&'static str),
    /// The one of this name, under this label and value.
    As(&'static str, &'static str, &'static str),
    /// All of this area: what follows the dot is the value of this label.
    Area(&'static str, &'static str),
    /// The same, beside a label that is always the same.
    Beside(&'static str, &'static str, (&'static str, &'static str)),
}

/// A family that is filled from counts.
struct Row {
    name: &'static str,
    help: &'static str,
    from: &'static [From],
}

const fn row(name: &'static str, help: &'static str, from: &'static [From]) -> Row {
    Row { name, help, from }
}

const ROWS: &[Row] = &[
    row("infernet_offers", "Offers of buyers that this worker looked at.", &[From::One("offers")]),
    row("infernet_bids", "Bids that this worker made.", &[From::One("bids")]),
    row("infernet_no_bids", "Offers that this worker refused, by reason.", &[From::Area("no_bid", "reason")]),
    row("infernet_offers_ignored", "Offers that this worker left unanswered, by reason.", &[From::Area("ignored", "reason")]),
    row("infernet_bids_lost", "Bids that another worker won against, by reason.", &[From::Area("lost", "reason")]),
    row(
        "infernet_holds_ended",
        "Slots held for a bid, by how the hold ended: claimed by its buyer, lost to another worker, lapsed unused, superseded by \
         the same buyer's next offer.",
        &[
            From::As("claims", "ending", "claimed"),
            From::As("lost", "ending", "lost"),
            From::As("lapsed", "ending", "lapsed"),
            From::As("superseded", "ending", "superseded"),
        ],
    ),
    row(
        "infernet_claims",
        "Jobs that got a slot, by the way to it: won in an auction, or at the ad's standing price.",
        &[From::As("claims", "way", "auction"), From::As("standing", "way", "standing")],
    ),
    row(
        "infernet_claims_refused",
        "Streams that asked for a slot and got none, by reason.",
        &[From::Area("claim_refused", "reason")],
    ),
    row("infernet_slots_freed", "Slots that were freed after a job.", &[From::One("finished")]),
    row(
        "infernet_chat_connections",
        "Chat connections of buyers: opened, failed in their handshake, refused because there were too many.",
        &[From::Area("chat.connection", "outcome")],
    ),
    row("infernet_chat_streams", "Chat streams that buyers opened to this worker.", &[From::One("chat.streams")]),
    row(
        "infernet_chat_streams_refused",
        "Chat streams that were refused, by error code.",
        &[From::Area("chat.refused", "code")],
    ),
    row(
        "infernet_chat_streams_started",
        "Chat streams that became a job; each is refused or started.",
        &[From::One("chat.started")],
    ),
    row("infernet_chat_streams_finished", "Jobs of chat streams that are over.", &[From::One("chat.finished")]),
    row("infernet_chat_endings", "Jobs of chat streams by how the answer ended.", &[From::Area("chat.ended", "finish")]),
    row(
        "infernet_receipts_signed",
        "Receipts that this worker signed, by whether the buyer signed too.",
        &[From::As("chat.acknowledged", "state", "acknowledged"), From::As("chat.unacknowledged", "state", "unacknowledged")],
    ),
    row(
        "infernet_chat_messages_refused",
        "Signed messages in chat streams that did not verify, by kind and reason.",
        &[
            From::Beside("chat.accept_refused", "reason", ("kind", "accept")),
            From::Beside("chat.offer_refused", "reason", ("kind", "offer")),
            From::Beside("chat.countersign_refused", "reason", ("kind", "countersign")),
        ],
    ),
    row(
        "infernet_gossip_messages",
        "Gossip messages that came in, by what was decided about them.",
        &[From::Area("gossip", "verdict")],
    ),
    row(
        "infernet_ad_pages",
        "Pages of ads that newcomers asked for, and ads of such pages that came, by what was decided.",
        &[From::Area("ads", "outcome")],
    ),
    row("infernet_gossip_published", "Messages that this node published, by outcome.", &[From::Area("publish", "outcome")]),
    row("infernet_answers_sent", "Bids and refusals that this node sent, by route.", &[From::Area("answer_sent", "route")]),
    row(
        "infernet_answers_heard",
        "Bids and refusals of others that reached this node, for itself or to be passed on, by outcome.",
        &[From::Area("answer", "outcome")],
    ),
    row("infernet_connections", "What happened to connections of the mesh.", &[From::Area("connection", "event")]),
    row(
        "infernet_connections_made",
        "Connections of the mesh that were made, by the way the bytes take: direct, punched, relayed.",
        &[From::Area("path", "path")],
    ),
    row(
        "infernet_relay_places",
        "Places at relays that this node asked for, got, renewed, tried, let go and lost, and circuits through them.",
        &[From::Area("relay", "event")],
    ),
    row(
        "infernet_reach_tests",
        "What peers and routers told of whether this node can be dialled.",
        &[From::Area("reach", "outcome")],
    ),
    row("infernet_punches", "Circuits that were to become direct connections, by outcome.", &[From::Area("punch", "outcome")]),
    row(
        "infernet_dropped",
        "What was dropped because a queue was full, by queue.",
        &[
            From::As("event.dropped", "queue", "mesh_events"),
            From::As("events_dropped", "queue", "role_inboxes"),
            From::As("answers_dropped", "queue", "answers"),
            From::As("publish.busy", "queue", "outbox"),
            From::As("chat_streams.dropped", "queue", "chat_streams"),
            From::As("inbound.refused", "queue", "inbound_streams"),
        ],
    ),
];

/// What is in no row.
const REST: Row = row("infernet_events", "Counts that have no family of their own, by name.", &[]);

impl From {
    /// The sample for the count `name`, if it is meant.
    fn sample(&self, name: &str, n: u64) -> Option<Sample> {
        let below = |area: &str| name.strip_prefix(area)?.strip_prefix('.').map(str::to_owned);
        match self {
            From::One(wanted) => (name == *wanted).then(|| Sample::whole(n)),
            From::As(wanted, label, value) => (name == *wanted).then(|| Sample::labelled(label, *value, n)),
            From::Area(area, label) => below(area).map(|value| Sample::labelled(label, value, n)),
            From::Beside(area, label, (beside, is)) => below(area).map(|value| {
                let mut sample = Sample::labelled(beside, *is, n);
                sample.labels.push((label, value.into()));
                sample
            }),
        }
    }
}

/// The families of `counts`. Every family is there, even if nothing was counted for it yet.
pub(super) fn families(counts: &BTreeMap<String, u64>) -> Vec<Family> {
    let family = |row: &Row, samples| Family::counter(row.name, row.help, samples);
    let mut families: Vec<Family> = ROWS
        .iter()
        .map(|row| {
            let all = row.from.iter().flat_map(|from| counts.iter().filter_map(|(name, n)| from.sample(name, *n)));
            family(row, all.collect())
        })
        .collect();
    let is_mapped = |name: &str| ROWS.iter().flat_map(|row| row.from).any(|from| from.sample(name, 0).is_some());
    let rest = counts.iter().filter(|(name, _)| !is_mapped(name));
    families.push(family(&REST, rest.map(|(name, n)| Sample::labelled("event", name.clone(), *n)).collect()));
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(counts: &[(&str, u64)]) -> Vec<String> {
        let counts = counts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        let sample = |name, sample: &Sample| format!("{name} {:?} {:?}", sample.labels, sample.value);
        families(&counts).iter().flat_map(|f| f.samples.iter().map(|s| sample(f.name, s))).collect()
    }

    #[test]
    fn each_count_is_where_people_look_for_it() {
        assert_eq!(shown(&[("offers", 3)]), ["infernet_offers [] Whole(3)"]);
        assert_eq!(shown(&[("no_bid.no_slot", 4)]), [r#"infernet_no_bids [("reason", "no_slot")] Whole(4)"#]);
        let lost =
            [r#"infernet_bids_lost [("reason", "dearer")] Whole(1)"#, r#"infernet_holds_ended [("ending", "lost")] Whole(2)"#];
        assert_eq!(shown(&[("lost", 2), ("lost.dearer", 1)]), lost);
        let refused = r#"infernet_chat_messages_refused [("kind", "accept"), ("reason", "expired")] Whole(5)"#;
        assert_eq!(shown(&[("chat.accept_refused.expired", 5)]), [refused]);
    }

    #[test]
    fn what_is_in_no_row_is_told_all_the_same() {
        assert_eq!(shown(&[("new.thing", 1)]), [r#"infernet_events [("event", "new.thing")] Whole(1)"#]);
        assert!(families(&BTreeMap::new()).iter().all(|family| family.samples.is_empty() && family.help.ends_with('.')));
    }
}

//! How gossipsub judges its neighbours: every number, and why.
//!
//! One rule: an honest peer that says little must never be worse than zero, whatever its role. So nothing is asked of how much a
//! peer delivers (P3 is off; most topics here are quiet), and slowness is no offence. What counts is invalid messages (P4),
//! breaking the mesh's own rules (P7), and very many peers behind one address (P6).

use libp2p::gossipsub::{PeerScoreParams, PeerScoreThresholds, TopicHash, TopicScoreParams, score_parameter_decay};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// Below the first, no gossip; below the second, none of our own messages; below the third, nothing that it says is read.
pub(super) fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -10.0,
        publish_threshold: -50.0,
        graylist_threshold: -80.0,
        // Peer exchange is not used.
        accept_px_threshold: 1_000.0,
        // Half of what a useful peer earns on one topic: a mesh of worse ones looks for better.
        opportunistic_graft_threshold: 2.5,
    }
}

/// The application's part (P5) for a peer that sent `faults` invalid answers: as gossipsub's P4.
pub(super) fn penalty(faults: u32) -> f64 {
    -f64::from(faults).powi(2)
}

/// Whether nothing that a peer of this score says is read.
pub(super) fn is_graylisted(score: f64) -> bool {
    score < thresholds().graylist_threshold
}

/// The parameters for `topics`.
pub(super) fn params(topics: &[TopicHash]) -> PeerScoreParams {
    PeerScoreParams {
        topics: topics.iter().map(|topic| (topic.clone(), topic_params())).collect::<HashMap<_, _>>(),
        // Good deeds are worth at most one or two invalid messages.
        topic_score_cap: 5.0,
        // Invalid answers, counted by us; see `penalty`.
        app_specific_weight: 1.0,
        // Forty peers behind one address are a data centre or a village behind one NAT; fifty are graylisted.
        ip_colocation_factor_weight: -1.0,
        ip_colocation_factor_threshold: 40.0,
        // One machine may run a whole test network.
        ip_colocation_factor_whitelist: [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].into(),
        // Six broken promises a minute happen to an overloaded peer; sixteen do not.
        behaviour_penalty_weight: -1.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: score_parameter_decay(Duration::from_secs(60)),
        decay_interval: Duration::from_secs(1),
        decay_to_zero: 0.01,
        // Reconnecting does not wash clean while more than a tenth of the dirt is left. Longer would only fill our memory: a dialler
        // takes as many keys as it likes.
        retain_score: Duration::from_secs(600),
        // Its bounded queue already drops what a slow peer can't take.
        slow_peer_weight: 0.0,
        slow_peer_threshold: 0.0,
        slow_peer_decay: 0.2,
    }
}

fn topic_params() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        // P1, time in the mesh: being there is no merit.
        time_in_mesh_weight: 0.0,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 1.0,
        // P2, first deliveries: a small preference for peers that are quick; fifty make the most of it.
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_decay: score_parameter_decay(Duration::from_secs(600)),
        first_message_deliveries_cap: 50.0,
        // P3 and P3b, too few deliveries: off.
        mesh_message_deliveries_weight: 0.0,
        mesh_message_deliveries_decay: 0.5,
        mesh_message_deliveries_cap: 1.0,
        mesh_message_deliveries_threshold: 1.0,
        mesh_message_deliveries_window: Duration::from_millis(10),
        mesh_message_deliveries_activation: Duration::from_secs(5),
        mesh_failure_penalty_weight: 0.0,
        mesh_failure_penalty_decay: 0.5,
        // P4, invalid messages, squared: one is a bug somewhere (-1), four mute a peer's gossip (-16), ten graylist it (-100).
        // A tenth is left after ten minutes.
        invalid_message_deliveries_weight: -1.0,
        invalid_message_deliveries_decay: score_parameter_decay(Duration::from_secs(600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> Vec<TopicHash> {
        ["a", "b", "c"].map(TopicHash::from_raw).to_vec()
    }

    /// The formula of the gossipsub v1.1 specification for one topic, for a peer in the mesh that delivered `first` messages
    /// first and `invalid` ones invalid.
    fn score(first: f64, invalid: f64) -> f64 {
        let all = params(&topics());
        let topic = all.topics.get(&TopicHash::from_raw("a")).unwrap();
        let p2 = first.min(topic.first_message_deliveries_cap) * topic.first_message_deliveries_weight;
        let deficit = topic.mesh_message_deliveries_threshold;
        let p3 = deficit * deficit * topic.mesh_message_deliveries_weight;
        let p4 = invalid * invalid * topic.invalid_message_deliveries_weight;
        (topic.topic_weight * (p2 + p3 + p4)).min(all.topic_score_cap)
    }

    #[test]
    fn gossipsub_takes_the_parameters() {
        assert_eq!(params(&topics()).validate(), Ok(()));
        assert_eq!(thresholds().validate(), Ok(()));
    }

    #[test]
    fn an_honest_quiet_peer_is_never_below_zero() {
        assert!(score(0.0, 0.0) >= 0.0);
    }

    #[test]
    fn ten_invalid_messages_graylist_even_a_useful_peer() {
        assert!(score(1_000.0, 10.0) < thresholds().graylist_threshold);
        assert!(score(0.0, 1.0) > thresholds().gossip_threshold, "one invalid message is forgiven");
    }

    #[test]
    fn one_host_may_run_a_whole_network() {
        let params = params(&topics());
        assert!(params.ip_colocation_factor_whitelist.contains(&IpAddr::from([127, 0, 0, 1])));
    }
}

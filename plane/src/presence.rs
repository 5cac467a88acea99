//! Which registered nodes are there. Pure.

use crate::store::NodeRow;
use infernet_wire::time::UnixMillis;

/// Silence after which a node is offline: three heartbeats of 30 s.
pub const SILENCE_MS: u64 = 90_000;

/// Whether it was heard within `silence_ms` before `now`, and did not say that it leaves.
pub fn is_online(row: &NodeRow, silence_ms: u64, now: UnixMillis) -> bool {
    row.available && now.since(row.seen) < silence_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Pubkey, Role};
    use serde_json::Value;

    #[test]
    fn ninety_seconds_of_silence_are_offline() {
        let seen = UnixMillis(1_000_000);
        let row = NodeRow {
            pubkey: Pubkey([1; 32]),
            role: Role::Provider,
            id: String::new(),
            node_id: String::new(),
            name: String::new(),
            address: String::new(),
            port: 0,
            available: true,
            specs: Value::Null,
            public: true,
            names_audience: false,
            registered: seen,
            seen,
        };
        let at = |ms| is_online(&row, SILENCE_MS, seen.after(ms));
        assert_eq!([0, 89_999, 90_000, 3_600_000].map(at), [true, true, false, false]);
        let leaving = NodeRow { available: false, ..row.clone() };
        assert!(!is_online(&leaving, SILENCE_MS, seen));
    }
}

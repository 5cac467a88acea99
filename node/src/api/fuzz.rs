//! Any bytes as the body of a request to one of the routes that buy.

use super::{chat, completions, embeddings, fields::Fields, options::Options};
use crate::buyer::{ChatOrder, Prepared};
use axum::http::HeaderMap;
use infernet_wire::{money::MicroUsd, time::UnixMillis};
use serde_json::Value;

/// The first byte chooses the route. What a route makes of the rest can be offered, or says what is wrong.
pub(crate) fn bodies(data: &[u8]) {
    let Some((route, body)) = data.split_first() else { return };
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
    let Ok(fields) = Fields::new(&value, "") else { return };
    let requests = match route % 3 {
        0 => chat::requests_of(&fields),
        1 => completions::requests_of(&fields),
        _ => embeddings::requests_of(&fields),
    };
    let (Ok(requests), Ok(options)) = (requests, Options::read(&HeaderMap::new(), &fields)) else { return };
    for request in requests {
        let order = options.apply(MicroUsd(1_000_000), ChatOrder::new(request));
        let worst = order.worst();
        if let Ok(prepared) = Prepared::new(order) {
            let offer = prepared.offer(UnixMillis(1_795_000_000_000));
            assert!(offer.budget <= worst, "{} reserved, {} offered", worst, offer.budget);
        }
    }
}

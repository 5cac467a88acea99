//! What a request says about the market: `X-Infernet-…` headers, or the same names in an `infernet` object of the body, which
//! wins. All are optional.
//!
//! | header | in the object | meaning |
//! |---|---|---|
//! | `X-Infernet-Max-Price` | `max_price` | the most to pay per million tokens, in and out, in micro-USD |
//! | `X-Infernet-Budget` | `budget` | the most to pay for each job, in micro-USD |
//! | `X-Infernet-Rule` | `rule` | `balanced`, `cheapest` or `fastest` |
//! | `X-Infernet-Wait` | `wait` | seconds to wait, and ask again, while nobody has room or nobody is there |
//! | `X-Infernet-Path` | `path` | `auto`, `auction` or `standing`: how a worker is found |

use super::{error::ApiError, fields::Fields};
use crate::buyer::{ChatOrder, PathChoice};
use axum::http::HeaderMap;
use infernet_wire::{
    money::{MicroUsd, Price},
    offer::SelectionRule,
};
use serde_json::Value;

/// What a caller wants of the market.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Per million tokens.
    pub(super) max_price: Option<MicroUsd>,
    /// For each job.
    pub(super) budget: Option<MicroUsd>,
    rule: Option<SelectionRule>,
    wait_ms: Option<u64>,
    path: Option<PathChoice>,
}

const HEADERS: [(&str, &str); 5] = [
    ("x-infernet-max-price", "max_price"),
    ("x-infernet-budget", "budget"),
    ("x-infernet-rule", "rule"),
    ("x-infernet-wait", "wait"),
    ("x-infernet-path", "path"),
];
/// The longest wait, in seconds: as long as a job may take. Clients give up about then.
const MAX_WAIT: u64 = 600;

impl Options {
    /// Reads the headers, then the `infernet` object of `body`.
    pub(super) fn read(headers: &HeaderMap, body: &Fields<'_>) -> Result<Self, ApiError> {
        let mut options = Options::default();
        for (header, name) in HEADERS {
            let Some(value) = headers.get(header) else { continue };
            let text = value.to_str().map_err(|_| ApiError::field(header, format!("{header} must be plain text")))?;
            // Numbers and words alike: what is not a number is a word.
            let value = text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from);
            options.set(name, &value, header)?;
        }
        if let Some(object) = body.value("infernet") {
            for (name, value) in Fields::new(object, "infernet")?.entries() {
                options.set(name, value, &format!("infernet.{name}"))?;
            }
        }
        Ok(options)
    }

    /// Unknown names are ignored, as everywhere in a request.
    fn set(&mut self, name: &str, value: &Value, place: &str) -> Result<(), ApiError> {
        match name {
            "max_price" => self.max_price = Some(money(value, place)?),
            "budget" => self.budget = Some(money(value, place)?),
            "rule" => self.rule = Some(rule(value, place)?),
            "wait" => self.wait_ms = Some(wait(value, place)?),
            "path" => self.path = Some(path(value, place)?),
            _ => {}
        }
        Ok(())
    }

    /// Puts these wishes into `order`; `max_price` is the node's default ceiling.
    pub(super) fn apply(&self, max_price: MicroUsd, order: ChatOrder) -> ChatOrder {
        let most = self.max_price.unwrap_or(max_price);
        ChatOrder {
            ceiling: Price { input: most, output: most },
            budget: self.budget,
            rule: self.rule.unwrap_or(order.rule),
            wait_ms: self.wait_ms.unwrap_or(order.wait_ms),
            path: self.path.unwrap_or(order.path),
            ..order
        }
    }
}

fn money(value: &Value, place: &str) -> Result<MicroUsd, ApiError> {
    let bad = || ApiError::field(place, format!("{place} must be a whole number of micro-USD"));
    value.as_u64().map(MicroUsd).ok_or_else(bad)
}

fn rule(value: &Value, place: &str) -> Result<SelectionRule, ApiError> {
    match value.as_str() {
        Some("balanced") => Ok(SelectionRule::BALANCED),
        Some("cheapest") => Ok(SelectionRule::CHEAPEST),
        Some("fastest") => Ok(SelectionRule::FASTEST),
        _ => Err(ApiError::field(place, format!("{place} must be balanced, cheapest or fastest"))),
    }
}

fn wait(value: &Value, place: &str) -> Result<u64, ApiError> {
    let bad = || ApiError::field(place, format!("{place} must be a whole number of seconds, at most {MAX_WAIT}"));
    value.as_u64().filter(|seconds| *seconds <= MAX_WAIT).map(|seconds| seconds * 1_000).ok_or_else(bad)
}

fn path(value: &Value, place: &str) -> Result<PathChoice, ApiError> {
    let all = [PathChoice::Auto, PathChoice::Auction, PathChoice::Standing];
    let named = |path: &PathChoice| value.as_str() == Some(path.label());
    let bad = || ApiError::field(place, format!("{place} must be auto, auction or standing"));
    all.into_iter().find(named).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(header: (&'static str, &str), body: &Value) -> Result<Options, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header.0, header.1.parse().unwrap());
        Options::read(&headers, &Fields::new(body, "").unwrap())
    }

    #[test]
    fn headers_and_object_mean_the_same_and_the_object_wins() {
        let read = check(("x-infernet-max-price", "300"), &json!({ "infernet": { "budget": 7, "rule": "cheapest" } })).unwrap();
        let expected = (Some(MicroUsd(300)), Some(MicroUsd(7)), Some(SelectionRule::CHEAPEST));
        assert_eq!((read.max_price, read.budget, read.rule), expected);
        let more = check(("x-infernet-wait", "2"), &json!({ "infernet": { "path": "auction" } })).unwrap();
        assert_eq!((more.wait_ms, more.path), (Some(2_000), Some(PathChoice::Auction)));
        let both = check(("x-infernet-budget", "1"), &json!({ "infernet": { "budget": 2, "later": true } })).unwrap();
        assert_eq!(both.budget, Some(MicroUsd(2)));
    }

    #[test]
    fn nonsense_names_the_header_or_field() {
        assert_eq!(check(("x-infernet-budget", "much"), &json!({})).unwrap_err().param.as_deref(), Some("x-infernet-budget"));
        assert_eq!(check(("x-infernet-rule", "9"), &json!({})).unwrap_err().param.as_deref(), Some("x-infernet-rule"));
        assert_eq!(check(("x-infernet-wait", "601"), &json!({})).unwrap_err().param.as_deref(), Some("x-infernet-wait"));
        assert_eq!(check(("x-infernet-path", "mine"), &json!({})).unwrap_err().param.as_deref(), Some("x-infernet-path"));
        let object = check(("x-other", "1"), &json!({ "infernet": { "max_price": -1 } })).unwrap_err();
        assert_eq!(object.param.as_deref(), Some("infernet.max_price"));
    }
}

//! `GET /v1/models` and `GET /v1/models/{id}`: what live ads offer, in OpenAI's shape, with context and price beside.

use super::{error::ApiError, service::Service};
use crate::market::registry::KnownModel;
use axum::{
    Json,
    extract::{Path, State},
};
use infernet_wire::capability::{Abilities, ModelAd};
use serde::Serialize;
use std::sync::Arc;

/// OpenAI's list.
#[derive(Serialize)]
pub(super) struct List {
    object: &'static str,
    data: Vec<Model>,
}

/// A model.
#[derive(Serialize)]
pub(super) struct Model {
    id: String,
    object: &'static str,
    /// Nobody knows; the field must be there.
    created: u64,
    owned_by: &'static str,
    /// Tokens of prompt and answer together; null if no worker tells.
    context_length: Option<u32>,
    /// The cheapest price, in US dollars per token, as text.
    pricing: Pricing,
    infernet: Offered,
}

#[derive(Serialize)]
struct Pricing {
    prompt: String,
    completion: String,
}

#[derive(Serialize)]
struct Offered {
    workers: usize,
    slots: u32,
    /// In micro-USD per million tokens.
    price_in: u64,
    price_out: u64,
    abilities: Vec<&'static str>,
}

const ABILITIES: [(Abilities, &str); 6] = [
    (Abilities::TOOLS, "tools"),
    (Abilities::FORCED_TOOLS, "forced_tools"),
    (Abilities::JSON_SCHEMA, "json_schema"),
    (Abilities::VISION, "vision"),
    (Abilities::EMBEDDINGS, "embeddings"),
    (Abilities::LOGPROBS, "logprobs"),
];

impl From<&KnownModel> for Model {
    fn from(model: &KnownModel) -> Self {
        let abilities = ABILITIES.iter().filter(|(ability, _)| model.abilities.contains(*ability)).map(|(_, name)| *name);
        Model {
            id: model.id.clone(),
            object: "model",
            created: 0,
            owned_by: "infernet",
            context_length: Some(model.context).filter(|context| *context > 0),
            pricing: Pricing { prompt: dollars(model.price.input.0), completion: dollars(model.price.output.0) },
            infernet: Offered {
                workers: model.workers,
                slots: model.slots,
                price_in: model.price.input.0,
                price_out: model.price.output.0,
                abilities: abilities.collect(),
            },
        }
    }
}

/// Micro-USD per million tokens as dollars per token: twelve decimals are exact.
fn dollars(per_million: u64) -> String {
    let (whole, rest) = (per_million / 1_000_000_000_000, per_million % 1_000_000_000_000);
    let text = format!("{whole}.{rest:012}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Every model.
pub(super) async fn list(State(service): State<Arc<Service>>) -> Json<List> {
    let known = service.buyer.known_models().await;
    Json(List { object: "list", data: known.iter().map(Model::from).collect() })
}

/// One model, by id or another name. Ids may hold slashes.
pub(super) async fn get(State(service): State<Arc<Service>>, Path(id): Path<String>) -> Result<Json<Model>, ApiError> {
    let known = service.buyer.known_models().await;
    let named = |model: &&KnownModel| ModelAd { id: model.id.clone(), ..ModelAd::default() }.answers_to(&id);
    let found = known.iter().find(|model| model.id == id).or_else(|| known.iter().find(named));
    let names = || known.iter().map(|model| model.id.clone()).collect::<Vec<_>>();
    found.map(|model| Json(Model::from(model))).ok_or_else(|| ApiError::unknown_model(&id, &names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_exact() {
        for (micro, expected) in
            [(0, "0"), (100_000, "0.0000001"), (1, "0.000000000001"), (10_000_000, "0.00001"), (2_000_000_000_000, "2")]
        {
            assert_eq!(dollars(micro), expected);
        }
    }
}

//! What the mesh offers now, as the plane's own buyer has heard it. Open to all: it is what gossip tells anybody.

use super::error::{ErrorBody, Refusal};
use crate::state::Plane;
use axum::{Json, Router, extract::State, routing::get};
use infernet_node::market::registry::KnownModel;
use serde::Serialize;
use utoipa::ToSchema;

/// The routes.
pub fn routes() -> Router<Plane> {
    Router::new().route("/api/v1/models", get(models))
}

/// A model.
#[derive(Serialize, ToSchema)]
pub struct ModelView {
    /// Its id.
    pub id: String,
    /// Nodes that serve it.
    pub nodes: usize,
    /// Jobs that they run at once.
    pub slots: u32,
    /// The most tokens of prompt and answer together; null if nobody tells.
    pub context: Option<u32>,
    /// The cheapest, in micro-USD per million input tokens.
    pub price_in: u64,
    /// The cheapest, in micro-USD per million output tokens.
    pub price_out: u64,
}

/// All of them.
#[derive(Serialize, ToSchema)]
pub struct ModelList {
    /// Each.
    pub models: Vec<ModelView>,
}

impl From<KnownModel> for ModelView {
    fn from(model: KnownModel) -> Self {
        ModelView {
            id: model.id,
            nodes: model.workers,
            slots: model.slots,
            context: Some(model.context).filter(|context| *context > 0),
            price_in: model.price.input.0,
            price_out: model.price.output.0,
        }
    }
}

/// What is offered now.
#[utoipa::path(get, path = "/api/v1/models", tag = "market",
    responses((status = 200, body = ModelList), (status = 503, body = ErrorBody)))]
async fn models(State(plane): State<Plane>) -> Result<Json<ModelList>, Refusal> {
    let gateway = super::jobs::gateway(&plane)?;
    let known = gateway.through().buyer.known_models().await;
    Ok(Json(ModelList { models: known.into_iter().map(ModelView::from).collect() }))
}

//! Every route of a plane.

pub mod commands;
pub mod legacy;
pub mod node;

use crate::state::Plane;
use axum::Router;

/// All routes over `plane`.
pub fn router(plane: Plane) -> Router {
    Router::new().merge(node::routes()).merge(legacy::routes()).merge(commands::routes()).with_state(plane)
}

//! Style and scripts, in the binary. Their addresses change with them, so a browser may keep them for ever.

use crate::state::Plane;
use axum::{
    Router,
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use infernet_wire::hash;
use std::sync::LazyLock;

const CSS: &str = include_str!("../../../assets/app.css");
const APP: &str = include_str!("../../../assets/app.js");
const VERIFY: &str = include_str!("../../../assets/verify.js");
const ICON: &str = include_str!("../../../assets/icon.svg");

/// Names all assets as they are in this binary.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all = [CSS, APP, VERIFY, ICON].concat();
    hash::sha256(all.as_bytes()).to_string().chars().take(16).collect()
});

pub(super) fn routes() -> Router<Plane> {
    Router::new().route("/assets/{version}/{name}", get(asset))
}

/// Where an asset is.
pub(super) fn url(name: &str) -> String {
    format!("/assets/{}/{name}", *VERSION)
}

async fn asset(Path((_, name)): Path<(String, String)>) -> Response {
    let found = match name.as_str() {
        "app.css" => ("text/css; charset=utf-8", CSS),
        "app.js" => ("text/javascript; charset=utf-8", APP),
        "verify.js" => ("text/javascript; charset=utf-8", VERIFY),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    ([(header::CONTENT_TYPE, found.0), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")], found.1).into_response()
}

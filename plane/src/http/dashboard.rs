//! The dashboard: pages for people.
//!
//! A page is made of parts. A browser gets it whole, and then, over `/live?of=…`, each part again that has changed
//! (`dashboard/live.rs`). One function makes both, so what is live is what was shown. Pages are made here, of what the index and
//! the store have; the assets are in the binary; a browser without scripts sees everything, and what it sees says as of when.
//!
//! Whatever came from the network is text: `maud` escapes it. What changes something goes through the API that everybody has,
//! with the session's token, or not at all.

mod account;
mod assets;
mod deposits;
mod jobs;
mod layout;
mod live;
mod market;
mod money;
mod nodes;
mod plot;
mod receipts;
mod view;
mod words;

pub use live::Viewers;

use super::{
    caller::{Maybe, Somebody},
    error::Refusal,
};
use crate::state::Plane;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use infernet_node::clock;
use infernet_wire::time::UnixMillis;
use maud::Markup;
use view::View;

/// The routes.
pub fn routes() -> Router<Plane> {
    let pages = view::ROUTES.iter().fold(Router::new(), |router, route| router.route(route, get(page)));
    pages.merge(assets::routes()).merge(live::routes()).merge(money::routes())
}

/// A piece of a page.
struct Part {
    /// Its element's id, if it is live.
    id: Option<&'static str>,
    markup: Markup,
}

impl Part {
    /// One that stays as it is: forms, which nobody wants to lose what was typed into.
    fn fixed(markup: Markup) -> Self {
        Part { id: None, markup }
    }

    /// One that is sent again when it has changed.
    fn live(id: &'static str, markup: Markup) -> Self {
        Part { id: Some(id), markup }
    }
}

/// For whom a page is made, and when.
struct Ask<'a> {
    plane: &'a Plane,
    somebody: Option<&'a Somebody>,
    now: UnixMillis,
}

impl Ask<'_> {
    /// Who has signed in; pages that need somebody are not made without.
    fn must(&self) -> Result<&Somebody, Refusal> {
        self.somebody.ok_or_else(|| Refusal::unauthorized("sign in first"))
    }
}

async fn page(State(plane): State<Plane>, somebody: Result<Maybe, Refusal>, uri: Uri) -> Response {
    let now = clock::now();
    // A cookie that is over is nobody's.
    let somebody = somebody.ok().and_then(|Maybe(somebody)| somebody);
    let ask = Ask { plane: &plane, somebody: somebody.as_ref(), now };
    let Some(view) = View::parse(uri.path(), uri.query().unwrap_or_default()) else {
        return failed(&ask, &Refusal::not_found("page"));
    };
    if view.is_private() && somebody.is_none() {
        let next = uri.path_and_query().map_or("/", |path| path.as_str());
        return Redirect::to(&format!("/signin?next={}", words::escaped(next))).into_response();
    }
    match view.parts(&ask).await {
        Ok(parts) => html(StatusCode::OK, layout::whole(&ask, &view, &parts)),
        Err(refusal) => failed(&ask, &refusal),
    }
}

fn failed(ask: &Ask<'_>, refusal: &Refusal) -> Response {
    html(refusal.status, layout::failed(ask, refusal))
}

/// A page, never kept by anybody on the way.
pub(super) fn html(status: StatusCode, page: Markup) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, kind, page.into_string()).into_response()
}

pub(super) use layout::plain;

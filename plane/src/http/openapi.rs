//! `/openapi.json`, made from the handlers themselves, and `/docs/api`, the same for people.

use super::{auth, chat, clients, commands, dashboard, deposits, device, jobs, legacy, market, network, node};
use crate::state::Plane;
use axum::{Json, Router, http::StatusCode, response::Response, routing::get};
use maud::{Markup, html};
use serde_json::Value;
use std::sync::LazyLock;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        RefOr, ResponseBuilder,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

/// The description.
#[derive(OpenApi)]
#[openapi(
    info(title = "infernet plane", description = "Jobs on the infernet mesh, for clients without a node. The plane's operator can read \
        them; whoever does not want that runs a node."),
    paths(
        jobs::submit, jobs::batch, jobs::list, jobs::show, jobs::cancel, jobs::follow,
        chat::ask, chat::follow, chat::status,
        clients::me, clients::entries, clients::identities, clients::keys, clients::make_key, clients::revoke,
        clients::make_client, clients::show_client, clients::give,
        deposits::deposits, deposits::chain,
        auth::wallet_start, auth::wallet_finish, auth::register_start, auth::register_finish, auth::passkey_start,
        auth::passkey_finish, auth::by_key, auth::by_own_key, auth::logout,
        device::start, device::poll, device::approve,
        market::models,
        network::overview, network::traffic, network::demand, network::auctions, network::nodes, network::node, network::status,
        network::earnings, network::receipts, network::receipt,
        node::register, node::heartbeat, node::me, node::remove, node::payouts::payments, node::payouts::list, node::payouts::set,
        node::commands::poll, node::commands::complete, node::commands::progressed,
        legacy::poll, legacy::events, legacy::complete,
        commands::give, commands::list, commands::one, commands::cancel, commands::link,
        described
    ),
    modifiers(&Keys, &AtTheDoor),
    security(("key" = []), ("session" = []))
)]
pub struct Description;

struct Keys;

impl Modify for Keys {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let components = description.components.get_or_insert_default();
        let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key: sk-plane-…")).build();
        components.add_security_scheme("key", SecurityScheme::Http(key));
        let cookie =
            ApiKeyValue::with_description("__Host-infernet", "A browser's session; what changes something needs X-CSRF-Token");
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// What [`super::limits`] answers whatever the route is, and any route when the store does not answer.
const DOOR: [(&str, &str); 4] = [
    ("401", "A key was shown that is wrong, revoked or over"),
    ("403", "A strange `Host` or page, or a key that may not"),
    ("429", "Too often: `Retry-After` says when again"),
    ("503", "The plane's store does not answer, or it is stopping"),
];

struct AtTheDoor;

impl Modify for AtTheDoor {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let items = description.paths.paths.values_mut();
        let operations = items.flat_map(|item| [&mut item.get, &mut item.post, &mut item.put, &mut item.delete]).flatten();
        for operation in operations {
            for (status, why) in DOOR {
                let told = || RefOr::T(ResponseBuilder::new().description(why).build());
                operation.responses.responses.entry(status.into()).or_insert_with(told);
            }
        }
    }
}

/// The routes.
pub fn routes() -> Router<Plane> {
    Router::new().route("/openapi.json", get(described)).route("/docs/api", get(page))
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "market", responses((status = 200, body = Object)))]
async fn described() -> Json<&'static Value> {
    Json(&DESCRIBED)
}

/// Made once: it is the same for everybody.
static DESCRIBED: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(Description::openapi()).unwrap_or_default());

async fn page() -> Response {
    dashboard::html(StatusCode::OK, dashboard::plain("API", None, reference(&DESCRIBED)))
}

/// The description for people.
fn reference(description: &Value) -> Markup {
    let paths = description.get("paths").and_then(Value::as_object).into_iter().flatten();
    let methods = |about: &'_ Value| about.as_object().cloned().unwrap_or_default();
    html! {
        p {
            "For programs: " a href="/openapi.json" { "/openapi.json" } ". " code { "/v1/*" } " is OpenAI's API: give any of its clients this "
            "plane's address and a key."
        }
        dl {
            @for (path, about) in paths {
                @for (method, about) in methods(about) { (operation(&method, path, &about)) }
            }
        }
    }
}

fn operation(method: &str, path: &str, about: &Value) -> Markup {
    let text = |name: &str| about.get(name).and_then(Value::as_str).unwrap_or_default();
    let statuses = about.get("responses").and_then(Value::as_object).into_iter().flatten().map(|(status, _)| status.as_str());
    html! {
        dt { code { (method.to_uppercase()) " " (path) } }
        dd { (text("summary")) " " (text("description")) " " small { (statuses.collect::<Vec<_>>().join(", ")) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_says_what_it_does_and_may_answer() {
        let description = serde_json::to_value(Description::openapi()).unwrap();
        let paths = description["paths"].as_object().unwrap();
        assert!(paths.len() >= 50, "{}", paths.len());
        for (path, methods) in paths {
            for (method, about) in methods.as_object().unwrap() {
                assert!(about["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}");
                assert!(about["responses"].as_object().is_some_and(|all| !all.is_empty()), "{method} {path}");
            }
        }
        let page = reference(&description).into_string();
        assert!(paths.keys().all(|path| page.contains(path.as_str())));
    }
}

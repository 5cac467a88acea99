//! Who comes in, how often, and what the rest are told.

use super::*;
use infernet_plane::{http::openapi::Description, store::KeyRow};
use infernet_wire::time::UnixMillis;
use utoipa::OpenApi;

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_not_good_are_refused() {
    let served = Served::alone().await;
    let (client, key) = served.client(0, &["jobs"]).await;
    assert_eq!(
        answered(served.get("/api/v1/me").bearer_auth(&key).send().await.expect("an answer"), 200).await["id"],
        client.0
    );
    refused(served.get("/api/v1/me"), 401, "unauthorized").await;
    for wrong in ["", "x", "sk-plane-00"] {
        refused(served.get("/api/v1/me").bearer_auth(wrong), 401, "unauthorized").await;
    }
    let expired = served.key(&client, KeyWish { expires: Some(UnixMillis(1)), ..KeyWish::default() }).await;
    assert!(refused(served.get("/api/v1/me").bearer_auth(&expired), 401, "unauthorized").await.contains("expired"));
    refused(served.get("/api/v1/keys").bearer_auth(&key), 403, "forbidden").await;
    let grant = json!({ "client": client.0, "amount_micro_usd": 1, "reference": "me" });
    refused(served.post("/api/v1/admin/grants", &grant).bearer_auth(&key), 403, "forbidden").await;
    assert!(!served.keeps(&key), "keys are kept as hashes");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_shown_once_and_revoked_at_once() {
    let served = Served::alone().await;
    let (_, manager) = served.client(0, &["jobs", "manage"]).await;
    let made =
        served.post("/api/v1/keys", &json!({ "name": "bot", "per_day_micro_usd": 5 })).bearer_auth(&manager).send().await;
    let made = answered(made.expect("an answer"), 201).await;
    let key = made["key"].as_str().expect("a key");
    assert_eq!((&made["scopes"], &made["per_day_micro_usd"]), (&json!(["jobs"]), &json!(5)));
    let list = answered(served.get("/api/v1/keys").bearer_auth(&manager).send().await.expect("an answer"), 200).await;
    assert_eq!(list["keys"].as_array().expect("keys").len(), 2);
    assert!(!list.to_string().contains(key));
    let used = |key: &Value| (key["prefix"].clone(), key["last_used_at"].is_string());
    let used: Vec<_> = list["keys"].as_array().expect("keys").iter().map(used).collect();
    assert!(used.contains(&(made["prefix"].clone(), false)) && used.iter().any(|(_, used)| *used), "its maker was: {list}");
    served.get("/api/v1/me").bearer_auth(key).send().await.expect("an answer").error_for_status().expect("it is good");
    let path = format!("/api/v1/keys/{}", made["prefix"].as_str().expect("a prefix"));
    answered(served.ask(Method::DELETE, &path).bearer_auth(&manager).send().await.expect("an answer"), 204).await;
    refused(served.get("/api/v1/me").bearer_auth(key), 401, "unauthorized").await;
    refused(served.ask(Method::DELETE, &path).bearer_auth(&manager), 404, "not_found").await;
    // A key makes none that may more than itself, and becomes nothing that does.
    let (client, _) = served.client(0, &[]).await;
    let limited = KeyWish {
        scopes: vec!["manage".into(), "read".into()],
        per_day: Some(MicroUsd(5)),
        per_minute: Some(100),
        expires: Some(clock::now().after(3_600_000)),
        ..KeyWish::default()
    };
    let limited = served.key(&client, limited).await;
    for more in [
        json!({ "scopes": ["jobs"] }),
        json!({}),
        json!({ "scopes": ["read"], "per_day_micro_usd": 6 }),
        json!({ "scopes": ["read"], "per_minute": 101 }),
        json!({ "scopes": ["read"], "expires_in": 7_200 }),
    ] {
        refused(served.post("/api/v1/keys", &more).bearer_auth(&limited), 403, "forbidden").await;
    }
    let less = served.post("/api/v1/keys", &json!({ "scopes": ["read"] })).bearer_auth(&limited).send().await;
    let less = answered(less.expect("an answer"), 201).await;
    assert_eq!((&less["per_day_micro_usd"], &less["per_minute"]), (&json!(5), &json!(100)), "as its maker");
    assert!(less["expires_at"].is_string());
    let response = json!({ "clientDataJSON": "", "authenticatorData": "", "publicKey": "" });
    let passkey = json!({ "id": "x", "credential": { "id": "", "response": response } });
    refused(served.post("/api/v1/auth/passkey/register/finish", &passkey).bearer_auth(&limited), 403, "forbidden").await;
    let wallet = json!({ "id": "x", "signature": "" });
    refused(served.post("/api/v1/auth/wallet/finish", &wallet).bearer_auth(&limited), 403, "forbidden").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_revoked_keys_hide_none_that_is_good() {
    let served = Served::alone().await;
    let (client, first) = served.client(0, &["manage"]).await;
    let store = &*served.plane.store;
    for _ in 0..infernet_plane::store::MAX_PAGE + 1 {
        let (_, row) = accounts::new_key(store, &client, KeyWish::default()).await.expect("a key");
        store.put_key(&KeyRow { revoked: Some(clock::now()), ..row }).await.expect("a store");
    }
    let list = answered(served.get("/api/v1/keys").bearer_auth(&first).send().await.expect("an answer"), 200).await;
    let good: Vec<&Value> = list["keys"].as_array().expect("keys").iter().filter(|key| key["revoked_at"].is_null()).collect();
    assert_eq!(good.len(), 1, "{list}");
    let path = format!("/api/v1/keys/{}", good[0]["prefix"].as_str().expect("a prefix"));
    answered(served.ask(Method::DELETE, &path).bearer_auth(&first).send().await.expect("an answer"), 204).await;
    refused(served.get("/api/v1/me").bearer_auth(&first), 401, "unauthorized").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_come_from_admins_and_count_once() {
    let served = Served::alone().await;
    let store = &*served.plane.store;
    let all = || accounts::Scope::ALL.map(|scope| scope.name().to_owned()).to_vec();
    let admin_id = accounts::new_client(store, "admin", true).await.expect("a client").id;
    let admin = served.key(&admin_id, KeyWish { scopes: all(), ..KeyWish::default() }).await;
    let part = served.key(&admin_id, KeyWish { scopes: vec!["manage".into()], ..KeyWish::default() }).await;
    refused(served.post("/api/v1/admin/clients", &json!({})).bearer_auth(&part), 403, "forbidden").await;
    let made =
        served.post("/api/v1/admin/clients", &json!({ "name": "Ada" })).bearer_auth(&admin).send().await.expect("an answer");
    let made = answered(made, 201).await;
    let grant = json!({ "client": made["client"]["id"], "amount_micro_usd": 500, "reference": "invoice 1" });
    for new in [true, false] {
        let given = served.post("/api/v1/admin/grants", &grant).bearer_auth(&admin).send().await.expect("an answer");
        let given = answered(given, 200).await;
        assert_eq!((&given["new"], &given["client"]["balance_micro_usd"]), (&json!(new), &json!(500)));
    }
    let key = made["key"]["key"].as_str().expect("a key");
    let entries = answered(served.get("/api/v1/me/entries").bearer_auth(key).send().await.expect("an answer"), 200).await;
    assert_eq!(entries["entries"][0]["reference"], "invoice 1");
    let unknown = json!({ "client": "cl_x", "amount_micro_usd": 1, "reference": "r" });
    refused(served.post("/api/v1/admin/grants", &unknown).bearer_auth(&admin), 404, "not_found").await;
    let nothing = json!({ "client": made["client"]["id"], "amount_micro_usd": 0, "reference": "r" });
    refused(served.post("/api/v1/admin/grants", &nothing).bearer_auth(&admin), 400, "bad_request").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_are_counted_and_told() {
    let served = Served::start(None, |config| config.http.per_minute = 5).await;
    let (client, _) = served.client(0, &[]).await;
    let key = served.key(&client, KeyWish { per_minute: Some(2), ..KeyWish::default() }).await;
    for left in ["1", "0"] {
        let response = served.get("/api/v1/me").bearer_auth(&key).send().await.expect("an answer");
        assert_eq!((response.status().as_u16(), &response.headers()["x-ratelimit-limit"]), (200, &"2".parse().unwrap()));
        assert_eq!(response.headers()["x-ratelimit-remaining"], left);
    }
    let over = served.get("/api/v1/me").bearer_auth(&key).send().await.expect("an answer");
    assert!(over.headers().contains_key("retry-after") && over.headers().contains_key("x-ratelimit-reset"));
    assert_eq!(answered(over, 429).await["error"]["code"], "rate_limited");
    // Addresses, too; and what a stranger claims of itself does not give it more.
    let mut statuses = Vec::new();
    for n in 0..6 {
        let request = served.get("/openapi.json").header("x-forwarded-for", format!("192.0.2.{n}"));
        statuses.push(request.send().await.expect("an answer").status().as_u16());
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_names_and_pages_do_not_come_in() {
    let served = Served::start(None, |config| config.http.origins = vec!["https://app.example".into()]).await;
    let asked = |host: &'static str| served.get("/openapi.json").header("host", host);
    refused(asked("evil.example"), 403, "unknown_host").await;
    refused(asked("127.0.0.1.evil.example"), 403, "unknown_host").await;
    refused(served.get("/openapi.json").header("origin", "https://evil.example"), 403, "unknown_origin").await;
    let known = served.get("/openapi.json").header("origin", "https://app.example").send().await.expect("an answer");
    let header = |name: &str| known.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
    assert_eq!(header("access-control-allow-origin").as_deref(), Some("https://app.example"));
    assert_eq!(header("access-control-allow-credentials"), None);
    assert_eq!(
        (header("x-content-type-options").as_deref(), header("referrer-policy").as_deref()),
        (Some("nosniff"), Some("same-origin"))
    );
    assert!(header("content-security-policy").expect("a policy").contains("frame-ancestors 'none'"));
    let preflight = served.ask(Method::OPTIONS, "/api/v1/jobs").header("origin", "https://app.example");
    let preflight = preflight.header("access-control-request-method", "POST").send().await.expect("an answer");
    assert_eq!(preflight.status().as_u16(), 204);
    assert_eq!(preflight.headers()["access-control-allow-methods"], "GET, POST, DELETE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_counts_only_for_our_own_pages() {
    let served = Served::alone().await;
    let (client, _) = served.client(0, &[]).await;
    let (text, row) = accounts::session::new(&client, now().after(accounts::session::LIFE_MS));
    served.plane.store.put_session(&row).await.expect("a store");
    let cookie = format!("infernet={}", *text);
    let me = answered(served.get("/api/v1/me").header("cookie", &cookie).send().await.expect("an answer"), 200).await;
    let token = me["csrf_token"].as_str().expect("a token");
    let make = || served.post("/api/v1/keys", &json!({})).header("cookie", &cookie);
    let own = served.plane.config.origin.as_str();
    refused(make(), 403, "unknown_origin").await;
    refused(make().header("origin", own), 403, "csrf").await;
    refused(make().header("origin", own).header("x-csrf-token", "0".repeat(64)), 403, "csrf").await;
    refused(make().header("sec-fetch-site", "cross-site").header("x-csrf-token", token), 403, "unknown_origin").await;
    answered(make().header("origin", own).header("x-csrf-token", token).send().await.expect("an answer"), 201).await;
    let out = served.post("/api/v1/auth/logout", &json!({})).header("cookie", &cookie);
    let out = out.header("sec-fetch-site", "same-origin").header("x-csrf-token", token).send().await.expect("an answer");
    answered(out, 204).await;
    refused(served.get("/api/v1/me").header("cookie", &cookie), 401, "unauthorized").await;
    assert!(!served.keeps(&text), "cookies are kept as hashes");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_have_their_status_and_are_not_quoted() {
    let network = Network::start().await;
    let post = |body: Vec<u8>| network.ask(Method::POST, "/api/v1/jobs").bearer_auth(&network.key).body(body);
    for body in
        ["{secret", "[]", r#"{"model":"m","prompt":7}"#, r#"{"model":"m","messages":"secret"}"#, r#"{"prompt":"secret"}"#, ""]
    {
        let message = refused(post(body.into()), 400, "bad_request").await;
        assert!(!message.contains("secret"), "{message}");
    }
    refused(post(vec![b' '; 13 * 1024 * 1024]), 413, "too_large").await;
    let keys = served_key_body(&network, vec![b' '; 100_000]);
    refused(keys, 413, "too_large").await;
    refused(network.ask(Method::PUT, "/api/v1/jobs").bearer_auth(&network.key), 405, "method_not_allowed").await;
    refused(network.get("/api/v1/nothing"), 404, "not_found").await;
    for path in ["/api/v1/nodes/%ff", "/api/v1/cprs/%ff", "/api/v1/jobs/%ff", "/api/v1/keys/%c3"] {
        refused(network.get(path).bearer_auth(&network.key), 400, "bad_request").await;
    }
}

fn served_key_body(network: &Network, body: Vec<u8>) -> RequestBuilder {
    network.ask(Method::POST, "/api/v1/auth/wallet/start").body(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_description_is_there() {
    let network = Network::start().await;
    let served = answered(network.get("/openapi.json").send().await.expect("an answer"), 200).await;
    let description = serde_json::to_value(Description::openapi()).expect("JSON");
    assert_eq!(served, description);
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for (method, about) in methods.as_object().expect("methods") {
            let path = path.replace("{id}", &format!("job_{}", "0".repeat(32))).replace("{prefix}", "x").replace("{code}", "x");
            let method: Method = method.to_uppercase().parse().expect("a method");
            let response = network.ask(method.clone(), &path).send().await.expect("an answer");
            let status = response.status().as_u16();
            let text = response.text().await.expect("a body");
            assert!(
                !text.contains("there is no such route") && status < 500 && status != 405,
                "{method} {path}: {status} {text}"
            );
            let known = about["responses"].as_object().expect("responses").contains_key(&status.to_string());
            assert!(known, "{method} {path} says nothing of {status}: {text}");
        }
    }
    let page = network.get("/docs/api").send().await.expect("an answer").text().await.expect("a page");
    assert!(page.contains("/api/v1/jobs/batch"));
}

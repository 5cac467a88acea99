//! Signing in by a node's key, a wallet, a passkey, and from a terminal.

use super::*;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use infernet_wire::{
    hash,
    http_auth::{self, HEADER},
    key::NodeKey,
};

const PATH: &str = "/api/v1/auth/key";

fn signed(served: &Served, key: &NodeKey, body: &str, nonce: u8) -> RequestBuilder {
    let request = http_auth::Request { method: "POST", path: PATH, body: body.as_bytes() };
    let header = http_auth::sign(key, request, now().0 / 1_000, &[nonce; 16]);
    served.ask(Method::POST, PATH).header(HEADER, header).body(body.to_owned())
}

fn login(origin: &str) -> String {
    json!({ "aud": origin, "as": "node" }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_key_signs_in_for_this_plane_once_and_stays_one_client() {
    let served = Served::alone().await;
    let origin = served.plane.config.origin.clone();
    let node = NodeKey::from_bytes(&[3; 32]).expect("a key");
    let body = login(&origin);
    let first = signed(&served, &node, &body, 1);
    let replay = signed(&served, &node, &body, 1);
    let first = answered(first.send().await.expect("an answer"), 201).await;
    assert!(refused(replay, 401, "unauthorized").await.contains("nonce"));
    let again = answered(signed(&served, &node, &body, 2).send().await.expect("an answer"), 201).await;
    assert_eq!(first["data"]["client"]["id"], again["data"]["client"]["id"]);
    let key = first["data"]["key"]["key"].as_str().expect("a key");
    let me = answered(served.get("/api/v1/me").bearer_auth(key).send().await.expect("an answer"), 200).await;
    assert_eq!((&me["id"], &me["admin"]), (&first["data"]["client"]["id"], &json!(false)));
    // For another plane, altered, or by nobody.
    refused(signed(&served, &node, &login("https://other.example"), 3), 401, "unauthorized").await;
    refused(signed(&served, &node, &body, 4).body(format!("{body} ")), 401, "unauthorized").await;
    refused(served.ask(Method::POST, PATH).body(body), 401, "unauthorized").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_the_plane_is_configured_by_key_and_strangers_may_be_kept_out() {
    let admin = NodeKey::from_bytes(&[4; 32]).expect("a key");
    let subject: String = admin.id().x_only().iter().map(|byte| format!("{byte:02x}")).collect();
    let served = Served::start(None, |config| {
        config.http.admins = vec![format!("node:{subject}")];
        config.http.sign_up = false;
    })
    .await;
    let body = login(&served.plane.config.origin);
    let made = answered(signed(&served, &admin, &body, 1).send().await.expect("an answer"), 201).await;
    assert_eq!(made["data"]["client"]["admin"], true);
    let stranger = NodeKey::from_bytes(&[5; 32]).expect("a key");
    refused(signed(&served, &stranger, &body, 1), 403, "forbidden").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_signs_a_browser_in_only_if_it_may_do_all() {
    let served = Served::alone().await;
    let (client, whole) = served.client(0, &["jobs", "read", "manage"]).await;
    let scopes = || ["jobs", "read", "manage"].map(str::to_owned).to_vec();
    let capped = KeyWish { scopes: scopes(), per_day: Some(MicroUsd(1)), ..KeyWish::default() };
    let capped = served.key(&client, capped).await;
    let part = served.key(&client, KeyWish { scopes: vec!["manage".into()], ..KeyWish::default() }).await;
    let sign_in = |key: &str| served.post("/api/v1/auth/session", &json!({})).bearer_auth(key);
    for key in [&capped, &part] {
        refused(sign_in(key), 403, "forbidden").await;
    }
    refused(served.post("/api/v1/auth/session", &json!({})), 401, "unauthorized").await;
    let signed_in = sign_in(&whole).send().await.expect("an answer");
    let cookie = signed_in.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("a cookie").to_owned();
    answered(signed_in, 200).await;
    let me = served.get("/api/v1/me").header("cookie", cookie).send().await.expect("an answer");
    assert_eq!(answered(me, 200).await["id"], client.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_approved_in_a_browser_and_gets_one_key() {
    let served = Served::alone().await;
    let (client, key) = served.client(0, &["manage"]).await;
    let started = answered(served.post("/api/auth/cli/start", &json!({})).send().await.expect("an answer"), 200).await;
    let code = started["code"].as_str().expect("a code");
    let poll = || async { served.get(&format!("/api/auth/cli/poll/{code}")).send().await.expect("an answer") };
    assert_eq!(answered(poll().await, 200).await["status"], "pending");
    let approve = || served.post("/api/auth/cli/approve", &json!({ "code": code }));
    answered(approve().send().await.expect("an answer"), 401).await;
    answered(approve().bearer_auth(&key).send().await.expect("an answer"), 403).await;
    let (text, row) = accounts::session::new(&client, now().after(accounts::session::LIFE_MS));
    served.plane.store.put_session(&row).await.expect("a store");
    let cookie = format!("infernet={}", *text);
    // The page shows the code and holds the token that its form must bring.
    let page = served.get(&format!("/auth/cli/{code}")).header("cookie", &cookie).send().await.expect("an answer");
    let page = page.text().await.expect("a page");
    let token = accounts::session::csrf(&text);
    assert!(page.contains(code) && page.contains(&token), "{page}");
    let form = |token: &str| {
        served.ask(Method::POST, &format!("/auth/cli/{code}")).header("cookie", &cookie).body(format!("csrf={token}"))
    };
    let own = served.plane.config.origin.as_str();
    let forged = form(&token).header("sec-fetch-site", "cross-site").send().await.expect("an answer");
    assert_eq!(forged.status().as_u16(), 403);
    assert_eq!(form("x").header("origin", own).send().await.expect("an answer").status().as_u16(), 403);
    assert_eq!(answered(poll().await, 200).await["status"], "pending");
    assert_eq!(form(&token).header("origin", own).send().await.expect("an answer").status().as_u16(), 200);
    let (a, b, c) = tokio::join!(poll(), poll(), poll());
    let mut tokens = Vec::new();
    for answer in [a, b, c] {
        let answer: Value = answer.json().await.expect("JSON");
        tokens.extend(answer["token"].as_str().map(str::to_owned));
    }
    assert_eq!(tokens.len(), 1, "of three polls at once one gets the key");
    let me = answered(served.get("/api/v1/me").bearer_auth(&tokens[0]).send().await.expect("an answer"), 200).await;
    assert_eq!(me["id"], client.0);
    assert_eq!(answered(poll().await, 200).await["status"], "consumed");
    assert_eq!(
        answered(served.get("/api/auth/cli/poll/nothing").send().await.expect("an answer"), 404).await["status"],
        "not_found"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn challenges_count_once_and_sign_ins_are_limited() {
    let served = Served::start(None, |config| config.http.sign_ins_per_minute = 3).await;
    let start = json!({ "chain": "evm", "address": "0x14791697260e4c9a71f18484c9f997b308e59325" });
    let begin = || served.post("/api/v1/auth/wallet/start", &start);
    let challenge = answered(begin().send().await.expect("an answer"), 200).await;
    assert!(challenge["message"].as_str().expect("text").contains("0x14791697260E4c9A71f18484C9f997B308e59325"));
    let finish = json!({ "id": challenge["id"], "signature": format!("0x{}", "11".repeat(65)) });
    let first = refused(served.post("/api/v1/auth/wallet/finish", &finish), 401, "unauthorized").await;
    let second = refused(served.post("/api/v1/auth/wallet/finish", &finish), 401, "unauthorized").await;
    assert!(first.contains("signature") && second.contains("begin again"), "{first} / {second}");
    let bad = json!({ "chain": "solana", "address": "nope" });
    refused(served.post("/api/v1/auth/wallet/start", &bad), 400, "bad_request").await;
    begin().send().await.expect("an answer").error_for_status().expect("the third");
    refused(begin(), 429, "rate_limited").await;
}

/// The cookie and the token of an answer that signs somebody in.
async fn session(response: Response) -> (Value, String) {
    let cookie = response.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("a cookie").to_owned();
    (answered(response, 200).await["client"].clone(), cookie)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_signs_in_and_comes_back_as_the_same_client() {
    let served = Served::alone().await;
    let wallet = Ed25519KeyPair::from_seed_unchecked(&[6; 32]).expect("a key");
    let address = bs58::encode(wallet.public_key().as_ref()).into_string();
    let start = json!({ "chain": "solana", "address": address });
    let mut ids = Vec::new();
    for _ in 0..2 {
        let begun = served.post("/api/v1/auth/wallet/start", &start).send().await.expect("an answer");
        let challenge = answered(begun, 200).await;
        let message = challenge["message"].as_str().expect("a text");
        let signature = bs58::encode(wallet.sign(message.as_bytes()).as_ref()).into_string();
        let finish = json!({ "id": challenge["id"], "signature": signature });
        let (client, cookie) =
            session(served.post("/api/v1/auth/wallet/finish", &finish).send().await.expect("an answer")).await;
        let me = served.get("/api/v1/me").header("cookie", cookie).send().await.expect("an answer");
        let me = answered(me, 200).await;
        assert_eq!((&me["id"], &me["csrf_token"]), (&client["id"], &client["csrf_token"]));
        assert_eq!(me["balance_micro_usd"], 0, "to sign in brings no money");
        refused(served.post("/api/v1/auth/wallet/finish", &finish), 401, "unauthorized").await;
        ids.push(client["id"].clone());
    }
    assert_eq!(ids[0], ids[1]);
}

/// A device with a passkey.
struct Device {
    key: EcdsaKeyPair,
    id: String,
    counter: u32,
}

impl Device {
    fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
        Device { key, id: URL_SAFE_NO_PAD.encode([7; 20]), counter: 0 }
    }

    /// What a browser gives for `challenge` on a page of `origin`.
    fn says(&mut self, kind: &str, challenge: &Value, origin: &str) -> Value {
        self.counter += 1;
        let client = json!({ "type": kind, "challenge": challenge, "origin": origin }).to_string();
        let data = [hash::sha256(b"127.0.0.1").as_ref(), &[5], &self.counter.to_be_bytes()].concat();
        let signed = [data.as_slice(), hash::sha256(client.as_bytes()).as_ref()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).expect("a signature");
        // RFC 5480: a P-256 key, uncompressed.
        let head = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
        let info = [&head[..], self.key.public_key().as_ref()].concat();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({ "id": self.id, "response": {
            "clientDataJSON": encode(client.as_bytes()), "authenticatorData": encode(&data),
            "publicKey": encode(&info), "signature": encode(signature.as_ref()),
        } })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_is_made_and_signs_in_on_this_plane_alone() {
    let served = Served::alone().await;
    let origin = served.plane.config.origin.clone();
    let mut device = Device::new();
    let begin = async |path: &str| answered(served.post(path, &json!({})).send().await.expect("an answer"), 200).await;
    let made = begin("/api/v1/auth/passkey/register/start").await;
    assert_eq!(made["options"]["rp"]["id"], "127.0.0.1");
    let credential = device.says("webauthn.create", &made["options"]["challenge"], &origin);
    let finish = json!({ "id": made["id"], "name": "my phone", "credential": credential });
    let (client, _) =
        session(served.post("/api/v1/auth/passkey/register/finish", &finish).send().await.expect("an answer")).await;
    let path = "/api/v1/auth/passkey/finish";
    let asked = begin("/api/v1/auth/passkey/start").await;
    let credential = device.says("webauthn.get", &asked["options"]["challenge"], &origin);
    let body = json!({ "id": asked["id"], "credential": credential });
    let (again, _) = session(served.post(path, &body).send().await.expect("an answer")).await;
    assert_eq!(client["id"], again["id"]);
    refused(served.post(path, &body), 401, "unauthorized").await;
    // A page of another origin had it signed; then a copy whose counter is behind.
    let asked = begin("/api/v1/auth/passkey/start").await;
    let credential = device.says("webauthn.get", &asked["options"]["challenge"], "https://evil.example");
    refused(served.post(path, &json!({ "id": asked["id"], "credential": credential })), 401, "unauthorized").await;
    device.counter = 0;
    let asked = begin("/api/v1/auth/passkey/start").await;
    let credential = device.says("webauthn.get", &asked["options"]["challenge"], &origin);
    let copied = refused(served.post(path, &json!({ "id": asked["id"], "credential": credential })), 401, "unauthorized").await;
    assert!(copied.contains("copied"), "{copied}");
}

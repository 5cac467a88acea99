//! A whole plane with a chain: what it tells clients, its operator and whoever watches it.

use super::*;
use infernet_plane::{
    accounts::{KeyWish, Scope},
    server::Running,
    settings::{Keys, Settings},
};
use reqwest::Client;
use serde_json::Value;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

async fn plane(scene: &Scene, home: &Path) -> Running {
    let keys = Keys {
        listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        watch_listen: Some("127.0.0.1:0".into()),
        network: Some(NETWORK.parse().expect("a network")),
        p2p_listen: Some(vec![cluster::loopback()]),
        mdns: Some(false),
        evm_rpc: Some(format!("{}/?key=secret-secret", scene.anvil.url())),
        evm_chain: Some(CHAIN),
        evm_token: Some(scene.token),
        evm_depth: Some(DEPTH),
        evm_cold: Some(address(9)),
        evm_hot_cap: Some(100 * DOLLAR),
        ..Keys::default()
    };
    let mut settings = Settings::load(home, keys).expect("good");
    settings.cashier.as_mut().expect("a chain").poll = POLL;
    Running::start(settings).await.expect("a plane")
}

async fn full_key(store: &dyn Store, client: &ClientId) -> String {
    let scopes = Scope::ALL.map(|scope| scope.name().to_owned()).to_vec();
    let wish = KeyWish { scopes, ..KeyWish::default() };
    accounts::new_key(store, client, wish).await.expect("a key").0.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_where_to_pay_and_what_came_and_the_operator_how_the_chain_is() {
    let Some(scene) = Scene::new().await else { return };
    let home = tempfile::tempdir().expect("a directory");
    let running = plane(&scene, home.path()).await;
    let store = running.plane.store.clone();
    let client = signs_in(&*store, 2).await;
    let admin = accounts::new_client(&*store, "admin", true).await.expect("a client").id;
    let (own, admin) = (full_key(&*store, &client).await, full_key(&*store, &admin).await);
    let http = Client::builder().no_proxy().timeout(SOON).build().expect("a client");
    let get = |path: &str, key: &str| {
        let request = http.get(format!("{}{path}", running.plane.config.origin)).bearer_auth(key);
        async move {
            let response = request.send().await.expect("an answer");
            (response.status().as_u16(), response.text().await.expect("a body"))
        }
    };
    let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let (status, told) = get("/api/v1/user/deposits", &own).await;
    assert_eq!(status, 200, "{told}");
    // Nobody is told before the chain was read.
    let to = || async { json(&get("/api/v1/user/deposits", &own).await.1)["deposit_to"].clone() };
    eventually("the address", || async { !to().await.is_null() }).await;
    let to = to().await;
    assert_eq!((&to["chain"], &to["depth"]), (&CHAIN.into(), &DEPTH.into()), "{to}");
    assert_eq!(to["token"], scene.token.to_string());
    let account: EvmAddress = to["address"].as_str().expect("text").parse().expect("an address with its checksum");
    act(&scene.wallet, contract::transfer(&scene.token, &account, u128::from(8 * DOLLAR))).await.expect("paid");
    scene.anvil.mine(DEPTH).await.expect("blocks");
    eventually("the deposit", || async {
        let (_, told) = get("/api/v1/user/deposits", &own).await;
        json(&told)["deposits"][0]["amount_micro_usd"] == 8 * DOLLAR
    })
    .await;
    let (_, me) = get("/api/v1/me", &own).await;
    assert_eq!(json(&me)["balance_micro_usd"], 8 * DOLLAR);
    assert_eq!(get("/api/v1/admin/chain", &own).await.0, 403);
    let (status, chain) = get("/api/v1/admin/chain", &admin).await;
    let seen = json(&chain);
    assert_eq!((status, &seen["state"], &seen["hot_cap_micro_usd"]), (200, &"following".into(), &(100 * DOLLAR).into()));
    let (_, page) = get("/money", &own).await;
    assert!(page.contains(&account.to_string()) && page.contains("$8.00") && !page.contains("The plane's account"), "{page}");
    let (_, admins) = get("/money", &admin).await;
    assert!(admins.contains("The plane's account on chain 31337") && admins.contains("following"), "{admins}");
    let watch = running.watch_addr.expect("it is watched");
    let metrics =
        async || http.get(format!("http://{watch}/metrics")).send().await.expect("an answer").text().await.expect("text");
    // It is told a moment after the books have it.
    eventually("the metrics", || async {
        let metrics = metrics().await;
        metrics.contains("infernet_plane_chain_up 1") && metrics.contains("infernet_plane_deposits_total 1")
    })
    .await;
    let metrics = metrics().await;
    for told in [chain, page, admins, metrics] {
        assert!(!told.contains("secret-secret"), "the endpoint's key is told to nobody");
    }
    drop(store);
    running.stop(Duration::from_secs(1)).await;
}

//! Real nodes that obey operators by way of a plane.

use super::stage::{BINARY, DEADLINE, Fresh, body, command, infernet, key, obey, path_of, plane, post};
use infernet_node::{clock, control::client::Client, control::schema::StatusReport, plane_client};
use infernet_plane::{presence, store::Role};
use infernet_testnet::{
    cluster::{Sells, eventually, process::Process},
    scripted::{CHAT_MODEL, ScriptedEngine},
};
use infernet_wire::{id::NodeId, key::NodeKey};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Silence after which nodes are offline here; they say something every second.
const SILENCE: u64 = 4_000;

struct Stage {
    plane: Fresh,
    _engine: ScriptedEngine,
    node: Process,
    operator: NodeKey,
}

impl Stage {
    /// A worker that tells a plane of itself, and obeys an operator.
    async fn set() -> Self {
        let (plane, engine, operator) = (plane(SILENCE).await, ScriptedEngine::start().await.expect("an engine"), key());
        let extra = ["--plane", &plane.origin(), "--heartbeat-secs", "1"];
        let node =
            Process::worker(Path::new(BINARY), &Sells::new(engine.url(), 100, 200, 2), &[], &extra).await.expect("starts");
        obey(node.home.path(), &operator);
        let stage = Stage { plane, _engine: engine, node, operator };
        let knows = || async {
            let row = stage.plane.row(&stage.id(), Role::Provider).await;
            row.is_some_and(|row| row.specs["operators"].as_array().is_some_and(|all| !all.is_empty()))
        };
        eventually("a heartbeat that names the operator", DEADLINE, knows).await.expect("heard");
        stage
    }

    fn id(&self) -> NodeId {
        self.node.status.id
    }

    fn operators(&self) -> plane_client::Plane {
        self.plane.client(&self.operator)
    }

    /// Gives the node a command; the plane's row.
    async fn give(&self, verb: &str, argument: &str) -> Value {
        let signed = command(&self.operator, self.id(), clock::now().0, verb, argument);
        self.operators().post(&path_of(&self.id()), body("signed", signed)).await.expect("carried")
    }

    async fn state(&self, given: &Value) -> Value {
        let path = format!("{}/{}", path_of(&self.id()), given["id"].as_str().expect("an id"));
        self.operators().get(&path).await.expect("known")
    }

    /// Waits until a command is as `is` says.
    async fn until(&self, what: &str, given: &Value, is: impl Fn(&Value) -> bool) -> Value {
        let reached = || async { is(&self.state(given).await) };
        if let Err(error) = eventually(what, DEADLINE, reached).await {
            panic!("{error}: {}", self.state(given).await);
        }
        self.state(given).await
    }

    async fn done(&self, verb: &str, argument: &str) -> Value {
        let given = self.give(verb, argument).await;
        self.until(verb, &given, |state| !["pending", "running"].contains(&state["status"].as_str().unwrap_or(""))).await
    }

    async fn status(&self) -> StatusReport {
        Client::connect(self.node.home.path()).expect("it runs").get("status").await.expect("it answers")
    }
}

#[tokio::test]
async fn a_node_shows_as_online_with_what_it_has_and_as_offline_when_it_is_silent() {
    let mut stage = Stage::set().await;
    let row = stage.plane.row(&stage.id(), Role::Provider).await.expect("a row");
    assert!(row.names_audience && presence::is_online(&row, SILENCE, clock::now()));
    assert_eq!((row.node_id.as_str(), row.address.as_str()), (stage.id().to_string().as_str(), "127.0.0.1"));
    assert!(row.port > 0 && row.specs["slots"] == 2 && row.specs["load"]["active_jobs"] == 0, "{}", row.specs);
    let served = row.specs["served_models"].as_array().expect("models");
    assert!(served.iter().any(|model| model == CHAT_MODEL), "{served:?}");
    let said = row.specs.to_string();
    assert!(!said.contains(stage.node.home.path().to_str().expect("a path")), "{said}");

    // The plane knows it before the node has its answer.
    let is_told = async || matches!(stage.status().await.planes.as_slice(), [plane] if plane.told.is_some());
    eventually("the plane's answer", DEADLINE, is_told).await.expect("told");
    let status = stage.status().await;
    let [told] = status.planes.as_slice() else { panic!("{:?}", status.planes) };
    assert!(told.error.is_none() && told.url.starts_with("http://"), "{told:?}");

    stage.node.kill().await;
    let id = stage.id();
    let online = || async {
        let row = stage.plane.row(&id, Role::Provider).await.expect("a row");
        !presence::is_online(&row, SILENCE, clock::now())
    };
    eventually("silence", DEADLINE, online).await.expect("offline");
    let signed = command(&stage.operator, id, 1, "drain", "");
    let refused = stage.operators().post(&path_of(&id), body("signed", signed)).await.expect_err("refused at once");
    assert_eq!(refused.status(), Some(409), "{refused}");
}

#[tokio::test]
async fn a_node_that_stops_says_so() {
    let mut stage = Stage::set().await;
    stage.node.stop(DEADLINE).await.expect("in order");
    let row = stage.plane.row(&stage.id(), Role::Provider).await.expect("a row");
    assert!(!row.available);
    let signed = command(&stage.operator, stage.id(), 1, "drain", "");
    let refused = stage.operators().post(&path_of(&stage.id()), body("signed", signed)).await.expect_err("refused at once");
    assert!(refused.status() == Some(409) && refused.to_string().contains("that it stops"), "{refused}");
}

#[tokio::test]
async fn commands_are_carried_out_and_reported() {
    let stage = Stage::set().await;
    let drained = stage.done("drain", "").await;
    assert_eq!((&drained["status"], &drained["result"]), (&json!("completed"), &json!({ "draining": true })), "{drained}");
    assert!(stage.status().await.seller.expect("it sells").draining);
    assert_eq!(stage.done("resume", "").await["status"], "completed");
    assert!(!stage.status().await.seller.expect("it sells").draining);

    let fetched = stage.done("model_install", "tiny:1b").await;
    assert_eq!(fetched["status"], "completed", "{fetched}");
    let has = |offers: &Value| offers["offers"].as_array().expect("models").iter().any(|model| model == "tiny:1b");
    assert!(has(&fetched["result"]), "{fetched}");
    let removed = stage.done("model_remove", "tiny:1b").await;
    assert!(removed["status"] == "completed" && !has(&removed["result"]), "{removed}");
    let unknown = stage.done("model_install", "nope").await;
    assert!(unknown["status"] == "failed" && unknown["error"].to_string().contains("nobody publishes"), "{unknown}");

    assert_eq!(stage.done("set_price", "7/9").await["status"], "completed");
    assert_eq!(stage.done("set_price", &format!("{CHAT_MODEL}=11/13")).await["status"], "completed");
    let refused = stage.done("set_price", "nope=1/2").await;
    assert!(refused["status"] == "failed" && refused["error"].to_string().contains("offers no nope"), "{refused}");
    let status = stage.status().await;
    assert_eq!((status.price_in, status.price_out), (Some(7), Some(9)));
    let prices = status.seller.expect("it sells").prices;
    assert!(prices.iter().any(|of| of.model == CHAT_MODEL && (of.price_in, of.price_out) == (11, 13)), "{prices:?}");
    let kept = fs::read_to_string(stage.node.home.path().join("config.toml")).expect("kept");
    assert!(kept.contains("price_in = 7") && kept.contains("in = 11") && !kept.contains("nope"), "{kept}");
}

#[tokio::test]
async fn a_download_tells_how_far_it_is_and_stops_when_it_is_cancelled() {
    let stage = Stage::set().await;
    let given = stage.give("model_install", "slow:1b").await;
    let running = stage.until("progress", &given, |state| state["progress"]["total"].as_u64() > Some(0)).await;
    assert_eq!(running["status"], "running");
    let busy = stage.done("model_install", "tiny:1b").await;
    assert!(busy["status"] == "failed" && busy["error"].to_string().contains("being fetched already"), "{busy}");
    let path = format!("{}/{}", path_of(&stage.id()), given["id"].as_str().expect("an id"));
    let cancelled = stage.operators().delete(&path).await.expect("known");
    assert_eq!(cancelled["cancelled"], true, "{cancelled}");
    let free = || async { stage.done("model_install", "tiny:1b").await["status"] == "completed" };
    eventually("the download's end", DEADLINE, free).await.expect("stopped");
    assert_eq!(stage.state(&given).await["status"], "cancelled");
    assert_eq!(stage.operators().delete(&path).await.expect("known")["cancelled"], false);
}

#[tokio::test]
async fn only_operators_see_commands_and_only_theirs_are_carried() {
    let (stage, stranger) = (Stage::set().await, key());
    let path = path_of(&stage.id());
    let signed = command(&stranger, stage.id(), 1, "drain", "");
    let refused = stage.operators().post(&path, body("signed", signed)).await.expect_err("refused");
    assert_eq!(refused.status(), Some(403), "{refused}");
    let refused = stage.plane.client(&stranger).get(&path).await.expect_err("refused");
    assert_eq!(refused.status(), Some(403), "{refused}");
    let huge = command(&stage.operator, stage.id(), 1, "model_install", "model:5000b");
    let refused = stage.operators().post(&path, body("signed", huge)).await.expect_err("it can't fit");
    assert_eq!(refused.status(), Some(422), "{refused}");
    let given = stage.give("drain", "").await;
    assert_eq!(stage.plane.client(&stage.operator).get(&path).await.expect("rows")[0]["id"], given["id"]);
    // Nobody needs to be anybody to pass on what an operator signed.
    let signed = command(&stage.operator, stage.id(), clock::now().0, "resume", "");
    let relayed = post(&stage.plane, &stranger, &path, json!({ "signed": signed, "aud": stage.plane.origin() })).await;
    assert_eq!(relayed.0, 200, "{}", relayed.1);
}

#[tokio::test]
async fn an_operator_commands_a_node_from_afar() {
    let stage = Stage::set().await;
    let home = tempfile::tempdir().expect("a home");
    let (code, key, _) = infernet(home.path(), &["--json", "init"]).await;
    assert_eq!(code, 0, "{key}");
    let (_, shown, _) = infernet(home.path(), &["--json", "key", "show"]).await;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let operator: NodeId = shown["id"].as_str().expect("an id").parse().expect("an id");
    let added = infernet(stage.node.home.path(), &["operator", "add", &operator.to_string()]).await;
    assert_eq!(added.0, 0, "{}", added.2);
    let knows = || async {
        let row = stage.plane.row(&stage.id(), Role::Provider).await.expect("a row");
        row.specs["operators"].to_string().contains(&hex::encode(operator.x_only()))
    };
    eventually("the new operator", DEADLINE, knows).await.expect("told");

    let (node, origin) = (stage.id().to_string(), stage.plane.origin());
    let run = async |args: &[&str]| {
        infernet(home.path(), &[&["command", "--network", "testnet", "--plane", &origin, &node], args].concat()).await
    };
    let (code, out, err) = run(&["drain"]).await;
    assert_eq!((code, out.as_str()), (0, "drain: completed\n"), "{err}");
    let (code, out, _) = run(&["model_install", "nope", "--json"]).await;
    let last: Value = serde_json::from_str(out.lines().last().expect("a line")).expect("JSON");
    assert_eq!((code, &last["status"]), (1, &json!("failed")));
    let (code, out, _) = run(&["list"]).await;
    assert!(code == 0 && out.lines().count() == 2 && out.contains("drain: completed"), "{out}");
    let (code, _, err) = run(&["cancel", last["id"].as_str().expect("an id")]).await;
    assert!(code == 13 && err.contains("it is over"), "{err}");
    let (code, _, err) = run(&["set_price", "cheap"]).await;
    assert!(code == 2 && err.contains("IN/OUT"), "{err}");
    let (code, _, err) = infernet(home.path(), &["command", &node, "drain"]).await;
    assert!(code == 2 && err.contains("--plane"), "{err}");
}

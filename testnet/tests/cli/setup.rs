//! `infernet setup`, with questions and without.

use super::{command, daily::check_schema, ended, engine, home, infernet, mistakes::check, terminal::Terminal};
use serde_json::Value;
use std::{fs, path::Path};

fn config(home: &Path) -> Vec<String> {
    let text = fs::read_to_string(home.join("config.toml")).expect("a configuration");
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[tokio::test]
async fn without_questions_it_takes_flags_and_defaults_and_changes_nothing_the_second_time() {
    let (home, engine) = (home(), engine().await);
    let backend = format!("ollama={}", engine.url());
    let args = ["setup", "--yes", "--backend", &backend, "--price-out", "500000", "--slots", "3", "--json"];
    let first: Value = infernet(home.path(), &args).await.json();
    let schema = infernet(home.path(), &["schema", "setup"]).await.json();
    check_schema("setup", &first, &schema, &schema);
    assert_eq!((&first["new_key"], &first["new_config"]), (&true.into(), &true.into()), "{first}");
    assert_eq!(config(home.path()), [format!("backend = [\"{backend}\"]"), "price_out = 500000".into(), "slots = 3".into()]);
    assert!(first["next"].as_str().is_some_and(|next| next.ends_with("start")), "{first}");

    let read = |name| fs::read(home.path().join(name)).expect("a file");
    let before = (read("identity.key"), read("config.toml"));
    for again in [&args[..], &["setup", "--yes", "--json"]] {
        let again = infernet(home.path(), again).await.json();
        assert_eq!((&again["id"], &again["new_key"], &again["new_config"]), (&first["id"], &false.into(), &false.into()));
    }
    check(home.path(), &["setup", "--yes", "--price-out", "5"], 3, &["price_out is 500000, not 5", "kept"]).await;
    assert_eq!((read("identity.key"), read("config.toml")), before);
}

#[tokio::test]
async fn nobody_is_asked_without_a_terminal() {
    let home = home();
    let reply = ended(command(home.path(), &["setup"]).spawn().expect("starts")).await;
    assert!(reply.code == 2 && reply.out.is_empty() && reply.err.contains("--yes"), "{reply:?}");
    check(home.path(), &["setup", "--yes", "--slots", "0"], 3, &["slots", "from 1"]).await;
    let buys = ["setup", "--yes", "--role", "buy", "--backend", "ollama=http://127.0.0.1:1"];
    check(home.path(), &buys, 2, &["--backend", "sells"]).await;
    assert_eq!(fs::read_dir(home.path()).expect("a home").count(), 0, "nothing was written");
}

#[tokio::test]
async fn answers_on_a_terminal_become_a_configuration() {
    let (home, engine) = (home(), engine().await);
    let Some(mut terminal) = Terminal::open(home.path(), &["setup", "--no-service"]) else { return };
    terminal.shows(&["sell what an engine can do"]).await;
    terminal.press("s\n").await;
    terminal.shows(&["which engine, as KIND=URL?"]).await;
    terminal.press(&format!("ollama={}\n", engine.url())).await;
    terminal.shows(&["answers and has tiny-chat", "million input tokens"]).await;
    terminal.press("cheap\n").await;
    terminal.shows(&["write dollars"]).await;
    terminal.press("0.25\n").await;
    terminal.shows(&["million output tokens"]).await;
    terminal.press("\n").await;
    terminal.shows(&["jobs at once?"]).await;
    terminal.press("6\n").await;
    terminal.shows(&["a stranger may owe you?"]).await;
    terminal.press("0.25\n").await;
    terminal.shows(&["whom to meet first?"]).await;
    terminal.press("/ip4/127.0.0.1/tcp/1\n").await;
    assert_eq!(terminal.end().await, Some(0), "{}", terminal.text);
    assert!(terminal.text.contains("made the key") && terminal.text.contains("next: `infernet"), "{}", terminal.text);
    let backend = format!("backend = [\"ollama={}\"]", engine.url());
    let lines = [
        "bootstrap = [\"/ip4/127.0.0.1/tcp/1\"]",
        &backend,
        "price_in = 250000",
        "price_out = 400000",
        "slots = 6",
        "free_credit = 250000",
        "api = false",
    ];
    assert_eq!(config(home.path()), lines);
}

#[tokio::test]
async fn whoever_leaves_in_the_middle_leaves_nothing_behind() {
    let home = home();
    let Some(mut terminal) = Terminal::open(home.path(), &["setup"]) else { return };
    terminal.shows(&["sell what an engine can do"]).await;
    // Ctrl-D: the end of all answers.
    terminal.press("\u{4}").await;
    assert_eq!(terminal.end().await, Some(2), "{}", terminal.text);
    assert!(terminal.text.contains("nothing was written"), "{}", terminal.text);
    assert!(!home.path().join("identity.key").exists() && !home.path().join("config.toml").exists());
}

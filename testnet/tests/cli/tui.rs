//! `infernet tui` in a terminal.

use super::{MODEL, Started, engine, home, infernet, terminal::Terminal};

/// What gives a terminal back: its first screen, and its cursor.
const BACK: [&str; 2] = ["\u{1b}[?1049l", "\u{1b}[?25h"];

fn gave_back(terminal: &Terminal) {
    let taken = terminal.text.rfind("\u{1b}[?1049h").expect("it took the terminal");
    for sequence in BACK {
        assert!(terminal.text.rfind(sequence).is_some_and(|at| at > taken), "{sequence:?}");
    }
}

#[tokio::test]
async fn no_node_no_terminal_and_json_are_told() {
    let home = home();
    let reply = infernet(home.path(), &["tui"]).await;
    assert_eq!((reply.code, reply.out.as_str()), (11, ""), "{reply:?}");
    let node = Started::new(home.path(), &["--no-serve"]).await;
    let reply = infernet(home.path(), &["tui"]).await;
    assert!(reply.code == 2 && reply.err.contains("needs a terminal") && reply.err.contains("status --watch"), "{reply:?}");
    let reply = infernet(home.path(), &["tui", "--json"]).await;
    assert!(reply.code == 2 && reply.err.contains("for people"), "{reply:?}");
    node.stop().await;
}

#[tokio::test]
async fn the_screen_tells_of_a_worker_drains_it_and_outlives_it() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    let id = worker.status.id.to_string();
    let Some(mut screen) = Terminal::open(worker_home.path(), &["tui"]) else { return worker.stop().await };
    screen.shows(&[&id[..40], "free of 4", "1 node", "7 log", "tiny-chat:latest", "no offer was heard yet"]).await;

    let buyer = Started::buyer(buyer_home.path(), &worker).await;
    infernet(buyer_home.path(), &["chat", "Hello", "--model", MODEL, "--path", "auction"]).await.fine();
    screen.shows(&["won 1", "settled", "earned $0.0000", "1 job", "1 receipt", buyer.status.id.short().as_str()]).await;
    screen.shows(&["last 24 hours  $0.0000"]).await;

    screen.press("d").await;
    screen.shows(&["Take no new jobs"]).await;
    screen.press("y").await;
    screen.shows(&["draining: no new jobs", "d takes new ones again"]).await;
    let status = infernet(worker_home.path(), &["status", "--json"]).await.json();
    assert_eq!(status["seller"]["draining"], true, "{status}");
    screen.press("dy").await;
    screen.shows(&["the node takes jobs again"]).await;

    worker.stop().await;
    screen.shows(&["node gone for"]).await;
    let again = Started::worker(worker_home.path(), &engine).await;
    screen.shows(&["on testnet, up"]).await;
    screen.press("?").await;
    screen.shows(&["any other key closes it."]).await;
    screen.press("xq").await;
    assert_eq!(screen.end().await, Some(0));
    gave_back(&screen);
    again.stop().await;
    buyer.stop().await;
}

#[tokio::test]
async fn a_signal_gives_the_terminal_back() {
    let home = home();
    let node = Started::new(home.path(), &["--no-serve"]).await;
    for name in ["TERM", "INT", "HUP"] {
        let Some(mut screen) = Terminal::open(home.path(), &["tui"]) else { break };
        screen.shows(&["only buys"]).await;
        screen.signal(home.path(), name);
        assert_eq!(screen.end().await, Some(0), "{name}");
        gave_back(&screen);
    }
    if let Some(mut screen) = Terminal::open(home.path(), &["tui"]) {
        screen.shows(&["only buys"]).await;
        screen.press("\u{3}").await;
        assert_eq!(screen.end().await, Some(0), "Ctrl-C");
        gave_back(&screen);
    }
    node.stop().await;
}

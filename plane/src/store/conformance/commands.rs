//! Operators' commands.

use super::{Both, NOW, RACERS, later, name, pubkey};
use crate::store::{CommandRow, CommandStatus, Pubkey, Store};
use infernet_wire::id::NodeId;
use serde_json::json;
use std::collections::BTreeSet;

fn row(node: Pubkey, seconds: u64) -> CommandRow {
    CommandRow {
        id: name(""),
        node,
        verb: "model_install".into(),
        args: json!({"model": "qwen2.5:7b"}),
        signed: Some(vec![0, 255, 7]),
        operator: Some(NodeId([3; 33])),
        status: CommandStatus::Pending,
        progress: None,
        result: None,
        error: None,
        issued: later(seconds),
        expires: later(300),
        started: None,
        lease: None,
        ended: None,
    }
}

async fn take(store: &dyn Store, node: Pubkey, limit: usize, at: u64) -> Vec<String> {
    let taken = store.take_commands(node, limit, later(at), later(at + 60)).await.expect("commands");
    taken.into_iter().map(|command| command.id).collect()
}

pub(super) async fn conform(both: &Both) {
    a_command_is_kept_whole(both.store()).await;
    the_oldest_is_taken_first_and_once(both).await;
    a_lease_ends(both.store()).await;
    a_command_expires(both.store()).await;
    a_command_changes_only_from_where_it_may(both).await;
}

async fn a_command_is_kept_whole(store: &dyn Store) {
    let plain = row(pubkey(), 1);
    let full = CommandRow {
        signed: None,
        operator: None,
        status: CommandStatus::Completed,
        progress: Some(json!({"pct": 12.5, "phase": "download"})),
        result: Some(json!({"ok": true})),
        error: Some("it's over".into()),
        started: Some(later(2)),
        lease: Some(later(3)),
        ended: Some(later(4)),
        ..row(pubkey(), 1)
    };
    for command in [plain, full] {
        store.put_command(&command).await.expect("put");
        assert_eq!(store.command(&command.id).await, Ok(Some(command.clone())));
        store.put_command(&command).await.expect_err("a name is used once");
    }
    assert_eq!(store.command(&name("")).await, Ok(None));
}

async fn the_oldest_is_taken_first_and_once(both: &Both) {
    let (store, node) = (both.store(), pubkey());
    let rows: Vec<CommandRow> = [3, 1, 2].into_iter().map(|seconds| row(node, seconds)).collect();
    for row in rows.iter().chain([&row(pubkey(), 0)]) {
        store.put_command(row).await.expect("put");
    }
    let (third, first, second) = (&rows[0].id, &rows[1].id, &rows[2].id);
    let newest: Vec<String> = store.commands(node, 2).await.expect("commands").into_iter().map(|command| command.id).collect();
    assert_eq!(newest, [third.clone(), second.clone()], "the newest first");
    assert_eq!(take(store, node, 2, 10).await, [first.clone(), second.clone()]);
    let taken = store.command(first).await.expect("read").expect("a command");
    assert_eq!((taken.status, taken.started, taken.lease), (CommandStatus::Running, Some(later(10)), Some(later(70))));
    assert_eq!(take(store, node, 9, 11).await, vec![third.clone()], "those taken are not given again");
    assert_eq!(take(store, node, 9, 11).await, [] as [String; 0]);
    let many = pubkey();
    for _ in 0..RACERS * 2 {
        store.put_command(&row(many, 1)).await.expect("put");
    }
    let told = both.race(|store, _| async move { take(&*store, many, 2, 10).await }).await;
    let all: Vec<String> = told.into_iter().flatten().collect();
    assert!(all.len() >= RACERS, "those who race get some: {}", all.len());
    assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len(), "each gets others");
    let rest = take(store, many, 500, 10).await;
    assert_eq!(all.len() + rest.len(), RACERS * 2, "and none is lost");
}

async fn a_lease_ends(store: &dyn Store) {
    let (node, command) = (pubkey(), row(pubkey(), 1));
    let command = CommandRow { node, ..command };
    store.put_command(&command).await.expect("put");
    assert_eq!(take(store, node, 9, 10).await, vec![command.id.clone()]);
    assert_eq!(take(store, node, 9, 69).await, [] as [String; 0]);
    assert_eq!(take(store, node, 9, 70).await, vec![command.id.clone()], "whoever had it is gone");
    let again = store.command(&command.id).await.expect("read").expect("a command");
    assert_eq!((again.started, again.lease), (Some(later(10)), Some(later(130))), "it began when it was first taken");
}

async fn a_command_expires(store: &dyn Store) {
    let node = pubkey();
    let (late, good) = (row(node, 1), CommandRow { expires: later(900), ..row(node, 2) });
    for command in [&late, &good] {
        store.put_command(command).await.expect("put");
    }
    assert_eq!(take(store, node, 9, 300).await, vec![good.id.clone()]);
    let over = store.command(&late.id).await.expect("read").expect("a command");
    assert_eq!((over.status, over.ended), (CommandStatus::Expired, Some(later(300))));
    assert_eq!(take(store, node, 9, 900).await, [] as [String; 0], "its lease is over, and so is its time");
    let over = store.command(&good.id).await.expect("read").expect("a command");
    assert_eq!((over.status, over.lease), (CommandStatus::Expired, None));
}

async fn a_command_changes_only_from_where_it_may(both: &Both) {
    let (store, command) = (both.store(), row(pubkey(), 1));
    store.put_command(&command).await.expect("put");
    let done = |status| CommandRow { status, ended: Some(NOW), ..command.clone() };
    let told = store.update_command(&[CommandStatus::Running], &done(CommandStatus::Completed)).await;
    assert_eq!(told, Ok(false));
    let told = store.update_command(&[CommandStatus::Pending], &done(CommandStatus::Running)).await;
    assert_eq!(told, Ok(true));
    let ends = [CommandStatus::Completed, CommandStatus::Cancelled];
    let told = both.race(|store, racer| {
        let over = done(ends[racer / 2 % 2]);
        async move { store.update_command(&[CommandStatus::Running], &over).await.expect("an answer") }
    });
    assert_eq!(told.await.into_iter().filter(|changed| *changed).count(), 1, "it ends once");
    assert_eq!(take(store, command.node, 9, 10).await, [] as [String; 0], "what is over is not given");
    let nothing = store.update_command(&[CommandStatus::Pending], &row(pubkey(), 1)).await;
    assert_eq!(nothing, Ok(false), "there is no such command");
}

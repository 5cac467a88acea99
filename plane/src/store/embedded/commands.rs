//! Commands by node.

use super::{
    EmbeddedStore,
    db::{Change, Key},
};
use crate::store::{Answer, CommandRow, CommandStatus, Commands, MAX_PAGE, Pubkey, StoreError};
use infernet_wire::time::UnixMillis;

const COMMAND: u8 = 50;
const BY_NODE: u8 = 51;
const OPEN: u8 = 52;

fn command(id: &str) -> Key {
    Key::of(COMMAND).last(id)
}

fn by_node(tag: u8, row: &CommandRow) -> Key {
    Key::of(tag).fixed(&row.node.0).number(row.issued.0).last(&row.id)
}

fn is_open(row: &CommandRow) -> bool {
    matches!(row.status, CommandStatus::Pending | CommandStatus::Running)
}

fn put(change: &mut Change<'_>, row: &CommandRow) -> Result<(), StoreError> {
    change.put_bytes(&by_node(BY_NODE, row), &[]);
    if is_open(row) {
        change.put_bytes(&by_node(OPEN, row), &[])
    } else {
        change.remove(&by_node(OPEN, row))
    }
    change.put(&command(&row.id), row)
}

impl Commands for EmbeddedStore {
    fn put_command<'a>(&'a self, row: &'a CommandRow) -> Answer<'a, ()> {
        let row = row.clone();
        self.write(move |change| {
            if change.table().has(&command(&row.id))? {
                return Err(StoreError::Refused(format!("command {} is there already", row.id)));
            }
            put(change, &row)
        })
    }

    fn take_commands(&self, node: Pubkey, limit: usize, now: UnixMillis, lease: UnixMillis) -> Answer<'_, Vec<CommandRow>> {
        self.write(move |change| {
            let prefix = Key::of(OPEN).fixed(&node.0);
            let open: Result<Vec<_>, _> = change.table().after(&prefix, &prefix).collect();
            let mut taken = Vec::new();
            for entry in open? {
                let id = Key::of(COMMAND).fixed(entry.key_after(prefix.len() + 8));
                let Some(mut row) = change.table().get::<CommandRow>(&id)? else { continue };
                if !row.can_be_taken(now) {
                    continue;
                }
                if row.expires <= now {
                    row.expire(now);
                    put(change, &row)?;
                } else if taken.len() < limit.min(MAX_PAGE) {
                    row.take(now, lease);
                    put(change, &row)?;
                    taken.push(row);
                }
            }
            Ok(taken)
        })
    }

    fn update_command<'a>(&'a self, from: &'a [CommandStatus], row: &'a CommandRow) -> Answer<'a, bool> {
        let (from, row) = (from.to_vec(), row.clone());
        self.write(move |change| {
            let old: Option<CommandRow> = change.table().get(&command(&row.id))?;
            let may = old.is_some_and(|old| from.contains(&old.status));
            if may {
                put(change, &row)?;
            }
            Ok(may)
        })
    }

    fn command<'a>(&'a self, id: &'a str) -> Answer<'a, Option<CommandRow>> {
        let key = command(id);
        self.read(move |table| table.get(&key))
    }

    fn commands(&self, node: Pubkey, limit: usize) -> Answer<'_, Vec<CommandRow>> {
        self.read(move |table| {
            let prefix = Key::of(BY_NODE).fixed(&node.0);
            let mut found = Vec::new();
            for entry in table.before(&prefix, None).take(limit.min(MAX_PAGE)) {
                let id = Key::of(COMMAND).fixed(entry?.key_after(prefix.len() + 8));
                found.extend(table.get::<CommandRow>(&id)?);
            }
            Ok(found)
        })
    }
}

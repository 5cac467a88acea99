//! Deposits and payments.
//!
//! | tag | key | value |
//! |---|---|---|
//! | 60 | source | the first block that was not read |
//! | 61 | chain ‖ transaction ‖ log | deposit |
//! | 62 | wallet ‖ key of a deposit | nothing: it is nobody's |
//! | 63 | client ‖ credited ‖ key of a deposit | nothing |
//! | 64 | account ‖ number | payment |

use super::{
    EmbeddedStore,
    clients::{add, client, identity},
    db::{Change, Key, Table},
};
use crate::store::{Answer, ClientId, ClientRow, DepositRow, Identity, MAX_PAGE, Onchain, PaymentRow, StoreError};
use infernet_wire::{money::MicroUsd, time::UnixMillis};

const MARK: u8 = 60;
const DEPOSIT: u8 = 61;
const UNCLAIMED: u8 = 62;
const CREDITED: u8 = 63;
const PAYMENT: u8 = 64;

fn transaction(row: &DepositRow) -> Key {
    Key::of(DEPOSIT).number(row.chain).fixed(row.tx.as_bytes())
}

fn deposit(row: &DepositRow) -> Key {
    transaction(row).number(row.log)
}

fn unclaimed(row: &DepositRow) -> Key {
    Key::of(UNCLAIMED).fixed(&row.from.0).fixed(deposit(row).bytes())
}

fn payment(row: &PaymentRow) -> Key {
    Key::of(PAYMENT).text(&row.account).number(row.number)
}

/// Whether the transaction was seen in another block, or this log in any.
fn is_known(table: &Table, row: &DepositRow) -> Result<bool, StoreError> {
    let prefix = transaction(row);
    for seen in table.after(&prefix, &prefix) {
        let seen: DepositRow = seen?.read()?;
        if seen.block != row.block || seen.log == row.log {
            return Ok(true);
        }
    }
    Ok(false)
}

fn newest(table: &Table, account: &str) -> Result<u64, StoreError> {
    let prefix = Key::of(PAYMENT).text(account);
    let newest = table.before(&prefix, None).next().transpose()?;
    Ok(newest.map(|row| row.read::<PaymentRow>()).transpose()?.map_or(0, |row| row.number))
}

fn credit(change: &mut Change<'_>, row: &DepositRow, to: &ClientId, now: UnixMillis) -> Result<bool, StoreError> {
    let kept = change.table().get::<DepositRow>(&deposit(row))?.filter(|kept| kept.client.is_none());
    let Some(kept) = kept else { return Ok(false) };
    let unknown = || StoreError::Refused(format!("there is no client {}", to.0));
    let owner: ClientRow = change.table().get(&client(to))?.ok_or_else(unknown)?;
    let Some(owner) = add(change, owner, &kept.entry(to, now))? else { return Ok(false) };
    change.put(&client(to), &owner)?;
    change.remove(&unclaimed(&kept));
    change.put_bytes(&Key::of(CREDITED).text(&to.0).number(now.0).fixed(deposit(&kept).bytes()), &[]);
    change.put(&deposit(&kept), &DepositRow { client: Some(to.clone()), credited: Some(now), ..kept })?;
    Ok(true)
}

impl Onchain for EmbeddedStore {
    fn block_mark<'a>(&'a self, source: &'a str) -> Answer<'a, Option<u64>> {
        let key = Key::of(MARK).last(source);
        self.read(move |table| table.get(&key))
    }

    fn put_deposits<'a>(&'a self, source: &'a str, rows: &'a [DepositRow], next: u64) -> Answer<'a, usize> {
        let (mark, rows) = (Key::of(MARK).last(source), rows.to_vec());
        self.write(move |change| {
            let mut new = std::collections::BTreeSet::new();
            for row in rows {
                let key = deposit(&row);
                if is_known(change.table(), &row)? || !new.insert(key.bytes().to_vec()) {
                    continue;
                }
                change.put_bytes(&unclaimed(&row), &[]);
                change.put(&key, &DepositRow { client: None, credited: None, ..row })?;
            }
            let before: Option<u64> = change.table().get(&mark)?;
            change.put(&mark, &before.unwrap_or_default().max(next))?;
            Ok(new.len())
        })
    }

    fn claimable_deposits(&self, limit: usize) -> Answer<'_, Vec<DepositRow>> {
        let prefix = Key::of(UNCLAIMED);
        self.read(move |table| {
            let mut found = Vec::new();
            for entry in table.after(&prefix, &prefix) {
                let entry = entry?;
                let (from, place) = entry.key_after(prefix.len()).split_at_checked(20).unwrap_or_default();
                let Some(owner) = table.get::<Identity>(&identity("evm", &hex::encode(from)))? else { continue };
                let row = table.get::<DepositRow>(&Key::read(place.to_vec()))?;
                found.extend(row.map(|row| DepositRow { client: Some(owner.client), ..row }));
                if found.len() >= limit.min(MAX_PAGE) {
                    break;
                }
            }
            Ok(found)
        })
    }

    fn credit_deposit<'a>(&'a self, row: &'a DepositRow, now: UnixMillis) -> Answer<'a, bool> {
        let row = row.clone();
        self.write(move |change| match &row.client {
            Some(to) => credit(change, &row, to, now),
            None => Ok(false),
        })
    }

    fn deposits<'a>(&'a self, client: &'a ClientId, limit: usize) -> Answer<'a, Vec<DepositRow>> {
        let prefix = Key::of(CREDITED).text(&client.0);
        self.read(move |table| {
            let mut found = Vec::new();
            for entry in table.before(&prefix, None).take(limit.min(MAX_PAGE)) {
                found.extend(table.get::<DepositRow>(&Key::read(entry?.key_after(prefix.len() + 8).to_vec()))?);
            }
            Ok(found)
        })
    }

    fn unclaimed_deposits(&self) -> Answer<'_, (u64, MicroUsd)> {
        let prefix = Key::of(UNCLAIMED);
        self.read(move |table| {
            let (mut count, mut sum) = (0, 0u64);
            for entry in table.after(&prefix, &prefix) {
                let place = Key::read(entry?.key_after(prefix.len() + 20).to_vec());
                count += 1;
                sum = sum.saturating_add(table.get::<DepositRow>(&place)?.map_or(0, |row| row.amount.0));
            }
            Ok((count, MicroUsd(sum)))
        })
    }

    fn keep_payment<'a>(&'a self, row: &'a PaymentRow) -> Answer<'a, bool> {
        let row = row.clone();
        self.write(move |change| {
            let follows = match row.revision.checked_sub(1) {
                None => newest(change.table(), &row.account)?.checked_add(1) == Some(row.number),
                Some(before) => change.table().get::<PaymentRow>(&payment(&row))?.is_some_and(|kept| kept.revision == before),
            };
            if follows {
                change.put(&payment(&row), &row)?;
            }
            Ok(follows)
        })
    }

    fn payments<'a>(&'a self, account: &'a str, limit: usize) -> Answer<'a, Vec<PaymentRow>> {
        let prefix = Key::of(PAYMENT).text(account);
        self.read(move |table| table.before(&prefix, None).take(limit.min(MAX_PAGE)).map(|row| row?.read()).collect())
    }
}

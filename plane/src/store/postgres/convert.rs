//! Between Rust's types and PostgreSQL's: its integers are signed, its text holds no NUL.

use super::super::{CommandStatus, EntryKind, JobStatus, Pubkey, Role, StoreError};
use infernet_wire::{
    evm::EvmAddress,
    id::{Hash, NodeId},
    money::MicroUsd,
    time::UnixMillis,
};
use std::borrow::Cow;
use tokio_postgres::{Row, types::FromSql, types::ToSql};

/// What is bound to a statement.
pub(super) type Value<'a> = &'a (dyn ToSql + Sync);

/// Times and money beyond what fits are as good as the most that does: the year 292 million, nine trillion dollars.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Text without NUL, which PostgreSQL has not.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// A page's length.
pub(super) fn page(limit: usize) -> i64 {
    limit.min(super::super::MAX_PAGE) as i64
}

/// A row's columns, read.
pub(super) struct Columns<'a>(pub(super) &'a Row);

fn corrupt(column: &str) -> StoreError {
    StoreError::Corrupt(format!("column {column}"))
}

impl<'a> Columns<'a> {
    pub(super) fn get<T: FromSql<'a>>(&self, column: &str) -> Result<T, StoreError> {
        self.0.try_get(column).map_err(|error| StoreError::Corrupt(format!("column {column}: {error}")))
    }

    pub(super) fn number(&self, column: &str) -> Result<u64, StoreError> {
        u64::try_from(self.get::<i64>(column)?).map_err(|_| corrupt(column))
    }

    pub(super) fn maybe_number(&self, column: &str) -> Result<Option<u64>, StoreError> {
        self.get::<Option<i64>>(column)?.map(u64::try_from).transpose().map_err(|_| corrupt(column))
    }

    pub(super) fn small<T: TryFrom<u64>>(&self, column: &str) -> Result<T, StoreError> {
        T::try_from(self.number(column)?).map_err(|_| corrupt(column))
    }

    pub(super) fn maybe_small<T: TryFrom<u64>>(&self, column: &str) -> Result<Option<T>, StoreError> {
        self.maybe_number(column)?.map(T::try_from).transpose().map_err(|_| corrupt(column))
    }

    pub(super) fn time(&self, column: &str) -> Result<UnixMillis, StoreError> {
        self.number(column).map(UnixMillis)
    }

    pub(super) fn maybe_time(&self, column: &str) -> Result<Option<UnixMillis>, StoreError> {
        Ok(self.maybe_number(column)?.map(UnixMillis))
    }

    pub(super) fn money(&self, column: &str) -> Result<MicroUsd, StoreError> {
        self.number(column).map(MicroUsd)
    }

    pub(super) fn maybe_money(&self, column: &str) -> Result<Option<MicroUsd>, StoreError> {
        Ok(self.maybe_number(column)?.map(MicroUsd))
    }

    fn bytes<const N: usize>(&self, column: &str) -> Result<[u8; N], StoreError> {
        self.get::<&[u8]>(column)?.try_into().map_err(|_| corrupt(column))
    }

    fn maybe_bytes<const N: usize>(&self, column: &str) -> Result<Option<[u8; N]>, StoreError> {
        self.get::<Option<&[u8]>>(column)?.map(<[u8; N]>::try_from).transpose().map_err(|_| corrupt(column))
    }

    pub(super) fn pubkey(&self, column: &str) -> Result<Pubkey, StoreError> {
        self.bytes(column).map(Pubkey)
    }

    pub(super) fn maybe_pubkey(&self, column: &str) -> Result<Option<Pubkey>, StoreError> {
        Ok(self.maybe_bytes(column)?.map(Pubkey))
    }

    pub(super) fn maybe_node(&self, column: &str) -> Result<Option<NodeId>, StoreError> {
        Ok(self.maybe_bytes(column)?.map(NodeId))
    }

    pub(super) fn evm(&self, column: &str) -> Result<EvmAddress, StoreError> {
        self.bytes(column).map(EvmAddress)
    }

    pub(super) fn hash(&self, column: &str) -> Result<Hash, StoreError> {
        self.bytes(column).map(Hash)
    }

    pub(super) fn maybe_hash(&self, column: &str) -> Result<Option<Hash>, StoreError> {
        Ok(self.maybe_bytes(column)?.map(Hash))
    }

    /// Text that was kept as bytes, since it may hold NUL.
    pub(super) fn maybe_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        let bytes = self.get::<Option<&[u8]>>(column)?;
        bytes.map(|bytes| String::from_utf8(bytes.to_vec())).transpose().map_err(|_| corrupt(column))
    }

    pub(super) fn named<T: Named>(&self, column: &str) -> Result<T, StoreError> {
        T::read(self.get(column)?).ok_or_else(|| corrupt(column))
    }

    pub(super) fn role(&self, column: &str) -> Result<Role, StoreError> {
        let number: i16 = self.get(column)?;
        ROLES.into_iter().find(|role| role_number(*role) == number).ok_or_else(|| corrupt(column))
    }
}

const ROLES: [Role; 3] = [Role::Provider, Role::Aggregator, Role::Client];

/// In the order of [`Role`].
pub(super) fn role_number(role: Role) -> i16 {
    match role {
        Role::Provider => 0,
        Role::Aggregator => 1,
        Role::Client => 2,
    }
}

/// What is one of a few words.
pub(super) trait Named: Copy + 'static {
    /// Each with its word.
    const NAMES: &'static [(Self, &'static str)];

    fn name(self) -> &'static str
    where
        Self: PartialEq,
    {
        Self::NAMES.iter().find(|(value, _)| *value == self).map_or("", |(_, name)| name)
    }

    fn read(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
    }
}

impl Named for JobStatus {
    const NAMES: &'static [(Self, &'static str)] = &[
        (JobStatus::Pending, "pending"),
        (JobStatus::Assigned, "assigned"),
        (JobStatus::Running, "running"),
        (JobStatus::Completed, "completed"),
        (JobStatus::Failed, "failed"),
        (JobStatus::Cancelled, "cancelled"),
    ];
}

impl Named for CommandStatus {
    const NAMES: &'static [(Self, &'static str)] = &[
        (CommandStatus::Pending, "pending"),
        (CommandStatus::Running, "running"),
        (CommandStatus::Completed, "completed"),
        (CommandStatus::Failed, "failed"),
        (CommandStatus::Cancelled, "cancelled"),
        (CommandStatus::Expired, "expired"),
    ];
}

impl Named for EntryKind {
    const NAMES: &'static [(Self, &'static str)] = &[
        (EntryKind::Grant, "grant"),
        (EntryKind::Deposit, "deposit"),
        (EntryKind::Job, "job"),
        (EntryKind::Withdrawal, "withdrawal"),
    ];
}

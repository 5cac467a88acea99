//! What the driver says, as a store's error. None of it holds the URL.

use super::super::StoreError;
use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(told) = error.as_db_error() else {
            // The error's own words leave out why.
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            return StoreError::Unreachable(format!("{error}{cause}"));
        };
        let text = format!("{} ({})", told.message(), told.code().code());
        match told.code() {
            code if *code == SqlState::QUERY_CANCELED || *code == SqlState::LOCK_NOT_AVAILABLE => {
                StoreError::Timeout(super::DEADLINE.as_millis() as u64)
            }
            // Connections, resources, shutting down; a transaction that was in another's way, or was ended; a password is the
            // operator's to mend, and then it goes on.
            code if ["08", "25", "28", "40", "53", "57"].iter().any(|class| code.code().starts_with(class)) => {
                StoreError::Unreachable(text)
            }
            _ => StoreError::Refused(text),
        }
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            PoolError::Timeout(_) => StoreError::Timeout(super::DEADLINE.as_millis() as u64),
            other => StoreError::Unreachable(other.to_string()),
        }
    }
}

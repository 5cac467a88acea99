//! What an error that wraps others comes down to.

use std::error::Error;

/// The innermost reason, which is the one that helps. HTTP's outer ones also name the URL, which may hold a secret.
pub(crate) fn root(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

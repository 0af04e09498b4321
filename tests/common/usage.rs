//! What can be wrong with a command line.

use std::str::FromStr;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("no such option: {0}")]
    Unknown(String),
    #[error("{0} wants a value")]
    NoValue(String),
    #[error("{option} {value:?}: not a number")]
    NoNumber { option: String, value: String },
}

/// The value of `option`, which is a number.
pub(crate) fn number<T: FromStr>(option: &str, value: String) -> Result<T, UsageError> {
    value.parse().map_err(|_| UsageError::NoNumber { option: option.to_owned(), value })
}

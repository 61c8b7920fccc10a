//! The log of revocations: what is in it is never taken out.

use proto::artifact::{Revoked, RevokedScope};

/// One revocation, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// Of a token.
    Token(Revoked),
    /// Of an account, a device or a key.
    Scope(RevokedScope),
}

impl LogEntry {
    /// The token, if it is about one.
    pub(super) const fn token(&self) -> Option<&Revoked> {
        match self {
            Self::Token(revoked) => Some(revoked),
            Self::Scope(_) => None,
        }
    }
}

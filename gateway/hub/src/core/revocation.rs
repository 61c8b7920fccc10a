//! The log of revocations: what is in it is never taken out.

use proto::artifact::{Revoked, RevokedScope};

use super::Hub;

/// One revocation, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// Of a token.
    Token(Revoked),
    /// Of an account, a device or a key.
    Scope(RevokedScope),
}

impl Hub {
    /// The revocations that a published revision is the first to name.
    pub(super) fn revocations_first_in(&self, revision: u64) -> &[LogEntry] {
        let Ok(at) = self
            .revocation_ends
            .binary_search_by_key(&revision, |(revision, _)| *revision)
        else {
            return &[];
        };
        let from = at.checked_sub(1).map_or(0, |before| self.revocation_ends[before].1);
        &self.revocation_log[from..self.revocation_ends[at].1]
    }
}

//! What is revoked, for good: nothing here is ever taken away.

use alloc::{collections::BTreeMap, vec::Vec};

use proto::{
    artifact::{ListEntry, Reason, Revoked as RevokedToken, RevokedScope, Subject},
    id::{AccountId, DeviceId, TokenHash},
    trust::KeyId,
};

use super::{Stale, Trust};
use crate::event::{Event, RevocationsAdopted, STAGED_ENTRIES_MAX};

/// Most revocations in one event, for the same reason as [`STAGED_ENTRIES_MAX`].
pub(crate) const REVOKED_ENTRIES_MAX: usize = 2 * STAGED_ENTRIES_MAX;

/// The set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revoked {
    /// The credential revision up to which a token is revoked, and why.
    tokens: BTreeMap<TokenHash, (u64, Reason)>,
    scopes: BTreeMap<Subject, Reason>,
}

impl Revoked {
    pub(crate) fn has_token(&self, token: &TokenHash, credential_revision: u64) -> bool {
        let known = self.tokens.get(token);
        known.is_some_and(|&(revision, _)| credential_revision <= revision)
    }

    pub(crate) fn has_account(&self, account: AccountId) -> bool {
        self.scopes.contains_key(&Subject::Account(account))
    }

    pub(crate) fn has_device(&self, device: &DeviceId) -> bool {
        self.scopes.contains_key(&Subject::Device(*device))
    }

    pub(crate) fn has_key(&self, key: &KeyId) -> bool {
        self.scopes.contains_key(&Subject::Key(*key))
    }

    /// Adds; a lower revision of a token does not forgive a higher one.
    pub(crate) fn add(&mut self, entries: &[RevokedToken], scopes: &[RevokedScope]) {
        for entry in entries {
            let new = (entry.credential_revision, entry.reason);
            let known = self.tokens.entry(entry.token).or_insert(new);
            if new.0 > known.0 {
                *known = new;
            }
        }
        let read = scopes.iter().filter_map(|scope| Some((scope.read()?, scope.reason)));
        for (subject, reason) in read {
            self.scopes.entry(subject).or_insert(reason);
        }
    }

    /// As events, for a snapshot.
    pub(crate) fn events(&self, revision: u64) -> Vec<Event> {
        let tokens = self
            .tokens
            .iter()
            .map(|(token, &(credential_revision, reason))| RevokedToken {
                token: *token,
                credential_revision,
                reason,
            });
        let scopes = self
            .scopes
            .iter()
            .map(|(&subject, &reason)| RevokedScope::new(subject, reason));
        parts(revision, &tokens.collect::<Vec<_>>(), &scopes.collect::<Vec<_>>())
    }
}

/// The events of a set: tokens and scopes in parts of their own.
fn parts(revision: u64, entries: &[RevokedToken], scopes: &[RevokedScope]) -> Vec<Event> {
    let of_tokens = entries
        .chunks(REVOKED_ENTRIES_MAX)
        .map(|part| (part.to_vec(), Vec::new()));
    let of_scopes = scopes
        .chunks(REVOKED_ENTRIES_MAX)
        .map(|part| (Vec::new(), part.to_vec()));
    let event = |(entries, scopes)| {
        Event::RevocationsAdopted(RevocationsAdopted {
            revision,
            entries,
            scopes,
        })
    };
    of_tokens.chain(of_scopes).map(event).collect()
}

impl Trust {
    /// Whether the credential that we know is revoked, or the account to which the token belongs.
    #[must_use]
    pub fn is_revoked(&self, token: &TokenHash) -> bool {
        self.is_credential_revoked(token, self.list.get(token).as_ref())
    }

    /// As [`Self::is_revoked`], for whoever has looked up the list's word on the token.
    pub(crate) fn is_credential_revoked(&self, token: &TokenHash, listed: Option<&ListEntry>) -> bool {
        let confirmed = self.confirmed.get(token);
        let account = listed.map(|entry| entry.account).or(confirmed.map(|c| c.account));
        let revisions = [
            listed.map(|entry| entry.credential_revision),
            confirmed.map(|c| c.credential_revision),
        ];
        let newest = revisions.into_iter().flatten().max().unwrap_or(0);
        self.revoked.has_token(token, newest) || account.is_some_and(|account| self.is_account_revoked(account))
    }

    /// Whether an account is revoked, with all its tokens, leases and instruments.
    #[must_use]
    pub fn is_account_revoked(&self, account: AccountId) -> bool {
        self.revoked.has_account(account)
    }

    /// Whether nothing is granted at a device any more.
    #[must_use]
    pub fn is_device_revoked(&self, device: &DeviceId) -> bool {
        self.revoked.has_device(device)
    }

    pub(crate) fn decide_revocations(&self, set: &proto::artifact::Revocations) -> Result<Vec<Event>, Stale> {
        if set.revision <= self.revocations_revision {
            let active = self.revocations_revision;
            return Err(Stale {
                kind: proto::trust::ArtifactKind::Revocations,
                found: set.revision,
                active,
            });
        }
        // The last part brings the revision: a set that was written in part is taken in again.
        let mut events = parts(self.revocations_revision, &set.entries, &set.scopes);
        match events.last_mut() {
            Some(Event::RevocationsAdopted(last)) => last.revision = set.revision,
            Some(_) | None => events.push(Event::RevocationsAdopted(RevocationsAdopted {
                revision: set.revision,
                entries: Vec::new(),
                scopes: Vec::new(),
            })),
        }
        Ok(events)
    }
}

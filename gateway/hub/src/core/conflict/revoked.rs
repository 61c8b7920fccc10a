//! Class 1: sessions drawn with a revoked token, on a revoked account, or at a revoked device.
//!
//! A revocation counts from the revision that first published it: a gateway that had that revision knew it.

use core::fmt;
use std::collections::BTreeMap;

use proto::{
    artifact::Subject,
    book::Account,
    id::{AccountId, DeviceId, SessionId, TokenHash},
    money::Money,
};
use serde::{Deserialize, Serialize};

use super::{Conflicts, Facts, target::EMERGENCY_RULE};
use crate::core::LogEntry;

/// When something was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Since {
    /// First revision of the published revocations that names it.
    pub(crate) revision: u64,
    /// When, in seconds since 1970 UTC by the hub's clock; 0: not known.
    pub(crate) at_s: u64,
}

/// A revocation of a token, as outcomes need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RevokedFact {
    /// This credential revision and all before it.
    pub(crate) credential_revision: u64,
    /// First revision of the published revocations that names it.
    pub(crate) revision: u64,
    /// When, in seconds since 1970 UTC by the hub's clock; 0: not known.
    pub(crate) at_s: u64,
}

/// What the revocation that hits a session is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hit {
    /// The token that drew.
    Token,
    /// The account that pays.
    Account(AccountId),
    /// The device that dispensed.
    Device(DeviceId),
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token => f.write_str("to a token"),
            Self::Account(account) => write!(f, "on account {account}"),
            Self::Device(device) => write!(f, "at device {device}"),
        }
    }
}

/// How the earliest revocation that hits a session bears on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revoked {
    /// Its gateway could not know: the session stands.
    Unknown,
    /// Its gateway knew, and granted all the same.
    Known(Hit, Since),
}

/// All that is revoked, since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revocations {
    pub(crate) tokens: BTreeMap<TokenHash, Vec<RevokedFact>>,
    pub(crate) scopes: BTreeMap<Subject, Since>,
}

impl Revocations {
    /// The entries are published under this revision.
    pub(crate) fn publish(&mut self, since: Since, entries: &[LogEntry]) {
        let Since { revision, at_s } = since;
        for entry in entries {
            match entry {
                LogEntry::Token(revoked) => self.tokens.entry(revoked.token).or_default().push(RevokedFact {
                    credential_revision: revoked.credential_revision,
                    revision,
                    at_s,
                }),
                // A scope of a newer version hits nothing here.
                LogEntry::Scope(revoked) => {
                    if let Some(subject) = revoked.read() {
                        self.scopes.entry(subject).or_insert(since);
                    }
                }
            }
        }
    }

    /// The earliest revocation that hits a session. Whoever knew a later one knew it, too.
    fn earliest(&self, facts: &Facts) -> Option<(Hit, Since)> {
        let token = self.tokens.get(&facts.token).into_iter().flatten();
        let token = token
            .filter(|fact| fact.credential_revision >= facts.evidence.credential_revision)
            .map(|&RevokedFact { revision, at_s, .. }| (Hit::Token, Since { revision, at_s }));
        let scope = |subject, hit| self.scopes.get(&subject).map(|since| (hit, *since));
        token
            .chain(scope(Subject::Account(facts.account), Hit::Account(facts.account)))
            .chain(scope(Subject::Device(facts.device), Hit::Device(facts.device)))
            .min_by_key(|(_, since)| since.revision)
    }
}

impl Conflicts {
    /// The revocation that hits a session, if one makes it class 1.
    pub(super) fn revocation_of(&self, facts: &Facts) -> Option<Revoked> {
        let (hit, since) = self.revocations.earliest(facts)?;
        if facts.evidence.revocations_revision >= since.revision {
            return Some(Revoked::Known(hit, since));
        }
        // A synchronised clock proves that the grant came first. Any other clock leaves the doubt to the operator's cost.
        let before = facts.synchronised && facts.held_s < since.at_s;
        (!before && !facts.online).then_some(Revoked::Unknown)
    }

    /// What a session of class 1 drew on its account; `None`: it is none.
    pub(crate) fn revoked_charge(&self, session: &SessionId, facts: &Facts) -> Option<Money> {
        let own =
            facts.is_captured() && facts.payer == Account::Customer(facts.account) && facts.rule != EMERGENCY_RULE;
        (own && self.revocation_of(facts).is_some()).then(|| facts.charged.saturating_sub(self.refund(session)))
    }

    /// What the case says of a gateway that knew.
    pub(super) fn breach_of(&self, facts: &Facts) -> Option<String> {
        match self.revocation_of(facts)? {
            Revoked::Unknown => None,
            Revoked::Known(hit, since) => Some(format!(
                "gateway {} granted {hit}, revoked by revision {}; it knew revision {}",
                facts.gateway, since.revision, facts.evidence.revocations_revision
            )),
        }
    }

    /// Sessions that newly published entries may hit.
    pub(super) fn hit_by<'a>(&'a self, entries: &[LogEntry]) -> impl Iterator<Item = (&'a SessionId, &'a Facts)> {
        let mut named = Self::default().revocations;
        named.publish(Since { revision: 1, at_s: 0 }, entries);
        self.facts
            .iter()
            .filter(move |(_, facts)| named.earliest(facts).is_some())
    }
}

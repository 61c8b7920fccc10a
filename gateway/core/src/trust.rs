//! What may be believed without asking: the list, the revocations, the tariffs, and what the cloud confirmed.
//!
//! No unsigned input shrinks the set of trusted tokens. What is signed is staged, compared with what is active, and
//! adopted in one event, or set aside (`gate`, `adopt`); a list can be gone back from. Revocations are for good
//! (`revoked`), and who may sign is itself signed (`keys`).

mod adopt;
mod gate;
mod keys;
mod list;
mod revoked;
mod rows;

use alloc::collections::BTreeMap;

use proto::{
    artifact::{ListEntry, TariffTable},
    id::{AccountId, Hash, Kind, TokenHash},
    tariff::Tariff,
    trust::ArtifactKind,
};
use serde::{Deserialize, Serialize};

pub(crate) use self::{adopt::Lists, gate::Look, keys::Keys, revoked::Revoked};
pub use self::{
    gate::{Findings, PriceChange},
    list::{Aside, List, ListHead},
    rows::Rows,
};
use crate::time::Instant;

/// What the cloud said of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// When.
    pub at: Instant,
    /// Whose account.
    pub account: AccountId,
    /// Revision of the credential.
    pub credential_revision: u64,
}

/// Whether an entry is past its end; without a clock none is.
pub(crate) fn is_over(entry: &ListEntry, wall_s: Option<u64>) -> bool {
    entry.not_after_s > 0 && wall_s.is_some_and(|wall_s| wall_s > entry.not_after_s)
}

/// How much a list may still be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Full caps.
    Full,
    /// Half caps.
    Half,
    /// Not at all.
    Expired,
}

/// Everything trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    pub(crate) list: List,
    /// The list before, for an operator to go back to.
    pub(crate) previous: Option<List>,
    /// The list that the gate set aside, or that an operator went back from.
    pub(crate) aside: Option<Aside>,
    staged: list::Staged,
    /// Highest revision of a list that was ever adopted: above the active one's after a rollback.
    pub(crate) list_newest: u64,
    pub(crate) revoked: Revoked,
    pub(crate) revocations_revision: u64,
    pub(crate) tariffs: adopt::Tariffs,
    /// Their hashes, which every decision tells.
    tariff_hashes: BTreeMap<Kind, Hash>,
    pub(crate) tariffs_revision: u64,
    pub(crate) tariffs_staged: Option<TariffTable>,
    /// The prices that the gate set aside.
    pub(crate) tariffs_aside: Option<TariffTable>,
    pub(crate) keys: Keys,
    pub(crate) confirmed: BTreeMap<TokenHash, Confirmation>,
    pub(crate) denied: BTreeMap<TokenHash, u64>,
}

impl Trust {
    /// The list's word on a token.
    #[must_use]
    pub fn entry(&self, token: &TokenHash) -> Option<ListEntry> {
        self.list.get(token)
    }

    /// Number of tokens in the list.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.list.rows.len()
    }

    /// The active list.
    #[must_use]
    pub const fn list(&self) -> &List {
        &self.list
    }

    /// The list before the active one, while there is a way back.
    #[must_use]
    pub const fn previous(&self) -> Option<&List> {
        self.previous.as_ref()
    }

    /// The list that was set aside, until a newer one is adopted.
    #[must_use]
    pub const fn aside(&self) -> Option<&Aside> {
        self.aside.as_ref()
    }

    /// The prices that were set aside, until newer ones are adopted.
    #[must_use]
    pub const fn tariffs_aside(&self) -> Option<&TariffTable> {
        self.tariffs_aside.as_ref()
    }

    /// Highest revision of a list that was ever adopted; 0: none.
    #[must_use]
    pub const fn list_newest(&self) -> u64 {
        self.list_newest
    }

    /// Revisions of list, revocations and tariffs; 0: none.
    #[must_use]
    pub const fn revisions(&self) -> (u64, u64, u64) {
        let list = self.list.head.revision;
        (list, self.revocations_revision, self.tariffs_revision)
    }

    /// The price of a kind.
    #[must_use]
    pub fn tariff(&self, kind: Kind) -> Option<&Tariff> {
        self.tariffs.get(&kind)
    }

    /// [`Tariff::hash`] of the price of a kind; zero: there is none.
    pub(crate) fn tariff_hash(&self, kind: Kind) -> Hash {
        self.tariff_hashes.get(&kind).copied().unwrap_or(Hash::ZERO)
    }

    /// The newest credential revision of a token that we know; 0: never seen.
    #[must_use]
    pub fn credential_revision(&self, token: &TokenHash) -> u64 {
        let listed = self.list.get(token).map_or(0, |entry| entry.credential_revision);
        let confirmed = self.confirmed.get(token).map_or(0, |c| c.credential_revision);
        listed.max(confirmed)
    }

    /// Whether the cloud refused the credential that we know, with a newer revision.
    #[must_use]
    pub fn is_denied(&self, token: &TokenHash) -> bool {
        self.denied
            .get(token)
            .is_some_and(|&revision| self.credential_revision(token) < revision)
    }

    /// A token that should be accepted by a healthy cloud, for a probe: the first valid one behind `after`, in turn.
    /// `wall_s`: the wall clock, if there is one. `avoid`: who would be no witness; taken only if nobody else is left.
    pub(crate) fn known_good(
        &self,
        after: &TokenHash,
        wall_s: Option<u64>,
        avoid: impl Fn(&TokenHash) -> bool,
    ) -> Option<TokenHash> {
        let is_good = |entry: &ListEntry| {
            let usable = entry.valid && !is_over(entry, wall_s);
            usable && !self.is_credential_revoked(&entry.token, Some(entry)) && !self.is_denied(&entry.token)
        };
        let turn = || self.list.rows.in_turn(after).filter(is_good).map(|entry| entry.token);
        turn().find(|token| !avoid(token)).or_else(|| turn().next())
    }

    /// What the cloud confirmed. An answer that was long on its way does not bring an older credential back.
    pub(crate) fn confirm(&mut self, token: TokenHash, at: Instant, account: AccountId, credential_revision: u64) {
        let known = self.confirmed.get(&token).map_or(0, |c| c.credential_revision);
        let confirmation = Confirmation {
            at,
            account,
            credential_revision: credential_revision.max(known),
        };
        self.confirmed.insert(token, confirmation);
    }
}

/// An artifact that is not newer than the active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} revision {found} is not newer than the active {active}", kind.word())]
pub struct Stale {
    /// What it is about.
    pub kind: ArtifactKind,
    /// Its revision.
    pub found: u64,
    /// The newest revision that was adopted.
    pub active: u64,
}

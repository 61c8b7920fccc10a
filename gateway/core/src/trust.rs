//! What may be believed without asking: the list, the revocations, the tariffs, and what the cloud confirmed.
//!
//! No unsigned input shrinks the set of trusted tokens. A list is staged and adopted in one event.

use alloc::{collections::BTreeMap, vec::Vec};

use proto::{
    artifact::{ListEntry, ListManifest, Revoked},
    id::{AccountId, Kind, TokenHash},
    tariff::Tariff,
    trust::ArtifactKind,
};
use serde::{Deserialize, Serialize};

use crate::{
    event::{Event, ListAdopted, ListStaged, Quarantined, RevocationsAdopted, STAGED_ENTRIES_MAX, TariffAdopted},
    time::Instant,
};

/// A list that is smaller than the active one by more than this many hundredths is set aside.
pub(crate) const LIST_SHRINK_PERCENT_MAX: usize = 5;

/// Most revocations in one event, for the same reason as [`STAGED_ENTRIES_MAX`].
pub(crate) const REVOKED_ENTRIES_MAX: usize = 2 * STAGED_ENTRIES_MAX;

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
pub enum Age {
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
    pub(crate) list: BTreeMap<TokenHash, ListEntry>,
    pub(crate) list_revision: u64,
    pub(crate) list_issued_s: u64,
    pub(crate) list_adopted: Instant,
    staged: BTreeMap<TokenHash, ListEntry>,
    staged_revision: u64,
    pub(crate) revoked: BTreeMap<TokenHash, u64>,
    pub(crate) revocations_revision: u64,
    pub(crate) tariffs: BTreeMap<Kind, Tariff>,
    pub(crate) tariffs_revision: u64,
    pub(crate) confirmed: BTreeMap<TokenHash, Confirmation>,
    pub(crate) denied: BTreeMap<TokenHash, u64>,
}

impl Trust {
    /// The list's word on a token.
    #[must_use]
    pub fn entry(&self, token: &TokenHash) -> Option<&ListEntry> {
        self.list.get(token)
    }

    /// Number of tokens in the list.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.list.len()
    }

    /// Revisions of list, revocations and tariffs; 0: none.
    #[must_use]
    pub const fn revisions(&self) -> (u64, u64, u64) {
        (self.list_revision, self.revocations_revision, self.tariffs_revision)
    }

    /// The price of a kind.
    #[must_use]
    pub fn tariff(&self, kind: Kind) -> Option<&Tariff> {
        self.tariffs.get(&kind)
    }

    /// The newest credential revision of a token that we know; 0: never seen.
    #[must_use]
    pub fn credential_revision(&self, token: &TokenHash) -> u64 {
        let listed = self.list.get(token).map_or(0, |entry| entry.credential_revision);
        let confirmed = self.confirmed.get(token).map_or(0, |c| c.credential_revision);
        listed.max(confirmed)
    }

    /// Whether the credential that we know is revoked.
    #[must_use]
    pub fn is_revoked(&self, token: &TokenHash) -> bool {
        self.revoked
            .get(token)
            .is_some_and(|&revision| self.credential_revision(token) <= revision)
    }

    /// Whether the cloud refused the credential that we know, with a newer revision.
    #[must_use]
    pub fn is_denied(&self, token: &TokenHash) -> bool {
        self.denied
            .get(token)
            .is_some_and(|&revision| self.credential_revision(token) < revision)
    }

    /// How old the list is, for credit.
    #[must_use]
    pub const fn list_age(&self, at: Instant, full_s: u64, half_s: u64) -> Age {
        let age_s = at.since_ms(self.list_adopted) / 1000;
        if age_s <= full_s {
            Age::Full
        } else if age_s <= half_s {
            Age::Half
        } else {
            Age::Expired
        }
    }

    /// A token that should be accepted by a healthy cloud, for a probe: the first valid one behind `after`, in turn.
    /// `wall_s`: the wall clock, if there is one. `avoid`: who would be no witness; taken only if nobody else is left.
    pub(crate) fn known_good(
        &self,
        after: &TokenHash,
        wall_s: Option<u64>,
        avoid: impl Fn(&TokenHash) -> bool,
    ) -> Option<TokenHash> {
        let good = |(token, entry): (&TokenHash, &ListEntry)| {
            let usable = entry.valid && !is_over(entry, wall_s);
            (usable && !self.is_revoked(token) && !self.is_denied(token)).then_some(*token)
        };
        let behind = (core::ops::Bound::Excluded(*after), core::ops::Bound::Unbounded);
        let turn = || self.list.range(behind).chain(&self.list).filter_map(good);
        turn().find(|token| !avoid(token)).or_else(|| turn().next())
    }

    pub(crate) fn decide_list(&self, manifest: &ListManifest, entries: &[ListEntry]) -> Result<Vec<Event>, Stale> {
        let (revision, issued_s) = (manifest.revision, manifest.issued_s);
        if revision <= self.list_revision {
            return Err(Stale {
                kind: ArtifactKind::List,
                found: revision,
                active: self.list_revision,
            });
        }
        let lost = self.list.len().saturating_sub(entries.len());
        // A list of changes would be read as a very short list: this version adopts full ones only.
        if manifest.base != 0 || lost * 100 > self.list.len() * LIST_SHRINK_PERCENT_MAX {
            return Ok(alloc::vec![Event::Quarantined(Quarantined {
                kind: ArtifactKind::List,
                revision,
                found: entries.len() as u32,
                active: self.list.len() as u32,
            })]);
        }
        let mut events: Vec<Event> = entries
            .chunks(STAGED_ENTRIES_MAX)
            .map(|part| {
                Event::ListStaged(ListStaged {
                    revision,
                    entries: part.to_vec(),
                })
            })
            .collect();
        events.push(Event::ListAdopted(ListAdopted { revision, issued_s }));
        Ok(events)
    }

    pub(crate) fn decide_revocations(&self, revision: u64, entries: &[Revoked]) -> Result<Vec<Event>, Stale> {
        if revision <= self.revocations_revision {
            let active = self.revocations_revision;
            return Err(Stale {
                kind: ArtifactKind::Revocations,
                found: revision,
                active,
            });
        }
        let adopted = |revision, part: &[Revoked]| {
            let entries = part.to_vec();
            Event::RevocationsAdopted(RevocationsAdopted { revision, entries })
        };
        // The last part brings the revision: a set that was written in part is taken in again.
        let cut = entries.len().saturating_sub(1) / REVOKED_ENTRIES_MAX * REVOKED_ENTRIES_MAX;
        let (first, last) = entries.split_at(cut);
        let parts = first.chunks(REVOKED_ENTRIES_MAX);
        let mut events: Vec<Event> = parts.map(|part| adopted(self.revocations_revision, part)).collect();
        events.push(adopted(revision, last));
        Ok(events)
    }

    pub(crate) fn decide_tariffs(&self, table: &proto::artifact::TariffTable) -> Result<Vec<Event>, Stale> {
        if table.revision <= self.tariffs_revision {
            let active = self.tariffs_revision;
            return Err(Stale {
                kind: ArtifactKind::Tariffs,
                found: table.revision,
                active,
            });
        }
        let last = table.entries.len().saturating_sub(1);
        let adopt = |(i, entry): (usize, &proto::artifact::TariffOf)| {
            let revision = if i == last {
                table.revision
            } else {
                self.tariffs_revision
            };
            let entry = entry.clone();
            Event::TariffAdopted(TariffAdopted { revision, entry })
        };
        Ok(table.entries.iter().enumerate().map(adopt).collect())
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

    /// A part of a list that was left unfinished before is dropped: a list is adopted whole or not at all.
    pub(crate) fn stage(&mut self, revision: u64, entries: &[ListEntry]) {
        if revision != self.staged_revision {
            self.staged.clear();
            self.staged_revision = revision;
        }
        self.staged
            .extend(entries.iter().map(|entry| (entry.token, entry.clone())));
    }

    pub(crate) fn forget_staged(&mut self) {
        self.staged.clear();
        self.staged_revision = 0;
    }

    pub(crate) fn adopt(&mut self, revision: u64, issued_s: u64, at: Instant) {
        self.list = core::mem::take(&mut self.staged);
        self.staged_revision = 0;
        self.list_revision = revision;
        self.list_issued_s = issued_s;
        self.list_adopted = at;
        let list = &self.list;
        self.denied
            .retain(|token, denied| list.get(token).is_none_or(|e| e.credential_revision < *denied));
    }

    pub(crate) fn revoke(&mut self, revision: u64, entries: &[Revoked]) {
        self.revocations_revision = revision;
        for entry in entries {
            let known = self.revoked.entry(entry.token).or_default();
            *known = (*known).max(entry.credential_revision);
        }
    }

    pub(crate) fn staged_in_snapshot(&self) -> impl Iterator<Item = Event> + '_ {
        let entries: Vec<ListEntry> = self.list.values().cloned().collect();
        let revision = self.list_revision;
        let parts: Vec<Event> = entries
            .chunks(STAGED_ENTRIES_MAX)
            .map(|part| {
                Event::ListStaged(ListStaged {
                    revision,
                    entries: part.to_vec(),
                })
            })
            .collect();
        parts.into_iter()
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
    /// The active revision.
    pub active: u64,
}

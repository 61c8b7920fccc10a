//! One list, sorted by token: found by halving, compared and changed by walking.

use alloc::{sync::Arc, vec::Vec};

use proto::{
    artifact::{ListEntry, list_with},
    id::{Hash, TokenHash},
};
use serde::{Deserialize, Serialize};

use super::{Age, gate::Findings, rows::Rows};
use crate::time::Instant;

/// What a list says of itself, and when it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListHead {
    /// Grows with every list; 0: there is none.
    pub revision: u64,
    /// When it was made (seconds since 1970 UTC).
    pub issued_s: u64,
    /// When it passed the gate, or was set aside. From then on it ages.
    pub arrived: Instant,
    /// Its signed digest.
    pub digest: Hash,
}

/// A list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    pub(crate) head: ListHead,
    /// Shared with snapshots under way, which are encoded elsewhere.
    pub(crate) rows: Arc<Rows>,
}

impl List {
    /// What it says of itself.
    #[must_use]
    pub const fn head(&self) -> &ListHead {
        &self.head
    }

    /// Its rows, sorted by token.
    #[must_use]
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The same as entries: a copy, and nearly three times as large.
    #[must_use]
    pub fn entries(&self) -> Vec<ListEntry> {
        self.rows.iter().collect()
    }

    /// Its word on a token.
    #[must_use]
    pub fn get(&self, token: &TokenHash) -> Option<ListEntry> {
        self.rows.get(token)
    }

    /// How old it is, for credit.
    pub(crate) const fn age(&self, at: Instant, full_s: u64, half_s: u64) -> Age {
        let age_s = at.since_ms(self.head.arrived) / 1000;
        if age_s <= full_s {
            Age::Full
        } else if age_s <= half_s {
            Age::Half
        } else {
            Age::Expired
        }
    }
}

/// A list that is not the active one, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// The list.
    pub list: List,
    /// What the gate found. Nothing doubtful: an operator went back from it.
    pub findings: Findings,
}

/// Parts of a list on their way in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Staged {
    revision: u64,
    changed: Vec<ListEntry>,
    removed: Vec<TokenHash>,
}

impl Staged {
    /// A part of a list that was left unfinished before is dropped: a list is adopted whole or not at all.
    pub(super) fn add(&mut self, revision: u64, changed: &[ListEntry], removed: &[TokenHash]) {
        if revision != self.revision {
            *self = Self {
                revision,
                ..Self::default()
            };
        }
        self.changed.extend_from_slice(changed);
        self.removed.extend_from_slice(removed);
    }

    /// The whole list of a revision: what was staged of it, on top of `base` if it came as changes.
    pub(super) fn finish(&mut self, head: ListHead, base: Option<&List>) -> List {
        let staged = core::mem::take(self);
        let (changed, removed) = match staged.revision == head.revision {
            true => (staged.changed, staged.removed),
            false => (Vec::new(), Vec::new()), // It has no parts: it is empty, or changes nothing.
        };
        let rows = match base {
            Some(base) => Rows::of(&list_with(&base.entries(), &changed, &removed)),
            None => Rows::of(&changed),
        };
        let rows = Arc::new(rows);
        List { head, rows }
    }
}

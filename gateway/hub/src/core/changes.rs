//! Lists as changes: what a gateway lacks that has an earlier list. Kept is not every list, but which tokens each one
//! touched; what all of them touched since a list is what is different now.

use std::collections::BTreeSet;

use proto::{
    artifact::{LIST_REMOVED_MAX, ListEntry, list_changes, list_digest},
    id::{Hash, TokenHash},
};

use super::{Hub, publish::PublishedList};

/// Most lists back from which changes are published: a week at the default of four lists a day.
const LIST_STEPS_MAX: usize = 28;
/// Most tokens remembered in all steps together: twice the scale, 3 MB.
const TOUCHED_TOKENS_MAX: usize = 200_000;

/// From one list to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListStep {
    /// Revision of the list before.
    pub from: u64,
    /// Tokens that joined, left or changed.
    pub touched: Vec<TokenHash>,
}

/// The list in force as changes to an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListChanges {
    /// Revision of the earlier one.
    pub base: u64,
    /// Revision of the list in force.
    pub revision: u64,
    /// When it was made, in seconds since 1970 UTC.
    pub issued_s: u64,
    /// New and changed entries, sorted by token.
    pub changed: Vec<ListEntry>,
    /// Tokens that left, sorted.
    pub removed: Vec<TokenHash>,
    /// Entries of the list in force.
    pub total: u32,
    /// Digest of the list in force.
    pub digest: Hash,
}

impl Hub {
    /// Notes what a new list changes. Called before it is in force.
    pub(super) fn step_list(&mut self, new: &PublishedList) {
        let Some(old) = &self.list else { return };
        let (changed, removed) = list_changes(&old.entries, &new.entries);
        let mut touched: Vec<TokenHash> = changed.iter().map(|entry| entry.token).chain(removed).collect();
        touched.sort_unstable();
        let from = old.revision;
        self.list_steps.push_back(ListStep { from, touched });
        let tokens = |hub: &Self| hub.list_steps.iter().map(|step| step.touched.len()).sum::<usize>();
        while self.list_steps.len() > LIST_STEPS_MAX || tokens(self) > TOUCHED_TOKENS_MAX {
            self.list_steps.pop_front();
        }
    }

    /// The list in force as changes to the list `base`; `None` if that is not known any more, or if the whole list is
    /// hardly larger.
    #[must_use]
    pub fn list_changes(&self, base: u64) -> Option<ListChanges> {
        let list = self.list.as_ref()?;
        let at = self.list_steps.iter().position(|step| step.from == base)?;
        let touched: BTreeSet<&TokenHash> = self.list_steps.iter().skip(at).flat_map(|step| &step.touched).collect();
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for token in touched {
            match list.entries.binary_search_by_key(token, |entry| entry.token) {
                Ok(at) => changed.push(list.entries[at].clone()),
                Err(_) => removed.push(*token),
            }
        }
        if changed.len() * 2 > list.entries.len() || removed.len() > LIST_REMOVED_MAX {
            return None;
        }
        Some(ListChanges {
            base,
            revision: list.revision,
            issued_s: list.issued_s,
            changed,
            removed,
            total: list.entries.len() as u32,
            digest: list_digest(&list.entries),
        })
    }
}

//! Whose tokens may stop a session that another one began: those of its group, and the master tokens. The grant carries
//! them, so that the device can tell without gateway or cloud.

use alloc::{collections::BTreeMap, vec::Vec};

use proto::{artifact::ListEntry, id::TokenHash, message::STOP_TOKENS_MAX};

/// Tokens by group, as the active list has them; each group in the order of its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups(BTreeMap<u64, Vec<TokenHash>>);

impl Groups {
    pub(crate) fn of_list(entries: impl Iterator<Item = ListEntry>) -> Self {
        let mut groups: BTreeMap<u64, Vec<TokenHash>> = BTreeMap::new();
        for entry in entries.filter(|entry| entry.group != 0) {
            groups.entry(entry.group).or_default().push(entry.token);
        }
        Self(groups)
    }

    /// Who may stop a session of `token`: master tokens first, then the first of its group, as many as a grant names.
    pub(crate) fn stoppers(&self, master: u64, entry: Option<&ListEntry>, token: &TokenHash) -> Stoppers {
        let of = |group: u64| self.0.get(&group).into_iter().flatten();
        let group = entry.map_or(0, |entry| entry.group);
        let masters = of(master).filter(|_| master != 0);
        let own = of(group).filter(|_| group != 0 && group != master);
        masters
            .chain(own)
            .filter(|other| *other != token)
            .take(STOP_TOKENS_MAX)
            .copied()
            .collect()
    }
}

/// As a grant carries them.
pub(crate) type Stoppers = heapless::Vec<TokenHash, STOP_TOKENS_MAX>;

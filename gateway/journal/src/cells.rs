//! Meta cells in memory, with what is in doubt about them.

use std::collections::BTreeMap;

use crate::error::ReadError;

/// In a segment's header: what its cells hold is in doubt. No caller's name begins so.
const DOUBT: &str = "\0doubt";

/// Named cells as the log has them so far.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    /// Content, and the ordinal of the frame that it was set in; 0: the segment's header.
    rows: BTreeMap<String, (Vec<u8>, u64)>,
    /// Ordinal of the newest frame that is damaged and may have set any of them; 0: none.
    doubt: u64,
}

impl Cells {
    pub(crate) fn of_header(cells: &BTreeMap<String, Vec<u8>>) -> Cells {
        let rows = cells.iter().map(|(name, cell)| (name.clone(), (cell.clone(), 0)));
        Cells {
            rows: rows.collect(),
            doubt: u64::from(cells.contains_key(DOUBT)),
        }
    }

    pub(crate) fn set(&mut self, name: &str, content: &[u8], ordinal: u64) {
        match self.rows.get_mut(name) {
            Some((held, set_at)) => {
                held.clear();
                held.extend_from_slice(content);
                *set_at = ordinal;
            }
            None => drop(self.rows.insert(name.to_owned(), (content.to_vec(), ordinal))),
        }
    }

    /// Any cell may have been set in the damaged frame `ordinal`.
    pub(crate) fn doubt(&mut self, ordinal: u64) {
        self.doubt = self.doubt.max(ordinal);
    }

    pub(crate) fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let row = self.rows.get(name);
        if row.map_or(0, |(_, ordinal)| *ordinal) < self.doubt {
            return Err(ReadError::CellDamaged { name: name.to_owned() });
        }
        Ok(row.map(|(content, _)| content.clone()))
    }

    /// Whether one more cell of this name would exceed `count_max`.
    pub(crate) fn has_room_for<'a>(&self, names: impl Iterator<Item = &'a str>, count_max: usize) -> bool {
        let new = names.filter(|name| !self.rows.contains_key(*name)).count();
        self.rows.len() + new <= count_max
    }

    /// All of them, for the next segment's header.
    pub(crate) fn all(&self) -> BTreeMap<String, Vec<u8>> {
        let rows = self.rows.iter();
        let doubt = (self.doubt > 0).then(|| (DOUBT.to_owned(), Vec::new()));
        rows.map(|(name, (content, _))| (name.clone(), content.clone()))
            .chain(doubt)
            .collect()
    }
}

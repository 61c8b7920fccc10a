//! Publishes without a PUBACK: how many there may be, which packet ids they have, and for how long.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Window {
    /// How many there may be.
    max: usize,
    /// The packet id that was given away last.
    last_id: u16,
    /// Their ids, and since when they wait.
    waiting: BTreeMap<u16, Instant>,
}

impl Window {
    pub(super) fn new(max: u16) -> Self {
        Self {
            max: usize::from(max.max(1)),
            last_id: 0,
            waiting: BTreeMap::new(),
        }
    }

    /// The broker takes no more at a time.
    pub(super) fn lower_to(&mut self, max: u16) {
        self.max = self.max.min(usize::from(max.max(1)));
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < self.max
    }

    /// A packet id that is not in use; there is always one, for a window is smaller than their number.
    pub(super) fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.waiting.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// A publish with this id is on its way.
    pub(super) fn sent(&mut self, id: u16, now: Instant) {
        self.waiting.insert(id, now);
    }

    /// Its PUBACK came; false: nobody waits for it.
    pub(super) fn acknowledged(&mut self, id: u16) -> bool {
        self.waiting.remove(&id).is_some()
    }

    /// Since when the one waits that waits longest.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiting.values().min().copied()
    }

    /// For so long nobody could have heard an answer.
    pub(super) fn forgive(&mut self, waited: Duration) {
        for since in self.waiting.values_mut() {
            *since += waited;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_never_zero_and_never_in_use() {
        let now = Instant::now();
        let mut window = Window::new(3);
        window.last_id = u16::MAX - 1;
        let first = window.next_id();
        window.sent(first, now);
        let second = window.next_id();
        window.sent(second, now);
        assert_eq!((first, second), (u16::MAX, 1));
        // Once around: 1 and 65535 still wait.
        window.last_id = u16::MAX - 1;
        assert_eq!(window.next_id(), 2);
        assert!(window.acknowledged(1) && !window.acknowledged(1));
    }

    #[test]
    fn room_and_age() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut window = Window::new(5);
        window.lower_to(2);
        window.lower_to(9);
        assert_eq!(window.oldest(), None);
        window.sent(1, now + second);
        assert!(window.has_room());
        window.sent(2, now);
        assert!(!window.has_room());
        assert_eq!(window.oldest(), Some(now));
        window.forgive(second * 3);
        assert_eq!(window.oldest(), Some(now + second * 3));
        window.acknowledged(2);
        assert_eq!(window.oldest(), Some(now + second * 4));
        // A broker that takes none would never be told anything.
        window.lower_to(0);
        window.acknowledged(1);
        assert!(window.has_room());
    }
}

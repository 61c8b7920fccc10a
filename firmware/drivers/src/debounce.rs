//! Contacts that bounce: door, plug, leak, relay sense, button.
//!
//! A change counts when the contact has been seen in its new state for the whole debounce time, at every look between.
//! That delays it by this time; what must be quick, such as a leak, gets a short one.

use embedded_hal::digital::InputPin;

/// A change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// On now.
    On,
    /// Off now.
    Off,
}

/// A state that does not bounce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debounce {
    hold_ms: u32,
    on: bool,
    /// Since when the contact has been seen in the other state.
    changed_ms: Option<u64>,
}

impl Debounce {
    /// Begins in a state, which should be the safe one if it is not known. `hold_ms`: the debounce time; zero takes
    /// every change.
    #[must_use]
    pub const fn new(on: bool, hold_ms: u32) -> Self {
        Self {
            hold_ms,
            on,
            changed_ms: None,
        }
    }

    /// Looks at the contact.
    pub fn look(&mut self, now_ms: u64, on: bool) -> Option<Edge> {
        if on == self.on {
            self.changed_ms = None;
            return None;
        }
        let since_ms = *self.changed_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(since_ms) < u64::from(self.hold_ms) {
            return None;
        }
        self.on = on;
        self.changed_ms = None;
        Some(if on { Edge::On } else { Edge::Off })
    }

    /// The state.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.on
    }

    /// When a change that was seen counts if the contact stays, in ms; `None`: none was seen.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.changed_ms
            .map(|since_ms| since_ms.saturating_add(u64::from(self.hold_ms)))
    }
}

/// What a contact pulls its pin to when it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// On is a high level.
    High,
    /// On is a low level: a contact to ground with a pull-up.
    Low,
}

/// A contact on a pin.
#[derive(Debug)]
pub struct Contact<P> {
    pin: P,
    polarity: Polarity,
    debounce: Debounce,
}

impl<P: InputPin> Contact<P> {
    /// A contact that is as its pin says now: a plug that was in before the power failed is in. See [`Debounce::new`].
    ///
    /// # Errors
    /// What the pin says.
    pub fn new(pin: P, polarity: Polarity, hold_ms: u32) -> Result<Self, P::Error> {
        let mut contact = Self {
            pin,
            polarity,
            debounce: Debounce::new(false, hold_ms),
        };
        contact.debounce = Debounce::new(contact.is_pulled()?, hold_ms);
        Ok(contact)
    }

    fn is_pulled(&mut self) -> Result<bool, P::Error> {
        match self.polarity {
            Polarity::High => self.pin.is_high(),
            Polarity::Low => self.pin.is_low(),
        }
    }

    /// Looks at the pin.
    ///
    /// # Errors
    /// What the pin says; the state stays.
    pub fn look(&mut self, now_ms: u64) -> Result<Option<Edge>, P::Error> {
        let on = self.is_pulled()?;
        Ok(self.debounce.look(now_ms, on))
    }

    /// The state.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.debounce.is_on()
    }

    /// See [`Debounce::deadline_ms`].
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.debounce.deadline_ms()
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Asked, config};

    #[test]
    fn looks() {
        type Step = (u64, bool, Option<Edge>);
        let cases: &[(&str, u32, &[Step])] = &[
            ("nothing", 20, &[(0, false, None), (100, false, None)]),
            (
                "on and off",
                20,
                &[
                    (0, true, None),
                    (19, true, None),
                    (20, true, Some(Edge::On)),
                    (30, true, None),
                    (40, false, None),
                    (60, false, Some(Edge::Off)),
                ],
            ),
            (
                "bouncing",
                20,
                &[
                    (0, true, None),
                    (10, false, None),
                    (15, true, None),
                    (25, true, None),
                    (35, true, Some(Edge::On)),
                ],
            ),
            ("a spike", 20, &[(0, true, None), (1, false, None), (50, false, None)]),
            (
                "one late look is not enough",
                20,
                &[(0, false, None), (500, true, None), (520, true, Some(Edge::On))],
            ),
            (
                "no debounce time",
                0,
                &[(0, true, Some(Edge::On)), (0, false, Some(Edge::Off))],
            ),
            (
                "a clock that runs backwards",
                20,
                &[
                    (100, true, None),
                    (50, true, None),
                    (119, true, None),
                    (120, true, Some(Edge::On)),
                ],
            ),
            ("the end of time", 20, &[(u64::MAX, true, None), (u64::MAX, true, None)]),
        ];
        for (what, hold_ms, steps) in cases {
            let mut debounce = Debounce::new(false, *hold_ms);
            for (now_ms, on, expected) in *steps {
                assert_eq!(debounce.look(*now_ms, *on), *expected, "{what} at {now_ms}");
            }
        }
    }

    #[test]
    fn deadlines() {
        let mut debounce = Debounce::new(true, 20);
        assert_eq!(debounce.deadline_ms(), None);
        debounce.look(5, false);
        assert_eq!(debounce.deadline_ms(), Some(25));
        debounce.look(25, false);
        assert_eq!((debounce.deadline_ms(), debounce.is_on()), (None, false));
        debounce.look(u64::MAX, true);
        assert_eq!(debounce.deadline_ms(), Some(u64::MAX));
    }

    #[test]
    fn contacts() {
        for (polarity, on_level) in [(Polarity::High, true), (Polarity::Low, false)] {
            let level = Rc::new(Cell::new(!on_level));
            let pin = level.clone();
            let mut contact = Contact::new(Asked(move || pin.get()), polarity, 10).unwrap();
            assert!(!contact.is_on());
            assert_eq!(contact.look(0), Ok(None));
            level.set(on_level);
            assert_eq!(contact.look(1), Ok(None));
            assert_eq!(contact.deadline_ms(), Some(11));
            assert_eq!(contact.look(11), Ok(Some(Edge::On)));
            assert!(contact.is_on());
            // One that is on when it is first looked at is on, and that is no edge.
            let pin = level.clone();
            let mut contact = Contact::new(Asked(move || pin.get()), polarity, 10).unwrap();
            assert!(contact.is_on());
            assert_eq!(contact.look(100), Ok(None));
        }
    }

    proptest! {
        #![proptest_config(config("debounce", 512))]

        #[test]
        fn edges_alternate_and_are_apart(
            hold_ms in 0..100u32,
            looks in prop::collection::vec((0..50u64, any::<bool>()), 0..200),
        ) {
            let mut debounce = Debounce::new(false, hold_ms);
            let (mut now_ms, mut last, mut last_ms) = (0, Edge::Off, None::<u64>);
            for (later_ms, on) in looks {
                now_ms += later_ms;
                if let Some(edge) = debounce.look(now_ms, on) {
                    prop_assert_ne!(edge, last);
                    prop_assert_eq!(edge == Edge::On, on);
                    prop_assert!(last_ms.is_none_or(|last_ms| now_ms - last_ms >= u64::from(hold_ms)));
                    (last, last_ms) = (edge, Some(now_ms));
                }
                prop_assert_eq!(debounce.is_on(), last == Edge::On);
            }
        }
    }
}

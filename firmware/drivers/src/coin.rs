//! The coin line of a washer: pulses as a coin acceptor would send them, each a coin or a unit of credit.
//!
//! Every pulse is money, so there is never one more than asked for, whatever the clock and the caller do, and the line is
//! released whenever nobody watches over it. A pulse that comes late is longer than it should be, never two.

use embedded_hal::digital::{OutputPin, PinState};

/// Shape of the pulses. What fits a machine stands in the manual of the coin acceptor that it expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Level of a pulse; the other one is the line at rest.
    pub active: PinState,
    /// Length of a pulse, in ms.
    pub width_ms: u16,
    /// Rest after a pulse, in ms. It is kept after the last one too, so that the next row is apart.
    pub gap_ms: u16,
}

impl Default for Shape {
    /// 50 ms low with 100 ms between, which most machines take.
    fn default() -> Self {
        Self {
            active: PinState::Low,
            width_ms: 50,
            gap_ms: 100,
        }
    }
}

/// What the line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// At rest since long enough.
    Rest,
    /// In a pulse until then.
    Pulse { until_ms: u64 },
    /// After a pulse until then.
    Gap { until_ms: u64 },
}

/// A coin line. It releases the line when it is dropped.
#[derive(Debug)]
pub struct Coin<P: OutputPin> {
    pin: P,
    shape: Shape,
    phase: Phase,
    left: u8,
    begun: u32,
}

impl<P: OutputPin> Coin<P> {
    /// Releases the line.
    ///
    /// # Errors
    /// What the pin says.
    pub fn new(mut pin: P, shape: Shape) -> Result<Self, P::Error> {
        pin.set_state(!shape.active)?;
        Ok(Self {
            pin,
            shape,
            phase: Phase::Rest,
            left: 0,
            begun: 0,
        })
    }

    /// Asks for so many pulses, which [`Self::tick`] sends. `false`, and nothing changes, if a row is not complete yet.
    #[must_use = "a row that was not taken is not sent"]
    pub const fn start(&mut self, pulses: u8) -> bool {
        if self.is_busy() {
            return false;
        }
        self.left = pulses;
        true
    }

    /// Does what is due. When to call again, in ms; `None`: there is nothing to do.
    ///
    /// # Errors
    /// What the pin says. The row is over then, and the line released if the pin obeys.
    pub fn tick(&mut self, now_ms: u64) -> Result<Option<u64>, P::Error> {
        match self.phase {
            Phase::Pulse { until_ms } if now_ms >= until_ms => {
                if let Err(error) = self.release() {
                    self.left = 0;
                    return Err(error);
                }
                self.phase = Phase::Gap {
                    until_ms: now_ms.saturating_add(u64::from(self.shape.gap_ms)),
                };
            }
            Phase::Gap { until_ms } if now_ms >= until_ms => self.phase = Phase::Rest,
            Phase::Pulse { .. } | Phase::Gap { .. } | Phase::Rest => {}
        }
        if self.phase == Phase::Rest && self.left > 0 {
            // Counted before it is sent: if the pin fails half way, the pulse may have been seen.
            self.left -= 1;
            self.begun = self.begun.saturating_add(1);
            self.phase = Phase::Pulse {
                until_ms: now_ms.saturating_add(u64::from(self.shape.width_ms)),
            };
            if let Err(error) = self.pin.set_state(self.shape.active) {
                self.left = 0;
                let _ = self.release();
                return Err(error);
            }
        }
        Ok(match self.phase {
            Phase::Rest => None,
            Phase::Pulse { until_ms } | Phase::Gap { until_ms } => Some(until_ms),
        })
    }

    /// Ends the row now and releases the line. A pulse that is cut short may or may not count with the machine. The
    /// rest after it is kept by [`Self::tick`].
    ///
    /// # Errors
    /// What the pin says.
    pub fn abort(&mut self, now_ms: u64) -> Result<(), P::Error> {
        self.left = 0;
        self.release()?;
        if matches!(self.phase, Phase::Pulse { .. }) {
            self.phase = Phase::Gap {
                until_ms: now_ms.saturating_add(u64::from(self.shape.gap_ms)),
            };
        }
        Ok(())
    }

    /// Pulses are to come, or the rest after the last one lasts.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.left > 0 || !matches!(self.phase, Phase::Rest)
    }

    /// Pulses that have begun since [`Self::new`].
    #[must_use]
    pub const fn begun(&self) -> u32 {
        self.begun
    }

    fn release(&mut self) -> Result<(), P::Error> {
        self.pin.set_state(!self.shape.active)
    }
}

impl<P: OutputPin> Drop for Coin<P> {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = self.release();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc, vec::Vec};

    use embedded_hal::digital::{Error, ErrorKind, ErrorType};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Line, config};

    const SHAPE: Shape = Shape {
        active: PinState::High,
        width_ms: 50,
        gap_ms: 100,
    };

    fn coin() -> (Line, Coin<Line>) {
        let line = Line::default();
        (line.clone(), Coin::new(line, SHAPE).unwrap())
    }

    /// Pulses on a line: how often it became active.
    fn pulses(line: &Line) -> usize {
        let levels = line.0.borrow();
        let rises = levels
            .windows(2)
            .filter(|pair| matches!(pair, [PinState::Low, PinState::High]));
        rises.count()
    }

    fn is_released(line: &Line) -> bool {
        line.0.borrow().last() == Some(&PinState::Low)
    }

    #[test]
    fn a_row() {
        let (line, mut coin) = coin();
        assert!(is_released(&line));
        assert_eq!(coin.tick(0), Ok(None));
        assert!(coin.start(2));
        assert!(coin.is_busy());
        for (now_ms, next_ms, active, begun) in [
            (1_000, Some(1_050), true, 1),
            (1_049, Some(1_050), true, 1),
            (1_050, Some(1_150), false, 1),
            (1_149, Some(1_150), false, 1),
            // Late: the pulse is as long as ever.
            (1_160, Some(1_210), true, 2),
            // Very late: one pulse that is too long.
            (9_000, Some(9_100), false, 2),
            (9_099, Some(9_100), false, 2),
            (9_100, None, false, 2),
            (9_999, None, false, 2),
        ] {
            assert_eq!(coin.tick(now_ms), Ok(next_ms), "{now_ms}");
            assert_eq!((!is_released(&line), coin.begun()), (active, begun), "{now_ms}");
        }
        assert!(!coin.is_busy());
        assert_eq!(pulses(&line), 2);
    }

    #[test]
    fn rows_do_not_mix() {
        let (line, mut coin) = coin();
        assert!(coin.start(1));
        assert!(!coin.start(5));
        coin.tick(0).unwrap();
        assert!(!coin.start(5));
        coin.tick(50).unwrap();
        assert!(!coin.start(5), "the rest after the last pulse lasts");
        coin.tick(150).unwrap();
        assert!(coin.start(0));
        assert_eq!(coin.tick(151), Ok(None));
        assert_eq!(pulses(&line), 1);
    }

    #[test]
    fn abort_and_drop_release() {
        for now_ms in [0, 20, 50, 120, 150, 160] {
            let (line, mut coin) = coin();
            assert!(coin.start(3));
            coin.tick(0).unwrap();
            for at in [50, 150].into_iter().filter(|at| *at <= now_ms) {
                coin.tick(at).unwrap();
            }
            let before = pulses(&line);
            coin.abort(now_ms).unwrap();
            assert!(is_released(&line), "{now_ms}");
            for later_ms in now_ms..now_ms + 1_000 {
                coin.tick(later_ms).unwrap();
            }
            assert_eq!(pulses(&line), before, "{now_ms}");
            assert!(!coin.is_busy());
        }
        let (line, mut coin) = coin();
        assert!(coin.start(3));
        coin.tick(0).unwrap();
        assert!(!is_released(&line));
        drop(coin);
        assert!(is_released(&line));
    }

    #[test]
    fn after_an_abort_the_next_pulse_is_apart() {
        let (line, mut coin) = coin();
        assert!(coin.start(3));
        coin.tick(0).unwrap();
        coin.abort(10).unwrap();
        assert!(!coin.start(1));
        assert_eq!(coin.tick(109), Ok(Some(110)));
        assert_eq!(coin.tick(110), Ok(None));
        assert!(coin.start(1));
        coin.tick(110).unwrap();
        assert_eq!(pulses(&line), 2);
    }

    /// Fails when it is told to.
    #[derive(Clone, Default)]
    struct Broken(Rc<RefCell<(bool, Vec<PinState>)>>);

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Stuck;

    impl Error for Stuck {
        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    impl ErrorType for Broken {
        type Error = Stuck;
    }

    impl OutputPin for Broken {
        fn set_low(&mut self) -> Result<(), Stuck> {
            self.set_state(PinState::Low)
        }

        fn set_high(&mut self) -> Result<(), Stuck> {
            self.set_state(PinState::High)
        }

        fn set_state(&mut self, state: PinState) -> Result<(), Stuck> {
            let mut pin = self.0.borrow_mut();
            pin.1.push(state);
            if pin.0 { Err(Stuck) } else { Ok(()) }
        }
    }

    #[test]
    fn a_pin_that_fails_ends_the_row() {
        for fails_at in [0, 50] {
            let pin = Broken::default();
            let mut coin = Coin::new(pin.clone(), SHAPE).unwrap();
            assert!(coin.start(3));
            for now_ms in [0, 50] {
                pin.0.borrow_mut().0 = now_ms == fails_at;
                assert_eq!(coin.tick(now_ms).is_err(), now_ms == fails_at, "{fails_at} {now_ms}");
            }
            pin.0.borrow_mut().0 = false;
            for now_ms in 50..1_000 {
                coin.tick(now_ms).unwrap();
            }
            assert_eq!(coin.begun(), 1);
            assert_eq!(pin.0.borrow().1.last(), Some(&PinState::Low), "{fails_at}");
        }
    }

    proptest! {
        #![proptest_config(config("coin", 512))]

        #[test]
        fn never_more_than_asked_for(
            rows in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u16>(), 0..600), any::<bool>()), 0..4),
        ) {
            let (line, mut coin) = coin();
            let (mut now_ms, mut asked) = (0u64, 0u32);
            for (wanted, ticks, aborted) in rows {
                if coin.start(wanted) {
                    asked += u32::from(wanted);
                }
                for tick in ticks {
                    // Backwards now and then.
                    now_ms = if tick % 7 == 0 { now_ms.saturating_sub(u64::from(tick) % 100) } else { now_ms + u64::from(tick) % 200 };
                    coin.tick(now_ms).unwrap();
                }
                if aborted {
                    coin.abort(now_ms).unwrap();
                }
                prop_assert!(pulses(&line) as u32 <= asked);
                prop_assert_eq!(pulses(&line) as u32, coin.begun());
            }
            drop(coin);
            prop_assert!(is_released(&line));
        }
    }
}

//! The control pilot of a car charger, IEC 61851-1 and SAE J1772: a wire on which the charger sends ±12 V through 1 kΩ,
//! as a square wave of 1 kHz or steady, and the car pulls the positive half down.
//!
//! | state | positive half | what it says |
//! |---|---|---|
//! | A | 12 V | no car |
//! | B | 9 V | a car, not ready |
//! | C | 6 V | ready |
//! | D | 3 V | ready, wants ventilation |
//! | E | 0 V | a fault: a bridged wire, no supply |
//! | F | -12 V | the charger is out of order and says so |
//!
//! The negative half passes the car's diode untouched. Where it does not stay at -12 V there is no car but a puddle or
//! a meddler, and the contactor never closes. It closes only while a square wave is sent, for then the car knows its
//! limit and the diode is seen.

/// The contactor must be open so many ms after the car has left the state in which it may be closed.
pub const OPEN_WITHIN_MS: u64 = 100;
/// A state is debounced for so many ms at most: half of [`OPEN_WITHIN_MS`], the other half is the contactor's.
pub const DEBOUNCE_MS_MAX: u16 = 50;
/// Hysteresis above this would swallow the tolerance of the next level.
pub const HYSTERESIS_MV_MAX: u16 = 1_000;
/// Lowest limit of a car, in mA.
pub const CURRENT_MA_MIN: u32 = 6_000;
/// Highest limit of a car, in mA.
pub const CURRENT_MA_MAX: u32 = 80_000;
/// Up to here the duty cycle is proportional to the current, in mA.
const PROPORTIONAL_MA_MAX: u32 = 51_000;
const ABOVE_PROPORTIONAL_MA: u32 = PROPORTIONAL_MA_MAX + 1;
/// Half way between the levels of two states; above the first and below the last something is broken.
const OVER_A_MV: i32 = 13_500;
const A_B_MV: i32 = 10_500;
const B_C_MV: i32 = 7_500;
const C_D_MV: i32 = 4_500;
const D_E_MV: i32 = 1_500;
const E_F_MV: i32 = -10_500;
/// The negative half must be below this: a car in state B without a diode would pull it up to -9 V.
const DIODE_MV: i32 = -10_500;

/// What the car, or the wire, says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// No car.
    A,
    /// A car, not ready.
    B,
    /// Ready.
    C,
    /// Ready, wants ventilation.
    D,
    /// A fault.
    E,
    /// The charger is out of order.
    F,
}

/// What the negative half shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diode {
    /// There is no negative half, or no car.
    Unknown,
    /// As it should be.
    Present,
    /// There is no diode: no car.
    Missing,
}

/// Levels measured on the wire, in mV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The positive half, or the steady level.
    pub high_mv: i32,
    /// The negative half; `None`: the level is steady.
    pub low_mv: Option<i32>,
}

/// What may be done with the contactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contactor {
    /// It must be open.
    Open,
    /// It may be closed.
    MayClose,
    /// It must not be closed now, and if it is, be open by then unless the car comes back before.
    OpenBy {
        /// In ms.
        deadline_ms: u64,
    },
}

/// What depends on the charger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// How far a level must be beyond the limit of its state to be another's, in mV; at most [`HYSTERESIS_MV_MAX`].
    pub hysteresis_mv: u16,
    /// How long a state must last to count, in ms; at most [`DEBOUNCE_MS_MAX`].
    pub debounce_ms: u16,
    /// The place is ventilated: cars that ask for it may charge.
    pub ventilated: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            hysteresis_mv: 300,
            debounce_ms: 20,
            ventilated: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    state: State,
    diode: Diode,
}

/// The wire, over time.
#[derive(Clone, Copy, Debug)]
pub struct Pilot {
    tuning: Tuning,
    settled: Seen,
    /// What is seen instead, and since when.
    candidate: Option<(Seen, u64)>,
    /// Since when closing is not allowed any more by what is seen, though by what is settled.
    left_ms: Option<u64>,
}

impl Pilot {
    /// Begins without a car. Values of the tuning beyond their limits are brought to them.
    #[must_use]
    pub fn new(tuning: Tuning) -> Self {
        Self {
            tuning: Tuning {
                hysteresis_mv: tuning.hysteresis_mv.min(HYSTERESIS_MV_MAX),
                debounce_ms: tuning.debounce_ms.min(DEBOUNCE_MS_MAX),
                ..tuning
            },
            settled: Seen {
                state: State::A,
                diode: Diode::Unknown,
            },
            candidate: None,
            left_ms: None,
        }
    }

    /// Looks at the wire; wanted every 10 ms or so. What may be done with the contactor.
    pub fn look(&mut self, now_ms: u64, levels: Levels) -> Contactor {
        let seen = self.see(levels);
        if seen == self.settled {
            self.candidate = None;
        } else {
            let since_ms = match self.candidate {
                Some((candidate, since_ms)) if candidate == seen => since_ms,
                Some(_) | None => now_ms,
            };
            self.candidate = Some((seen, since_ms));
            if now_ms.saturating_sub(since_ms) >= u64::from(self.tuning.debounce_ms) {
                self.settled = seen;
                self.candidate = None;
            }
        }
        self.left_ms = if self.allows(self.settled) && !self.allows(seen) {
            self.left_ms.or(Some(now_ms))
        } else {
            None
        };
        self.contactor(now_ms)
    }

    /// What may be done with the contactor, by the last look.
    #[must_use]
    pub fn contactor(&self, now_ms: u64) -> Contactor {
        if !self.allows(self.settled) {
            return Contactor::Open;
        }
        match self.left_ms.map(|left_ms| left_ms.saturating_add(OPEN_WITHIN_MS)) {
            None => Contactor::MayClose,
            Some(deadline_ms) if now_ms < deadline_ms => Contactor::OpenBy { deadline_ms },
            Some(_) => Contactor::Open,
        }
    }

    /// The state that has lasted long enough.
    #[must_use]
    pub const fn state(&self) -> State {
        self.settled.state
    }

    /// The diode, as long as the state has lasted.
    #[must_use]
    pub const fn diode(&self) -> Diode {
        self.settled.diode
    }

    fn see(&self, levels: Levels) -> Seen {
        let state = classify(levels.high_mv, self.settled.state, i32::from(self.tuning.hysteresis_mv));
        let diode = match (state, levels.low_mv) {
            (State::B | State::C | State::D, Some(low_mv)) if low_mv <= DIODE_MV => Diode::Present,
            (State::B | State::C | State::D, Some(_)) => Diode::Missing,
            (State::B | State::C | State::D, None) | (State::A | State::E | State::F, _) => Diode::Unknown,
        };
        Seen { state, diode }
    }

    const fn allows(&self, seen: Seen) -> bool {
        let ready = match seen.state {
            State::C => true,
            State::D => self.tuning.ventilated,
            State::A | State::B | State::E | State::F => false,
        };
        ready && matches!(seen.diode, Diode::Present)
    }
}

/// The limits of a state's level, in mV.
const fn limits(state: State) -> (i32, i32) {
    match state {
        State::A => (A_B_MV, OVER_A_MV),
        State::B => (B_C_MV, A_B_MV),
        State::C => (C_D_MV, B_C_MV),
        State::D => (D_E_MV, C_D_MV),
        State::E => (E_F_MV, D_E_MV),
        State::F => (i32::MIN, E_F_MV),
    }
}

/// The state of a level, with those of `before` widened.
fn classify(high_mv: i32, before: State, hysteresis_mv: i32) -> State {
    let (from_mv, to_mv) = limits(before);
    if high_mv >= from_mv.saturating_sub(hysteresis_mv) && high_mv < to_mv.saturating_add(hysteresis_mv) {
        return before;
    }
    if high_mv >= OVER_A_MV {
        State::E
    } else if high_mv >= A_B_MV {
        State::A
    } else if high_mv >= B_C_MV {
        State::B
    } else if high_mv >= C_D_MV {
        State::C
    } else if high_mv >= D_E_MV {
        State::D
    } else if high_mv >= E_F_MV {
        State::E
    } else {
        State::F
    }
}

/// The duty cycle that tells a car its limit, in hundredths of a percent; `None`: no duty cycle means this limit.
///
/// ```text
/// 6 A to 51 A     duty in % = A / 0.6
/// above, to 80 A  duty in % = A / 2.5 + 64
/// ```
///
/// Rounded down, so that no car takes more. Between 51 and 52.5 A the second formula gives what the first gives for a
/// little less; the standard has it so, and cars then take that.
#[must_use]
pub const fn duty_permyriad(current_ma: u32) -> Option<u16> {
    match current_ma {
        CURRENT_MA_MIN..=PROPORTIONAL_MA_MAX => Some((current_ma / 6) as u16),
        ABOVE_PROPORTIONAL_MA..=CURRENT_MA_MAX => Some((current_ma / 25 + 6_400) as u16),
        _ => None,
    }
}

/// The limit that a duty cycle tells a car, in mA; `None`: it must not charge, or (around 5 %) ask by other means.
#[must_use]
pub const fn current_ma(duty_permyriad: u16) -> Option<u32> {
    match duty_permyriad {
        800..1_000 => Some(CURRENT_MA_MIN),
        1_000..=8_500 => Some(duty_permyriad as u32 * 6),
        8_501..=9_600 => Some((duty_permyriad as u32 - 6_400) * 25),
        9_601..=9_700 => Some(CURRENT_MA_MAX),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::config;

    const fn wave(high_mv: i32) -> Levels {
        Levels {
            high_mv,
            low_mv: Some(-12_000),
        }
    }

    const fn steady(high_mv: i32) -> Levels {
        Levels { high_mv, low_mv: None }
    }

    const fn by(deadline_ms: u64) -> Contactor {
        Contactor::OpenBy { deadline_ms }
    }

    #[test]
    fn levels() {
        for (high_mv, expected) in [
            (i32::MAX, State::E),
            (13_500, State::E),
            (13_499, State::A),
            (12_000, State::A),
            (10_500, State::A),
            (10_499, State::B),
            (9_000, State::B),
            (7_500, State::B),
            (7_499, State::C),
            (6_000, State::C),
            (4_500, State::C),
            (4_499, State::D),
            (3_000, State::D),
            (1_500, State::D),
            (1_499, State::E),
            (0, State::E),
            (-10_500, State::E),
            (-10_501, State::F),
            (-12_000, State::F),
            (i32::MIN, State::F),
        ] {
            // From a state that is not next to it, and without hysteresis from everywhere.
            for before in [State::A, State::B, State::C, State::D, State::E, State::F] {
                assert_eq!(classify(high_mv, before, 0), expected, "{high_mv} {before:?}");
            }
        }
    }

    #[test]
    fn hysteresis() {
        for (before, high_mv, expected) in [
            (State::B, 7_200, State::B),
            (State::B, 7_199, State::C),
            (State::C, 7_799, State::C),
            (State::C, 7_800, State::B),
            (State::C, 4_200, State::C),
            (State::C, 4_199, State::D),
            (State::D, 1_200, State::D),
            (State::E, 1_799, State::E),
            (State::A, 13_799, State::A),
            (State::F, -10_201, State::F),
            (State::F, -10_200, State::E),
            (State::A, 6_000, State::C),
        ] {
            assert_eq!(classify(high_mv, before, 300), expected, "{before:?} {high_mv}");
        }
    }

    #[test]
    fn contactor() {
        let ventilated = Tuning {
            ventilated: true,
            ..Tuning::default()
        };
        let usual = Tuning::default();
        let (c, open) = (Contactor::MayClose, Contactor::Open);
        type Step = (u64, Levels, Contactor);
        let cases: &[(&str, Tuning, &[Step])] = &[
            ("no car", usual, &[(0, wave(12_000), open), (100, wave(12_000), open)]),
            (
                "C, debounced",
                usual,
                &[(0, wave(6_000), open), (19, wave(6_000), open), (20, wave(6_000), c)],
            ),
            (
                "C, bouncing",
                usual,
                &[
                    (0, wave(6_000), open),
                    (15, wave(9_000), open),
                    (20, wave(6_000), open),
                    (39, wave(6_000), open),
                    (40, wave(6_000), c),
                ],
            ),
            (
                "C without a wave",
                usual,
                &[(0, steady(6_000), open), (100, steady(6_000), open)],
            ),
            ("B", usual, &[(0, wave(9_000), open), (100, wave(9_000), open)]),
            ("D", usual, &[(0, wave(3_000), open), (100, wave(3_000), open)]),
            (
                "D with ventilation",
                ventilated,
                &[(0, wave(3_000), open), (100, wave(3_000), c)],
            ),
            (
                "C to B",
                usual,
                &[
                    (0, wave(6_000), open),
                    (20, wave(6_000), c),
                    (30, wave(9_000), by(130)),
                    (49, wave(9_000), by(130)),
                    (50, wave(9_000), open),
                ],
            ),
            (
                "C to A",
                usual,
                &[
                    (0, wave(6_000), open),
                    (20, wave(6_000), c),
                    (30, wave(12_000), by(130)),
                    (50, wave(12_000), open),
                ],
            ),
            (
                "C to E",
                usual,
                &[
                    (0, wave(6_000), open),
                    (20, wave(6_000), c),
                    (30, wave(0), by(130)),
                    (50, wave(0), open),
                ],
            ),
            (
                "C to D",
                usual,
                &[
                    (0, wave(6_000), open),
                    (20, wave(6_000), c),
                    (30, wave(3_000), by(130)),
                    (50, wave(3_000), open),
                ],
            ),
            (
                "C to D with ventilation",
                ventilated,
                &[
                    (0, wave(6_000), open),
                    (20, wave(6_000), c),
                    (30, wave(3_000), c),
                    (50, wave(3_000), c),
                ],
            ),
            (
                "a spike",
                usual,
                &[
                    (0, wave(6_000), open),
                    (20, wave(6_000), c),
                    (30, wave(9_000), by(130)),
                    (35, wave(6_000), c),
                ],
            ),
            (
                "restless, but never back",
                usual,
                &[
                    (0, wave(6_000), open),
                    (20, wave(6_000), c),
                    (30, wave(9_000), by(130)),
                    (45, wave(12_000), by(130)),
                    (60, wave(9_000), by(130)),
                    (75, wave(12_000), by(130)),
                    (90, wave(9_000), by(130)),
                    (130, wave(12_000), open),
                ],
            ),
            (
                "the wave ends",
                usual,
                &[
                    (0, wave(6_000), open),
                    (20, wave(6_000), c),
                    (30, steady(6_000), by(130)),
                    (50, steady(6_000), open),
                ],
            ),
        ];
        for (what, tuning, steps) in cases {
            let mut pilot = Pilot::new(*tuning);
            for (now_ms, levels, expected) in *steps {
                assert_eq!(pilot.look(*now_ms, *levels), *expected, "{what} at {now_ms}");
                assert_eq!(pilot.contactor(*now_ms), *expected, "{what} at {now_ms}");
            }
        }
    }

    #[test]
    fn diode() {
        for (high_mv, low_mv, expected) in [
            (6_000, Some(-12_000), Diode::Present),
            (6_000, Some(-10_500), Diode::Present),
            (6_000, Some(-10_499), Diode::Missing),
            (6_000, Some(-6_000), Diode::Missing),
            (9_000, Some(-9_000), Diode::Missing),
            (9_000, None, Diode::Unknown),
            (12_000, Some(-12_000), Diode::Unknown),
        ] {
            let mut pilot = Pilot::new(Tuning::default());
            pilot.look(0, Levels { high_mv, low_mv });
            let contactor = pilot.look(100, Levels { high_mv, low_mv });
            assert_eq!(pilot.diode(), expected, "{high_mv} {low_mv:?}");
            let may_close = pilot.state() == State::C && expected == Diode::Present;
            assert_eq!(contactor == Contactor::MayClose, may_close);
        }
    }

    #[test]
    fn nobody_looks_and_the_deadline_passes() {
        let mut pilot = Pilot::new(Tuning::default());
        pilot.look(0, wave(6_000));
        assert_eq!(pilot.look(20, wave(6_000)), Contactor::MayClose);
        assert_eq!(pilot.look(21, wave(9_000)), by(121));
        assert_eq!(pilot.contactor(120), by(121));
        assert_eq!(pilot.contactor(121), Contactor::Open);
    }

    #[test]
    fn limits_of_a_car() {
        for (ma, duty) in [
            (0, None),
            (5_999, None),
            (6_000, Some(1_000)),
            (10_000, Some(1_666)),
            (16_000, Some(2_666)),
            (32_000, Some(5_333)),
            (51_000, Some(8_500)),
            (52_500, Some(8_500)),
            (63_000, Some(8_920)),
            (80_000, Some(9_600)),
            (80_001, None),
            (u32::MAX, None),
        ] {
            assert_eq!(duty_permyriad(ma), duty, "{ma} mA");
        }
        for (duty, ma) in [
            (0, None),
            (500, None),
            (799, None),
            (800, Some(6_000)),
            (999, Some(6_000)),
            (1_000, Some(6_000)),
            (5_333, Some(31_998)),
            (8_500, Some(51_000)),
            (8_501, Some(52_525)),
            (9_600, Some(80_000)),
            (9_700, Some(80_000)),
            (9_701, None),
            (10_000, None),
            (u16::MAX, None),
        ] {
            assert_eq!(current_ma(duty), ma, "{duty}");
        }
    }

    proptest! {
        #![proptest_config(config("pilot", 1_024))]

        #[test]
        fn no_car_takes_more(ma in CURRENT_MA_MIN..=CURRENT_MA_MAX) {
            let told = current_ma(duty_permyriad(ma).unwrap()).unwrap();
            prop_assert!(told <= ma && ma - told <= 2_000, "{} {}", ma, told);
        }

        #[test]
        fn closed_only_where_it_may_be(
            looks in prop::collection::vec((0..60u64, prop_oneof![-13_000..14_000i32, Just(6_000)], prop_oneof![Just(None), Just(Some(-12_000)), any::<i32>().prop_map(Some)]), 0..200),
            tuning in (any::<u16>(), any::<u16>(), any::<bool>()),
        ) {
            let mut pilot = Pilot::new(Tuning { hysteresis_mv: tuning.0, debounce_ms: tuning.1, ventilated: tuning.2 });
            let mut now_ms = 0;
            let mut out_since_ms = None::<u64>;
            for (later_ms, high_mv, low_mv) in looks {
                now_ms += later_ms;
                let contactor = pilot.look(now_ms, Levels { high_mv, low_mv });
                let level = if tuning.2 { 500..8_500 } else { 3_500..8_500 };
                let plausible = level.contains(&high_mv) && low_mv.is_some_and(|low_mv| low_mv <= DIODE_MV);
                prop_assert!(contactor != Contactor::MayClose || plausible);
                out_since_ms = if plausible { None } else { out_since_ms.or(Some(now_ms)) };
                if out_since_ms.is_some_and(|since_ms| now_ms - since_ms >= OPEN_WITHIN_MS) {
                    prop_assert_eq!(contactor, Contactor::Open);
                }
            }
        }
    }
}

//! A flow sensor: a turbine that gives pulses, each worth a fixed volume.
//!
//! The interrupt calls [`Pulses::add`] and does nothing else. Whoever wants millilitres looks at intervals. What is less
//! than a millilitre is carried to the next look, so water is neither lost nor found. A rate that the sensor cannot
//! reach is electrical noise and no water: those pulses are a fault.

use core::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::meter::Carried;

/// A rate is judged over so many ms at least. Less would let a single pulse decide.
pub const JUDGED_OVER_MS: u64 = 100;

/// What the interrupt counts in. It wraps, and nobody minds.
#[derive(Debug, Default)]
pub struct Pulses(AtomicU32);

impl Pulses {
    /// No pulse yet. `const`, so that it can be a static that an interrupt reaches.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// As a timer in counting mode would have them: the count so far.
    pub fn set(&self, count: u32) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a sensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sensor {
    /// K factor: so many pulses..
    pub pulses: NonZeroU32,
    /// ..are so many litres. (450, 1) is a sensor of 450 pulses per litre, (4_517, 10) a calibrated one.
    pub litres: NonZeroU32,
    /// More water than this, in ml per second, does not fit through it.
    pub rate_ml_s_max: u32,
}

/// What a look showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flowed {
    /// Water since the look before, in ml.
    pub volume_ml_delta: u64,
    /// Pulses came, and they were water.
    pub flowing: bool,
    /// Pulses came faster than water can.
    pub fault: bool,
}

/// Water from pulses.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    sensor: Sensor,
    count: u32,
    looked_ms: u64,
    volume: Carried,
    shown: Flowed,
    glitches: u64,
}

impl Flow {
    /// Begins with a count and a time; pulses before do not matter.
    #[must_use]
    pub fn new(sensor: Sensor, pulses: &Pulses, now_ms: u64) -> Self {
        Self {
            sensor,
            count: pulses.count(),
            looked_ms: now_ms,
            volume: Carried::default(),
            shown: Flowed::default(),
            glitches: 0,
        }
    }

    /// What flowed since the look before. A look within [`JUDGED_OVER_MS`] of the one before sees no water yet, and
    /// otherwise the same.
    pub fn look(&mut self, now_ms: u64, pulses: &Pulses) -> Flowed {
        let elapsed_ms = now_ms.saturating_sub(self.looked_ms);
        if elapsed_ms < JUDGED_OVER_MS {
            return Flowed {
                volume_ml_delta: 0,
                ..self.shown
            };
        }
        let count = pulses.count();
        let new = count.wrapping_sub(self.count);
        self.count = count;
        self.looked_ms = now_ms;
        let fault = u128::from(new) > self.pulses_max(elapsed_ms);
        if fault {
            self.glitches = self.glitches.saturating_add(u64::from(new));
        }
        let water = if fault { 0 } else { new };
        let volume = u128::from(water) * 1_000 * u128::from(self.sensor.litres.get());
        self.shown = Flowed {
            volume_ml_delta: self.volume.divide(volume, u128::from(self.sensor.pulses.get())),
            flowing: water > 0,
            fault,
        };
        self.shown
    }

    /// Pulses that were no water.
    #[must_use]
    pub const fn glitches(&self) -> u64 {
        self.glitches
    }

    /// One more than the rate allows, for an interval may begin just before a pulse and end just after another.
    fn pulses_max(&self, elapsed_ms: u64) -> u128 {
        let water_ul = u128::from(self.sensor.rate_ml_s_max) * u128::from(elapsed_ms);
        let pulses = water_ul * u128::from(self.sensor.pulses.get());
        pulses / (1_000_000 * u128::from(self.sensor.litres.get())) + 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::config;

    fn sensor(pulses: u32, litres: u32, rate_ml_s_max: u32) -> Sensor {
        Sensor {
            pulses: NonZeroU32::new(pulses).unwrap(),
            litres: NonZeroU32::new(litres).unwrap(),
            rate_ml_s_max,
        }
    }

    #[test]
    fn looks() {
        let water = |volume_ml_delta| Flowed {
            volume_ml_delta,
            flowing: true,
            fault: false,
        };
        let still = Flowed::default();
        let noise = Flowed { fault: true, ..still };
        // 450 pulses per litre, at most 500 ml/s: 225 pulses a second and one.
        type Step = (u64, u32, Flowed);
        let cases: &[(&str, u32, &[Step])] = &[
            ("no water", 0, &[(1_000, 0, still)]),
            ("a litre", 0, &[(2_000, 450, water(1_000))]),
            (
                "the remainder is carried",
                0,
                &[
                    (1_000, 1, water(2)),
                    (2_000, 1, water(2)),
                    (3_000, 1, water(2)),
                    (4_000, 6, water(14)),
                ],
            ),
            ("pulses stop", 0, &[(1_000, 45, water(100)), (2_000, 0, still)]),
            ("wrap", u32::MAX - 20, &[(1_000, 45, water(100))]),
            ("the fastest", 0, &[(1_000, 226, water(502))]),
            ("too fast", 0, &[(1_000, 227, noise)]),
            (
                "noise, then water",
                0,
                &[(1_000, 100_000, noise), (2_000, 45, water(100))],
            ),
            ("more noise than a wrap apart", 0, &[(1_000, u32::MAX, noise)]),
            (
                "too early to judge",
                0,
                &[
                    (99, 45, still),
                    (1_000, 0, water(100)),
                    (
                        1_050,
                        9,
                        Flowed {
                            volume_ml_delta: 0,
                            ..water(0)
                        },
                    ),
                    (1_100, 0, water(20)),
                ],
            ),
            (
                "a clock that runs backwards",
                0,
                &[(1_000, 45, water(100)), (500, 45, water(0)), (2_000, 0, water(100))],
            ),
            ("a look after a very long time", 0, &[(u64::MAX, 450, water(1_000))]),
        ];
        for (what, begin, steps) in cases {
            let pulses = Pulses::new();
            pulses.set(*begin);
            let mut flow = Flow::new(sensor(450, 1, 500), &pulses, 0);
            for (now_ms, new, expected) in *steps {
                pulses.set(pulses.count().wrapping_add(*new));
                assert_eq!(flow.look(*now_ms, &pulses), *expected, "{what} at {now_ms}");
            }
        }
    }

    #[test]
    fn noise_is_counted() {
        let pulses = Pulses::new();
        let mut flow = Flow::new(sensor(450, 1, 0), &pulses, 0);
        pulses.add();
        assert!(flow.look(1_000, &pulses).flowing);
        pulses.add();
        pulses.add();
        assert!(flow.look(2_000, &pulses).fault);
        assert_eq!(flow.glitches(), 2);
    }

    proptest! {
        #![proptest_config(config("flow", 512))]

        #[test]
        fn looks_add_up(
            k in (1..=100_000u32, 1..=1_000u32),
            begin in any::<u32>(),
            steps in prop::collection::vec((0..1_000u32, 0..5_000u64), 1..100),
        ) {
            let pulses = Pulses::new();
            pulses.set(begin);
            let mut flow = Flow::new(sensor(k.0, k.1, u32::MAX), &pulses, 0);
            let (mut now_ms, mut total, mut volume_ml) = (0, 0u128, 0);
            // The rate that so few litres to a pulse need is beyond any sensor.
            let plausible = |pulses: u32| u64::from(pulses) * u64::from(k.1) / u64::from(k.0) < 4_000_000 / 10;
            for (new, later_ms) in steps {
                prop_assume!(plausible(new));
                pulses.set(pulses.count().wrapping_add(new));
                total += u128::from(new);
                now_ms += later_ms;
                volume_ml += u128::from(flow.look(now_ms, &pulses).volume_ml_delta);
            }
            volume_ml += u128::from(flow.look(now_ms + JUDGED_OVER_MS, &pulses).volume_ml_delta);
            prop_assert_eq!(flow.glitches(), 0);
            prop_assert_eq!(volume_ml, total * 1_000 * u128::from(k.1) / u128::from(k.0));
        }

        #[test]
        fn water_and_noise_are_all_there_is(
            rate in any::<u32>(),
            k in (1..=u32::MAX, 1..=u32::MAX),
            steps in prop::collection::vec((any::<u32>(), any::<u64>()), 0..50),
        ) {
            let pulses = Pulses::new();
            let mut flow = Flow::new(sensor(k.0, k.1, rate), &pulses, 0);
            for (count, now_ms) in steps {
                pulses.set(count);
                let flowed = flow.look(now_ms, &pulses);
                prop_assert!(!(flowed.fault && (flowed.flowing || flowed.volume_ml_delta > 0)));
            }
        }
    }
}

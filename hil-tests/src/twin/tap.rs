//! A water tap: a valve that closes with a lag, a flow sensor that counts pulses, and a vessel that overflows for nobody,
//! because the user lets go of the lever when it is full.

use device::Sense;
use proto::money::Units;

/// Flow with the valve open, in ul per ms: 6 l a minute.
const FLOW_UL_PER_MS: u64 = 100;
/// The sensor's pulses per litre (a common half-inch Hall sensor).
const PULSES_PER_LITRE: u64 = 450;
/// How long water still runs after the valve lost its power, in ms of real time.
const VALVE_LAG_MS: u64 = 120;
const UL_PER_LITRE: u64 = 1_000_000;

#[derive(Debug)]
pub(crate) struct Tap {
    speed: u64,
    /// All water that ever passed, in ul.
    passed_ul: u64,
    /// Room left in the vessel under the tap, in ul.
    room_ul: Option<u64>,
    open_left_ms: u64,
    valve_on: bool,
    /// The pulse counter at the last reading.
    pulses_read: u64,
}

impl Tap {
    pub(crate) fn new(speed: u64, passed_ml: u64) -> Self {
        let passed_ul = passed_ml * 1_000;
        Self {
            speed,
            passed_ul,
            room_ul: None,
            open_left_ms: 0,
            valve_on: false,
            pulses_read: pulses(passed_ul),
        }
    }

    pub(crate) fn hold(&mut self, vessel_ml: u64) {
        self.room_ul = Some(vessel_ml * 1_000);
    }

    pub(crate) fn take_away(&mut self) {
        self.room_ul = None;
    }

    /// Lets `real_ms` pass with the valve on or off; returns what ran, in ul (thousandths of a ml).
    pub(crate) fn advance(&mut self, real_ms: u64, on: bool) -> u64 {
        self.valve_on = on;
        let open_ms = if on { real_ms } else { real_ms.min(self.open_left_ms) };
        self.open_left_ms = if on { VALVE_LAG_MS } else { self.open_left_ms - open_ms };
        let Some(room_ul) = &mut self.room_ul else { return 0 };
        let ran_ul = (FLOW_UL_PER_MS * open_ms * self.speed).min(*room_ul);
        *room_ul -= ran_ul;
        self.passed_ul += ran_ul;
        ran_ul
    }

    pub(crate) fn power_lost(&mut self) {
        self.valve_on = false;
    }

    pub(crate) fn sense(&mut self) -> Sense {
        let pulses = pulses(self.passed_ul);
        let flowing = pulses > self.pulses_read;
        self.pulses_read = pulses;
        Sense {
            register: Units(pulses * 1_000 / PULSES_PER_LITRE),
            power_w: if self.valve_on { 12 } else { 1 },
            current_ma: if self.valve_on { 500 } else { 40 },
            temperature_c: 18,
            relay_closed: self.valve_on,
            flowing,
            door_locked: true,
            plugged: true,
            ..Sense::default()
        }
    }
}

fn pulses(passed_ul: u64) -> u64 {
    passed_ul * PULSES_PER_LITRE / UL_PER_LITRE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn water_comes_in_pulses_until_the_vessel_is_full() {
        let mut tap = Tap::new(1, 0);
        assert_eq!(tap.advance(1_000, true), 0, "nobody holds a vessel");
        tap.hold(500);
        assert_eq!(tap.advance(1_000, true), 100_000);
        let sense = tap.sense();
        assert_eq!((sense.register, sense.flowing), (Units(100), true), "45 pulses");
        assert_eq!(tap.advance(15, true), 1_500);
        assert_eq!(tap.sense().register, Units(100), "less than a pulse");
        assert_eq!(tap.advance(1_000, false), 12_000, "the valve's lag");
        assert_eq!(tap.advance(60_000, true), 386_500, "the rest of the vessel");
        assert!(tap.sense().flowing);
        tap.advance(1_000, true);
        assert!(!tap.sense().flowing);
        assert_eq!(tap.sense().register, Units(500));
    }
}

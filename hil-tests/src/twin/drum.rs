//! A washing machine: a door, a start button, a programme of phases with their power, and a permit from the device.

use device::Sense;
use proto::money::Units;

/// Name, length in s and power in W of each phase.
const PROGRAMME: [(&str, u64, u32); 5] = [
    ("fill", 120, 15),
    ("heat", 600, 2_000),
    ("wash", 900, 250),
    ("rinse", 600, 150),
    ("spin", 420, 450),
];
/// The machine goes on for so long without its permit, in ms of real time: a device that boots takes it away for a moment.
const RIDE_THROUGH_MS: u64 = 10_000;
/// One cycle in the twin's thousandths.
const CYCLE_MILLI: u64 = 1_000;

#[derive(Debug)]
pub(crate) struct Drum {
    speed: u64,
    cycles: u64,
    door_closed: bool,
    start_pressed: bool,
    permit: bool,
    without_permit_ms: u64,
    /// Where in the programme, in ms of the machine's time.
    at_ms: Option<u64>,
    /// Cycles that ended before their time.
    cut: u64,
}

impl Drum {
    pub(crate) fn new(speed: u64, cycles: u64) -> Self {
        Self {
            speed,
            cycles,
            door_closed: false,
            start_pressed: false,
            permit: false,
            without_permit_ms: 0,
            at_ms: None,
            cut: 0,
        }
    }

    pub(crate) fn close_door(&mut self) {
        self.door_closed = true;
    }

    /// Opens the door, unless a programme has it locked; returns whether it is open.
    pub(crate) fn open_door(&mut self) -> bool {
        self.door_closed = self.at_ms.is_some();
        self.start_pressed = false;
        !self.door_closed
    }

    pub(crate) fn press_start(&mut self) {
        self.start_pressed = true;
    }

    pub(crate) fn cut(&self) -> u64 {
        self.cut
    }

    /// Lets `real_ms` pass with or without permit; returns cycles begun, in thousandths.
    pub(crate) fn advance(&mut self, real_ms: u64, permit: bool) -> u64 {
        self.permit = permit;
        match &mut self.at_ms {
            Some(at_ms) => {
                *at_ms += real_ms * self.speed;
                self.without_permit_ms = if permit { 0 } else { self.without_permit_ms + real_ms };
                if *at_ms >= programme_ms() {
                    (self.at_ms, self.start_pressed) = (None, false);
                } else if self.without_permit_ms > RIDE_THROUGH_MS {
                    (self.at_ms, self.start_pressed) = (None, false);
                    self.cut += 1;
                }
                0
            }
            None if permit && self.start_pressed && self.door_closed => {
                self.at_ms = Some(0);
                self.without_permit_ms = 0;
                self.cycles += 1;
                CYCLE_MILLI
            }
            None => 0,
        }
    }

    /// The programme waits for the power and goes on with it.
    pub(crate) fn power_lost(&mut self) {
        self.permit = false;
        self.without_permit_ms = 0;
    }

    pub(crate) fn sense(&self) -> Sense {
        let power_w = self.at_ms.map_or(2, power_at);
        Sense {
            register: Units(self.cycles),
            power_w,
            current_ma: power_w * 1_000 / 230,
            temperature_c: 30,
            relay_closed: self.permit,
            door_locked: self.at_ms.is_some(),
            running: self.at_ms.is_some(),
            plugged: true,
            ..Sense::default()
        }
    }
}

fn programme_ms() -> u64 {
    PROGRAMME.iter().map(|(_, seconds, _)| seconds * 1_000).sum()
}

fn power_at(at_ms: u64) -> u32 {
    let mut begin_ms = 0;
    for (_, seconds, power_w) in PROGRAMME {
        begin_ms += seconds * 1_000;
        if at_ms < begin_ms {
            return power_w;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programme_needs_permit_door_and_start_and_rides_through_a_reboot() {
        let mut drum = Drum::new(60, 7);
        drum.press_start();
        assert_eq!(drum.advance(1_000, true), 0, "the door is open");
        drum.close_door();
        assert_eq!(drum.advance(1_000, false), 0, "no permit");
        assert_eq!(drum.advance(1_000, true), CYCLE_MILLI);
        assert_eq!(drum.sense().register, Units(8));
        drum.advance(5_000, true);
        assert_eq!(drum.sense().power_w, 2_000, "heating");
        drum.advance(9_000, false);
        assert!(drum.sense().running && !drum.open_door(), "a moment without permit");
        drum.advance(40_000, true);
        assert!(!drum.sense().running && drum.open_door());
        assert_eq!(drum.cut(), 0);

        drum.close_door();
        drum.press_start();
        drum.advance(1_000, true);
        drum.advance(10_001, false);
        assert_eq!((drum.sense().running, drum.cut()), (false, 1));
    }
}

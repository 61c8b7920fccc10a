//! What surrounds a board: a battery and its socket, a drum, a tap. The same machines as around a twin, here behind pins
//! and chips.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use drivers::meter::sim::Load;
use proto::id::Kind;

use crate::{
    rig::{chips::Wire, pins, qtest::Qtest},
    twin::{Injury, Thing, machine::Machine, usual_thing},
};

/// Pulses of the flow meter, each so much water, in ul.
const PULSE_UL: u64 = 1_000_000 / 450;
/// Mains voltage, in mV.
const VOLTAGE_MV: u32 = 230_000;

/// A machine and what it does to the pins.
#[derive(Debug)]
pub struct World {
    machine: Machine,
    kind: Kind,
    since: Option<Instant>,
    /// Pins as they were last set: contactor or running, plug or door, leak.
    set: [Option<bool>; 3],
    /// The output when it was last looked at.
    on: bool,
    coin: bool,
    coins: u32,
    /// Water that is no whole pulse yet, in ul.
    begun_ul: u64,
    /// All that was delivered: mWh, thousandths of a cycle, ul.
    delivered_milli: u64,
}

impl World {
    pub(crate) fn new(kind: Kind, speed: u32) -> Self {
        let speed = match kind {
            // Water runs as fast as it does: people stand there.
            Kind::Dispenser => 1,
            Kind::Charger | Kind::Washer | Kind::Unknown => u64::from(speed),
        };
        Self {
            machine: Machine::new(kind, speed, 0),
            kind,
            since: None,
            set: [None; 3],
            on: false,
            coin: false,
            coins: 0,
            begun_ul: 0,
            delivered_milli: 0,
        }
    }

    /// What the machine dispenses.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// All that was delivered so far: mWh, thousandths of a cycle, or ul.
    #[must_use]
    pub const fn delivered_milli(&self) -> u64 {
        self.delivered_milli
    }

    /// Whether the machine goes on by itself: a washing machine, with or without a session.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.machine.is_running()
    }

    /// Coins that the washer was given.
    #[must_use]
    pub const fn coins(&self) -> u32 {
        self.coins
    }

    /// Plugs a battery in, fills the drum and closes its door, or holds a vessel under the tap.
    pub fn bring(&mut self) {
        self.bring_thing(usual_thing(self.kind));
    }

    /// The same with a thing of one's own.
    pub fn bring_thing(&mut self, thing: Thing) {
        self.machine.bring(thing);
    }

    /// Pulls the plug, opens the door, takes the vessel away.
    pub fn take_away(&mut self) {
        self.machine.take_away();
    }

    /// Injures the machine, or heals it. Heat is not the machine's: the thermistor has a wire of its own.
    pub(crate) fn injure(&mut self, injury: Injury, is_injured: bool) {
        self.machine.injure(injury, is_injured);
    }

    /// Welds the contactor's contacts, which then stay closed whatever its coil says, or breaks them apart.
    pub fn weld(&mut self, welded: bool) {
        self.injure(Injury::Weld, welded);
    }

    pub(crate) fn power_lost(&mut self) {
        self.since = None;
        self.machine.power_lost();
    }

    pub(crate) fn powered(&mut self) {
        self.since = Some(Instant::now());
        self.set = [None; 3];
        self.on = false;
        self.coin = false;
    }

    pub(crate) fn step(&mut self, io: &mut Qtest, wire: &Mutex<Wire>) -> anyhow::Result<()> {
        let on = io.pin(pins::OUTPUT)?;
        let now = Instant::now();
        let passed = passed_ms(self.since.get_or_insert(now), now);
        if self.kind == Kind::Washer {
            let coin = io.pin(pins::COINS)?;
            if coin && !self.coin {
                self.coins += 1;
                self.machine.press_start();
            }
            self.coin = coin;
        }
        // Until now the output was as it was found, for the meter as well: a host that stalls delays what both see.
        let before = self.machine.advance(passed, std::mem::replace(&mut self.on, on));
        let delivered_milli = before + self.machine.advance(0, on);
        self.delivered_milli += delivered_milli;
        let broken = self.machine.has(Injury::SilentMeter);
        // A silent meter gives no reading; the contacts are as they were.
        let sense = self.machine.sense();
        match self.kind {
            Kind::Charger | Kind::Unknown => {
                let mut wire = wire.lock().expect("nothing panics under this lock");
                wire.broken = broken;
                if let Some(sense) = &sense {
                    wire.load = Load {
                        voltage_mv: VOLTAGE_MV,
                        current_ma: sense.current_ma,
                        power_mw: sense.power_w * 1_000,
                    };
                }
            }
            Kind::Dispenser => self.pulse(io, delivered_milli)?,
            Kind::Washer => {}
        }
        let Some(sense) = sense else { return Ok(()) };
        let first = match self.kind {
            Kind::Washer => sense.running,
            Kind::Charger | Kind::Dispenser | Kind::Unknown => sense.relay_closed,
        };
        let second = match self.kind {
            Kind::Washer => sense.door_locked,
            Kind::Charger | Kind::Dispenser | Kind::Unknown => sense.plugged,
        };
        let contacts = [
            (pins::CLOSED_OR_RUNNING, first),
            (pins::PLUG_OR_DOOR, second),
            (pins::LEAK, sense.leaking),
        ];
        for (i, (pin, active)) in contacts.into_iter().enumerate() {
            if self.set[i] != Some(active) {
                // Contacts pull to ground.
                io.set_pin(pin, !active)?;
                self.set[i] = Some(active);
            }
        }
        Ok(())
    }

    fn pulse(&mut self, io: &mut Qtest, ran_ul: u64) -> anyhow::Result<()> {
        self.begun_ul += ran_ul;
        // One at a time: a turbine's pulses have a pace.
        if self.begun_ul >= PULSE_UL {
            self.begun_ul -= PULSE_UL;
            io.set_pin(pins::FLOW, true)?;
            io.set_pin(pins::FLOW, false)?;
        }
        Ok(())
    }
}

/// Whole milliseconds since `since`, which they advance: what is no whole one yet passes with the next.
pub(crate) fn passed_ms(since: &mut Instant, now: Instant) -> u64 {
    let passed = now.duration_since(*since).as_millis() as u64;
    *since += Duration::from_millis(passed);
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_steps_lose_no_time() {
        let begun = Instant::now();
        let mut since = begun;
        let steps = (1..=1_000).map(|step| begun + Duration::from_micros(1_900) * step);
        assert_eq!(steps.map(|now| passed_ms(&mut since, now)).sum::<u64>(), 1_900);
    }
}

//! What surrounds a board: a battery and its socket, a drum, a tap. The same machines as around a twin, here behind pins
//! and chips.

use std::{sync::Mutex, time::Instant};

use drivers::meter::sim::Load;
use proto::id::Kind;

use crate::{
    rig::{chips::Wire, pins, qtest::Qtest},
    twin::{Battery, drum::Drum, socket::Socket, tap::Tap},
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
    /// Pins as they were last set: contactor or running, plug or door.
    set: [Option<bool>; 2],
    coin: bool,
    coins: u32,
    /// Water that is no whole pulse yet, in ul.
    begun_ul: u64,
    /// The contactor's contacts are welded.
    welded: bool,
    /// All that was delivered: mWh, thousandths of a cycle, ul.
    delivered_milli: u64,
}

#[derive(Debug)]
enum Machine {
    Socket(Socket),
    Drum(Drum),
    Tap(Tap),
}

impl World {
    pub(crate) fn new(kind: Kind, speed: u32) -> Self {
        let speed = u64::from(speed);
        let machine = match kind {
            Kind::Washer => Machine::Drum(Drum::new(speed, 0)),
            // Water runs as fast as it does: people stand there.
            Kind::Dispenser => Machine::Tap(Tap::new(1, 0)),
            Kind::Charger | Kind::Unknown => Machine::Socket(Socket::new(speed, 0)),
        };
        Self {
            machine,
            kind,
            since: None,
            set: [None; 2],
            coin: false,
            coins: 0,
            begun_ul: 0,
            welded: false,
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

    /// Coins that the washer was given.
    #[must_use]
    pub const fn coins(&self) -> u32 {
        self.coins
    }

    /// Plugs a battery in, fills the drum and closes its door, or holds a vessel under the tap.
    pub fn bring(&mut self) {
        match &mut self.machine {
            Machine::Socket(socket) => socket.plug(Battery {
                capacity_wh: 500,
                charge_wh: 100,
                power_w: 200,
            }),
            Machine::Drum(drum) => drum.close_door(),
            Machine::Tap(tap) => tap.hold(500),
        }
    }

    /// Pulls the plug, opens the door, takes the vessel away.
    pub fn take_away(&mut self) {
        match &mut self.machine {
            Machine::Socket(socket) => {
                socket.unplug();
            }
            Machine::Drum(drum) => {
                drum.open_door();
            }
            Machine::Tap(tap) => tap.take_away(),
        }
    }

    /// Welds the contactor's contacts, which then stay closed whatever its coil says, or breaks them apart.
    pub const fn weld(&mut self, welded: bool) {
        self.welded = welded;
    }

    pub(crate) fn power_lost(&mut self) {
        self.since = None;
        match &mut self.machine {
            Machine::Socket(socket) => socket.power_lost(),
            Machine::Drum(drum) => drum.power_lost(),
            Machine::Tap(tap) => tap.power_lost(),
        }
    }

    pub(crate) fn powered(&mut self) {
        self.since = Some(Instant::now());
        self.set = [None; 2];
        self.coin = false;
    }

    pub(crate) fn step(&mut self, io: &mut Qtest, wire: &Mutex<Wire>) -> anyhow::Result<()> {
        let on = io.pin(pins::OUTPUT)? || self.welded;
        let now = Instant::now();
        let passed = self
            .since
            .replace(now)
            .map_or(0, |since| now.duration_since(since).as_millis() as u64);
        let (first, second) = match &mut self.machine {
            Machine::Socket(socket) => {
                self.delivered_milli += socket.advance(passed, on);
                let sense = socket.sense();
                wire.lock().expect("nothing panics under this lock").load = Load {
                    voltage_mv: VOLTAGE_MV,
                    current_ma: sense.current_ma,
                    power_mw: sense.power_w * 1_000,
                };
                (sense.relay_closed, sense.plugged)
            }
            Machine::Drum(drum) => {
                let coin = io.pin(pins::COINS)?;
                if coin && !self.coin {
                    self.coins += 1;
                    drum.press_start();
                }
                self.coin = coin;
                self.delivered_milli += drum.advance(passed, on);
                let sense = drum.sense();
                (sense.running, sense.door_locked)
            }
            Machine::Tap(tap) => {
                let ran_ul = tap.advance(passed, on);
                self.delivered_milli += ran_ul;
                self.begun_ul += ran_ul;
                // One at a time: a turbine's pulses have a pace.
                if self.begun_ul >= PULSE_UL {
                    self.begun_ul -= PULSE_UL;
                    io.set_pin(pins::FLOW, true)?;
                    io.set_pin(pins::FLOW, false)?;
                }
                (false, false)
            }
        };
        let contacts = [(pins::CLOSED_OR_RUNNING, first), (pins::PLUG_OR_DOOR, second)];
        for (i, (pin, active)) in contacts.into_iter().enumerate() {
            if self.set[i] != Some(active) {
                // Contacts pull to ground.
                io.set_pin(pin, !active)?;
                self.set[i] = Some(active);
            }
        }
        Ok(())
    }
}

//! The physical truth of one outlet: what is plugged in, what flows, what the register counts. It knows no session.

use device::Sense;
use proto::{id::Kind, money::Units};

const MS_PER_HOUR: u64 = 3_600_000;
const VOLTAGE_V: u64 = 230;

/// One outlet and what its user does with it.
#[derive(Clone, Debug)]
pub(super) struct Physical {
    pub(super) kind: Kind,
    /// Cumulative: Wh, cycles, ml.
    pub(super) register: u64,
    /// Parts of a unit.
    part: u64,
    /// The contactor, the start permit, the valve.
    pub(super) on: bool,
    /// A plug is in; the tap is open; the start button is pressed.
    pub(super) in_use: bool,
    /// What the battery or the vessel still takes, in units of the register.
    pub(super) wanted: u64,
    /// W, or ml per s.
    pub(super) rate: u64,
    /// Length of the washer's programme, in ms.
    pub(super) cycle_ms: u64,
    running_until_ms: u64,
    at_ms: u64,
    sensed: u64,
}

impl Physical {
    pub(super) const fn new(kind: Kind, register: u64) -> Self {
        Self {
            kind,
            register,
            part: 0,
            on: false,
            in_use: false,
            wanted: 0,
            rate: 0,
            cycle_ms: 0,
            running_until_ms: 0,
            at_ms: 0,
            sensed: register,
        }
    }

    /// Time passes; returns what the register advanced.
    pub(super) fn advance(&mut self, t_ms: u64) -> u64 {
        let passed_ms = t_ms - self.at_ms;
        self.at_ms = t_ms;
        let per_unit = match self.kind {
            Kind::Charger => MS_PER_HOUR,
            Kind::Dispenser => 1_000,
            Kind::Washer | Kind::Unknown => {
                let begins = self.on && self.in_use && self.running_until_ms <= t_ms;
                if begins {
                    self.in_use = false;
                    self.register += 1;
                    self.running_until_ms = t_ms + self.cycle_ms;
                }
                return u64::from(begins);
            }
        };
        if !self.draws() {
            return 0;
        }
        self.part += self.rate * passed_ms;
        let units = (self.part / per_unit).min(self.wanted);
        self.part -= units * per_unit;
        self.register += units;
        self.wanted -= units;
        if self.wanted == 0 {
            self.part = 0;
        }
        units
    }

    const fn draws(&self) -> bool {
        self.on && self.in_use && self.wanted > 0
    }

    /// What the device's sensors say now.
    pub(super) fn sense(&mut self) -> Sense {
        let is_charger = self.kind == Kind::Charger;
        let power_w = if is_charger && self.draws() { self.rate } else { 0 };
        let flowing = self.kind == Kind::Dispenser && self.register > self.sensed;
        let running = self.running_until_ms > self.at_ms;
        self.sensed = self.register;
        Sense {
            register: Units(self.register),
            power_w: power_w as u32,
            current_ma: (power_w * 1_000 / VOLTAGE_V) as u32,
            temperature_c: 25,
            relay_closed: is_charger && self.on,
            flowing,
            door_locked: running,
            running,
            plugged: !is_charger || self.in_use,
            leaking: false,
        }
    }
}

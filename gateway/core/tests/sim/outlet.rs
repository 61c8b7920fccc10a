//! The physical truth of one outlet: what is plugged in, what flows, what the register counts. It knows no session.

use device::Sense;
use proto::{id::Kind, money::Units};

const MS_PER_HOUR: u64 = 3_600_000;

/// One outlet and what its user does with it.
#[derive(Clone, Debug)]
pub(crate) struct Physical {
    pub(crate) kind: Kind,
    /// Cumulative, kept without power: Wh, cycles, ml.
    pub(crate) register: u64,
    /// Parts of a unit: mW h / 1000 x ms, or ml x ms.
    part: u64,
    /// The contactor, the start permit, the valve.
    pub(crate) on: bool,
    /// A plug is in; the tap is open; the start button is pressed.
    pub(crate) in_use: bool,
    /// What the battery or the vessel still takes, in units of the register.
    pub(crate) wanted: u64,
    /// W, or ml per s.
    pub(crate) rate: u64,
    /// The washer's programme runs until then.
    pub(crate) running_until_ms: u64,
    pub(crate) cycle_ms: u64,
    pub(crate) leaking_until_ms: u64,
    at_ms: u64,
    sensed_register: u64,
}

impl Physical {
    pub(crate) fn new(kind: Kind, register: u64) -> Self {
        Self {
            kind,
            register,
            part: 0,
            on: false,
            in_use: false,
            wanted: 0,
            rate: 0,
            running_until_ms: 0,
            cycle_ms: 0,
            leaking_until_ms: 0,
            at_ms: 0,
            sensed_register: register,
        }
    }

    /// Time passes; returns what the register advanced.
    pub(crate) fn advance(&mut self, t_ms: u64) -> u64 {
        let passed_ms = t_ms - self.at_ms;
        self.at_ms = t_ms;
        let before = self.register;
        let per_unit = match self.kind {
            Kind::Charger => MS_PER_HOUR,
            Kind::Dispenser => 1_000,
            Kind::Washer | Kind::Unknown => {
                if self.on && self.in_use && self.running_until_ms <= t_ms {
                    self.in_use = false;
                    self.register += 1;
                    self.running_until_ms = t_ms + self.cycle_ms;
                }
                return self.register - before;
            }
        };
        if self.draws() {
            self.part += self.rate * passed_ms;
            let units = (self.part / per_unit).min(self.wanted);
            self.part -= units * per_unit;
            self.register += units;
            self.wanted -= units;
            if self.wanted == 0 {
                self.part = 0;
            }
        }
        self.register - before
    }

    fn draws(&self) -> bool {
        self.on && self.in_use && self.wanted > 0
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running_until_ms > self.at_ms
    }

    /// What the device's sensors say now.
    pub(crate) fn sense(&mut self) -> Sense {
        let charger = self.kind == Kind::Charger;
        let power_w = if charger && self.draws() { self.rate as u32 } else { 0 };
        let flowing = self.kind == Kind::Dispenser && self.register > self.sensed_register;
        self.sensed_register = self.register;
        Sense {
            register: Units(self.register),
            power_w,
            current_ma: power_w * 4,
            temperature_c: 30,
            relay_closed: charger && self.on,
            flowing,
            door_locked: self.is_running(),
            running: self.is_running(),
            plugged: !charger || self.in_use,
            leaking: self.leaking_until_ms > self.at_ms,
        }
    }
}

//! What is wrong with an outlet, and for how long it stays out of order.

use proto::{message::Fault, money::Units};

use crate::{
    config::{
        FAULT_CLEAR_MS, LEAK_WINDOW_MS, METER_STILL_MS, METER_STILL_POWER_W, NOT_STARTED_MAX, NOT_STARTED_REST_MS,
        SETTLE_MS, Supply, TEMPERATURE_HYSTERESIS_C, Tuning,
    },
    io::Sense,
    rules::Supplied,
};

/// The latch of one outlet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latch {
    fault: Fault,
    /// Until when it holds at least; `None`: until the next boot.
    until_ms: Option<u64>,
    not_started: u8,
    /// Register and time of the last advance, to find a meter that stands still.
    moved: Option<(u64, u64)>,
    /// Register and time when the output had settled off, to find water that passes a closed valve.
    off: Option<(Units, u64)>,
}

impl Latch {
    pub(crate) const fn new() -> Self {
        Self {
            fault: Fault::None,
            until_ms: Some(0),
            not_started: 0,
            moved: None,
            off: None,
        }
    }

    pub(crate) const fn fault(&self) -> Fault {
        self.fault
    }

    pub(crate) fn is_set(&self) -> bool {
        self.fault != Fault::None
    }

    pub(crate) const fn deadline_ms(&self) -> Option<u64> {
        if matches!(self.fault, Fault::None) {
            None
        } else {
            self.until_ms
        }
    }

    /// Looks at a reading. `off_since_ms`: since when the output has been off; `None`: it is on.
    pub(crate) fn look(
        &mut self,
        now_ms: u64,
        supply: Supply,
        tuning: &Tuning,
        sense: &Sense,
        before: Option<&Sense>,
        off_since_ms: Option<u64>,
    ) {
        if before.is_some_and(|before| sense.register < before.register) {
            return self.set(Fault::Meter, None);
        }
        let settled = off_since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= SETTLE_MS);
        let supplied = Supplied {
            sense,
            settled_off: settled,
            units_while_off: self.units_while_off(now_ms, settled, sense),
        };
        let hot_c = if self.fault == Fault::OverTemperature {
            tuning.temperature_c_max.saturating_sub(TEMPERATURE_HYSTERESIS_C)
        } else {
            tuning.temperature_c_max
        };
        let fault = if sense.current_ma > tuning.current_ma_max {
            Fault::OverCurrent
        } else if sense.temperature_c > hot_c {
            Fault::OverTemperature
        } else if self.stands_still(now_ms, supply, sense) {
            return self.set(Fault::Meter, None);
        } else {
            supply.fault(&supplied)
        };
        if fault == Fault::None {
            self.tick(now_ms);
        } else {
            self.set(fault, Some(now_ms.saturating_add(FAULT_CLEAR_MS)));
        }
    }

    /// Lets a fault that has been quiet for long enough go.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        if self.is_set() && self.until_ms.is_some_and(|until_ms| now_ms >= until_ms) {
            *self = Self {
                moved: self.moved,
                ..Self::new()
            };
        }
    }

    /// No readings come while something is delivered.
    pub(crate) fn blind(&mut self, now_ms: u64) {
        self.set(Fault::Meter, Some(now_ms.saturating_add(FAULT_CLEAR_MS)));
    }

    /// A start was not proven because the contactor did not follow.
    pub(crate) fn not_followed(&mut self, now_ms: u64) {
        self.not_started = self.not_started.saturating_add(1);
        if self.not_started >= NOT_STARTED_MAX {
            self.set(Fault::NoStart, Some(now_ms.saturating_add(NOT_STARTED_REST_MS)));
        }
    }

    pub(crate) const fn followed(&mut self) {
        self.not_started = 0;
    }

    /// A fault that holds until the next boot is not replaced by a passing one.
    fn set(&mut self, fault: Fault, until_ms: Option<u64>) {
        if !self.is_set() || self.until_ms.is_some() {
            self.fault = fault;
            self.until_ms = until_ms;
        }
    }

    fn units_while_off(&mut self, now_ms: u64, settled: bool, sense: &Sense) -> Units {
        let base = self
            .off
            .filter(|&(_, since_ms)| settled && now_ms.saturating_sub(since_ms) < LEAK_WINDOW_MS);
        self.off = settled.then_some(base.unwrap_or((sense.register, now_ms)));
        base.map_or(Units::ZERO, |(register, _)| sense.register.since(register))
    }

    fn stands_still(&mut self, now_ms: u64, supply: Supply, sense: &Sense) -> bool {
        let loaded = match supply {
            Supply::Charger => sense.power_w >= METER_STILL_POWER_W,
            Supply::Washer | Supply::Dispenser => false,
        };
        match self.moved {
            Some((register, since_ms)) if loaded && register == sense.register.0 => {
                now_ms.saturating_sub(since_ms) >= METER_STILL_MS
            }
            Some(_) | None => {
                self.moved = Some((sense.register.0, now_ms));
                false
            }
        }
    }
}

//! How far a session has come, what it costs, and whether its grant is used up.

use proto::{
    message::{Grant, Stamp},
    money::{Money, Units},
    tariff::{Bill, Usage},
};

use crate::{
    config::Supply,
    stored::{Open, Progress},
};

/// Where a running session stands on the clocks and the register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) register: Units,
    pub(crate) power_w: u32,
    pub(crate) elapsed_s: u32,
    pub(crate) idle_s: u32,
    /// Local second of the day now.
    pub(crate) second_of_day: Option<u32>,
}

/// Why a grant cannot be used.
///
/// A grant that could not be kept (its limits forbid even the beginning, its price cannot be computed) is never switched
/// on: the device answers with a stop that never started, and the gateway voids the hold.
pub(crate) fn is_usable(grant: &Grant, supply: Supply) -> bool {
    let least = least_charge(grant, supply);
    grant.units_max > Units::ZERO
        && grant.duration_max_s > 0
        && grant.tariff.check().is_ok()
        && grant.tariff.hash() == grant.tariff_hash
        && least <= grant.money_max
}

/// What the shortest session costs. A washer's is a whole cycle.
fn least_charge(grant: &Grant, supply: Supply) -> Money {
    let units = if supply.may_be_cut() { 0 } else { 1 };
    let mut bill = Bill::default();
    let usage = Usage {
        units: Units(units),
        ..Usage::default()
    };
    bill.add(&grant.tariff, supply.dimension(), &usage);
    bill.total(&grant.tariff)
}

impl Open {
    /// Most units: what was granted, or less if the user asked for less.
    pub(crate) fn units_max(&self, grant: &Grant) -> Units {
        match self.units_wished {
            Units::ZERO => grant.units_max,
            wished => grant.units_max.min(wished),
        }
    }

    /// Delivered so far, within the limit.
    pub(crate) fn units(&self) -> Units {
        self.progress.register.since(self.register_start)
    }

    /// What the session costs so far; nothing before the start is proven, never more than the hold.
    pub(crate) fn money(&self) -> Money {
        match &self.grant {
            Some(grant) if self.started => self.progress.bill.total(&grant.tariff).min(grant.money_max),
            Some(_) | None => Money::ZERO,
        }
    }

    /// Bills up to `mark`; returns whether the grant is used up.
    pub(crate) fn advance(&mut self, supply: Supply, mark: &Mark, stamp: &Stamp) -> bool {
        let Some(grant) = &self.grant else {
            return false;
        };
        let units_max = self.units_max(grant);
        let register_max = Units(self.register_start.0.saturating_add(units_max.0));
        let elapsed_max_s = grant.duration_max_s.saturating_sub(self.progress.lost_s);
        let register = mark.register.min(register_max).max(self.progress.register);
        let elapsed_s = mark.elapsed_s.min(elapsed_max_s).max(self.progress.elapsed_s);
        let slice = self.progress.advance(grant, supply, register, elapsed_s, mark);
        self.progress.wall_s = stamp.wall_s;
        self.progress.quality = stamp.quality;

        let units_used_up = mark.register >= register_max;
        let time_used_up = mark.elapsed_s >= elapsed_max_s;
        // One more slice like this one would cost more than the hold.
        let mut ahead = self.progress.bill;
        ahead.add(&grant.tariff, supply.dimension(), &slice);
        let money_used_up = ahead.total(&grant.tariff) > grant.money_max;
        units_used_up || time_used_up || money_used_up
    }

    /// Bills what the register counted while the device had no power. When it was counted nobody knows: the cheapest
    /// price applies.
    pub(crate) fn catch_up(&mut self, supply: Supply, register: Units) {
        let mark = Mark {
            register,
            power_w: 0,
            elapsed_s: self.progress.elapsed_s,
            idle_s: self.progress.idle_s,
            second_of_day: None,
        };
        let stamp = Stamp {
            mono_ms: 0,
            wall_s: self.progress.wall_s,
            quality: self.progress.quality,
        };
        self.advance(supply, &mark, &stamp);
    }
}

impl Progress {
    /// Adds one slice; returns one like it that is at least one unit and one second long.
    fn advance(&mut self, grant: &Grant, supply: Supply, register: Units, elapsed_s: u32, mark: &Mark) -> Usage {
        let duration_s = elapsed_s - self.elapsed_s;
        let idle_s = mark.idle_s.saturating_sub(self.idle_s).min(duration_s);
        let usage = Usage {
            units: register.since(self.register),
            duration_s,
            idle_s,
            power_w: mark.power_w,
            second_of_day: mark.second_of_day.map(|second| back(second, duration_s)),
        };
        if usage.units > Units::ZERO || duration_s > 0 {
            self.bill.add(&grant.tariff, supply.dimension(), &usage);
            self.register = register;
            self.elapsed_s = elapsed_s;
            self.idle_s += idle_s;
        }
        Usage {
            units: usage.units.max(Units(1)),
            duration_s: duration_s.max(1),
            ..usage
        }
    }
}

/// The second of the day `seconds` before `second`.
fn back(second: u32, seconds: u32) -> u32 {
    const SECONDS_A_DAY: u32 = 86_400;
    (second + SECONDS_A_DAY - seconds % SECONDS_A_DAY) % SECONDS_A_DAY
}

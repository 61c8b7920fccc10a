//! The table `[limits]`: what a grant gives at most, and what may be lost in an outage.

use gateway_core::config::{KindLimits, Limits};
use proto::money::{Money, Units};
use serde::Deserialize;

use super::{Checker, ConfigError};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsSection {
    site_budget: Option<i64>,
    list_full_s: Option<u64>,
    list_half_s: Option<u64>,
    confirmation_s: Option<u64>,
    ask_ms: Option<u64>,
    attempts_a_minute_max: Option<u32>,
    starts_an_hour_max: Option<u32>,
    device_change_ms: Option<u64>,
    #[serde(default)]
    charger: KindSection,
    #[serde(default)]
    washer: KindSection,
    #[serde(default)]
    dispenser: KindSection,
    #[serde(default)]
    car: KindSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindSection {
    units_max: Option<u64>,
    money_max: Option<i64>,
    duration_max_s: Option<u32>,
    outage_count_max: Option<u32>,
    outage_money_max: Option<i64>,
    start_within_s: Option<u16>,
    meter_every_s: Option<u16>,
    outage_count_lower: Option<u32>,
    emergency_units: Option<u64>,
    invalidation_units: Option<u64>,
}

/// The limits of this table, and of each kind.
///
/// # Errors
/// [`ConfigError`].
pub(super) fn limits(check: &Checker<'_>, section: &LimitsSection) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    let kinds = [
        ("charger", &section.charger, &mut limits.charger),
        ("washer", &section.washer, &mut limits.washer),
        ("dispenser", &section.dispenser, &mut limits.dispenser),
        ("car", &section.car, &mut limits.car),
    ];
    for (name, section, limits) in kinds {
        kind_limits(section, limits);
        if limits.money_max.0 <= 0 || limits.units_max.0 == 0 || limits.duration_max_s == 0 || limits.meter_every_s == 0
        {
            return check.fail(
                &format!("limits.{name}"),
                "units, money, duration and meter interval are above zero",
            );
        }
        if limits.outage_count_lower > limits.outage_count_max {
            return check.fail(
                &format!("limits.{name}.outage_count_lower"),
                "at most outage_count_max: beyond that nobody is served unsecured",
            );
        }
    }
    let set = |target: &mut u64, value: Option<u64>| *target = value.unwrap_or(*target);
    set(&mut limits.list_full_s, section.list_full_s);
    set(&mut limits.list_half_s, section.list_half_s);
    set(&mut limits.confirmation_s, section.confirmation_s);
    set(&mut limits.ask_ms, section.ask_ms);
    set(&mut limits.device_change_ms, section.device_change_ms);
    limits.starts_an_hour_max = section.starts_an_hour_max.unwrap_or(limits.starts_an_hour_max);
    limits.site_budget = section.site_budget.map_or(limits.site_budget, Money);
    limits.attempts_a_minute_max = section.attempts_a_minute_max.unwrap_or(limits.attempts_a_minute_max);
    if limits.ask_ms > 2_000 {
        return check.fail("limits.ask_ms", "nobody waits longer than 2,000 ms for a verdict");
    }
    if limits.starts_an_hour_max == 0 {
        return check.fail("limits.starts_an_hour_max", "above zero: else nobody is served");
    }
    if limits.attempts_a_minute_max == 0 || limits.site_budget.0 < 0 {
        return check.fail(
            "limits",
            "attempts_a_minute_max is above zero, site_budget is not negative",
        );
    }
    Ok(limits)
}

fn kind_limits(section: &KindSection, limits: &mut KindLimits) {
    limits.units_max = section.units_max.map_or(limits.units_max, Units);
    limits.money_max = section.money_max.map_or(limits.money_max, Money);
    limits.duration_max_s = section.duration_max_s.unwrap_or(limits.duration_max_s);
    limits.outage_count_max = section.outage_count_max.unwrap_or(limits.outage_count_max);
    limits.outage_money_max = section.outage_money_max.map_or(limits.outage_money_max, Money);
    limits.start_within_s = section.start_within_s.unwrap_or(limits.start_within_s);
    limits.meter_every_s = section.meter_every_s.unwrap_or(limits.meter_every_s);
    limits.emergency_units = section.emergency_units.map_or(limits.emergency_units, Units);
    limits.invalidation_units = section.invalidation_units.map_or(limits.invalidation_units, Units);
    // Where only the upper count is given, a lower one that was the default does not contradict it.
    let lower = limits.outage_count_lower.min(limits.outage_count_max);
    limits.outage_count_lower = section.outage_count_lower.unwrap_or(lower);
}

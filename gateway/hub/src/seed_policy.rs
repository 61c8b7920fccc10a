//! The limits in a seed file. A policy is whole: every limit stands there, or none.

use proto::{
    money::{Money, Units},
    policy::{Class, ClassLimits, FreeVend, Policy, UnsignedDisable},
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicySeed {
    site_budget: i64,
    list_full_s: u64,
    list_half_s: u64,
    confirmation_s: u64,
    attempts_a_minute_max: u32,
    starts_an_hour_max: u32,
    #[serde(default)]
    device_change_ms: u64,
    #[serde(default)]
    master_group: u64,
    unsigned_disable: Option<String>,
    #[serde(default)]
    unsigned_disable_s: u64,
    #[serde(default)]
    classes: Vec<ClassSeed>,
    #[serde(default)]
    free_vend: Vec<FreeVendSeed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassSeed {
    class: String,
    units_max: u64,
    money_max: i64,
    duration_max_s: u32,
    outage_count_lower: u32,
    outage_count_upper: u32,
    outage_money_max: i64,
    emergency_units: u64,
    invalidation_units: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FreeVendSeed {
    class: String,
    from_s: u64,
    until_s: u64,
    units_max: u64,
}

impl PolicySeed {
    /// The policy, checked; revision and time are set when it is published.
    pub(crate) fn policy(self) -> Result<Policy, String> {
        let limits = |(i, row): (usize, ClassSeed)| {
            Ok(ClassLimits {
                class: class(&row.class).map_err(|reason| format!("classes[{i}]: {reason}"))?,
                units_max: Units(row.units_max),
                money_max: Money(row.money_max),
                duration_max_s: row.duration_max_s,
                outage_count_lower: row.outage_count_lower,
                outage_count_upper: row.outage_count_upper,
                outage_money_max: Money(row.outage_money_max),
                emergency_units: Units(row.emergency_units),
                invalidation_units: Units(row.invalidation_units),
            })
        };
        let window = |(i, row): (usize, FreeVendSeed)| {
            Ok(FreeVend {
                class: class(&row.class).map_err(|reason| format!("free_vend[{i}]: {reason}"))?,
                from_s: row.from_s,
                until_s: row.until_s,
                units_max: Units(row.units_max),
            })
        };
        let unsigned_disable = unsigned_disable(self.unsigned_disable.as_deref(), self.unsigned_disable_s)?;
        let policy = Policy {
            revision: 0,
            issued_s: 0,
            classes: self
                .classes
                .into_iter()
                .enumerate()
                .map(limits)
                .collect::<Result<_, String>>()?,
            site_budget: Money(self.site_budget),
            list_full_s: self.list_full_s,
            list_half_s: self.list_half_s,
            confirmation_s: self.confirmation_s,
            attempts_a_minute_max: self.attempts_a_minute_max,
            starts_an_hour_max: self.starts_an_hour_max,
            device_change_ms: self.device_change_ms,
            master_group: self.master_group,
            unsigned_disable,
            unsigned_disable_s: self.unsigned_disable_s,
            free_vend: self
                .free_vend
                .into_iter()
                .enumerate()
                .map(window)
                .collect::<Result<_, String>>()?,
        };
        policy.check().map_err(|error| error.to_string())?;
        Ok(policy)
    }
}

fn unsigned_disable(word: Option<&str>, s: u64) -> Result<UnsignedDisable, String> {
    let disable = match word.unwrap_or("alert") {
        "alert" => UnsignedDisable::Alert,
        "suspend_after" => UnsignedDisable::SuspendAfter,
        "immediate" => UnsignedDisable::Immediate,
        other => {
            return Err(format!(
                "unsigned_disable: \"{other}\" is not alert, suspend_after or immediate"
            ));
        }
    };
    // A time that nobody looks at would be read as one that somebody does.
    match (disable, s) {
        (UnsignedDisable::SuspendAfter, 0) => {
            Err("unsigned_disable_s: suspend_after needs a time above 0 s".to_owned())
        }
        (UnsignedDisable::Alert | UnsignedDisable::Immediate, 1..) => Err(format!(
            "unsigned_disable_s: {s} s have a meaning for suspend_after only"
        )),
        _ => Ok(disable),
    }
}

fn class(word: &str) -> Result<Class, String> {
    let known = Class::SERVED.into_iter().find(|class| class.word() == word);
    known.ok_or_else(|| format!("\"{word}\" is not charger, washer, dispenser or car"))
}

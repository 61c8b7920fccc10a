//! `[ring]`: what is new is tried at one device, then at its kind, before the site takes it.

use std::collections::BTreeMap;

use gateway_core::config::{DeviceConfig, RingLimits};
use proto::id::DeviceId;
use serde::Deserialize;

use super::{Checker, ConfigError};

/// Most requests that a ring may want to see: more than a day of the busiest device.
const REQUESTS_MAX: u32 = 10_000;
/// Longest stay in a ring, in s: what is older than a week is no list any more.
const STAY_S_MAX: u64 = 7 * 24 * 3_600;

/// The table as written; that it is there switches rings on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RingSection {
    device: Option<String>,
    requests_min: Option<u32>,
    dwell_s: Option<u64>,
    patience_s: Option<u64>,
}

pub(super) fn ring(
    check: &Checker<'_>,
    section: Option<RingSection>,
    devices: &BTreeMap<DeviceId, DeviceConfig>,
) -> Result<RingLimits, ConfigError> {
    let defaults = RingLimits::default();
    let Some(section) = section else { return Ok(defaults) };
    let device = match section.device {
        None => None,
        Some(text) => {
            let id = check.name("ring.device", &text)?;
            if !devices.contains_key(&id) {
                return check.fail("ring.device", format_args!("{id} is not a device of this site"));
            }
            Some(id)
        }
    };
    let ring = RingLimits {
        is_on: true,
        device,
        requests_min: section.requests_min.unwrap_or(defaults.requests_min),
        dwell_s: section.dwell_s.unwrap_or(defaults.dwell_s),
        patience_s: section.patience_s.unwrap_or(defaults.patience_s),
    };
    if ring.requests_min > REQUESTS_MAX {
        return check.fail("ring.requests_min", format_args!("at most {REQUESTS_MAX}"));
    }
    for (key, stay_s) in [("ring.dwell_s", ring.dwell_s), ("ring.patience_s", ring.patience_s)] {
        if stay_s > STAY_S_MAX {
            return check.fail(key, format_args!("at most {STAY_S_MAX} s, a week"));
        }
    }
    if ring.patience_s < ring.dwell_s {
        return check.fail("ring.patience_s", "it is the longer of the two stays: at least dwell_s");
    }
    Ok(ring)
}

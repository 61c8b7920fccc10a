//! The table `[health]`: when the cloud is believed, when no more, and when again.

use gateway_core::config::Limits;
use serde::Deserialize;

use super::{Checker, ConfigError};

/// Longest that anybody waits for a verdict, in ms: the cloud's answer and, if it is contested, the canaries.
const VERDICT_MS_MAX: u64 = 2_000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HealthSection {
    recover_ms: Option<u64>,
    recover_proofs: Option<u32>,
    probe_ms: Option<u64>,
    probe_max_ms: Option<u64>,
    failures_window_ms: Option<u64>,
    canary_ms: Option<u64>,
    mass_tokens_min: Option<u32>,
    mass_window_ms: Option<u64>,
    mass_percent: Option<u32>,
    active_s: Option<u64>,
    breaker_ms: Option<u64>,
    echo_ms: Option<u64>,
    echo_wait_ms: Option<u64>,
    echo_fresh_ms: Option<u64>,
    receipt_ms: Option<u64>,
    hello_ms: Option<u64>,
}

impl HealthSection {
    /// `name`: of the gateway, so that no two have the same jitter. `has_link`: without a cloud nothing is asked of it.
    pub(super) fn fill(
        &self,
        check: &Checker<'_>,
        name: &str,
        has_link: bool,
        limits: &mut Limits,
    ) -> Result<(), ConfigError> {
        let set = |target: &mut u64, value: Option<u64>| *target = value.unwrap_or(*target);
        set(&mut limits.recover_ms, self.recover_ms);
        set(&mut limits.probe_ms, self.probe_ms);
        set(&mut limits.probe_max_ms, self.probe_max_ms);
        set(&mut limits.failures_window_ms, self.failures_window_ms);
        set(&mut limits.canary_ms, self.canary_ms);
        set(&mut limits.mass_window_ms, self.mass_window_ms);
        set(&mut limits.active_s, self.active_s);
        set(&mut limits.breaker_ms, self.breaker_ms);
        set(&mut limits.echo_ms, self.echo_ms);
        set(&mut limits.echo_wait_ms, self.echo_wait_ms);
        set(&mut limits.echo_fresh_ms, self.echo_fresh_ms);
        set(&mut limits.receipt_ms, self.receipt_ms);
        set(&mut limits.hello_ms, self.hello_ms);
        limits.recover_proofs = self.recover_proofs.unwrap_or(limits.recover_proofs);
        limits.mass_tokens_min = self.mass_tokens_min.unwrap_or(limits.mass_tokens_min);
        limits.mass_percent = self.mass_percent.unwrap_or(limits.mass_percent);
        limits.jitter_seed = seed(name);
        if !has_link {
            (limits.echo_ms, limits.hello_ms, limits.receipt_ms) = (0, 0, 0);
        }
        if limits.probe_ms == 0 || limits.canary_ms == 0 || limits.echo_wait_ms == 0 || limits.recover_proofs == 0 {
            return check.fail(
                "health",
                "probe_ms, canary_ms, echo_wait_ms and recover_proofs are above zero",
            );
        }
        if limits.mass_tokens_min < 2 || limits.mass_percent > 99 {
            return check.fail(
                "health",
                "one token alone is no mass denial: mass_tokens_min is at least 2, mass_percent at most 99",
            );
        }
        if limits.ask_ms.saturating_add(limits.canary_ms) > VERDICT_MS_MAX {
            return check.fail(
                "health.canary_ms",
                "nobody waits longer than 2,000 ms for a verdict: limits.ask_ms and health.canary_ms together",
            );
        }
        Ok(())
    }
}

/// FNV-1a: the same in every version, which is all it has to be.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

//! A rate's allowance, for those who must slow down.

use std::collections::BTreeMap;

/// What each may still do.
#[derive(Debug, Default)]
pub(crate) struct Allowances(BTreeMap<String, (f64, u64)>);

impl Allowances {
    /// Whether `who` may do one more now, of so many a second.
    pub(crate) fn allows(&mut self, who: &str, rate: u32, now_ms: u64) -> bool {
        let rate = f64::from(rate);
        let (left, refilled_ms) = self.0.entry(who.to_owned()).or_insert((0.0, now_ms));
        let refill = now_ms.saturating_sub(*refilled_ms) as f64 / 1_000.0 * rate;
        *left = (*left + refill).min(rate.max(1.0));
        *refilled_ms = now_ms;
        let allowed = *left >= 1.0;
        if allowed {
            *left -= 1.0;
        }
        allowed
    }

    /// Nobody has to slow down any more.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

//! One output: what is wanted, and what was last done.

use crate::outlet::Outlet;

/// At boot nobody knows what an output does, so it is switched off.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Output {
    pub(crate) wanted: bool,
    actual: Option<bool>,
    since_ms: u64,
}

impl Output {
    pub(crate) fn is_on(&self) -> bool {
        self.actual == Some(true)
    }

    /// Since when it has been off; `None` if it is on, or not switched since the boot.
    pub(crate) fn off_since_ms(&self) -> Option<u64> {
        (self.actual == Some(false)).then_some(self.since_ms)
    }

    fn switch(&mut self, on: bool, now_ms: u64) -> bool {
        let needed = self.wanted == on && self.actual != Some(on);
        if needed {
            self.actual = Some(on);
            self.since_ms = now_ms;
        }
        needed
    }
}

impl Outlet {
    /// Whether the output must go off now; counts as done.
    pub(crate) fn take_off(&mut self, now_ms: u64) -> bool {
        self.output.switch(false, now_ms)
    }

    /// Whether the output must go on now; counts as done.
    pub(crate) fn take_on(&mut self, now_ms: u64) -> bool {
        self.output.switch(true, now_ms)
    }
}

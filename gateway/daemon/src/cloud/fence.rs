//! What the operator is told when the hub takes nothing of this epoch: the journal was put back from a backup, or the
//! operator believed the gateway gone. Devices are served meanwhile, by the rules of the site.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// One link's, over all its connections.
#[derive(Debug, Default)]
pub struct Fence {
    /// The epoch that has to begin, for whoever asks; 0: none.
    expected: Arc<AtomicU32>,
    /// The one that was told on this connection; 0: none.
    told: u32,
}

impl Fence {
    /// `expected`: where to say which epoch has to begin.
    #[must_use]
    pub const fn new(expected: Arc<AtomicU32>) -> Self {
        Self { expected, told: 0 }
    }

    /// The hub goes on in epoch `expected` only, we are in `own`.
    pub(super) fn expects(&mut self, expected: u32, own: u32) {
        self.expected.store(expected, Ordering::Relaxed);
        if self.told != expected {
            self.told = expected;
            tracing::error!(epoch = own, "ALARM {}", remedy(expected));
        }
    }

    /// The hub goes on in ours.
    pub(super) fn agreed(&self) {
        self.expected.store(0, Ordering::Relaxed);
    }

    /// The connection is gone.
    pub(super) const fn lost(&mut self) {
        self.told = 0;
    }
}

/// What to do when the hub expects this epoch.
#[must_use]
pub fn remedy(expected: u32) -> String {
    format!(
        "the hub takes no more records of this epoch: the journal was put back from a backup, or the operator released \
         its leases. Stop the gateway and begin epoch {expected}: holdfast run --epoch {expected}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_said_once_a_connection_and_shown_until_agreed() {
        let shown = Arc::new(AtomicU32::new(0));
        let mut fence = Fence::new(shown.clone());
        let mut expects = |epoch, told| {
            fence.expects(epoch, 1);
            assert_eq!((shown.load(Ordering::Relaxed), fence.told), (epoch, told));
        };
        expects(2, 2);
        expects(2, 2);
        expects(3, 3);
        fence.lost();
        assert_eq!((shown.load(Ordering::Relaxed), fence.told), (3, 0));
        fence.agreed();
        assert_eq!(shown.load(Ordering::Relaxed), 0);
        assert!(remedy(7).ends_with("holdfast run --epoch 7"));
    }
}

//! How fast a backlog goes up after an outage, so that five hundred gateways that come back together do not make the
//! next one.
//!
//! A gateway drains its backlog with at most as many uploads a second as it wrote records a second while it was cut
//! off: that is what it uploads in good times, one record at a time, so all of them together at most double the load
//! of good times, whatever the outage lasted. As an upload carries up to 128 records, the backlog is gone soon all the
//! same. A token bucket keeps the rate, the begin is drawn from a whole window, a throttling cloud halves the rate, and
//! receipts bring it back. No clock and no randomness here: the shell hands in both.

/// Uploads that may follow each other at once, after a pause.
const BURST: u64 = 2;
/// Slowest rate of a backlog that nobody throttles: one upload in so many ms. 128 records in half a minute are above
/// what any site of the target scale writes.
const EVERY_MS_MAX: u64 = 30_000;
/// Slowest rate at all, however often the cloud throttles, in ms.
const THROTTLED_MS_MAX: u64 = 300_000;
/// Fastest rate of a backlog of more than one upload, in ms, unless an operator says otherwise: 256 records a second.
pub const BACKLOG_MS_MIN: u64 = 500;
/// Records that go up at once.
const ONE_UPLOAD: u64 = proto::link::UPLOAD_RECORDS_MAX as u64;
/// The first upload of a backlog is drawn from so many ms, or from a quarter of the time without the hub.
pub const SPREAD_MS: u64 = 60_000;
/// How long uploads wait at most for newer revocations, lists and tariffs that the hub has announced, in ms: one that
/// is quarantined here never arrives.
pub const ARTIFACTS_WAIT_MS: u64 = 20_000;

/// When to send the next upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Fastest rate allowed by the configuration: one upload in so many ms.
    least_ms: u64,
    /// The rate to come back to.
    base_ms: u64,
    /// The present rate.
    every_ms: u64,
    /// Nothing before this.
    not_before_ms: u64,
    /// Token bucket, as the time at which it was empty.
    empty_ms: u64,
    /// Until then the cloud is spared all that can wait, because it asked us to slow down.
    spared_ms: u64,
}

/// What is left of a throttle, for the next connection: a cloud that asked us to slow down meant us, not that connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    /// One upload in so many ms; 0: as if there had been none.
    every_ms: u64,
    /// Nothing for so many ms.
    pause_ms: u64,
    /// What can wait waits for so many ms.
    spared_ms: u64,
}

impl Pace {
    /// For a gateway that is up to date: as fast as the configuration allows, which is `least_ms` between uploads.
    #[must_use]
    pub const fn steady(least_ms: u64, now_ms: u64) -> Self {
        Self {
            least_ms,
            base_ms: least_ms,
            every_ms: least_ms,
            not_before_ms: now_ms,
            empty_ms: now_ms.saturating_sub(least_ms * BURST),
            spared_ms: 0,
        }
    }

    /// For a gateway that comes back with `backlog` records of `outage_ms`. `backlog_ms_min`: the fastest rate of them
    /// allowed by the configuration. `draw` is any random number.
    #[must_use]
    pub const fn recovering(
        least_ms: u64,
        backlog_ms_min: u64,
        now_ms: u64,
        backlog: u64,
        outage_ms: u64,
        draw: u64,
    ) -> Self {
        let own_ms = match outage_ms.checked_div(backlog) {
            // What fits one upload needs no rate, only its place in the window.
            _ if backlog <= ONE_UPLOAD => least_ms,
            // A process that just began does not know how long it was cut off.
            Some(own_ms) if own_ms < backlog_ms_min => backlog_ms_min,
            Some(own_ms) => own_ms,
            None => least_ms,
        };
        let base_ms = if own_ms > EVERY_MS_MAX { EVERY_MS_MAX } else { own_ms };
        let spread_ms = if outage_ms / 4 < SPREAD_MS {
            outage_ms / 4 + 1
        } else {
            SPREAD_MS
        };
        Self {
            least_ms,
            base_ms,
            every_ms: base_ms,
            not_before_ms: now_ms.saturating_add(draw % spread_ms),
            empty_ms: now_ms,
            spared_ms: 0,
        }
    }

    /// How long to wait before the next upload, in ms; 0: send.
    #[must_use]
    pub const fn wait_ms(&self, now_ms: u64) -> u64 {
        let token_ms = self.empty_ms.saturating_add(self.every_ms);
        let at_ms = if token_ms > self.not_before_ms {
            token_ms
        } else {
            self.not_before_ms
        };
        at_ms.saturating_sub(now_ms)
    }

    /// Whether nothing holds uploads back: no pause, no backlog at a rate, and no throttling for as long as the slowest
    /// rate waits. What is shed first is sent only then.
    #[must_use]
    pub const fn is_free(&self, now_ms: u64) -> bool {
        self.base_ms == self.least_ms && self.wait_ms(now_ms) == 0 && now_ms >= self.spared_ms
    }

    /// An upload went out.
    pub const fn sent(&mut self, now_ms: u64) {
        let full_ms = now_ms.saturating_sub(self.every_ms * BURST);
        let empty_ms = if self.empty_ms > full_ms {
            self.empty_ms
        } else {
            full_ms
        };
        self.empty_ms = empty_ms.saturating_add(self.every_ms);
    }

    /// The cloud asks us to slow down: half the rate, and a pause drawn from twice the interval. While that pause lasts it
    /// may say so again and again, once for each message that was on its way: that is the same word.
    pub const fn throttled(&mut self, now_ms: u64, draw: u64) {
        if self.every_ms > self.base_ms && now_ms < self.not_before_ms {
            return;
        }
        let slower_ms = self.every_ms.saturating_mul(2);
        self.every_ms = if slower_ms > THROTTLED_MS_MAX {
            THROTTLED_MS_MAX
        } else {
            slower_ms
        };
        if self.every_ms < THROTTLED_FIRST_MS {
            self.every_ms = THROTTLED_FIRST_MS;
        }
        let until_ms = now_ms.saturating_add(self.every_ms / 2 + draw % self.every_ms);
        if until_ms > self.not_before_ms {
            self.not_before_ms = until_ms;
        }
        self.empty_ms = now_ms;
        self.spared_ms = now_ms.saturating_add(THROTTLED_MS_MAX);
    }

    /// What is left of a throttle.
    #[must_use]
    pub const fn throttle(&self, now_ms: u64) -> Throttle {
        let spared_ms = self.spared_ms.saturating_sub(now_ms);
        if self.every_ms <= self.base_ms || spared_ms == 0 {
            return Throttle {
                every_ms: 0,
                pause_ms: 0,
                spared_ms,
            };
        }
        Throttle {
            every_ms: self.every_ms,
            pause_ms: self.wait_ms(now_ms),
            spared_ms,
        }
    }

    /// Goes on as after a throttle on an earlier connection, `since_ms` ago. One that is over is forgotten.
    pub const fn go_on(&mut self, now_ms: u64, throttle: &Throttle, since_ms: u64) {
        let spared_ms = now_ms.saturating_add(throttle.spared_ms.saturating_sub(since_ms));
        if spared_ms == now_ms {
            return;
        }
        let until_ms = now_ms.saturating_add(throttle.pause_ms.saturating_sub(since_ms));
        if throttle.every_ms > self.every_ms {
            self.every_ms = throttle.every_ms;
        }
        if until_ms > self.not_before_ms {
            self.not_before_ms = until_ms;
        }
        if spared_ms > self.spared_ms {
            self.spared_ms = spared_ms;
        }
    }

    /// A receipt came: an eighth of the way back to the rate before the throttling.
    pub const fn receipted(&mut self) {
        let above_ms = self.every_ms - self.base_ms;
        self.every_ms -= above_ms.div_ceil(8);
    }

    /// The backlog is gone: records are sent as they are written.
    pub const fn caught_up(&mut self) {
        self.base_ms = self.least_ms;
        self.receipted();
    }
}

/// First interval after a throttle, in ms: a cloud that throttles a steady gateway means seconds, not milliseconds.
const THROTTLED_FIRST_MS: u64 = 1_000;

/// What must be here before old sessions are told: the order of recovery (semantics, section 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Artifacts {
    /// Revision of the list.
    pub list: u64,
    /// Revision of the revocations.
    pub revocations: u64,
    /// Revision of the tariffs.
    pub tariffs: u64,
}

/// Whether uploads of a backlog may begin: all that the hub announced is adopted, or has had its time.
#[must_use]
pub const fn may_tell(announced: &Artifacts, adopted: &Artifacts, waited_ms: u64) -> bool {
    let here = adopted.revocations >= announced.revocations
        && adopted.tariffs >= announced.tariffs
        && adopted.list >= announced.list;
    here || waited_ms >= ARTIFACTS_WAIT_MS
}

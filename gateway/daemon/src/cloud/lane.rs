//! The lane of telemetry, which is shed first: when a report is due, when it is asked for, when it is sent, and what is
//! given up for what. No clock, no connection and no randomness here: the link hands in all three.
//!
//! At most one report is due or being made. It waits only for a road that is free, never makes anything wait, and is
//! given up for the next one.

/// What the link sees of the way to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Road {
    /// The hub has answered our hello on this connection, and agrees on version and epoch.
    pub is_agreed: bool,
    /// Records wait to be sent, or to be sent again; what is on its way does not count.
    pub has_records: bool,
    /// Uploads go as they come: the hub announced nothing that must be here first, and nothing throttles or paces them.
    pub is_free: bool,
}

impl Road {
    const fn is_clear(self) -> bool {
        self.is_agreed && self.is_free && !self.has_records
    }
}

/// The lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Time between two reports, in ms; 0: none.
    every_ms: u64,
    /// When the next one is due.
    due_ms: u64,
    /// One is due and was not asked for.
    is_due: bool,
    /// One is being made.
    is_asked: bool,
    /// Reports given up since the last one that was sent.
    shed: u64,
}

impl Lane {
    /// A report every `every_s` seconds; 0: none.
    #[must_use]
    pub const fn new(every_s: u64, now_ms: u64) -> Self {
        let every_ms = every_s.saturating_mul(1000);
        Self {
            every_ms,
            due_ms: now_ms.saturating_add(every_ms),
            is_due: false,
            is_asked: false,
            shed: 0,
        }
    }

    /// From now on a report every `every_s` seconds; 0: none.
    pub const fn set_every(&mut self, every_s: u64, now_ms: u64) {
        let every_ms = every_s.saturating_mul(1000);
        if every_ms == self.every_ms {
            return;
        }
        self.pass(now_ms);
        self.every_ms = every_ms;
        self.due_ms = now_ms.saturating_add(every_ms);
    }

    /// The hub has agreed. The first report falls somewhere in the first interval, so that gateways that come back
    /// together do not report together. `draw` is any random number.
    pub const fn agreed(&mut self, now_ms: u64, draw: u64) {
        self.pass(now_ms);
        if let Some(wait_ms) = draw.checked_rem(self.every_ms) {
            self.due_ms = now_ms.saturating_add(wait_ms);
        }
    }

    /// Time passes. True: ask the engine for a report now, and tell [`Self::may_send`] when it is there.
    #[must_use]
    pub const fn is_wanted(&mut self, now_ms: u64, road: Road) -> bool {
        self.pass(now_ms);
        if !road.is_agreed {
            self.give_up_due();
            return false;
        }
        if !self.is_due || self.is_asked || !road.is_clear() {
            return false;
        }
        (self.is_due, self.is_asked) = (false, true);
        true
    }

    /// The report is there. How many were shed before it, if it may be sent now; `None`: drop it.
    #[must_use]
    pub const fn may_send(&mut self, road: Road) -> Option<u64> {
        self.is_asked = false;
        // One that is due already will be newer.
        if !road.is_clear() || self.is_due {
            self.shed += 1;
            return None;
        }
        Some(self.shed)
    }

    /// It went out.
    pub const fn sent(&mut self) {
        self.shed = 0;
    }

    /// It did not go out after all: the engine or the connection has no room for it.
    pub const fn not_sent(&mut self) {
        self.is_asked = false;
        self.shed += 1;
    }

    /// The connection is gone, and what was being made for it.
    pub const fn lost(&mut self) {
        if self.is_asked {
            self.not_sent();
        }
        self.give_up_due();
    }

    const fn pass(&mut self, now_ms: u64) {
        let Some(missed) = now_ms.saturating_sub(self.due_ms).checked_div(self.every_ms) else {
            return;
        };
        if now_ms < self.due_ms {
            return;
        }
        self.give_up_due();
        self.is_due = true;
        self.shed = self.shed.saturating_add(missed);
        self.due_ms = self.due_ms.saturating_add((missed + 1).saturating_mul(self.every_ms));
    }

    const fn give_up_due(&mut self) {
        if self.is_due {
            (self.is_due, self.shed) = (false, self.shed.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAR: Road = Road {
        is_agreed: true,
        has_records: false,
        is_free: true,
    };
    const BACKLOG: Road = Road {
        has_records: true,
        ..CLEAR
    };
    const PACED: Road = Road {
        is_free: false,
        ..CLEAR
    };
    const DOWN: Road = Road {
        is_agreed: false,
        ..CLEAR
    };

    /// A second of the link: what it sees, and whether a report leaves, with how many shed before it.
    fn check(what: &str, every_s: u64, seconds: &[(u64, Road, Option<u64>)]) {
        let mut lane = Lane::new(every_s, 0);
        for (second, road, expected) in seconds {
            let mut left = None;
            if lane.is_wanted(second * 1000, *road) {
                left = lane.may_send(*road);
                assert!(left.is_some(), "{what}: asked for at {second} s and not sent");
                lane.sent();
            }
            assert_eq!(left, *expected, "{what}: at {second} s");
        }
    }

    #[test]
    fn reports_leave_on_a_clear_road_and_are_shed_on_any_other() {
        check(
            "one an interval",
            60,
            &[
                (0, CLEAR, None),
                (59, CLEAR, None),
                (60, CLEAR, Some(0)),
                (61, CLEAR, None),
                (119, CLEAR, None),
                (120, CLEAR, Some(0)),
            ],
        );
        check("none at all", 0, &[(0, CLEAR, None), (1_000_000, CLEAR, None)]);
        check(
            "one that is due waits for the road, and for no other",
            60,
            &[
                (60, BACKLOG, None),
                (61, PACED, None),
                (62, CLEAR, Some(0)),
                (63, CLEAR, None),
            ],
        );
        check(
            "the newest wins",
            60,
            &[
                (60, BACKLOG, None),
                (120, BACKLOG, None),
                (180, PACED, None),
                (200, CLEAR, Some(2)),
                (240, CLEAR, Some(0)),
            ],
        );
        check(
            "without the hub none waits",
            60,
            &[(60, DOWN, None), (61, CLEAR, None), (120, CLEAR, Some(1))],
        );
        check(
            "time that nobody looked at counts",
            60,
            &[(0, CLEAR, None), (60 * 10 + 5, CLEAR, Some(9)), (660, CLEAR, Some(0))],
        );
    }

    #[test]
    fn a_report_that_is_made_is_dropped_when_the_road_is_taken_meanwhile() {
        for (road, expected) in [(CLEAR, Some(0)), (BACKLOG, None), (PACED, None), (DOWN, None)] {
            let mut lane = Lane::new(10, 0);
            assert!(lane.is_wanted(10_000, CLEAR));
            assert!(!lane.is_wanted(11_000, CLEAR), "one at a time");
            assert_eq!(lane.may_send(road), expected, "{road:?}");
            if expected.is_none() {
                assert!(!lane.is_wanted(12_000, CLEAR), "it is not made again");
                assert!(lane.is_wanted(20_000, CLEAR));
                assert_eq!(lane.may_send(CLEAR), Some(1), "{road:?}");
            }
        }
        // The engine was so slow that the next one is due: that one goes.
        let mut lane = Lane::new(10, 0);
        assert!(lane.is_wanted(10_000, CLEAR));
        assert!(!lane.is_wanted(20_000, CLEAR));
        assert_eq!(lane.may_send(CLEAR), None);
        assert!(lane.is_wanted(20_001, CLEAR));
        assert_eq!(lane.may_send(CLEAR), Some(1));
    }

    #[test]
    fn what_no_queue_takes_and_what_a_connection_takes_with_it_is_counted() {
        let mut lane = Lane::new(10, 0);
        assert!(lane.is_wanted(10_000, CLEAR));
        lane.not_sent();
        assert!(lane.is_wanted(20_000, CLEAR));
        lane.lost();
        lane.lost();
        assert!(!lane.is_wanted(30_000, BACKLOG));
        lane.lost();
        assert!(lane.is_wanted(40_000, CLEAR));
        assert_eq!(lane.may_send(CLEAR), Some(3));
        lane.sent();
        assert!(lane.is_wanted(50_000, CLEAR));
        assert_eq!(lane.may_send(CLEAR), Some(0));
    }

    #[test]
    fn the_operator_sets_the_interval() {
        let mut lane = Lane::new(60, 0);
        lane.set_every(60, 59_000);
        assert!(lane.is_wanted(60_000, CLEAR), "the same interval changes nothing");
        assert_eq!(lane.may_send(CLEAR), Some(0));
        lane.sent();
        lane.set_every(5, 70_000);
        assert!(!lane.is_wanted(74_999, CLEAR));
        assert!(lane.is_wanted(75_000, CLEAR));
        assert_eq!(lane.may_send(CLEAR), Some(0));
        lane.sent();
        lane.set_every(0, 76_000);
        assert!(!lane.is_wanted(u64::MAX, CLEAR), "none at all");
        lane.set_every(5, 80_000);
        assert!(!lane.is_wanted(84_000, CLEAR));
        assert!(lane.is_wanted(85_000, CLEAR));
    }

    #[test]
    fn the_first_report_of_an_agreement_falls_anywhere_into_the_interval() {
        for (draw, wait_s) in [(0, 0), (9_999, 9), (10_000, 0), (u64::MAX, 1)] {
            let mut lane = Lane::new(10, 0);
            lane.agreed(5_000, draw);
            let first = (5..).find(|second| lane.is_wanted(second * 1000 + 999, CLEAR));
            assert_eq!(first, Some(5 + wait_s), "{draw}");
        }
        let mut off = Lane::new(0, 0);
        off.agreed(5_000, 7);
        assert!(!off.is_wanted(u64::MAX, CLEAR));
    }
}

//! How fast one client may go: buckets that fill with time. A client above its rate is not cut but read more slowly, so that
//! its own messages wait in its own socket.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::limits::Limits;

/// Thousandths: a rate per second fills as many of them per millisecond.
const PARTS: i64 = 1_000;
/// Longest time whose filling is computed, in milliseconds: no bucket takes longer.
const FILL_MS_MAX: i64 = 24 * 3600 * 1000;

/// A bucket that may go into debt: what has arrived has arrived, the next one waits longer.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// In thousandths.
    level: i64,
    filled_at: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn full(capacity: u64, now: Instant) -> Bucket {
        Bucket {
            level: parts(capacity),
            filled_at: now,
        }
    }

    /// Fill it up to now, at `rate` in each `every_s` seconds.
    fn fill(&mut self, capacity: u64, rate: u64, every_s: i64, now: Instant) {
        let passed_ms = now.duration_since(self.filled_at).as_millis();
        let passed_ms = i64::try_from(passed_ms).unwrap_or(FILL_MS_MAX).min(FILL_MS_MAX);
        let rate = i64::try_from(rate).unwrap_or(i64::MAX);
        let gained = rate.saturating_mul(passed_ms) / every_s;
        if gained > 0 {
            self.level = self.level.saturating_add(gained).min(parts(capacity));
            // What was too little for a thousandth counts the next time.
            let rest_ms = passed_ms - gained.saturating_mul(every_s) / rate;
            self.filled_at = now - Duration::from_millis(u64::try_from(rest_ms).unwrap_or(0));
        }
    }

    /// Take `amount`, now or on credit.
    fn charge(&mut self, amount: u64) {
        self.level = self.level.saturating_sub(parts(amount));
    }

    /// Take one if there is one.
    fn take(&mut self) -> bool {
        let there = self.level >= PARTS;
        if there {
            self.level -= PARTS;
        }
        there
    }

    /// Milliseconds until it is out of debt.
    fn wait_ms(&self, rate: u64) -> u64 {
        let debt = u64::try_from(-self.level).unwrap_or(0);
        debt.div_ceil(rate.max(1))
    }
}

/// Refusals that are told at once.
const TOLD_AT_ONCE: u64 = 20;
/// Seconds in which as many more may be told: a flood must not fill the log, where alarms have to be found.
const TOLD_EVERY_S: i64 = 60;

/// Which refusals are told; the counters count all of them.
#[derive(Debug)]
pub(crate) struct Telling(Mutex<(Bucket, u64)>);

impl Telling {
    pub(crate) fn new(now: Instant) -> Telling {
        Telling(Mutex::new((Bucket::full(TOLD_AT_ONCE, now), 0)))
    }

    /// Whether this one is told; then how many before it were not.
    pub(crate) fn next(&self, now: Instant) -> Option<u64> {
        let mut inner = self.0.lock().expect("nothing panics while it holds the bucket");
        let (bucket, kept) = &mut *inner;
        bucket.fill(TOLD_AT_ONCE, TOLD_AT_ONCE, TOLD_EVERY_S, now);
        if bucket.take() {
            Some(std::mem::take(kept))
        } else {
            *kept += 1;
            None
        }
    }
}

fn parts(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX).saturating_mul(PARTS)
}

/// The rates of one client, kept across its connections.
#[derive(Debug)]
pub(crate) struct Pace {
    connects: Bucket,
    packets: Bucket,
    bytes: Bucket,
}

/// Seconds of its rate that a client may send at once: what has gathered while its link was away.
const BURST_S: u64 = 2;
/// Seconds in which connections are counted.
const CONNECTS_EVERY_S: i64 = 60;

impl Pace {
    pub(crate) fn new(limits: &Limits, now: Instant) -> Pace {
        Pace {
            connects: Bucket::full(u64::from(limits.connects_a_minute_max), now),
            packets: Bucket::full(u64::from(limits.packets_a_second_max) * BURST_S, now),
            bytes: Bucket::full(u64::from(limits.bytes_a_second_max) * BURST_S, now),
        }
    }

    /// True if the client may connect once more.
    pub(crate) fn may_connect(&mut self, limits: &Limits, now: Instant) -> bool {
        let rate = u64::from(limits.connects_a_minute_max);
        self.connects.fill(rate, rate, CONNECTS_EVERY_S, now);
        self.connects.take()
    }

    /// Count a packet that was read; returns until when the client is not to be read, if it is too fast.
    pub(crate) fn read(&mut self, bytes: usize, limits: &Limits, now: Instant) -> Option<Instant> {
        let (packet_rate, byte_rate) = (
            u64::from(limits.packets_a_second_max),
            u64::from(limits.bytes_a_second_max),
        );
        self.packets.fill(packet_rate * BURST_S, packet_rate, 1, now);
        self.bytes.fill(byte_rate * BURST_S, byte_rate, 1, now);
        self.packets.charge(1);
        self.bytes.charge(bytes as u64);
        let wait_ms = self.packets.wait_ms(packet_rate).max(self.bytes.wait_ms(byte_rate));
        (wait_ms > 0).then(|| now + Duration::from_millis(wait_ms))
    }

    /// True if forgetting it changes nothing: every bucket is full again.
    pub(crate) fn is_rested(&mut self, limits: &Limits, now: Instant) -> bool {
        let connects = u64::from(limits.connects_a_minute_max);
        let packets = u64::from(limits.packets_a_second_max);
        let bytes = u64::from(limits.bytes_a_second_max);
        self.connects.fill(connects, connects, CONNECTS_EVERY_S, now);
        self.packets.fill(packets * BURST_S, packets, 1, now);
        self.bytes.fill(bytes * BURST_S, bytes, 1, now);
        self.connects.level >= parts(connects)
            && self.packets.level >= parts(packets * BURST_S)
            && self.bytes.level >= parts(bytes * BURST_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_one_piece_of_news() {
        let start = Instant::now();
        let telling = Telling::new(start);
        let told = (0..10_000).filter(|_| telling.next(start).is_some()).count();
        assert_eq!(told, 20);
        assert_eq!(telling.next(start + Duration::from_secs(2)), None);
        assert_eq!(telling.next(start + Duration::from_secs(3)), Some(10_000 - 20 + 1));
        assert_eq!(telling.next(start + Duration::from_secs(3)), None);
    }

    #[test]
    fn a_client_has_its_burst_and_then_its_rate() {
        let limits = Limits {
            packets_a_second_max: 10,
            bytes_a_second_max: 1_000,
            connects_a_minute_max: 2,
            ..Limits::default()
        };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(&limits, start);
        assert!(
            (0..20).all(|_| pace.read(10, &limits, start).is_none()),
            "two seconds' worth"
        );
        assert_eq!(pace.read(10, &limits, start), Some(at(100)), "a tenth of a second each");
        assert_eq!(pace.read(10, &limits, at(100)), Some(at(200)));
        assert_eq!(pace.read(10, &limits, at(5_000)), None);
        // Ten seconds of bytes in one packet are paid off in eight, two having been saved up.
        assert_eq!(pace.read(10_000, &limits, at(60_000)), Some(at(68_000)));
        assert!(!pace.is_rested(&limits, at(69_000)));
        assert!(pace.is_rested(&limits, at(200_000)));
        let connects = [
            at(300_000),
            at(300_000),
            at(300_001),
            at(329_000),
            at(330_000),
            at(330_001),
        ];
        let allowed = connects.map(|now| pace.may_connect(&limits, now));
        assert_eq!(allowed, [true, true, false, false, true, false]);
    }
}

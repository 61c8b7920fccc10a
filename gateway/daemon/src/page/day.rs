//! The day as the journal tells it: when each capability changed its mode, when the gateway started, and how often it said yes
//! and no. Reads beside the engine, and every record once: what follows is read from where it stopped.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
};

use gateway_core::{Capability, Event, Mode, Now, health::Signal};
use journal::Reader;
use proto::message::Closing;
use serde_json::{Value, json};

use crate::{look::LookError, record};

/// How far back the page looks, in s.
const DAY_S: u64 = 24 * 3600;
/// Most entries that are kept: a cloud that flaps all day must not fill the memory of a browser.
const ENTRIES_MAX: usize = 300;
/// Shortest silence of the journal before a start that is shown as a time without the gateway, in s.
const ABSENT_S_MIN: u64 = 5;
/// What two clocks may differ by when both are cut to seconds.
const ROUNDING_S: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Mode(Capability, Mode, Option<Signal>),
    /// The gateway started; since when it had said nothing, in s since 1970 UTC.
    Start(Option<u64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    now: Now,
    boot: u32,
    what: What,
}

/// What was read so far.
#[derive(Debug)]
pub(super) struct Day {
    reader: Reader,
    next: u64,
    boot: u32,
    last_wall_s: Option<u64>,
    /// The last signal of each capability.
    seen: [Option<Signal>; 3],
    /// Modes before the first entry that is kept.
    before: [Mode; 3],
    entries: VecDeque<Entry>,
    /// Entries of the day that found no room.
    left: u64,
    counts: Counts,
}

/// What is counted over all records that are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Grants of each kind.
    pub(super) granted: BTreeMap<&'static str, u64>,
    /// Refusals by reason.
    pub(super) refused: BTreeMap<&'static str, u64>,
    /// Captured money of each kind, in minor units.
    pub(super) captured: BTreeMap<&'static str, i64>,
    /// Changes into LOCAL of each capability.
    pub(super) outages: BTreeMap<&'static str, u64>,
}

impl Day {
    pub(super) fn new(reader: Reader) -> Self {
        Self {
            next: reader.oldest_sequence().max(1),
            reader,
            boot: 0,
            last_wall_s: None,
            seen: [None; 3],
            before: [Mode::Online; 3],
            entries: VecDeque::new(),
            left: 0,
            counts: Counts::default(),
        }
    }

    /// Reads what is new. Blocks: for a thread that may.
    ///
    /// # Errors
    /// If a record cannot be read; what was read before it stands.
    pub(super) fn read(&mut self) -> Result<(), LookError> {
        let (reader, mut failed) = (self.reader.clone(), None);
        // Nothing is older than the oldest, even if it was pruned meanwhile.
        self.next = self.next.max(reader.oldest_sequence());
        let from = self.next;
        reader.replay(from, &mut |sequence, bytes| match record::decode(sequence, bytes) {
            Ok((now, event)) => {
                self.take(&now, &event);
                self.next = sequence + 1;
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn take(&mut self, now: &Now, event: &Event) {
        match event {
            Event::Booted(e) => {
                let absent = now.wall().zip(self.last_wall_s);
                let since_s = absent.and_then(|(now_s, last_s)| (now_s >= last_s + ABSENT_S_MIN).then_some(last_s));
                self.boot = e.boot;
                self.put(now, What::Start(since_s));
            }
            Event::Evidence(e) => self.seen[index(e.signal.capability())] = Some(e.signal),
            Event::ModeChanged(e) => {
                if e.mode == Mode::Local {
                    *self.counts.outages.entry(e.capability.word()).or_default() += 1;
                }
                self.put(now, What::Mode(e.capability, e.mode, self.seen[index(e.capability)]));
            }
            Event::Granted(e) => {
                *self.counts.granted.entry(e.request.kind.word()).or_default() += 1;
            }
            Event::Refused(e) => *self.counts.refused.entry(e.reason.word()).or_default() += 1,
            Event::Closed(e) if e.closing != Closing::Voided => {
                *self.counts.captured.entry(e.record.device_kind.word()).or_default() += e.amount.0;
            }
            // Everything else is no matter of the day.
            _ => {}
        }
        self.last_wall_s = now.wall().or(self.last_wall_s);
    }

    fn put(&mut self, now: &Now, what: What) {
        self.entries.push_back(Entry {
            now: *now,
            boot: self.boot,
            what,
        });
        if self.entries.len() > ENTRIES_MAX {
            self.left += 1;
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(Entry {
            what: What::Mode(capability, mode, _),
            ..
        }) = self.entries.pop_front()
        {
            self.before[index(capability)] = mode;
        }
    }

    /// The last day up to `now`, in boot `boot`.
    pub(super) fn show(&mut self, now: &Now, boot: u32) -> Value {
        let at_s = |entry: &Entry| {
            let told = entry.now.wall();
            let wall_s = now.wall().filter(|_| entry.boot == boot)?;
            // The clock may have been set since: how long ago it was is surer than what the clock said then.
            let ago_s = now.mono_ms.saturating_sub(entry.now.mono_ms) / 1000;
            let computed = wall_s.saturating_sub(ago_s);
            told.filter(|told| told.abs_diff(computed) <= ROUNDING_S)
                .or(Some(computed))
        };
        let at_s = |entry: &Entry| at_s(entry).or(entry.now.wall());
        if let Some(from_s) = now.wall().map(|wall_s| wall_s.saturating_sub(DAY_S)) {
            while self.entries.front().and_then(at_s).is_some_and(|at_s| at_s < from_s) {
                self.forget_first();
                self.left = 0;
            }
        }
        let rows = self.entries.iter().map(|entry| match entry.what {
            What::Mode(capability, mode, signal) => json!({
                "at_s": at_s(entry),
                "capability": capability.word(),
                "mode": mode.word(),
                "signal": signal.map(|signal| format!("{signal:?}")),
            }),
            What::Start(since_s) => json!({"at_s": at_s(entry), "start": entry.boot, "absent_since_s": since_s}),
        });
        let rows: Vec<Value> = rows.collect();
        let before = Capability::ALL.map(|capability| self.before[index(capability)].word());
        json!({"before": before, "rows": rows, "left": self.left, "day_s": DAY_S})
    }

    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }
}

fn index(capability: Capability) -> usize {
    usize::from(u8::from(capability))
}

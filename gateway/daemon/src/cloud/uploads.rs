//! One connection's uploader: reads the journal behind the cursor, and knows what is on its way.

use std::{collections::BTreeMap, time::Duration};

use gateway_core::pace::{Artifacts, Pace, Throttle, may_tell};
use journal::Reader;
use proto::{
    codec,
    id::Hash,
    link::{LINK_FRAME_BYTES_MAX, UPLOAD_RECORDS_MAX, Upload, chain},
};
use serde_bytes::ByteBuf;
use tokio::time::Instant;

use crate::{engine::Position, record, store::Mark};

/// Uploads without a receipt.
const UPLOADS_MAX: usize = 4;
/// A receipt that has not come after so long: something between us and the backend does not work.
const RECEIPT_WAIT: Duration = Duration::from_secs(10);
/// A hub that says again how far it is, and does not get further for so long, did not hear what is on its way.
const GAP_WAIT: Duration = Duration::from_secs(1);
/// Bytes of records in one upload, where the cloud takes whole frames: half of one is plenty.
const UPLOAD_BYTES_MAX: usize = LINK_FRAME_BYTES_MAX / 2;
/// Bytes of a frame that are not records: the seal, epoch and first sequence, the lengths of the list.
const FRAME_BYTES: usize = 64;
/// Bytes of a record's length.
const LENGTH_BYTES: usize = 3;
/// Journal records read at a time.
const READ_RECORDS: usize = 256;
/// Journal records read before others on this thread have their turn: an idle gateway writes thousands a day that are
/// nothing to tell. A few milliseconds.
const READ_ROWS_MAX: usize = 1_024;

/// What there is to do next.
pub(super) enum Step {
    /// Nothing that the pace allows.
    Wait,
    /// Nothing yet: there is more to read, after whatever else is due.
    More,
    /// Records for the hub.
    Send(Upload),
    /// No receipt came: the connection is no good.
    Silence,
}

/// What was read of the journal.
struct Read {
    /// Ledger records.
    records: Vec<ByteBuf>,
    /// Whether there is nothing behind them.
    is_end: bool,
}

/// One connection's uploader.
pub(super) struct Uploads {
    /// Where to read on in the journal.
    journal: u64,
    /// Last record sent, and the chain there.
    pub(super) sent: u64,
    pub(super) chain: Hash,
    /// Ends of uploads without a receipt.
    ends: BTreeMap<u64, Hash>,
    last_progress: Instant,
    /// How fast.
    pub(super) pace: Pace,
    /// What the hub said is newest, and when: older sessions are told after it has arrived here.
    announced: Artifacts,
    welcomed: Instant,
    /// What is on its way was refused: begin again at the cursor.
    pub(super) refused: bool,
    /// The hub said again how far it is, and no further since.
    is_doubtful: bool,
    /// Until when we pause because the cloud asked us to.
    paused_ms: u64,
    /// Bytes of records in one upload.
    bytes_max: usize,
}

impl Uploads {
    /// One that goes on behind `upto`, from the nearest mark before it. `frame_bytes_max`: the longest frame that the cloud
    /// takes.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub(super) fn from(
        reader: &Reader,
        mark: &Mark,
        upto: u64,
        least_ms: u64,
        frame_bytes_max: usize,
    ) -> Result<Self, String> {
        let now = Instant::now();
        let mut state = Self {
            journal: mark.journal,
            sent: mark.ledger,
            chain: mark.chain,
            ends: BTreeMap::new(),
            last_progress: now,
            pace: Pace::steady(least_ms, 0),
            announced: Artifacts::default(),
            welcomed: now,
            refused: false,
            is_doubtful: false,
            paused_ms: 0,
            bytes_max: frame_bytes_max.saturating_sub(FRAME_BYTES).min(UPLOAD_BYTES_MAX),
        };
        while state.sent < upto && !state.read(reader, (upto - state.sent) as usize)?.is_end {}
        state.ends.insert(state.sent, state.chain);
        Ok(state)
    }

    /// As well, at the pace of `before`.
    pub(super) fn at_pace_of(self, before: &Self) -> Self {
        Self {
            pace: before.pace,
            announced: before.announced,
            welcomed: before.welcomed,
            paused_ms: before.paused_ms,
            ..self
        }
    }

    /// What is left of the cloud's wish that we slow down.
    pub(super) fn throttle(&self) -> Throttle {
        self.pace.throttle(self.now_ms())
    }

    /// Goes on as after a throttle on an earlier connection, `since` ago.
    pub(super) fn go_on(&mut self, throttle: &Throttle, since: Duration) {
        let now_ms = self.now_ms();
        let since_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.pace.go_on(now_ms, throttle, since_ms);
    }

    /// Milliseconds since the hub's welcome: the pace's clock.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.welcomed.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The hub is back: what it has not heard is told in its order and at a pace, after what is newer there.
    pub(super) fn recover(
        &mut self,
        (least_ms, backlog_ms_min): (u64, u64),
        head: u64,
        outage: Duration,
        announced: Artifacts,
    ) {
        let backlog = head.saturating_sub(self.sent);
        let outage_ms = u64::try_from(outage.as_millis()).unwrap_or(u64::MAX);
        self.announced = announced;
        if backlog > 0 {
            self.pace = Pace::recovering(least_ms, backlog_ms_min, 0, backlog, outage_ms, fastrand::u64(..));
        }
    }

    /// Whether what the hub announced is here, or has had its time.
    pub(super) fn may_tell(&self, position: &Position) -> bool {
        let (list, revocations, tariffs) = position.revisions;
        let adopted = Artifacts {
            list,
            revocations,
            tariffs,
        };
        may_tell(&self.announced, &adopted, self.now_ms())
    }

    /// Whether an upload ended there, or the uploader began there.
    pub(super) fn knows(&self, upto: u64) -> bool {
        self.ends.contains_key(&upto)
    }

    /// The chain where an upload ended.
    pub(super) fn end(&self, upto: u64) -> Option<Hash> {
        self.ends.get(&upto).copied()
    }

    /// Everything up to here is committed; `cursor` is how far that was known, `head` is the newest record.
    pub(super) fn receipted(&mut self, upto: u64, cursor: u64, head: u64) {
        self.ends = self.ends.split_off(&upto);
        if upto <= cursor {
            // The hub says again how far it is: it heard something that does not follow, or this receipt came twice.
            self.is_doubtful = true;
            return;
        }
        self.is_doubtful = false;
        self.last_progress = Instant::now();
        self.pace.receipted();
        if self.sent >= head {
            self.pace.caught_up();
        }
    }

    fn in_flight(&self, position: &Position) -> usize {
        self.ends.range(position.cursor + 1..).count()
    }

    /// Whether what is on its way is to be sent again from the cursor on.
    pub(super) fn is_to_go_back(&self, position: &Position) -> bool {
        let is_lost = self.is_doubtful && self.in_flight(position) > 0 && self.last_progress.elapsed() >= GAP_WAIT;
        self.refused || is_lost
    }

    /// Whether to look again as soon as the pace allows it.
    pub(super) fn wants_to_send(&self, position: &Position) -> bool {
        self.refused || (self.may_tell(position) && self.has_work(position))
    }

    /// Whether there is something to send, and not too much on its way.
    fn has_work(&self, position: &Position) -> bool {
        if self.refused {
            return true;
        }
        self.sent < position.head && self.in_flight(position) < UPLOADS_MAX
    }

    /// What to send next, if the pace allows it.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub(super) fn step(&mut self, reader: &Reader, position: &Position) -> Result<Step, String> {
        let now = Instant::now();
        let in_flight = self.in_flight(position);
        // What was refused is receipted by nobody: it waits as long as the cloud asked for.
        if in_flight > 0 && !self.refused && now - self.last_progress > RECEIPT_WAIT {
            return Ok(Step::Silence);
        }
        if in_flight == 0 || self.refused {
            self.last_progress = now;
        }
        if !self.may_tell(position) || self.pace.wait_ms(self.now_ms()) > 0 || !self.has_work(position) {
            return Ok(Step::Wait);
        }
        let first = self.sent + 1;
        let Read { records, is_end } = self.read(reader, (position.head - self.sent) as usize)?;
        if records.is_empty() {
            return Ok(if is_end { Step::Wait } else { Step::More });
        }
        Ok(Step::Send(Upload {
            epoch: position.epoch,
            first,
            records,
        }))
    }

    /// What [`Self::step`] read last is on its way.
    pub(super) fn sent(&mut self) {
        self.ends.insert(self.sent, self.chain);
        self.pace.sent(self.now_ms());
    }

    /// Reads up to `wanted` ledger records behind the last one, as many as fit an upload and are among the next
    /// [`READ_ROWS_MAX`] of the journal.
    fn read(&mut self, reader: &Reader, wanted: usize) -> Result<Read, String> {
        let wanted = wanted.min(UPLOAD_RECORDS_MAX);
        let mut records = Vec::new();
        let (mut bytes, mut read) = (0, 0);
        while records.len() < wanted && read < READ_ROWS_MAX {
            let rows = reader
                .read(self.journal, READ_RECORDS)
                .map_err(|error| error.to_string())?;
            if rows.is_empty() {
                let is_end = true;
                return Ok(Read { records, is_end });
            }
            read += rows.len();
            for row in rows {
                self.journal = row.sequence;
                if record::is_beside(&row.bytes, || true) {
                    self.journal += 1;
                    continue;
                }
                let (_, event) = record::decode(row.sequence, &row.bytes).map_err(|error| error.to_string())?;
                let found = event.record().filter(|r| r.sequence > self.sent);
                if let Some(found) = found.filter(|found| found.sequence != self.sent + 1) {
                    let (wanted, found) = (self.sent + 1, found.sequence);
                    return Err(format!(
                        "ledger records {wanted} to {} are not kept any more",
                        found - 1
                    ));
                }
                let encoded = found.map(codec::to_vec);
                if let Some(encoded) = encoded {
                    if records.len() >= wanted || (bytes > 0 && bytes + encoded.len() + LENGTH_BYTES > self.bytes_max) {
                        let is_end = false;
                        return Ok(Read { records, is_end });
                    }
                    bytes += encoded.len() + LENGTH_BYTES;
                    self.sent += 1;
                    self.chain = chain(&self.chain, &encoded);
                    records.push(ByteBuf::from(encoded));
                }
                self.journal += 1;
            }
        }
        let is_end = false;
        Ok(Read { records, is_end })
    }

    /// The cloud asks to slow down: what is on its way may be lost. A cloud that says so for each of many messages says it
    /// once: only what it says after the pause slows us down further.
    pub(super) fn slow_down(&mut self) {
        let now_ms = self.now_ms();
        if now_ms >= self.paused_ms {
            self.pace.throttled(now_ms, fastrand::u64(..));
            self.paused_ms = now_ms.saturating_add(self.pace.wait_ms(now_ms));
        }
        self.refused = true;
    }
}

#[cfg(test)]
mod tests {
    use gateway_core::{
        Event, Now,
        event::{Heard, LeaseTaken},
    };
    use journal::{Journal, Options};
    use proto::{
        artifact::Lease,
        id::{Kind, Name, SessionId, TokenHash},
        link::{Evidence, LedgerRecord, RecordKind},
        message::{ClockQuality, StopReason},
        money::{Money, Units},
        tariff::Bill,
    };
    use tokio::time::advance;

    use super::*;

    const BEGIN: Mark = Mark {
        ledger: 0,
        chain: Hash::ZERO,
        journal: 1,
    };

    /// An uploader with two uploads on their way, which end at records 3 and 5, and where the gateway stands.
    fn under_way(reader: &Reader) -> (Uploads, Position) {
        let mut state = Uploads::from(reader, &BEGIN, 0, 50, LINK_FRAME_BYTES_MAX).unwrap();
        for upto in [3, 5] {
            state.sent = upto;
            state.sent();
        }
        let position = Position {
            head: 5,
            ..Position::default()
        };
        (state, position)
    }

    fn journal(dir: &tempfile::TempDir) -> Journal {
        Journal::open(dir.path().join("journal"), &Options::new("test", 1).create()).unwrap()
    }

    fn is_silent(state: &mut Uploads, reader: &Reader, position: &Position) -> bool {
        matches!(state.step(reader, position).unwrap(), Step::Silence)
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_receipts_is_silence_and_what_was_refused_waits() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(&dir);
        let reader = journal.reader();
        let (mut state, mut position) = under_way(&reader);
        advance(RECEIPT_WAIT).await;
        assert!(!is_silent(&mut state, &reader, &position));
        advance(Duration::from_millis(1)).await;
        assert!(is_silent(&mut state, &reader, &position));

        let (mut state, _) = under_way(&reader);
        for refused in 0..6 {
            state.slow_down();
            advance(RECEIPT_WAIT * 2).await;
            assert!(!is_silent(&mut state, &reader, &position), "refused {refused} times");
            assert!(state.is_to_go_back(&position));
        }
        // A receipt for what had arrived before moves the cursor; the rest is sent again, and may be silence then.
        position.cursor = 3;
        let mut again = Uploads::from(&reader, &BEGIN, 0, 50, LINK_FRAME_BYTES_MAX)
            .unwrap()
            .at_pace_of(&state);
        assert_eq!(again.pace, state.pace, "at the pace that the cloud asked for");
        assert_ne!(
            again.pace,
            Uploads::from(&reader, &BEGIN, 0, 50, LINK_FRAME_BYTES_MAX)
                .unwrap()
                .pace
        );
        (again.sent, position.cursor) = (5, 3);
        again.sent();
        advance(RECEIPT_WAIT * 2).await;
        assert!(is_silent(&mut again, &reader, &position));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_nothing_to_tell_is_read_in_steps() {
        const IDLE: usize = READ_ROWS_MAX * 3;
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(&dir);
        let idle = Event::Heard(Heard {
            device: Name::new("c1").unwrap(),
            counter: 1,
        });
        let now = Now {
            mono_ms: 1,
            wall_s: 0,
            quality: ClockQuality::Unknown,
        };
        let rows = std::iter::repeat_n(idle, IDLE).chain([told(&now)]);
        let rows: Vec<Vec<u8>> = rows.map(|event| record::encode(&now, &event)).collect();
        for batch in rows.chunks(journal::BATCH_RECORDS_MAX) {
            let batch: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
            journal.append(&batch).unwrap();
        }
        let reader = journal.reader();
        let position = Position {
            head: 1,
            ..Position::default()
        };
        let mut state = Uploads::from(&reader, &BEGIN, 0, 50, LINK_FRAME_BYTES_MAX).unwrap();
        advance(Duration::from_secs(1)).await;
        for step in 1..=3 {
            assert!(
                matches!(state.step(&reader, &position).unwrap(), Step::More),
                "step {step}"
            );
            assert_eq!(state.journal, (READ_ROWS_MAX * step) as u64 + 1, "step {step}");
        }
        let Step::Send(upload) = state.step(&reader, &position).unwrap() else {
            panic!("a record is to be told");
        };
        assert_eq!((upload.first, upload.records.len()), (1, 1));
        state.sent();
        // What begins behind it reads that far at once, on a thread of its own.
        let after = Uploads::from(&reader, &BEGIN, 1, 50, LINK_FRAME_BYTES_MAX).unwrap();
        assert_eq!((after.sent, after.chain), (1, state.chain));
        advance(Duration::from_secs(1)).await;
        assert!(
            matches!(
                state.step(&reader, &Position { head: 2, ..position }).unwrap(),
                Step::Wait
            ),
            "no more"
        );
    }

    /// An event with the first ledger record.
    fn told(now: &Now) -> Event {
        let lease = Lease::default();
        let record = LedgerRecord {
            sequence: 1,
            kind: RecordKind::LeaseTaken,
            session: SessionId::ZERO,
            device: Name::new("none").unwrap(),
            outlet: 0,
            device_kind: Kind::Unknown,
            token: TokenHash::ZERO,
            account: 1,
            amount: Money(1),
            register_start: Units::ZERO,
            register_end: Units::ZERO,
            bill: Bill::default(),
            tariff_hash: Hash::ZERO,
            stop_reason: StopReason::Other,
            rule: 0,
            online: false,
            at: now.stamp(),
            boot: 1,
            evidence: Evidence::default(),
        };
        Event::LeaseTaken(LeaseTaken {
            lease,
            revision: 0,
            until: gateway_core::Instant::default(),
            journal_epoch: 1,
            record,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_connection_goes_on_at_the_pace_that_the_cloud_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(&dir);
        let reader = journal.reader();
        let (mut state, _) = under_way(&reader);
        for _ in 0..5 {
            state.slow_down();
            advance(Duration::from_millis(state.pace.wait_ms(state.now_ms()))).await;
        }
        state.slow_down();
        let pause_ms = state.pace.wait_ms(state.now_ms());
        assert!(pause_ms >= 16_000, "32 s or more between two: {pause_ms}");
        let throttle = state.throttle();
        // How long after that the next connection is greeted -> its first wait, and whether it is slow afterwards.
        let table = [
            (0, pause_ms, true),
            (pause_ms / 2, pause_ms - pause_ms / 2, true),
            (299_999, 0, true),
            (300_000, 0, false),
        ];
        for (since_ms, first_ms, is_slow) in table {
            let mut next = Uploads::from(&reader, &BEGIN, 0, 50, LINK_FRAME_BYTES_MAX).unwrap();
            next.recover((50, 500), 0, Duration::from_millis(since_ms), Artifacts::default());
            advance(Duration::from_secs(1)).await;
            next.go_on(&throttle, Duration::from_millis(since_ms));
            let now_ms = next.now_ms();
            assert!(next.pace.wait_ms(now_ms) >= first_ms, "after {since_ms} ms");
            assert_eq!(next.pace.is_free(now_ms), !is_slow, "after {since_ms} ms");
            for _ in 0..3 {
                next.sent();
            }
            assert_eq!(next.pace.wait_ms(now_ms) >= 32_000, is_slow, "after {since_ms} ms");
        }
    }
}

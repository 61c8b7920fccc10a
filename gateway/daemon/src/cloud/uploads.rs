//! One connection's uploader: reads the journal behind the cursor, and knows what is on its way.

use std::{collections::BTreeMap, time::Duration};

use gateway_core::pace::{Artifacts, Pace, may_tell};
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

/// What there is to do next.
pub(super) enum Step {
    /// Nothing that the pace allows.
    Wait,
    /// Records for the hub.
    Send(Upload),
    /// No receipt came: the connection is no good.
    Silence,
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
        while state.sent < upto {
            if state.read(reader, (upto - state.sent) as usize)?.is_empty() {
                break;
            }
        }
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
        if in_flight > 0 && now - self.last_progress > RECEIPT_WAIT {
            return Ok(Step::Silence);
        }
        if in_flight == 0 {
            self.last_progress = now;
        }
        if !self.may_tell(position) || self.pace.wait_ms(self.now_ms()) > 0 || !self.has_work(position) {
            return Ok(Step::Wait);
        }
        let first = self.sent + 1;
        let records = self.read(reader, (position.head - self.sent) as usize)?;
        if records.is_empty() {
            return Ok(Step::Wait);
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

    /// Reads up to `wanted` ledger records behind the last one, as many as fit an upload.
    fn read(&mut self, reader: &Reader, wanted: usize) -> Result<Vec<ByteBuf>, String> {
        let wanted = wanted.min(UPLOAD_RECORDS_MAX);
        let mut records = Vec::new();
        let mut bytes = 0;
        while records.len() < wanted {
            let rows = reader
                .read(self.journal, READ_RECORDS)
                .map_err(|error| error.to_string())?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
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
                        return Ok(records);
                    }
                    bytes += encoded.len() + LENGTH_BYTES;
                    self.sent += 1;
                    self.chain = chain(&self.chain, &encoded);
                    records.push(ByteBuf::from(encoded));
                }
                self.journal = row.sequence + 1;
            }
        }
        Ok(records)
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

//! Ledger records come in. Only the contiguous next ones are committed; what was committed before is acknowledged
//! again; what cannot be booked is kept aside, so that one bad record never stands before the money behind it.

use std::collections::BTreeMap;

use proto::{
    book::{Account, Book, Phase, Transfer},
    codec,
    id::{GatewayId, Hash, SessionId},
    link::{LedgerReceipt, LedgerRecord, RecordKind, UPLOAD_RECORDS_MAX, Upload, chain},
    message::ClockQuality,
    money::Money,
};

use super::{
    Alarm, Decision, Effect, Event, GatewayRow, Hub, Now, RecordKey, Settings,
    conflict::{About, Adjustment, Case, Claimed, Class, Facts, claimed, clock_offset_s, clock_skew},
    lease::{LeaseKey, LeaseRow, follow},
    state::{SessionPhase, SessionRow},
};

/// Largest amount of one record, in minor units: 100 million. A sum of 900 million such records still fits the book,
/// so that booking cannot overflow.
pub const RECORD_AMOUNT_MAX: Money = Money(10_000_000_000);
/// Bytes of a quarantined record in one event, so that an event fits a record of the store.
pub const QUARANTINE_PART_BYTES: usize = 2048;
/// Most quarantined records of one gateway, in all its epochs. A gateway that sends more is broken: it is committed up to
/// the next record that cannot be booked, and nothing is lost, until the operator has settled some. Other gateways do not
/// notice.
pub const QUARANTINE_ROWS_MAX: usize = 10_000;

impl Hub {
    pub(super) fn decide_upload(&self, now: Now, settings: &Settings, gateway: GatewayId, upload: &Upload) -> Decision {
        let mut decision = Decision::default();
        let row = match self.gateways.get(&gateway) {
            Some(row) if row.epoch == upload.epoch => row,
            Some(_) | None => {
                let reason = format!("an upload of epoch {} before a hello of that epoch", upload.epoch);
                decision.effects.push(Effect::Alarm(Alarm::Upload { gateway, reason }));
                decision.effects.push(self.welcome(now, gateway, proto::VERSION));
                return decision;
            }
        };
        if let Err(reason) = check_shape(upload) {
            decision.effects.push(Effect::Alarm(Alarm::Upload { gateway, reason }));
            decision.effects.push(receipt(gateway, row));
            return decision;
        }
        let next = row.upto + 1;
        let known = next.saturating_sub(upload.first).min(upload.records.len() as u64);
        if known > 0 {
            decision.effects.push(Effect::Duplicates(gateway, known));
        }
        let mut after = row.clone();
        if upload.first <= next {
            let mut judge = Judge::new(self, gateway, upload.epoch, now);
            for bytes in &upload.records[known as usize..] {
                let (sequence, hash) = (after.upto + 1, chain(&after.hash, bytes));
                if !judge.judge(sequence, hash, bytes, &mut decision) {
                    let reason = format!(
                        "{QUARANTINE_ROWS_MAX} of its records are quarantined; from record {sequence} on nothing is committed until you settle some: holdfast-hub settle --gateway {gateway}"
                    );
                    decision.effects.push(Effect::Alarm(Alarm::Upload { gateway, reason }));
                    break;
                }
                (after.upto, after.hash) = (sequence, hash);
            }
            let leases = judge.leases;
            self.renew(now, settings, gateway, &leases, &mut decision);
        }
        decision.effects.push(receipt(gateway, &after));
        decision
    }
}

fn check_shape(upload: &Upload) -> Result<(), String> {
    if upload.records.is_empty() || upload.records.len() > UPLOAD_RECORDS_MAX {
        return Err(format!(
            "an upload of {} records, allowed are 1 to {UPLOAD_RECORDS_MAX}",
            upload.records.len()
        ));
    }
    if upload.first == 0 {
        return Err("an upload from sequence 0; the first record is 1".to_owned());
    }
    Ok(())
}

fn receipt(gateway: GatewayId, row: &GatewayRow) -> Effect {
    Effect::Receipt(
        gateway,
        LedgerReceipt {
            epoch: row.epoch,
            upto: row.upto,
            hash: row.hash,
            ..LedgerReceipt::default() // What became of the records is known after adjudication.
        },
    )
}

/// What becomes of a record that can be read.
enum Judged {
    /// It is booked, after an entry of the hub's own if one is needed.
    Booked {
        record: LedgerRecord,
        entry: Option<Adjustment>,
    },
    /// It is of a second claim on its session.
    Aside { record: LedgerRecord, exists: bool },
}

/// Judges the records of one upload in order, each on the state that those before it leave. It books into a small book
/// that holds only the holds of the sessions concerned, with the very code that will book them for good.
struct Judge<'a> {
    hub: &'a Hub,
    gateway: GatewayId,
    epoch: u32,
    book: Book,
    sessions: BTreeMap<SessionId, SessionRow>,
    facts: BTreeMap<SessionId, Facts>,
    /// Boot and clock offset of the last record, see [`super::Conflicts::clocks`].
    clock: Option<(u32, i64)>,
    clock_alarmed: bool,
    adjusted: u64,
    /// Leases that the records concern.
    leases: BTreeMap<LeaseKey, LeaseRow>,
    /// Quarantined records of this gateway, those of this upload included; none: it sent no bad one in this upload.
    quarantined: Option<usize>,
    wall_s: u64,
}

impl<'a> Judge<'a> {
    fn new(hub: &'a Hub, gateway: GatewayId, epoch: u32, now: Now) -> Self {
        Self {
            hub,
            gateway,
            epoch,
            book: Book::default(),
            sessions: BTreeMap::new(),
            facts: BTreeMap::new(),
            clock: hub.conflicts.clocks.get(&gateway).copied(),
            clock_alarmed: false,
            adjusted: 0,
            leases: BTreeMap::new(),
            quarantined: None,
            wall_s: now.wall_s,
        }
    }

    /// Returns whether the record is committed; it is not if it cannot be booked and too many wait for the operator.
    fn judge(&mut self, sequence: u64, hash: Hash, bytes: &[u8], decision: &mut Decision) -> bool {
        let at = RecordKey {
            gateway: self.gateway,
            epoch: self.epoch,
            sequence,
        };
        match self.book(&at, bytes) {
            Ok(Judged::Booked { record, entry }) => {
                decision.events.extend(entry.map(Event::Adjusted));
                self.look_at_clock(at, &record, decision);
                if record.kind == RecordKind::Capture {
                    self.audit(at, &record, decision);
                }
                decision.events.push(Event::Booked {
                    at,
                    hash,
                    bytes: bytes.to_vec(),
                    record,
                });
            }
            Ok(Judged::Aside { record, exists }) => {
                if !exists {
                    let session = record.session;
                    decision.effects.push(Effect::Alarm(Alarm::Claimed { at, session }));
                }
                decision.events.push(Event::Aside {
                    at,
                    hash,
                    bytes: bytes.to_vec(),
                    record,
                    exists,
                });
            }
            Err(reason) => {
                let known = self.quarantined.unwrap_or_else(|| self.hub.quarantined(&self.gateway));
                if known >= QUARANTINE_ROWS_MAX {
                    return false;
                }
                self.quarantined = Some(known + 1);
                quarantine(at, hash, bytes, reason, decision);
            }
        }
        true
    }

    /// Reads and books a record, or sets it aside, or says why neither is possible.
    fn book(&mut self, at: &RecordKey, bytes: &[u8]) -> Result<Judged, String> {
        let record: LedgerRecord = codec::decode(bytes).map_err(|error| error.to_string())?;
        if record.sequence != at.sequence {
            return Err(format!("it says that it is record {}", record.sequence));
        }
        if record.amount > RECORD_AMOUNT_MAX {
            return Err(format!("the amount {} is above {RECORD_AMOUNT_MAX}", record.amount));
        }
        let session = record.session;
        self.fetch(session);
        let mut entry = None;
        match claimed(self.facts.get(&session), at, &record) {
            Claimed::Own => {}
            Claimed::Aside { exists } => return Ok(Judged::Aside { record, exists }),
            Claimed::Foreign => {
                return Err(format!(
                    "session {session} is another gateway's, and this is not its hold"
                ));
            }
            // What would not fit afterwards must not take anything back before.
            Claimed::Displaces | Claimed::Reopens if record.amount < Money::ZERO => {}
            Claimed::Displaces => entry = self.displace(session),
            Claimed::Reopens => entry = self.reopen(session, record.amount),
        }
        if let Some(row) = self.sessions.get(&session)
            && row.phase == SessionPhase::Closed
            && record.kind == RecordKind::Hold
        {
            return Err(format!("session {session} is closed; it cannot be held again"));
        }
        let held = self.sessions.get(&session).map(|row| (row.payer, row.hold));
        self.fetch_lease(&record, held);
        let mut leases = self.leases.clone();
        follow(
            &mut leases,
            self.hub.lease_last,
            self.gateway,
            self.epoch,
            &record,
            held,
        )?;
        self.book.book(&record).map_err(|error| error.to_string())?;
        self.leases = leases;
        self.follow(at, &record);
        Ok(Judged::Booked { record, entry })
    }

    fn follow(&mut self, at: &RecordKey, record: &LedgerRecord) {
        let session = record.session;
        match record.kind {
            RecordKind::Hold => {
                let row = SessionRow {
                    gateway: self.gateway,
                    payer: Account::payer(record.account, &record.evidence),
                    hold: record.amount,
                    phase: SessionPhase::Held,
                };
                self.sessions.insert(session, row);
                self.facts.insert(session, Facts::held(at, record));
            }
            RecordKind::Capture | RecordKind::Void => {
                if let Some(row) = self.sessions.get_mut(&session) {
                    row.phase = SessionPhase::Closed;
                }
            }
            RecordKind::Started
            | RecordKind::Indeterminate
            | RecordKind::LeaseReturn
            | RecordKind::LeaseTaken
            | RecordKind::Other => {}
        }
        if let Some(facts) = self.facts.get_mut(&session) {
            facts.hear(at, record);
        }
    }

    fn displace(&mut self, session: SessionId) -> Option<Adjustment> {
        let facts = self.facts.remove(&session)?;
        let entry = self
            .hub
            .conflicts
            .displacement(self.number(), session, &facts, self.wall_s);
        if facts.is_open() {
            self.forget_hold(session);
        }
        self.sessions.remove(&session);
        Some(entry)
    }

    fn reopen(&mut self, session: SessionId, amount: Money) -> Option<Adjustment> {
        let facts = self.facts.get(&session).filter(|facts| amount <= facts.hold)?;
        let (payer, hold) = (facts.payer, facts.hold);
        let entry = self.hub.conflicts.reopening(
            self.hub.conflicts.number() + self.adjusted + 1,
            session,
            facts,
            self.wall_s,
        );
        self.adjusted += 1;
        self.book.restore_hold(session, payer, hold);
        Some(entry)
    }

    fn number(&mut self) -> u64 {
        self.adjusted += 1;
        self.hub.conflicts.number() + self.adjusted
    }

    fn forget_hold(&mut self, session: SessionId) {
        let held = self.sessions.get(&session).map(|row| (row.payer, row.hold));
        if let Some((debit, amount)) = held {
            let line = Transfer {
                sequence: 0,
                session,
                phase: Phase::Void,
                debit,
                credit: Account::Clearing,
                amount,
            };
            self.book
                .transfer(&line)
                .expect("the hold was brought in with the session");
        }
    }

    fn look_at_clock(&mut self, at: RecordKey, record: &LedgerRecord, decision: &mut Decision) {
        let now = Now { wall_s: self.wall_s };
        if let Some(off_s) = clock_skew(self.clock.as_ref(), record, now)
            && !self.clock_alarmed
        {
            self.clock_alarmed = true; // Once an upload is often enough.
            decision.effects.push(Effect::Alarm(Alarm::Clock { at, off_s }));
            let case = Case {
                class: Class::ClockSkew,
                about: About::session(record.session),
                what: format!("the clock of gateway {} is off by {off_s} s", at.gateway),
            };
            decision.events.push(Event::CaseOpened(case));
        }
        if record.at.quality == ClockQuality::Synchronised {
            self.clock = Some((record.boot, clock_offset_s(record)));
        }
    }

    fn fetch_lease(&mut self, record: &LedgerRecord, held: Option<(Account, Money)>) {
        let key = match held {
            Some((Account::Lease(account, lease), _)) => (account, lease),
            _ => (record.account, record.evidence.lease),
        };
        if let Some(row) = self.hub.leases.get(&key) {
            self.leases.entry(key).or_insert(*row);
        }
    }

    /// Brings in what the hub knows of a session, at its first mention.
    fn fetch(&mut self, session: SessionId) {
        if self.sessions.contains_key(&session) {
            return;
        }
        if let Some(facts) = self.hub.conflicts.session(&session) {
            self.facts.insert(session, facts.clone());
        }
        if let Some(row) = self.hub.sessions.get(&session) {
            self.sessions.insert(session, *row);
            if row.phase == SessionPhase::Held {
                self.book.restore_hold(session, row.payer, row.hold);
            }
        }
    }

    /// Computes the charge anew. A difference is written down and nothing else.
    fn audit(&self, at: RecordKey, record: &LedgerRecord, decision: &mut Decision) {
        let hold = self.sessions.get(&record.session).map_or(Money::ZERO, |row| row.hold);
        let computed = self
            .hub
            .tariffs_known
            .get(&record.tariff_hash)
            .map(|tariff| record.bill.total(tariff).min(hold));
        if computed == Some(record.amount) {
            return;
        }
        decision.events.push(Event::Disputed {
            at,
            session: record.session,
            charged: record.amount,
            computed,
        });
        decision.effects.push(Effect::Alarm(Alarm::Disputed {
            at,
            charged: record.amount,
            computed,
        }));
    }
}

fn quarantine(at: RecordKey, hash: Hash, bytes: &[u8], reason: String, decision: &mut Decision) {
    for (part, bytes) in bytes.chunks(QUARANTINE_PART_BYTES).enumerate() {
        decision.events.push(Event::QuarantinePart {
            at,
            offset: (part * QUARANTINE_PART_BYTES) as u64,
            bytes: bytes.to_vec(),
        });
    }
    decision.effects.push(Effect::Alarm(Alarm::Quarantined {
        at,
        reason: reason.clone(),
    }));
    decision.events.push(Event::Quarantined { at, hash, reason });
}

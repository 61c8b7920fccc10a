//! Ledger records come in. Only the contiguous next ones are committed; what was committed before is acknowledged
//! again; what cannot be booked is kept aside, so that one bad record never stands before the money behind it.

use std::collections::BTreeMap;

use proto::{
    book::{Account, Book},
    codec,
    id::{GatewayId, Hash, SessionId},
    link::{LedgerReceipt, LedgerRecord, RecordKind, UPLOAD_RECORDS_MAX, Upload, chain},
    money::Money,
};

use super::{
    Alarm, Decision, Effect, Event, GatewayRow, Hub, Now, RecordKey, Settings,
    lease::{LeaseKey, LeaseRow, follow},
    state::{SessionPhase, SessionRow},
};

/// Largest amount of one record, in minor units: 100 million. A sum of 900 million such records still fits the book,
/// so that booking cannot overflow.
pub const RECORD_AMOUNT_MAX: Money = Money(10_000_000_000);
/// Bytes of a quarantined record in one event, so that an event fits a record of the store.
pub const QUARANTINE_PART_BYTES: usize = 2048;
/// Most quarantined records. A gateway that sends more is broken: nothing further of it is committed, and nothing is
/// lost, until a person has looked.
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
            let mut judge = Judge::new(self, gateway, upload.epoch);
            for bytes in &upload.records[known as usize..] {
                if self.quarantine.len() + judge.quarantined >= QUARANTINE_ROWS_MAX {
                    let reason = "too many quarantined records; nothing more is committed".to_owned();
                    decision.effects.push(Effect::Alarm(Alarm::Upload { gateway, reason }));
                    break;
                }
                after.upto += 1;
                after.hash = chain(&after.hash, bytes);
                judge.judge(after.upto, after.hash, bytes, &mut decision);
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
        },
    )
}

/// Judges the records of one upload in order, each on the state that those before it leave. It books into a small book
/// that holds only the holds of the sessions concerned, with the very code that will book them for good.
struct Judge<'a> {
    hub: &'a Hub,
    gateway: GatewayId,
    epoch: u32,
    book: Book,
    sessions: BTreeMap<SessionId, SessionRow>,
    /// Leases that the records concern.
    leases: BTreeMap<LeaseKey, LeaseRow>,
    quarantined: usize,
}

impl<'a> Judge<'a> {
    fn new(hub: &'a Hub, gateway: GatewayId, epoch: u32) -> Self {
        Self {
            hub,
            gateway,
            epoch,
            book: Book::default(),
            sessions: BTreeMap::new(),
            leases: BTreeMap::new(),
            quarantined: 0,
        }
    }

    fn judge(&mut self, sequence: u64, hash: Hash, bytes: &[u8], decision: &mut Decision) {
        let at = RecordKey {
            gateway: self.gateway,
            epoch: self.epoch,
            sequence,
        };
        let record = match self.book(sequence, bytes) {
            Ok(record) => record,
            Err(reason) => {
                self.quarantined += 1;
                quarantine(at, hash, bytes, reason, decision);
                return;
            }
        };
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

    /// Reads and books a record, or says why it must not be booked.
    fn book(&mut self, sequence: u64, bytes: &[u8]) -> Result<LedgerRecord, String> {
        let record: LedgerRecord = codec::decode(bytes).map_err(|error| error.to_string())?;
        if record.sequence != sequence {
            return Err(format!("it says that it is record {}", record.sequence));
        }
        if record.amount > RECORD_AMOUNT_MAX {
            return Err(format!("the amount {} is above {RECORD_AMOUNT_MAX}", record.amount));
        }
        let session = record.session;
        self.fetch(session);
        if let Some(row) = self.sessions.get(&session) {
            if row.gateway != self.gateway {
                return Err(format!("session {session} belongs to gateway {}", row.gateway));
            }
            if row.phase == SessionPhase::Closed && record.kind == RecordKind::Hold {
                return Err(format!("session {session} is closed; it cannot be held again"));
            }
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
        match record.kind {
            RecordKind::Hold => {
                let row = SessionRow {
                    gateway: self.gateway,
                    payer: Account::payer(record.account, &record.evidence),
                    hold: record.amount,
                    phase: SessionPhase::Held,
                };
                self.sessions.insert(session, row);
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
        Ok(record)
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

//! The hub's whole state as chunks of rows, so that a start need not replay every record from the first.
//!
//! A chunk is `[version, [[kind number, payload], ...]]` in CBOR. Rows that have an order (the revocation log, closed
//! sessions) are written in it.

mod dispatch;
mod lease;

use proto::{
    artifact::{ListEntry, RevokedScope, TariffOf, TariffTable},
    book::{Account, Balance},
    codec,
    id::{AccountId, GatewayId, Hash, SessionId, TokenHash},
    money::Money,
    tariff::Tariff,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    core::{
        Dispute, GatewayRow, Hub, ListStep, LogEntry, PublishedList, QUARANTINE_PART_BYTES, RecordKey, SessionPhase,
        SessionRow, conflict::keep,
    },
    record::{RecordError, Token1},
};

/// Version of the snapshot format.
const SNAPSHOT_VERSION: u8 = 1;
/// A chunk is closed before it grows above this, in bytes: the store keeps values of up to 4 KiB.
const CHUNK_BYTES_MAX: usize = 3584;
/// What a row costs in a chunk beside its payload: array head, kind, string head.
const ROW_OVERHEAD_BYTES: usize = 8;

#[derive(Serialize, Deserialize)]
struct Chunk(u8, Vec<Row>);

#[derive(Serialize, Deserialize)]
struct Row(u16, ByteBuf);

#[derive(Serialize, Deserialize)]
struct Head1 {
    boot: u32,
    list_stale: bool,
    tariffs_stale: bool,
}

#[derive(Serialize, Deserialize)]
struct Account1 {
    account: AccountId,
    deposit: Money,
}

#[derive(Serialize, Deserialize)]
struct RevocationEnd1 {
    revision: u64,
    end: u64,
}

#[derive(Serialize, Deserialize)]
struct ListStep1 {
    from: u64,
    touched: Vec<TokenHash>,
}

#[derive(Serialize, Deserialize)]
struct PublishedHead1 {
    revision: u64,
    issued_s: u64,
}

#[derive(Serialize, Deserialize)]
struct Gateway1 {
    gateway: GatewayId,
    epoch: u32,
    boot: u32,
    upto: u64,
    hash: Hash,
    counter_epoch: u32,
    counter: u64,
    booked: u64,
    quarantined: u64,
    disputed: u64,
    #[serde(default)]
    aside: u64,
}

#[derive(Serialize, Deserialize)]
struct Balance1 {
    /// [`Account::parts`].
    account: (u8, u64, u64),
    debits_pending: Money,
    debits_posted: Money,
    credits_pending: Money,
    credits_posted: Money,
}

#[derive(Serialize, Deserialize)]
struct Session1 {
    session: SessionId,
    gateway: GatewayId,
    /// [`Account::parts`].
    payer: (u8, u64, u64),
    hold: Money,
    closed: bool,
}

#[derive(Serialize, Deserialize)]
struct QuarantinePart1 {
    gateway: GatewayId,
    epoch: u32,
    sequence: u64,
    bytes: ByteBuf,
}

#[derive(Serialize, Deserialize)]
struct QuarantineReason1 {
    gateway: GatewayId,
    epoch: u32,
    sequence: u64,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct Dispute1 {
    gateway: GatewayId,
    epoch: u32,
    sequence: u64,
    session: SessionId,
    charged: Money,
    computed: Option<Money>,
}

const HEAD: u16 = 1;
const ACCOUNT: u16 = 2;
const TOKEN: u16 = 3;
const REVOKED: u16 = 4;
const REVOCATION_END: u16 = 5;
const TARIFF_KNOWN: u16 = 6;
const TARIFF: u16 = 7;
const LIST_HEAD: u16 = 8;
const LIST_ENTRY: u16 = 9;
const TARIFF_TABLE_HEAD: u16 = 10;
const TARIFF_TABLE_ENTRY: u16 = 11;
const GATEWAY: u16 = 12;
const BALANCE: u16 = 13;
const SESSION: u16 = 14;
const QUARANTINE_PART: u16 = 15;
const QUARANTINE_REASON: u16 = 16;
const DISPUTE: u16 = 17;
const SCOPE_REVOKED: u16 = 40;
const LIST_STEP: u16 = 41;
const KEYS: u16 = 42;

/// Most touched tokens in one row.
const STEP_TOKENS_MAX: usize = 150;
const POLICY: u16 = 46;

/// The state in chunks that fit the store.
#[must_use]
pub fn encode(hub: &Hub) -> Vec<Vec<u8>> {
    let mut writer = Writer::default();
    let (boot, list_stale, tariffs_stale) = (hub.boot, hub.list_stale, hub.tariffs_stale);
    writer.push(
        HEAD,
        &Head1 {
            boot,
            list_stale,
            tariffs_stale,
        },
    );
    write_catalogue(hub, &mut writer);
    write_published(hub, &mut writer);
    write_ledger(hub, &mut writer);
    writer.close();
    writer.chunks
}

#[derive(Default)]
struct Writer {
    chunks: Vec<Vec<u8>>,
    rows: Vec<Row>,
    bytes: usize,
}

impl Writer {
    fn push<T: Serialize>(&mut self, kind: u16, payload: &T) {
        self.push_bytes(kind, codec::to_vec(payload));
    }

    fn push_bytes(&mut self, kind: u16, payload: Vec<u8>) {
        let cost = payload.len() + ROW_OVERHEAD_BYTES;
        if self.bytes + cost > CHUNK_BYTES_MAX {
            self.close();
        }
        self.bytes += cost;
        self.rows.push(Row(kind, ByteBuf::from(payload)));
    }

    fn close(&mut self) {
        if !self.rows.is_empty() {
            let rows = std::mem::take(&mut self.rows);
            self.chunks.push(codec::to_vec(&Chunk(SNAPSHOT_VERSION, rows)));
            self.bytes = 0;
        }
    }
}

fn write_catalogue(hub: &Hub, writer: &mut Writer) {
    for (account, deposit) in hub.accounts() {
        writer.push(ACCOUNT, &Account1 { account, deposit });
    }
    for (token, row) in &hub.tokens {
        writer.push(TOKEN, &Token1::new(*token, row));
    }
    for entry in &hub.revocation_log {
        match entry {
            LogEntry::Token(revoked) => writer.push(REVOKED, revoked),
            LogEntry::Scope(revoked) => writer.push(SCOPE_REVOKED, revoked),
        }
    }
    for &(revision, end) in &hub.revocation_ends {
        let end = end as u64;
        writer.push(REVOCATION_END, &RevocationEnd1 { revision, end });
    }
    for tariff in hub.tariffs_known.values() {
        writer.push(TARIFF_KNOWN, tariff);
    }
    for (&kind, tariff) in &hub.tariffs {
        let tariff = tariff.clone();
        writer.push(TARIFF, &TariffOf { kind, tariff });
    }
}

fn write_published(hub: &Hub, writer: &mut Writer) {
    if let Some(list) = &hub.list {
        let (revision, issued_s) = (list.revision, list.issued_s);
        writer.push(LIST_HEAD, &PublishedHead1 { revision, issued_s });
        for entry in &list.entries {
            writer.push(LIST_ENTRY, entry);
        }
    }
    for step in &hub.list_steps {
        // A step that touched nobody is a step, too.
        let whole = [step.touched.as_slice()];
        let parts = step.touched.chunks(STEP_TOKENS_MAX);
        let empty = whole.into_iter().filter(|touched| touched.is_empty());
        for part in parts.chain(empty) {
            let (from, touched) = (step.from, part.to_vec());
            writer.push(LIST_STEP, &ListStep1 { from, touched });
        }
    }
    if let Some(keys) = &hub.keys {
        writer.push(KEYS, keys);
    }
    if let Some(policy) = &hub.policy {
        writer.push(POLICY, policy);
    }
    if let Some(table) = &hub.tariff_table {
        let (revision, issued_s) = (table.revision, 0);
        writer.push(TARIFF_TABLE_HEAD, &PublishedHead1 { revision, issued_s });
        for entry in &table.entries {
            writer.push(TARIFF_TABLE_ENTRY, entry);
        }
    }
}

fn write_ledger(hub: &Hub, writer: &mut Writer) {
    for (&gateway, row) in &hub.gateways {
        writer.push(
            GATEWAY,
            &Gateway1 {
                gateway,
                epoch: row.epoch,
                boot: row.boot,
                upto: row.upto,
                hash: row.hash,
                counter_epoch: row.counter_epoch,
                counter: row.counter,
                booked: row.booked,
                quarantined: row.quarantined,
                disputed: row.disputed,
                aside: row.aside,
            },
        );
    }
    for (account, sums) in hub.book.balances() {
        writer.push(
            BALANCE,
            &Balance1 {
                account: account.parts(),
                debits_pending: sums.debits_pending,
                debits_posted: sums.debits_posted,
                credits_pending: sums.credits_pending,
                credits_posted: sums.credits_posted,
            },
        );
    }
    let held = hub.sessions.iter().filter(|(_, row)| row.phase == SessionPhase::Held);
    let closed = hub
        .sessions_closed
        .iter()
        .filter_map(|session| hub.sessions.get_key_value(session));
    for (&session, row) in held.chain(closed) {
        writer.push(
            SESSION,
            &Session1 {
                session,
                gateway: row.gateway,
                payer: row.payer.parts(),
                hold: row.hold,
                closed: row.phase == SessionPhase::Closed,
            },
        );
    }
    write_exceptions(hub, writer);
    keep::write(&hub.conflicts, |kind, payload| writer.push_bytes(kind, payload));
    lease::write(hub, writer);
    dispatch::write(hub, writer);
}

fn write_exceptions(hub: &Hub, writer: &mut Writer) {
    for (at, row) in &hub.quarantine {
        let (gateway, epoch, sequence) = (at.gateway, at.epoch, at.sequence);
        for bytes in row.bytes.chunks(QUARANTINE_PART_BYTES) {
            let bytes = ByteBuf::from(bytes);
            writer.push(
                QUARANTINE_PART,
                &QuarantinePart1 {
                    gateway,
                    epoch,
                    sequence,
                    bytes,
                },
            );
        }
        let reason = row.reason.clone();
        writer.push(
            QUARANTINE_REASON,
            &QuarantineReason1 {
                gateway,
                epoch,
                sequence,
                reason,
            },
        );
    }
    for (at, row) in &hub.disputes {
        writer.push(
            DISPUTE,
            &Dispute1 {
                gateway: at.gateway,
                epoch: at.epoch,
                sequence: at.sequence,
                session: row.session,
                charged: row.charged,
                computed: row.computed,
            },
        );
    }
}

/// Puts one chunk back; chunks are given in order to a state that starts empty.
///
/// # Errors
/// [`RecordError`].
pub fn restore(hub: &mut Hub, chunk: &[u8]) -> Result<(), RecordError> {
    let Chunk(version, rows) = read(0, chunk)?;
    if version != SNAPSHOT_VERSION {
        return Err(RecordError::Version { found: version });
    }
    rows.iter().try_for_each(|Row(kind, payload)| match *kind {
        HEAD..=TARIFF_TABLE_ENTRY | SCOPE_REVOKED..=KEYS | POLICY => restore_catalogue(hub, *kind, payload),
        keep::ROW_FIRST..=keep::ROW_LAST => match keep::restore(&mut hub.conflicts, *kind, payload) {
            Ok(true) => Ok(()),
            Ok(false) => Err(RecordError::Kind(*kind)),
            Err(error) => Err(RecordError::Malformed { kind: *kind, error }),
        },
        _ => restore_ledger(hub, *kind, payload),
    })
}

fn restore_catalogue(hub: &mut Hub, kind: u16, payload: &[u8]) -> Result<(), RecordError> {
    match kind {
        HEAD => {
            let row: Head1 = read(kind, payload)?;
            (hub.boot, hub.list_stale, hub.tariffs_stale) = (row.boot, row.list_stale, row.tariffs_stale);
        }
        ACCOUNT => {
            let row: Account1 = read(kind, payload)?;
            hub.accounts.insert(row.account, row.deposit);
        }
        TOKEN => {
            let (token, row) = read::<Token1>(kind, payload)?.into_row();
            hub.tokens.insert(token, row);
        }
        REVOKED => {
            let revoked: proto::artifact::Revoked = read(kind, payload)?;
            hub.revoked.insert(revoked.token, revoked.credential_revision);
            hub.revocation_log.push(LogEntry::Token(revoked));
        }
        SCOPE_REVOKED => {
            let revoked: RevokedScope = read(kind, payload)?;
            let subject = revoked.read().ok_or(RecordError::Kind(kind))?;
            hub.revoked_scopes.insert(subject, revoked.reason);
            hub.revocation_log.push(LogEntry::Scope(revoked));
        }
        LIST_STEP => {
            let ListStep1 { from, touched } = read(kind, payload)?;
            match hub.list_steps.back_mut().filter(|step| step.from == from) {
                Some(step) => step.touched.extend(touched),
                None => hub.list_steps.push_back(ListStep { from, touched }),
            }
        }
        KEYS => hub.keys = Some(read(kind, payload)?),
        REVOCATION_END => {
            let row: RevocationEnd1 = read(kind, payload)?;
            hub.revocation_ends.push((row.revision, row.end as usize));
        }
        TARIFF_KNOWN => {
            let tariff: Tariff = read(kind, payload)?;
            hub.tariffs_known.insert(tariff.hash(), tariff);
        }
        TARIFF => {
            let row: TariffOf = read(kind, payload)?;
            hub.tariffs.insert(row.kind, row.tariff);
        }
        POLICY => hub.policy = Some(read(kind, payload)?),
        LIST_HEAD => {
            let row: PublishedHead1 = read(kind, payload)?;
            hub.list = Some(PublishedList {
                revision: row.revision,
                issued_s: row.issued_s,
                entries: Vec::new(),
            });
        }
        LIST_ENTRY => {
            let entry: ListEntry = read(kind, payload)?;
            hub.list.get_or_insert_default().entries.push(entry);
        }
        TARIFF_TABLE_HEAD => {
            let row: PublishedHead1 = read(kind, payload)?;
            hub.tariff_table = Some(TariffTable {
                revision: row.revision,
                entries: Vec::new(),
            });
        }
        TARIFF_TABLE_ENTRY => {
            let entry: TariffOf = read(kind, payload)?;
            if let Some(table) = &mut hub.tariff_table {
                table.entries.push(entry);
            }
        }
        unknown => return Err(RecordError::Kind(unknown)),
    }
    Ok(())
}

fn restore_ledger(hub: &mut Hub, kind: u16, payload: &[u8]) -> Result<(), RecordError> {
    let key = |gateway, epoch, sequence| RecordKey {
        gateway,
        epoch,
        sequence,
    };
    match kind {
        GATEWAY => {
            let row: Gateway1 = read(kind, payload)?;
            let kept = GatewayRow {
                epoch: row.epoch,
                boot: row.boot,
                upto: row.upto,
                hash: row.hash,
                counter_epoch: row.counter_epoch,
                counter: row.counter,
                booked: row.booked,
                quarantined: row.quarantined,
                disputed: row.disputed,
                aside: row.aside,
            };
            hub.gateways.insert(row.gateway, kept);
        }
        BALANCE => restore_balance(hub, &read(kind, payload)?)?,
        lease::FIRST..=lease::LAST => lease::restore(hub, kind, payload)?,
        dispatch::FIRST..=dispatch::LAST => dispatch::restore(hub, kind, payload)?,
        SESSION => restore_session(hub, &read(kind, payload)?)?,
        QUARANTINE_PART => {
            let row: QuarantinePart1 = read(kind, payload)?;
            let kept = hub.quarantine.entry(key(row.gateway, row.epoch, row.sequence));
            kept.or_default().bytes.extend_from_slice(&row.bytes);
        }
        QUARANTINE_REASON => {
            let row: QuarantineReason1 = read(kind, payload)?;
            let kept = hub.quarantine.entry(key(row.gateway, row.epoch, row.sequence));
            kept.or_default().reason = row.reason;
        }
        DISPUTE => {
            let row: Dispute1 = read(kind, payload)?;
            let dispute = Dispute {
                session: row.session,
                charged: row.charged,
                computed: row.computed,
            };
            hub.disputes.insert(key(row.gateway, row.epoch, row.sequence), dispute);
        }
        unknown => return Err(RecordError::Kind(unknown)),
    }
    Ok(())
}

fn restore_balance(hub: &mut Hub, row: &Balance1) -> Result<(), RecordError> {
    let (class, number, part) = row.account;
    let account = Account::from_parts(class, number, part).ok_or(RecordError::Kind(BALANCE))?;
    hub.book.restore_balance(
        account,
        Balance {
            debits_pending: row.debits_pending,
            debits_posted: row.debits_posted,
            credits_pending: row.credits_pending,
            credits_posted: row.credits_posted,
        },
    );
    Ok(())
}

fn restore_session(hub: &mut Hub, row: &Session1) -> Result<(), RecordError> {
    let (class, number, part) = row.payer;
    let payer = Account::from_parts(class, number, part).ok_or(RecordError::Kind(SESSION))?;
    let phase = if row.closed {
        hub.sessions_closed.push_back(row.session);
        SessionPhase::Closed
    } else {
        hub.book.restore_hold(row.session, payer, row.hold);
        SessionPhase::Held
    };
    let kept = SessionRow {
        gateway: row.gateway,
        payer,
        hold: row.hold,
        phase,
    };
    hub.sessions.insert(row.session, kept);
    Ok(())
}

fn read<T: for<'a> Deserialize<'a>>(kind: u16, payload: &[u8]) -> Result<T, RecordError> {
    codec::decode(payload).map_err(|error| RecordError::Malformed { kind, error })
}

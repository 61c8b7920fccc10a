//! What operators and the demo read: ledger lines, balances and status, one JSON object each. Names and numbers only;
//! a token appears nowhere.

use std::{collections::BTreeSet, fs, io, path::Path};

use journal::Reader;
use proto::{
    artifact::write_bundle,
    book::{Account, Book, Transfer},
    id::GatewayId,
    link::ArtifactPart,
};
use serde::{Deserialize, Serialize};

use crate::{
    core::{Adjustment, Event, Hub, RecordKey},
    store::{StoreError, for_each_event},
};

/// One line of the book. Gateways export the same lines from their own records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LedgerLine {
    /// Whose record.
    pub gateway: String,
    /// Epoch of the record.
    pub epoch: u32,
    /// Sequence of the record.
    pub sequence: u64,
    /// Session, 32 hexadecimal digits.
    pub session: String,
    /// `pending`, `post`, `void` or `direct`.
    pub phase: String,
    /// Whose money, as `customer:7`, `clearing` or `revenue:charger`.
    pub debit: String,
    /// Who gets it.
    pub credit: String,
    /// Minor units.
    pub amount: i64,
    /// Lines of the hub's own: which conflict they settle. Gateways have no such lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjustment: Option<String>,
    /// Lines of the hub's own: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl LedgerLine {
    /// A transfer of a record.
    #[must_use]
    pub fn new(at: &RecordKey, transfer: &Transfer) -> Self {
        Self {
            gateway: at.gateway.to_string(),
            epoch: at.epoch,
            sequence: at.sequence,
            session: transfer.session.to_string(),
            phase: transfer.phase.word().to_owned(),
            debit: transfer.debit.to_string(),
            credit: transfer.credit.to_string(),
            amount: transfer.amount.0,
            adjustment: None,
            reason: None,
        }
    }

    /// A transfer of an entry of the hub's own.
    #[must_use]
    pub fn of_hub(adjustment: &Adjustment, transfer: &Transfer) -> Self {
        Self {
            gateway: HUB.to_owned(),
            epoch: 0,
            sequence: transfer.sequence,
            session: transfer.session.to_string(),
            phase: transfer.phase.word().to_owned(),
            debit: transfer.debit.to_string(),
            credit: transfer.credit.to_string(),
            amount: transfer.amount.0,
            adjustment: Some(adjustment.class.word().to_owned()),
            reason: Some(adjustment.reason.clone()),
        }
    }
}

/// In place of a gateway's name on lines of the hub's own. No gateway has it: names have no colon.
pub const HUB: &str = ":hub";

/// Calls `visit` with every line of the ledger, of one gateway or of all, in the order of commitment.
///
/// # Errors
/// [`StoreError`] if the store cannot be read.
pub fn for_each_line(
    reader: &Reader,
    gateway: Option<&GatewayId>,
    mut visit: impl FnMut(LedgerLine),
) -> Result<(), StoreError> {
    let mut book = Book::default();
    for_each_event(reader, 1, |event| {
        if let Event::Adjusted(adjustment) = event {
            for line in adjustment.transfers() {
                book.transfer(&line)
                    .expect("an entry is made for this very book before it is stored");
                if gateway.is_none() {
                    visit(LedgerLine::of_hub(adjustment, &line));
                }
            }
        }
        if let Event::Booked { at, record, .. } = event {
            let lines = book
                .book(record)
                .expect("a record is judged by the same book before it is stored");
            if gateway.is_none_or(|gateway| *gateway == at.gateway) {
                lines.iter().for_each(|line| visit(LedgerLine::new(at, line)));
            }
        }
    })
}

/// What was written to a file of artifacts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactsRow {
    /// Artifacts in it.
    pub artifacts: usize,
    /// Bytes of it.
    pub bytes: usize,
}

/// Writes artifacts to a file, for `holdfast trust import`. The file appears whole or not at all.
///
/// # Errors
/// As the system says.
pub fn write_artifacts(file: &Path, parts: &[ArtifactPart]) -> io::Result<ArtifactsRow> {
    let bytes = write_bundle(parts);
    let new = file.with_extension("new");
    fs::write(&new, &bytes)?;
    fs::rename(&new, file)?;
    Ok(ArtifactsRow {
        artifacts: parts.iter().filter(|part| part.part == 0).count(),
        bytes: bytes.len(),
    })
}

/// The sums of one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceRow {
    /// `customer:7`, `clearing` or `revenue:charger`.
    pub account: String,
    /// Customers: all that was paid in; minor units.
    pub deposit: i64,
    /// Set aside to leave.
    pub debits_pending: i64,
    /// Left.
    pub debits_posted: i64,
    /// Set aside to come.
    pub credits_pending: i64,
    /// Came.
    pub credits_posted: i64,
    /// Customers: what is left; others: 0.
    pub available: i64,
    /// Customers: what is owed; the next deposit repays it first. Others: 0.
    #[serde(default)]
    pub arrears: i64,
}

/// Every account, those without a record included.
#[must_use]
pub fn balances(hub: &Hub) -> Vec<BalanceRow> {
    let mut accounts: BTreeSet<Account> = hub.book().balances().map(|(account, _)| *account).collect();
    accounts.extend(hub.accounts().map(|(account, _)| Account::Customer(account)));
    accounts.iter().map(|account| balance_row(hub, account)).collect()
}

fn balance_row(hub: &Hub, account: &Account) -> BalanceRow {
    let sums = hub.book().balance(account);
    let (deposit, available, arrears) = match *account {
        Account::Customer(id) => (hub.deposit(id).0, hub.available(id).0, hub.arrears(id).0),
        Account::Clearing
        | Account::Revenue(_)
        | Account::Lease(..)
        | Account::Prepaid
        | Account::Loss(_)
        | Account::Dispute => (0, 0, 0),
    };
    BalanceRow {
        account: account.to_string(),
        deposit,
        debits_pending: sums.debits_pending.0,
        debits_posted: sums.debits_posted.0,
        credits_pending: sums.credits_pending.0,
        credits_posted: sums.credits_posted.0,
        available,
        arrears,
    }
}

/// A hold that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRow {
    /// Session, 32 hexadecimal digits.
    pub session: String,
    /// Whose money: an account of the book.
    pub payer: String,
    /// Minor units.
    pub amount: i64,
}

/// Every open hold.
#[must_use]
pub fn holds(hub: &Hub) -> Vec<HoldRow> {
    hub.book()
        .holds()
        .map(|(session, payer, amount)| HoldRow {
            session: session.to_string(),
            payer: payer.to_string(),
            amount: amount.0,
        })
        .collect()
}

/// A record that was kept, but not booked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRow {
    /// Whose record.
    pub gateway: String,
    /// Epoch of the record.
    pub epoch: u32,
    /// Sequence of the record.
    pub sequence: u64,
    /// Why.
    pub reason: String,
    /// The record as received, in hexadecimal.
    pub bytes: String,
}

/// Every quarantined record.
#[must_use]
pub fn quarantine(hub: &Hub) -> Vec<QuarantineRow> {
    hub.quarantine()
        .iter()
        .map(|(at, row)| QuarantineRow {
            gateway: at.gateway.to_string(),
            epoch: at.epoch,
            sequence: at.sequence,
            reason: row.reason.clone(),
            bytes: row.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
        .collect()
}

/// Two opinions on a charge, or two claims on a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisputeRow {
    /// Whose record.
    pub gateway: String,
    /// Epoch of the record.
    pub epoch: u32,
    /// Sequence of the record.
    pub sequence: u64,
    /// Session, 32 hexadecimal digits.
    pub session: String,
    /// `amount`: gateway and hub compute differently; the gateway's charge is booked. `claim`: another claim on this
    /// session is booked, this one is kept.
    #[serde(default)]
    pub about: String,
    /// What the gateway charged; minor units.
    pub charged: i64,
    /// What the hub computes; none: it has no tariff with that hash, or it is about a claim.
    pub computed: Option<i64>,
}

/// Every dispute.
#[must_use]
pub fn disputes(hub: &Hub) -> Vec<DisputeRow> {
    let charges = hub.disputes().iter().map(|(at, row)| DisputeRow {
        gateway: at.gateway.to_string(),
        epoch: at.epoch,
        sequence: at.sequence,
        session: row.session.to_string(),
        about: "amount".to_owned(),
        charged: row.charged.0,
        computed: row.computed.map(|money| money.0),
    });
    let asides = hub.conflicts().asides().iter().filter(|(_, aside)| !aside.exists);
    let claims = asides.map(|((session, gateway, epoch), aside)| DisputeRow {
        gateway: gateway.to_string(),
        epoch: *epoch,
        sequence: aside.first.sequence,
        session: session.to_string(),
        about: "claim".to_owned(),
        charged: aside.charged.map_or(0, |money| money.0),
        computed: None,
    });
    charges.chain(claims).collect()
}

/// The whole hub at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Number of this start.
    pub boot: u32,
    /// Where gateways connect, with the real port.
    pub listen: String,
    /// The public key to pin in gateways, 64 hexadecimal digits.
    pub issuer_key: String,
    /// The public key that signs, 64 hexadecimal digits.
    pub signing_key: String,
    /// Number of the set of keys in force; 0: the issuer key signs.
    pub keys_epoch: u64,
    /// Revision of the published list; 0: none.
    pub list_revision: u64,
    /// Revision of the published revocations; 0: none.
    pub revocations_revision: u64,
    /// Revision of the published tariffs; 0: none.
    pub tariffs_revision: u64,
    /// Tokens in the published list.
    pub tokens: u64,
    /// Whether debits equal credits, pending and posted.
    pub balanced: bool,
    /// Every configured gateway.
    pub gateways: Vec<GatewayStatus>,
}

/// One gateway at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Which.
    pub gateway: String,
    /// Whether it is connected and welcome.
    pub connected: bool,
    /// The epoch expected of it.
    pub epoch: u32,
    /// Number of its last known boot.
    pub boot: u32,
    /// Last committed record of the epoch.
    pub upto: u64,
    /// Chain hash at `upto`, 64 hexadecimal digits.
    pub hash: String,
    /// Records booked, in all epochs.
    pub records: u64,
    /// Records quarantined, in all epochs.
    pub quarantined: u64,
    /// Records disputed, in all epochs.
    pub disputes: u64,
    /// Records that came again after they were committed, since the start of this process.
    pub duplicates: u64,
    /// Questions answered, since the start of this process.
    pub answers: u64,
    /// Frames taken, since the start of this process.
    pub frames: u64,
    /// Frames dropped (bad seal, replay, garbage, foreign topic), since the start of this process.
    pub frames_bad: u64,
}

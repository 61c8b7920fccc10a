//! Leases in a snapshot.

use proto::{
    id::{AccountId, GatewayId},
    money::Money,
};
use serde::{Deserialize, Serialize};

use super::{Writer, read};
use crate::{
    core::{Hub, LeaseRow},
    record::RecordError,
};

const LEASE_ONLY: u16 = 18;
const LEASE: u16 = 19;
const LEASE_REVISION: u16 = 20;
const LEASE_LAST: u16 = 21;
/// First kind of row about leases.
pub(super) const FIRST: u16 = LEASE_ONLY;
/// Last one.
pub(super) const LAST: u16 = LEASE_LAST;

#[derive(Serialize, Deserialize)]
struct LeaseOnly1 {
    account: AccountId,
}

#[derive(Serialize, Deserialize)]
struct Lease1 {
    account: AccountId,
    epoch: u64,
    gateway: GatewayId,
    journal_epoch: u32,
    revision: u64,
    amount: Money,
    not_after_s: u64,
    is_taken: bool,
    is_recalled: bool,
    spent: Money,
    held: Money,
    returned: Money,
}

#[derive(Serialize, Deserialize)]
struct LeaseRevision1 {
    gateway: GatewayId,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
struct LeaseLast1 {
    epoch: u64,
}

pub(super) fn write(hub: &Hub, writer: &mut Writer) {
    for &account in &hub.lease_only {
        writer.push(LEASE_ONLY, &LeaseOnly1 { account });
    }
    for (&(account, epoch), row) in &hub.leases {
        writer.push(
            LEASE,
            &Lease1 {
                account,
                epoch,
                gateway: row.gateway,
                journal_epoch: row.journal_epoch,
                revision: row.revision,
                amount: row.amount,
                not_after_s: row.not_after_s,
                is_taken: row.is_taken,
                is_recalled: row.is_recalled,
                spent: row.spent,
                held: row.held,
                returned: row.returned,
            },
        );
    }
    for (&gateway, &revision) in &hub.lease_revisions {
        writer.push(LEASE_REVISION, &LeaseRevision1 { gateway, revision });
    }
    writer.push(LEASE_LAST, &LeaseLast1 { epoch: hub.lease_last });
}

pub(super) fn restore(hub: &mut Hub, kind: u16, payload: &[u8]) -> Result<(), RecordError> {
    match kind {
        LEASE_ONLY => {
            let LeaseOnly1 { account } = read(kind, payload)?;
            hub.lease_only.insert(account);
        }
        LEASE => {
            let row: Lease1 = read(kind, payload)?;
            let kept = LeaseRow {
                gateway: row.gateway,
                journal_epoch: row.journal_epoch,
                revision: row.revision,
                amount: row.amount,
                not_after_s: row.not_after_s,
                is_taken: row.is_taken,
                is_recalled: row.is_recalled,
                spent: row.spent,
                held: row.held,
                returned: row.returned,
            };
            hub.leases.insert((row.account, row.epoch), kept);
        }
        LEASE_REVISION => {
            let row: LeaseRevision1 = read(kind, payload)?;
            hub.lease_revisions.insert(row.gateway, row.revision);
        }
        LEASE_LAST => hub.lease_last = read::<LeaseLast1>(kind, payload)?.epoch,
        unknown => return Err(RecordError::Kind(unknown)),
    }
    Ok(())
}

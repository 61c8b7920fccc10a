//! The payload of each kind of event, and its number.

use proto::{
    artifact::{Lease, PublicKey, Reason, Whitelist},
    id::{AccountId, GatewayId, Hash, Kind, SessionId, TokenHash},
    link::{Order, OrderDone},
    money::Money,
    tariff::Tariff,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::core::TokenRow;

#[derive(Serialize, Deserialize)]
pub(super) struct Booted1 {
    pub(super) boot: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct AccountSet1 {
    pub(super) account: AccountId,
    pub(super) deposit: Money,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Token1 {
    pub(super) token: TokenHash,
    pub(super) account: AccountId,
    pub(super) group: u64,
    pub(super) valid: bool,
    pub(super) whitelist: Whitelist,
    pub(super) credential_revision: u64,
    pub(super) not_after_s: u64,
    pub(super) listed: bool,
}

impl Token1 {
    pub(crate) fn new(token: TokenHash, row: &TokenRow) -> Self {
        Self {
            token,
            account: row.account,
            group: row.group,
            valid: row.valid,
            whitelist: row.whitelist,
            credential_revision: row.credential_revision,
            not_after_s: row.not_after_s,
            listed: row.listed,
        }
    }

    pub(crate) fn into_row(self) -> (TokenHash, TokenRow) {
        let row = TokenRow {
            account: self.account,
            group: self.group,
            valid: self.valid,
            whitelist: self.whitelist,
            credential_revision: self.credential_revision,
            not_after_s: self.not_after_s,
            listed: self.listed,
        };
        (self.token, row)
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Revoked1 {
    pub(super) token: TokenHash,
    pub(super) credential_revision: u64,
    #[serde(default)]
    pub(super) reason: Reason,
}

#[derive(Serialize, Deserialize)]
pub(super) struct KeysPublished1 {
    pub(super) epoch: u64,
    pub(super) keys: Vec<PublicKey>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct TariffSet1 {
    pub(super) kind: Kind,
    pub(super) tariff: Tariff,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Published1 {
    pub(super) revision: u64,
    pub(super) issued_s: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct GatewaySeen1 {
    pub(super) gateway: GatewayId,
    pub(super) epoch: u32,
    pub(super) boot: u32,
    pub(super) counter: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct GatewayFenced1 {
    pub(super) gateway: GatewayId,
    pub(super) epoch_from: u32,
    pub(super) epoch: u32,
    pub(super) counter: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Booked1 {
    pub(super) gateway: GatewayId,
    pub(super) epoch: u32,
    pub(super) sequence: u64,
    pub(super) hash: Hash,
    pub(super) bytes: ByteBuf,
}

#[derive(Serialize, Deserialize)]
pub(super) struct QuarantinePart1 {
    pub(super) gateway: GatewayId,
    pub(super) epoch: u32,
    pub(super) sequence: u64,
    pub(super) offset: u64,
    pub(super) bytes: ByteBuf,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Quarantined1 {
    pub(super) gateway: GatewayId,
    pub(super) epoch: u32,
    pub(super) sequence: u64,
    pub(super) hash: Hash,
    pub(super) reason: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct QuarantineSettled1 {
    pub(super) gateway: GatewayId,
    pub(super) epoch: u32,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) reason: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Disputed1 {
    pub(super) gateway: GatewayId,
    pub(super) epoch: u32,
    pub(super) sequence: u64,
    pub(super) session: SessionId,
    pub(super) charged: Money,
    pub(super) computed: Option<Money>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Dated1 {
    pub(super) wall_s: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Aside1 {
    pub(super) gateway: GatewayId,
    pub(super) epoch: u32,
    pub(super) sequence: u64,
    pub(super) hash: Hash,
    pub(super) bytes: ByteBuf,
    pub(super) exists: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Barred1 {
    pub(super) account: AccountId,
    pub(super) until_s: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct DisputeWithdrawn1 {
    pub(super) gateway: GatewayId,
    pub(super) epoch: u32,
    pub(super) sequence: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct LeaseOnly1 {
    pub(super) account: AccountId,
    pub(super) lease_only: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct LeaseGiven1 {
    pub(super) gateway: GatewayId,
    pub(super) journal_epoch: u32,
    pub(super) revision: u64,
    pub(super) lease: Lease,
}

/// Recalled, or released with revision 0.
#[derive(Serialize, Deserialize)]
pub(super) struct LeaseChanged1 {
    pub(super) account: AccountId,
    pub(super) epoch: u64,
    pub(super) revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Dispatched1 {
    pub(super) gateway: GatewayId,
    /// Without its raw token.
    pub(super) order: Order,
    pub(super) issued_s: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct DispatchOverdue1 {
    pub(super) gateway: GatewayId,
    pub(super) id: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct DispatchAnswered1 {
    pub(super) gateway: GatewayId,
    pub(super) done: OrderDone,
}

pub(super) const BOOTED: u16 = 1;
pub(super) const ACCOUNT_SET: u16 = 2;
pub(super) const TOKEN_SET: u16 = 3;
pub(super) const REVOKED: u16 = 4;
pub(super) const TARIFF_SET: u16 = 5;
pub(super) const LIST_PUBLISHED: u16 = 6;
pub(super) const REVOCATIONS_PUBLISHED: u16 = 7;
pub(super) const TARIFFS_PUBLISHED: u16 = 8;
pub(super) const GATEWAY_SEEN: u16 = 9;
pub(super) const GATEWAY_FENCED: u16 = 10;
pub(super) const BOOKED: u16 = 11;
pub(super) const QUARANTINE_PART: u16 = 12;
pub(super) const QUARANTINED: u16 = 13;
pub(super) const DISPUTED: u16 = 14;
pub(super) const QUARANTINE_SETTLED: u16 = 19;
pub(super) const SCOPE_REVOKED: u16 = 30;
pub(super) const KEYS_PUBLISHED: u16 = 31;
pub(super) const DATED: u16 = 40;
pub(super) const ADJUSTED: u16 = 41;
pub(super) const ASIDE: u16 = 42;
pub(super) const CASE_OPENED: u16 = 43;
pub(super) const BARRED: u16 = 44;
pub(super) const DISPUTE_WITHDRAWN: u16 = 45;
pub(super) const LEASE_ONLY_SET: u16 = 15;
pub(super) const LEASE_GIVEN: u16 = 16;
pub(super) const LEASE_RECALLED: u16 = 17;
pub(super) const LEASE_RELEASED: u16 = 18;
pub(super) const POLICY_PUBLISHED: u16 = 46;
pub(super) const DISPATCHED: u16 = 50;
pub(super) const DISPATCH_OVERDUE: u16 = 51;
pub(super) const DISPATCH_ANSWERED: u16 = 52;

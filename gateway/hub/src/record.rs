//! How events lie in the store: `[version, kind number, payload]` in CBOR, the payload a packed struct per kind.
//!
//! Kind numbers are never reused, structs are only appended to. A record of a newer version or an unknown kind is an
//! error: an older hub must not run on books it cannot read.

mod rows;

use proto::{
    artifact::RevokedScope,
    codec::{self, CodecError},
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

pub(crate) use self::rows::Token1;
use self::rows::*;
use crate::core::{
    Event, RecordKey, Settling,
    conflict::keep::{Adjustment1, Case1},
};

/// Version of the record format.
pub const RECORD_VERSION: u8 = 1;

/// Why a record of the store cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer hub.
    #[error("record version {found}, this hub reads {RECORD_VERSION}")]
    Version {
        /// The version of the record.
        found: u8,
    },
    /// A kind this hub does not know: written by a newer one.
    #[error("record kind {0} is unknown here")]
    Kind(u16),
    /// Not the CBOR it should be.
    #[error("record kind {kind}: {error}")]
    Malformed {
        /// The kind; 0: not even that can be read.
        kind: u16,
        /// What is wrong.
        error: CodecError,
    },
}

#[derive(Serialize, Deserialize)]
struct Frame(u8, u16, ByteBuf);

/// The bytes of an event. One short arm per kind; splitting them would hide that all are there.
#[must_use]
pub fn encode(event: &Event) -> Vec<u8> {
    match event.clone() {
        Event::Booted { boot } => frame(BOOTED, &Booted1 { boot }),
        Event::AccountSet { account, deposit } => frame(ACCOUNT_SET, &AccountSet1 { account, deposit }),
        Event::TokenSet { token, row } => frame(TOKEN_SET, &Token1::new(token, &row)),
        Event::Revoked {
            token,
            credential_revision,
            reason,
        } => frame(
            REVOKED,
            &Revoked1 {
                token,
                credential_revision,
                reason,
            },
        ),
        Event::ScopeRevoked { subject, reason } => frame(SCOPE_REVOKED, &RevokedScope::new(subject, reason)),
        Event::KeysPublished { epoch, keys } => frame(KEYS_PUBLISHED, &KeysPublished1 { epoch, keys }),
        Event::TariffSet { kind, tariff } => frame(TARIFF_SET, &TariffSet1 { kind, tariff }),
        Event::ListPublished { revision, issued_s } => frame(LIST_PUBLISHED, &Published1 { revision, issued_s }),
        Event::RevocationsPublished { revision } => {
            let issued_s = 0;
            frame(REVOCATIONS_PUBLISHED, &Published1 { revision, issued_s })
        }
        Event::TariffsPublished { revision } => {
            let issued_s = 0;
            frame(TARIFFS_PUBLISHED, &Published1 { revision, issued_s })
        }
        Event::PolicyPublished { policy } => frame(POLICY_PUBLISHED, &policy),
        Event::GatewaySeen {
            gateway,
            epoch,
            boot,
            counter,
        } => frame(
            GATEWAY_SEEN,
            &GatewaySeen1 {
                gateway,
                epoch,
                boot,
                counter,
            },
        ),
        Event::GatewayFenced {
            gateway,
            epoch_from,
            epoch,
            counter,
        } => frame(
            GATEWAY_FENCED,
            &GatewayFenced1 {
                gateway,
                epoch_from,
                epoch,
                counter,
            },
        ),
        Event::Booked { at, hash, bytes, .. } => frame(
            BOOKED,
            &Booked1 {
                gateway: at.gateway,
                epoch: at.epoch,
                sequence: at.sequence,
                hash,
                bytes: ByteBuf::from(bytes),
            },
        ),
        Event::QuarantinePart { at, offset, bytes } => frame(
            QUARANTINE_PART,
            &QuarantinePart1 {
                gateway: at.gateway,
                epoch: at.epoch,
                sequence: at.sequence,
                offset,
                bytes: ByteBuf::from(bytes),
            },
        ),
        Event::Quarantined { at, hash, reason } => frame(
            QUARANTINED,
            &Quarantined1 {
                gateway: at.gateway,
                epoch: at.epoch,
                sequence: at.sequence,
                hash,
                reason,
            },
        ),
        Event::QuarantineSettled(settling) => frame(
            QUARANTINE_SETTLED,
            &QuarantineSettled1 {
                gateway: settling.gateway,
                epoch: settling.epoch,
                first: settling.first,
                last: settling.last,
                reason: settling.reason,
            },
        ),
        Event::Disputed {
            at,
            session,
            charged,
            computed,
        } => frame(
            DISPUTED,
            &Disputed1 {
                gateway: at.gateway,
                epoch: at.epoch,
                sequence: at.sequence,
                session,
                charged,
                computed,
            },
        ),
        Event::Dated { wall_s } => frame(DATED, &Dated1 { wall_s }),
        Event::Adjusted(adjustment) => frame(ADJUSTED, &Adjustment1::from(adjustment)),
        Event::Aside {
            at,
            hash,
            bytes,
            exists,
            ..
        } => frame(
            ASIDE,
            &Aside1 {
                gateway: at.gateway,
                epoch: at.epoch,
                sequence: at.sequence,
                hash,
                bytes: ByteBuf::from(bytes),
                exists,
            },
        ),
        Event::CaseOpened(case) => frame(CASE_OPENED, &Case1::from(case)),
        Event::Barred { account, until_s } => frame(BARRED, &Barred1 { account, until_s }),
        Event::Dispatched {
            gateway,
            order,
            issued_s,
        } => frame(
            DISPATCHED,
            &Dispatched1 {
                gateway,
                order: *order,
                issued_s,
            },
        ),
        Event::DispatchOverdue { gateway, id } => frame(DISPATCH_OVERDUE, &DispatchOverdue1 { gateway, id }),
        Event::DispatchAnswered { gateway, done } => frame(DISPATCH_ANSWERED, &DispatchAnswered1 { gateway, done }),
        Event::DisputeWithdrawn { at } => frame(
            DISPUTE_WITHDRAWN,
            &DisputeWithdrawn1 {
                gateway: at.gateway,
                epoch: at.epoch,
                sequence: at.sequence,
            },
        ),
        Event::LeaseOnlySet { account, lease_only } => frame(LEASE_ONLY_SET, &LeaseOnly1 { account, lease_only }),
        Event::LeaseGiven {
            gateway,
            journal_epoch,
            revision,
            lease,
        } => frame(
            LEASE_GIVEN,
            &LeaseGiven1 {
                gateway,
                journal_epoch,
                revision,
                lease,
            },
        ),
        Event::LeaseRecalled {
            account,
            epoch,
            revision,
        } => frame(
            LEASE_RECALLED,
            &LeaseChanged1 {
                account,
                epoch,
                revision,
            },
        ),
        Event::LeaseReleased { account, epoch } => {
            let revision = 0;
            let row = LeaseChanged1 {
                account,
                epoch,
                revision,
            };
            frame(LEASE_RELEASED, &row)
        }
    }
}

fn frame<T: Serialize>(kind: u16, payload: &T) -> Vec<u8> {
    codec::to_vec(&Frame(RECORD_VERSION, kind, ByteBuf::from(codec::to_vec(payload))))
}

/// The event of some bytes.
///
/// # Errors
/// [`RecordError`].
pub fn decode(bytes: &[u8]) -> Result<Event, RecordError> {
    let Frame(version, kind, payload) =
        codec::decode(bytes).map_err(|error| RecordError::Malformed { kind: 0, error })?;
    if version != RECORD_VERSION {
        return Err(RecordError::Version { found: version });
    }
    let key = |gateway, epoch, sequence| RecordKey {
        gateway,
        epoch,
        sequence,
    };
    Ok(match kind {
        BOOTED => {
            let Booted1 { boot } = read(kind, &payload)?;
            Event::Booted { boot }
        }
        ACCOUNT_SET => {
            let AccountSet1 { account, deposit } = read(kind, &payload)?;
            Event::AccountSet { account, deposit }
        }
        TOKEN_SET => {
            let (token, row) = read::<Token1>(kind, &payload)?.into_row();
            Event::TokenSet { token, row }
        }
        REVOKED => {
            let row: Revoked1 = read(kind, &payload)?;
            Event::Revoked {
                token: row.token,
                credential_revision: row.credential_revision,
                reason: row.reason,
            }
        }
        SCOPE_REVOKED => {
            let row: RevokedScope = read(kind, &payload)?;
            let subject = row.read().ok_or(RecordError::Kind(kind))?;
            Event::ScopeRevoked {
                subject,
                reason: row.reason,
            }
        }
        KEYS_PUBLISHED => {
            let KeysPublished1 { epoch, keys } = read(kind, &payload)?;
            Event::KeysPublished { epoch, keys }
        }
        TARIFF_SET => {
            let TariffSet1 { kind, tariff } = read(kind, &payload)?;
            Event::TariffSet { kind, tariff }
        }
        LIST_PUBLISHED => {
            let Published1 { revision, issued_s } = read(kind, &payload)?;
            Event::ListPublished { revision, issued_s }
        }
        REVOCATIONS_PUBLISHED => {
            let Published1 { revision, .. } = read(kind, &payload)?;
            Event::RevocationsPublished { revision }
        }
        TARIFFS_PUBLISHED => {
            let Published1 { revision, .. } = read(kind, &payload)?;
            Event::TariffsPublished { revision }
        }
        POLICY_PUBLISHED => Event::PolicyPublished {
            policy: read(kind, &payload)?,
        },
        GATEWAY_SEEN => {
            let row: GatewaySeen1 = read(kind, &payload)?;
            Event::GatewaySeen {
                gateway: row.gateway,
                epoch: row.epoch,
                boot: row.boot,
                counter: row.counter,
            }
        }
        GATEWAY_FENCED => {
            let row: GatewayFenced1 = read(kind, &payload)?;
            Event::GatewayFenced {
                gateway: row.gateway,
                epoch_from: row.epoch_from,
                epoch: row.epoch,
                counter: row.counter,
            }
        }
        BOOKED => {
            let row: Booked1 = read(kind, &payload)?;
            Event::Booked {
                at: key(row.gateway, row.epoch, row.sequence),
                hash: row.hash,
                record: read(kind, &row.bytes)?,
                bytes: row.bytes.into_vec(),
            }
        }
        QUARANTINE_PART => {
            let row: QuarantinePart1 = read(kind, &payload)?;
            Event::QuarantinePart {
                at: key(row.gateway, row.epoch, row.sequence),
                offset: row.offset,
                bytes: row.bytes.into_vec(),
            }
        }
        QUARANTINED => {
            let row: Quarantined1 = read(kind, &payload)?;
            Event::Quarantined {
                at: key(row.gateway, row.epoch, row.sequence),
                hash: row.hash,
                reason: row.reason,
            }
        }
        QUARANTINE_SETTLED => {
            let row: QuarantineSettled1 = read(kind, &payload)?;
            Event::QuarantineSettled(Settling {
                gateway: row.gateway,
                epoch: row.epoch,
                first: row.first,
                last: row.last,
                reason: row.reason,
            })
        }
        DISPUTED => {
            let row: Disputed1 = read(kind, &payload)?;
            Event::Disputed {
                at: key(row.gateway, row.epoch, row.sequence),
                session: row.session,
                charged: row.charged,
                computed: row.computed,
            }
        }
        DATED => {
            let Dated1 { wall_s } = read(kind, &payload)?;
            Event::Dated { wall_s }
        }
        ADJUSTED => Event::Adjusted(read::<Adjustment1>(kind, &payload)?.into()),
        ASIDE => {
            let row: Aside1 = read(kind, &payload)?;
            Event::Aside {
                at: key(row.gateway, row.epoch, row.sequence),
                hash: row.hash,
                record: read(kind, &row.bytes)?,
                bytes: row.bytes.into_vec(),
                exists: row.exists,
            }
        }
        CASE_OPENED => Event::CaseOpened(read::<Case1>(kind, &payload)?.into()),
        BARRED => {
            let Barred1 { account, until_s } = read(kind, &payload)?;
            Event::Barred { account, until_s }
        }
        DISPUTE_WITHDRAWN => {
            let row: DisputeWithdrawn1 = read(kind, &payload)?;
            Event::DisputeWithdrawn {
                at: key(row.gateway, row.epoch, row.sequence),
            }
        }
        DISPATCHED => {
            let row: Dispatched1 = read(kind, &payload)?;
            Event::Dispatched {
                gateway: row.gateway,
                order: Box::new(row.order),
                issued_s: row.issued_s,
            }
        }
        DISPATCH_OVERDUE => {
            let DispatchOverdue1 { gateway, id } = read(kind, &payload)?;
            Event::DispatchOverdue { gateway, id }
        }
        DISPATCH_ANSWERED => {
            let DispatchAnswered1 { gateway, done } = read(kind, &payload)?;
            Event::DispatchAnswered { gateway, done }
        }
        LEASE_ONLY_SET => {
            let LeaseOnly1 { account, lease_only } = read(kind, &payload)?;
            Event::LeaseOnlySet { account, lease_only }
        }
        LEASE_GIVEN => {
            let row: LeaseGiven1 = read(kind, &payload)?;
            Event::LeaseGiven {
                gateway: row.gateway,
                journal_epoch: row.journal_epoch,
                revision: row.revision,
                lease: row.lease,
            }
        }
        LEASE_RECALLED => {
            let row: LeaseChanged1 = read(kind, &payload)?;
            Event::LeaseRecalled {
                account: row.account,
                epoch: row.epoch,
                revision: row.revision,
            }
        }
        LEASE_RELEASED => {
            let LeaseChanged1 { account, epoch, .. } = read(kind, &payload)?;
            Event::LeaseReleased { account, epoch }
        }
        unknown => return Err(RecordError::Kind(unknown)),
    })
}

fn read<T: for<'a> Deserialize<'a>>(kind: u16, payload: &[u8]) -> Result<T, RecordError> {
    codec::decode(payload).map_err(|error| RecordError::Malformed { kind, error })
}

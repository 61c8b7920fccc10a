//! How conflicts lie in the store: rows of snapshots and payloads of events.

use proto::{
    artifact::{Reason, RevokedScope},
    book::{Account, Phase},
    codec::{self, CodecError},
    id::{AccountId, GatewayId, Hash, Kind, SessionId, TokenHash},
    money::Money,
};
use serde::{Deserialize, Serialize};

use super::{
    About, Act, Adjustment, AdjustmentLine, Aside, Case, Class, Conflicts, Correction, Facts, RecordKey,
    revoked::{RevokedFact, Since},
};

/// An account as its three numbers.
pub(crate) mod account_parts {
    use proto::book::Account;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(account: &Account, to: S) -> Result<S::Ok, S::Error> {
        account.parts().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Account, D::Error> {
        let (class, number, part) = Deserialize::deserialize(from)?;
        Account::from_parts(class, number, part).ok_or_else(|| D::Error::custom("an account of a newer version"))
    }
}

macro_rules! as_code {
    ($module:ident, $type:ident, $all:expr) => {
        mod $module {
            use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

            use super::$type;

            pub(super) fn serialize<S: Serializer>(value: &$type, to: S) -> Result<S::Ok, S::Error> {
                (*value as u8).serialize(to)
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                let code = u8::deserialize(from)?;
                let found = $all.into_iter().find(|value| *value as u8 == code);
                found.ok_or_else(|| D::Error::custom("a number of a newer version"))
            }
        }
    };
}
as_code!(class_code, Class, Class::ALL);
as_code!(act_code, Act, Act::ALL);
as_code!(
    phase_code,
    Phase,
    [Phase::Pending, Phase::Post, Phase::Void, Phase::Direct]
);

#[derive(Serialize, Deserialize)]
struct Line1 {
    #[serde(with = "phase_code")]
    phase: Phase,
    #[serde(with = "account_parts")]
    debit: Account,
    #[serde(with = "account_parts")]
    credit: Account,
    amount: Money,
}

/// [`Adjustment`] as an event's payload.
#[derive(Serialize, Deserialize)]
pub(crate) struct Adjustment1 {
    number: u64,
    #[serde(with = "class_code")]
    class: Class,
    #[serde(with = "act_code")]
    act: Act,
    session: SessionId,
    account: AccountId,
    #[serde(with = "account_parts")]
    debit: Account,
    #[serde(with = "account_parts")]
    credit: Account,
    total: Money,
    lines: Vec<Line1>,
    reason: String,
    wall_s: u64,
}

impl From<Adjustment> for Adjustment1 {
    fn from(entry: Adjustment) -> Self {
        let lines = entry.lines.iter().map(|line| Line1 {
            phase: line.phase,
            debit: line.debit,
            credit: line.credit,
            amount: line.amount,
        });
        Self {
            number: entry.number,
            class: entry.class,
            act: entry.act,
            session: entry.about.session,
            account: entry.about.account,
            debit: entry.debit,
            credit: entry.credit,
            total: entry.total,
            lines: lines.collect(),
            reason: entry.reason,
            wall_s: entry.wall_s,
        }
    }
}

impl From<Adjustment1> for Adjustment {
    fn from(row: Adjustment1) -> Self {
        let lines = row.lines.iter().map(|line| AdjustmentLine {
            phase: line.phase,
            debit: line.debit,
            credit: line.credit,
            amount: line.amount,
        });
        Self {
            number: row.number,
            class: row.class,
            act: row.act,
            about: About {
                session: row.session,
                account: row.account,
            },
            debit: row.debit,
            credit: row.credit,
            total: row.total,
            lines: lines.collect(),
            reason: row.reason,
            wall_s: row.wall_s,
        }
    }
}

/// [`Case`] as an event's payload and a row.
#[derive(Serialize, Deserialize)]
pub(crate) struct Case1 {
    #[serde(with = "class_code")]
    class: Class,
    session: SessionId,
    account: AccountId,
    what: String,
}

impl From<Case> for Case1 {
    fn from(case: Case) -> Self {
        Self {
            class: case.class,
            session: case.about.session,
            account: case.about.account,
            what: case.what,
        }
    }
}

impl From<Case1> for Case {
    fn from(row: Case1) -> Self {
        Self {
            class: row.class,
            about: About {
                session: row.session,
                account: row.account,
            },
            what: row.what,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Head1 {
    wall_s: u64,
    number: u64,
}

#[derive(Serialize, Deserialize)]
struct Facts1 {
    session: SessionId,
    facts: Facts,
}

#[derive(Serialize, Deserialize)]
struct Revoked1 {
    token: TokenHash,
    fact: RevokedFact,
}

/// The reason stands with the revocation itself; here it is not used.
#[derive(Serialize, Deserialize)]
struct ScopeRevoked1 {
    scope: RevokedScope,
    since: Since,
}

#[derive(Serialize, Deserialize)]
struct Price1 {
    kind: Kind,
    from_s: u64,
    hash: Hash,
}

#[derive(Serialize, Deserialize)]
struct Correction1 {
    #[serde(with = "class_code")]
    class: Class,
    session: SessionId,
    account: AccountId,
    #[serde(with = "account_parts")]
    debit: Account,
    #[serde(with = "account_parts")]
    credit: Account,
    amount: Money,
}

#[derive(Serialize, Deserialize)]
struct Aside1 {
    session: SessionId,
    gateway: GatewayId,
    epoch: u32,
    sequence: u64,
    charged: Option<Money>,
    exists: bool,
    first_epoch: u32,
}

#[derive(Serialize, Deserialize)]
struct OfAccount1 {
    account: AccountId,
    value: i64,
}

#[derive(Serialize, Deserialize)]
struct Clock1 {
    gateway: GatewayId,
    boot: u32,
    offset_s: i64,
}

/// First number of rows that belong here.
pub(crate) const ROW_FIRST: u16 = 64;
/// Last one.
pub(crate) const ROW_LAST: u16 = 79;
const HEAD: u16 = 64;
const FACTS: u16 = 65;
const REVOKED: u16 = 66;
const PRICE: u16 = 67;
const CORRECTION: u16 = 68;
const ASIDE: u16 = 69;
const CASE: u16 = 70;
const BARRED: u16 = 71;
const REVOKED_BEFORE: u16 = 72;
const CLOCK: u16 = 73;
const SCOPE_REVOKED: u16 = 74;

/// Calls `push` with every row.
pub(crate) fn write(conflicts: &Conflicts, mut push: impl FnMut(u16, Vec<u8>)) {
    let (wall_s, number) = (conflicts.wall_s, conflicts.number);
    push(HEAD, codec::to_vec(&Head1 { wall_s, number }));
    for (&session, facts) in &conflicts.facts {
        let facts = facts.clone();
        push(FACTS, codec::to_vec(&Facts1 { session, facts }));
    }
    for (&token, facts) in &conflicts.revocations.tokens {
        for &fact in facts {
            push(REVOKED, codec::to_vec(&Revoked1 { token, fact }));
        }
    }
    for (&subject, &since) in &conflicts.revocations.scopes {
        let scope = RevokedScope::new(subject, Reason::Other);
        push(SCOPE_REVOKED, codec::to_vec(&ScopeRevoked1 { scope, since }));
    }
    for (&kind, prices) in &conflicts.prices {
        for &(from_s, hash) in prices {
            push(PRICE, codec::to_vec(&Price1 { kind, from_s, hash }));
        }
    }
    for (&(class, about), correction) in &conflicts.corrections {
        let row = Correction1 {
            class,
            session: about.session,
            account: about.account,
            debit: correction.debit,
            credit: correction.credit,
            amount: correction.amount,
        };
        push(CORRECTION, codec::to_vec(&row));
    }
    for (&(session, gateway, epoch), aside) in &conflicts.asides {
        let row = Aside1 {
            session,
            gateway,
            epoch,
            sequence: aside.first.sequence,
            charged: aside.charged,
            exists: aside.exists,
            first_epoch: aside.first.epoch,
        };
        push(ASIDE, codec::to_vec(&row));
    }
    for case in conflicts.cases.values() {
        push(CASE, codec::to_vec(&Case1::from(case.clone())));
    }
    for (&account, &until_s) in &conflicts.barred {
        let value = until_s as i64;
        push(BARRED, codec::to_vec(&OfAccount1 { account, value }));
    }
    for (&account, &Money(value)) in &conflicts.revoked_before {
        push(REVOKED_BEFORE, codec::to_vec(&OfAccount1 { account, value }));
    }
    for (&gateway, &(boot, offset_s)) in &conflicts.clocks {
        push(
            CLOCK,
            codec::to_vec(&Clock1 {
                gateway,
                boot,
                offset_s,
            }),
        );
    }
}

/// Puts one row back; `false`: a row of a newer version.
///
/// # Errors
/// Not the CBOR it should be.
pub(crate) fn restore(conflicts: &mut Conflicts, kind: u16, payload: &[u8]) -> Result<bool, CodecError> {
    match kind {
        HEAD => {
            let row: Head1 = codec::decode(payload)?;
            (conflicts.wall_s, conflicts.number) = (row.wall_s, row.number);
        }
        FACTS => {
            let row: Facts1 = codec::decode(payload)?;
            conflicts.put(row.session, row.facts);
        }
        REVOKED => {
            let row: Revoked1 = codec::decode(payload)?;
            let facts = conflicts.revocations.tokens.entry(row.token).or_default();
            facts.push(row.fact);
        }
        SCOPE_REVOKED => {
            let row: ScopeRevoked1 = codec::decode(payload)?;
            let Some(subject) = row.scope.read() else {
                return Ok(false);
            };
            conflicts.revocations.scopes.insert(subject, row.since);
        }
        PRICE => {
            let row: Price1 = codec::decode(payload)?;
            conflicts
                .prices
                .entry(row.kind)
                .or_default()
                .push((row.from_s, row.hash));
        }
        CORRECTION => {
            let row: Correction1 = codec::decode(payload)?;
            let about = About {
                session: row.session,
                account: row.account,
            };
            let correction = Correction {
                debit: row.debit,
                credit: row.credit,
                amount: row.amount,
            };
            conflicts.corrections.insert((row.class, about), correction);
        }
        ASIDE => {
            let row: Aside1 = codec::decode(payload)?;
            let first = RecordKey {
                gateway: row.gateway,
                epoch: row.first_epoch,
                sequence: row.sequence,
            };
            let aside = Aside {
                first,
                charged: row.charged,
                exists: row.exists,
            };
            conflicts.asides.insert((row.session, row.gateway, row.epoch), aside);
        }
        CASE => {
            let case = Case::from(codec::decode::<Case1>(payload)?);
            conflicts.cases.insert((case.class, case.about), case);
        }
        BARRED => {
            let row: OfAccount1 = codec::decode(payload)?;
            conflicts.barred.insert(row.account, row.value as u64);
        }
        REVOKED_BEFORE => {
            let row: OfAccount1 = codec::decode(payload)?;
            conflicts.revoked_before.insert(row.account, Money(row.value));
        }
        CLOCK => {
            let row: Clock1 = codec::decode(payload)?;
            conflicts.clocks.insert(row.gateway, (row.boot, row.offset_s));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

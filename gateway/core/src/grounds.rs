//! What a decision rested on, as it stood at that moment. It is written with every grant and refusal before the answer
//! leaves, so that `why` needs nothing but the record: lists, counters and clocks have long changed when somebody asks.

use proto::{
    artifact::Whitelist,
    id::Hash,
    money::{Money, Units},
};
use serde::{Deserialize, Serialize};

use crate::{
    Gateway,
    health::Mode,
    ring::sight::{InRings, Sight},
    risk::Tally,
    session::Request,
    time::Now,
    trust::is_over,
};

/// What the cloud said about one request, and how it was classed (semantics, section 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum CloudWord {
    /// It was not asked.
    #[default]
    NotAsked,
    /// Yes.
    Accept,
    /// No, with a credential revision newer than ours: authority.
    DenyNewer,
    /// No, about a token that we have no reason of our own to trust: followed.
    DenyUnopposed,
    /// No, about a token known good, and nothing newer is shown: evidence about the cloud, not about the token.
    DenyUnbacked,
    /// No, and nothing backs it, of a cloud that answered both its canaries right: followed for this attempt.
    DenyUpheld,
    /// An error, unsigned; its code stands beside it.
    Error,
    /// No answer in time.
    Silence,
    /// Something that this version does not know: no answer.
    Other,
}

impl CloudWord {
    /// Whether it is a negative that was not followed: who believes every word of a cloud would have refused.
    #[must_use]
    pub const fn is_unbacked_no(self) -> bool {
        match self {
            Self::DenyUnbacked | Self::Error | Self::Silence | Self::Other => true,
            Self::NotAsked | Self::Accept | Self::DenyNewer | Self::DenyUnopposed | Self::DenyUpheld => false,
        }
    }

    /// In exports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Accept => "accept",
            Self::DenyNewer => "deny_newer",
            Self::DenyUnopposed => "deny_unopposed",
            Self::DenyUnbacked => "deny_unbacked",
            Self::DenyUpheld => "deny_upheld",
            Self::Error => "error",
            Self::Silence => "silence",
            Self::Other => "other",
        }
    }
}

impl From<CloudWord> for u8 {
    fn from(word: CloudWord) -> Self {
        match word {
            CloudWord::NotAsked => 0,
            CloudWord::Accept => 1,
            CloudWord::DenyNewer => 2,
            CloudWord::DenyUnopposed => 3,
            CloudWord::DenyUnbacked => 4,
            CloudWord::Error => 5,
            CloudWord::Silence => 6,
            CloudWord::Other => 7,
            CloudWord::DenyUpheld => 8,
        }
    }
}

impl From<u8> for CloudWord {
    fn from(code: u8) -> Self {
        match code {
            0 => Self::NotAsked,
            1 => Self::Accept,
            2 => Self::DenyNewer,
            3 => Self::DenyUnopposed,
            4 => Self::DenyUnbacked,
            5 => Self::Error,
            6 => Self::Silence,
            8 => Self::DenyUpheld,
            _ => Self::Other,
        }
    }
}

/// What the list said of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// When to ask.
    pub policy: Whitelist,
    /// Whether it may be used at all.
    pub valid: bool,
    /// Whether the entry is past its end.
    pub is_over: bool,
    /// Revision of the credential.
    pub credential_revision: u64,
    /// Balance when the list was made.
    pub balance: Money,
}

/// The limits that applied, as the operator had set them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caps {
    /// Most money of a session.
    pub money_max: Money,
    /// Most units of a session.
    pub units_max: Units,
    /// Most unsecured sessions of a token in one outage.
    pub outage_count_max: u32,
    /// Most unsecured money of a token in one outage.
    pub outage_money_max: Money,
    /// Most money at risk at this site.
    pub site_budget: Money,
    /// Most requests of a token within a minute.
    pub attempts_a_minute_max: u32,
    /// A list up to this age gives full caps, in s.
    pub list_full_s: u64,
    /// Up to this age half caps, in s.
    pub list_half_s: u64,
    /// How long an accept of the cloud is remembered, in s.
    pub confirmation_s: u64,
    /// Most sessions of a token that begin within an hour.
    #[serde(default)]
    pub starts_an_hour_max: u32,
}

/// What a decision rested on (semantics, section 6). What a grant has besides: its terms, with price slice, hash and
/// hold. The wall time and its quality stand with every record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grounds {
    /// Number of the decision: every grant and every refusal of this journal, from 1, without a gap. 0: none is known.
    pub decision: u64,
    /// Number of the gateway's boot.
    pub boot: u32,
    /// What the cloud said.
    pub cloud: CloudWord,
    /// The code of its error, as in HTTP; 0: none.
    pub code: u16,
    /// How long the device had waited for the verdict, in ms.
    pub waited_ms: u64,
    /// Mode of the authorize capability.
    pub mode: Mode,
    /// What the list said of the token; `None`: nothing.
    pub listed: Option<Listed>,
    /// Revision of the list; 0: none.
    pub list_revision: u64,
    /// Seconds since it was adopted.
    pub list_age_s: u64,
    /// Revision of the revocations; 0: none.
    pub revocations_revision: u64,
    /// Revision of the tariffs; 0: none.
    pub tariffs_revision: u64,
    /// Hash of the price that applied; zero: none.
    pub tariff_hash: Hash,
    /// Seconds since the cloud last accepted the token; `None`: never.
    pub confirmed_age_s: Option<u64>,
    /// The limits.
    pub caps: Caps,
    /// Requests of the token in this minute, before this one.
    pub attempts: u32,
    /// What the token had drawn unsecured in this outage, before this request.
    pub tally: Tally,
    /// What its account had spent and held since the list was made.
    pub spent: Money,
    /// Money at risk at this site, before this request.
    pub exposure: Money,
    /// Chain hash over the ledger records before this decision; zero: there are none.
    pub previous: Hash,
    /// Revision of the signed policy that set the limits; 0: the configuration's apply.
    #[serde(default)]
    pub policy_revision: u64,
    /// Sessions of the token that began within the last hour.
    #[serde(default)]
    pub starts: u32,
    /// Whether the token began one at another device a moment ago, too soon to have walked here.
    #[serde(default)]
    pub is_elsewhere: bool,
}

impl Gateway {
    /// Everything that a decision about this request rests on now.
    pub(crate) fn grounds(
        &self,
        (now, rings): (&Now, InRings),
        request: &Request,
        cloud: CloudWord,
        code: u16,
    ) -> Grounds {
        let sight = self.sight(&request.device, rings);
        let at = self.time.at(now);
        let (token, kind) = (&request.token, request.kind);
        let (list_revision, revocations_revision, tariffs_revision) = sight.revisions();
        let entry = sight.entry(token);
        let account = entry.as_ref().map(|entry| entry.account);
        let confirmed = self.trust.confirmed.get(token);
        let asked = self.sessions.get(&request.session);
        Grounds {
            decision: self.decisions + 1,
            boot: self.time.boot,
            cloud,
            code,
            waited_ms: asked.map_or(0, |session| at.since_ms(session.requested_at)),
            mode: self.health.authorize.mode,
            listed: entry.map(|entry| Listed {
                policy: entry.whitelist,
                valid: entry.valid,
                is_over: is_over(&entry, now.wall()),
                credential_revision: entry.credential_revision,
                balance: entry.balance,
            }),
            list_revision,
            list_age_s: at.since_ms(sight.list.head().arrived) / 1000,
            revocations_revision,
            tariffs_revision,
            tariff_hash: sight.tariff_hash(kind),
            confirmed_age_s: confirmed.map(|known| at.since_ms(known.at) / 1000),
            caps: caps(&sight),
            attempts: self.risk.attempts(token, at),
            tally: self.risk.tally(token, self.class_of(&request.device)),
            spent: account
                .or(confirmed.map(|known| known.account))
                .map_or(Money::ZERO, |account| self.spent_in(&sight, account)),
            exposure: self.risk.exposure(),
            previous: self.outbox.chain(),
            policy_revision: sight.policy_revision,
            starts: self.velocity.starts(token, at),
            is_elsewhere: self.velocity.is_elsewhere(token, &request.device, at, &sight.limits),
        }
    }
}

fn caps(sight: &Sight<'_>) -> Caps {
    let limits = &sight.limits;
    let Some(of_kind) = sight.of_kind() else {
        return Caps::default();
    };
    Caps {
        money_max: of_kind.money_max,
        units_max: of_kind.units_max,
        outage_count_max: of_kind.outage_count_max,
        outage_money_max: of_kind.outage_money_max,
        site_budget: limits.site_budget,
        attempts_a_minute_max: limits.attempts_a_minute_max,
        list_full_s: limits.list_full_s,
        list_half_s: limits.list_half_s,
        confirmation_s: limits.confirmation_s,
        starts_an_hour_max: limits.starts_an_hour_max,
    }
}

//! What an outage did: who was served, what it cost and might have cost, and what any other gateway would have done.
//! A read model over the events of the journal: nothing here decides, and nothing decides on it.
//!
//! An outage lasts from the first change of a capability away from ONLINE and SUSPECT until all are back. A report can
//! also be made of any span of time. [`Reporter`] takes every event in order; [`Report`] is what it makes of them.
//!
//! Two kinds of sums stand side by side. [`Ledger`] adds up the ledger records *written* in the span, and equals the sums
//! of the exported lines. [`Served`] follows the sessions *granted* in the span to their end, whenever that was.

mod gather;
mod text;
mod window;

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

pub use self::gather::Reporter;
use crate::words::Moment;

/// Of what to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// The newest outage, over or not.
    LastOutage,
    /// Everything between two times, in seconds since 1970 UTC.
    Between {
        /// From this time on; `None`: from the oldest record.
        since_s: Option<u64>,
        /// Up to this time; `None`: to the newest record.
        until_s: Option<u64>,
    },
}

/// Why there is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The cloud never failed.
    #[error(
        "no outage in this journal: no capability ever left ONLINE or SUSPECT; for a span of time give --since, --until or both"
    )]
    NoOutage,
    /// No record falls into the span.
    #[error("no record of this journal falls into that span of time")]
    Empty,
}

/// Sessions and their money, in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Sessions.
    pub sessions: u64,
    /// Money.
    pub amount: i64,
}

impl Sum {
    pub(crate) fn add(&mut self, amount: i64) {
        self.sessions += 1;
        self.amount = self.amount.saturating_add(amount);
    }
}

/// A capability changed its mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at: Moment,
    /// Which capability.
    pub capability: String,
    /// From now on.
    pub mode: String,
    /// What was seen since the change before.
    pub because: String,
}

/// Something that an operator should know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// When it came first.
    pub at: Moment,
    /// What.
    pub text: String,
    /// How often.
    pub count: u64,
}

/// Sessions granted in the span, followed to their end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Tokens that were granted something.
    pub users: u64,
    /// All sessions, with their holds.
    pub granted: Sum,
    /// Of these, at the site's risk when granted.
    pub unsecured: Sum,
    /// By kind, with what was charged.
    pub by_kind: BTreeMap<String, Sum>,
    /// By the step of the decision order that granted, with what was charged.
    pub by_rule: BTreeMap<u8, Sum>,
    /// Delivered and charged.
    pub captured: Sum,
    /// Of that, at the site's risk: neither asked for nor accepted later.
    pub captured_unsecured: Sum,
    /// Nothing was delivered; the holds that were released.
    pub voided: Sum,
    /// Open still, with their holds.
    pub open: Sum,
    /// Of these, devices that are silent.
    pub silent: Sum,
    /// Accepted by the cloud after the fact, with their holds.
    pub secured_later: Sum,
    /// Charges without the hub's receipt.
    pub unreceipted: Sum,
    /// Refusals by reason: requests.
    pub refused: BTreeMap<String, u64>,
}

/// Ledger records written in the span, as the export has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Sequence of the first; 0: none.
    pub first: u64,
    /// Sequence of the last; 0: none.
    pub last: u64,
    /// Lines `pending`.
    pub held: Sum,
    /// Lines `post`.
    pub captured: Sum,
    /// Lines `void`.
    pub voided: Sum,
    /// Lines `direct` to the revenue of each kind.
    pub revenue: BTreeMap<String, i64>,
    /// Lines `direct` out of leases.
    pub returned: Sum,
    /// Sequence of the last record with the hub's receipt, now.
    pub receipted: u64,
}

/// Money at risk and lost, as far as the gateway knows, in minor units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Risk {
    /// Most at risk at one time.
    pub exposure_max: i64,
    /// When.
    pub exposure_max_at: Option<Moment>,
    /// What the operator allows.
    pub site_budget: i64,
    /// Charged to tokens that were revoked later: the hub books what is unpaid as loss:revoked.
    pub lost_revoked: Sum,
    /// Emergency credit and free-vend: loss:emergency.
    pub lost_emergency: Sum,
    /// Held for devices that are silent: what they delivered after their last word becomes loss:device_lost.
    pub silent: Sum,
}

/// What another gateway would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Otherwise {
    /// Had it refused everybody whom the cloud did not accept: these would have been turned away, with what they were
    /// charged.
    pub refused_without_cloud: Sum,
    /// Of these, tokens.
    pub refused_users: u64,
    /// Had it believed every answer: sessions that a false answer would have refused, by what was said, with what they
    /// were charged.
    pub believed: BTreeMap<String, Sum>,
    /// Granted without asking, because the cloud had failed before.
    pub not_asked: Sum,
    /// Had it accepted everybody: tokens that were refused as known bad, with the most that one session each would have
    /// cost.
    pub accepted_bad: Sum,
    /// As well, tokens that nobody knows.
    pub accepted_unknown: Sum,
    /// As well, tokens that need the cloud's word.
    pub accepted_never: Sum,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// First sign of life after the last failure.
    pub first_good: Option<Moment>,
    /// Every capability back.
    pub back: Option<Moment>,
    /// Milliseconds from the first sign to the return; `None`: not over, or no clock tells.
    pub cautious_ms: Option<u64>,
    /// Every record of the span has its receipt.
    pub receipted: Option<Moment>,
    /// Milliseconds from the return to the last receipt.
    pub backlog_ms: Option<u64>,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether it is of an outage; otherwise of a span of time.
    pub outage: bool,
    /// When it began.
    pub began: Moment,
    /// When it ended; `None`: it goes on.
    pub ended: Option<Moment>,
    /// How long it lasted, up to now if it goes on, in ms; `None`: no clock tells.
    pub duration_ms: Option<u64>,
    /// Sequences of its first and last record in the journal.
    pub journal: (u64, u64),
    /// Changes of mode, in order; of very many the first ones.
    pub modes: Vec<Change>,
    /// Changes of mode in all.
    pub mode_changes: u64,
    /// Who was served.
    pub served: Served,
    /// Records written.
    pub ledger: Ledger,
    /// Money at risk and lost.
    pub risk: Risk,
    /// What another gateway would have done.
    pub otherwise: Otherwise,
    /// Orders of the operator that came, by what was wanted and what became of it, as `start done`.
    #[serde(default)]
    pub orders: BTreeMap<String, u64>,
    /// What an operator should know of; of very many the first ones.
    pub alarms: Vec<Alarm>,
    /// How it ended.
    pub recovery: Recovery,
}

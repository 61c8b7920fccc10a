//! Why a session was granted or refused, and what became of it: read from the events of the journal, for a person at a
//! support desk. A read model: nothing here decides, and nothing decides on it.
//!
//! [`Search`] takes every event in order and keeps those of one session; [`Why`] is what it makes of them, for machines
//! as it is, for people with `Display`.

mod course;
mod explain;
mod text;
mod walk;

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use proto::{
    id::{DeviceId, OutletId, SessionId},
    link::{OrderOutcome, OrderVerb},
};
use serde::{Deserialize, Serialize};

use self::course::{At, Story};
use crate::{
    event::{Event, Ordered},
    time::Now,
    words::Moment,
};

/// Fewest hexadecimal digits by which a session may be named: fewer fit too many.
pub const PREFIX_DIGITS_MIN: usize = 6;
/// Most sessions named when several fit.
const CANDIDATES_MAX: usize = 8;

/// A request that comes so long after the last moment of a start is not its consequence, in s: the device may have asked
/// several times.
const ORDERED_GRACE_S: u64 = 60;

/// Which session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// The one whose id begins with these digits, or begins and ends so: `9f86d081..0103`.
    Session(String),
    /// The newest one of a device.
    LastOf(DeviceId),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyError {
    /// Not a part of a session id.
    #[error(
        "'{0}' is not a session: give the first 6 or more of its 32 hexadecimal digits, or the first and the last as in 9f86d081..0103"
    )]
    Malformed(String),
    /// No such session.
    #[error("no session {0} in this journal")]
    Unknown(String),
    /// No session of that device.
    #[error("no session of device {0} in this journal")]
    NoSessionOf(DeviceId),
    /// More than one fits.
    #[error(
        "several sessions fit '{part}'; give more digits, also from the end as in 9f86d081..0103. The newest:{newest}"
    )]
    Ambiguous {
        /// What was given.
        part: String,
        /// Some of them, each on a line.
        newest: String,
    },
}

/// The first and last digits of a session id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    first: Vec<u8>,
    last: Vec<u8>,
    /// The longer of the two, as far as it makes whole bytes.
    bytes: Vec<u8>,
}

impl Part {
    fn new(text: &str) -> Option<Self> {
        let digits = |text: &str| -> Option<Vec<u8>> {
            let digit = |c: char| c.to_digit(16).map(|digit| digit as u8);
            text.chars().map(digit).collect()
        };
        let (first, last) = text.split_once("..").unwrap_or((text, ""));
        let (first, last) = (digits(first)?, digits(last)?);
        let (given, all) = (first.len() + last.len(), 2 * SessionId::LEN);
        let pairs = |digits: &[u8]| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        let (from_first, from_last): (Vec<u8>, Vec<u8>) = (pairs(&first), pairs(&last[last.len() % 2..]));
        let is_first = from_first.len() >= from_last.len();
        let bytes = if is_first { from_first } else { from_last };
        let fits = given >= PREFIX_DIGITS_MIN && first.len() <= all && last.len() <= all;
        fits.then_some(Self { first, last, bytes })
    }

    fn fits(&self, id: &SessionId) -> bool {
        let digit = |at: usize| (id.0[at / 2] >> (4 * (1 - at % 2))) & 0x0f;
        let offset = 2 * SessionId::LEN - self.last.len();
        let first = self.first.iter().enumerate().all(|(i, &d)| digit(i) == d);
        first && self.last.iter().enumerate().all(|(i, &d)| digit(offset + i) == d)
    }
}

#[derive(Clone, Debug)]
enum Looking {
    For(Part, String),
    ForLastOf(DeviceId),
}

/// Reads a journal for one session.
#[derive(Clone, Debug)]
pub struct Search {
    looking: Looking,
    boot: u32,
    story: Option<Story>,
    /// The last start that the operator ordered at each outlet.
    starts: BTreeMap<(DeviceId, OutletId), (At, Ordered)>,
    /// Others that fit: where they were first met, and what they are.
    others: BTreeMap<u64, (SessionId, String)>,
    is_ambiguous: bool,
    offset_min: i16,
}

impl Search {
    /// Looks for a session. `offset_min`: of local time from UTC, for people.
    ///
    /// # Errors
    /// [`WhyError::Malformed`].
    pub fn new(wanted: &Wanted, offset_min: i16) -> Result<Self, WhyError> {
        let looking = match wanted {
            Wanted::Session(text) => {
                let text = text.trim();
                let part = Part::new(text).ok_or_else(|| WhyError::Malformed(String::from(text)))?;
                Looking::For(part, String::from(text))
            }
            Wanted::LastOf(device) => Looking::ForLastOf(*device),
        };
        Ok(Self {
            looking,
            boot: 0,
            story: None,
            starts: BTreeMap::new(),
            others: BTreeMap::new(),
            is_ambiguous: false,
            offset_min,
        })
    }

    /// Whether a record may be about the session, by its bytes alone: ids stand in a record as they are. Events that name
    /// no session must be taken whatever this says.
    #[must_use]
    pub fn may_concern(&self, record: &[u8]) -> bool {
        let has = |part: &[u8]| part.is_empty() || record.windows(part.len()).any(|window| window == part);
        match &self.looking {
            Looking::For(part, _) => has(&part.bytes),
            Looking::ForLastOf(device) => {
                let own = self.story.as_ref().is_some_and(|story| has(&story.session().0));
                own || has(device.as_str().as_bytes())
            }
        }
    }

    /// The next event, with its place in the journal and its time.
    pub fn take(&mut self, journal: u64, now: &Now, event: &Event) {
        if let Event::Booted(e) = event {
            self.boot = e.boot;
        }
        if let Event::Ordered(e) = event
            && let (OrderVerb::Start, OrderOutcome::Done, Some(device)) = (e.verb, e.outcome, e.device)
        {
            let (now, boot) = (*now, self.boot);
            let at = At { journal, now, boot };
            self.starts.insert((device, e.outlet), (at, e.clone()));
        }
        let begins = match event {
            Event::Asked(e) => Some((&e.request, 0)),
            Event::Refused(e) => Some((&e.request, e.grounds.boot)),
            Event::Granted(e) => Some((&e.request, e.grounds.boot)),
            Event::Booted(_)
            | Event::Heard(_)
            | Event::Greeted(_)
            | Event::Probed(_)
            | Event::Confirmed(_)
            | Event::Denied(_)
            | Event::Started(_)
            | Event::Metered(_)
            | Event::Closed(_)
            | Event::Silent(_)
            | Event::Reported(_)
            | Event::Commanded(_)
            | Event::CommandAnswered(_)
            | Event::ListStaged(_)
            | Event::ListAdopted(_)
            | Event::RevocationsAdopted(_)
            | Event::TariffsAdopted(_)
            | Event::Quarantined(_)
            | Event::Evidence(_)
            | Event::ModeChanged(_)
            | Event::Receipted(_)
            | Event::InstrumentAccepted(_)
            | Event::GuessFailed(_)
            | Event::Noted(_)
            | Event::LeaseTaken(_)
            | Event::LeaseReturned(_)
            | Event::PolicyAdopted(_)
            | Event::PolicySetAside(_)
            | Event::PolicyRolledBack(_)
            | Event::RingBegan(_)
            | Event::RingSeen(_)
            | Event::RingWidened(_)
            | Event::RingHeld(_)
            | Event::RingEnded(_)
            | Event::LimitsStaged(_)
            | Event::LimitsAdopted(_)
            | Event::DiskChanged(_)
            | Event::AskedAgain(_)
            | Event::Limited(_)
            | Event::ClockChanged(_)
            | Event::Ordered(_)
            | Event::Unreserved(_)
            | Event::LeasesRead(_)
            | Event::TariffsStaged(_)
            | Event::Adopted(_)
            | Event::RolledBack(_)
            | Event::KeysAdopted(_)
            | Event::Contested(_)
            | Event::CanaryRight(_)
            | Event::EchoAsked(_)
            | Event::HelloAsked(_)
            | Event::Rewound(_)
            | Event::Kept(_) => None,
        };
        if let Some((request, boot)) = begins {
            self.boot = self.boot.max(boot);
            self.begin(journal, now, request);
        }
        if let Some(story) = &mut self.story {
            story.take(journal, now, self.boot, event);
        }
    }

    fn begin(&mut self, journal: u64, now: &Now, request: &crate::Request) {
        let id = request.session;
        if self.story.as_ref().is_some_and(|story| story.session() == id) {
            return;
        }
        match &self.looking {
            Looking::ForLastOf(device) => {
                if request.device == *device {
                    self.story = Some(self.new_story(now, request));
                }
            }
            Looking::For(part, _) => {
                if !part.fits(&id) || self.others.values().any(|(other, _)| *other == id) {
                    return;
                }
                self.is_ambiguous |= self.story.is_some();
                let at = Moment::new(now, self.boot, self.offset_min);
                let what = alloc::format!("{id}  {} outlet {}  {}", request.device, request.outlet, at.text);
                self.others.insert(journal, (id, what));
                if self.others.len() > CANDIDATES_MAX {
                    self.others.pop_first();
                }
                self.story = Some(self.new_story(now, request));
            }
        }
    }

    /// A story that begins, if the operator began it, with his order.
    fn new_story(&self, now: &Now, request: &crate::Request) -> Story {
        let mut story = Story::new(request.clone());
        let start = self.starts.get(&(request.device, request.outlet));
        let in_time = |order: &Ordered| {
            let until_s = order.not_after_s.saturating_add(ORDERED_GRACE_S);
            now.wall().is_some_and(|wall_s| wall_s <= until_s)
        };
        if let Some((at, order)) = start.filter(|(_, order)| order.whose == request.token && in_time(order)) {
            story.was_ordered(*at, order.id);
        }
        story
    }

    /// The answer, after the last event.
    ///
    /// # Errors
    /// [`WhyError`] if no session fits, or more than one.
    pub fn finish(self) -> Result<Why, WhyError> {
        match (self.story, self.looking) {
            (None, Looking::For(_, part)) => Err(WhyError::Unknown(part)),
            (None, Looking::ForLastOf(device)) => Err(WhyError::NoSessionOf(device)),
            (Some(_), Looking::For(_, part)) if self.is_ambiguous => {
                let lines = self.others.values().rev().map(|(_, what)| alloc::format!("\n  {what}"));
                Err(WhyError::Ambiguous {
                    part,
                    newest: lines.collect(),
                })
            }
            (Some(story), Looking::For(..) | Looking::ForLastOf(_)) => Ok(story.explain(self.offset_min)),
        }
    }
}

/// One step of the decision order, and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its number in the decision order.
    pub step: u8,
    /// Whether it decided; the last one did.
    pub decided: bool,
    /// What it found.
    pub text: String,
}

/// Who asked for what, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Which device.
    pub device: String,
    /// Which outlet.
    pub outlet: u8,
    /// What it dispenses.
    pub kind: String,
    /// The id token, under the site's keyed hash.
    pub token: String,
    /// The device's own sequence: the counter under the seal.
    pub counter: u64,
    /// Units asked for; 0: no wish.
    pub units_wished: u64,
    /// The register then.
    pub register: u64,
    /// When it came.
    pub at: Moment,
}

/// The decision, with all that stood in its record before the answer left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Number of the decision.
    pub decision: u64,
    /// Yes or no.
    pub granted: bool,
    /// Why not.
    pub reason: Option<String>,
    /// The step of the decision order that decided.
    pub rule: u8,
    /// When.
    pub at: Moment,
    /// How long the device had waited, in ms.
    pub waited_ms: u64,
    /// Mode of the authorize capability.
    pub authorize: String,
    /// What the cloud said, as it was classed.
    pub cloud: String,
    /// The code of its error; 0: none.
    pub cloud_code: u16,
    /// Policy of the token in the list.
    pub policy: Option<String>,
    /// Revision of the token's credential that was relied on, or known; 0: none.
    pub credential_revision: u64,
    /// Revision of the list; 0: none.
    pub list_revision: u64,
    /// Its age, in s.
    pub list_age_s: u64,
    /// Revision of the revocations; 0: none.
    pub revocations_revision: u64,
    /// Revision of the tariffs; 0: none.
    pub tariffs_revision: u64,
    /// Revision of the signed policy that set the limits; 0: the configuration's.
    pub policy_revision: u64,
    /// Hash of the price.
    pub tariff_hash: String,
    /// Epoch of the lease that pays; 0: none.
    pub lease: u64,
    /// Number of the instrument that pays; 0: none.
    pub instrument: u64,
    /// Seconds since the cloud last accepted the token.
    pub confirmed_age_s: Option<u64>,
    /// Sequence of the record in the journal.
    pub journal: u64,
    /// Chain hash over the ledger records before it.
    pub ledger_previous: String,
    /// Chain hash of the journal before the record; empty until the shell fills it in.
    #[serde(default)]
    pub journal_previous: String,
    /// Chain hash of the journal with the record; empty until the shell fills it in.
    #[serde(default)]
    pub journal_hash: String,
}

/// Limits and counters before the decision; amounts in minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most money of a session.
    pub session_money: i64,
    /// Most units of a session.
    pub session_units: u64,
    /// Unsecured sessions of this token in this outage.
    pub outage_count: u32,
    /// Of so many.
    pub outage_count_max: u32,
    /// Unsecured money of this token in this outage.
    pub outage_money: i64,
    /// Of so much.
    pub outage_money_max: i64,
    /// Requests of this token within the minute.
    pub attempts: u32,
    /// Of so many.
    pub attempts_max: u32,
    /// Balance of the account when the list was made; `None`: not listed.
    pub balance: Option<i64>,
    /// What it had spent and held since.
    pub spent: i64,
    /// Money at risk at the site before.
    pub exposure_before: i64,
    /// And with this session.
    pub exposure_after: i64,
    /// Of so much.
    pub site_budget: i64,
}

/// What one price element came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceLine {
    /// What is counted.
    pub dimension: String,
    /// So much of it, in base units.
    pub quantity: u64,
    /// Base units that one price covers.
    pub per: u64,
    /// The price, in thousandths of a minor unit.
    pub price_milli: i64,
    /// `quantity * price_milli / per`, in thousandths of a minor unit, rounded down; the sum is not made of these.
    pub amount_milli: i64,
    /// For people.
    pub text: String,
}

/// The money of a granted session; amounts in minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// Who pays.
    pub payer: String,
    /// Whether it is at the site's risk.
    pub unsecured: bool,
    /// Set aside.
    pub hold: i64,
    /// Most units.
    pub units_max: u64,
    /// The operator's number for the price.
    pub tariff: u32,
    /// Its hash, as the device has it.
    pub tariff_hash: String,
    /// Once per started session.
    pub start_fee: i64,
    /// Least for a started session.
    pub minimum: i64,
    /// Most for a session; 0: no cap.
    pub cap: i64,
    /// Each price and what it came to; the quantities are zero until the session is closed.
    pub lines: Vec<PriceLine>,
    /// What the quantities come to; `None`: not closed, or nothing was delivered.
    pub computed: Option<i64>,
    /// What the display showed.
    pub shown: Option<i64>,
    /// What the customer pays; `None`: not closed.
    pub charged: Option<i64>,
    /// Units billed.
    pub units: u64,
    /// Register at the start.
    pub register_start: u64,
    /// And at the end, or as last seen.
    pub register_end: u64,
}

/// Something that happened to the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// Sequence of the record in the journal.
    pub journal: u64,
    /// When.
    pub at: Moment,
    /// Milliseconds since the request; `None`: in another boot of the gateway.
    pub after_ms: Option<u64>,
    /// What.
    pub text: String,
}

/// A ledger record of the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipted {
    /// Its sequence.
    pub sequence: u64,
    /// What it states.
    pub kind: String,
    /// When the hub's receipt came; `None`: it waits.
    pub receipt: Option<Moment>,
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The session.
    pub session: String,
    /// Where it stands: asking, refused, held, metering, indeterminate, captured, voided or forgotten.
    pub state: String,
    /// In a few sentences.
    pub summary: Vec<String>,
    /// Who asked for what.
    pub request: Request,
    /// The decision; `None`: there is none yet.
    pub decision: Option<Decided>,
    /// How the decision order was walked.
    pub walk: Vec<Step>,
    /// Limits and counters.
    pub limits: Option<Limits>,
    /// The money of a granted session.
    pub money: Option<Money>,
    /// What happened, in order.
    pub course: Vec<Happened>,
    /// Ledger records and receipts.
    pub records: Vec<Receipted>,
}

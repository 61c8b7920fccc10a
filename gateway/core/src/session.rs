//! A session, from the request to the receipt.
//!
//! `Asking -> Open -> Closed` or `Refused`; an open session whose device falls silent is *indeterminate*: its hold
//! stays until the device speaks again, or, after [`INDETERMINATE_MS`], the last evidenced reading is captured.
//! No timeout ever voids.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use proto::{
    id::{AccountId, DeviceId, Hash, Kind, OutletId, SessionId, TokenHash},
    link::Evidence,
    message::{Closing, RefusalReason, STOP_TOKENS_MAX},
    money::{Money, Units},
    tariff::{Bill, Dimension, Tariff, Usage},
};
use serde::{Deserialize, Serialize};

use crate::{
    authorize::Rule,
    claims::{Claims, Interval},
    grounds::CloudWord,
    time::Instant,
};

/// A granted device that has proven nothing this long after its own deadline is silent, in ms: its retries of `stop`
/// take up to this long on a bad link.
pub(crate) const START_GRACE_MS: u64 = 30_000;
/// So many missed meter messages make a device silent.
pub(crate) const METERS_MISSED_MAX: u64 = 3;
/// After this long without a word the last evidenced reading is captured, in ms: 7 days.
pub(crate) const INDETERMINATE_MS: u64 = 7 * 24 * 3600 * 1000;
/// Ended sessions remembered per device, so that a repeated request or stop gets the same answer.
pub(crate) const ENDED_PER_DEVICE_MAX: usize = 32;

/// A request to draw, as the device sent it; the token only as its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Minted by the device.
    pub session: SessionId,
    /// Where.
    pub device: DeviceId,
    /// What it dispenses.
    pub kind: Kind,
    /// Which outlet.
    pub outlet: OutletId,
    /// Who.
    pub token: TokenHash,
    /// Zero: no wish.
    pub units_wished: Units,
    /// Register then.
    pub register: Units,
    /// The counter under the seal of the request: the device's own sequence.
    #[serde(default)]
    pub counter: u64,
}

/// What was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Whose account.
    pub account: AccountId,
    /// Most units.
    pub units_max: Units,
    /// The hold.
    pub money_max: Money,
    /// Longest duration, in s.
    pub duration_max_s: u32,
    /// Start proof due, in s.
    pub start_within_s: u16,
    /// Interval between meter messages, in s.
    pub meter_every_s: u16,
    /// The price.
    pub tariff: Tariff,
    /// Its hash.
    pub tariff_hash: Hash,
    /// Whether the money is at the site's risk.
    pub unsecured: bool,
    /// What the decision relied on.
    #[serde(default)]
    pub evidence: Evidence,
    /// Tokens that may stop the session besides its own.
    #[serde(default)]
    pub stop_tokens: heapless::Vec<TokenHash, STOP_TOKENS_MAX>,
}

/// Where a session stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The request.
    pub request: Request,
    /// When it came.
    pub requested_at: Instant,
    /// The question to the cloud, while it is open.
    pub ask: Option<u64>,
    /// Until when the cloud may answer, or when the device counts as silent.
    pub deadline: Option<Instant>,
    /// Why it was refused.
    pub refused: Option<RefusalReason>,
    /// What was granted.
    pub terms: Option<Terms>,
    /// The rule that decided.
    pub rule: Option<Rule>,
    /// Whether the cloud has accepted it.
    pub online: bool,
    /// Number of the decision.
    pub decision: u64,
    /// Whether delivery is proven.
    pub started: bool,
    /// Register at the start.
    pub register_start: Units,
    /// Last register.
    pub register_last: Units,
    /// Last elapsed time, in s.
    pub elapsed_s: u32,
    /// Last idle time, in s.
    pub idle_s: u32,
    /// Local second of the day at the last checkpoint.
    pub second_of_day: Option<u32>,
    /// Quantities so far.
    pub bill: Bill,
    /// Whether the device is silent.
    pub indeterminate: bool,
    /// How it was closed.
    pub closing: Option<Closing>,
    /// What the customer pays.
    pub amount: Money,
    /// What was billed.
    pub units: Units,
    /// Whether it counts in its token's tally of this outage.
    #[serde(default)]
    pub counted: bool,
    /// Whether the cloud denied it with nothing to back that, and what the canaries say.
    #[serde(default)]
    pub contest: Contest,
    /// What the cloud said then, and the code if it was an error.
    #[serde(default)]
    pub contested: (CloudWord, u16),
    /// Its token lost its validity while it ran.
    #[serde(default)]
    pub invalidation: Option<Invalidation>,
    /// The gateway's clock was set since the last checkpoint.
    #[serde(default)]
    pub is_time_contended: bool,
    /// Sequence of the record that closed it; 0: none.
    #[serde(default)]
    pub closed_by: u64,
}

/// A denial that nothing backs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum Contest {
    /// There was none.
    #[default]
    None,
    /// There was one; the canaries are asked.
    Waiting,
    /// Both canaries were answered right: the denial stands for this attempt.
    Upheld,
    /// They were not: the local verdict stands.
    Overturned,
}

impl From<Contest> for u8 {
    fn from(contest: Contest) -> Self {
        match contest {
            Contest::None => 0,
            Contest::Waiting => 1,
            Contest::Upheld => 2,
            Contest::Overturned => 3,
        }
    }
}

/// A number of a newer version reads as no denial.
impl From<u8> for Contest {
    fn from(code: u8) -> Self {
        match code {
            1 => Self::Waiting,
            2 => Self::Upheld,
            3 => Self::Overturned,
            _ => Self::None,
        }
    }
}

/// How far a session may go whose token is no longer valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalidation {
    /// Most units of the whole session.
    pub units: Units,
    /// Number of the command that last told the device; 0: it was not told yet.
    pub command: u64,
    /// Whether the device did as it was told.
    pub is_heard: bool,
}

impl Session {
    pub(crate) fn new(request: Request, at: Instant) -> Self {
        let register = request.register;
        Self {
            request,
            requested_at: at,
            ask: None,
            deadline: None,
            refused: None,
            terms: None,
            rule: None,
            online: false,
            decision: 0,
            started: false,
            register_start: register,
            register_last: register,
            elapsed_s: 0,
            idle_s: 0,
            second_of_day: None,
            bill: Bill::default(),
            indeterminate: false,
            closing: None,
            amount: Money::ZERO,
            units: Units::ZERO,
            counted: false,
            contest: Contest::None,
            contested: (CloudWord::NotAsked, 0),
            invalidation: None,
            is_time_contended: false,
            closed_by: 0,
        }
    }

    /// What the register advanced since the last reading.
    pub(crate) fn advance_to(&self, register: Units) -> Interval {
        Interval {
            from: self.register_last,
            upto: register.max(self.register_last),
        }
    }

    /// Leaves out what belongs to other bills already: the session counts as begun, and read, so much higher.
    pub(crate) fn pass_over(&mut self, advance: &Interval, claims: Option<&Claims>) {
        let own = claims.map_or(advance.upto.since(advance.from), |claims| claims.free(advance));
        let foreign = advance.upto.since(advance.from).0 - own.0;
        self.register_start.0 += foreign;
        self.register_last.0 += foreign;
    }

    /// Whether money is held.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.terms.is_some() && self.closing.is_none()
    }

    /// Whether the device must be told that the token is no longer valid, and was not.
    pub(crate) fn is_invalid_untold(&self) -> bool {
        self.is_open() && self.invalidation.is_some_and(|invalidation| invalidation.command == 0)
    }

    /// Whether the cloud's answer is awaited.
    #[must_use]
    pub const fn is_asking(&self) -> bool {
        self.ask.is_some()
    }

    /// Whether nothing more can happen to it.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.refused.is_some() || self.closing.is_some()
    }

    /// The bill if the device reports this reading now; the grant's units and time are the most that is ever billed.
    #[must_use]
    pub fn bill_at(&self, terms: &Terms, reading: &Reading) -> Bill {
        let cap = |register: Units| Units(register.since(self.register_start).0.min(terms.units_max.0));
        // Time above the grant is not billed either; it also bounds the number of price changes in one slice.
        let until_s = |elapsed_s: u32| elapsed_s.min(terms.duration_max_s);
        let duration_s = until_s(reading.elapsed_s).saturating_sub(until_s(self.elapsed_s));
        let usage = Usage {
            units: Units(cap(reading.register).0.saturating_sub(cap(self.register_last).0)),
            duration_s,
            idle_s: reading.idle_s.saturating_sub(self.idle_s).min(duration_s),
            power_w: reading.power_w,
            second_of_day: self.second_of_day,
        };
        let mut bill = self.bill;
        bill.add(&terms.tariff, register_dimension(self.request.kind), &usage);
        bill
    }
}

/// A reading of an open session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The register.
    pub register: Units,
    /// Seconds since the start.
    pub elapsed_s: u32,
    /// Of these, without delivery.
    pub idle_s: u32,
    /// Power, in W.
    pub power_w: u32,
}

/// What the register of a kind counts.
#[must_use]
pub(crate) const fn register_dimension(kind: Kind) -> Dimension {
    match kind {
        Kind::Charger => Dimension::Energy,
        Kind::Washer => Dimension::Cycle,
        Kind::Dispenser => Dimension::Volume,
        Kind::Unknown => Dimension::Other,
    }
}

/// All sessions that still matter, with their timers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// Not in the map itself, which moves its entries about: a session is a kilobyte. A snapshot shares them.
    all: BTreeMap<SessionId, Arc<Session>>,
    /// (kind, token) -> open or asking session.
    active: BTreeMap<(TokenHash, Kind), BTreeSet<SessionId>>,
    timers: BTreeSet<(Instant, SessionId)>,
    ended: BTreeMap<DeviceId, VecDeque<SessionId>>,
    asks: BTreeMap<u64, SessionId>,
    /// Open sessions whose device has not been told that their token is no longer valid.
    invalid: BTreeSet<SessionId>,
}

impl Sessions {
    /// A session.
    #[must_use]
    pub fn get(&self, id: &SessionId) -> Option<&Session> {
        self.all.get(id).map(Arc::as_ref)
    }

    /// Every session that is remembered, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.all.values().map(Arc::as_ref)
    }

    /// Every session that is remembered: ended ones in the order in which they ended, then the others.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Arc<Session>> {
        let ended = self.ended.values().flatten().filter_map(|id| self.all.get(id));
        ended.chain(self.all.values().filter(|session| !session.has_ended()))
    }

    /// Sessions whose money is held.
    pub fn open(&self) -> impl Iterator<Item = &Session> {
        self.iter().filter(|session| session.is_open())
    }

    pub(crate) fn by_ask(&self, ask: u64) -> Option<&Session> {
        self.asks.get(&ask).and_then(|id| self.get(id))
    }

    pub(crate) fn active_of(&self, token: &TokenHash, kind: Kind) -> impl Iterator<Item = &Session> {
        self.active
            .get(&(*token, kind))
            .into_iter()
            .flatten()
            .filter_map(|id| self.get(id))
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(crate) fn due(&self, at: Instant) -> impl Iterator<Item = &Session> {
        self.timers
            .iter()
            .take_while(move |(due, _)| *due <= at)
            .filter_map(|(_, id)| self.get(id))
    }

    /// An open session whose device must be told that its token is no longer valid.
    pub(crate) fn invalid(&self) -> Option<&Session> {
        self.invalid.first().and_then(|id| self.get(id))
    }

    /// The clock stepped: nobody knows at which time of the day the present slices began.
    pub(crate) fn forget_seconds(&mut self) {
        for session in self.all.values_mut().filter(|session| session.is_open()) {
            let session = Arc::make_mut(session);
            session.second_of_day = None;
            session.is_time_contended = true;
        }
    }

    /// Changes a session; its places in the indexes follow.
    pub(crate) fn update(&mut self, id: &SessionId, change: impl FnOnce(&mut Session)) {
        if let Some(mut session) = self.take(id) {
            change(Arc::make_mut(&mut session));
            self.put_back(session);
        }
    }

    pub(crate) fn put(&mut self, session: Session) {
        self.take(&session.request.session);
        self.put_back(Arc::new(session));
    }

    /// One that is not there.
    fn put_back(&mut self, session: Arc<Session>) {
        let id = session.request.session;
        if !session.has_ended() {
            self.active
                .entry((session.request.token, session.request.kind))
                .or_default()
                .insert(id);
        }
        if let Some(ask) = session.ask {
            self.asks.insert(ask, id);
        }
        if let Some(at) = session.deadline {
            self.timers.insert((at, id));
        }
        if session.is_invalid_untold() {
            self.invalid.insert(id);
        }
        if session.has_ended() {
            self.remember_ended(&session.request.device, id);
        }
        self.all.insert(id, session);
    }

    fn take(&mut self, id: &SessionId) -> Option<Arc<Session>> {
        let session = self.all.remove(id)?;
        let key = (session.request.token, session.request.kind);
        if let Some(ids) = self.active.get_mut(&key) {
            ids.remove(id);
            if ids.is_empty() {
                self.active.remove(&key);
            }
        }
        if let Some(ask) = session.ask {
            self.asks.remove(&ask);
        }
        if let Some(at) = session.deadline {
            self.timers.remove(&(at, *id));
        }
        self.invalid.remove(id);
        Some(session)
    }

    fn remember_ended(&mut self, device: &DeviceId, id: SessionId) {
        let ended = self.ended.entry(*device).or_default();
        if !ended.contains(&id) {
            ended.push_back(id);
        }
        if ended.len() > ENDED_PER_DEVICE_MAX {
            let oldest = ended.pop_front().expect("the queue is longer than its limit");
            self.all.remove(&oldest);
        }
    }

    /// What was granted in an outage does not count in the next one.
    pub(crate) fn outage_over(&mut self) {
        let counted = self.all.values_mut().filter(|session| session.counted);
        counted.for_each(|session| Arc::make_mut(session).counted = false);
    }

    /// The canaries were heard, or not: whoever waits for them is due now.
    pub(crate) fn conclude_contests(&mut self, at: Instant, verdict: Contest) {
        let waiting = self.asks.values().filter(|id| {
            let session = self.all.get(*id);
            session.is_some_and(|session| session.contest == Contest::Waiting)
        });
        for id in waiting.copied().collect::<alloc::vec::Vec<_>>() {
            self.update(&id, |session| {
                session.contest = verdict;
                session.deadline = Some(at);
            });
        }
    }

    /// Questions to the cloud do not survive a boot: the devices ask again.
    pub(crate) fn forget_asking(&mut self) {
        let asking: alloc::vec::Vec<SessionId> = self.asks.values().copied().collect();
        for id in asking {
            self.take(&id);
        }
    }
}

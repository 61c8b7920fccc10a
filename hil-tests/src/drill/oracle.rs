//! What is true, computed beside the system and never asked of it: who is a good user (semantics, section 9), who is
//! revoked, how much money is at risk, what each session really delivered and may cost.
//!
//! Numbers of the law stand here once more, on purpose: a default that is changed by mistake shall be noticed.

use std::collections::{BTreeMap, btree_map::Entry};

use gateway_core::{Capability, Event, Gateway};
use proto::{
    artifact::Whitelist,
    id::{AccountId, Kind, SessionId, TokenHash},
    message::{Closing, RefusalReason},
};

use super::{
    bridge,
    people::Person,
    scenario::{Scenario, kind_index},
    world::World,
};

/// A signed revocation is honoured so long after it reached the gateway, in ms (issue: within 5 s).
pub(super) const REVOCATION_GRACE_MS: u64 = 5_000;
/// After the cloud is well a gateway still counts for a while: it leaves LOCAL slowly. In ms.
const OUTAGE_TAIL_MS: u64 = 15 * 60_000;
/// Semantics, section 4, in the order of [`Kind::SERVED`]: most money of a session, ...
pub(super) const SESSION_MONEY_MAX: [i64; 3] = [300, 600, 200];
/// ... most sessions of a token in an outage, ...
const OUTAGE_COUNT_MAX: [u32; 3] = [2, 2, 10];
/// ... and most money of a token in an outage.
const OUTAGE_MONEY_MAX: [i64; 3] = [600, 1_200, 1_000];
/// Requests of a token within a minute.
const ATTEMPTS_MAX: usize = 10;
/// Semantics, section 4: a list up to this age gives full caps, in ms.
const LIST_FULL_MS: u64 = 72 * 3_600_000;
/// Prices of the campus in thousandths of a minor unit: a kWh, a cycle, a litre.
pub(super) const PRICES_MILLI: [i64; 3] = [100_000, 400_000, 20_000];
/// What a price covers, in base units.
const PRICED_UNITS: [i64; 3] = [1_000, 1, 1_000];

/// What the law says of a person who presents a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// A good user within every limit, at a sound and free outlet: must be served.
    Good,
    /// Nobody's token.
    Stranger,
    /// Listed as not valid.
    Invalid,
    /// Revoked.
    Revoked,
    /// Policy NEVER: served if the cloud answers.
    Never,
    /// Left the operator.
    Left,
    /// Count, money or funds do not clearly suffice for a full session.
    BeyondLimits,
    /// The site's budget is spent.
    BeyondBudget,
    /// Never served on credit, and has no lease here that covers a full session: the cloud may give one.
    NoLease,
    /// The last list is too old for full caps.
    OldList,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Granted,
    Refused(RefusalReason),
    /// The device could not ask.
    Unavailable,
    /// Nobody answered, and the device gave up.
    NoAnswer,
}

#[derive(Clone, Debug, Default)]
struct Account {
    charged: i64,
    held: i64,
    attempts_ms: Vec<u64>,
    /// Per gateway and kind: sessions and money of this outage.
    outage: BTreeMap<(usize, usize), (u32, i64)>,
}

/// A session with a hold.
#[derive(Clone, Debug)]
struct Money {
    gateway: usize,
    user: Option<usize>,
    kind: usize,
    hold: i64,
    unsecured: bool,
    delivered: u64,
    charged: Option<i64>,
    counted: bool,
}

/// What went wrong with money and energy.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// Sessions whose charge is more than what flowed, or more than the hold.
    pub(super) overcharged: i64,
    /// Sessions whose charge is less than what surely was read.
    pub(super) undercharged: i64,
    /// Outputs that went on, and units that flowed, without a durable hold.
    pub(super) without_hold: i64,
    /// The most by which money at risk was above the budget, in minor units.
    pub(super) over_budget: i64,
}

/// The truth.
pub(super) struct Oracle {
    accounts: Vec<Account>,
    by_hash: BTreeMap<TokenHash, usize>,
    sessions: BTreeMap<SessionId, Money>,
    /// Unsecured charges without a receipt, per gateway: sequence -> amount.
    waiting: Vec<BTreeMap<u64, i64>>,
    exposure: Vec<i64>,
    budget: i64,
    /// When a revocation of a person was handed to a gateway.
    revoked: BTreeMap<(usize, usize), u64>,
    /// Those that the gateway has not adopted yet.
    revocations_open: Vec<(usize, usize, TokenHash)>,
    /// Longest time from the hand-over of a genuine revocation to its durable adoption, in ms.
    pub(super) revocation_ms_max: u64,
    outage_until_ms: Vec<u64>,
    pub(super) faults: Faults,
    pub(super) sessions_closed: u64,
    list_ms: Vec<u64>,
    pub(super) lists_adopted: u64,
}

impl Oracle {
    pub(super) fn new(scenario: &Scenario, persons: &[Person]) -> Self {
        let gateways = scenario.site.regions.len();
        let revoked = persons.iter().enumerate().filter(|(_, person)| person.is_revoked);
        let revoked = revoked.flat_map(|(user, _)| (0..gateways).map(move |gateway| ((gateway, user), 0)));
        Self {
            accounts: vec![Account::default(); persons.len()],
            by_hash: persons.iter().enumerate().map(|(i, person)| (person.hash, i)).collect(),
            sessions: BTreeMap::new(),
            waiting: vec![BTreeMap::new(); gateways],
            exposure: vec![0; gateways],
            budget: bridge::budget_of_gateway(scenario),
            revoked: revoked.collect(),
            revocations_open: Vec::new(),
            revocation_ms_max: 0,
            outage_until_ms: vec![0; gateways],
            faults: Faults::default(),
            sessions_closed: 0,
            list_ms: vec![0; gateways],
            lists_adopted: 0,
        }
    }

    /// Money at risk at all gateways.
    pub(super) fn exposure(&self) -> i64 {
        self.exposure.iter().sum()
    }

    /// A genuine revocation of a person is handed to a gateway.
    pub(super) fn revokes(&mut self, gateway: usize, token: &TokenHash, t_ms: u64) {
        let Some(&user) = self.by_hash.get(token) else { return };
        if let Entry::Vacant(entry) = self.revoked.entry((gateway, user)) {
            entry.insert(t_ms);
            self.revocations_open.push((gateway, user, *token));
        }
    }

    pub(super) fn revoked_since(&self, gateway: usize, user: usize) -> Option<u64> {
        self.revoked.get(&(gateway, user)).copied()
    }

    pub(super) fn look_for_revocations(&mut self, gateway: usize, t_ms: u64, core: &Gateway) {
        let (revoked, longest_ms) = (&self.revoked, &mut self.revocation_ms_max);
        self.revocations_open.retain(|&(of, user, hash)| {
            let adopted = of == gateway && core.trust().is_revoked(&hash);
            if adopted {
                let since_ms = revoked.get(&(of, user)).copied().unwrap_or(t_ms);
                *longest_ms = (*longest_ms).max(t_ms - since_ms);
            }
            !adopted
        });
    }

    /// Genuine revocations that no gateway adopted.
    pub(super) fn revocations_not_adopted(&self) -> usize {
        self.revocations_open.len()
    }

    /// A person got a yes.
    pub(super) fn granted(&mut self, user: Option<usize>, session: Option<SessionId>, gateway: usize, outage: bool) {
        let (Some(user), Some(session)) = (user, session.and_then(|id| self.sessions.get_mut(&id))) else {
            return;
        };
        if outage && !session.counted {
            session.counted = true;
            let tally = self.accounts[user].outage.entry((gateway, session.kind)).or_default();
            *tally = (tally.0 + 1, tally.1 + session.hold);
        }
    }

    pub(super) fn switched_on(&mut self, session: Option<SessionId>) {
        let open = session
            .and_then(|id| self.sessions.get(&id))
            .is_some_and(|s| s.charged.is_none());
        self.faults.without_hold += i64::from(!open);
    }

    pub(super) fn delivered(&mut self, session: Option<SessionId>, units: u64) {
        match session.and_then(|id| self.sessions.get_mut(&id)) {
            Some(session) => session.delivered += units,
            None => self.faults.without_hold += 1,
        }
    }

    /// An event is durable.
    pub(super) fn durable(&mut self, gateway: usize, t_ms: u64, event: &Event) {
        match event {
            Event::Granted(e) => {
                let user = self.by_hash.get(&e.request.token).copied();
                let money = Money {
                    gateway,
                    user,
                    kind: kind_index(e.request.kind),
                    hold: e.terms.money_max.0,
                    unsecured: bridge::is_unsecured(e.rule),
                    delivered: 0,
                    charged: None,
                    counted: false,
                };
                if money.unsecured {
                    self.exposure[gateway] += money.hold;
                    let over = self.exposure[gateway] - self.budget;
                    self.faults.over_budget = self.faults.over_budget.max(over);
                }
                if let Some(user) = user {
                    self.accounts[user].held += money.hold;
                }
                self.sessions.insert(e.request.session, money);
            }
            Event::Confirmed(e) => {
                let session = self.sessions.get_mut(&e.session).filter(|s| s.charged.is_none());
                if let Some(session) = session.filter(|session| session.unsecured) {
                    session.unsecured = false;
                    self.exposure[session.gateway] -= session.hold;
                }
            }
            Event::Closed(e) => self.closed(gateway, &e.session, e.closing, e.amount.0, e.record.sequence),
            Event::Receipted(e) => {
                let waiting = &mut self.waiting[gateway];
                let open = waiting.split_off(&(e.upto + 1));
                let done = std::mem::replace(waiting, open);
                self.exposure[gateway] -= done.values().sum::<i64>();
            }
            Event::ListAdopted(_) => {
                self.list_ms[gateway] = t_ms;
                self.lists_adopted += 1;
            }
            _ => {}
        }
    }

    fn closed(&mut self, gateway: usize, id: &SessionId, closing: Closing, amount: i64, sequence: u64) {
        self.sessions_closed += 1;
        let Some(session) = self.sessions.get_mut(id) else {
            self.faults.without_hold += 1;
            return;
        };
        session.charged = Some(amount);
        let (kind, hold, delivered) = (session.kind, session.hold, session.delivered);
        let flowed = price(kind, delivered);
        if amount > flowed || amount > hold {
            self.faults.overcharged += 1;
        }
        // What flowed between the last reading and the switching off is nobody's.
        let surely = price(kind, delivered.saturating_sub(unread_units(kind))).min(hold);
        if closing == Closing::Captured && amount < surely || closing == Closing::Voided && surely > 0 {
            self.faults.undercharged += 1;
        }
        if session.unsecured {
            self.exposure[gateway] += amount - hold;
            if amount > 0 {
                self.waiting[gateway].insert(sequence, amount);
            }
        }
        let (user, counted) = (session.user, session.counted);
        if let Some(account) = user.and_then(|user| self.accounts.get_mut(user)) {
            account.held -= hold;
            account.charged += amount;
            if counted && let Some(tally) = account.outage.get_mut(&(gateway, kind)) {
                tally.1 -= hold - amount;
            }
        }
    }

    /// By how much accounts that are spent by leases alone are below zero, in minor units.
    pub(super) fn leased_overspend(&self, persons: &[Person]) -> i64 {
        let all = persons
            .iter()
            .zip(&self.accounts)
            .filter(|(person, _)| person.is_leased);
        all.map(|(person, account)| (account.charged - person.deposit).max(0))
            .sum()
    }

    /// The same for everybody else: what conflict 2 has to get back.
    pub(super) fn overdraft(&self, persons: &[Person]) -> i64 {
        let all = persons
            .iter()
            .zip(&self.accounts)
            .filter(|(person, _)| !person.is_leased);
        all.map(|(person, account)| (account.charged - person.deposit).max(0))
            .sum()
    }

    /// All charges by account, of sessions that are closed.
    pub(super) fn charges(&self, persons: &[Person]) -> BTreeMap<AccountId, i64> {
        persons
            .iter()
            .zip(&self.accounts)
            .map(|(person, account)| (person.account, account.charged))
            .collect()
    }

    /// Charges of everybody.
    pub(super) fn charged(&self) -> i64 {
        self.accounts.iter().map(|account| account.charged).sum()
    }
}

/// The price of a quantity, rounded half away from zero.
fn price(kind: usize, units: u64) -> i64 {
    let per_units = PRICED_UNITS[kind] * 1_000;
    (units as i64 * PRICES_MILLI[kind] + per_units / 2) / per_units
}

/// What a device may not have read when it switches off: the readings' interval at the highest rate.
const fn unread_units(kind: usize) -> u64 {
    match kind {
        0 => 3,
        1 => 0,
        _ => 250,
    }
}

impl World<'_> {
    /// Whether the cloud's authorizations are, or just were, out of order for a gateway; an outage that begins starts
    /// new counts.
    pub(super) fn is_outage(&mut self, gateway: usize) -> bool {
        let now_ms = self.t_ms;
        if !self.calm
            && self.t_ms >= self.begin_ms
            && self
                .scenario
                .condition(self.t_ms - self.begin_ms, gateway, Capability::Authorize)
                .is_some()
        {
            let until_ms = &mut self.oracle.outage_until_ms[gateway];
            let begins = *until_ms < now_ms;
            *until_ms = now_ms + OUTAGE_TAIL_MS;
            if begins {
                for account in &mut self.oracle.accounts {
                    account.outage.retain(|(of, _), _| *of != gateway);
                }
            }
        }
        now_ms <= self.oracle.outage_until_ms[gateway]
    }

    /// Section 9: a token valid in the last adopted list, policy other than NEVER, within its limits, at a sound and free
    /// outlet.
    pub(super) fn judge(&mut self, gateway: usize, user: Option<usize>, kind: Kind) -> Judgement {
        let Some(user) = user else { return Judgement::Stranger };
        let is_outage = self.is_outage(gateway);
        let (now_ms, kind) = (self.t_ms, kind_index(kind));
        let person = &self.persons[user];
        let account = &mut self.oracle.accounts[user];
        account.attempts_ms.retain(|at_ms| now_ms - at_ms < 60_000);
        account.attempts_ms.push(now_ms);
        if person.is_revoked || self.oracle.revoked.contains_key(&(gateway, user)) {
            return Judgement::Revoked;
        }
        if !person.is_valid {
            return Judgement::Invalid;
        }
        if person.has_left {
            return Judgement::Left;
        }
        if person.whitelist == Whitelist::Never {
            return Judgement::Never;
        }
        let full = SESSION_MONEY_MAX[kind];
        let account = &self.oracle.accounts[user];
        let (count, money) = match is_outage {
            true => account.outage.get(&(gateway, kind)).copied().unwrap_or_default(),
            false => (0, 0),
        };
        // Holds count twice: a list may have been made while they were open. Twice a session's most: any haircut fits in.
        let funds = person.deposit - account.charged - 2 * account.held;
        let within = count < OUTAGE_COUNT_MAX[kind]
            && money + full <= OUTAGE_MONEY_MAX[kind]
            && funds >= 2 * full
            && account.attempts_ms.len() <= ATTEMPTS_MAX;
        if !within {
            return Judgement::BeyondLimits;
        }
        if person.is_leased && bridge::leased(&self.shells[gateway].core, person.account) < full {
            return Judgement::NoLease;
        }
        if self.oracle.exposure[gateway] + full > self.oracle.budget {
            return Judgement::BeyondBudget;
        }
        if now_ms - self.oracle.list_ms[gateway] > LIST_FULL_MS {
            return Judgement::OldList;
        }
        Judgement::Good
    }
}

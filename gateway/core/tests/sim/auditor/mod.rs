//! What must be true, computed a second time: from the journal's durable events, the messages that left, and the physics.
//! It shares no code with the core: no book, no tally, no tariff engine, no decision order.

mod grounds;
mod money;
mod outside;
mod report;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use gateway_core::{Decision, Event, Input, Mode, Said, Told, Trust, config::Limits};
use proto::{
    artifact::ListEntry,
    id::{DeviceId, Kind, SessionId, TokenHash},
    link::{Mark as Judgement, Verdict},
    message::{Closing, OutletState, RefusalReason, Stop},
    tariff::Tariff,
};

use crate::marks::{Mark, Marks};

/// A hold and what became of it.
#[derive(Clone, Debug)]
struct Hold {
    token: TokenHash,
    kind: Kind,
    device: DeviceId,
    outlet: u8,
    account: u64,
    amount: i64,
    units_max: u64,
    tariff: Tariff,
    unsecured: bool,
    /// In the tally of the present outage.
    counted: bool,
    silent: bool,
    closed: Option<(Closing, i64, u64)>,
}

/// A session that waits for the cloud.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    token: TokenHash,
    kind: Kind,
    place: (DeviceId, u8),
}

pub(crate) struct Auditor {
    limits: Limits,
    holds: BTreeMap<SessionId, Hold>,
    open: BTreeSet<SessionId>,
    waiting: BTreeMap<SessionId, Waiting>,
    refused: BTreeMap<SessionId, RefusalReason>,
    sequence: u64,
    /// Number of the last grant or refusal, and of the boot.
    decisions: u64,
    boot: u32,
    // Trust, as the journal tells it.
    list: BTreeMap<TokenHash, ListEntry>,
    staged: (u64, BTreeMap<TokenHash, ListEntry>),
    /// Commands of the operator that ran.
    orders: BTreeSet<u64>,
    /// Revisions of list and revocations that stand.
    revisions: (u64, u64),
    list_adopted_ms: u64,
    revoked: BTreeMap<TokenHash, u64>,
    denied: BTreeMap<TokenHash, u64>,
    confirmed: BTreeMap<TokenHash, (u64, u64)>,
    tariffs: BTreeMap<Kind, Tariff>,
    reported: BTreeMap<(DeviceId, u8), OutletState>,
    /// Authentic words of the cloud, by session, with the credential revision that was known then.
    answers: BTreeMap<SessionId, Vec<(Verdict, u64, i64, bool)>>,
    mode: Mode,
    mode_before: Mode,
    /// How long the gateway was off, all in all: without a good clock nobody knows it.
    down_ms: u64,
    last_ms: u64,
    /// Good answers since the last failure, and since when; `None` after a boot, when time may have jumped.
    goods: Option<(u32, u64)>,
    /// Highest counter accepted of each device.
    counters: BTreeMap<DeviceId, u64>,
    // Money.
    unsecured_held: i64,
    /// Charges without a receipt: (account, amount, unsecured), by sequence.
    charges: BTreeMap<u64, (u64, i64, bool)>,
    unsecured_charged: i64,
    tallies: BTreeMap<(TokenHash, Kind), (u32, i64)>,
    attempts: BTreeMap<TokenHash, Vec<u64>>,
    spent: BTreeMap<u64, i64>,
    customers: BTreeMap<u64, i64>,
    revenue: BTreeMap<Kind, i64>,
    intervals: BTreeMap<(DeviceId, u8), BTreeMap<u64, u64>>,
    // What devices did.
    delivered: BTreeMap<SessionId, u64>,
    /// Of that, what the device has read off; the rest it cannot know.
    read: BTreeMap<SessionId, u64>,
    /// Sessions that lived through a power cut: what was read but not stored is lost.
    cut: BTreeSet<SessionId>,
    stops: BTreeMap<SessionId, Stop>,
}

impl Auditor {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            holds: BTreeMap::new(),
            open: BTreeSet::new(),
            waiting: BTreeMap::new(),
            refused: BTreeMap::new(),
            sequence: 0,
            decisions: 0,
            boot: 0,
            list: BTreeMap::new(),
            staged: (0, BTreeMap::new()),
            orders: BTreeSet::new(),
            revisions: (0, 0),
            list_adopted_ms: 0,
            revoked: BTreeMap::new(),
            denied: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            tariffs: BTreeMap::new(),
            reported: BTreeMap::new(),
            answers: BTreeMap::new(),
            mode: Mode::Online,
            mode_before: Mode::Online,
            down_ms: 0,
            last_ms: 0,
            goods: None,
            counters: BTreeMap::new(),
            unsecured_held: 0,
            charges: BTreeMap::new(),
            unsecured_charged: 0,
            tallies: BTreeMap::new(),
            attempts: BTreeMap::new(),
            spent: BTreeMap::new(),
            customers: BTreeMap::new(),
            revenue: BTreeMap::new(),
            intervals: BTreeMap::new(),
            delivered: BTreeMap::new(),
            read: BTreeMap::new(),
            cut: BTreeSet::new(),
            stops: BTreeMap::new(),
        }
    }

    /// Money at risk now.
    pub(crate) const fn exposure(&self) -> i64 {
        self.unsecured_held + self.unsecured_charged
    }

    /// The gateway was told something; what the cloud said is kept.
    pub(crate) fn heard(&mut self, input: &Input, decision: &Decision, trust: &Trust) {
        if let Input::Answer(answer) = input
            && decision.ignored.is_none()
        {
            let token = &answer.token;
            let known = self.credential(token);
            assert_eq!(
                trust.credential_revision(token),
                known,
                "the newest credential of {token}"
            );
            let newer = answer.credential_revision > known || !self.is_trusted(token);
            let word = (answer.verdict, answer.credential_revision, answer.money_max.0, newer);
            self.answers.entry(answer.session).or_default().push(word);
        }
        if let Input::Device { said, .. } = input
            && let Said::Authorize { session, .. } = said
            && let Some(hold) = self.holds.get(session)
        {
            // The same request gets the same answer, never another one.
            let again = decision.effects.iter().all(|effect| match effect {
                gateway_core::Effect::Send { message, .. } => match message {
                    Told::Grant(grant) => grant.money_max.0 == hold.amount && grant.units_max.0 == hold.units_max,
                    Told::Receipt(_) => hold.closed.is_some(),
                    Told::Clock(_) | Told::Refusal(_) | Told::Command(_) => false,
                },
                _ => true,
            });
            assert!(again, "a granted request gets another answer: {:?}", decision.effects);
        }
    }

    /// The newest credential that is known of a token.
    fn credential(&self, token: &TokenHash) -> u64 {
        let listed = self.list.get(token).map_or(0, |entry| entry.credential_revision);
        listed.max(self.confirmed.get(token).map_or(0, |known| known.1))
    }

    fn is_revoked(&self, token: &TokenHash) -> bool {
        self.revoked
            .get(token)
            .is_some_and(|upto| self.credential(token) <= *upto)
    }

    fn is_denied(&self, token: &TokenHash) -> bool {
        self.denied
            .get(token)
            .is_some_and(|newer| self.credential(token) < *newer)
    }

    /// Whether we have a reason of our own to trust it.
    fn is_trusted(&self, token: &TokenHash) -> bool {
        let known = match self.list.get(token) {
            Some(entry) => entry.valid,
            None => self.confirmed.contains_key(token),
        };
        known && !self.is_revoked(token) && !self.is_denied(token)
    }

    /// An event is durable.
    pub(crate) fn durable(&mut self, t_ms: u64, event: &Event, marks: &mut Marks) {
        if let Some(record) = event.record() {
            assert_eq!(record.sequence, self.sequence + 1, "records are numbered without a gap");
            self.sequence = record.sequence;
        }
        let last_ms = std::mem::replace(&mut self.last_ms, t_ms);
        match event {
            Event::Booted(e) => {
                self.boot = e.boot;
                self.waiting.clear();
                self.staged = (0, BTreeMap::new());
                self.attempts.clear();
                self.goods = None;
                self.down_ms += t_ms - last_ms;
            }
            Event::Greeted(e) => self.reported.retain(|(device, _), _| *device != e.device),
            Event::Reported(e) => drop(self.reported.insert((e.device, e.outlet), e.state)),
            Event::Asked(e) => {
                let place = (e.request.device, e.request.outlet);
                let (token, kind) = (e.request.token, e.request.kind);
                self.attempt(token, t_ms);
                self.asked(&token);
                self.waiting.insert(e.request.session, Waiting { token, kind, place });
            }
            Event::Refused(e) => self.refused(t_ms, e, marks),
            Event::Granted(e) => self.granted(t_ms, e, marks),
            Event::Confirmed(e) => {
                let known = self.confirmed.get(&e.token).map_or(0, |known| known.1);
                self.confirmed.insert(e.token, (t_ms, known.max(e.credential_revision)));
                if e.session != SessionId::ZERO {
                    marks.hit(Mark::LateAcceptSecured);
                    self.secured(&e.session);
                }
            }
            Event::Denied(e) => {
                marks.hit(Mark::DenialKept);
                let denied = self.denied.entry(e.token).or_default();
                *denied = e.credential_revision.max(*denied);
            }
            Event::Started(e) => self.speaks(&e.session, marks),
            Event::Metered(e) => self.speaks(&e.session, marks),
            Event::Closed(e) => self.closed(e, marks),
            Event::Noted(e) => {
                assert!(e.sequence <= self.sequence, "a remark on a record that is not written");
                assert_eq!(
                    crate::hub::remark(e.sequence),
                    Some(e.mark),
                    "the hub said so of record {}",
                    e.sequence
                );
                if e.mark == Judgement::Adjusted {
                    marks.hit(Mark::RecordAdjusted);
                }
            }
            Event::Commanded(e) => {
                assert!(
                    e.order == 0 || self.orders.insert(e.order),
                    "command {} runs twice",
                    e.order
                );
            }
            Event::Silent(e) => {
                marks.hit(Mark::Silent);
                let hold = self
                    .holds
                    .get_mut(&e.session)
                    .expect("only a granted session can be silent");
                hold.silent = true;
            }
            Event::ListStaged(e) => {
                if self.staged.0 != e.revision {
                    self.staged = (e.revision, BTreeMap::new());
                }
                self.staged
                    .1
                    .extend(e.entries.iter().map(|entry| (entry.token, entry.clone())));
            }
            Event::ListAdopted(e) => {
                self.revisions.0 = e.revision;
                self.list_adopted(t_ms, marks);
            }
            Event::RevocationsAdopted(e) => {
                self.revisions.1 = e.revision;
                marks.hit(Mark::RevocationsAdopted);
                for revoked in &e.entries {
                    if self.open.iter().any(|id| self.holds[id].token == revoked.token) {
                        marks.hit(Mark::RevokedWhileOpen);
                    }
                    let upto = self.revoked.entry(revoked.token).or_default();
                    *upto = revoked.credential_revision.max(*upto);
                }
            }
            Event::TariffAdopted(e) => {
                marks.hit(Mark::TariffsAdopted);
                if self.open.iter().any(|id| self.holds[id].kind == e.entry.kind) {
                    marks.hit(Mark::PriceChangedWhileOpen);
                }
                self.tariffs.insert(e.entry.kind, e.entry.tariff.clone());
            }
            Event::ModeChanged(e) => self.mode_changed(t_ms, e.mode, marks),
            Event::Evidence(e) => {
                self.goods = match (e.good, self.goods) {
                    (false, _) => Some((0, t_ms)),
                    (true, Some((0, _))) => Some((1, t_ms)),
                    (true, goods) => goods.map(|(count, since_ms)| (count + 1, since_ms)),
                };
                match (e.good, e.probe) {
                    (true, true) => marks.hit(Mark::ProbeAccepted),
                    (false, false) => marks.hit(Mark::AskTimedOut),
                    _ => {}
                }
            }
            Event::Heard(e) => {
                let last = self.counters.insert(e.device, e.counter).unwrap_or(0);
                assert!(
                    e.counter > last,
                    "{} is heard with counter {} after {last}",
                    e.device,
                    e.counter
                );
            }
            Event::Receipted(e) => {
                while let Some(charge) = self.charges.first_entry().filter(|charge| *charge.key() <= e.upto) {
                    let (_, amount, unsecured) = charge.remove();
                    self.unsecured_charged -= if unsecured { amount } else { 0 };
                }
            }
            Event::Probed(_)
            | Event::CommandAnswered(_)
            | Event::Quarantined(_)
            | Event::Rewound(_)
            // Leases have an auditor of their own, over two gateways and a hub: the hub's `leases` test.
            | Event::LeaseTaken(_)
            | Event::LeaseReturned(_)
            | Event::LeasesRead(_)
            | Event::Kept(_) => {}
        }
    }

    fn mode_changed(&mut self, t_ms: u64, mode: Mode, marks: &mut Marks) {
        let local = matches!(self.mode, Mode::Local | Mode::Recovering);
        if let Some((count, since_ms)) = self.goods.filter(|_| local && mode == Mode::Online) {
            assert!(
                count >= 3 && t_ms - since_ms >= self.limits.recover_ms,
                "LOCAL was left after {count} good answers in {} ms",
                t_ms - since_ms
            );
        }
        match (self.mode, mode) {
            (Mode::Recovering, Mode::Online) => marks.hit(Mark::LocalLeft),
            (Mode::Recovering, Mode::Local) => marks.hit(Mark::RecoveringFellBack),
            (_, Mode::Local) => marks.hit(Mark::LocalEntered),
            _ => {}
        }
        self.mode_before = std::mem::replace(&mut self.mode, mode);
        if mode == Mode::Online {
            self.tallies.clear();
            self.holds.values_mut().for_each(|hold| hold.counted = false);
        }
    }

    fn list_adopted(&mut self, t_ms: u64, marks: &mut Marks) {
        marks.hit(Mark::ListAdopted);
        let adopted = std::mem::take(&mut self.staged.1);
        assert!(
            adopted.len() * 100 >= self.list.len() * 95,
            "trust shrank from {} to {}",
            self.list.len(),
            adopted.len()
        );
        self.list = adopted;
        self.list_adopted_ms = t_ms;
        let list = &self.list;
        self.denied
            .retain(|token, newer| list.get(token).is_none_or(|entry| entry.credential_revision < *newer));
        // Newer balances: what is open or has no receipt is not in them.
        self.spent.clear();
        let open = self
            .open
            .iter()
            .map(|id| (self.holds[id].account, self.holds[id].amount));
        let charged = self.charges.values().map(|&(account, amount, _)| (account, amount));
        for (account, amount) in open.chain(charged) {
            *self.spent.entry(account).or_default() += amount;
        }
    }

    fn attempt(&mut self, token: TokenHash, t_ms: u64) {
        let attempts = self.attempts.entry(token).or_default();
        attempts.retain(|at_ms| at_ms + 60_000 > t_ms);
        attempts.push(t_ms);
    }

    fn attempts(&self, token: &TokenHash, t_ms: u64) -> usize {
        let attempts = self.attempts.get(token).map_or(&[][..], Vec::as_slice);
        attempts.iter().filter(|at_ms| *at_ms + 60_000 > t_ms).count()
    }

    fn speaks(&mut self, session: &SessionId, marks: &mut Marks) {
        let hold = self
            .holds
            .get_mut(session)
            .expect("only a granted session has readings");
        assert!(hold.closed.is_none(), "a reading for a session that is closed");
        if std::mem::take(&mut hold.silent) {
            marks.hit(Mark::SilentSpokeAgain);
        }
    }
}

//! What must be true, computed a second time: from the journal's durable events, the messages that left, and the physics.
//! It shares no code with the core: no book, no tally, no tariff engine, no decision order.

mod codes;
mod counters;
mod good_user;
mod grounds;
mod instruments;
mod law;
mod modes;
mod money;
mod orders;
mod outside;
mod report;
mod rules;
mod trust;

use std::collections::{BTreeMap, BTreeSet};

use gateway_core::{
    Capability, Config, Decision, Event, Input, Mode, Said, Told, Trust, config::Limits, health::Signal,
};
use proto::{
    artifact::{ListEntry, TariffOf, Whitelist},
    id::{DeviceId, Kind, SessionId, TokenHash},
    link::{Mark as Judgement, Verdict},
    message::{Closing, OutletState, RefusalReason, Stop},
    policy::{Class, Policy},
    tariff::Tariff,
    trust::ArtifactKind,
};

use self::modes::Modes;
use crate::marks::{Mark, Marks};
use law::Law;

pub(crate) use codes::Enrolled;
pub(crate) use instruments::Sold;

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
    /// Number of the instrument that pays; 0: none.
    instrument: u64,
    class: Class,
    /// The operator pays.
    is_gift: bool,
    /// When it was asked for.
    asked_ms: u64,
}

/// A session that waits for the cloud.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    token: TokenHash,
    kind: Kind,
    place: (DeviceId, u8),
    since_ms: u64,
}

pub(crate) struct Auditor {
    /// In force: the configured ones, and above them the policy.
    limits: Limits,
    configured: Limits,
    policy: Option<Policy>,
    classes: BTreeMap<DeviceId, Class>,
    law: Law,
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
    orders: orders::Orders,
    /// Revision of the revocations that stand.
    revocations_revision: u64,
    ring: trust::Ring,
    list_adopted_ms: u64,
    revoked: BTreeMap<TokenHash, u64>,
    denied: BTreeMap<TokenHash, u64>,
    confirmed: BTreeMap<TokenHash, (u64, u64, u64)>,
    tariffs: BTreeMap<Kind, Tariff>,
    tariffs_staged: Vec<TariffOf>,
    reported: BTreeMap<(DeviceId, u8), OutletState>,
    /// Authentic words of the cloud, by session, with the credential revision that was known then.
    answers: BTreeMap<SessionId, Vec<(Verdict, u64, i64, bool)>>,
    /// Of authorize, before and after its last change.
    mode_before: Mode,
    mode_after: Mode,
    pub(crate) modes: Modes,
    /// Tokens that were denied with a newer credential, as the cloud said it.
    backed: BTreeSet<(TokenHash, u64)>,
    /// How long the gateway was off, all in all: without a good clock nobody knows it.
    down_ms: u64,
    last_ms: u64,
    /// Highest counter accepted of each device.
    counters: BTreeMap<DeviceId, u64>,
    // Money.
    unsecured_held: i64,
    /// Charges without a receipt: (account, amount, unsecured), by sequence.
    charges: BTreeMap<u64, (u64, i64, bool)>,
    unsecured_charged: i64,
    tallies: BTreeMap<(TokenHash, Class), (u32, i64)>,
    attempts: BTreeMap<TokenHash, Vec<u64>>,
    spent: BTreeMap<u64, i64>,
    customers: BTreeMap<u64, i64>,
    /// What the operator pays for strangers.
    gifts: i64,
    revenue: BTreeMap<Kind, i64>,
    intervals: BTreeMap<(DeviceId, u8), BTreeMap<u64, u64>>,
    // What devices did.
    delivered: BTreeMap<SessionId, u64>,
    /// Of that, what the device has read off; the rest it cannot know.
    read: BTreeMap<SessionId, u64>,
    /// Sessions that lived through a power cut: what was read but not stored is lost.
    cut: BTreeSet<SessionId>,
    stops: BTreeMap<SessionId, Stop>,
    instruments: instruments::Instruments,
    codes: codes::Codes,
}

impl Auditor {
    pub(crate) fn new(config: &Config) -> Self {
        let classes = config.devices.iter().map(|(id, device)| (*id, device.class()));
        Self {
            limits: config.limits.clone(),
            configured: config.limits.clone(),
            policy: None,
            classes: classes.collect(),
            law: Law::default(),
            gifts: 0,
            holds: BTreeMap::new(),
            open: BTreeSet::new(),
            waiting: BTreeMap::new(),
            refused: BTreeMap::new(),
            sequence: 0,
            decisions: 0,
            boot: 0,
            list: BTreeMap::new(),
            orders: orders::Orders::default(),
            revocations_revision: 0,
            ring: trust::Ring::default(),
            list_adopted_ms: 0,
            revoked: BTreeMap::new(),
            denied: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            tariffs: BTreeMap::new(),
            tariffs_staged: Vec::new(),
            reported: BTreeMap::new(),
            answers: BTreeMap::new(),
            mode_before: Mode::Online,
            mode_after: Mode::Online,
            modes: Modes::new(config.limits.clone()),
            backed: BTreeSet::new(),
            down_ms: 0,
            last_ms: 0,
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
            instruments: instruments::Instruments::default(),
            codes: codes::Codes::default(),
        }
    }

    /// Whose token began a session that was granted.
    pub(crate) fn holder(&self, session: &SessionId) -> Option<TokenHash> {
        self.holds.get(session).map(|hold| hold.token)
    }

    /// Money at risk now.
    pub(crate) const fn exposure(&self) -> i64 {
        self.unsecured_held + self.unsecured_charged
    }

    /// The gateway was told something; what the cloud said is kept.
    /// `settled`: all that the gateway decided is durable, so that the auditor has seen it.
    pub(crate) fn heard(&mut self, input: &Input, decision: &Decision, trust: &Trust, settled: bool) {
        self.heard_code(input);
        if let Input::Answer(answer) = input
            && decision.ignored.is_none()
        {
            let token = &answer.token;
            let known = trust.credential_revision(token);
            if settled {
                assert_eq!(known, self.credential(token), "the newest credential of {token}");
            }
            let newer = answer.credential_revision > known || !self.is_trusted(token);
            let word = (answer.verdict, answer.credential_revision, answer.money_max.0, newer);
            self.answers.entry(answer.session).or_default().push(word);
            if answer.verdict == Verdict::Deny {
                self.backed.insert((answer.token, answer.credential_revision));
            }
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
                    Told::Clock(_) => true, // The gateway's clock was set: no answer to anybody.
                    Told::Refusal(_) | Told::Command(_) => false,
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
        let listed = self.list.get(token).map(|entry| entry.account);
        let account = listed.or_else(|| self.confirmed.get(token).map(|known| known.2));
        let upto = self.revoked.get(token);
        upto.is_some_and(|upto| self.credential(token) <= *upto)
            || account.is_some_and(|account| self.is_account_revoked(account))
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
        self.remember(event);
        match event {
            Event::Booted(e) => {
                self.boot = e.boot;
                self.waiting.clear();
                self.forget_staged();
                self.attempts.clear();
                self.down_ms += t_ms - last_ms;
                self.law.booted(t_ms);
            }
            Event::Greeted(e) => self.reported.retain(|(device, _), _| *device != e.device),
            Event::Reported(e) => drop(self.reported.insert((e.device, e.outlet), e.state)),
            Event::Asked(e) => {
                let place = (e.request.device, e.request.outlet);
                let (token, kind) = (e.request.token, e.request.kind);
                self.attempt(token, t_ms);
                let waiting = Waiting {
                    token,
                    kind,
                    place,
                    since_ms: t_ms,
                };
                self.asked(&token);
                self.waiting.insert(e.request.session, waiting);
            }
            Event::Refused(e) => self.refused(t_ms, e, marks),
            Event::Granted(e) => {
                self.served_at(e, marks);
                self.granted(t_ms, e, marks);
            }
            Event::Confirmed(e) => {
                let known = self.confirmed.get(&e.token).map_or(0, |known| known.1);
                self.confirmed
                    .insert(e.token, (t_ms, known.max(e.credential_revision), e.account));
                if e.session != SessionId::ZERO {
                    marks.hit(Mark::LateAcceptSecured);
                    self.secured(&e.session);
                }
            }
            Event::Denied(e) => {
                marks.hit(Mark::DenialKept);
                let backed = self.backed.contains(&(e.token, e.credential_revision));
                assert!(backed, "trust shrinks without a word of the operator's: {e:?}");
                let denied = self.denied.entry(e.token).or_default();
                *denied = e.credential_revision.max(*denied);
                self.must_end(t_ms);
            }
            Event::Started(e) => self.speaks(&e.session, marks),
            Event::Metered(e) => self.speaks(&e.session, marks),
            Event::Closed(e) => {
                self.closed(e, marks);
                let hold = &self.holds[&e.session];
                // Nobody uses it any more, whatever the device last said.
                if let Some(state) = self.reported.get_mut(&(hold.device, hold.outlet))
                    && matches!(state, OutletState::Busy | OutletState::Preparing)
                {
                    *state = OutletState::Free;
                }
            }
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
            Event::Commanded(e) => self.commanded(e),
            Event::Ordered(e) => self.ordered(e, marks),
            Event::Unreserved(e) => self.unreserved(e, marks),
            Event::Silent(e) => {
                marks.hit(Mark::Silent);
                let hold = self
                    .holds
                    .get_mut(&e.session)
                    .expect("only a granted session can be silent");
                hold.silent = true;
            }
            Event::ListStaged(e) => self.list_staged(e),
            Event::ListAdopted(e) => self.list_adopted(t_ms, e, marks),
            Event::Quarantined(e) => self.quarantined(t_ms, e, marks),
            Event::Adopted(e) => {
                self.adopted(e, marks);
                if e.kind == ArtifactKind::Tariffs {
                    let entries = std::mem::take(&mut self.tariffs_staged);
                    self.priced(&entries, marks);
                }
            }
            Event::RolledBack(e) => self.rolled_back(e, marks),
            Event::KeysAdopted(e) => self.keys_adopted(e, marks),
            Event::RevocationsAdopted(e) => {
                self.revocations_revision = e.revision;
                self.revocations_adopted(e, marks);
                self.must_end(t_ms);
            }
            Event::TariffsAdopted(e) => self.priced(&e.entries, marks),
            Event::TariffsStaged(e) => self.tariffs_staged.clone_from(&e.entries),
            Event::ModeChanged(e) => {
                if e.capability == Capability::Authorize {
                    self.mode_before = std::mem::replace(&mut self.mode_after, e.mode);
                }
                if (e.capability, e.mode) == (Capability::Authorize, Mode::Online) {
                    self.tallies.clear();
                    self.holds.values_mut().for_each(|hold| hold.counted = false);
                }
            }
            Event::Evidence(e) => {
                let denied = matches!(e.signal, Signal::Denied | Signal::DeniedIdle);
                let vouched = self.list.contains_key(&e.token) && self.is_trusted(&e.token);
                assert!(
                    !denied || vouched,
                    "a denial of somebody for whom no signature speaks is held against the cloud: {e:?}"
                );
                if denied && self.is_vouched(&e.token) {
                    marks.hit(Mark::GoodUserDenied);
                }
            }
            Event::Heard(_) => {}
            Event::Receipted(e) => {
                while let Some(charge) = self.charges.first_entry().filter(|charge| *charge.key() <= e.upto) {
                    let (_, amount, unsecured) = charge.remove();
                    self.unsecured_charged -= if unsecured { amount } else { 0 };
                }
            }
            Event::InstrumentAccepted(e) => self.accepted(e, marks),
            Event::GuessFailed(e) => self.guess_failed(e),
            Event::PolicyAdopted(e) => self.policy_adopted(&e.policy, marks),
            Event::PolicySetAside(_) => {}
            Event::PolicyRolledBack(_) => unreachable!("nobody goes back here"),
            // Rings have a walk and an auditor of their own (`tables/rings.rs`): here the site adopts at once.
            Event::RingBegan(_)
            | Event::RingSeen(_)
            | Event::RingWidened(_)
            | Event::RingHeld(_)
            | Event::RingEnded(_)
            | Event::LimitsStaged(_)
            | Event::LimitsAdopted(_) => unreachable!("rings are off here"),
            Event::DiskChanged(e) => {
                marks.hit(Mark::DiskScarce);
                self.law.is_disk_scarce = e.is_scarce;
            }
            Event::AskedAgain(e) => self.asked_again(&e.session, marks),
            Event::Limited(e) => self.limited(t_ms, e, marks),
            Event::ClockChanged(e) => {
                if e.skew_s != 0 {
                    marks.hit(Mark::ClockStepSeen);
                }
            }
            Event::Probed(_)
            | Event::CommandAnswered(_)
            | Event::Rewound(_)
            // Leases have an auditor of their own, over two gateways and a hub: the hub's `leases` test.
            | Event::LeaseTaken(_)
            | Event::LeaseReturned(_)
            | Event::LeasesRead(_)
            | Event::Contested(_)
            | Event::CanaryRight(_)
            | Event::EchoAsked(_)
            | Event::HelloAsked(_)
            | Event::Kept(_) => {}
        }
    }

    /// The operator is told when a capability falls and when it is back, and of nothing in between.
    pub(crate) fn alarmed(&self, capability: Capability, mode: Mode) {
        assert!(
            matches!(mode, Mode::Local | Mode::Online),
            "an alarm about {} in {mode:?}",
            capability.word()
        );
    }

    /// Good by the signed list alone (semantics, section 9).
    fn is_vouched(&self, token: &TokenHash) -> bool {
        let listed = self.list.get(token);
        listed.is_some_and(|entry| entry.whitelist != Whitelist::Never) && self.is_trusted(token)
    }

    fn priced(&mut self, entries: &[TariffOf], marks: &mut Marks) {
        marks.hit(Mark::TariffsAdopted);
        for entry in entries {
            if self.open.iter().any(|id| self.holds[id].kind == entry.kind) {
                marks.hit(Mark::PriceChangedWhileOpen);
            }
            self.tariffs.insert(entry.kind, entry.tariff.clone());
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

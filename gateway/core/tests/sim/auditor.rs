//! What must be true, computed a second time: from the journal's durable events, the messages that left, and the physics.
//! It shares no code with the core: no book, no tally, no tariff engine, no decision order.

use std::collections::{BTreeMap, BTreeSet};

use gateway_core::{
    Decision, Event, Input, Mode, Now, Rule, Said, Told, Trust,
    config::Limits,
    event::{Closed, Granted, Refused},
};
use proto::{
    artifact::{ListEntry, Whitelist},
    id::{DeviceId, Hash, Kind, SessionId, TokenHash},
    link::{RecordKind, Verdict},
    message::{Closing, OutletState, RefusalReason, Stop},
    tariff::Tariff,
};

use crate::{
    bill,
    marks::{Mark, Marks},
    world::DAY_MS,
};

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
    started: bool,
    silent: bool,
    was_silent: bool,
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
    // Trust, as the journal tells it.
    list: BTreeMap<TokenHash, ListEntry>,
    staged: (u64, BTreeMap<TokenHash, ListEntry>),
    list_adopted_ms: u64,
    revoked: BTreeMap<TokenHash, u64>,
    denied: BTreeMap<TokenHash, u64>,
    confirmed: BTreeMap<TokenHash, (u64, u64)>,
    tariffs: BTreeMap<Kind, Tariff>,
    reported: BTreeMap<(DeviceId, u8), OutletState>,
    /// Authentic words of the cloud, by session, with the credential revision that was known then.
    answers: BTreeMap<SessionId, Vec<(Verdict, u64, i64, bool)>>,
    mode: Mode,
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
            list: BTreeMap::new(),
            staged: (0, BTreeMap::new()),
            list_adopted_ms: 0,
            revoked: BTreeMap::new(),
            denied: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            tariffs: BTreeMap::new(),
            reported: BTreeMap::new(),
            answers: BTreeMap::new(),
            mode: Mode::Online,
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
    pub(crate) fn durable(&mut self, t_ms: u64, _now: &Now, event: &Event, marks: &mut Marks) {
        if let Some(record) = event.record() {
            assert_eq!(record.sequence, self.sequence + 1, "records are numbered without a gap");
            self.sequence = record.sequence;
        }
        match event {
            Event::Booted(_) => {
                self.waiting.clear();
                self.staged = (0, BTreeMap::new());
                self.attempts.clear();
                self.goods = None;
            }
            Event::Greeted(e) => self.reported.retain(|(device, _), _| *device != e.device),
            Event::Reported(e) => drop(self.reported.insert((e.device, e.outlet), e.state)),
            Event::Asked(e) => {
                let place = (e.request.device, e.request.outlet);
                let (token, kind) = (e.request.token, e.request.kind);
                self.attempt(token, t_ms);
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
            Event::Started(e) => self.speaks(&e.session, marks, |hold| hold.started = true),
            Event::Metered(e) => self.speaks(&e.session, marks, |_| {}),
            Event::Closed(e) => self.closed(e, marks),
            Event::Silent(e) => {
                marks.hit(Mark::Silent);
                let hold = self
                    .holds
                    .get_mut(&e.session)
                    .expect("only a granted session can be silent");
                (hold.silent, hold.was_silent) = (true, true);
            }
            Event::ListStaged(e) => {
                if self.staged.0 != e.revision {
                    self.staged = (e.revision, BTreeMap::new());
                }
                self.staged
                    .1
                    .extend(e.entries.iter().map(|entry| (entry.token, entry.clone())));
            }
            Event::ListAdopted(_) => self.list_adopted(t_ms, marks),
            Event::RevocationsAdopted(e) => {
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
            | Event::Commanded(_)
            | Event::CommandAnswered(_)
            | Event::Quarantined(_)
            | Event::Rewound(_)
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
        self.mode = mode;
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

    fn secured(&mut self, session: &SessionId) {
        let hold = self
            .holds
            .get_mut(session)
            .expect("only a granted session can be secured");
        if hold.closed.is_none() && std::mem::take(&mut hold.unsecured) {
            self.unsecured_held -= hold.amount;
            if std::mem::take(&mut hold.counted) {
                let tally = self.tallies.get_mut(&(hold.token, hold.kind)).expect("it was counted");
                *tally = (tally.0 - 1, tally.1 - hold.amount);
            }
        }
    }

    fn speaks(&mut self, session: &SessionId, marks: &mut Marks, change: impl FnOnce(&mut Hold)) {
        let hold = self
            .holds
            .get_mut(session)
            .expect("only a granted session has readings");
        assert!(hold.closed.is_none(), "a reading for a session that is closed");
        if std::mem::take(&mut hold.silent) {
            marks.hit(Mark::SilentSpokeAgain);
        }
        change(hold);
    }

    fn granted(&mut self, t_ms: u64, e: &Granted, marks: &mut Marks) {
        let (request, terms, record) = (&e.request, &e.terms, &e.record);
        let (session, token) = (request.session, request.token);
        let decided = self.waiting.remove(&session).is_some();
        if !decided {
            self.attempt(token, t_ms);
        }
        assert!(!self.is_revoked(&token), "a known-revoked token is granted: {e:?}");
        assert!(
            !self.refused.contains_key(&session),
            "a refused session is granted: {e:?}"
        );
        assert_eq!(
            (record.kind, record.session, record.account, record.amount, record.token),
            (RecordKind::Hold, session, terms.account, terms.money_max, token),
            "the record says what was granted"
        );
        assert!(
            terms.money_max.0 > 0 && terms.units_max.0 > 0,
            "a grant of nothing: {e:?}"
        );
        self.rule_of_grant(t_ms, e, marks);
        let elsewhere = self.elsewhere(session, token, request.kind, (request.device, request.outlet));
        assert!(!elsewhere, "a second session of {token}");
        let place = (request.device, request.outlet);
        if self
            .open
            .iter()
            .any(|id| (self.holds[id].device, self.holds[id].outlet) == place)
        {
            marks.hit(Mark::NextSessionBeforeStop);
        }
        if self
            .open
            .iter()
            .any(|id| self.holds[id].silent && self.holds[id].token == token)
        {
            marks.hit(Mark::SilentUserServedElsewhere);
        }
        let local = matches!(e.mode, Mode::Local | Mode::Recovering);
        let counted = terms.unsecured && local;
        if terms.unsecured {
            self.unsecured_held += terms.money_max.0;
            assert!(
                self.exposure() <= self.limits.site_budget.0,
                "{} at risk, more than the budget",
                self.exposure()
            );
            assert_eq!(self.exposure(), e.exposure.0, "the exposure that the record names");
        }
        if counted {
            marks.hit(Mark::GrantWhileLocal);
            let tally = self.tallies.entry((token, request.kind)).or_default();
            *tally = (tally.0 + 1, tally.1 + terms.money_max.0);
            let limits = self.limits.of(request.kind).expect("a kind that is served");
            assert!(
                tally.0 <= limits.outage_count_max,
                "one session too many in this outage"
            );
            assert!(tally.1 <= limits.outage_money_max.0, "too much money in this outage");
        }
        *self.spent.entry(terms.account).or_default() += terms.money_max.0;
        let hold = Hold {
            token,
            kind: request.kind,
            device: request.device,
            outlet: request.outlet,
            account: terms.account,
            amount: terms.money_max.0,
            units_max: terms.units_max.0,
            tariff: terms.tariff.clone(),
            unsecured: terms.unsecured,
            counted,
            started: false,
            silent: false,
            was_silent: false,
            closed: None,
        };
        assert!(
            self.holds.insert(session, hold).is_none(),
            "a second hold for session {session}"
        );
        self.open.insert(session);
    }

    /// On whose word, and did it have it?
    fn rule_of_grant(&self, t_ms: u64, e: &Granted, marks: &mut Marks) {
        let token = e.request.token;
        let limits = self.limits.of(e.request.kind).expect("a kind that is served");
        if e.terms.money_max.0 <= limits.money_max.0 / 2 && e.terms.units_max.0 <= limits.units_max.0.div_ceil(2) {
            marks.hit(Mark::GrantAtHalfCaps);
        }
        match e.rule {
            Rule::Cloud => {
                marks.hit(Mark::GrantByCloud);
                let said = self.answers.get(&e.request.session).map_or(&[][..], Vec::as_slice);
                assert!(
                    said.iter().any(|(verdict, ..)| *verdict == Verdict::Accept),
                    "granted on the cloud's word, which it did not give"
                );
            }
            Rule::List => {
                marks.hit(Mark::GrantByList);
                let entry = self
                    .list
                    .get(&token)
                    .expect("granted by a list that does not name the token");
                assert!(
                    entry.valid && entry.whitelist != Whitelist::Never,
                    "granted against the list: {entry:?}"
                );
                assert!(!self.is_denied(&token), "granted against a backed denial");
                let left = entry.balance.0 - self.spent.get(&entry.account).copied().unwrap_or(0);
                assert!(
                    e.terms.money_max.0 <= left,
                    "{} granted, {left} left",
                    e.terms.money_max
                );
            }
            Rule::CachedAccept => {
                marks.hit(Mark::GrantByCachedAccept);
                let (at_ms, _) = self.confirmed.get(&token).expect("nobody ever accepted this token");
                assert!(
                    t_ms - at_ms <= self.limits.confirmation_s * 1000 + 1_000,
                    "an old accept"
                );
                assert!(!self.is_denied(&token), "granted against a backed denial");
                assert!(
                    e.terms.money_max.0 <= limits.money_max.0 / 2,
                    "a cached accept gives half caps"
                );
            }
            Rule::Device
            | Rule::Revoked
            | Rule::Rate
            | Rule::Instrument
            | Rule::Lease
            | Rule::Never
            | Rule::Unknown => {
                panic!("a grant by rule {:?}", e.rule)
            }
        }
    }

    /// Whether the token has, or asks for, another session of this kind at another outlet, and the device speaks.
    fn elsewhere(&self, session: SessionId, token: TokenHash, kind: Kind, place: (DeviceId, u8)) -> bool {
        let open = self.open.iter().any(|id| {
            let hold = &self.holds[id];
            let same = (hold.token, hold.kind) == (token, kind) && *id != session;
            same && (hold.device, hold.outlet) != place && !hold.silent
        });
        let asks = self.waiting.iter().any(|(id, waiting)| {
            let same = (waiting.token, waiting.kind) == (token, kind) && *id != session;
            same && waiting.place != place
        });
        open || asks
    }

    /// A refusal needs a reason that is true: so no good user is ever refused.
    fn refused(&mut self, t_ms: u64, e: &Refused, marks: &mut Marks) {
        let (request, token) = (&e.request, &e.request.token);
        let (place, session) = ((request.device, request.outlet), request.session);
        let waited = self.waiting.contains_key(&session);
        let is_true = match e.reason {
            RefusalReason::DeviceState => {
                marks.hit(Mark::RefusedDeviceState);
                let state = self.reported.get(&place).copied().unwrap_or(OutletState::Free);
                matches!(state, OutletState::Faulted | OutletState::Updating | OutletState::Other)
            }
            RefusalReason::Revoked => {
                marks.hit(Mark::RefusedRevoked);
                self.is_revoked(token)
            }
            RefusalReason::Concurrent => {
                marks.hit(Mark::RefusedConcurrent);
                self.elsewhere(session, *token, request.kind, place)
            }
            RefusalReason::Rate if e.rule == Rule::Rate => {
                marks.hit(Mark::RefusedRate);
                let before = self.attempts(token, t_ms) - usize::from(waited);
                before >= self.limits.attempts_a_minute_max as usize
            }
            RefusalReason::Rate => {
                marks.hit(Mark::RefusedOutageCount);
                let tally = self.tallies.get(&(*token, request.kind)).copied().unwrap_or_default();
                let limits = self.limits.of(request.kind).expect("a kind that is served");
                tally.0 >= limits.outage_count_max && !matches!(e.mode, Mode::Online | Mode::Suspect)
            }
            RefusalReason::OnlineRequired => {
                marks.hit(Mark::RefusedOnlineRequired);
                self.list
                    .get(token)
                    .is_some_and(|entry| entry.whitelist == Whitelist::Never)
            }
            RefusalReason::Unknown => {
                marks.hit(Mark::RefusedUnknown);
                let known_ms = self.confirmed.get(token).map(|(at_ms, _)| t_ms - at_ms);
                !self.list.contains_key(token) && known_ms.is_none_or(|ms| ms > DAY_MS)
            }
            RefusalReason::Denied => {
                marks.hit(Mark::RefusedDenied);
                let said = self.answers.get(&session).map_or(&[][..], Vec::as_slice);
                self.is_denied(token)
                    || said
                        .iter()
                        .any(|&(verdict, _, _, newer)| verdict == Verdict::Deny && newer)
            }
            RefusalReason::Invalid => {
                marks.hit(Mark::RefusedInvalid);
                self.list.get(token).is_some_and(|entry| !entry.valid)
            }
            RefusalReason::NoCredit => {
                marks.hit(Mark::RefusedNoCredit);
                self.has_no_credit(t_ms, e, marks)
            }
            RefusalReason::ListExpired => {
                marks.hit(Mark::RefusedListExpired);
                // A clock that ran a day ahead at a boot may have cost up to as much.
                t_ms - self.list_adopted_ms > self.limits.list_half_s * 1000 - 3 * DAY_MS
            }
            RefusalReason::NoTariff => {
                marks.hit(Mark::RefusedNoTariff);
                !self.tariffs.contains_key(&request.kind)
            }
            // The user went away while the cloud was asked.
            RefusalReason::Other => waited,
            RefusalReason::Replay | RefusalReason::Version | RefusalReason::Storage => false,
        };
        assert!(is_true, "refused for a reason that is not true: {e:?}");
        assert!(
            !self.holds.contains_key(&session),
            "a granted session is refused: {e:?}"
        );
        if self.waiting.remove(&session).is_none() {
            self.attempt(*token, t_ms);
        }
        self.refused.insert(session, e.reason);
    }

    /// Whether what is left does not pay for the least that can be sold.
    fn has_no_credit(&self, t_ms: u64, e: &Refused, marks: &mut Marks) -> bool {
        let (token, kind) = (e.request.token, e.request.kind);
        let limits = self.limits.of(kind).expect("a kind that is served");
        let Some(tariff) = self.tariffs.get(&kind) else {
            return false;
        };
        // A clock that ran ahead may have made the list look older than it is.
        let old = t_ms - self.list_adopted_ms > self.limits.list_full_s * 1000 - 2 * DAY_MS;
        let mut left = match old || e.rule == Rule::CachedAccept {
            true => limits.money_max.0 / 2,
            false => limits.money_max.0,
        };
        if e.rule == Rule::Cloud {
            let said = self.answers.get(&e.request.session).map_or(&[][..], Vec::as_slice);
            left = left.min(
                said.iter()
                    .map(|(_, _, money_max, _)| *money_max)
                    .min()
                    .unwrap_or(i64::MAX),
            );
        } else {
            if let Some(entry) = self.list.get(&token).filter(|_| e.rule == Rule::List) {
                left = left.min(entry.balance.0 - self.spent.get(&entry.account).copied().unwrap_or(0));
            }
            if matches!(e.mode, Mode::Local | Mode::Recovering) {
                let tally = self.tallies.get(&(token, kind)).copied().unwrap_or_default();
                left = left.min(limits.outage_money_max.0 - tally.1);
            }
            let before = left;
            left = left.min(self.limits.site_budget.0 - self.exposure());
            if left < before {
                marks.hit(Mark::RefusedBySiteBudget);
            }
        }
        left < bill::least(tariff)
    }

    fn closed(&mut self, e: &Closed, marks: &mut Marks) {
        let session = e.session;
        let hold = self
            .holds
            .get_mut(&session)
            .expect("only a granted session can be closed");
        assert!(hold.closed.is_none(), "session {session} is closed twice");
        assert!(self.open.remove(&session), "session {session} was open");
        let (amount, units) = (e.amount.0, e.units.0);
        hold.closed = Some((e.closing, amount, units));
        let record = &e.record;
        assert!(amount <= hold.amount, "{amount} billed, {} held", hold.amount);
        if hold.unsecured {
            self.unsecured_held -= hold.amount;
        }
        *self.spent.entry(hold.account).or_default() += amount - hold.amount;
        if std::mem::take(&mut hold.counted) {
            let tally = self.tallies.get_mut(&(hold.token, hold.kind)).expect("it was counted");
            tally.1 += amount - hold.amount;
            tally.0 -= u32::from(e.closing == Closing::Voided);
        }
        match e.closing {
            Closing::Voided => {
                marks.hit(Mark::Voided);
                assert_eq!((record.kind, amount, units), (RecordKind::Void, 0, 0));
                assert!(
                    self.stops.contains_key(&session),
                    "session {session} is voided by a timeout alone"
                );
                let read = self.read.get(&session).copied().unwrap_or(0);
                assert!(
                    read == 0 || self.cut.contains(&session),
                    "session {session} delivered {read} and is voided"
                );
            }
            Closing::Captured => {
                marks.hit(Mark::Captured);
                assert_eq!(record.kind, RecordKind::Capture);
                self.captured(e, marks);
            }
            Closing::Other | Closing::Unknown => panic!("closed as {:?}", e.closing),
        }
    }

    fn captured(&mut self, e: &Closed, marks: &mut Marks) {
        let (session, amount, record) = (e.session, e.amount.0, &e.record);
        let hold = &self.holds[&session];
        let (from, upto) = (record.register_start.0, record.register_end.0);
        let units = (upto - from).min(hold.units_max);
        assert_eq!(
            e.units.0, units,
            "units billed are what the register advanced, within the grant"
        );
        let delivered = self.delivered.get(&session).copied().unwrap_or(0);
        assert!(upto - from <= delivered, "{from}..{upto} is billed, {delivered} flowed");
        let most = bill::most(&hold.tariff, units);
        match self.stops.get(&session) {
            None => {
                marks.hit(Mark::CapturedAfterSevenDays);
                assert!(amount <= most, "{amount} billed, at most {most} flowed");
            }
            Some(stop) => {
                let shown = stop.shown.0;
                assert!(
                    amount <= most.min(shown).min(hold.amount),
                    "{amount} of {most}, {shown} and {}",
                    hold.amount
                );
                let heard = stop.register_end.0 == upto;
                if heard && bill::is_flat(&hold.tariff) {
                    let exact = most.min(shown).min(hold.amount);
                    assert_eq!(amount, exact, "a flat price leaves no room: {stop:?} {hold:?}");
                }
            }
        }
        let intervals = self.intervals.entry((hold.device, hold.outlet)).or_default();
        if upto > from {
            let before = intervals.range(..upto).next_back().map_or(0, |(_, upto)| *upto);
            assert!(
                before <= from,
                "the register above {from} is billed already, up to {before}"
            );
            intervals.insert(from, upto);
        }
        *self.customers.entry(hold.account).or_default() += amount;
        *self.revenue.entry(hold.kind).or_default() += amount;
        if amount > 0 {
            self.charges
                .insert(record.sequence, (hold.account, amount, hold.unsecured));
            self.unsecured_charged += if hold.unsecured { amount } else { 0 };
        }
    }

    /// Something left for a device. It must be in the journal.
    pub(crate) fn told(&self, told: &Told, _marks: &mut Marks) {
        match told {
            Told::Grant(grant) => {
                let hold = self
                    .holds
                    .get(&grant.session)
                    .expect("a grant left before its record was durable");
                assert_eq!((grant.money_max.0, grant.units_max.0), (hold.amount, hold.units_max));
                assert!(
                    grant.decision > 0 && grant.decision <= self.sequence,
                    "the grant names its record"
                );
            }
            Told::Refusal(refusal) if refusal.session == SessionId::ZERO => {}
            Told::Refusal(refusal) => {
                let reason = self.refused.get(&refusal.session);
                assert_eq!(
                    reason,
                    Some(&refusal.reason),
                    "a refusal left before its record was durable"
                );
            }
            Told::Receipt(receipt) => match receipt.closing {
                Closing::Unknown => {
                    let held = self
                        .holds
                        .get(&receipt.session)
                        .is_some_and(|hold| hold.closed.is_none());
                    assert!(!held, "a session with a hold is called unknown");
                }
                closing => {
                    let hold = self
                        .holds
                        .get(&receipt.session)
                        .expect("a receipt for a session without a hold");
                    let told = Some((closing, receipt.amount.0, receipt.units.0));
                    assert_eq!(told, hold.closed, "a receipt left before its record was durable");
                }
            },
            Told::Clock(_) | Told::Command(_) => {}
        }
    }

    /// An output is switched on.
    pub(crate) fn switched_on(&self, session: Option<SessionId>, place: (usize, usize)) {
        let hold = session.and_then(|session| self.holds.get(&session));
        assert!(
            hold.is_some_and(|hold| hold.closed.is_none()),
            "outlet {place:?} goes on for {session:?} without a durable hold: {hold:?}"
        );
    }

    /// Something flowed.
    pub(crate) fn delivered(&mut self, session: Option<SessionId>, units: u64, place: (usize, usize)) {
        let session = session.unwrap_or_else(|| panic!("{units} flowed at {place:?} for nobody"));
        let hold = self.holds.get(&session);
        assert!(
            hold.is_some_and(|hold| hold.closed.is_none()),
            "{units} flowed for {session}: {hold:?}"
        );
        *self.delivered.entry(session).or_default() += units;
    }

    /// The device reads the register of a session's outlet.
    pub(crate) fn read(&mut self, session: Option<SessionId>) {
        if let Some((session, units)) = session.and_then(|session| self.delivered.get_key_value(&session)) {
            self.read.insert(*session, *units);
        }
    }

    /// The device of a session loses power.
    pub(crate) fn cut(&mut self, session: Option<SessionId>) {
        self.cut.extend(session);
    }

    /// A device says that a session is over; returns whether for the first time.
    pub(crate) fn stopped(&mut self, stop: &Stop) -> bool {
        match self.stops.get(&stop.session) {
            Some(first) => {
                assert_eq!(first, stop, "the same stop, word for word");
                false
            }
            None => {
                let units = stop.register_end.0 - stop.register_start.0;
                let read = self.read.get(&stop.session).copied().unwrap_or(0);
                let lossless = !self.cut.contains(&stop.session);
                assert!(
                    !lossless || units >= read,
                    "{read} were read, the stop says {units}: {stop:?}"
                );
                self.stops.insert(stop.session, stop.clone()).is_none()
            }
        }
    }

    /// At rest: what the journal adds up to, account by account.
    pub(crate) fn at_rest(
        &self,
        hub: &[Vec<u8>],
        own: &[(Vec<u8>, Hash)],
    ) -> (BTreeMap<u64, i64>, BTreeMap<Kind, i64>) {
        assert!(self.open.is_empty(), "open at rest: {:?}", self.open);
        assert_eq!(self.unsecured_held, 0, "nothing is held at rest");
        assert_eq!(self.sequence, own.len() as u64, "every durable record is there");
        assert_eq!(hub.len(), own.len(), "the hub has every record");
        assert!(
            hub.iter().zip(own).all(|(theirs, (ours, _))| theirs == ours),
            "and the same ones"
        );
        let debits: i64 = self.customers.values().sum();
        let credits: i64 = self.revenue.values().sum();
        assert_eq!(debits, credits, "debits are credits");
        (self.customers.clone(), self.revenue.clone())
    }
}

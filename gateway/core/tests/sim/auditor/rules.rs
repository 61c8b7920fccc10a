//! Who was granted and who was refused, and whether there was a reason.

use gateway_core::{
    Mode, Rule,
    config::UnsignedDisable,
    event::{Granted, Refused},
};
use proto::{
    artifact::Whitelist,
    id::{DeviceId, Kind, SessionId, TokenHash},
    link::{Gift, MODE_ALONE, RecordKind, Verdict},
    message::{OutletState, RefusalReason},
};

use super::{Auditor, Hold};
use crate::{
    bill,
    marks::{Mark, Marks},
    world::DAY_MS,
};

impl Auditor {
    pub(super) fn granted(&mut self, t_ms: u64, e: &Granted, marks: &mut Marks) {
        let (request, terms, record) = (&e.request, &e.terms, &e.record);
        let (session, token) = (request.session, request.token);
        self.grounds(t_ms, request, &e.grounds);
        Self::cloud_word(e.rule, &e.grounds);
        let waited = self.waiting.remove(&session);
        self.in_time(t_ms, waited);
        let asked_ms = waited.map_or(t_ms, |waited| waited.since_ms);
        if waited.is_none() {
            self.attempt(token, t_ms);
        }
        let revoked = self.is_account_revoked(terms.account) || self.is_device_revoked(&request.device);
        // What a device did by itself is a fact, and the alarm says it.
        let alone = terms.evidence.mode == MODE_ALONE;
        assert!(
            alone || (!revoked && !self.is_revoked(&token)),
            "a known-revoked token is granted: {e:?}"
        );
        assert!(
            !self.refused.contains_key(&session),
            "a refused session is granted: {e:?}"
        );
        assert_eq!(
            (record.kind, record.session, record.account, record.amount, record.token),
            (RecordKind::Hold, session, terms.account, terms.money_max, token),
            "the record says what was granted"
        );
        let relied = &record.evidence;
        // The device decided; the gateway's mode had no part in it.
        let mode = if alone { MODE_ALONE } else { u8::from(e.mode) };
        assert_eq!(
            (
                relied.mode,
                relied.credential_revision,
                relied.list_revision,
                relied.revocations_revision
            ),
            (
                mode,
                e.credential_revision,
                self.ring.revision(),
                self.revocations_revision
            ),
            "the record names what was relied on"
        );
        assert!(
            terms.money_max.0 > 0 && terms.units_max.0 > 0,
            "a grant of nothing: {e:?}"
        );
        self.rule_of_grant(t_ms, e, marks);
        self.velocity_of_grant(t_ms, token, request.device, alone);
        let class = self.class_of(&request.device);
        let is_gift = terms.evidence.gift != Gift::None;
        assert_eq!(
            is_gift,
            e.rule == Rule::Unknown,
            "the operator pays for strangers and for nobody else"
        );
        let elsewhere = self.elsewhere(session, token, request.kind, (request.device, request.outlet));
        assert!(!elsewhere || alone, "a second session of {token}");
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
            assert!(!self.law.is_disk_scarce, "a new unsecured session on a full disk");
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
            let tally = self.tallies.entry((token, class)).or_default();
            *tally = (tally.0 + 1, tally.1 + terms.money_max.0);
            let limits = self.limits.of(class).expect("a class that is served");
            assert!(
                tally.0 <= limits.outage_count_max,
                "one session too many in this outage"
            );
            assert!(tally.1 <= limits.outage_money_max.0, "too much money in this outage");
        }
        self.spend(terms.account, terms.money_max.0);
        self.used(token, t_ms);
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
            silent: false,
            closed: None,
            instrument: terms.evidence.instrument,
            class,
            is_gift,
            asked_ms,
        };
        self.instruments.hold(hold.instrument, hold.amount);
        assert!(
            self.holds.insert(session, hold).is_none(),
            "a second hold for session {session}"
        );
        self.open.insert(session);
        self.note_gift(session, terms.evidence.gift);
    }

    /// On whose word, and did it have it?
    pub(super) fn rule_of_grant(&mut self, t_ms: u64, e: &Granted, marks: &mut Marks) {
        let token = e.request.token;
        let limits = self
            .limits
            .of(self.class_of(&e.request.device))
            .expect("a class that is served");
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
                let (at_ms, ..) = self.confirmed.get(&token).expect("nobody ever accepted this token");
                let age_ms = (t_ms - at_ms).saturating_sub(self.down_ms);
                assert!(
                    age_ms <= self.limits.confirmation_s * 1000 + 1_000,
                    "an accept {age_ms} ms old"
                );
                assert!(!self.is_denied(&token), "granted against a backed denial");
                assert!(
                    e.terms.money_max.0 <= limits.money_max.0 / 2,
                    "a cached accept gives half caps"
                );
            }
            Rule::Instrument => self.granted_instrument(e, marks),
            Rule::Unknown => {
                let (class, gift) = (self.class_of(&e.request.device), e.terms.evidence.gift);
                self.gift_of_grant(t_ms, token, class, gift, e.terms.units_max.0, marks);
            }
            Rule::Device | Rule::Revoked | Rule::Rate | Rule::Lease | Rule::Never => {
                panic!("a grant by rule {:?}", e.rule)
            }
        }
    }

    /// Whether the token has, or asks for, another session of this kind at another outlet, and the device speaks.
    pub(super) fn elsewhere(&self, session: SessionId, token: TokenHash, kind: Kind, place: (DeviceId, u8)) -> bool {
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
    pub(super) fn refused(&mut self, t_ms: u64, e: &Refused, marks: &mut Marks) {
        let (request, token) = (&e.request, &e.request.token);
        let (place, session) = ((request.device, request.outlet), request.session);
        self.grounds(t_ms, request, &e.grounds);
        let waited = self.waiting.contains_key(&session);
        let is_true = match e.reason {
            RefusalReason::DeviceState => {
                marks.hit(Mark::RefusedDeviceState);
                let state = self.reported.get(&place).copied().unwrap_or(OutletState::Free);
                matches!(state, OutletState::Faulted | OutletState::Updating | OutletState::Other)
            }
            RefusalReason::Reserved => {
                marks.hit(Mark::RefusedReserved);
                self.is_reserved_for_another(place, token)
            }
            RefusalReason::Revoked => {
                marks.hit(Mark::RefusedRevoked);
                let code = self.is_code_of_revoked(&session);
                if code {
                    marks.hit(Mark::RefusedCodeOfRevoked);
                }
                code || self.is_revoked(token) || self.is_device_revoked(&request.device)
            }
            RefusalReason::Concurrent => {
                marks.hit(Mark::RefusedConcurrent);
                self.elsewhere(session, *token, request.kind, place)
            }
            RefusalReason::Rate if e.rule == Rule::Rate => {
                marks.hit(Mark::RefusedRate);
                let before = self.attempts(token, t_ms) - usize::from(waited);
                let fast = self.is_fast(t_ms, token, &request.device);
                if fast {
                    marks.hit(Mark::RefusedVelocity);
                }
                fast || before >= self.limits.attempts_a_minute_max as usize
            }
            RefusalReason::Rate => {
                marks.hit(Mark::RefusedOutageCount);
                let class = self.class_of(&request.device);
                let tally = self.tallies.get(&(*token, class)).copied().unwrap_or_default();
                let limits = self.limits.of(class).expect("a class that is served");
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
                let known_ms = self.confirmed.get(token).map(|(at_ms, ..)| t_ms - at_ms);
                !self.list.contains_key(token)
                    && known_ms.is_none_or(|ms| ms > DAY_MS)
                    && self.gets_no_gift(t_ms, token, self.class_of(&request.device))
            }
            RefusalReason::Denied => {
                marks.hit(Mark::RefusedDenied);
                let said = self.answers.get(&session).map_or(&[][..], Vec::as_slice);
                self.is_denied(token)
                    || self.contest_lost(&session, token)
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
            RefusalReason::Replay
            | RefusalReason::Forged
            | RefusalReason::Elsewhere
            | RefusalReason::Expired
            | RefusalReason::LockedOut
            | RefusalReason::Clock => self.is_no_instrument(e, marks),
            RefusalReason::Storage => {
                marks.hit(Mark::RefusedByDisk);
                self.law.is_disk_scarce && matches!(e.rule, Rule::List | Rule::CachedAccept | Rule::Unknown)
            }
            RefusalReason::Version => false,
        };
        assert!(is_true, "refused for a reason that is not true: {e:?}");
        assert!(
            !self.holds.contains_key(&session),
            "a granted session is refused: {e:?}"
        );
        assert!(!self.is_good_user(t_ms, e), "a good user is refused: {e:?}");
        let waited = self.waiting.remove(&session);
        self.in_time(t_ms, waited);
        if waited.is_none() {
            self.attempt(*token, t_ms);
        }
        self.refused.insert(session, e.reason);
    }

    /// Whether both canaries upheld a denial that nothing backs, of somebody for whom no signature speaks.
    fn contest_lost(&self, session: &SessionId, token: &TokenHash) -> bool {
        let vouched = self.is_vouched(token) && self.limits.unsigned_disable == UnsignedDisable::Alert;
        assert!(
            !vouched || !self.modes.is_contested(session),
            "{token} is in the signed list and had to wait for canaries"
        );
        self.modes.upheld(session) && self.modes.authorize().asks() && !self.modes.is_latched()
    }

    /// Whether what is left does not pay for the least that can be sold.
    pub(super) fn has_no_credit(&self, t_ms: u64, e: &Refused, marks: &mut Marks) -> bool {
        let (token, kind) = (e.request.token, e.request.kind);
        let class = self.class_of(&e.request.device);
        let limits = self.limits.of(class).expect("a class that is served");
        let Some(tariff) = self.tariffs.get(&kind) else {
            return false;
        };
        // A clock that ran ahead may have made the list look older than it is.
        let old = t_ms - self.list_adopted_ms > self.limits.list_full_s * 1000 - 2 * DAY_MS;
        if e.rule == Rule::Instrument {
            return self.left_of(&token) < bill::least(tariff);
        }
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
                let balance = entry.balance.0 - self.spent.get(&entry.account).copied().unwrap_or(0);
                left = left.min(if old { balance / 2 } else { balance });
            }
            if matches!(e.mode, Mode::Local | Mode::Recovering) {
                let tally = self.tallies.get(&(token, class)).copied().unwrap_or_default();
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
}

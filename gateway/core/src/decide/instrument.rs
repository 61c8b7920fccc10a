//! Instruments that are presented, and those that a device has redeemed by itself while nobody could be asked.

use alloc::vec::Vec;

use proto::{
    id::{DeviceId, Kind, TokenHash},
    instrument::Fault,
    link::{Evidence, Gift, MODE_ALONE},
    message::Redeemed,
    money::{Money, Units},
};

use super::Draft;
use crate::{
    Alarm, Ignored,
    authorize::{Outcome, Rule, Word},
    event::{Event, GuessFailed, InstrumentAccepted},
    instrument::{Presented, Proof},
    session::{Request, Terms},
};

/// Most money that a device may have granted by itself in one session, in minor units: far above any face value, far
/// below what would upset the books.
const REDEEMED_MONEY_MAX: Money = Money(1_000_000);

impl Draft<'_> {
    /// What the instrument says for itself, as the word that step 4 follows.
    pub(super) fn instrument_word(&self, request: &Request, presented: &Presented) -> (Word, Option<Fault>) {
        match self.gateway.verify(self.now, request, presented) {
            None => (Word::NotAsked, None),
            Some(Ok(proof)) => (Word::Proven(proof), None),
            Some(Err(fault)) => (Word::Unproven(fault.reason()), Some(fault)),
        }
    }

    /// What has to be remembered of an instrument before the outcome may be known. Steps before the fourth tell nothing
    /// about it, so nothing is remembered then.
    pub(super) fn remember_instrument(
        &mut self,
        request: &Request,
        presented: &Presented,
        word: &Word,
        fault: Option<Fault>,
        outcome: &Outcome,
    ) {
        let rule = match outcome {
            Outcome::Grant { rule, .. } | Outcome::Refuse { rule, .. } => *rule,
            Outcome::Ask { .. } => return,
        };
        if rule != Rule::Instrument {
            return;
        }
        match (word, outcome) {
            (Word::Proven(proof), Outcome::Grant { .. }) => self.accept(request, proof),
            (_, Outcome::Refuse { .. }) if fault.is_some_and(Fault::is_guess) => self.guess_failed(request, presented),
            _ => {}
        }
    }

    fn accept(&mut self, request: &Request, proof: &Proof) {
        self.event(Event::InstrumentAccepted(InstrumentAccepted {
            session: request.session,
            device: request.device,
            number: proof.number,
            face: proof.face,
            not_after_s: proof.not_after_s,
            account: proof.account,
            step: proof.step,
        }));
    }

    /// A voucher is not guessed: its signature has 128 bits of strength.
    fn guess_failed(&mut self, request: &Request, presented: &Presented) {
        let account = match presented {
            Presented::Keypad(_) => 0,
            Presented::Code { account, .. } => *account,
            Presented::Token | Presented::Voucher(_) => return,
        };
        self.event(Event::GuessFailed(GuessFailed {
            device: request.device,
            account,
        }));
    }

    /// A session that the device granted by itself: a fact. It gets its hold, and the instrument is spent here, too;
    /// whatever is wrong with it is said, and judged at the hub by the number of the instrument.
    pub(super) fn redeemed(
        &mut self,
        device: &DeviceId,
        (kind, counter): (Kind, u64),
        redeemed: &Redeemed,
        token: TokenHash,
        presented: &Presented,
    ) -> Result<(), Ignored> {
        if let Some(known) = self.gateway.sessions.get(&redeemed.session) {
            self.answer_again(known);
            return Ok(());
        }
        let request = Request {
            session: redeemed.session,
            device: *device,
            kind,
            outlet: redeemed.outlet,
            token,
            units_wished: Units::ZERO,
            register: redeemed.register,
            counter,
        };
        let limits = self.gateway.limits_at(device);
        let bounds = Money(1)..=REDEEMED_MONEY_MAX;
        let (Some(limits), true, Ok(())) = (limits, bounds.contains(&redeemed.money_max), redeemed.tariff.check())
        else {
            self.redeemed_alarm(device, redeemed.number, Fault::Malformed);
            return Err(Ignored::NotOpen(redeemed.session));
        };
        let proof = self.judge_redeemed(&request, redeemed, presented);
        let (list_revision, revocations_revision, _) = self.gateway.trust.revisions();
        let terms = Terms {
            account: proof.account,
            units_max: redeemed.units_max,
            money_max: redeemed.money_max,
            duration_max_s: redeemed.duration_max_s,
            start_within_s: limits.start_within_s,
            meter_every_s: redeemed.meter_every_s,
            tariff_hash: redeemed.tariff.hash(),
            tariff: redeemed.tariff.clone(),
            unsecured: false,
            evidence: Evidence {
                mode: MODE_ALONE,
                credential_revision: 0,
                list_revision,
                revocations_revision,
                lease: 0,
                instrument: proof.number,
                gift: Gift::None,
            },
            // The device decided by itself who may stop it.
            stop_tokens: heapless::Vec::new(),
        };
        self.accept(&request, &proof);
        self.grant(request, terms, Rule::Instrument, 0);
        Ok(())
    }

    /// What the instrument proves; if it proves nothing, what the device says of it. The device's seal stands for that.
    fn judge_redeemed(&mut self, request: &Request, redeemed: &Redeemed, presented: &Presented) -> Proof {
        let mut faults: Vec<Fault> = Vec::new();
        let believed = Proof {
            number: redeemed.number,
            account: match presented {
                Presented::Code { account, .. } => *account,
                Presented::Token | Presented::Voucher(_) | Presented::Keypad(_) => 0,
            },
            face: redeemed.money_max,
            not_after_s: redeemed.at.wall_s,
            step: 0,
        };
        let proof = match presented {
            // The step of a code is over long before it is told; the device has marked it.
            Presented::Code { .. } | Presented::Token => believed,
            Presented::Voucher(_) | Presented::Keypad(_) => {
                match self.gateway.identify(self.now, &request.device, presented) {
                    Some(Ok(proof)) if proof.number == redeemed.number => proof,
                    // Who guesses at the keypad now says nothing about what was accepted before.
                    Some(Err(Fault::LockedOut)) => believed,
                    Some(Err(fault)) => {
                        faults.push(fault);
                        believed
                    }
                    Some(Ok(_)) | None => {
                        faults.push(Fault::Malformed);
                        believed
                    }
                }
            }
        };
        if proof.number != 0 {
            let left = self
                .gateway
                .spent
                .purse(proof.number)
                .map_or(proof.face, |purse| purse.left());
            if redeemed.money_max > left {
                faults.push(Fault::Spent);
            }
        }
        for fault in faults {
            self.redeemed_alarm(&request.device, redeemed.number, fault);
        }
        let trust = &self.gateway.trust;
        let of_revoked = proof.account != 0 && trust.is_account_revoked(proof.account);
        let revoked = of_revoked || trust.is_revoked(&request.token);
        if revoked || trust.is_device_revoked(&request.device) {
            self.alarm(Alarm::RedeemedRevoked {
                device: request.device,
                number: redeemed.number,
            });
        }
        proof
    }

    fn redeemed_alarm(&mut self, device: &DeviceId, number: u64, fault: Fault) {
        self.alarm(Alarm::Redeemed {
            device: *device,
            number,
            fault,
        });
    }
}

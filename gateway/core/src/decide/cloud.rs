//! What the cloud says, and what follows: answers, errors, receipts, and the probes of a cloud that failed.

use proto::{
    id::{Hash, SessionId, TokenHash},
    link::{Answer, Ask, LedgerReceipt, Mark, NOTES_MAX, Note, Welcome},
    money::Money,
};

use super::{CODE_THROTTLED, Draft};
use crate::{
    Alarm, Effect, Ignored,
    authorize::Word,
    event::{Confirmed, Denied, Event, Noted, Probed, Receipted, Rewound},
    grounds::CloudWord,
};

impl Draft<'_> {
    pub(super) fn answer(&mut self, answer: &Answer) -> Result<(), Ignored> {
        let limits = &self.gateway.config.limits;
        let word = self.gateway.word(answer);
        // Questions are numbered anew in every boot: an answer counts only if it names what was asked.
        let about = (answer.session, answer.token);
        if let Some(probe) = self.gateway.probe.filter(|probe| probe.ask == answer.ask) {
            if about != (SessionId::ZERO, probe.token) {
                return self.late_answer(answer);
            }
            let good = word != Word::None || probe.token == TokenHash::ZERO;
            let events = self.gateway.health.decide(self.at, good, true, limits);
            self.out.events.extend(events);
            match word {
                Word::Accept { .. } => self.confirm(answer, SessionId::ZERO),
                Word::Deny => self.deny(answer),
                Word::None | Word::NotAsked => {}
            }
            return Ok(());
        }
        let asked = self.gateway.sessions.by_ask(answer.ask);
        let Some(session) = asked.filter(|s| about == (s.request.session, s.request.token)) else {
            return self.late_answer(answer);
        };
        // First, so that the decision below can spend it.
        self.lease(&answer.lease, 0);
        let credible = word != Word::None;
        let events = self.gateway.health.decide(self.at, credible, false, limits);
        self.out.events.extend(events);
        match word {
            Word::Accept { .. } => self.confirm(answer, SessionId::ZERO),
            Word::Deny => self.deny(answer),
            Word::None | Word::NotAsked => {}
        }
        self.cloud = (self.gateway.cloud_word(answer), 0);
        let outcome = self.gateway.evaluate(self.now, &session.request, word);
        self.conclude(session.request.clone(), outcome);
        Ok(())
    }

    /// Too late for the verdict, in time for the books: an accept secures the session, a newer denial is kept.
    fn late_answer(&mut self, answer: &Answer) -> Result<(), Ignored> {
        self.lease(&answer.lease, 0);
        let session = self
            .gateway
            .sessions
            .get(&answer.session)
            .filter(|s| s.request.token == answer.token);
        match (self.gateway.word(answer), session) {
            (Word::Accept { .. }, Some(session)) if session.is_open() && !session.online => {
                self.confirm(answer, answer.session);
                Ok(())
            }
            (Word::Deny, Some(_)) => {
                self.deny(answer);
                Ok(())
            }
            _ => Err(Ignored::NotAsked(answer.ask)),
        }
    }

    fn confirm(&mut self, answer: &Answer, session: SessionId) {
        self.event(Event::Confirmed(Confirmed {
            token: answer.token,
            account: answer.account,
            credential_revision: answer.credential_revision,
            session,
        }));
    }

    fn deny(&mut self, answer: &Answer) {
        if answer.credential_revision > self.gateway.trust.credential_revision(&answer.token) {
            let credential_revision = answer.credential_revision;
            self.event(Event::Denied(Denied {
                token: answer.token,
                credential_revision,
            }));
        }
    }

    /// An unsigned error. It can end the waiting for an answer; it cannot refuse anybody.
    pub(super) fn trouble(&mut self, ask: u64, code: u16) -> Result<(), Ignored> {
        let limits = &self.gateway.config.limits;
        let probing = self.gateway.probe.is_some_and(|probe| probe.ask == ask);
        if probing {
            let events = self.gateway.health.decide(self.at, false, true, limits);
            self.out.events.extend(events);
            return Ok(());
        }
        let session = self.gateway.sessions.by_ask(ask).ok_or(Ignored::NotAsked(ask))?;
        if code != CODE_THROTTLED {
            let events = self.gateway.health.decide(self.at, false, false, limits);
            self.out.events.extend(events);
        }
        self.cloud = (CloudWord::Error, code);
        let outcome = self.gateway.evaluate(self.now, &session.request, Word::None);
        self.conclude(session.request.clone(), outcome);
        Ok(())
    }

    pub(super) fn welcome(&mut self, welcome: &Welcome) -> Result<(), Ignored> {
        let (epoch, cursor) = (self.gateway.time.epoch, self.gateway.outbox.cursor());
        if welcome.epoch != epoch {
            self.alarm(Alarm::Epoch {
                expected: welcome.epoch,
                found: epoch,
            });
            return Err(Ignored::ForeignReceipt {
                upto: welcome.upto,
                epoch: welcome.epoch,
            });
        }
        if welcome.upto < cursor {
            self.alarm(Alarm::HubRegressed {
                upto: welcome.upto,
                cursor,
            });
            self.event(Event::Rewound(Rewound { upto: welcome.upto }));
        }
        if welcome.upto > self.gateway.outbox.head() {
            // It has records of ours that we have not: our journal was put back from an old copy.
            let upto = welcome.upto;
            self.alarm(Alarm::Diverged { upto });
            return Err(Ignored::ForeignReceipt { upto, epoch });
        }
        Ok(())
    }

    pub(super) fn receipt(&mut self, receipt: &LedgerReceipt, own_hash: &Hash) -> Result<(), Ignored> {
        let LedgerReceipt { epoch, upto, hash, .. } = *receipt;
        if epoch != self.gateway.time.epoch || upto > self.gateway.outbox.head() {
            return Err(Ignored::ForeignReceipt { upto, epoch });
        }
        if hash != *own_hash {
            self.alarm(Alarm::Diverged { upto });
            return Ok(());
        }
        let noted = self.notes(receipt);
        let cursor = self.gateway.outbox.cursor();
        if upto <= cursor {
            if noted {
                return Ok(());
            }
            return Err(Ignored::OldReceipt { upto, cursor });
        }
        self.event(Event::Receipted(Receipted { upto }));
        Ok(())
    }

    /// What became of records beside the receipt. Returns whether any of it is news.
    fn notes(&mut self, receipt: &LedgerReceipt) -> bool {
        let outbox = &self.gateway.outbox;
        let mut news = false;
        for note in receipt.notes.iter().take(NOTES_MAX) {
            let Note { sequence, mark } = *note;
            if sequence > outbox.head() || outbox.mark(sequence) == Some(mark) {
                continue;
            }
            match mark {
                Mark::Quarantined => self.alarm(Alarm::RecordQuarantined {
                    sequence,
                    total: receipt.quarantined,
                }),
                Mark::Disputed | Mark::Aside => self.alarm(Alarm::RecordDisputed { sequence }),
                Mark::Adjusted | Mark::Other => {}
            }
            news = true;
            self.event(Event::Noted(Noted {
                sequence,
                mark,
                quarantined: receipt.quarantined,
            }));
        }
        news
    }

    pub(super) fn start_probe(&mut self) {
        let token = self
            .gateway
            .trust
            .known_good(&self.gateway.probed, self.now.wall())
            .unwrap_or(TokenHash::ZERO);
        let ask = self.gateway.ask + 1;
        let until = self.at.plus_ms(self.gateway.config.limits.ask_ms);
        self.event(Event::Probed(Probed { token, ask, until }));
        let question = Ask {
            ask,
            session: SessionId::ZERO,
            token,
            kind: proto::id::Kind::Charger,
            amount: Money::ZERO,
        };
        self.out.effects.push(Effect::Ask(question));
    }
}

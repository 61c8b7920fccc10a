//! What the cloud says, and what follows: answers, errors, denials that nothing backs, receipts.

use proto::{
    id::{Hash, SessionId, TokenHash},
    link::{Answer, LedgerReceipt, Mark, NOTES_MAX, Note, Welcome},
};

use super::Draft;
use crate::{
    Alarm, Ignored,
    authorize::Word,
    config::UnsignedDisable,
    event::{Confirmed, Contested, Denied, Event, Noted, Receipted, Rewound},
    grounds::CloudWord,
    health::{Class, Known, Mode, Reply, Signal, classify},
    session::{Contest, Session},
};

impl Draft<'_> {
    pub(super) fn answer(&mut self, answer: &Answer) -> Result<(), Ignored> {
        // An answer counts only if it names what was asked, and no other boot asked under this number.
        if let Some(pair) = self.gateway.canaries.filter(|pair| pair.is_about(answer.ask)) {
            let named = answer.session == SessionId::ZERO && answer.token == pair.token(answer.ask);
            return match named {
                true => self.canary_said(&pair, answer.ask, self.class(answer), Some(answer)),
                false => self.late_answer(answer),
            };
        }
        let about = (answer.session, answer.token);
        let asked = self.gateway.sessions.by_ask(answer.ask);
        match asked.filter(|s| about == (s.request.session, s.request.token)) {
            Some(session) => {
                // First, so that the decision below can spend it.
                self.lease(&answer.lease, 0);
                let class = self.class(answer);
                self.cloud = (class.word(), 0);
                self.answered(answer.ask, session, class, Some(answer))
            }
            None => self.late_answer(answer),
        }
    }

    /// An unsigned error. It can end the waiting for an answer; it refuses nobody whom the list vouches for.
    pub(super) fn trouble(&mut self, ask: u64, code: u16) -> Result<(), Ignored> {
        let stranger = Known {
            good: false,
            credential_revision: 0,
            denied_revision: 0,
        };
        let class = classify(&Reply::Trouble { code }, &stranger);
        if let Some(pair) = self.gateway.canaries.filter(|pair| pair.is_about(ask)) {
            return self.canary_said(&pair, ask, class, None);
        }
        if let Some(session) = self.gateway.sessions.by_ask(ask) {
            self.cloud = (CloudWord::Error, code);
            return self.answered(ask, session, class, None);
        }
        let watched = self.gateway.config.limits.hello_ms > 0 && self.gateway.health.control.mode.asks();
        if ask == 0 && watched && class != Class::Throttled {
            self.witness(Signal::Refused, TokenHash::ZERO);
            return Ok(());
        }
        Err(Ignored::NotAsked(ask))
    }

    fn class(&self, answer: &Answer) -> Class {
        // Of a leased account the hub has nothing to promise beyond the lease.
        let leased = self
            .gateway
            .trust
            .entry(&answer.token)
            .is_some_and(|entry| entry.lease_only);
        let reply = Reply::Answer {
            verdict: answer.verdict,
            credential_revision: answer.credential_revision,
            money_max: (answer.session != SessionId::ZERO && !leased).then_some(answer.money_max),
        };
        let known = Known {
            good: self.gateway.is_known_good(&answer.token, self.now.wall()),
            credential_revision: self.gateway.trust.credential_revision(&answer.token),
            denied_revision: self.gateway.trust.denied.get(&answer.token).copied().unwrap_or(0),
        };
        classify(&reply, &known)
    }

    /// A user waits for this.
    fn answered(&mut self, ask: u64, session: &Session, class: Class, answer: Option<&Answer>) -> Result<(), Ignored> {
        let token = session.request.token;
        let contested = session.contest != Contest::None;
        match (class, answer) {
            (Class::Accept, Some(answer)) => {
                match self.gateway.is_vouched(&token, self.now.wall()) {
                    true => self.witness(Signal::Accepted, token),
                    false => self.witness(Signal::Answered, TokenHash::ZERO),
                };
                self.confirm(answer, SessionId::ZERO);
                let word = Word::Accept {
                    account: answer.account,
                    money_max: answer.money_max,
                    credential_revision: answer.credential_revision,
                    lease: (answer.lease.epoch, answer.lease.amount),
                };
                self.verdict(session, word);
            }
            (Class::DenyAttributable | Class::DenyUncontested, Some(answer)) => {
                self.witness(Signal::Answered, TokenHash::ZERO);
                self.deny(answer);
                self.verdict(session, Word::Deny);
            }
            // The user waits for the canaries already: nothing without a seal makes that longer or shorter.
            _ if contested => return Err(Ignored::NotAsked(ask)),
            (Class::DenyUnattributable, _) => self.contest(session, answer.is_some()),
            (Class::Throttled, _) => self.verdict(session, Word::None),
            (Class::Error | Class::Accept | Class::DenyAttributable | Class::DenyUncontested, _) => {
                self.witness(Signal::Failed, TokenHash::ZERO);
                self.verdict(session, Word::None);
            }
        }
        Ok(())
    }

    /// A denial that nothing backs is evidence about the cloud. If the signed list vouches for the token it is no more
    /// than that: the local verdict stands at once. Anybody else waits for the canaries to say what the cloud is worth.
    fn contest(&mut self, session: &Session, sealed: bool) {
        let wall_s = self.now.wall();
        let contradicts = !self.gateway.refuses_too(self.now, &session.request);
        if !contradicts && self.gateway.is_good_user(&session.request.token, wall_s) {
            // He has nothing left by our own books, or is at a limit: the verdict is the same, for a reason that is known.
            if sealed {
                self.witness(Signal::Answered, TokenHash::ZERO);
            }
            return self.verdict(session, Word::None);
        }
        let token = session.request.token;
        let health = &self.gateway.health;
        let latched = health.breaker.latched.is_some();
        let mut mode = health.authorize.mode;
        if contradicts && self.gateway.is_vouched(&token, wall_s) {
            if !health.breaker.suspects.iter().any(|suspect| suspect.token == token) {
                self.alarm(Alarm::TokenDenied { token });
            }
            let limits = &self.gateway.config.limits;
            let active = self.gateway.activity.is_active(&token, self.at, limits);
            mode = self.witness(if active { Signal::Denied } else { Signal::DeniedIdle }, token);
        }
        let until = match (self.gateway.canaries, mode.asks()) {
            (Some(pair), _) => Some(pair.until),
            (None, true) => Some(self.ask_canaries(Some(token))),
            (None, false) => None,
        };
        let waits = mode.asks() && !latched && !self.stands_locally(session);
        match until.filter(|_| waits) {
            Some(until) => self.event(Event::Contested(Contested {
                session: session.request.session,
                until,
                cloud: self.cloud.0,
                code: self.cloud.1,
            })),
            None => self.verdict(session, Word::None),
        }
    }

    /// Whether the signed list vouches for the token, and the operator has not signed anything that qualifies this.
    fn stands_locally(&self, session: &Session) -> bool {
        let token = &session.request.token;
        let suspects = &self.gateway.health.breaker.suspects;
        let denied_ms = suspects.iter().find(|suspect| suspect.token == *token);
        let denied_ms = denied_ms.map_or(0, |suspect| self.at.since_ms(suspect.since));
        let believed = match self.gateway.config.limits.unsigned_disable {
            UnsignedDisable::Alert => false,
            UnsignedDisable::SuspendAfter { s } => denied_ms / 1000 >= s,
            UnsignedDisable::Immediate => true,
        };
        !believed && self.gateway.is_good_user(token, self.now.wall())
    }

    /// A contested session whose canaries are heard, or a question whose time is over.
    pub(super) fn asked_long_enough(&mut self, session: &Session) {
        let health = &self.gateway.health;
        // What the canaries said does not count any more if a mass denial came to light meanwhile.
        let credible = health.authorize.mode.asks() && health.breaker.latched.is_none();
        self.cloud = session.contested;
        let word = match session.contest {
            Contest::Upheld if credible => {
                self.cloud.0 = CloudWord::DenyUpheld;
                Word::Deny
            }
            Contest::Upheld | Contest::Overturned | Contest::Waiting => Word::None,
            Contest::None => {
                self.witness(Signal::NoAnswer, TokenHash::ZERO);
                self.cloud = (CloudWord::Silence, 0);
                Word::None
            }
        };
        self.verdict(session, word);
    }

    fn verdict(&mut self, session: &Session, word: Word) {
        let outcome = self.judge(&session.request, word);
        self.conclude(session.request.clone(), outcome);
    }

    /// Too late for the verdict, in time for the books: an accept secures the session, a newer denial is kept.
    fn late_answer(&mut self, answer: &Answer) -> Result<(), Ignored> {
        let session = self
            .gateway
            .sessions
            .get(&answer.session)
            .filter(|s| s.request.token == answer.token);
        // A cloud may play again what it recorded, to a journal that was put back and knows nothing of the lease. Then, and if
        // in doubt, the lease comes as a signed artifact, which names its journal.
        if session.is_some() && self.gateway.time.is_own_ask(answer.ask) {
            self.lease(&answer.lease, 0);
        }
        match (self.class(answer), session) {
            (Class::Accept, Some(session)) if session.is_open() && !session.online => {
                self.confirm(answer, answer.session);
                Ok(())
            }
            (Class::DenyAttributable, Some(_)) => {
                self.deny(answer);
                Ok(())
            }
            _ => Err(Ignored::NotAsked(answer.ask)),
        }
    }

    pub(super) fn confirm(&mut self, answer: &Answer, session: SessionId) {
        self.event(Event::Confirmed(Confirmed {
            token: answer.token,
            account: answer.account,
            credential_revision: answer.credential_revision,
            session,
        }));
    }

    pub(super) fn deny(&mut self, answer: &Answer) {
        if answer.credential_revision > self.gateway.trust.credential_revision(&answer.token) {
            let credential_revision = answer.credential_revision;
            self.event(Event::Denied(Denied {
                token: answer.token,
                credential_revision,
            }));
        }
    }

    /// Notes what was seen of the cloud; returns the mode of that capability from now on.
    pub(super) fn witness(&mut self, signal: Signal, token: TokenHash) -> Mode {
        let (health, limits) = (&self.gateway.health, &self.gateway.config.limits);
        let capability = signal.capability();
        let before = health.of(capability).mode;
        let events = health.decide(self.at, signal, token, limits);
        let changed = events.iter().find_map(|event| match event {
            Event::ModeChanged(changed) => Some(changed.mode),
            _ => None,
        });
        let mode = changed.unwrap_or(before);
        let mass = health.is_mass(self.at, signal, token, limits);
        if mass && health.breaker.latched.is_none() {
            self.alarm(Alarm::MassDenial);
        }
        if changed.is_some() && (mode == Mode::Local && before.asks() || mode == Mode::Online && !before.asks()) {
            self.alarm(Alarm::Mode { capability, mode });
        }
        self.out.events.extend(events);
        mode
    }

    pub(super) fn welcome(&mut self, welcome: &Welcome) -> Result<(), Ignored> {
        let (epoch, cursor) = (self.gateway.time.epoch, self.gateway.outbox.cursor());
        self.compare_hub(welcome.wall_s);
        if welcome.epoch != epoch {
            self.alarm(Alarm::Epoch {
                expected: welcome.epoch,
                found: epoch,
            });
            return Err(Ignored::OtherEpoch(welcome.epoch));
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
        // One that comes late, or answers the hello of a new connection, is no answer to a probe: it sets no pace.
        if self.gateway.hello_until.is_some_and(|until| self.at <= until) {
            self.witness(Signal::Welcomed, TokenHash::ZERO);
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
        if self.gateway.health.commit.mode == Mode::Suspect {
            self.witness(Signal::Receipted, TokenHash::ZERO);
        }
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
}

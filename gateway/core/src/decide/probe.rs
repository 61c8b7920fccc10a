//! What the gateway asks of its own accord, so that it need not believe a connection: canaries, echoes, hellos.

use proto::{
    id::{Kind, SessionId, TokenHash},
    link::{Answer, Ask, Echo},
    money::Money,
};

use super::Draft;
use crate::{
    Canaries, Effect, Ignored, Input,
    event::{CanaryRight, EchoAsked, Event, HelloAsked, Probed},
    health::{Class, Mode, Signal, bad_canary, spread},
    time::Instant,
};

impl Draft<'_> {
    /// Asks about a token that the cloud should accept and one that it should deny, together: a cloud that accepts
    /// everything fails as well as one that denies everything. `denied`: whose denial made us ask; he cannot be his own
    /// witness. Returns until when the answers count.
    pub(super) fn ask_canaries(&mut self, denied: Option<TokenHash>) -> Instant {
        let token = self.good_canary(denied).unwrap_or(TokenHash::ZERO);
        let gateway = self.gateway;
        let limits = &gateway.config.limits;
        let ask = gateway.next_ask();
        let until = self.at.plus_ms(limits.canary_ms);
        let bad = bad_canary(limits.jitter_seed, gateway.time.boot, ask);
        self.event(Event::Probed(Probed { token, ask, until, bad }));
        let question = |ask, token| {
            Effect::Ask(Ask {
                ask,
                session: SessionId::ZERO,
                token,
                kind: Kind::Charger,
                amount: Money::ZERO,
            })
        };
        if token != TokenHash::ZERO {
            self.out.effects.push(question(ask, token));
        }
        self.out.effects.push(question(ask + 1, bad));
        until
    }

    /// The tokens of the list in turn. After a mass denial every second canary is one of those who were denied: a cloud
    /// that serves most and denies a stable part is not well, and a canary from the part that it serves would say it is.
    fn good_canary(&self, denied: Option<TokenHash>) -> Option<TokenHash> {
        let gateway = self.gateway;
        let breaker = &gateway.health.breaker;
        let is_suspect = |token: &TokenHash| breaker.suspects.iter().any(|suspect| suspect.token == *token);
        let turn = spread(gateway.config.limits.jitter_seed, gateway.ask, u64::MAX);
        let wall_s = self.now.wall();
        breaker
            .suspect(turn, |token| gateway.is_vouched(token, wall_s))
            .filter(|_| !is_suspect(&gateway.probed))
            .or_else(|| {
                let avoid = |token: &TokenHash| is_suspect(token) || denied == Some(*token);
                gateway.trust.known_good(&gateway.probed, wall_s, avoid)
            })
    }

    /// One of the canaries was answered, or there was trouble about it.
    pub(super) fn canary_said(
        &mut self,
        pair: &Canaries,
        ask: u64,
        class: Class,
        answer: Option<&Answer>,
    ) -> Result<(), Ignored> {
        let is_good = ask == pair.ask;
        if (is_good && pair.good_right) || (!is_good && pair.bad_right) {
            return Err(Ignored::NotAsked(ask));
        }
        let right = match class {
            Class::Accept => is_good,
            // It knows better than we do, so it is well: and it is believed.
            Class::DenyAttributable => true,
            Class::DenyUncontested => !is_good,
            Class::DenyUnattributable => false,
            Class::Error => {
                self.witness(Signal::CanariesSilent, TokenHash::ZERO);
                return Ok(());
            }
            Class::Throttled => {
                self.witness(Signal::CanariesThrottled, TokenHash::ZERO);
                return Ok(());
            }
        };
        match answer.filter(|_| is_good && right) {
            Some(answer) if class == Class::Accept => self.confirm(answer, SessionId::ZERO),
            Some(answer) => self.deny(answer),
            None => {}
        }
        if !right {
            self.witness(Signal::CanariesWrong, if is_good { pair.good } else { TokenHash::ZERO });
        } else if pair.good_right || pair.bad_right {
            self.witness(Signal::CanariesRight, pair.good);
        } else {
            self.event(Event::CanaryRight(CanaryRight { ask }));
        }
        Ok(())
    }

    /// The backend returned an echo; its seal fits. Only the one that is awaited is fresh.
    pub(super) fn echo(&mut self, nonce: u64) -> Result<(), Ignored> {
        let asked = self.gateway.echo.filter(|echo| echo.nonce == nonce);
        asked.ok_or(Ignored::NotAsked(nonce))?;
        let overdue = self
            .gateway
            .health
            .is_receipt_overdue(self.at, &self.gateway.config.limits);
        let signal = if overdue { Signal::EchoedOnly } else { Signal::Echoed };
        self.witness(signal, TokenHash::ZERO);
        Ok(())
    }

    /// What the artifact path shows: a genuine artifact that is taken in, or one that had to be set aside.
    pub(super) fn witness_artifact(&mut self, input: &Input) {
        let is_artifact = matches!(input, Input::List(_) | Input::Revocations(_) | Input::Tariffs(_));
        if !is_artifact || self.gateway.config.limits.hello_ms == 0 {
            return;
        }
        let set_aside = self
            .out
            .events
            .iter()
            .any(|event| matches!(event, Event::Quarantined(aside) if aside.findings.are_doubtful()));
        if set_aside {
            self.witness(Signal::Implausible, TokenHash::ZERO);
        } else if self.gateway.health.control.mode == Mode::Suspect && !self.out.events.is_empty() {
            self.witness(Signal::Artifact, TokenHash::ZERO);
        }
    }

    /// One probe whose time has come, or whose time is over. Returns whether there was one.
    pub(super) fn probe_due(&mut self) -> bool {
        let gateway = self.gateway;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= self.at);
        let (limits, health) = (&gateway.config.limits, &gateway.health);
        if gateway.canaries.is_none() && due(health.authorize.probe_at) {
            self.ask_canaries(None);
        } else if due(gateway.echo.map(|echo| echo.until)) {
            self.witness(Signal::EchoMissed, TokenHash::ZERO);
        } else if gateway.echo.is_none() && due(health.commit.probe_at) {
            // No two echoes leave in the same millisecond, in this boot or another.
            let nonce = self.at.0;
            let until = self.at.plus_ms(limits.echo_wait_ms);
            self.event(Event::EchoAsked(EchoAsked { nonce, until }));
            self.out.effects.push(Effect::Echo(Echo { nonce }));
        } else if due(gateway.hello_until) {
            self.witness(Signal::HelloUnanswered, TokenHash::ZERO);
        } else if gateway.hello_until.is_none() && due(health.control.probe_at) {
            let until = self.at.plus_ms(limits.echo_wait_ms);
            self.event(Event::HelloAsked(HelloAsked { until }));
            self.out.effects.push(Effect::Hello);
        } else if due(health.receipt_look_at) {
            self.witness(Signal::ReceiptOverdue, TokenHash::ZERO);
        } else {
            return false;
        }
        true
    }
}

//! The people: who they are, when they come, what they do. They know nothing of clouds.

use device::{Input, Screen};
use fastrand::Rng;
use proto::{
    artifact::Whitelist,
    id::{AccountId, IdToken, Kind, TokenHash, TokenKind},
    message::StopReason,
    money::Units,
};

use super::{
    gateway::TOKEN_KEY,
    oracle::{Judgement, Outcome},
    scenario::{Scenario, kind_index},
    world::{Next, Step, World},
};

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60_000;
const DAY_S: u64 = 86_400;
/// How often a person looks for another free outlet before going away.
const LOOKS_MAX: usize = 12;
/// Nobody comes back within so long after a visit, in ms.
const REST_MS: u64 = 2 * MINUTE_MS;
/// Where a person goes instead of the own hall, in hundredths of the visits.
const ELSEWHERE_PERCENT: u64 = 5;

/// Somebody with a token of the operator.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) token: IdToken,
    pub(super) hash: TokenHash,
    pub(super) account: AccountId,
    pub(super) whitelist: Whitelist,
    pub(super) is_valid: bool,
    /// Revoked before the beginning.
    pub(super) is_revoked: bool,
    /// Left: no longer listed.
    pub(super) has_left: bool,
    pub(super) is_leased: bool,
    /// All that was paid in, in minor units.
    pub(super) deposit: i64,
    /// The gateway of the own hall.
    pub(super) home: usize,
    /// Open visits, a bit per kind.
    open: u8,
    not_before_ms: u64,
}

impl Person {
    /// Has not been at an outlet since the drill began.
    pub(super) const fn is_unseen(&self) -> bool {
        self.open == 0 && self.not_before_ms == 0
    }
}

/// One person at one outlet.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    /// Position in the list of persons; `None`: a stranger with a token that nobody issued.
    pub(super) user: Option<usize>,
    number: u32,
    /// When the token was presented, while there is no answer.
    asked_ms: Option<u64>,
    judgement: Judgement,
    acted: bool,
    leaving: bool,
}

/// The people of a campus.
pub(super) fn persons(scenario: &Scenario, rng: &mut Rng) -> Vec<Person> {
    let shares = &scenario.site.people;
    let gateways = scenario.site.regions.len();
    let person = |i: u32| {
        let token = IdToken::new(TokenKind::Card, &(u64::from(i) | 0x0400_0000_0000).to_be_bytes()[1..])
            .expect("seven bytes, as a card has");
        let policy = rng.u8(0..100);
        let whitelist = if policy < shares.always {
            Whitelist::Always
        } else if policy < shares.always + shares.allowed {
            Whitelist::Allowed
        } else if policy < shares.always + shares.allowed + shares.never {
            Whitelist::Never
        } else {
            Whitelist::AllowedOffline
        };
        let mut group = i16::from(rng.u8(0..100));
        let mut is_one_of = |share: u8| {
            group -= i16::from(share);
            (-i16::from(share)..0).contains(&group)
        };
        let is_valid = !is_one_of(shares.invalid);
        let is_revoked = is_one_of(shares.revoked);
        let is_poor = is_one_of(shares.poor);
        let is_leased = is_one_of(shares.leased);
        Person {
            hash: token.hash(&TOKEN_KEY),
            token,
            account: u64::from(i) + 1,
            whitelist,
            is_valid,
            is_revoked,
            has_left: false,
            is_leased,
            deposit: if is_poor {
                rng.i64(0..300)
            } else {
                rng.i64(2_500..15_000)
            },
            home: i as usize % gateways,
            open: 0,
            not_before_ms: 0,
        }
    };
    (0..scenario.site.users).map(person).collect()
}

impl World<'_> {
    /// Somebody comes; and the next one after him.
    pub(super) fn arrival(&mut self) {
        if self.calm {
            return;
        }
        self.plan_arrival();
        let kind = self.pick_kind();
        let stranger = self.people_rng.u8(0..100) < self.scenario.site.people.strangers;
        let user = match stranger {
            true => None,
            false => match self.pick_person(kind) {
                Some(user) => Some(user),
                None => return,
            },
        };
        let home = user.map_or_else(
            || self.people_rng.usize(..self.shells.len()),
            |user| self.persons[user].home,
        );
        let elsewhere = self.people_rng.u64(0..100) < ELSEWHERE_PERCENT;
        let gateway = if elsewhere {
            self.people_rng.usize(..self.shells.len())
        } else {
            home
        };
        match self.pick_outlet(gateway, kind) {
            Some((at, outlet)) => self.come(at, outlet, user),
            None => self.tally.slice.no_free_outlet += 1,
        }
    }

    /// By the hour of the day. Evenly spread around the mean: logarithms differ from machine to machine.
    pub(super) fn plan_arrival(&mut self) {
        let site = &self.scenario.site;
        let weights: u64 = site.demand.iter().map(|weight| u64::from(*weight)).sum();
        let weight = u64::from(site.demand[self.hour()]);
        let hour_ms = 3_600_000;
        let ms = match u64::from(site.sessions_a_day) * weight {
            0 => hour_ms - self.t_ms % hour_ms + 1,
            // DAY_S / 24 s an hour, weights / weight of the day's sessions in it.
            share => {
                let mean_us = DAY_S / 24 * 1_000_000 * weights / share;
                self.people_rng.u64(0..=2 * mean_us) / 1_000
            }
        };
        self.after(ms.min(hour_ms), Next::Arrival);
    }

    fn pick_kind(&mut self) -> Kind {
        let site = &self.scenario.site;
        let shares = site
            .share
            .iter()
            .zip(site.devices)
            .map(|(share, n)| if n > 0 { *share } else { 0 });
        let mut left = self.people_rng.u32(..shares.clone().sum::<u32>().max(1));
        let mut kinds = Kind::SERVED.into_iter().zip(shares);
        let kind = kinds.find(|(_, share)| {
            let is_it = left < *share;
            left = left.saturating_sub(*share);
            is_it
        });
        kind.map_or(Kind::Dispenser, |(kind, _)| kind)
    }

    fn pick_person(&mut self, kind: Kind) -> Option<usize> {
        (0..LOOKS_MAX).find_map(|_| {
            let user = self.people_rng.usize(..self.persons.len());
            let person = &self.persons[user];
            let is_free = person.open & bit(kind) == 0 && person.not_before_ms <= self.t_ms && !person.has_left;
            is_free.then_some(user)
        })
    }

    fn pick_outlet(&mut self, gateway: usize, kind: Kind) -> Option<(usize, usize)> {
        let devices = self.tally.devices(&self.twins, gateway, kind);
        if devices.is_empty() {
            return None;
        }
        for _ in 0..LOOKS_MAX {
            let at = devices[self.people_rng.usize(..devices.len())];
            let twin = &self.twins[at];
            let free = |place: &super::world::Place| {
                let quiet = matches!(
                    place.screen,
                    Screen::Free | Screen::Receipt { .. } | Screen::Ended { .. }
                );
                place.visit.is_none() && place.session.is_none() && quiet
            };
            if let Some(outlet) = twin.places.iter().position(free) {
                return Some((at, outlet));
            }
        }
        None
    }

    /// A person stands at an outlet, and presents the token.
    pub(super) fn come(&mut self, at: usize, outlet: usize, user: Option<usize>) {
        self.visits += 1;
        let number = self.visits;
        let kind = self.twins[at].config.kind;
        let physical = &mut self.twins[at].places[outlet].physical;
        let rng = &mut self.people_rng;
        match kind {
            Kind::Charger => {
                physical.wanted = rng.u64(100..900);
                physical.rate = rng.u64(200..500);
                physical.in_use = true;
            }
            Kind::Dispenser => {
                physical.wanted = rng.u64(300..2_500);
                physical.rate = 100;
            }
            Kind::Washer | Kind::Unknown => physical.cycle_ms = rng.u64(30 * MINUTE_MS..55 * MINUTE_MS),
        }
        let gateway = self.twins[at].gateway;
        self.sense(at, outlet);
        let judgement = self.judge(gateway, user, kind);
        if let Some(user) = user {
            self.persons[user].open |= bit(kind);
        }
        self.twins[at].places[outlet].visit = Some(Visit {
            user,
            number,
            asked_ms: Some(self.t_ms),
            judgement,
            acted: false,
            leaving: false,
        });
        let token = match user {
            Some(user) => self.persons[user].token.clone(),
            None => IdToken::new(
                TokenKind::Card,
                &[0xee, number as u8, (number >> 8) as u8, (number >> 16) as u8],
            )
            .expect("four bytes, as a card has"),
        };
        let (outlet, units_wished) = (outlet as u8, Units::ZERO);
        self.drive(
            at,
            Input::Token {
                outlet,
                token,
                units_wished,
            },
        );
    }

    fn visit_in(&mut self, ms: u64, (at, outlet, number): (usize, usize, u32), step: Step) {
        let next = Next::Visit {
            at,
            outlet,
            number,
            step,
        };
        self.after(ms, next);
    }

    /// The display shows something new.
    pub(super) fn seen(&mut self, at: usize, outlet: usize, screen: Screen) {
        let Some(visit) = &mut self.twins[at].places[outlet].visit else {
            return;
        };
        if let Some(asked_ms) = visit.asked_ms {
            let outcome = match screen {
                Screen::Begin { .. } | Screen::Delivering { .. } => Some(Outcome::Granted),
                Screen::Refused { reason, .. } => Some(Outcome::Refused(reason)),
                Screen::Unavailable | Screen::Faulted(_) | Screen::Recovering => Some(Outcome::Unavailable),
                Screen::Ended {
                    reason: StopReason::Abandoned,
                    ..
                } => Some(Outcome::NoAnswer),
                Screen::Ended { .. } | Screen::Receipt { .. } | Screen::Free | Screen::Asking => None,
            };
            if let Some(outcome) = outcome {
                visit.asked_ms = None;
                self.answered(at, outlet, asked_ms, outcome);
            }
        }
        let Some(visit) = &mut self.twins[at].places[outlet].visit else {
            return;
        };
        let number = visit.number;
        match screen {
            Screen::Begin { .. } if !visit.acted => {
                visit.acted = true;
                let ms = self.people_rng.u64(2 * SECOND_MS..8 * SECOND_MS);
                self.visit_in(ms, (at, outlet, number), Step::Act);
            }
            Screen::Refused { .. } | Screen::Unavailable | Screen::Ended { .. } | Screen::Faulted(_)
                if !visit.leaving =>
            {
                visit.leaving = true;
                let ms = self.people_rng.u64(2 * SECOND_MS..20 * SECOND_MS);
                self.visit_in(ms, (at, outlet, number), Step::Leave);
            }
            _ => {}
        }
    }

    fn answered(&mut self, at: usize, outlet: usize, asked_ms: u64, outcome: Outcome) {
        let (gateway, kind) = (self.twins[at].gateway, self.twins[at].config.kind);
        let place = &self.twins[at].places[outlet];
        let Some(visit) = &place.visit else { return };
        let (user, judgement) = (visit.user, visit.judgement);
        let session = place.session.or_else(|| self.twins[at].device.session(outlet as u8));
        let waited_ms = self.t_ms - asked_ms;
        let is_outage = self.is_outage(gateway);
        if outcome == Outcome::Granted {
            self.oracle.granted(user, session, gateway, is_outage);
        }
        let revoked = user.and_then(|user| self.oracle.revoked_since(gateway, user));
        let is_late = revoked.is_some_and(|since_ms| asked_ms >= since_ms + super::oracle::REVOCATION_GRACE_MS);
        let verdict = super::tally::Verdict {
            kind,
            judgement,
            outcome,
            waited_ms,
            is_outage,
            is_revoked: is_late,
        };
        if judgement == Judgement::Good && outcome != Outcome::Granted {
            let who = user.map_or_else(|| "a stranger".to_owned(), |user| format!("person {user}"));
            let device = self.twins[at].config.id;
            self.say(|| format!("{device}: {who} is good and gets {outcome:?}"));
        }
        self.tally.verdict(&verdict);
    }

    pub(super) fn visit(&mut self, at: usize, outlet: usize, number: u32, step: Step) {
        let place = &mut self.twins[at].places[outlet];
        if place.visit.as_ref().is_none_or(|visit| visit.number != number) {
            return;
        }
        match step {
            Step::Act => {
                place.physical.in_use = true;
                self.sense(at, outlet);
                let kind = self.twins[at].config.kind;
                // Some have enough before the battery or the vessel is full. A wash is never left.
                if kind != Kind::Washer && self.people_rng.u8(0..100) < 15 {
                    let most_ms = if kind == Kind::Dispenser {
                        20 * SECOND_MS
                    } else {
                        90 * MINUTE_MS
                    };
                    let ms = self.people_rng.u64(5 * SECOND_MS..most_ms);
                    self.visit_in(ms, (at, outlet, number), Step::Stop);
                }
            }
            Step::Stop => {
                if let Screen::Begin { .. } | Screen::Delivering { .. } = place.screen {
                    self.drive(at, Input::Button { outlet: outlet as u8 });
                }
            }
            Step::Leave => self.leave(at, outlet),
        }
    }

    /// He takes his things and goes. A programme that runs goes on.
    pub(super) fn leave(&mut self, at: usize, outlet: usize) {
        let kind = self.twins[at].config.kind;
        let place = &mut self.twins[at].places[outlet];
        if let Some(user) = place.visit.take().and_then(|visit| visit.user) {
            let person = &mut self.persons[user];
            person.open &= !bit(kind);
            person.not_before_ms = self.t_ms + REST_MS;
        }
        place.physical.in_use = false;
        self.sense(at, outlet);
    }

    /// The end: whoever charges unplugs, whoever draws water is done.
    pub(super) fn send_home(&mut self) {
        for at in 0..self.twins.len() {
            let kind = self.twins[at].config.kind;
            for outlet in 0..self.twins[at].places.len() {
                if self.twins[at].places[outlet].visit.is_some() && kind != Kind::Washer {
                    let number = self.twins[at].places[outlet]
                        .visit
                        .as_ref()
                        .map_or(0, |visit| visit.number);
                    let ms = self.people_rng.u64(0..20 * MINUTE_MS);
                    self.visit_in(ms, (at, outlet, number), Step::Leave);
                }
            }
        }
    }

    /// A person whose token was just revoked tries it, at a dispenser if there is one.
    pub(super) fn revoked_tries(&mut self, user: usize) {
        let gateway = self.persons[user].home;
        let kinds = [Kind::Dispenser, Kind::Charger, Kind::Washer];
        let found = kinds.into_iter().find_map(|kind| {
            let is_open = self.persons[user].open & bit(kind) != 0;
            (!is_open).then(|| self.pick_outlet(gateway, kind)).flatten()
        });
        if let Some((at, outlet)) = found {
            self.come(at, outlet, Some(user));
        }
    }
}

const fn bit(kind: Kind) -> u8 {
    1 << kind_index(kind)
}

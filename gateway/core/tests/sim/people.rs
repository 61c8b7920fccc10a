//! The people in the world: they come, present a card, do their part or not, and go.

use device::{Input, Screen};
use proto::{id::Kind, money::Units};

use crate::hub::MASTERS;
use crate::marks::Mark;
use crate::world::{MINUTE_MS, Next, SECOND_MS, Visit, World};

impl World {
    pub(crate) fn arrival(&mut self) {
        self.sometime(self.climate.arrival_ms, Next::Arrival);
        let at = self.random.below(self.twins.len() as u64) as usize;
        let outlet = self.random.below(self.twins[at].places.len() as u64) as usize;
        let token = self.random.below(self.cards.len() as u64) as usize;
        if self.twins[at].device.is_none() {
            return;
        }
        if self.twins[at].places[outlet].visit.is_some() {
            // Somebody tries his card at an occupied outlet.
            return self.try_occupied(at, outlet, token);
        }
        self.visits += 1;
        let leaves_early = self.random.chance(3_000);
        let stops_at_ms = match leaves_early {
            true => self.t_ms + self.random.range(5 * SECOND_MS, 20 * MINUTE_MS),
            false => u64::MAX,
        };
        let visit = Visit {
            token,
            number: self.visits,
            since_ms: self.t_ms,
            attempts: 1,
            stops_at_ms,
            acts: self.random.chance(9_200),
            acted: false,
            instrument: self.buy(at),
        };
        let plugs_first = self.random.chance(8_500);
        let physical = &mut self.twins[at].places[outlet].physical;
        match physical.kind {
            Kind::Charger => {
                physical.wanted = self.random.range(20, 4_000);
                physical.rate = self.random.range(200, 3_500);
                physical.in_use = plugs_first;
            }
            Kind::Dispenser => {
                physical.wanted = self.random.range(50, 7_000);
                physical.rate = self.random.range(20, 150);
            }
            Kind::Washer | Kind::Unknown => physical.cycle_ms = self.random.range(3 * MINUTE_MS, 50 * MINUTE_MS),
        }
        self.twins[at].places[outlet].visit = Some(visit);
        self.present(at, outlet);
        self.again(at, outlet, 2 * SECOND_MS);
    }

    /// A card at an outlet that somebody else uses: it ends his session if it is of his family, or a caretaker's.
    fn try_occupied(&mut self, at: usize, outlet: usize, card: usize) {
        self.sense(at, outlet);
        let session = |world: &Self| {
            world.twins[at]
                .device
                .as_ref()
                .and_then(|device| device.session(outlet as u8))
        };
        let before = session(self);
        let token = self.cards[card].clone();
        let input = Input::Token {
            outlet: outlet as u8,
            token,
            units_wished: Units::ZERO,
        };
        self.drive(at, input);
        let holder = before.and_then(|session| self.auditor.holder(&session));
        let (Some(holder), Some(_)) = (holder, &self.twins[at].device) else {
            return;
        };
        let group = |hash| {
            self.hub
                .tokens
                .iter()
                .find(|token| token.hash == hash)
                .map_or(0, |token| token.group)
        };
        let own = self.hub.tokens[card].hash;
        if own == holder {
        } else if session(self) == before {
            self.hit(Mark::StopOfAnotherTokenIgnored);
        } else {
            let may = group(own) == MASTERS || (group(own) == group(holder) && group(own) != 0);
            assert!(may, "the card of {own} ends the session of {holder}");
            self.hit(Mark::StoppedByAnotherToken);
        }
    }

    fn present(&mut self, at: usize, outlet: usize) {
        self.sense(at, outlet);
        let Some(visit) = &self.twins[at].places[outlet].visit else {
            return;
        };
        let (token, instrument) = (self.cards[visit.token].clone(), visit.instrument);
        let wished = match visit.number % 5 {
            0 => Units(u64::from(visit.number % 7) * 300),
            _ => Units::ZERO,
        };
        let outlet = outlet as u8;
        if let Some(sold) = instrument {
            return self.present_instrument(at, outlet, sold, wished);
        }
        let input = Input::Token {
            outlet,
            token,
            units_wished: wished,
        };
        self.drive(at, input);
    }

    fn again(&mut self, at: usize, outlet: usize, ms: u64) {
        if let Some(visit) = &self.twins[at].places[outlet].visit {
            let number = visit.number;
            self.after(ms, Next::Visit { at, outlet, number });
        }
    }

    /// The display changed: the person looks at it.
    pub(crate) fn nudge_visit(&mut self, at: usize, outlet: usize) {
        self.again(at, outlet, 300);
    }

    pub(crate) fn visit(&mut self, at: usize, outlet: usize, number: u32) {
        let place = &self.twins[at].places[outlet];
        let Some(visit) = place.visit.clone().filter(|visit| visit.number == number) else {
            return;
        };
        let waited_ms = self.t_ms - visit.since_ms;
        if self.twins[at].device.is_none() {
            return if waited_ms > 20 * MINUTE_MS || self.calm {
                self.leave(at, outlet);
            } else {
                self.again(at, outlet, 30 * SECOND_MS);
            };
        }
        if self.calm {
            return self.leave(at, outlet);
        }
        match place.screen {
            Screen::Begin { .. } => {
                if visit.acts && !visit.acted {
                    self.act_his_part(at, outlet);
                }
                self.again(at, outlet, 20 * SECOND_MS);
            }
            Screen::Delivering { .. } => self.delivering(at, outlet, &visit),
            Screen::Refused { retry_after_s, .. } => {
                let guesses = self.is_guesser(visit.instrument) && visit.attempts < 9;
                if guesses || (retry_after_s > 0 && visit.attempts < 4 && self.random.chance(5_000)) {
                    if let Some(visit) = &mut self.twins[at].places[outlet].visit {
                        visit.attempts += 1;
                    }
                    self.present(at, outlet);
                    self.again(at, outlet, 6 * SECOND_MS);
                } else {
                    self.leave(at, outlet);
                }
            }
            Screen::Asking | Screen::Recovering => {
                if self.random.chance(200) {
                    self.drive(at, Input::Button { outlet: outlet as u8 });
                }
                self.again(at, outlet, 5 * SECOND_MS);
            }
            Screen::Unavailable | Screen::Faulted(_) | Screen::Ended { .. } | Screen::Receipt { .. } | Screen::Free => {
                self.leave(at, outlet);
            }
        }
    }

    fn act_his_part(&mut self, at: usize, outlet: usize) {
        let place = &mut self.twins[at].places[outlet];
        place.physical.in_use = true;
        if let Some(visit) = &mut place.visit {
            visit.acted = true;
        }
        self.sense(at, outlet);
    }

    fn delivering(&mut self, at: usize, outlet: usize, visit: &Visit) {
        if self.random.chance(60) {
            self.twins[at].places[outlet].physical.leaking_until_ms = self.t_ms + 20 * SECOND_MS;
        }
        if self.t_ms < visit.stops_at_ms {
            let ms = (visit.stops_at_ms - self.t_ms).clamp(SECOND_MS, 30 * SECOND_MS);
            return self.again(at, outlet, ms);
        }
        match self.random.below(3) {
            0 => self.present(at, outlet),
            1 => self.drive(at, Input::Button { outlet: outlet as u8 }),
            _ => {
                self.twins[at].places[outlet].physical.in_use = false;
                self.sense(at, outlet);
            }
        }
        self.again(at, outlet, 30 * SECOND_MS);
    }

    /// He takes his plug and goes. A programme that runs goes on.
    fn leave(&mut self, at: usize, outlet: usize) {
        let place = &mut self.twins[at].places[outlet];
        place.visit = None;
        place.physical.in_use = false;
        self.sense(at, outlet);
    }
}

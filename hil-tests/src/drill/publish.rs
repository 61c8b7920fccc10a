//! What the operator publishes while the drill runs, and what somebody would like to pass off as his.

use gateway_core::Input;
use hub::core::{Catalogue, Effect};
use proto::trust::{ArtifactKind, Issuer};

use super::{
    bridge,
    scenario::{ListFlaw, Published},
    world::{Next, World},
};

/// A file takes so long to be carried in, in ms.
const BY_FILE_MS: u64 = 500;
/// A revoked person tries again so long after the revocation, in ms: at the very end of what it may take, and later.
const TRIES_AFTER_MS: [u64; 3] = [5_500, 90_000, 1_200_000];

impl World<'_> {
    pub(super) fn publish(&mut self, event: usize) {
        let happening = self.scenario.events[event].clone();
        match happening.what {
            Published::List => {
                let effects = self.hub_list_now();
                self.spread_news(effects, happening.by_file);
            }
            Published::Leavers { percent } => {
                let leaving = self.persons.len() * usize::from(percent) / 100;
                // Who really leaves has not been seen lately; a list without people who were here today is set aside.
                let mut away: Vec<usize> = (0..self.persons.len())
                    .filter(|user| self.persons[*user].is_unseen())
                    .collect();
                self.people_rng.shuffle(&mut away);
                for user in away.into_iter().take(leaving) {
                    self.persons[user].has_left = true;
                }
                let tokens = Some(bridge::tokens(&self.persons));
                let effects = self.import(Catalogue {
                    tokens,
                    ..Catalogue::default()
                });
                self.spread_news(effects, happening.by_file);
            }
            Published::BadList(flaw) => self.publish_bad_list(flaw),
            Published::Revocations { count } => self.revoke(count, happening.by_file),
            Published::ForgedRevocations { count } => {
                let honest = self.persons.iter().take(count as usize).map(|person| person.hash);
                let tokens: Vec<_> = honest.collect();
                let forged = bridge::forged_revocations(&self.hub.issuer, &forger(), &tokens);
                for gateway in 0..self.shells.len() {
                    for signed in &forged {
                        let verified = bridge::verify(signed, &[self.hub.issuer.key()]);
                        self.deliver(gateway, BY_FILE_MS, verified);
                    }
                }
            }
        }
    }

    /// The hub makes a new list with the balances of this moment.
    fn hub_list_now(&mut self) -> Vec<Effect> {
        // An account that nobody uses: something changed, so a new list is due.
        let accounts = [(u64::MAX, proto::money::Money(self.t_ms as i64))];
        self.import(Catalogue {
            accounts: accounts.into_iter().collect(),
            ..Catalogue::default()
        })
    }

    fn publish_bad_list(&mut self, flaw: ListFlaw) {
        let Some(list) = self.hub.core.list().cloned() else {
            return;
        };
        self.hub.false_lists += 1;
        let number = self.hub.false_lists;
        let Some(signed) = bridge::bad_list(&self.hub.issuer, &forger(), &list, flaw, number) else {
            return;
        };
        for gateway in 0..self.shells.len() {
            let verified = bridge::verify(&signed, &[self.hub.issuer.key()]);
            self.deliver(gateway, BY_FILE_MS, verified);
        }
    }

    /// Some people who could use their tokens until now; they try on.
    fn revoke(&mut self, count: u32, by_file: bool) {
        let mut users = Vec::new();
        for _ in 0..self.persons.len() * 2 {
            let user = self.people_rng.usize(..self.persons.len());
            let person = &self.persons[user];
            let usable = person.is_valid && !person.is_revoked && !person.has_left;
            if usable && !users.contains(&user) && users.len() < count as usize {
                users.push(user);
            }
        }
        let revocations = bridge::revocations(users.iter().map(|user| &self.persons[*user]));
        let effects = self.import(Catalogue {
            revocations,
            ..Catalogue::default()
        });
        for &user in &users {
            self.persons[user].is_revoked = true;
            for ms in TRIES_AFTER_MS {
                self.after(BY_FILE_MS + ms, Next::RevokedTries { user });
            }
        }
        self.spread_news(effects, by_file);
    }

    /// An artifact whose signature fits is handed to a gateway.
    pub(super) fn handed_over(&mut self, gateway: usize, input: &Input) {
        if let Input::Revocations(set) = input {
            for entry in &set.entries {
                self.oracle.revokes(gateway, &entry.token, self.t_ms);
            }
        }
        self.put(gateway, input);
    }

    /// By the link to whoever can hear it; or as files, which pass every cloud. Lists wait for the link.
    fn spread_news(&mut self, effects: Vec<Effect>, by_file: bool) {
        if !by_file {
            return self.publish_effects(effects);
        }
        for effect in effects {
            let Effect::Announce { kind, revision, base } = effect else {
                continue;
            };
            let urgent = kind == ArtifactKind::Revocations;
            let keys = [self.hub.issuer.key()];
            let Some(signed) = self.hub.artifact(kind, revision, 0).cloned().filter(|_| urgent) else {
                self.publish_effects(vec![Effect::Announce { kind, revision, base }]);
                continue;
            };
            for gateway in 0..self.shells.len() {
                let verified = bridge::verify(&signed, &keys);
                self.deliver(gateway, BY_FILE_MS, verified);
            }
        }
    }
}

/// Somebody with a key of his own.
fn forger() -> Issuer {
    Issuer::from_seed(&[66; 32])
}

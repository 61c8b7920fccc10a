//! A gateway introduces itself: version, epoch, and what it still lacks.

use proto::{
    VERSION,
    id::{GatewayId, Hash},
    link::{LinkHello, Welcome},
    trust::ArtifactKind,
};

use super::{Alarm, Decision, Effect, Event, Hub, Now, lease, state::REVOCATION_WINDOW};

impl Hub {
    pub(super) fn decide_hello(&self, now: Now, gateway: GatewayId, counter: u64, hello: &LinkHello) -> Decision {
        let mut decision = Decision::default();
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            decision.effects.push(Effect::Alarm(Alarm::Version {
                gateway,
                version_min: hello.version_min,
                version_max: hello.version_max,
            }));
            decision.effects.push(self.welcome(now, gateway, 0));
            return decision;
        }
        let row = self.gateways.get(&gateway);
        let forgot = row.is_some_and(|row| row.epoch == hello.epoch && hello.head < row.upto);
        let expected = match row {
            // Records that are committed here are unknown there: what it would upload next has their numbers.
            Some(row) if forgot => row.epoch.saturating_add(1),
            Some(row) => row.epoch.max(hello.epoch),
            None => hello.epoch,
        };
        if hello.epoch < expected {
            decision.effects.push(Effect::Alarm(Alarm::Fenced {
                gateway,
                found: hello.epoch,
                expected,
            }));
        }
        if forgot {
            decision.events.push(Event::GatewayFenced {
                gateway,
                epoch_from: hello.epoch,
                epoch: expected,
                counter,
            });
            decision.effects.push(Effect::Welcome {
                gateway,
                welcome: Welcome {
                    version: VERSION,
                    epoch: expected,
                    upto: 0,
                    hash: Hash::ZERO,
                    wall_s: now.wall_s,
                    ..self.newest()
                },
                is_agreed: false,
            });
            return decision;
        }
        if hello.epoch < expected {
            decision.effects.push(self.welcome(now, gateway, VERSION));
            return decision;
        }
        let (upto, hash) = match row {
            Some(row) if row.epoch == hello.epoch => (row.upto, row.hash),
            Some(_) | None => (0, Hash::ZERO),
        };
        decision.events.push(Event::GatewaySeen {
            gateway,
            epoch: hello.epoch,
            boot: hello.boot,
            counter,
        });
        decision.effects.push(Effect::Welcome {
            gateway,
            welcome: Welcome {
                version: VERSION,
                epoch: hello.epoch,
                upto,
                hash,
                wall_s: now.wall_s,
                ..self.newest()
            },
            is_agreed: true,
        });
        self.send_newer(gateway, hello, &mut decision);
        self.dispatch_again(gateway, &mut decision);
        decision
            .effects
            .extend(lease::withheld(self, gateway, hello.epoch).map(Effect::Alarm));
        decision
    }

    /// Where the hub stands with a gateway that stands elsewhere.
    pub(super) fn welcome(&self, now: Now, gateway: GatewayId, version: u8) -> Effect {
        let row = self.gateways.get(&gateway).cloned().unwrap_or_default();
        Effect::Welcome {
            gateway,
            welcome: Welcome {
                version,
                epoch: row.epoch,
                upto: row.upto,
                hash: row.hash,
                wall_s: now.wall_s,
                ..self.newest()
            },
            is_agreed: false,
        }
    }

    /// The newest revisions: a gateway that lacks them sends its records after it has them.
    fn newest(&self) -> Welcome {
        Welcome {
            list_revision: self.list.as_ref().map_or(0, |list| list.revision),
            revocations_revision: self.revocations_revision(),
            tariffs_revision: self.tariff_table.as_ref().map_or(0, |table| table.revision),
            ..Welcome::default()
        }
    }

    /// Keys first, because they sign the rest; then revocations: whatever else arrives must not revive what is revoked.
    fn send_newer(&self, gateway: GatewayId, hello: &LinkHello, decision: &mut Decision) {
        let mut send = |kind, revision, base| {
            decision.effects.push(Effect::Artifact {
                gateway,
                kind,
                revision,
                base,
            });
        };
        // A gateway does not say which keys it has: they are few, and one that it has it ignores.
        if let Some(set) = &self.keys {
            send(ArtifactKind::Keys, set.epoch, 0);
        }
        for revision in self.revocations_to_send(hello.revocations_revision) {
            send(ArtifactKind::Revocations, revision, 0);
        }
        let tariffs = self.tariff_table.as_ref().map_or(0, |table| table.revision);
        if tariffs > hello.tariffs_revision {
            send(ArtifactKind::Tariffs, tariffs, 0);
        }
        if let Some(policy) = self.policy_to_send(hello) {
            send(ArtifactKind::Policy, policy, 0);
        }
        if let Some(leases) = self
            .leases_of(gateway)
            .filter(|leases| leases.revision > hello.leases_revision)
        {
            send(ArtifactKind::Lease, leases.revision, 0);
        }
        let list = self.list.as_ref().map_or(0, |list| list.revision);
        if list > hello.list_revision {
            send(ArtifactKind::List, list, hello.list_revision);
        }
        let held = [
            (
                ArtifactKind::Revocations,
                hello.revocations_revision,
                self.revocations_revision(),
            ),
            (ArtifactKind::Tariffs, hello.tariffs_revision, tariffs),
            (ArtifactKind::List, hello.list_revision, list),
            (
                ArtifactKind::Policy,
                hello.policy_revision,
                self.policy().map_or(0, |policy| policy.revision),
            ),
        ];
        for (kind, found, newest) in held {
            if found > newest {
                decision.effects.push(Effect::Alarm(Alarm::Ahead {
                    gateway,
                    kind,
                    found,
                    newest,
                }));
            }
        }
    }

    /// The fewest published windows that together hold everything newer than `known`, in order.
    pub(super) fn revocations_to_send(&self, known: u64) -> Vec<u64> {
        let mut covered = self
            .revocation_ends
            .iter()
            .rfind(|(revision, _)| *revision <= known)
            .map_or(0, |(_, end)| *end);
        let mut revisions = Vec::new();
        while covered < self.revocations_published() {
            let (revision, end) = self
                .revocation_ends
                .iter()
                .rfind(|(_, end)| end.saturating_sub(REVOCATION_WINDOW) <= covered)
                .expect("each window begins where the one before it ended, or earlier");
            revisions.push(*revision);
            covered = *end;
        }
        revisions
    }
}

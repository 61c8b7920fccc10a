//! The operator's limits: published once they change, under a revision of their own, and sent to whoever has older ones.

use proto::{link::LinkHello, policy::Policy, trust::ArtifactKind};

use super::{Decision, Effect, Event, Hub, Now};

impl Hub {
    /// The limits in force; `None`: each gateway goes by its own configuration.
    #[must_use]
    pub const fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// Publishes what the operator wants if it differs from what is published. Returns whether it does.
    pub(super) fn publish_policy(&self, now: Now, wanted: Option<&Policy>, decision: &mut Decision) -> bool {
        let Some(wanted) = wanted else { return false };
        let published = self.policy.as_ref();
        let same = published.is_some_and(|published| {
            let (revision, issued_s) = (published.revision, published.issued_s);
            *published
                == Policy {
                    revision,
                    issued_s,
                    ..wanted.clone()
                }
        });
        if same {
            return false;
        }
        let policy = Policy {
            revision: published.map_or(0, |policy| policy.revision) + 1,
            issued_s: now.wall_s,
            ..wanted.clone()
        };
        let (kind, revision) = (ArtifactKind::Policy, policy.revision);
        decision.events.push(Event::PolicyPublished { policy });
        decision.effects.push(Effect::Announce {
            kind,
            revision,
            base: 0,
        });
        true
    }

    /// The revision that a gateway lacks.
    pub(super) fn policy_to_send(&self, hello: &LinkHello) -> Option<u64> {
        let revision = self.policy.as_ref().map_or(0, |policy| policy.revision);
        (revision > hello.policy_revision).then_some(revision)
    }
}

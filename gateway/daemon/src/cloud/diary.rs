//! What a link lives through, for the operator: a trouble that repeats is told once in a while, by its name.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use carrier::{Class, Symptom};
use tokio::time::Instant;

use crate::cloud::board::Stage;

/// The same trouble is told again after so long.
const TELL_EVERY: Duration = Duration::from_secs(600);
/// In this time ends of connections are counted.
const WINDOW: Duration = Duration::from_secs(300);
/// So many are a loop, or somebody with our identity.
const ENDS_MAX: usize = 3;
/// A connection that ended sooner was no connection.
const SHORT: Duration = Duration::from_secs(15);

/// One link's.
#[derive(Debug, Default)]
pub(super) struct Diary {
    told: BTreeMap<&'static str, Instant>,
    takeovers: VecDeque<Instant>,
    short: VecDeque<Instant>,
    has_worked: bool,
}

impl Diary {
    /// The operator's backend answered through this cloud.
    pub(super) const fn worked(&mut self) {
        self.has_worked = true;
    }

    /// Whether it ever did, since this process began.
    #[must_use]
    pub(super) const fn has_worked(&self) -> bool {
        self.has_worked
    }

    /// A connection ended, `was`: how far it had come.
    pub(super) fn ended(&mut self, cloud: &str, why: &Symptom, was: Stage, lasted: Duration) {
        if why.class == Class::Duplicate && is_often(&mut self.takeovers) {
            self.tell(
                cloud,
                "DUPLICATE_IDENTITY",
                "somebody else uses the identity of this gateway: look for a cloned image",
            );
        }
        if was > Stage::Down && lasted < SHORT && is_often(&mut self.short) {
            self.tell(
                cloud,
                "LOGIN_LOOP",
                "the cloud takes the login and closes the connection, again and again",
            );
        }
        self.symptom(cloud, why);
    }

    /// Something is not well.
    pub(super) fn symptom(&mut self, cloud: &str, symptom: &Symptom) {
        let advice = match symptom.class {
            Class::Denied if self.has_worked => {
                "the cloud denies an identity that it took before: an outage of its own, cached trust stays"
            }
            Class::Denied => "the cloud has never taken this identity: look at its configuration and secrets",
            Class::Claimed => {
                "the cloud says so and signs nothing: nothing is blocked; revoke it at the hub if it is true"
            }
            Class::Intercepted => {
                "somebody else answers in the cloud's place: a captive portal, a proxy, a foreign certificate"
            }
            Class::Clock => {
                "a certificate's dates do not fit our clock: look at the clock first, then at the certificates"
            }
            Class::Duplicate => "the cloud says that somebody else uses our identity",
            Class::Protocol => "the cloud does not understand us: a fault of configuration or of this software",
            Class::Billing => "the cloud wants to be paid",
            Class::HalfDead => "the cloud takes messages, but nobody behind it answers",
            Class::Partition | Class::Throttled | Class::Broken | Class::SessionLost => {
                tracing::debug!(cloud, %symptom, "the cloud is not well");
                return;
            }
        };
        let text = format!("{symptom}; {advice}");
        self.tell(cloud, symptom.class.word(), &text);
    }

    fn tell(&mut self, cloud: &str, what: &'static str, text: &str) {
        let now = Instant::now();
        if self.told.get(what).is_some_and(|at| now - *at < TELL_EVERY) {
            return;
        }
        self.told.insert(what, now);
        tracing::warn!(cloud, what, "ALARM {text}");
    }
}

/// One more; whether there were many lately.
fn is_often(times: &mut VecDeque<Instant>) -> bool {
    let now = Instant::now();
    times.push_back(now);
    while times.len() > ENDS_MAX || times.front().is_some_and(|at| now - *at > WINDOW) {
        times.pop_front();
    }
    times.len() == ENDS_MAX
}

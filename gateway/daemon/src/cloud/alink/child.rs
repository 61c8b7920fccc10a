//! One sub-device: where it stands at the cloud, and when something may next be asked for it. Whatever the cloud says, the
//! device stays: here it is only decided how soon to ask again.

use std::collections::VecDeque;

use proto::id::DeviceId;
use serde::Serialize;

use super::{
    envelope::Identity,
    sign::{Method, Secret, TIMESTAMP_MS},
};

/// Logins of one sub-device within [`MINUTE_MS`]; one more and the cloud throttles.
const LOGINS_A_MINUTE_MAX: usize = 5;
/// The cloud's minute.
const MINUTE_MS: u64 = 60_000;
/// First ceiling of a wait; doubles with every try.
const WAIT_FIRST_MS: u64 = 2_000;
/// Longest wait.
pub(super) const WAIT_MAX_MS: u64 = 300_000;
/// A session that lasted so long was good.
const STABLE_MS: u64 = 60_000;

/// A random part of a wait; one for a whole group, so that it stays together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw(u64);

/// In how many steps.
const DRAW_STEPS: u64 = 1 << 16;

impl Draw {
    pub(super) fn new(random: &mut fastrand::Rng) -> Self {
        Self(random.u64(0..=DRAW_STEPS))
    }

    const fn of(self, ceiling_ms: u64) -> u64 {
        ceiling_ms.saturating_mul(self.0) / DRAW_STEPS
    }
}

/// One device of the site, as the cloud knows it.
#[derive(Clone, Debug)]
pub struct Child {
    /// Our name of it.
    pub device: DeviceId,
    /// The cloud's name of it.
    pub identity: Identity,
    /// What it proves itself with.
    pub secret: Secret,
}

/// Where it stands at the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not in our topology, as far as we know.
    Absent,
    /// Being added to it.
    Adding,
    /// In it, without a session.
    Present,
    /// Being logged in.
    LoggingIn,
    /// Logged in.
    Online {
        /// Since when.
        since_ms: u64,
    },
}

/// A sub-device, over all connections.
#[derive(Debug)]
pub(super) struct State {
    pub(super) child: Child,
    pub(super) stage: Stage,
    /// Nothing is asked for it before.
    due_ms: u64,
    /// Tries since something went well.
    tries: u32,
    /// The logins of the last minute.
    logins: VecDeque<u64>,
    /// The cloud had it in our topology once.
    pub(super) was_present: bool,
    /// It was logged in once: what the cloud says against it now contradicts what it said before.
    pub(super) was_good: bool,
    /// When the cloud last spoke against it, since it was good.
    pub(super) denied_ms: Option<u64>,
    /// When that was last told.
    pub(super) named_ms: Option<u64>,
    /// Largest group in which it is asked for: halved while somebody unknown in its group is refused.
    pub(super) group_max: usize,
}

impl State {
    pub(super) const fn new(child: Child) -> Self {
        Self {
            child,
            stage: Stage::Absent,
            due_ms: 0,
            tries: 0,
            logins: VecDeque::new(),
            was_present: false,
            was_good: false,
            denied_ms: None,
            named_ms: None,
            group_max: usize::MAX,
        }
    }

    /// A connection begins: no session has outlived the one before. What the cloud made us wait for, we still wait for.
    pub(super) const fn forget_session(&mut self) {
        self.stage = match self.stage {
            Stage::Absent | Stage::Adding => Stage::Absent,
            Stage::Present | Stage::LoggingIn | Stage::Online { .. } => Stage::Present,
        };
    }

    /// When something may be asked for it.
    pub(super) fn due_ms(&self) -> u64 {
        match self.logins.front() {
            Some(first) if self.logins.len() >= LOGINS_A_MINUTE_MAX => self.due_ms.max(first + MINUTE_MS),
            Some(_) | None => self.due_ms,
        }
    }

    /// A login is asked for.
    pub(super) fn begin_login(&mut self, now_ms: u64) {
        self.stage = Stage::LoggingIn;
        if self.logins.len() >= LOGINS_A_MINUTE_MAX {
            self.logins.pop_front();
        }
        self.logins.push_back(now_ms);
    }

    /// It is logged in.
    pub(super) fn logged_in(&mut self, now_ms: u64) {
        self.stage = Stage::Online { since_ms: now_ms };
        self.was_present = true;
        self.was_good = true;
        self.denied_ms = None;
        self.group_max = usize::MAX;
    }

    /// Its session is gone. One that was short counts as a try: 520 after each login must not become a loop.
    pub(super) fn lost_session(&mut self, now_ms: u64, draw: Draw) {
        if let Stage::Online { since_ms } = self.stage {
            if now_ms.saturating_sub(since_ms) >= STABLE_MS {
                self.tries = 0;
            }
            self.stage = Stage::Present;
            self.back_off(now_ms, draw);
        }
    }

    /// It went wrong: again after a random part of a ceiling that doubles.
    pub(super) fn back_off(&mut self, now_ms: u64, draw: Draw) {
        let ceiling_ms = WAIT_FIRST_MS.saturating_mul(1 << self.tries.min(16)).min(WAIT_MAX_MS);
        self.tries = self.tries.saturating_add(1);
        self.due_ms = now_ms + draw.of(ceiling_ms);
    }

    /// Again after a random part of so long, whatever was before.
    pub(super) const fn wait(&mut self, now_ms: u64, at_most_ms: u64, draw: Draw) {
        self.due_ms = now_ms + draw.of(at_most_ms);
    }

    /// As if nothing had gone wrong before.
    pub(super) const fn forget_tries(&mut self) {
        self.tries = 0;
    }

    fn client(&self) -> String {
        let Identity {
            product_key,
            device_name,
        } = &self.child.identity;
        format!("{product_key}&{device_name}")
    }

    fn sign(&self, client: &str, method: Method) -> String {
        let Identity {
            product_key,
            device_name,
        } = &self.child.identity;
        method.sign_login(&self.child.secret, client, device_name, product_key)
    }

    /// What a login of it says.
    pub(super) fn login(&self, method: Method) -> Login<'_> {
        let client_id = self.client();
        Login {
            product_key: &self.child.identity.product_key,
            device_name: &self.child.identity.device_name,
            sign: self.sign(&client_id, method),
            client_id,
            timestamp: TIMESTAMP_MS,
            sign_method: method.word(),
            clean_session: "true",
        }
    }

    /// What its addition to the topology says.
    pub(super) fn addition(&self, method: Method) -> Addition<'_> {
        let client_id = self.client();
        Addition {
            product_key: &self.child.identity.product_key,
            device_name: &self.child.identity.device_name,
            sign: self.sign(&client_id, method),
            client_id,
            timestamp: TIMESTAMP_MS,
            signmethod: method.topology_word(),
        }
    }
}

/// A login in the cloud's words.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Login<'a> {
    product_key: &'a str,
    device_name: &'a str,
    client_id: String,
    timestamp: &'a str,
    sign_method: &'a str,
    sign: String,
    clean_session: &'a str,
}

/// An addition in the cloud's words; it spells one key otherwise here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Addition<'a> {
    product_key: &'a str,
    device_name: &'a str,
    client_id: String,
    timestamp: &'a str,
    signmethod: &'a str,
    sign: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let identity = Identity {
            product_key: "a1Zz9Yy8Xx7".to_owned(),
            device_name: "washer-07".to_owned(),
        };
        State::new(Child {
            device: DeviceId::new("washer-7").unwrap(),
            identity,
            secret: Secret("fedcba9876543210fedcba9876543210".to_owned()),
        })
    }

    #[test]
    fn never_more_than_five_logins_a_minute_whatever_the_cloud_does() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut state, mut now_ms, mut logins) = (state(), 0, Vec::new());
            state.stage = Stage::Present;
            for _ in 0..200 {
                now_ms = now_ms.max(state.due_ms());
                state.begin_login(now_ms);
                logins.push(now_ms);
                now_ms += random.u64(0..90_000);
                let draw = Draw::new(&mut random);
                match random.u8(0..3) {
                    0 => state.back_off(now_ms, draw),
                    1 => state.wait(now_ms, 2_000, draw),
                    _ => {
                        state.logged_in(now_ms);
                        now_ms += random.u64(0..90_000);
                        state.lost_session(now_ms, draw);
                    }
                }
            }
            for six in logins.windows(LOGINS_A_MINUTE_MAX + 1) {
                assert!(six[LOGINS_A_MINUTE_MAX] - six[0] >= MINUTE_MS, "seed {seed}: {six:?}");
            }
        }
    }

    #[test]
    fn only_a_session_that_lasted_makes_the_next_wait_short() {
        let ceilings = |lasted_ms: u64| {
            let mut random = fastrand::Rng::with_seed(1);
            let mut state = state();
            for round in 0..12 {
                state.logged_in(round * 1_000_000);
                state.lost_session(round * 1_000_000 + lasted_ms, Draw::new(&mut random));
            }
            state.tries
        };
        assert_eq!(ceilings(STABLE_MS), 1);
        assert_eq!(ceilings(STABLE_MS - 1), 12);
    }

    #[test]
    fn login_and_addition_in_the_clouds_spelling() {
        let state = state();
        let login = serde_json::to_value(state.login(Method::HmacSha1)).unwrap();
        for (key, expected) in [
            ("clientId", "a1Zz9Yy8Xx7&washer-07"),
            ("signMethod", "hmacsha1"),
            ("cleanSession", "true"),
            ("timestamp", TIMESTAMP_MS),
        ] {
            assert_eq!(login[key], expected);
        }
        let addition = serde_json::to_value(state.addition(Method::HmacSha1)).unwrap();
        assert_eq!(addition["signmethod"], "hmacSha1");
        assert_eq!(addition["sign"], login["sign"]);
        assert!(addition.get("cleanSession").is_none());
    }
}

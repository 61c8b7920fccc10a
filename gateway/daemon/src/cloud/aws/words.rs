//! What shadow and jobs have in common: tokens that tie an answer to its question, waits, and errors.

use carrier::{Class, Qos, Symptom};
use serde::{Deserialize, Serialize};

use crate::cloud::{
    adapter::{Heard, Out},
    wrap::{self, CODE_MALFORMED},
};

/// An answer that has not come after so long does not come.
const ANSWER_MS: u64 = 10_000;
/// First ceiling of a wait; doubles with every try.
const WAIT_FIRST_MS: u64 = 2_000;
/// Longest wait.
const WAIT_MAX_MS: u64 = 300_000;

/// Marks of our questions, and what is random.
#[derive(Debug)]
pub(super) struct Tokens {
    count: u64,
    random: fastrand::Rng,
}

impl Tokens {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            count: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// A new one. It is no secret: whoever may publish here may answer as well.
    fn next(&mut self) -> String {
        self.count += 1;
        format!("holdfast-{}", self.count)
    }
}

/// What one step works with.
pub(super) struct Turn<'a> {
    pub(super) now_ms: u64,
    pub(super) tokens: &'a mut Tokens,
    pub(super) out: &'a mut Out,
}

impl Turn<'_> {
    pub(super) fn say(&mut self, class: Class, code: u16, text: impl AsRef<str>) {
        self.out.say(Heard::Symptom(Symptom::new(class, code, text)));
    }

    pub(super) fn complain(&mut self, text: impl AsRef<str>) {
        self.say(Class::Protocol, CODE_MALFORMED, text);
    }

    /// Reads a message; complains and has nothing if it is none.
    pub(super) fn read<'a, T: Deserialize<'a>>(&mut self, about: &str, payload: &'a [u8]) -> Option<T> {
        match wrap::json(payload) {
            Ok(read) => Some(read),
            Err(error) => {
                self.complain(format!("{about}: {error}"));
                None
            }
        }
    }
}

/// A question on its way, or when the next one may be asked.
#[derive(Debug, Default)]
pub(super) struct Pending {
    token: Option<String>,
    deadline_ms: u64,
    tries: u32,
    /// When to ask again; `None`: nobody wants to know.
    again_ms: Option<u64>,
}

impl Pending {
    /// The connection is gone; how often it went wrong is not.
    pub(super) fn lost(&mut self) {
        self.token = None;
        self.again_ms = None;
    }

    pub(super) const fn is_asked(&self) -> bool {
        self.token.is_some()
    }

    /// Asks. `question` gets the token.
    pub(super) fn ask<T: Serialize>(&mut self, turn: &mut Turn<'_>, topic: String, question: impl FnOnce(String) -> T) {
        let token = turn.tokens.next();
        let payload = serde_json::to_vec(&question(token.clone())).expect("plain structs are JSON");
        turn.out.publish(topic, payload, Qos::AtLeastOnce);
        self.token = Some(token);
        self.again_ms = None;
        self.deadline_ms = turn.now_ms + ANSWER_MS;
    }

    /// Whether this answers our question; then nothing is asked any more.
    pub(super) fn is_answer(&mut self, token: Option<&String>) -> bool {
        let is_ours = self.token.is_some() && self.token.as_ref() == token;
        if is_ours {
            self.token = None;
        }
        is_ours
    }

    /// It went well.
    pub(super) const fn went_well(&mut self) {
        self.tries = 0;
    }

    /// It did not: again after a random part of a ceiling that doubles. How often in a row now.
    pub(super) fn failed(&mut self, turn: &mut Turn<'_>) -> u32 {
        let ceiling_ms = WAIT_FIRST_MS.saturating_mul(1 << self.tries.min(16)).min(WAIT_MAX_MS);
        self.tries = self.tries.saturating_add(1);
        self.token = None;
        self.again_ms = Some(turn.now_ms + turn.tokens.random.u64(0..=ceiling_ms));
        self.tries
    }

    /// When something is due.
    pub(super) fn tick_at(&self) -> Option<u64> {
        self.token.as_ref().map(|_| self.deadline_ms).or(self.again_ms)
    }

    /// Whether it is time to ask again. Silence counts as a failure, and three in a row are told.
    pub(super) fn is_due(&mut self, turn: &mut Turn<'_>, about: &str) -> bool {
        if self.token.is_some() && self.deadline_ms <= turn.now_ms && self.failed(turn) == SILENT_MIN {
            turn.say(
                Class::Partition,
                0,
                format!("{about}: no answer to {SILENT_MIN} questions in a row"),
            );
        }
        self.token.is_none() && self.again_ms.is_some_and(|at| at <= turn.now_ms)
    }
}

/// So many questions in a row without an answer are silence.
const SILENT_MIN: u32 = 3;

/// An error in the cloud's words: a number for shadows, a name for jobs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ErrorDocument {
    pub(super) code: Code,
    #[serde(default)]
    pub(super) message: String,
    pub(super) client_token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Code {
    Number(u16),
    Name(String),
}

/// What an error is worth, and the code of HTTP that is nearest.
pub(super) fn class(code: &Code) -> (Class, u16) {
    match code {
        Code::Number(number) => (
            match number {
                401 | 403 => Class::Denied,
                429 => Class::Throttled,
                400 | 404 | 405 | 409 | 413 | 415 | 422 => Class::Protocol,
                _ => Class::Broken,
            },
            *number,
        ),
        Code::Name(name) => match name.as_str() {
            "RequestThrottled" => (Class::Throttled, 429),
            "InvalidTopic" | "InvalidJson" | "InvalidRequest" => (Class::Protocol, 400),
            "InvalidStateTransition" | "VersionMismatch" | "TerminalStateReached" => (Class::Protocol, 409),
            "ResourceNotFound" => (Class::Protocol, 404),
            "Forbidden" | "Unauthorized" | "NotAuthorized" => (Class::Denied, 403),
            _ => (Class::Broken, 500),
        },
    }
}

impl ErrorDocument {
    /// As a symptom.
    pub(super) fn say(&self, turn: &mut Turn<'_>, about: &str) {
        let (class, code) = class(&self.code);
        let name = match &self.code {
            Code::Number(number) => number.to_string(),
            Code::Name(name) => name.clone(),
        };
        turn.say(class, code, format!("{about}: {name} {}", self.message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_class() {
        let number = |numbers: &[u16], expected: Class| {
            for number in numbers {
                assert_eq!(class(&Code::Number(*number)), (expected, *number));
            }
        };
        number(&[400, 404, 409, 413, 415], Class::Protocol);
        number(&[401, 403], Class::Denied);
        number(&[429], Class::Throttled);
        number(&[500, 503], Class::Broken);
        let name = |names: &[&str], expected: Class, code: u16| {
            for name in names {
                assert_eq!(class(&Code::Name((*name).to_owned())), (expected, code));
            }
        };
        name(&["RequestThrottled"], Class::Throttled, 429);
        name(&["InvalidTopic", "InvalidJson", "InvalidRequest"], Class::Protocol, 400);
        name(
            &["InvalidStateTransition", "VersionMismatch", "TerminalStateReached"],
            Class::Protocol,
            409,
        );
        name(&["ResourceNotFound"], Class::Protocol, 404);
        name(&["InternalError", "SomethingNew"], Class::Broken, 500);
    }
}

//! What every message of this cloud is wrapped in, read as loosely as the cloud writes it: numbers as text, codes of two
//! kinds, `data` as object, list, empty text or nothing.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::cloud::wrap;

/// Longest message that is read, in bytes: the cloud's own limit.
pub(super) const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Longest id of theirs that is repeated to them, in characters; their own have 10 digits.
const ID_CHARS_MAX: usize = 32;
/// The only version there is.
const VERSION: &str = "1.0";

/// Something that is a number in one message and a text in the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loose(String);

impl Loose {
    /// As a number.
    #[must_use]
    pub(super) fn number<T: std::str::FromStr>(&self) -> Option<T> {
        self.0.trim().parse().ok()
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Loose;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or a whole number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Loose, E> {
                if text.chars().count() > ID_CHARS_MAX {
                    return Err(E::custom(format_args!("a text above {ID_CHARS_MAX} characters")));
                }
                Ok(Loose(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Loose, E> {
                Ok(Loose(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Loose, E> {
                Ok(Loose(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A request of theirs or a reply to one of ours.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope {
    /// Which request.
    pub(super) id: Option<Loose>,
    /// How it went: in replies and errors.
    pub(super) code: Option<Loose>,
    /// In their words.
    pub(super) message: Option<String>,
    /// What a reply brings.
    #[serde(default)]
    pub(super) data: Value,
    /// What a request is about.
    #[serde(default)]
    pub(super) params: Value,
    /// What a request wants.
    pub(super) method: Option<String>,
}

impl Envelope {
    /// Reads a message.
    ///
    /// # Errors
    /// Why it is none, in a sentence.
    pub(super) fn read(payload: &[u8]) -> Result<Self, String> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(format!(
                "a message of {} bytes is longer than {PAYLOAD_BYTES_MAX}",
                payload.len()
            ));
        }
        wrap::json(payload)
    }

    /// The id, if it is one of ours.
    #[must_use]
    pub(super) fn own_id(&self) -> Option<u32> {
        self.id.as_ref()?.number()
    }

    /// The id as it came, for the reply.
    #[must_use]
    pub(super) fn their_id(&self) -> &str {
        self.id.as_ref().map_or("0", |id| &id.0)
    }

    /// The code; `None` if there is none, or none that is a number.
    #[must_use]
    pub(super) fn code(&self) -> Option<u32> {
        self.code.as_ref()?.number()
    }

    /// Their words, or none.
    #[must_use]
    pub(super) fn words(&self) -> &str {
        self.message.as_deref().unwrap_or("")
    }
}

/// The devices that a `data` or `params` names: one, a list, or a list within; anything else names none.
#[must_use]
pub(super) fn devices(value: &Value) -> Vec<Identity> {
    match value {
        Value::Array(list) => list.iter().filter_map(identity).collect(),
        Value::Object(object) => match object.get("subList").or_else(|| object.get("deviceList")) {
            Some(list) => devices(list),
            None => identity(value).into_iter().collect(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn identity(value: &Value) -> Option<Identity> {
    let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
    Some(Identity {
        product_key: text("productKey")?,
        device_name: text("deviceName")?,
    })
}

/// How the cloud calls a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Of the product it is one of.
    pub product_key: String,
    /// Its own.
    pub device_name: String,
}

/// A request of ours.
#[derive(Serialize)]
pub(super) struct Request<'a, P> {
    /// Its number.
    pub(super) id: String,
    version: &'static str,
    sys: Sys,
    params: P,
    method: &'a str,
}

#[derive(Serialize)]
struct Sys {
    ack: u8,
}

impl<'a, P: Serialize> Request<'a, P> {
    /// With a reply wanted, or none.
    pub(super) fn new(id: u32, method: &'a str, params: P, is_answered: bool) -> Self {
        Self {
            id: id.to_string(),
            version: VERSION,
            sys: Sys {
                ack: u8::from(is_answered),
            },
            params,
            method,
        }
    }
}

/// A request of ours on one of the cloud's older topics: an id and what it is about.
#[derive(Serialize)]
pub(super) struct Plain<P> {
    /// Its number.
    pub(super) id: String,
    /// What it is about.
    pub(super) params: P,
}

/// Our reply.
#[derive(Serialize)]
pub(super) struct Reply<'a> {
    /// To which request.
    pub(super) id: &'a str,
    /// How it went.
    pub(super) code: u32,
    /// Nothing else.
    pub(super) data: Nothing,
}

/// An object without members.
#[derive(Serialize)]
pub(super) struct Nothing {}

/// As bytes.
pub(super) fn bytes<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("plain structs are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sloppiness_of_the_vendors_samples_is_read() {
        let check = |text: &str, id: Option<u32>, code: Option<u32>, named: usize| {
            let envelope = Envelope::read(text.as_bytes()).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(
                (envelope.own_id(), envelope.code(), devices(&envelope.data).len()),
                (id, code, named),
                "{text}"
            );
        };
        check(r#"{"id":"123","code":200,"data":{}}"#, Some(123), Some(200), 0);
        check(r#"{"id":123,"code":"200","data":""}"#, Some(123), Some(200), 0);
        check(r#"{"code":"1000","id":1507707025}"#, Some(1_507_707_025), Some(1000), 0);
        check(r#"{"id":"x","code":null,"data":null}"#, None, None, 0);
        check(r#"{"id":4294967296,"code":-1}"#, None, None, 0);
        let one = r#"{"productKey":"al1","deviceName":"device1234"}"#;
        check(&format!(r#"{{"data":{one}}}"#), None, None, 1);
        check(&format!(r#"{{"data":[{one},{one},"",{{}}]}}"#), None, None, 2);
        check(&format!(r#"{{"data":{{"deviceList":[{one}]}}}}"#), None, None, 1);
    }

    #[test]
    fn what_is_no_message_is_said() {
        let check = |payload: &[u8], expected: &str| {
            let why = Envelope::read(payload).unwrap_err();
            assert!(why.contains(expected), "{why}");
        };
        check(b"<html>", "expected value");
        check(b"[1]", "invalid");
        check(br#"{"id":{}}"#, "a text or a whole number");
        check(br#"{"id":1.5}"#, "a text or a whole number");
        check(&vec![b' '; PAYLOAD_BYTES_MAX + 1], "longer than");
        let long = format!(r#"{{"id":"{}"}}"#, "9".repeat(ID_CHARS_MAX + 1));
        check(long.as_bytes(), "above 32 characters");
    }
}

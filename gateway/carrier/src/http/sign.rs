//! Signed requests and answers: HMAC-SHA256 with a key that both sides have. A request's signature covers method, path
//! and query as sent, time, nonce and body; an answer's covers the request's nonce, status and body, so that it answers
//! this request and no other.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Header: seconds since 1970 UTC; 0: the sender has no clock that is fit to be judged by.
pub const TIME_HEADER: &str = "x-holdfast-time";
/// Header: 16 random bytes of the request, in hexadecimal.
pub const NONCE_HEADER: &str = "x-holdfast-nonce";
/// Header of request and answer: the signature, in hexadecimal.
pub const SIGN_HEADER: &str = "x-holdfast-sign";

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 16;

/// What a request's signature covers beside its body.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Method, in capitals.
    pub method: &'a str,
    /// Path and query, as sent.
    pub path_and_query: &'a str,
    /// As in [`TIME_HEADER`].
    pub time_s: u64,
    /// As in [`NONCE_HEADER`].
    pub nonce: &'a str,
}

impl RequestHead<'_> {
    fn mac(&self, key: &[u8], body: &[u8]) -> Hmac<Sha256> {
        let Self {
            method,
            path_and_query,
            time_s,
            nonce,
        } = self;
        mac(key, &format!("{method}\n{path_and_query}\n{time_s}.{nonce}."), body)
    }

    /// What goes into [`SIGN_HEADER`].
    #[must_use]
    pub fn sign(&self, key: &[u8], body: &[u8]) -> String {
        hex(&self.mac(key, body).finalize().into_bytes())
    }

    /// Whether whoever signed has the key; takes as long for a wrong signature as for a right one.
    #[must_use]
    pub fn is_signed(&self, key: &[u8], body: &[u8], signature: &str) -> bool {
        is(self.mac(key, body), signature)
    }
}

/// What an answer's signature covers beside its body.
#[derive(Clone, Copy, Debug)]
pub struct AnswerHead<'a> {
    /// The request's.
    pub nonce: &'a str,
    /// Status code.
    pub status: u16,
}

impl AnswerHead<'_> {
    fn mac(&self, key: &[u8], body: &[u8]) -> Hmac<Sha256> {
        mac(key, &format!("answer\n{}\n{}.", self.nonce, self.status), body)
    }

    /// What goes into [`SIGN_HEADER`].
    #[must_use]
    pub fn sign(&self, key: &[u8], body: &[u8]) -> String {
        hex(&self.mac(key, body).finalize().into_bytes())
    }

    /// Whether whoever signed has the key; takes as long for a wrong signature as for a right one.
    #[must_use]
    pub fn is_signed(&self, key: &[u8], body: &[u8], signature: &str) -> bool {
        is(self.mac(key, body), signature)
    }
}

fn mac(key: &[u8], head: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(head.as_bytes());
    mac.update(body);
    mac
}

fn is(mac: Hmac<Sha256>, signature: &str) -> bool {
    unhex(signature).is_some_and(|bytes| mac.verify_slice(&bytes).is_ok())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    Some(
        digits?
            .chunks_exact(2)
            .map(|pair| (pair[0] * 16 + pair[1]) as u8)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "000102030405060708090a0b0c0d0e0f";

    /// Computed with `openssl dgst -sha256 -hmac key`.
    #[test]
    fn vectors() {
        let request = RequestHead {
            method: "POST",
            path_and_query: "/v1/gateways/gw-0001/messages",
            time_s: 1_700_000_000,
            nonce: NONCE,
        };
        assert_eq!(
            request.sign(b"key", b"{}"),
            "d9a7cdd3d4200e71b2f4c4a95edfb1f323727789b014a56b275c6b2e467f9c1a"
        );
        let answer = AnswerHead {
            nonce: NONCE,
            status: 200,
        };
        assert_eq!(
            answer.sign(b"key", br#"{"frames":[]}"#),
            "4459171bdd366fd83ec57d2c0cfd63a59b6fcce80b45ee9e7115eb0765063771"
        );
    }

    #[test]
    fn only_the_very_same_is_signed() {
        let answer = AnswerHead {
            nonce: NONCE,
            status: 200,
        };
        let signature = answer.sign(b"key", b"body");
        assert!(answer.is_signed(b"key", b"body", &signature));
        assert!(answer.is_signed(b"key", b"body", &signature.to_uppercase()));
        let other = AnswerHead { status: 403, ..answer };
        let asked_otherwise = AnswerHead { nonce: "ff", ..answer };
        assert!(!other.is_signed(b"key", b"body", &signature));
        assert!(!asked_otherwise.is_signed(b"key", b"body", &signature));
        assert!(!answer.is_signed(b"key", b"Body", &signature));
        assert!(!answer.is_signed(b"kez", b"body", &signature));
        for bad in ["", "0", "zz", &signature[2..], "ü"] {
            assert!(!answer.is_signed(b"key", b"body", bad), "{bad}");
        }
    }
}

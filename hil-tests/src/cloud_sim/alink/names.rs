//! Who somebody is at Alibaba Cloud IoT: triples, client ids, signatures.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use serde_json::{Map, Value};
use sha1::Sha1;
use sha2::Sha256;

/// Longest client id before its parameters, in characters.
const CLIENT_ID_CHARS_MAX: usize = 64;

/// A device, as the platform knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Triple {
    /// Key of its product.
    pub product_key: String,
    /// Its name there.
    pub device_name: String,
    /// Its secret.
    pub device_secret: String,
}

impl Triple {
    /// Name and product, as in a user name: who it is, whoever connects.
    pub(super) fn name(&self) -> String {
        name(&self.product_key, &self.device_name)
    }
}

/// `deviceName&productKey`.
pub(super) fn name(product_key: &str, device_name: &str) -> String {
    format!("{device_name}&{product_key}")
}

/// The algorithms of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Sha256,
    Sha1,
    Md5,
}

impl Method {
    /// Of a login, and of a request, where capitals vary and the prefix may be missing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().trim_start_matches("hmac") {
            "sha256" => Some(Self::Sha256),
            "sha1" => Some(Self::Sha1),
            "md5" => Some(Self::Md5),
            _ => None,
        }
    }

    fn sign(self, secret: &str, text: &str) -> String {
        let (key, text) = (secret.as_bytes(), text.as_bytes());
        macro_rules! digest {
            ($hash:ty) => {{
                let mut mac = Hmac::<$hash>::new_from_slice(key).expect("HMAC takes a key of any length");
                mac.update(text);
                crate::site::hex(&mac.finalize().into_bytes())
            }};
        }
        match self {
            Self::Sha256 => digest!(Sha256),
            Self::Sha1 => digest!(Sha1),
            Self::Md5 => digest!(Md5),
        }
    }
}

/// A client id, taken apart: `{clientId}|securemode=3,signmethod=hmacsha256,timestamp=..|`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientId<'a> {
    pub(super) id: &'a str,
    pub(super) secure_mode: &'a str,
    pub(super) method: Method,
    pub(super) timestamp: Option<&'a str>,
}

impl<'a> ClientId<'a> {
    /// What is wrong with it, if it is none.
    pub(super) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let (id, rest) = text.split_once('|').ok_or("a client id without parameters")?;
        let parameters = rest.strip_suffix('|').ok_or("a client id without its last bar")?;
        if id.is_empty() || id.chars().count() > CLIENT_ID_CHARS_MAX {
            return Err("a client id that is empty or too long");
        }
        let mut found = Self {
            id,
            secure_mode: "",
            method: Method::Md5,
            timestamp: None,
        };
        let mut method = None;
        for parameter in parameters.split(',') {
            let (key, value) = parameter.split_once('=').ok_or("a parameter without a value")?;
            match key {
                "securemode" => found.secure_mode = value,
                "signmethod" => method = Method::parse(value).filter(|_| value.starts_with("hmac")),
                "timestamp" => found.timestamp = Some(value),
                // The platform takes more, and ignores what it does not know.
                _ => {}
            }
        }
        found.method = method.ok_or("no signmethod")?;
        Ok(found)
    }
}

/// Whether this password is a login's.
pub(super) fn is_password(triple: &Triple, client: &ClientId<'_>, password: &str) -> bool {
    let mut text = format!(
        "clientId{}deviceName{}productKey{}",
        client.id, triple.device_name, triple.product_key
    );
    if let Some(timestamp) = client.timestamp {
        text += &format!("timestamp{timestamp}");
    }
    client
        .method
        .sign(&triple.device_secret, &text)
        .eq_ignore_ascii_case(password)
}

/// Whether a request's parameters carry their signature: of everything in them but the signature, in alphabetical order.
pub(super) fn is_signed(triple: &Triple, params: &Map<String, Value>) -> bool {
    let text = |key: &str| params.get(key).and_then(Value::as_str);
    let method = text("signMethod").or_else(|| text("signmethod"));
    let method = match method {
        None => Some(Method::Md5),
        Some(method) => Method::parse(method),
    };
    let unsigned = ["sign", "signMethod", "signmethod", "cleanSession"];
    let mut parts: Vec<(&str, &str)> = params
        .iter()
        .filter(|(key, _)| !unsigned.contains(&key.as_str()))
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect();
    parts.sort_unstable();
    let signed: String = parts.iter().flat_map(|(key, value)| [*key, *value]).collect();
    match (method, text("sign")) {
        (Some(method), Some(sign)) => method.sign(&triple.device_secret, &signed).eq_ignore_ascii_case(sign),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn triple(product_key: &str, device_name: &str, device_secret: &str) -> Triple {
        Triple {
            product_key: product_key.into(),
            device_name: device_name.into(),
            device_secret: device_secret.into(),
        }
    }

    /// Published and computed vectors of the platform's signature.
    #[test]
    fn vectors() {
        let secret = "0123456789abcdef0123456789abcdef";
        for (pk, dn, secret, id, method, timestamp, password) in [
            (
                "a14Xib5kdYd",
                "light1983432",
                "oLyaKqVxtRvjH284LdhqVgVUx1UPy6zq",
                "SN1928339",
                "hmacsha1",
                "1539421321846",
                "b2488041f64f425016b467ee1c94959ebd592ad1",
            ),
            (
                "pk",
                "device",
                "secret",
                "12345",
                "hmacsha1",
                "789",
                "FAFD82A3D602B37FB0FA8B7892F24A477F851A14",
            ),
            (
                "pk",
                "device",
                "secret",
                "12345",
                "hmacsha256",
                "789",
                "6074a46a91b1ebb2cc4ea42790ad0e80202c9843859fc292e57c4eb19fad9e57",
            ),
            (
                "pk",
                "device",
                "secret",
                "12345",
                "hmacmd5",
                "789",
                "14b198324fe55e1d3c88f2e705e201ee",
            ),
            (
                "a1Bc2De3Fg4",
                "gw-0001",
                secret,
                "a1Bc2De3Fg4.gw-0001",
                "hmacsha256",
                "2524608000000",
                "9009122E20B22EB3B2E8F7BAB3AB7C6579859C5DA4F431B2F15E36BC9ABAA14C",
            ),
        ] {
            let client = format!("{id}|securemode=3,signmethod={method},timestamp={timestamp},lan=Rust|");
            let client = ClientId::parse(&client).unwrap();
            assert!(is_password(&triple(pk, dn, secret), &client, password), "{id} {method}");
            assert!(
                !is_password(&triple(pk, dn, "other"), &client, password),
                "{id} {method}"
            );
        }
    }

    /// The signature of a sub-device's login.
    #[test]
    fn a_request_is_signed() {
        let washer = triple("a1Zz9Yy8Xx7", "washer-07", "fedcba9876543210fedcba9876543210");
        for (method, sign) in [
            ("hmacSha1", "1d8c98376c4b17950093bd64ac8e7456a2e61101"),
            (
                "Sha256",
                "53b7f6df968f259c4d95bd98ef22cb2a86115e84a90c1244342f103f9b3e5817",
            ),
            ("hmacmd5", "8405bce0e8e8f0928ce0476aaa268876"),
        ] {
            let params = serde_json::json!({
                "productKey": "a1Zz9Yy8Xx7", "deviceName": "washer-07", "clientId": "a1Zz9Yy8Xx7&washer-07",
                "timestamp": "1700000000000", "signMethod": method, "sign": sign, "cleanSession": "true",
            });
            assert!(is_signed(&washer, params.as_object().unwrap()), "{method}");
        }
    }

    #[test]
    fn client_ids() {
        for (text, expected) in [
            ("a|securemode=3,signmethod=hmacsha1|", true),
            ("a|securemode=3,signmethod=hmacsha1", false),
            ("a", false),
            ("|securemode=3,signmethod=hmacsha1|", false),
            ("a|securemode=3|", false),
            ("a|securemode=3,signmethod=sha3|", false),
            ("a|securemode|", false),
        ] {
            assert_eq!(ClientId::parse(text).is_ok(), expected, "{text}");
        }
        let long = format!("{}|securemode=3,signmethod=hmacsha1|", "a".repeat(65));
        assert!(ClientId::parse(&long).is_err());
    }
}

//! Identifiers. Each is a type of its own, so that no two can be confused.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::{
    digest,
    wire::{byte_id, wire_enum},
};

/// Longest name of a device, gateway or site, in bytes: fits a label on a housing and an MQTT client id of 3.1 (23).
pub const NAME_BYTES_MAX: usize = 20;
/// Longest raw id token, in bytes: OCPP's idToken has 36, a triple-size RFID UID 10; 32 leaves room for app codes.
pub const TOKEN_BYTES_MAX: usize = 32;

/// Why a text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A name is empty, longer than [`NAME_BYTES_MAX`] or has a character outside `a-z 0-9 -`.
    #[error("a name has 1 to 20 characters of a-z, 0-9 and '-'")]
    Name,
    /// Hexadecimal text of the wrong length.
    #[error("{found} hexadecimal digits, expected {expected}")]
    HexLength {
        /// Digits given.
        found: usize,
        /// Digits needed.
        expected: usize,
    },
    /// A character that is no hexadecimal digit.
    #[error("not a hexadecimal digit")]
    HexDigit,
    /// An id token is empty or longer than [`TOKEN_BYTES_MAX`].
    #[error("an id token has 1 to 32 bytes")]
    Token,
}

/// A short name: 1 to 20 characters of `a-z`, `0-9` and `-`; safe in a topic, a file name and a log line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    len: u8,
}

impl Name {
    /// Checks and keeps a text.
    ///
    /// # Errors
    /// [`IdError::Name`] if it is empty, too long or has another character.
    pub const fn new(text: &str) -> Result<Self, IdError> {
        let source = text.as_bytes();
        if source.is_empty() || source.len() > NAME_BYTES_MAX {
            return Err(IdError::Name);
        }
        let mut bytes = [0; NAME_BYTES_MAX];
        let mut i = 0;
        while i < source.len() {
            if !matches!(source[i], b'a'..=b'z' | b'0'..=b'9' | b'-') {
                return Err(IdError::Name);
            }
            bytes[i] = source[i];
            i += 1;
        }
        Ok(Self {
            bytes,
            len: source.len() as u8,
        })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len as usize]).expect("a name is ASCII by construction")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Name {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name of 1 to 20 characters of a-z, 0-9 and '-'")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Name, E> {
                Name::new(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// A device: one controller and what it drives. Also its MQTT client id and user name.
pub type DeviceId = Name;
/// A gateway.
pub type GatewayId = Name;

byte_id! {
    /// One session, from authorize to receipt. Minted by the device: 8 bytes of SHA-256 over its name, its boot number
    /// (4 bytes, big endian) and a number within that boot (4 bytes, big endian).
    SessionId, 16
}
byte_id! {
    /// An id token under the site's keyed hash; the only form in which a token is stored.
    TokenHash, 16
}
byte_id! {
    /// SHA-256.
    Hash, 32
}

impl SessionId {
    /// The id of session `number` of boot `boot` of `device`.
    #[must_use]
    pub fn mint(device: &DeviceId, boot: u32, number: u32) -> Self {
        let digest = Sha256::digest(device.as_str().as_bytes());
        let mut id = [0; 16];
        id[..8].copy_from_slice(&digest[..8]);
        id[8..12].copy_from_slice(&boot.to_be_bytes());
        id[12..].copy_from_slice(&number.to_be_bytes());
        Self(id)
    }
}

/// An outlet: one supply point of a device, counted from 0.
pub type OutletId = u8;
/// A customer's account at the operator.
pub type AccountId = u64;

wire_enum! {
    /// What a device dispenses. It fixes the unit of its register.
    Kind {
        /// Energy; the register counts Wh.
        Charger = 0,
        /// Wash cycles; the register counts finished and running cycles.
        Washer = 1,
        /// Water; the register counts millilitres.
        Dispenser = 2,
        /// A kind of a newer version.
        Unknown = 255,
    } else Unknown
}

impl Kind {
    /// The kinds this version can serve.
    pub const SERVED: [Self; 3] = [Self::Charger, Self::Washer, Self::Dispenser];

    /// The glossary's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Charger => "charger",
            Self::Washer => "washer",
            Self::Dispenser => "dispenser",
            Self::Unknown => "unknown",
        }
    }
}

wire_enum! {
    /// What form an id token has.
    TokenKind {
        /// The UID of an RFID card.
        Card = 0,
        /// A code from the operator's app.
        App = 1,
        /// A PIN typed at the device.
        Pin = 2,
        /// A signed voucher.
        Voucher = 3,
        /// A keypad credit token.
        Keypad = 4,
        /// A form of a newer version.
        Unknown = 255,
    } else Unknown
}

/// What identifies the user, raw, as it was presented. Never printed, never stored: see [`TokenHash`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdToken {
    /// Its form.
    pub kind: TokenKind,
    /// 1 to 32 bytes.
    pub bytes: RawToken,
}

impl IdToken {
    /// Keeps a token.
    ///
    /// # Errors
    /// [`IdError::Token`] if it has no byte or more than [`TOKEN_BYTES_MAX`].
    pub fn new(kind: TokenKind, bytes: &[u8]) -> Result<Self, IdError> {
        Ok(Self {
            kind,
            bytes: RawToken::new(bytes)?,
        })
    }

    /// The keyed hash: the first 16 bytes of HMAC-SHA256 over the form's number and the token's bytes.
    #[must_use]
    pub fn hash(&self, key: &TokenKey) -> TokenHash {
        let code = digest::code(&key.0, &[&[self.kind.code()], self.bytes.as_slice()]);
        TokenHash(*code.first_chunk().expect("a hash is a part of a code"))
    }
}

impl fmt::Debug for IdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdToken({:?}, ..)", self.kind)
    }
}

/// The bytes of a raw token, 1 to 32, as a CBOR byte string.
#[derive(Clone, PartialEq, Eq)]
pub struct RawToken(heapless::Vec<u8, TOKEN_BYTES_MAX>);

impl RawToken {
    fn new(bytes: &[u8]) -> Result<Self, IdError> {
        if bytes.is_empty() {
            return Err(IdError::Token);
        }
        heapless::Vec::from_slice(bytes).map(Self).map_err(|_| IdError::Token)
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for RawToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for RawToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = RawToken;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string of 1 to 32 bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<RawToken, E> {
                RawToken::new(bytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// The site's key under which id tokens are hashed.
#[derive(Clone)]
pub struct TokenKey(pub [u8; 32]);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

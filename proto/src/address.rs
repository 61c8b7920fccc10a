//! Where a gateway listens, as a device with a network of its own is told.

use core::{fmt, num::NonZeroU16, str::FromStr};

use heapless::String;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest host, in characters: one label of a name, or any IPv4 address.
pub const HOST_BYTES_MAX: usize = 63;

/// A host and a port, written `gateway.example:1883` or `192.168.1.10:1883`. A host has 1 to 63 characters of `a-z`,
/// `0-9`, `-` and `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String<HOST_BYTES_MAX>,
    port: NonZeroU16,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no colon in it.
    #[error("an address is written HOST:PORT")]
    Form,
    /// Empty, too long, or with another character.
    #[error("a host has 1 to {HOST_BYTES_MAX} characters of a-z, 0-9, '-' and '.'")]
    Host,
    /// No number, zero or too large.
    #[error("a port is a number from 1 to 65535")]
    Port,
}

impl Address {
    /// A name, or an IPv4 address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A TCP port.
    #[must_use]
    pub const fn port(&self) -> NonZeroU16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text.split_once(':').ok_or(AddressError::Form)?;
        let known = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        if host.is_empty() || !host.bytes().all(known) {
            return Err(AddressError::Host);
        }
        // One way to write a port, so that a record that is read and written again is the same.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
        let number = port.parse().ok().filter(|_| digits);
        Ok(Self {
            host: String::try_from(host).map_err(|_| AddressError::Host)?,
            port: number.ok_or(AddressError::Port)?,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Address;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, HOST:PORT")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Address, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString as _;

    use super::*;

    #[test]
    fn addresses_and_what_is_none() {
        let long = "a".repeat(HOST_BYTES_MAX);
        let (fits, too_long) = (std::format!("{long}:65535"), std::format!("{long}a:1"));
        for text in ["192.168.1.10:1883", "gateway-1.example:8883", fits.as_str()] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        for (text, wanted) in [
            ("", AddressError::Form),
            ("gateway", AddressError::Form),
            (":1883", AddressError::Host),
            ("Gateway:1883", AddressError::Host),
            ("gate way:1883", AddressError::Host),
            (&too_long, AddressError::Host),
            ("[fe80::1]:1883", AddressError::Host),
            ("gateway:", AddressError::Port),
            ("gateway:0", AddressError::Port),
            ("gateway:65536", AddressError::Port),
            ("gateway:+18", AddressError::Port),
            ("gateway:018", AddressError::Port),
            ("gateway:1:2", AddressError::Port),
        ] {
            assert_eq!(text.parse::<Address>(), Err(wanted), "{text:?}");
        }
    }
}

//! Seals: who said it, to whom, on which topic, and that it is new.
//!
//! A frame is `version (1) | counter (8, big endian) | body | tag (16)`. The tag is HMAC-SHA256, cut to 16 bytes
//! (RFC 2104 section 5), over `label | topic length (2, big endian) | topic | version | counter | body`, under a key
//! that serves one direction of one pair only, derived by HKDF-SHA256 (RFC 5869) from the pair's secret.
//! Seals cover the received bytes, never a re-encoding.
//!
//! A counter never repeats: its upper 32 bits are the number of the sender's boot, stored before its first use, the
//! lower 32 count within that boot. A receiver accepts strictly growing counters only ([`Window`]). So neither another
//! device nor a client of the broker can forge, replay or re-address a message.
//! The body is readable by whoever carries it: a seal is not encryption.

use core::fmt::{self, Write as _};

use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::{VERSION, digest::MacKey, id::TokenKey, instrument::KeypadKey, message::BODY_BYTES_MAX};

/// Bytes that a seal adds to a body.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// Largest frame between device and gateway, in bytes.
pub const FRAME_BYTES_MAX: usize = BODY_BYTES_MAX + OVERHEAD_BYTES;

const HEADER_BYTES: usize = 9;
const TAG_BYTES: usize = 16;
const LABEL: &[u8] = b"holdfast seal 1";

/// Why a frame is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Shorter than an empty sealed frame.
    #[error("a frame of {0} bytes is shorter than a seal")]
    Short(usize),
    /// Longer than the receiver allows.
    #[error("a frame of {found} bytes is longer than {max}")]
    Long {
        /// Bytes received.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A version this side does not speak.
    #[error("frame version {found}, this side speaks {VERSION}")]
    Version {
        /// The version of the frame.
        found: u8,
    },
    /// The tag does not fit key, topic, counter and body.
    #[error("the seal does not fit: another key, another topic or changed bytes")]
    Forged,
    /// The counter is not above the last one accepted.
    #[error("counter {found} is not above {last}: a replay")]
    Replayed {
        /// The counter of the frame.
        found: u64,
        /// The highest counter accepted before.
        last: u64,
    },
    /// The output buffer is too small.
    #[error("the sealed frame does not fit the buffer of {0} bytes")]
    Overflow(usize),
}

/// Which way a key seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Towards the gateway, or from the gateway to the hub.
    Up,
    /// Towards the device, or from the hub to the gateway.
    Down,
}

/// The secret that two parties share: device and gateway, or gateway and hub.
#[derive(Clone, PartialEq, Eq)]
pub struct PairSecret(pub [u8; 32]);

/// Length of an MQTT password, in characters.
pub const PASSWORD_CHARS: usize = 32;

impl PairSecret {
    /// The key of one direction.
    #[must_use]
    pub fn key(&self, direction: Direction) -> SealKey {
        SealKey::new(&self.derive(match direction {
            Direction::Up => b"holdfast seal 1 up",
            Direction::Down => b"holdfast seal 1 down",
        }))
    }

    /// The MQTT password of the party that connects: 16 derived bytes in hexadecimal. The broker learns nothing from it
    /// that opens or makes a seal.
    #[must_use]
    pub fn password(&self) -> heapless::String<PASSWORD_CHARS> {
        let bytes: [u8; PASSWORD_CHARS / 2] = self.derive(b"holdfast mqtt password 1");
        let mut text = heapless::String::new();
        for byte in bytes {
            write!(text, "{byte:02x}").expect("two characters a byte");
        }
        text
    }

    /// The key under which a device keeps the id token of an open session, to know it again.
    #[must_use]
    pub fn token_key(&self) -> TokenKey {
        TokenKey(self.derive(b"holdfast device token 1"))
    }

    /// The key of the device's keypad tokens: whoever sells them needs this key and no other of the device.
    #[must_use]
    pub fn keypad_key(&self) -> KeypadKey {
        KeypadKey(self.derive(b"holdfast keypad key 1"))
    }

    fn derive<const N: usize>(&self, info: &[u8]) -> [u8; N] {
        let mut bytes = [0; N];
        Hkdf::<Sha256>::new(None, &self.0)
            .expand(info, &mut bytes)
            .expect("at most 32 bytes are one block of HKDF-SHA256");
        bytes
    }
}

impl fmt::Debug for PairSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairSecret(..)")
    }
}

impl core::str::FromStr for PairSecret {
    type Err = crate::id::IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        crate::wire::parse_hex(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// The key of one direction of one pair.
#[derive(Clone)]
pub struct SealKey(MacKey);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

impl SealKey {
    fn new(key: &[u8; 32]) -> Self {
        Self(MacKey::new(key))
    }

    fn tag(&self, topic: &str, header_and_body: &[u8]) -> [u8; TAG_BYTES] {
        let length = (topic.len() as u16).to_be_bytes();
        let code = self.0.code(&[LABEL, &length, topic.as_bytes(), header_and_body]);
        *code.first_chunk().expect("a tag is a part of a code")
    }

    /// Seals the body that already stands at `frame[9..9 + body_len]`; returns the length of the frame. Writing the
    /// body in place saves the device a second buffer.
    ///
    /// # Errors
    /// [`SealError::Overflow`] if the tag does not fit behind the body.
    pub fn seal_in_place(
        &self,
        topic: &str,
        counter: u64,
        frame: &mut [u8],
        body_len: usize,
    ) -> Result<usize, SealError> {
        let room = frame.len();
        let end = HEADER_BYTES + body_len;
        if room < end + TAG_BYTES {
            return Err(SealError::Overflow(room));
        }
        frame[0] = VERSION;
        frame[1..HEADER_BYTES].copy_from_slice(&counter.to_be_bytes());
        let tag = self.tag(topic, &frame[..end]);
        frame[end..end + TAG_BYTES].copy_from_slice(&tag);
        Ok(end + TAG_BYTES)
    }

    /// Encodes and seals a message; returns the length of the frame.
    ///
    /// # Errors
    /// [`SealError::Overflow`] if `frame` is too small for it.
    pub fn seal<T: serde::Serialize>(
        &self,
        topic: &str,
        counter: u64,
        message: &T,
        frame: &mut [u8],
    ) -> Result<usize, SealError> {
        let room = frame.len();
        let body = frame.get_mut(HEADER_BYTES..).ok_or(SealError::Overflow(room))?;
        let body_len = crate::codec::encode(message, body).map_err(|_| SealError::Overflow(room))?;
        self.seal_in_place(topic, counter, frame, body_len)
    }

    /// [`Self::seal`] into a new vector.
    #[cfg(feature = "host")]
    #[must_use]
    pub fn seal_vec<T: serde::Serialize>(&self, topic: &str, counter: u64, message: &T) -> alloc::vec::Vec<u8> {
        let body = crate::codec::to_vec(message);
        let mut frame = alloc::vec![0; body.len() + OVERHEAD_BYTES];
        frame[HEADER_BYTES..HEADER_BYTES + body.len()].copy_from_slice(&body);
        self.seal_in_place(topic, counter, &mut frame, body.len())
            .expect("the frame was made to measure");
        frame
    }

    /// Checks version, length and tag. The counter still has to pass a [`Window`].
    ///
    /// # Errors
    /// [`SealError`], everything but `Replayed`.
    pub fn open<'a>(&self, topic: &str, frame: &'a [u8], frame_bytes_max: usize) -> Result<Opened<'a>, SealError> {
        if frame.len() > frame_bytes_max {
            return Err(SealError::Long {
                found: frame.len(),
                max: frame_bytes_max,
            });
        }
        match frame.first() {
            Some(&VERSION) | None => {}
            Some(&found) => return Err(SealError::Version { found }),
        }
        if frame.len() < OVERHEAD_BYTES {
            return Err(SealError::Short(frame.len()));
        }
        let (signed, tag) = frame.split_at(frame.len() - TAG_BYTES);
        if !bool::from(self.tag(topic, signed).ct_eq(tag)) {
            return Err(SealError::Forged);
        }
        let counter = signed[1..HEADER_BYTES]
            .try_into()
            .map(u64::from_be_bytes)
            .expect("eight bytes");
        Ok(Opened {
            counter,
            body: &signed[HEADER_BYTES..],
        })
    }
}

/// A frame whose seal fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The sender's counter.
    pub counter: u64,
    /// The CBOR body.
    pub body: &'a [u8],
}

/// The receiver's memory of a sender: the highest counter accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Highest counter accepted; store it before acting on a message that must not act twice.
    pub last: u64,
}

impl Window {
    /// Whether `counter` is new.
    ///
    /// # Errors
    /// [`SealError::Replayed`] if it is not above the last one accepted.
    pub const fn check(&self, counter: u64) -> Result<(), SealError> {
        if counter > self.last {
            Ok(())
        } else {
            Err(SealError::Replayed {
                found: counter,
                last: self.last,
            })
        }
    }
}

/// The sender's counter: boot number above, count below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter(u64);

impl Counter {
    /// The counter of a boot whose number is stored already.
    #[must_use]
    pub const fn of_boot(boot: u32) -> Self {
        Self((boot as u64) << 32)
    }

    /// Goes on above `last`, if it is not there already: the peer remembers more than we do (a restored backup).
    pub const fn raise_above(&mut self, last: u64) {
        if last > self.0 {
            self.0 = last;
        }
    }

    /// The highest counter used.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.0
    }

    /// The next counter. At the end of the range, where only a peer that lies about its memory can send it
    /// ([`Self::raise_above`]), it stays there: that peer refuses everything from then on, and nobody else is hurt.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.saturating_add(1);
        self.0
    }
}

//! Instruments: what proves by itself that it may draw (semantics, section 3, step 4). A voucher is signed by the issuer, a
//! keypad token carries a MAC of the device's key, a one-time code of an account's key. Nobody has to be asked, so the
//! device alone verifies them with the code here, and so does the gateway.
//!
//! Verifying is pure. What was spent is the verifier's memory: small structs with a bound each ([`ReplayWindow`],
//! [`Lockout`], [`Used`]), stored by whoever lets something flow before it does.

mod keypad;
mod lockout;
mod totp;
mod used;
mod voucher;
mod window;

use serde::{Deserialize, Serialize};

pub use keypad::{
    ACCEPTANCE_INVERSE, AmountClass, DIGITS, KeypadKey, KeypadToken, OUTSTANDING_MAX, keypad_number, keypad_text,
};
pub use lockout::{FORGIVE_MS, FREE_FAILURES, Lockout, WAIT_FIRST_MS, WAIT_MAX_MS};
pub use totp::{CODE_DIGITS, DRIFT_MAX_S, Enrolment, STEP_S, STEPS_ACCEPTED, TotpClock, TotpKey, parse_code};
pub use used::{USED_MAX, Used, UsedUp};
pub use voucher::{Here, NUMBER_MAX, Scope, Today, Voucher};
pub use window::{ReplayWindow, WINDOW};

use crate::{message::RefusalReason, wire::Octets};

/// Most bytes of an instrument that does not fit an id token: the largest voucher has 158, the rest is for fields to
/// come. With it the largest `authorize` is 350 bytes, below [`crate::message::BODY_BYTES_MAX`]; as a QR code it is a
/// version 10 at most, and an NTAG215 tag (504 bytes) holds it.
pub const INSTRUMENT_BYTES_MAX: usize = 192;

/// The bytes of an instrument; empty: there is none.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instrument(Octets<INSTRUMENT_BYTES_MAX>);

impl Instrument {
    /// No instrument.
    pub const NONE: Self = Self(Octets(heapless::Vec::new()));

    /// Keeps the bytes; `None` if there are more than [`INSTRUMENT_BYTES_MAX`].
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        Octets::new(bytes).map(Self)
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.0.is_empty()
    }
}

/// Whoever holds the bytes of an unspent instrument holds its money, so they are never printed.
impl core::fmt::Debug for Instrument {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Instrument({} bytes)", self.0.0.len())
    }
}

/// Why an instrument does not draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not an instrument of this protocol.
    #[error("not an instrument")]
    Malformed,
    /// Signature, MAC or code do not fit.
    #[error("forged, damaged or mistyped")]
    Forged,
    /// Issued for another site or device.
    #[error("issued for another place")]
    Elsewhere,
    /// Issued for another kind of device.
    #[error("issued for another kind of device")]
    Kind,
    /// Issued in another currency.
    #[error("issued in another currency")]
    Currency,
    /// Its time has not come.
    #[error("not valid yet")]
    NotYet,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// The clock cannot tell whether its time has come or is over.
    #[error("the clock is not good enough to judge it")]
    Clock,
    /// Used before.
    #[error("used already")]
    Spent,
    /// Too many wrong ones were tried.
    #[error("locked after wrong attempts")]
    LockedOut,
    /// The memory of what was spent is full.
    #[error("no room to remember that it is spent")]
    Full,
}

impl Fault {
    /// What the user is told.
    #[must_use]
    pub const fn reason(self) -> RefusalReason {
        match self {
            Self::Malformed | Self::Forged => RefusalReason::Forged,
            Self::Elsewhere | Self::Kind | Self::Currency => RefusalReason::Elsewhere,
            Self::NotYet | Self::Expired => RefusalReason::Expired,
            Self::Clock => RefusalReason::Clock,
            Self::Spent => RefusalReason::Replay,
            Self::LockedOut => RefusalReason::LockedOut,
            Self::Full => RefusalReason::Storage,
        }
    }

    /// Whether it may have been a guess, and counts towards the lockout.
    #[must_use]
    pub const fn is_guess(self) -> bool {
        match self {
            Self::Forged => true,
            Self::Malformed
            | Self::Elsewhere
            | Self::Kind
            | Self::Currency
            | Self::NotYet
            | Self::Expired
            | Self::Clock
            | Self::Spent
            | Self::LockedOut
            | Self::Full => false,
        }
    }
}

//! One-time codes of an account: RFC 6238 with HMAC-SHA256, 8 digits, steps of 30 s. The truncation of RFC 4226 is five
//! lines on the HMAC that is here anyway; the crates that have it bring SHA-1, strings and an allocator.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Fault;
use crate::{
    id::{AccountId, IdToken, TokenKind},
    message::ClockQuality,
    money::Money,
};

/// Digits of a code.
pub const CODE_DIGITS: usize = 8;
/// Length of a step, in s.
pub const STEP_S: u64 = 30;
/// Steps whose codes are taken at any moment: the present one and one on either side.
pub const STEPS_ACCEPTED: u64 = 3;
/// How long a clock may have run by itself since it was synchronised, in s: a crystal of 50 ppm is one step off then.
pub const DRIFT_MAX_S: u64 = STEP_S * 1_000_000 / 50;

const CODES: u32 = 100_000_000;

/// The key of one account's codes.
#[derive(Clone, PartialEq, Eq)]
pub struct TotpKey(pub [u8; 32]);

impl core::fmt::Debug for TotpKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("TotpKey(..)")
    }
}

/// An account whose codes are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// Whose.
    pub account: AccountId,
    /// The key that the account's app has.
    pub key: TotpKey,
    /// What one code is worth at most.
    pub limit: Money,
}

/// A clock that codes are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TotpClock {
    /// Seconds since 1970 UTC.
    pub wall_s: u64,
    /// What they are worth.
    pub quality: ClockQuality,
    /// How long ago the clock was set, in s.
    pub since_set_s: u64,
}

impl TotpClock {
    /// The present step.
    ///
    /// # Errors
    /// [`Fault::Clock`] unless the clock was synchronised, and not too long ago.
    pub const fn step(&self) -> Result<u64, Fault> {
        match self.quality {
            ClockQuality::Synchronised if self.since_set_s <= DRIFT_MAX_S => Ok(self.wall_s / STEP_S),
            ClockQuality::Synchronised | ClockQuality::Unknown | ClockQuality::Informative | ClockQuality::Relative => {
                Err(Fault::Clock)
            }
        }
    }
}

impl TotpKey {
    /// The code of a step.
    #[must_use]
    pub fn code(&self, step: u64) -> u32 {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(&step.to_be_bytes());
        let digest = mac.finalize().into_bytes();
        let offset = usize::from(digest[31] & 0x0f);
        let mut word = [0; 4];
        word.copy_from_slice(&digest[offset..offset + 4]);
        (u32::from_be_bytes(word) & 0x7fff_ffff) % CODES
    }

    /// The step of a code, to be remembered as `last_step` before anything comes of it. Each step is accepted once, and
    /// none before it any more.
    ///
    /// # Errors
    /// [`Fault::Clock`], [`Fault::Spent`] for a code that fits a step not above the last, [`Fault::Forged`].
    pub fn verify(&self, code: u32, clock: &TotpClock, last_step: u64) -> Result<u64, Fault> {
        let now = clock.step()?;
        let around = STEPS_ACCEPTED / 2;
        let mut fits =
            (now.saturating_sub(around)..=now.saturating_add(around)).filter(|step| self.code(*step) == code);
        let newest = fits.next_back().ok_or(Fault::Forged)?;
        if newest > last_step {
            Ok(newest)
        } else {
            Err(Fault::Spent)
        }
    }
}

/// A code as it was typed.
#[must_use]
pub fn parse_code(digits: &[u8]) -> Option<u32> {
    (digits.len() == CODE_DIGITS && digits.iter().all(u8::is_ascii_digit))
        .then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
}

impl Enrolment {
    /// The id token under which an account's codes are presented: kind PIN, the account in 8 bytes, big endian. It stays
    /// the same from code to code, so that the account is known again at a stop and can be revoked.
    ///
    /// # Panics
    /// Never: 8 bytes are an id token.
    #[must_use]
    pub fn id_token(account: AccountId) -> IdToken {
        IdToken::new(TokenKind::Pin, &account.to_be_bytes()).expect("8 bytes are an id token")
    }

    /// The account that such a token names.
    #[must_use]
    pub fn account_of(token: &IdToken) -> Option<AccountId> {
        let bytes = token.bytes.as_slice().try_into().ok()?;
        (token.kind == TokenKind::Pin).then(|| AccountId::from_be_bytes(bytes))
    }
}

//! Keypad credit tokens: 12 digits that a person reads off a receipt and types at one device. Sold by whoever has that
//! device's key, verified by the device with no clock and no link.
//!
//! ```text
//! digits = (mac * 128 + counter mod 128) * 16 + amount class       (decimal, 12 digits with leading zeros)
//! mac    = first 8 bytes of HMAC-SHA256(key, "holdfast keypad 1" | counter (4, big endian) | class (1))
//!          as a big endian number, mod 488,281,250
//! ```
//! The low 7 bits of the 32-bit counter name exactly one counter of the 128 around the highest accepted one
//! ([`ReplayWindow`]), so a guess has one chance in [`ACCEPTANCE_INVERSE`], however wide the window is. What a lockout
//! makes of that is computed in the tests: less than one in a million a day.

use core::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{Fault, ReplayWindow, WINDOW};
use crate::{id::DeviceId, money::Money};

/// Digits of a token.
pub const DIGITS: usize = 12;
/// One random token in so many is accepted: as many MACs as fit the 12 digits beside counter and amount.
pub const ACCEPTANCE_INVERSE: u64 = 1_000_000_000_000 / (COUNTERS * CLASSES);
/// Most tokens that an issuer may have outstanding for one device, so that none falls out of the window.
pub const OUTSTANDING_MAX: u32 = WINDOW;

const COUNTERS: u64 = 2 * WINDOW as u64;
const CLASSES: u64 = 16;
const LABEL: &[u8] = b"holdfast keypad 1";
/// Set in the number of every keypad token: no voucher has it.
const NUMBER_FLAG: u64 = 1 << 63;

/// What a token is worth: one of 16 amounts, because each bit spent on the amount is one that does not stop a guesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AmountClass(u8);

impl AmountClass {
    /// The amounts, in minor units, ascending.
    pub const AMOUNTS: [Money; CLASSES as usize] = [
        Money(50),
        Money(100),
        Money(200),
        Money(300),
        Money(400),
        Money(500),
        Money(600),
        Money(800),
        Money(1_000),
        Money(1_500),
        Money(2_000),
        Money(3_000),
        Money(4_000),
        Money(5_000),
        Money(7_500),
        Money(10_000),
    ];

    /// The class of exactly this amount.
    #[must_use]
    pub fn of(amount: Money) -> Option<Self> {
        let at = Self::AMOUNTS.iter().position(|known| *known == amount)?;
        Some(Self(at as u8))
    }

    /// The amount.
    #[must_use]
    pub const fn amount(self) -> Money {
        Self::AMOUNTS[self.0 as usize]
    }
}

/// What the digits said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeypadToken {
    /// Which token of the device.
    pub counter: u32,
    /// What it is worth.
    pub class: AmountClass,
}

/// The key of one device's keypad tokens; see [`crate::seal::PairSecret::keypad_key`].
#[derive(Clone, PartialEq, Eq)]
pub struct KeypadKey(pub [u8; 32]);

impl core::fmt::Debug for KeypadKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("KeypadKey(..)")
    }
}

impl KeypadKey {
    /// The digits of a token; `counter` is above 0 and used once.
    #[must_use]
    pub fn digits(&self, token: KeypadToken) -> [u8; DIGITS] {
        let low = u64::from(token.counter) % COUNTERS;
        let mut value = (self.mac(token) * COUNTERS + low) * CLASSES + u64::from(token.class.0);
        let mut digits = [b'0'; DIGITS];
        for digit in digits.iter_mut().rev() {
            *digit += (value % 10) as u8;
            value /= 10;
        }
        digits
    }

    /// What typed digits say, whether or not they were used before.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if they are not 12 digits, [`Fault::Forged`] if no token in reach of the window has them.
    pub fn open(&self, digits: &[u8], window: &ReplayWindow) -> Result<KeypadToken, Fault> {
        if digits.len() != DIGITS || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Fault::Malformed);
        }
        let value = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        let (class, rest) = ((value % CLASSES) as u8, value / CLASSES);
        let (low, mac) = ((rest % COUNTERS) as u32, rest / COUNTERS);
        let counter = window.candidate(low).ok_or(Fault::Forged)?;
        let token = KeypadToken {
            counter,
            class: AmountClass(class),
        };
        if self.mac(token) == mac {
            Ok(token)
        } else {
            Err(Fault::Forged)
        }
    }

    fn mac(&self, token: KeypadToken) -> u64 {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(LABEL);
        mac.update(&token.counter.to_be_bytes());
        mac.update(&[token.class.0]);
        let digest = mac.finalize().into_bytes();
        let mut head = [0; 8];
        head.copy_from_slice(&digest[..8]);
        u64::from_be_bytes(head) % ACCEPTANCE_INVERSE
    }
}

/// The number of a keypad token among all instruments: the flag, 31 bits of the SHA-256 of the device's name, the counter.
#[must_use]
pub fn keypad_number(device: &DeviceId, counter: u32) -> u64 {
    let digest = Sha256::digest(device.as_str().as_bytes());
    let mut head = [0; 4];
    head.copy_from_slice(&digest[..4]);
    NUMBER_FLAG | u64::from(u32::from_be_bytes(head) >> 1) << 32 | u64::from(counter)
}

/// The digits in groups of four, for a receipt: `0123 4567 8901`.
#[must_use]
pub fn keypad_text(digits: &[u8; DIGITS]) -> heapless::String<{ DIGITS + 2 }> {
    let mut text = heapless::String::new();
    for (i, digit) in digits.iter().enumerate() {
        if i > 0 && i % 4 == 0 {
            text.push(' ').expect("two spaces");
        }
        text.write_char(*digit as char).expect("12 digits");
    }
    text
}

//! Vouchers: money that travels by itself, on paper or on a tag. A COSE_Sign1 envelope like every other artifact: its 85
//! bytes of envelope, 64 of them the signature that any other form would have too, still fit a QR code and one message.

use ed25519_dalek::SIGNATURE_LENGTH;
use serde::{Deserialize, Serialize};

use super::{Fault, INSTRUMENT_BYTES_MAX};
use crate::{
    codec,
    id::{DeviceId, IdToken, Kind, Name, TokenKind},
    money::Money,
    trust::{self, ArtifactKind, ENVELOPE_OVERHEAD_BYTES, IssuerKey},
    wire::wire_enum,
};

/// Highest number of a voucher; above it are the numbers of keypad tokens.
pub const NUMBER_MAX: u64 = u64::MAX >> 1;

wire_enum! {
    /// Where a voucher may be redeemed.
    Scope {
        /// A scope of a newer version: nowhere here.
        Other = 0,
        /// At every device of one site.
        Site = 1,
        /// At one device.
        Device = 2,
    } else Other
}

/// What the issuer signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voucher {
    /// Unique at the issuer, 1 to [`NUMBER_MAX`].
    pub number: u64,
    /// What `place` names.
    pub scope: Scope,
    /// The site or the device.
    pub place: Name,
    /// At which kind of device.
    pub kind: Kind,
    /// Face value, in minor units.
    pub amount: Money,
    /// Currency, as the number of ISO 4217.
    pub currency: u16,
    /// First second (seconds since 1970 UTC).
    pub not_before_s: u64,
    /// Last second (seconds since 1970 UTC); there is always one, so that nobody has to remember a number for ever.
    pub not_after_s: u64,
}

/// Where an instrument is presented.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// The site.
    pub site: &'a Name,
    /// The device.
    pub device: &'a DeviceId,
    /// What it dispenses.
    pub kind: Kind,
    /// The site's currency, as the number of ISO 4217.
    pub currency: u16,
}

/// What is known of the date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Today {
    /// Seconds since 1970 UTC.
    Known(u64),
    /// At least this second: the latest that was ever known; 0: nothing is known.
    AtLeast(u64),
}

impl Voucher {
    /// Checks signature and form; the place and the date are checked by [`Self::check`].
    ///
    /// # Errors
    /// [`Fault::Malformed`], [`Fault::Forged`].
    pub fn open(envelope: &[u8], keys: &[IssuerKey]) -> Result<Self, Fault> {
        if envelope.len() > INSTRUMENT_BYTES_MAX {
            return Err(Fault::Malformed);
        }
        let mut scratch = [0; INSTRUMENT_BYTES_MAX - SIGNATURE_LENGTH + ENVELOPE_OVERHEAD_BYTES];
        let payload = trust::open(ArtifactKind::Voucher, envelope, keys, &mut scratch).map_err(|_| Fault::Forged)?;
        let voucher: Self = codec::decode(payload).map_err(|_| Fault::Malformed)?;
        let sound = (1..=NUMBER_MAX).contains(&voucher.number)
            && voucher.amount.0 > 0
            && voucher.not_after_s > 0
            && voucher.not_before_s <= voucher.not_after_s;
        if sound { Ok(voucher) } else { Err(Fault::Malformed) }
    }

    /// The number that an envelope names, without any proof: enough to know the same voucher again.
    #[must_use]
    pub fn peek(envelope: &[u8]) -> Option<u64> {
        let payload = trust::peek(envelope).ok()?;
        let voucher: Self = codec::decode(payload).ok()?;
        Some(voucher.number)
    }

    /// Whether it may be redeemed here and today.
    ///
    /// # Errors
    /// [`Fault`]: what is wrong first.
    pub fn check(&self, here: &Here<'_>, today: Today) -> Result<(), Fault> {
        let at_home = match self.scope {
            Scope::Site => self.place == *here.site,
            Scope::Device => self.place == *here.device,
            Scope::Other => false,
        };
        if !at_home {
            return Err(Fault::Elsewhere);
        }
        if self.kind != here.kind {
            return Err(Fault::Kind);
        }
        if self.currency != here.currency {
            return Err(Fault::Currency);
        }
        match today {
            Today::Known(wall_s) | Today::AtLeast(wall_s) if wall_s > self.not_after_s => Err(Fault::Expired),
            Today::Known(wall_s) if wall_s < self.not_before_s => Err(Fault::NotYet),
            Today::Known(_) => Ok(()),
            Today::AtLeast(_) => Err(Fault::Clock),
        }
    }

    /// The id token of a voucher: its number, 8 bytes, big endian. Under this token's hash it is revoked.
    ///
    /// # Panics
    /// Never: 8 bytes are an id token.
    #[must_use]
    pub fn id_token(number: u64) -> IdToken {
        IdToken::new(TokenKind::Voucher, &number.to_be_bytes()).expect("8 bytes are an id token")
    }

    /// Signs it.
    ///
    /// # Errors
    /// [`trust::TrustError`]; never for a voucher that this version can make.
    #[cfg(feature = "host")]
    pub fn sign(&self, issuer: &trust::Issuer) -> Result<alloc::vec::Vec<u8>, trust::TrustError> {
        issuer.sign(ArtifactKind::Voucher, &codec::to_vec(self))
    }
}

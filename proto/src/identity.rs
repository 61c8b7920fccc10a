//! Who a device is: one record in a reserved page of its flash, written when it is provisioned. No image carries a key.
//!
//! ```text
//! offset  length  content
//! 0       4       magic "HFID"
//! 4       1       version: 1
//! 5       1       0
//! 6       2       length n of the body, little endian
//! 8       n       body: CBOR, `identity` in schema/v1.cddl
//! 8 + n   8       first bytes of SHA-256 over everything before
//! ```
//! The rest of the page is erased (all ones). Fields are only ever added at the end of the body.

use heapless::Vec;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    address::Address,
    codec::{self, CodecError},
    id::{DeviceId, Kind, Name, TokenKey},
    instrument::{Enrolment, TotpKey},
    money::Money,
    seal::PairSecret,
    trust::IssuerKey,
    update::SIGNERS_MAX,
    wire::byte_id,
};

/// Longest record, in bytes: it fits the smallest flash page of a board, 2 KiB.
pub const IDENTITY_BYTES_MAX: usize = 1_536;
/// Most issuer keys that a device pins: the present one, the next one, and two of a former owner.
pub const ISSUERS_MAX: usize = 4;
/// Most accounts whose one-time codes a device takes.
pub const ENROLMENTS_MAX: usize = 16;

const MAGIC: [u8; 4] = *b"HFID";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 8;
const CHECK_BYTES: usize = 8;

byte_id! {
    /// A key or secret.
    Bytes32, 32
}

/// What a device is told about itself at installation.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name; also its MQTT client id and user name.
    pub id: DeviceId,
    /// What it dispenses.
    pub kind: Kind,
    /// Number of outlets.
    pub outlets: u8,
    /// The secret it shares with its gateway.
    pub secret: PairSecret,
    /// The site's key for id tokens; none: only the token that began a session, and the button, stop it.
    pub site_key: Option<TokenKey>,
    /// The site that vouchers name; none: vouchers go to the gateway only.
    pub site: Option<Name>,
    /// The site's currency, as the number of ISO 4217.
    pub currency: u16,
    /// Keys of voucher issuers.
    pub issuers: Vec<IssuerKey, ISSUERS_MAX>,
    /// Accounts whose one-time codes are taken.
    pub enrolments: Vec<Enrolment, ENROLMENTS_MAX>,
    /// Whether keypad tokens are taken.
    pub keypad: bool,
    /// Where the gateway listens; none: at the default router, and boards behind a module of their own never look.
    pub gateway: Option<Address>,
    /// Keys that may sign firmware; none: no update is taken over the link.
    pub signers: Vec<IssuerKey, SIGNERS_MAX>,
}

/// Why a page is no identity; a device without one must not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The page is erased.
    #[error("the device was never provisioned")]
    Missing,
    /// Something else is written there.
    #[error("the page holds something else than an identity")]
    Magic,
    /// Written for a newer firmware.
    #[error("an identity of version {0}, this firmware reads version {VERSION}")]
    Version(u8),
    /// Cut short, or changed since it was written.
    #[error("the identity is damaged")]
    Damaged,
    /// A body that is none.
    #[error("the identity: {0}")]
    Body(CodecError),
    /// A key of an issuer that is no point of the curve, or a weak one.
    #[error("key {0} of the issuers is no key")]
    Issuer(usize),
    /// A key of a signer of firmware that is none.
    #[error("key {0} of the signers of firmware is no key")]
    Signer(usize),
}

#[derive(Serialize, Deserialize)]
struct Body {
    id: DeviceId,
    kind: Kind,
    outlets: u8,
    secret: Bytes32,
    site_key: Option<Bytes32>,
    site: Option<Name>,
    currency: u16,
    issuers: Vec<Bytes32, ISSUERS_MAX>,
    enrolments: Vec<EnrolmentRow, ENROLMENTS_MAX>,
    keypad: bool,
    gateway: Option<Address>,
    #[serde(default)]
    signers: Vec<Bytes32, SIGNERS_MAX>,
}

#[derive(Serialize, Deserialize)]
struct EnrolmentRow {
    account: u64,
    key: Bytes32,
    limit: Money,
}

impl Identity {
    /// An identity that knows nobody but its gateway.
    #[must_use]
    pub const fn new(id: DeviceId, kind: Kind, outlets: u8, secret: PairSecret) -> Self {
        Self {
            id,
            kind,
            outlets,
            secret,
            site_key: None,
            site: None,
            currency: 0,
            issuers: Vec::new(),
            enrolments: Vec::new(),
            keypad: false,
            gateway: None,
            signers: Vec::new(),
        }
    }

    /// Writes the record into `page`; returns its length in bytes.
    ///
    /// # Errors
    /// [`CodecError::Overflow`] if `page` is too small; [`IDENTITY_BYTES_MAX`] always suffice.
    pub fn write(&self, page: &mut [u8]) -> Result<usize, CodecError> {
        let room = page.len();
        let overflow = CodecError::Overflow(room);
        let body = Body {
            id: self.id,
            kind: self.kind,
            outlets: self.outlets,
            secret: Bytes32(self.secret.0),
            site_key: self.site_key.as_ref().map(|key| Bytes32(key.0)),
            site: self.site,
            currency: self.currency,
            issuers: self.issuers.iter().map(|key| Bytes32(*key.as_bytes())).collect(),
            enrolments: self.enrolments.iter().map(EnrolmentRow::from).collect(),
            keypad: self.keypad,
            gateway: self.gateway.clone(),
            signers: self.signers.iter().map(|key| Bytes32(*key.as_bytes())).collect(),
        };
        let end = room.checked_sub(CHECK_BYTES).ok_or(overflow)?;
        let place = page.get_mut(HEAD_BYTES..end).ok_or(overflow)?;
        let len = codec::encode(&body, place)?;
        page[..4].copy_from_slice(&MAGIC);
        page[4] = VERSION;
        page[5] = 0;
        page[6..HEAD_BYTES].copy_from_slice(&u16::try_from(len).map_err(|_| overflow)?.to_le_bytes());
        let end = HEAD_BYTES + len;
        let check = check_of(&page[..end]);
        page[end..end + CHECK_BYTES].copy_from_slice(&check);
        Ok(end + CHECK_BYTES)
    }

    /// Reads the record at the start of `page`.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn read(page: &[u8]) -> Result<Self, IdentityError> {
        let head = page.get(..HEAD_BYTES).ok_or(IdentityError::Damaged)?;
        if head.iter().all(|byte| *byte == 0xff) {
            return Err(IdentityError::Missing);
        }
        if head[..4] != MAGIC {
            return Err(IdentityError::Magic);
        }
        if head[4] != VERSION {
            return Err(IdentityError::Version(head[4]));
        }
        let end = HEAD_BYTES + usize::from(u16::from_le_bytes([head[6], head[7]]));
        let check = page.get(end..end + CHECK_BYTES).ok_or(IdentityError::Damaged)?;
        if check != check_of(&page[..end]) {
            return Err(IdentityError::Damaged);
        }
        let body: Body = codec::decode(&page[HEAD_BYTES..end]).map_err(IdentityError::Body)?;
        let issuers = keys(&body.issuers).map_err(IdentityError::Issuer)?;
        let signers = keys(&body.signers).map_err(IdentityError::Signer)?;
        Ok(Self {
            id: body.id,
            kind: body.kind,
            outlets: body.outlets,
            secret: PairSecret(body.secret.0),
            site_key: body.site_key.map(|key| TokenKey(key.0)),
            site: body.site,
            currency: body.currency,
            issuers,
            enrolments: body.enrolments.into_iter().map(Enrolment::from).collect(),
            keypad: body.keypad,
            gateway: body.gateway,
            signers,
        })
    }
}

impl From<&Enrolment> for EnrolmentRow {
    fn from(enrolment: &Enrolment) -> Self {
        Self {
            account: enrolment.account,
            key: Bytes32(enrolment.key.0),
            limit: enrolment.limit,
        }
    }
}

impl From<EnrolmentRow> for Enrolment {
    fn from(row: EnrolmentRow) -> Self {
        Self {
            account: row.account,
            key: TotpKey(row.key.0),
            limit: row.limit,
        }
    }
}

/// Keys from their bytes; the place of the first that is none.
fn keys<const N: usize>(rows: &Vec<Bytes32, N>) -> Result<Vec<IssuerKey, N>, usize> {
    let mut keys = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let key = IssuerKey::from_bytes(&row.0).map_err(|_| i)?;
        keys.push(key).map_err(|_| i)?;
    }
    Ok(keys)
}

fn check_of(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::digest(bytes);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest[..CHECK_BYTES]);
    check
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::trust::Issuer;

    fn full() -> Identity {
        let key = |seed: u8| Issuer::from_seed(&[seed; 32]).key();
        let enrolment = |account| Enrolment {
            account,
            key: TotpKey([7; 32]),
            limit: Money(i64::MAX),
        };
        Identity {
            site_key: Some(TokenKey([3; 32])),
            site: Some(Name::new("a-site-of-20-letters").unwrap()),
            currency: u16::MAX,
            issuers: (1..=ISSUERS_MAX as u8).map(key).collect(),
            enrolments: (0..ENROLMENTS_MAX as u64).map(|i| enrolment(u64::MAX - i)).collect(),
            keypad: true,
            gateway: Some(std::format!("{}:65535", "g".repeat(63)).parse().unwrap()),
            signers: (8..8 + SIGNERS_MAX as u8).map(key).collect(),
            ..Identity::new(
                Name::new("charger-0123456789ab").unwrap(),
                Kind::Dispenser,
                20,
                PairSecret([255; 32]),
            )
        }
    }

    fn page_of(identity: &Identity) -> ([u8; IDENTITY_BYTES_MAX], usize) {
        let mut page = [0xff; IDENTITY_BYTES_MAX];
        let len = identity.write(&mut page).unwrap();
        (page, len)
    }

    #[test]
    fn what_is_written_is_read() {
        for identity in [
            full(),
            Identity::new(Name::new("w").unwrap(), Kind::Washer, 1, PairSecret([1; 32])),
        ] {
            let (page, len) = page_of(&identity);
            std::println!("{len} bytes");
            let read = Identity::read(&page).unwrap();
            let (again, same) = page_of(&read);
            assert_eq!((page, len), (again, same));
            assert_eq!(read.id, identity.id);
            assert_eq!(read.kind, identity.kind);
            assert_eq!(read.secret, identity.secret);
            assert_eq!(read.enrolments, identity.enrolments);
            assert_eq!(read.gateway, identity.gateway);
            assert_eq!(read.signers, identity.signers);
        }
    }

    #[test]
    fn every_damage_is_named_and_none_is_read() {
        let (page, len) = page_of(&full());
        for at in 0..len {
            for bit in 0..8 {
                let mut page = page;
                page[at] ^= 1 << bit;
                assert!(Identity::read(&page).is_err(), "bit {bit} of byte {at}");
            }
        }
        for end in 0..len {
            assert!(Identity::read(&page[..end]).is_err(), "cut to {end} bytes");
        }
        assert_eq!(Identity::read(&[0xff; 64]).unwrap_err(), IdentityError::Missing);
        assert_eq!(Identity::read(&[0; 64]).unwrap_err(), IdentityError::Magic);
        let mut newer = page;
        newer[4] = 2;
        assert_eq!(Identity::read(&newer).unwrap_err(), IdentityError::Version(2));
    }

    #[test]
    fn a_small_page_is_an_error_at_every_size() {
        let (_, len) = page_of(&full());
        for size in 0..len {
            let mut page = [0; IDENTITY_BYTES_MAX];
            assert!(full().write(&mut page[..size]).is_err(), "{size} bytes");
        }
    }
}

//! Who this device is: one record in a reserved page of the flash, written at provisioning. No image carries a key.
//!
//! Layout, little endian, at the start of the page (at most [`IDENTITY_BYTES`]):
//!
//! ```text
//! offset  length  content
//! 0       4       magic "HFID"
//! 4       1       version: 1
//! 5       1       kind: 0 charger, 1 washer, 2 dispenser (proto::id::Kind)
//! 6       1       outlets, 1 to 20
//! 7       1       length of the name, 1 to 20
//! 8       20      name, ASCII, padded with zeros
//! 28      32      secret of the pair
//! 60      4       CRC-32 (IEEE) of bytes 0 to 59
//! ```

use device::Config;
use proto::{
    id::{Kind, Name},
    seal::PairSecret,
};

/// Length of the record, in bytes.
pub const IDENTITY_BYTES: usize = 64;

const MAGIC: [u8; 4] = *b"HFID";
const VERSION: u8 = 1;
const NAME_AT: usize = 8;
const NAME_BYTES: usize = 20;
const SECRET_AT: usize = NAME_AT + NAME_BYTES;
const CRC_AT: usize = SECRET_AT + 32;

/// Why a page is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The page is erased: the device was never provisioned.
    Missing,
    /// Something else is written there.
    Magic,
    /// Written for a newer firmware.
    Version(u8),
    /// Damaged.
    Checksum,
    /// A name that is none.
    Name,
    /// A kind or a number of outlets that no firmware serves.
    Kind,
}

/// Reads the identity.
///
/// # Errors
/// [`IdentityError`]; a device without identity must not run.
pub fn read(page: &[u8; IDENTITY_BYTES]) -> Result<Config, IdentityError> {
    if page.iter().all(|byte| *byte == 0xff) {
        return Err(IdentityError::Missing);
    }
    if page[..4] != MAGIC {
        return Err(IdentityError::Magic);
    }
    if page[4] != VERSION {
        return Err(IdentityError::Version(page[4]));
    }
    if page[CRC_AT..] != crc32(&page[..CRC_AT]).to_le_bytes() {
        return Err(IdentityError::Checksum);
    }
    let name = page
        .get(NAME_AT..NAME_AT + usize::from(page[7]))
        .filter(|name| name.len() <= NAME_BYTES)
        .and_then(|name| core::str::from_utf8(name).ok())
        .ok_or(IdentityError::Name)?;
    let id = Name::new(name).map_err(|_| IdentityError::Name)?;
    let kind = match Kind::from_code(page[5]) {
        Kind::Unknown => return Err(IdentityError::Kind),
        kind @ (Kind::Charger | Kind::Washer | Kind::Dispenser) => kind,
    };
    let mut secret = [0; 32];
    secret.copy_from_slice(&page[SECRET_AT..CRC_AT]);
    Ok(Config::new(id, kind, page[6], PairSecret(secret)))
}

/// Writes what [`read`] reads; for provisioning tools and tests.
#[must_use]
pub fn write(config: &Config) -> [u8; IDENTITY_BYTES] {
    let mut page = [0; IDENTITY_BYTES];
    let name = config.id.as_str().as_bytes();
    page[..4].copy_from_slice(&MAGIC);
    page[4] = VERSION;
    page[5] = config.kind.code();
    page[6] = config.outlets;
    page[7] = name.len() as u8;
    page[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
    page[SECRET_AT..CRC_AT].copy_from_slice(&config.secret.0);
    let crc = crc32(&page[..CRC_AT]).to_le_bytes();
    page[CRC_AT..].copy_from_slice(&crc);
    page
}

/// CRC-32 as in IEEE 802.3, reflected, polynomial 0xEDB88320; bitwise, for one record at boot.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            0 => crc >> 1,
            _ => (crc >> 1) ^ 0xedb8_8320,
        })
    })
}

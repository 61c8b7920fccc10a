//! What survives a power loss: one small record for the device, one for each outlet, each replaced atomically.
//!
//! Why so little is enough, and why replays after a reboot are harmless although the window of the gateway's counters
//! is not stored:
//! - Session ids and seal counters contain the boot number, which is stored, one higher, before anything is sent.
//! - A grant or refusal acts only on the waiting session of the same id. No session waits across a reboot, and the ids of
//!   the new boot were never granted to anybody.
//! - A command acts only above the highest command id, which is stored before the command is executed.
//! - A receipt only lets the device forget a session that it closed, and was the gateway's true word on that session.
//! - A clock names the boot of the hello that it answers.
//!
//! A device whose storage was erased would count its boots from one again: it needs a new secret.

use heapless::Vec;
use proto::{
    codec::{self, CodecError},
    id::{AccountId, OutletId, SessionId, TokenHash},
    instrument::{Lockout, ReplayWindow, Used},
    message::{ClockQuality, Grant, OUTLETS_MAX, Redeemed, Stop},
    money::Units,
    tariff::{Bill, Tariff},
};
use serde::{Deserialize, Serialize};

/// Version of the records. A record of a newer version is refused, never guessed at.
pub const STORED_VERSION: u8 = 1;
/// Largest record, in bytes: an open session with the largest tariff and four closed ones.
pub const RECORD_BYTES_MAX: usize = 1280;
/// Sessions of one outlet that may wait for their receipts; when full the outlet takes no new session. Each refused start
/// and each walk-away during an outage of the site's network takes one.
pub const CLOSED_MAX: usize = 4;

/// Sessions that a device may have granted by itself and not told the gateway yet. Each takes 1.5 KiB of memory.
pub const REDEEMED_MAX: usize = 8;
/// Accounts whose last one-time code is remembered: all that can be enrolled.
pub const CODES_MAX: usize = proto::identity::ENROLMENTS_MAX;

/// The place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// `DeviceRecord`
    Device,
    /// `OutletRecord` of one outlet.
    Outlet(OutletId),
    /// `InstrumentRecord`
    Instruments,
    /// `PriceRecord`
    Price,
    /// `RedeemedRecord` of one slot, below [`REDEEMED_MAX`].
    Redeemed(u8),
}

/// An encoded record and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The place.
    pub key: RecordKey,
    /// The bytes.
    pub bytes: Vec<u8, RECORD_BYTES_MAX>,
}

/// Why storage cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// Written by a newer firmware.
    #[error("record {key:?} has version {found}, this firmware reads up to {STORED_VERSION}")]
    Version {
        /// Which record.
        key: RecordKey,
        /// Its version.
        found: u8,
    },
    /// Not a record.
    #[error("record {key:?}: {error}")]
    Malformed {
        /// Which record.
        key: RecordKey,
        /// What is wrong with it.
        error: CodecError,
    },
    /// An open session without a place for its end: no firmware writes that.
    #[error("the record of outlet {0} has an open session and no room to close it")]
    Overfull(OutletId),
    /// An outlet for which this firmware has no room, with sessions that are not closed; or one that no device has.
    #[error("a record for outlet {0}, which this firmware does not serve")]
    Outlet(OutletId),
    /// A slot beyond the last.
    #[error("a record for slot {0}, there are {REDEEMED_MAX}")]
    Slot(u8),
}

/// Everything that was stored, read back at boot.
#[derive(Clone, Debug, Default)]
pub struct Stored<const OUTLETS: usize = OUTLETS_MAX> {
    pub(crate) device: DeviceRecord,
    pub(crate) outlets: Vec<OutletRecord, OUTLETS>,
    pub(crate) instruments: InstrumentRecord,
    pub(crate) price: PriceRecord,
    pub(crate) redeemed: Vec<RedeemedRecord, REDEEMED_MAX>,
}

impl<const OUTLETS: usize> Stored<OUTLETS> {
    /// The storage of a new device.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one record as it was stored; records come in any order.
    ///
    /// # Errors
    /// [`StoredError`]; the device must then not run, because it could repeat counters.
    pub fn load(&mut self, key: RecordKey, bytes: &[u8]) -> Result<(), StoredError> {
        match key {
            RecordKey::Device => self.device = decode(key, bytes)?,
            RecordKey::Outlet(outlet) => {
                let record = decode_outlet(outlet, bytes)?;
                let wanted = usize::from(outlet) + 1;
                if wanted > OUTLETS {
                    // An outlet that is no longer there is forgotten when nothing of it is open.
                    let is_open = record.open.is_some() || !record.closed.is_empty();
                    let is_none = usize::from(outlet) >= OUTLETS_MAX;
                    return if is_open || is_none {
                        Err(StoredError::Outlet(outlet))
                    } else {
                        Ok(())
                    };
                }
                while self.outlets.len() < wanted {
                    self.outlets
                        .push(OutletRecord::default())
                        .expect("the number of outlets was checked");
                }
                self.outlets[usize::from(outlet)] = record;
            }
            RecordKey::Instruments => self.instruments = decode(key, bytes)?,
            RecordKey::Price => self.price = decode(key, bytes)?,
            RecordKey::Redeemed(slot) => {
                let record: RedeemedRecord = decode(key, bytes)?;
                let i = usize::from(slot);
                if i >= REDEEMED_MAX {
                    return Err(StoredError::Slot(slot));
                }
                while self.redeemed.len() <= i {
                    self.redeemed
                        .push(RedeemedRecord::default())
                        .map_err(|_| StoredError::Slot(slot))?;
                }
                self.redeemed[i] = record;
            }
        }
        Ok(())
    }

    /// Number of the last boot; zero: never.
    #[must_use]
    pub fn boot(&self) -> u32 {
        self.device.boot
    }

    /// The session that an outlet had open, and whether it was granted.
    #[must_use]
    pub fn open(&self, outlet: OutletId) -> Option<(SessionId, bool)> {
        let open = self.outlets.get(usize::from(outlet))?.open.as_ref()?;
        Some((open.session, open.grant.is_some()))
    }

    /// The last register reading stored for an outlet: where a counter that loses its value without power goes on.
    #[must_use]
    pub fn register(&self, outlet: OutletId) -> Units {
        self.outlets
            .get(usize::from(outlet))
            .map_or(Units::ZERO, |r| r.register)
    }
}

#[inline(never)]
pub(crate) fn decode_outlet(outlet: OutletId, bytes: &[u8]) -> Result<OutletRecord, StoredError> {
    let record: OutletRecord = decode(RecordKey::Outlet(outlet), bytes)?;
    if record.open.is_some() && record.closed.is_full() {
        return Err(StoredError::Overfull(outlet));
    }
    Ok(record)
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(key: RecordKey, bytes: &'a [u8]) -> Result<T, StoredError> {
    /// The first field alone, so that a newer record is told from a damaged one.
    #[derive(Deserialize)]
    struct Head {
        version: u8,
    }
    let malformed = |error| StoredError::Malformed { key, error };
    let head: Head = codec::decode(bytes).map_err(malformed)?;
    if head.version > STORED_VERSION {
        return Err(StoredError::Version {
            key,
            found: head.version,
        });
    }
    codec::decode(bytes).map_err(malformed)
}

/// What the device as a whole remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceRecord {
    pub(crate) version: u8,
    /// Number of this boot, stored before its first use.
    pub(crate) boot: u32,
    /// Highest command id executed.
    pub(crate) command: u64,
}

impl Default for DeviceRecord {
    fn default() -> Self {
        Self {
            version: STORED_VERSION,
            boot: 0,
            command: 0,
        }
    }
}

/// What the device accepted by itself, or saw the gateway accept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstrumentRecord {
    pub(crate) version: u8,
    /// Vouchers.
    pub(crate) used: Used,
    /// Keypad tokens.
    pub(crate) window: ReplayWindow,
    /// Wrong keypad tokens and codes.
    pub(crate) lockout: Lockout,
    /// Last steps of one-time codes.
    pub(crate) codes: Vec<CodeMark, CODES_MAX>,
}

/// An account and the last step of its codes that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CodeMark(pub(crate) AccountId, pub(crate) u64);

impl Default for InstrumentRecord {
    fn default() -> Self {
        Self {
            version: STORED_VERSION,
            used: Used::default(),
            window: ReplayWindow::default(),
            lockout: Lockout::default(),
            codes: Vec::new(),
        }
    }
}

/// The price of the last grant, for when the gateway is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PriceRecord {
    pub(crate) version: u8,
    pub(crate) price: Option<Price>,
}

/// What a grant has beside the user's limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Price {
    pub(crate) tariff: Tariff,
    pub(crate) duration_max_s: u32,
    pub(crate) start_within_s: u16,
    pub(crate) meter_every_s: u16,
}

impl Default for PriceRecord {
    fn default() -> Self {
        Self {
            version: STORED_VERSION,
            price: None,
        }
    }
}

/// A session that the device granted by itself, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RedeemedRecord {
    pub(crate) version: u8,
    pub(crate) redeemed: Option<Redeemed>,
}

impl Default for RedeemedRecord {
    fn default() -> Self {
        Self {
            version: STORED_VERSION,
            redeemed: None,
        }
    }
}

/// What one outlet remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutletRecord {
    pub(crate) version: u8,
    /// Highest register reading at the time of storing.
    pub(crate) register: Units,
    pub(crate) open: Option<Open>,
    /// Word for word as sent, so that every repetition is the same message.
    pub(crate) closed: Vec<Stop, CLOSED_MAX>,
}

impl Default for OutletRecord {
    fn default() -> Self {
        Self {
            version: STORED_VERSION,
            register: Units::ZERO,
            open: None,
            closed: Vec::new(),
        }
    }
}

/// A session from its first authorize to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    pub(crate) session: SessionId,
    /// Under the device's own key; only compared.
    pub(crate) token: TokenHash,
    pub(crate) units_wished: Units,
    /// At the authorize; from the grant on, when the output was switched on.
    pub(crate) register_start: Units,
    /// The limits; `None` while waiting.
    pub(crate) grant: Option<Grant>,
    /// The start is proven.
    pub(crate) started: bool,
    pub(crate) progress: Progress,
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Billed up to this reading.
    pub(crate) register: Units,
    /// Billed up to this time.
    pub(crate) elapsed_s: u32,
    /// Of these without delivery.
    pub(crate) idle_s: u32,
    /// Seconds without power inside the session: they count towards its longest duration but are not billed.
    pub(crate) lost_s: u32,
    pub(crate) bill: Bill,
    /// When this was so.
    pub(crate) wall_s: u64,
    pub(crate) quality: ClockQuality,
}

impl Progress {
    pub(crate) fn at(register: Units) -> Self {
        Self {
            register,
            elapsed_s: 0,
            idle_s: 0,
            lost_s: 0,
            bill: Bill::default(),
            wall_s: 0,
            quality: ClockQuality::Unknown,
        }
    }
}

pub(crate) fn encode<T: Serialize>(key: RecordKey, record: &T) -> Record {
    let mut bytes = Vec::new();
    bytes
        .resize(RECORD_BYTES_MAX, 0)
        .expect("the capacity is RECORD_BYTES_MAX");
    let len = codec::encode(record, &mut bytes).expect("RECORD_BYTES_MAX holds the largest record");
    bytes.truncate(len);
    Record { key, bytes }
}

#[cfg(test)]
mod tests {
    use proto::{
        id::{Hash, SessionId},
        message::{STOP_TOKENS_MAX, Stamp, StopReason},
        money::Money,
        tariff::{Dimension, ELEMENTS_MAX, PriceElement, Tariff},
    };

    use super::*;

    fn largest() -> OutletRecord {
        let element = PriceElement {
            dimension: Dimension::Idle,
            price_milli: i64::MAX,
            minute_from: u16::MAX,
            minute_to: u16::MAX,
            power_w_min: u32::MAX,
            power_w_max: u32::MAX,
        };
        let grant = Grant {
            session: SessionId([255; 16]),
            units_max: Units(u64::MAX),
            money_max: Money(i64::MIN),
            duration_max_s: u32::MAX,
            start_within_s: u16::MAX,
            meter_every_s: u16::MAX,
            tariff: Tariff {
                id: u32::MAX,
                start_fee: Money(i64::MIN),
                minimum: Money(i64::MIN),
                cap: Money(i64::MIN),
                elements: core::iter::repeat_n(element, ELEMENTS_MAX).collect(),
            },
            tariff_hash: Hash([255; 32]),
            decision: u64::MAX,
            stop_tokens: core::iter::repeat_n(TokenHash([255; 16]), STOP_TOKENS_MAX).collect(),
        };
        let stop = Stop {
            session: SessionId([255; 16]),
            outlet: 255,
            reason: StopReason::Abandoned,
            started: true,
            register_start: Units(u64::MAX),
            register_end: Units(u64::MAX),
            elapsed_s: u32::MAX,
            idle_s: u32::MAX,
            shown: Money(i64::MIN),
            at: Stamp {
                mono_ms: u64::MAX,
                wall_s: u64::MAX,
                quality: ClockQuality::Relative,
            },
        };
        OutletRecord {
            version: 255,
            register: Units(u64::MAX),
            open: Some(Open {
                session: SessionId([255; 16]),
                token: TokenHash([255; 16]),
                units_wished: Units(u64::MAX),
                register_start: Units(u64::MAX),
                grant: Some(grant),
                started: true,
                progress: Progress {
                    register: Units(u64::MAX),
                    elapsed_s: u32::MAX,
                    idle_s: u32::MAX,
                    lost_s: u32::MAX,
                    bill: Bill {
                        quantities: [u64::MAX; ELEMENTS_MAX],
                    },
                    wall_s: u64::MAX,
                    quality: ClockQuality::Relative,
                },
            }),
            closed: core::iter::repeat_n(stop, CLOSED_MAX).collect(),
        }
    }

    #[test]
    fn the_largest_record_fits_and_comes_back() {
        let mut record = largest();
        let encoded = encode(RecordKey::Outlet(0), &record);
        std::println!("largest record: {} of {RECORD_BYTES_MAX} bytes", encoded.bytes.len());
        assert!(encoded.bytes.len() + 64 <= RECORD_BYTES_MAX, "room for a field to come");

        let mut stored: Stored = Stored::new();
        let key = RecordKey::Outlet(3);
        assert_eq!(
            stored.load(key, &encoded.bytes),
            Err(StoredError::Version { key, found: 255 })
        );
        record.version = STORED_VERSION;
        let encoded = encode(key, &record);
        assert_eq!(stored.load(key, &encoded.bytes), Err(StoredError::Overfull(3)));
        record.closed.pop();
        let encoded = encode(key, &record);
        stored.load(key, &encoded.bytes).unwrap();
        assert_eq!(stored.outlets[3], record);
        assert_eq!(stored.open(3), Some((SessionId([255; 16]), true)));
        assert_eq!(stored.register(3), Units(u64::MAX));
        assert_eq!((stored.open(0), stored.register(9)), (None, Units::ZERO));
    }

    #[test]
    fn an_outlet_without_room_is_forgotten_only_if_nothing_of_it_is_open() {
        let mut one: Stored<1> = Stored::new();
        let quiet = OutletRecord::default();
        let bytes = |record: &OutletRecord| encode(RecordKey::Outlet(0), record).bytes;
        assert_eq!(one.load(RecordKey::Outlet(1), &bytes(&quiet)), Ok(()));
        let mut open = OutletRecord {
            version: STORED_VERSION,
            ..largest()
        };
        open.closed.pop();
        assert_eq!(
            one.load(RecordKey::Outlet(1), &bytes(&open)),
            Err(StoredError::Outlet(1))
        );
        assert_eq!(one.load(RecordKey::Outlet(0), &bytes(&open)), Ok(()));
    }

    #[test]
    fn what_a_device_holds_in_memory_fits_a_microcontroller() {
        let (device, stored) = (size_of::<crate::Device>(), size_of::<Stored>());
        std::println!(
            "device {device} bytes, stored {stored} bytes, effect {}",
            size_of::<crate::Effect>()
        );
        assert!(
            device + stored <= 72 * 1024,
            "the largest device, on an STM32L475 with 96 KiB in one piece"
        );
        let (device, stored) = (size_of::<crate::Device<1>>(), size_of::<Stored<1>>());
        std::println!("with one outlet: device {device} bytes, stored {stored} bytes");
        assert!(
            device + stored <= 16 * 1024,
            "a charger with one socket, in 32 KiB with its stack"
        );
    }
}

//! The device's records in flash, each replaced atomically: a power cut leaves the old one or the new one.

use device::{Record, RecordKey, Stored, StoredError, stored::RECORD_BYTES_MAX};
use embedded_storage_async::nor_flash::NorFlash;
use proto::message::OUTLETS_MAX;
use sequential_storage::{
    cache::{Cache, Uncached},
    map::{MapConfig, MapStorage},
};

/// Room for a record, its key and the store's own header and padding, in bytes.
const BUFFER_BYTES: usize = RECORD_BYTES_MAX + 64;
/// Key of the device's own record; outlets have their numbers.
const DEVICE_KEY: u8 = 0xff;

/// Why the store cannot be used.
#[derive(Debug)]
pub enum StoreError<E> {
    /// The flash, or what is on it.
    Flash(sequential_storage::Error<E>),
    /// A record that this firmware cannot read: it must not run.
    Record(StoredError),
}

/// Records on a range of a NOR flash.
pub struct Store<F: NorFlash> {
    map: MapStorage<u8, F, Cache<Uncached, Uncached, Uncached, u8>>,
    buffer: [u8; BUFFER_BYTES],
}

impl<F: NorFlash> Store<F> {
    /// A store on `range` of the flash, in bytes; at least two pages, aligned to pages.
    ///
    /// # Panics
    /// If the range is none: a fault of the board's wiring.
    #[must_use]
    pub const fn new(flash: F, range: core::ops::Range<u32>) -> Self {
        Self {
            map: MapStorage::new(flash, MapConfig::new(range), Cache::new_uncached()),
            buffer: [0; BUFFER_BYTES],
        }
    }

    /// Everything that was stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load(&mut self) -> Result<Stored, StoreError<F::Error>> {
        let mut stored = Stored::new();
        let outlets = (0..OUTLETS_MAX as u8).map(RecordKey::Outlet);
        for key in core::iter::once(RecordKey::Device).chain(outlets) {
            let found = self.map.fetch_item::<&[u8]>(&mut self.buffer, &code(key)).await;
            if let Some(bytes) = found.map_err(StoreError::Flash)? {
                stored.load(key, bytes).map_err(StoreError::Record)?;
            }
        }
        Ok(stored)
    }

    /// Makes a record durable.
    ///
    /// # Errors
    /// [`StoreError::Flash`]; the former record stands.
    pub async fn save(&mut self, record: &Record) -> Result<(), StoreError<F::Error>> {
        let (key, bytes) = (code(record.key), record.bytes.as_slice());
        let saved = self.map.store_item(&mut self.buffer, &key, &bytes).await;
        saved.map_err(StoreError::Flash)
    }
}

const fn code(key: RecordKey) -> u8 {
    match key {
        RecordKey::Device => DEVICE_KEY,
        RecordKey::Outlet(outlet) => outlet,
    }
}

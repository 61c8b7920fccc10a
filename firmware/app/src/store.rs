//! What the device keeps in flash, each record replaced atomically: a power cut leaves the old one or the new one.

use device::{Device, Record, RecordKey, StoredError, stored::RECORD_BYTES_MAX};
use embedded_storage_async::nor_flash::NorFlash;
use proto::{id::OutletId, message::OUTLETS_MAX, money::Units};
use sequential_storage::{
    cache::{Cache, Uncached},
    map::{MapConfig, MapStorage},
};

/// Room for a record, its key, the store's header and padding to a word of any flash, in bytes.
const BUFFER_BYTES: usize = RECORD_BYTES_MAX + 64;

// Keys, frozen: images of every age read the same flash.
const OUTLETS: u8 = 0;
const REGISTERS: u8 = 0x40;
const REDEEMED: u8 = 0x80;
const UPDATE: u8 = 0xfc;
const PRICE: u8 = 0xfd;
const INSTRUMENTS: u8 = 0xfe;
const DEVICE: u8 = 0xff;

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
    /// A store on `range` of the flash, in bytes; at least two pages, aligned to pages. A page holds at least 2 KiB: the
    /// largest record lies in one.
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

    /// Gives a device everything that was stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load<const OUTLETS: usize>(
        &mut self,
        device: &mut Device<OUTLETS>,
    ) -> Result<(), StoreError<F::Error>> {
        let outlets = (0..OUTLETS_MAX as u8).map(RecordKey::Outlet);
        let redeemed = (0..device::stored::REDEEMED_MAX as u8).map(RecordKey::Redeemed);
        let single = [RecordKey::Device, RecordKey::Instruments, RecordKey::Price];
        for key in single.into_iter().chain(outlets).chain(redeemed) {
            let found = self.map.fetch_item::<&[u8]>(&mut self.buffer, &code(key)).await;
            if let Some(bytes) = found.map_err(StoreError::Flash)? {
                device.load(key, bytes).map_err(StoreError::Record)?;
            }
        }
        Ok(())
    }

    /// Makes a record durable.
    ///
    /// # Errors
    /// [`StoreError::Flash`]; the former record stands.
    pub async fn save(&mut self, record: &Record) -> Result<(), StoreError<F::Error>> {
        self.put(code(record.key), &record.bytes).await
    }

    /// The register of an outlet whose counter forgets without power.
    ///
    /// # Errors
    /// [`StoreError::Flash`].
    pub async fn register(&mut self, outlet: OutletId) -> Result<Units, StoreError<F::Error>> {
        let found = self
            .map
            .fetch_item::<&[u8]>(&mut self.buffer, &(REGISTERS + outlet))
            .await;
        let bytes = found
            .map_err(StoreError::Flash)?
            .and_then(|bytes| bytes.try_into().ok());
        Ok(Units(bytes.map_or(0, u64::from_le_bytes)))
    }

    /// Makes a register durable.
    ///
    /// # Errors
    /// [`StoreError::Flash`]; the former reading stands.
    pub async fn save_register(&mut self, outlet: OutletId, register: Units) -> Result<(), StoreError<F::Error>> {
        self.put(REGISTERS + outlet, &register.0.to_le_bytes()).await
    }

    /// The first bytes of what is noted about updates; `None`: nothing yet.
    ///
    /// # Errors
    /// [`StoreError::Flash`].
    pub async fn update<const N: usize>(&mut self) -> Result<Option<[u8; N]>, StoreError<F::Error>> {
        let found = self.map.fetch_item::<&[u8]>(&mut self.buffer, &UPDATE).await;
        let bytes = found.map_err(StoreError::Flash)?;
        Ok(bytes.and_then(|bytes| bytes.first_chunk().copied()))
    }

    /// Makes what is noted about updates durable.
    ///
    /// # Errors
    /// [`StoreError::Flash`]; the former note stands.
    pub async fn save_update(&mut self, bytes: &[u8]) -> Result<(), StoreError<F::Error>> {
        self.put(UPDATE, bytes).await
    }

    async fn put(&mut self, key: u8, bytes: &[u8]) -> Result<(), StoreError<F::Error>> {
        let saved = self.map.store_item(&mut self.buffer, &key, &bytes).await;
        saved.map_err(StoreError::Flash)
    }
}

const fn code(key: RecordKey) -> u8 {
    match key {
        RecordKey::Outlet(outlet) => OUTLETS + outlet,
        RecordKey::Redeemed(slot) => REDEEMED + slot,
        RecordKey::Price => PRICE,
        RecordKey::Instruments => INSTRUMENTS,
        RecordKey::Device => DEVICE,
    }
}

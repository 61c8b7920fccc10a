//! What was stored, given back at boot.

use proto::{id::OutletId, message::OUTLETS_MAX};

use crate::{
    Device,
    stored::{self, RecordKey, StoredError},
};

impl<const OUTLETS: usize> Device<OUTLETS> {
    /// Takes in one record as it was stored, before [`Self::start`]; records come in any order.
    ///
    /// # Errors
    /// [`StoredError`]; the device must then not run, because it could repeat counters, or forget a session.
    pub fn load(&mut self, key: RecordKey, bytes: &[u8]) -> Result<(), StoredError> {
        match key {
            RecordKey::Device => self.load_device(bytes),
            RecordKey::Outlet(outlet) => self.load_outlet(outlet, bytes),
            RecordKey::Instruments => self.load_instruments(bytes),
            RecordKey::Price => self.load_price(bytes),
            RecordKey::Redeemed(slot) => self.load_slot(slot, bytes),
        }
    }

    // None of these is inlined: the records of all kinds in one frame would be the deepest of the stack.

    #[inline(never)]
    fn load_device(&mut self, bytes: &[u8]) -> Result<(), StoredError> {
        self.record = stored::decode(RecordKey::Device, bytes)?;
        Ok(())
    }

    #[inline(never)]
    fn load_outlet(&mut self, outlet: OutletId, bytes: &[u8]) -> Result<(), StoredError> {
        let record = stored::decode_outlet(outlet, bytes)?;
        if usize::from(outlet) >= OUTLETS_MAX || !self.take_outlet(outlet, record) {
            return Err(StoredError::Outlet(outlet));
        }
        Ok(())
    }

    #[inline(never)]
    fn load_instruments(&mut self, bytes: &[u8]) -> Result<(), StoredError> {
        self.alone
            .take_instruments(stored::decode(RecordKey::Instruments, bytes)?);
        Ok(())
    }

    #[inline(never)]
    fn load_price(&mut self, bytes: &[u8]) -> Result<(), StoredError> {
        self.alone.take_price(stored::decode(RecordKey::Price, bytes)?);
        Ok(())
    }

    #[inline(never)]
    fn load_slot(&mut self, slot: u8, bytes: &[u8]) -> Result<(), StoredError> {
        if !self
            .alone
            .take_slot(slot.into(), stored::decode(RecordKey::Redeemed(slot), bytes)?)
        {
            return Err(StoredError::Slot(slot));
        }
        Ok(())
    }
}

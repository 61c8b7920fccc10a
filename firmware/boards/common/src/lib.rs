//! What every STM32 board with one outlet does alike: its tasks, its panel, what it does when it cannot go on. A board
//! brings the rest: chip, pins, clocks, memory and the way to its gateway.
//!
//! A task cannot be generic, so those that depend on a board's flash or transport are the board's: each is one call into
//! [`Device::run`] or `app::link::run`.
#![no_std]

mod executor;
mod halt;
mod outlet;
mod panel;
mod people;
mod stack;

use core::ops::Range;

use app::{
    control::{self, Booted, Machine, Stopped},
    gesture::Desk,
    link::Wires,
    store::Store,
    update::{Home, Signers, TRIAL_MS, Updater},
};
use device::{Checked, Config};
use embassy_stm32::usart;
use embedded_storage_async::nor_flash::NorFlash;
use proto::{
    address::Address,
    id::{Kind, Name, OutletId},
    identity::Identity,
    update::Label,
};
use static_cell::StaticCell;

#[cfg(all(feature = "rtt", not(feature = "emulated")))]
use defmt_rtt as _;
#[cfg(feature = "emulated")]
use defmt_semihosting as _;

pub use executor::run;
pub use halt::restart;
pub use outlet::{Charger, CountPulses, Dispenser, Outlet, Washer};
pub use panel::Panel;
pub use people::People;

/// Length of the page of an identity, in bytes.
pub const IDENTITY_BYTES: usize = 2048;
/// The boards have one.
const OUTLET: OutletId = 0;
/// The control task feeds the watchdog every second at least, also while flash is erased.
const WATCHDOG_US: u32 = 8_000_000;

static DESK: Desk = Desk::new();
/// Between the control task and the link, which is the board's.
pub static WIRES: Wires = Wires::new();

defmt::timestamp!("{=u64:ms}", embassy_time::Instant::now().as_millis());

/// What every machine's control task owns.
pub struct Device<F: NorFlash> {
    booted: Booted<'static, 1>,
    store: Store<F>,
    panel: Panel,
    updater: Option<Updater<F>>,
}

impl<F: NorFlash + 'static> Device<F> {
    /// Starts the device with what stands in the range `records` of the flash, in bytes.
    #[inline(never)]
    pub fn boot(config: Checked<1>, flash: F, records: Range<u32>, panel: impl FnOnce() -> Panel) -> Self {
        let mut store = Store::new(flash, records);
        let booted = match Booted::boot(make(config), &mut store) {
            Ok(booted) => booted,
            Err(stopped) => halt::restart(&stopped),
        };
        let panel = panel();
        Self {
            booted,
            store,
            panel,
            updater: None,
        }
    }

    /// On a board with a bootloader.
    #[must_use]
    pub fn with_updates(mut self, updater: Updater<F>) -> Self {
        self.updater = Some(updater);
        self
    }

    /// Runs the device until it cannot go on; it is to be [`restart`]ed then.
    pub fn run<M: Machine + 'static>(self, machine: M) -> impl Future<Output = Stopped> {
        let (store, updater) = (self.store, self.updater);
        control::run(self.booted, machine, self.panel, store, updater, &DESK, &WIRES)
    }
}

/// Makes the device where it lives: it is large. A function of its own, whose copy of it is gone when it returns.
#[inline(never)]
fn make(config: Checked<1>) -> &'static mut device::Device<1> {
    static DEVICE: StaticCell<device::Device<1>> = StaticCell::new();
    DEVICE.init_with(|| device::Device::new(config))
}

/// What runs here, and whose firmware is taken.
///
/// # Panics
/// If the board's name is none.
#[must_use]
pub fn home(board: &str, kind: Kind, label: &Label, signers: Signers) -> Home {
    // The bench does not wait as long as people do.
    let trial_ms = if cfg!(feature = "emulated") { 20_000 } else { TRIAL_MS };
    let version = label.version();
    defmt::info!("firmware version {=u32}", version);
    Home {
        board: Name::new(board).expect("a name"),
        kind,
        version,
        signers,
        trial_ms,
    }
}

/// Who this is, of a page of the flash, where its gateway listens, and who may sign its firmware. Without an identity, or with one of another kind,
/// nothing is ever switched on.
#[inline(never)]
#[must_use]
pub fn identity(page: &[u8; IDENTITY_BYTES], kind: Kind) -> (Checked<1>, Option<Address>, Signers) {
    match Identity::read(page) {
        Ok(mut identity) if identity.kind == kind => {
            defmt::info!("{=str} boots", identity.id.as_str());
            let gateway = identity.gateway.take();
            let signers = identity.signers.iter().map(|key| *key.as_bytes()).collect();
            match Config::provisioned(identity).check() {
                Ok(config) => (config, gateway, signers),
                Err(error) => {
                    defmt::error!("{}", defmt::Display2Format(&error));
                    halt::halt()
                }
            }
        }
        Ok(identity) => {
            let found = identity.kind.code();
            defmt::error!(
                "provisioned as kind {=u8}, this image serves kind {=u8}",
                found,
                kind.code()
            );
            halt::halt()
        }
        Err(error) => {
            defmt::error!("{}", defmt::Display2Format(&error));
            halt::halt()
        }
    }
}

/// The page at an address of the flash, read in place.
#[must_use]
pub const fn flash_page(address: usize) -> &'static [u8; IDENTITY_BYTES] {
    let page: *const [u8; IDENTITY_BYTES] = core::ptr::without_provenance(address);
    #[expect(unsafe_code, reason = "flash is read in place")]
    // SAFETY: flash that nothing writes while the firmware runs.
    unsafe {
        &*page
    }
}

/// A serial line of 8 bits without parity.
#[must_use]
pub fn serial(baudrate: u32) -> usart::Config {
    let mut config = usart::Config::default();
    config.baudrate = baudrate;
    // Bytes are handed on as they come: an emulated line is never idle.
    config.eager_reads = Some(1);
    config
}

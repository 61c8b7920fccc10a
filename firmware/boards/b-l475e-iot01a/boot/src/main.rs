//! The bootloader: embassy-boot, on this board's flash. It swaps in an image that the program marked, goes on where the power
//! failed, and swaps back an image that was started and not confirmed. It has no key and no link: whoever marks an image has
//! checked it.
#![no_std]
#![no_main]

#[cfg(feature = "emulated")]
#[path = "../../src/emulated.rs"]
#[allow(dead_code, reason = "nobody looks at the watchdog here")]
mod emulated;
#[path = "../../src/map.rs"]
mod map;

use core::{cell::RefCell, ops::Range};

use embassy_boot_stm32::{BootLoader, BootLoaderConfig};
use embassy_embedded_hal::flash::partition::BlockingPartition;
use embassy_stm32::{flash::Flash, wdg::IndependentWatchdog};
use embassy_sync::blocking_mutex::{Mutex, raw::NoopRawMutex};

/// A page is copied at once.
const PAGE_BYTES: usize = 2048;
/// The program takes the watchdog over within this time, or is swapped back.
const WATCHDOG_US: u32 = 16_000_000;

#[cortex_m_rt::entry]
fn main() -> ! {
    #[cfg(feature = "emulated")]
    emulated::install();
    let p = embassy_stm32::init(embassy_stm32::Config::default());
    let flash: Mutex<NoopRawMutex, _> = Mutex::new(RefCell::new(Flash::new_blocking(p.FLASH)));
    let part = |range: Range<u32>| BlockingPartition::new(&flash, range.start, range.end - range.start);
    let config = BootLoaderConfig {
        active: part(map::ACTIVE),
        dfu: part(map::SPARE),
        state: part(map::STATE),
    };
    let loader = BootLoader::prepare::<_, _, _, PAGE_BYTES>(config);
    // An image that hangs before it feeds the watchdog is started again, and so goes back.
    IndependentWatchdog::new(p.IWDG, WATCHDOG_US).unleash();
    #[expect(unsafe_code, reason = "the jump into the program")]
    // SAFETY: an image was flashed there, or swapped in whole.
    unsafe {
        loader.load(map::FLASH + map::ACTIVE.start)
    }
}

/// The flash does not obey: tried again from the beginning, where it goes on.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}

/// The emulator's watchdog asks for the time; here it stands still.
#[cfg(feature = "emulated")]
mod time {
    use core::task::Waker;

    struct Still;

    impl embassy_time_driver::Driver for Still {
        fn now(&self) -> u64 {
            0
        }

        fn schedule_wake(&self, _at: u64, _waker: &Waker) {}
    }

    embassy_time_driver::time_driver_impl!(static STILL: Still = Still);
}

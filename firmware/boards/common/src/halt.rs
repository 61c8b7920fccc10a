//! What a device does that cannot go on. The bench ends the emulator instead, and says why.

use app::control::Stopped;

/// For good: whoever services the device reads the log.
pub(crate) fn halt() -> ! {
    #[cfg(feature = "emulated")]
    semihosting::process::exit(78);
    #[cfg(not(feature = "emulated"))]
    loop {
        cortex_m::asm::wfi();
    }
}

/// Begins anew, with all outputs off.
pub fn restart(stopped: &Stopped) -> ! {
    match stopped {
        Stopped::Unreadable => defmt::error!("stopped: a record in flash cannot be read"),
        Stopped::Update => defmt::info!("restarts for its firmware"),
        Stopped::Unwritable => defmt::error!("stopped: a record cannot be written to flash"),
    }
    cortex_m::peripheral::SCB::sys_reset()
}

/// A bug: started again with all outputs off. Its text would cost 40 KiB of flash: the feature `panic-text` brings it.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    #[cfg(feature = "panic-text")]
    defmt::error!("panic: {}", defmt::Display2Format(info));
    #[cfg(not(feature = "panic-text"))]
    {
        let _ = info;
        defmt::error!("panic");
    }
    #[cfg(feature = "emulated")]
    semihosting::process::exit(101);
    #[cfg(not(feature = "emulated"))]
    cortex_m::peripheral::SCB::sys_reset();
}

//! embassy's executor in thread mode, asleep with WFI: its own sleeps with WFE, which an emulator takes for nothing and
//! then burns a core of the host.

#![expect(unsafe_code, reason = "embassy's contract with an executor")]

use core::sync::atomic::{AtomicBool, Ordering};

use embassy_executor::{Spawner, raw};
use static_cell::StaticCell;

static WORK: AtomicBool = AtomicBool::new(true);

#[unsafe(export_name = "__pender")]
fn pender(_context: *mut ()) {
    WORK.store(true, Ordering::Release);
}

/// Runs what `spawn` spawns, for good.
pub fn run(spawn: impl FnOnce(Spawner)) -> ! {
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();
    let executor: &'static raw::Executor = EXECUTOR.init(raw::Executor::new(core::ptr::null_mut()));
    spawn(executor.spawner());
    loop {
        // SAFETY: this is the only place that polls this executor, and it is not reentered.
        unsafe { executor.poll() };
        critical_section::with(|_| {
            // Interrupts are masked, but a pending one still ends the sleep, so that none is slept through.
            if !WORK.swap(false, Ordering::Acquire) {
                cortex_m::asm::wfi();
            }
        });
    }
}

//! embassy's time driver on SysTick: tickless, on every Cortex-M, and in QEMU, whose timers raise no compare interrupts.
//!
//! SysTick counts down 24 bits at the core clock. Whole periods are added to `base` when they are seen to have ended, so
//! that [`Clock::cycles`] never runs backwards; the period is cut short when something is due before its end.

use core::{cell::RefCell, task::Waker};

use cortex_m::peripheral::{SYST, syst::SystClkSource};
use critical_section::Mutex;
use embassy_time_driver::{Driver, TICK_HZ};
use embassy_time_queue_utils::Queue;

/// The longest period.
const RELOAD_MAX: u32 = 0x00ff_ffff;
/// No shorter period is set: it could be over before it is begun.
const RELOAD_MIN: u64 = 64;

struct Clock {
    /// Cycles before the running period.
    base: u64,
    reload: u32,
    hz: u64,
    systick: Option<SYST>,
    queue: Queue,
}

impl Clock {
    fn cycles(&mut self) -> u64 {
        let Some(systick) = &mut self.systick else { return 0 };
        let mut left = SYST::get_current();
        if systick.has_wrapped() {
            self.base += u64::from(self.reload) + 1;
            left = SYST::get_current();
        }
        // The counter stands at zero before its first reload.
        let passed = if left == 0 { 0 } else { self.reload + 1 - left };
        self.base + u64::from(passed)
    }

    fn ticks(&mut self) -> u64 {
        scale(self.cycles(), TICK_HZ, self.hz.max(1))
    }

    /// Begins a period that ends when the next thing is due.
    fn rearm(&mut self) {
        loop {
            let now = self.cycles();
            let ticks = scale(now, TICK_HZ, self.hz.max(1));
            let due = self.queue.next_expiration(ticks);
            let due_cycles = match due {
                u64::MAX => u64::MAX,
                due => scale(due, self.hz, TICK_HZ) + 1,
            };
            if due_cycles <= now {
                continue;
            }
            let period = (due_cycles - now).clamp(RELOAD_MIN, u64::from(RELOAD_MAX));
            self.base = now;
            self.reload = period as u32;
            if let Some(systick) = &mut self.systick {
                systick.set_reload(self.reload);
                systick.clear_current();
                systick.has_wrapped();
            }
            return;
        }
    }
}

fn scale(value: u64, numerator: u64, denominator: u64) -> u64 {
    (u128::from(value) * u128::from(numerator) / u128::from(denominator)) as u64
}

struct SystickDriver(Mutex<RefCell<Clock>>);

embassy_time_driver::time_driver_impl!(static DRIVER: SystickDriver = SystickDriver(Mutex::new(RefCell::new(Clock {
    base: 0,
    reload: RELOAD_MAX,
    hz: 0,
    systick: None,
    queue: Queue::new(),
}))));

impl Driver for SystickDriver {
    fn now(&self) -> u64 {
        critical_section::with(|cs| self.0.borrow_ref_mut(cs).ticks())
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            let mut clock = self.0.borrow_ref_mut(cs);
            if clock.queue.schedule_wake(at, waker) {
                clock.rearm();
            }
        });
    }
}

#[cortex_m_rt::exception]
fn SysTick() {
    critical_section::with(|cs| DRIVER.0.borrow_ref_mut(cs).rearm());
    #[cfg(feature = "emulated")]
    crate::emulated::look_at_watchdog();
}

/// Starts the clock; `hz`: the core clock.
pub(crate) fn start(mut systick: SYST, hz: u32) {
    systick.set_clock_source(SystClkSource::Core);
    systick.set_reload(RELOAD_MAX);
    systick.clear_current();
    systick.enable_interrupt();
    systick.enable_counter();
    critical_section::with(|cs| {
        let mut clock = DRIVER.0.borrow_ref_mut(cs);
        clock.hz = u64::from(hz);
        clock.systick = Some(systick);
    });
}

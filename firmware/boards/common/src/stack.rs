//! How much of the stack was ever in use. The start-up code paints all of it; what is no longer painted was used.

use embassy_time::{Duration, Instant};

/// How often it is looked at.
const PACE: Duration = Duration::from_secs(1);

/// Looks now and then, and logs when more was used than ever before.
pub(crate) struct Watch {
    due: Instant,
    used_bytes: usize,
}

impl Watch {
    pub(crate) const fn new() -> Self {
        Self {
            due: Instant::MIN,
            used_bytes: 0,
        }
    }

    /// Called often.
    pub(crate) fn look(&mut self) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + PACE;
        let (used_bytes, all_bytes) = used();
        if used_bytes > self.used_bytes {
            self.used_bytes = used_bytes;
            defmt::info!("stack: {=usize} of {=usize} bytes used", used_bytes, all_bytes);
        }
    }
}

#[expect(
    unsafe_code,
    reason = "symbols of the linker script; only their addresses mean anything"
)]
unsafe extern "C" {
    /// One behind the highest word; the linker script places both.
    static _stack_start: u32;
    static _stack_end: u32;
}

/// Bytes that were ever in use, of how many.
fn used() -> (usize, usize) {
    let (end, start) = (&raw const _stack_end, &raw const _stack_start);
    let all_bytes = start.addr() - end.addr();
    let words = all_bytes / size_of::<u32>();
    let is_painted = |word: &usize| {
        #[expect(unsafe_code, reason = "the stack is looked at from outside")]
        // SAFETY: a word between both ends; volatile, because the stack changes without the compiler's knowledge.
        let value = unsafe { end.add(*word).read_volatile() };
        value == cortex_m_rt::STACK_PAINT_VALUE
    };
    let free = (0..words).take_while(is_painted).count();
    (all_bytes - free * size_of::<u32>(), all_bytes)
}

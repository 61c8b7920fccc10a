//! What QEMU's B-L475E-IOT01A lacks, emulated by the firmware itself: for the bench, behind the feature `emulated`, never
//! in a production image.
//!
//! The MPU takes away the peripherals that QEMU does not have, and the flash for writing. Every access faults; the
//! HardFault handler decodes the load or store, does what the peripheral would do, and goes on behind the instruction.
//! Nothing is installed unless DBGMCU_IDCODE reads zero, which it does on no chip.
//!
//! | what | how |
//! |---|---|
//! | PWR, DMA and timers | memory: what is written is read back |
//! | FLASH | keys, erase and programming as RM0351 describes them; the bytes go to the file `flash.img` and, through a semihosting read, back into QEMU's ROM |
//! | IWDG | resets after its time, looked at from SysTick |
//! | ADC | conversions end at once and give what the bench wrote into [`ADC_COUNTS`] |
//! | USART, UART | passed on, with three corrections: writes to ICR clear what they may only, accesses are 32 bits wide, and a read of RDR wakes QEMU's main loop |

#![expect(unsafe_code, reason = "registers, fault frames and the MPU")]

use core::{arch::global_asm, ptr};

use semihosting::{
    fd::{AsFd as _, OwnedFd},
    sys::arm_compat as host,
};

const DBGMCU_IDCODE: *const u32 = ptr::without_provenance(0xe004_2000);
const SYSTICK_CSR: *mut u32 = ptr::without_provenance_mut(0xe000_e010);
const CFSR: *mut u32 = ptr::without_provenance_mut(0xe000_ed28);
const HFSR: *mut u32 = ptr::without_provenance_mut(0xe000_ed2c);
const MMFAR: *const u32 = ptr::without_provenance(0xe000_ed34);
const MPU_CTRL: *mut u32 = ptr::without_provenance_mut(0xe000_ed94);
const MPU_RBAR: *mut u32 = ptr::without_provenance_mut(0xe000_ed9c);
const MPU_RASR: *mut u32 = ptr::without_provenance_mut(0xe000_eda0);

/// MMFSR: a data access was refused, and its address is valid.
const DATA_ACCESS: u32 = 0x82;

const FLASH: u32 = 0x0800_0000;
const FLASH_END: u32 = 0x0810_0000;
const PAGE_BYTES: u32 = 2048;
const LSI_HZ: u64 = 32_000;

/// Analog inputs in counts, by channel; written by the bench. Half of the full scale is 25 degrees Celsius.
#[unsafe(no_mangle)]
static mut ADC_COUNTS: [u32; 20] = [2048; 20];
/// How many more words are programmed before the power fails; zero: any number. Written by the bench.
#[unsafe(no_mangle)]
static mut POWER_FAILS_AFTER: u32 = 0;

global_asm!(
    ".syntax unified",
    ".section .HardFault.user, \"ax\"",
    ".global HardFault",
    ".type HardFault, %function",
    ".thumb_func",
    "HardFault:",
    "tst lr, #4",
    "ite eq",
    "mrseq r0, msp",
    "mrsne r0, psp",
    "push {{r3-r11, lr}}",
    "add r1, sp, #4",
    "bl emulated_fault",
    "pop {{r3-r11, pc}}",
);

/// What the processor stacked.
#[repr(C)]
struct Frame {
    low: [u32; 4],
    r12: u32,
    lr: u32,
    pc: u32,
    xpsr: u32,
}

/// Registers that are nothing but memory: address and value.
const SHADOWS: usize = 192;

struct State {
    installed: bool,
    shadows: [(u32, u32); SHADOWS],
    flash_keys: u8,
    flash_locked: bool,
    flash_cr: u32,
    watchdog: Option<u64>,
    watchdog_pr: u32,
    watchdog_rlr: u32,
    image: Option<OwnedFd>,
}

static mut STATE: State = State {
    installed: false,
    shadows: [(0, 0); SHADOWS],
    flash_keys: 0,
    flash_locked: true,
    flash_cr: 0,
    watchdog: None,
    watchdog_pr: 0,
    watchdog_rlr: 0xfff,
    image: None,
};

fn state() -> &'static mut State {
    // SAFETY: one core; used from the fault handler, and from SysTick, which causes no fault while it holds this.
    unsafe { &mut *ptr::addr_of_mut!(STATE) }
}

/// Whether this is an emulator.
fn is_emulated() -> bool {
    // SAFETY: a register that every chip of the family has.
    unsafe { DBGMCU_IDCODE.read_volatile() == 0 }
}

/// Takes over; before anything touches a peripheral.
pub(crate) fn install() {
    if !is_emulated() {
        return;
    }
    let state = state();
    state.installed = true;
    // Reset values that the clock set-up waits for: voltage scaling, flash latency.
    state.shadow(0x4000_7000, Some(0x200));
    // The bootloader has taken over before.
    // SAFETY: without the MPU everything is accessible.
    unsafe { MPU_CTRL.write_volatile(0) };
    cortex_m::asm::dsb();
    // Base, length as a power of two, whether reading is allowed.
    let regions: [(u32, u32, bool); 6] = [
        (0x4000_0000, 15, false), // APB1: timers, IWDG, PWR, USART2 and 3, UART4
        (0x4001_3820, 5, false),  // USART1: ICR, RDR, TDR
        (0x4002_0000, 12, false), // DMA
        (0x4002_2000, 10, false), // FLASH
        (0x5004_0000, 18, false), // ADC, RNG
        (FLASH, 20, true),
    ];
    for (number, (base, length, read)) in (0_u32..).zip(regions) {
        let (access, never_execute) = if read { (5, 0) } else { (0, 1 << 28) };
        // SAFETY: the MPU is off, and nothing else configures it.
        unsafe {
            MPU_RBAR.write_volatile(base | 0x10 | number);
            MPU_RASR.write_volatile(never_execute | access << 24 | 0b010 << 16 | (length - 1) << 1 | 1);
        }
    }
    // SAFETY: the regions above are complete; everything else stays accessible, and faults run without the MPU.
    unsafe { MPU_CTRL.write_volatile(0b101) };
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
}

/// Resets the device if its watchdog was not fed in time. Called from SysTick.
pub(crate) fn look_at_watchdog() {
    let state = state();
    if let Some(fed) = state.watchdog.filter(|_| state.installed) {
        let cycles = (4_u64 << state.watchdog_pr) * u64::from(state.watchdog_rlr + 1);
        let limit = cycles * embassy_time_driver::TICK_HZ / LSI_HZ;
        if embassy_time_driver::now() - fed > limit {
            cortex_m::peripheral::SCB::sys_reset();
        }
    }
}

const fn is_uart(address: u32) -> bool {
    matches!(address & !0x3ff, 0x4000_4400 | 0x4000_4800 | 0x4000_4c00 | 0x4001_3800)
}

const fn is_memory(address: u32) -> bool {
    matches!(
        address,
        0x4000_0000..0x4000_8000 | 0x4002_0000..0x4002_1000 | 0x4002_2000..0x4002_2400 | 0x5004_0000..0x5008_0000
    )
}

impl State {
    /// Reads a register that is memory, or writes it; `None`: the table is full.
    fn shadow(&mut self, address: u32, value: Option<u32>) -> Option<u32> {
        let first = (address >> 2) as usize % SHADOWS;
        let places = (first..SHADOWS).chain(0..first);
        for place in places {
            let entry = &mut self.shadows[place];
            if entry.0 == address || entry.0 == 0 {
                entry.0 = address;
                entry.1 = value.unwrap_or(entry.1);
                return Some(entry.1);
            }
        }
        None
    }

    fn read(&mut self, address: u32) -> Option<u32> {
        Some(match address {
            // Flash status: never busy, never in error. Watchdog status: never updating.
            0x4002_2010 | 0x4000_300c => 0,
            0x4002_2014 => self.flash_cr | u32::from(self.flash_locked) << 31,
            0x5004_0040 => {
                let sequence = self.shadow(0x5004_0030, None)?;
                let channel = (sequence >> 6 & 0x1f) as usize;
                // SAFETY: a plain word that the bench writes while the processor stands still.
                unsafe {
                    ptr::addr_of!(ADC_COUNTS)
                        .cast::<u32>()
                        .add(channel.min(19))
                        .read_volatile()
                }
            }
            address if is_uart(address) => {
                // SAFETY: QEMU has this peripheral; faults run without the MPU.
                let value = unsafe { ptr::without_provenance::<u32>(address as usize).read_volatile() };
                if address & 0x3ff == 0x24 {
                    // Reading RDR does not make QEMU's main loop offer the next byte. Touching the SysTick timer does.
                    // SAFETY: enabled, with interrupt and core clock, as systick.rs set it.
                    unsafe {
                        SYSTICK_CSR.write_volatile(0b110);
                        SYSTICK_CSR.write_volatile(0b111);
                    }
                }
                value
            }
            address if is_memory(address) => self.shadow(address, None)?,
            _ => return None,
        })
    }

    fn write(&mut self, address: u32, value: u32, bytes: u32) -> Option<()> {
        match address {
            0x4002_2008 => {
                self.flash_keys = match (self.flash_keys, value) {
                    (0, 0x4567_0123) => 1,
                    (1, 0xcdef_89ab) => {
                        self.flash_locked = false;
                        0
                    }
                    _ => 0,
                };
            }
            0x4002_2010 | 0x4000_300c => {}
            0x4002_2014 => self.control_flash(value),
            0x4000_3000 => match value {
                0xcccc | 0xaaaa if value == 0xcccc || self.watchdog.is_some() => {
                    self.watchdog = Some(embassy_time_driver::now());
                }
                _ => {}
            },
            0x4000_3004 => self.watchdog_pr = value & 7,
            0x4000_3008 => self.watchdog_rlr = value & 0xfff,
            // ADC_ISR is cleared by ones.
            0x5004_0000 => {
                let flags = self.shadow(address, None)?;
                self.shadow(address, Some(flags & !value))?;
            }
            // ADC_CR: calibration, disabling and conversions are over as soon as they are begun.
            0x5004_0008 => {
                let (enable, disable, start) = (value & 1, value & 2, value & 4);
                let flags = self.shadow(0x5004_0000, None)?;
                let done = enable | if start == 0 { 0 } else { 0b1100 };
                self.shadow(0x5004_0000, Some(flags | done))?;
                let kept = value & !(1 << 31 | 0b110) & !(u32::from(disable != 0));
                self.shadow(address, Some(kept))?;
            }
            // A write to QEMU's ICR clears any flag of ISR; the chip clears those that ICR has.
            address if is_uart(address) => {
                let value = if address & 0x3ff == 0x20 {
                    value & 0x0012_1b5f
                } else {
                    value
                };
                // SAFETY: QEMU has this peripheral; faults run without the MPU.
                unsafe { ptr::without_provenance_mut::<u32>(address as usize).write_volatile(value) };
            }
            FLASH..FLASH_END => self.program(address, value, bytes),
            address if is_memory(address) => {
                let word = address & !3;
                let (mask, shift) = (u32::MAX >> (32 - 8 * bytes), 8 * (address & 3));
                let old = self.shadow(word, None)?;
                self.shadow(word, Some(old & !(mask << shift) | (value & mask) << shift))?;
            }
            _ => return None,
        }
        Some(())
    }

    fn control_flash(&mut self, value: u32) {
        const PER: u32 = 1 << 1;
        const START: u32 = 1 << 16;
        const LOCK: u32 = 1 << 31;
        if self.flash_locked {
            return;
        }
        self.flash_locked = value & LOCK != 0;
        self.flash_cr = value & !(START | LOCK);
        if value & START != 0 && value & PER != 0 {
            let second_bank = if value & 1 << 11 == 0 { 0 } else { 256 };
            let page = FLASH + ((value >> 3 & 0xff) + second_bank) * PAGE_BYTES;
            for offset in (0..PAGE_BYTES).step_by(256) {
                self.put(page + offset, &[0xff; 256]);
            }
        }
    }

    /// Programs bytes: bits only go from one to zero.
    fn program(&mut self, address: u32, value: u32, bytes: u32) {
        const PG: u32 = 1;
        if self.flash_cr & PG == 0 {
            return;
        }
        let fails = ptr::addr_of_mut!(POWER_FAILS_AFTER);
        // SAFETY: a plain word that the bench writes while the processor stands still.
        unsafe {
            match fails.read_volatile() {
                0 => {}
                1 => host::sys_exit(host::ExitReason::ADP_Stopped_ApplicationExit),
                more => fails.write_volatile(more - 1),
            }
        }
        let mut new = value.to_le_bytes();
        for (offset, byte) in new.iter_mut().take(bytes as usize).enumerate() {
            // SAFETY: the flash can be read everywhere.
            *byte &= unsafe { ptr::without_provenance::<u8>(address as usize + offset).read_volatile() };
        }
        self.put(address, &new[..bytes as usize]);
    }

    /// Puts bytes into the file, and from there into the ROM, which semihosting can write though the processor cannot.
    fn put(&mut self, address: u32, bytes: &[u8]) {
        if self.image.is_none() {
            self.image = host::sys_open(c"flash.img", host::OpenMode::RDWR_BINARY).ok();
        }
        let Some(image) = &self.image else {
            host::sys_exit(host::ExitReason::ADP_Stopped_InternalError);
            return;
        };
        let offset = (address - FLASH) as usize;
        let rom = ptr::without_provenance_mut::<u8>(address as usize);
        // SAFETY: the file is as long as the flash, and `rom` is inside the flash.
        let written = unsafe {
            host::sys_seek(image.as_fd(), offset)
                .and_then(|()| host::sys_write_orig(image.as_fd(), bytes))
                .and_then(|_| host::sys_seek(image.as_fd(), offset))
                .and_then(|()| host::sys_read_orig(image.as_fd(), core::slice::from_raw_parts_mut(rom, bytes.len())))
        };
        if written.is_err() {
            host::sys_exit(host::ExitReason::ADP_Stopped_InternalError);
        }
    }
}

/// One load or store.
struct Access {
    load: bool,
    bytes: u32,
    signed: bool,
    register: u32,
    length: u32,
    /// A base register that changes with it, and its new value.
    write_back: Option<(u32, u32)>,
}

/// Reads an instruction: the forms that a compiler uses for one byte, half-word or word (ARMv7-M, chapter A5).
fn decode(first: u32, second: u32, register: impl Fn(u32) -> u32) -> Option<Access> {
    let short = |load, bytes, signed| Access {
        load,
        bytes,
        signed,
        register: first & 7,
        length: 2,
        write_back: None,
    };
    Some(match first >> 11 {
        0b01100 => short(false, 4, false),
        0b01101 => short(true, 4, false),
        0b01110 => short(false, 1, false),
        0b01111 => short(true, 1, false),
        0b10000 => short(false, 2, false),
        0b10001 => short(true, 2, false),
        0b01010 | 0b01011 => match first >> 9 & 7 {
            0 => short(false, 4, false),
            1 => short(false, 2, false),
            2 => short(false, 1, false),
            3 => short(true, 1, true),
            4 => short(true, 4, false),
            5 => short(true, 2, false),
            6 => short(true, 1, false),
            _ => short(true, 2, true),
        },
        0b11111 if first & 0xfe00 == 0xf800 => {
            let base = first & 0xf;
            let indexed = first & 0x80 == 0 && second & 0x900 == 0x900;
            let offset = second & 0xff;
            let moved = if second & 0x200 == 0 {
                register(base).wrapping_sub(offset)
            } else {
                register(base).wrapping_add(offset)
            };
            Access {
                load: first & 0x10 != 0,
                bytes: 1 << (first >> 5 & 3),
                signed: first & 0x100 != 0,
                register: second >> 12,
                length: 4,
                write_back: indexed.then_some((base, moved)),
            }
        }
        _ => return None,
    })
}

fn register<'a>(frame: &'a mut Frame, high: &'a mut [u32; 8], number: u32) -> Option<&'a mut u32> {
    match number {
        0..=3 => Some(&mut frame.low[number as usize]),
        4..=11 => Some(&mut high[number as usize - 4]),
        12 => Some(&mut frame.r12),
        14 => Some(&mut frame.lr),
        _ => None,
    }
}

/// What the next instruction's place in an IT block is.
const fn after(xpsr: u32) -> u32 {
    let block = xpsr >> 8 & 0xfc | xpsr >> 25 & 3;
    let next = if block & 7 == 0 {
        0
    } else {
        block & 0xe0 | block << 1 & 0x1f
    };
    xpsr & !0x0600_fc00 | (next & 0xfc) << 8 | (next & 3) << 25
}

fn emulate(frame: &mut Frame, high: &mut [u32; 8], address: u32) -> Option<()> {
    let at = ptr::without_provenance::<u16>(frame.pc as usize);
    // SAFETY: the processor has just executed what stands there.
    let (first, second) = unsafe { (u32::from(at.read_unaligned()), u32::from(at.add(1).read_unaligned())) };
    let (low, r12, lr) = (frame.low, frame.r12, frame.lr);
    let before = *high;
    let access = decode(first, second, |number| match number {
        0..=3 => low[number as usize],
        4..=11 => before[number as usize - 4],
        12 => r12,
        _ => lr,
    })?;
    if access.load {
        let word = state().read(address & !3)? >> (8 * (address & 3));
        *register(frame, high, access.register)? = match (access.bytes, access.signed) {
            (1, false) => word & 0xff,
            (1, true) => word as u8 as i8 as u32,
            (2, false) => word & 0xffff,
            (2, true) => word as u16 as i16 as u32,
            _ => word,
        };
    } else {
        let value = *register(frame, high, access.register)?;
        state().write(address, value, access.bytes)?;
    }
    if let Some((base, moved)) = access.write_back {
        *register(frame, high, base)? = moved;
    }
    frame.pc += access.length;
    frame.xpsr = after(frame.xpsr);
    Some(())
}

/// # Safety
/// Called by the handler above alone, with what it stacked.
#[unsafe(no_mangle)]
unsafe extern "C" fn emulated_fault(frame: &mut Frame, high: &mut [u32; 8]) {
    // SAFETY: fault registers, readable in a fault.
    let (cause, address) = unsafe { (CFSR.read_volatile(), MMFAR.read_volatile()) };
    if state().installed && cause & DATA_ACCESS == DATA_ACCESS && emulate(frame, high, address).is_some() {
        // SAFETY: written back as read, which clears them.
        unsafe {
            CFSR.write_volatile(cause);
            HFSR.write_volatile(1 << 30);
        }
        return;
    }
    semihosting::eprintln!(
        "fault at {:08x} (from {:08x}): {cause:08x}, {address:08x}",
        frame.pc,
        frame.lr
    );
    host::sys_exit(host::ExitReason::ADP_Stopped_RunTimeErrorUnknown);
    loop {
        cortex_m::asm::wfi();
    }
}

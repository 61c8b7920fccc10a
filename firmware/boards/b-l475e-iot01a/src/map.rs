//! The flash, in bytes from its beginning; the program and its bootloader agree on it. Pages have 2 KiB, banks 512 KiB.

use core::ops::Range;

/// Where the flash is in the memory.
#[allow(dead_code, reason = "the program knows where it was linked")]
pub(crate) const FLASH: u32 = 0x0800_0000;
/// Where the bootloader is told what to do, and notes how far it is: four words a page of the program, and two.
pub(crate) const STATE: Range<u32> = 0x0_8000..0x0_9000;
/// The program that runs.
#[allow(dead_code, reason = "the program knows where it was linked")]
pub(crate) const ACTIVE: Range<u32> = 0x1_0000..0x4_c000;
/// The program before it, or the one to come: one page larger, and in the second bank, so that the program runs on while
/// it is written.
pub(crate) const SPARE: Range<u32> = 0x9_0000..0xc_c800;
/// Records, in the second bank, too.
#[allow(dead_code, reason = "no matter of the bootloader")]
pub(crate) const RECORDS: Range<u32> = 0x8_0000..0x9_0000;
/// Identity: the last page.
#[allow(dead_code, reason = "no matter of the bootloader")]
pub(crate) const IDENTITY: u32 = 0xf_f800;

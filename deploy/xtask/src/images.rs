//! How large the firmware's images are, how deep their stacks get, and whether they keep to their budget.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use object::{
    Endianness,
    elf::PT_LOAD,
    read::elf::{ElfFile32, ProgramHeader as _},
};

use crate::context::{Context, THUMB_TARGET, run, say};
use crate::stacks;

/// The boards, by their packages: the board's own, which gives it its name, and its bootloader's if it has one. Images of two
/// are never built together: their chips are features of one dependency.
pub(crate) const BOARDS: [&[&str]; 2] = [&[EMULATED_BOARD, EMULATED_BOOT], &["nucleo-f429zi"]];
/// The board that QEMU knows.
pub(crate) const EMULATED_BOARD: &str = "b-l475e-iot01a";
/// Its bootloader, which has one image of this name.
pub(crate) const EMULATED_BOOT: &str = "b-l475e-iot01a-boot";
/// The board of the bench, as QEMU runs it.
pub(crate) const EMULATED: [&str; 9] = [
    "--package",
    EMULATED_BOARD,
    "--package",
    EMULATED_BOOT,
    "--no-default-features",
    "--features",
    "emulated",
    "--target",
    THUMB_TARGET,
];
/// Flash of STM32 begins here, RAM there.
const FLASH: u32 = 0x0800_0000;
const RAM: u32 = 0x2000_0000;

/// Builds the images for the emulator and returns their folder. They have the names of those that are flashed and differ from
/// them in the shim alone; copies lie in a folder of their own, so that neither is taken for the other.
///
/// # Errors
/// If they do not build.
pub(crate) fn emulated(context: &Context) -> Result<PathBuf> {
    run(context
        .cargo_firmware()
        .args(["build", "--locked", "--release", "--bins"])
        .args(EMULATED))?;
    let built = context.firmware().join("target").join(THUMB_TARGET).join("release");
    let folder = context.root.join("target/emulated");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for image in budget(context, EMULATED_BOARD)?.keys() {
        let from = built.join(image);
        fs::copy(&from, folder.join(image)).with_context(|| from.display().to_string())?;
    }
    Ok(folder)
}

/// The package whose image counts instructions, and that name.
pub(crate) const COUNT: &str = "count";

/// Tells a measurement where it lies.
pub(crate) const COUNT_VARIABLE: &str = "HOLDFAST_COUNT_IMAGE";

/// Builds the image that counts instructions in QEMU, and returns where it lies.
///
/// # Errors
/// If it does not build.
pub(crate) fn count(context: &Context) -> Result<PathBuf> {
    run(context.cargo_firmware().args([
        "build",
        "--locked",
        "--release",
        "--package",
        COUNT,
        "--target",
        THUMB_TARGET,
    ]))?;
    let built = context.firmware().join("target").join(THUMB_TARGET);
    Ok(built.join("release").join(COUNT))
}

struct Size {
    flash: u64,
    ram: u64,
    /// By the machine code.
    stack: u64,
}

/// KiB of flash, static RAM and stack by image.
type Budget = BTreeMap<String, [u64; 3]>;

fn budget(context: &Context, board: &str) -> Result<Budget> {
    let path = context.firmware().join("boards").join(board).join("budget.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

/// Prints a table of the images of a board that were built, and refuses one that is above its budget.
pub(crate) fn check_sizes(context: &Context, board: &str) -> Result<()> {
    let images = context.firmware().join("target").join(THUMB_TARGET).join("release");
    let mut above = Vec::new();
    say(&format!(
        "{board:<16} flash, KiB   static RAM, KiB   stack by its code, KiB   (of budget)\n"
    ));
    for (image, [flash_kib, ram_kib, stack_kib]) in budget(context, board)? {
        let size = size_of(&images.join(&image))?;
        say(&format!(
            "{image:<12} {:>8.1} of {flash_kib:<4} {:>9.1} of {ram_kib:<4} {:>13.1} of {stack_kib}\n",
            kib(size.flash),
            kib(size.ram),
            kib(size.stack),
        ));
        if size.flash > flash_kib * 1024 || size.ram > ram_kib * 1024 || size.stack > stack_kib * 1024 {
            above.push(image);
        }
    }
    ensure!(above.is_empty(), "above the budget of {board}: {}", above.join(", "));
    Ok(())
}

/// Prints the deepest stack that each emulated image came to, of the lines `image bytes` that the bench wrote into a
/// file, and refuses one that is above its budget.
pub(crate) fn check_stacks(context: &Context, measured: &Path) -> Result<()> {
    let text = fs::read_to_string(measured).with_context(|| measured.display().to_string())?;
    let mut deepest: BTreeMap<&str, u64> = BTreeMap::new();
    for line in text.lines() {
        let (image, bytes) = line.split_once(' ').context("an image and a number")?;
        let bytes: u64 = bytes.parse().with_context(|| format!("{image}: {bytes:?} bytes"))?;
        let known = deepest.entry(image).or_default();
        *known = bytes.max(*known);
    }
    let mut above = Vec::new();
    say("image        stack in the emulator, KiB   (of budget)\n");
    // A bootloader logs nothing.
    let programs = budget(context, EMULATED_BOARD)?.into_iter();
    for (image, [_, _, stack_kib]) in programs.filter(|(image, _)| image != EMULATED_BOOT) {
        let bytes = *deepest
            .get(image.as_str())
            .with_context(|| format!("{image} never said how much stack it used"))?;
        say(&format!("{image:<12} {:>15.1} of {stack_kib}\n", kib(bytes)));
        if bytes > stack_kib * 1024 {
            above.push(image);
        }
    }
    ensure!(above.is_empty(), "stacks above their budget: {}", above.join(", "));
    Ok(())
}

fn size_of(path: &Path) -> Result<Size> {
    let file = fs::read(path).with_context(|| path.display().to_string())?;
    let elf = ElfFile32::<Endianness>::parse(&*file).with_context(|| path.display().to_string())?;
    let endian = elf.endian();
    let mut size = Size {
        flash: 0,
        ram: 0,
        stack: stacks::depth_of(&file).with_context(|| path.display().to_string())?,
    };
    for segment in elf.elf_program_headers() {
        if segment.p_type(endian) != PT_LOAD {
            continue;
        }
        if (FLASH..RAM).contains(&segment.p_paddr(endian)) {
            size.flash += u64::from(segment.p_filesz(endian));
        }
        if segment.p_vaddr(endian) >= RAM {
            size.ram += u64::from(segment.p_memsz(endian));
        }
    }
    Ok(size)
}

//! How large the firmware's images are, and whether they keep to their budget.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use object::{
    Endianness,
    elf::PT_LOAD,
    read::elf::{ElfFile32, ProgramHeader as _},
};

use crate::context::{Context, THUMB_TARGET, say};

/// Where boards keep their budgets: KiB of flash and of static RAM for each image.
const BUDGETS: [&str; 1] = ["boards/b-l475e-iot01a/budget.toml"];
/// Flash of STM32 begins here, RAM there.
const FLASH: u32 = 0x0800_0000;
const RAM: u32 = 0x2000_0000;

struct Size {
    flash: u64,
    ram: u64,
}

/// Prints a table of the images that were built, and refuses one that is above its budget.
pub(crate) fn check_sizes(context: &Context) -> Result<()> {
    let images = context.firmware().join("target").join(THUMB_TARGET).join("release");
    let mut above = Vec::new();
    say("image          flash, KiB     static RAM, KiB   (of budget)\n");
    for budget in BUDGETS {
        let path = context.firmware().join(budget);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let rows: BTreeMap<String, [u64; 2]> = toml::from_str(&text).with_context(|| path.display().to_string())?;
        for (image, [flash_kib, ram_kib]) in rows {
            let size = size_of(&images.join(&image))?;
            let kib = |bytes: u64| bytes as f64 / 1024.0;
            say(&format!(
                "{image:<12} {:>6.1} of {flash_kib:<4} {:>10.1} of {ram_kib}\n",
                kib(size.flash),
                kib(size.ram)
            ));
            if size.flash > flash_kib * 1024 || size.ram > ram_kib * 1024 {
                above.push(image);
            }
        }
    }
    ensure!(
        above.is_empty(),
        "above the budget of their board: {}",
        above.join(", ")
    );
    Ok(())
}

fn size_of(path: &Path) -> Result<Size> {
    let elf = fs::read(path).with_context(|| path.display().to_string())?;
    let elf = ElfFile32::<Endianness>::parse(&*elf).with_context(|| path.display().to_string())?;
    let endian = elf.endian();
    let mut size = Size { flash: 0, ram: 0 };
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

//! How large the firmware's images are, and whether they keep to their budget.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use crate::context::{Context, THUMB_TARGET, say};

/// Where boards keep their budgets: KiB of flash and of static RAM for each image.
const BUDGETS: [&str; 1] = ["boards/b-l475e-iot01a/budget.toml"];
/// Flash of STM32 begins here, RAM there.
const FLASH: u64 = 0x0800_0000;
const RAM: u64 = 0x2000_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// From the program headers of an ELF of 32 bits, little endian.
fn size_of(path: &Path) -> Result<Size> {
    let elf = fs::read(path).with_context(|| path.display().to_string())?;
    sizes(&elf).with_context(|| path.display().to_string())
}

fn sizes(elf: &[u8]) -> Result<Size> {
    let word = |at: usize| -> Result<u64> {
        let bytes = elf.get(at..at + 4).context("it ends early")?;
        Ok(bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    };
    if elf.get(..6) != Some(b"\x7fELF\x01\x01") {
        bail!("not an ELF of 32 bits, little endian");
    }
    let (headers, shape) = (word(28)? as usize, word(42)?);
    let (length, count) = ((shape & 0xffff) as usize, shape >> 16);
    let mut size = Size { flash: 0, ram: 0 };
    for i in 0..count as usize {
        let at = headers + i * length;
        ensure!(elf.len() >= at + length, "it ends early");
        // PT_LOAD
        if word(at)? != 1 {
            continue;
        }
        let (virtual_at, physical_at) = (word(at + 8)?, word(at + 12)?);
        if (FLASH..RAM).contains(&physical_at) {
            size.flash += word(at + 16)?;
        }
        if virtual_at >= RAM {
            size.ram += word(at + 20)?;
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flash_holds_what_is_loaded_and_ram_what_is_used() {
        let mut elf = vec![0; 52 + 2 * 32];
        let mut put = |at: usize, word: u32| elf[at..at + 4].copy_from_slice(&word.to_le_bytes());
        put(0, u32::from_le_bytes(*b"\x7fELF"));
        put(4, 0x0101);
        put(28, 52);
        put(42, 2 << 16 | 32);
        for (i, row) in [
            [1, 0, 0x0800_0000, 0x0800_0000, 900, 900],
            [1, 0, 0x2000_0000, 0x0800_0384, 100, 700],
        ]
        .into_iter()
        .enumerate()
        {
            for (j, word) in row.into_iter().enumerate() {
                put(52 + i * 32 + j * 4, word);
            }
        }
        assert_eq!(sizes(&elf).unwrap(), Size { flash: 1000, ram: 700 });
        for end in 0..elf.len() {
            assert!(sizes(&elf[..end]).is_err(), "cut to {end}");
        }
    }
}

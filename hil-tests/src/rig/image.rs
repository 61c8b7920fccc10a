//! A board's flash as a file: the program out of its ELF, and the identity in its page.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, anyhow, ensure};
use gateway::firmware::elf;
use object::{Object, ObjectSymbol};

/// The bootloader, beside the programs.
const BOOT: &str = "b-l475e-iot01a-boot";
/// Where the flash begins.
const FLASH: u32 = 0x0800_0000;
/// All of it: 1 MiB.
const FLASH_BYTES: usize = 0x10_0000;
/// The last page holds the identity.
const IDENTITY_AT: usize = 0xf_f800;

/// A program for a board.
#[derive(Clone, Debug)]
pub struct Image {
    elf: Vec<u8>,
    flash: Vec<u8>,
    symbols: BTreeMap<String, u64>,
}

impl Image {
    /// Reads an ELF.
    ///
    /// # Errors
    /// If it is none, or has something outside of the flash.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let elf = std::fs::read(path).with_context(|| format!("{}: no firmware image", path.display()))?;
        let file = object::File::parse(&*elf).with_context(|| path.display().to_string())?;
        let mut flash = vec![0xff; FLASH_BYTES];
        place(&path.with_file_name(BOOT), &mut flash)?;
        place(path, &mut flash)?;
        let symbols = file.symbols().filter_map(|symbol| {
            let name = symbol.name().ok()?;
            Some((name.to_owned(), symbol.address()))
        });
        let symbols = symbols.collect();
        Ok(Self { flash, symbols, elf })
    }

    /// The whole flash of a board that was flashed and provisioned with a page.
    ///
    /// # Errors
    /// If the page is longer than the flash has room for.
    pub fn provisioned(&self, page: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut flash = self.flash.clone();
        let place = flash.get_mut(IDENTITY_AT..IDENTITY_AT + page.len());
        place.context("an identity of more than a page")?.copy_from_slice(page);
        Ok(flash)
    }

    /// The ELF.
    #[must_use]
    pub fn elf(&self) -> &[u8] {
        &self.elf
    }

    /// Where a symbol lies in memory.
    ///
    /// # Errors
    /// If the program has none of this name.
    pub fn address_of(&self, symbol: &str) -> anyhow::Result<u64> {
        self.symbols
            .get(symbol)
            .copied()
            .with_context(|| format!("the firmware has no symbol {symbol}"))
    }
}

/// Puts what an ELF has for the flash into it.
fn place(path: &Path, flash: &mut [u8]) -> anyhow::Result<()> {
    let elf = std::fs::read(path).with_context(|| format!("{}: no firmware image", path.display()))?;
    let shown = path.display();
    let (at, bytes) = elf::flatten(&elf).map_err(|why| anyhow!("{shown}: {why}"))?;
    let at = at
        .checked_sub(FLASH)
        .with_context(|| format!("{shown}: below the flash"))? as usize;
    let end = at + bytes.len();
    ensure!(end <= IDENTITY_AT, "{shown}: up to {end:#x}, where the identity lies");
    flash[at..end].copy_from_slice(&bytes);
    Ok(())
}

//! A NOR flash in memory that loses its power at a chosen operation. An operation is the erasing of one page or the writing of
//! one word, of 8 bytes as on STM32L4: what is torn there is torn in the middle.

use std::{cell::RefCell, ops::Range, rc::Rc};

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use embedded_storage_async::nor_flash as asynch;

pub(crate) const PAGE: usize = 2048;
pub(crate) const WORD: usize = 8;

/// How the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Before the operation begins.
    Before,
    /// In its middle: the first half of a page is erased, the first half of a word is written.
    Torn,
}

impl Cut {
    pub(crate) const ALL: [Self; 2] = [Self::Before, Self::Torn];
}

#[derive(Debug)]
pub(crate) struct PowerLost;

impl NorFlashError for PowerLost {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

struct Chip {
    bytes: Vec<u8>,
    done: u64,
    cut: Option<(u64, Cut)>,
    dead: bool,
}

/// The chip; clones are the same one.
#[derive(Clone)]
pub(crate) struct Flash(Rc<RefCell<Chip>>);

impl Flash {
    pub(crate) fn erased(pages: usize) -> Self {
        Self::with(vec![0xff; pages * PAGE])
    }

    fn with(bytes: Vec<u8>) -> Self {
        Self(Rc::new(RefCell::new(Chip {
            bytes,
            done: 0,
            cut: None,
            dead: false,
        })))
    }

    /// Another chip with the same content, under power, that will not fail.
    pub(crate) fn copied(&self) -> Self {
        Self::with(self.0.borrow().bytes.clone())
    }

    /// Lets the power fail at operation `at`, counted from here on.
    pub(crate) fn cut_at(&self, at: u64, cut: Cut) {
        let mut chip = self.0.borrow_mut();
        chip.cut = Some((chip.done + at, cut));
    }

    /// The power is back, and stays.
    pub(crate) fn power_on(&self) {
        let mut chip = self.0.borrow_mut();
        (chip.dead, chip.cut) = (false, None);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.0.borrow().dead
    }

    /// Operations so far.
    pub(crate) fn done(&self) -> u64 {
        self.0.borrow().done
    }

    pub(crate) fn part(&self, pages: Range<usize>) -> Part {
        Part {
            flash: self.clone(),
            start: pages.start * PAGE,
            len: pages.len() * PAGE,
        }
    }
}

impl Chip {
    /// Whether the next operation happens; `None`: half of it.
    fn begin(&mut self) -> Result<Option<()>, PowerLost> {
        if self.dead {
            return Err(PowerLost);
        }
        match self.cut {
            Some((at, cut)) if at == self.done => {
                self.dead = true;
                if cut == Cut::Torn { Ok(None) } else { Err(PowerLost) }
            }
            Some(_) | None => {
                self.done += 1;
                Ok(Some(()))
            }
        }
    }

    fn erase(&mut self, at: usize) -> Result<(), PowerLost> {
        let whole = self.begin()?;
        let len = if whole.is_some() { PAGE } else { PAGE / 2 };
        self.bytes[at..at + len].fill(0xff);
        whole.ok_or(PowerLost)
    }

    fn write(&mut self, at: usize, word: &[u8]) -> Result<(), PowerLost> {
        let whole = self.begin()?;
        let place = &mut self.bytes[at..at + WORD];
        // As STM32L4 has it: a word is programmed once, unless all of it becomes zero.
        let fresh = place.iter().all(|byte| *byte == 0xff) || word.iter().all(|byte| *byte == 0);
        assert!(fresh, "the word at {at:#x} is programmed twice");
        let len = if whole.is_some() { WORD } else { WORD / 2 };
        place[..len].copy_from_slice(&word[..len]);
        whole.ok_or(PowerLost)
    }
}

/// A range of pages.
#[derive(Clone)]
pub(crate) struct Part {
    flash: Flash,
    start: usize,
    len: usize,
}

impl Part {
    /// What is in it, without its power.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.flash.0.borrow().bytes[self.start..self.start + self.len].to_vec()
    }

    /// Writes without counting: at the factory, or by somebody who should not.
    pub(crate) fn put(&self, at: usize, bytes: &[u8]) {
        let start = self.start + at;
        self.flash.0.borrow_mut().bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }
}

impl ErrorType for Part {
    type Error = PowerLost;
}

impl ReadNorFlash for Part {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PowerLost> {
        let chip = self.flash.0.borrow();
        if chip.dead {
            return Err(PowerLost);
        }
        assert!(offset as usize + bytes.len() <= self.len);
        let at = self.start + offset as usize;
        bytes.copy_from_slice(&chip.bytes[at..at + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.len
    }
}

impl NorFlash for Part {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerLost> {
        let (from, to) = (from as usize, to as usize);
        assert!(from.is_multiple_of(PAGE) && to.is_multiple_of(PAGE) && to <= self.len);
        let mut chip = self.flash.0.borrow_mut();
        (from..to)
            .step_by(PAGE)
            .try_for_each(|page| chip.erase(self.start + page))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PowerLost> {
        let offset = offset as usize;
        assert!(offset.is_multiple_of(WORD) && bytes.len().is_multiple_of(WORD) && offset + bytes.len() <= self.len);
        let mut chip = self.flash.0.borrow_mut();
        let mut words = bytes.chunks(WORD).enumerate();
        words.try_for_each(|(i, word)| chip.write(self.start + offset + i * WORD, word))
    }
}

impl asynch::ReadNorFlash for Part {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PowerLost> {
        ReadNorFlash::read(self, offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.len
    }
}

impl asynch::NorFlash for Part {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerLost> {
        NorFlash::erase(self, from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PowerLost> {
        NorFlash::write(self, offset, bytes)
    }
}

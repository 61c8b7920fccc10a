//! A key matrix, up to the digits that were entered.
//!
//! Rows are driven low one after the other, columns have pull-ups. Each tick reads the row that the tick before drove,
//! so that lines settle between two ticks and nobody waits. Three keys at the corners of a rectangle look like four, so
//! more than one key at a time is none, until all are released.

use embedded_hal::digital::{ErrorType, InputPin, OutputPin};

/// Digits of an entry at most.
pub const DIGITS_MAX: usize = 12;
/// Clears what was typed.
pub const CLEAR: u8 = b'*';
/// Ends an entry.
pub const ENTER: u8 = b'#';

/// What is printed on the keys.
pub type Layout<const ROWS: usize, const COLUMNS: usize> = [[u8; COLUMNS]; ROWS];

/// The usual keypad of a telephone.
pub const LAYOUT_3X4: Layout<4, 3> = [*b"123", *b"456", *b"789", *b"*0#"];
/// The same with four letters, which enter nothing.
pub const LAYOUT_4X4: Layout<4, 4> = [*b"123A", *b"456B", *b"789C", *b"*0#D"];

/// Digits that were typed.
pub type Digits = heapless::String<DIGITS_MAX>;

/// What one scan of all rows saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressed {
    /// No key.
    None,
    /// This key.
    One(u8),
    /// More than one, which cannot be told apart.
    Many,
}

impl Pressed {
    const fn and(self, key: u8) -> Self {
        match self {
            Self::None => Self::One(key),
            Self::One(_) | Self::Many => Self::Many,
        }
    }
}

/// What the user did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// One more digit: so many are there now.
    Digit(usize),
    /// The digits are gone: cleared by a key, or an entry that was too long was ended.
    Cleared,
    /// The digits are gone: nobody went on typing.
    TimedOut,
    /// The digits are gone, and those that follow are ignored until [`CLEAR`] or [`ENTER`]: a number that is cut off
    /// would be another number.
    TooLong,
    /// An entry.
    Entered(Digits),
}

/// Digits from scans.
#[derive(Clone, Debug)]
pub struct Entry {
    debounce_ms: u32,
    timeout_ms: u32,
    settled: Pressed,
    /// What is seen instead, and since when.
    candidate: Option<(Pressed, u64)>,
    digits: Digits,
    too_long: bool,
    typed_ms: u64,
}

impl Entry {
    /// `debounce_ms`: how long a key must be down, and all up, to count. `timeout_ms`: what was typed is gone after so
    /// long without a key.
    #[must_use]
    pub const fn new(debounce_ms: u32, timeout_ms: u32) -> Self {
        Self {
            debounce_ms,
            timeout_ms,
            settled: Pressed::None,
            candidate: None,
            digits: Digits::new(),
            too_long: false,
            typed_ms: 0,
        }
    }

    /// Looks at a scan.
    pub fn look(&mut self, now_ms: u64, pressed: Pressed) -> Option<Typed> {
        if let Some(key) = self.key(now_ms, pressed) {
            let typed = self.press(key);
            self.typed_ms = now_ms;
            return typed;
        }
        let is_idle = self.digits.is_empty() && !self.too_long;
        if !is_idle && now_ms.saturating_sub(self.typed_ms) >= u64::from(self.timeout_ms) {
            self.clear();
            return Some(Typed::TimedOut);
        }
        None
    }

    /// Digits so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.digits.len()
    }

    /// No digit so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digits.is_empty()
    }

    /// Forgets what was typed.
    pub fn clear(&mut self) {
        self.digits.clear();
        self.too_long = false;
    }

    /// The key that has just gone down after all were up.
    fn key(&mut self, now_ms: u64, pressed: Pressed) -> Option<u8> {
        if pressed == self.settled {
            self.candidate = None;
            return None;
        }
        let since_ms = match self.candidate {
            Some((candidate, since_ms)) if candidate == pressed => since_ms,
            Some(_) | None => now_ms,
        };
        self.candidate = Some((pressed, since_ms));
        if now_ms.saturating_sub(since_ms) < u64::from(self.debounce_ms) {
            return None;
        }
        let before = self.settled;
        // A second key that goes down, or one of two that goes up, is no new key: all have to be up first.
        self.settled = match (before, pressed) {
            (_, Pressed::None) | (Pressed::None, Pressed::One(_) | Pressed::Many) => pressed,
            (Pressed::One(_) | Pressed::Many, Pressed::One(_) | Pressed::Many) => Pressed::Many,
        };
        self.candidate = None;
        match (before, pressed) {
            (Pressed::None, Pressed::One(key)) => Some(key),
            (Pressed::None | Pressed::One(_) | Pressed::Many, _) => None,
        }
    }

    fn press(&mut self, key: u8) -> Option<Typed> {
        match key {
            CLEAR | ENTER if self.too_long => {
                self.clear();
                Some(Typed::Cleared)
            }
            CLEAR | ENTER if self.digits.is_empty() => None,
            CLEAR => {
                self.clear();
                Some(Typed::Cleared)
            }
            ENTER => Some(Typed::Entered(core::mem::take(&mut self.digits))),
            b'0'..=b'9' if self.too_long => None,
            b'0'..=b'9' => {
                if self.digits.push(char::from(key)).is_ok() {
                    return Some(Typed::Digit(self.digits.len()));
                }
                self.digits.clear();
                self.too_long = true;
                Some(Typed::TooLong)
            }
            _ => None,
        }
    }
}

/// A keypad on pins. Rows must be open drain, or two keys in one column would connect a high row with a low one.
#[derive(Debug)]
pub struct Keypad<R, C, const ROWS: usize, const COLUMNS: usize> {
    rows: [R; ROWS],
    columns: [C; COLUMNS],
    layout: Layout<ROWS, COLUMNS>,
    entry: Entry,
    row: usize,
    pressed: Pressed,
}

impl<R, C, const ROWS: usize, const COLUMNS: usize> Keypad<R, C, ROWS, COLUMNS>
where
    R: OutputPin,
    C: InputPin + ErrorType<Error = R::Error>,
{
    /// Drives the first row.
    ///
    /// # Errors
    /// What a pin says.
    pub fn new(
        mut rows: [R; ROWS],
        columns: [C; COLUMNS],
        layout: Layout<ROWS, COLUMNS>,
        entry: Entry,
    ) -> Result<Self, R::Error> {
        for (i, row) in rows.iter_mut().enumerate() {
            if i == 0 { row.set_low()? } else { row.set_high()? }
        }
        Ok(Self {
            rows,
            columns,
            layout,
            entry,
            row: 0,
            pressed: Pressed::None,
        })
    }

    /// Reads the row that is driven and drives the next; wanted every 2 ms or so.
    ///
    /// # Errors
    /// What a pin says. The scan begins again.
    pub fn tick(&mut self, now_ms: u64) -> Result<Option<Typed>, R::Error> {
        match self.scan() {
            Ok(None) => Ok(None),
            Ok(Some(pressed)) => Ok(self.entry.look(now_ms, pressed)),
            Err(error) => {
                self.pressed = Pressed::Many;
                Err(error)
            }
        }
    }

    /// What was typed so far.
    #[must_use]
    pub const fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Forgets what was typed.
    pub fn clear(&mut self) {
        self.entry.clear();
    }

    /// What all rows showed, when the last was read.
    fn scan(&mut self) -> Result<Option<Pressed>, R::Error> {
        if let Some(keys) = self.layout.get(self.row) {
            for (column, key) in self.columns.iter_mut().zip(keys) {
                if column.is_low()? {
                    self.pressed = self.pressed.and(*key);
                }
            }
        }
        if let Some(row) = self.rows.get_mut(self.row) {
            row.set_high()?;
        }
        let is_last = self.row + 1 >= ROWS;
        self.row = if is_last { 0 } else { self.row + 1 };
        if let Some(row) = self.rows.get_mut(self.row) {
            row.set_low()?;
        }
        Ok(is_last.then(|| core::mem::replace(&mut self.pressed, Pressed::None)))
    }
}

#[cfg(test)]
mod tests;

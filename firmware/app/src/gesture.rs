//! What people do at a device, whatever they do it with: a card, a code on a screen or on paper, keys, a button.

use drivers::reader::{Cards, Uid};
use embassy_sync::{blocking_mutex::raw::CriticalSectionRawMutex, channel::Channel};
use embassy_time::Timer;
use embedded_io_async::Read;
use heapless::{String, Vec};
use proto::{
    id::{AccountId, IdToken, OutletId, TokenKind},
    instrument::INSTRUMENT_BYTES_MAX,
};

/// Digits of a keypad credit token.
const KEYPAD_DIGITS: usize = 12;
/// Longest line of a scanner or keypad, in bytes: a voucher in hexadecimal digits.
pub const LINE_BYTES_MAX: usize = 2 * INSTRUMENT_BYTES_MAX;

/// One thing that somebody did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gesture {
    /// A token at the reader of an outlet.
    Token(OutletId, IdToken),
    /// A voucher: its signed envelope.
    Voucher(OutletId, Vec<u8, INSTRUMENT_BYTES_MAX>),
    /// An account and its one-time code.
    Code(OutletId, AccountId, Vec<u8, KEYPAD_DIGITS>),
    /// The stop button of an outlet.
    Button(OutletId),
}

/// Gestures on their way to the device; whoever comes while two wait is asked to come again by a display that does not
/// change.
pub type Desk = Channel<CriticalSectionRawMutex, Gesture, 2>;

/// Brings what a scanner or a keypad sends, line by line, for good. A line that is too long, or none that this device
/// knows, is dropped.
pub async fn read_lines<R: Read>(mut from: R, outlet: OutletId, desk: &Desk) -> ! {
    let mut line: String<LINE_BYTES_MAX> = String::new();
    let mut fits = true;
    loop {
        let mut byte = [0];
        // An error is a byte that was lost: what it was part of means nothing.
        match from.read(&mut byte).await {
            Ok(1) => {}
            Ok(_) | Err(_) => {
                fits = false;
                continue;
            }
        }
        if byte[0] == b'\r' || byte[0] == b'\n' {
            if let Some(gesture) = of_line(outlet, &line).filter(|_| fits) {
                desk.send(gesture).await;
            }
            line.clear();
            fits = true;
        } else {
            fits &= byte[0].is_ascii() && line.push(byte[0].into()).is_ok();
        }
    }
}

/// After a fault of the reader, in ms.
const READER_RETRY_MS: u64 = 1_000;

/// Brings the cards of a reader, for good.
pub async fn read_cards<C: Cards>(mut cards: C, outlet: OutletId, desk: &Desk) -> ! {
    loop {
        match cards.next().await {
            Ok(uid) => {
                if let Ok(token) = IdToken::new(TokenKind::Card, uid.as_bytes()) {
                    desk.send(Gesture::Token(outlet, token)).await;
                }
            }
            // The reader was unplugged, or begins anew; people still have the button, keys and codes.
            Err(_) => Timer::after_millis(READER_RETRY_MS).await,
        }
    }
}

/// What a line typed on keys or read by a scanner means: twelve digits are a keypad token, `account*code` a one-time
/// code, hexadecimal digits the UID of a card (serial readers send it so) or a voucher. `None`: nothing that this device knows.
#[must_use]
pub fn of_line(outlet: OutletId, line: &str) -> Option<Gesture> {
    let line = line.trim();
    if let Some((account, code)) = line.split_once('*') {
        let account = account.parse().ok()?;
        let digits = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_digit());
        let code = Vec::from_slice(code.as_bytes()).ok().filter(|_| digits)?;
        return Some(Gesture::Code(outlet, account, code));
    }
    if line.len() == KEYPAD_DIGITS && line.bytes().all(|byte| byte.is_ascii_digit()) {
        let token = IdToken::new(TokenKind::Keypad, line.as_bytes()).ok()?;
        return Some(Gesture::Token(outlet, token));
    }
    if line.is_empty() || !line.len().is_multiple_of(2) {
        return None;
    }
    let mut envelope = Vec::new();
    for pair in line.as_bytes().chunks_exact(2) {
        let (high, low) = (digit(pair[0])?, digit(pair[1])?);
        envelope.push(high << 4 | low).ok()?;
    }
    // No voucher is as short as a card's number.
    if Uid::new(&envelope).is_some() {
        return Some(Gesture::Token(outlet, IdToken::new(TokenKind::Card, &envelope).ok()?));
    }
    Some(Gesture::Voucher(outlet, envelope))
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        let keypad = IdToken::new(TokenKind::Keypad, b"012345678901").unwrap();
        let cases = [
            ("012345678901\r", Some(Gesture::Token(2, keypad))),
            (
                "77*12345678",
                Some(Gesture::Code(2, 77, Vec::from_slice(b"12345678").unwrap())),
            ),
            (
                "D2aB0f",
                Some(Gesture::Voucher(2, Vec::from_slice(&[0xd2, 0xab, 0x0f]).unwrap())),
            ),
            (
                "04a1b2c3D4E5F6",
                Some(Gesture::Token(
                    2,
                    IdToken::new(TokenKind::Card, &[0x04, 0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6]).unwrap(),
                )),
            ),
            ("", None),
            ("  \r\n", None),
            ("abc", None),
            ("77*", None),
            ("*12345678", None),
            ("77*1234567x", None),
            ("77*1234567890123", None),
            ("hello!", None),
        ];
        for (line, wanted) in cases {
            assert_eq!(of_line(2, line), wanted, "{line:?}");
        }
        let long = std::string::String::from("00").repeat(INSTRUMENT_BYTES_MAX + 1);
        assert_eq!(of_line(0, &long), None);
        assert!(of_line(0, &long[2..]).is_some());
    }
}

//! Instruments for people: vouchers, keypad tokens, secrets of one-time codes. Nothing of a running hub is needed: whoever
//! holds the issuer's seed, or the key of one keypad, issues; what was spent comes back with the ledger records.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use proto::{
    id::{AccountId, Kind, Name},
    instrument::{AmountClass, CODE_DIGITS, KeypadKey, KeypadToken, NUMBER_MAX, STEP_S, Scope, Voucher, keypad_text},
    money::Money,
    trust::{Issuer, TrustError},
};

use crate::init::hex;

/// The alphabet of RFC 4648, in which authenticator apps take keys.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// An amount that no instrument of this form has.
    #[error(
        "an amount of {0} cannot be issued: a voucher is above zero, a keypad token one of 50, 100, ... 10000 minor units"
    )]
    Amount(i64),
    /// A time that ends before it begins, or never.
    #[error("valid from {from_s} until {until_s}: it must end, and not before it begins")]
    Validity {
        /// First second (seconds since 1970 UTC).
        from_s: u64,
        /// Last second.
        until_s: u64,
    },
    /// Not 64 hexadecimal digits.
    #[error("{0} holds no key of 64 hexadecimal digits")]
    Key(PathBuf),
    /// Not a counter, or the last one was issued.
    #[error("{0} holds no counter below {max}", max = u32::MAX)]
    Counter(PathBuf),
    /// A file or the source of chance.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The voucher is too large; never for what can be named here.
    #[error(transparent)]
    Sign(#[from] TrustError),
}

/// What a voucher is to be; its number is drawn from 63 random bits, so that no two hubs have to agree.
#[derive(Clone, Debug)]
pub struct VoucherOrder {
    /// The site or the device.
    pub place: Name,
    /// Which of the two.
    pub scope: Scope,
    /// At which kind of device.
    pub kind: Kind,
    /// Face value, in minor units.
    pub amount: i64,
    /// Currency, as the number of ISO 4217.
    pub currency: u16,
    /// First second (seconds since 1970 UTC).
    pub from_s: u64,
    /// Last second (seconds since 1970 UTC).
    pub until_s: u64,
}

/// Signs a voucher; returns its number and its envelope in hexadecimal digits.
///
/// # Errors
/// [`IssueError`].
pub fn voucher(issuer: &Issuer, order: &VoucherOrder) -> Result<(u64, String), IssueError> {
    if order.amount <= 0 {
        return Err(IssueError::Amount(order.amount));
    }
    let (from_s, until_s) = (order.from_s, order.until_s);
    if until_s == 0 || until_s < from_s {
        return Err(IssueError::Validity { from_s, until_s });
    }
    let number = (u64::from_be_bytes(random()?) & NUMBER_MAX).max(1);
    let voucher = Voucher {
        number,
        scope: order.scope,
        place: order.place,
        kind: order.kind,
        amount: Money(order.amount),
        currency: order.currency,
        not_before_s: from_s,
        not_after_s: until_s,
    };
    Ok((number, hex(&voucher.sign(issuer)?)))
}

/// Issues the next keypad token of a device; returns its counter and its digits in groups of four. The counter is stored
/// before the digits are known to anybody: a token may be lost, but none is issued twice.
///
/// # Errors
/// [`IssueError`]; no counter was used up.
pub fn keypad(key_file: &Path, counter_file: &Path, amount: i64) -> Result<(u32, String), IssueError> {
    let class = AmountClass::of(Money(amount)).ok_or(IssueError::Amount(amount))?;
    let text = read(key_file)?;
    let key = unhex(text.trim()).ok_or_else(|| IssueError::Key(key_file.into()))?;
    let last: u32 = match counter_file.exists() {
        true => read(counter_file)?.trim().parse().ok(),
        false => Some(0),
    }
    .ok_or_else(|| IssueError::Counter(counter_file.into()))?;
    let counter = last
        .checked_add(1)
        .ok_or_else(|| IssueError::Counter(counter_file.into()))?;
    replace(counter_file, &format!("{counter}\n")).map_err(failed(counter_file))?;
    let digits = KeypadKey(key).digits(KeypadToken { counter, class });
    Ok((counter, keypad_text(&digits).as_str().into()))
}

/// A fresh secret of an account's one-time codes: the lines for the gateway's secrets file, and the address that an
/// authenticator app reads as a QR code.
///
/// # Errors
/// [`IssueError::File`].
pub fn code(account: AccountId, limit: i64) -> Result<(String, String), IssueError> {
    if limit <= 0 {
        return Err(IssueError::Amount(limit));
    }
    let key: [u8; 32] = random()?;
    let lines = format!(
        "[[codes]]\naccount = {account}\nkey = \"{}\"\nlimit = {limit}\n",
        hex(&key)
    );
    let address = format!(
        "otpauth://totp/holdfast:{account}?secret={}&issuer=holdfast&algorithm=SHA256&digits={CODE_DIGITS}&period={STEP_S}",
        base32(&key)
    );
    Ok((lines, address))
}

fn random<const N: usize>() -> Result<[u8; N], IssueError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; N];
    let mut file = File::open(source).map_err(failed(source))?;
    file.read_exact(&mut bytes).map_err(failed(source))?;
    Ok(bytes)
}

fn read(path: &Path) -> Result<String, IssueError> {
    fs::read_to_string(path).map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> IssueError {
    move |error| IssueError::File {
        path: path.into(),
        error,
    }
}

/// The whole file or none of it, and durable.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if text.len() != 2 * key.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (i, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(key)
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(5) {
        let mut word = [0; 8];
        word[3..3 + group.len()].copy_from_slice(group);
        let word = u64::from_be_bytes(word);
        for at in 0..(group.len() * 8).div_ceil(5) {
            let _ = text.write_char(BASE32[(word >> (35 - 5 * at) & 31) as usize] as char);
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::instrument::ReplayWindow;

    use super::*;

    fn order() -> VoucherOrder {
        VoucherOrder {
            place: Name::new("campus").unwrap(),
            scope: Scope::Site,
            kind: Kind::Washer,
            amount: 600,
            currency: 156,
            from_s: 1_000,
            until_s: 2_000,
        }
    }

    #[test]
    fn a_voucher_opens_under_the_issuers_key() {
        let issuer = Issuer::from_seed(&[7; 32]);
        let (number, envelope) = voucher(&issuer, &order()).unwrap();
        let bytes: Vec<u8> = (0..envelope.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&envelope[i..i + 2], 16).unwrap())
            .collect();
        let opened = Voucher::open(&bytes, &[issuer.key()]).unwrap();
        assert_eq!(
            (opened.number, opened.amount, opened.kind),
            (number, Money(600), Kind::Washer)
        );
        assert_ne!(
            voucher(&issuer, &order()).unwrap().0,
            number,
            "another one has another number"
        );
    }

    #[test]
    fn what_nobody_can_redeem_is_not_issued() {
        let issuer = Issuer::from_seed(&[7; 32]);
        let worthless = VoucherOrder { amount: 0, ..order() };
        assert!(matches!(voucher(&issuer, &worthless), Err(IssueError::Amount(0))));
        let over = VoucherOrder {
            until_s: 999,
            ..order()
        };
        assert!(matches!(voucher(&issuer, &over), Err(IssueError::Validity { .. })));
        assert!(matches!(code(7, 0), Err(IssueError::Amount(0))));
    }

    #[test]
    fn no_keypad_token_is_issued_twice() {
        let dir = tempfile::tempdir().unwrap();
        let (key, counter) = (dir.path().join("key"), dir.path().join("counter"));
        fs::write(&key, "09".repeat(32)).unwrap();
        let mut window = ReplayWindow::default();
        for expected in 1..=70 {
            let (issued, text) = keypad(&key, &counter, 600).unwrap();
            assert_eq!(issued, expected);
            let token = KeypadKey([9; 32])
                .open(text.replace(' ', "").as_bytes(), &window)
                .unwrap();
            assert_eq!((token.counter, token.class.amount()), (expected, Money(600)));
            window.accept(token.counter).unwrap();
        }
        assert!(matches!(keypad(&key, &counter, 601), Err(IssueError::Amount(601))));
        fs::write(&counter, "seventy").unwrap();
        assert!(matches!(keypad(&key, &counter, 600), Err(IssueError::Counter(_))));
        fs::write(&key, "09").unwrap();
        assert!(matches!(keypad(&key, &counter, 600), Err(IssueError::Key(_))));
    }

    /// The vectors of RFC 4648, without padding.
    #[test]
    fn base32_is_that_of_the_apps() {
        assert_eq!(base32(b"f"), "MY");
        assert_eq!(base32(b"fooba"), "MZXW6YTB");
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
    }
}

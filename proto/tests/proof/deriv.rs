//! Vectors of what is derived rather than sent: session ids, token hashes, passwords, the chain of records, keypad tokens
//! and one-time codes.

use proto::{
    id::*,
    instrument::{AmountClass, KeypadToken, TotpKey, keypad_number},
    link::chain,
    money::Money,
    seal::{Direction, PairSecret},
};

use crate::{
    samples::{content::record, name},
    vector::{Vector, hex, read},
};

/// Every vector of this file.
pub(crate) fn vectors() -> Vec<Vector> {
    let mut vectors = session_ids();
    vectors.extend(token_hashes());
    vectors.extend(passwords());
    vectors.extend(chains());
    vectors.extend(keypad_tokens());
    vectors.extend(one_time_codes());
    vectors
}

fn keypad_tokens() -> Vec<Vector> {
    let rows = [
        ("keypad-first", "charger-07", 1, 50),
        ("keypad-typical", "washer-12", 131, 600),
        ("keypad-extreme", "dispenser-0123456789", u32::MAX, 10_000),
    ];
    let vector = |(file, device, counter, amount): (&str, &str, u32, i64)| {
        let secret = [0xd1; 32];
        let class = AmountClass::of(Money(amount)).expect("one of the 16 amounts");
        let digits = PairSecret(secret).keypad_key().digits(KeypadToken { counter, class });
        Vector::new(file, "keypad", "a keypad token of one device")
            .with_bytes("secret", &secret)
            .with("device", device)
            .with("counter", counter)
            .with("amount", amount)
            .with("digits", std::str::from_utf8(&digits).expect("digits"))
            .with("instrument", keypad_number(&name(device), counter))
    };
    rows.map(vector).into()
}

/// The seed and the times of the appendix of RFC 6238, in its mode SHA-256 with 8 digits.
fn one_time_codes() -> Vec<Vector> {
    let rows = [
        ("code-1970", 59, 46_119_246),
        ("code-2005", 1_111_111_109, 68_084_774),
        ("code-2603", 20_000_000_000, 77_737_706),
    ];
    let vector = |(file, wall_s, expected): (&str, u64, u32)| {
        let key = *b"12345678901234567890123456789012";
        let code = TotpKey(key).code(wall_s / proto::instrument::STEP_S);
        assert_eq!(code, expected, "{file}: RFC 6238 says otherwise");
        Vector::new(file, "one-time-code", "a row of the appendix of RFC 6238")
            .with_bytes("key", &key)
            .with("wall-s", wall_s)
            .with("digits", format!("{code:08}"))
    };
    rows.map(vector).into()
}

fn session_ids() -> Vec<Vector> {
    let rows = [
        ("session-id-typical", "charger-07", 3, 1),
        ("session-id-short-name", "a", 0, 0),
        ("session-id-extreme", "dispenser-0123456789", u32::MAX, u32::MAX),
    ];
    let vector = |(file, device, boot, number): (&str, &str, u32, u32)| {
        Vector::new(file, "session-id", "minted by the device")
            .with("device", device)
            .with("boot", boot)
            .with("number", number)
            .with("id", SessionId::mint(&name(device), boot, number))
    };
    rows.map(vector).into()
}

fn token_hashes() -> Vec<Vector> {
    let rows: [(&str, TokenKind, &[u8]); 3] = [
        (
            "token-hash-card",
            TokenKind::Card,
            &[0x04, 0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6],
        ),
        ("token-hash-app", TokenKind::App, b"app-code-2f9c"),
        ("token-hash-longest", TokenKind::Keypad, &[0xff; TOKEN_BYTES_MAX]),
    ];
    let vector = |(file, kind, bytes): (&str, TokenKind, &[u8])| {
        let key = [0x5a; 32];
        let token = IdToken::new(kind, bytes).expect("a valid token");
        Vector::new(file, "token-hash", "an id token under the site's key")
            .with_bytes("key", &key)
            .with("kind", kind.code())
            .with_bytes("token", bytes)
            .with("hash", token.hash(&TokenKey(key)))
    };
    rows.map(vector).into()
}

fn passwords() -> Vec<Vector> {
    let rows = [("password-zero", [0; 32]), ("password-typical", [0xd1; 32])];
    let vector = |(file, secret): (&str, [u8; 32])| {
        Vector::new(file, "password", "the MQTT password of a pair")
            .with_bytes("secret", &secret)
            .with("password", PairSecret(secret).password())
    };
    rows.map(vector).into()
}

fn chains() -> Vec<Vector> {
    let record = proto::codec::to_vec(&record());
    let first = chain(&Hash::ZERO, &record);
    let vector = |file: &str, previous: &Hash| {
        Vector::new(file, "chain", "the chain over uploaded records")
            .with("previous", previous)
            .with_bytes("record", &record)
            .with("hash", chain(previous, &record))
    };
    vec![vector("chain-first", &Hash::ZERO), vector("chain-second", &first)]
}

#[test]
fn a_session_id_says_which_device_boot_and_number() {
    let id = SessionId::mint(&name("charger-07"), 0x0102_0304, 0x0506_0708);
    assert_eq!(hex(&id.0[8..]), "0102030405060708");
    assert_eq!(id.0[..8], SessionId::mint(&name("charger-07"), 0, 0).0[..8]);
    let others = [
        SessionId::mint(&name("charger-08"), 0x0102_0304, 0x0506_0708),
        SessionId::mint(&name("charger-07"), 0x0102_0305, 0x0506_0708),
        SessionId::mint(&name("charger-07"), 0x0102_0304, 0x0506_0709),
    ];
    assert!(!others.contains(&id));
}

#[test]
fn a_token_hash_depends_on_form_bytes_and_key() {
    let hash = |kind, bytes: &[u8], key| IdToken::new(kind, bytes).expect("valid").hash(&TokenKey([key; 32]));
    let hashes = [
        hash(TokenKind::Card, b"1234", 1),
        hash(TokenKind::Pin, b"1234", 1),
        hash(TokenKind::Card, b"12345", 1),
        hash(TokenKind::Card, b"1234", 2),
    ];
    for (i, hash) in hashes.iter().enumerate() {
        assert!(!hashes[..i].contains(hash), "{i}");
    }
}

/// The password goes over the network, so it must say nothing about the keys.
#[test]
fn a_password_is_neither_the_secret_nor_a_key() {
    let vector = read("password-typical");
    let secret = PairSecret(vector.bytes32("secret"));
    let password = secret.password();
    assert_eq!(password.as_str(), vector.get("password"));
    assert!(!hex(&secret.0).contains(password.as_str()));
    // A frame sealed under a key that starts like the password does not open.
    let mut guess = [0; 32];
    guess[..16].copy_from_slice(&vector.bytes("password"));
    let frame = PairSecret(guess).key(Direction::Up).seal_vec("t", 1, &1u8);
    assert!(secret.key(Direction::Up).open("t", &frame, 100).is_err());
}

#[test]
fn secrets_and_tokens_are_not_printed() {
    let token = IdToken::new(TokenKind::Pin, b"4711").expect("valid");
    let secret = PairSecret([0xab; 32]);
    let printed = [
        format!("{token:?}"),
        format!("{secret:?}"),
        format!("{:?}", secret.key(Direction::Up)),
        format!("{:?}", TokenKey([0xab; 32])),
        format!("{:?}", proto::trust::Issuer::from_seed(&[0xab; 32])),
    ];
    for text in printed {
        let leaks = ["4711", "52, 55", "abab", "171, 171", "ab, ab"];
        assert!(leaks.iter().all(|leak| !text.contains(leak)), "{text}");
    }
}

#[test]
fn names_tokens_and_hexadecimal_text_are_checked() {
    let names = [
        ("", false),
        ("a", true),
        ("charger-07", true),
        ("abcdefghijklmnopqrst", true),
        ("abcdefghijklmnopqrstu", false),
        ("Charger", false),
        ("a/b", false),
        ("a+", false),
        ("a b", false),
        ("ü", false),
    ];
    for (text, valid) in names {
        assert_eq!(Name::new(text).is_ok(), valid, "{text:?}");
        assert_eq!(text.parse::<Name>().is_ok(), valid, "{text:?}");
    }
    for (len, valid) in [(0, false), (1, true), (32, true), (33, false)] {
        assert_eq!(IdToken::new(TokenKind::Card, &vec![7; len]).is_ok(), valid, "{len}");
    }
    let short = "00".parse::<SessionId>();
    assert_eq!(short, Err(IdError::HexLength { found: 2, expected: 32 }));
    assert_eq!("0g".repeat(16).parse::<SessionId>(), Err(IdError::HexDigit));
    assert_eq!("ä".repeat(16).parse::<SessionId>(), Err(IdError::HexDigit));
    assert_eq!("aB".repeat(16).parse::<SessionId>(), Ok(SessionId([0xab; 16])));
}

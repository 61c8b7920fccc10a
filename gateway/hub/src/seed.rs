//! The seed file: accounts, tokens, tariffs, revocations and limits as the operator wants them, in TOML or JSON (by the name's
//! ending). Raw tokens are hashed here and forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use proto::{
    artifact::{Reason, Subject, Whitelist},
    id::{AccountId, IdToken, Kind, Name, TokenHash, TokenKey, TokenKind},
    money::Money,
    tariff::{Dimension, PriceElement, Tariff},
    trust::KeyId,
};
use serde::Deserialize;

use crate::{
    core::{Catalogue, RevocationSpec, TokenSpec},
    seed_policy::PolicySeed,
};

/// Largest credential revision a file may name: what every JSON reader keeps exactly.
const REVISION_MAX: u64 = 1 << 53;

/// Why a seed file cannot be used. Never quotes a token.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Not the TOML or JSON it should be.
    #[error("{}: {reason}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What and where.
        reason: String,
    },
    /// A row that cannot be used.
    #[error("{}: {row}: {reason}", path.display())]
    Row {
        /// Which file.
        path: PathBuf,
        /// Which row, as `tokens[3]`.
        row: String,
        /// Why.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedFile {
    #[serde(default)]
    may_shrink: bool,
    #[serde(default)]
    accounts: Vec<AccountRow>,
    tokens: Option<Vec<TokenSeed>>,
    #[serde(default)]
    revocations: Vec<RevocationSeed>,
    #[serde(default)]
    tariffs: Vec<TariffSeed>,
    policy: Option<PolicySeed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountRow {
    id: AccountId,
    deposit: i64,
    #[serde(default)]
    lease_only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenSeed {
    kind: Option<String>,
    raw: Option<String>,
    text: Option<String>,
    hash: Option<String>,
    account: AccountId,
    #[serde(default)]
    group: u64,
    #[serde(default = "yes")]
    valid: bool,
    #[serde(default)]
    whitelist: WhitelistSeed,
    #[serde(default)]
    not_after_s: u64,
    #[serde(default)]
    credential_revision: u64,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WhitelistSeed {
    Always,
    #[default]
    Allowed,
    AllowedOffline,
    Never,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationSeed {
    kind: Option<String>,
    raw: Option<String>,
    text: Option<String>,
    hash: Option<String>,
    #[serde(default)]
    credential_revision: u64,
    account: Option<AccountId>,
    device: Option<String>,
    key: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TariffSeed {
    kind: String,
    id: u32,
    #[serde(default)]
    start_fee: i64,
    #[serde(default)]
    minimum: i64,
    #[serde(default)]
    cap: i64,
    elements: Vec<ElementSeed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ElementSeed {
    dimension: String,
    price_milli: i64,
    minute_from: Option<u16>,
    minute_to: Option<u16>,
    #[serde(default)]
    power_w_min: u32,
    #[serde(default)]
    power_w_max: u32,
}

const fn yes() -> bool {
    true
}

/// Reads a seed file.
///
/// # Errors
/// [`SeedError`], naming the row.
pub fn load(path: &Path, token_key: &TokenKey) -> Result<Catalogue, SeedError> {
    let text = fs::read_to_string(path).map_err(|error| SeedError::Read {
        path: path.to_owned(),
        error,
    })?;
    let parse_error = |reason: String| SeedError::Parse {
        path: path.to_owned(),
        reason,
    };
    let file: SeedFile = if path.extension().is_some_and(|ending| ending == "json") {
        serde_json::from_str(&text).map_err(|error| parse_error(error.to_string()))?
    } else {
        toml::from_str(&text).map_err(|error| parse_error(place_of(&text, error)))?
    };
    catalogue(file, token_key).map_err(|(row, reason)| SeedError::Row {
        path: path.to_owned(),
        row,
        reason,
    })
}

/// The line of an error without its text: it may hold a token.
fn place_of(text: &str, mut error: toml::de::Error) -> String {
    let line = error
        .span()
        .map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    error.set_input(None);
    format!("line {line}: {}", error.message())
}

type RowError = (String, String);

fn catalogue(file: SeedFile, key: &TokenKey) -> Result<Catalogue, RowError> {
    let mut catalogue = Catalogue {
        may_shrink: file.may_shrink,
        ..Catalogue::default()
    };
    for (i, row) in file.accounts.into_iter().enumerate() {
        if row.deposit < 0 {
            return Err((
                format!("accounts[{i}]"),
                format!("the deposit {} is negative", row.deposit),
            ));
        }
        if catalogue.accounts.insert(row.id, Money(row.deposit)).is_some() {
            return Err((format!("accounts[{i}]"), format!("account {} is here twice", row.id)));
        }
        if row.lease_only {
            catalogue.lease_only.insert(row.id);
        }
    }
    if let Some(rows) = file.tokens {
        catalogue.tokens = Some(tokens(&rows, &catalogue.accounts, key)?);
    }
    for (i, row) in file.revocations.iter().enumerate() {
        let fail = |reason| (format!("revocations[{i}]"), reason);
        let why = reason(row.reason.as_deref()).map_err(fail)?;
        if let Some(subject) = subject(row).map_err(fail)? {
            catalogue.scopes.insert(subject, why);
            continue;
        }
        let token = token_hash(
            row.kind.as_deref(),
            row.raw.as_deref(),
            row.text.as_deref(),
            row.hash.as_deref(),
            key,
        )
        .map_err(fail)?;
        let credential_revision = revision(row.credential_revision).map_err(fail)?;
        let spec = RevocationSpec {
            credential_revision,
            reason: why,
        };
        catalogue.revocations.insert(token, spec);
    }
    for (i, row) in file.tariffs.iter().enumerate() {
        let fail = |reason| (format!("tariffs[{i}]"), reason);
        let (kind, tariff) = tariff(row).map_err(fail)?;
        if catalogue.tariffs.insert(kind, tariff).is_some() {
            return Err(fail(format!("{} has a tariff already", kind.word())));
        }
    }
    if let Some(seed) = file.policy {
        catalogue.policy = Some(seed.policy().map_err(|reason| ("policy".to_owned(), reason))?);
    }
    Ok(catalogue)
}

fn tokens(
    rows: &[TokenSeed],
    accounts: &BTreeMap<AccountId, Money>,
    key: &TokenKey,
) -> Result<BTreeMap<TokenHash, TokenSpec>, RowError> {
    let mut tokens = BTreeMap::new();
    let known: BTreeSet<_> = accounts.keys().collect();
    for (i, row) in rows.iter().enumerate() {
        let fail = |reason| (format!("tokens[{i}]"), reason);
        let token = token_hash(
            row.kind.as_deref(),
            row.raw.as_deref(),
            row.text.as_deref(),
            row.hash.as_deref(),
            key,
        )
        .map_err(fail)?;
        if !known.contains(&row.account) {
            return Err(fail(format!("account {} is not in this file", row.account)));
        }
        let spec = TokenSpec {
            account: row.account,
            group: row.group,
            valid: row.valid,
            whitelist: match row.whitelist {
                WhitelistSeed::Always => Whitelist::Always,
                WhitelistSeed::Allowed => Whitelist::Allowed,
                WhitelistSeed::AllowedOffline => Whitelist::AllowedOffline,
                WhitelistSeed::Never => Whitelist::Never,
            },
            not_after_s: row.not_after_s,
            credential_revision: revision(row.credential_revision).map_err(fail)?,
        };
        if tokens.insert(token, spec).is_some() {
            return Err(fail("this token is here twice".to_owned()));
        }
    }
    Ok(tokens)
}

/// What a row revokes beyond a token; `None`: it is about a token.
fn subject(row: &RevocationSeed) -> Result<Option<Subject>, String> {
    let is_token = row.kind.is_some() || row.raw.is_some() || row.text.is_some() || row.hash.is_some();
    let subject = match (row.account, row.device.as_deref(), row.key.as_deref()) {
        (None, None, None) => return Ok(None),
        (Some(account), None, None) => Subject::Account(account),
        (None, Some(device), None) => {
            Subject::Device(Name::from_str(device).map_err(|error| format!("device: {error}"))?)
        }
        (None, None, Some(key)) => Subject::Key(KeyId::from_str(key).map_err(|error| format!("key: {error}"))?),
        _ => return Err("one of account, device and key at most can be given".to_owned()),
    };
    if is_token || row.credential_revision != 0 {
        return Err("a revocation is about a token, or about an account, device or key".to_owned());
    }
    Ok(Some(subject))
}

fn reason(word: Option<&str>) -> Result<Reason, String> {
    let word = word.unwrap_or(Reason::Other.word());
    let known = Reason::ALL.iter().find(|reason| reason.word() == word);
    known.copied().ok_or_else(|| {
        let words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        format!("reason {word:?} is none of {}", words.join(", "))
    })
}

fn revision(asked: u64) -> Result<u64, String> {
    if asked > REVISION_MAX {
        return Err(format!("credential_revision is above {REVISION_MAX}"));
    }
    Ok(asked)
}

fn token_hash(
    kind: Option<&str>,
    raw: Option<&str>,
    text: Option<&str>,
    hash: Option<&str>,
    key: &TokenKey,
) -> Result<TokenHash, String> {
    if let (None, None, Some(hash)) = (raw, text, hash) {
        return TokenHash::from_str(hash).map_err(|error| format!("hash: {error}"));
    }
    if hash.is_some() || raw.is_some() == text.is_some() {
        return Err("exactly one of raw, text and hash has to be given".to_owned());
    }
    let kind = kind.ok_or_else(|| "a raw token needs its kind".to_owned())?;
    raw_token(kind, raw, text).map(|token| token.hash(key))
}

/// A token of the form `kind`, from hexadecimal digits or from text.
///
/// # Errors
/// A text that quotes no token.
pub fn raw_token(kind: &str, raw: Option<&str>, text: Option<&str>) -> Result<IdToken, String> {
    let bytes = match (raw, text) {
        (Some(raw), None) => from_hex(raw)?,
        (None, Some(text)) => text.as_bytes().to_vec(),
        (Some(_), Some(_)) | (None, None) => return Err("exactly one of raw and text has to be given".to_owned()),
    };
    let kind = token_kind(kind).ok_or_else(|| format!("kind {kind:?} is none of card, app, pin, voucher, keypad"))?;
    IdToken::new(kind, &bytes).map_err(|error| error.to_string())
}

fn token_kind(word: &str) -> Option<TokenKind> {
    Some(match word {
        "card" => TokenKind::Card,
        "app" => TokenKind::App,
        "pin" => TokenKind::Pin,
        "voucher" => TokenKind::Voucher,
        "keypad" => TokenKind::Keypad,
        _ => return None,
    })
}

fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => Ok(digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect()),
        Some(_) => Err("raw: an odd number of hexadecimal digits".to_owned()),
        None => Err("raw: not hexadecimal".to_owned()),
    }
}

fn tariff(row: &TariffSeed) -> Result<(Kind, Tariff), String> {
    let kind = Kind::SERVED
        .into_iter()
        .find(|kind| kind.word() == row.kind)
        .ok_or_else(|| format!("kind {:?} is none of charger, washer, dispenser", row.kind))?;
    let mut tariff = Tariff {
        id: row.id,
        start_fee: Money(row.start_fee),
        minimum: Money(row.minimum),
        cap: Money(row.cap),
        ..Tariff::default()
    };
    for (i, element) in row.elements.iter().enumerate() {
        let dimension = dimension(&element.dimension).ok_or_else(|| {
            format!(
                "elements[{i}]: dimension {:?} is none of energy, time, cycle, volume, idle",
                element.dimension
            )
        })?;
        let flat = PriceElement::flat(dimension, element.price_milli);
        let element = PriceElement {
            minute_from: element.minute_from.unwrap_or(flat.minute_from),
            minute_to: element.minute_to.unwrap_or(flat.minute_to),
            power_w_min: element.power_w_min,
            power_w_max: element.power_w_max,
            ..flat
        };
        tariff
            .elements
            .push(element)
            .map_err(|_| format!("more than {} elements", proto::tariff::ELEMENTS_MAX))?;
    }
    tariff.check().map_err(|error| error.to_string())?;
    Ok((kind, tariff))
}

fn dimension(word: &str) -> Option<Dimension> {
    Some(match word {
        "energy" => Dimension::Energy,
        "time" => Dimension::Time,
        "cycle" => Dimension::Cycle,
        "volume" => Dimension::Volume,
        "idle" => Dimension::Idle,
        _ => return None,
    })
}

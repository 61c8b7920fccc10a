//! The secrets file.

use std::{collections::BTreeMap, path::Path};

use proto::{
    id::AccountId,
    instrument::{Enrolment, TotpKey},
    money::Money,
    trust::IssuerKey,
};
use serde::Deserialize;

use super::{Checker, ConfigError, clouds::CloudSecrets};

/// The secrets file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretsFile {
    pub(super) token_key: String,
    pub(super) link: Option<String>,
    pub(super) broker_password: Option<String>,
    pub(super) monitor_password: Option<String>,
    pub(super) page_token: Option<String>,
    pub(super) metrics_token: Option<String>,
    #[serde(default)]
    pub(super) clouds: BTreeMap<String, CloudSecrets>,
    #[serde(default)]
    pub(super) devices: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) codes: Vec<CodeSection>,
}

/// An account with one-time codes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CodeSection {
    account: u64,
    key: String,
    limit: i64,
}

/// Nobody but the owner may read it.
pub(crate) fn check_mode(path: &Path) -> Result<(), ConfigError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).map_err(|error| ConfigError::Read {
        path: path.to_owned(),
        error,
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(ConfigError::Permissions {
            path: path.to_owned(),
            mode,
        })
    }
}

/// Public keys in hexadecimal.
pub(super) fn keys(check: &Checker<'_>, name: &str, texts: &[String]) -> Result<Vec<IssuerKey>, ConfigError> {
    let key = |text: &String| match IssuerKey::from_bytes(&check.bytes(name, text)?) {
        Ok(key) => Ok(key),
        Err(_) => check.fail(name, format_args!("{text} is not an Ed25519 public key")),
    };
    texts.iter().map(key).collect()
}

/// The accounts with one-time codes.
pub(super) fn enrolments(
    check: &Checker<'_>,
    sections: &[CodeSection],
) -> Result<BTreeMap<AccountId, Enrolment>, ConfigError> {
    let mut enrolments = BTreeMap::new();
    for (i, section) in sections.iter().enumerate() {
        let key = format!("codes[{i}]");
        let (account, limit) = (section.account, Money(section.limit));
        if account == 0 || limit <= Money::ZERO {
            return check.fail(&key, "account and limit are above zero");
        }
        let enrolment = Enrolment {
            account,
            key: TotpKey(check.bytes(&format!("{key}.key"), &section.key)?),
            limit,
        };
        if enrolments.insert(account, enrolment).is_some() {
            return check.fail(&key, format_args!("account {account} stands here twice"));
        }
    }
    Ok(enrolments)
}

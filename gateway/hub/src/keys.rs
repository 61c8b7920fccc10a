//! `holdfast-hub keys rotate`: a new signing key in the secrets file. The hub publishes it when it starts: the file alone
//! says which key signs, so nothing can be rotated in part.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use proto::trust::Issuer;

/// Key of the line in the secrets file.
const SIGNING: &str = "signing_seed";
/// Key of the line that it stands behind.
const ISSUER: &str = "issuer_seed";

/// Why nothing was rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The secrets file is not laid out as expected.
    #[error("{}: no line begins with `{ISSUER}`; nothing was changed", .0.display())]
    Layout(PathBuf),
}

/// Puts a fresh `signing_seed` into the secrets file, in place of the one before; returns the new public key in
/// hexadecimal. The file is replaced whole or not at all.
///
/// # Errors
/// [`RotateError`]; then the old key stays.
pub fn rotate(secrets: &Path) -> Result<String, RotateError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| RotateError::Io { path, error }
    };
    let mut seed = [0; 32];
    let urandom = Path::new("/dev/urandom");
    File::open(urandom)
        .and_then(|mut source| source.read_exact(&mut seed))
        .map_err(failed(urandom))?;
    let text = fs::read_to_string(secrets).map_err(failed(secrets))?;
    let text = with_seed(&text, &hex(&seed)).ok_or_else(|| RotateError::Layout(secrets.to_owned()))?;
    let new = secrets.with_extension("new");
    let write = || {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, secrets)
    };
    write().map_err(failed(&new))?;
    Ok(hex(Issuer::from_seed(&seed).key().as_bytes()))
}

fn with_seed(text: &str, seed: &str) -> Option<String> {
    let is = |line: &str, key: &str| line.split('=').next().is_some_and(|word| word.trim() == key);
    let mut out = String::new();
    let mut found = false;
    for line in text.lines().filter(|line| !is(line, SIGNING)) {
        out.push_str(line);
        out.push('\n');
        if is(line, ISSUER) {
            out.push_str(&format!("{SIGNING} = \"{seed}\"\n"));
            found = true;
        }
    }
    found.then_some(out)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::with_seed;

    #[test]
    fn the_seed_is_replaced_and_everything_else_stays() {
        let check = |before: &str, after: Option<&str>| {
            assert_eq!(with_seed(before, "ff").as_deref(), after, "{before}");
        };
        let plain = "# keys\nissuer_seed = \"00\"\ntoken_key = \"11\"\n\n[gateways]\ngw-1 = \"22\"\n";
        let with =
            "# keys\nissuer_seed = \"00\"\nsigning_seed = \"ff\"\ntoken_key = \"11\"\n\n[gateways]\ngw-1 = \"22\"\n";
        check(plain, Some(with));
        check(with, Some(with));
        check(&with.replace("\"ff\"", "\"aa\""), Some(with));
        check("token_key = \"11\"\n", None);
    }
}

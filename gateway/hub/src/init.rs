//! `holdfast-hub init`: a first configuration with fresh keys.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use proto::{
    id::{GatewayId, Name},
    trust::Issuer,
};

/// The documented configuration that `init` fills in; the same file is shipped as an example.
const CONFIG_TEMPLATE: &str = include_str!("../../../deploy/config/hub.toml");
/// The documented seed file; the same file is shipped as an example.
const SEED_TEMPLATE: &str = include_str!("../../../deploy/config/hub-seed.toml");
/// What the shipped example says, and `init` replaces.
const EXAMPLE_GATEWAY: &str = "id = \"gw-1\"";
const EXAMPLE_SITE: &str = "site = \"campus\"";

/// Why nothing was set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file exists already: keys are never overwritten.
    #[error("{} exists already; nothing was changed", .0.display())]
    Exists(PathBuf),
    /// The system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What the gateway's own configuration needs.
#[derive(Clone, Debug)]
pub struct Handover {
    /// The issuer's public key, 64 hexadecimal digits.
    pub issuer_key: String,
    /// Where the secrets lie.
    pub secrets_file: PathBuf,
}

/// Writes `hub.toml`, `hub-secrets.toml` (for the owner only) and `hub-seed.toml` to `dir`.
///
/// # Errors
/// [`InitError`]; files that exist are left alone.
pub fn init(dir: &Path, gateway: &GatewayId, site: &Name) -> Result<Handover, InitError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| InitError::Io { path, error }
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let paths = ["hub.toml", "hub-secrets.toml", "hub-seed.toml"].map(|name| dir.join(name));
    if let Some(path) = paths.iter().find(|path| path.exists()) {
        return Err(InitError::Exists(path.clone()));
    }
    let [config, secrets, seed] = &paths;
    let urandom = Path::new("/dev/urandom");
    let [issuer_seed, token_key, secret] = random_keys().map_err(failed(urandom))?;
    let text = CONFIG_TEMPLATE
        .replace(EXAMPLE_GATEWAY, &format!("id = \"{gateway}\""))
        .replace(EXAMPLE_SITE, &format!("site = \"{site}\""));
    let secrets_text = format!(
        "# Keys of this hub. Whoever reads them can sign lists and speak for the hub.\n\
         # Seed of the key that signs lists, tariffs and revocations.\n\
         issuer_seed = \"{}\"\n\
         # Key under which id tokens are hashed; the gateways of the site have the same.\n\
         token_key = \"{}\"\n\n\
         # One secret per gateway; the gateway has the same.\n\
         [gateways]\n\
         {gateway} = \"{}\"\n",
        hex(&issuer_seed),
        hex(&token_key),
        hex(&secret),
    );
    write_new(config, 0o644, &text).map_err(failed(config))?;
    write_new(secrets, 0o600, &secrets_text).map_err(failed(secrets))?;
    write_new(seed, 0o600, SEED_TEMPLATE).map_err(failed(seed))?;
    Ok(Handover {
        issuer_key: hex(Issuer::from_seed(&issuer_seed).key().as_bytes()),
        secrets_file: secrets.clone(),
    })
}

fn random_keys() -> io::Result<[[u8; 32]; 3]> {
    let mut keys = [[0; 32]; 3];
    let mut source = File::open("/dev/urandom")?;
    for key in &mut keys {
        source.read_exact(key)?;
    }
    Ok(keys)
}

fn write_new(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

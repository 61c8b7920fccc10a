//! `holdfast init`: a site that works, in one command.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use proto::{
    id::{Hash, Name},
    trust::Issuer,
};
use serde::Deserialize;

use super::{backup::make_private, edit::random_key, fail, owner::Owner};
use crate::{
    config::{self, ConfigError},
    exit, files,
};

/// `holdfast init`.
#[derive(Args, Debug)]
#[command(
    after_help = "With a hub that is set up already, give --hub-secrets (what `holdfast-hub init` wrote), or --issuer-key and the keys by hand. Without one, fresh keys are made for both sides, and those of the hub are put into a file to carry there."
)]
pub(super) struct InitCommand {
    /// Put everything into this directory; without it: /etc/holdfast and /var/lib/holdfast
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Name of the site: 1 to 20 characters of a-z, 0-9 and '-'
    #[arg(long, value_name = "NAME", default_value = "campus")]
    site: Name,
    /// Name of this gateway, as the hub shall know it
    #[arg(long, value_name = "NAME", default_value = "gw-1")]
    gateway: Name,
    /// Where the hub, or the broker before it, listens; without it the site decides alone
    #[arg(long, value_name = "HOST:PORT")]
    hub: Option<String>,
    /// Where devices connect
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:1883")]
    listen: std::net::SocketAddr,
    /// Take the keys from the hub's own secrets file, as `holdfast-hub init` wrote it
    #[arg(long, value_name = "FILE", conflicts_with = "issuer_key")]
    hub_secrets: Option<PathBuf>,
    /// Public key, 64 hexadecimal digits, under which lists, tariffs and revocations are signed
    #[arg(long, value_name = "HEX")]
    issuer_key: Option<Hash>,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("{} is there already; nothing was changed. Name another --dir, or move it away", .0.display())]
    Exists(PathBuf),
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: {why}", path.display())]
    Hub { path: PathBuf, why: String },
    #[error("what was asked for is no good configuration: {0}; nothing was made")]
    Bad(ConfigError),
}

impl InitError {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Exists(_) => exit::EXISTS,
            Self::Io { .. } => exit::UNAVAILABLE,
            Self::Hub { .. } => exit::DATA,
            Self::Bad(_) => exit::USAGE,
        }
    }
}

/// The part of the hub's secrets that both sides have.
#[derive(Deserialize)]
struct HubSecrets {
    issuer_seed: Hex,
    token_key: Hex,
    #[serde(default)]
    gateways: std::collections::BTreeMap<String, Hex>,
}

/// 32 bytes in hexadecimal.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Hex(Hash);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let hash = text.parse().map(Self);
        hash.map_err(|_| "a key is 64 hexadecimal digits".to_owned())
    }
}

/// The keys of a new site.
struct Keys {
    token_key: String,
    link: String,
    issuer_key: String,
    /// For the hub, if the keys are made here; of an issuer that somebody else has there is no seed.
    handover: Option<String>,
}

impl InitCommand {
    pub(super) fn run(&self) -> ExitCode {
        match self.make() {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(error.exit_code(), &error),
        }
    }

    fn make(&self) -> Result<String, InitError> {
        let dir = self.dir.clone().unwrap_or_else(|| PathBuf::from("/etc/holdfast"));
        let store = match &self.dir {
            Some(_) => "data",
            None => "/var/lib/holdfast",
        };
        let paths = ["holdfast.toml", "secrets.toml", "for-the-hub.toml"].map(|name| dir.join(name));
        if let Some(path) = paths.iter().find(|path| path.exists()) {
            return Err(InitError::Exists(path.clone()));
        }
        let [config, secrets, handover] = &paths;
        let keys = self.keys()?;
        let store_dir = dir.join(store);
        for folder in [&dir, &store_dir] {
            make_private(folder).map_err(at(folder))?;
        }
        let secrets_text = format!(
            "# holdfast: what nobody else may read (mode 600), made by `holdfast init`.\n\n\
             # Key under which id tokens are hashed; the hub has the same.\n\
             token_key = \"{}\"\n\
             # Secret shared with the hub, which has it under [gateways] {}.\n\
             link = \"{}\"\n\n\
             # One secret a device; `holdfast device add` writes them.\n\
             [devices]\n",
            keys.token_key, self.gateway, keys.link
        );
        let made: [(&Path, u32, Option<&str>); 3] = [
            (secrets, files::PRIVATE, Some(&secrets_text)),
            (handover, files::PRIVATE, keys.handover.as_deref()),
            (config, files::PUBLIC, Some(&self.config(store, &keys.issuer_key))),
        ];
        let write = || -> Result<(), InitError> {
            for (path, mode, text) in made {
                if let Some(text) = text {
                    files::create(path, mode, text.as_bytes()).map_err(at(path))?;
                }
            }
            if let Some(owner) = Owner::of(&store_dir, self.dir.is_none()) {
                let given = |(path, error)| InitError::Io { path, error };
                owner.give(&store_dir).map_err(given)?;
                owner.let_into(&dir).map_err(given)?;
            }
            config::load(config, None).map(drop).map_err(InitError::Bad)
        };
        if let Err(error) = write() {
            // None of them was there before.
            paths.iter().for_each(|path| drop(fs::remove_file(path)));
            return Err(error);
        }
        Ok(self.told(&paths, &store_dir, keys.handover.is_some()))
    }

    fn keys(&self) -> Result<Keys, InitError> {
        let random = || random_key().map_err(at(Path::new("the system's random numbers")));
        if let Some(path) = &self.hub_secrets {
            let text = fs::read_to_string(path).map_err(at(path))?;
            let no = |why: String| InitError::Hub {
                path: path.clone(),
                why,
            };
            let hub: HubSecrets = toml::from_str(&text).map_err(|error| no(error.to_string()))?;
            let link = hub.gateways.get(self.gateway.as_str()).ok_or_else(|| {
                no(format!(
                    "[gateways] has no secret for {}; name another --gateway, or add it there",
                    self.gateway
                ))
            })?;
            return Ok(Keys {
                token_key: hub.token_key.0.to_string(),
                link: link.0.to_string(),
                issuer_key: public(&hub.issuer_seed.0),
                handover: None,
            });
        }
        let (token_key, link) = (random()?, random()?);
        let mut handover =
            "# holdfast: what the hub has to know, made by `holdfast init` (mode 600). The keys of holdfast-hub's secrets file,\n\
             # hub-secrets.toml: carry them there, then delete this file here.\n".to_owned();
        let issuer_key = match &self.issuer_key {
            Some(key) => key.to_string(),
            None => {
                let seed = random()?;
                handover += "# Seed of the key that signs lists, tariffs and revocations. A gateway has no use for it, a thief has.\n";
                handover += &format!("issuer_seed = \"{seed}\"\n");
                public(&seed.parse().expect("our own digits are a hash"))
            }
        };
        handover += &format!(
            "# Key under which id tokens are hashed.\n\
             token_key = \"{token_key}\"\n\n\
             # The hub needs [[gateways]] id = \"{}\", site = \"{}\" in hub.toml as well.\n\
             [gateways]\n\
             {} = \"{link}\"\n",
            self.gateway, self.site, self.gateway
        );
        Ok(Keys {
            token_key,
            link,
            issuer_key,
            handover: Some(handover),
        })
    }

    fn config(&self, store: &str, issuer_key: &str) -> String {
        let cloud = match &self.hub {
            Some(hub) => format!("[[cloud]]\nname = \"main\"\nkind = \"hcp\"\nbroker = {}\n", quoted(hub)),
            None => "#[[cloud]]\n#name = \"main\"\n#kind = \"hcp\"\n#broker = \"hub.example.org:1884\"\n".to_owned(),
        };
        format!(
            "# holdfast: the configuration of this gateway, made by `holdfast init`. Everything that is not here has a default;\n\
             # the example that comes with holdfast names every key. After a change: holdfast reload.\n\
             # Keys and passwords are in secrets.toml beside this file.\n\n\
             [site]\n\
             name = \"{}\"\n\
             gateway = \"{}\"\n\
             # Offset of local time from UTC, in minutes, for times of use in tariffs.\n\
             #utc_offset_min = 480\n\n\
             [store]\n\
             # Journal and control socket.\n\
             dir = {}\n\n\
             [devices]\n\
             # Where devices connect (MQTT 3.1.1 and 5).\n\
             listen = \"{}\"\n\n\
             # Where the hub is. Without any [[cloud]] the site decides alone.\n\
             {cloud}\n\
             [trust]\n\
             # Public keys that may sign lists, tariffs and revocations.\n\
             issuer_keys = [\"{issuer_key}\"]\n\
             # Public keys that may sign firmware (`holdfast image key` prints one). None: devices take no updates.\n\
             #firmware_keys = []\n\n\
             # Take what is new at one device first, then at its kind, then everywhere, and go back by itself: docs/operations.md.\n\
             #[ring]\n\n\
             # Whose members may ask the running gateway, beside root and its own user: holdfast status and so on.\n\
             #[control]\n\
             #group = \"holdfast\"\n\n\
             # The devices of the site follow; `holdfast device add` writes them.\n",
            self.site,
            self.gateway,
            quoted(store),
            self.listen,
        )
    }

    fn told(&self, [config, secrets, handover]: &[PathBuf; 3], store: &Path, has_handover: bool) -> String {
        let mut text = format!(
            "Made site {} with gateway {}:\n  {}  the configuration\n  {}  its keys, for its owner alone\n  {}  for the journal\n",
            self.site,
            self.gateway,
            config.display(),
            secrets.display(),
            store.display(),
        );
        if has_handover {
            text += &format!("  {}  keys for the hub, for its owner alone\n", handover.display());
        }
        text += "What to do next:\n";
        if has_handover {
            text += &format!(
                "- Carry {} to the hub, put its keys into hub-secrets.toml there, and delete it here\n",
                handover.display()
            );
        }
        if self.hub.is_none() {
            text += &format!("- When there is a hub: add a [[cloud]] to {}\n", config.display());
        }
        let config = config.display();
        text += &format!(
            "- Add a device: holdfast --config {config} device add charger-001 --kind charger\n\
             - Look for what is wrong: holdfast --config {config} doctor\n\
             - Start it: holdfast --config {config} run, or systemctl enable --now holdfast\n\
             - Keep a backup elsewhere: holdfast --config {config} backup FILE"
        );
        text
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> InitError + use<> {
    let path = path.to_owned();
    move |error| InitError::Io { path, error }
}

fn public(seed: &Hash) -> String {
    Hash(*Issuer::from_seed(&seed.0).key().as_bytes()).to_string()
}

/// As TOML writes text.
fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        init: InitCommand,
    }

    fn make(args: &[&str]) -> Result<String, InitError> {
        let line = std::iter::once("init").chain(args.iter().copied());
        Line::try_parse_from(line).unwrap().init.make()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_site_is_made_once() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("site");
        let at = dir.to_str().unwrap();
        let said = make(&["--dir", at, "--site", "dorm-2", "--hub", "10.0.0.1:1884"]).unwrap();
        assert!(
            said.contains("device add") && said.contains("for-the-hub.toml"),
            "{said}"
        );
        let config = config::load(&dir.join("holdfast.toml"), None).unwrap();
        assert_eq!((config.site.as_str(), config.gateway.as_str()), ("dorm-2", "gw-1"));
        assert_eq!(config.dir, dir.join("data"));
        assert_eq!(mode(&dir.join("secrets.toml")), 0o600);
        assert_eq!(mode(&dir.join("for-the-hub.toml")), 0o600);
        assert_eq!((mode(&dir), mode(&dir.join("data"))), (0o700, 0o700));
        let text = fs::read_to_string(dir.join("for-the-hub.toml")).unwrap();
        let hub: HubSecrets = toml::from_str(&text).unwrap();
        assert_eq!(hub.gateways["gw-1"].0.0, config.link.unwrap().secret.0);
        assert_eq!(hub.token_key.0.0, config.token_key.0);
        assert_eq!(
            public(&hub.issuer_seed.0),
            Hash(*config.issuer_keys[0].as_bytes()).to_string()
        );

        let before = fs::read(dir.join("secrets.toml")).unwrap();
        assert!(matches!(make(&["--dir", at]), Err(InitError::Exists(_))));
        assert_eq!(fs::read(dir.join("secrets.toml")).unwrap(), before);
    }

    #[test]
    fn the_keys_of_a_hub_are_taken() {
        let top = tempfile::tempdir().unwrap();
        let (first, second) = (top.path().join("first"), top.path().join("second"));
        make(&["--dir", first.to_str().unwrap(), "--gateway", "gw-7"]).unwrap();
        let hub = first.join("for-the-hub.toml");
        let args = |gateway| {
            let (dir, hub) = (second.to_str().unwrap(), hub.to_str().unwrap());
            ["--dir", dir, "--hub-secrets", hub, "--gateway", gateway]
        };
        let error = make(&args("gw-8")).unwrap_err().to_string();
        assert!(error.contains("no secret for gw-8"), "{error}");
        assert!(!second.exists(), "nothing was made");
        make(&args("gw-7")).unwrap();
        let [one, other] = [&first, &second].map(|dir| config::load(&dir.join("holdfast.toml"), None).unwrap());
        assert_eq!(one.token_key.0, other.token_key.0);
        assert_eq!(one.issuer_keys, other.issuer_keys);
        assert!(!second.join("for-the-hub.toml").exists());
    }

    #[test]
    fn what_is_asked_for_wrongly_makes_nothing() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("site");
        let error = make(&["--dir", dir.to_str().unwrap(), "--hub", "no port \"here\""]).unwrap_err();
        assert!(matches!(error, InitError::Bad(_)), "{error}");
        assert!(!dir.join("holdfast.toml").exists() && !dir.join("secrets.toml").exists());
    }
}

//! `holdfast backup` and `holdfast restore`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use carrier::tls::ServerFiles;
use clap::Args;
use toml_edit::{DocumentMut, value};

use super::{Place, fail, owner::Owner, show::Progress};
use crate::{
    backup::{Backup, BackupError, Writer, is_inside},
    config::{self, Config, ConfigError, DeviceSide},
    exit, files, run,
    store::{Store, StoreError},
    stream::{self, StreamError},
};

/// Their names in a backup, wherever they come from.
const CONFIG_NAME: &str = "holdfast.toml";
const SECRETS_NAME: &str = "secrets.toml";

/// `holdfast backup`.
#[derive(Args, Debug)]
#[command(
    after_help = "The file holds every secret of the site: keep it as you keep the keys. It is consistent whatever the gateway does meanwhile: as if the gateway had been killed at one moment. Firmware images that are ordered and not installed yet are not in it."
)]
pub(super) struct BackupCommand {
    /// A new file, which only its owner may read
    file: PathBuf,
}

/// `holdfast restore`.
#[derive(Args, Debug)]
#[command(
    after_help = "The restored gateway begins a new epoch of its books, so the one it was copied from cannot write the same records again: the hub fences it. If the hub names another epoch than the one begun here, begin that one: holdfast run --epoch N."
)]
pub(super) struct RestoreCommand {
    /// As `holdfast backup` wrote it
    file: PathBuf,
    /// Put everything into this directory, the journal into `data` in it; without it: into /etc/holdfast, and the journal
    /// where the configuration in the backup says
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Begin epoch N of the books; without it: the one after that of the backup
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(run::EPOCH_MAX)))]
    epoch: Option<u32>,
}

/// Why nothing was backed up or restored.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{} is there already; nothing was restored. Move it away, or name another --dir", .0.display())]
    Exists(PathBuf),
    #[error("the backup has no {0}; nothing was restored")]
    Lacks(&'static str),
    #[error("the backup's configuration: {0}; nothing was restored")]
    Form(Box<toml_edit::TomlError>),
    #[error("everything is in its place, but the configuration is not good here: {0}")]
    Config(#[from] ConfigError),
    #[error("{0}; nothing was backed up")]
    Secrets(ConfigError),
    #[error("the backup ends in epoch {found}, so --epoch has to be above it; nothing was restored")]
    Epoch { found: u32 },
    #[error("the backup changed while it was read: {found} of {expected} records came")]
    Short { found: u64, expected: u64 },
}

impl Failed {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Backup(BackupError::Io { error, .. }) if error.kind() == io::ErrorKind::AlreadyExists => exit::EXISTS,
            Self::Backup(BackupError::Damaged { .. }) | Self::Lacks(_) | Self::Form(_) | Self::Short { .. } => {
                exit::DATA
            }
            Self::Backup(_) | Self::Io { .. } | Self::Stream(StreamError::Gateway(_)) => exit::UNAVAILABLE,
            Self::Stream(_) | Self::Store(_) => exit::STORAGE,
            Self::Exists(_) => exit::EXISTS,
            Self::Config(_) | Self::Secrets(_) => exit::CONFIG,
            Self::Epoch { .. } => exit::USAGE,
        }
    }
}

fn given((path, error): (PathBuf, io::Error)) -> Failed {
    Failed::Io { path, error }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Failed + use<> {
    let path = path.to_owned();
    move |error| Failed::Io { path, error }
}

impl BackupCommand {
    pub(super) fn run(&self, place: &Place, config: &Config) -> ExitCode {
        match back_up(&self.file, place, config) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(error.exit_code(), &error),
        }
    }
}

fn back_up(file: &Path, place: &Place, config: &Config) -> Result<String, Failed> {
    let mut writer = Writer::create(file)?;
    let written = fill(&mut writer, place, config).and_then(|found| {
        writer.finish()?;
        Ok(found)
    });
    let (records, outside) = match written {
        Ok(found) => found,
        Err(error) => {
            // Half a backup looks like one.
            drop(fs::remove_file(file));
            return Err(error);
        }
    };
    let mut text = format!(
        "{}: configuration, secrets and {records} records of the journal. Whoever reads it has every secret of the site.",
        file.display()
    );
    for path in outside {
        text += &format!("\nNot in it, copy it yourself: {}", path.display());
    }
    Ok(text)
}

fn fill(writer: &mut Writer, place: &Place, config: &Config) -> Result<(u64, Vec<PathBuf>), Failed> {
    let mut put = |name: &str, path: &Path| {
        let content = fs::read(path).map_err(at(path))?;
        writer.file(name, &content).map_err(Failed::from)
    };
    put(CONFIG_NAME, &place.config)?;
    let secrets = config::secrets_path(&place.config, place.secrets.as_deref()).map_err(Failed::Secrets)?;
    put(SECRETS_NAME, &secrets)?;
    let base = place.config.parent().unwrap_or(Path::new("."));
    let (inside, outside) = tls_files(config, base);
    for (name, path) in &inside {
        put(name, path)?;
    }
    let (mut progress, mut records) = (None::<Progress>, 0);
    let mut failed = None;
    let streamed = stream::each(&config.dir, &mut |start, sequence, bytes| {
        // Records of the state stand for those that were pruned: applied in order they give the same.
        records += 1;
        progress
            .get_or_insert_with(|| Progress::new("backing up", start.head))
            .at(sequence);
        writer.record(bytes).map_err(|error| {
            let text = error.to_string();
            failed = Some(error);
            text
        })
    });
    match (streamed, failed) {
        (_, Some(error)) => Err(error.into()),
        (Ok(_), None) => Ok((records, outside)),
        // A gateway that never ran has no journal, and a configuration that is worth keeping.
        (Err(StreamError::Store(StoreError::Open(journal::OpenError::Missing(_)))), None) => Ok((0, outside)),
        (Err(error), None) => Err(error.into()),
    }
}

/// Files of TLS under the configuration's folder, by name, and those elsewhere.
fn tls_files(config: &Config, base: &Path) -> (Vec<(String, PathBuf)>, Vec<PathBuf>) {
    let clouds = config.link.iter().flat_map(|link| &link.clouds);
    let of_clouds = clouds.filter_map(|cloud| cloud.road.tls.as_ref());
    let mut paths: Vec<PathBuf> = Vec::new();
    for files in of_clouds.map(carrier::tls::Tls::files) {
        paths.extend(files.roots.iter().cloned());
        let identity = files.identity.iter();
        paths.extend(identity.flat_map(|own| [own.certificate.clone(), own.key.clone()]));
    }
    if let DeviceSide::Embedded { tls: Some(tls), .. } = &config.device_side {
        let ServerFiles { identity, clients } = &tls.files;
        paths.extend([&identity.certificate, &identity.key, clients].into_iter().cloned());
    }
    paths.sort();
    paths.dedup();
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for path in paths {
        let name = path.strip_prefix(base).ok().and_then(Path::to_str).map(str::to_owned);
        match name.filter(|name| is_inside(name)) {
            Some(name) => inside.push((name, path)),
            None => outside.push(path),
        }
    }
    (inside, outside)
}

impl RestoreCommand {
    pub(super) fn run(&self) -> ExitCode {
        match self.restore() {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(error.exit_code(), &error),
        }
    }

    fn restore(&self) -> Result<String, Failed> {
        let backup = Backup::verify(&self.file)?;
        let text = backup.file(CONFIG_NAME).ok_or(Failed::Lacks(CONFIG_NAME))?;
        let text = String::from_utf8_lossy(text);
        backup.file(SECRETS_NAME).ok_or(Failed::Lacks(SECRETS_NAME))?;
        let epoch = match self.epoch {
            Some(epoch) if epoch <= backup.epoch => return Err(Failed::Epoch { found: backup.epoch }),
            Some(epoch) => epoch,
            None => backup.epoch.saturating_add(1),
        };
        let mut document: DocumentMut = text.parse().map_err(|error| Failed::Form(Box::new(error)))?;
        if self.dir.is_some() {
            document["store"]["dir"] = value("data");
        }
        let dir = self.dir.clone().unwrap_or_else(|| PathBuf::from("/etc/holdfast"));
        let store = document["store"]["dir"].as_str().unwrap_or("data");
        let store = dir.join(store);
        let taken = backup.files.iter().map(|(name, _)| dir.join(name));
        if let Some(path) = taken.chain([store.join("journal")]).find(|path| path.exists()) {
            return Err(Failed::Exists(path));
        }
        self.write(&backup, &dir, &store, &document.to_string(), epoch)?;
        Ok(format!(
            "{}: restored, with {} records of the journal, which goes on in epoch {epoch}.\n\
             What to do next:\n\
             - Stop the gateway that it was copied from, if it still runs. From the first hello of this one on, the hub \
             takes nothing more from it\n\
             - Start this one: holdfast --config {} run, or systemctl start holdfast\n\
             - See that the hub takes its records: holdfast status. If the hub names another epoch: holdfast run --epoch N\n\
             - At the hub, free what the old one could have spent: holdfast-hub release",
            dir.display(),
            backup.records,
            dir.join(CONFIG_NAME).display(),
        ))
    }

    fn write(&self, backup: &Backup, dir: &Path, store: &Path, config: &str, epoch: u32) -> Result<(), Failed> {
        let owner = Owner::of(store, self.dir.is_none());
        make_private(store).map_err(at(store))?;
        let journal = store.join("journal");
        let mut progress = Progress::new("restoring", backup.records);
        let mut count = 0;
        let mut records = backup.records()?.inspect(|_| {
            count += 1;
            progress.at(count);
        });
        let found = Store::restore(store, epoch, &mut records)?;
        if found != backup.records {
            drop(fs::remove_dir_all(&journal));
            let expected = backup.records;
            return Err(Failed::Short { found, expected });
        }
        for (name, content) in &backup.files {
            let path = dir.join(name);
            let (mode, content) = match name.as_str() {
                CONFIG_NAME => (files::PUBLIC, config.as_bytes()),
                // The gateway opens files of TLS itself: they are its user's, and nobody else's.
                _ => (files::PRIVATE, content.as_slice()),
            };
            let folder = path.parent().unwrap_or(dir);
            fs::create_dir_all(folder).map_err(at(folder))?;
            files::create(&path, mode, content).map_err(at(&path))?;
            // The configuration is public, and the secrets are root's: the unit hands them to the gateway.
            if let Some(owner) = owner.filter(|_| ![CONFIG_NAME, SECRETS_NAME].contains(&name.as_str())) {
                owner.give(&path).map_err(given)?;
            }
        }
        if let Some(owner) = owner {
            owner.give(store).map_err(given)?;
            owner.let_into(dir).map_err(given)?;
        }
        config::load(&dir.join(CONFIG_NAME), None)?;
        Ok(())
    }
}

/// Makes a directory, and those above it; itself for its owner alone, if it is new.
pub(super) fn make_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty()) {
        fs::create_dir_all(above)?;
    }
    fs::DirBuilder::new().mode(0o700).create(dir)
}

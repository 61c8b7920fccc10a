//! Changing configuration and secrets as a person would: everything else in them, comments too, stays as it is. What is
//! written is read and checked first, so a bad change leaves both files as they were.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use proto::id::DeviceId;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::{
    config::{self, ConfigError},
    files,
};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum EditError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "{} is not there; if it is encrypted, decrypt it beside the configuration, and encrypt it again afterwards: systemd-creds(1)",
        .0.display()
    )]
    NoSecrets(PathBuf),
    #[error("{}: {error}", path.display())]
    Form {
        path: PathBuf,
        error: Box<toml_edit::TomlError>,
    },
    #[error("{}: {key} is not written as {wanted}; change it by hand", path.display())]
    Shape {
        path: PathBuf,
        key: &'static str,
        wanted: &'static str,
    },
    #[error("{0} is a device of this site already; to give it a new secret: holdfast device rotate {0}")]
    Exists(DeviceId),
    #[error("{0} is not a device of this site; holdfast device list shows them")]
    Unknown(DeviceId),
    #[error("nothing was changed, because it would not be good: {0}")]
    Bad(ConfigError),
}

struct Edited {
    path: PathBuf,
    document: DocumentMut,
}

impl Edited {
    fn open(path: &Path) -> Result<Self, EditError> {
        let failed = |error| EditError::Io {
            path: path.to_owned(),
            error,
        };
        // Behind a link stands the file that is meant; the link stays.
        let path = fs::canonicalize(path).map_err(failed)?;
        let text = fs::read_to_string(&path).map_err(failed)?;
        let document = text.parse().map_err(|error| EditError::Form {
            path: path.clone(),
            error: Box::new(error),
        })?;
        Ok(Self { path, document })
    }

    fn next(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        name.into()
    }

    /// Writes what it shall be beside the file, with its owner and mode.
    fn stage(&self) -> Result<PathBuf, EditError> {
        let next = self.next();
        let write = || {
            match fs::remove_file(&next) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let metadata = fs::metadata(&self.path)?;
            files::create(&next, files::PRIVATE, self.document.to_string().as_bytes())?;
            let own = fs::metadata(&next)?;
            if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
                chown(&next, Some(metadata.uid()), Some(metadata.gid()))?;
            }
            fs::set_permissions(&next, fs::Permissions::from_mode(metadata.mode() & 0o777))
        };
        write().map_err(|error| EditError::Io {
            path: next.clone(),
            error,
        })?;
        Ok(next)
    }

    fn commit(&self) -> Result<(), EditError> {
        let done = fs::rename(self.next(), &self.path).and_then(|()| files::sync_folder_of(&self.path));
        done.map_err(|error| EditError::Io {
            path: self.path.clone(),
            error,
        })
    }

    fn shape(&self, key: &'static str, wanted: &'static str) -> EditError {
        EditError::Shape {
            path: self.path.clone(),
            key,
            wanted,
        }
    }
}

/// Configuration, and secrets if they are to change too, open for a change; for one at a time.
pub(super) struct Edit {
    config: Edited,
    secrets: Option<Edited>,
    /// Of the configuration's folder, held while this value lives.
    _lock: fs::File,
}

impl Edit {
    /// Waits for whoever changes them now.
    pub(super) fn open(config: &Path, secrets: Option<&Path>) -> Result<Self, EditError> {
        let found = fs::canonicalize(config).unwrap_or_else(|_| config.to_owned());
        let folder = found.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let lock = fs::File::open(folder).and_then(|lock| lock.lock().map(|()| lock));
        let lock = lock.map_err(|error| EditError::Io {
            path: folder.to_owned(),
            error,
        })?;
        let secrets = match secrets.map(Edited::open) {
            Some(Err(EditError::Io { path, error })) if error.kind() == io::ErrorKind::NotFound => {
                return Err(EditError::NoSecrets(path));
            }
            other => other.transpose()?,
        };
        Ok(Self {
            config: Edited::open(config)?,
            secrets,
            _lock: lock,
        })
    }

    fn devices(&mut self) -> Result<&mut ArrayOfTables, EditError> {
        let shape = self.config.shape("device", "[[device]]");
        let item = self.config.document.entry("device");
        let item = item.or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        item.as_array_of_tables_mut().ok_or(shape)
    }

    fn device(&mut self, device: &DeviceId) -> Result<&mut Table, EditError> {
        let mut devices = self.devices()?.iter_mut();
        let is_meant = |table: &&mut Table| table.get("id").and_then(Item::as_str) == Some(device.as_str());
        devices.find(is_meant).ok_or(EditError::Unknown(*device))
    }

    /// A table `[[device]]` with these keys at the end.
    pub(super) fn add(&mut self, device: &DeviceId, kind: &str, outlets: u8, car: bool) -> Result<(), EditError> {
        if self.device(device).is_ok() {
            return Err(EditError::Exists(*device));
        }
        let mut table = Table::new();
        table["id"] = value(device.as_str());
        table["kind"] = value(kind);
        if outlets != 1 {
            table["outlets"] = value(i64::from(outlets));
        }
        if car {
            table["car"] = value(true);
        }
        // Comments at the end of the file may be keys of the table above them: they stay there.
        let document = &mut self.config.document;
        let above = document.trailing().as_str().unwrap_or_default().to_owned();
        document.set_trailing("");
        table.decor_mut().set_prefix(format!("{above}\n"));
        self.devices()?.push(table);
        Ok(())
    }

    /// Whether a device may do nothing; whether that is a change.
    pub(super) fn block(&mut self, device: &DeviceId, blocked: bool) -> Result<bool, EditError> {
        let table = self.device(device)?;
        let was = table.get("blocked").and_then(Item::as_bool).unwrap_or(false);
        if blocked {
            table["blocked"] = value(true);
        } else {
            table.remove("blocked");
        }
        Ok(was != blocked)
    }

    /// The secret of a device, new or another one.
    pub(super) fn secret(&mut self, device: &DeviceId, secret: &str) -> Result<(), EditError> {
        self.device(device)?;
        let secrets = self.secrets.as_mut().expect("whoever changes one opens them");
        let shape = secrets.shape("devices", "[devices]");
        let item = secrets.document.entry("devices");
        let table = item.or_insert(Item::Table(Table::new()));
        let table = table.as_table_like_mut().ok_or(shape)?;
        table.insert(device.as_str(), value(secret));
        Ok(())
    }

    /// Checks what the files shall be, and puts it in their place. A crash leaves files that are good: a secret without a
    /// device does no harm, and the next attempt writes it over.
    pub(super) fn save(self) -> Result<(), EditError> {
        if let Err(error) = self.stage() {
            // Whatever of the two was made.
            for edited in self.secrets.iter().chain([&self.config]) {
                drop(fs::remove_file(edited.next()));
            }
            return Err(error);
        }
        if let Some(secrets) = &self.secrets {
            secrets.commit()?;
        }
        self.config.commit()
    }

    /// What needs no secret is no more than a word in a table: it cannot make a good file bad.
    fn stage(&self) -> Result<(), EditError> {
        let config = self.config.stage()?;
        let Some(secrets) = &self.secrets else {
            return Ok(());
        };
        let secrets = secrets.stage()?;
        config::load(&config, Some(&secrets)).map(drop).map_err(EditError::Bad)
    }
}

/// 32 random bytes in hexadecimal.
pub(super) fn random_key() -> io::Result<String> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(proto::id::Hash(bytes).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../deploy/config/holdfast.toml");
    const SECRETS: &str = include_str!("../../../../deploy/config/secrets.toml");

    struct Place(tempfile::TempDir);

    impl Place {
        fn new(config: &str) -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::write(place.config(), config).unwrap();
            files::create(&place.secrets(), files::PRIVATE, SECRETS.as_bytes()).unwrap();
            place
        }

        fn config(&self) -> PathBuf {
            self.0.path().join("holdfast.toml")
        }

        fn secrets(&self) -> PathBuf {
            self.0.path().join("secrets.toml")
        }

        fn edit(&self) -> Edit {
            Edit::open(&self.config(), Some(&self.secrets())).unwrap()
        }

        fn load(&self) -> config::Config {
            config::load(&self.config(), None).unwrap()
        }

        fn add(&self, id: &str, kind: &str, outlets: u8) -> Result<(), EditError> {
            let device = DeviceId::new(id).unwrap();
            let mut edit = self.edit();
            edit.add(&device, kind, outlets, false)?;
            edit.secret(&device, &random_key().unwrap())?;
            edit.save()
        }
    }

    #[test]
    fn a_device_more_and_every_line_that_was_there() {
        let place = Place::new(EXAMPLE);
        place.add("charger-002", "charger", 2).unwrap();
        let text = fs::read_to_string(place.config()).unwrap();
        assert!(text.starts_with(EXAMPLE.trim_end()), "{text}");
        assert!(
            fs::read_to_string(place.secrets())
                .unwrap()
                .starts_with(SECRETS.trim_end())
        );
        let added = DeviceId::new("charger-002").unwrap();
        let config = place.load();
        assert_eq!(config.core.devices[&added].outlets, 2);
        assert_eq!(config.core.devices.len(), 4);
        let mode = fs::metadata(place.secrets()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(
            place.add("charger-002", "charger", 1),
            Err(EditError::Exists(_))
        ));
        assert_eq!(
            fs::read_dir(place.0.path()).unwrap().count(),
            2,
            "nothing is left beside"
        );
    }

    #[test]
    fn the_first_device_of_a_site() {
        let none = EXAMPLE.split("\n[[device]]").next().unwrap();
        let place = Place::new(none);
        place.add("washer-007", "washer", 1).unwrap();
        assert_eq!(place.load().core.devices.len(), 1);
        place.add("washer-008", "washer", 1).unwrap();
        let text = fs::read_to_string(place.config()).unwrap();
        assert!(text.starts_with(none.trim_end()), "{text}");
        assert_eq!(place.load().core.devices.len(), 2);
    }

    #[test]
    fn a_change_that_would_not_be_good_changes_nothing() {
        let place = Place::new(EXAMPLE);
        for (kind, outlets) in [("kettle", 1), ("charger", 0), ("charger", 21)] {
            let error = place.add("other-1", kind, outlets).unwrap_err();
            assert!(matches!(error, EditError::Bad(_)), "{error}");
        }
        assert_eq!(fs::read_to_string(place.config()).unwrap(), EXAMPLE);
        assert_eq!(fs::read_to_string(place.secrets()).unwrap(), SECRETS);
        assert_eq!(
            fs::read_dir(place.0.path()).unwrap().count(),
            2,
            "nothing is left beside"
        );
        let inline = place.0.path().join("inline.toml");
        fs::write(&inline, "device = [{ id = \"a\" }]\n").unwrap();
        let edit = Edit::open(&inline, Some(&place.secrets()));
        let error = edit.unwrap().devices().err().unwrap();
        assert!(error.to_string().contains("[[device]]"), "{error}");
    }

    #[test]
    fn a_device_is_blocked_and_let_in_again() {
        let place = Place::new(EXAMPLE);
        let washer = DeviceId::new("washer-001").unwrap();
        let block = |blocked| {
            let mut edit = place.edit();
            let changed = edit.block(&washer, blocked).unwrap();
            edit.save().unwrap();
            (changed, place.load().blocked.contains(&washer))
        };
        assert_eq!(block(true), (true, true));
        assert_eq!(block(true), (false, true));
        assert_eq!(block(false), (true, false));
        assert_eq!(fs::read_to_string(place.config()).unwrap(), EXAMPLE);
        // Also where the secrets are not to be had; a new device needs them.
        fs::rename(place.secrets(), place.0.path().join("away")).unwrap();
        let mut edit = Edit::open(&place.config(), None).unwrap();
        assert!(edit.block(&washer, true).unwrap());
        edit.save().unwrap();
        assert!(fs::read_to_string(place.config()).unwrap().contains("blocked = true"));
        let error = Edit::open(&place.config(), Some(&place.secrets())).err().unwrap();
        assert!(error.to_string().contains("decrypt it"), "{error}");
        fs::rename(place.0.path().join("away"), place.secrets()).unwrap();
        let nobody = DeviceId::new("nobody").unwrap();
        assert!(matches!(place.edit().block(&nobody, true), Err(EditError::Unknown(_))));
    }

    #[test]
    fn two_at_once_lose_nothing() {
        let place = Place::new(EXAMPLE);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let place = &place;
                scope.spawn(move || place.add(&format!("charger-9{n}"), "charger", 1).unwrap());
            }
        });
        assert_eq!(place.load().core.devices.len(), 3 + 8);
    }

    #[test]
    fn another_secret_takes_the_place_of_the_first() {
        let place = Place::new(EXAMPLE);
        let washer = DeviceId::new("washer-001").unwrap();
        let before = place.load();
        let mut edit = place.edit();
        edit.secret(&washer, &random_key().unwrap()).unwrap();
        edit.save().unwrap();
        let after = place.load();
        for (device, secret) in &before.device_secrets {
            assert_eq!(after.device_secrets[device] != *secret, *device == washer, "{device}");
        }
    }
}

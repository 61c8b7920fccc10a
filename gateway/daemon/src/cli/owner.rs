//! Whose the files are that root makes for the service.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use crate::users::{self, User};

/// The user that the package makes and the unit names.
const SERVICE_USER: &str = "holdfast";

/// Who is to have files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner(User);

impl Owner {
    /// Whom a store belongs to: whoever has its directory, else, where the service is installed, the service's user. `None`
    /// also where this process may not give files away.
    pub(super) fn of(store: &Path, is_installed: bool) -> Option<Self> {
        let own = fs::metadata("/proc/self").ok()?.uid();
        if own != 0 {
            return None;
        }
        let there = fs::metadata(store).ok().map(|found| User {
            uid: found.uid(),
            gid: found.gid(),
        });
        there
            .filter(|user| user.uid != 0)
            .or_else(|| is_installed.then(|| users::user(SERVICE_USER)).flatten())
            .map(Self)
    }

    /// Gives a file to this user, or a folder with all that is in it; links themselves, not what they mean.
    ///
    /// # Errors
    /// With the path.
    pub(super) fn give(self, path: &Path) -> Result<(), (PathBuf, io::Error)> {
        let at = |error| (path.to_owned(), error);
        std::os::unix::fs::lchown(path, Some(self.0.uid), Some(self.0.gid)).map_err(at)?;
        if fs::symlink_metadata(path).map_err(at)?.is_dir() {
            for entry in fs::read_dir(path).map_err(at)? {
                self.give(&entry.map_err(at)?.path())?;
            }
        }
        Ok(())
    }

    /// Lets this user into a folder of root's, and nobody else.
    ///
    /// # Errors
    /// With the path.
    pub(super) fn let_into(self, folder: &Path) -> Result<(), (PathBuf, io::Error)> {
        let at = |error| (folder.to_owned(), error);
        chown(folder, None, Some(self.0.gid)).map_err(at)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o750)).map_err(at)
    }
}

//! Whose the files are that root makes for the service.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

/// The user that the package makes and the unit names.
const SERVICE_USER: &str = "holdfast";
const USER_FILE: &str = "/etc/passwd";

/// A user and his group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// Whom a store belongs to: whoever has its directory, else, where the service is installed, the service's user. `None`
    /// also where this process may not give files away.
    pub(super) fn of(store: &Path, is_installed: bool) -> Option<Self> {
        let own = fs::metadata("/proc/self").ok()?.uid();
        if own != 0 {
            return None;
        }
        let there = fs::metadata(store).ok().map(|found| Self {
            uid: found.uid(),
            gid: found.gid(),
        });
        let users = || fs::read_to_string(USER_FILE).unwrap_or_default();
        there
            .filter(|owner| owner.uid != 0)
            .or_else(|| is_installed.then(|| find(SERVICE_USER, &users())).flatten())
    }

    /// Gives a file to this user, or a folder with all that is in it; links themselves, not what they mean.
    ///
    /// # Errors
    /// With the path.
    pub(super) fn give(self, path: &Path) -> Result<(), (PathBuf, io::Error)> {
        let at = |error| (path.to_owned(), error);
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).map_err(at)?;
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
        chown(folder, None, Some(self.gid)).map_err(at)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o750)).map_err(at)
    }
}

fn find(name: &str, users: &str) -> Option<Owner> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2).map(str::parse);
    let (uid, gid) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(Owner { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_user_is_found() {
        let users = "root:x:0:0::/root:/bin/sh\nholdfast2:x:5:5::/:/bin/sh\nholdfast:x:998:997::/:/usr/sbin/nologin\n";
        assert_eq!(find("holdfast", users), Some(Owner { uid: 998, gid: 997 }));
        assert_eq!(find("nobody", users), None);
        assert_eq!(find("broken", "broken:x"), None);
    }
}

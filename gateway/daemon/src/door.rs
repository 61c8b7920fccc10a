//! Who may ask the running gateway: root, the gateway's own user, and members of the configured group. The kernel says who
//! is at the other end of the socket; nobody can pretend.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use tokio::net::unix::UCred;

use crate::users::{self, GROUP_FILE, Group};

/// A door and who may pass.
#[derive(Clone, Debug, Default)]
pub struct Door {
    own_uid: u32,
    group: Option<Group>,
}

impl Door {
    /// For root, the user of this process and, if one is named, the members of a group.
    ///
    /// # Errors
    /// If there is no such group.
    pub fn new(group: Option<&str>) -> io::Result<Self> {
        let own_uid = fs::metadata("/proc/self")?.uid();
        let group = match group {
            None => None,
            Some(name) => {
                let found = users::group(name)?;
                Some(found.ok_or_else(|| {
                    let why = format!(
                        "[control] group: there is no group \"{name}\" in {GROUP_FILE}; type: groupadd --system {name}"
                    );
                    io::Error::new(io::ErrorKind::NotFound, why)
                })?)
            }
        };
        Ok(Self { own_uid, group })
    }

    /// Whether this one may ask.
    #[must_use]
    pub fn admits(&self, peer: &UCred) -> bool {
        self.lets_in(peer.uid(), peer.gid())
    }

    /// Whether this one may tell secrets: who could put other ones into the file anyway.
    #[must_use]
    pub fn trusts(&self, peer: &UCred) -> bool {
        peer.uid() == 0 || peer.uid() == self.own_uid
    }

    fn lets_in(&self, uid: u32, gid: u32) -> bool {
        let is_member = |group: &Group| group.gid == gid || group.members.contains(&uid);
        uid == 0 || uid == self.own_uid || self.group.as_ref().is_some_and(is_member)
    }

    /// Opens the socket's file to those who may ask, and to nobody else.
    ///
    /// # Errors
    /// If this process may not give a file to the group: it has to be a member itself, or root, and allowed to by its unit.
    pub(crate) fn open_to(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::{PermissionsExt, chown};
        let mode = match &self.group {
            None => 0o600,
            // The unit's own group has it from the start, and the unit may not give files away.
            Some(group) if fs::metadata(path)?.gid() == group.gid => 0o660,
            Some(group) => {
                chown(path, None, Some(group.gid)).map_err(|error| {
                    let why = format!(
                        "{}: cannot be given to the group of [control]: {error}; the gateway's user has to be a member of it",
                        path.display()
                    );
                    io::Error::new(error.kind(), why)
                })?;
                0o660
            }
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_own_user_and_members_pass() {
        let group = Some(Group {
            gid: 700,
            members: vec![1000, 1001],
        });
        let (own, with) = (
            Door {
                own_uid: 50,
                group: None,
            },
            Door { own_uid: 50, group },
        );
        for (uid, gid, alone, in_group) in [
            (0, 0, true, true),
            (50, 50, true, true),
            (1000, 1000, false, true),
            (1001, 700, false, true),
            (1005, 700, false, true),
            (1002, 1002, false, false),
        ] {
            assert_eq!(
                (own.lets_in(uid, gid), with.lets_in(uid, gid)),
                (alone, in_group),
                "{uid}"
            );
        }
    }

    #[test]
    fn a_group_that_is_not_there_is_named() {
        let error = Door::new(Some("no-such-group-here")).unwrap_err().to_string();
        assert!(error.contains("groupadd --system no-such-group-here"), "{error}");
    }
}

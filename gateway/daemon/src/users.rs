//! The system's users and groups, as its files tell them.

use std::{fs, io};

/// Where the system keeps its groups and users.
pub(crate) const GROUP_FILE: &str = "/etc/group";
const USER_FILE: &str = "/etc/passwd";

/// A user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A group, as it was when it was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) gid: u32,
    pub(crate) members: Vec<u32>,
}

/// The user of this name; `None` also if the system keeps its users elsewhere.
pub(crate) fn user(name: &str) -> Option<User> {
    find_user(name, &fs::read_to_string(USER_FILE).unwrap_or_default())
}

/// The group of this name, with its members.
///
/// # Errors
/// If the files cannot be read.
pub(crate) fn group(name: &str) -> io::Result<Option<Group>> {
    Ok(find_group(name, &read(GROUP_FILE)?, &read(USER_FILE)?))
}

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

/// The fields of the line that begins with this name.
fn line<'a>(name: &str, lines: &'a str) -> Option<Vec<&'a str>> {
    let mut lines = lines.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields.first() == Some(&name))
}

fn find_user(name: &str, users: &str) -> Option<User> {
    let fields = line(name, users)?;
    let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
    Some(User { uid, gid })
}

fn find_group(name: &str, groups: &str, users: &str) -> Option<Group> {
    let fields = line(name, groups)?;
    let gid = fields.get(2)?.parse().ok()?;
    let names = fields.get(3).map(|names| names.split(',')).into_iter().flatten();
    let members = names.filter_map(|name| find_user(name, users)).map(|user| user.uid);
    Some(Group {
        gid,
        members: members.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str =
        "root:x:0:0::/root:/bin/sh\nholdfast2:x:5:5::/:/bin/sh\nholdfast:x:998:997::/:/usr/sbin/nologin\n";

    #[test]
    fn users_are_found_by_their_whole_name() {
        assert_eq!(find_user("holdfast", USERS), Some(User { uid: 998, gid: 997 }));
        assert_eq!(find_user("nobody", USERS), None);
        assert_eq!(find_user("broken", "broken:x"), None);
    }

    #[test]
    fn groups_are_found_with_their_members() {
        let groups = "root:x:0:\nstaff:x:50:holdfast,gone,holdfast2\n";
        let staff = Group {
            gid: 50,
            members: vec![998, 5],
        };
        assert_eq!(find_group("staff", groups, USERS), Some(staff));
        let alone = Group {
            gid: 0,
            members: Vec::new(),
        };
        assert_eq!(find_group("root", groups, USERS), Some(alone));
        assert_eq!(find_group("sta", groups, USERS), None);
    }
}

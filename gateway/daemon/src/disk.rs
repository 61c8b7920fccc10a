//! Watches the disk of the journal. When no more is free than the reserve, no new unsecured session begins, so that there
//! is room for the records of all that goes on (semantics, section 7). Old records are never dropped for room.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::mpsc;

use crate::engine::Job;

/// Between two looks: at a hundred records a second of 4 KiB a disk loses 4 MiB meanwhile, far less than the reserve.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// There is room again at so many hundredths of the reserve, so that one deleted file does not open and close the site.
const ROOM_PERCENT: u64 = 125;

/// Looks for ever, and tells the engine when something changed.
pub(crate) async fn watch(dir: PathBuf, reserve_bytes: u64, engine: mpsc::Sender<Job>) {
    let mut was_scarce = false;
    loop {
        match free_bytes(&dir) {
            Ok(free_bytes) => {
                let is_scarce = is_scarce(was_scarce, free_bytes, reserve_bytes);
                // The engine remembers across restarts; what it knows already it ignores.
                if engine.send(Job::Disk { is_scarce }).await.is_err() {
                    return;
                }
                was_scarce = is_scarce;
            }
            Err(error) => tracing::warn!(dir = %dir.display(), %error, "the free space of the disk cannot be read"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What is free for us, in bytes.
pub(crate) fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn is_scarce(was_scarce: bool, free_bytes: u64, reserve_bytes: u64) -> bool {
    let needed = match was_scarce {
        true => reserve_bytes / 100 * ROOM_PERCENT,
        false => reserve_bytes,
    };
    free_bytes <= needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_left_later_than_it_is_reached() {
        for (was, free_bytes, expected) in [
            (false, 1_001, false),
            (false, 1_000, true),
            (true, 1_001, true),
            (true, 1_250, true),
            (true, 1_251, false),
            (false, 1_250, false),
            (false, 0, true),
        ] {
            assert_eq!(is_scarce(was, free_bytes, 1_000), expected, "{was} {free_bytes}");
        }
    }

    #[test]
    fn a_disk_has_some_room_and_a_missing_one_is_an_error() {
        assert!(free_bytes(Path::new("/")).is_ok_and(|free_bytes| free_bytes > 0));
        assert!(free_bytes(Path::new("/no/such/place")).is_err());
    }
}

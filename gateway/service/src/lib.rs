//! What a program tells the service manager that started it, and what it finds from it: readiness, the watchdog, a line of
//! status, secrets, and the form of the log. Started by hand, nobody listens, and every function does nothing.
//!
//! The watchdog is fed by [`watch`], which has no say of its own: it passes on that a [`Heart`] beat. Whoever does the
//! work beats it in the loop of the work, so a loop that hangs starves the watchdog, however well the timers are.

mod journald;

use std::{
    env,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sd_notify::NotifyState;

pub use self::journald::{Levelled, logs_to_journald};

/// A loop with nothing to do beats this often all the same: three times in the shortest watchdog that makes sense.
pub const BEAT_EVERY: Duration = Duration::from_secs(1);
/// How often the status is looked at where no watchdog runs.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Feedings that fit into the manager's patience: one may come late, and the next is still in time.
const FEEDINGS: u32 = 3;
/// Where the manager says that secrets lie.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Counts what a loop has done. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Heart(Arc<AtomicU64>);

impl Heart {
    /// The loop went round.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything is up; whoever waited for this program goes on. `status` is a line for people.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is read again; [`ready`] says that it is over. Nothing ceases meanwhile.
pub fn reloading(status: &str) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status(status)]),
        Err(error) => tracing::debug!(%error, "the service manager was not told"),
    }
}

/// A line for people, as `systemctl status` shows it.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The end has begun, and it is meant.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Feeds the manager's watchdog for ever, if there is one, as long as `heart` beats; and tells the status when it changes.
pub async fn watch(heart: Heart, status: impl Fn() -> String) {
    let patience = sd_notify::watchdog_enabled();
    pass_on(&heart, status, patience, tell).await;
}

async fn pass_on(
    heart: &Heart,
    status: impl Fn() -> String,
    patience: Option<Duration>,
    mut tell: impl FnMut(&[NotifyState<'_>]),
) {
    let every = patience.map_or(STATUS_EVERY, |patience| patience / FEEDINGS);
    let (mut beats, mut told) = (None, String::new());
    loop {
        let now = heart.beats();
        if patience.is_some() && beats != Some(now) {
            tell(&[NotifyState::Watchdog]);
        }
        beats = Some(now);
        let text = status();
        if text != told {
            tell(&[NotifyState::Status(&text)]);
            told = text;
        }
        tokio::time::sleep(every).await;
    }
}

/// The secret of this name, if the manager has laid it ready. The manager keeps others from reading it, so its mode means
/// nothing.
#[must_use]
pub fn credential(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(CREDENTIALS)?).join(name);
    path.is_file().then_some(path)
}

/// The secret of this name of a running unit: for commands of the operator where the file itself is encrypted. Root and
/// the unit's user can read it.
#[must_use]
pub fn credential_of(unit: &str, name: &str) -> Option<PathBuf> {
    let path = PathBuf::from("/run/credentials").join(unit).join(name);
    path.is_file().then_some(path)
}

/// A manager that does not hear is its own trouble: the watchdog or the timeout of the start says so to people.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// What the manager heard in so many seconds with a patience of three, of a loop that goes round once a second for so
    /// long.
    async fn heard(seconds: u64, alive_s: u64, patience: Option<Duration>) -> Vec<String> {
        let (heart, heard) = (Heart::default(), RefCell::new(Vec::new()));
        let beating = async {
            for _ in 0..alive_s {
                heart.beat();
                tokio::time::sleep(BEAT_EVERY).await;
            }
            std::future::pending::<()>().await;
        };
        let status = || if heart.beats() < 3 { "young" } else { "old" }.to_owned();
        let passing = pass_on(&heart, status, patience, |states| {
            heard.borrow_mut().extend(states.iter().map(ToString::to_string));
        });
        tokio::select! {
            biased;
            () = beating => {}
            () = passing => {}
            () = tokio::time::sleep(Duration::from_millis(seconds * 1_000 + 500)) => {}
        }
        heard.into_inner()
    }

    fn fed(heard: &[String]) -> usize {
        heard.iter().filter(|text| *text == "WATCHDOG=1").count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_starves_the_watchdog() {
        let patience = Some(Duration::from_secs(3));
        assert_eq!(fed(&heard(10, 100, patience).await), 11);
        // One too many at the most: the last beat is passed on once.
        assert_eq!(fed(&heard(10, 4, patience).await), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_is_told_when_it_changes_and_no_watchdog_is_fed_that_is_not_there() {
        let heard = heard(20, 100, None).await;
        assert_eq!(heard, ["STATUS=young", "STATUS=old"]);
    }
}

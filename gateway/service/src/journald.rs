//! The log as journald wants it: a line an event, its level as `<N>` before it, no time (journald keeps its own).

use std::{env, fmt};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext,
        format::{Format, FormatEvent, FormatFields, Full, Writer},
    },
    registry::LookupSpan,
};

/// Where the manager says which file its journal's end is: device and inode.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// Whether standard error goes to journald, and not to a person or a file.
#[must_use]
pub fn logs_to_journald() -> bool {
    let (Ok(stream), Ok(stat)) = (env::var(JOURNAL_STREAM), rustix::fs::fstat(std::io::stderr())) else {
        return false;
    };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// Writes events with syslog's number of their level before them, so that `journalctl --priority warning` finds them.
#[derive(Debug)]
pub struct Levelled(Format<Full, ()>);

impl Default for Levelled {
    fn default() -> Self {
        let format = Format::default().without_time().with_level(false).with_target(false);
        Self(format.with_ansi(false))
    }
}

/// The number of a level, as syslog has it.
fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

impl<S, N> FormatEvent<S, N> for Levelled
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "<{}>", number(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panics").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_level_goes_before_the_line_and_the_time_is_journalds() {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt()
            .event_format(Levelled::default())
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(log, || {
            tracing::error!(device = 7, "ALARM");
            tracing::info!("ready");
        });
        let text = String::from_utf8(kept.0.lock().expect("nobody panics").clone()).expect("it is text");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("<3>ALARM"), "{text}");
        assert_eq!(lines[1], "<6>ready");
    }

    #[test]
    fn what_is_not_journald_is_not_taken_for_it() {
        // No test is started by a service manager with its standard error in the journal.
        assert!(!logs_to_journald());
    }
}

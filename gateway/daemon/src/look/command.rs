//! The commands that look into the journal: of the running gateway over its control socket, of a stopped one from its
//! files.

use std::{fmt, path::PathBuf, process::ExitCode};

use clap::{ArgGroup, Args};
use gateway_core::{
    report::{Report, Span},
    why::{Wanted, Why},
    words,
};
use proto::id::DeviceId;
use serde::{Serialize, de::DeserializeOwned};

use super::LookError;
use crate::{
    config::Config,
    control::{self, Query},
    exit,
};

/// Shown after the help of `why`.
pub const WHY_HELP: &str = "\
Examples:
  holdfast why 9f86d0818b2a6c3e0000000100000007   the whole id, as sessions, ledger and log print it
  holdfast why 9f86d0..0007                       its first and last digits
  holdfast why --device c01 --last                the newest session of a device
  holdfast why 9f86d0..0007 --data /var/lib/holdfast   from the files of a stopped gateway

Exit codes: 0 done; 64 not a session id; 66 no such session, or several; 69 the gateway runs, but does not answer; 74 the journal cannot be read.";

/// Shown after the help of `report outage`.
pub const OUTAGE_HELP: &str = "\
Times are those of the site (without a configuration: UTC), unless they say otherwise: 2026-01-15, '2026-01-15 16:00', 2026-01-15T16:00:03+08:00, 2026-01-15T08:00:03Z.

An outage begins when a capability leaves ONLINE and SUSPECT and ends when all are back. Amounts are in the currency's major unit, in --json in minor units. The sums of the ledger records equal those of `holdfast ledger export` for the same sequences.

Exit codes: 0 done; 64 not a time; 66 no outage, or nothing in that time; 69 the gateway runs, but does not answer; 74 the journal cannot be read.";

/// Where to read.
#[derive(Args, Clone, Debug)]
pub struct From {
    /// Read the files of a stopped gateway in this directory, without a configuration; times are UTC
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// For machines
    #[arg(long)]
    json: bool,
}

/// `holdfast why`.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("which").required(true).args(["session", "device"])))]
pub struct WhyCommand {
    /// Session id: its first 6 or more digits, or its first and last ones as in 9f86d0..0007
    session: Option<String>,
    /// A session of this device
    #[arg(long, value_name = "NAME", requires = "last")]
    device: Option<DeviceId>,
    /// The newest one
    #[arg(long, requires = "device")]
    last: bool,
    #[command(flatten)]
    from: From,
}

impl WhyCommand {
    fn wanted(&self) -> Wanted {
        match (&self.device, &self.session) {
            (Some(device), _) => Wanted::LastOf(*device),
            (None, session) => Wanted::Session(session.clone().unwrap_or_default()),
        }
    }

    /// Runs it.
    #[must_use]
    pub fn run(&self, config: Option<&Config>) -> ExitCode {
        let wanted = self.wanted();
        let query = |offset_min| Query::Why {
            wanted: wanted.clone(),
            offset_min,
        };
        let read = |reader: &journal::Reader, offset_min| super::why(reader, &wanted, offset_min);
        self.from.tell::<Why>(config, query, read)
    }

    /// Whether it needs no configuration.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        self.from.data.is_some()
    }
}

/// `holdfast report outage`.
#[derive(Args, Clone, Debug)]
pub struct OutageCommand {
    /// From this time on, whatever the cloud did
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The newest outage, over or not; what is meant without --since and --until
    #[arg(long, conflicts_with_all = ["since", "until"])]
    last: bool,
    #[command(flatten)]
    from: From,
}

impl OutageCommand {
    /// Runs it.
    #[must_use]
    pub fn run(&self, config: Option<&Config>) -> ExitCode {
        let offset_min = config.map_or(0, |config| config.core.offset_min);
        let span = match self.span(offset_min) {
            Ok(span) => span,
            Err(text) => {
                return fail(
                    exit::USAGE,
                    &format_args!("'{text}' is not a time; write 2026-01-15 16:00"),
                );
            }
        };
        let query = |offset_min| Query::Report { span, offset_min };
        let read = |reader: &journal::Reader, offset_min| super::report(reader, span, offset_min);
        self.from.tell::<Report>(config, query, read)
    }

    fn span(&self, offset_min: i16) -> Result<Span, String> {
        let time = |text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => words::parse_time(text, offset_min)
                .map(Some)
                .ok_or_else(|| text.clone()),
        };
        Ok(match (time(&self.since)?, time(&self.until)?) {
            (None, None) => Span::LastOutage,
            (since_s, until_s) => Span::Between { since_s, until_s },
        })
    }

    /// Whether it needs no configuration.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        self.from.data.is_some()
    }
}

impl From {
    /// Asks the running gateway, or reads the journal if none runs; prints what is found.
    fn tell<T: Serialize + DeserializeOwned + fmt::Display>(
        &self,
        config: Option<&Config>,
        query: impl Fn(i16) -> Query,
        read: impl Fn(&journal::Reader, i16) -> Result<T, LookError>,
    ) -> ExitCode {
        let offset_min = config.map_or(0, |config| config.core.offset_min);
        if let Some(config) = config.filter(|_| self.data.is_none()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let asked = runtime.and_then(|runtime| runtime.block_on(control::ask(&config.dir, &query(offset_min))));
            if let Ok(answer) = asked {
                if let Some(error) = answer.get("error").and_then(serde_json::Value::as_str) {
                    let code = answer["exit"].as_u64().and_then(|code| u8::try_from(code).ok());
                    return fail(code.unwrap_or(exit::UNAVAILABLE), &error);
                }
                return match serde_json::from_value::<T>(answer) {
                    Ok(found) => self.print(&found),
                    Err(error) => fail(
                        exit::UNAVAILABLE,
                        &format_args!("the gateway is of another version: {error}"),
                    ),
                };
            }
        }
        let dir = self.data.as_ref().or(config.map(|config| &config.dir));
        let dir = dir.expect("without a directory there is a configuration, which names one");
        let found = super::open(dir).and_then(|journal| read(&journal.reader(), offset_min));
        match found {
            Ok(found) => self.print(&found),
            Err(error) => fail(error.exit_code(), &error),
        }
    }

    fn print<T: Serialize + fmt::Display>(&self, found: &T) -> ExitCode {
        let text = if self.json {
            serde_json::to_string_pretty(found).expect("plain structs are JSON") + "\n"
        } else {
            found.to_string()
        };
        print_quietly(&text);
        ExitCode::SUCCESS
    }
}

/// Whoever reads may have seen enough, as `head` has.
fn print_quietly(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn fail(code: u8, error: &dyn fmt::Display) -> ExitCode {
    eprintln!("holdfast: {error}");
    ExitCode::from(code)
}

//! The command line of `holdfast`. `args` says what may be typed; the other modules do it.

mod args;
mod backup;
mod certificate;
mod device;
mod doctor;
mod edit;
mod generate;
mod init;
mod ledger;
mod outbox;
mod owner;
mod reload;
mod show;
mod status;

use std::{
    fmt::Display,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory as _, Parser as _};
use serde_json::Value;

use self::args::{Cli, Command, KeypadCommand, LedgerCommand, ListCommand, LogFormat, ReportCommand, TrustCommand};
use crate::{
    artifacts,
    config::{self, Config, Loaded},
    control::{self, Query},
    exit,
    files::Attached,
    run,
};

/// Longest wait for an answer of the running gateway that does not have to read the journal.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The whole command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what the process was told, and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Printing can only fail if nobody reads.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(exit::USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let place = Place {
        config: cli.config,
        secrets: cli.secrets,
    };
    dispatch(&place, cli.command)
}

/// Where the configuration is.
struct Place {
    config: PathBuf,
    secrets: Option<PathBuf>,
}

impl Place {
    /// Where the secrets are, for whoever changes them: a file, not what a running gateway was given of an encrypted one.
    fn secrets(&self) -> PathBuf {
        self.secrets
            .clone()
            .unwrap_or_else(|| self.config.with_file_name("secrets.toml"))
    }

    /// Does something with the whole configuration.
    fn with(&self, work: impl FnOnce(&Config) -> ExitCode) -> ExitCode {
        match config::load(&self.config, self.secrets.as_deref()) {
            Ok(config) => work(&config),
            Err(error) => fail(exit::CONFIG, &error),
        }
    }

    /// Does something with the running gateway. Who may ask it need not be one who may read the secrets.
    fn at(&self, work: impl FnOnce(&Path) -> ExitCode) -> ExitCode {
        match config::store_dir(&self.config) {
            Ok(dir) => work(&dir),
            Err(error) => fail(exit::CONFIG, &error),
        }
    }

    fn ask(&self, query: &Query, json: bool) -> ExitCode {
        self.at(|dir| ask(dir, query, json))
    }
}

fn dispatch(place: &Place, command: Command) -> ExitCode {
    match command {
        Command::Init(init) => init.run(),
        Command::Generate(generate) => generate.run(),
        Command::Image(image) => image.run(),
        Command::Run { log, epoch } => match Loaded::read(&place.config, place.secrets.as_deref()) {
            Ok(loaded) => start(loaded, log, epoch),
            Err(error) => fail(exit::CONFIG, &error),
        },
        Command::Reload { check, json } => reload::run(place, check, json),
        Command::CheckConfig => place.with(|config| check(place, config)),
        Command::Doctor { json } => doctor::run(place, json),
        Command::Status { json } => place.at(|dir| status::run(dir, json)),
        Command::Sessions { json } => place.ask(&Query::Sessions, json),
        // The files of a stopped gateway can be read anywhere, without its configuration.
        Command::Why(why) if why.is_alone() => why.run(None),
        Command::Why(why) => place.with(|config| why.run(Some(config))),
        Command::Report(ReportCommand::Outage(outage)) if outage.is_alone() => outage.run(None),
        Command::Report(ReportCommand::Outage(outage)) => place.with(|config| outage.run(Some(config))),
        Command::Ledger(LedgerCommand::Export { json, format }) => place.at(|dir| ledger::export(dir, json, format)),
        Command::Ledger(LedgerCommand::Verify { json }) => place.at(|dir| ledger::verify(dir, json)),
        Command::Ledger(LedgerCommand::Rebuild { epoch }) => place.at(|dir| ledger::rebuild(dir, epoch)),
        Command::Outbox(outbox) => place.at(|dir| outbox.run(dir)),
        Command::Backup(backup) => place.with(|config| backup.run(place, config)),
        Command::Restore(restore) => restore.run(),
        Command::Keypad(KeypadCommand::Key { device }) => place.with(|config| device::keypad_key(config, &device)),
        Command::Device(device) => device::run(place, device),
        Command::List(command) => match command {
            ListCommand::Show { json } => place.ask(&Query::Lists, json),
            ListCommand::Diff { what, json } => place.ask(&Query::Diff { what }, json),
            ListCommand::Adopt { what, revision } => place.ask(&Query::Adopt { what, revision }, false),
            ListCommand::Hold { what } => place.ask(&Query::Hold { what, held: true }, false),
            ListCommand::Release { what } => place.ask(&Query::Hold { what, held: false }, false),
            ListCommand::Rollback { what } => place.ask(&Query::RollBack { what }, false),
        },
        Command::Trust(TrustCommand::Import { file, json }) => match attach(&file, artifacts::FILE_BYTES_MAX) {
            Ok(file) => place.at(|dir| import(dir, &file, json)),
            Err(code) => code,
        },
    }
}

fn start(loaded: Loaded, log: LogFormat, epoch: Option<u32>) -> ExitCode {
    start_log(log);
    match run::run(loaded, epoch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "stopped");
            fail(error.exit_code(), &error)
        }
    }
}

fn check(place: &Place, config: &Config) -> ExitCode {
    println!(
        "{}: good: site {}, gateway {}, {} devices",
        place.config.display(),
        config.site,
        config.gateway,
        config.core.devices.len()
    );
    ExitCode::SUCCESS
}

fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOLDFAST_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text if service::logs_to_journald() => builder.event_format(service::Levelled::default()).init(),
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn fail(code: u8, error: &dyn Display) -> ExitCode {
    eprintln!("holdfast: {error}");
    ExitCode::from(code)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .expect("a runtime needs no more than a file descriptor")
        .block_on(future)
}

fn ask(dir: &Path, query: &Query, json: bool) -> ExitCode {
    match asked(dir, query) {
        Ok(answer) => show::answer(&answer, json),
        Err(error) => fail(exit::UNAVAILABLE, &no_daemon(dir, &error)),
    }
}

/// Asks the running gateway, and does not wait for ever: one that hangs has to be seen as one.
fn asked(dir: &Path, query: &Query) -> io::Result<Value> {
    block_on(async {
        let answer = control::ask(dir, query);
        match query.is_search() {
            true => answer.await,
            false => tokio::time::timeout(ANSWER_WITHIN, answer)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        }
    })
}

/// Reads a file here, for the gateway may see neither this folder nor what only this user may read.
fn attach(file: &Path, bytes_max: u64) -> Result<Attached, ExitCode> {
    Attached::read(file, bytes_max).map_err(|error| fail(exit::USAGE, &format!("{}: {error}", file.display())))
}

/// Prints what became of each artifact; one that is not believed makes the whole command fail.
fn import(dir: &Path, file: &Attached, json: bool) -> ExitCode {
    let answer = match block_on(control::import(dir, file)) {
        Ok(answer) => answer,
        Err(error) => return fail(exit::UNAVAILABLE, &no_daemon(dir, &error)),
    };
    let is_rejected = |row: &Value| {
        row["result"]
            .as_str()
            .is_some_and(|result| result.starts_with("rejected"))
    };
    let rejected = answer.as_array().is_some_and(|rows| rows.iter().any(is_rejected));
    match show::answer(&answer, json) {
        ExitCode::SUCCESS if rejected => ExitCode::from(exit::DATA),
        code => code,
    }
}

/// Why nobody answers, and what to do.
fn no_daemon(dir: &Path, error: &io::Error) -> String {
    let path = control::socket_path(dir);
    let path = path.display();
    if error.kind() == io::ErrorKind::TimedOut {
        return format!(
            "{path}: the gateway runs and has not answered for {} s; why: journalctl -u holdfast; start it again: systemctl restart holdfast",
            ANSWER_WITHIN.as_secs()
        );
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return format!(
            "{path}: {error}; ask as root, or set [control] group in the configuration and be a member of that group"
        );
    }
    format!("no gateway answers at {path}: {error}; is it running? Try: systemctl status holdfast")
}

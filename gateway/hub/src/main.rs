//! `holdfast-hub`: the command line of the hub.
//!
//! Exit codes, after sysexits.h: 0 done; 64 wrong command line; 65 a seed file that cannot be used; 69 no hub answers;
//! 70 a bug; 71 the system refused (port, socket, signal); 73 a file exists already; 74 the store failed; 75 the store
//! is in use by another process; 78 a configuration that cannot be used.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser as _;
use hub::{
    artifacts::Press,
    config::{self, Config, ConfigError, LogFormat},
    control::{self, CallError, ImportRow, OrderRequest, OrderRow, RecordsRequest, ReleaseRow, Request, SettledRow},
    core::{Effect, Hub, Input, Now},
    export::{self, ArtifactsRow, BalanceRow, DisputeRow, HoldRow, LedgerLine, QuarantineRow, Status},
    init::{self, InitError},
    issue::{self, IssueError, VoucherOrder},
    judgements::{self, CaseRow, LossRow, SessionRow},
    keys::{self, RotateError},
    orders::{self, OrderGiven, OrderLine},
    reports::GatewayReport,
    run::{self, RunError},
    seed::{self, SeedError},
    store::{Store, StoreError},
};
use proto::{id::Name, instrument::Scope};
use serde::{Serialize, de::DeserializeOwned};
use tracing_subscriber::EnvFilter;

mod cli;

use cli::{Cli, Command, Entry, Issue, Keys, Ledger, Where};

const EX_USAGE: u8 = 64;
const EX_DATAERR: u8 = 65;
const EX_UNAVAILABLE: u8 = 69;
const EX_SOFTWARE: u8 = 70;
const EX_OSERR: u8 = 71;
const EX_CANTCREAT: u8 = 73;
const EX_IOERR: u8 = 74;
const EX_TEMPFAIL: u8 = 75;
const EX_CONFIG: u8 = 78;

/// Where a hub's data and its socket are.
struct Place {
    data_dir: Option<PathBuf>,
    socket: PathBuf,
    json: bool,
}

/// Everything that ends the program early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("log.filter: {0}")]
    LogFilter(#[from] tracing_subscriber::filter::ParseError),
    #[error(transparent)]
    Seed(#[from] SeedError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Init(#[from] InitError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Rotate(#[from] RotateError),
    #[error("{0}")]
    ImportRefused(String),
    #[error("{0}")]
    Output(#[from] io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::LogFilter(_) => EX_CONFIG,
            Self::Seed(_) | Self::ImportRefused(_) | Self::Run(RunError::Seed(_)) => EX_DATAERR,
            Self::Run(RunError::Store(error)) | Self::Store(error) => store_exit_code(error),
            Self::Run(RunError::DataDir { .. }) | Self::Output(_) => EX_IOERR,
            Self::Run(RunError::Listen { .. } | RunError::Control { .. } | RunError::System(_)) => EX_OSERR,
            Self::Run(RunError::Engine) => EX_SOFTWARE,
            Self::Call(CallError::Refused(_)) => EX_DATAERR,
            Self::Call(_) => EX_UNAVAILABLE,
            Self::Issue(IssueError::File { .. }) => EX_IOERR,
            Self::Issue(_) => EX_DATAERR,
            Self::Init(_) => EX_CANTCREAT,
            Self::Rotate(_) => EX_IOERR,
        }
    }
}

fn store_exit_code(error: &StoreError) -> u8 {
    match error {
        StoreError::Open(journal::OpenError::Locked { .. }) => EX_TEMPFAIL,
        StoreError::Open(_) | StoreError::Read(_) | StoreError::Record { .. } | StoreError::Append(_) => EX_IOERR,
    }
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let code = if error.use_stderr() { EX_USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("holdfast-hub: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run { config } => serve(config::load(&config)?),
        Command::CheckConfig { config } => check_config(&config::load(&config)?),
        Command::Init { dir, gateway, site } => initialise(&dir, &gateway, &site),
        Command::Import { file, config } => import(&file, &config::load(&config)?),
        Command::ExportArtifacts { file, config } => export_artifacts(&file, &config::load(&config)?),
        Command::Keys(Keys::Rotate { config }) => {
            let key = keys::rotate(&config::load(&config)?.secrets_file)?;
            print(&format!("signing key from the next start on: {key}"));
            Ok(())
        }
        Command::Reload(place) => ask::<ImportRow>(&place.resolve()?, &Request::new("reload"), |_| None),
        Command::Status(place) => ask::<Status>(&place.resolve()?, &Request::new("status"), |_| None),
        Command::Gateways(place) => gateways(&place.resolve()?),
        Command::Ledger(Ledger::Export { place, gateway }) => ledger(&place.resolve()?, gateway.as_ref()),
        Command::Balances(place) => ask::<BalanceRow>(&place.resolve()?, &Request::new("balances"), |hub| {
            Some(export::balances(hub))
        }),
        Command::Holds(place) => ask::<HoldRow>(&place.resolve()?, &Request::new("holds"), |hub| {
            Some(export::holds(hub))
        }),
        Command::Quarantine(place) => ask::<QuarantineRow>(&place.resolve()?, &Request::new("quarantine"), |hub| {
            Some(export::quarantine(hub))
        }),
        Command::Settle {
            place,
            gateway,
            epoch,
            first,
            last,
            reason,
        } => {
            let records = RecordsRequest {
                epoch,
                first,
                last: last.unwrap_or(first),
                reason,
            };
            settle(&place.resolve()?, &gateway, records)
        }
        Command::Disputes(place) => ask::<DisputeRow>(&place.resolve()?, &Request::new("disputes"), |hub| {
            Some(export::disputes(hub))
        }),
        Command::Issue(order) => issue_one(order),
        Command::Sessions(place) => ask::<SessionRow>(&place.resolve()?, &Request::new("sessions"), |hub| {
            Some(judgements::sessions(hub))
        }),
        Command::Losses(place) => ask::<LossRow>(&place.resolve()?, &Request::new("losses"), |hub| {
            Some(judgements::losses(hub))
        }),
        Command::Cases(place) => ask::<CaseRow>(&place.resolve()?, &Request::new("cases"), |hub| {
            Some(judgements::cases(hub))
        }),
        Command::Adjust {
            place,
            debit,
            credit,
            entry,
            session,
        } => adjust(place, Some((debit, credit)), entry, session),
        Command::Credit {
            place,
            account,
            from,
            entry,
            session,
        } => adjust(place, Some((from, format!("customer:{account}"))), entry, session),
        Command::Close { place, session, entry } => adjust(place, None, entry, Some(session)),
        Command::Order(order) => give(order),
        Command::Orders(place) => ask::<OrderLine>(&place.resolve()?, &Request::new("orders"), |hub| {
            Some(orders::lines(hub))
        }),
        Command::Release { place, gateway, gone } => release(&place.resolve()?, &gateway, gone),
    }
}

fn adjust(place: Where, pair: Option<(String, String)>, entry: Entry, session: Option<String>) -> Result<(), Failure> {
    let (debit, credit) = pair.unzip();
    let request = Request {
        order: Some(OrderRequest {
            debit,
            credit,
            amount: entry.amount,
            session,
            reason: entry.reason,
        }),
        ..Request::new("adjust")
    };
    ask::<OrderRow>(&place.resolve()?, &request, |_| None)
}

fn settle(place: &Place, gateway: &Name, records: RecordsRequest) -> Result<(), Failure> {
    let request = Request {
        gateway: Some(gateway.to_string()),
        records: Some(records),
        ..Request::new("settle")
    };
    ask::<SettledRow>(place, &request, |_| None)
}

fn give(order: cli::Order) -> Result<(), Failure> {
    let (to, wish) = order.wish();
    let request = Request {
        gateway: Some(to.gateway.to_string()),
        wish: Some(wish),
        ..Request::new("order")
    };
    ask::<OrderGiven>(&to.place.resolve()?, &request, |_| None)
}

fn release(place: &Place, gateway: &Name, gone: bool) -> Result<(), Failure> {
    let request = Request {
        gateway: Some(gateway.to_string()),
        gone,
        ..Request::new("release")
    };
    let print_release = |row: ReleaseRow| match place.json {
        true => print_row(&row, true),
        false => print(&row.words(gone)),
    };
    Ok(control::call(&place.socket, &request, print_release)?)
}

fn issue_one(order: Issue) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match order {
        Issue::Voucher {
            config,
            site,
            device,
            kind,
            amount,
            until,
            from,
            currency,
        } => {
            let scope = if device.is_some() { Scope::Device } else { Scope::Site };
            let order = VoucherOrder {
                place: device.or(site).expect("clap asks for one of the two"),
                scope,
                kind,
                amount,
                currency,
                from_s: from,
                until_s: until,
            };
            let (number, envelope) = issue::voucher(&config::load(&config)?.issuer(), &order)?;
            writeln!(out, "voucher {number}\n{envelope}")?;
        }
        Issue::Keypad {
            key_file,
            counter_file,
            amount,
        } => {
            let (counter, digits) = issue::keypad(&key_file, &counter_file, amount)?;
            writeln!(out, "keypad token {counter}\n{digits}")?;
        }
        Issue::Code { account, limit } => {
            let (lines, address) = issue::code(account, limit)?;
            writeln!(out, "{lines}\n{address}")?;
        }
    }
    Ok(())
}

impl Where {
    fn resolve(self) -> Result<Place, Failure> {
        let (data_dir, configured) = match self.config {
            Some(path) => {
                let config = config::load(&path)?;
                (Some(config.data_dir), Some(config.control_socket))
            }
            None => (self.data, None),
        };
        let socket = self
            .socket
            .or(configured)
            .or_else(|| data_dir.as_deref().map(control::socket_in))
            .expect("clap asks for one of the three");
        Ok(Place {
            data_dir,
            socket,
            json: self.json,
        })
    }
}

fn serve(config: Config) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.log_filter)?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match config.log_format {
        LogFormat::Human if service::logs_to_journald() => logs.event_format(service::Levelled::default()).init(),
        LogFormat::Human => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::System)?;
    Ok(runtime.block_on(run::run(config))?)
}

fn check_config(config: &Config) -> Result<(), Failure> {
    EnvFilter::try_new(&config.log_filter)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "configuration: {} gateways, listening on {}",
        config.gateways.len(),
        config.listen
    )?;
    if let Some(path) = &config.seed_file {
        let seed = seed::load(path, &config.token_key)?;
        writeln!(
            out,
            "seed file: {} accounts, {} tokens, {} revocations, {} tariffs",
            seed.accounts.len(),
            seed.tokens.as_ref().map_or(0, std::collections::BTreeMap::len),
            seed.revocations.len(),
            seed.tariffs.len()
        )?;
    }
    Ok(())
}

fn initialise(dir: &Path, gateway: &Name, site: &Name) -> Result<(), Failure> {
    let handover = init::init(dir, gateway, site)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "wrote hub.toml, hub-secrets.toml and hub-seed.toml to {}",
        dir.display()
    )?;
    writeln!(out, "issuer key for gateways to pin: {}", handover.issuer_key)?;
    writeln!(
        out,
        "gateway {gateway} needs its secret and the token key from {}",
        handover.secrets_file.display()
    )?;
    Ok(())
}

fn import(file: &Path, config: &Config) -> Result<(), Failure> {
    let absolute = std::path::absolute(file)?;
    let request = Request {
        file: Some(absolute),
        ..Request::new("import")
    };
    match control::call(&config.control_socket, &request, |row: ImportRow| {
        print_row(&row, false)
    }) {
        Err(CallError::Absent { .. }) => import_stopped(file, config),
        done => Ok(done?),
    }
}

/// Nobody runs: the store is opened here.
fn import_stopped(file: &Path, config: &Config) -> Result<(), Failure> {
    let catalogue = seed::load(file, &config.token_key)?;
    std::fs::create_dir_all(&config.data_dir)?;
    let (mut store, mut hub) = Store::open(&config.data_dir, true)?;
    let decision = hub.step(wall(), &config.settings, &Input::Import(catalogue));
    store.append(&decision.events)?;
    store.close()?;
    for effect in &decision.effects {
        if let Effect::ImportRefused(refusal) = effect {
            return Err(Failure::ImportRefused(format!("{}: {refusal}", file.display())));
        }
        if let Effect::Imported(summary) = effect {
            print_row(&ImportRow::from(*summary), false);
        }
    }
    Ok(())
}

fn export_artifacts(file: &Path, config: &Config) -> Result<(), Failure> {
    let request = Request {
        file: Some(std::path::absolute(file)?),
        ..Request::new("artifacts")
    };
    let print = |row: ArtifactsRow| print_row(&row, false);
    match control::call(&config.control_socket, &request, print) {
        Err(CallError::Absent { .. }) => {
            let (_, mut hub) = Store::open(&config.data_dir, false)?;
            let mut press = Press::new(config.issuer(), config.root());
            // As the next start will publish them.
            let (signing, root) = (press.key(), press.root_key());
            hub.step(wall(), &config.settings, &Input::Keys { signing, root });
            let parts = press.everything(&hub);
            let parts = parts.map_err(|error| Failure::ImportRefused(error.to_string()))?;
            print(export::write_artifacts(file, &parts)?);
            Ok(())
        }
        done => Ok(done?),
    }
}

fn wall() -> Now {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Now {
        wall_s: since.map_or(0, |since| since.as_secs()),
    }
}

/// Asks the running hub, or reads the store if none runs and `from_store` can tell.
fn ask<T: Serialize + DeserializeOwned>(
    place: &Place,
    request: &Request,
    from_store: impl FnOnce(&Hub) -> Option<Vec<T>>,
) -> Result<(), Failure> {
    let answered = control::call(&place.socket, request, |row: T| print_row(&row, place.json));
    match (answered, &place.data_dir) {
        (Err(absent @ CallError::Absent { .. }), Some(data_dir)) => {
            let (_, hub) = Store::open(data_dir, false)?;
            let rows = from_store(&hub).ok_or(absent)?;
            rows.iter().for_each(|row| print_row(row, place.json));
            Ok(())
        }
        (answered, _) => Ok(answered?),
    }
}

fn ledger(place: &Place, gateway: Option<&Name>) -> Result<(), Failure> {
    let request = Request {
        gateway: gateway.map(ToString::to_string),
        ..Request::new("ledger")
    };
    let answered = control::call(&place.socket, &request, |line: LedgerLine| {
        print_line(&line, place.json)
    });
    match (answered, &place.data_dir) {
        (Err(CallError::Absent { .. }), Some(data_dir)) => {
            let (store, _) = Store::open(data_dir, false)?;
            export::for_each_line(&store.reader(), gateway, |line| print_line(&line, place.json))?;
            Ok(())
        }
        (answered, _) => Ok(answered?),
    }
}

/// Only a running hub has heard anybody.
fn gateways(place: &Place) -> Result<(), Failure> {
    let print_report = |report: &GatewayReport| {
        if place.json {
            print_row(report, true);
        } else {
            print(&report.to_string());
        }
    };
    let request = Request::new("gateways");
    let answered = control::call(&place.socket, &request, |report: GatewayReport| print_report(&report));
    Ok(answered?)
}

fn print_line(line: &LedgerLine, json: bool) {
    if json {
        return print_row(line, true);
    }
    let why = match (&line.adjustment, &line.reason) {
        (Some(class), Some(reason)) => format!("  {class}: {reason}"),
        _ => String::new(),
    };
    print(&format!(
        "{} {} {:>8} {} {:<7} {:>20} -> {:<20} {:>10}.{:02}{why}",
        line.gateway,
        line.epoch,
        line.sequence,
        line.session,
        line.phase,
        line.debit,
        line.credit,
        line.amount / 100,
        line.amount % 100
    ));
}

/// For people: the same fields, one a line, with a blank line between rows.
fn print_row<T: Serialize>(row: &T, json: bool) {
    let text = if json {
        serde_json::to_string(row)
    } else {
        toml::to_string(row).map_err(<serde_json::Error as serde::ser::Error>::custom)
    };
    match text {
        Ok(text) => print(&text),
        Err(error) => eprintln!("holdfast-hub: {error}"),
    }
}

/// A closed pipe is the reader's wish to stop, not a failure.
fn print(text: &str) {
    if writeln!(io::stdout().lock(), "{text}").is_err() {
        std::process::exit(0);
    }
}

//! `holdfast`: the gateway.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::Value;

use gateway::{
    cloud::fence::remedy,
    config::{self, Config},
    control::{self, Gated, Query},
    exit,
    firmware::command::ImageCommand,
    look::command,
    provision::{self, Trusted},
    run, store,
};

#[derive(Parser)]
#[command(
    name = "holdfast",
    version,
    about = "Edge gateway for chargers, washers and water dispensers that goes on authorizing when its cloud is dark or lies",
    after_help = "Exit codes: 0 done; 64 wrong usage; 65 an artifact is not believed; 66 no such session or outage; 69 a port or socket is not to be had; 74 the journal failed; 78 the configuration is wrong."
)]
struct Cli {
    /// Configuration file
    #[arg(
        long,
        global = true,
        default_value = "/etc/holdfast/holdfast.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
    /// Secrets file; by default secrets.toml beside the configuration
    #[arg(long, global = true, value_name = "FILE")]
    secrets: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Run {
        /// How to write the log
        #[arg(long, value_enum, default_value_t = LogFormat::Text)]
        log: LogFormat,
        /// After a restore from a backup: begin epoch N of the books, the number that the hub names. A number that is
        /// not above the journal's own changes nothing
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(run::EPOCH_MAX)))]
        epoch: Option<u32>,
    },
    /// Read the configuration, say what is wrong with it, and do nothing else
    CheckConfig,
    /// Show how the running gateway is
    Status {
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Show open and recent sessions of the running gateway
    Sessions {
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Explain a session: which rule decided, on what evidence, and what became of the money
    #[command(after_help = command::WHY_HELP)]
    Why(command::WhyCommand),
    /// Report what happened
    #[command(subcommand)]
    Report(ReportCommand),
    /// Lists of id tokens and prices: what is set aside, and what to do about it
    #[command(subcommand)]
    List(ListCommand),
    /// Signed artifacts from elsewhere
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Look into the ledger
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Keypad credit tokens
    #[command(subcommand)]
    Keypad(KeypadCommand),
    /// Devices of the site
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Firmware images; needs no gateway
    #[command(subcommand)]
    Image(ImageCommand),
}

#[derive(Subcommand)]
enum DeviceCommand {
    /// Show every device, the version of its firmware and how its update stands
    List {
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Have a device fetch, try and keep a signed image; `device list` shows how it goes
    Update {
        /// Which device
        device: proto::id::DeviceId,
        /// As `holdfast image sign` writes it
        file: PathBuf,
    },
    /// Write the identity of a device of the configuration, for the flasher: one page, which no image contains
    Provision {
        /// Which device
        device: proto::id::DeviceId,
        /// Where to; a file that is there already is not written over
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// With the site's key of id tokens: other tokens of a group stop a session without the gateway. A thief who
        /// opens the device can try card numbers with it
        #[arg(long)]
        groups: bool,
        /// With the secrets of one-time codes: they are taken without the gateway. A thief who opens the device can make
        /// codes with them
        #[arg(long)]
        codes: bool,
        /// Where the device finds this gateway, for a board with a network of its own; without it: at the default router
        /// of its network. A board behind a serial-to-TCP module does not look at it
        #[arg(long, value_name = "HOST:PORT")]
        gateway: Option<proto::address::Address>,
    },
}

#[derive(Subcommand)]
enum KeypadCommand {
    /// Print the key that the hub needs to sell keypad tokens for a device; it opens nothing else of that device
    Key {
        /// Which device
        device: proto::id::DeviceId,
    },
}

#[derive(Subcommand)]
enum ReportCommand {
    /// An outage: who was served, money at risk and lost, and what any other gateway would have done
    #[command(after_help = command::OUTAGE_HELP)]
    Outage(command::OutageCommand),
}

#[derive(Subcommand)]
enum LedgerCommand {
    /// Print every line of the book, of a running or a stopped gateway
    Export {
        /// For machines
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum ListCommand {
    /// Show the active list, the one before it and the one that is set aside
    Show {
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Show what would change if that which is set aside were adopted
    Diff {
        /// What is meant
        #[arg(value_enum, default_value_t = Gated::List)]
        what: Gated,
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Adopt what is set aside
    Adopt {
        /// What is meant
        #[arg(value_enum, default_value_t = Gated::List)]
        what: Gated,
        /// Only if it is this revision
        #[arg(long, default_value_t = 0)]
        revision: u64,
    },
    /// Go back to the list, or the policy, before the active one
    Rollback {
        /// What is meant; of prices none is kept
        #[arg(value_enum, default_value_t = Gated::List)]
        what: Gated,
    },
}

#[derive(Subcommand)]
enum TrustCommand {
    /// Take in a file of signed artifacts; nothing in it is believed that is not signed
    Import {
        /// As `holdfast-hub export-artifacts` writes it
        file: PathBuf,
        /// For machines
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people and journald
    Text,
    /// One JSON object a line
    Json,
}

fn main() -> ExitCode {
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
    // The files of a stopped gateway can be read anywhere, without its configuration.
    match &cli.command {
        Command::Image(image) => return image.run(),
        Command::Why(why) if why.is_alone() => return why.run(None),
        Command::Report(ReportCommand::Outage(outage)) if outage.is_alone() => return outage.run(None),
        Command::Why(_)
        | Command::Report(_)
        | Command::Run { .. }
        | Command::CheckConfig
        | Command::Status { .. }
        | Command::Sessions { .. }
        | Command::Ledger(_)
        | Command::Keypad(_)
        | Command::Device(_)
        | Command::List(_)
        | Command::Trust(_) => {}
    }
    let config = match config::load(&cli.config, cli.secrets.as_deref()) {
        Ok(config) => config,
        Err(error) => return fail(exit::CONFIG, &error),
    };
    match cli.command {
        Command::Run { log, epoch } => {
            start_log(log);
            match run::run(&config, epoch) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!(%error, "stopped");
                    fail(error.exit_code(), &error)
                }
            }
        }
        Command::CheckConfig => {
            println!(
                "{}: good: site {}, gateway {}, {} devices",
                cli.config.display(),
                config.site,
                config.gateway,
                config.core.devices.len()
            );
            ExitCode::SUCCESS
        }
        Command::Status { json } => status(&config, json),
        Command::Sessions { json } => ask(&config, &Query::Sessions, json),
        Command::Why(why) => why.run(Some(&config)),
        Command::Report(ReportCommand::Outage(outage)) => outage.run(Some(&config)),
        Command::Ledger(LedgerCommand::Export { json }) => export(&config, json),
        Command::Keypad(KeypadCommand::Key { device }) => keypad_key(&config, &device),
        Command::Image(image) => image.run(),
        Command::Device(DeviceCommand::List { json }) => ask(&config, &Query::Devices, json),
        Command::Device(DeviceCommand::Update { device, file }) => match std::path::absolute(&file) {
            Ok(file) => ask(&config, &Query::Update { device, file }, false),
            Err(error) => fail(exit::USAGE, &format!("{}: {error}", file.display())),
        },
        Command::Device(DeviceCommand::Provision {
            device,
            out,
            groups,
            codes,
            gateway,
        }) => provision_device(&config, &device, &out, Trusted { groups, codes }, gateway),
        Command::List(command) => match command {
            ListCommand::Show { json } => ask(&config, &Query::Lists, json),
            ListCommand::Diff { what, json } => ask(&config, &Query::Diff { what }, json),
            ListCommand::Adopt { what, revision } => ask(&config, &Query::Adopt { what, revision }, false),
            ListCommand::Rollback { what } => ask(&config, &Query::RollBack { what }, false),
        },
        Command::Trust(TrustCommand::Import { file, json }) => match std::path::absolute(&file) {
            Ok(file) => import(&config, file, json),
            Err(error) => fail(exit::USAGE, &format!("{}: {error}", file.display())),
        },
    }
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("holdfast: {error}");
    ExitCode::from(code)
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

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .expect("a runtime needs no more than a file descriptor")
        .block_on(future)
}

fn ask(config: &Config, query: &Query, json: bool) -> ExitCode {
    match block_on(control::ask(&config.dir, query)) {
        Ok(answer) => print_answer(&answer, json),
        Err(error) => fail(exit::UNAVAILABLE, &no_daemon(&config.dir, &error)),
    }
}

/// The state, and for people what to do about it.
fn status(config: &Config, json: bool) -> ExitCode {
    let answer = match block_on(control::ask(&config.dir, &Query::Status)) {
        Ok(answer) => answer,
        Err(error) => return fail(exit::UNAVAILABLE, &no_daemon(&config.dir, &error)),
    };
    let mut shown = answer.clone();
    if !json && let Value::Object(fields) = &mut shown {
        fields.remove("clouds");
        fields.remove("reservations");
    }
    let code = print_answer(&shown, json);
    if !json {
        answer["clouds"].as_array().into_iter().flatten().for_each(print_cloud);
        let reservations = answer["reservations"].as_array();
        reservations.into_iter().flatten().for_each(print_reservation);
    }
    let expected = answer["epoch_expected"]
        .as_u64()
        .and_then(|epoch| epoch.try_into().ok());
    if let Some(expected) = expected.filter(|expected| *expected > 0 && !json) {
        println!("\n{}", remedy(expected));
    }
    code
}

/// One cloud, in a line for people.
fn print_cloud(cloud: &Value) {
    let text = |field: &str| plain(&cloud[field]);
    let mut line = format!(
        "{:<22} {}, {} for {} s",
        format!("cloud {}", text("name")),
        text("kind"),
        text("stage"),
        text("since_s"),
    );
    if cloud["goes_first"] == true {
        line += ", goes first";
    }
    if cloud["doubted"] == true {
        line += ", doubted";
    }
    if !cloud["trouble"].is_null() {
        line += &format!("; {} s ago: {}", text("trouble_s"), text("trouble"));
    }
    println!("{line}");
}

/// One outlet that is kept free, in a line for people.
fn print_reservation(row: &Value) {
    let text = |field: &str| plain(&row[field]);
    println!(
        "{:<22} {} outlet {} for token {}, {} s more, by order {}",
        "reserved",
        text("device"),
        text("outlet"),
        text("token"),
        text("left_s"),
        text("order"),
    );
}

/// Prints what became of each artifact; one that is not believed makes the whole command fail.
fn import(config: &Config, file: PathBuf, json: bool) -> ExitCode {
    let answer = match block_on(control::ask(&config.dir, &Query::Import { file })) {
        Ok(answer) => answer,
        Err(error) => return fail(exit::UNAVAILABLE, &no_daemon(&config.dir, &error)),
    };
    let is_rejected = |row: &Value| {
        row["result"]
            .as_str()
            .is_some_and(|result| result.starts_with("rejected"))
    };
    let rejected = answer.as_array().is_some_and(|rows| rows.iter().any(is_rejected));
    match print_answer(&answer, json) {
        ExitCode::SUCCESS if rejected => ExitCode::from(exit::DATA),
        code => code,
    }
}

fn no_daemon(dir: &Path, error: &std::io::Error) -> String {
    let path = control::socket_path(dir);
    format!(
        "no gateway answers at {}: {error}; is it running? Try: systemctl status holdfast",
        path.display()
    )
}

fn print_answer(answer: &Value, json: bool) -> ExitCode {
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        let code = answer["exit"].as_u64().and_then(|code| code.try_into().ok());
        return fail(code.unwrap_or(exit::UNAVAILABLE), &error);
    }
    if json {
        println!("{answer}");
        return ExitCode::SUCCESS;
    }
    match answer {
        Value::Object(fields) => {
            for (name, value) in fields {
                println!("{name:<22} {}", plain(value));
            }
        }
        Value::Array(rows) => print_table(rows),
        other => println!("{}", plain(other)),
    }
    ExitCode::SUCCESS
}

fn print_table(rows: &[Value]) {
    let Some(Value::Object(first)) = rows.first() else {
        return;
    };
    println!("{}", first.keys().cloned().collect::<Vec<_>>().join("\t"));
    for row in rows {
        let cells: Vec<String> = first.keys().map(|name| plain(&row[name])).collect();
        println!("{}", cells.join("\t"));
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn keypad_key(config: &Config, device: &proto::id::DeviceId) -> ExitCode {
    match config.core.instruments.keypads.get(device) {
        Some(key) => {
            println!("{}", proto::id::Hash(key.0));
            ExitCode::SUCCESS
        }
        None => fail(exit::USAGE, &format_args!("{device} is not a device of this site")),
    }
}

fn provision_device(
    config: &Config,
    device: &proto::id::DeviceId,
    out: &Path,
    trusted: Trusted,
    gateway: Option<proto::address::Address>,
) -> ExitCode {
    let identity = match provision::identity(config, device, trusted) {
        Ok(identity) => proto::identity::Identity { gateway, ..identity },
        Err(error) => return fail(exit::CONFIG, &error),
    };
    if let Err(error) = provision::write(&identity, out) {
        return fail(exit::UNAVAILABLE, &error);
    }
    println!(
        "{}: {} {}, {} bytes for the identity's page. By board:",
        out.display(),
        identity.kind.word(),
        identity.id,
        provision::PAGE_BYTES,
    );
    for (board, chip, address) in provision::BOARDS {
        println!(
            "{board}:\n  probe-rs download --chip {chip} --binary-format bin --base-address {address:#010x} {}",
            out.display()
        );
    }
    println!("It contains the device's secret: delete it afterwards.");
    ExitCode::SUCCESS
}

fn export(config: &Config, json: bool) -> ExitCode {
    if let Ok(answer) = block_on(control::ask(&config.dir, &Query::Ledger)) {
        return print_answer(&answer, json);
    }
    match store::Store::open_reader(&config.dir) {
        Ok(journal) => match control::ledger(&journal.reader()) {
            Ok(lines) => match serde_json::to_value(lines) {
                Ok(lines) => print_answer(&lines, json),
                Err(error) => fail(exit::STORAGE, &error),
            },
            Err(error) => fail(exit::STORAGE, &error),
        },
        Err(error) => fail(exit::STORAGE, &error),
    }
}

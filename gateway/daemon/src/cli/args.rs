//! What may be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use super::{
    backup::{BackupCommand, RestoreCommand},
    certificate::{AuthorityCommand, CertificateCommand},
    device::AddCommand,
    generate::GenerateCommand,
    init::InitCommand,
    ledger::ExportFormat,
    outbox::OutboxCommand,
};
use crate::{control::Gated, firmware::command::ImageCommand, look::command, run};

#[derive(Parser)]
#[command(
    name = "holdfast",
    version,
    about = "Edge gateway for chargers, washers and water dispensers that goes on authorizing when its cloud is dark or lies",
    after_help = "Exit codes: 0 done; 64 wrong usage; 65 a file is not believed; 66 no such session, device or outage; 69 a port or socket is not to be had, or no gateway answers; 70 an invariant is broken; 73 a file is there already; 74 the journal failed; 78 the configuration is wrong."
)]
pub(super) struct Cli {
    /// Configuration file
    #[arg(
        long,
        global = true,
        default_value = "/etc/holdfast/holdfast.toml",
        value_name = "FILE"
    )]
    pub(super) config: PathBuf,
    /// Secrets file; by default secrets.toml beside the configuration
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) secrets: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a new site: configuration, keys and directories; overwrites nothing
    Init(InitCommand),
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
    /// Have the running gateway read its configuration again; devices stay connected. A file that is wrong, or that needs a
    /// restart, changes nothing
    #[command(after_help = "Exit codes: 0 it is taken over; 69 no gateway answers; 78 it is not, and nothing changed.")]
    Reload {
        /// Say what would change, and change nothing
        #[arg(long)]
        check: bool,
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Look for what is wrong on this machine, and say what to do: configuration, files, disk, clock, ports, clouds
    #[command(
        after_help = "Exit codes: 0 nothing is wrong, or warnings only; 69 something is wrong; 78 the configuration is wrong."
    )]
    Doctor {
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Show how the running gateway is, on one screen
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
    /// Lists of id tokens, prices and limits: what is set aside or tried by a ring, and what to do about it
    #[command(subcommand)]
    List(ListCommand),
    /// Signed artifacts from elsewhere
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Look into the ledger
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Records that the hub has not taken yet
    #[command(subcommand)]
    Outbox(OutboxCommand),
    /// Copy configuration, secrets and journal of a running or stopped gateway into one file
    Backup(BackupCommand),
    /// Make a site out of a backup; overwrites nothing
    Restore(RestoreCommand),
    /// Keypad credit tokens
    #[command(subcommand)]
    Keypad(KeypadCommand),
    /// Devices of the site
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Firmware images; needs no gateway
    #[command(subcommand)]
    Image(ImageCommand),
    /// Man page and shell completions, for packages
    #[command(subcommand, hide = true)]
    Generate(GenerateCommand),
}

#[derive(Subcommand)]
pub(super) enum DeviceCommand {
    /// Add a device to the configuration, with a new secret of its own; comments in the files stay
    Add(AddCommand),
    /// Give a device a new secret; the old one ends with the next `holdfast reload`
    Rotate {
        /// Which device
        device: proto::id::DeviceId,
    },
    /// Let a device neither log in nor be granted anything; at once if the gateway runs, and over restarts
    Block {
        /// Which device
        device: proto::id::DeviceId,
    },
    /// Let a blocked device in again
    Unblock {
        /// Which device
        device: proto::id::DeviceId,
    },
    /// Show every device, whether it is blocked, the version of its firmware and how its update stands
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
    /// Make the site's certificate authority, and the certificate that the gateway shows to devices with TLS
    Authority(AuthorityCommand),
    /// Make the key and the certificate by which a device logs in with TLS
    Certificate(CertificateCommand),
}

#[derive(Subcommand)]
pub(super) enum KeypadCommand {
    /// Print the key that the hub needs to sell keypad tokens for a device; it opens nothing else of that device
    Key {
        /// Which device
        device: proto::id::DeviceId,
    },
}

#[derive(Subcommand)]
pub(super) enum ReportCommand {
    /// An outage: who was served, money at risk and lost, and what any other gateway would have done
    #[command(after_help = command::OUTAGE_HELP)]
    Outage(command::OutageCommand),
}

#[derive(Subcommand)]
pub(super) enum LedgerCommand {
    /// Print every line of the book, of a running or a stopped gateway
    Export {
        /// For machines, as --format json
        #[arg(long, conflicts_with = "format")]
        json: bool,
        /// For machines; without it: a table for people
        #[arg(long, value_enum)]
        format: Option<ExportFormat>,
    },
    /// Name every damage of the journal, walk the whole hash chain, and check that debits and credits are the same after
    /// every record
    Verify {
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Of a stopped gateway: put aside what can be derived, so that the next start makes it anew; if the log itself is
    /// damaged, salvage what is whole into a new journal beside it, and name what is lost
    Rebuild {
        /// Begin epoch N of the books in the new journal; without it: the one after the newest that is found
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::run::EPOCH_MAX)))]
        epoch: Option<u32>,
    },
}

#[derive(Subcommand)]
pub(super) enum ListCommand {
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
    /// Adopt what is set aside, or tried by a ring: the whole site, at once
    Adopt {
        /// What is meant
        #[arg(value_enum, default_value_t = Gated::List)]
        what: Gated,
        /// Only if it is this revision
        #[arg(long, default_value_t = 0)]
        revision: u64,
    },
    /// Keep what is tried by a ring where it is
    Hold {
        /// What is meant
        #[arg(value_enum, default_value_t = Gated::List)]
        what: Gated,
    },
    /// Let it go on
    Release {
        /// What is meant
        #[arg(value_enum, default_value_t = Gated::List)]
        what: Gated,
    },
    /// Take back what is tried by a ring; or else go back to the list, or the policy, before the active one
    Rollback {
        /// What is meant; of prices none is kept
        #[arg(value_enum, default_value_t = Gated::List)]
        what: Gated,
    },
}

#[derive(Subcommand)]
pub(super) enum TrustCommand {
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
pub(super) enum LogFormat {
    /// For people and journald
    Text,
    /// One JSON object a line
    Json,
}

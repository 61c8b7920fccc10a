//! What may be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use hub::orders::OrderWish;
use proto::id::{Kind, Name};

/// The cloud half of Holdfast for operators who host their own.
#[derive(Parser)]
#[command(name = "holdfast-hub", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serve gateways until SIGTERM. SIGHUP reads the seed file again.
    Run {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Check configuration, secrets and seed file, and say what is wrong.
    CheckConfig {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Write a first configuration with fresh keys.
    Init {
        /// Where to.
        dir: PathBuf,
        /// The first gateway.
        #[arg(long, default_value = "gw-1")]
        gateway: Name,
        /// Its site.
        #[arg(long, default_value = "campus")]
        site: Name,
    },
    /// Import accounts, tokens, tariffs and revocations, into a running hub or a stopped one's store.
    Import {
        /// A seed file, TOML or JSON.
        file: PathBuf,
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Write everything that is published, signed, to a file for gateways that no network reaches.
    ExportArtifacts {
        /// Where to.
        file: PathBuf,
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// The keys that sign.
    #[command(subcommand)]
    Keys(Keys),
    /// Have a running hub read its seed file again.
    Reload(Where),
    /// A running hub at a glance.
    Status(Where),
    /// Every gateway: when it was heard, and what it last said of itself.
    Gateways(Where),
    /// The ledger.
    #[command(subcommand)]
    Ledger(Ledger),
    /// Every account, with its sums.
    Balances(Where),
    /// Every open hold.
    Holds(Where),
    /// Records that are kept, but not booked, and why.
    Quarantine(Where),
    /// You have looked at quarantined records, and booked by `adjust` what they are about: they no longer wait. The store
    /// keeps them. Needs a running hub.
    Settle {
        #[command(flatten)]
        place: Where,
        /// Whose.
        #[arg(long)]
        gateway: Name,
        /// Epoch of the records.
        #[arg(long)]
        epoch: u32,
        /// The first, by its sequence.
        #[arg(long)]
        first: u64,
        /// The last, if there are more; those between that are not quarantined do not matter.
        #[arg(long)]
        last: Option<u64>,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Charges on which gateway and hub disagree, and sessions that two claim.
    Disputes(Where),
    /// Vouchers, keypad tokens and secrets of one-time codes.
    #[command(subcommand)]
    Issue(Issue),
    /// Every session with the state of its money: held, settled, adjusted, disputed, ...
    Sessions(Where),
    /// What was delivered and nobody pays for, by loss account.
    Losses(Where),
    /// What a person should look at: breaches, frauds, wrong clocks, accounts that owe.
    Cases(Where),
    /// Move money from one account to another, for good: an entry with a number and a reason. Needs a running hub.
    Adjust {
        #[command(flatten)]
        place: Where,
        /// Whose money: customer:7, revenue:charger, loss:overdraft, prepaid or dispute.
        #[arg(long)]
        debit: String,
        /// Who gets it.
        #[arg(long)]
        credit: String,
        #[command(flatten)]
        entry: Entry,
        /// The session it is about.
        #[arg(long)]
        session: Option<String>,
    },
    /// Give money back to a customer. Needs a running hub.
    Credit {
        #[command(flatten)]
        place: Where,
        /// The customer's account.
        #[arg(long)]
        account: u64,
        /// Whose money; a refund comes from revenue:charger, revenue:washer or revenue:dispenser.
        #[arg(long)]
        from: String,
        #[command(flatten)]
        entry: Entry,
        /// The session it is about.
        #[arg(long)]
        session: Option<String>,
    },
    /// Close a session whose gateway is gone: frees its hold and charges the amount. If the gateway speaks after all,
    /// its own record takes the place of this. Needs a running hub.
    Close {
        #[command(flatten)]
        place: Where,
        /// The session, 32 hexadecimal digits.
        #[arg(long)]
        session: String,
        #[command(flatten)]
        entry: Entry,
    },
    /// Have a gateway do something. Needs a running hub.
    #[command(subcommand)]
    Order(Order),
    /// Every order to a gateway that is remembered, and what became of it.
    Orders(Where),
    /// Free the leases that a gateway had before it was put back from a backup: nobody knows what it had spent of them
    /// since. What open sessions hold of them follows when they are closed. Needs a running hub.
    Release {
        #[command(flatten)]
        place: Where,
        /// Which.
        #[arg(long)]
        gateway: Name,
        /// It never comes back with what it knew (destroyed, lost, stolen): free its present leases, too. What it had
        /// spent and not reported is lost; if it does come back, it has to start a new epoch.
        #[arg(long)]
        gone: bool,
    },
}

/// What a gateway is to do. Each order is sent until the gateway says what became of it, and runs at most once.
#[derive(Subcommand)]
pub(crate) enum Order {
    /// Begin a session, as if the token had been presented there.
    Start {
        #[command(flatten)]
        at: AtOutlet,
        /// For whom: card:04a1b2c3, app:TEXT or pin:TEXT.
        #[arg(long)]
        token: String,
        /// Not to be begun later than so long from now: 30s, 2m, 1h.
        #[arg(long, default_value = "30s", value_parser = seconds)]
        not_after: u64,
    },
    /// End a session: the one named, or whichever is open at the outlet.
    Stop {
        #[command(flatten)]
        to: ToGateway,
        /// The session, 32 hexadecimal digits.
        #[arg(long, required_unless_present = "device")]
        session: Option<String>,
        /// The device.
        #[arg(long, requires = "outlet")]
        device: Option<Name>,
        /// The outlet, counted from 0.
        #[arg(long, requires = "device")]
        outlet: Option<u8>,
        /// Not to be begun later than so long from now.
        #[arg(long, default_value = "10m", value_parser = seconds)]
        not_after: u64,
    },
    /// Keep an outlet free for somebody.
    Reserve {
        #[command(flatten)]
        at: AtOutlet,
        /// For whom: card:04a1b2c3, app:TEXT, pin:TEXT or hash:HEX.
        #[arg(long)]
        token: String,
        /// For how long from now, at most 2h.
        #[arg(long, default_value = "20m", value_parser = seconds)]
        until: u64,
        /// Not to be begun later than so long from now.
        #[arg(long, default_value = "5m", value_parser = seconds)]
        not_after: u64,
    },
    /// Give a reservation up.
    Release {
        #[command(flatten)]
        at: AtOutlet,
        /// Not to be begun later than so long from now.
        #[arg(long, default_value = "10m", value_parser = seconds)]
        not_after: u64,
    },
    /// Have a device report the state of an outlet.
    Report {
        #[command(flatten)]
        at: AtOutlet,
        /// Not to be begun later than so long from now.
        #[arg(long, default_value = "10m", value_parser = seconds)]
        not_after: u64,
    },
    /// Have the gateway say how it is at another interval from now on.
    Telemetry {
        #[command(flatten)]
        to: ToGateway,
        /// A report every so long; 0: none.
        #[arg(long, value_parser = seconds)]
        every: u64,
        /// Not to be begun later than so long from now.
        #[arg(long, default_value = "10m", value_parser = seconds)]
        not_after: u64,
    },
}

#[derive(Args)]
pub(crate) struct ToGateway {
    #[command(flatten)]
    pub(crate) place: Where,
    /// Which gateway.
    #[arg(long)]
    pub(crate) gateway: Name,
}

#[derive(Args)]
pub(crate) struct AtOutlet {
    #[command(flatten)]
    pub(crate) to: ToGateway,
    /// Which device.
    #[arg(long)]
    pub(crate) device: Name,
    /// Which outlet, counted from 0.
    #[arg(long, default_value_t = 0)]
    pub(crate) outlet: u8,
}

impl Order {
    /// Who is to do what.
    pub(crate) fn wish(self) -> (ToGateway, OrderWish) {
        let there = |at: AtOutlet, verb: &str, not_after_s| {
            let wish = OrderWish {
                verb: verb.to_owned(),
                device: Some(at.device.to_string()),
                outlet: at.outlet,
                not_after_s,
                ..OrderWish::default()
            };
            (at.to, wish)
        };
        match self {
            Self::Start { at, token, not_after } => {
                let (to, wish) = there(at, "start", not_after);
                let token = Some(token);
                (to, OrderWish { token, ..wish })
            }
            Self::Reserve {
                at,
                token,
                until,
                not_after,
            } => {
                let (to, wish) = there(at, "reserve", not_after);
                let (token, for_s) = (Some(token), until);
                (to, OrderWish { token, for_s, ..wish })
            }
            Self::Release { at, not_after } => there(at, "release", not_after),
            Self::Report { at, not_after } => there(at, "report", not_after),
            Self::Stop {
                to,
                session,
                device,
                outlet,
                not_after,
            } => {
                let wish = OrderWish {
                    verb: "stop".to_owned(),
                    device: device.map(|device| device.to_string()),
                    outlet: outlet.unwrap_or(0),
                    session,
                    not_after_s: not_after,
                    ..OrderWish::default()
                };
                (to, wish)
            }
            Self::Telemetry { to, every, not_after } => {
                let wish = OrderWish {
                    verb: "telemetry".to_owned(),
                    every_s: every,
                    not_after_s: not_after,
                    ..OrderWish::default()
                };
                (to, wish)
            }
        }
    }
}

/// A duration: a number of seconds, or with `s`, `m` or `h` behind it.
fn seconds(text: &str) -> Result<u64, String> {
    let (digits, unit_s) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(digits) if text.ends_with('h') => (digits, 3_600),
        Some(digits) if text.ends_with('m') => (digits, 60),
        Some(digits) => (digits, 1),
        None => (text, 1),
    };
    let number: Option<u64> = digits.parse().ok();
    let seconds = number.and_then(|number| number.checked_mul(unit_s));
    seconds.ok_or_else(|| "a time such as 30s, 20m or 2h".to_owned())
}

#[derive(Subcommand)]
pub(crate) enum Keys {
    /// Make a new signing key. It signs when the hub starts again; from then on the one before signs nothing.
    Rotate {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum Issue {
    /// Print a voucher: its number, and its envelope in hexadecimal digits, for a QR code or a tag.
    Voucher {
        /// The configuration, for the issuer's seed.
        #[arg(long)]
        config: PathBuf,
        /// Redeemed at every device of this site.
        #[arg(long, required_unless_present = "device", conflicts_with = "device")]
        site: Option<Name>,
        /// Redeemed at this device only.
        #[arg(long)]
        device: Option<Name>,
        /// charger, washer or dispenser.
        #[arg(long, value_parser = kind)]
        kind: Kind,
        /// Face value, in minor units.
        #[arg(long)]
        amount: i64,
        /// Last second, as seconds since 1970 UTC.
        #[arg(long)]
        until: u64,
        /// First second, as seconds since 1970 UTC.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Currency, as the number of ISO 4217.
        #[arg(long, default_value_t = 156)]
        currency: u16,
    },
    /// Print the next 12 digits for one keypad.
    Keypad {
        /// A file with the keypad's key: `holdfast keypad key DEVICE` prints it.
        #[arg(long)]
        key_file: PathBuf,
        /// A file with the last counter; it is made with the first token. One seller per keypad at a time.
        #[arg(long)]
        counter_file: PathBuf,
        /// 50, 100, 200, 300, 400, 500, 600, 800, 1000, 1500, 2000, 3000, 4000, 5000, 7500 or 10000 minor units.
        #[arg(long)]
        amount: i64,
    },
    /// Print a fresh secret of an account's one-time codes, for the gateway and for the account's app.
    Code {
        /// Whose.
        #[arg(long)]
        account: u64,
        /// What one code is worth at most, in minor units.
        #[arg(long)]
        limit: i64,
    },
}

/// A kind by its word.
fn kind(word: &str) -> Result<Kind, String> {
    let known = Kind::SERVED.iter().find(|kind| kind.word() == word);
    known
        .copied()
        .ok_or_else(|| String::from("one of charger, washer, dispenser"))
}

#[derive(Subcommand)]
pub(crate) enum Ledger {
    /// Every line, in the order of commitment.
    Export {
        #[command(flatten)]
        place: Where,
        /// Only this gateway's.
        #[arg(long)]
        gateway: Option<Name>,
    },
}

#[derive(Args)]
pub(crate) struct Entry {
    /// In minor units.
    #[arg(long)]
    pub(crate) amount: i64,
    /// Why; it stands in the ledger beside the entry.
    #[arg(long)]
    pub(crate) reason: String,
}

#[derive(Args)]
pub(crate) struct Where {
    /// The data directory of the hub.
    #[arg(long, required_unless_present_any = ["config", "socket"])]
    pub(crate) data: Option<PathBuf>,
    /// The configuration, instead of the data directory.
    #[arg(long, conflicts_with = "data")]
    pub(crate) config: Option<PathBuf>,
    /// The control socket, if it is not in the data directory.
    #[arg(long)]
    pub(crate) socket: Option<PathBuf>,
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

//! `cargo demo`: an evening on a small campus, told in about a minute. Hub, gateway and devices are real processes that
//! talk real MQTT on loopback; between gateway and hub stands a cloud that lies.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::ensure;
use clap::Parser;
use hil_tests::{
    account::Account,
    books::Books,
    cloud_sim::{CloudSim, Mode, Vendor},
    fleet::{self, Row},
    look::Told,
    site::{BrokerKind, Plan, Site, Standing},
};
use serde_json::json;

/// Longest time for the books to close after the evening.
const SETTLE: Duration = Duration::from_secs(90);
/// Users per device: enough that nobody meets the limits of one outage.
const USERS_PER_DEVICE: usize = 12;
/// How often the story tells how things stand.
const TELL: Duration = Duration::from_secs(3);
/// How often it looks whether the backlog is gone.
const LOOK: Duration = Duration::from_millis(100);

/// An evening on a small campus, told in about a minute
#[derive(Parser)]
#[command(
    after_help = "Exit code 0 only if the books close: nobody good refused, nobody bad granted, nothing lost, nothing doubled."
)]
struct Options {
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Devices, of the three kinds in turn
    #[arg(long, default_value_t = 42, value_parser = clap::value_parser!(u16).range(3..=500))]
    devices: u16,
    /// Length of the evening
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What the cloud between gateway and hub speaks
    #[arg(long, value_enum, default_value_t = Cloud::Hcp)]
    cloud: Cloud,
    /// Put a mosquitto between devices and gateway
    #[arg(long)]
    mosquitto: bool,
    /// Leave everything running to look around, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Files of the site; by default a temporary directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What a cloud speaks.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Cloud {
    /// Our own protocol on an MQTT broker
    Hcp,
    /// Alibaba Cloud IoT Platform, with the devices as sub-devices
    Alink,
    /// AWS IoT Core
    Aws,
    /// HTTPS, for operators without MQTT
    Webhook,
}

impl From<Cloud> for Vendor {
    fn from(cloud: Cloud) -> Self {
        match cloud {
            Cloud::Hcp => Self::Hcp,
            Cloud::Alink => Self::Alink,
            Cloud::Aws => Self::Aws,
            Cloud::Webhook => Self::Webhook,
        }
    }
}

/// A part of the evening.
struct Act {
    name: &'static str,
    share: f64,
    mode: Mode,
    story: &'static str,
}

const ACTS: [Act; 6] = [
    Act {
        name: "normal",
        share: 0.18,
        mode: Mode::Honest,
        story: "Six in the evening. The cloud answers; people charge, wash and fill bottles.",
    },
    Act {
        name: "lying",
        share: 0.26,
        mode: Mode::Lying,
        story: "The cloud now answers every request with \"Specified access key is not found\". The link looks healthy.",
    },
    Act {
        name: "hanging",
        share: 0.17,
        mode: Mode::Hanging,
        story: "The cloud takes every request and answers nothing.",
    },
    Act {
        name: "dark",
        share: 0.17,
        mode: Mode::Dark,
        story: "The cloud is gone: every connection is closed.",
    },
    Act {
        name: "throttled",
        share: 0.12,
        mode: Mode::Throttled(8),
        story: "The cloud is back, and tells whoever comes too fast to slow down.",
    },
    Act {
        name: "recovered",
        share: 0.10,
        mode: Mode::Honest,
        story: "The cloud is well again.",
    },
];

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<bool> {
    build()?;
    let temporary = tempfile::tempdir()?;
    let dir = options.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;

    let mut plan = Plan::new(
        options.seed,
        usize::from(options.devices),
        usize::from(options.devices) * USERS_PER_DEVICE,
    );
    // An evening of a minute needs a recovery of seconds.
    plan.limits = "[health]\nrecover_ms = 2000\nprobe_ms = 700\nprobe_max_ms = 2000\n\
                   [limits.charger]\nmeter_every_s = 2\n[limits.washer]\nmeter_every_s = 2\n[limits.dispenser]\nmeter_every_s = 2\n"
        .to_owned();
    let (hub, hub_address) = Site::start_hub(&plan, &dir)?;
    let account = Account::new(&plan, options.cloud.into())?;
    let cloud = runtime.block_on(CloudSim::start(account.cloud(hub_address)?))?;
    let ways = account.ways(&cloud, &dir.join("gateway"))?;
    let broker = if options.mosquitto {
        BrokerKind::Mosquitto
    } else {
        BrokerKind::Embedded
    };
    let mut site = Site::start_through(plan, &dir, hub, &ways, broker)?;
    site.gateway.wait_for("list adopted")?;
    println!(
        "Site of seed {}: a hub, {}, a gateway, {} devices, {} users, {} between devices and gateway. Files: {}",
        options.seed,
        cloud.vendor().title(),
        site.plan.devices.len(),
        site.plan.users.len(),
        if options.mosquitto { "mosquitto" } else { "nothing" },
        dir.display()
    );

    let seconds = options.minutes * 60.0;
    let fleet = fleet::Process::start(&site.plan, site.device_address, seconds, &dir)?;
    let mut backlog = Backlog::default();
    let acts = evening(&mut site, &cloud, seconds, &mut backlog)?;
    let rows = fleet.finish()?;
    site.settle(SETTLE)?;
    let reconcile = backlog.gone_after.unwrap_or_else(|| backlog.since_return());
    let books = site.books()?;
    let told = Told::ask(&site, interesting(&rows, &acts))?;
    let mut result = Outcome::new(options, &site.plan, &rows, &books, &acts, reconcile);
    result.report_equals_ledger = told.equals(&books);
    told.print();
    result.print(&books, &cloud);
    if let Some(path) = &options.json {
        let mut json = result.json(&books);
        json["outage"] = told.outage().cloned().into();
        std::fs::write(path, serde_json::to_string_pretty(&json)?)?;
    }
    if options.keep {
        keep(&site, &dir)?;
    }
    let codes = site.stop()?;
    ensure!(codes == (0, 0), "gateway and hub ended with codes {codes:?}");
    Ok(result.closes(&books))
}

/// A session that was granted while the cloud lied, and for which a user waited longest: it was asked then.
fn interesting<'a>(rows: &'a [Row], acts: &[Played]) -> Option<&'a str> {
    let lying = acts.iter().find(|act| act.name == "lying")?;
    let granted = rows
        .iter()
        .filter(|row| row.granted && (lying.from_ms..lying.to_ms).contains(&row.asked_ms));
    let waited = |row: &&Row| row.verdict_ms.unwrap_or(0.0);
    let longest = granted.max_by(|a, b| waited(a).total_cmp(&waited(b)))?;
    Some(&longest.session)
}

/// The demo is one command: what it starts is built first.
fn build() -> anyhow::Result<()> {
    let Some(cargo) = std::env::var_os("CARGO") else {
        return Ok(());
    };
    println!("Building hub, gateway and devices ...");
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "gateway",
            "--package",
            "hub",
            "--package",
            "hil-tests",
            "--bins",
        ])
        .stdin(Stdio::null())
        .status()?;
    ensure!(status.success(), "the build failed");
    Ok(())
}

/// When each act began and ended, in ms since the first began.
struct Played {
    name: &'static str,
    from_ms: u64,
    to_ms: u64,
}

/// What had no receipt when the cloud came back, and how long it took until it had.
#[derive(Default)]
struct Backlog {
    returned: Option<std::time::Instant>,
    records: u64,
    gone_after: Option<Duration>,
}

impl Backlog {
    fn returns(&mut self, status: &serde_json::Value) {
        self.returned = Some(std::time::Instant::now());
        self.records = status["records"].as_u64().unwrap_or(0);
    }

    fn look(&mut self, status: &serde_json::Value) {
        let gone = status["receipted"]
            .as_u64()
            .is_some_and(|receipted| receipted >= self.records);
        if self.returned.is_some() && gone && self.gone_after.is_none() {
            self.gone_after = Some(self.since_return());
        }
    }

    fn since_return(&self) -> Duration {
        self.returned.map_or(Duration::ZERO, |at| at.elapsed())
    }
}

fn evening(site: &mut Site, cloud: &CloudSim, seconds: f64, backlog: &mut Backlog) -> anyhow::Result<Vec<Played>> {
    let started = std::time::Instant::now();
    let mut played = Vec::new();
    let mut until = Duration::ZERO;
    for act in &ACTS {
        println!("\n[{:>3} s] {}", started.elapsed().as_secs(), act.story);
        cloud.set(act.mode);
        if act.name == "throttled" {
            backlog.returns(&site.ask_gateway("status")?);
        }
        let from_ms = started.elapsed().as_millis() as u64;
        until += Duration::from_secs_f64(seconds * act.share);
        while started.elapsed() < until {
            // The story has a clock of its own; nothing is waited for here.
            let tell_at = until.min(started.elapsed() + TELL);
            while started.elapsed() < tell_at {
                std::thread::sleep(LOOK.min(tell_at.saturating_sub(started.elapsed()))); // The pace of the story.
                backlog.look(&site.ask_gateway("status")?);
            }
            let status = site.ask_gateway("status")?;
            println!(
                "[{:>3} s]   {} sessions open, {} at risk; {} records, {} without a receipt; the gateway decides {}",
                started.elapsed().as_secs(),
                status["sessions_open"],
                yuan(status["exposure"].as_i64().unwrap_or(0)),
                status["records"],
                status["waiting"],
                if status["authorize"] == "ONLINE" {
                    "with the cloud"
                } else {
                    "alone"
                },
            );
        }
        played.push(Played {
            name: act.name,
            from_ms,
            to_ms: started.elapsed().as_millis() as u64,
        });
    }
    println!(
        "\n[{:>3} s] People finish what they began; the books close.",
        started.elapsed().as_secs()
    );
    Ok(played)
}

fn keep(site: &Site, dir: &Path) -> anyhow::Result<()> {
    println!(
        "\nStill running. Devices: {}. Look around:\n  holdfast --config {}/gateway/holdfast.toml status\nCtrl-C ends it.",
        site.device_address,
        dir.display()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::signal::ctrl_c())?;
    Ok(())
}

/// What people saw, counted.
struct Outcome {
    seed: u64,
    sessions: usize,
    by_kind: BTreeMap<String, usize>,
    by_act: BTreeMap<&'static str, usize>,
    in_outage: usize,
    refused: BTreeMap<(String, String), usize>,
    good_users_refused: usize,
    bad_users_granted: usize,
    /// Strangers who were given water while the cloud was away (semantics, step 10).
    emergency_credit: usize,
    unanswered: usize,
    charged_differently: usize,
    delivered_without_grant: u64,
    report_equals_ledger: bool,
    verdict_p50_ms: f64,
    verdict_p99_ms: f64,
    reconcile_s: f64,
}

impl Outcome {
    fn new(options: &Options, plan: &Plan, rows: &[Row], books: &Books, acts: &[Played], reconcile: Duration) -> Self {
        let mut outcome = Self {
            seed: options.seed,
            sessions: 0,
            by_kind: BTreeMap::new(),
            by_act: BTreeMap::new(),
            in_outage: 0,
            refused: BTreeMap::new(),
            good_users_refused: 0,
            bad_users_granted: 0,
            emergency_credit: 0,
            unanswered: 0,
            charged_differently: 0,
            delivered_without_grant: 0,
            report_equals_ledger: false,
            verdict_p50_ms: 0.0,
            verdict_p99_ms: 0.0,
            reconcile_s: reconcile.as_secs_f64(),
        };
        let mut verdicts = Vec::new();
        for row in rows {
            outcome.count(plan, row, books, acts);
            verdicts.extend(row.verdict_ms);
        }
        verdicts.sort_by(f64::total_cmp);
        let at =
            |share: f64| verdicts.get(((verdicts.len() as f64 * share) as usize).min(verdicts.len().saturating_sub(1)));
        outcome.verdict_p50_ms = at(0.50).copied().unwrap_or(0.0);
        outcome.verdict_p99_ms = at(0.99).copied().unwrap_or(0.0);
        outcome
    }

    fn count(&mut self, plan: &Plan, row: &Row, books: &Books, acts: &[Played]) {
        let standing = plan.users[row.user].standing;
        let act = acts
            .iter()
            .find(|act| (act.from_ms..act.to_ms).contains(&row.asked_ms))
            .map_or("after", |act| act.name);
        let outage = matches!(act, "lying" | "hanging" | "dark");
        self.delivered_without_grant += row.ungranted_milli;
        match (&row.refused, row.granted) {
            (Some(reason), _) => {
                if standing == Standing::Good {
                    self.good_users_refused += 1;
                }
                *self
                    .refused
                    .entry((standing.word().to_owned(), reason.clone()))
                    .or_default() += 1;
            }
            (None, true) => {
                self.sessions += 1;
                *self.by_kind.entry(row.kind.clone()).or_default() += 1;
                *self.by_act.entry(act).or_default() += 1;
                self.in_outage += usize::from(outage);
                // The cloud itself may say yes to a NEVER token while it is well; nobody may to the others.
                let bad = match standing {
                    Standing::Good => false,
                    Standing::Never => outage,
                    // The law gives a stranger two litres a day, at a dispenser and at the operator's cost.
                    Standing::Unknown => !(books.gifts.contains(&row.session) && row.kind == "dispenser"),
                    Standing::Invalid | Standing::Revoked => true,
                };
                self.bad_users_granted += usize::from(bad);
                self.emergency_credit += usize::from(standing == Standing::Unknown && !bad);
            }
            (None, false) => self.unanswered += usize::from(!row.abandoned),
        }
        let booked = books.charges.get(&row.session).copied();
        if row.receipt_amount.is_some_and(|amount| booked.unwrap_or(0) != amount) {
            self.charged_differently += 1;
        }
    }

    fn closes(&self, books: &Books) -> bool {
        self.good_users_refused == 0
            && self.bad_users_granted == 0
            && self.unanswered == 0
            && self.charged_differently == 0
            && self.delivered_without_grant == 0
            && self.report_equals_ledger
            && books.records_lost == 0
            && books.records_doubled == 0
            && books.records_foreign == 0
            && books.ledger_balanced
            && books.hub_gateway_equal
    }

    fn json(&self, books: &Books) -> serde_json::Value {
        json!({
            "seed": self.seed,
            "sessions": self.sessions,
            "sessions_by_kind": self.by_kind,
            "sessions_by_act": self.by_act,
            "sessions_in_outage": self.in_outage,
            "refusals": self.refused.iter().map(|((who, why), n)| (format!("{who}: {why}"), n)).collect::<BTreeMap<_, _>>(),
            "good_users_refused": self.good_users_refused,
            "bad_users_granted": self.bad_users_granted,
            "emergency_credit": self.emergency_credit,
            "unanswered": self.unanswered,
            "charged_differently": self.charged_differently,
            "delivered_without_grant": self.delivered_without_grant,
            "report_equals_ledger": self.report_equals_ledger,
            "records": books.lines,
            "records_lost": books.records_lost,
            "records_doubled": books.records_doubled,
            "ledger_balanced": books.ledger_balanced,
            "hub_gateway_equal": books.hub_gateway_equal,
            "held_minor": books.held,
            "captured_minor": books.captured,
            "verdict_p50_ms": self.verdict_p50_ms,
            "verdict_p99_ms": self.verdict_p99_ms,
            "reconcile_s": self.reconcile_s,
            "books_close": self.closes(books),
        })
    }

    fn print(&self, books: &Books, cloud: &CloudSim) {
        let row = |name: &str, value: String| println!("  {name:<46} {value:>14}");
        println!("\nThe evening, seed {}", self.seed);
        row("sessions granted", self.sessions.to_string());
        for (kind, count) in &self.by_kind {
            row(&format!("  at a {kind}"), count.to_string());
        }
        for act in &ACTS {
            row(
                &format!("  begun while the cloud was {}", act.name),
                self.by_act.get(act.name).unwrap_or(&0).to_string(),
            );
        }
        row("good users refused", self.good_users_refused.to_string());
        row("bad users granted", self.bad_users_granted.to_string());
        row(
            "  strangers given water on emergency credit",
            self.emergency_credit.to_string(),
        );
        for ((who, why), count) in &self.refused {
            row(&format!("  refused, {who}: {why}"), count.to_string());
        }
        row("verdict, median", format!("{:.1} ms", self.verdict_p50_ms));
        row("verdict, 99 of 100 within", format!("{:.1} ms", self.verdict_p99_ms));
        row(
            "false denials the cloud told",
            cloud.counters().denied.get().to_string(),
        );
        row("messages it swallowed", cloud.counters().swallowed.get().to_string());
        row("requests it throttled", cloud.counters().throttled.get().to_string());
        row("money held", yuan(books.held));
        row("money captured", yuan(books.captured));
        row("lines in both books", books.lines.to_string());
        row("records lost", books.records_lost.to_string());
        row("records doubled", books.records_doubled.to_string());
        row(
            "charges that differ from the receipt",
            self.charged_differently.to_string(),
        );
        row("the outage report adds up to the books", yes(self.report_equals_ledger));
        row("books of gateway and hub equal", yes(books.hub_gateway_equal));
        row("debits equal credits, nothing held", yes(books.ledger_balanced));
        row(
            "backlog gone after the cloud came back within",
            format!("{:.1} s", self.reconcile_s),
        );
        if let Some(difference) = &books.difference {
            println!("  first difference: {difference}");
        }
        println!(
            "\n{}",
            if self.closes(books) {
                "The books close."
            } else {
                "THE BOOKS DO NOT CLOSE."
            }
        );
    }
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "NO" }.to_owned()
}

fn yuan(minor: i64) -> String {
    proto::money::Money(minor).to_string()
}

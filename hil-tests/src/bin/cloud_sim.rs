//! `holdfast-cloud-sim`: simulated clouds that check what the real ones check, and fail as the real ones failed. An operator
//! rehearses with it before his own gateway and hub, or plays a shipped script on a whole site of processes.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use hil_tests::{
    account::Account,
    cloud_sim::{
        CloudSim, Vendor,
        script::{self, Script, shipped},
    },
    rehearsal::{self, Outcome},
};
use proto::{id::Name, seal::PairSecret};

/// Simulated clouds that fail as the real ones failed
#[derive(Parser)]
#[command(name = "holdfast-cloud-sim")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The shipped scripts, a line each
    List,
    /// Plays a script on a whole site of processes and says whether everything held
    Play {
        /// A shipped script, or a file
        script: String,
        /// On which clouds; by default on all that the script names
        #[arg(long, value_enum)]
        cloud: Option<Cloud>,
        /// Everything random follows from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Stands before your own hub, for your own gateway, until Ctrl-C; prints what to write into the gateway's files
    Serve {
        /// What the cloud speaks
        #[arg(long, value_enum)]
        cloud: Cloud,
        /// Where your hub listens
        #[arg(long)]
        hub: SocketAddr,
        /// Your site's name
        #[arg(long)]
        site: Name,
        /// Your gateway's name
        #[arg(long)]
        gateway: Name,
        /// The gateway's secrets.toml: its `link` secret opens the hub's door
        #[arg(long, value_name = "FILE")]
        secrets: PathBuf,
        /// Where certificates for the gateway are written
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
        /// A shipped script or a file, played once from now on; without it the cloud is well
        #[arg(long)]
        script: Option<String>,
        /// Everything random follows from it, keys too
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// What a cloud speaks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cloud {
    /// Our own protocol on an MQTT broker
    Hcp,
    /// Alibaba Cloud IoT Platform
    Alink,
    /// AWS IoT Core
    Aws,
    /// HTTPS
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

fn main() -> ExitCode {
    match run(Options::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("holdfast-cloud-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::List => {
            for (name, text) in shipped::SHIPPED {
                let script = script::parse(name, text)?;
                let clouds: Vec<&str> = script.clouds.iter().map(|vendor| vendor.word()).collect();
                println!("{:<34} {:<24} {}", script.name, clouds.join(" "), script.title);
            }
            Ok(true)
        }
        Command::Play { script, cloud, seed } => {
            let script = load(&script)?;
            let clouds = cloud.map_or_else(|| script.clouds.clone(), |cloud| vec![cloud.into()]);
            println!("{}\n{}", script.title, Outcome::head());
            let mut holds = true;
            for vendor in clouds {
                let outcome = rehearsal::play(&script, vendor, seed)?;
                println!("{}", outcome.line());
                holds &= outcome.holds();
            }
            Ok(holds)
        }
        Command::Serve {
            cloud,
            hub,
            site,
            gateway,
            secrets,
            dir,
            script,
            seed,
        } => {
            let script = script.as_deref().map(load).transpose()?;
            let account = Account::of(cloud.into(), seed, (site, gateway), link_secret(&secrets)?);
            serve(&account, hub, &dir, script.as_ref())?;
            Ok(true)
        }
    }
}

fn load(name: &str) -> anyhow::Result<Script> {
    if let Some(script) = shipped::find(name) {
        return Ok(script?);
    }
    let text = std::fs::read_to_string(name)
        .with_context(|| format!("\"{name}\" is no shipped script (holdfast-cloud-sim list) and no file"))?;
    let stem = Path::new(name)
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    Ok(script::parse(&stem, &text)?)
}

/// The `link` key of a gateway's secrets.
fn link_secret(path: &Path) -> anyhow::Result<PairSecret> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let table: toml::Table =
        toml::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.message()))?;
    let link = table
        .get("link")
        .and_then(toml::Value::as_str)
        .with_context(|| format!("{}: link: missing", path.display()))?;
    link.parse()
        .map_err(|error| anyhow::anyhow!("{}: link: {error}", path.display()))
}

fn serve(account: &Account, hub: SocketAddr, dir: &Path, script: Option<&Script>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut options = account.cloud(hub)?;
        options.times = script.map_or(1, |script| script.times);
        let vendor = options.way.vendor();
        let cloud = CloudSim::start(options).await?;
        let ways = account.ways(&cloud, dir)?;
        println!("# holdfast.toml\n{}\n# secrets.toml\n{}", ways.clouds, ways.secrets);
        let course = async {
            let Some(script) = script else { return Ok(()) };
            let began = tokio::time::Instant::now();
            for (at_ms, faults) in script.acts(vendor) {
                tokio::time::sleep_until(began + script.wall(at_ms)).await; // The script has a clock.
                println!("{} {faults:?}", script.clock(at_ms));
                cloud.play(faults)?;
            }
            let left = script.length().saturating_sub(began.elapsed());
            tokio::time::sleep(left.max(Duration::ZERO)).await; // The rest of the script.
            println!("The script is over; the cloud goes on.");
            anyhow::Ok(())
        };
        let stop = tokio::signal::ctrl_c();
        tokio::pin!(course, stop);
        tokio::select! {
            ended = &mut course => {
                ended?;
                stop.await?;
            }
            stopped = &mut stop => stopped?,
        }
        println!("What passed:");
        for (name, count) in cloud.counters().rows() {
            println!("  {name:<28} {count:>10}");
        }
        Ok(())
    })
}

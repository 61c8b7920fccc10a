//! Two clouds and a backlog: the first is dark, then lies, then is back; the second falls away meanwhile. Everything must
//! arrive once. And beside it the same number of messages through a plain mosquitto bridge.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use carrier::{Connection, Event, Publish, Qos, mqtt::Options as MqttOptions};
use proto::{id::Name, seal::PairSecret};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{
    books::Books,
    cloud_broker::{Authority, CloudBroker, for_gateway},
    cloud_sim::{CloudSim, Member, Mode, Options, Way},
    outpost::{Outposts, link_key},
    process::Process,
    proxy::{Proxy, Weather},
    site::{Plan, Ways, free_port},
};

/// Users of the plan: enough that their balances pay for a hundred thousand records.
const PEOPLE: usize = 400;
/// How long the whole story may take.
const LIMIT: Duration = Duration::from_secs(600);
/// How often the gateway is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of each message that the bridge carries: what a record of ours takes.
const RECORD_BYTES: usize = 230;

/// What was measured.
#[derive(Debug)]
pub struct Drained {
    /// Records of the backlog.
    pub records: u64,
    /// From the gateway's start, with one cloud dark, to the last receipt.
    pub took: Duration,
    /// Of that, while a cloud carried records: the time in which receipts came.
    pub carrying: Duration,
    /// From the start to the first receipt.
    pub first: Duration,
    /// Which cloud carried, in the order of the story.
    pub carried_by: Vec<(&'static str, String)>,
    /// The books afterwards.
    pub books: Books,
}

/// Plays the story with so many sessions, three records each.
///
/// # Errors
/// If anything does not start, or does not end in time.
pub fn two_clouds(dir: &Path, seed: u64, sessions: u32) -> anyhow::Result<Drained> {
    let runtime = Runtime::new()?;
    let authority = Authority::new("campus")?;
    let broker = CloudBroker::start(&dir.join("mosquitto"), &authority)?;
    let mut site = Outposts::start_hub(Plan::new(seed, 0, PEOPLE), dir, 1, &broker.for_hub("second"))?;
    site.fill(sessions)?;
    let first = runtime.block_on(CloudSim::start(Options::new(
        Way::Hcp,
        site.hub_address,
        vec![member(&site, "gw-1")?],
    )))?;
    let second = Proxy::start(broker.address(), seed)?;
    let gateway = &mut site.gateways[0];
    authority.write(&gateway.dir, &gateway.name, 2040)?;
    fs::write(gateway.dir.join("ca.pem"), authority.pem())?;
    let clouds = format!(
        "[[cloud]]\nname = \"first\"\nkind = \"hcp\"\nbroker = \"{}\"\nkeep_alive_s = 5\n\n{}",
        first.address(),
        for_gateway("second", second.address().port(), "5", &gateway.dir, &gateway.name),
    );
    let ways = Ways {
        clouds,
        secrets: String::new(),
        link: "reconnect_s_max = 2\ntelemetry_s = 0\nfailback_s = 2\nbatches_a_second_max = 1000\n\
               backlog_batches_a_second_max = 1000\n"
            .to_owned(),
    };
    gateway.write(&site.plan, &ways)?;

    let records = u64::from(sessions) * 3;
    first.set(Mode::Dark);
    let mut story = Story::new(records);
    let since = Instant::now();
    site.gateways[0].start()?;
    story.until(&site, "first dark", records / 3)?;
    first.set(Mode::Lying);
    story.until(&site, "first lying", records * 2 / 3)?;
    first.set(Mode::Honest);
    second.set(Weather::Dark);
    story.until(&site, "first back, second dark", records * 5 / 6)?;
    second.set(Weather::Calm);
    story.until(&site, "both", records)?;
    let took = since.elapsed();
    let books = site.books()?;
    site.stop()?;
    Ok(Drained {
        records,
        took,
        carrying: story.carrying,
        first: story.first.unwrap_or(took),
        carried_by: story.carried_by,
        books,
    })
}

/// One gateway, as a cloud knows it.
fn member(site: &Outposts, name: &str) -> anyhow::Result<Member> {
    Ok(Member {
        gateway: Name::new(name)?,
        site: Name::new("campus")?,
        password: PairSecret(link_key(&site.plan, name)).password().to_string(),
    })
}

struct Story {
    began: Instant,
    records: u64,
    carrying: Duration,
    first: Option<Duration>,
    carried_by: Vec<(&'static str, String)>,
}

impl Story {
    fn new(records: u64) -> Self {
        Self {
            began: Instant::now(),
            records,
            carrying: Duration::ZERO,
            first: None,
            carried_by: Vec::new(),
        }
    }

    /// Waits until so many records have their receipt, and notes by which cloud they went.
    fn until(&mut self, site: &Outposts, act: &'static str, receipted: u64) -> anyhow::Result<()> {
        let (mut before, mut looked) = (0, Instant::now());
        loop {
            let status = site.gateways[0].ask("status")?;
            let now = status["receipted"]
                .as_u64()
                .context("the status says what is receipted")?;
            if now > before && before > 0 {
                self.carrying += looked.elapsed();
            }
            if now > 0 && self.first.is_none() {
                self.first = Some(self.began.elapsed());
            }
            (before, looked) = (now, Instant::now());
            if now >= receipted.min(self.records) {
                self.carried_by.push((act, way(&status)));
                return Ok(());
            }
            ensure!(self.began.elapsed() < LIMIT, "{act}: {status}");
            std::thread::sleep(LOOK); // A poll of another process, with its limit above.
        }
    }
}

fn way(status: &Value) -> String {
    let first = status["clouds"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|cloud| cloud["goes_first"] == true);
    first
        .and_then(|cloud| cloud["name"].as_str())
        .unwrap_or("none")
        .to_owned()
}

/// What a bridge did.
#[derive(Debug)]
pub struct Bridged {
    /// From the moment at which the far side could be reached to the last message there.
    pub took: Duration,
    /// From that moment to the first message.
    pub first: Duration,
    /// Messages that never came.
    pub lost: u64,
    /// Messages that came twice.
    pub doubled: u64,
}

/// `count` messages of a record's size through a plain mosquitto bridge with persistence and room for all of them, whose
/// far side could not be reached when they were published.
///
/// # Errors
/// If anything does not start.
pub fn bridge(dir: &Path, count: u64) -> anyhow::Result<Bridged> {
    let runtime = Runtime::new()?;
    let (near, far) = (free_port()?, free_port()?);
    let common = "allow_anonymous true\nuser root\nset_tcp_nodelay true\nmax_queued_messages 0\nlog_dest stderr\n";
    let _far = mosquitto(dir, "far", &format!("listener {far} 127.0.0.1\n{common}"))?;
    let wire = Proxy::start(SocketAddr::from(([127, 0, 0, 1], far)), 1)?;
    wire.set(Weather::Dark);
    let bridge = format!(
        "connection cloud\naddress 127.0.0.1:{}\ntopic records/# out 1\ncleansession false\nrestart_timeout 1 1\n\
         bridge_protocol_version mqttv50\nmax_inflight_messages 100\n",
        wire.address().port()
    );
    let text = format!(
        "listener {near} 127.0.0.1\n{common}persistence true\npersistence_location {}/\n{bridge}",
        dir.display()
    );
    let _near = mosquitto(dir, "near", &text)?;
    runtime.block_on(carry(count, near, far, &wire))
}

fn mosquitto(dir: &Path, name: &'static str, text: &str) -> anyhow::Result<Process> {
    let file = dir.join(format!("{name}.conf"));
    fs::write(&file, text)?;
    let program = ["mosquitto", "/usr/sbin/mosquitto"]
        .into_iter()
        .find(|program| Command::new(program).arg("-h").output().is_ok())
        .context("mosquitto is not installed; type: apt-get install mosquitto")?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&file);
    let process = Process::start(name, command, &dir.join(format!("{name}.log")))?;
    process.wait_for("running")?;
    Ok(process)
}

async fn carry(count: u64, near: u16, far: u16, wire: &Proxy) -> anyhow::Result<Bridged> {
    let mut listener = Connection::open(&MqttOptions {
        filters: vec![("records/#".to_owned(), Qos::AtLeastOnce)],
        ..MqttOptions::new(format!("127.0.0.1:{far}"), "listener")
    });
    up(&mut listener).await?;
    let mut publisher = Connection::open(&MqttOptions::new(format!("127.0.0.1:{near}"), "publisher"));
    up(&mut publisher).await?;
    let sender = publisher.sender();
    for number in 0..count {
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(RECORD_BYTES, 0x55);
        let mut publish = Publish {
            topic: "records/one".to_owned(),
            payload,
            qos: Qos::AtLeastOnce,
            expires: None,
        };
        while let Err(unsent) = sender.send(publish) {
            publish = unsent.publish;
            tokio::task::yield_now().await;
        }
    }
    wire.set(Weather::Calm);
    let since = Instant::now();
    let mut seen = vec![false; usize::try_from(count)?];
    let (mut missing, mut doubled, mut first) = (count, 0, None);
    while missing > 0 {
        let Ok(event) = tokio::time::timeout(Duration::from_secs(20), listener.next()).await else {
            break;
        };
        if let Event::Message(message) = event {
            first.get_or_insert_with(|| since.elapsed());
            let number = message
                .payload
                .first_chunk()
                .map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
            let seen = seen
                .get_mut(usize::try_from(number)?)
                .context("a message that was never published")?;
            if std::mem::replace(seen, true) {
                doubled += 1;
            } else {
                missing -= 1;
            }
            message.ack.accept();
        }
    }
    Ok(Bridged {
        took: since.elapsed(),
        first: first.unwrap_or_default(),
        lost: missing,
        doubled,
    })
}

async fn up(connection: &mut Connection) -> anyhow::Result<()> {
    match connection.next().await {
        Event::Up => Ok(()),
        other => anyhow::bail!("no connection: {other:?}"),
    }
}

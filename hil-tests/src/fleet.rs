//! A fleet: many twins in one process, each with its own MQTT connection, and the people who come to them. What the
//! people saw is the report.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use carrier::Qos;
use carrier::mqtt::{Backoff, Connection, Event, Options};
use device::Config;
use proto::{
    id::{DeviceId, IdToken, Kind, SessionId, TokenKind},
    money::Units,
    seal::FRAME_BYTES_MAX,
    topic,
};
use serde::{Deserialize, Serialize};

use crate::{
    process,
    site::{self, Plan as SitePlan, Standing, hex},
    twin::{Battery, Leaves, Outgoing, Plan, Thing, Twin, Verdict, Visit},
};

/// How much faster batteries fill and washers wash than in the world: an evening fits in a minute.
const SPEED: u32 = 900;
/// How often people look whether something is to be done, in ms.
const LOOK_MS: u64 = 50;
/// How long people wait for their turn to end after the last has come, in s.
const FINISH_S_MAX: u64 = 90;
/// Longest wait of a device between two connection attempts, in s.
const RECONNECT_S_MAX: u64 = 2;
/// Visits of one user at one kind: what the law grants in one outage, whatever the kind.
const VISITS_MAX: u32 = 2;
/// One visitor in so many is not a good user.
const BAD_ONE_IN: u32 = 12;

/// What a fleet process is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// Where devices connect.
    pub broker: String,
    /// Everything random follows from it.
    pub seed: u64,
    /// How long people come, in s.
    pub seconds: f64,
    /// The devices: name, kind, secret in hexadecimal.
    pub devices: Vec<(DeviceId, String, String)>,
    /// The users: token in hexadecimal, and whether it is good.
    pub users: Vec<(String, bool)>,
    /// Where the report goes.
    pub report: PathBuf,
}

/// One session as its user saw it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its id.
    pub session: String,
    /// Where.
    pub device: String,
    /// What it dispenses.
    pub kind: String,
    /// Number of the user.
    pub user: usize,
    /// When the token was presented, in ms since the fleet began.
    pub asked_ms: u64,
    /// How long the user waited for the verdict, in ms.
    pub verdict_ms: Option<f64>,
    /// Whether it was granted.
    pub granted: bool,
    /// Why it was refused.
    pub refused: Option<String>,
    /// Whether the user gave up before the answer.
    pub abandoned: bool,
    /// Whether delivery began.
    pub started: bool,
    /// Delivered under the grant, in thousandths of the base unit.
    pub delivered_milli: u64,
    /// Delivered without a grant, in thousandths of the base unit.
    pub ungranted_milli: u64,
    /// What the receipt charged, in minor units.
    pub receipt_amount: Option<i64>,
    /// What the device had shown, in minor units.
    pub shown: i64,
    /// Why it ended.
    pub ended: Option<String>,
}

/// A fleet in a process of its own.
#[derive(Debug)]
pub struct Process {
    process: process::Process,
    report: PathBuf,
}

impl Process {
    /// Starts the devices of a plan and lets people come for `seconds`.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start(plan: &SitePlan, broker: SocketAddr, seconds: f64, dir: &Path) -> anyhow::Result<Self> {
        let report = dir.join("fleet-report.json");
        let devices = plan
            .devices
            .iter()
            .map(|d| (d.id, d.kind.word().to_owned(), hex(&d.secret.0)));
        let orders = Orders {
            broker: broker.to_string(),
            seed: plan.seed,
            seconds,
            devices: devices.collect(),
            users: plan
                .users
                .iter()
                .map(|user| (hex(&user.token), user.standing == Standing::Good))
                .collect(),
            report: report.clone(),
        };
        let file = dir.join("fleet.json");
        fs::write(&file, serde_json::to_vec(&orders)?)?;
        let mut command = Command::new(site::binary("fleet")?);
        command.arg(&file);
        let process = process::Process::start("the fleet", command, &dir.join("fleet.log"))?;
        Ok(Self { process, report })
    }

    /// Waits until everybody has gone home; what they saw.
    ///
    /// # Errors
    /// If the process failed.
    pub fn finish(mut self) -> anyhow::Result<Vec<Row>> {
        let code = self.process.wait()?;
        ensure!(
            code == Some(0),
            "the fleet failed ({code:?}); its log ends:\n{}",
            self.process.log_tail()
        );
        let report = fs::read(&self.report).context("the fleet wrote no report")?;
        Ok(serde_json::from_slice(&report)?)
    }
}

/// Who is free to come, and how often each has been where.
#[derive(Debug)]
struct Crowd {
    users: Vec<(IdToken, bool)>,
    visits: Vec<[u32; 3]>,
    busy: BTreeSet<usize>,
    rng: fastrand::Rng,
}

impl Crowd {
    /// Somebody for a kind, who is then busy.
    fn come(&mut self, kind: Kind) -> Option<(usize, IdToken)> {
        let good = self.rng.u32(0..BAD_ONE_IN) != 0;
        let slot = usize::from(kind.code()) % 3;
        let free = |i: &usize| self.users[*i].1 == good && self.visits[*i][slot] < VISITS_MAX && !self.busy.contains(i);
        let candidates: Vec<usize> = (0..self.users.len()).filter(free).collect();
        let user = *candidates.get(self.rng.usize(0..candidates.len().max(1)))?;
        self.visits[user][slot] += 1;
        self.busy.insert(user);
        Some((user, self.users[user].0.clone()))
    }
}

/// Runs a fleet as ordered; the exit code is the process's affair.
///
/// # Errors
/// If the orders cannot be followed.
pub async fn run(orders: Orders) -> anyhow::Result<()> {
    let token = |text: &str| -> anyhow::Result<IdToken> {
        let bytes: Result<Vec<u8>, _> = (0..text.len() / 2)
            .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16))
            .collect();
        Ok(IdToken::new(TokenKind::Card, &bytes?)?)
    };
    let users: Vec<(IdToken, bool)> = orders
        .users
        .iter()
        .map(|(text, good)| Ok((token(text)?, *good)))
        .collect::<anyhow::Result<_>>()?;
    let crowd = Crowd {
        visits: vec![[0; 3]; users.len()],
        users,
        busy: BTreeSet::new(),
        rng: fastrand::Rng::with_seed(orders.seed),
    };
    let crowd = Arc::new(Mutex::new(crowd));
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (i, (id, kind, secret)) in orders.devices.iter().enumerate() {
        let kind = Kind::SERVED
            .into_iter()
            .find(|served| served.word() == kind)
            .context("a kind that is served")?;
        let config = Config::new(*id, kind, 1, secret.parse()?);
        let seat = Seat {
            twin: Twin::new(hurried(config), orders.seed ^ i as u64, SPEED, 0)?,
            crowd: crowd.clone(),
            rng: fastrand::Rng::with_seed(orders.seed.wrapping_mul(31).wrapping_add(i as u64)),
            started,
            last_ms: (orders.seconds * 1000.0) as u64,
            options: Options {
                user: Some((
                    id.to_string(),
                    secret.parse::<proto::seal::PairSecret>()?.password().to_string(),
                )),
                keep_alive_s: 5,
                filters: vec![(topic::down_filter(id).to_string(), Qos::AtLeastOnce)],
                packet_bytes_max: FRAME_BYTES_MAX as u32 + 512,
                ..Options::new(&orders.broker, id.to_string())
            },
            rows: Vec::new(),
        };
        tasks.spawn(seat.run());
    }
    let mut rows: Vec<Row> = Vec::new();
    while let Some(seat) = tasks.join_next().await {
        rows.extend(seat?);
    }
    rows.sort_by_key(|row| row.asked_ms);
    fs::write(&orders.report, serde_json::to_vec(&rows)?)?;
    Ok(())
}

/// People in a minute-long evening do not stand minutes before a full battery.
fn hurried(mut config: Config) -> Config {
    config.tuning.full_after_ms = 1_000;
    config.tuning.done_after_ms = 500;
    config.tuning.flow_stop_after_ms = 800;
    config
}

/// One device and who stands before it.
struct Seat {
    twin: Twin,
    crowd: Arc<Mutex<Crowd>>,
    rng: fastrand::Rng,
    started: Instant,
    last_ms: u64,
    options: Options,
    rows: Vec<(usize, SessionId)>,
}

impl Seat {
    async fn run(mut self) -> Vec<Row> {
        let mut backoff = Backoff::new(RECONNECT_S_MAX);
        let mut connection = Connection::open(&self.options);
        let mut reconnect_at: Option<Instant> = None;
        let mut visit: Option<(usize, Visit)> = None;
        let mut next_visit_ms = self.rng.u64(500..4_000);
        loop {
            let now_ms = self.now_ms();
            let mut said = self.twin.step(now_ms);
            if let Some((user, current)) = &mut visit {
                said.extend(current.step(now_ms, &mut self.twin));
                if current.is_gone() {
                    self.went(*user, current.session());
                    visit = None;
                    next_visit_ms = now_ms + self.rng.u64(100..2_500);
                }
            } else if now_ms >= next_visit_ms && now_ms < self.last_ms {
                visit = self.arrives(now_ms);
                next_visit_ms = now_ms + 500;
            }
            publish(&connection, said);
            let all_closed = visit.is_none() && now_ms >= self.last_ms && self.all_closed();
            if all_closed {
                return self.report();
            }
            if now_ms >= self.last_ms + FINISH_S_MAX * 1000 {
                let (id, device) = (self.twin.config().id, self.twin.device());
                eprintln!("{id} is not done, and the time is up: {device:?}, visit {visit:?}");
                return self.report();
            }
            if reconnect_at.is_some_and(|at| at <= Instant::now()) {
                reconnect_at = None;
                connection = Connection::open(&self.options);
            }
            let wake = Duration::from_millis(self.wake_ms(now_ms));
            if reconnect_at.is_some() {
                tokio::time::sleep(wake).await; // The world's pace, up to the next thing that happens in it.
                continue;
            }
            let Ok(event) = tokio::time::timeout(wake, connection.next()).await else {
                continue;
            };
            let now_ms = self.now_ms();
            match event {
                Event::Up => {
                    backoff.reset();
                    let said = self.twin.link(now_ms, true);
                    publish(&connection, said);
                }
                Event::Message(message) => {
                    let said = self.twin.message(now_ms, &message.topic, &message.payload);
                    message.ack.accept();
                    publish(&connection, said);
                }
                Event::Symptom(_) => {}
                Event::Down(_) => {
                    self.twin.link(now_ms, false);
                    reconnect_at = Some(Instant::now() + backoff.next_wait());
                }
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn wake_ms(&self, now_ms: u64) -> u64 {
        let due = self.twin.next_ms().map_or(LOOK_MS, |at| at.saturating_sub(now_ms));
        due.clamp(1, LOOK_MS)
    }

    fn arrives(&mut self, now_ms: u64) -> Option<(usize, Visit)> {
        let kind = self.twin.config().kind;
        let (user, token) = self.crowd.lock().expect("nothing panics under this lock").come(kind)?;
        let leaves = match self.rng.u32(0..10) {
            0..5 => Leaves::WhenDone,
            5..8 => Leaves::ByToken(self.rng.u64(2_100..4_000)),
            _ => Leaves::ByTaking(self.rng.u64(800..4_000)),
        };
        let thing = match kind {
            Kind::Washer => Thing::Laundry,
            Kind::Dispenser => Thing::Vessel {
                volume_ml: self.rng.u64(300..3_000),
            },
            Kind::Charger | Kind::Unknown => {
                let capacity_wh = self.rng.u64(300..900);
                let charge_wh = capacity_wh * self.rng.u64(20..90) / 100;
                Thing::Battery(Battery {
                    capacity_wh,
                    charge_wh,
                    power_w: self.rng.u64(200..900),
                })
            }
        };
        let plan = Plan {
            outlet: 0,
            token,
            units_wished: Units::ZERO,
            thing,
            leaves,
            patience_ms: 20_000,
        };
        Some((user, Visit::new(plan, now_ms)))
    }

    fn went(&mut self, user: usize, session: Option<SessionId>) {
        let Some(session) = session else {
            self.crowd
                .lock()
                .expect("nothing panics under this lock")
                .busy
                .remove(&user);
            return;
        };
        self.rows.push((user, session));
        // Who has no receipt yet may still have a session open at the gateway; such a user does not come again.
        if self
            .twin
            .truth()
            .session(session)
            .is_none_or(crate::twin::SessionTruth::is_closed)
        {
            self.crowd
                .lock()
                .expect("nothing panics under this lock")
                .busy
                .remove(&user);
        }
    }

    fn all_closed(&self) -> bool {
        self.twin.truth().sessions().all(crate::twin::SessionTruth::is_closed)
    }

    fn report(&self) -> Vec<Row> {
        let config = self.twin.config();
        let rows = self.rows.iter().filter_map(|(user, session)| {
            let truth = self.twin.truth().session(*session)?;
            let refused = match truth.verdict {
                Verdict::Refused(reason) => Some(reason.word().to_owned()),
                Verdict::Granted { .. } | Verdict::Unanswered => None,
            };
            Some(Row {
                session: session.to_string(),
                device: config.id.to_string(),
                kind: config.kind.word().to_owned(),
                user: *user,
                asked_ms: truth.asked_ms,
                verdict_ms: truth.verdict_ms.map(|at| at.saturating_sub(truth.asked_ms) as f64),
                granted: matches!(truth.verdict, Verdict::Granted { .. }),
                refused,
                abandoned: truth.verdict == Verdict::Unanswered && truth.ended.is_some(),
                started: truth.started_ms.is_some(),
                delivered_milli: truth.delivered_milli,
                ungranted_milli: truth.ungranted_milli,
                receipt_amount: truth.receipt.as_ref().map(|(_, receipt)| receipt.amount.0),
                shown: truth.shown.0,
                ended: truth.ended.map(|(_, reason)| format!("{reason:?}").to_lowercase()),
            })
        });
        rows.collect()
    }
}

fn publish(connection: &Connection, said: Vec<Outgoing>) {
    let sender = connection.sender();
    for message in said {
        // What cannot be sent now the device says again by itself.
        let _ = sender.publish(&message.topic, message.frame);
    }
}

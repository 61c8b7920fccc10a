//! Devices that ask: one after the other, many at once, or so many a second whatever the answers do. Each session is an
//! authorize with its grant, which is timed, and a stop with its receipt.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use proto::topic::{Down, Up};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Mutex, mpsc},
    task::JoinSet,
};

use super::{
    peer::{Answers, teach},
    seat::{Heard, Seat, WELCOME_BYTES},
};
use crate::site::{DevicePlan, Plan};

/// Bytes read at once.
const READ_BYTES: usize = 4_096;
/// How long an answer may take: nothing here is lost, so what does not come is a fault.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The gateway.
    Gateway,
    /// The peer, whose answers are canned.
    Peer,
}

/// Where the load goes, and by whom it is made.
#[derive(Clone, Debug)]
pub struct Target {
    /// Who answers.
    pub whom: Whom,
    /// Where.
    pub address: SocketAddr,
    devices: Arc<[DevicePlan]>,
    tokens: Arc<[[u8; 7]]>,
    /// Users take turns, so that none begins more sessions than one may.
    next: Arc<AtomicUsize>,
    /// Boots of the devices so far: counters grow from run to run.
    boot: Arc<AtomicUsize>,
}

/// What a load came to.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// From authorize to grant, each.
    pub waits: Vec<Duration>,
    /// Sessions begun and ended.
    pub sessions: usize,
    /// From the first to the last of them.
    pub took: Duration,
}

impl Load {
    /// Sessions a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.sessions as f64 / self.took.as_secs_f64()
    }
}

impl Target {
    /// The devices and users of a plan.
    #[must_use]
    pub fn new(whom: Whom, address: SocketAddr, plan: &Plan) -> Self {
        Self {
            whom,
            address,
            devices: plan.devices.iter().cloned().collect(),
            tokens: plan.users.iter().map(|user| user.token).collect(),
            next: Arc::default(),
            boot: Arc::new(AtomicUsize::new(1)),
        }
    }

    /// The same, somewhere else now.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self {
            address,
            ..self.clone()
        }
    }

    /// The same devices, in a later boot of theirs.
    #[must_use]
    pub fn booted(self, boot: usize) -> Self {
        self.boot.fetch_max(boot, Ordering::Relaxed);
        self
    }

    /// So many devices, connected and subscribed, that say nothing.
    ///
    /// # Errors
    /// If one is not let in.
    pub fn crowd(&self, devices: usize) -> anyhow::Result<Crowd> {
        let boot = self.boot()?;
        let lines = (0..devices).map(|number| Line::open(self.address, self.seat(number, boot)?));
        Ok(Crowd(lines.collect::<anyhow::Result<_>>()?))
    }

    /// Whole sessions with start and meter value, by so many devices at once: so many sessions of each, or as many as the
    /// time allows.
    ///
    /// # Errors
    /// If one is refused or not answered.
    pub fn whole(&self, devices: usize, each: Option<usize>, time: Duration) -> anyhow::Result<Load> {
        let runtime = runtime()?;
        runtime.block_on(async {
            let mut lines = self.connect(devices).await?;
            let since = Instant::now();
            let mut tasks = JoinSet::new();
            while let Some(mut line) = lines.pop() {
                let target = self.clone();
                tasks.spawn(async move {
                    let mut waits = Vec::new();
                    while each.is_none_or(|each| waits.len() < each) && since.elapsed() < time {
                        waits.push(line.authorize(target.token(), Instant::now()).await?);
                        line.deliver().await?;
                    }
                    anyhow::Ok(waits)
                });
            }
            gather(tasks, since).await
        })
    }

    fn seat(&self, number: usize, boot: u32) -> anyhow::Result<Seat> {
        let device = self.devices.get(number).context("the plan has fewer devices")?;
        let seat = Seat::new(device, boot);
        Ok(match self.whom {
            Whom::Gateway => seat,
            Whom::Peer => seat.canned(),
        })
    }

    fn boot(&self) -> anyhow::Result<u32> {
        Ok(u32::try_from(self.boot.fetch_add(1, Ordering::Relaxed))?)
    }

    fn token(&self) -> &[u8; 7] {
        &self.tokens[self.next.fetch_add(1, Ordering::Relaxed) % self.tokens.len()]
    }

    /// One device, so many sessions one after the other, on a blocking socket: nothing stands between it and the kernel.
    ///
    /// # Errors
    /// If it is refused or not answered.
    pub fn serial(&self, sessions: usize) -> anyhow::Result<Load> {
        let mut line = Line::open(self.address, self.seat(0, self.boot()?)?)?;
        line.greet(self.whom)?;
        let since = Instant::now();
        let mut waits = Vec::with_capacity(sessions);
        for _ in 0..sessions {
            waits.push(line.authorize(self.token())?);
            line.stop()?;
        }
        Ok(Load {
            sessions: waits.len(),
            waits,
            took: since.elapsed(),
        })
    }

    /// What the gateway answers to each of its devices, for the peer.
    ///
    /// # Errors
    /// If one is refused or not answered.
    pub fn answers(&self) -> anyhow::Result<Answers> {
        let mut answers = Answers::new();
        let boot = self.boot()?;
        for number in 0..self.devices.len() {
            let mut line = Line::open(self.address, self.seat(number, boot)?.keeping())?;
            line.greet(self.whom)?;
            line.authorize(self.token())?;
            let grant = line.seat.answer().context("a grant was heard")?;
            line.stop()?;
            let receipt = line.seat.answer().context("a receipt was heard")?;
            teach(
                &mut answers,
                &self.devices[number].id,
                [
                    (Up::Authorize, Down::Grant, grant.frame),
                    (Up::Stop, Down::Receipt, receipt.frame),
                ],
            );
        }
        Ok(answers)
    }

    /// So many devices at once, each asking again as soon as its session is over.
    ///
    /// # Errors
    /// If one is refused or not answered.
    pub fn closed(&self, devices: usize, time: Duration) -> anyhow::Result<Load> {
        let runtime = runtime()?;
        runtime.block_on(async {
            let mut lines = self.connect(devices).await?;
            let since = Instant::now();
            let until = since + time;
            let mut tasks = JoinSet::new();
            while let Some(mut line) = lines.pop() {
                let target = self.clone();
                tasks.spawn(async move {
                    let mut waits = Vec::new();
                    while Instant::now() < until {
                        waits.push(line.authorize(target.token(), Instant::now()).await?);
                        line.stop().await?;
                    }
                    anyhow::Ok(waits)
                });
            }
            gather(tasks, since).await
        })
    }

    /// So many sessions a second, begun at random by whichever of so many devices is free, whatever the answers do. A wait
    /// begins when the session was to begin.
    ///
    /// # Errors
    /// If one is refused or not answered.
    pub fn open(&self, devices: usize, a_second: u32, time: Duration, seed: u64) -> anyhow::Result<Load> {
        let runtime = runtime()?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let receiver = Arc::new(Mutex::new(receiver));
        runtime.block_on(async {
            let mut lines = self.connect(devices).await?;
            let since = Instant::now();
            let pace = std::thread::spawn(move || pace(&sender, since, a_second, time, seed));
            let mut tasks = JoinSet::new();
            while let Some(mut line) = lines.pop() {
                let (target, receiver) = (self.clone(), receiver.clone());
                tasks.spawn(async move {
                    let mut waits = Vec::new();
                    loop {
                        let due = receiver.lock().await.recv().await;
                        let Some(due) = due else { return anyhow::Ok(waits) };
                        waits.push(line.authorize(target.token(), due).await?);
                        line.stop().await?;
                    }
                });
            }
            let load = gather(tasks, since).await?;
            let begun = pace.join().map_err(|_| anyhow::anyhow!("the pace panicked"))?;
            ensure!(
                begun == load.sessions,
                "{begun} sessions begun, {} ended",
                load.sessions
            );
            Ok(load)
        })
    }

    async fn connect(&self, devices: usize) -> anyhow::Result<Vec<Wire>> {
        let boot = self.boot()?;
        let mut lines = Vec::with_capacity(devices);
        for number in 0..devices {
            let mut line = Wire::open(self.address, self.seat(number, boot)?).await?;
            line.greet(self.whom).await?;
            lines.push(line);
        }
        Ok(lines)
    }
}

/// One thread: the machine's cores are for whoever answers.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn gather(mut tasks: JoinSet<anyhow::Result<Vec<Duration>>>, since: Instant) -> anyhow::Result<Load> {
    let mut waits = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        waits.extend(ended??);
    }
    Ok(Load {
        sessions: waits.len(),
        waits,
        took: since.elapsed(),
    })
}

/// Says when sessions begin: as often as wanted in the mean, at random times. Returns how many.
fn pace(sender: &mpsc::UnboundedSender<Instant>, since: Instant, a_second: u32, time: Duration, seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut due, mut begun) = (since, 0);
    loop {
        due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / f64::from(a_second));
        if due > since + time {
            return begun;
        }
        // The arrival of people is an input of this measurement.
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if sender.send(Instant::now()).is_err() {
            return begun;
        }
        begun += 1;
    }
}

/// Devices that are connected.
#[derive(Debug)]
pub struct Crowd(#[expect(dead_code, reason = "their connections stand as long as this lives")] Vec<Line>);

/// A seat on a blocking socket.
#[derive(Debug)]
pub(crate) struct Line {
    stream: TcpStream,
    pub(crate) seat: Seat,
}

impl Line {
    pub(crate) fn open(address: SocketAddr, seat: Seat) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&seat.knock())?;
        let mut welcome = [0; WELCOME_BYTES];
        stream.read_exact(&mut welcome)?;
        Seat::check_welcome(&welcome)?;
        Ok(Self { stream, seat })
    }

    /// Says hello to a gateway.
    pub(crate) fn greet(&mut self, whom: Whom) -> anyhow::Result<()> {
        if whom == Whom::Gateway {
            self.seat.hello();
            let (heard, _) = self.hear()?;
            ensure!(heard == Heard::Clock, "a hello is answered by the clock");
        }
        Ok(())
    }

    /// From the first byte of the request to the last of the grant.
    pub(crate) fn authorize(&mut self, token: &[u8]) -> anyhow::Result<Duration> {
        self.seat.authorize(token)?;
        let since = Instant::now();
        match self.hear()? {
            (Heard::Grant(_), at) => Ok(at - since),
            (Heard::Clock | Heard::Receipt(_) | Heard::Acknowledged, _) => bail!("no grant"),
        }
    }

    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.seat.stop(false);
        ensure!(matches!(self.hear()?.0, Heard::Receipt(_)), "no receipt");
        Ok(())
    }

    /// Writes what is to be written; the next message, and when it was there, before it was opened.
    fn hear(&mut self) -> anyhow::Result<(Heard, Instant)> {
        let mut bytes = [0; READ_BYTES];
        loop {
            if !self.seat.out.is_empty() {
                self.stream.write_all(&self.seat.out)?;
                self.seat.out.clear();
            }
            if let Some(heard) = self.seat.hear()? {
                return Ok((heard, Instant::now()));
            }
            let read = self.stream.read(&mut bytes).context("no answer")?;
            let at = Instant::now();
            ensure!(read > 0, "the connection was closed");
            self.seat.receive(&bytes[..read]);
            if let Some(heard) = self.seat.hear()? {
                return Ok((heard, at));
            }
        }
    }
}

/// The same, one of many on a thread.
struct Wire {
    stream: tokio::net::TcpStream,
    seat: Seat,
}

impl Wire {
    async fn open(address: SocketAddr, seat: Seat) -> anyhow::Result<Self> {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&seat.knock()).await?;
        let mut welcome = [0; WELCOME_BYTES];
        stream.read_exact(&mut welcome).await?;
        Seat::check_welcome(&welcome)?;
        Ok(Self { stream, seat })
    }

    async fn greet(&mut self, whom: Whom) -> anyhow::Result<()> {
        if whom == Whom::Gateway {
            self.seat.hello();
            let (heard, _) = self.hear().await?;
            ensure!(heard == Heard::Clock, "a hello is answered by the clock");
        }
        Ok(())
    }

    async fn authorize(&mut self, token: &[u8], since: Instant) -> anyhow::Result<Duration> {
        self.seat.authorize(token)?;
        match self.hear().await? {
            (Heard::Grant(_), at) => Ok(at - since),
            (Heard::Clock | Heard::Receipt(_) | Heard::Acknowledged, _) => bail!("no grant"),
        }
    }

    /// Start, meter value, stop.
    async fn deliver(&mut self) -> anyhow::Result<()> {
        for say in [Seat::started, Seat::meter] {
            say(&mut self.seat);
            let heard = self.hear().await?.0;
            ensure!(heard == Heard::Acknowledged, "not acknowledged, but {heard:?}");
        }
        self.seat.stop(true);
        ensure!(matches!(self.hear().await?.0, Heard::Receipt(_)), "no receipt");
        Ok(())
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.seat.stop(false);
        ensure!(matches!(self.hear().await?.0, Heard::Receipt(_)), "no receipt");
        Ok(())
    }

    async fn hear(&mut self) -> anyhow::Result<(Heard, Instant)> {
        let mut bytes = [0; READ_BYTES];
        loop {
            if !self.seat.out.is_empty() {
                self.stream.write_all(&self.seat.out).await?;
                self.seat.out.clear();
            }
            if let Some(heard) = self.seat.hear()? {
                return Ok((heard, Instant::now()));
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut bytes));
            let read = read.await.context("no answer")??;
            let at = Instant::now();
            ensure!(read > 0, "the connection was closed");
            self.seat.receive(&bytes[..read]);
            if let Some(heard) = self.seat.hear()? {
                return Ok((heard, at));
            }
        }
    }
}

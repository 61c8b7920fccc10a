//! Twins as rigs: the real `device` code on models of the machines, in a thread of its own, at the real gateway through
//! the same module as a board. Its clock runs faster than the world's, so that nobody waits for it.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use carrier::Qos;
use carrier::mqtt::{Backoff, Connection, Event, Options};
use device::{Config, Screen};
use proto::{
    id::{IdToken, Kind, OutletId, TokenKind},
    identity::Identity,
    money::Units,
    seal::FRAME_BYTES_MAX,
    topic,
};

use crate::{
    rig::{Not, Order, Rig, Skill, Supplier, log::Log, module::Module, words},
    twin::{Injury, Outgoing, Thing, Twin},
};

/// How much faster the twin's clock runs: the gateway's two seconds for an answer must stay short of the device's thirty.
const HASTE: u32 = 10;
/// How much faster batteries fill and washers wash than the twin's clock runs.
const SPEED: u32 = 120;
/// The outlet of every scenario.
const OUTLET: OutletId = 0;
/// Digits of a keypad token; a voucher's line is longer.
const KEYPAD_DIGITS: usize = 12;
/// Longest pause of the twin's thread, in ms.
const LOOK_MS: u64 = 5;
/// Longest wait of a twin between two connection attempts, in s.
const RECONNECT_S_MAX: u64 = 1;
/// Finds a dead link in one and a half times this, in s.
const KEEP_ALIVE_S: u16 = 5;
/// Pace of the world around it, in ms.
const STEP_MS: u64 = 2;

/// Twins.
#[derive(Clone, Copy, Debug)]
pub struct Twins;

impl Supplier for Twins {
    fn name(&self) -> &str {
        "twin"
    }

    fn has(&self, _kind: Kind) -> Result<(), Not> {
        Ok(())
    }

    fn can(&self, _kind: Kind, skill: Skill) -> Result<(), Not> {
        match skill {
            Skill::Processor => Err(Not::because("a twin has no processor of its own")),
            Skill::Card
            | Skill::Line
            | Skill::Stop
            | Skill::Things
            | Skill::BigThings
            | Skill::Power
            | Skill::Cable
            | Skill::Injure(_) => Ok(()),
        }
    }

    fn supply(&self, order: &Order<'_>) -> anyhow::Result<Box<dyn Rig>> {
        Ok(Box::new(TwinRig::start(order)?))
    }
}

/// A twin, and the thread in which it lives.
#[derive(Debug)]
struct TwinRig {
    shared: Arc<Shared>,
    module: Module,
    kind: Kind,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    log: Log,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    twin: Twin,
    said: Vec<Outgoing>,
    is_linked: bool,
    /// How often the power went: no connection outlives it.
    cuts: u32,
    ended: bool,
}

impl Shared {
    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64 * u64::from(HASTE)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics under this lock")
    }

    /// Does something to the twin, and notes what it shows and says.
    fn act<T>(&self, act: impl FnOnce(&mut Twin, u64) -> (T, Vec<Outgoing>)) -> T {
        let mut inner = self.inner();
        let now_ms = self.now_ms();
        let (done, mut said) = act(&mut inner.twin, now_ms);
        let kind = inner.twin.config().kind;
        let screens: Vec<Screen> = inner.twin.take_shown().map(|(_, screen)| screen).collect();
        for screen in screens {
            if let Some(line) = words::line(&screen) {
                self.log.push(format!("{now_ms} INFO  {line}"));
            }
            // A board gives its coin by itself.
            if kind == Kind::Washer && matches!(screen, Screen::Begin { .. }) {
                said.extend(inner.twin.press_start(now_ms, OUTLET));
            }
        }
        let is_linked = inner.twin.device().is_some_and(device::Device::is_linked);
        if is_linked != inner.is_linked {
            inner.is_linked = is_linked;
            // Who has no power says nothing.
            if inner.twin.is_powered() {
                let word = if is_linked { words::LINKED } else { words::UNLINKED };
                self.log.push(format!("{now_ms} INFO {word}"));
            }
        }
        inner.said.extend(said);
        done
    }
}

impl TwinRig {
    fn start(order: &Order<'_>) -> anyhow::Result<Self> {
        let identity = Identity::read(order.page)?;
        let (id, kind, login) = (identity.id, identity.kind, identity.secret.password().to_string());
        // Water runs as fast as it does: people stand there.
        let speed = if kind == Kind::Dispenser { 1 } else { SPEED };
        let twin = Twin::new(Config::provisioned(identity), 1, speed, 0)?;
        let module = Module::start(order.gateway)?;
        let options = Options {
            user: Some((id.to_string(), login)),
            keep_alive_s: KEEP_ALIVE_S,
            filters: vec![(topic::down_filter(&id).to_string(), Qos::AtLeastOnce)],
            packet_bytes_max: FRAME_BYTES_MAX as u32 + 512,
            ..Options::new(module.address().to_string(), id.to_string())
        };
        let shared = Arc::new(Shared {
            began: Instant::now(),
            log: Log::default(),
            inner: Mutex::new(Inner {
                twin,
                said: Vec::new(),
                is_linked: false,
                cuts: 0,
                ended: false,
            }),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let living = shared.clone();
        let thread = thread::spawn(move || runtime.block_on(live(&living, &options)));
        Ok(Self {
            shared,
            module,
            kind,
            thread: Some(thread),
        })
    }
}

impl Drop for TwinRig {
    fn drop(&mut self) {
        self.shared.inner().ended = true;
        if let Some(thread) = self.thread.take() {
            // Its panic was printed where it happened.
            drop(thread.join());
        }
    }
}

/// The twin's connection, for as long as it has power.
async fn live(shared: &Shared, options: &Options) {
    let mut backoff = Backoff::new(RECONNECT_S_MAX);
    let mut connection: Option<Connection> = None;
    let mut connect_at = Instant::now();
    let mut cuts = 0;
    loop {
        shared.act(|twin, now_ms| ((), twin.step(now_ms)));
        let (ended, powered, cuts_now, said) = {
            let mut inner = shared.inner();
            let said = std::mem::take(&mut inner.said);
            (inner.ended, inner.twin.is_powered(), inner.cuts, said)
        };
        if ended {
            return;
        }
        if !powered || cuts != cuts_now {
            connection = None;
            cuts = cuts_now;
        } else if connection.is_none() && connect_at <= Instant::now() {
            connection = Some(Connection::open(options));
        }
        let pause = Duration::from_millis(LOOK_MS);
        let Some(open) = &mut connection else {
            tokio::time::sleep(pause).await;
            continue;
        };
        for said in said {
            // A full window is a link that does not move: the device says everything again.
            drop(open.sender().publish(&said.topic, said.frame));
        }
        let Ok(event) = tokio::time::timeout(pause, open.next()).await else {
            continue;
        };
        match event {
            Event::Up => {
                backoff.reset();
                shared.act(|twin, now_ms| ((), twin.link(now_ms, true)));
            }
            Event::Message(message) => {
                shared.act(|twin, now_ms| ((), twin.message(now_ms, &message.topic, &message.payload)));
                message.ack.accept();
            }
            Event::Symptom(_) => {}
            Event::Down(_) => {
                shared.act(|twin, now_ms| ((), twin.link(now_ms, false)));
                connection = None;
                connect_at = Instant::now() + backoff.next_wait();
            }
        }
    }
}

impl Rig for TwinRig {
    fn kind_of_rig(&self) -> &'static str {
        "twin"
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn haste(&self) -> u32 {
        HASTE
    }

    fn log(&self) -> &Log {
        &self.shared.log
    }

    fn module(&self) -> &Module {
        &self.module
    }

    fn step(&mut self) -> anyhow::Result<()> {
        let is_alive = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        anyhow::ensure!(is_alive, "the twin's thread ended");
        thread::sleep(Duration::from_millis(STEP_MS)); // The world's own pace; whoever calls has a limit.
        Ok(())
    }

    fn tap(&mut self, uid: &[u8]) -> anyhow::Result<()> {
        let token = IdToken::new(TokenKind::Card, uid)?;
        self.shared.act(|twin, now_ms| {
            let (_, said) = twin.present(now_ms, OUTLET, token, Units::ZERO);
            ((), said)
        });
        Ok(())
    }

    fn scan(&mut self, line: &str) -> anyhow::Result<()> {
        if line.len() == KEYPAD_DIGITS && line.bytes().all(|byte| byte.is_ascii_digit()) {
            let token = IdToken::new(TokenKind::Keypad, line.as_bytes())?;
            self.shared.act(|twin, now_ms| {
                let (_, said) = twin.present(now_ms, OUTLET, token, Units::ZERO);
                ((), said)
            });
            return Ok(());
        }
        let pairs = line.as_bytes().chunks(2).map(|pair| {
            let digits = std::str::from_utf8(pair).context("not a line of digits")?;
            Ok(u8::from_str_radix(digits, 16)?)
        });
        let envelope: Vec<u8> = pairs.collect::<anyhow::Result<_>>()?;
        self.shared
            .act(|twin, now_ms| ((), twin.present_voucher(now_ms, OUTLET, &envelope)));
        Ok(())
    }

    fn press_stop(&mut self) -> anyhow::Result<()> {
        self.shared.act(|twin, now_ms| ((), twin.press_stop(now_ms, OUTLET)));
        Ok(())
    }

    fn bring(&mut self, thing: Thing) -> anyhow::Result<()> {
        self.shared.act(|twin, now_ms| ((), twin.bring(now_ms, OUTLET, thing)));
        Ok(())
    }

    fn take_away(&mut self) -> anyhow::Result<()> {
        self.shared.act(|twin, now_ms| ((), twin.take_away(now_ms, OUTLET)));
        Ok(())
    }

    fn power(&mut self, on: bool) -> anyhow::Result<()> {
        self.shared.act(|twin, now_ms| {
            if on {
                match twin.power_restore(now_ms) {
                    Ok(said) => (Ok(()), said),
                    Err(error) => (Err(error), Vec::new()),
                }
            } else {
                twin.power_cut(now_ms);
                (Ok(()), Vec::new())
            }
        })?;
        if !on {
            // What it had said and was not sent yet is gone with its power.
            let mut inner = self.shared.inner();
            inner.said.clear();
            inner.cuts += 1;
        }
        Ok(())
    }

    fn injure(&mut self, injury: Injury, is_injured: bool) -> anyhow::Result<()> {
        self.shared
            .act(|twin, now_ms| ((), twin.injure(now_ms, OUTLET, injury, is_injured)));
        Ok(())
    }

    fn is_on(&mut self) -> anyhow::Result<bool> {
        Ok(self.shared.inner().twin.is_on(OUTLET))
    }

    fn delivered_milli(&mut self) -> anyhow::Result<u64> {
        Ok(self.shared.inner().twin.delivered_milli())
    }

    fn is_running(&mut self) -> bool {
        self.shared.inner().twin.is_running(OUTLET)
    }

    fn coins(&mut self) -> Option<u32> {
        None
    }

    fn cpu_ms(&self) -> anyhow::Result<u64> {
        anyhow::bail!("a twin has no processor of its own")
    }
}

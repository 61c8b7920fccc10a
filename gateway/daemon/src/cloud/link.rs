//! The link to the operator's backend through one cloud: connects, asks, uploads, and connects again, for ever. It decides
//! nothing. What must not be lost is in the journal; the link only reads from there, and starts again at the cursor
//! with every connection. Of several links the one that goes first ([`super::board`]) asks and uploads; the others
//! stand by, and bring artifacts and orders as well.

mod asked;
mod hub;
mod send;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use carrier::{Class, Event, STABLE_S, Sender, Symptom};
use gateway_core::{Input, pace::Throttle};
use journal::Reader;
use proto::{
    id::{GatewayId, Name},
    link::Echo,
    seal::{Counter, PairSecret},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use self::{
    asked::Asked,
    send::{Sent, Weight},
};
use crate::{
    artifacts::{Assembly, Desk, Gone, WHOLES_MAX, Whole},
    clock::Clock,
    cloud::{
        LinkJob,
        adapter::{self, Adapter, At, Meaning, Out},
        board::{Board, Stage},
        breaker::Breaker,
        diary::Diary,
        fence::Fence,
        lane::Road,
        reconnect::{Reconnect, floor},
        reports::Reports,
        sealed::Sealed,
        uploads::Uploads,
    },
    config::{CloudConfig, Pacing},
    engine::{Job, Position},
};

/// Questions that may wait for the link.
pub const LINK_JOBS_MAX: usize = 256;
/// Code of a cloud that asks us to slow down.
const CODE_THROTTLED: u16 = 429;
/// First wait for the answer to a hello; doubles up to [`HELLO_WAIT_MAX`]. A cloud that throttles swallows hellos too.
const HELLO_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two hellos on one connection.
const HELLO_WAIT_MAX: Duration = Duration::from_secs(30);
/// Hellos without an answer that are a failure of the cloud.
const HELLOS_MAX: u32 = 4;
/// How often a cloud that stands by is greeted.
const STANDBY_HELLO_EVERY: Duration = Duration::from_secs(300);
/// Shortest time between two requests for the whole list: 100,000 tokens are 8 MB.
const FETCH_LIST_EVERY: Duration = Duration::from_secs(30);
/// Shortest time between a hello and one for which the cloud asks: nothing proves that there is anything newer, and each is
/// a durable write at the hub.
const NEWER_EVERY: Duration = Duration::from_secs(10);
/// How often an unfinished upload is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Nonces of the link's own echoes: far from those of the core, which are milliseconds.
const OWN_ECHO: u64 = 1 << 63;

/// What the link needs.
pub struct Link {
    /// Our site.
    pub site: Name,
    /// Our name.
    pub gateway: GatewayId,
    /// Shared with the hub.
    pub secret: PairSecret,
    /// Counts over all lanes.
    pub counter: Arc<Mutex<Counter>>,
    /// Which cloud, and how it is reached.
    pub cloud: CloudConfig,
    /// How fast.
    pub pacing: Pacing,
    /// Where artifacts go.
    pub desk: Desk,
    /// To the engine.
    pub engine: mpsc::Sender<Job>,
    /// From the engine.
    pub jobs: mpsc::Receiver<LinkJob>,
    /// Where the gateway stands.
    pub position: watch::Receiver<Position>,
    /// The journal.
    pub reader: Reader,
    /// Who goes first.
    pub board: Board,
    /// Whether the hub takes anything of this epoch.
    pub fence: Fence,
}

/// What lives as long as the link.
struct Life {
    began: Instant,
    clock: Clock,
    breaker: Breaker,
    diary: Diary,
    reports: Reports,
    stage: Stage,
    /// Since when the connection stands.
    up: Option<Instant>,
    /// The nonce of the breaker's last probe.
    probe: Option<u64>,
    asked: Asked,
    /// Artifacts to be checked.
    wholes: mpsc::Sender<Whole>,
    /// What was left of a throttle when, if the hub greeted us since we began.
    throttled: Option<(Instant, Throttle)>,
}

/// What lives as long as a connection.
struct Talk {
    sender: Sender,
    out: Out,
    assembly: Assembly,
    uploads: Option<Uploads>,
    /// When to say hello next, once the cloud lets us and until it is answered; how long to wait then; how often it was
    /// said.
    hello: Option<(Instant, Duration, u32)>,
    /// When it was said last.
    said_hello: Instant,
    /// When to say hello because the cloud points at something newer.
    newer: Option<Instant>,
    /// When to ask for the whole list, and when that was done last.
    fetch_list: Option<Instant>,
    fetched: Option<Instant>,
    /// Longest frame that the cloud takes, in bytes.
    frame_bytes_max: usize,
    /// Whether this cloud went first at the last look.
    first: bool,
    /// Why the connection is no good.
    broken: Option<Symptom>,
}

/// When to say hello to a cloud that points at something newer.
fn newer_at(said_hello: Instant, now: Instant) -> Instant {
    now.max(said_hello + NEWER_EVERY)
}

fn far_away() -> Instant {
    Instant::now() + HELLO_WAIT_MAX
}

impl Life {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at(&self) -> At {
        let wall_s = self.clock.now().wall_s;
        At {
            mono_ms: self.now_ms(),
            wall_ms: (wall_s != 0).then_some(wall_s * 1_000),
        }
    }

    fn instant(&self, at_ms: u64) -> Instant {
        self.began + Duration::from_millis(at_ms)
    }
}

impl Link {
    /// Runs for ever, or until the engine is gone.
    pub async fn run(mut self) {
        let mut sealed = Sealed::new(
            self.site,
            self.gateway,
            self.cloud.lane,
            &self.secret,
            self.counter.clone(),
        );
        let mut adapter = self.cloud.adapter(self.site, self.gateway);
        let mut reconnect = Reconnect::new(self.pacing.reconnect_s_max);
        reconnect.first(Instant::now());
        let (wholes, inbox) = mpsc::channel(WHOLES_MAX);
        tokio::spawn(self.desk.clone().serve(inbox));
        let mut life = Life {
            began: Instant::now(),
            clock: Clock::start(),
            breaker: Breaker::new(self.pacing.failback_s * 1_000, fastrand::Rng::new()),
            diary: Diary::default(),
            reports: Reports::new(self.pacing.telemetry_s),
            stage: Stage::Down,
            up: None,
            probe: None,
            asked: Asked::default(),
            wholes,
            throttled: None,
        };
        loop {
            let since = Instant::now();
            life.up = None;
            let Ok(why) = self.connection(&mut sealed, &mut *adapter, &mut life).await else {
                return;
            };
            let was = life.stage;
            life.reports.lost();
            life.asked = Asked::default();
            self.fence.lost();
            // An attempt that hangs until its time is over was no good connection, however long it took.
            if life.up.is_some_and(|up| up.elapsed().as_secs() >= STABLE_S) {
                reconnect.reset();
            } else {
                let now_ms = life.now_ms();
                life.breaker.failed(now_ms);
            }
            if was == Stage::Greeted {
                // Another cloud carries the money until this one has proved itself.
                let now_ms = life.now_ms();
                life.breaker.broke(now_ms);
            }
            self.stage(&mut life, Stage::Down);
            self.note(&mut life, &why);
            life.diary.ended(&self.cloud.name, &why, was, since.elapsed());
            let now = Instant::now();
            let at = reconnect.next(now, floor(&why, life.diary.has_worked()));
            tracing::info!(cloud = self.cloud.name, %why, wait_ms = (at - now).as_millis() as u64, "no link to the hub");
            tokio::time::sleep_until(at).await;
            // Questions of before: their deadlines have passed, or will.
            while self.jobs.try_recv().is_ok() {}
        }
    }

    fn stage(&self, life: &mut Life, stage: Stage) {
        life.stage = stage;
        self.board.is(self.cloud.lane, stage, life.breaker.is_open());
    }

    /// What is wrong, for the status; and for the breaker, if it is the cloud that is wrong.
    fn note(&self, life: &mut Life, symptom: &Symptom) {
        self.board.suffers(self.cloud.lane, symptom.clone());
        let now_ms = life.now_ms();
        match symptom.class {
            Class::Denied | Class::Broken | Class::Billing | Class::Intercepted => life.breaker.failed(now_ms),
            Class::HalfDead => life.breaker.broke(now_ms),
            // No connection says by its stage that there is none; the others are no fault of the cloud's, or no proof.
            Class::Partition
            | Class::Clock
            | Class::Claimed
            | Class::Throttled
            | Class::Duplicate
            | Class::Protocol
            | Class::SessionLost => {}
        }
        self.stage(life, life.stage);
    }

    fn goes_first(&self) -> bool {
        self.board.ways().money == Some(self.cloud.lane)
    }

    async fn connection(
        &mut self,
        sealed: &mut Sealed,
        adapter: &mut dyn Adapter,
        life: &mut Life,
    ) -> Result<Symptom, Gone> {
        let login = adapter.login(life.at());
        let mut connection = match self.cloud.open(&login).await {
            Ok((connection, until_s)) => {
                self.board.certificate(self.cloud.lane, until_s);
                connection
            }
            Err(symptom) => return Ok(symptom),
        };
        let mut ways = self.board.watch();
        let mut talk = Talk {
            sender: connection.sender(),
            out: Out::default(),
            assembly: Assembly::default(),
            uploads: None,
            hello: None,
            said_hello: Instant::now(),
            newer: None,
            fetch_list: None,
            fetched: None,
            frame_bytes_max: adapter.frame_bytes_max(),
            first: false,
            broken: None,
        };
        loop {
            let wake = self.wake(adapter, life, &talk);
            tokio::select! {
                event = connection.next() => match event {
                    Event::Up => {
                        life.up = Some(Instant::now());
                        self.stage(life, Stage::Connected);
                        adapter.connected(life.at(), &mut talk.out);
                    }
                    Event::Message(message) => {
                        adapter.heard(life.at(), &message.topic, &message.payload, &mut talk.out);
                        message.ack.accept(); // Nothing here is lost by a crash: it is asked for again.
                    }
                    Event::Symptom(symptom) => talk.out.say(adapter::Heard::Symptom(symptom)),
                    Event::Down(why) => return Ok(why),
                },
                job = self.jobs.recv() => {
                    let job = job.ok_or(Gone)?;
                    self.job(sealed, adapter, life, &mut talk, job).await?;
                }
                report = life.reports.made() => {
                    let road = self.road(life, &talk);
                    if let Some(report) = life.reports.told(road, report) {
                        let (topic, frame) = sealed.telemetry(&report);
                        self.up(adapter, life, &mut talk, &topic, &frame, Meaning::Telemetry(&report));
                    }
                }
                changed = self.position.changed() => changed.map_err(|_| Gone)?,
                _ = ways.changed() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            self.heard(sealed, life, &mut talk).await?;
            if let Some(state) = &talk.uploads {
                life.throttled = Some((Instant::now(), state.throttle()));
            }
            self.turn(sealed, adapter, life, &mut talk);
            self.due(sealed, adapter, life, &mut talk);
            // An answer that came while we were busy is no silence.
            if connection.is_drained() {
                self.count_unanswered(life);
            }
            // Whoever stands at a device goes before what is long over.
            if self.jobs.is_empty() && talk.first {
                self.upload(sealed, adapter, life, &mut talk).await?;
            }
            if let Some(why) = talk.broken.take() {
                return Ok(why);
            }
            let every_s = self.position.borrow().telemetry_every_s;
            life.reports.set_every(every_s.unwrap_or(self.pacing.telemetry_s));
            life.reports.ask_when_due(&self.engine, self.road(life, &talk));
        }
    }

    /// When there is something to do without anybody saying so.
    fn wake(&self, adapter: &dyn Adapter, life: &Life, talk: &Talk) -> Instant {
        let later = Instant::now() + LOOK_AGAIN;
        let uploads = talk.uploads.as_ref().map_or(later, |state| {
            if state.wants_to_send(&self.position.borrow()) {
                (Instant::now() + Duration::from_millis(state.pace.wait_ms(state.now_ms()))).min(later)
            } else {
                later
            }
        });
        let hello = talk.hello.map_or_else(far_away, |(at, _, _)| at);
        // A cloud that has not greeted us is not probed: that time would have come for good.
        let probe_at = life.breaker.probe_at_ms().filter(|_| life.stage == Stage::Greeted);
        let own = [adapter.tick_at(), probe_at];
        let own = own
            .into_iter()
            .flatten()
            .min()
            .map_or_else(far_away, |at| life.instant(at));
        uploads
            .min(hello)
            .min(talk.newer.unwrap_or_else(far_away))
            .min(talk.fetch_list.unwrap_or_else(far_away))
            .min(own)
    }

    /// The cloud that goes first may have changed.
    fn turn(&self, sealed: &mut Sealed, adapter: &mut dyn Adapter, life: &mut Life, talk: &mut Talk) {
        let now = self.goes_first();
        if talk.first && !now {
            talk.uploads = None;
        }
        if now && !talk.first && talk.uploads.is_none() && talk.hello.is_none() && life.stage == Stage::Greeted {
            // What it said when it greeted us is old: others may have carried records since.
            self.hello(sealed, adapter, life, talk);
            talk.hello = Some((Instant::now() + HELLO_WAIT, HELLO_WAIT * 2, 1));
        }
        talk.first = now;
    }

    /// What time brings: the adapter's own, hellos, probes, questions without an answer.
    fn due(&self, sealed: &mut Sealed, adapter: &mut dyn Adapter, life: &mut Life, talk: &mut Talk) {
        let now = Instant::now();
        if adapter.tick_at().is_some_and(|at| life.instant(at) <= now) {
            adapter.tick(life.at(), &mut talk.out);
            self.flush(talk, Weight::Needed);
        }
        if let Some((_, wait, said)) = talk.hello.filter(|(at, _, _)| *at <= now) {
            if said == HELLOS_MAX {
                let symptom = Symptom::new(Class::HalfDead, 504, "no hello of ours is answered");
                self.note(life, &symptom);
            }
            self.hello(sealed, adapter, life, talk);
            talk.hello = Some((now + wait, (wait * 2).min(HELLO_WAIT_MAX), said.saturating_add(1)));
        }
        // A hub that has begun anew does not know who stands by.
        let is_standby = life.stage == Stage::Greeted && !talk.first && talk.hello.is_none();
        if is_standby && talk.said_hello + STANDBY_HELLO_EVERY <= now {
            self.hello(sealed, adapter, life, talk);
        }
        if talk.newer.is_some_and(|at| at <= now) {
            self.hello(sealed, adapter, life, talk);
        }
        if talk.fetch_list.is_some_and(|at| at <= now) {
            (talk.fetch_list, talk.fetched) = (None, Some(now));
            let mut position = *self.position.borrow();
            position.revisions.0 = 0;
            self.hello_as(sealed, adapter, life, talk, &position);
        }
        if life.stage == Stage::Greeted && life.breaker.probe_at_ms().is_some_and(|at| at <= life.now_ms()) {
            let now_ms = life.now_ms();
            life.breaker.probed(now_ms);
            let echo = Echo {
                nonce: OWN_ECHO | fastrand::u64(..),
            };
            life.probe = Some(echo.nonce);
            let (topic, frame) = sealed.echo(&echo);
            self.up(adapter, life, talk, &topic, &frame, Meaning::Echo(&echo));
        }
    }

    fn count_unanswered(&self, life: &mut Life) {
        let silent = life.asked.give_up(Instant::now());
        for _ in 0..silent {
            let now_ms = life.now_ms();
            life.breaker.failed(now_ms);
        }
        if silent > 0 {
            self.stage(life, life.stage);
        }
    }

    fn hello(&self, sealed: &mut Sealed, adapter: &mut dyn Adapter, life: &Life, talk: &mut Talk) {
        let position = *self.position.borrow();
        self.hello_as(sealed, adapter, life, talk, &position);
    }

    fn hello_as(
        &self,
        sealed: &mut Sealed,
        adapter: &mut dyn Adapter,
        life: &Life,
        talk: &mut Talk,
        position: &Position,
    ) {
        (talk.said_hello, talk.newer) = (Instant::now(), None);
        let (hello, topic, frame) = sealed.hello(position);
        self.up(adapter, life, talk, &topic, &frame, Meaning::Hello(&hello));
    }

    async fn job(
        &self,
        sealed: &mut Sealed,
        adapter: &mut dyn Adapter,
        life: &mut Life,
        talk: &mut Talk,
        job: LinkJob,
    ) -> Result<(), Gone> {
        if life.stage == Stage::Down {
            return Ok(());
        }
        match job {
            LinkJob::Ask(ask) => {
                let (topic, frame) = sealed.ask(&ask);
                match self.up(adapter, life, talk, &topic, &frame, Meaning::Ask(&ask)) {
                    Sent::Yes => life.asked.asked(ask.ask, Instant::now()),
                    Sent::No(code) => self.tell(Input::Trouble { ask: ask.ask, code }).await?,
                }
            }
            LinkJob::FetchList => {
                let due = talk.fetched.map_or_else(Instant::now, |at| at + FETCH_LIST_EVERY);
                talk.fetch_list = talk.fetch_list.or(Some(due));
            }
            // One that cannot be sent is one that is not answered: the core keeps the deadline.
            LinkJob::Echo(echo) => {
                let (topic, frame) = sealed.echo(&echo);
                self.up(adapter, life, talk, &topic, &frame, Meaning::Echo(&echo));
            }
            LinkJob::Hello => self.hello(sealed, adapter, life, talk),
            LinkJob::Done(done) => {
                let (topic, frame) = sealed.done(&done);
                self.up(adapter, life, talk, &topic, &frame, Meaning::Done(&done));
            }
        }
        Ok(())
    }

    /// The way to the hub, as what is shed first sees it.
    fn road(&self, life: &Life, talk: &Talk) -> Road {
        let position = *self.position.borrow();
        let is_way = self.board.ways().telemetry == Some(self.cloud.lane);
        let uploads = talk.uploads.as_ref();
        let is_alone = !self.goes_first();
        Road {
            is_agreed: is_way && life.reports.is_agreed() && (is_alone || uploads.is_some()),
            has_records: !is_alone && uploads.is_none_or(|state| state.refused || state.sent < position.head),
            is_free: is_alone
                || uploads.is_some_and(|state| state.may_tell(&position) && state.pace.is_free(state.now_ms())),
        }
    }

    async fn tell(&self, input: Input) -> Result<(), Gone> {
        self.engine.send(Job::Cloud(input)).await.map_err(|_| Gone)
    }

    /// Everything that the adapter heard.
    async fn heard(&mut self, sealed: &mut Sealed, life: &mut Life, talk: &mut Talk) -> Result<(), Gone> {
        self.flush(talk, Weight::Needed);
        while let Some(heard) = talk.out.heard.pop_front() {
            match heard {
                adapter::Heard::Ready => talk.hello = Some((Instant::now(), HELLO_WAIT, 0)),
                adapter::Heard::Frame { word, frame } => match sealed.open_frame(word, &frame) {
                    Ok(heard) => self.said(sealed, life, talk, heard).await?,
                    Err(bad) => tracing::warn!(cloud = self.cloud.name, %bad, "frame on the link dropped"),
                },
                adapter::Heard::Symptom(symptom) => self.symptom(life, talk, &symptom).await?,
                adapter::Heard::Newer => talk.newer = Some(newer_at(talk.said_hello, Instant::now())),
                adapter::Heard::Clock(wall_ms) => {
                    tracing::debug!(cloud = self.cloud.name, wall_ms, "the cloud's clock")
                }
            }
        }
        Ok(())
    }

    /// Evidence, never authority.
    async fn symptom(&self, life: &mut Life, talk: &mut Talk, symptom: &Symptom) -> Result<(), Gone> {
        self.note(life, symptom);
        life.diary.symptom(&self.cloud.name, symptom);
        life.asked.over(symptom.ask);
        let code = match symptom.class {
            Class::Throttled => {
                if let Some(state) = &mut talk.uploads {
                    state.slow_down();
                }
                CODE_THROTTLED
            }
            Class::Denied | Class::Broken | Class::HalfDead | Class::Billing | Class::Intercepted => symptom.code,
            // About one device, about our clock, about ourselves: the operator is told, nobody's verdict changes.
            Class::Partition
            | Class::Clock
            | Class::Claimed
            | Class::Duplicate
            | Class::Protocol
            | Class::SessionLost => return Ok(()),
        };
        if self.goes_first() {
            self.tell(Input::Trouble { ask: symptom.ask, code }).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a cloud points at something newer, in s after a hello -> when hello is said again.
    #[test]
    fn a_cloud_cannot_drive_hellos() {
        let said = Instant::now();
        let at = |s| said + Duration::from_secs(s);
        for (pointed_s, expected_s) in [(0, 10), (1, 10), (9, 10), (10, 10), (25, 25)] {
            assert_eq!(newer_at(said, at(pointed_s)), at(expected_s), "{pointed_s} s");
        }
    }
}

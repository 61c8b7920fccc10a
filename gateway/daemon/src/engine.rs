//! The loop. It owns the gateway's state and the journal, alone calls `decide` and `apply`, and lets no effect out
//! before the events behind it are on disk. Whatever waits while a batch is being synced shares the next sync; and when a
//! batch is full and more waits, the next one is decided while that one is being written.

mod configured;
mod gather;
mod tell;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use gateway_core::{Decision, Effect, Gateway, Ignored, Input, Now, Said};
use proto::{
    id::DeviceId,
    link::{Order, Telemetry},
    trust::{ArtifactKind, IssuerKey},
};
use service::{BEAT_EVERY, Heart};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use self::gather::Gather;
use crate::{
    clock::Clock,
    cloud::{LinkJob, board::Board},
    control::{self, Query},
    devices::{Ack, Opener, Port, Sealer},
    firmware,
    reload::Taken,
    store::{Mark, Store, StoreError},
};

/// Jobs that may wait; beyond it senders wait, and devices are not acknowledged.
pub const JOBS_MAX: usize = 1_024;
/// Most jobs that share one sync: bounds how long the first of them waits for the last.
pub const BATCH_JOBS_MAX: usize = 256;
/// Between two looks for records that were kept long enough: one segment a look is far more than any site writes.
const RETAIN_EVERY_MS: u64 = 60_000;
/// Code of the trouble that the engine itself reports when there is no link: as HTTP's "service unavailable".
const CODE_NO_LINK: u16 = 503;

/// What an order comes to when all is well.
pub const DONE: &str = "done";

/// Something for the engine.
#[derive(Debug)]
pub enum Job {
    /// A device said something.
    Device {
        /// Who.
        device: DeviceId,
        /// The counter under the seal.
        counter: u64,
        /// What.
        said: Said,
        /// Accepted after commit.
        ack: Ack,
    },
    /// From the link.
    Cloud(Input),
    /// The disk's reserve is reached, or there is room again.
    Disk {
        /// Whether it is reached.
        is_scarce: bool,
    },
    /// The operator's order, through a cloud.
    CloudOrder(Box<Order>),
    /// Where in the journal to look for ledger records behind this one.
    Find {
        /// A ledger sequence.
        ledger: u64,
        /// The nearest mark at or before it.
        reply: oneshot::Sender<Mark>,
    },
    /// Which keys may sign a kind of artifact now.
    Signers(ArtifactKind, oneshot::Sender<Vec<IssuerKey>>),
    /// Somebody wants something decided, and to know what became of it.
    Order(Box<Input>, oneshot::Sender<String>),
    /// Somebody looks.
    Query(Query, oneshot::Sender<serde_json::Value>),
    /// A device is told something about its firmware. Nothing hangs on it that would have to be durable first.
    Firmware(DeviceId, Box<firmware::Told>),
    /// The configuration was read again. Taken over whole, or not at all for the reason that is told.
    Reconfigure(Box<Taken>, oneshot::Sender<Result<(), String>>),
    /// The link has room for telemetry.
    Telemetry(oneshot::Sender<Telemetry>),
    /// Finish what has begun and stop.
    Shutdown,
}

/// What the link needs to know of the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Epoch of the journal.
    pub epoch: u32,
    /// Number of this boot.
    pub boot: u32,
    /// Newest ledger record that is durable.
    pub head: u64,
    /// Last one with a receipt.
    pub cursor: u64,
    /// Newest revisions adopted of list, revocations, tariffs.
    pub revisions: (u64, u64, u64),
    /// Revision of the leases.
    pub leases_revision: u64,
    /// Revision of the policy; 0: none.
    pub policy_revision: u64,
    /// Seconds between two reports of telemetry, as the operator ordered it; `None`: as configured.
    pub telemetry_every_s: Option<u64>,
}

/// The engine's surroundings.
pub struct Shell {
    /// To the devices.
    pub port: Port,
    /// To the link; none: a site without a cloud.
    pub link: Option<mpsc::Sender<LinkJob>>,
    /// Whether the link stands. A verdict does not wait for a link that is known to be down.
    pub link_up: Arc<AtomicBool>,
    /// How each cloud is.
    pub board: Board,
    /// The epoch that the hub expects, if it takes nothing of ours; 0: none.
    pub epoch_expected: Arc<AtomicU32>,
    /// For the link.
    pub position: watch::Sender<Position>,
    /// For counters.
    pub opener: Arc<Opener>,
    /// The keys of the configuration.
    pub issuer_keys: Vec<IssuerKey>,
    /// Artifacts that were not believed.
    pub rejected: Arc<AtomicU64>,
}

/// What may not leave before the events of its batch are durable.
#[derive(Default)]
struct Outgoing {
    effects: Vec<Effect>,
    acks: Vec<Ack>,
    replies: Vec<(oneshot::Sender<String>, String)>,
}

/// The engine.
pub struct Engine {
    gateway: Gateway,
    store: Store,
    sealer: Sealer,
    clock: Clock,
    shell: Shell,
    outgoing: Outgoing,
    /// What leaves when the batch that was lent is durable, and the position that it leads to.
    lent: Option<(Outgoing, Position)>,
    follow_ups: VecDeque<Input>,
    replayed: u64,
    heart: Heart,
    /// Days that records are kept; `None`: for ever.
    keep_d: Option<u32>,
    retained_ms: u64,
    gather: Gather,
}

impl Engine {
    /// After recovery, before the first device is served.
    ///
    /// # Errors
    /// If the first event cannot be made durable.
    pub fn start(
        gateway: Gateway,
        store: Store,
        sealer: Sealer,
        clock: Clock,
        shell: Shell,
        boot: u32,
        epoch: u32,
    ) -> Result<Self, StoreError> {
        let mut engine = Self {
            gateway,
            store,
            sealer,
            clock,
            shell,
            outgoing: Outgoing::default(),
            lent: None,
            follow_ups: VecDeque::new(),
            replayed: 0,
            heart: Heart::default(),
            keep_d: None,
            retained_ms: 0,
            gather: Gather::default(),
        };
        engine.take(&Input::Boot { boot, epoch });
        engine.commit()?;
        engine.store.catch_up(&engine.gateway);
        Ok(engine)
    }

    /// The watchdog listens to this heart: the loop beats it, and nobody else.
    #[must_use]
    pub fn with_heart(self, heart: Heart) -> Self {
        Self { heart, ..self }
    }

    /// Records that are older than so many days, and have their receipt, are removed.
    #[must_use]
    pub fn keeping(self, keep_d: u32) -> Self {
        Self {
            keep_d: Some(keep_d),
            ..self
        }
    }

    /// Looks now and then for what need not be kept any longer.
    fn retain(&mut self, now: &Now) -> Result<(), StoreError> {
        match self.keep_d {
            Some(keep_d) if now.mono_ms >= self.retained_ms + RETAIN_EVERY_MS => {
                self.retained_ms = now.mono_ms;
                self.store.retain(&self.gateway, now, keep_d)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// If the journal fails. Then nothing was let out that is not durable, and nothing more may be decided.
    pub async fn run(mut self, mut jobs: mpsc::Receiver<Job>) -> Result<(), StoreError> {
        loop {
            self.heart.beat();
            let deadline = self.gateway.next_deadline().map(|mono_ms| self.clock.instant(mono_ms));
            // Whoever has nothing to do shows that it is there.
            let beat = Instant::now() + BEAT_EVERY;
            let wake = deadline.map_or(beat, |at| beat.min(at.into()));
            let first = match self.lent {
                Some(_) => jobs.try_recv().ok().map(Some),
                None => tokio::time::timeout_at(wake, jobs.recv()).await.ok(),
            };
            let has_come = matches!(first, Some(Some(_)));
            let mut stop = match first {
                Some(Some(job)) => self.job(job),
                Some(None) => true,
                None => false,
            };
            let mut taken = usize::from(has_come);
            if has_come {
                stop |= self.take_waiting(&mut jobs, &mut taken);
                if !stop {
                    stop = self.gather(&mut jobs, &mut taken);
                }
                self.gather.took(taken);
            }
            self.tick();
            self.settle()?;
            let is_full = taken >= BATCH_JOBS_MAX && !jobs.is_empty();
            if is_full && !stop && self.follow_ups.is_empty() && !self.store.is_due() {
                self.lend()?;
                continue;
            }
            self.commit()?;
            while !self.follow_ups.is_empty() {
                while let Some(input) = self.follow_ups.pop_front() {
                    self.take(&input);
                }
                self.commit()?;
            }
            let now = self.clock.now();
            self.store.tend(&self.gateway);
            self.retain(&now)?;
            if stop {
                return self.store.close(&self.gateway);
            }
        }
    }

    /// Takes what waits, as long as the batch has room. Returns whether it is to stop.
    fn take_waiting(&mut self, jobs: &mut mpsc::Receiver<Job>, taken: &mut usize) -> bool {
        let mut stop = false;
        while *taken < BATCH_JOBS_MAX {
            let Ok(job) = jobs.try_recv() else { break };
            *taken += 1;
            stop |= self.job(job);
        }
        stop
    }

    /// Waits a little for as many jobs as the two batches before had. Returns whether it is to stop.
    fn gather(&mut self, jobs: &mut mpsc::Receiver<Job>, taken: &mut usize) -> bool {
        let Some(wanted) = self.gather.wanted() else {
            return false;
        };
        let since = std::time::Instant::now();
        let (mut last, mut stop) = (since, false);
        while *taken < wanted.jobs.min(BATCH_JOBS_MAX) && !stop {
            // The timers of the runtime are too coarse, and it has nothing else to do on this thread.
            wanted.pause();
            let before = *taken;
            stop = self.take_waiting(jobs, taken);
            let now = std::time::Instant::now();
            if *taken > before {
                last = now;
            }
            if now - last >= wanted.gap || now - since >= wanted.all {
                break;
            }
        }
        stop
    }

    fn job(&mut self, job: Job) -> bool {
        match job {
            Job::Device {
                device,
                counter,
                said,
                ack,
            } => {
                self.take(&Input::Device { device, counter, said });
                self.outgoing.acks.push(ack);
            }
            Job::Cloud(input) => {
                self.take(&input);
            }
            Job::Signers(kind, reply) => {
                let keys = self.gateway.trust().signers(kind, &self.shell.issuer_keys);
                drop(reply.send(keys));
            }
            Job::CloudOrder(order) => {
                self.take(&Input::CloudOrder(order));
            }
            Job::Order(input, reply) => {
                let mut outcome = String::new();
                self.take_and_tell(&input, |decision| outcome = tell::outcome(decision));
                self.outgoing.replies.push((reply, outcome));
            }
            Job::Disk { is_scarce } => {
                self.take(&Input::Disk { is_scarce });
            }
            // Who asks may have gone away; then nobody is there to be told.
            Job::Find { ledger, reply } => drop(reply.send(self.store.mark(ledger))),
            Job::Query(query, reply) => drop(reply.send(self.look().answer(&query))),
            Job::Firmware(device, told) => {
                if let Some((topic, frame)) = self.sealer.seal_firmware(&device, &told) {
                    self.shell.port.send(&topic, frame);
                }
            }
            Job::Reconfigure(taken, reply) => drop(reply.send(self.reconfigure(*taken))),
            Job::Telemetry(reply) => drop(reply.send(self.look().telemetry())),
            Job::Shutdown => return true,
        }
        false
    }

    fn look(&self) -> control::Look<'_> {
        control::Look {
            gateway: &self.gateway,
            now: self.clock.now(),
            dropped: self.shell.opener.dropped() + self.replayed,
            rejected: self.shell.rejected.load(Ordering::Relaxed),
            link: self.shell.link_up.load(Ordering::Relaxed),
            board: &self.shell.board,
            epoch_expected: self.shell.epoch_expected.load(Ordering::Relaxed),
            port: &self.shell.port,
            store: &self.store,
        }
    }

    fn tick(&mut self) {
        while self
            .gateway
            .next_deadline()
            .is_some_and(|at| at <= self.clock.now().mono_ms)
        {
            if !self.take(&Input::Tick) {
                break;
            }
        }
    }

    /// Decides and applies; what follows waits for the commit. Returns whether anything happened.
    fn take(&mut self, input: &Input) -> bool {
        self.take_and_tell(input, |_| {})
    }

    /// As [`Self::take`]; also has somebody told what was decided.
    fn take_and_tell(&mut self, input: &Input, tell: impl FnOnce(&Decision)) -> bool {
        let now = self.clock.now();
        let decision = self.gateway.decide(&now, input);
        if let Some(ignored) = decision.ignored {
            self.ignored(&ignored);
        }
        tell(&decision);
        let has_happened = !decision.events.is_empty();
        for event in decision.events {
            tell::report(&event);
            self.store.stage(&mut self.gateway, &now, event);
        }
        self.outgoing.effects.extend(decision.effects);
        has_happened
    }

    fn ignored(&mut self, ignored: &Ignored) {
        match ignored {
            Ignored::Replayed { .. } | Ignored::UnknownDevice(_) | Ignored::Kind(_) => {
                self.replayed += 1;
                tracing::debug!(%ignored, "message dropped");
            }
            Ignored::ForeignReceipt { .. } => tracing::warn!(%ignored, "receipt ignored"),
            // The newest comes again with every hello; an older one was kept by somebody.
            Ignored::Stale(stale) if stale.found < stale.active => tracing::error!(%ignored, "ALARM old artifact"),
            Ignored::Base { .. } | Ignored::Trailer { .. } => {
                tracing::warn!(%ignored, "the whole list is needed");
                if let Some(link) = &self.shell.link {
                    // A link that is down, or has no room, says hello by itself when it can.
                    let _ = link.try_send(LinkJob::FetchList);
                }
            }
            Ignored::OrderRepeated(_) => tracing::info!(%ignored, "order not run again"),
            Ignored::OtherGateway(_) => tracing::warn!(%ignored, "leases ignored"),
            Ignored::OtherEpoch(_)
            | Ignored::NotOpen(_)
            | Ignored::NotAsked(_)
            | Ignored::Stale(_)
            | Ignored::Aside { .. }
            | Ignored::NothingAside(_)
            | Ignored::NothingBefore(_)
            | Ignored::NoRing(_)
            | Ignored::OldReceipt { .. }
            | Ignored::NotDue => tracing::debug!(%ignored, "nothing to do"),
        }
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        if !self.store.is_clean() {
            let since = std::time::Instant::now();
            self.store.commit()?;
            self.gather.synced(since.elapsed());
            self.publish(self.position());
        }
        let outgoing = std::mem::take(&mut self.outgoing);
        self.let_out(outgoing);
        Ok(())
    }

    /// Has the batch made durable while the next one is decided.
    fn lend(&mut self) -> Result<(), StoreError> {
        let position = self.position();
        self.store.lend()?;
        self.lent = Some((std::mem::take(&mut self.outgoing), position));
        Ok(())
    }

    /// Waits for the batch that was lent, and lets out what hangs on it.
    fn settle(&mut self) -> Result<(), StoreError> {
        if let Some((outgoing, position)) = self.lent.take() {
            self.store.settle()?;
            self.publish(position);
            self.let_out(outgoing);
        }
        Ok(())
    }

    fn let_out(&mut self, outgoing: Outgoing) {
        for effect in outgoing.effects {
            self.run_effect(effect);
        }
        for ack in outgoing.acks {
            ack.accept();
        }
        for (reply, outcome) in outgoing.replies {
            // Who asked may have gone away.
            drop(reply.send(outcome));
        }
    }

    fn position(&self) -> Position {
        let time = self.gateway.timeline();
        let outbox = self.gateway.outbox();
        let trust = self.gateway.trust();
        let (_, revocations, tariffs) = trust.revisions();
        Position {
            epoch: time.epoch,
            boot: time.boot,
            head: outbox.head(),
            cursor: outbox.cursor(),
            // Whatever an operator went back from is not asked for again.
            revisions: (trust.list_newest(), revocations, tariffs),
            leases_revision: self.gateway.leases().revision(),
            policy_revision: self.gateway.policy_revision(),
            telemetry_every_s: self.gateway.orders().telemetry_every_s(),
        }
    }

    fn publish(&self, position: Position) {
        self.shell
            .position
            .send_if_modified(|known| std::mem::replace(known, position) != position);
    }

    fn run_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Send { device, message } => {
                if let Some((topic, frame)) = self.sealer.seal(&device, &message) {
                    self.shell.port.send(&topic, frame);
                }
            }
            Effect::RaiseCounter { device, last } => self.sealer.raise(&device, last),
            Effect::Ask(ask) => {
                let number = ask.ask;
                if !self.send_link(LinkJob::Ask(ask)) {
                    self.follow_ups.push_back(Input::Trouble {
                        ask: number,
                        code: CODE_NO_LINK,
                    });
                }
            }
            // What does not leave is not answered; the core keeps the deadline.
            Effect::Echo(echo) => drop(self.send_link(LinkJob::Echo(echo))),
            Effect::Hello => drop(self.send_link(LinkJob::Hello)),
            // The hub gives the order again until it hears what became of it.
            Effect::OrderDone(done) => drop(self.send_link(LinkJob::Done(done))),
            Effect::Alarm(alarm) => tell::raise(&alarm),
        }
    }

    /// Returns whether the link took it. Nothing waits for a link that is known to be down.
    fn send_link(&self, job: LinkJob) -> bool {
        let up = self.shell.link_up.load(Ordering::Relaxed);
        up && self.shell.link.as_ref().is_some_and(|link| link.try_send(job).is_ok())
    }
}

//! The loop: the only owner of the hub's state and the only caller of `decide` and `apply`.
//!
//! It takes what waits, decides and applies it in memory, makes all events durable with one sync, and only then lets
//! answers out and acknowledges frames. If the store fails, nothing of the batch was said to anybody and the process
//! ends; memory ahead of the disk is thrown away with it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use proto::{
    id::GatewayId,
    link::{ArtifactPart, CounterSeen},
    topic::{LinkDown, Topic},
    trust::ArtifactKind,
};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, trace, warn};

use crate::{
    artifacts::Press,
    config::Config,
    core::{
        Alarm, Catalogue, Decision, Effect, Event, GatewayRow, Hub, ImportRefusal, ImportSummary, Input, Now, Order,
        OrderRefusal, ReleaseRefusal, Released, Settings,
    },
    export::{self, BalanceRow, DisputeRow, GatewayStatus, HoldRow, QuarantineRow, Status},
    judgements::{self, CaseRow, LossRow, SessionRow},
    links::{FrameError, Link, Links, Taken},
    reports::GatewayReport,
    store::{Store, StoreError},
};

/// Most pieces of work that share one sync: more would not make the sync cheaper, only the first answer later.
const BATCH_WORK_MAX: usize = 256;
/// Work that may wait; beyond it the endpoint is slowed down, and its clients with it.
pub const QUEUE_MAX: usize = 1024;

/// What others ask of the engine.
#[derive(Debug)]
pub enum Work {
    /// A gateway's connection opened.
    Connected(GatewayId),
    /// A gateway's connection ended.
    Disconnected(GatewayId),
    /// A frame of a gateway.
    Frame {
        /// Whose connection.
        client: GatewayId,
        /// On which topic.
        topic: String,
        /// The sealed frame.
        frame: Bytes,
        /// Acknowledges it, when its consequences are durable.
        ack: Ack,
    },
    /// The operator's wishes.
    Import(Catalogue, oneshot::Sender<Result<ImportSummary, ImportRefusal>>),
    /// The operator corrects the books; answered with the number of the entry.
    Order(Order, oneshot::Sender<Result<u64, OrderRefusal>>),
    /// The operator frees leases of a gateway.
    Release {
        /// Whose.
        gateway: GatewayId,
        /// Whether it is gone for good, with its present epoch.
        gone: bool,
        /// What was freed.
        reply: oneshot::Sender<Result<Released, ReleaseRefusal>>,
    },
    /// A question of the operator.
    Query(Query),
    /// Time passed.
    Tick,
    /// Finish what waits and end.
    Stop,
}

/// Where an answer to the operator goes.
#[derive(Debug)]
pub enum Query {
    /// The whole hub.
    Status(oneshot::Sender<Status>),
    /// Every gateway, and what it said of itself.
    Gateways(oneshot::Sender<Vec<GatewayReport>>),
    /// Every account.
    Balances(oneshot::Sender<Vec<BalanceRow>>),
    /// Every open hold.
    Holds(oneshot::Sender<Vec<HoldRow>>),
    /// Every quarantined record.
    Quarantine(oneshot::Sender<Vec<QuarantineRow>>),
    /// Every dispute.
    Disputes(oneshot::Sender<Vec<DisputeRow>>),
    /// Everything that is published, signed.
    Artifacts(oneshot::Sender<Result<Vec<ArtifactPart>, String>>),
    /// Every session that is remembered.
    Sessions(oneshot::Sender<Vec<SessionRow>>),
    /// What was delivered and nobody pays for.
    Losses(oneshot::Sender<Vec<LossRow>>),
    /// What a person should look at.
    Cases(oneshot::Sender<Vec<CaseRow>>),
}

/// The promise to acknowledge a frame. A refused frame is acknowledged, too: it must not come again.
pub struct Ack(Box<dyn FnOnce(bool) + Send>);

impl Ack {
    /// Calls `settle` with whether the frame was taken.
    pub fn new(settle: impl FnOnce(bool) + Send + 'static) -> Self {
        Self(Box::new(settle))
    }
}

impl std::fmt::Debug for Ack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ack(..)")
    }
}

/// Takes sealed frames to gateways.
pub type Sender = Box<dyn FnMut(&GatewayId, Topic, Vec<u8>) + Send>;

/// The engine.
pub struct Engine {
    hub: Hub,
    store: Store,
    settings: Settings,
    links: Links,
    press: Press,
    listen: String,
    send: Sender,
}

/// What a batch will do once it is durable.
#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    effects: Vec<Effect>,
    acks: Vec<(Ack, bool)>,
    imports: Vec<oneshot::Sender<Result<ImportSummary, ImportRefusal>>>,
    orders: Vec<oneshot::Sender<Result<u64, OrderRefusal>>>,
    releases: Vec<oneshot::Sender<Result<Released, ReleaseRefusal>>>,
    queries: Vec<Query>,
    stop: bool,
}

impl Engine {
    /// Starts on an open store: the new boot number is durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn start(
        config: &Config,
        mut store: Store,
        mut hub: Hub,
        listen: String,
        send: Sender,
    ) -> Result<Self, StoreError> {
        let settings = config.settings;
        let booted = hub.step(now(), &settings, &Input::Start);
        store.append(&booted.events)?;
        let press = Press::new(config.issuer(), config.root());
        let (signing, root) = (press.key(), press.root_key());
        let keys = hub.step(now(), &settings, &Input::Keys { signing, root });
        if !keys.events.is_empty() {
            store.append(&keys.events)?;
            warn!(key = %signing, "another key signs from now on");
        }
        let links = Links::new(&config.gateways, hub.gateways(), hub.boot());
        info!(
            boot = hub.boot(),
            gateways = links.0.len(),
            tokens = hub.tokens().len(),
            balanced = hub.book().is_balanced(),
            "hub state restored"
        );
        Ok(Self {
            hub,
            store,
            settings,
            links,
            press,
            listen,
            send,
        })
    }

    /// Works until it is told to stop or everybody else is gone. Blocks its thread.
    ///
    /// # Errors
    /// [`StoreError`]: the process has to end and start again.
    pub fn run(mut self, mut queue: mpsc::Receiver<Work>) -> Result<(), StoreError> {
        while let Some(first) = queue.blocking_recv() {
            let mut batch = Batch::default();
            self.take(first, &mut batch);
            for _ in 1..BATCH_WORK_MAX {
                match queue.try_recv() {
                    Ok(work) => self.take(work, &mut batch),
                    Err(_) => break,
                }
            }
            let stop = batch.stop;
            self.commit(batch)?;
            if stop {
                break;
            }
        }
        self.store.snapshot(&self.hub)?;
        self.store.close()
    }

    fn take(&mut self, work: Work, batch: &mut Batch) {
        match work {
            Work::Connected(gateway) => self.connection(gateway, true),
            Work::Disconnected(gateway) => self.connection(gateway, false),
            Work::Frame {
                client,
                topic,
                frame,
                ack,
            } => {
                let taken = self.frame(client, &topic, &frame, batch);
                batch.acks.push((ack, taken));
            }
            Work::Import(catalogue, reply) => {
                batch.imports.push(reply);
                self.decide(&Input::Import(catalogue), batch);
            }
            Work::Order(order, reply) => {
                batch.orders.push(reply);
                self.decide(&Input::Order(order), batch);
            }
            Work::Release { gateway, gone, reply } => self.release(gateway, gone, reply, batch),
            Work::Query(query) => batch.queries.push(query),
            Work::Tick => self.decide(&Input::Tick, batch),
            Work::Stop => batch.stop = true,
        }
    }

    fn release(
        &mut self,
        gateway: GatewayId,
        gone: bool,
        reply: oneshot::Sender<Result<Released, ReleaseRefusal>>,
        batch: &mut Batch,
    ) {
        if gone && self.links.0.get(&gateway).is_some_and(|link| link.connected) {
            // Whoever asked may be gone by now.
            let _ = reply.send(Err(ReleaseRefusal::Connected(gateway)));
            return;
        }
        batch.releases.push(reply);
        self.decide(&Input::ReleaseLeases { gateway, gone }, batch);
    }

    fn connection(&mut self, gateway: GatewayId, connected: bool) {
        if let Some(link) = self.links.0.get_mut(&gateway) {
            link.connected = connected;
            link.greeted = false;
            link.complained = false;
            info!(%gateway, connected, "gateway connection");
        }
    }

    fn frame(&mut self, client: GatewayId, topic: &str, frame: &[u8], batch: &mut Batch) -> bool {
        match self.links.open(client, topic, frame) {
            Ok(taken) => {
                trace!(%client, topic, "frame taken");
                self.taken(client, taken, batch);
                true
            }
            Err(reason) => {
                if let FrameError::Behind { last, .. } = reason {
                    self.say(&client, LinkDown::Counter, &CounterSeen { last });
                }
                if let Some(link) = self.links.0.get_mut(&client)
                    && !link.complained
                {
                    link.complained = true;
                    warn!(gateway = %client, topic, bytes = frame.len(), %reason, "frame dropped; further ones of this connection are only counted");
                }
                false
            }
        }
    }

    fn taken(&mut self, client: GatewayId, taken: Taken, batch: &mut Batch) {
        let link = self.links.0.get_mut(&client).expect("a frame is opened by its link");
        link.heard.seen(Instant::now());
        match taken {
            Taken::Input(input) => self.decide(&input, batch),
            Taken::Telemetry(telemetry) => link.heard.reported(Instant::now(), telemetry),
        }
    }

    fn decide(&mut self, input: &Input, batch: &mut Batch) {
        let Decision { events, effects } = self.hub.step(now(), &self.settings, input);
        batch.events.extend(events);
        batch.effects.extend(effects);
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        if !batch.events.is_empty() {
            self.store.append(&batch.events)?;
        }
        let mut replies = Replies {
            imports: batch.imports.into_iter(),
            orders: batch.orders.into_iter(),
            releases: batch.releases.into_iter(),
        };
        for effect in batch.effects {
            self.effect(effect, &mut replies);
        }
        for (ack, taken) in batch.acks {
            (ack.0)(taken);
        }
        for query in batch.queries {
            self.answer(query);
        }
        self.store.snapshot_when_due(&self.hub)
    }

    fn effect(&mut self, effect: Effect, replies: &mut Replies) {
        match effect {
            Effect::Welcome {
                gateway,
                welcome,
                is_agreed,
            } => {
                if let Some(link) = self.links.0.get_mut(&gateway) {
                    link.greeted = is_agreed;
                }
                self.say(&gateway, LinkDown::Welcome, &welcome);
            }
            Effect::Answer(gateway, answer) => {
                self.count(&gateway, |counts| counts.answers += 1);
                self.say(&gateway, LinkDown::Answer, &answer);
            }
            Effect::Receipt(gateway, receipt) => self.say(&gateway, LinkDown::Receipt, &receipt),
            Effect::Echo(gateway, echo) => self.say(&gateway, LinkDown::Echo, &echo),
            Effect::Artifact {
                gateway,
                kind,
                revision,
                base,
            } => match kind {
                ArtifactKind::Lease => self.send_leases(&gateway),
                ArtifactKind::Other
                | ArtifactKind::List
                | ArtifactKind::Revocations
                | ArtifactKind::Tariffs
                | ArtifactKind::Policy
                | ArtifactKind::Voucher
                | ArtifactKind::Firmware
                | ArtifactKind::Keys => self.send_artifact(&[gateway], kind, revision, base),
            },
            Effect::Announce { kind, revision, base } => {
                let greeted = self.links.0.iter().filter(|(_, link)| link.greeted);
                let gateways: Vec<GatewayId> = greeted.map(|(gateway, _)| *gateway).collect();
                info!(what = kind.word(), revision, gateways = gateways.len(), "published");
                self.send_artifact(&gateways, kind, revision, base);
            }
            Effect::Duplicates(gateway, records) => self.count(&gateway, |counts| counts.duplicates += records),
            Effect::Imported(summary) => {
                info!(?summary, "imported");
                reply(replies.imports.next(), Ok(summary));
            }
            Effect::ImportRefused(refusal) => {
                error!(%refusal, "import refused, nothing was changed");
                reply(replies.imports.next(), Err(refusal));
            }
            Effect::Ordered(number) => {
                info!(number, "the operator adjusted the books");
                reply(replies.orders.next(), Ok(number));
            }
            Effect::OrderRefused(refusal) => reply(replies.orders.next(), Err(refusal)),
            Effect::Released(released) => {
                let Released {
                    gateway,
                    leases,
                    amount,
                } = released;
                warn!(%gateway, leases, %amount, "the operator released leases");
                reply(replies.releases.next(), Ok(released));
            }
            Effect::ReleaseRefused(refusal) => reply(replies.releases.next(), Err(refusal)),
            Effect::Alarm(alarm) => report(&alarm),
        }
    }

    fn count(&mut self, gateway: &GatewayId, with: impl FnOnce(&mut crate::links::LinkCounts)) {
        if let Some(link) = self.links.0.get_mut(gateway) {
            with(&mut link.counts);
        }
    }

    fn say<T: Serialize>(&mut self, gateway: &GatewayId, word: LinkDown, message: &T) {
        if let Some(link) = self.links.0.get_mut(gateway) {
            let (topic, frame) = link.seal(gateway, word, message);
            (self.send)(gateway, topic, frame);
        }
    }

    /// Leases are for one gateway, and only the newest state of them matters.
    fn send_leases(&mut self, gateway: &GatewayId) {
        let Some(leases) = self.hub.leases_of(*gateway) else {
            return;
        };
        match self.press.leases(&leases) {
            Ok(part) => self.say(gateway, LinkDown::Artifact, &part),
            Err(reason) => error!(%gateway, %reason, "leases cannot be signed"),
        }
    }

    fn send_artifact(&mut self, gateways: &[GatewayId], kind: ArtifactKind, revision: u64, base: u64) {
        if gateways.is_empty() {
            return;
        }
        match self.press.parts(&self.hub, kind, revision, base) {
            Ok(Some(parts)) => {
                for gateway in gateways {
                    for part in parts.iter() {
                        self.say(gateway, LinkDown::Artifact, part);
                    }
                }
            }
            // A newer revision was published in the same batch and follows.
            Ok(None) => {}
            Err(reason) => error!(what = kind.word(), revision, %reason, "cannot be signed"),
        }
    }

    fn answer(&mut self, query: Query) {
        // Whoever asked may be gone by now.
        match query {
            Query::Status(reply) => drop(reply.send(self.status())),
            Query::Gateways(reply) => drop(reply.send(self.gateways())),
            Query::Balances(reply) => drop(reply.send(export::balances(&self.hub))),
            Query::Holds(reply) => drop(reply.send(export::holds(&self.hub))),
            Query::Quarantine(reply) => drop(reply.send(export::quarantine(&self.hub))),
            Query::Disputes(reply) => drop(reply.send(export::disputes(&self.hub))),
            Query::Artifacts(reply) => {
                let parts = self.press.everything(&self.hub);
                drop(reply.send(parts.map_err(|error| error.to_string())));
            }
            Query::Sessions(reply) => drop(reply.send(judgements::sessions(&self.hub))),
            Query::Losses(reply) => drop(reply.send(judgements::losses(&self.hub))),
            Query::Cases(reply) => drop(reply.send(judgements::cases(&self.hub))),
        }
    }

    fn status(&self) -> Status {
        let list = self.hub.list();
        Status {
            boot: self.hub.boot(),
            listen: self.listen.clone(),
            issuer_key: self.press.root_key().to_string(),
            signing_key: self.press.key().to_string(),
            keys_epoch: self.hub.keys().map_or(0, |keys| keys.epoch),
            list_revision: list.map_or(0, |list| list.revision),
            revocations_revision: self.hub.revocations_revision(),
            tariffs_revision: self.hub.tariff_table().map_or(0, |table| table.revision),
            tokens: list.map_or(0, |list| list.entries.len() as u64),
            balanced: self.hub.book().is_balanced(),
            gateways: self
                .links
                .0
                .keys()
                .map(|gateway| self.gateway_status(gateway))
                .collect(),
        }
    }

    fn gateways(&self) -> Vec<GatewayReport> {
        let now = Instant::now();
        let unknown = GatewayRow::default();
        let row = |(gateway, link): (&GatewayId, &Link)| {
            let row = self.hub.gateways().get(gateway).unwrap_or(&unknown);
            GatewayReport::new(gateway, row, link.connected && link.greeted, &link.heard, now)
        };
        self.links.0.iter().map(row).collect()
    }

    fn gateway_status(&self, gateway: &GatewayId) -> GatewayStatus {
        let row = self.hub.gateways().get(gateway).cloned().unwrap_or_default();
        let link = self.links.0.get(gateway);
        let counts = link.map(|link| link.counts).unwrap_or_default();
        GatewayStatus {
            gateway: gateway.to_string(),
            connected: link.is_some_and(|link| link.connected && link.greeted),
            epoch: row.epoch,
            boot: row.boot,
            upto: row.upto,
            hash: row.hash.to_string(),
            records: row.booked,
            quarantined: row.quarantined,
            disputes: row.disputed,
            duplicates: counts.duplicates,
            answers: counts.answers,
            frames: counts.frames,
            frames_bad: counts.frames_bad,
        }
    }
}

/// Who waits for the outcome of what, each in the order of asking.
struct Replies {
    imports: std::vec::IntoIter<oneshot::Sender<Result<ImportSummary, ImportRefusal>>>,
    orders: std::vec::IntoIter<oneshot::Sender<Result<u64, OrderRefusal>>>,
    releases: std::vec::IntoIter<oneshot::Sender<Result<Released, ReleaseRefusal>>>,
}

fn reply<T, E>(to: Option<oneshot::Sender<Result<T, E>>>, result: Result<T, E>) {
    if let Some(to) = to {
        // Whoever asked may be gone by now.
        let _ = to.send(result);
    }
}

fn report(alarm: &Alarm) {
    match alarm {
        Alarm::Quarantined { at, .. } => error!(gateway = %at.gateway, %alarm, "record quarantined"),
        Alarm::Disputed { at, .. } => warn!(gateway = %at.gateway, %alarm, "charge disputed"),
        Alarm::Fenced { gateway, .. } => error!(%gateway, %alarm, "gateway fenced"),
        Alarm::Version { gateway, .. } => error!(%gateway, %alarm, "no version in common"),
        Alarm::Upload { gateway, .. } => warn!(%gateway, %alarm, "upload not committed"),
        Alarm::Withheld { gateway, .. } => warn!(%gateway, %alarm, "leases withheld"),
        Alarm::Ahead { gateway, .. } => error!(%gateway, %alarm, "gateway is ahead"),
        Alarm::Claimed { at, .. } => warn!(gateway = %at.gateway, %alarm, "session claimed twice"),
        Alarm::Clock { at, .. } => warn!(gateway = %at.gateway, %alarm, "clock is wrong"),
        Alarm::Case(_) => warn!(%alarm, "case opened"),
        Alarm::Adjusted { .. } => info!(%alarm, "books adjusted"),
    }
}

fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Now {
        wall_s: since.map_or(0, |since| since.as_secs()),
    }
}

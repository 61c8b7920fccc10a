//! The loop: the only owner of the hub's state and the only caller of `decide` and `apply`.
//!
//! It takes what waits, decides and applies it in memory, makes all events durable with one sync, and only then lets
//! answers out and acknowledges frames. If the store fails, nothing of the batch was said to anybody and the process
//! ends; memory ahead of the disk is thrown away with it.

mod look;
mod replies;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use proto::{
    id::{GatewayId, IdToken},
    link::{self, ArtifactPart, CounterSeen, OrderVerb},
    topic::{Lane, LinkDown, Topic},
    trust::ArtifactKind,
};
use serde::Serialize;
use service::Heart;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, trace, warn};

use self::replies::{Replies, reply};
use crate::{
    artifacts::Press,
    config::Config,
    core::{
        Catalogue, Decision, DispatchRefusal, Effect, Event, Hub, ImportRefusal, ImportSummary, Input, Now, Order,
        OrderRefusal, ReleaseRefusal, Released, Settings, withdrawn,
    },
    export::{BalanceRow, DisputeRow, HoldRow, QuarantineRow, Status},
    judgements::{CaseRow, LossRow, SessionRow},
    links::{FrameError, Links, Route, Taken},
    orders::OrderLine,
    reports::GatewayReport,
    store::{Store, StoreError},
    tokens::Tokens,
};

/// Most pieces of work that share one sync: more would not make the sync cheaper, only the first answer later.
const BATCH_WORK_MAX: usize = 256;
/// A gateway that is heard and never said hello to this process is asked to, so often.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// Work that may wait; beyond it the endpoint is slowed down, and its clients with it.
pub const QUEUE_MAX: usize = 1024;

/// What others ask of the engine.
#[derive(Debug)]
pub enum Work {
    /// A connection of a gateway opened.
    Connected((GatewayId, Lane)),
    /// A connection of a gateway ended.
    Disconnected((GatewayId, Lane)),
    /// A broker is out of reach, and everybody behind it.
    BrokerLost(usize),
    /// A frame of a gateway.
    Frame {
        /// Whose connection.
        client: (GatewayId, Lane),
        /// By which way it came.
        route: Route,
        /// On which topic.
        topic: String,
        /// The sealed frame.
        frame: Bytes,
        /// Acknowledges it, when its consequences are durable.
        ack: Ack,
    },
    /// The operator's wishes.
    Import(Catalogue, oneshot::Sender<Result<ImportSummary, ImportRefusal>>),
    /// The operator corrects the books; answered with the number of the entry, or of the records that are settled.
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
    /// The operator wants something done at a site; answered with the number of the order.
    Dispatch {
        /// By which gateway.
        gateway: GatewayId,
        /// What.
        order: Box<link::Order>,
        /// The raw token of a start.
        token: Option<IdToken>,
        /// Its number.
        reply: oneshot::Sender<Result<u64, DispatchRefusal>>,
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
    /// Every order that is remembered.
    Orders(oneshot::Sender<Vec<OrderLine>>),
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
pub type Sender = Box<dyn FnMut(&GatewayId, Route, Topic, Vec<u8>) + Send>;

/// The engine.
pub struct Engine {
    hub: Hub,
    store: Store,
    settings: Settings,
    links: Links,
    press: Press,
    tokens: Tokens,
    listen: String,
    send: Sender,
    heart: Heart,
}

/// Who said what is decided about, and on which lane; none: an operator, or time.
type Origin = Option<(GatewayId, Lane)>;

/// What a batch will do once it is durable.
#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    /// Each with the gateway and lane of what it answers.
    effects: Vec<(Origin, Effect)>,
    acks: Vec<(Ack, bool)>,
    imports: Vec<oneshot::Sender<Result<ImportSummary, ImportRefusal>>>,
    orders: Vec<oneshot::Sender<Result<u64, OrderRefusal>>>,
    releases: Vec<oneshot::Sender<Result<Released, ReleaseRefusal>>>,
    dispatches: Vec<oneshot::Sender<Result<u64, DispatchRefusal>>>,
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
        let mut tokens = Tokens::open(&config.data_dir, &hub);
        tokens.save();
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
            tokens,
            listen,
            send,
            heart: Heart::default(),
        })
    }

    /// The watchdog listens to this heart: the loop beats it, and nobody else.
    #[must_use]
    pub fn with_heart(self, heart: Heart) -> Self {
        Self { heart, ..self }
    }

    /// Works until it is told to stop or everybody else is gone. Blocks its thread.
    ///
    /// # Errors
    /// [`StoreError`]: the process has to end and start again.
    pub fn run(mut self, mut queue: mpsc::Receiver<Work>) -> Result<(), StoreError> {
        // Time is work, too: there is a tick a second, and a beat.
        while let Some(first) = queue.blocking_recv() {
            self.heart.beat();
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
        if let Err(error) = self.store.snapshot(&self.hub) {
            tracing::error!(%error, "ALARM no snapshot was written; the next start takes longer");
        }
        self.store.close()
    }

    fn take(&mut self, work: Work, batch: &mut Batch) {
        match work {
            Work::Connected(client) => self.connection(client, true),
            Work::Disconnected(client) => self.connection(client, false),
            Work::BrokerLost(broker) => self.links.0.values_mut().for_each(|link| link.broker_lost(broker)),
            Work::Frame {
                client,
                route,
                topic,
                frame,
                ack,
            } => {
                let taken = self.frame(client, route, &topic, &frame, batch);
                batch.acks.push((ack, taken));
            }
            Work::Import(catalogue, reply) => {
                batch.imports.push(reply);
                self.decide(None, &Input::Import(catalogue), batch);
            }
            Work::Order(order, reply) => {
                batch.orders.push(reply);
                self.decide(None, &Input::Order(order), batch);
            }
            Work::Release { gateway, gone, reply } => self.release(gateway, gone, reply, batch),
            Work::Dispatch {
                gateway,
                order,
                token,
                reply,
            } => self.dispatch(gateway, order, token, reply, batch),
            Work::Query(query) => batch.queries.push(query),
            Work::Tick => self.decide(None, &Input::Tick, batch),
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
        let link = self.links.0.get(&gateway);
        if gone && link.is_some_and(|link| link.is_connected(Instant::now())) {
            // Whoever asked may be gone by now.
            let _ = reply.send(Err(ReleaseRefusal::Connected(gateway)));
            return;
        }
        batch.releases.push(reply);
        self.decide(None, &Input::ReleaseLeases { gateway, gone }, batch);
    }

    fn dispatch(
        &mut self,
        gateway: GatewayId,
        order: Box<link::Order>,
        token: Option<IdToken>,
        reply: oneshot::Sender<Result<u64, DispatchRefusal>>,
        batch: &mut Batch,
    ) {
        if !self.links.0.contains_key(&gateway) {
            // Whoever asked may be gone by now.
            let _ = reply.send(Err(DispatchRefusal::Unknown(gateway)));
            return;
        }
        batch.dispatches.push(reply);
        let before = batch.events.len();
        self.decide(None, &Input::Dispatch { gateway, order }, batch);
        let id = batch.events[before..].iter().find_map(|event| {
            let Event::Dispatched { order, .. } = event else {
                return None;
            };
            Some(order.id)
        });
        if let (Some(id), Some(token)) = (id, token) {
            self.tokens.keep(gateway, id, token);
        }
    }

    fn connection(&mut self, (gateway, lane): (GatewayId, Lane), connected: bool) {
        if let Some(link) = self.links.0.get_mut(&gateway) {
            link.connection(lane, connected);
            link.side_mut(lane).route = Route::Endpoint;
            info!(%gateway, lane = lane.number(), connected, "gateway connection");
        }
    }

    fn frame(&mut self, client: (GatewayId, Lane), route: Route, topic: &str, frame: &[u8], batch: &mut Batch) -> bool {
        let (gateway, lane) = client;
        let row = self.hub.gateways().get(&gateway);
        let known = row.map_or((0, 0), |row| (row.epoch, row.upto));
        match self.links.open(client, known, topic, frame) {
            Ok(taken) => {
                trace!(%gateway, topic, "frame taken");
                self.taken(client, route, taken, batch);
                true
            }
            Err(reason) => {
                let behind = match reason {
                    FrameError::Behind { last, .. } => Some(last),
                    _ => None,
                };
                if let Some(last) = behind {
                    self.say_on(&gateway, lane, route, LinkDown::Counter, &CounterSeen { last });
                }
                if let Some(link) = self.links.0.get_mut(&gateway)
                    && !link.side(lane).complained
                {
                    link.side_mut(lane).complained = true;
                    warn!(%gateway, topic, bytes = frame.len(), %reason, "frame dropped; further ones of this connection are only counted");
                }
                // A hello that comes late is answered, so it is no frame of a stranger.
                behind.is_some()
            }
        }
    }

    fn taken(&mut self, client: (GatewayId, Lane), route: Route, taken: Taken, batch: &mut Batch) {
        let (gateway, lane) = client;
        let link = self.links.0.get_mut(&gateway).expect("a frame is opened by its link");
        link.heard.seen(Instant::now());
        let side = link.side_mut(lane);
        // Behind a broker nobody says who is connected: whoever is heard is there.
        (side.route, side.connected) = (route, true);
        let is_hello = matches!(taken, Taken::Input(Input::Hello { .. }));
        // Nor does its connection end when ours does: only a hello gets it what is published and ordered from now on.
        let is_asked = side.asked.is_some_and(|at| at.elapsed() < ASK_EVERY);
        if is_hello {
            side.asked = Some(Instant::now());
        } else if matches!(route, Route::Broker(_)) && !side.greeted && !is_asked {
            side.asked = Some(Instant::now());
            let last = side.last();
            self.say_on(&gateway, lane, route, LinkDown::Counter, &CounterSeen { last });
        }
        let link = self.links.0.get_mut(&gateway).expect("it was there a moment ago");
        match taken {
            Taken::Input(input) => self.decide(Some(client), &input, batch),
            Taken::Done(done) => {
                info!(%gateway, id = done.id, outcome = done.outcome.word(), "order answered");
                self.decide(Some(client), &Input::Done { gateway, done }, batch);
            }
            Taken::Telemetry(telemetry) => link.heard.reported(Instant::now(), telemetry),
        }
    }

    fn decide(&mut self, origin: Origin, input: &Input, batch: &mut Batch) {
        let Decision { events, effects } = self.hub.step(now(), &self.settings, input);
        batch.events.extend(events);
        batch.effects.extend(effects.into_iter().map(|effect| (origin, effect)));
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        // Before the order that needs it is durable, so that no crash leaves one without the other; and gone after.
        self.tokens.save();
        if !batch.events.is_empty() {
            self.store.append(&batch.events)?;
            self.tokens.forget(&batch.events);
            self.tokens.save();
        }
        let mut replies = Replies {
            imports: batch.imports.into_iter(),
            orders: batch.orders.into_iter(),
            releases: batch.releases.into_iter(),
            dispatches: batch.dispatches.into_iter(),
        };
        for (origin, effect) in batch.effects {
            self.effect(origin, effect, &mut replies);
        }
        for (ack, taken) in batch.acks {
            (ack.0)(taken);
        }
        for query in batch.queries {
            self.answer(query);
        }
        self.store.snapshot_when_due(&self.hub);
        Ok(())
    }

    fn effect(&mut self, origin: Origin, effect: Effect, replies: &mut Replies) {
        match effect {
            Effect::Welcome {
                gateway,
                welcome,
                is_agreed,
            } => {
                if let (Some(link), Some((_, lane))) = (self.links.0.get_mut(&gateway), origin) {
                    link.side_mut(lane).greeted = is_agreed;
                }
                self.say(origin, &gateway, LinkDown::Welcome, &welcome);
            }
            Effect::Answer(gateway, answer) => {
                self.count(&gateway, |counts| counts.answers += 1);
                self.say(origin, &gateway, LinkDown::Answer, &answer);
            }
            Effect::Receipt(gateway, receipt) => self.say(origin, &gateway, LinkDown::Receipt, &receipt),
            Effect::Echo(gateway, echo) => self.say(origin, &gateway, LinkDown::Echo, &echo),
            Effect::Artifact {
                gateway,
                kind,
                revision,
                base,
            } => match kind {
                ArtifactKind::Lease => self.send_leases(origin, &gateway),
                ArtifactKind::Other
                | ArtifactKind::List
                | ArtifactKind::Revocations
                | ArtifactKind::Tariffs
                | ArtifactKind::Policy
                | ArtifactKind::Voucher
                | ArtifactKind::Firmware
                | ArtifactKind::Keys => self.send_artifact(origin, &[gateway], kind, revision, base),
            },
            Effect::Announce { kind, revision, base } => {
                let greeted = self.links.0.iter().filter(|(_, link)| link.greeted().next().is_some());
                let gateways: Vec<GatewayId> = greeted.map(|(gateway, _)| *gateway).collect();
                info!(what = kind.word(), revision, gateways = gateways.len(), "published");
                self.send_artifact(None, &gateways, kind, revision, base);
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
            Effect::Settled(gateway, records) => {
                info!(%gateway, records, "the operator settled quarantined records");
                reply(replies.orders.next(), Ok(records));
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
            Effect::Order(gateway, order) => self.send_order(origin, &gateway, *order),
            Effect::Dispatched { gateway, id } => {
                info!(%gateway, id, "the operator gave an order");
                reply(replies.dispatches.next(), Ok(id));
            }
            Effect::DispatchRefused(refusal) => reply(replies.dispatches.next(), Err(refusal)),
            Effect::Alarm(alarm) => look::report(&alarm),
        }
    }

    fn count(&mut self, gateway: &GatewayId, with: impl FnOnce(&mut crate::links::LinkCounts)) {
        if let Some(link) = self.links.0.get_mut(gateway) {
            with(&mut link.counts);
        }
    }

    /// An answer goes where it was asked. Anything else goes by every way on which the gateway was greeted: which of
    /// them is well, only the gateway can tell, and it takes nothing twice.
    fn say<T: Serialize>(&mut self, origin: Origin, gateway: &GatewayId, word: LinkDown, message: &T) {
        let Some(link) = self.links.0.get(gateway) else { return };
        let lanes: Vec<Lane> = match origin.filter(|(asker, _)| asker == gateway) {
            Some((_, lane)) => vec![lane],
            None => link.greeted().collect(),
        };
        for lane in lanes {
            let Some(route) = self.links.0.get(gateway).map(|link| link.side(lane).route) else {
                return;
            };
            self.say_on(gateway, lane, route, word, message);
        }
    }

    fn say_on<T: Serialize>(&mut self, gateway: &GatewayId, lane: Lane, route: Route, word: LinkDown, message: &T) {
        if let Some(link) = self.links.0.get_mut(gateway) {
            let (topic, frame) = link.seal(gateway, lane, word, message);
            (self.send)(gateway, route, topic, frame);
        }
    }

    /// A start whose token is gone cannot be given any more.
    fn send_order(&mut self, origin: Origin, gateway: &GatewayId, mut order: link::Order) {
        if order.verb == OrderVerb::Start {
            match self.tokens.of(*gateway, order.id) {
                Some(token) => order.token = Some(token.clone()),
                None => order = withdrawn(&order),
            }
        }
        self.say(origin, gateway, LinkDown::Order, &order);
    }

    /// Leases are for one gateway, and only the newest state of them matters.
    fn send_leases(&mut self, origin: Origin, gateway: &GatewayId) {
        let Some(leases) = self.hub.leases_of(*gateway) else {
            return;
        };
        match self.press.leases(&leases) {
            Ok(part) => self.say(origin, gateway, LinkDown::Artifact, &part),
            Err(reason) => error!(%gateway, %reason, "leases cannot be signed"),
        }
    }

    fn send_artifact(&mut self, origin: Origin, gateways: &[GatewayId], kind: ArtifactKind, revision: u64, base: u64) {
        if gateways.is_empty() {
            return;
        }
        match self.press.parts(&self.hub, kind, revision, base) {
            Ok(Some(parts)) => {
                for gateway in gateways {
                    for part in parts.iter() {
                        self.say(origin, gateway, LinkDown::Artifact, part);
                    }
                }
            }
            // A newer revision was published in the same batch and follows.
            Ok(None) => {}
            Err(reason) => error!(what = kind.word(), revision, %reason, "cannot be signed"),
        }
    }
}

/// What the clock says.
pub(crate) fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Now {
        wall_s: since.map_or(0, |since| since.as_secs()),
    }
}

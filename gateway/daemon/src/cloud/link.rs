//! The link to the hub: connects, asks, uploads, and connects again, for ever. It decides nothing. What must not be
//! lost is in the journal; the link only reads from there, and starts again at the cursor with every connection.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gateway_core::{
    Input,
    pace::{Artifacts, Pace, may_tell},
};
use journal::Reader;
use proto::{
    codec,
    id::{GatewayId, Hash, Name},
    link::{ArtifactPart, LINK_FRAME_BYTES_MAX, LedgerReceipt, UPLOAD_RECORDS_MAX, Upload, chain},
};
use serde_bytes::ByteBuf;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    artifacts::{Assembly, Desk, Gone},
    cloud::{
        LinkJob,
        fence::Fence,
        hcp::{Hcp, Heard},
        lane::Road,
        reconnect::Reconnect,
        reports::Reports,
    },
    config::LinkConfig,
    engine::{Job, Position},
    mqtt::{Connection, Event, Message, Options, STABLE_S, Sender},
    record,
};

/// Questions that may wait for the link.
pub const LINK_JOBS_MAX: usize = 256;
/// Uploads without a receipt.
const UPLOADS_MAX: usize = 4;
/// A receipt that has not come after so long: send again from the cursor.
const RECEIPT_WAIT: Duration = Duration::from_secs(10);
/// Bytes of records in one upload: the frame's limit less seal, envelope and one record.
const UPLOAD_BYTES_MAX: usize = LINK_FRAME_BYTES_MAX / 2;
/// Journal records read at a time.
const READ_RECORDS: usize = 256;
/// Code of a cloud that asks us to slow down.
const CODE_THROTTLED: u16 = 429;
/// First wait for the answer to a hello; doubles up to [`HELLO_WAIT_MAX`]. A cloud that throttles swallows hellos too.
const HELLO_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two hellos on one connection.
const HELLO_WAIT_MAX: Duration = Duration::from_secs(30);
/// Shortest time between two requests for the whole list: 100,000 tokens are 8 MB.
const FETCH_LIST_EVERY: Duration = Duration::from_secs(30);
/// How often an unfinished upload is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the link needs.
pub struct Link {
    /// Our site.
    pub site: Name,
    /// Our name.
    pub gateway: GatewayId,
    /// Where to, and how.
    pub config: LinkConfig,
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
    /// Told to the engine.
    pub up: Arc<AtomicBool>,
    /// Whether the hub takes anything of this epoch.
    pub fence: Fence,
    /// When the hub last committed something of ours; before that, when this process began.
    pub receipted: Instant,
}

fn far_away() -> Instant {
    Instant::now() + HELLO_WAIT_MAX
}

/// One connection's uploader.
struct Uploads {
    /// Where to read on in the journal.
    journal: u64,
    /// Last record sent, and the chain there.
    sent: u64,
    chain: Hash,
    /// Ends of uploads without a receipt.
    ends: BTreeMap<u64, Hash>,
    last_progress: Instant,
    /// How fast.
    pace: Pace,
    /// What the hub said is newest, and when: older sessions are told after it has arrived here.
    announced: Artifacts,
    welcomed: Instant,
    /// What is on its way was refused: begin again at the cursor.
    refused: bool,
}

impl Link {
    /// Runs for ever, or until the engine is gone.
    pub async fn run(mut self) {
        let boot = self.position.borrow().boot;
        let mut hcp = Hcp::new(self.site, self.gateway, &self.config.secret, boot);
        let mut reconnect = Reconnect::new(self.config.reconnect_s_max);
        reconnect.first(Instant::now());
        let mut reports = Reports::new(self.config.telemetry_s);
        loop {
            let since = Instant::now();
            let Ok(why) = self.connection(&mut hcp, &mut reports).await else {
                return;
            };
            reports.lost();
            self.fence.lost();
            self.up.store(false, Ordering::Relaxed);
            if since.elapsed().as_secs() >= STABLE_S {
                reconnect.reset();
            }
            let now = Instant::now();
            let at = reconnect.next(now);
            tracing::info!(why, wait_ms = (at - now).as_millis() as u64, "no link to the hub");
            tokio::time::sleep_until(at).await;
            // Questions of before: their deadlines have passed, or will.
            while self.jobs.try_recv().is_ok() {}
        }
    }

    async fn connection(&mut self, hcp: &mut Hcp, reports: &mut Reports) -> Result<String, Gone> {
        let options = Options {
            broker: self.config.broker.clone(),
            client_id: self.gateway.to_string(),
            login: Some((self.gateway.to_string(), self.config.secret.password().to_string())),
            keep_alive_s: self.config.keep_alive_s,
            filter: hcp.filter().to_string(),
            persistent: false,
            packet_bytes_max: LINK_FRAME_BYTES_MAX as u32 + 1024,
        };
        let mut connection = Connection::open(&options);
        let sender = connection.sender();
        let mut assembly = Assembly::default();
        let mut uploads: Option<Uploads> = None;
        // When to say hello next, once the connection stands and until it is answered.
        let mut hello: Option<(Instant, Duration)> = None;
        // When to ask for the whole list, and when that was done last.
        let mut fetch_list: Option<Instant> = None;
        let mut fetched: Option<Instant> = None;
        loop {
            if self.up.load(Ordering::Relaxed) {
                hello = None;
            }
            let look_at = self
                .look_at(uploads.as_ref())
                .min(hello.map_or_else(far_away, |(at, _)| at))
                .min(fetch_list.unwrap_or_else(far_away));
            tokio::select! {
                event = connection.next() => match event {
                    Event::Up => hello = Some((Instant::now(), HELLO_WAIT)),
                    Event::Message(message) => {
                        self.heard(hcp, &mut assembly, &mut uploads, reports, message).await?;
                    }
                    Event::Down(why) => return Ok(why),
                },
                job = self.jobs.recv() => match job {
                    Some(LinkJob::Ask(ask)) => {
                        let (topic, frame) = hcp.ask(&ask);
                        if sender.publish(&topic, frame).is_err() {
                            self.tell(Input::Trouble { ask: ask.ask, code: 503 }).await?;
                        }
                    }
                    Some(LinkJob::FetchList) => {
                        let due = fetched.map_or_else(Instant::now, |at| at + FETCH_LIST_EVERY);
                        fetch_list = fetch_list.or(Some(due));
                    }
                    // One that cannot be sent is one that is not answered: the core keeps the deadline.
                    Some(LinkJob::Echo(echo)) => {
                        let (topic, frame) = hcp.echo(&echo);
                        drop(sender.publish(&topic, frame));
                    }
                    Some(LinkJob::Hello) => {
                        let (topic, frame) = hcp.hello(&self.position.borrow());
                        drop(sender.publish(&topic, frame));
                    }
                    None => return Err(Gone),
                },
                report = reports.made() => {
                    let road = self.road(uploads.as_ref(), reports);
                    reports.send(hcp, &sender, road, report);
                }
                changed = self.position.changed() => changed.map_err(|_| Gone)?,
                () = tokio::time::sleep_until(look_at) => {}
            }
            if let Some((at, wait)) = hello.filter(|(at, _)| *at <= Instant::now()) {
                let (topic, frame) = hcp.hello(&self.position.borrow());
                if let Err(why) = sender.publish(&topic, frame) {
                    return Ok(why);
                }
                hello = Some((at + wait, (wait * 2).min(HELLO_WAIT_MAX)));
            }
            if fetch_list.is_some_and(|at| at <= Instant::now()) {
                (fetch_list, fetched) = (None, Some(Instant::now()));
                let mut position = *self.position.borrow();
                position.revisions.0 = 0;
                let (topic, frame) = hcp.hello(&position);
                if let Err(why) = sender.publish(&topic, frame) {
                    return Ok(why);
                }
            }
            // Whoever stands at a device goes before what is long over.
            if !self.jobs.is_empty() {
                continue;
            }
            if let Some(state) = &mut uploads
                && let Err(why) = self.upload(hcp, &sender, state).await?
            {
                return Ok(why);
            }
            reports.ask_when_due(&self.engine, self.road(uploads.as_ref(), reports));
        }
    }

    /// The way to the hub, as what is shed first sees it.
    fn road(&self, uploads: Option<&Uploads>, reports: &Reports) -> Road {
        let position = *self.position.borrow();
        Road {
            is_agreed: reports.is_agreed() && uploads.is_some(),
            has_records: uploads.is_none_or(|state| state.refused || state.sent < position.head),
            is_free: uploads.is_some_and(|state| state.may_tell(&position) && state.pace.is_free(state.now_ms())),
        }
    }

    async fn tell(&self, input: Input) -> Result<(), Gone> {
        self.engine.send(Job::Cloud(input)).await.map_err(|_| Gone)
    }

    async fn heard(
        &mut self,
        hcp: &mut Hcp,
        assembly: &mut Assembly,
        uploads: &mut Option<Uploads>,
        reports: &mut Reports,
        message: Message,
    ) -> Result<(), Gone> {
        let heard = hcp.open(&message.topic, &message.payload);
        message.ack.accept(); // Nothing here is lost by a crash: it is asked for again.
        match heard {
            Ok(Heard::Welcome(welcome)) => {
                if !self.up.swap(true, Ordering::Relaxed) {
                    tracing::info!(hub = self.config.broker, upto = welcome.upto, "link to the hub");
                }
                let (epoch, upto, hash) = (welcome.epoch, welcome.upto, welcome.hash);
                let own = self.position.borrow().epoch;
                let is_fenced = welcome.version != 0 && epoch > own;
                reports.welcomed(&welcome, own);
                let announced = Artifacts {
                    list: welcome.list_revision,
                    revocations: welcome.revocations_revision,
                    tariffs: welcome.tariffs_revision,
                };
                self.tell(Input::Welcome(welcome)).await?;
                // On a link that stood already the hub says where we know it to be: what is on its way goes on.
                let expected = uploads.as_ref().is_some_and(|state| state.ends.contains_key(&upto));
                if is_fenced {
                    self.fence.expects(epoch, own);
                    *uploads = None;
                } else if epoch == own && !expected {
                    let mut state = self.uploads_from(upto).await?;
                    if state.chain == hash {
                        self.fence.agreed();
                        state.recover(self, announced);
                        *uploads = Some(state);
                    } else {
                        // It has other records of this epoch than we: nothing may follow on them.
                        self.fence.expects(own.saturating_add(1), own);
                        *uploads = None;
                    }
                }
            }
            Ok(Heard::Answer(answer)) => self.tell(Input::Answer(answer)).await?,
            Ok(Heard::Receipt(receipt)) => {
                if let Some(state) = uploads {
                    self.receipt(state, receipt).await?;
                }
            }
            Ok(Heard::Part(part)) => self.part(assembly, part).await?,
            // The hello is said again anyway until it is answered.
            Ok(Heard::Counter(seen)) => {
                tracing::warn!(
                    counter = seen.last,
                    "the hub remembers more of this link than this journal"
                );
                hcp.raise_above(seen.last);
            }
            Ok(Heard::Echo(echo)) => self.tell(Input::Echo { nonce: echo.nonce }).await?,
            Ok(Heard::Trouble(trouble)) => {
                let text: String = trouble.text.chars().take(proto::link::TROUBLE_TEXT_BYTES_MAX).collect();
                tracing::debug!(
                    ask = trouble.ask,
                    code = trouble.code,
                    text,
                    "the cloud reports trouble"
                );
                if let Some(state) = uploads.as_mut().filter(|_| trouble.code == CODE_THROTTLED) {
                    state.slow_down();
                }
                self.tell(Input::Trouble {
                    ask: trouble.ask,
                    code: trouble.code,
                })
                .await?;
            }
            Err(bad) => tracing::warn!(topic = message.topic, %bad, "message on the link dropped"),
        }
        Ok(())
    }

    async fn part(&self, assembly: &mut Assembly, part: ArtifactPart) -> Result<(), Gone> {
        let (kind, revision) = (part.kind.word(), part.revision);
        match assembly.add(part) {
            Ok(None) => {}
            Ok(Some(whole)) => {
                if let Ok(Some(input)) = self.desk.check(whole).await? {
                    self.tell(input).await?;
                }
            }
            Err(error) => self.desk.reject(kind, revision, &error),
        }
        Ok(())
    }

    /// An uploader that goes on behind `upto`.
    async fn uploads_from(&self, upto: u64) -> Result<Uploads, Gone> {
        let (reply, answer) = oneshot::channel();
        self.engine
            .send(Job::Find { ledger: upto, reply })
            .await
            .map_err(|_| Gone)?;
        let mark = answer.await.map_err(|_| Gone)?;
        let now = Instant::now();
        let mut state = Uploads {
            journal: mark.journal,
            sent: mark.ledger,
            chain: mark.chain,
            ends: BTreeMap::new(),
            last_progress: now,
            pace: Pace::steady(self.least_ms(), 0),
            announced: Artifacts::default(),
            welcomed: now,
            refused: false,
        };
        // From the mark to the record after which to go on.
        while state.sent < upto {
            match state.read(&self.reader, (upto - state.sent) as usize) {
                Ok(records) if records.is_empty() => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(error, "ALARM the journal cannot be read for the upload");
                    break;
                }
            }
        }
        state.ends.insert(state.sent, state.chain);
        Ok(state)
    }

    /// The same uploader, from another record on.
    async fn again_from(&self, state: &Uploads, upto: u64) -> Result<Uploads, Gone> {
        Ok(Uploads {
            pace: state.pace,
            announced: state.announced,
            welcomed: state.welcomed,
            ..self.uploads_from(upto).await?
        })
    }

    /// The shortest time between two uploads, in ms.
    fn least_ms(&self) -> u64 {
        1_000 / u64::from(self.config.batches_a_second_max)
    }

    async fn receipt(&mut self, state: &mut Uploads, receipt: LedgerReceipt) -> Result<(), Gone> {
        let upto = receipt.upto;
        let head = self.position.borrow().head;
        let own_hash = match state.ends.get(&upto) {
            Some(hash) => *hash,
            None => {
                // Not the end of an upload of ours: the hub stands elsewhere. Go on from where it stands.
                *state = self.again_from(state, upto.min(head)).await?;
                state.chain
            }
        };
        state.ends = state.ends.split_off(&upto);
        state.last_progress = Instant::now();
        self.receipted = state.last_progress;
        state.pace.receipted();
        if state.sent >= head {
            state.pace.caught_up();
        }
        self.tell(Input::Receipt { receipt, own_hash }).await
    }

    fn look_at(&self, uploads: Option<&Uploads>) -> Instant {
        let later = Instant::now() + LOOK_AGAIN;
        match uploads {
            Some(state) if state.has_work(&self.position.borrow()) => {
                let wait = Duration::from_millis(state.pace.wait_ms(state.now_ms()));
                (Instant::now() + wait).min(later)
            }
            Some(_) | None => later,
        }
    }

    /// Sends what there is to send and the pace allows.
    async fn upload(&self, hcp: &mut Hcp, sender: &Sender, state: &mut Uploads) -> Result<Result<(), String>, Gone> {
        let position = *self.position.borrow();
        if state.refused && state.pace.wait_ms(state.now_ms()) == 0 {
            *state = self.again_from(state, position.cursor).await?;
        }
        Ok(self.send(hcp, sender, state, &position))
    }

    fn send(&self, hcp: &mut Hcp, sender: &Sender, state: &mut Uploads, position: &Position) -> Result<(), String> {
        let now = Instant::now();
        let in_flight = state.in_flight(position);
        if in_flight > 0 && now - state.last_progress > RECEIPT_WAIT {
            return Err("the hub acknowledges nothing: connecting again".to_owned());
        }
        if in_flight == 0 {
            state.last_progress = now;
        }
        if !state.may_tell(position) || state.pace.wait_ms(state.now_ms()) > 0 {
            return Ok(());
        }
        if !state.has_work(position) {
            return Ok(());
        }
        let first = state.sent + 1;
        let records = state.read(&self.reader, (position.head - state.sent) as usize)?;
        if records.is_empty() {
            return Ok(());
        }
        let (topic, frame) = hcp.upload(&Upload {
            epoch: position.epoch,
            first,
            records,
        });
        sender.publish(&topic, frame)?;
        state.ends.insert(state.sent, state.chain);
        state.pace.sent(state.now_ms());
        Ok(())
    }
}

impl Uploads {
    /// Milliseconds since the hub's welcome: the pace's clock.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.welcomed.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The hub is back: what it has not heard is told in its order and at a pace, after what is newer there.
    fn recover(&mut self, link: &Link, announced: Artifacts) {
        let backlog = link.position.borrow().head.saturating_sub(self.sent);
        let outage_ms = u64::try_from(link.receipted.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.announced = announced;
        if backlog > 0 {
            self.pace = Pace::recovering(link.least_ms(), 0, backlog, outage_ms, fastrand::u64(..));
        }
    }

    /// Whether what the hub announced is here, or has had its time.
    fn may_tell(&self, position: &Position) -> bool {
        let (list, revocations, tariffs) = position.revisions;
        let adopted = Artifacts {
            list,
            revocations,
            tariffs,
        };
        may_tell(&self.announced, &adopted, self.now_ms())
    }

    fn in_flight(&self, position: &Position) -> usize {
        self.ends.range(position.cursor + 1..).count()
    }

    fn has_work(&self, position: &Position) -> bool {
        if self.refused {
            return true;
        }
        self.sent < position.head && self.in_flight(position) < UPLOADS_MAX
    }

    /// Reads up to `wanted` ledger records behind the last one, as many as fit an upload.
    fn read(&mut self, reader: &Reader, wanted: usize) -> Result<Vec<ByteBuf>, String> {
        let wanted = wanted.min(UPLOAD_RECORDS_MAX);
        let mut records = Vec::new();
        let mut bytes = 0;
        while records.len() < wanted {
            let rows = reader
                .read(self.journal, READ_RECORDS)
                .map_err(|error| error.to_string())?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
                let (_, event) = record::decode(row.sequence, &row.bytes).map_err(|error| error.to_string())?;
                let encoded = event.record().filter(|r| r.sequence > self.sent).map(codec::to_vec);
                if let Some(encoded) = encoded {
                    if records.len() >= wanted || (bytes > 0 && bytes + encoded.len() > UPLOAD_BYTES_MAX) {
                        return Ok(records);
                    }
                    bytes += encoded.len();
                    self.sent += 1;
                    self.chain = chain(&self.chain, &encoded);
                    records.push(ByteBuf::from(encoded));
                }
                self.journal = row.sequence + 1;
            }
        }
        Ok(records)
    }

    fn slow_down(&mut self) {
        self.pace.throttled(self.now_ms(), fastrand::u64(..));
        self.refused = true;
    }
}

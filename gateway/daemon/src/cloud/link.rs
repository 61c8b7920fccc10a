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

use gateway_core::Input;
use journal::Reader;
use proto::{
    codec,
    id::{GatewayId, Hash, Name},
    link::{LINK_FRAME_BYTES_MAX, LedgerReceipt, UPLOAD_RECORDS_MAX, Upload, chain},
    trust::IssuerKey,
};
use serde_bytes::ByteBuf;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    cloud::{
        LinkJob,
        hcp::{Assembly, Hcp, Heard},
    },
    config::LinkConfig,
    engine::{Job, Position},
    mqtt::{Backoff, Connection, Event, Message, Options, STABLE_S, Sender},
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
/// Longest pause between two uploads, however much the cloud asks us to slow down.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// First wait for the answer to a hello; doubles up to [`HELLO_WAIT_MAX`]. A cloud that throttles swallows hellos too.
const HELLO_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two hellos on one connection.
const HELLO_WAIT_MAX: Duration = Duration::from_secs(30);
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
    /// Whose artifacts we believe.
    pub issuer_keys: Vec<IssuerKey>,
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
    /// Since when the connection stands. An attempt that hung for long was not a good one.
    pub since: Option<Instant>,
}

fn far_away() -> Instant {
    Instant::now() + HELLO_WAIT_MAX
}

/// The engine is gone: stop.
struct Gone;

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
    /// Not before this: the pace, and what the cloud asked for.
    pace_until: Instant,
    pause: Duration,
    /// What is on its way was refused: begin again at the cursor.
    refused: bool,
}

impl Link {
    /// Runs for ever, or until the engine is gone.
    pub async fn run(mut self) {
        let boot = self.position.borrow().boot;
        let mut hcp = Hcp::new(self.site, self.gateway, &self.config.secret, boot);
        let mut backoff = Backoff::new(self.config.reconnect_s_max).limited(self.config.reconnects_a_minute_max);
        loop {
            self.since = None;
            let Ok(why) = self.connection(&mut hcp).await else {
                return;
            };
            self.up.store(false, Ordering::Relaxed);
            if self.since.is_some_and(|since| since.elapsed().as_secs() >= STABLE_S) {
                backoff.reset();
            }
            let wait = backoff.next_wait();
            tracing::info!(why, wait_ms = wait.as_millis() as u64, "no link to the hub");
            tokio::time::sleep(wait).await;
            // Questions of before: their deadlines have passed, or will.
            while self.jobs.try_recv().is_ok() {}
        }
    }

    async fn connection(&mut self, hcp: &mut Hcp) -> Result<String, Gone> {
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
        loop {
            if self.up.load(Ordering::Relaxed) {
                hello = None;
            }
            let look_at = self
                .look_at(uploads.as_ref())
                .min(hello.map_or_else(far_away, |(at, _)| at));
            tokio::select! {
                event = connection.next() => match event {
                    Event::Up => {
                        self.since = Some(Instant::now());
                        hello = Some((Instant::now(), HELLO_WAIT));
                    }
                    Event::Message(message) => self.heard(hcp, &mut assembly, &mut uploads, message).await?,
                    Event::Down(why) => return Ok(why),
                },
                job = self.jobs.recv() => match job {
                    Some(LinkJob::Ask(ask)) => {
                        let (topic, frame) = hcp.ask(&ask);
                        if sender.publish(&topic, frame).is_err() {
                            self.tell(Input::Trouble { ask: ask.ask, code: 503 }).await?;
                        }
                    }
                    None => return Err(Gone),
                },
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
            if let Some(state) = &mut uploads
                && let Err(why) = self.upload(hcp, &sender, state).await?
            {
                return Ok(why);
            }
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
        message: Message,
    ) -> Result<(), Gone> {
        let heard = hcp.open(&message.topic, &message.payload);
        message.ack.accept(); // Nothing here is lost by a crash: it is asked for again.
        match heard {
            Ok(Heard::Welcome(welcome)) => {
                self.up.store(true, Ordering::Relaxed);
                tracing::info!(hub = self.config.broker, upto = welcome.upto, "link to the hub");
                let (epoch, upto) = (welcome.epoch, welcome.upto);
                self.tell(Input::Welcome(welcome)).await?;
                if epoch == self.position.borrow().epoch {
                    *uploads = Some(self.uploads_from(upto).await?);
                }
            }
            Ok(Heard::Answer(answer)) => self.tell(Input::Answer(answer)).await?,
            Ok(Heard::Receipt(receipt)) => {
                if let Some(state) = uploads {
                    self.receipt(state, receipt).await?;
                }
            }
            Ok(Heard::Part(part)) => match assembly.add(part, &self.issuer_keys) {
                Ok(Some(input)) => self.tell(input).await?,
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "ALARM artifact rejected"),
            },
            Ok(Heard::Echo(_)) => {}
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
            pace_until: now,
            pause: Duration::ZERO,
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

    async fn receipt(&self, state: &mut Uploads, receipt: LedgerReceipt) -> Result<(), Gone> {
        let upto = receipt.upto;
        let head = self.position.borrow().head;
        let own_hash = match state.ends.get(&upto) {
            Some(hash) => *hash,
            None => {
                // Not the end of an upload of ours: the hub stands elsewhere. Go on from where it stands.
                *state = self.uploads_from(upto.min(head)).await?;
                state.chain
            }
        };
        state.ends = state.ends.split_off(&upto);
        state.last_progress = Instant::now();
        self.tell(Input::Receipt { receipt, own_hash }).await
    }

    fn look_at(&self, uploads: Option<&Uploads>) -> Instant {
        let later = Instant::now() + LOOK_AGAIN;
        match uploads {
            Some(state) if state.has_work(&self.position.borrow()) => state.pace_until.min(later),
            Some(_) | None => later,
        }
    }

    /// Sends what there is to send and the pace allows.
    async fn upload(&self, hcp: &mut Hcp, sender: &Sender, state: &mut Uploads) -> Result<Result<(), String>, Gone> {
        let position = *self.position.borrow();
        if state.refused && Instant::now() >= state.pace_until {
            *state = Uploads {
                pause: state.pause,
                ..self.uploads_from(position.cursor).await?
            };
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
        if now < state.pace_until || !state.has_work(position) {
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
        let steady = Duration::from_secs(1) / self.config.batches_a_second_max;
        state.pace_until = now + steady.max(state.pause);
        state.pause /= 2;
        Ok(())
    }
}

impl Uploads {
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
        let doubled = (self.pause * 2).max(Duration::from_millis(500));
        self.pause = doubled.min(PAUSE_MAX);
        self.pace_until = self.pace_until.max(Instant::now() + self.pause);
        self.refused = true;
    }
}

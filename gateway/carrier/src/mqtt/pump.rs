//! The task of one MQTT connection: connects, subscribes, keeps the window, and gives everything a time.

use std::{collections::VecDeque, convert::Infallible, future::pending, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    sync::mpsc,
    time::Instant,
};

use super::{
    Options,
    packet::{self, Frame, Seen, Terms},
    window::Window,
};
use crate::{
    Ack, Class, Event, Message, Publish, Qos, Symptom, WhyUnsent,
    connection::{Ends, Limit},
    net, split_host_port, symptom,
};

/// Filters in one SUBSCRIBE: AWS takes no more.
const FILTERS_MAX: usize = 8;
/// Accepted messages whose PUBACK waits: as many as MQTT has packet ids, so that none is ever turned away.
const ACKS_MAX: usize = u16::MAX as usize;
/// Bytes that are read at once.
const READ_BYTES: usize = 8 * 1024;
/// No publish is taken while more than this waits for the socket, in bytes.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// How long somebody is listened to who takes no more bytes.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Where reason codes begin that mean failure.
const FAILURE: u8 = 0x80;

/// Runs one connection to its end.
pub(super) async fn run(options: Options, limit: Limit, ends: Ends) -> Symptom {
    let mut pump = Pump::new(options, limit);
    let Err(symptom) = pump.run(ends.publishes, &ends.events).await;
    for event in pump.unsaid {
        // An owner that is gone drops the connection, and with it this task.
        drop(ends.events.send(event).await);
    }
    symptom
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// TCP, TLS, CONNECT.
    Connecting,
    /// So many filters are subscribed or asked for, the last ones by this SUBSCRIBE.
    Subscribing { asked: usize, id: u16 },
    /// [`Event::Up`] was said.
    Up,
}

struct Pump {
    options: Options,
    limit: Limit,
    acks: mpsc::Sender<u16>,
    accepted: mpsc::Receiver<u16>,
    stage: Stage,
    /// When the stage has to be over.
    until: Instant,
    keep_alive: Duration,
    /// When something was read last.
    heard: Instant,
    /// When something was written last, and when the first byte of what waits for the socket came.
    wrote: Instant,
    window: Window,
    pinged: Option<Instant>,
    /// Events for which the owner has had no time yet; meanwhile nothing is read.
    unsaid: VecDeque<Event>,
    /// Since when there are any.
    unsaid_since: Instant,
    /// For the socket.
    out: BytesMut,
    /// Whether the socket has bytes that it may still hold back.
    is_unflushed: bool,
}

/// What woke the pump.
enum Woken {
    Read(std::io::Result<usize>),
    Wrote(std::io::Result<()>),
    Said,
    Accepted(u16),
    Publish(Publish),
    Time,
}

impl Pump {
    fn new(options: Options, limit: Limit) -> Self {
        let (acks, accepted) = mpsc::channel(ACKS_MAX);
        let now = Instant::now();
        Self {
            until: net::in_s(options.connect_s_max),
            window: Window::new(options.inflight_max),
            keep_alive: keep_alive(&options),
            options,
            limit,
            acks,
            accepted,
            stage: Stage::Connecting,
            heard: now,
            wrote: now,
            pinged: None,
            unsaid: VecDeque::new(),
            unsaid_since: now,
            out: BytesMut::new(),
            is_unflushed: false,
        }
    }

    async fn run(
        &mut self,
        mut publishes: mpsc::Receiver<Publish>,
        events: &mpsc::Sender<Event>,
    ) -> Result<Infallible, Symptom> {
        let unfit = |why: String| Symptom::new(Class::Protocol, 0, why);
        let broker = self.options.broker.clone();
        let (host, port) = split_host_port(&broker).ok_or_else(|| unfit(format!("{broker:?} is not host:port")))?;
        packet::connect(&self.options, &mut self.out).map_err(unfit)?;
        let stream = net::dial(host, port, self.options.tls.clone(), self.until).await?;
        let (mut reader, mut writer) = split(stream);
        let mut read = BytesMut::new();
        (self.heard, self.wrote) = (Instant::now(), Instant::now());
        loop {
            while let Some(frame) = self.frame(&mut read)? {
                let seen = packet::read(self.options.version, &frame).map_err(|why| self.garbled(&why))?;
                self.saw(seen)?;
            }
            let (takes, at) = (self.takes_publishes(), self.next_time());
            let (listens, writes) = (self.unsaid.is_empty(), !self.out.is_empty() || self.is_unflushed);
            read.reserve(READ_BYTES);
            let woken = tokio::select! {
                bytes = reader.read_buf(&mut read), if listens => Woken::Read(bytes),
                done = write(&mut writer, &mut self.out, &mut self.is_unflushed), if writes => Woken::Wrote(done),
                permit = events.reserve(), if !listens => {
                    if let (Ok(permit), Some(event)) = (permit, self.unsaid.pop_front()) {
                        permit.send(event);
                    }
                    Woken::Said
                }
                Some(id) = self.accepted.recv() => Woken::Accepted(id),
                publish = recv(&mut publishes, takes) => Woken::Publish(publish),
                () = tokio::time::sleep_until(at) => Woken::Time,
            };
            if let Woken::Wrote(Err(error)) = woken {
                return Err(self.last_words(&mut reader, &mut read, &error).await);
            }
            self.woken(woken)?;
        }
    }

    /// Who closes while we write may have said why: TLS in an alert, MQTT in a DISCONNECT.
    async fn last_words(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        read: &mut BytesMut,
        error: &std::io::Error,
    ) -> Symptom {
        let until = Instant::now() + LAST_WORDS;
        loop {
            while let Ok(Some(frame)) = Frame::take(read, self.options.packet_bytes_max) {
                if let Ok(Seen::Over(symptom)) = packet::read(self.options.version, &frame) {
                    return symptom;
                }
            }
            match tokio::time::timeout_at(until, reader.read_buf(read)).await {
                Ok(Ok(bytes)) if bytes > 0 => {}
                Ok(Err(alert)) => return symptom::io(&alert),
                Ok(Ok(_)) | Err(_) => return symptom::io(error),
            }
        }
    }

    fn woken(&mut self, woken: Woken) -> Result<(), Symptom> {
        let now = Instant::now();
        match woken {
            Woken::Read(Ok(0)) => return Err(self.closed()),
            Woken::Read(Ok(_)) => self.heard = now,
            Woken::Wrote(Ok(())) => self.wrote = now,
            Woken::Read(Err(error)) | Woken::Wrote(Err(error)) => return Err(symptom::io(&error)),
            Woken::Said if self.unsaid.is_empty() => {
                // What came while nobody listened is not late.
                let waited = now - self.unsaid_since;
                self.window.forgive(waited);
                self.pinged = self.pinged.map(|since| since + waited);
            }
            Woken::Said => {}
            Woken::Accepted(id) => self.write(|out| put(out, &packet::acknowledge(id)))?,
            Woken::Publish(publish) => self.publish(publish),
            Woken::Time => return self.time(now),
        }
        Ok(())
    }

    /// The next packet, unless the owner has to hear of others first.
    fn frame(&self, read: &mut BytesMut) -> Result<Option<Frame>, Symptom> {
        if !self.unsaid.is_empty() {
            return Ok(None);
        }
        // A web server's answer would otherwise look like a long packet that never ends.
        if let (Stage::Connecting, Some(first)) = (self.stage, read.first())
            && !packet::is_answer(*first)
        {
            return Err(self.garbled("it begins with something else than CONNACK"));
        }
        Frame::take(read, self.options.packet_bytes_max).map_err(|why| self.garbled(&why))
    }

    fn say(&mut self, event: Event) {
        if self.unsaid.is_empty() {
            self.unsaid_since = Instant::now();
        }
        self.unsaid.push_back(event);
    }

    /// Adds a packet to what waits for the socket, or, if it cannot be made, nothing.
    fn write(&mut self, add: impl FnOnce(&mut BytesMut) -> Result<(), String>) -> Result<(), Symptom> {
        if self.out.is_empty() && !self.is_unflushed {
            self.wrote = Instant::now();
        }
        let before = self.out.len();
        add(&mut self.out).map_err(|why| {
            self.out.truncate(before);
            Symptom::new(Class::Protocol, 0, why)
        })
    }

    /// Nothing is sent before everything is subscribed: the answer could come before we listen.
    fn takes_publishes(&self) -> bool {
        self.stage == Stage::Up && self.window.has_room() && self.out.len() < WRITE_BYTES_MAX
    }

    fn publish(&mut self, publish: Publish) {
        // The cloud may have said how long a packet may be after this one was queued.
        if let Err(WhyUnsent::TooLarge { bytes, bytes_max }) = self.limit.check(&publish) {
            let why = format!("{}: {bytes} bytes are more than {bytes_max}, not sent", publish.topic);
            self.say(Event::Symptom(Symptom::new(Class::Protocol, 413, why)));
            return;
        }
        let id = match publish.qos {
            Qos::AtMostOnce => 0,
            Qos::AtLeastOnce => self.window.next_id(),
        };
        let version = self.options.version;
        match self.write(|out| packet::publish(version, id, publish, out)) {
            Ok(()) if id != 0 => self.window.sent(id, Instant::now()),
            Ok(()) => {}
            Err(symptom) => self.say(Event::Symptom(symptom)),
        }
    }

    fn answer(&self) -> Duration {
        Duration::from_secs(u64::from(self.options.answer_s_max))
    }

    /// When to ping: after a keep-alive in which one of us was silent.
    fn ping_at(&self) -> Option<Instant> {
        let is_due = self.stage == Stage::Up && self.pinged.is_none();
        is_due.then(|| self.heard.min(self.wrote) + self.keep_alive)
    }

    /// When what we wait for should have happened, and what that is.
    fn late_at(&self) -> (Instant, &'static str) {
        let stage = match self.stage {
            Stage::Connecting => Some((self.until, "CONNACK")),
            Stage::Subscribing { .. } => Some((self.until, "SUBACK")),
            Stage::Up => None,
        };
        let waits = self.out.has_remaining() || self.is_unflushed;
        let stalled = waits.then(|| (self.wrote + self.answer(), "way for our bytes"));
        // Unread answers are nobody's fault but the owner's.
        let is_listening = self.unsaid.is_empty();
        let oldest = self.window.oldest().filter(|_| is_listening);
        let unacknowledged = oldest.map(|since| (since + self.answer(), "PUBACK"));
        let pinged = self.pinged.filter(|_| is_listening);
        let unanswered = pinged.map(|since| (since + self.answer(), "PINGRESP"));
        let all = [stage, stalled, unacknowledged, unanswered];
        let never = (Instant::now() + self.keep_alive, "");
        all.into_iter().flatten().min_by_key(|(at, _)| *at).unwrap_or(never)
    }

    fn next_time(&self) -> Instant {
        let late = self.late_at().0;
        self.ping_at().map_or(late, |at| at.min(late))
    }

    fn time(&mut self, now: Instant) -> Result<(), Symptom> {
        let (late_at, what) = self.late_at();
        if late_at <= now {
            return Err(Symptom::new(Class::Partition, 0, format!("no {what} in time")));
        }
        if self.ping_at().is_some_and(|at| at <= now) {
            self.pinged = Some(now);
            self.write(|out| put(out, &packet::PINGREQ))?;
        }
        Ok(())
    }

    fn saw(&mut self, seen: Seen) -> Result<(), Symptom> {
        match (seen, self.stage) {
            (Seen::Over(symptom), _) => return Err(symptom),
            (Seen::Connected(terms), Stage::Connecting) => self.connected(terms)?,
            (Seen::Granted { id, codes }, Stage::Subscribing { asked, id: expected }) if id == expected => {
                self.granted(asked, &codes)?;
            }
            // A broker with an old session of ours may begin before it answers.
            (Seen::Message { topic, payload, id }, Stage::Subscribing { .. } | Stage::Up) => {
                let ack = if id == 0 {
                    Ack::NONE
                } else {
                    Ack::new(self.acks.clone(), id)
                };
                self.say(Event::Message(Message { topic, payload, ack }));
            }
            (Seen::Acknowledged { id, code, said }, Stage::Up) if self.window.acknowledged(id) => {
                if code != 0 {
                    let symptom = symptom::reason("PUBACK", code, said.as_deref());
                    self.say(Event::Symptom(symptom));
                }
            }
            (Seen::Ponged, Stage::Subscribing { .. } | Stage::Up) => self.pinged = None,
            (unexpected, stage) => return Err(self.garbled(&format!("{unexpected:?} while {stage:?}"))),
        }
        Ok(())
    }

    fn connected(&mut self, terms: Terms) -> Result<(), Symptom> {
        if let Some(bytes_max) = terms.packet_bytes_max {
            self.limit.lower_to(bytes_max);
        }
        if let Some(inflight_max) = terms.inflight_max {
            self.window.lower_to(inflight_max);
        }
        // 0 switches it off at the broker; we want to know anyway whether it lives.
        if let Some(keep_alive_s) = terms.keep_alive_s.filter(|keep_alive_s| *keep_alive_s > 0) {
            self.keep_alive = Duration::from_secs(u64::from(keep_alive_s));
        }
        self.subscribe_from(0)
    }

    fn granted(&mut self, asked: usize, codes: &[u8]) -> Result<(), Symptom> {
        let first = (asked - 1) / FILTERS_MAX * FILTERS_MAX;
        let filters = self.options.filters[first..asked].to_vec();
        if codes.len() != filters.len() {
            let why = format!("a SUBACK with {} codes for {} filters", codes.len(), filters.len());
            return Err(self.garbled(&why));
        }
        for ((filter, wanted), code) in filters.iter().zip(codes) {
            if *code >= FAILURE {
                return Err(packet::refused(self.options.version, filter, *code));
            }
            if *wanted == Qos::AtLeastOnce && *code == 0 {
                let why = format!("{filter} is granted with QoS 0 only: messages may be lost");
                self.say(Event::Symptom(Symptom::new(Class::Protocol, 0, why)));
            }
        }
        self.subscribe_from(asked)
    }

    /// Asks for the next filters, or is up.
    fn subscribe_from(&mut self, asked: usize) -> Result<(), Symptom> {
        let rest = &self.options.filters[asked..];
        self.until = net::in_s(self.options.connect_s_max);
        if rest.is_empty() {
            self.stage = Stage::Up;
            self.say(Event::Up);
            return Ok(());
        }
        let wanted = rest[..rest.len().min(FILTERS_MAX)].to_vec();
        let (version, id) = (self.options.version, self.window.next_id());
        self.write(|out| packet::subscribe(version, id, &wanted, out))?;
        self.stage = Stage::Subscribing {
            asked: asked + wanted.len(),
            id,
        };
        Ok(())
    }

    /// Bytes that make no sense: before CONNACK somebody else answers, later the line is damaged.
    fn garbled(&self, why: &str) -> Symptom {
        match self.stage {
            Stage::Connecting => {
                let why = format!("who answers does not speak MQTT: {why}");
                Symptom::new(Class::Intercepted, 0, why)
            }
            Stage::Subscribing { .. } | Stage::Up => {
                Symptom::new(Class::Partition, 0, format!("damaged on the way: {why}"))
            }
        }
    }

    /// The other side closed. Before CONNACK that is AWS's and Alibaba's way to say no, and anybody's way to be
    /// overloaded.
    fn closed(&self) -> Symptom {
        let stage = match self.stage {
            Stage::Connecting => "before CONNACK",
            Stage::Subscribing { .. } => "before SUBACK",
            Stage::Up => "",
        };
        Symptom::new(
            Class::Partition,
            0,
            format!("the broker closed the connection {stage}").trim_end(),
        )
    }
}

/// What is asked of the broker; 0 would mean that nobody looks.
fn keep_alive(options: &Options) -> Duration {
    Duration::from_secs(u64::from(options.keep_alive_s.max(1)))
}

fn put(out: &mut BytesMut, packet: &[u8]) -> Result<(), String> {
    out.extend_from_slice(packet);
    Ok(())
}

/// Moves what waits into the socket. May be dropped at any time: what is done is noted.
async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    out: &mut BytesMut,
    is_unflushed: &mut bool,
) -> std::io::Result<()> {
    if out.has_remaining() {
        *is_unflushed = true;
        writer.write_buf(out).await?;
        return Ok(());
    }
    writer.flush().await?;
    *is_unflushed = false;
    Ok(())
}

/// The next publish, if it is taken and there ever is one.
async fn recv(publishes: &mut mpsc::Receiver<Publish>, takes: bool) -> Publish {
    if takes && let Some(publish) = publishes.recv().await {
        return publish;
    }
    pending().await
}

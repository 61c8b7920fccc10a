//! One connection: the task that moves bytes, asks `Exchange` what they mean, and waits for whatever comes first.
//!
//! The life of a connection: CONNECT within the time limit, access, the session (taken over if need be), `Connected` to the
//! application, CONNACK; then packets until it ends; then the will, `Disconnected`, the session let go, the last bytes.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::access::Protocol;
use crate::admission::{self, Admitted, Attachment, Refused, Stranger};
use crate::application::{Application, NotTaken, Place, Room};
use crate::counters;
use crate::decode;
use crate::encode;
use crate::exchange::{End, Exchange};
use crate::gate::{self, Slot};
use crate::inbound::{DisconnectReason, Inbound, Outcome};
use crate::rate::Pace;
use crate::shared::Shared;
use crate::stream::{Driven, Stream};

/// Unsent bytes above which nothing more is read from or queued for a client: a packet, so that every packet gets its turn.
const OUT_BYTES_PAUSE: usize = 16 * 1024;
/// A time that never comes: a timer needs one when there is no deadline.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A connected client's task.
struct Connection<S> {
    stream: Stream<S>,
    exchange: Exchange,
    application: Arc<dyn Application>,
    attachment: Attachment,
    peer: SocketAddr,
    /// A message the application had no room for. Until it has, nothing more is read.
    held: Option<Box<(Inbound, Room)>>,
    /// Reused between rounds.
    settled: Vec<(u64, Outcome)>,
    keep_alive: Duration,
    pace: Arc<Mutex<Pace>>,
    /// Until when nothing is read, because the client was faster than it may be.
    paced_until: Option<Instant>,
    last_received: Instant,
    /// Since when the client has taken no byte although some wait.
    stalled_since: Option<Instant>,
    /// Its place, free again when all is done.
    slot: Slot,
}

/// Serve one stream from its first byte to its last.
///
/// Ten thousand of these futures lie idle in memory, so each holds a pointer to its `Connection` and what it waits with; what
/// happens once (being let in, taking leave) has a box of its own meanwhile.
pub(crate) fn serve<S>(
    shared: Arc<Shared>,
    application: Arc<dyn Application>,
    io: S,
    stranger: Stranger,
    slot: Slot,
) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let admission = Box::pin(begin(shared, application, io, stranger, slot));
    async move {
        if let Some(mut connection) = admission.await {
            let end = connection.live().await;
            Box::pin(connection.finish(end)).await;
        }
    }
}

/// Let a stranger in, or tell it why not.
async fn begin<S>(
    shared: Arc<Shared>,
    application: Arc<dyn Application>,
    io: S,
    stranger: Stranger,
    mut slot: Slot,
) -> Option<Box<Connection<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut stream = Stream::new(io);
    let peer = stranger.peer;
    let admitted = tokio::select! {
        biased;
        () = shared.closing() => Err(Refused::ShuttingDown),
        admitted = admission::admit(&shared, &application, &mut stream, &stranger) => admitted,
    };
    match admitted {
        Ok(admitted) => {
            slot.admitted();
            Some(Box::new(Connection::new(stream, application, peer, admitted, slot)))
        }
        Err(why) => {
            // A port scan or a health check is not news; a client that was told no is.
            match why {
                Refused::Closed | Refused::ShuttingDown => tracing::debug!(%peer, reason = %why, "connection refused"),
                Refused::Timeout
                | Refused::Violation(_)
                | Refused::Denied { .. }
                | Refused::Unacceptable { .. }
                | Refused::TooOften { .. }
                | Refused::NoRoom => shared.tell_refusal(peer, &why),
            }
            stream.close().await;
            drop(slot);
            None
        }
    }
}

/// Count and log the end, once per connection. What a peer did wrong is worth a line; coming and going is not.
fn report(shared: &Shared, peer: SocketAddr, attachment: &Attachment, reason: DisconnectReason) {
    let client_id = attachment.client_id();
    match reason {
        DisconnectReason::ByClient
        | DisconnectReason::ByClientWithWill
        | DisconnectReason::ConnectionLost
        | DisconnectReason::KeepAliveExpired
        | DisconnectReason::TakenOver
        | DisconnectReason::Administrative
        | DisconnectReason::ShuttingDown => tracing::debug!(%peer, client_id, %reason, "connection ended"),
        DisconnectReason::SlowConsumer => {
            counters::add(&shared.counting.slow_consumers, 1);
            tracing::info!(%peer, client_id, %reason, "connection cut");
        }
        DisconnectReason::AckDropped | DisconnectReason::Forbidden => {
            tracing::info!(%peer, client_id, %reason, "connection cut");
        }
        DisconnectReason::ProtocolViolation(_)
        | DisconnectReason::PacketTooLarge
        | DisconnectReason::ReceiveMaximumExceeded => {
            counters::add(&shared.counting.violations, 1);
            tracing::info!(%peer, client_id, %reason, "connection cut");
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(
        stream: Stream<S>,
        application: Arc<dyn Application>,
        peer: SocketAddr,
        admitted: Admitted,
        slot: Slot,
    ) -> Connection<S> {
        let Admitted {
            attachment,
            exchange,
            keep_alive,
            pace,
        } = admitted;
        Connection {
            stream,
            exchange,
            application,
            attachment,
            peer,
            held: None,
            settled: Vec::new(),
            keep_alive,
            pace,
            paced_until: None,
            last_received: Instant::now(),
            stalled_since: None,
            slot,
        }
    }

    /// The connection has ended.
    async fn finish(self: Box<Self>, end: End) {
        let Connection {
            mut stream,
            exchange,
            application,
            attachment,
            peer,
            slot,
            ..
        } = *self;
        report(&exchange.shared, peer, &attachment, end.reason);
        if let (Protocol::V5, Some(code)) = (exchange.recipient.protocol, end.code) {
            encode::disconnect(&mut stream.out, code);
        }
        attachment.finish(exchange.will, end.reason, &application).await;
        stream.close().await;
        drop(slot);
    }

    /// Work until the connection ends.
    async fn live(&mut self) -> End {
        let sleep = tokio::time::sleep(NEVER);
        tokio::pin!(sleep);
        loop {
            if let Err(end) = self.work() {
                return end;
            }
            if let Err(end) = self.wait(sleep.as_mut()).await {
                return end;
            }
        }
    }

    /// Do everything that can be done without waiting.
    fn work(&mut self) -> Result<(), End> {
        if self.paced_until.is_some_and(|until| until <= Instant::now()) {
            self.paced_until = None;
            // What came meanwhile was not read, so the silence was ours.
            self.last_received = Instant::now();
        }
        if let Some(reason) = self.exchange.mailbox.take(&mut self.settled) {
            return Err(reason.into());
        }
        for (sequence, outcome) in self.settled.drain(..) {
            self.exchange.settle(sequence, outcome);
        }
        self.exchange.flush_acks(&mut self.stream.out)?;
        self.read_packets()?;
        self.send_queued();
        Ok(())
    }

    /// True while packets may be taken from the stream.
    fn reading(&self) -> bool {
        self.held.is_none()
            && self.paced_until.is_none()
            && !self.exchange.paused()
            && self.stream.unsent() < OUT_BYTES_PAUSE
    }

    fn read_packets(&mut self) -> Result<(), End> {
        let bytes_max = self.exchange.shared.limits.packet_bytes_max;
        let mut consumed = 0;
        let result = loop {
            if !self.reading() {
                break Ok(());
            }
            let received = &self.stream.received()[consumed..];
            let (packet, end) = match decode::frame(received, bytes_max) {
                Ok(None) => break Ok(()),
                Ok(Some(frame)) => {
                    let end = frame.body.end;
                    (
                        decode::packet(self.exchange.recipient.protocol, frame.first, &received[frame.body]),
                        end,
                    )
                }
                Err(violation) => break Err(violation.into()),
            };
            consumed += end;
            let now = Instant::now();
            self.last_received = now;
            self.paced_until = gate::lock(&self.pace).read(end, &self.exchange.shared.limits, now);
            if self.paced_until.is_some() {
                counters::add(&self.exchange.shared.counting.throttled, 1);
            }
            match packet
                .map_err(End::from)
                .and_then(|packet| self.exchange.handle(packet, &mut self.stream.out))
            {
                Ok(None) => {}
                Ok(Some(event)) => {
                    if let Err(end) = self.hand_over(event) {
                        break Err(end);
                    }
                }
                Err(end) => break Err(end),
            }
        };
        if consumed > 0 {
            self.stream.consume(consumed);
        }
        result
    }

    /// Give a message to the application, or hold it until there is room.
    fn hand_over(&mut self, event: Inbound) -> Result<(), End> {
        match self.application.take(event) {
            Ok(()) => Ok(()),
            Err(NotTaken::Full(event)) => {
                self.held = Some(Box::new((event, self.application.room())));
                Ok(())
            }
            Err(NotTaken::Closed) => Err(DisconnectReason::ShuttingDown.into()),
        }
    }

    fn send_queued(&mut self) {
        let exchange = &mut self.exchange;
        let (out, to) = (&mut self.stream.out, &mut exchange.recipient);
        let filled = exchange
            .session
            .lock()
            .outgoing
            .fill(out, to, OUT_BYTES_PAUSE, Instant::now());
        counters::add(&exchange.shared.counting.sent, filled.sent);
        counters::add(&exchange.shared.counting.dropped, filled.dropped);
    }

    /// Wait for bytes, for the application, for other clients, or for a deadline.
    async fn wait(&mut self, mut sleep: Pin<&mut Sleep>) -> Result<(), End> {
        if self.stream.unsent() == 0 {
            self.stalled_since = None;
        } else if self.stalled_since.is_none() {
            self.stalled_since = Some(Instant::now());
        }
        // The timer is moved only when it would fire too late: a packet that puts off the keep-alive leaves it alone.
        let deadline = self.deadline();
        if deadline.is_some_and(|at| at < sleep.deadline()) {
            sleep.as_mut().reset(deadline.expect("just seen"));
        }
        let reading = self.reading();
        tokio::select! {
            biased;
            driven = self.stream.drive(reading) => match driven {
                Ok(Driven::Received) => {}
                Ok(Driven::Sent) => self.stalled_since = None,
                Ok(Driven::Closed) | Err(_) => return Err(DisconnectReason::ConnectionLost.into()),
            },
            () = self.exchange.mailbox.woken() => {}
            place = room(&mut self.held) => {
                let Some(place) = place else { return Err(DisconnectReason::ShuttingDown.into()) };
                if let Some(held) = self.held.take() {
                    place(held.0);
                }
                // What came meanwhile was not read, so the silence was ours.
                self.last_received = Instant::now();
            }
            () = sleep.as_mut() => self.check_deadline(sleep)?,
        }
        Ok(())
    }

    /// When to look whether the client is still there.
    fn deadline(&self) -> Option<Instant> {
        let limits = &self.exchange.shared.limits;
        let stall = self
            .stalled_since
            .map(|since| since + Duration::from_millis(limits.write_stall_ms));
        // A client that is not read from cannot prove that it lives.
        let silence = self.reading().then(|| self.last_received + self.keep_alive);
        stall.into_iter().chain(silence).chain(self.paced_until).min()
    }

    fn check_deadline(&self, mut sleep: Pin<&mut Sleep>) -> Result<(), End> {
        let now = Instant::now();
        match self.deadline() {
            Some(at) if at <= now => {
                let stall = Duration::from_millis(self.exchange.shared.limits.write_stall_ms);
                if self.stalled_since.is_some_and(|since| since + stall <= now) {
                    Err(DisconnectReason::SlowConsumer.into())
                } else if self.paced_until.is_some() {
                    sleep.as_mut().reset(now + NEVER);
                    Ok(())
                } else {
                    Err(DisconnectReason::KeepAliveExpired.into())
                }
            }
            later => {
                sleep.as_mut().reset(later.unwrap_or(now + NEVER));
                Ok(())
            }
        }
    }
}

/// Wait for room at the application, if a message is held; for ever if none is.
async fn room(held: &mut Option<Box<(Inbound, Room)>>) -> Option<Place> {
    match held {
        Some(held) => held.1.as_mut().await,
        None => std::future::pending().await,
    }
}

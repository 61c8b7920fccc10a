//! From a fresh stream to a connected client, and back: CONNECT, access, the session, CONNACK; and letting the session go.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::access::{ConnectDenied, ConnectRequest, Protocol};
use crate::application::{Application, deliver};
use crate::counters;
use crate::decode;
use crate::encode::{self, Granted, Recipient};
use crate::exchange::{Exchange, TOPIC_ALIAS_MAX};
use crate::hello::{self, Connect};
use crate::inbound::{DisconnectReason, Inbound};
use crate::mailbox::Mailbox;
use crate::message::Will;
use crate::rate::Pace;
use crate::reason;
use crate::router::Attach;
use crate::session::Session;
use crate::shared::Shared;
use crate::stream::{Driven, Stream};
use crate::topic;

/// A client that was let in.
pub(crate) struct Admitted {
    pub(crate) attachment: Attachment,
    pub(crate) exchange: Exchange,
    /// Silence after which the client counts as lost: one and a half times its keep-alive, or as long as anybody may be silent.
    pub(crate) keep_alive: Duration,
    /// How fast it may be read.
    pub(crate) pace: Arc<Mutex<Pace>>,
}

/// Who knocks: where it comes from, what it proved on the way, and until when it has to be in.
#[derive(Debug, Clone)]
pub(crate) struct Stranger {
    pub(crate) peer: SocketAddr,
    pub(crate) identity: Option<Box<str>>,
    pub(crate) deadline: Instant,
}

/// Why a stream never became a client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("no CONNECT in time")]
    Timeout,
    #[error("closed before CONNECT")]
    Closed,
    #[error("{0}")]
    Violation(&'static str),
    #[error("client {client_id:?}: {denied}")]
    Denied { client_id: String, denied: ConnectDenied },
    #[error("client {client_id:?}: {why}")]
    Unacceptable { client_id: String, why: &'static str },
    #[error("client {client_id:?} connects too often")]
    TooOften { client_id: String },
    #[error("no room for another session")]
    NoRoom,
    #[error("server shutting down")]
    ShuttingDown,
}

/// Read CONNECT and let the client in, or tell it why not.
///
/// # Errors
/// The reason, for the log; the answer to the client, if there is one, is in `stream.out`.
pub(crate) async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    application: &Arc<dyn Application>,
    stream: &mut Stream<S>,
    stranger: &Stranger,
) -> Result<Admitted, Refused> {
    let connect = tokio::time::timeout_at(stranger.deadline, read_connect(shared, stream))
        .await
        .map_err(|_| {
            counters::add(&shared.counting.connect_timeouts, 1);
            Refused::Timeout
        })??;
    let protocol = connect.protocol;
    match admit_client(shared, application, stream, stranger, connect).await {
        Ok(admitted) => Ok(admitted),
        Err((refused, code)) => {
            counters::add(&shared.counting.connects_refused, 1);
            if let Some(code) = code {
                encode::connack_refused(&mut stream.out, protocol, code);
            }
            Err(refused)
        }
    }
}

async fn read_connect<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    stream: &mut Stream<S>,
) -> Result<Connect, Refused> {
    loop {
        match decode::frame(stream.received(), shared.limits.packet_bytes_max) {
            Ok(Some(frame)) => {
                let end = frame.body.end;
                let read = hello::connect(frame.first, &stream.received()[frame.body]);
                stream.consume(end);
                return read.map_err(|error| {
                    counters::add(&shared.counting.violations, 1);
                    if let Some((protocol, code)) = error.answer {
                        encode::connack_refused(&mut stream.out, protocol, code);
                    }
                    Refused::Violation(error.violation.what)
                });
            }
            Ok(None) => {}
            Err(violation) => {
                counters::add(&shared.counting.violations, 1);
                return Err(Refused::Violation(violation.what));
            }
        }
        // Anything but CONNECT is refused at its first byte, not when its length has arrived.
        if stream
            .received()
            .first()
            .is_some_and(|first| *first != decode::CONNECT << 4)
        {
            counters::add(&shared.counting.violations, 1);
            return Err(Refused::Violation("first packet is not CONNECT"));
        }
        match stream.drive(true).await {
            Ok(Driven::Received | Driven::Sent) => {}
            Ok(Driven::Closed) | Err(_) => return Err(Refused::Closed),
        }
    }
}

/// A refusal and the CONNACK code that tells it.
type Denial = (Refused, Option<u8>);

async fn admit_client<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    application: &Arc<dyn Application>,
    stream: &mut Stream<S>,
    stranger: &Stranger,
    mut connect: Connect,
) -> Result<Admitted, Denial> {
    let assigned = connect.client_id.is_empty();
    check_request(shared, &mut connect, assigned, stranger)?;
    let limits = &shared.limits;
    let client_id: Arc<str> = Arc::from(&*connect.client_id);
    let Some(pace) = shared.gate.pace(&client_id, limits, Instant::now()) else {
        counters::add(&shared.counting.connects_too_often, 1);
        let client_id = shortened(&client_id);
        let code = reason::connect_denied(connect.protocol, ConnectDenied::Unavailable);
        return Err((Refused::TooOften { client_id }, Some(code)));
    };
    let expiry_s = connect.session_expiry_s.min(limits.session_expiry_s_max);
    let mailbox = Arc::new(Mailbox::default());
    let (session, present, ended_will) = take_session(shared, &client_id, &connect, expiry_s, &mailbox).await?;
    let attachment = Attachment {
        shared: shared.clone(),
        session: session.clone(),
        mailbox: mailbox.clone(),
        held: true,
    };
    if let Some(will) = ended_will {
        shared.publish_will(&session, will, application).await;
    }
    let event = Inbound::Connected {
        client_id: client_id.clone(),
        protocol: connect.protocol,
        session_present: present,
    };
    if !deliver(application, event).await {
        return Err((
            Refused::ShuttingDown,
            Some(reason::connect_denied(connect.protocol, ConnectDenied::Unavailable)),
        ));
    }
    let keep_alive_s = match connect.protocol {
        Protocol::V5 if connect.keep_alive_s == 0 => limits.keep_alive_s_max,
        Protocol::V5 => connect.keep_alive_s.min(limits.keep_alive_s_max),
        Protocol::V311 => connect.keep_alive_s,
    };
    let granted = Granted {
        session_present: present,
        assigned_client_id: assigned.then_some(&*client_id),
        session_expiry_s: (expiry_s != connect.session_expiry_s).then_some(expiry_s),
        keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
        receive_max: limits.inflight_max,
        packet_bytes_max: limits.packet_bytes_max,
        topic_alias_max: TOPIC_ALIAS_MAX,
    };
    encode::connack_accepted(&mut stream.out, connect.protocol, &granted);
    let recipient = Recipient {
        protocol: connect.protocol,
        receive_max: connect.receive_max.min(limits.inflight_max),
        packet_bytes_max: connect.packet_bytes_max,
        topic_alias_max: connect.topic_alias_max.min(TOPIC_ALIAS_MAX),
        aliased: Vec::new(),
    };
    let exchange = Exchange::new(shared.clone(), session, mailbox, recipient, connect.will.take());
    let silence = Duration::from_secs(limits.silence_s_max);
    let keep_alive = match keep_alive_s {
        0 => silence,
        seconds => silence.min(Duration::from_millis(u64::from(seconds) * 1_500)),
    };
    Ok(Admitted {
        attachment,
        exchange,
        keep_alive,
        pace,
    })
}

/// Everything about a CONNECT that can be judged without its session.
fn check_request(shared: &Shared, connect: &mut Connect, assigned: bool, stranger: &Stranger) -> Result<(), Denial> {
    let protocol = connect.protocol;
    let denied = |connect: &Connect, denied| {
        let client_id = shortened(&connect.client_id);
        (
            Refused::Denied { client_id, denied },
            Some(reason::connect_denied(protocol, denied)),
        )
    };
    let unacceptable = |connect: &Connect, why, code| {
        let client_id = shortened(&connect.client_id);
        (
            Refused::Unacceptable { client_id, why },
            (protocol == Protocol::V5).then_some(code),
        )
    };
    if assigned {
        // 3.1.1 allows no identifier only to a client that will not come back for its session.
        if protocol == Protocol::V311 && !connect.clean_start {
            return Err(denied(connect, ConnectDenied::ClientIdRejected));
        }
        connect.client_id = shared.assign_client_id().into();
    }
    if connect.client_id.len() > shared.limits.client_id_bytes_max {
        return Err(denied(connect, ConnectDenied::ClientIdRejected));
    }
    if connect.enhanced_authentication {
        let code = reason::BAD_AUTHENTICATION_METHOD;
        return Err(unacceptable(connect, "enhanced authentication is not offered", code));
    }
    let request = ConnectRequest {
        client_id: &connect.client_id,
        client_id_assigned: assigned,
        username: connect.username.as_deref(),
        password: connect.password.as_deref(),
        protocol,
        identity: stranger.identity.as_deref(),
        peer: stranger.peer,
    };
    shared.access.connect(&request).map_err(|why| denied(connect, why))?;
    if let Some(will) = &connect.will {
        if !topic::valid_name(&will.message.topic, shared.limits.topic_bytes_max) {
            return Err(unacceptable(
                connect,
                "will topic is not valid",
                reason::TOPIC_NAME_INVALID,
            ));
        }
        if !shared.access.may_publish(&connect.client_id, &will.message.topic) {
            return Err(denied(connect, ConnectDenied::NotAuthorized));
        }
    }
    Ok(())
}

/// A client identifier for the log, which a stranger may have sent.
fn shortened(client_id: &str) -> String {
    const LOGGED_CHARS_MAX: usize = 64;
    client_id.chars().take(LOGGED_CHARS_MAX).collect()
}

/// Get the client its session. If another connection holds it, that one is closed first, and has said so to the application.
async fn take_session(
    shared: &Shared,
    client_id: &Arc<str>,
    connect: &Connect,
    expiry_s: u32,
    mailbox: &Arc<Mailbox>,
) -> Result<(Arc<Session>, bool, Option<Will>), Denial> {
    loop {
        let attach = shared
            .router()
            .attach(client_id, connect.clean_start, expiry_s, mailbox, &shared.limits);
        match attach {
            Attach::Attached {
                session,
                present,
                ended_will,
            } => return Ok((session, present, ended_will)),
            Attach::Held(holder) => {
                holder.close(DisconnectReason::TakenOver);
                holder.gone().await;
            }
            Attach::Full => {
                let code = match connect.protocol {
                    Protocol::V311 => reason::connect_denied(Protocol::V311, ConnectDenied::Unavailable),
                    Protocol::V5 => reason::QUOTA_EXCEEDED,
                };
                return Err((Refused::NoRoom, Some(code)));
            }
        }
    }
}

/// A connection's hold on its session. Dropping it lets go, whatever happened to the task, so that no client is locked out.
pub(crate) struct Attachment {
    shared: Arc<Shared>,
    session: Arc<Session>,
    mailbox: Arc<Mailbox>,
    held: bool,
}

impl Attachment {
    pub(crate) fn client_id(&self) -> &str {
        &self.session.client_id
    }

    /// The connection has ended: publish the will or leave it for later, tell the application, let the session go.
    pub(crate) async fn finish(
        mut self,
        will: Option<Will>,
        reason: DisconnectReason,
        application: &Arc<dyn Application>,
    ) {
        // The endpoint going away says nothing about the client, which will be back.
        let will = will.filter(|_| reason != DisconnectReason::ShuttingDown);
        let expiry_s = self.session.lock().expiry_s;
        // A will is due at the latest when the session ends.
        let (due, later) = match will {
            Some(will) if will.delay_s.min(expiry_s) > 0 => (None, Some(will)),
            due => (due, None),
        };
        if let Some(will) = due {
            self.shared.publish_will(&self.session, will, application).await;
        }
        let event = Inbound::Disconnected {
            client_id: self.session.client_id.clone(),
            reason,
        };
        // It only fails if the application is gone.
        let _ = deliver(application, event).await;
        self.release(later, reason, application);
    }

    fn release(&mut self, will: Option<Will>, reason: DisconnectReason, application: &Arc<dyn Application>) {
        self.held = false;
        let will_delay_s = will.as_ref().map(|will| will.delay_s);
        let mut router = self.shared.router();
        let mut state = self.session.lock();
        if state.expiry_s == 0 {
            drop(state);
            router.end(&self.session);
        } else {
            state.go_away();
            state.waiting_will = will;
            // A timer of a session that ends with the endpoint would only keep the endpoint's parts alive.
            if reason != DisconnectReason::ShuttingDown {
                let absence = Absence {
                    number: state.absences,
                    will_delay_s,
                    expiry_s: state.expiry_s,
                };
                let task = linger(self.shared.clone(), self.session.clone(), application.clone(), absence);
                state.linger = Some(tokio::spawn(task).abort_handle());
            }
        }
        drop(router);
        self.mailbox.mark_gone();
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if self.held {
            // Only reached if the task was cancelled or panicked: nothing can be awaited, and no timer can be relied on.
            self.shared.router().end(&self.session);
            self.mailbox.mark_gone();
        }
    }
}

/// One absence of a client.
struct Absence {
    number: u64,
    will_delay_s: Option<u32>,
    expiry_s: u32,
}

/// Publish the will when its delay is over, end the session when its life is; aborted when the client comes back.
async fn linger(shared: Arc<Shared>, session: Arc<Session>, application: Arc<dyn Application>, absence: Absence) {
    let began = Instant::now();
    let still_away = |session: &Session| {
        let state = session.lock();
        state.mailbox.is_none() && state.absences == absence.number
    };
    if let Some(delay_s) = absence.will_delay_s {
        tokio::time::sleep_until(began + Duration::from_secs(u64::from(delay_s.min(absence.expiry_s)))).await;
        let will = if still_away(&session) {
            session.lock().waiting_will.take()
        } else {
            None
        };
        if let Some(will) = will {
            shared.publish_will(&session, will, &application).await;
        }
    }
    tokio::time::sleep_until(began + Duration::from_secs(u64::from(absence.expiry_s))).await;
    let mut router = shared.router();
    if still_away(&session) {
        router.end(&session);
    }
}

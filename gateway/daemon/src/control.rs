//! What the running daemon tells people: one line of JSON asked, one answered, over a Unix socket in the store's
//! directory that only its owner can open.

mod ask;
mod query;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gateway_core::{Gateway, Input, Instant, Now, RingOrder, health::Track, ring::Staged};
use journal::Reader;
use proto::{
    book::Transfer,
    id::DeviceId,
    link::{Mark, Telemetry},
    message::Closing,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
};

pub use self::{
    ask::{ask, import, update},
    query::{Gated, Query},
};
use crate::{
    artifacts::{self, Desk},
    cloud::board::Board,
    devices::{Port, blocked::Blocked},
    door::Door,
    engine::{DONE, Job},
    exit,
    files::Attached,
    firmware::{self, Firmware},
    look::{self, LookError},
    outbox,
    reload::Reloader,
    store::Store,
    stream, trust,
};

/// Longest question, in bytes.
const QUESTION_BYTES_MAX: u64 = 4_096;
/// Searches of the journal at a time: each takes a whole processor.
const SEARCHES_MAX: usize = 1;
/// After a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// As well, of one with the secrets of a site: ten thousand devices have a megabyte of them.
const RELOAD_BYTES_MAX: u64 = 4 << 20;
/// How such a question begins.
const RELOAD: &[u8] = br#"{"get":"reload""#;

/// What the engine's answers are made of.
pub struct Look<'a> {
    /// The state.
    pub gateway: &'a Gateway,
    /// The clocks.
    pub now: Now,
    /// Messages of devices that were dropped.
    pub dropped: u64,
    /// Artifacts that were rejected.
    pub rejected: u64,
    /// Whether the link stands.
    pub link: bool,
    /// How each cloud is.
    pub board: &'a Board,
    /// The epoch that the hub expects, if it takes nothing of ours; 0: none.
    pub epoch_expected: u32,
    /// The way to the devices.
    pub port: &'a Port,
    /// The store.
    pub store: &'a Store,
}

impl Look<'_> {
    /// The engine's answers.
    #[must_use]
    pub fn answer(&self, query: &Query) -> Value {
        match query {
            Query::Status => status(self),
            Query::Page => crate::page::look(self),
            Query::Sessions => sessions(self.gateway),
            Query::Lists => trust::show(self.gateway, &self.now),
            Query::Diff { what } => trust::diff(self.gateway, what.staged()),
            Query::Why { .. }
            | Query::Report { .. }
            | Query::Adopt { .. }
            | Query::RollBack { .. }
            | Query::Import { .. }
            | Query::Devices
            | Query::Journal
            | Query::Outbox { .. }
            | Query::Block { .. }
            | Query::Hold { .. }
            | Query::Reload { .. }
            | Query::Update { .. } => {
                json!({"error": "this is not answered by looking at the engine"})
            }
        }
    }
}

/// A line of the book, as it is exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Sequence of the ledger record.
    pub sequence: u64,
    /// Which session.
    pub session: String,
    /// pending, post, void or direct.
    pub phase: String,
    /// Whose money.
    pub debit: String,
    /// Who gets it.
    pub credit: String,
    /// In minor units.
    pub amount: i64,
}

impl From<&Transfer> for Line {
    fn from(transfer: &Transfer) -> Self {
        Self {
            sequence: transfer.sequence,
            session: transfer.session.to_string(),
            phase: transfer.phase.word().to_owned(),
            debit: transfer.debit.to_string(),
            credit: transfer.credit.to_string(),
            amount: transfer.amount.0,
        }
    }
}

fn status(look: &Look<'_>) -> Value {
    let Look { gateway, now, .. } = *look;
    let trust = gateway.trust();
    let health = gateway.health();
    let outbox = gateway.outbox();
    let time = gateway.timeline();
    let at = time.at(&now);
    let mut status = told(&look.telemetry());
    let rest = json!({
        "boot": time.boot,
        "epoch": time.epoch,
        "authorize": health.authorize.mode.word(),
        "authorize_evidence": seen(&health.authorize, at),
        "commit": health.commit.mode.word(),
        "commit_evidence": seen(&health.commit, at),
        "control": health.control.mode.word(),
        "control_evidence": seen(&health.control, at),
        "healthy": health.is_healthy(at, &gateway.config().limits),
        "mass_denial_s": health.breaker.latched.map(|since| at.since_ms(since) / 1000),
        "tokens_denied": health.breaker.suspects.len(),
        "link": look.link,
        "devices": gateway.config().devices.len(),
        "tokens": gateway.trust().tokens(),
        "leases": gateway.leases().rows().filter(|(_, _, row)| row.left().0 > 0).count(),
        "leased": gateway.leases().rows().map(|(_, _, row)| row.left().0).sum::<i64>(),
        "held": gateway.book().holds().map(|(_, _, amount)| amount.0).sum::<i64>(),
        "balanced": gateway.book().is_balanced(),
        "records": outbox.head(),
        "receipted": outbox.cursor(),
        "quarantined": outbox.quarantined(),
        "remarks": remarks(gateway),
        "journal": look.store.head(),
        "messages_dropped": look.dropped,
        "artifacts_rejected": look.rejected,
        "list_aside": trust.aside().map_or(0, |aside| aside.list.head().revision),
        "tariffs_aside": trust.tariffs_aside().map_or(0, |table| table.revision),
        "keys_epoch": trust.keys_epoch(),
    });
    if let (Value::Object(status), Value::Object(rest)) = (&mut status, rest) {
        status.extend(rest);
    }
    // The macro takes no more fields than that.
    status["epoch_expected"] = json!(look.epoch_expected);
    status["clouds"] = look.board.status();
    status["endpoint"] = look.port.counters();
    status["reservations"] = reservations(gateway, at);
    status["rings"] = rings(gateway, at);
    status["rings_back"] = rings_back(gateway);
    status["config_aside"] = json!(gateway.aside_revision(Staged::Limits));
    status["journal_oldest"] = json!(look.store.oldest());
    let (at, is_pending) = look.store.snapshot();
    status["snapshot"] = json!({ "at": at, "pending": is_pending });
    status["policy_aside"] = json!(gateway.policy_aside().map_or(0, |policy| policy.revision));
    status
}

/// What is tried by some devices.
pub(crate) fn rings(gateway: &Gateway, at: Instant) -> Value {
    let rows = gateway.rings().iter().map(|(what, ring)| {
        json!({
            "what": what.word(),
            "revision": ring.revision,
            "reach": ring.reach.word(),
            "device": ring.device.as_str(),
            "kind": ring.kind.word(),
            "since_s": at.since_ms(ring.since) / 1000,
            "held": ring.is_held,
            "requests": ring.requests,
            "worse": ring.worse,
        })
    });
    Value::Array(rows.collect())
}

/// What came back from its ring and lies aside.
pub(crate) fn rings_back(gateway: &Gateway) -> Value {
    let rows = gateway.rings().back().map(
        |(what, revision, verdict)| json!({"what": what.word(), "revision": revision, "why": verdict.to_string()}),
    );
    Value::Array(rows.collect())
}

/// What the hub is told, too.
fn told(told: &Telemetry) -> Value {
    json!({
        "up_s": told.up_s,
        "clock": told.clock.word(),
        "authorize_since_s": told.authorize.since_s,
        "commit_since_s": told.commit.since_s,
        "control_since_s": told.control.since_s,
        "devices_connected": told.devices_connected,
        "list_revision": told.list_revision,
        "revocations_revision": told.revocations_revision,
        "tariffs_revision": told.tariffs_revision,
        "policy_revision": told.policy_revision,
        "disk_scarce": told.disk_scarce,
        "sessions_open": told.sessions_open,
        "exposure": told.exposure.0,
        "budget_left": told.budget_left.0,
        "waiting": told.waiting,
        "waiting_s": told.waiting_s,
    })
}

/// What a mode rests on.
fn seen(track: &Track, at: Instant) -> String {
    track.last.map_or_else(
        || "nothing yet".to_owned(),
        |signal| format!("{}, {} s ago", signal.words(), at.since_ms(track.last_at) / 1000),
    )
}

fn sessions(gateway: &Gateway) -> Value {
    let rows = gateway.sessions().iter().map(|session| {
        let terms = session.terms.as_ref();
        json!({
            "session": session.request.session.to_string(),
            "device": session.request.device.as_str(),
            "outlet": session.request.outlet,
            "kind": session.request.kind.word(),
            "state": state(session),
            "settlement": session.closing.map(|_| settlement(gateway, session)),
            "rule": session.rule.map(|rule| rule.step()),
            "refused": session.refused.map(|reason| reason.word()),
            "online": session.online,
            "hold": terms.map(|terms| terms.money_max.0),
            "started": session.started,
            "units": session.register_last.since(session.register_start).0,
            "amount": session.closing.map(|_| session.amount.0),
        })
    });
    Value::Array(rows.collect())
}

/// Outlets that are kept free for somebody.
fn reservations(gateway: &Gateway, at: Instant) -> Value {
    let rows = gateway.reservations().iter().map(|(device, outlet, reservation)| {
        json!({
            "device": device.as_str(),
            "outlet": outlet,
            "token": reservation.token.to_string(),
            "left_s": reservation.until.since_ms(at) / 1000,
            "order": reservation.order,
        })
    });
    Value::Array(rows.collect())
}

/// Records that the hub did not simply book, for the operator to look at.
fn remarks(gateway: &Gateway) -> Value {
    let rows = gateway
        .outbox()
        .marks()
        .map(|(sequence, mark)| json!({"record": sequence, "is": mark_word(mark)}));
    Value::Array(rows.collect())
}

pub(crate) const fn mark_word(mark: Mark) -> &'static str {
    match mark {
        Mark::Quarantined => "quarantined",
        Mark::Disputed => "disputed",
        Mark::Adjusted => "adjusted",
        Mark::Aside => "aside",
        Mark::Other => "other",
    }
}

/// Where the money of a closed session stands: what the hub said of the record that closed it.
fn settlement(gateway: &Gateway, session: &gateway_core::Session) -> &'static str {
    let outbox = gateway.outbox();
    match session.closing {
        Some(Closing::Voided) => "voided",
        Some(Closing::Captured | Closing::Unknown | Closing::Other) | None => match outbox.mark(session.closed_by) {
            Some(Mark::Disputed | Mark::Aside) => "disputed",
            Some(Mark::Quarantined) => "quarantined",
            Some(Mark::Adjusted) => "adjusted",
            Some(Mark::Other) | None if session.closed_by <= outbox.cursor() => "settled",
            Some(Mark::Other) | None => "captured",
        },
    }
}

pub(crate) fn state(session: &gateway_core::Session) -> &'static str {
    if session.refused.is_some() {
        "refused"
    } else if session.closing.is_some() {
        "closed"
    } else if session.is_asking() {
        "asking"
    } else if session.indeterminate {
        "indeterminate"
    } else if session.started {
        "metering"
    } else {
        "held"
    }
}

/// Where the socket is.
#[must_use]
pub fn socket_path(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// What answers are made from.
#[derive(Clone)]
pub struct Sources {
    /// The journal.
    pub reader: Reader,
    /// The state.
    pub engine: mpsc::Sender<Job>,
    /// Artifacts and orders.
    pub desk: Desk,
    /// Firmware of devices.
    pub firmware: Firmware,
    /// Who is blocked.
    pub blocked: Blocked,
    /// Reads the configuration again; none where there is no file.
    pub reloader: Option<Reloader>,
}

/// Answers those whom the door admits, for ever.
///
/// # Errors
/// If the socket cannot be made.
pub async fn serve(dir: &Path, door: Door, sources: Sources) -> std::io::Result<()> {
    let path = socket_path(dir);
    // One daemon a store: the journal's lock is ours, so a socket that is here is a dead one's.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    if let Err(error) = door.open_to(&path) {
        // Root and the gateway's user can ask; no site is dark because of who may look at it.
        tracing::error!(%error, "ALARM the control socket is open to nobody but root and the gateway's own user");
        Door::default().open_to(&path)?;
    }
    let turn = Arc::new(Semaphore::new(SEARCHES_MAX));
    tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // No descriptors, say: that passes, and an operator must be heard afterwards.
                    tracing::warn!(%error, "an operator's command cannot be heard");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let (door, sources, turn) = (door.clone(), sources.clone(), turn.clone());
            tokio::spawn(async move {
                if let Err(error) = converse(stream, &door, sources, turn).await {
                    tracing::debug!(%error, "control connection");
                }
            });
        }
    });
    Ok(())
}

async fn converse(mut stream: UnixStream, door: &Door, sources: Sources, turn: Arc<Semaphore>) -> std::io::Result<()> {
    let peer = stream.peer_cred()?;
    if !door.admits(&peer) {
        tracing::warn!(uid = peer.uid(), gid = peer.gid(), "control: refused");
        let why = "you may not ask: root, the gateway's own user and members of [control] group may";
        let answer = json!({ "error": why, "exit": exit::UNAVAILABLE });
        return stream.write_all(format!("{answer}\n").as_bytes()).await;
    }
    let Sources {
        reader,
        engine,
        desk,
        firmware,
        blocked,
        reloader,
    } = sources;
    let (incoming, mut outgoing) = stream.into_split();
    let mut incoming = BufReader::new(incoming);
    let mut question = String::new();
    // What tells secrets is longer, and is read from those alone who may.
    let is_long = incoming.fill_buf().await?.starts_with(RELOAD) && door.trusts(&peer);
    let bytes_max = if is_long { RELOAD_BYTES_MAX } else { QUESTION_BYTES_MAX };
    (&mut incoming).take(bytes_max).read_line(&mut question).await?;
    let answer = match serde_json::from_str::<Query>(&question) {
        Ok(Query::Why { wanted, offset_min }) => {
            from_journal(turn, move || look::why(&reader, &wanted, offset_min)).await
        }
        Ok(Query::Report { span, offset_min }) => {
            from_journal(turn, move || look::report(&reader, span, offset_min)).await
        }
        Ok(Query::Adopt { what, revision }) => {
            let input = match what.kind() {
                Some(kind) => Input::Adopt { kind, revision },
                None => Input::Ring(what.staged(), RingOrder::Adopt),
            };
            order(&desk, input).await
        }
        Ok(Query::RollBack { what }) => {
            let input = what.kind().map(Input::RollBack);
            order(&desk, input.unwrap_or(Input::Ring(what.staged(), RingOrder::RollBack))).await
        }
        Ok(Query::Hold { what, held }) => {
            let wanted = if held { RingOrder::Hold } else { RingOrder::Release };
            order(&desk, Input::Ring(what.staged(), wanted)).await
        }
        Ok(Query::Reload { check, secrets }) => match &reloader {
            Some(reloader) => reloader.reload(check, secrets.filter(|_| door.trusts(&peer))).await,
            None => json!({"error": "this gateway was started without a file"}),
        },
        Ok(Query::Import { name, length }) => {
            match attached(&mut incoming, name, length, artifacts::FILE_BYTES_MAX).await {
                Ok(file) => match desk.import(file).await {
                    Ok(rows) => json!(rows),
                    Err(error) => json!({ "error": error }),
                },
                Err(error) => json!({"error": error, "exit": exit::DATA}),
            }
        }
        Ok(Query::Devices) => devices(&firmware, &blocked).await,
        Ok(Query::Journal) => return stream::send(reader, &mut outgoing).await,
        Ok(Query::Outbox { rows_max }) => outbox::show(reader, &engine, rows_max).await,
        Ok(Query::Block { device, blocked: block }) => {
            let changed = blocked.set(device, block);
            if changed {
                tracing::warn!(%device, block, "an operator blocks a device, or lets it in again");
            }
            json!({ "result": DONE, "changed": changed })
        }
        Ok(Query::Update { device, name, length }) => {
            let ordered = match attached(&mut incoming, name, length, firmware::FILE_BYTES_MAX).await {
                Ok(file) => firmware.order(device, file).await,
                Err(error) => Err(error),
            };
            match ordered {
                Ok(result) => json!({ "result": result }),
                Err(error) => json!({"error": error, "exit": exit::DATA}),
            }
        }
        Ok(Query::Status) => match (look(&engine, Query::Status).await, firmware.summary().await) {
            (Value::Object(mut status), Ok(Value::Object(of_firmware))) => {
                status.extend(of_firmware);
                status.insert("devices_blocked".to_owned(), json!(blocked.count()));
                status.insert("reload".to_owned(), last_reload(reloader.as_ref()));
                Value::Object(status)
            }
            (status, _) => status,
        },
        Ok(Query::Page) => {
            let mut answer = look(&engine, Query::Page).await;
            if answer.get("view").is_some() {
                let last = last_reload(reloader.as_ref());
                answer["status"]["reload"] = last.clone();
                answer["view"]["reload"] = last;
            }
            answer
        }
        Ok(query) => look(&engine, query).await,
        Err(error) => json!({"error": format!("not a question: {error}")}),
    };
    let mut line = answer.to_string();
    line.push('\n');
    outgoing.write_all(line.as_bytes()).await
}

fn last_reload(reloader: Option<&Reloader>) -> Value {
    reloader.map_or(Value::Null, Reloader::last)
}

/// Every device, with its firmware and whether it is blocked.
async fn devices(firmware: &Firmware, blocked: &Blocked) -> Value {
    let mut rows = match firmware.rows().await {
        Ok(rows) => rows,
        Err(error) => return json!({ "error": error }),
    };
    for row in rows.as_array_mut().into_iter().flatten() {
        let device = row["device"].as_str().and_then(|id| DeviceId::new(id).ok());
        row["blocked"] = json!(device.is_some_and(|device| blocked.has(&device)));
    }
    rows
}

/// Has the engine answer.
pub(crate) async fn look(engine: &mpsc::Sender<Job>, query: Query) -> Value {
    let stopping = || json!({"error": "the gateway is stopping"});
    let (reply, answer) = oneshot::channel();
    match engine.send(Job::Query(query, reply)).await {
        Ok(()) => answer.await.unwrap_or_else(|_| stopping()),
        Err(_) => stopping(),
    }
}

/// The file that follows a question.
async fn attached(
    incoming: &mut (impl AsyncRead + Unpin),
    name: PathBuf,
    length: u64,
    bytes_max: u64,
) -> Result<Attached, String> {
    if length > bytes_max {
        return Err(format!("{}: {length} bytes are more than {bytes_max}", name.display()));
    }
    let mut bytes = Vec::new();
    let read = incoming.take(length).read_to_end(&mut bytes).await;
    let read = read.map_err(|error| format!("{}: {error}", name.display()))?;
    if (read as u64) < length {
        return Err(format!("{}: {read} of {length} bytes came", name.display()));
    }
    Ok(Attached { name, bytes })
}

/// Reads the journal beside the engine, which goes on meanwhile. A search ends when it ends, even if nobody waits for it any
/// more: its turn ends with it.
async fn from_journal<T: Serialize + Send + 'static>(
    turn: Arc<Semaphore>,
    read: impl FnOnce() -> Result<T, LookError> + Send + 'static,
) -> Value {
    let Ok(turn) = turn.acquire_owned().await else {
        return json!({"error": "the gateway is stopping"});
    };
    let read = move || {
        let _turn = turn;
        read()
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(found)) => json!(found),
        Ok(Err(error)) => json!({"error": error.to_string(), "exit": error.exit_code()}),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

/// Has something decided; whatever is not done is an error.
async fn order(desk: &Desk, input: Input) -> Value {
    match desk.order(input).await {
        Ok(outcome) if outcome == DONE => json!({ "result": outcome }),
        Ok(outcome) => json!({ "error": outcome }),
        Err(_) => json!({"error": "the gateway is stopping"}),
    }
}

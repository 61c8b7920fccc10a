//! What the running daemon tells people: one line of JSON asked, one answered, over a Unix socket in the store's
//! directory that only its owner can open.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use gateway_core::{Gateway, Input, Instant, Now, health::Track, report::Span, why::Wanted};
use journal::Reader;
use proto::{
    book::{Book, Transfer},
    id::DeviceId,
    link::{Mark, Telemetry},
    message::Closing,
    trust::ArtifactKind,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

use crate::{
    artifacts::Desk,
    cloud::board::Board,
    devices::{Port, blocked::Blocked},
    door::Door,
    engine::{DONE, Job},
    exit,
    firmware::Firmware,
    look::{self, LookError},
    outbox, record,
    store::Store,
    stream, trust,
};

/// Longest question, in bytes.
const QUESTION_BYTES_MAX: u64 = 4_096;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "get", rename_all = "snake_case", deny_unknown_fields)]
pub enum Query {
    /// How the gateway is.
    Status,
    /// Open and recent sessions.
    Sessions,
    /// Every line of the book.
    Ledger,
    /// Why a session was granted or refused.
    Why {
        /// Which.
        wanted: Wanted,
        /// Offset of local time from UTC, in minutes.
        offset_min: i16,
    },
    /// What an outage did.
    Report {
        /// Of what.
        span: Span,
        /// Offset of local time from UTC, in minutes.
        offset_min: i16,
    },
    /// The lists: active, before, set aside.
    Lists,
    /// What would change if that which is set aside were adopted.
    Diff {
        /// Lists, prices or limits.
        what: Gated,
    },
    /// Adopt what is set aside.
    Adopt {
        /// Lists, prices or limits.
        what: Gated,
        /// Its revision; 0: whichever it is.
        revision: u64,
    },
    /// Go back to the one before.
    RollBack {
        /// Lists or limits; of prices none is kept.
        #[serde(default)]
        what: Gated,
    },
    /// Take in a file of signed artifacts.
    Import {
        /// Where it is.
        file: PathBuf,
    },
    /// What the page shows.
    Page,
    /// Every device, with its firmware and how its update stands.
    Devices,
    /// Every record of the journal: not one line, but as `stream` says.
    Journal,
    /// Records without a receipt, and those of which the hub said more than that it has them.
    Outbox {
        /// Most records in the answer, at most [`outbox::OUTBOX_ROWS_MAX`].
        rows_max: usize,
    },
    /// Block a device, or let it in again. Lasts until the next start; the configuration says what is then.
    Block {
        /// Which.
        device: DeviceId,
        /// Or let it in.
        blocked: bool,
    },
    /// Update the firmware of a device.
    Update {
        /// Which.
        device: DeviceId,
        /// A signed image.
        file: PathBuf,
    },
}

/// What the gate may set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Gated {
    /// The list of id tokens.
    #[default]
    List,
    /// The prices.
    Tariffs,
    /// The limits.
    Policy,
}

impl Gated {
    /// As it is signed.
    #[must_use]
    pub const fn kind(self) -> ArtifactKind {
        match self {
            Self::List => ArtifactKind::List,
            Self::Tariffs => ArtifactKind::Tariffs,
            Self::Policy => ArtifactKind::Policy,
        }
    }
}

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
            Query::Diff { what } => trust::diff(self.gateway, what.kind()),
            Query::Ledger
            | Query::Why { .. }
            | Query::Report { .. }
            | Query::Adopt { .. }
            | Query::RollBack { .. }
            | Query::Import { .. }
            | Query::Devices
            | Query::Journal
            | Query::Outbox { .. }
            | Query::Block { .. }
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
    status["journal_oldest"] = json!(look.store.oldest());
    status["policy_aside"] = json!(gateway.policy_aside().map_or(0, |policy| policy.revision));
    status
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

/// Every line of the book, from the journal.
///
/// # Errors
/// A text that names the record that cannot be read or booked.
pub fn ledger(reader: &Reader) -> Result<Vec<Line>, String> {
    let mut book = Book::default();
    let mut lines = Vec::new();
    let mut failed = None;
    let walked = reader.replay(reader.oldest_sequence().max(1), &mut |sequence, bytes| {
        let booked = record::decode(sequence, bytes)
            .map_err(|error| error.to_string())
            .and_then(|(_, event)| {
                event.record().map_or(Ok(Vec::new()), |row| {
                    book.book(row).map_err(|error| format!("record {sequence}: {error}"))
                })
            });
        match booked {
            Ok(transfers) => {
                lines.extend(transfers.iter().map(Line::from));
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    walked.map_err(|error| error.to_string())?;
    failed.map_or(Ok(lines), Err)
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
    door.open_to(&path)?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (door, sources) = (door.clone(), sources.clone());
            tokio::spawn(async move {
                if let Err(error) = converse(stream, &door, sources).await {
                    tracing::debug!(%error, "control connection");
                }
            });
        }
    });
    Ok(())
}

async fn converse(mut stream: UnixStream, door: &Door, sources: Sources) -> std::io::Result<()> {
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
    } = sources;
    let (incoming, mut outgoing) = stream.into_split();
    let mut question = String::new();
    BufReader::new(incoming.take(QUESTION_BYTES_MAX))
        .read_line(&mut question)
        .await?;
    let answer = match serde_json::from_str::<Query>(&question) {
        Ok(Query::Ledger) => {
            let read = tokio::task::spawn_blocking(move || ledger(&reader)).await;
            match read.map_err(|error| error.to_string()).and_then(|lines| lines) {
                Ok(lines) => json!(lines),
                Err(error) => json!({ "error": error }),
            }
        }
        Ok(Query::Why { wanted, offset_min }) => from_journal(move || look::why(&reader, &wanted, offset_min)).await,
        Ok(Query::Report { span, offset_min }) => from_journal(move || look::report(&reader, span, offset_min)).await,
        Ok(Query::Adopt { what, revision }) => {
            let kind = what.kind();
            order(&desk, Input::Adopt { kind, revision }).await
        }
        Ok(Query::RollBack { what }) => order(&desk, Input::RollBack(what.kind())).await,
        Ok(Query::Import { file }) => match desk.import(&file).await {
            Ok(rows) => json!(rows),
            Err(error) => json!({ "error": error }),
        },
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
        Ok(Query::Update { device, file }) => match firmware.order(device, file).await {
            Ok(result) => json!({ "result": result }),
            Err(error) => json!({"error": error, "exit": exit::DATA}),
        },
        Ok(Query::Status) => match (look(&engine, Query::Status).await, firmware.summary().await) {
            (Value::Object(mut status), Ok(Value::Object(of_firmware))) => {
                status.extend(of_firmware);
                status.insert("devices_blocked".to_owned(), json!(blocked.count()));
                Value::Object(status)
            }
            (status, _) => status,
        },
        Ok(query) => look(&engine, query).await,
        Err(error) => json!({"error": format!("not a question: {error}")}),
    };
    let mut line = answer.to_string();
    line.push('\n');
    outgoing.write_all(line.as_bytes()).await
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

/// Reads the journal beside the engine, which goes on meanwhile.
async fn from_journal<T: Serialize + Send + 'static>(
    read: impl FnOnce() -> Result<T, LookError> + Send + 'static,
) -> Value {
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

/// Asks a running daemon.
///
/// # Errors
/// If none listens, or it does not answer in JSON.
pub async fn ask(dir: &Path, query: &Query) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(socket_path(dir)).await?;
    let mut line = serde_json::to_string(query)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(serde_json::from_str(&answer)?)
}

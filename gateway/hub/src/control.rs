//! The operator's door to a running hub: a Unix socket in the data directory, for the owner of the process only.
//!
//! One request a line, as `{"request":"ledger","gateway":"gw-1"}`; the answer is one JSON object a line and, last,
//! `{"end":N}` with the number of lines before it, or `{"error":"..."}`. Requests: `status`, `gateways`, `ledger` (of one
//! `gateway` or of all), `balances`, `holds`, `quarantine`, `disputes`, `sessions`, `losses`, `cases`, `adjust` (an `order`),
//! `settle` (quarantined records of a `gateway`: the range `records`),
//! `orders`, `order` (a `wish` of a `gateway`),
//! `release` (leases of a `gateway`, all of them if it is `gone`), `reload` (the seed file of the configuration), `import`
//! (a `file`), `artifacts` (everything published, signed, to a
//! `file`).

use std::{
    fs, io,
    io::{BufRead, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use journal::Reader;
use proto::{
    id::{GatewayId, Name, SessionId, TokenKey},
    money::Money,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{mpsc, oneshot},
};
use tracing::{debug, warn};

use crate::{
    core::{ImportSummary, Order, Released, Settling, conflict::account_of},
    engine::{Query, Work, now},
    export,
    orders::{OrderGiven, OrderWish},
    seed,
};

/// Longest request line, in bytes: a word and two paths.
const REQUEST_BYTES_MAX: u64 = 8 * 1024;
/// Lines of a ledger on their way from the store to the socket.
const LINES_WAITING_MAX: usize = 256;

/// The control socket of a data directory, unless the configuration names another place.
#[must_use]
pub fn socket_in(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The word.
    pub request: String,
    /// `ledger`: only this gateway's lines; `release`: whose leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// `release`: the gateway never comes back with what it knew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// `import` from this file, `artifacts` to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// `adjust`: what to book.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderRequest>,
    /// `settle`: which records of a `gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<RecordsRequest>,
    /// `order`: what a `gateway` is to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<OrderWish>,
}

/// Quarantined records that the operator has looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordsRequest {
    /// Epoch of the records.
    pub epoch: u32,
    /// The first, by its sequence.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// Why they are settled.
    pub reason: String,
}

/// How many records were settled, as a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettledRow {
    /// Records.
    pub settled: u64,
}

/// What the operator wants booked, as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    /// Whose money, as `loss:overdraft`; none: close the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debit: Option<String>,
    /// Who gets it, as `customer:7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<String>,
    /// Minor units.
    pub amount: i64,
    /// For which session, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Why.
    pub reason: String,
}

impl OrderRequest {
    /// As the core takes it.
    ///
    /// # Errors
    /// A text that names the field.
    pub fn order(&self) -> Result<Order, String> {
        let account = |text: &str| {
            account_of(text).ok_or_else(|| {
                format!("{text:?} is no account such as customer:7, revenue:charger, loss:overdraft, prepaid, dispute")
            })
        };
        let session = self.session.as_deref().map(SessionId::from_str).transpose();
        let session = session.map_err(|error| format!("session: {error}"))?;
        let (amount, reason) = (Money(self.amount), self.reason.clone());
        match (&self.debit, &self.credit, session) {
            (Some(debit), Some(credit), session) => Ok(Order::Move {
                debit: account(debit)?,
                credit: account(credit)?,
                amount,
                session: session.unwrap_or(SessionId::ZERO),
                reason,
            }),
            (None, None, Some(session)) => Ok(Order::Close {
                session,
                amount,
                reason,
            }),
            _ => Err("an adjustment needs both debit and credit, or a session to close".to_owned()),
        }
    }
}

/// The number of an entry, as a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRow {
    /// Number among the hub's own entries.
    pub adjustment: u64,
}

/// What was released, as a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRow {
    /// Whose leases.
    pub gateway: String,
    /// How many.
    pub leases: usize,
    /// What of them is the accounts' again, in minor units; what open sessions hold is not in it.
    pub amount: i64,
}

impl ReleaseRow {
    /// In plain words; `gone` as it was asked.
    #[must_use]
    pub fn words(&self, gone: bool) -> String {
        let Self {
            gateway,
            leases,
            amount,
        } = self;
        let done = match (leases, gone) {
            (0, true) => format!("gateway {gateway} had no lease."),
            (0, false) => format!(
                "gateway {gateway} has no lease of a former epoch; those of its present one are released with --gone, if it never comes back."
            ),
            (_, _) => format!(
                "gateway {gateway}: {leases} released, {} is free again; what open sessions hold follows when they are closed.",
                Money(*amount)
            ),
        };
        match gone {
            true => format!("{done} If the gateway does come back, it has to start a new epoch."),
            false => done,
        }
    }
}

impl From<Released> for ReleaseRow {
    fn from(released: Released) -> Self {
        Self {
            gateway: released.gateway.to_string(),
            leases: released.leases,
            amount: released.amount.0,
        }
    }
}

impl Request {
    /// A request without arguments.
    #[must_use]
    pub fn new(word: &str) -> Self {
        Self {
            request: word.to_owned(),
            ..Self::default()
        }
    }
}

/// The last line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Last {
    End(u64),
    Error(String),
}

/// What an import changed, as a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRow {
    /// Accounts that are new or have other deposits.
    pub accounts: usize,
    /// Tokens that are new or changed.
    pub tokens_set: usize,
    /// Tokens that are no longer listed.
    pub tokens_gone: usize,
    /// Revocations that are new.
    pub revoked: usize,
    /// Prices that are new or changed.
    pub tariffs: usize,
    /// Whether the limits are new or changed.
    pub policy: bool,
}

impl From<ImportSummary> for ImportRow {
    fn from(summary: ImportSummary) -> Self {
        Self {
            accounts: summary.accounts,
            tokens_set: summary.tokens_set,
            tokens_gone: summary.tokens_gone,
            revoked: summary.revoked,
            tariffs: summary.tariffs,
            policy: summary.policy,
        }
    }
}

/// What the door leads to.
pub struct Door {
    /// The engine's queue.
    pub engine: mpsc::Sender<Work>,
    /// The store, for the ledger.
    pub reader: Reader,
    /// For imports.
    pub token_key: TokenKey,
    /// The seed file of the configuration.
    pub seed_file: Option<PathBuf>,
}

impl Door {
    /// Reads a seed file and has it imported.
    ///
    /// # Errors
    /// A text for the operator; then nothing was changed.
    pub async fn import(&self, file: &Path) -> Result<ImportSummary, String> {
        let (path, key) = (file.to_owned(), self.token_key.clone());
        let catalogue = tokio::task::spawn_blocking(move || seed::load(&path, &key))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let (reply, answer) = oneshot::channel();
        self.ask_engine(Work::Import(catalogue, reply)).await?;
        let done = answer.await.map_err(|_| ENGINE_GONE.to_owned())?;
        done.map_err(|refusal| format!("{}: {refusal}", file.display()))
    }

    async fn adjust(&self, request: &OrderRequest) -> Result<OrderRow, String> {
        let adjustment = self.order(request.order()?).await?;
        Ok(OrderRow { adjustment })
    }

    async fn settle(&self, gateway: GatewayId, records: &RecordsRequest) -> Result<SettledRow, String> {
        let settling = Settling {
            gateway,
            epoch: records.epoch,
            first: records.first,
            last: records.last,
            reason: records.reason.clone(),
        };
        let settled = self.order(Order::Settle(settling)).await?;
        Ok(SettledRow { settled })
    }

    async fn order(&self, order: Order) -> Result<u64, String> {
        let (reply, answer) = oneshot::channel();
        self.ask_engine(Work::Order(order, reply)).await?;
        let done = answer.await.map_err(|_| ENGINE_GONE.to_owned())?;
        done.map_err(|refusal| refusal.to_string())
    }

    async fn dispatch(&self, gateway: GatewayId, wish: &OrderWish) -> Result<OrderGiven, String> {
        let (order, token) = wish.order(now().wall_s, &self.token_key)?;
        let (reply, answer) = oneshot::channel();
        let work = Work::Dispatch {
            gateway,
            order,
            token,
            reply,
        };
        self.ask_engine(work).await?;
        let done = answer.await.map_err(|_| ENGINE_GONE.to_owned())?;
        let order = done.map_err(|refusal| refusal.to_string())?;
        let gateway = gateway.to_string();
        Ok(OrderGiven { gateway, order })
    }

    async fn release(&self, gateway: GatewayId, gone: bool) -> Result<ReleaseRow, String> {
        let (reply, answer) = oneshot::channel();
        self.ask_engine(Work::Release { gateway, gone, reply }).await?;
        let done = answer.await.map_err(|_| ENGINE_GONE.to_owned())?;
        done.map(ReleaseRow::from).map_err(|refusal| refusal.to_string())
    }

    async fn ask_engine(&self, work: Work) -> Result<(), String> {
        self.engine.send(work).await.map_err(|_| ENGINE_GONE.to_owned())
    }

    async fn query<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, String> {
        let (reply, answer) = oneshot::channel();
        self.ask_engine(Work::Query(query(reply))).await?;
        answer.await.map_err(|_| ENGINE_GONE.to_owned())
    }
}

const ENGINE_GONE: &str = "the hub is stopping";

/// Opens the door at `path`; what a killed process left there is removed. The store is locked, so nobody else uses it.
///
/// # Errors
/// As the system says; a path of more than 107 bytes cannot be a socket.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers whoever comes, until the task is dropped.
pub async fn serve(listener: UnixListener, door: Arc<Door>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let door = Arc::clone(&door);
                tokio::spawn(async move {
                    if let Err(error) = visit(stream, &door).await {
                        debug!(%error, "control connection ended");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "control socket");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn visit(stream: UnixStream, door: &Door) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let mut out = Out {
        to: BufWriter::new(write),
        lines: 0,
    };
    loop {
        let mut line = String::new();
        let bytes = (&mut reader).take(REQUEST_BYTES_MAX).read_line(&mut line).await?;
        if bytes == 0 {
            return Ok(());
        }
        out.lines = 0;
        let done = match serde_json::from_str::<Request>(&line) {
            Ok(request) => answer(&request, door, &mut out).await,
            Err(error) => Err(format!("not a request: {error}")),
        };
        let last = match done {
            Ok(()) => Last::End(out.lines),
            Err(error) => Last::Error(error),
        };
        out.line(&last).await?;
        out.to.flush().await?;
        if bytes as u64 == REQUEST_BYTES_MAX {
            return Ok(());
        }
    }
}

struct Out {
    to: BufWriter<OwnedWriteHalf>,
    lines: u64,
}

impl Out {
    async fn line<T: Serialize>(&mut self, row: &T) -> io::Result<()> {
        let mut text = serde_json::to_string(row).map_err(io::Error::other)?;
        text.push('\n');
        self.lines += 1;
        self.to.write_all(text.as_bytes()).await
    }

    async fn rows<T: Serialize>(&mut self, rows: &[T]) -> Result<(), String> {
        for row in rows {
            self.line(row).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

async fn answer(request: &Request, door: &Door, out: &mut Out) -> Result<(), String> {
    match request.request.as_str() {
        "status" => out.rows(&[door.query(Query::Status).await?]).await,
        "gateways" => out.rows(&door.query(Query::Gateways).await?).await,
        "balances" => out.rows(&door.query(Query::Balances).await?).await,
        "holds" => out.rows(&door.query(Query::Holds).await?).await,
        "quarantine" => out.rows(&door.query(Query::Quarantine).await?).await,
        "disputes" => out.rows(&door.query(Query::Disputes).await?).await,
        "sessions" => out.rows(&door.query(Query::Sessions).await?).await,
        "losses" => out.rows(&door.query(Query::Losses).await?).await,
        "cases" => out.rows(&door.query(Query::Cases).await?).await,
        "adjust" => {
            let order = request
                .order
                .as_ref()
                .ok_or_else(|| "adjust needs an order".to_owned())?;
            out.rows(&[door.adjust(order).await?]).await
        }
        "settle" => {
            let gateway = gateway_of(request)?.ok_or_else(|| "settle needs a gateway".to_owned())?;
            let records = request
                .records
                .as_ref()
                .ok_or_else(|| "settle needs records".to_owned())?;
            out.rows(&[door.settle(gateway, records).await?]).await
        }
        "release" => {
            let gateway = gateway_of(request)?.ok_or_else(|| "release needs a gateway".to_owned())?;
            out.rows(&[door.release(gateway, request.gone).await?]).await
        }
        "orders" => out.rows(&door.query(Query::Orders).await?).await,
        "order" => {
            let gateway = gateway_of(request)?.ok_or_else(|| "order needs a gateway".to_owned())?;
            let wish = request.wish.as_ref().ok_or_else(|| "order needs a wish".to_owned())?;
            out.rows(&[door.dispatch(gateway, wish).await?]).await
        }
        "ledger" => ledger(request, door, out).await,
        "artifacts" => {
            let parts = door.query(Query::Artifacts).await??;
            let file = request
                .file
                .as_ref()
                .ok_or_else(|| "artifacts need a file".to_owned())?;
            out.rows(&[export::write_artifacts(file, &parts).map_err(|error| error.to_string())?])
                .await
        }
        "reload" => {
            let file = door
                .seed_file
                .as_ref()
                .ok_or_else(|| "the configuration names no seed_file".to_owned())?;
            out.rows(&[ImportRow::from(door.import(file).await?)]).await
        }
        "import" => {
            let file = request.file.as_ref().ok_or_else(|| "import needs a file".to_owned())?;
            out.rows(&[ImportRow::from(door.import(file).await?)]).await
        }
        word => Err(format!("no such request: {word:?}")),
    }
}

fn gateway_of(request: &Request) -> Result<Option<GatewayId>, String> {
    let gateway = request.gateway.as_deref().map(Name::from_str).transpose();
    gateway.map_err(|error| format!("gateway: {error}"))
}

async fn ledger(request: &Request, door: &Door, out: &mut Out) -> Result<(), String> {
    let gateway = gateway_of(request)?;
    let (sender, mut lines) = mpsc::channel(LINES_WAITING_MAX);
    let reader = door.reader.clone();
    let reading = tokio::task::spawn_blocking(move || {
        export::for_each_line(&reader, gateway.as_ref(), |line| {
            // Nobody listens any more: the rest is read for nothing, which harms nobody.
            let _ = sender.blocking_send(line);
        })
    });
    while let Some(line) = lines.recv().await {
        out.line(&line).await.map_err(|error| error.to_string())?;
    }
    let done = reading.await.map_err(|error| error.to_string())?;
    done.map_err(|error| error.to_string())
}

/// Why a running hub did not answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No hub listens there.
    #[error("no hub answers at {}: {error}", path.display())]
    Absent {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The connection broke.
    #[error("the hub stopped answering: {0}")]
    Broken(#[from] io::Error),
    /// A line that is none of this protocol.
    #[error("the hub's answer cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The hub's own words.
    #[error("{0}")]
    Refused(String),
}

/// Asks a running hub; `visit` is called with every line of the answer.
///
/// # Errors
/// [`CallError`].
pub fn call<T: for<'a> Deserialize<'a>>(
    path: &Path,
    request: &Request,
    mut visit: impl FnMut(T),
) -> Result<(), CallError> {
    let mut stream = std::os::unix::net::UnixStream::connect(path).map_err(|error| CallError::Absent {
        path: path.to_owned(),
        error,
    })?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    for line in io::BufReader::new(stream).lines() {
        let line = line?;
        match serde_json::from_str::<Last>(&line) {
            Ok(Last::End(_)) => return Ok(()),
            Ok(Last::Error(error)) => return Err(CallError::Refused(error)),
            Err(_) => visit(serde_json::from_str(&line)?),
        }
    }
    Err(CallError::Broken(io::ErrorKind::UnexpectedEof.into()))
}

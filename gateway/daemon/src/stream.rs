//! The whole journal, record by record, for whoever copies or checks it: over the control socket from a running gateway,
//! which goes on meanwhile, or from the files of a stopped one.
//!
//! On the socket: a line of JSON ([`Start`]), then each record behind its length (4 bytes, little endian). The length 0
//! ends it; `FAILED` means that a text follows which says why it ends early.
//!
//! Of a journal whose first records were pruned, the newest snapshot's records of the state come first, and then what
//! followed it: whoever applies all of them in order has what applying everything would have given.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    path::Path,
};

use journal::{RECORD_BYTES_MAX, Reader};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt as _, sync::mpsc};

use crate::{
    control::{Query, socket_path},
    record::{self, Piece},
    store::{Store, StoreError},
};

/// In place of a length: the journal cannot be read on.
const FAILED: u32 = u32::MAX;
/// Bytes that are sent together.
const CHUNK_BYTES: usize = 64 << 10;
/// Pieces between the reading thread and the socket: whoever asks slowly is read for slowly.
const CHUNKS_MAX: usize = 4;
/// Longest text of an error.
const ERROR_BYTES_MAX: u64 = 4_096;

/// What comes before the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Sequence of the first record.
    pub first: u64,
    /// Sequence of the last one; below `first` if there is none.
    pub head: u64,
    /// Records of the state before `first` that come before it, as sequence 0.
    #[serde(default)]
    pub kept: u64,
}

/// Where to begin, and the state that stands for what was pruned.
fn beginning(reader: &Reader) -> Result<(Start, Vec<Vec<u8>>), String> {
    let (first, head) = (reader.oldest_sequence(), reader.head().sequence);
    let mut start = Start { first, head, kept: 0 };
    let mut state = Vec::new();
    if first > 1 {
        let snapshot = reader.latest_snapshot().map_err(|error| error.to_string())?;
        let snapshot = snapshot.ok_or("there is no snapshot of what was pruned")?;
        start.first = snapshot.at_sequence() + 1;
        for chunk in snapshot.chunks() {
            let chunk = chunk.map_err(|error| error.to_string())?;
            for piece in record::pieces(0, &chunk).map_err(|error| error.to_string())? {
                match record::decode_piece(0, piece).map_err(|error| error.to_string())? {
                    Piece::Event(..) => state.push(piece.to_vec()),
                    Piece::Index(_) => {}
                }
            }
        }
        start.kept = state.len() as u64;
    }
    Ok((start, state))
}

/// Why a journal does not come, or not whole.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No gateway runs, and the files cannot be read.
    #[error("no gateway runs on it, and {0}")]
    Store(#[from] StoreError),
    /// A record cannot be read: damage, named by its sequence.
    #[error("{0}")]
    Damaged(String),
    /// The gateway stopped, or refused.
    #[error("the running gateway: {0}")]
    Gateway(String),
    /// Whoever takes the records cannot go on.
    #[error("{0}")]
    Taker(String),
}

/// Sends all records up to now.
pub(crate) async fn send(reader: Reader, outgoing: &mut (impl tokio::io::AsyncWrite + Unpin)) -> io::Result<()> {
    let begun = {
        let reader = reader.clone();
        tokio::task::spawn_blocking(move || beginning(&reader)).await
    };
    let (start, state) = match begun.map_err(|error| error.to_string()).and_then(|begun| begun) {
        Ok(begun) => begun,
        Err(error) => {
            let line = serde_json::json!({ "error": error }).to_string() + "\n";
            return outgoing.write_all(line.as_bytes()).await;
        }
    };
    let mut line = serde_json::to_string(&start)?;
    line.push('\n');
    outgoing.write_all(line.as_bytes()).await?;
    let (chunks, mut ready) = mpsc::channel::<Vec<u8>>(CHUNKS_MAX);
    let reading = tokio::task::spawn_blocking(move || read(&reader, start, &state, &chunks));
    while let Some(chunk) = ready.recv().await {
        outgoing.write_all(&chunk).await?;
    }
    let end = match reading.await {
        Ok(Ok(())) => 0u32.to_le_bytes().to_vec(),
        Ok(Err(error)) => [&FAILED.to_le_bytes(), error.to_string().as_bytes()].concat(),
        Err(error) => [&FAILED.to_le_bytes(), error.to_string().as_bytes()].concat(),
    };
    outgoing.write_all(&end).await
}

fn read(
    reader: &Reader,
    start: Start,
    state: &[Vec<u8>],
    chunks: &mpsc::Sender<Vec<u8>>,
) -> Result<(), journal::ReadError> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES + RECORD_BYTES_MAX);
    let mut send = |bytes: Option<&[u8]>| {
        if let Some(bytes) = bytes {
            let length = u32::try_from(bytes.len()).expect("a record is a few KiB at most");
            chunk.extend_from_slice(&length.to_le_bytes());
            chunk.extend_from_slice(bytes);
        }
        let is_full = bytes.is_none() || chunk.len() >= CHUNK_BYTES;
        // Who asked may have gone away.
        is_full && chunks.blocking_send(std::mem::take(&mut chunk)).is_err()
    };
    if state.iter().any(|record| send(Some(record))) {
        return Ok(());
    }
    reader.replay(start.first, &mut |sequence, bytes| {
        if sequence > start.head || send(Some(bytes)) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    send(None);
    Ok(())
}

/// Takes one record: where the journal stood when the reading began, its sequence, its bytes. An error ends the reading.
pub type Take<'a> = dyn FnMut(Start, u64, &[u8]) -> Result<(), String> + 'a;

/// Calls `take(start, sequence, record)` for every record, those of the state as sequence 0, of the gateway whose store is in `dir`, in order.
///
/// # Errors
/// [`StreamError`]; then not all records came.
pub fn each(dir: &Path, take: &mut Take<'_>) -> Result<Start, StreamError> {
    match UnixStream::connect(socket_path(dir)) {
        Ok(stream) => of_running(stream, take),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(StreamError::Gateway(format!(
            "{}: {error}; ask as root",
            socket_path(dir).display()
        ))),
        Err(_) => of_stopped(dir, take),
    }
}

fn of_stopped(dir: &Path, take: &mut Take<'_>) -> Result<Start, StreamError> {
    let journal = Store::open_reader(dir)?;
    let (start, state) = beginning(&journal).map_err(StreamError::Damaged)?;
    for record in &state {
        take(start, 0, record).map_err(StreamError::Taker)?;
    }
    let mut failed = None;
    let walked = journal.replay(start.first, &mut |sequence, bytes| match take(start, sequence, bytes) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    });
    walked.map_err(|error| StreamError::Damaged(error.to_string()))?;
    failed.map_or(Ok(start), |error| Err(StreamError::Taker(error)))
}

fn of_running(mut stream: UnixStream, take: &mut Take<'_>) -> Result<Start, StreamError> {
    let ended = |error: io::Error| StreamError::Gateway(format!("it stopped in the middle of the journal: {error}"));
    let question = serde_json::to_string(&Query::Journal).expect("a question is JSON") + "\n";
    stream.write_all(question.as_bytes()).map_err(ended)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream
        .by_ref()
        .take(ERROR_BYTES_MAX)
        .read_line(&mut line)
        .map_err(ended)?;
    let start: Start = serde_json::from_str(&line).map_err(|_| StreamError::Gateway(refusal(&line)))?;
    let mut record = Vec::with_capacity(RECORD_BYTES_MAX);
    let (mut kept, mut sequence) = (start.kept, start.first);
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).map_err(ended)?;
        match u32::from_le_bytes(length) {
            0 => break,
            FAILED => {
                let mut why = String::new();
                stream.take(ERROR_BYTES_MAX).read_to_string(&mut why).map_err(ended)?;
                return Err(StreamError::Damaged(why));
            }
            length if length as usize > RECORD_BYTES_MAX => {
                return Err(StreamError::Gateway(format!(
                    "a record of {length} bytes: it is of another version"
                )));
            }
            length => {
                record.resize(length as usize, 0);
                stream.read_exact(&mut record).map_err(ended)?;
                if kept > 0 {
                    kept -= 1;
                    take(start, 0, &record).map_err(StreamError::Taker)?;
                    continue;
                }
                take(start, sequence, &record).map_err(StreamError::Taker)?;
                sequence += 1;
            }
        }
    }
    if sequence == start.head + 1 {
        Ok(start)
    } else {
        let why = format!("record {sequence} of {} did not come", start.head);
        Err(StreamError::Gateway(why))
    }
}

/// What it answers instead.
fn refusal(line: &str) -> String {
    let answer: Option<serde_json::Value> = serde_json::from_str(line).ok();
    let error = answer.and_then(|answer| answer.get("error")?.as_str().map(str::to_owned));
    error.unwrap_or_else(|| "it is of another version".to_owned())
}

//! The outbox, for people: which records wait for their receipt, and what the hub said of others.

use std::ops::ControlFlow;

use gateway_core::Event;
use journal::Reader;
use proto::link::RecordKind;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::{
    control::{self, Query},
    engine::Job,
    record,
    store::Mark,
};

/// Most waiting records in one answer.
pub const OUTBOX_ROWS_MAX: usize = 10_000;

/// The answer to [`Query::Outbox`].
pub(crate) async fn show(reader: Reader, engine: &mpsc::Sender<Job>, rows_max: usize) -> Value {
    let status = control::look(engine, Query::Status).await;
    let Some(cursor) = status["receipted"].as_u64() else {
        return status;
    };
    let stopping = || json!({"error": "the gateway is stopping"});
    let (reply, mark) = oneshot::channel();
    if engine.send(Job::Find { ledger: cursor, reply }).await.is_err() {
        return stopping();
    }
    let Ok(mark) = mark.await else { return stopping() };
    let rows_max = rows_max.min(OUTBOX_ROWS_MAX);
    let read = tokio::task::spawn_blocking(move || waiting(&reader, mark, cursor, rows_max)).await;
    match read.map_err(|error| error.to_string()).and_then(|rows| rows) {
        Ok(rows) => json!({
            "waiting": status["waiting"],
            "waiting_s": status["waiting_s"],
            "rows": rows,
            "remarks": status["remarks"],
            "quarantined": status["quarantined"],
        }),
        Err(error) => json!({ "error": error }),
    }
}

/// The first records behind the cursor.
fn waiting(reader: &Reader, mark: Mark, cursor: u64, rows_max: usize) -> Result<Vec<Value>, String> {
    let (mut rows, mut failed) = (Vec::new(), None);
    let walked = reader.replay(mark.journal, &mut |sequence, bytes| {
        if rows.len() >= rows_max {
            return ControlFlow::Break(());
        }
        match record::decode(sequence, bytes) {
            Ok((_, event)) => rows.extend(row(&event, cursor)),
            Err(error) => {
                failed = Some(error.to_string());
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    walked.map_err(|error| error.to_string())?;
    failed.map_or(Ok(rows), Err)
}

const fn word(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Hold => "hold",
        RecordKind::Started => "started",
        RecordKind::Capture => "capture",
        RecordKind::Void => "void",
        RecordKind::Indeterminate => "indeterminate",
        RecordKind::LeaseTaken => "lease taken",
        RecordKind::LeaseReturn => "lease return",
        RecordKind::Other => "other",
    }
}

fn row(event: &Event, cursor: u64) -> Option<Value> {
    let record = event.record().filter(|record| record.sequence > cursor)?;
    Some(json!({
        "record": record.sequence,
        "is": word(record.kind),
        "session": record.session.to_string(),
        "device": record.device.as_str(),
        "amount": record.amount.0,
        "at_s": record.at.wall_s,
    }))
}

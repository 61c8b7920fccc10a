//! Looking into the journal for people: one session, one outage. Reads beside a running engine, or alone on the files of
//! a stopped one; holds one record in memory at a time.

pub mod command;

use std::{ops::ControlFlow, path::Path};

use gateway_core::{
    report::{Report, ReportError, Reporter, Span},
    why::{Search, Wanted, Why, WhyError},
};
use journal::Reader;

use crate::{
    exit,
    record::{self, RecordError},
    store::{Store, StoreError},
};

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The journal does not open.
    #[error(transparent)]
    Open(#[from] StoreError),
    /// A gateway runs on the journal.
    #[error("{dir} is in use{}: a gateway runs on it; leave out --data and ask that gateway", holder.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    InUse {
        /// Which directory.
        dir: String,
        /// Who has it.
        holder: Option<u32>,
    },
    /// There is no journal.
    #[error("no journal in {0}")]
    Missing(String),
    /// The journal cannot be read.
    #[error("the journal cannot be read: {0}")]
    Read(#[from] journal::ReadError),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// There is no such session, or more than one.
    #[error(transparent)]
    Why(#[from] WhyError),
    /// There is no outage, or nothing in that time.
    #[error(transparent)]
    Report(#[from] ReportError),
}

impl LookError {
    /// For the shell.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Open(_) | Self::Missing(_) | Self::Read(_) | Self::Record(_) => exit::STORAGE,
            Self::InUse { .. } => exit::UNAVAILABLE,
            Self::Why(WhyError::Malformed(_)) => exit::USAGE,
            Self::Report(_)
            | Self::Why(WhyError::Unknown(_) | WhyError::NoSessionOf(_) | WhyError::Ambiguous { .. }) => {
                exit::NOT_FOUND
            }
        }
    }
}

/// Opens the journal of a stopped gateway, for reading. `dir`: as in the configuration's `[store]`.
///
/// # Errors
/// [`LookError::InUse`], or whatever else keeps it from opening.
pub fn open(dir: &Path) -> Result<journal::Journal, LookError> {
    Store::open_reader(dir).map_err(|error| match error {
        StoreError::Open(journal::OpenError::Locked { holder, .. }) => LookError::InUse {
            dir: dir.display().to_string(),
            holder,
        },
        StoreError::Open(journal::OpenError::Missing(dir)) => LookError::Missing(dir.display().to_string()),
        error => LookError::Open(error),
    })
}

/// Explains a session. `offset_min`: of local time from UTC.
///
/// # Errors
/// [`LookError`].
pub fn why(reader: &Reader, wanted: &Wanted, offset_min: i16) -> Result<Why, LookError> {
    let mut search = Search::new(wanted, offset_min)?;
    scan(reader, |sequence, bytes| {
        if !record::is_beside(bytes, || search.may_concern(bytes)) {
            let (now, event) = record::decode(sequence, bytes)?;
            search.take(sequence, &now, &event);
        }
        Ok(())
    })?;
    let mut why = search.finish()?;
    if let Some(decided) = &mut why.decision {
        decided.journal_hash = hex(&reader.chain_hash_at(decided.journal)?);
        decided.journal_previous = hex(&reader.chain_hash_at(decided.journal - 1)?);
    }
    Ok(why)
}

/// Reports a span. `offset_min`: of local time from UTC.
///
/// # Errors
/// [`LookError`].
pub fn report(reader: &Reader, span: Span, offset_min: i16) -> Result<Report, LookError> {
    let mut reporter = Reporter::new(span, offset_min);
    scan(reader, |sequence, bytes| {
        let (now, event) = record::decode(sequence, bytes)?;
        reporter.take(sequence, &now, &event);
        Ok(())
    })?;
    Ok(reporter.finish()?)
}

/// Shows every record that is kept, in order.
fn scan(reader: &Reader, mut take: impl FnMut(u64, &[u8]) -> Result<(), RecordError>) -> Result<(), LookError> {
    let mut failed = None;
    reader.replay(
        reader.oldest_sequence(),
        &mut |sequence, bytes| match take(sequence, bytes) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        },
    )?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn hex(hash: &[u8; 32]) -> String {
    proto::id::Hash(*hash).to_string()
}

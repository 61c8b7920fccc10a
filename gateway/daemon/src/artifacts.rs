//! Signed artifacts on their way in, by link or by file: put together from parts, checked, and then a matter for the
//! core. Whatever is wrong with one raises an alarm and does nothing else.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use gateway_core::Input;
use proto::{
    artifact::{self, ArtifactError},
    link::ArtifactPart,
    trust::{ArtifactKind, IssuerKey},
};
use tokio::sync::{mpsc, oneshot};

use crate::{engine::Job, files::Attached};

/// Most parts of one artifact: a list has fewer than 500 chunks, and an envelope.
const PARTS_MAX: u32 = 1_000;
/// Largest file that is read, in bytes: the largest list with everything else, several times.
pub(crate) const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// An artifact with all its parts, of which nothing is known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// What it says it is.
    pub kind: ArtifactKind,
    /// The revision that it says it has.
    pub revision: u64,
    envelope: Vec<u8>,
    chunks: Vec<Vec<u8>>,
}

/// Puts artifacts together from their parts.
#[derive(Debug, Default)]
pub struct Assembly {
    waiting: BTreeMap<u8, Parts>,
}

#[derive(Debug)]
struct Parts {
    revision: u64,
    parts: Vec<Option<Vec<u8>>>,
}

impl Assembly {
    /// Adds a part; the artifact, once it is whole. Of each kind one is being put together.
    ///
    /// # Errors
    /// [`ArtifactError::Long`] for a part that cannot be one.
    pub fn add(&mut self, part: ArtifactPart) -> Result<Option<Whole>, ArtifactError> {
        if part.parts == 0 || part.parts > PARTS_MAX || part.part >= part.parts {
            return Err(ArtifactError::Long(part.parts as usize));
        }
        let fresh = || Parts {
            revision: part.revision,
            parts: vec![None; part.parts as usize],
        };
        let waiting = self.waiting.entry(part.kind.code()).or_insert_with(fresh);
        if waiting.revision != part.revision || waiting.parts.len() != part.parts as usize {
            *waiting = fresh();
        }
        waiting.parts[part.part as usize] = Some(part.bytes.into_vec());
        if waiting.parts.iter().any(Option::is_none) {
            return Ok(None);
        }
        let whole = self.waiting.remove(&part.kind.code()).expect("it was inserted above");
        let mut parts = whole.parts.into_iter().flatten();
        Ok(Some(Whole {
            kind: part.kind,
            revision: part.revision,
            envelope: parts.next().expect("an artifact has at least one part"),
            chunks: parts.collect(),
        }))
    }

    /// Whether nothing is left half done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Whole artifacts of one link that wait to be checked: as many kinds as there are, twice. Beyond that the link waits.
pub const WHOLES_MAX: usize = 16;

/// Checks an artifact; `None`: of a kind that this version does not use. `keys`: who may sign this kind.
///
/// # Errors
/// [`ArtifactError`].
pub fn verify(whole: &Whole, keys: &[IssuerKey]) -> Result<Option<Input>, ArtifactError> {
    let Whole {
        kind, envelope, chunks, ..
    } = whole;
    let input = match kind {
        ArtifactKind::List => Input::List(artifact::verify_list(envelope, chunks, keys)?),
        ArtifactKind::Revocations => Input::Revocations(artifact::verify_revocations(envelope, keys)?),
        ArtifactKind::Tariffs => Input::Tariffs(artifact::verify_tariffs(envelope, keys)?),
        ArtifactKind::Keys => Input::Keys(artifact::verify_keys(envelope, keys)?),
        ArtifactKind::Lease => Input::Leases(artifact::verify_leases(envelope, keys)?),
        ArtifactKind::Policy => Input::Policy(artifact::verify_policy(envelope, keys)?),
        ArtifactKind::Voucher | ArtifactKind::Firmware | ArtifactKind::Other => return Ok(None),
    };
    Ok(Some(input))
}

/// The engine is gone.
#[derive(Debug)]
pub struct Gone;

/// The way of a whole artifact to the engine.
#[derive(Clone, Debug)]
pub struct Desk {
    engine: mpsc::Sender<Job>,
    rejected: Arc<AtomicU64>,
}

impl Desk {
    /// To this engine. `rejected` counts what was not believed.
    #[must_use]
    pub const fn new(engine: mpsc::Sender<Job>, rejected: Arc<AtomicU64>) -> Self {
        Self { engine, rejected }
    }

    /// Checks an artifact under the keys that are in force now: an artifact before it may have changed them.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn check(&self, whole: Whole) -> Result<Result<Option<Input>, ArtifactError>, Gone> {
        let (reply, keys) = oneshot::channel();
        let job = Job::Signers(whole.kind, reply);
        self.engine.send(job).await.map_err(|_| Gone)?;
        let keys = keys.await.map_err(|_| Gone)?;
        let (kind, revision) = (whole.kind.word(), whole.revision);
        // A list of 100,000 entries takes a while to read; whoever else shares this thread must not wait for it.
        let checked = tokio::task::spawn_blocking(move || verify(&whole, &keys)).await;
        let checked = checked.map_err(|_| Gone)?;
        if let Err(error) = &checked {
            self.reject(kind, revision, error);
        }
        Ok(checked)
    }

    /// Checks whatever comes, one after the other, for a link that has more to do than to wait for that. Ends with the
    /// link, or with the engine.
    pub async fn serve(self, mut inbox: mpsc::Receiver<Whole>) {
        while let Some(whole) = inbox.recv().await {
            let input = match self.check(whole).await {
                Ok(checked) => checked.ok().flatten(),
                Err(Gone) => return,
            };
            if let Some(input) = input
                && self.engine.send(Job::Cloud(input)).await.is_err()
            {
                return;
            }
        }
    }

    /// Raises the alarm.
    pub fn reject(&self, kind: &'static str, revision: u64, error: &ArtifactError) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        tracing::error!(kind, revision, %error, "ALARM artifact rejected, nothing was changed");
    }

    /// Takes in a file of artifacts, one after the other; what became of each, in words.
    ///
    /// # Errors
    /// A text that says why the file cannot be used at all; then nothing was changed.
    pub async fn import(&self, file: Attached) -> Result<Vec<Imported>, String> {
        let Attached { name, bytes } = file;
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", name.display());
        let read = tokio::task::spawn_blocking(move || artifact::read_bundle(&bytes)).await;
        let parts = read.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let mut assembly = Assembly::default();
        let mut wholes = Vec::new();
        for (at, part) in parts.into_iter().enumerate() {
            let whole = assembly
                .add(part)
                .map_err(|error| failed(&format_args!("part {at}: {error}")))?;
            wholes.extend(whole);
        }
        if !assembly.is_empty() {
            return Err(failed(&"an artifact lacks some of its parts"));
        }
        let mut all = Vec::new();
        for whole in wholes {
            let (kind, revision) = (whole.kind.word(), whole.revision);
            let result = self
                .import_one(whole)
                .await
                .map_err(|Gone| "the gateway is stopping".to_owned())?;
            all.push(Imported { kind, revision, result });
        }
        Ok(all)
    }

    async fn import_one(&self, whole: Whole) -> Result<String, Gone> {
        match self.check(whole).await? {
            Ok(Some(input)) => self.order(input).await,
            Ok(None) => Ok("ignored: this version does not use it".to_owned()),
            Err(error) => Ok(format!("rejected: {error}")),
        }
    }

    /// Has the engine decide something; what became of it, in words, when it is durable.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn order(&self, input: Input) -> Result<String, Gone> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Order(Box::new(input), reply);
        self.engine.send(job).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}

/// What became of an artifact in a file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Imported {
    /// What it is.
    pub kind: &'static str,
    /// Its revision.
    pub revision: u64,
    /// `done`, or what was done instead and why.
    pub result: String,
}

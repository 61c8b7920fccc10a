//! TLS from files: whom we trust, and who we are. The files are read again for every connection, so that a renewed
//! certificate is used at the next connect without a restart. Files that make no sense are reported, and what was good
//! before stays in use.

mod load;
mod section;
mod server;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex},
};

pub use self::section::{Section, Unpaired};
pub use self::server::{REREAD_AFTER, ServerFiles, ServerTls};
use tokio_rustls::rustls::{ClientConfig, pki_types::CertificateDer};

/// Which files, and what to speak inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// PEM files with certificates of authorities that we trust.
    pub roots: Vec<PathBuf>,
    /// Whether we trust the system's authorities, too.
    pub system_roots: bool,
    /// Our certificate and its key; none: we do not identify ourselves by TLS.
    pub identity: Option<Identity>,
    /// Names of protocols to offer (ALPN), the preferred one first.
    pub alpn: Vec<String>,
}

/// Our certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM: our certificate, then those that lead to its authority.
    pub certificate: PathBuf,
    /// PEM: the private key, readable by nobody but its owner.
    pub key: PathBuf,
}

/// From when to when our certificate is valid, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Whom it names.
    pub subject: String,
    /// Seconds since 1970 UTC.
    pub not_before_s: i64,
    /// Seconds since 1970 UTC.
    pub not_after_s: i64,
}

/// A day, in s.
const DAY_S: i64 = 24 * 3600;

impl Validity {
    /// Whole days until it expires, at a time in seconds since 1970 UTC; negative: since it expired.
    #[must_use]
    pub const fn days_left(&self, now_s: i64) -> i64 {
        self.not_after_s.saturating_sub(now_s).div_euclid(DAY_S)
    }
}

/// What is in use, for status.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Of the certificate in use.
    pub identity: Option<Validity>,
    /// Why the files as they are now are not in use.
    pub problem: Option<Arc<Error>>,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is longer than such a file can be.
    #[error("{}: longer than {bytes_max} bytes", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// How long it may be, in bytes.
        bytes_max: u64,
    },
    /// Others may read the key.
    #[error("{}: mode {mode:03o} lets others read the key; type: chmod 600 {}", path.display(), path.display())]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// What is in it is not what should be.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The system has no authorities.
    #[error("the system's certificates of authorities: {0}")]
    System(String),
    /// There is nobody to trust.
    #[error("neither files with certificates of authorities nor the system's are to be trusted")]
    NobodyTrusted,
    /// Certificate and key are not a pair.
    #[error("{} and {}: {why}", certificate.display(), key.display())]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        why: String,
    },
    /// A protocol's name that TLS cannot carry.
    #[error("ALPN {0:?} is not 1 to 255 bytes long")]
    Alpn(String),
}

/// TLS as the files say at the moment.
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// What was read last, and what came of it.
#[derive(Default)]
struct State {
    good: Option<Good>,
    problem: Option<Arc<Error>>,
}

/// Files that made sense.
struct Good {
    content: Content,
    config: Arc<ClientConfig>,
    identity: Option<Validity>,
}

/// What was in the files.
#[derive(PartialEq, Eq)]
struct Content {
    roots: Vec<CertificateDer<'static>>,
    /// Certificate and key, PEM.
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// TLS from these files. They are first read when they are needed.
    #[must_use]
    pub fn new(files: Files) -> Self {
        Self {
            files: Arc::new(files),
            state: Arc::default(),
        }
    }

    /// For the next connection: reads the files again, and waits for the disk.
    ///
    /// # Errors
    /// If the files make no sense and never did since the process began. Later ones are only reported: see
    /// [`Tls::status`].
    pub fn config(&self) -> Result<Arc<ClientConfig>, Arc<Error>> {
        let read = load::read(&self.files);
        let mut state = self.lock();
        let fresh = match read {
            Ok(content) => match &state.good {
                Some(good) if good.content == content => Ok(None),
                Some(_) | None => load::make(&self.files, content).map(Some),
            },
            Err(error) => Err(error),
        };
        match fresh {
            Ok(fresh) => {
                let was_bad = state.problem.take().is_some();
                let is_new = fresh.is_some();
                state.good = fresh.or(state.good.take());
                let good = state
                    .good
                    .as_ref()
                    .expect("either these files are good or they are those that were");
                if is_new || was_bad {
                    let not_after_s = good.identity.as_ref().map(|validity| validity.not_after_s);
                    let subject = good.identity.as_ref().map(|validity| validity.subject.as_str());
                    tracing::info!(subject, not_after_s, "TLS files are in use from the next connection on");
                }
                Ok(good.config.clone())
            }
            Err(error) => state.refuse(error),
        }
    }

    /// What is in use, after a look at the files; waits for the disk.
    #[must_use]
    pub fn status(&self) -> Status {
        drop(self.config());
        let state = self.lock();
        Status {
            identity: state.good.as_ref().and_then(|good| good.identity.clone()),
            problem: state.problem.clone(),
        }
    }

    /// Protocols that are offered.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic happens under this lock")
    }
}

impl State {
    /// Keeps what was good, and says once what is wrong now.
    fn refuse(&mut self, error: Error) -> Result<Arc<ClientConfig>, Arc<Error>> {
        let is_kept = self.good.is_some();
        let is_told = self
            .problem
            .as_ref()
            .is_some_and(|old| old.to_string() == error.to_string());
        if !is_told {
            tracing::warn!(%error, is_kept, "ALARM TLS files cannot be used; what was good before stays in use");
        }
        let error = Arc::new(error);
        self.problem = Some(error.clone());
        match &self.good {
            Some(good) => Ok(good.config.clone()),
            None => Err(error),
        }
    }
}

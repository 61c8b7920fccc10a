//! TLS as we serve it to devices: TLS 1.3 only, and nobody without a certificate of ours. The files are read again, so that a
//! renewed certificate or authority counts without a restart; files that make no sense are reported, and what was good stays.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
        version::TLS13,
    },
    server::TlsStream,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    Error, Identity, Validity,
    load::{bytes, certificates, content, validity},
};

/// How old what was read may be before the files are looked at again: a flood of connections must not become one of the disk.
pub const REREAD_AFTER: Duration = Duration::from_secs(1);

/// Which files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// What we show.
    pub identity: Identity,
    /// PEM: certificates of the authorities that sign our clients' certificates; nobody else's count.
    pub clients: PathBuf,
}

/// TLS for clients with certificates, as the files say at the moment.
#[derive(Clone)]
pub struct ServerTls {
    files: Arc<ServerFiles>,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// What is in use.
struct State {
    content: Content,
    config: Arc<ServerConfig>,
    read_at: Instant,
    /// What is wrong with the files as they are now, once told.
    problem: Option<String>,
}

/// What was in the files: certificate, key, authorities.
#[derive(PartialEq, Eq)]
struct Content([Vec<u8>; 3]);

impl ServerTls {
    /// TLS from these files.
    ///
    /// # Errors
    /// They make no sense: which, and why. Later ones are only reported.
    pub fn new(files: ServerFiles) -> Result<Self, Error> {
        let content = read(&files)?;
        let config = make(&files, &content)?;
        let state = State {
            content,
            config,
            read_at: Instant::now(),
            problem: None,
        };
        Ok(Self {
            files: Arc::new(files),
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// Looks at the files now.
    ///
    /// # Errors
    /// They make no sense now; what was good stays in use.
    pub fn reload(&self) -> Result<(), Error> {
        let mut state = self.state.lock().expect("no panic happens under this lock");
        state.read_at = Instant::now();
        let fresh = read(&self.files).and_then(|content| {
            let is_new = content != state.content;
            is_new.then(|| Ok((make(&self.files, &content)?, content))).transpose()
        });
        match fresh {
            Ok(fresh) => {
                state.problem = None;
                if let Some((config, content)) = fresh {
                    (state.config, state.content) = (config, content);
                    tracing::info!("TLS files for devices are in use from the next connection on");
                }
                Ok(())
            }
            Err(error) => {
                let told = error.to_string();
                if state.problem.as_ref() != Some(&told) {
                    tracing::warn!(%error, "ALARM TLS files for devices cannot be used; what was good before stays in use");
                    state.problem = Some(told);
                }
                Err(error)
            }
        }
    }

    /// Whom the certificate names that we show, and until when, as the files are now.
    ///
    /// # Errors
    /// They make no sense now.
    pub fn validity(&self) -> Result<Validity, Error> {
        let path = &self.files.identity.certificate;
        let chain = certificates(path, &bytes(path, false)?)?;
        // A server shows its own certificate first; without one the files were refused.
        validity(
            path,
            chain.first().ok_or_else(|| content(path, "no certificate in it"))?,
        )
    }

    /// What is wrong with the files as they were last looked at.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let state = self.state.lock().expect("no panic happens under this lock");
        state.problem.clone()
    }

    fn config(&self) -> Arc<ServerConfig> {
        let is_old = {
            let state = self.state.lock().expect("no panic happens under this lock");
            state.read_at.elapsed() >= REREAD_AFTER
        };
        if is_old {
            // An error was told where it was found.
            drop(self.reload());
        }
        let state = self.state.lock().expect("no panic happens under this lock");
        state.config.clone()
    }

    /// Shakes hands; the stream, and the common name of the client's certificate.
    ///
    /// # Errors
    /// No TLS 1.3, no certificate, one that is not of our authorities, or one without exactly one common name.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Box<str>)> {
        let stream = TlsAcceptor::from(self.config()).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let name = shown.and_then(common_name).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the client's certificate has not exactly one common name",
            )
        })?;
        Ok((stream, name))
    }
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<Box<str>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok().map(Into::into),
        (None, _) | (Some(_), Some(_)) => None,
    }
}

fn read(files: &ServerFiles) -> Result<Content, Error> {
    Ok(Content([
        bytes(&files.identity.certificate, false)?,
        bytes(&files.identity.key, true)?,
        bytes(&files.clients, false)?,
    ]))
}

fn make(files: &ServerFiles, Content([certificate, key, clients]): &Content) -> Result<Arc<ServerConfig>, Error> {
    let chain = certificates(&files.identity.certificate, certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| content(&files.identity.key, format!("no private key in it: {error}")))?;
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.clients, clients)? {
        roots.add(authority).map_err(|error| content(&files.clients, error))?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| content(&files.clients, error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring knows TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| Error::Pair {
            certificate: files.identity.certificate.clone(),
            key: files.identity.key.clone(),
            why: error.to_string(),
        })?;
    // Each connection shows its certificate anew: a resumed one would outlive its authority.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

//! A small backend by hyper, with or without TLS, at a socket of its own; what it answers is the test's business.

use std::{
    convert::Infallible,
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use carrier::http::{AnswerHead, NONCE_HEADER, RequestHead, SIGN_HEADER, TIME_HEADER};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixListener, task::JoinHandle};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

use super::certs::{Authority, Pair};

/// What both sides sign with.
pub const KEY: &[u8] = b"a key of both";

/// What was asked, read whole.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path_and_query: String,
    pub time_s: u64,
    pub nonce: String,
    pub is_signed: bool,
    pub body: Bytes,
}

pub type Answer = Response<BoxBody<Bytes, Infallible>>;

impl Asked {
    async fn of(request: Request<Incoming>) -> Self {
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        let (method, time_s) = (request.method().to_string(), header(TIME_HEADER).parse().unwrap());
        let (nonce, signature) = (header(NONCE_HEADER), header(SIGN_HEADER));
        let path_and_query = request.uri().to_string();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let head = RequestHead {
            method: &method,
            path_and_query: &path_and_query,
            time_s,
            nonce: &nonce,
        };
        let is_signed = head.is_signed(KEY, &body, &signature);
        Self {
            method,
            path_and_query,
            time_s,
            nonce,
            is_signed,
            body,
        }
    }

    /// As the backend answers.
    pub fn answer(&self, status: u16, body: impl Into<Bytes>) -> Answer {
        self.signed_by(KEY, &self.nonce, status, body)
    }

    pub fn signed_by(&self, key: &[u8], nonce: &str, status: u16, body: impl Into<Bytes>) -> Answer {
        let body = body.into();
        let signature = AnswerHead { nonce, status }.sign(key, &body);
        let mut answer = unsigned(status, body);
        answer.headers_mut().insert(SIGN_HEADER, signature.parse().unwrap());
        answer
    }
}

/// As somebody else answers.
pub fn unsigned(status: u16, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).boxed();
    Response::builder().status(status).body(body).unwrap()
}

pub struct Backend {
    pub socket: PathBuf,
    /// How many lines there were.
    pub lines: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backend {
    /// Answers every request with what the closure makes of it.
    pub fn start<F, A>(dir: &Path, tls: Option<ServerConfig>, answer: A) -> Self
    where
        F: Future<Output = Answer> + Send,
        A: Fn(Asked) -> F + Clone + Send + Sync + 'static,
    {
        let socket = dir.join("backend.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let lines = Arc::new(AtomicUsize::new(0));
        let counted = lines.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                let service = service_fn(move |request| {
                    let answer = answer.clone();
                    async move { Ok::<_, Infallible>(answer(Asked::of(request).await).await) }
                });
                tokio::spawn(async move {
                    // Whoever is on the other side tests bad lines: what comes of it is its business.
                    match acceptor {
                        None => drop(
                            http1::Builder::new()
                                .serve_connection(TokioIo::new(stream), service)
                                .await,
                        ),
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                drop(
                                    http1::Builder::new()
                                        .serve_connection(TokioIo::new(stream), service)
                                        .await,
                                );
                            }
                        }
                    }
                });
            }
        });
        Self { socket, lines, task }
    }

    pub fn lines(&self) -> usize {
        self.lines.load(Ordering::Relaxed)
    }
}

/// TLS as this pair, for clients of that authority only, if there is one.
pub fn secured(pair: &Pair, clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
                .unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    builder.with_single_cert(chain, key).unwrap()
}

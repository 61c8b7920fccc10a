//! Where connections come in: TCP, TLS, and the faults of both.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConnection};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    broker::Tls,
    certs::Shop,
    counters::Counters,
    fault::{CertFault, Fault, Faults, Stage},
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection is held that is never answered: longer than anybody waits.
const HELD: Duration = Duration::from_secs(300);

/// A connection, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Whoever came in.
pub(crate) type Guest = (Box<dyn Stream>, Option<Tls>);

/// The cloud's clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Since the cloud began, in ms.
    pub(crate) fn now_ms(self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    /// Since 1970 UTC, in ms.
    pub(crate) fn wall_ms() -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }
}

/// A listening address and who stands there.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    listener: Arc<TcpListener>,
    shop: Option<Arc<Shop>>,
    pub(crate) faults: watch::Receiver<Faults>,
    pub(crate) clock: Clock,
    pub(crate) counters: Arc<Counters>,
}

impl Gate {
    pub(crate) async fn open(
        listen: SocketAddr,
        shop: Option<Arc<Shop>>,
        faults: watch::Receiver<Faults>,
        clock: Clock,
        counters: Arc<Counters>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            listener: Arc::new(TcpListener::bind(listen).await?),
            shop,
            faults,
            clock,
            counters,
        })
    }

    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection, before its handshake.
    pub(crate) async fn accept(&self) -> TcpStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // Small messages must not wait for each other; where it cannot be said they do.
                    let _ = stream.set_nodelay(true);
                    return stream;
                }
                // No file descriptor is left, say.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Whether a fault holds now.
    pub(crate) fn hangs(&self, stage: Stage) -> bool {
        self.faults.borrow().hangs(self.clock.now_ms(), stage)
    }

    pub(crate) fn closes_after(&self, stage: Stage) -> bool {
        self.faults.borrow().closes_after(self.clock.now_ms(), stage)
    }

    pub(crate) fn has(&self, wanted: &Fault) -> bool {
        self.faults.borrow().has(self.clock.now_ms(), wanted)
    }

    pub(crate) fn find<T>(&self, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        self.faults.borrow().find(self.clock.now_ms(), pick)
    }

    /// Shakes hands; `None` if nothing comes of it.
    pub(crate) async fn greet(&self, stream: TcpStream) -> Option<Guest> {
        let Some(shop) = &self.shop else {
            return Some((Box::new(stream), None));
        };
        if self.hangs(Stage::Tls) || self.hangs(Stage::Tcp) {
            self.counters.swallowed.add();
            self.hold(stream).await;
            return None;
        }
        let shown = self.find(|fault| match fault {
            Fault::Cert(cert) => Some(*cert),
            Fault::Captive => Some(CertFault::NewRoot),
            _ => None,
        });
        let acceptor = TlsAcceptor::from(shop.config(shown));
        let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await.ok();
        match stream {
            Some(Ok(stream)) => {
                let tls = seen(stream.get_ref().1);
                Some((Box::new(stream), Some(tls)))
            }
            Some(Err(error)) => {
                self.counters.refused.add();
                tracing::debug!(%error, "no handshake");
                None
            }
            None => None,
        }
    }

    /// Holds a connection that is not answered, until the fault is over.
    pub(crate) async fn hold<S: Send>(&self, stream: S) {
        let mut faults = self.faults.clone();
        faults.mark_unchanged();
        // Either way it is closed then.
        let _ = tokio::time::timeout(HELD, faults.changed()).await;
        drop(stream);
    }
}

fn seen(connection: &ServerConnection) -> Tls {
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    let common_name = certificate.and_then(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
        Some(name.to_owned())
    });
    Tls {
        sni: connection.server_name().map(str::to_owned),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        common_name,
    }
}

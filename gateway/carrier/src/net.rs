//! The way to the other side: name, TCP, TLS, and what it means if one of them fails.

use std::{future::Future, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use crate::{
    symptom::{self, Class, Symptom},
    tls::Tls,
};

/// TCP, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects, and is done or has failed at that time. With TLS the host is also the name that is asked for and checked.
pub(crate) async fn dial(host: &str, port: u16, tls: Option<Tls>, until: Instant) -> Result<Box<dyn Stream>, Symptom> {
    let unfit = |why: String| Symptom::new(Class::Protocol, 0, why);
    let connector = match tls {
        None => None,
        Some(tls) => {
            let read = tokio::task::spawn_blocking(move || tls.config()).await;
            let config = read.map_err(|error| unfit(error.to_string()))?;
            let config = config.map_err(|error| unfit(error.to_string()))?;
            let name = ServerName::try_from(host.to_owned()).map_err(|error| unfit(format!("{host}: {error}")))?;
            Some((TlsConnector::from(config), name))
        }
    };
    let tcp = in_time("TCP connection", until, TcpStream::connect((host, port))).await?;
    tcp.set_nodelay(true).map_err(|error| symptom::io(&error))?;
    let Some((connector, name)) = connector else {
        return Ok(Box::new(tcp));
    };
    let connecting = connector.connect(name, tcp);
    Ok(Box::new(in_time("TLS handshake", until, connecting).await?))
}

async fn in_time<T>(what: &str, until: Instant, work: impl Future<Output = std::io::Result<T>>) -> Result<T, Symptom> {
    match timeout_at(until, work).await {
        Ok(done) => done.map_err(|error| symptom::io(&error)),
        Err(_) => Err(Symptom::new(Class::Partition, 0, format!("no {what} in time"))),
    }
}

/// That many seconds from now.
pub(crate) fn in_s(seconds: u16) -> Instant {
    Instant::now() + Duration::from_secs(u64::from(seconds))
}

//! Connections: how many, from whom, and how slow they may be. Whoever is too slow in either direction is cut.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::Sleep,
};

use super::{App, routes};

/// Most connections at once.
const CONNECTIONS_MAX: usize = 64;
/// Of one address: one that opens all it can does not keep the others out.
const CONNECTIONS_OF_ONE_MAX: usize = 24;
/// How long a request's header may take to come, the wait for the next request included.
const HEADER_WITHIN: Duration = Duration::from_secs(15);
/// How long the other side may take nothing of what is sent to it.
const TAKE_WITHIN: Duration = Duration::from_secs(20);
/// Largest header of a request, in bytes.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Most lines of a header.
const HEADERS_MAX: usize = 64;
/// No descriptors left, or the like: not at once again.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Connections by address.
type Counts = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

/// One of an address's connections.
struct Place(Counts, IpAddr);

impl Place {
    fn take(counts: &Counts, of: IpAddr) -> Option<Self> {
        let mut rows = counts.lock().expect("nothing panics under this lock");
        let count = rows.entry(of).or_default();
        if *count >= CONNECTIONS_OF_ONE_MAX {
            return None;
        }
        *count += 1;
        Some(Self(counts.clone(), of))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut rows = self.0.lock().expect("nothing panics under this lock");
        if let Some(count) = rows.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                rows.remove(&self.1);
            }
        }
    }
}

/// `over`: its sender is dropped when the page is served no more.
pub(super) async fn serve(listener: TcpListener, app: Arc<App>, over: watch::Receiver<()>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let counts = Counts::default();
    // Nobody closes the semaphore.
    while let Ok(permit) = room.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(place) = Place::take(&counts, peer.ip()) else {
                    tracing::debug!(%peer, "too many connections to the page");
                    continue;
                };
                let (app, mut over) = (app.clone(), over.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = connection(stream, peer.ip(), app) => {}
                        _ = over.changed() => {}
                    }
                    drop((permit, place));
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no connection to the page");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, app: Arc<App>) {
    // Events are small; waiting for more of them helps nobody.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| routes::answer(app.clone(), peer, request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Impatient::new(stream, TAKE_WITHIN)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection to the page ended");
    }
}

/// A stream whose other side must take what is sent to it.
struct Impatient<S> {
    stream: S,
    within: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    const fn new(stream: S, within: Duration) -> Self {
        Self {
            stream,
            within,
            waiting: None,
        }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.waiting = None;
            return sent;
        }
        let within = self.within;
        let wait = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        match wait.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.judge(context, sent)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_flush(context);
        this.judge(context, sent)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_shutdown(context);
        this.judge(context, sent)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_takes_nothing_is_cut() {
        let (near, _far) = tokio::io::duplex(8);
        let mut near = Impatient::new(near, Duration::from_millis(1));
        let cut = near.write_all(&[0; 9]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_takes_slowly_is_not() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut near = Impatient::new(near, TAKE_WITHIN);
        let mut context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..3 {
            assert!(Pin::new(&mut near).poll_write(&mut context, &[0; 8]).is_ready());
            assert!(near.waiting.is_none(), "what was taken starts the wait anew");
            assert!(Pin::new(&mut near).poll_write(&mut context, &[0; 8]).is_pending());
            assert!(near.waiting.is_some());
            far.read_exact(&mut [0; 8]).await.unwrap();
        }
    }

    #[test]
    fn one_address_does_not_take_every_place() {
        let counts = Counts::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut places: Vec<_> = (0..CONNECTIONS_OF_ONE_MAX)
            .map(|_| Place::take(&counts, one).unwrap())
            .collect();
        assert!(Place::take(&counts, one).is_none());
        assert!(Place::take(&counts, other).is_some());
        places.pop();
        assert!(Place::take(&counts, one).is_some());
        drop(places);
        assert!(counts.lock().unwrap().is_empty());
    }
}

//! The listener, the streams attached to it, and the end of both.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::access::Access;
use crate::admission::Stranger;
use crate::application::Application;
use crate::connection;
use crate::counters;
use crate::gate::Slot;
use crate::handle::Handle;
use crate::inbound::DisconnectReason;
use crate::limits::Limits;
use crate::shared::Shared;

/// Pause after a failed accept (no file descriptor left, say), in milliseconds: long enough not to spin, short for a client.
const ACCEPT_RETRY_MS: u64 = 50;
/// How long `shutdown` waits for connections to take their last bytes, in milliseconds.
const SHUTDOWN_MS: u64 = 3_000;

/// An MQTT server endpoint. Dropping it closes the listener but leaves connections to end by themselves; `shutdown` ends them.
pub struct Endpoint {
    shared: Arc<Shared>,
    application: Arc<dyn Application>,
    local_addr: SocketAddr,
    accepting: Vec<JoinHandle<()>>,
}

impl Endpoint {
    /// Listen on `addr` and serve MQTT 3.1.1 and 5 there. Intercepted messages and connections coming and going go to
    /// `application` (a channel, say); while it is full, nothing is read from the clients that have something for it.
    ///
    /// Must be called within a tokio runtime with time and I/O.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(
        addr: SocketAddr,
        limits: Limits,
        access: Arc<dyn Access>,
        application: impl Application + 'static,
    ) -> io::Result<Endpoint> {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new(limits, access));
        let application: Arc<dyn Application> = Arc::new(application);
        let plain = Plain(shared.clone(), application.clone());
        let spawn = move |stream: TcpStream, peer| {
            plain.spawn(stream, peer);
        };
        let accepting = vec![tokio::spawn(accept(listener, spawn))];
        Ok(Endpoint {
            shared,
            application,
            local_addr,
            accepting,
        })
    }

    /// The address listened on, with the port the system chose if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// A handle to publish and disconnect with, from any thread.
    pub fn handle(&self) -> Handle {
        Handle::new(self.shared.clone())
    }

    /// Listen on a second address, where every stream is first made safe by `secure` (TLS, say), which also returns the name that
    /// the client proved thereby: [`crate::ConnectRequest::identity`]. It runs in the connection's own task and within
    /// `Limits::connect_timeout_ms`, CONNECT included. Returns the address listened on.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind_secured<F, S>(
        &mut self,
        addr: SocketAddr,
        secure: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) -> io::Result<SocketAddr>
    where
        F: Future<Output = io::Result<(S, Box<str>)>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let (shared, application) = (self.shared.clone(), self.application.clone());
        let spawn = move |stream: TcpStream, peer: SocketAddr| {
            if let Some(slot) = place(&shared, peer) {
                let secured = secure(stream);
                tokio::spawn(serve_secured(shared.clone(), application.clone(), secured, peer, slot));
            }
        };
        self.accepting.push(tokio::spawn(accept(listener, spawn)));
        Ok(local_addr)
    }

    /// Serve a stream that was accepted elsewhere. False, and the stream is dropped, if there is no place for it.
    pub fn attach<S>(&self, stream: S, peer: SocketAddr) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Plain(self.shared.clone(), self.application.clone()).spawn(stream, peer)
    }

    /// Stop listening, disconnect all clients (MQTT 5 clients are told), and wait until their tasks have ended, for at most
    /// three seconds. Wills are not published: it is not the clients that went away. Keep receiving from the inbound queue
    /// meanwhile, it gets a `Disconnected` for each client; it ends when all is done and the endpoint is gone.
    pub fn shutdown(self) -> impl Future<Output = ()> + Send {
        self.accepting.iter().for_each(JoinHandle::abort);
        async move {
            let deadline = tokio::time::sleep(Duration::from_millis(SHUTDOWN_MS));
            tokio::pin!(deadline);
            self.shared.begin_closing();
            loop {
                let idle = self.shared.idle.notified();
                tokio::pin!(idle);
                idle.as_mut().enable();
                let mailboxes = self.shared.router().mailboxes();
                mailboxes
                    .iter()
                    .for_each(|mailbox| mailbox.close(DisconnectReason::ShuttingDown));
                if counters::read(&self.shared.counting.connections) == 0 {
                    break;
                }
                tokio::select! {
                    () = idle => {}
                    () = deadline.as_mut() => break,
                }
            }
            self.shared.router().abort_lingering();
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.accepting.iter().for_each(JoinHandle::abort);
    }
}

async fn accept(listener: TcpListener, spawn: impl Fn(TcpStream, SocketAddr) + Send + 'static) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without it, an answer waits for the acknowledgement of the packet before: 40 ms and more.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "TCP_NODELAY not set");
                }
                spawn(stream, peer);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            }
        }
    }
}

/// What serves streams as they are.
struct Plain(Arc<Shared>, Arc<dyn Application>);

impl Plain {
    fn spawn<S>(&self, stream: S, peer: SocketAddr) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Plain(shared, application) = self;
        let Some(slot) = place(shared, peer) else { return false };
        let stranger = Stranger {
            peer,
            identity: None,
            deadline: deadline(shared),
        };
        tokio::spawn(connection::serve(
            shared.clone(),
            application.clone(),
            stream,
            stranger,
            slot,
        ));
        true
    }
}

/// Until when a stranger that has just come must have said CONNECT.
fn deadline(shared: &Shared) -> Instant {
    Instant::now() + Duration::from_millis(shared.limits.connect_timeout_ms)
}

async fn serve_secured<S>(
    shared: Arc<Shared>,
    application: Arc<dyn Application>,
    secured: impl Future<Output = io::Result<(S, Box<str>)>> + Send,
    peer: SocketAddr,
    slot: Slot,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let deadline = deadline(&shared);
    match tokio::time::timeout_at(deadline, secured).await {
        Ok(Ok((stream, identity))) => {
            let stranger = Stranger {
                peer,
                identity: Some(identity),
                deadline,
            };
            connection::serve(shared, application, stream, stranger, slot).await;
        }
        Ok(Err(error)) => {
            counters::add(&shared.counting.tls_refused, 1);
            shared.tell_refusal(peer, &format_args!("TLS: {error}"));
        }
        Err(_) => {
            counters::add(&shared.counting.connect_timeouts, 1);
            shared.tell_refusal(peer, &"no TLS in time");
        }
    }
}

/// A place for a connection that has just come.
fn place(shared: &Arc<Shared>, peer: SocketAddr) -> Option<Slot> {
    match Slot::take(shared, peer.ip()) {
        Ok(slot) => Some(slot),
        Err((limit, times)) => {
            // The first, then every power of two: a flood must not fill the log.
            if times.is_power_of_two() {
                tracing::warn!(%peer, ?limit, times, "connection limit reached");
            }
            None
        }
    }
}

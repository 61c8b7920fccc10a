//! The listener, the streams attached to it, and the end of both.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::access::Access;
use crate::connection;
use crate::counters;
use crate::handle::Handle;
use crate::inbound::{DisconnectReason, Inbound};
use crate::limits::Limits;
use crate::shared::{Shared, Slot};

/// Pause after a failed accept (no file descriptor left, say), in milliseconds: long enough not to spin, short for a client.
const ACCEPT_RETRY_MS: u64 = 50;
/// How long `shutdown` waits for connections to take their last bytes, in milliseconds.
const SHUTDOWN_MS: u64 = 3_000;

/// An MQTT server endpoint. Dropping it closes the listener but leaves connections to end by themselves; `shutdown` ends them.
pub struct Endpoint {
    shared: Arc<Shared>,
    inbound: mpsc::Sender<Inbound>,
    local_addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Endpoint {
    /// Listen on `addr` and serve MQTT 3.1.1 and 5 there. Intercepted messages and connections coming and going are sent to
    /// `inbound`; while it is full, nothing is read from the clients that have something for it.
    ///
    /// Must be called within a tokio runtime with time and I/O.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(
        addr: SocketAddr,
        limits: Limits,
        access: Arc<dyn Access>,
        inbound: mpsc::Sender<Inbound>,
    ) -> io::Result<Endpoint> {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new(limits, access));
        let accepting = tokio::spawn(accept(shared.clone(), inbound.clone(), listener));
        Ok(Endpoint {
            shared,
            inbound,
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

    /// Serve a stream that was accepted elsewhere, for example one with TLS on it. False, and the stream is dropped, if
    /// `Limits::connections_max` is reached.
    pub fn attach<S>(&self, stream: S, peer: SocketAddr) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        spawn(&self.shared, &self.inbound, stream, peer)
    }

    /// Stop listening, disconnect all clients (MQTT 5 clients are told), and wait until their tasks have ended, for at most
    /// three seconds. Wills are not published: it is not the clients that went away. Keep receiving from the inbound queue
    /// meanwhile, it gets a `Disconnected` for each client; it ends when all is done and the endpoint is gone.
    pub fn shutdown(self) -> impl Future<Output = ()> + Send {
        self.accepting.abort();
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
        self.accepting.abort();
    }
}

async fn accept(shared: Arc<Shared>, inbound: mpsc::Sender<Inbound>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without it, an answer waits for the acknowledgement of the packet before: 40 ms and more.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "TCP_NODELAY not set");
                }
                spawn(&shared, &inbound, stream, peer);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            }
        }
    }
}

fn spawn<S>(shared: &Arc<Shared>, inbound: &mpsc::Sender<Inbound>, stream: S, peer: SocketAddr) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(slot) = Slot::take(shared) else {
        let over_limit = counters::read(&shared.counting.over_limit);
        // The first, then every power of two: a flood must not fill the log.
        if over_limit.is_power_of_two() {
            tracing::warn!(%peer, over_limit, "connection limit reached");
        }
        return false;
    };
    tokio::spawn(connection::serve(shared.clone(), inbound.clone(), stream, peer, slot));
    true
}

//! Bytes in and out of one stream, without a buffer for a connection that is silent.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at a time, on the stack. Some packets of a device, or a quarter of the largest.
const READ_BYTES: usize = 4 * 1024;
/// Capacity an empty buffer keeps; more is given back, so that one large packet does not cost an idle client memory.
const KEPT_BYTES: usize = 512;
/// How long a closing connection may take to accept its last bytes and to close its own side, in milliseconds.
const CLOSE_MS: u64 = 1_000;
/// How much it may send meanwhile: what a client has under way when it learns of the end.
const CLOSE_DRAIN_BYTES: usize = 64 * 1024;

/// A stream with what was received and not yet understood, and what is to be sent.
pub(crate) struct Stream<S> {
    io: S,
    received: Vec<u8>,
    /// Packets are appended here; `drive` sends them.
    pub(crate) out: Vec<u8>,
    written: usize,
    flush: bool,
}

/// What `drive` achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driven {
    /// Bytes arrived (and some may have left).
    Received,
    /// Bytes left.
    Sent,
    /// The peer closed.
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    pub(crate) fn new(io: S) -> Stream<S> {
        Stream {
            io,
            received: Vec::new(),
            out: Vec::new(),
            written: 0,
            flush: false,
        }
    }

    /// What was received and not consumed.
    pub(crate) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Forget the first bytes received.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.received.drain(..bytes);
        if self.received.is_empty() && self.received.capacity() > KEPT_BYTES {
            self.received = Vec::new();
        }
    }

    /// Bytes waiting to be sent.
    pub(crate) fn unsent(&self) -> usize {
        self.out.len() - self.written
    }

    /// Send what waits, and receive if `read`; returns as soon as anything moved. Cancelling it loses nothing.
    pub(crate) async fn drive(&mut self, read: bool) -> io::Result<Driven> {
        std::future::poll_fn(|context| self.poll_drive(context, read)).await
    }

    fn poll_drive(&mut self, context: &mut Context<'_>, read: bool) -> Poll<io::Result<Driven>> {
        let sent = self.poll_send(context)?;
        if read {
            // On the stack and gone before the next await: an idle connection has no read buffer.
            let mut space = [MaybeUninit::uninit(); READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut space);
            if Pin::new(&mut self.io).poll_read(context, &mut buffer)?.is_ready() {
                if buffer.filled().is_empty() {
                    return Poll::Ready(Ok(Driven::Closed));
                }
                self.received.extend_from_slice(buffer.filled());
                return Poll::Ready(Ok(Driven::Received));
            }
        }
        if sent {
            Poll::Ready(Ok(Driven::Sent))
        } else {
            Poll::Pending
        }
    }

    /// Send as much as the stream takes; true if it took any.
    fn poll_send(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut sent = false;
        while self.unsent() > 0 {
            match Pin::new(&mut self.io).poll_write(context, &self.out[self.written..])? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(bytes) => {
                    self.written += bytes;
                    self.flush = true;
                    sent = true;
                }
                Poll::Pending => break,
            }
        }
        if self.unsent() == 0 {
            self.written = 0;
            self.out.clear();
            if self.out.capacity() > KEPT_BYTES {
                self.out = Vec::new();
            }
        }
        // A stream with a buffer of its own (TLS) holds bytes back until told.
        if self.flush && Pin::new(&mut self.io).poll_flush(context)?.is_ready() {
            self.flush = false;
        }
        Ok(sent)
    }

    /// Send the last bytes if the peer takes them soon, and close.
    ///
    /// A socket closed with bytes unread is reset, and the peer may lose what it was told last. So if it was told something,
    /// what it still sends is read and thrown away until it has closed too, for as long as it may take.
    pub(crate) async fn close(mut self) {
        let tell = self.unsent() > 0;
        let finish = async {
            std::future::poll_fn(|context| self.poll_finish(context)).await?;
            let mut bytes = 0;
            while tell && bytes < CLOSE_DRAIN_BYTES {
                self.received.clear();
                if self.drive(true).await? == Driven::Closed {
                    break;
                }
                bytes += self.received.len();
            }
            io::Result::Ok(())
        };
        // The connection ends either way; a peer that is gone is not news.
        let _ = tokio::time::timeout(Duration::from_millis(CLOSE_MS), finish).await;
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(context)?;
        if self.unsent() > 0 || self.flush {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

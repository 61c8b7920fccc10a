//! What others tell a connection: acknowledgements, "close", "there is something in your queue". One per connection, not
//! per session, so that an acknowledgement of a dead connection can never reach the one that replaced it.

use std::sync::Mutex;

use tokio::sync::Notify;

use crate::inbound::{DisconnectReason, Outcome};

/// The connection's side of everything it shares. The mutex is held for a push or a swap, never across an await.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    mail: Mutex<Mail>,
    wake: Notify,
    gone: Notify,
}

/// What has arrived since the connection last looked.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    /// Settled messages by sequence number; at most one per message in flight.
    pub(crate) settled: Vec<(u64, Outcome)>,
    /// The first reason somebody gave to close.
    pub(crate) close: Option<DisconnectReason>,
    gone: bool,
}

impl Mailbox {
    fn lock(&self) -> std::sync::MutexGuard<'_, Mail> {
        self.mail.lock().expect("nothing panics while it holds a mailbox")
    }

    /// Record what became of a message and wake the connection.
    pub(crate) fn settle(&self, sequence: u64, outcome: Outcome) {
        {
            let mut mail = self.lock();
            if mail.gone {
                return;
            }
            mail.settled.push((sequence, outcome));
        }
        self.wake.notify_one();
    }

    /// Ask the connection to end; the first reason stands.
    pub(crate) fn close(&self, reason: DisconnectReason) {
        self.lock().close.get_or_insert(reason);
        self.wake.notify_one();
    }

    /// Tell the connection that its session has something to send.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Wait until somebody called; returns at once if somebody did since the last time.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Take the settled messages into `settled` and return the reason to close, if any.
    pub(crate) fn take(&self, settled: &mut Vec<(u64, Outcome)>) -> Option<DisconnectReason> {
        let mut mail = self.lock();
        settled.append(&mut mail.settled);
        mail.close
    }

    /// The connection has let go of its session; whoever waits to take it over may go on.
    pub(crate) fn mark_gone(&self) {
        {
            let mut mail = self.lock();
            mail.gone = true;
            mail.settled = Vec::new();
        }
        self.gone.notify_waiters();
    }

    /// Wait for `mark_gone`.
    pub(crate) async fn gone(&self) {
        let notified = self.gone.notified();
        tokio::pin!(notified);
        // Registered before the flag is read, so that a `mark_gone` in between is not missed.
        notified.as_mut().enable();
        if !self.lock().gone {
            notified.await;
        }
    }
}

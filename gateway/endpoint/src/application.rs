//! Where events go. A channel will do; an application that can do its part of the work in the connection's own task
//! saves a task in between, and every message a wake-up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::inbound::Inbound;

/// A place that is kept for one event. Dropped unused, it goes to whoever waits next.
pub type Place = Box<dyn FnOnce(Inbound) + Send>;
/// What [`Application::room`] waits with; `None` once there is no application any more.
pub type Room = Pin<Box<dyn Future<Output = Option<Place>> + Send>>;

/// Why an event was not taken.
#[derive(Debug)]
pub enum NotTaken {
    /// There is no room now; here it is again.
    Full(Inbound),
    /// There is no application any more.
    Closed,
}

/// What takes events. Called in the task of the connection they come from, so for one connection in order; must not
/// block.
pub trait Application: Send + Sync {
    /// Takes an event, if there is room at once.
    ///
    /// # Errors
    /// [`NotTaken`].
    fn take(&self, event: Inbound) -> Result<(), NotTaken>;

    /// Waits for a place. Whoever asked first gets the first one, and nobody who asks later can take it away.
    fn room(&self) -> Room;
}

impl Application for mpsc::Sender<Inbound> {
    fn take(&self, event: Inbound) -> Result<(), NotTaken> {
        self.try_send(event).map_err(|error| match error {
            TrySendError::Full(event) => NotTaken::Full(event),
            TrySendError::Closed(_) => NotTaken::Closed,
        })
    }

    fn room(&self) -> Room {
        let permit = self.clone().reserve_owned();
        Box::pin(async move {
            let permit = permit.await.ok()?;
            Some(Box::new(move |event| drop(permit.send(event))) as Place)
        })
    }
}

/// Has an event taken, waiting for room if need be. False if nobody is there to take it.
pub(crate) async fn deliver(application: &Arc<dyn Application>, event: Inbound) -> bool {
    match application.take(event) {
        Ok(()) => true,
        Err(NotTaken::Closed) => false,
        Err(NotTaken::Full(event)) => match application.room().await {
            Some(place) => {
                place(event);
                true
            }
            None => false,
        },
    }
}

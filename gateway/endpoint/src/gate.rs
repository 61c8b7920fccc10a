//! Who may come near: places for connections, in all and for each address, places for those that have not said CONNECT, and
//! the pace of each client. One peer can fill its own places and nobody else's.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

use crate::counters;
use crate::limits::{Limits, PACES_MAX};
use crate::rate::Pace;
use crate::shared::Shared;

/// What is counted for each address, and the pace of each client.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    places: Mutex<Places>,
    paces: Mutex<HashMap<Arc<str>, Arc<Mutex<Pace>>>>,
}

/// Connections and those of them without CONNECT, in all and by address.
#[derive(Debug, Default)]
struct Places {
    all: Held,
    by_address: HashMap<IpAddr, Held>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Held {
    open: usize,
    pending: usize,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowded {
    /// `Limits::connections_max`.
    Connections,
    /// `Limits::connections_per_address_max`.
    Address,
    /// `Limits::pending_max` or `Limits::pending_per_address_max`.
    Pending,
}

impl Gate {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().expect("nothing panics while it counts places")
    }

    /// Connections that have not been let in.
    pub(crate) fn pending(&self) -> usize {
        self.places().all.pending
    }

    fn enter(&self, address: IpAddr, limits: &Limits) -> Result<(), Crowded> {
        let mut places = self.places();
        let own = places.by_address.get(&address).copied().unwrap_or_default();
        if places.all.open >= limits.connections_max {
            return Err(Crowded::Connections);
        }
        if own.open >= limits.connections_per_address_max {
            return Err(Crowded::Address);
        }
        if places.all.pending >= limits.pending_max || own.pending >= limits.pending_per_address_max {
            return Err(Crowded::Pending);
        }
        let own = places.by_address.entry(address).or_default();
        own.open += 1;
        own.pending += 1;
        places.all.open += 1;
        places.all.pending += 1;
        Ok(())
    }

    fn admit(&self, address: IpAddr) {
        let mut places = self.places();
        places.all.pending -= 1;
        if let Some(own) = places.by_address.get_mut(&address) {
            own.pending -= 1;
        }
    }

    fn leave(&self, address: IpAddr) {
        let mut places = self.places();
        places.all.open -= 1;
        if let Entry::Occupied(mut own) = places.by_address.entry(address) {
            own.get_mut().open -= 1;
            if own.get().open == 0 {
                own.remove();
            }
        }
    }

    /// The pace of a client that may connect once more; `None` if it connects too often, or there are too many clients to
    /// keep count of.
    pub(crate) fn pace(&self, client_id: &Arc<str>, limits: &Limits, now: Instant) -> Option<Arc<Mutex<Pace>>> {
        let mut paces = self.paces.lock().expect("nothing panics while it looks up a pace");
        if paces.len() >= PACES_MAX && !paces.contains_key(client_id) {
            paces.retain(|_, pace| Arc::strong_count(pace) > 1 || !lock(pace).is_rested(limits, now));
            if paces.len() >= PACES_MAX {
                return None;
            }
        }
        let pace = paces
            .entry(client_id.clone())
            .or_insert_with(|| Arc::new(Mutex::new(Pace::new(limits, now))));
        let may = lock(pace).may_connect(limits, now);
        may.then(|| pace.clone())
    }
}

/// The buckets behind a pace.
pub(crate) fn lock(pace: &Mutex<Pace>) -> MutexGuard<'_, Pace> {
    pace.lock().expect("nothing panics while it counts a pace")
}

/// A place for a connection, held as long as its task.
pub(crate) struct Slot {
    shared: Arc<Shared>,
    address: IpAddr,
    pending: bool,
}

impl Slot {
    /// Take a place for a stranger, if one is free; counted either way.
    ///
    /// # Errors
    /// Which limit is reached, and how often a connection was closed for it so far.
    pub(crate) fn take(shared: &Arc<Shared>, address: IpAddr) -> Result<Slot, (Crowded, u64)> {
        // A device behind both protocols is one device.
        let address = address.to_canonical();
        match shared.gate.enter(address, &shared.limits) {
            Ok(()) => {
                shared.counting.connections.fetch_add(1, Ordering::AcqRel);
                counters::add(&shared.counting.accepted, 1);
                Ok(Slot {
                    shared: shared.clone(),
                    address,
                    pending: true,
                })
            }
            Err(crowded) => {
                let counter = match crowded {
                    Crowded::Connections => &shared.counting.over_limit,
                    Crowded::Address => &shared.counting.over_address_limit,
                    Crowded::Pending => &shared.counting.over_pending_limit,
                };
                counters::add(counter, 1);
                Err((crowded, counters::read(counter)))
            }
        }
    }

    /// The stranger has become a client.
    pub(crate) fn admitted(&mut self) {
        if std::mem::take(&mut self.pending) {
            self.shared.gate.admit(self.address);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.admitted();
        self.shared.gate.leave(self.address);
        if self.shared.counting.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}

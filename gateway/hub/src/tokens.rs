//! Raw tokens of starts, as long as their order waits for its gateway: in memory, and in a file of their own, which only its
//! owner can read. The store of the hub never forgets anything, so they are never in it.
//!
//! A token goes when its order is answered, or its time is over: minutes. Who loses this file loses nothing but the
//! starts that wait; their orders are withdrawn.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use proto::{
    codec,
    id::{GatewayId, IdToken},
};
use serde::{Deserialize, Serialize};
use tracing::error;

use crate::core::{DispatchState, Event, Hub};

/// Name of the file, in the data directory.
const FILE: &str = "order-tokens";

#[derive(Serialize, Deserialize)]
struct Row1 {
    gateway: GatewayId,
    id: u64,
    token: IdToken,
}

/// The tokens.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    rows: BTreeMap<(GatewayId, u64), IdToken>,
    is_saved: bool,
}

impl Tokens {
    /// Those that were kept in `data_dir`, of orders that still wait. A file that cannot be read counts as none.
    #[must_use]
    pub fn open(data_dir: &Path, hub: &Hub) -> Self {
        let path = data_dir.join(FILE);
        let rows: Vec<Row1> = match fs::read(&path) {
            Ok(bytes) => codec::decode(&bytes).unwrap_or_else(|reason| {
                error!(path = %path.display(), %reason, "tokens of orders cannot be read: starts that wait are withdrawn");
                Vec::new()
            }),
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(reason) => {
                error!(path = %path.display(), %reason, "tokens of orders cannot be read: starts that wait are withdrawn");
                Vec::new()
            }
        };
        let waits = |row: &Row1| {
            let dispatch = hub.dispatches().get(row.gateway, row.id);
            dispatch.is_some_and(|dispatch| dispatch.state == DispatchState::Waits)
        };
        let all = rows.len();
        let rows: BTreeMap<_, _> = rows
            .into_iter()
            .filter(waits)
            .map(|row| ((row.gateway, row.id), row.token))
            .collect();
        let is_saved = all == rows.len();
        Self { path, rows, is_saved }
    }

    /// The token of an order.
    #[must_use]
    pub fn of(&self, gateway: GatewayId, id: u64) -> Option<&IdToken> {
        self.rows.get(&(gateway, id))
    }

    /// Keeps one.
    pub fn keep(&mut self, gateway: GatewayId, id: u64, token: IdToken) {
        self.rows.insert((gateway, id), token);
        self.is_saved = false;
    }

    /// Forgets those whose order does not wait any more.
    pub fn forget(&mut self, events: &[Event]) {
        for event in events {
            if let Event::DispatchOverdue { gateway, id } = event {
                self.forget_one(*gateway, *id);
            }
            if let Event::DispatchAnswered { gateway, done } = event {
                self.forget_one(*gateway, done.id);
            }
        }
    }

    fn forget_one(&mut self, gateway: GatewayId, id: u64) {
        self.is_saved &= self.rows.remove(&(gateway, id)).is_none();
    }

    /// Writes what has changed. What cannot be written stays in memory: a hub that starts again withdraws those orders.
    pub fn save(&mut self) {
        if self.is_saved {
            return;
        }
        match self.write() {
            Ok(()) => self.is_saved = true,
            Err(reason) => error!(path = %self.path.display(), %reason, "tokens of orders cannot be written"),
        }
    }

    fn write(&self) -> io::Result<()> {
        if self.rows.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(reason) if reason.kind() != io::ErrorKind::NotFound => Err(reason),
                Ok(()) | Err(_) => self.sync_folder(),
            };
        }
        let rows = self.rows.iter().map(|((gateway, id), token)| Row1 {
            gateway: *gateway,
            id: *id,
            token: token.clone(),
        });
        let bytes = codec::to_vec(&rows.collect::<Vec<_>>());
        let new = self.path.with_extension("new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.path
            .parent()
            .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proto::{
        id::{Name, SessionId, TokenHash, TokenKind},
        link::{Order, OrderDone, OrderOutcome, OrderVerb},
        message::Stamp,
    };

    use super::*;

    fn order(id: u64) -> Order {
        Order {
            id,
            not_after_s: 100,
            verb: OrderVerb::Start,
            device: None,
            outlet: 0,
            session: SessionId::ZERO,
            token: None,
            until_s: 0,
            value: 0,
            whose: TokenHash::ZERO,
        }
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn a_token_is_kept_as_long_as_its_order_waits() {
        let dir = tempfile::tempdir().unwrap();
        let gateway = Name::new("gw-1").unwrap();
        let card = |n| IdToken::new(TokenKind::Card, &[n; 4]).unwrap();
        let mut hub = Hub::default();
        let mut tokens = Tokens::open(dir.path(), &hub);
        for id in [1, 2, 3] {
            let order = Box::new(order(id));
            let given = Event::Dispatched {
                gateway,
                order,
                issued_s: 9,
            };
            hub.apply(&given);
            tokens.keep(gateway, id, card(id as u8));
            tokens.save();
        }
        let file = dir.path().join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Tokens::open(dir.path(), &hub).of(gateway, 2), Some(&card(2)));
        // What is over while nobody looked is not taken up again.
        let (id, outcome, at) = (1, OrderOutcome::Done, Stamp::relative(0));
        let answered = Event::DispatchAnswered {
            gateway,
            done: OrderDone { id, outcome, at },
        };
        hub.apply(&answered);
        assert_eq!(Tokens::open(dir.path(), &hub).of(gateway, 1), None);
        tokens.forget(&[answered, Event::DispatchOverdue { gateway, id: 2 }]);
        tokens.save();
        let bytes = fs::read(&file).unwrap();
        let has = |n: u8| bytes.windows(4).any(|window| window == [n; 4]);
        assert_eq!([has(1), has(2), has(3)], [false, false, true]);
        tokens.forget(&[Event::DispatchOverdue { gateway, id: 3 }]);
        tokens.save();
        assert!(!file.exists());
        fs::write(&file, b"no tokens").unwrap();
        assert_eq!(Tokens::open(dir.path(), &hub).of(gateway, 3), None);
    }
}

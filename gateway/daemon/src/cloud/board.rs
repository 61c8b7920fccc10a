//! Which of several clouds goes first. Every link says here how its cloud is; whoever has something for the backend asks
//! here which way to take.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use carrier::Symptom;
use proto::topic::Lane;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

/// What a cloud may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// Questions about users, and ledger records.
    Money,
    /// How the gateway is.
    Telemetry,
}

impl Load {
    const ALL: [Self; 2] = [Self::Money, Self::Telemetry];
}

/// How far a link has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No connection.
    #[default]
    Down,
    /// The cloud lets us speak.
    Connected,
    /// The operator's backend answered our hello.
    Greeted,
}

impl Stage {
    /// The word in the status.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Connected => "connected",
            Self::Greeted => "greeted",
        }
    }
}

/// What is known of one cloud.
#[derive(Clone, Debug)]
pub struct Row {
    /// The operator's name for it.
    pub name: String,
    /// What it speaks.
    pub kind: &'static str,
    /// What it may carry.
    pub carries: Vec<Load>,
    /// How far its link has come.
    pub stage: Stage,
    /// Since when.
    pub since: Instant,
    /// Whether its breaker is open.
    pub is_open: bool,
    /// The last thing that was wrong, and when.
    pub symptom: Option<(Symptom, Instant)>,
    /// When our certificate for it ends, in seconds since 1970 UTC.
    pub certificate_until_s: Option<i64>,
}

impl Row {
    /// A cloud of which nothing is known.
    #[must_use]
    pub fn new(name: String, kind: &'static str, carries: Vec<Load>) -> Self {
        Self {
            name,
            kind,
            carries,
            stage: Stage::Down,
            since: Instant::now(),
            is_open: false,
            symptom: None,
            certificate_until_s: None,
        }
    }
}

/// The way of each load; `None`: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Of money.
    pub money: Option<Lane>,
    /// Of telemetry.
    pub telemetry: Option<Lane>,
}

/// The board. Clones show the same one.
#[derive(Clone)]
pub struct Board(Arc<Shared>);

struct Shared {
    rows: Mutex<Vec<Row>>,
    ways: watch::Sender<Ways>,
    /// When a hub last committed something of ours; before that, when this process began.
    receipted: Mutex<Instant>,
    /// Told to the engine: whether questions may go up.
    up: Arc<AtomicBool>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Board").field(&*self.rows()).finish()
    }
}

impl Board {
    /// Of these clouds, the preferred one first. `up` is kept true while there is a way for money.
    #[must_use]
    pub fn new(rows: Vec<Row>, up: Arc<AtomicBool>) -> Self {
        Self(Arc::new(Shared {
            rows: Mutex::new(rows),
            ways: watch::Sender::default(),
            receipted: Mutex::new(Instant::now()),
            up,
        }))
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.0.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of each cloud, in the order of preference.
    #[must_use]
    pub fn all(&self) -> Vec<Row> {
        self.rows().clone()
    }

    /// The ways, and every change of them.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Ways> {
        self.0.ways.subscribe()
    }

    /// The ways now.
    #[must_use]
    pub fn ways(&self) -> Ways {
        *self.0.ways.borrow()
    }

    /// What `holdfast status` says of each cloud.
    #[must_use]
    pub fn status(&self) -> Value {
        let ways = self.ways();
        let rows = self.rows();
        let row = |(number, row): (usize, &Row)| {
            let lane = u8::try_from(number).ok().and_then(Lane::new);
            let goes_first = lane.is_some() && (lane == ways.money || lane == ways.telemetry);
            json!({
                "name": row.name,
                "kind": row.kind,
                "stage": row.stage.word(),
                "since_s": row.since.elapsed().as_secs(),
                "goes_first": goes_first,
                "doubted": row.is_open,
                "trouble": row.symptom.as_ref().map(|(symptom, _)| symptom.to_string()),
                "trouble_class": row.symptom.as_ref().map(|(symptom, _)| symptom.class.word()),
                "trouble_s": row.symptom.as_ref().map(|(_, at)| at.elapsed().as_secs()),
                "certificate_until_s": row.certificate_until_s,
            })
        };
        rows.iter().enumerate().map(row).collect()
    }

    /// A link has come this far, or its breaker changed.
    pub fn is(&self, lane: Lane, stage: Stage, is_open: bool) {
        let mut rows = self.rows();
        let row = &mut rows[usize::from(lane.number())];
        if row.stage != stage {
            (row.stage, row.since) = (stage, Instant::now());
        }
        row.is_open = is_open;
        let way = |load| best(&rows, load);
        let [money, telemetry] = Load::ALL.map(way);
        drop(rows);
        self.0.up.store(money.is_some(), Ordering::Relaxed);
        self.0.ways.send_if_modified(|ways| {
            let new = Ways { money, telemetry };
            std::mem::replace(ways, new) != new
        });
    }

    /// Something is wrong with a cloud.
    pub fn suffers(&self, lane: Lane, symptom: Symptom) {
        self.rows()[usize::from(lane.number())].symptom = Some((symptom, Instant::now()));
    }

    /// Our certificate for a cloud ends then.
    pub fn certificate(&self, lane: Lane, until_s: Option<i64>) {
        self.rows()[usize::from(lane.number())].certificate_until_s = until_s;
    }

    /// Records were committed.
    pub fn receipted(&self) {
        *self.0.receipted.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When records were last committed.
    #[must_use]
    pub fn receipted_at(&self) -> Instant {
        *self.0.receipted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first that is greeted and whose breaker is closed; if there is none, the first that is greeted: a cloud of which
/// one has doubts is better than none, and the core has doubts of its own.
fn best(rows: &[Row], load: Load) -> Option<Lane> {
    let usable = |row: &Row| row.stage == Stage::Greeted && row.carries.contains(&load);
    let sound = rows.iter().position(|row| usable(row) && !row.is_open);
    let number = sound.or_else(|| rows.iter().position(usable))?;
    Lane::new(u8::try_from(number).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sound_cloud_goes_first() {
        use Stage::{Connected, Down, Greeted};
        // Stage and breaker of three clouds, of which the last carries telemetry only -> lanes of money and telemetry.
        let check = |clouds: [(Stage, bool); 3], money: Option<u8>, telemetry: Option<u8>| {
            let all = vec![Load::Money, Load::Telemetry];
            let carries = [vec![Load::Money], all, vec![Load::Telemetry]];
            let rows = carries.map(|carries| Row::new(String::new(), "hcp", carries));
            let up = Arc::new(AtomicBool::new(false));
            let board = Board::new(rows.to_vec(), up.clone());
            for (number, (stage, is_open)) in clouds.into_iter().enumerate() {
                board.is(Lane::new(number as u8).unwrap(), stage, is_open);
            }
            let lane = |number: Option<u8>| number.and_then(Lane::new);
            let ways = board.ways();
            assert_eq!(
                (ways.money, ways.telemetry),
                (lane(money), lane(telemetry)),
                "{clouds:?}"
            );
            assert_eq!(up.load(Ordering::Relaxed), money.is_some(), "{clouds:?}");
        };
        check([(Down, false); 3], None, None);
        check([(Connected, false); 3], None, None);
        check([(Greeted, false); 3], Some(0), Some(1));
        check([(Greeted, true), (Greeted, false), (Greeted, false)], Some(1), Some(1));
        check([(Greeted, true), (Greeted, true), (Greeted, false)], Some(0), Some(2));
        check([(Down, true), (Greeted, true), (Down, false)], Some(1), Some(1));
        check([(Down, false), (Down, false), (Greeted, true)], None, Some(2));
    }
}

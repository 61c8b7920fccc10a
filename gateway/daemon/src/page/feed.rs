//! What the page shows, asked for at most once a second however many look, and told to each browser as it changes.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, TryLockError},
    time::Duration,
};

use bytes::Bytes;
use gateway_core::Now;
use hyper::HeaderMap;
use journal::Reader;
use proto::message::ClockQuality;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, MissedTickBehavior},
};

use super::{
    App,
    body::Body,
    day::{Counts, Day},
    guard::Who,
};
use crate::control::{self, Query};

/// How often the engine is asked while somebody looks.
const EVERY: Duration = Duration::from_secs(1);
/// An answer that is younger serves everybody.
const FRESH: Duration = Duration::from_millis(900);
/// How long the engine may take: one batch and its sync, on a slow card.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a search in the journal may take before its turn comes.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// Browsers that are told as it changes, at once.
const STREAMS_MAX: usize = 16;
/// Events on their way to one browser: one that takes none misses some, and then gets the newest.
const EVENTS_MAX: usize = 2;
/// Ticks between two events at most, so that a browser sees that it is not cut off.
const QUIET_TICKS_MAX: u32 = 4;

/// One answer.
pub(super) struct Seen {
    /// Of the engine.
    pub(super) answer: Value,
    /// What changes when something happens, as JSON.
    view: String,
    /// What was counted in the journal; `None`: it is being read for the first time.
    pub(super) counts: Option<Counts>,
}

/// The source.
pub(super) struct Feed {
    dir: PathBuf,
    cached: tokio::sync::Mutex<Option<(Instant, Arc<Seen>)>>,
    day: Arc<Mutex<Day>>,
    streams: Arc<Semaphore>,
    turn: Semaphore,
    offset_min: i16,
}

impl Feed {
    /// `dir`: of the store. Begins to read the journal.
    pub(super) fn new(dir: PathBuf, reader: Reader, offset_min: i16) -> Self {
        let day = Arc::new(Mutex::new(Day::new(reader)));
        let first = day.clone();
        tokio::task::spawn_blocking(move || read(&mut first.lock().expect("nothing panics under this lock")));
        Self {
            dir,
            cached: tokio::sync::Mutex::default(),
            day,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            turn: Semaphore::new(1),
            offset_min,
        }
    }

    /// Asks as `holdfast` does.
    ///
    /// # Errors
    /// A text, if no answer comes in time.
    pub(super) async fn ask(&self, query: &Query) -> Result<Value, String> {
        match tokio::time::timeout(ANSWER_WITHIN, control::ask(&self.dir, query)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("the engine cannot be asked: {error}")),
            Err(_) => Err(format!(
                "the engine did not answer within {} s",
                ANSWER_WITHIN.as_secs()
            )),
        }
    }

    /// As [`Self::ask`], for what reads the whole journal: one at a time.
    ///
    /// # Errors
    /// A text, if others search for too long.
    pub(super) async fn search(&self, query: impl FnOnce(i16) -> Query) -> Result<Value, String> {
        let turn = tokio::time::timeout(TURN_WITHIN, self.turn.acquire()).await;
        let _turn = turn.map_err(|_| "others are searching; try again".to_owned())?;
        let asked = control::ask(&self.dir, &query(self.offset_min)).await;
        asked.map_err(|error| format!("the gateway cannot be asked: {error}"))
    }

    /// How things are, not older than a second.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) async fn seen(&self) -> Result<Arc<Seen>, String> {
        let mut cached = self.cached.lock().await;
        if let Some((_, seen)) = cached.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(seen.clone());
        }
        let answer = self.ask(&Query::Page).await?;
        let (day, counts) = self.day(&answer["now"]).await;
        let view = format!("\"view\":{},\"day\":{day}", answer["view"]);
        let seen = Arc::new(Seen { answer, view, counts });
        *cached = Some((Instant::now(), seen.clone()));
        Ok(seen)
    }

    async fn day(&self, now: &Value) -> (Value, Option<Counts>) {
        let boot = now["boot"].as_u64().and_then(|boot| u32::try_from(boot).ok());
        let wall_s = now["wall_s"].as_u64();
        let now = Now {
            mono_ms: now["mono_ms"].as_u64().unwrap_or_default(),
            wall_s: wall_s.unwrap_or_default(),
            quality: wall_s.map_or(ClockQuality::Unknown, |_| ClockQuality::Informative),
        };
        let day = self.day.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut day = match day.try_lock() {
                Ok(day) => day,
                // A long journal is read for the first time.
                Err(TryLockError::WouldBlock) => return None,
                Err(TryLockError::Poisoned(_)) => return None,
            };
            read(&mut day);
            let shown = day.show(&now, boot.unwrap_or_default());
            Some((shown, day.counts().clone()))
        });
        match read.await {
            Ok(Some((shown, counts))) => (shown, Some(counts)),
            Ok(None) | Err(_) => (Value::Null, None),
        }
    }
}

fn read(day: &mut Day) {
    if let Err(error) = day.read() {
        tracing::warn!(%error, "the page cannot read the journal");
    }
}

/// Tells a browser how things are, as long as it listens and may; `None`: too many listen. `headers`: by which it is known.
pub(super) fn events(app: &Arc<App>, headers: HeaderMap) -> Option<Body> {
    let place = app.feed.streams.clone().try_acquire_owned().ok()?;
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    let app = app.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut told, mut quiet) = (String::new(), 0);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = sender.closed() => return,
            }
            let csrf = match app.guard.who(&headers, std::time::Instant::now()) {
                Who::Stranger => return,
                Who::Onlooker => None,
                Who::Operator(csrf) => Some(csrf),
            };
            let event = match app.feed.seen().await {
                Ok(seen) if seen.view != told => {
                    told.clone_from(&seen.view);
                    state_event(&app, &seen, csrf)
                }
                Ok(seen) if quiet >= QUIET_TICKS_MAX => format!("event: now\ndata: {}\n\n", seen.answer["now"]),
                Ok(_) => {
                    quiet += 1;
                    continue;
                }
                Err(error) => format!("event: trouble\ndata: {}\n\n", json!(error)),
            };
            quiet = 0;
            if sender.send(Bytes::from(event)).await.is_err() {
                return;
            }
        }
    });
    Some(Body::Events {
        events: receiver,
        _place: place,
    })
}

fn state_event(app: &App, seen: &Seen, csrf: Option<String>) -> String {
    let me = json!({
        "site": app.site,
        "gateway": app.gateway,
        "offset_min": app.offset_min,
        "csrf": csrf,
        "version": env!("CARGO_PKG_VERSION"),
    });
    format!(
        "event: state\ndata: {{\"me\":{me},\"now\":{},{}}}\n\n",
        seen.answer["now"], seen.view
    )
}

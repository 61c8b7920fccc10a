//! Telemetry on its way from the engine to the connection: the lane decides, this carries.

use proto::link::{Telemetry, Welcome};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    cloud::lane::{Lane, Road},
    engine::Job,
};

/// One link's reports, over all its connections.
pub(super) struct Reports {
    lane: Lane,
    /// The lane's clock begins here.
    begun: Instant,
    /// Whether the hub's last word on this connection was an agreement.
    is_agreed: bool,
    /// One that the engine is making.
    made: Option<oneshot::Receiver<Telemetry>>,
}

impl Reports {
    /// One every `every_s` seconds; 0: none.
    pub(super) fn new(every_s: u64) -> Self {
        Self {
            lane: Lane::new(every_s, 0),
            begun: Instant::now(),
            is_agreed: false,
            made: None,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// One every `every_s` seconds from now on; 0: none.
    pub(super) fn set_every(&mut self, every_s: u64) {
        let now_ms = self.now_ms();
        self.lane.set_every(every_s, now_ms);
    }

    /// Whether the hub agreed to what this gateway, in `epoch`, said in its hello.
    pub(super) const fn is_agreed(&self) -> bool {
        self.is_agreed
    }

    /// The hub has answered a hello.
    pub(super) fn welcomed(&mut self, welcome: &Welcome, epoch: u32) {
        let is_agreed = welcome.version != 0 && welcome.epoch == epoch;
        if is_agreed && !self.is_agreed {
            self.lane.agreed(self.now_ms(), fastrand::u64(..));
        }
        self.is_agreed = is_agreed;
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self) {
        self.lane.lost();
        (self.is_agreed, self.made) = (false, None);
    }

    /// Has the engine make a report if one is due. An engine with a full queue has devices to serve: nothing waits there.
    pub(super) fn ask_when_due(&mut self, engine: &mpsc::Sender<Job>, road: Road) {
        if !self.lane.is_wanted(self.now_ms(), road) {
            return;
        }
        let (reply, made) = oneshot::channel();
        match engine.try_send(Job::Telemetry(reply)) {
            Ok(()) => self.made = Some(made),
            Err(_) => self.lane.not_sent(),
        }
    }

    /// The one that is being made, once it is; `None`: the engine made none. Waits for ever if none is being made.
    pub(super) async fn made(&mut self) -> Option<Telemetry> {
        let Some(made) = &mut self.made else {
            return std::future::pending().await;
        };
        let report = made.await.ok();
        self.made = None;
        report
    }

    /// What to send of the one that was made, if the road is still clear. It leaves once, or not at all.
    pub(super) fn told(&mut self, road: Road, made: Option<Telemetry>) -> Option<Telemetry> {
        let Some(report) = made else {
            self.lane.not_sent();
            return None;
        };
        let shed = self.lane.may_send(road)?;
        self.lane.sent();
        Some(Telemetry { shed, ..report })
    }
}

//! Starts everything of the cloud side.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU32},
};

use journal::Reader;
use proto::{
    id::{GatewayId, Name},
    seal::Counter,
};
use tokio::sync::{mpsc, watch};

use crate::{
    artifacts::Desk,
    cloud::{
        LinkJob,
        board::{Board, Row},
        fence::Fence,
        link::{LINK_JOBS_MAX, Link},
        router::Router,
    },
    config::LinkConfig,
    engine::{Job, Position},
};

/// What the cloud side shares with the rest.
pub struct Surroundings {
    /// Our site.
    pub site: Name,
    /// Our name.
    pub gateway: GatewayId,
    /// Number of this boot.
    pub boot: u32,
    /// Where artifacts go.
    pub desk: Desk,
    /// To the engine.
    pub engine: mpsc::Sender<Job>,
    /// From the engine.
    pub jobs: mpsc::Receiver<LinkJob>,
    /// Where the gateway stands.
    pub position: watch::Receiver<Position>,
    /// The journal.
    pub reader: Reader,
    /// The epoch that has to begin, for whoever asks; 0: none.
    pub epoch_expected: Arc<AtomicU32>,
}

/// The board of these clouds.
#[must_use]
pub fn board(config: Option<&LinkConfig>, up: Arc<AtomicBool>) -> Board {
    let clouds = config.map_or(&[][..], |config| &config.clouds);
    let row =
        |cloud: &crate::config::CloudConfig| Row::new(cloud.name.clone(), cloud.kind.word(), cloud.carries.clone());
    Board::new(clouds.iter().map(row).collect(), up)
}

/// One link for each cloud, and what stands before them.
pub fn start(config: &LinkConfig, board: &Board, around: Surroundings) {
    let counter = Arc::new(Mutex::new(Counter::of_boot(around.boot)));
    let mut links = Vec::new();
    for cloud in &config.clouds {
        let (jobs, inbox) = mpsc::channel(LINK_JOBS_MAX);
        links.push(jobs);
        let link = Link {
            site: around.site,
            gateway: around.gateway,
            secret: config.secret.clone(),
            counter: counter.clone(),
            cloud: cloud.clone(),
            pacing: config.pacing,
            desk: around.desk.clone(),
            engine: around.engine.clone(),
            jobs: inbox,
            position: around.position.clone(),
            reader: around.reader.clone(),
            board: board.clone(),
            fence: Fence::new(around.epoch_expected.clone()),
        };
        tokio::spawn(link.run());
    }
    let router = Router {
        inbox: around.jobs,
        links,
        board: board.clone(),
        engine: around.engine,
    };
    tokio::spawn(router.run());
}

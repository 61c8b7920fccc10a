//! What the engine wants of the cloud goes to the link that goes first. A question that was on its way through a cloud
//! that fell away is asked again through the next one, while somebody still waits for it.

use std::{collections::VecDeque, time::Duration};

use proto::{link::Ask, topic::Lane};
use tokio::{sync::mpsc, time::Instant};

use crate::cloud::{LinkJob, board::Board};

/// How long somebody waits for an answer: the longest deadline of the core.
const ASKED: Duration = Duration::from_secs(3);
/// Questions that are remembered for the next cloud.
const ASKS_MAX: usize = 256;

/// Takes jobs from the engine to the links.
#[derive(Debug)]
pub struct Router {
    /// From the engine.
    pub inbox: mpsc::Receiver<LinkJob>,
    /// To each link, by its lane.
    pub links: Vec<mpsc::Sender<LinkJob>>,
    /// Which way to take.
    pub board: Board,
}

impl Router {
    /// Runs until the engine is gone.
    pub async fn run(mut self) {
        let mut ways = self.board.watch();
        let mut asked: VecDeque<(Instant, Ask)> = VecDeque::new();
        loop {
            tokio::select! {
                job = self.inbox.recv() => {
                    let Some(job) = job else { return };
                    if let LinkJob::Ask(ask) = &job {
                        asked.push_back((Instant::now(), ask.clone()));
                        if asked.len() > ASKS_MAX {
                            asked.pop_front();
                        }
                    }
                    let way = ways.borrow().money;
                    self.hand(way, job);
                }
                changed = ways.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let way = ways.borrow_and_update().money;
                    asked.retain(|(at, _)| at.elapsed() < ASKED);
                    for (_, ask) in &asked {
                        self.hand(way, LinkJob::Ask(ask.clone()));
                    }
                }
            }
        }
    }

    /// One that has no way, or finds a full one, is one that is not answered: the core keeps the deadline.
    fn hand(&self, way: Option<Lane>, job: LinkJob) {
        if let Some(link) = way.and_then(|lane| self.links.get(usize::from(lane.number()))) {
            drop(link.try_send(job));
        }
    }
}

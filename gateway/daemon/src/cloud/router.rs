//! What the engine wants of the cloud goes to the link that goes first. A question that was on its way through a cloud
//! that fell away is asked again through the next one, while somebody still waits for it.

use std::{collections::VecDeque, time::Duration};

use gateway_core::Input;
use proto::{link::Ask, topic::Lane};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    cloud::{LinkJob, board::Board},
    engine::Job,
};

/// How long somebody waits for an answer: the longest deadline of the core.
const ASKED: Duration = Duration::from_secs(3);
/// Questions that are remembered for the next cloud.
const ASKS_MAX: usize = 256;

/// Code of a question that has no way.
const CODE_NO_WAY: u16 = 503;
/// Code of a question for which too much waits: no failure of the cloud's.
const CODE_FULL: u16 = 429;

/// Takes jobs from the engine to the links.
#[derive(Debug)]
pub struct Router {
    /// From the engine.
    pub inbox: mpsc::Receiver<LinkJob>,
    /// To each link, by its lane.
    pub links: Vec<mpsc::Sender<LinkJob>>,
    /// Which way to take.
    pub board: Board,
    /// To the engine, which learns what no way takes.
    pub engine: mpsc::Sender<Job>,
}

impl Router {
    /// Runs until the engine is gone.
    pub async fn run(mut self) {
        let mut ways = self.board.watch();
        let mut asked: VecDeque<(Instant, Ask)> = VecDeque::new();
        let mut money = ways.borrow().money;
        loop {
            tokio::select! {
                job = self.inbox.recv() => {
                    let Some(job) = job else { return };
                    let ask = match &job {
                        LinkJob::Ask(ask) => Some(ask.clone()),
                        LinkJob::FetchList | LinkJob::Echo(_) | LinkJob::Hello | LinkJob::Done(_) => None,
                    };
                    if let (true, Some(ask)) = (self.hand(money, job).await, ask) {
                        asked.push_back((Instant::now(), ask));
                        if asked.len() > ASKS_MAX {
                            asked.pop_front();
                        }
                    }
                }
                changed = ways.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let way = ways.borrow_and_update().money;
                    // Whose way stays gets its answer there.
                    if way == money {
                        continue;
                    }
                    money = way;
                    asked.retain(|(at, _)| at.elapsed() < ASKED);
                    for (at, ask) in std::mem::take(&mut asked) {
                        if self.hand(way, LinkJob::Ask(ask.clone())).await {
                            asked.push_back((at, ask));
                        }
                    }
                }
            }
        }
    }

    /// Nobody waits for the answer to a question that has no way, or finds a full one. Of all else the core keeps the deadline.
    /// Returns whether a link has it.
    async fn hand(&self, way: Option<Lane>, job: LinkJob) -> bool {
        let link = way.and_then(|lane| self.links.get(usize::from(lane.number())));
        let refused = match link.map(|link| link.try_send(job.clone())) {
            Some(Ok(())) => None,
            Some(Err(mpsc::error::TrySendError::Full(_))) => Some(CODE_FULL),
            Some(Err(mpsc::error::TrySendError::Closed(_))) | None => Some(CODE_NO_WAY),
        };
        if let (Some(code), LinkJob::Ask(ask)) = (refused, job) {
            // The engine may be gone; then nobody waits at all.
            drop(
                self.engine
                    .send(Job::Cloud(Input::Trouble { ask: ask.ask, code }))
                    .await,
            );
        }
        refused.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicBool};

    use proto::{
        id::{Kind, SessionId, TokenHash},
        money::Money,
    };

    use super::*;
    use crate::cloud::board::{Load, Row, Stage};

    fn ask(ask: u64) -> LinkJob {
        LinkJob::Ask(Ask {
            ask,
            session: SessionId::ZERO,
            token: TokenHash::ZERO,
            kind: Kind::Charger,
            amount: Money::ZERO,
        })
    }

    /// Lets the router do all that it can.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    fn asked(link: &mut mpsc::Receiver<LinkJob>) -> Vec<u64> {
        let jobs = std::iter::from_fn(|| link.try_recv().ok());
        jobs.filter_map(|job| match job {
            LinkJob::Ask(ask) => Some(ask.ask),
            _ => None,
        })
        .collect()
    }

    fn troubles(engine: &mut mpsc::Receiver<Job>) -> Vec<(u64, u16)> {
        let jobs = std::iter::from_fn(|| engine.try_recv().ok());
        jobs.filter_map(|job| match job {
            Job::Cloud(Input::Trouble { ask, code }) => Some((ask, code)),
            _ => None,
        })
        .collect()
    }

    #[tokio::test]
    async fn a_question_goes_one_way_at_a_time_or_is_refused() {
        let row = |load| Row::new("cloud".to_owned(), "hcp", vec![load]);
        let rows = vec![row(Load::Money), row(Load::Telemetry), row(Load::Money)];
        let board = Board::new(rows, Arc::new(AtomicBool::new(false)));
        let [first, telemetry, other] = [0, 1, 2].map(|lane| Lane::new(lane).unwrap());
        let (jobs, inbox) = mpsc::channel(8);
        let (engine, mut heard) = mpsc::channel(8);
        let (mut links, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (link, end) = mpsc::channel(2);
            links.push(link);
            ends.push(end);
        }
        let (shown, is_open) = (board.clone(), false);
        tokio::spawn(
            Router {
                inbox,
                links,
                board,
                engine,
            }
            .run(),
        );
        jobs.send(ask(1)).await.unwrap();
        settle().await;
        assert_eq!(troubles(&mut heard), [(1, CODE_NO_WAY)], "no way at all");

        shown.is(first, Stage::Greeted, is_open);
        settle().await;
        assert_eq!(asked(&mut ends[0]), Vec::<u64>::new(), "it was refused");
        jobs.send(ask(2)).await.unwrap();
        settle().await;
        shown.is(telemetry, Stage::Greeted, is_open);
        settle().await;
        assert_eq!(
            asked(&mut ends[0]),
            [2],
            "another load found another way: nothing is asked again"
        );

        shown.is(other, Stage::Greeted, is_open);
        shown.is(first, Stage::Down, is_open);
        settle().await;
        assert_eq!(asked(&mut ends[2]), [2], "the next cloud is asked what may be lost");

        for number in 3..=5 {
            jobs.send(ask(number)).await.unwrap();
        }
        settle().await;
        assert_eq!(asked(&mut ends[2]), [3, 4]);
        assert_eq!(troubles(&mut heard), [(5, CODE_FULL)], "two fit");

        shown.is(other, Stage::Down, is_open);
        settle().await;
        let told: Vec<u64> = troubles(&mut heard).into_iter().map(|(ask, _)| ask).collect();
        assert_eq!(told, [2, 3, 4], "nobody waits for a link that is down");
        assert_eq!(asked(&mut ends[0]), Vec::<u64>::new());
    }
}

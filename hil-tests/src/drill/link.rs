//! A gateway's end of the link in virtual time: it connects, greets, asks, uploads from the cursor, and connects again,
//! with the daemon's own constants (`gateway::cloud::link`), and the daemon's own waits between attempts.

use std::{collections::VecDeque, time::Duration};

use carrier::mqtt::STABLE_S;
use gateway::cloud::reconnect::Reconnect;
use gateway_core::Input;
use proto::{
    id::Hash,
    link::{LINK_FRAME_BYTES_MAX, LedgerReceipt, UPLOAD_RECORDS_MAX, Upload},
};
use serde_bytes::ByteBuf;

use super::{
    bridge,
    cloud::{Connects, Request, WAN_MS},
    hub::NOTHING,
    world::{Next, Says, World},
};

/// Uploads without a receipt.
const UPLOADS_MAX: usize = 4;
/// A receipt that has not come after so long: connect again and send from the cursor. In ms.
const RECEIPT_WAIT_MS: u64 = 10_000;
/// Bytes of records in one upload.
const UPLOAD_BYTES_MAX: usize = LINK_FRAME_BYTES_MAX / 2;
/// Longest pause between two uploads, in ms.
const PAUSE_MAX_MS: u64 = 30_000;
/// First pause when the cloud asks to slow down, in ms.
const PAUSE_FIRST_MS: u64 = 500;
/// First wait for the answer to a hello, in ms; doubles up to [`HELLO_WAIT_MAX_MS`].
const HELLO_WAIT_MS: u64 = 1_000;
/// Longest wait between two hellos on one connection, in ms.
const HELLO_WAIT_MAX_MS: u64 = 30_000;
/// Uploads a second, at most: the daemon's default.
const BATCHES_A_SECOND_MAX: u64 = 20;
/// Longest wait between two attempts to connect, in s: the daemon's default.
const RECONNECT_S_MAX: u64 = 30;
/// An attempt to connect is given up after so long, in ms.
const CONNECT_MS_MAX: u64 = 10_000;
/// How often an unfinished upload is looked at, in ms.
const LOOK_AGAIN_MS: u64 = 1_000;
const CODE_THROTTLED: u16 = 429;

/// What happens at this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkStep {
    Connect,
    /// The attempt on this connection ends.
    Connected(u64, Connects),
    /// The connection is closed.
    Closed(u64),
    /// No answer to the hello yet.
    HelloAgain(u64),
    /// Look whether there is something to upload.
    Look,
}

/// What is answered in one order. A hub that hangs with the answers to questions may go on with receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Answers,
    Books,
}

/// One link.
pub(super) struct Link {
    /// Number of the connection, or of the attempt.
    connection: u64,
    is_up: bool,
    agreed: bool,
    reconnect: Reconnect,
    /// The beginning of virtual time on the daemon's clock; only differences count.
    began: tokio::time::Instant,
    since_ms: u64,
    hello_wait_ms: u64,
    /// Last record sent.
    sent: u64,
    /// Ends of uploads without a receipt.
    ends: VecDeque<u64>,
    progress_ms: u64,
    pace_until_ms: u64,
    pause_ms: u64,
    refused: bool,
    look_ms: u64,
    attempts_ms: VecDeque<u64>,
    /// A connection keeps the order of what is sent on it: when the last one arrives, up, and down by [`Lane`].
    up_ms: u64,
    down_ms: [u64; 2],
}

impl Link {
    pub(super) fn new(seed: u64, gateway: usize) -> Self {
        Self {
            connection: 0,
            is_up: false,
            agreed: false,
            reconnect: Reconnect::with_seed(RECONNECT_S_MAX, seed ^ (gateway as u64 + 77)),
            began: tokio::time::Instant::now(),
            since_ms: 0,
            hello_wait_ms: HELLO_WAIT_MS,
            sent: 0,
            ends: VecDeque::new(),
            progress_ms: 0,
            pace_until_ms: 0,
            pause_ms: 0,
            refused: false,
            look_ms: u64::MAX,
            attempts_ms: VecDeque::new(),
            up_ms: 0,
            down_ms: [0; 2],
        }
    }

    /// When something that is said now, and would arrive at `ms`, arrives in its order.
    pub(super) fn down_at(&mut self, lane: Lane, ms: u64) -> u64 {
        let last = &mut self.down_ms[lane as usize];
        *last = (*last).max(ms);
        *last
    }

    pub(super) const fn is_on(&self, connection: u64) -> bool {
        self.is_up && self.connection == connection
    }

    /// Whether the hub has welcomed this connection.
    pub(super) const fn is_agreed(&self) -> bool {
        self.is_up && self.agreed
    }
}

impl World<'_> {
    pub(super) fn link_step(&mut self, gateway: usize, step: LinkStep) {
        match step {
            LinkStep::Connect => self.link_connect(gateway),
            LinkStep::Connected(connection, how) if self.links[gateway].connection == connection => {
                self.link_connected(gateway, how);
            }
            LinkStep::Closed(connection) if self.links[gateway].connection == connection => self.link_closed(gateway),
            LinkStep::HelloAgain(connection) => {
                if self.links[gateway].is_on(connection) && !self.links[gateway].agreed {
                    self.link_hello(gateway);
                }
            }
            LinkStep::Look => {
                if self.links[gateway].look_ms <= self.t_ms {
                    self.links[gateway].look_ms = u64::MAX;
                    self.link_look(gateway);
                }
            }
            LinkStep::Connected(..) | LinkStep::Closed(_) => {}
        }
    }

    fn link_connect(&mut self, gateway: usize) {
        let how = self.connects(gateway);
        let round_ms = self.network_rng.u64(WAN_MS) * 3;
        let t_ms = self.t_ms;
        let link = &mut self.links[gateway];
        link.connection += 1;
        link.since_ms = t_ms;
        link.attempts_ms.retain(|at_ms| t_ms - at_ms < 60_000);
        link.attempts_ms.push_back(t_ms);
        self.tally.connects(link.attempts_ms.len() as u64);
        let connection = link.connection;
        let ms = match how {
            Connects::Well | Connects::ClosedAtOnce | Connects::Refused => round_ms,
            Connects::Never => CONNECT_MS_MAX,
        };
        let step = LinkStep::Connected(connection, how);
        self.after(ms, Next::Link { gateway, step });
    }

    fn link_connected(&mut self, gateway: usize, how: Connects) {
        match how {
            Connects::Refused | Connects::Never => self.link_closed(gateway),
            Connects::Well | Connects::ClosedAtOnce => {
                let link = &mut self.links[gateway];
                (link.is_up, link.agreed, link.hello_wait_ms) = (true, false, HELLO_WAIT_MS);
                link.ends.clear();
                (link.up_ms, link.down_ms) = (0, [0; 2]);
                let connection = link.connection;
                self.link_hello(gateway);
                if how == Connects::ClosedAtOnce {
                    let step = LinkStep::Closed(connection);
                    self.after(30, Next::Link { gateway, step });
                }
            }
        }
    }

    /// The connection is gone: wait, and try again.
    pub(super) fn link_closed(&mut self, gateway: usize) {
        let t_ms = self.t_ms;
        let link = &mut self.links[gateway];
        let lasted_ms = if link.is_up { t_ms - link.since_ms } else { 0 };
        (link.is_up, link.agreed) = (false, false);
        if lasted_ms >= STABLE_S * 1_000 {
            link.reconnect.reset();
        }
        let now = link.began + Duration::from_millis(t_ms);
        let wait = (link.reconnect.next(now, Duration::ZERO) - now).as_millis() as u64;
        self.after(
            wait,
            Next::Link {
                gateway,
                step: LinkStep::Connect,
            },
        );
    }

    fn link_hello(&mut self, gateway: usize) {
        let hello = bridge::hello(&self.shells[gateway].core);
        self.link_send(gateway, Request::Hello(hello));
        let link = &mut self.links[gateway];
        let (wait_ms, connection) = (link.hello_wait_ms, link.connection);
        link.hello_wait_ms = (wait_ms * 2).min(HELLO_WAIT_MAX_MS);
        let step = LinkStep::HelloAgain(connection);
        self.after(wait_ms, Next::Link { gateway, step });
    }

    fn link_send(&mut self, gateway: usize, request: Request) {
        let connection = self.links[gateway].connection;
        let sent_ms = self.t_ms + self.network_rng.u64(WAN_MS);
        let link = &mut self.links[gateway];
        link.up_ms = link.up_ms.max(sent_ms);
        let arrives_ms = link.up_ms;
        let request = Box::new(request);
        self.at(
            arrives_ms,
            Next::CloudUp {
                gateway,
                connection,
                request,
            },
        );
    }

    /// The core wants something of the hub. Without a link it goes nowhere: the core keeps the deadline.
    pub(super) fn link_request(&mut self, gateway: usize, request: Request) {
        if self.links[gateway].is_up {
            self.link_send(gateway, request);
        }
    }

    /// The hub, or what stands before it, says something.
    pub(super) fn cloud_down(&mut self, gateway: usize, connection: u64, says: Says) {
        if !self.links[gateway].is_on(connection) {
            return;
        }
        match says {
            Says::Trouble(trouble) => {
                if trouble.code == CODE_THROTTLED {
                    self.slow_down(gateway);
                }
                let (ask, code) = (trouble.ask, trouble.code);
                self.put(gateway, &Input::Trouble { ask, code });
            }
            Says::Input(Input::Welcome(welcome)) => {
                let t_ms = self.t_ms;
                let link = &mut self.links[gateway];
                if !link.agreed {
                    link.agreed = true;
                    link.sent = welcome.upto;
                    link.ends.clear();
                    (link.progress_ms, link.pace_until_ms, link.pause_ms) = (t_ms, t_ms, 0);
                }
                self.put(gateway, &Input::Welcome(welcome));
                self.link_look(gateway);
            }
            Says::Input(Input::Receipt { receipt, .. }) => self.link_receipt(gateway, receipt),
            Says::Input(input) => self.put(gateway, &input),
        }
    }

    fn link_receipt(&mut self, gateway: usize, receipt: LedgerReceipt) {
        let shell = &self.shells[gateway];
        let own = receipt
            .upto
            .checked_sub(1)
            .and_then(|at| shell.records.get(at as usize));
        let own_hash: Hash = own.map_or(NOTHING, |(_, hash)| *hash);
        let link = &mut self.links[gateway];
        link.ends.retain(|end| *end > receipt.upto);
        link.progress_ms = self.t_ms;
        self.put(gateway, &Input::Receipt { receipt, own_hash });
        self.link_look(gateway);
    }

    fn slow_down(&mut self, gateway: usize) {
        let link = &mut self.links[gateway];
        link.pause_ms = (link.pause_ms * 2).clamp(PAUSE_FIRST_MS, PAUSE_MAX_MS);
        link.pace_until_ms = link.pace_until_ms.max(self.t_ms + link.pause_ms);
        link.refused = true;
    }

    /// Sends what there is to send and the pace allows.
    pub(super) fn link_look(&mut self, gateway: usize) {
        let t_ms = self.t_ms;
        let link = &mut self.links[gateway];
        if !link.is_agreed() {
            return;
        }
        let (head, cursor) = (
            self.shells[gateway].records.len() as u64,
            bridge::cursor(&self.shells[gateway].core),
        );
        if link.refused && t_ms >= link.pace_until_ms {
            link.refused = false;
            link.sent = cursor;
            link.ends.clear();
        }
        if link.ends.is_empty() {
            link.progress_ms = t_ms;
        } else if t_ms - link.progress_ms > RECEIPT_WAIT_MS {
            let step = LinkStep::Closed(link.connection);
            return self.link_step(gateway, step);
        }
        let has_work = link.sent < head && link.ends.len() < UPLOADS_MAX;
        if has_work && t_ms >= link.pace_until_ms {
            let records = &self.shells[gateway].records[link.sent as usize..];
            let mut bytes = 0;
            let fits = |(record, _): &&(Vec<u8>, Hash)| {
                bytes += record.len();
                bytes <= UPLOAD_BYTES_MAX
            };
            let part = records.iter().take(UPLOAD_RECORDS_MAX).take_while(fits);
            let records: Vec<ByteBuf> = part.map(|(record, _)| ByteBuf::from(record.clone())).collect();
            let first = link.sent + 1;
            link.sent += records.len() as u64;
            link.ends.push_back(link.sent);
            link.pace_until_ms = t_ms + (1_000 / BATCHES_A_SECOND_MAX).max(link.pause_ms);
            link.pause_ms /= 2;
            let upload = Upload {
                epoch: 1,
                first,
                records,
            };
            self.link_send(gateway, Request::Upload(upload));
        }
        self.link_plan_look(gateway, head);
    }

    fn link_plan_look(&mut self, gateway: usize, head: u64) {
        let t_ms = self.t_ms;
        let link = &mut self.links[gateway];
        let waits = link.sent < head || !link.ends.is_empty() || link.refused;
        if !waits {
            return;
        }
        let look_ms = link.pace_until_ms.clamp(t_ms + 1, t_ms + LOOK_AGAIN_MS);
        if look_ms < link.look_ms {
            link.look_ms = look_ms;
            let step = LinkStep::Look;
            self.at(look_ms, Next::Link { gateway, step });
        }
    }

    /// A condition begins or ends: a cloud that is dark closes what stands.
    pub(super) fn edge(&mut self) {
        for gateway in 0..self.links.len() {
            let closes = matches!(self.connects(gateway), Connects::Refused | Connects::ClosedAtOnce);
            if closes && self.links[gateway].is_up {
                let step = LinkStep::Closed(self.links[gateway].connection);
                self.link_step(gateway, step);
            }
        }
        self.say(|| format!("cloud: {}", self.cloud_words(self.since_begin_ms())));
    }
}

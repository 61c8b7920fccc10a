//! What stands between a gateway and its hub, and what it does to what passes. It holds no key: whatever it says itself
//! is what anybody could say. Only a hub that has lost its own list lies under its seal.

use gateway_core::Capability;
use proto::{
    id::{SessionId, TokenHash},
    link::{Answer, Ask, Echo, LinkHello, Trouble, Upload, Verdict},
    money::Money,
};

use super::{
    link::Lane,
    parse::SLOW_DOWN,
    scenario::Fault,
    world::{Next, Says, World},
};

/// Way of a message between gateway and cloud, in ms: a campus's uplink and some hundred km.
pub(super) const WAN_MS: std::ops::Range<u64> = 15..80;
const CODE_THROTTLED: u16 = 429;

/// What a gateway sends.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Hello(LinkHello),
    Ask(Ask),
    Upload(Upload),
    Echo(Echo),
}

impl Request {
    const fn capability(&self) -> Capability {
        match self {
            Self::Ask(_) => Capability::Authorize,
            Self::Upload(_) => Capability::Commit,
            Self::Hello(_) | Self::Echo(_) => Capability::Control,
        }
    }

    /// Its place in the run's hash, and its bytes.
    pub(super) fn bytes(&self) -> (u8, Vec<u8>) {
        use proto::codec::to_vec;
        match self {
            Self::Hello(hello) => (10, to_vec(hello)),
            Self::Ask(ask) => (11, to_vec(ask)),
            Self::Upload(upload) => (12, to_vec(upload)),
            Self::Echo(echo) => (13, to_vec(echo)),
        }
    }
}

/// How a connection attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connects {
    Well,
    Refused,
    ClosedAtOnce,
    Never,
}

/// The state of what stands between.
pub(super) struct Cloud {
    requests: u64,
    /// Per gateway: thousandths of a request that may pass, and since when.
    allowance: Vec<(u64, u64)>,
    /// Requests that reached the hub in each second of the run, for the peak.
    pub(super) hub_second: (u64, u64),
}

impl Cloud {
    pub(super) fn new(gateways: usize) -> Self {
        Self {
            requests: 0,
            allowance: vec![(0, 0); gateways],
            hub_second: (0, 0),
        }
    }

    /// A bucket of one second.
    fn allows(&mut self, gateway: usize, t_ms: u64, rate_a_second: u32) -> bool {
        let (left, since_ms) = &mut self.allowance[gateway];
        let refill = (t_ms - *since_ms) * u64::from(rate_a_second);
        *left = (*left + refill).min(u64::from(rate_a_second) * 1_000);
        *since_ms = t_ms;
        let allowed = *left >= 1_000;
        if allowed {
            *left -= 1_000;
        }
        allowed
    }
}

/// splitmix64: spreads identities evenly, the same way every time.
const fn spread(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether an identity is one of the stable part that is said not to exist.
pub(super) fn is_denied(token: &TokenHash, percent: u8) -> bool {
    let mut first = [0; 8];
    first.copy_from_slice(&token.0[..8]);
    spread(u64::from_be_bytes(first)) % 100 < u64::from(percent)
}

impl World<'_> {
    /// What the cloud does to a capability of a gateway now.
    pub(super) fn fault(&self, gateway: usize, capability: Capability) -> Option<&Fault> {
        if self.calm || self.t_ms < self.begin_ms {
            return None;
        }
        let condition = self
            .scenario
            .condition(self.t_ms - self.begin_ms, gateway, capability)?;
        Some(&condition.fault)
    }

    pub(super) fn connects(&self, gateway: usize) -> Connects {
        let worst = Capability::ALL.map(|capability| self.fault(gateway, capability));
        let is = |fault: &Fault| worst.iter().all(|found| *found == Some(fault));
        if is(&Fault::Dark) {
            Connects::Refused
        } else if is(&Fault::LoginLoop) {
            Connects::ClosedAtOnce
        } else if is(&Fault::Hang) {
            Connects::Never
        } else {
            Connects::Well
        }
    }

    /// A message of a gateway reaches the cloud.
    pub(super) fn cloud_up(&mut self, gateway: usize, connection: u64, request: Request) {
        if !self.links[gateway].is_on(connection) {
            return;
        }
        self.cloud.requests += 1;
        let number = self.cloud.requests;
        let fault = self.fault(gateway, request.capability()).cloned();
        let passes = |world: &mut Self, request, later_ms| world.hub_hears(gateway, connection, request, later_ms);
        match fault {
            None | Some(Fault::Honest) => passes(self, request, 0),
            Some(Fault::Dark | Fault::LoginLoop | Fault::Hang | Fault::HalfDead) => self.tally.slice.swallowed += 1,
            Some(Fault::Error { codes, text }) => {
                let code = codes[number as usize % codes.len()];
                self.trouble(gateway, connection, &request, code, &text);
            }
            Some(Fault::Deny {
                percent,
                sealed,
                code,
                text,
            }) => match &request {
                Request::Ask(ask) if !is_denied(&ask.token, percent) => passes(self, request, 0),
                Request::Ask(ask) if sealed => self.deny(gateway, connection, ask),
                Request::Ask(_) => self.trouble(gateway, connection, &request, code, &text),
                // The gateway's own identity is in the list or it is not.
                Request::Hello(_) | Request::Upload(_) | Request::Echo(_) => {
                    match spread(gateway as u64) % 100 < u64::from(percent) {
                        true => self.trouble(gateway, connection, &request, code, &text),
                        false => passes(self, request, 0),
                    }
                }
            },
            Some(Fault::Throttle { rate_a_second }) => {
                if self.cloud.allows(gateway, self.t_ms, rate_a_second) {
                    passes(self, request, 0);
                } else {
                    self.trouble(gateway, connection, &request, CODE_THROTTLED, SLOW_DOWN);
                }
            }
            Some(Fault::Flap {
                percent,
                period_ms,
                code,
            }) => {
                let bad_time = period_ms == 0 || (self.since_begin_ms() / period_ms.max(1)).is_multiple_of(2);
                if bad_time && spread(number) % 100 < u64::from(percent) {
                    self.trouble(gateway, connection, &request, code, "ServiceUnavailable");
                } else {
                    passes(self, request, 0);
                }
            }
            Some(Fault::Slow { delay_ms }) => passes(self, request, delay_ms),
        }
    }

    /// The cloud's own words, sealed by nobody.
    fn trouble(&mut self, gateway: usize, connection: u64, request: &Request, code: u16, text: &str) {
        match code {
            CODE_THROTTLED => self.tally.slice.throttled += 1,
            _ => self.tally.slice.negatives += 1,
        }
        let ask = match request {
            Request::Ask(ask) => ask.ask,
            Request::Hello(_) | Request::Upload(_) | Request::Echo(_) => 0,
        };
        if let Request::Ask(ask) = request {
            self.tally.blamed(ask.token);
        }
        let trouble = Trouble {
            ask,
            code,
            text: text.to_owned(),
        };
        self.down(gateway, connection, Says::Trouble(trouble), 0);
    }

    /// A hub that has lost part of its list: "never heard of", under its seal, with nothing newer to show.
    fn deny(&mut self, gateway: usize, connection: u64, ask: &Ask) {
        self.tally.slice.negatives += 1;
        self.tally.blamed(ask.token);
        let answer = Answer {
            ask: ask.ask,
            session: ask.session,
            token: ask.token,
            verdict: Verdict::Deny,
            credential_revision: 0,
            account: 0,
            money_max: Money::ZERO,
            lease: proto::artifact::Lease::default(),
        };
        debug_assert!(ask.session != SessionId::ZERO || ask.amount == Money::ZERO);
        self.down(gateway, connection, Says::Input(gateway_core::Input::Answer(answer)), 0);
    }

    pub(super) fn down(&mut self, gateway: usize, connection: u64, says: Says, later_ms: u64) {
        let ms = self.t_ms + self.network_rng.u64(WAN_MS) + later_ms;
        let lane = match &says {
            Says::Input(gateway_core::Input::Answer(_)) | Says::Trouble(_) => Lane::Answers,
            Says::Input(_) => Lane::Books,
        };
        let arrives_ms = self.links[gateway].down_at(lane, ms);
        let says = Box::new(says);
        self.at(
            arrives_ms,
            Next::CloudDown {
                gateway,
                connection,
                says,
            },
        );
    }
}

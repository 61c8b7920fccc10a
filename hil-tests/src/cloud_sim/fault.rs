//! What a cloud can do to its users, and which cloud can do what. A fault that a personality has no words for is refused
//! where it is read, not forgotten where it is played.

use std::fmt;

use proto::id::TokenHash;
use sha2::{Digest, Sha256};

use super::Vendor;

/// Where in a conversation something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The connection itself.
    Tcp,
    /// The handshake.
    Tls,
    /// The answer to a login.
    Connack,
    /// The answer to a subscription.
    Suback,
    /// The acknowledgement of a message.
    Puback,
    /// What the cloud says itself about a message: a `_reply`, a word of trouble, `accepted` and `rejected`.
    Reply,
    /// The answer to an HTTP request.
    Http,
}

impl Stage {
    /// Every stage, with its word in scenario files.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Tcp, "tcp"),
        (Self::Tls, "tls"),
        (Self::Connack, "connack"),
        (Self::Suback, "suback"),
        (Self::Puback, "puback"),
        (Self::Reply, "reply"),
        (Self::Http, "http"),
    ];

    /// Its word in scenario files.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL
            .into_iter()
            .find_map(|(stage, word)| (stage == self).then_some(word))
            .expect("every stage has a word")
    }
}

/// Whose id decides who is in the denied part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The gateway's.
    Gateway,
    /// A sub-device's.
    Device,
    /// That of the id token a question is about.
    Token,
}

/// The bodies of HTTP errors, word for word (S1 to S4 of the outage of 2023-11-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Object storage: the key does not exist.
    S1,
    /// Control plane: the key is not found.
    S2,
    /// Control plane: the key is disabled.
    S3,
    /// An error of its own.
    S4,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertFault {
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYet,
    /// It is somebody else's.
    WrongName,
    /// It hangs on a root that nobody has pinned.
    NewRoot,
}

/// Something that a cloud does to its users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A stable part of the identities is denied, always the same ones.
    Deny {
        /// Where.
        at: Stage,
        /// Whose id decides.
        of: Of,
        /// How many in a hundred.
        percent: u8,
        /// The cloud's own code.
        code: u16,
        /// Whether connections that stand are closed too: what was let in is thrown out.
        kicks: bool,
    },
    /// From this stage on nothing is answered; at `tcp` not even by connections that stand.
    Hang(Stage),
    /// The stage is passed, and the connection closed.
    CloseAfter(Stage),
    /// So many replies in a hundred are lost.
    DropReply(u8),
    /// So many replies in a hundred come twice.
    DupReply(u8),
    /// Replies come so much later, in ms, each at random between the two; their order stays.
    Delay {
        /// At least.
        least_ms: u64,
        /// At most.
        most_ms: u64,
    },
    /// Replies name another request.
    WrongId,
    /// Every request is answered so.
    Http {
        /// Status.
        status: u16,
        /// Body.
        body: Body,
    },
    /// The other faults hold at all but one of so many backends, and requests go to each in turn for so long.
    Flap {
        /// How long one backend serves, in ms.
        period_ms: u64,
        /// How many there are; one of them is sound.
        backends: u64,
    },
    /// So many requests a second are taken of each client.
    Throttle(u32),
    /// So many devices (alink) or id tokens (hcp) are said to be disabled, one by one, and nothing is signed.
    MassDisable(u32),
    /// The cloud has forgotten which devices belong to which gateway.
    TopoWipe,
    /// The cloud's clock is wrong by so much, in ms.
    ClockSkew(i64),
    /// Its certificate.
    Cert(CertFault),
    /// A login page answers in its place.
    Captive,
    /// Everything is acknowledged, nothing is passed on in either direction.
    HalfDead,
    /// It wants to be paid.
    Billing,
    /// A stranger logs in with the gateway's identity, every so many ms.
    Takeover(u64),
}

impl Fault {
    /// Its word in scenario files.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Deny { .. } => "deny",
            Self::Hang(_) => "hang",
            Self::CloseAfter(_) => "close_after",
            Self::DropReply(_) => "drop_reply",
            Self::DupReply(_) => "dup_reply",
            Self::Delay { .. } => "delay",
            Self::WrongId => "wrong_id",
            Self::Http { .. } => "http",
            Self::Flap { .. } => "flap",
            Self::Throttle(_) => "throttle",
            Self::MassDisable(_) => "mass_disable",
            Self::TopoWipe => "topo_wipe",
            Self::ClockSkew(_) => "clock_skew",
            Self::Cert(_) => "cert",
            Self::Captive => "captive",
            Self::HalfDead => "half_dead",
            Self::Billing => "billing",
            Self::Takeover(_) => "takeover",
        }
    }

    /// Whether this cloud can do it.
    ///
    /// # Errors
    /// Why it cannot, for whoever wrote the scenario.
    pub fn expressible(&self, vendor: Vendor, tls: bool) -> Result<(), Inexpressible> {
        let why = match self {
            Self::Deny { at, of, code, .. } => deny(vendor, *at, *of, *code),
            Self::Hang(stage) | Self::CloseAfter(stage) => has_stage(vendor, tls, *stage),
            Self::Cert(_) if !tls => Some("it is served without TLS: give it a [tls] table".to_owned()),
            Self::DropReply(_) | Self::DupReply(_) if vendor.is_http() => {
                Some("an HTTP request has one answer: hang and close_after have the stage http".to_owned())
            }
            Self::Takeover(_) if vendor.is_http() => Some("there is no session that could be taken over".to_owned()),
            Self::Http { .. } if !vendor.is_http() => Some("it speaks MQTT: deny has the stages of MQTT".to_owned()),
            Self::WrongId if vendor == Vendor::Hcp => Some("its replies are the operator's, sealed".to_owned()),
            Self::WrongId if matches!(vendor, Vendor::Oss | Vendor::Pop) => {
                Some("its answers name no request".to_owned())
            }
            Self::MassDisable(_) if !matches!(vendor, Vendor::Alink | Vendor::Hcp) => {
                Some("it has no word for a disabled device".to_owned())
            }
            Self::TopoWipe if vendor != Vendor::Alink => Some("it knows no devices behind a gateway".to_owned()),
            Self::ClockSkew(_) if !matches!(vendor, Vendor::Alink | Vendor::Webhook) => {
                Some("it tells nobody the time".to_owned())
            }
            Self::HalfDead | Self::Throttle(_) if matches!(vendor, Vendor::Oss | Vendor::Pop) => {
                Some("it carries nothing to the operator".to_owned())
            }
            Self::Billing if vendor == Vendor::Aws => {
                Some("an unpaid account is closed: use deny at connack".to_owned())
            }
            Self::DropReply(_)
            | Self::DupReply(_)
            | Self::Delay { .. }
            | Self::WrongId
            | Self::Http { .. }
            | Self::Flap { .. }
            | Self::Throttle(_)
            | Self::MassDisable(_)
            | Self::TopoWipe
            | Self::ClockSkew(_)
            | Self::Cert(_)
            | Self::Captive
            | Self::HalfDead
            | Self::Billing
            | Self::Takeover(_) => None,
        };
        why.map_or(Ok(()), |why| {
            Err(Inexpressible {
                fault: self.word(),
                vendor,
                why,
            })
        })
    }
}

fn has_stage(vendor: Vendor, tls: bool, stage: Stage) -> Option<String> {
    let has = match stage {
        Stage::Tcp => true,
        Stage::Tls => tls,
        Stage::Connack | Stage::Suback | Stage::Puback | Stage::Reply => !vendor.is_http(),
        Stage::Http => vendor.is_http(),
    };
    (!has).then(|| format!("there is no stage {}", stage.word()))
}

fn deny(vendor: Vendor, at: Stage, of: Of, code: u16) -> Option<String> {
    let ids = match (vendor, at, of) {
        (_, Stage::Tcp | Stage::Tls, _) => Some("who it is, is not known yet; use close_after or hang"),
        (_, _, Of::Gateway) => None,
        (Vendor::Alink, Stage::Reply, Of::Device) => None,
        (_, _, Of::Device) => Some("only alink knows devices, and at the stage reply"),
        (Vendor::Hcp | Vendor::Alink, Stage::Reply, Of::Token) | (Vendor::Webhook, Stage::Http, Of::Token) => None,
        (_, _, Of::Token) => Some("no answer of this stage is about one id token"),
    };
    let codes = match (vendor, at) {
        (Vendor::Aws, Stage::Connack) if code != 7 => Some("it refuses with 7, and with nothing else"),
        (_, Stage::Connack) if !matches!(code, 1..=5 | 7) => {
            Some("a CONNACK's code is 1 to 5 (MQTT 5 says the same in its own codes); aws: 7")
        }
        (_, Stage::Suback | Stage::Puback) if !matches!(code, 0x80..=0xff) => {
            Some("a code of MQTT 5 is needed, 128 to 255")
        }
        (_, Stage::Reply | Stage::Http) if code < 400 => Some("the code of an error is needed, 400 or more"),
        _ => None,
    };
    has_stage(vendor, true, at).or_else(|| ids.or(codes).map(str::to_owned))
}

/// A fault that a personality has no words for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{vendor} cannot play {fault}: {why}")]
pub struct Inexpressible {
    fault: &'static str,
    vendor: Vendor,
    why: String,
}

/// The faults of a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    list: Vec<Fault>,
    /// How often they have changed.
    pub(crate) change: u64,
}

impl Faults {
    /// Others from now on.
    pub(crate) fn replace(&mut self, list: Vec<Fault>) {
        self.list = list;
        self.change += 1;
    }

    /// Those that hold now: all, or none while the sound backend of a flapping cloud serves.
    pub(crate) fn now(&self, now_ms: u64) -> impl Iterator<Item = &Fault> {
        let sound = self.list.iter().any(|fault| match fault {
            Fault::Flap { period_ms, backends } => (now_ms / period_ms.max(&1)).is_multiple_of(*backends),
            _ => false,
        });
        self.list.iter().filter(move |_| !sound)
    }

    pub(crate) fn hangs(&self, now_ms: u64, stage: Stage) -> bool {
        self.now(now_ms).any(|fault| *fault == Fault::Hang(stage))
    }

    pub(crate) fn closes_after(&self, now_ms: u64, stage: Stage) -> bool {
        self.now(now_ms).any(|fault| *fault == Fault::CloseAfter(stage))
    }

    pub(crate) fn has(&self, now_ms: u64, wanted: &Fault) -> bool {
        self.now(now_ms).any(|fault| fault == wanted)
    }

    /// The code with which `id` is denied here.
    pub(crate) fn denies(&self, now_ms: u64, at: Stage, of: Of, id: &str) -> Option<u16> {
        self.denial(now_ms, at, of, || digit(id.as_bytes()))
            .map(|(code, _)| code)
    }

    /// As well, of an id token's hash.
    pub(crate) fn denies_token(&self, now_ms: u64, at: Stage, token: &TokenHash) -> Option<u16> {
        self.denial(now_ms, at, Of::Token, || {
            u16::from_be_bytes([token.0[0], token.0[1]]) % 100
        })
        .map(|(code, _)| code)
    }

    /// Whether connections of `id` that stand are closed.
    pub(crate) fn kicks(&self, now_ms: u64, id: &str) -> bool {
        self.denial(now_ms, Stage::Connack, Of::Gateway, || digit(id.as_bytes()))
            .is_some_and(|(_, kicks)| kicks)
    }

    fn denial(&self, now_ms: u64, stage: Stage, whose: Of, digit: impl Fn() -> u16) -> Option<(u16, bool)> {
        self.now(now_ms).find_map(|fault| match fault {
            Fault::Deny {
                at,
                of,
                percent,
                code,
                kicks,
            } if *at == stage && *of == whose && digit() < u16::from(*percent) => Some((*code, *kicks)),
            _ => None,
        })
    }

    /// The first that `pick` picks.
    pub(crate) fn find<T>(&self, now_ms: u64, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        self.now(now_ms).find_map(pick)
    }
}

/// 0 to 99, always the same for an id.
fn digit(id: &[u8]) -> u16 {
    let hash = Sha256::digest(id);
    u16::from_be_bytes([hash[0], hash[1]]) % 100
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn denial(at: Stage, of: Of, code: u16) -> Fault {
        Fault::Deny {
            at,
            of,
            percent: 50,
            code,
            kicks: false,
        }
    }

    #[test]
    fn who_can_do_what() {
        use Vendor::{Alink, Aws, Hcp, Oss, Webhook};
        for (vendor, tls, fault, expected) in [
            (Hcp, false, denial(Stage::Reply, Of::Token, 404), true),
            (Hcp, false, denial(Stage::Reply, Of::Device, 404), false),
            (Hcp, false, denial(Stage::Connack, Of::Gateway, 404), false),
            (Hcp, false, denial(Stage::Connack, Of::Gateway, 5), true),
            (Alink, false, denial(Stage::Reply, Of::Device, 6287), true),
            (Aws, true, denial(Stage::Connack, Of::Gateway, 5), false),
            (Aws, true, denial(Stage::Connack, Of::Gateway, 7), true),
            (Webhook, false, denial(Stage::Http, Of::Token, 404), true),
            (Webhook, false, denial(Stage::Connack, Of::Gateway, 5), false),
            (Hcp, false, Fault::Cert(CertFault::Expired), false),
            (Hcp, true, Fault::Cert(CertFault::Expired), true),
            (Hcp, false, Fault::Hang(Stage::Tls), false),
            (Webhook, false, Fault::Hang(Stage::Suback), false),
            (Webhook, false, Fault::Takeover(1), false),
            (Aws, true, Fault::TopoWipe, false),
            (Hcp, false, Fault::WrongId, false),
            (Oss, false, Fault::HalfDead, false),
            (
                Oss,
                false,
                Fault::Http {
                    status: 403,
                    body: Body::S1,
                },
                true,
            ),
        ] {
            let found = fault.expressible(vendor, tls);
            assert_eq!(found.is_ok(), expected, "{vendor} {fault:?}: {found:?}");
        }
        let error = Fault::TopoWipe.expressible(Hcp, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "hcp cannot play topo_wipe: it knows no devices behind a gateway"
        );
    }

    #[test]
    fn the_same_part_is_denied_every_time_and_a_sound_backend_denies_nobody() {
        let faults = |list| Faults { list, change: 1 };
        let steady = faults(vec![denial(Stage::Reply, Of::Gateway, 404)]);
        let denied = |faults: &Faults, now_ms| {
            let ids = (0..1000).map(|i| format!("gw-{i}"));
            ids.filter(|id| faults.denies(now_ms, Stage::Reply, Of::Gateway, id).is_some())
                .count()
        };
        let (first, later) = (denied(&steady, 0), denied(&steady, 77_777));
        assert_eq!(first, later);
        assert!((430..570).contains(&first), "{first}");
        let period_ms = 1_000;
        let flapping = faults(vec![
            denial(Stage::Reply, Of::Gateway, 404),
            Fault::Flap { period_ms, backends: 2 },
        ]);
        assert_eq!((denied(&flapping, 500), denied(&flapping, 1_500)), (0, first));
    }
}

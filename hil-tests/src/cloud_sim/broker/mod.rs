//! A vendor's MQTT broker, without sockets and clocks: [`machine::Broker`] knows connections, sessions and what a fault
//! does at which stage; a [`Personality`] knows what one vendor checks and says.

pub(crate) mod machine;
pub(crate) mod packet;
mod session;
#[cfg(test)]
mod tests;

use proto::{
    id::GatewayId,
    topic::{Lane, LinkDown, LinkUp},
};

use self::packet::{Connect, Publish};
use super::{Command, counters::Counters, fault::Faults};

/// Number of a connection, never used twice.
pub(crate) type Conn = u64;

/// What TLS says about whoever connects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// The host name that was asked for.
    pub(crate) sni: Option<String>,
    /// The protocol that was agreed on.
    pub(crate) alpn: Option<Vec<u8>>,
    /// The common name of the client's certificate.
    pub(crate) common_name: Option<String>,
}

/// A frame of the gateway's, unwrapped for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameUp {
    pub(crate) gateway: GatewayId,
    pub(crate) lane: Lane,
    pub(crate) word: LinkUp,
    pub(crate) frame: Vec<u8>,
}

/// A frame of the operator's, to be wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameDown {
    pub(crate) gateway: GatewayId,
    pub(crate) lane: Lane,
    pub(crate) word: LinkDown,
    pub(crate) frame: Vec<u8>,
}

/// What happens to a broker.
#[derive(Debug)]
pub(crate) enum Input {
    /// Somebody connected.
    Opened { conn: Conn, tls: Option<Tls> },
    /// A whole packet.
    Packet { conn: Conn, bytes: Vec<u8> },
    /// A connection is gone.
    Gone { conn: Conn },
    /// The operator says something.
    Down(FrameDown),
    /// Other faults hold from now on.
    Faults(Faults),
    /// Whoever owns the cloud wants something said.
    Command(Command),
    /// Something is due.
    Tick,
}

/// What a broker wants done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Bytes for a connection.
    Send(Conn, Vec<u8>),
    /// End it.
    Close(Conn),
    /// A frame for the operator.
    Up(FrameUp),
    /// The gateway left, on one lane or on all: so do its connections to the operator.
    Left(GatewayId, Option<Lane>),
}

/// A message to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
}

/// What a personality wants done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Say {
    /// A message for whoever logged in as `who`, if it subscribed to it.
    Tell { who: String, message: Message },
    /// As well, the cloud's own word on something the client said: the faults of the stage `reply` are for these.
    Reply { who: String, message: Message },
    /// A reply that comes whether it was subscribed to or not.
    Unasked { who: String, message: Message },
    /// A frame for the operator.
    Up(FrameUp),
    /// The gateway left, on one lane or on all.
    Left(GatewayId, Option<Lane>),
}

/// What a personality is lent.
pub(crate) struct Cx<'a> {
    /// Since the cloud began, in ms.
    pub(crate) now_ms: u64,
    /// Since 1970 UTC, in ms, by a sound clock.
    pub(crate) wall_ms: u64,
    /// What holds now.
    pub(crate) faults: &'a Faults,
    /// Whether the client is above the rate of the fault `throttle`.
    pub(crate) throttled: bool,
    /// What passed.
    pub(crate) counters: &'a Counters,
    /// What is to be done.
    pub(crate) out: &'a mut Vec<Say>,
}

impl Cx<'_> {
    pub(crate) fn reply(&mut self, who: &str, topic: impl Into<String>, payload: impl Into<Vec<u8>>) {
        self.out.push(Say::Reply {
            who: who.to_owned(),
            message: Message {
                topic: topic.into(),
                payload: payload.into(),
                qos: 1,
            },
        });
    }

    pub(crate) fn tell(&mut self, who: &str, topic: impl Into<String>, payload: impl Into<Vec<u8>>) {
        self.out.push(Say::Tell {
            who: who.to_owned(),
            message: Message {
                topic: topic.into(),
                payload: payload.into(),
                qos: 1,
            },
        });
    }

    /// A frame for the operator, unless nobody is behind the cloud.
    pub(crate) fn up(&mut self, frame: FrameUp) {
        if self.faults.has(self.now_ms, &super::fault::Fault::HalfDead) {
            self.counters.swallowed.add();
        } else {
            self.out.push(Say::Up(frame));
        }
    }
}

/// Why a login is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A CONNACK with this code of MQTT 3.1.1; MQTT 5 has codes of its own for the same.
    Code(u8, &'static str),
    /// The connection is closed, without a word.
    Close(&'static str),
}

/// Who is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// Whose session it is: a second login with the same kicks the first.
    pub(crate) who: String,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Acknowledged.
    Yes,
    /// Acknowledged with a code, if the client speaks MQTT 5; to others it looks like success.
    Code(u8),
    /// Thrown away: acknowledged with this code if the client speaks MQTT 5, and to others not at all.
    Dropped(u8),
    /// Not allowed: acknowledged with this code if the client speaks MQTT 5; to others the connection is closed.
    Forbidden(u8, &'static str),
    /// The connection is closed; the code is for MQTT 5.
    Close(u8, &'static str),
}

/// What holds for everybody at this vendor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Largest packet; a longer one closes the connection. In bytes.
    pub(crate) packet_bytes_max: usize,
    /// Most filters in one SUBSCRIBE; more close the connection.
    pub(crate) filters_max: usize,
    /// Most subscriptions of one connection.
    pub(crate) subscriptions_max: usize,
    /// Whether one subscription too many closes the connection; else it is refused.
    pub(crate) closes_beyond_subscriptions: bool,
    /// Whether a subscription that is not allowed closes the connection of a client of MQTT 3.1.1; else it is refused.
    pub(crate) closes_on_denied_subscription: bool,
    /// Whether a publish with QoS 2 closes the connection; else nothing is answered.
    pub(crate) closes_on_qos_2: bool,
    /// How long the session of a client that is away is kept at most, in ms of the scaled clock.
    pub(crate) session_ms_max: u64,
    /// Messages a second that a returning client is sent of those that waited; 0: as fast as they fit.
    pub(crate) stored_a_second: u64,
    /// Encoded properties of an MQTT 5 CONNACK.
    pub(crate) connack_properties: &'static [u8],
}

/// One vendor's way.
pub(crate) trait Personality: Send {
    /// What holds for everybody.
    fn rules(&self) -> Rules;

    /// Somebody wants to log in.
    fn connect(&mut self, cx: &mut Cx<'_>, connect: &Connect, tls: Option<&Tls>) -> Result<Admitted, Refused>;

    /// Somebody who is logged in wants to hear something.
    fn may_subscribe(&mut self, who: &str, filter: &str) -> Result<(), u8>;

    /// Somebody who is logged in says something.
    fn publish(&mut self, cx: &mut Cx<'_>, who: &str, publish: &Publish) -> Taken;

    /// The operator says something.
    fn down(&mut self, cx: &mut Cx<'_>, frame: FrameDown);

    /// Somebody has subscribed: what waited for it can be told.
    fn subscribed(&mut self, _cx: &mut Cx<'_>, _who: &str) {}

    /// Somebody left.
    fn left(&mut self, cx: &mut Cx<'_>, who: &str);

    /// Other faults hold from now on.
    fn changed(&mut self, _cx: &mut Cx<'_>) {}

    /// Whoever owns the cloud wants something said.
    fn command(&mut self, _cx: &mut Cx<'_>, _command: Command) {}
}

/// The code of MQTT 5 that says what this code of an MQTT 3.1.1 CONNACK says.
pub(crate) const fn connack_code_5(code: u8) -> u8 {
    match code {
        1 => 0x84,
        2 => 0x85,
        3 => 0x88,
        4 => 0x86,
        _ => 0x87,
    }
}

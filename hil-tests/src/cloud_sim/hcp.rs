//! Our own protocol's broker: canonical topics, sealed frames, and one word of its own, `trouble`, which anybody between
//! the two could say.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    codec,
    id::{GatewayId, TokenHash},
    link::{Ask, LINK_FRAME_BYTES_MAX, Trouble},
    seal::OVERHEAD_BYTES,
    topic::{self, LinkDown, LinkTopic, LinkUp},
};

use super::{
    FALSE_DENIAL, Member, OVERDUE, THROTTLED,
    broker::{
        Admitted, Cx, FrameDown, FrameUp, Personality, Refused, Rules, Say, Taken, Tls,
        packet::{Connect, Publish},
    },
    fault::{Fault, Of, Stage},
};

/// Bytes of an MQTT packet around a frame.
const PACKET_OVERHEAD_BYTES: usize = 1_024;
/// A session without a client is kept so long, in ms: as mosquitto and EMQX are usually told.
const SESSION_MS_MAX: u64 = 24 * 3_600_000;
/// The text of a token that is said to be disabled.
const DISABLED: &str = "The device has been disabled.";
/// The code of MQTT 5 for a topic that is not the client's.
const NOT_AUTHORIZED: u8 = 0x87;

/// The broker's rules.
pub(crate) struct Hcp {
    members: BTreeMap<GatewayId, Member>,
    disabled: BTreeSet<TokenHash>,
}

impl Hcp {
    pub(crate) fn new(members: &[Member]) -> Self {
        Self {
            members: members.iter().map(|member| (member.gateway, member.clone())).collect(),
            disabled: BTreeSet::new(),
        }
    }

    /// The code and the text with which this frame is answered instead of by the operator.
    fn denial(&mut self, cx: &Cx<'_>, at: &LinkTopic<LinkUp>, ask: Option<&Ask>) -> Option<(u16, String)> {
        if cx.throttled {
            return Some((429, THROTTLED.to_owned()));
        }
        if cx.faults.has(cx.now_ms, &Fault::Billing) {
            return Some((403, OVERDUE.to_owned()));
        }
        let gateway = cx
            .faults
            .denies(cx.now_ms, Stage::Reply, Of::Gateway, at.gateway.as_str());
        let token = ask.and_then(|ask| cx.faults.denies_token(cx.now_ms, Stage::Reply, &ask.token));
        if let Some(code) = gateway.or(token) {
            return Some((code, words(code)));
        }
        let disabled = cx.faults.find(cx.now_ms, |fault| match fault {
            Fault::MassDisable(tokens) => Some(*tokens as usize),
            _ => None,
        })?;
        let token = ask?.token;
        if self.disabled.len() < disabled {
            self.disabled.insert(token);
        }
        self.disabled.contains(&token).then(|| (403, DISABLED.to_owned()))
    }
}

/// What a cloud says with this code.
fn words(code: u16) -> String {
    match code {
        401 | 403 => "Forbidden: The Access Key Id is invalid.",
        404 => FALSE_DENIAL,
        429 => THROTTLED,
        503 => "ServiceUnavailable: The request has failed due to a temporary failure of the server.",
        500.. => "InternalError: The request processing has failed due to some unknown error.",
        _ => "The request cannot be served.",
    }
    .to_owned()
}

impl Personality for Hcp {
    fn rules(&self) -> Rules {
        Rules {
            packet_bytes_max: LINK_FRAME_BYTES_MAX + PACKET_OVERHEAD_BYTES,
            filters_max: 64,
            subscriptions_max: 64,
            closes_beyond_subscriptions: false,
            closes_on_denied_subscription: false,
            closes_on_qos_2: true,
            session_ms_max: SESSION_MS_MAX,
            stored_a_second: 0,
            connack_properties: &[],
        }
    }

    fn connect(&mut self, _: &mut Cx<'_>, connect: &Connect, _: Option<&Tls>) -> Result<Admitted, Refused> {
        let (gateway, _) =
            topic::parse_link_client(&connect.client_id).ok_or(Refused::Code(2, "no client id of a gateway"))?;
        let member = self
            .members
            .get(&gateway)
            .ok_or(Refused::Code(5, "nobody knows this gateway"))?;
        let named = connect.user() == connect.client_id || connect.user() == gateway.as_str();
        if !named || connect.password() != member.password {
            return Err(Refused::Code(4, "user name or password"));
        }
        Ok(Admitted {
            who: connect.client_id.clone(),
        })
    }

    fn may_subscribe(&mut self, who: &str, filter: &str) -> Result<(), u8> {
        let client = topic::parse_link_client(who);
        let own = client.and_then(|(gateway, lane)| {
            let site = self.members.get(&gateway)?.site;
            let whole = topic::link_down_filter(&site, &gateway, lane);
            let one = topic::parse_link_down(filter).is_some_and(|at| (at.gateway, at.lane) == (gateway, lane));
            (filter == whole.as_str() || one).then_some(())
        });
        own.ok_or(NOT_AUTHORIZED)
    }

    fn publish(&mut self, cx: &mut Cx<'_>, who: &str, publish: &Publish) -> Taken {
        let at = topic::parse_link_up(&publish.topic);
        let Some(at) = at.filter(|at| topic::link_client(&at.gateway, at.lane).as_str() == who) else {
            cx.counters.breaches.add();
            return Taken::Code(NOT_AUTHORIZED);
        };
        let ask = asked(at.word, &publish.payload);
        if let Some((code, text)) = self.denial(cx, &at, ask.as_ref()) {
            cx.counters.denied.add();
            let ask = ask.map_or(0, |ask| ask.ask);
            let topic = topic::link_down(&at.site, &at.gateway, LinkDown::Trouble, at.lane);
            cx.reply(who, topic.as_str(), codec::to_vec(&Trouble { ask, code, text }));
            return Taken::Yes;
        }
        cx.up(FrameUp {
            gateway: at.gateway,
            lane: at.lane,
            word: at.word,
            frame: publish.payload.clone(),
        });
        Taken::Yes
    }

    fn down(&mut self, cx: &mut Cx<'_>, down: FrameDown) {
        let Some(member) = self.members.get(&down.gateway) else {
            return;
        };
        let who = topic::link_client(&down.gateway, down.lane);
        let topic = topic::link_down(&member.site, &down.gateway, down.word, down.lane);
        cx.reply(who.as_str(), topic.as_str(), down.frame);
    }

    fn left(&mut self, cx: &mut Cx<'_>, who: &str) {
        if let Some((gateway, lane)) = topic::parse_link_client(who) {
            cx.out.push(Say::Left(gateway, Some(lane)));
        }
    }

    fn changed(&mut self, cx: &mut Cx<'_>) {
        let still = cx
            .faults
            .now(cx.now_ms)
            .any(|fault| matches!(fault, Fault::MassDisable(_)));
        if !still {
            self.disabled.clear();
        }
    }
}

/// The question in a frame; `None` if it is something else. Sealing is not encryption.
pub(crate) fn asked(word: LinkUp, frame: &[u8]) -> Option<Ask> {
    match word {
        LinkUp::Ask => codec::decode(body(frame)?).ok(),
        LinkUp::Hello | LinkUp::Records | LinkUp::Echo | LinkUp::Telemetry | LinkUp::Done => None,
    }
}

/// The body of a sealed frame, without its key.
pub(crate) fn body(frame: &[u8]) -> Option<&[u8]> {
    const HEADER_BYTES: usize = 9;
    let len = frame.len().checked_sub(OVERHEAD_BYTES)?;
    frame.get(HEADER_BYTES..HEADER_BYTES + len)
}

//! The protocol of a connected client: what each packet does, and in which order messages are acknowledged. No I/O here.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::access::Protocol;
use crate::counters;
use crate::decode::{Packet, Publish, Subscription, Violation};
use crate::encode::{self, Recipient};
use crate::inbound::{Ack, DisconnectReason, Inbound, Outcome};
use crate::mailbox::Mailbox;
use crate::message::{Message, Qos, Will, shared_bytes};
use crate::reason;
use crate::session::Session;
use crate::shared::{Shared, expiry_at};
use crate::subscriptions;
use crate::topic;
use tokio::time::Instant;

/// Topic aliases a client may set, and as many are used towards it, each holding a topic of at most `Limits::topic_bytes_max` bytes.
pub(crate) const TOPIC_ALIAS_MAX: u16 = 16;
/// QoS 2 ids that a 3.1.1 client has not released. It cannot be told a limit and libraries differ
/// (20 to 100), so this one is above all of them: each costs a few bytes here.
const OPEN_MAX_V311: usize = 1_024;

/// Why a connection ends, and the code to tell an MQTT 5 client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) reason: DisconnectReason,
    pub(crate) code: Option<u8>,
}

impl From<DisconnectReason> for End {
    fn from(reason: DisconnectReason) -> End {
        End {
            reason,
            code: reason::disconnect(reason),
        }
    }
}

impl From<Violation> for End {
    fn from(violation: Violation) -> End {
        End {
            reason: violation.as_disconnect(),
            code: Some(violation.code),
        }
    }
}

/// A connected client.
pub(crate) struct Exchange {
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: Arc<Session>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) recipient: Recipient,
    pub(crate) will: Option<Will>,
    aliases: Vec<Option<Box<str>>>,
    acks: Acks,
}

impl Exchange {
    pub(crate) fn new(
        shared: Arc<Shared>,
        session: Arc<Session>,
        mailbox: Arc<Mailbox>,
        recipient: Recipient,
        will: Option<Will>,
    ) -> Exchange {
        Exchange {
            shared,
            session,
            mailbox,
            recipient,
            will,
            aliases: Vec::new(),
            acks: Acks::default(),
        }
    }

    /// Act on one packet; answers go to `out`. Returns a message for the application, if it is one.
    pub(crate) fn handle(&mut self, packet: Packet, out: &mut Vec<u8>) -> Result<Option<Inbound>, End> {
        let protocol = self.recipient.protocol;
        match packet {
            Packet::Publish(publish) => return self.publish(publish, out),
            Packet::Puback { id } => self.session.lock().outgoing.puback(id),
            Packet::Pubrec { id, failed } => {
                if let Some(code) = self.session.lock().outgoing.pubrec(id, failed) {
                    encode::acknowledgement(out, protocol, encode::PUBREL, id, code);
                }
            }
            Packet::Pubrel { id } => {
                let known = self.session.lock().received_qos2.remove(&id);
                let code = if known {
                    reason::SUCCESS
                } else {
                    reason::PACKET_ID_NOT_FOUND
                };
                encode::acknowledgement(out, protocol, encode::PUBCOMP, id, code);
            }
            Packet::Pubcomp { id } => self.session.lock().outgoing.pubcomp(id),
            Packet::Subscribe {
                id,
                identifier,
                entries,
            } => {
                let codes: Vec<u8> = entries.iter().map(|entry| self.subscribe(entry, identifier)).collect();
                encode::suback(out, protocol, id, &codes);
            }
            Packet::Unsubscribe { id, filters } => {
                let codes: Vec<u8> = filters.iter().map(|filter| self.unsubscribe(filter)).collect();
                encode::unsuback(out, protocol, id, &codes);
            }
            Packet::Pingreq => encode::pingresp(out),
            Packet::Disconnect {
                with_will,
                session_expiry_s,
            } => return Err(self.disconnect(with_will, session_expiry_s)),
            Packet::Auth => return Err(Violation::protocol("AUTH without an authentication method").into()),
        }
        Ok(None)
    }

    fn disconnect(&mut self, with_will: bool, session_expiry_s: Option<u32>) -> End {
        if let Some(seconds) = session_expiry_s {
            let mut state = self.session.lock();
            if state.expiry_s == 0 && seconds != 0 {
                return Violation::protocol("session expiry set on DISCONNECT").into();
            }
            state.expiry_s = seconds.min(self.shared.limits.session_expiry_s_max);
        }
        if with_will {
            return DisconnectReason::ByClientWithWill.into();
        }
        self.will = None;
        DisconnectReason::ByClient.into()
    }

    fn publish(&mut self, mut publish: Publish, out: &mut Vec<u8>) -> Result<Option<Inbound>, End> {
        counters::add(&self.shared.counting.received, 1);
        self.resolve_alias(&mut publish)?;
        if !topic::valid_name(&publish.topic, self.shared.limits.topic_bytes_max) {
            let what = "topic is empty, too long or has a wildcard";
            return Err(Violation {
                what,
                code: reason::TOPIC_NAME_INVALID,
            }
            .into());
        }
        if publish.qos == Qos::ExactlyOnce {
            if self.acks.holds_pubrec(publish.id) {
                // Sent again while the application still has it: its answer will do for both.
                return Ok(None);
            }
            if self.session.lock().received_qos2.contains(&publish.id) {
                return self.acknowledge(&publish, Outcome::Accepted, out);
            }
        }
        self.check_window(publish.qos)?;
        let access = self.shared.access.clone();
        if !access.may_publish(&self.session.client_id, &publish.topic) {
            return self.forbid(&publish, out);
        }
        if access.intercepts(&publish.topic) {
            return Ok(Some(self.hand_over(publish)));
        }
        let message = Message {
            topic: std::mem::take(&mut publish.topic),
            payload: std::mem::take(&mut publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            properties: std::mem::take(&mut publish.properties),
            expires_at: expiry_at(publish.expiry_s),
        };
        let routed = self.shared.publish(message, Some(self.session.id));
        let nobody = routed.delivered + routed.queued + routed.full == 0;
        let outcome = if nobody {
            Outcome::AcceptedUnheard
        } else {
            Outcome::Accepted
        };
        self.acknowledge(&publish, outcome, out)
    }

    fn hand_over(&mut self, publish: Publish) -> Inbound {
        let ack = match ack_packet(publish.qos) {
            Some(first) => Ack::new(self.mailbox.clone(), self.acks.expect(first, publish.id)),
            None => Ack::none(),
        };
        Inbound::Publish {
            client_id: self.session.client_id.clone(),
            topic: publish.topic,
            payload: shared_bytes(publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            ack,
        }
    }

    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), End> {
        let Some(alias) = publish.alias else { return Ok(()) };
        let invalid = Violation {
            what: "topic alias",
            code: reason::TOPIC_ALIAS_INVALID,
        };
        if alias == 0 || alias > TOPIC_ALIAS_MAX {
            return Err(invalid.into());
        }
        let at = usize::from(alias) - 1;
        if !publish.topic.is_empty() {
            if publish.topic.len() <= self.shared.limits.topic_bytes_max {
                self.aliases.resize_with(self.aliases.len().max(at + 1), || None);
                self.aliases[at] = Some(publish.topic.clone());
            }
            return Ok(());
        }
        publish.topic = self.aliases.get(at).cloned().flatten().ok_or(invalid)?;
        Ok(())
    }

    /// An MQTT 5 client was told how many messages it may have open; a 3.1.1 client is held back instead (see `paused`).
    fn check_window(&self, qos: Qos) -> Result<(), End> {
        if qos == Qos::AtMostOnce {
            return Ok(());
        }
        let open_qos2 = self.session.lock().received_qos2.len();
        let exceeded = match self.recipient.protocol {
            Protocol::V5 => self.acks.len() + open_qos2 >= usize::from(self.shared.limits.inflight_max),
            Protocol::V311 => qos == Qos::ExactlyOnce && open_qos2 >= OPEN_MAX_V311,
        };
        if exceeded {
            Err(DisconnectReason::ReceiveMaximumExceeded.into())
        } else {
            Ok(())
        }
    }

    /// True while no further packet may be read: as many messages of the client as may do so wait for the application. (An MQTT 5
    /// client that was told a lower limit is cut before.)
    pub(crate) fn paused(&self) -> bool {
        self.acks.len() >= self.shared.limits.unsettled_max
    }

    /// MQTT 5 has a code for it. 3.1.1 offers a false acknowledgement or a closed connection, and a message must not be
    /// acknowledged that nobody has. QoS 0 promises nothing and is ignored in both.
    fn forbid(&mut self, publish: &Publish, out: &mut Vec<u8>) -> Result<Option<Inbound>, End> {
        counters::add(&self.shared.counting.forbidden, 1);
        match (self.recipient.protocol, publish.qos) {
            (Protocol::V311 | Protocol::V5, Qos::AtMostOnce) => Ok(None),
            (Protocol::V311, _) => Err(DisconnectReason::Forbidden.into()),
            (Protocol::V5, _) => {
                self.acknowledge(publish, Outcome::Refused(crate::inbound::Refusal::NotAuthorized), out)
            }
        }
    }

    fn acknowledge(&mut self, publish: &Publish, outcome: Outcome, out: &mut Vec<u8>) -> Result<Option<Inbound>, End> {
        if let Some(first) = ack_packet(publish.qos) {
            let sequence = self.acks.expect(first, publish.id);
            self.settle(sequence, outcome);
            self.flush_acks(out)?;
        }
        Ok(None)
    }

    fn subscribe(&self, entry: &Subscription, identifier: Option<u32>) -> u8 {
        let limits = &self.shared.limits;
        let protocol = self.recipient.protocol;
        let filter = if subscriptions::is_shared(&entry.filter) {
            // What is behind the share name is what is subscribed to. 3.1.1 knows no shares.
            subscriptions::shared(&entry.filter)
                .filter(|_| protocol == Protocol::V5)
                .map(|(_, filter)| filter)
        } else {
            Some(&*entry.filter)
        };
        let valid = filter.filter(|filter| {
            entry.filter.len() <= limits.topic_bytes_max
                && topic::valid_filter(filter, limits.topic_bytes_max, limits.topic_levels_max)
        });
        let code = match valid {
            None => reason::TOPIC_FILTER_INVALID,
            // Not 0x87, which is as correct: some clients know no failure but this one.
            Some(filter) if !self.shared.access.may_subscribe(&self.session.client_id, filter) => reason::UNSPECIFIED,
            Some(_) => self
                .shared
                .router()
                .subscribe(&self.session, entry, identifier, limits, Instant::now()),
        };
        match protocol {
            Protocol::V311 => code.min(reason::UNSPECIFIED),
            Protocol::V5 => code,
        }
    }

    fn unsubscribe(&self, filter: &str) -> u8 {
        if self.shared.router().unsubscribe(&self.session, filter) {
            reason::SUCCESS
        } else {
            reason::NO_SUBSCRIPTION_EXISTED
        }
    }

    /// Record what the application said about a message.
    pub(crate) fn settle(&mut self, sequence: u64, outcome: Outcome) {
        self.acks.settle(sequence, outcome);
    }

    /// Send the acknowledgements whose turn has come.
    pub(crate) fn flush_acks(&mut self, out: &mut Vec<u8>) -> Result<(), End> {
        while let Some((first, id, outcome)) = self.acks.next_settled() {
            let code = match outcome {
                Outcome::Accepted => reason::SUCCESS,
                Outcome::AcceptedUnheard => reason::NO_MATCHING_SUBSCRIBERS,
                Outcome::Refused(refusal) => reason::refusal(refusal),
                Outcome::Dropped => {
                    counters::add(&self.shared.counting.acks_dropped, 1);
                    return Err(DisconnectReason::AckDropped.into());
                }
            };
            // A refusal ends a QoS 2 exchange in MQTT 5; 3.1.1 does not see it and goes on with PUBREL.
            let goes_on = code < reason::UNSPECIFIED || self.recipient.protocol == Protocol::V311;
            if first == encode::PUBREC && goes_on {
                self.session.lock().received_qos2.insert(id);
            }
            encode::acknowledgement(out, self.recipient.protocol, first, id, code);
        }
        Ok(())
    }
}

fn ack_packet(qos: Qos) -> Option<u8> {
    match qos {
        Qos::AtMostOnce => None,
        Qos::AtLeastOnce => Some(encode::PUBACK),
        Qos::ExactlyOnce => Some(encode::PUBREC),
    }
}

/// Messages received and not yet acknowledged, in the order they came: acknowledgements leave in that order, whenever the
/// application gives them.
#[derive(Debug, Default)]
struct Acks {
    waiting: VecDeque<(u8, u16, Option<Outcome>)>,
    /// Sequence number of the first of `waiting`.
    first: u64,
}

impl Acks {
    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn expect(&mut self, first: u8, id: u16) -> u64 {
        self.waiting.push_back((first, id, None));
        self.first + self.waiting.len() as u64 - 1
    }

    fn settle(&mut self, sequence: u64, outcome: Outcome) {
        let at = sequence.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(entry) = at.and_then(|at| self.waiting.get_mut(at)) {
            entry.2 = Some(outcome);
        }
    }

    fn holds_pubrec(&self, id: u16) -> bool {
        self.waiting
            .iter()
            .any(|entry| entry.0 == encode::PUBREC && entry.1 == id)
    }

    fn next_settled(&mut self) -> Option<(u8, u16, Outcome)> {
        let (first, id, outcome) = *self.waiting.front()?;
        let outcome = outcome?;
        self.waiting.pop_front();
        self.first += 1;
        Some((first, id, outcome))
    }
}

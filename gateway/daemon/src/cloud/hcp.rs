//! Our own protocol on any broker: every frame on its canonical topic.

use bytes::Bytes;
use carrier::{Publish, Qos, Symptom, symptom::Class};
use proto::{
    id::{GatewayId, Name},
    topic::{self, Lane, LinkUp},
};

use super::adapter::{Adapter, At, Heard, Login, Out, Up};

/// The adapter.
#[derive(Debug)]
pub struct Hcp {
    site: Name,
    gateway: GatewayId,
    lane: Lane,
    client_id: String,
    user: Option<(String, String)>,
}

impl Hcp {
    /// For one lane. `user`: name and password at the broker; none: the client certificate says who we are.
    #[must_use]
    pub const fn new(
        site: Name,
        gateway: GatewayId,
        lane: Lane,
        client_id: String,
        user: Option<(String, String)>,
    ) -> Self {
        Self {
            site,
            gateway,
            lane,
            client_id,
            user,
        }
    }
}

impl Adapter for Hcp {
    fn login(&mut self, _: At) -> Login {
        let filter = topic::link_down_filter(&self.site, &self.gateway, self.lane);
        Login {
            client_id: self.client_id.clone(),
            user: self.user.clone(),
            filters: vec![(filter.to_string(), Qos::AtLeastOnce)],
        }
    }

    fn connected(&mut self, _: At, out: &mut Out) {
        out.say(Heard::Ready);
    }

    fn send(&mut self, _: At, up: Up<'_>, out: &mut Out) {
        let qos = match up.meaning.word() {
            LinkUp::Telemetry => Qos::AtMostOnce,
            LinkUp::Hello | LinkUp::Ask | LinkUp::Records | LinkUp::Echo | LinkUp::Done => Qos::AtLeastOnce,
        };
        out.publishes.push_back(Publish {
            topic: up.topic.to_owned(),
            payload: up.frame.to_vec(),
            qos,
            expires: up.meaning.worth(),
        });
    }

    fn heard(&mut self, _: At, topic: &str, payload: &[u8], out: &mut Out) {
        match topic::parse_link_down(topic) {
            Some(at) if (at.site, at.gateway, at.lane) == (self.site, self.gateway, self.lane) => {
                out.say(Heard::Frame {
                    word: at.word,
                    frame: Bytes::copy_from_slice(payload),
                });
            }
            Some(_) | None => {
                let text = format!("a message on {topic:.80}, which is no topic of this gateway's lane");
                out.say(Heard::Symptom(Symptom::new(Class::Protocol, 0, text)));
            }
        }
    }
}

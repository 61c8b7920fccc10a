//! What the cloud sends: replies, services, errors, and notices that something is disabled, deleted or newer. Every
//! request gets its reply; none of them takes anything away.

use carrier::Qos;
use serde::{Deserialize, Serialize};

use super::{
    Alink, codes,
    codes::{CODE_NO_SUCH_SERVICE, CODE_OK, CODE_PARAMETER},
    complain,
    envelope::{Envelope, Identity, Loose, Nothing, Plain, Reply, bytes, devices},
    posts::Way,
    topology::What,
};
use crate::cloud::{
    adapter::{At, Heard, Out},
    wrap::{self, Wrapped},
};

/// The service that brings frames.
const SERVICE: &str = "hf_down";
/// The method of that service.
const SERVICE_METHOD: &str = "thing.service.hf_down";
/// Sub-devices taken out of our topology, and disabled in it: `topo/change`.
const CHANGES_AGAINST: [u64; 2] = [1, 8];
/// The error that speaks of a deleted device, and of a disabled one.
const CODE_DELETED: u32 = 521;
const CODE_DISABLED: u32 = 522;

/// A message, by what it is about.
#[derive(Clone, Copy)]
enum Topic<'a> {
    /// The reply to an event.
    Posted(Way),
    /// The reply to something about sub-devices.
    Asked(What),
    /// Something that wants a reply.
    Wanted(Wanted<'a>),
    /// A frame on the operator's own topic.
    Frame,
    /// An error out of the blue.
    Error,
    /// What the time is.
    Time,
    /// New firmware.
    Upgrade,
    /// Nothing for us.
    Ignored,
}

/// What wants a reply.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// Our service.
    Service,
    /// A service that we do not have.
    OtherService,
    /// A service whose caller waits, with the number of his call.
    Called(&'a str),
    /// A newer configuration.
    Newer,
    /// To be told that a device is disabled or gone.
    Against(&'static str, u32),
    /// To be told that sub-devices are disabled or gone.
    Change,
    /// To be told something good.
    Notice,
}

#[derive(Deserialize)]
struct Change {
    status: Loose,
}

#[derive(Deserialize)]
struct Push {
    #[serde(default)]
    data: PushData,
}

#[derive(Default, Deserialize)]
struct PushData {
    module: Option<String>,
}

#[derive(Serialize)]
struct Progress<'a> {
    step: &'static str,
    desc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'a str>,
}

impl Alink {
    /// What to subscribe. Topics of sub-devices come without: they exist only behind their logins.
    pub(super) fn filters(&self) -> Vec<(String, Qos)> {
        let (names, once) = (&self.names, Qos::AtLeastOnce);
        let sys = [
            "thing/event/+/post_reply",
            "thing/event/property/history/post_reply",
            "thing/service/hf_down",
            "thing/service/property/set",
            "rrpc/request/+",
            "thing/config/push",
            "thing/disable",
            "thing/enable",
            "thing/delete",
        ];
        let mut filters: Vec<(String, Qos)> = sys.into_iter().map(|rest| (names.sys(rest), once)).collect();
        filters.push((names.around("ota/device/upgrade", ""), once));
        filters.push((names.around("ext/ntp", "/response"), Qos::AtMostOnce));
        filters.push((names.around("ext/error", ""), once));
        if self.config.has_user_topic {
            filters.push((names.user(SERVICE), once));
        }
        if !self.config.children.is_empty() {
            let topology = ["get_reply", "add_reply", "change", "add/notify"];
            filters.extend(
                topology
                    .into_iter()
                    .map(|rest| (names.sys(&format!("thing/topo/{rest}")), once)),
            );
            filters.push((
                names.around("ext/session", "/combine/batch_login_reply"),
                Qos::AtMostOnce,
            ));
        }
        filters
    }

    /// Takes a topic apart: whose it is, and what it is about.
    fn parse<'a>(&self, topic: &'a str) -> Option<(Identity, Topic<'a>)> {
        let own = || Identity {
            product_key: self.names.product_key.clone(),
            device_name: self.names.device_name.clone(),
        };
        if let Some(rest) = topic.strip_prefix("/sys/") {
            let (product_key, rest) = rest.split_once('/')?;
            let (device_name, rest) = rest.split_once('/')?;
            let whose = Identity {
                product_key: product_key.to_owned(),
                device_name: device_name.to_owned(),
            };
            let about = about(rest)?;
            return Some((whose, about));
        }
        let names = &self.names;
        let is = |before: &str, after: &str| topic == names.around(before, after);
        let about = if is("ext/error", "") {
            Topic::Error
        } else if is("ext/session", "/combine/batch_login_reply") {
            Topic::Asked(What::Login)
        } else if is("ext/ntp", "/response") {
            Topic::Time
        } else if is("ota/device/upgrade", "") {
            Topic::Upgrade
        } else if topic == names.user(SERVICE) {
            Topic::Frame
        } else {
            return None;
        };
        Some((own(), about))
    }

    pub(super) fn route(&mut self, at: At, topic: &str, payload: &[u8], out: &mut Out) {
        let Some((whose, about)) = self.parse(topic) else {
            return complain(out, format!("a message on a topic that we do not know: {topic}"));
        };
        let child = self.topology.places.get(&whose).copied();
        let own = (&self.names.product_key, &self.names.device_name);
        if child.is_none() && (&whose.product_key, &whose.device_name) != own {
            return complain(out, format!("a message for a device that is not ours: {topic}"));
        }
        match about {
            Topic::Time => return self.heard_time(at, payload, out),
            Topic::Upgrade => return self.upgrade(payload, out),
            Topic::Ignored => return,
            Topic::Posted(_) | Topic::Asked(_) | Topic::Wanted(_) | Topic::Frame | Topic::Error => {}
        }
        let envelope = match Envelope::read(payload) {
            Ok(envelope) => envelope,
            Err(why) => return complain(out, format!("{topic}: {why}")),
        };
        match about {
            Topic::Posted(way) if child.is_none() => {
                let (mut turn, posts, _) = self.split(at, out);
                posts.replied(&mut turn, way, &envelope);
            }
            Topic::Asked(what) if child.is_none() => {
                let (mut turn, _, topology) = self.split(at, out);
                topology.replied(&mut turn, what, &envelope);
            }
            Topic::Frame => {
                self.frame(&envelope, out);
            }
            Topic::Error => self.error(at, &envelope, out),
            Topic::Wanted(wanted) => {
                let code = self.wanted(at, wanted, child, &envelope, out);
                let reply = match wanted {
                    Wanted::Called(call) => self.names.sys(&format!("rrpc/response/{call}")),
                    Wanted::Service
                    | Wanted::OtherService
                    | Wanted::Newer
                    | Wanted::Against(..)
                    | Wanted::Change
                    | Wanted::Notice => format!("{topic}_reply"),
                };
                self.reply(reply, &envelope, code, out);
            }
            Topic::Posted(_) | Topic::Asked(_) | Topic::Time | Topic::Upgrade | Topic::Ignored => {}
        }
    }

    /// Does what is wanted, as far as we do it; what to answer.
    fn wanted(&mut self, at: At, wanted: Wanted<'_>, child: Option<usize>, envelope: &Envelope, out: &mut Out) -> u32 {
        match wanted {
            Wanted::Against(words, code) => {
                self.claim(at, child, code, words, out);
                CODE_OK
            }
            Wanted::Notice => CODE_OK,
            // Sub-devices have no services and no configuration of their own.
            Wanted::Service | Wanted::Called(_) | Wanted::Newer | Wanted::Change if child.is_some() => {
                CODE_NO_SUCH_SERVICE
            }
            Wanted::Called(_) if envelope.method.as_deref() != Some(SERVICE_METHOD) => CODE_NO_SUCH_SERVICE,
            Wanted::Service | Wanted::Called(_) => self.frame(envelope, out),
            Wanted::OtherService => CODE_NO_SUCH_SERVICE,
            Wanted::Newer => {
                out.say(Heard::Newer);
                CODE_OK
            }
            Wanted::Change => self.change(at, envelope, out),
        }
    }

    fn reply(&self, topic: String, envelope: &Envelope, code: u32, out: &mut Out) {
        let reply = Reply {
            id: envelope.their_id(),
            code,
            data: Nothing {},
        };
        out.publish(topic, bytes(&reply), Qos::AtLeastOnce);
    }

    /// A frame of the backend's; what to answer.
    fn frame(&self, envelope: &Envelope, out: &mut Out) -> u32 {
        let wrapped: Wrapped = match Wrapped::deserialize(&envelope.params) {
            Ok(wrapped) => wrapped,
            Err(error) => {
                complain(out, format!("{SERVICE}: {error}"));
                return CODE_PARAMETER;
            }
        };
        match wrapped.open(self.config.lane) {
            Ok(heard) => {
                out.say(heard);
                CODE_OK
            }
            Err(bad) => {
                out.say(bad.into());
                CODE_PARAMETER
            }
        }
    }

    /// An error out of the blue: about a sub-device, or about us.
    fn error(&mut self, at: At, envelope: &Envelope, out: &mut Out) {
        let Some(code) = envelope.code() else {
            return complain(out, "an error without a code");
        };
        let named = devices(&envelope.data);
        let child = named
            .first()
            .and_then(|identity| self.topology.places.get(identity))
            .copied();
        match child {
            Some(child) => {
                let (mut turn, _, topology) = self.split(at, out);
                topology.error(&mut turn, child, code, envelope.words());
            }
            None => {
                let whom = named.first().map_or("", |identity| &identity.device_name);
                out.heard
                    .extend(codes::symptom(code, envelope.words(), whom).map(Heard::Symptom));
            }
        }
    }

    /// The cloud says that somebody is disabled or gone. We go on with him until something signed says so.
    fn claim(&mut self, at: At, child: Option<usize>, code: u32, words: &str, out: &mut Out) {
        match child {
            Some(child) => {
                let (mut turn, _, topology) = self.split(at, out);
                topology.spoken_against(&mut turn, child, code, words);
            }
            None => {
                let whom = &self.names.device_name;
                out.heard.extend(codes::symptom(code, words, whom).map(Heard::Symptom));
            }
        }
    }

    fn change(&mut self, at: At, envelope: &Envelope, out: &mut Out) -> u32 {
        let Ok(change) = Change::deserialize(&envelope.params) else {
            complain(out, "topo/change without a status");
            return CODE_PARAMETER;
        };
        let status: Option<u64> = change.status.number();
        let Some(status) = status.filter(|status| CHANGES_AGAINST.contains(status)) else {
            return CODE_OK;
        };
        let (code, words) = match status {
            1 => (CODE_DELETED, "topo/change: deleted"),
            _ => (CODE_DISABLED, "topo/change: disabled"),
        };
        for identity in devices(&envelope.params) {
            if let Some(child) = self.topology.places.get(&identity).copied() {
                self.claim(at, Some(child), code, words, out);
            }
        }
        CODE_OK
    }

    /// New firmware, says the cloud. Images come signed by the operator and by no other way, so the address in it is not
    /// even looked at, and an error text of the store behind it says nothing about us.
    fn upgrade(&mut self, payload: &[u8], out: &mut Out) {
        let Ok(push) = wrap::json::<Push>(payload) else {
            return complain(out, "ota/device/upgrade cannot be read");
        };
        let progress = Plain {
            id: self.ids.next().to_string(),
            params: Progress {
                step: "-1",
                desc: "images come signed, from the operator's backend",
                module: push
                    .data
                    .module
                    .as_deref()
                    .filter(|module| module.len() <= MODULE_BYTES_MAX),
            },
        };
        let topic = self.names.around("ota/device/progress", "");
        out.publish(topic, bytes(&progress), Qos::AtLeastOnce);
        out.say(Heard::Newer);
    }
}

/// Longest name of a firmware module that is repeated, in bytes.
const MODULE_BYTES_MAX: usize = 64;

/// What stands behind the names in a topic of a device.
fn about(rest: &str) -> Option<Topic<'_>> {
    Some(match rest {
        "thing/event/property/history/post_reply" => Topic::Posted(Way::History),
        "thing/event/hf_up/post_reply" => Topic::Posted(Way::Event),
        "thing/topo/get_reply" => Topic::Asked(What::List),
        "thing/topo/add_reply" => Topic::Asked(What::Add),
        "thing/service/hf_down" => Topic::Wanted(Wanted::Service),
        "thing/config/push" => Topic::Wanted(Wanted::Newer),
        "thing/disable" => Topic::Wanted(Wanted::Against("thing/disable", CODE_DISABLED)),
        "thing/delete" => Topic::Wanted(Wanted::Against("thing/delete", CODE_DELETED)),
        "thing/topo/change" => Topic::Wanted(Wanted::Change),
        "thing/topo/add/notify" | "thing/enable" => Topic::Wanted(Wanted::Notice),
        _ => return about_pattern(rest),
    })
}

fn about_pattern(rest: &str) -> Option<Topic<'_>> {
    // The wildcard of replies to events brings those to events that are not ours, too.
    if rest.starts_with("thing/event/") && rest.ends_with("/post_reply") {
        return Some(Topic::Ignored);
    }
    // What goes into the topic of a reply must be a name and nothing else.
    if let Some(call) = rest.strip_prefix("rrpc/request/") {
        let is_name = !call.is_empty() && call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        return is_name.then_some(Topic::Wanted(Wanted::Called(call)));
    }
    let service = rest.strip_prefix("thing/service/")?;
    let is_name = service.bytes().all(|b| b.is_ascii_alphanumeric() || b"_/".contains(&b));
    (is_name && !service.ends_with("_reply")).then_some(Topic::Wanted(Wanted::OtherService))
}

//! What devices post: properties and events, one by one, many at once, and of the past. The operator's frames are events
//! of the gateway (`hf_up`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    id::GatewayId,
    topic::{Lane, LinkUp},
};
use serde_json::{Map, Value, json};

use super::{Alink, Outcome, Request, TEXT_CHARS_MAX, code, failed, names};
use crate::cloud_sim::{
    broker::{Cx, FrameUp},
    fault::Stage,
    hcp::asked,
};

/// Properties in one message.
const PROPERTIES_MAX: usize = 200;
/// Events in one message.
const EVENTS_MAX: usize = 20;
/// Devices in one message.
const IDENTITIES_MAX: usize = 20;
/// Bytes of a message about the past.
const HISTORY_BYTES_MAX: usize = 200 * 1024;
/// The event in which a frame travels.
const FRAME_EVENT: &str = "hf_up";
/// The event that shows an order to people.
const ORDER_EVENT: &str = "hf_order";

/// One device's part of a message.
struct Part<'a> {
    identity: String,
    properties: usize,
    events: Vec<(&'a str, &'a Value)>,
}

/// `thing/event/property/post`: what the platform does not know of it is dropped, and it says 200.
pub(super) fn properties(params: &Value) -> Outcome {
    if params.as_object().map_or(0, Map::len) > PROPERTIES_MAX {
        return failed(code::PROPERTIES);
    }
    Ok(json!({}))
}

impl Alink {
    /// `thing/event/{event}/post`.
    pub(super) fn event(&mut self, cx: &mut Cx<'_>, request: &Request<'_>, speaker: &str, event: &str) -> Outcome {
        if !request.params["value"].is_object() || !request.params["time"].is_u64() {
            return failed(code::PARAMETER);
        }
        self.one(cx, request.who, speaker, event, &request.params)?;
        Ok(json!({}))
    }

    /// `thing/event/property/history/post`: what happened while nobody could be told.
    pub(super) fn history(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Outcome {
        if request.params.to_string().len() > HISTORY_BYTES_MAX {
            cx.counters.breaches.add();
            return failed(code::PARAMETER);
        }
        let Some(entries) = request.params.as_array() else {
            return failed(code::PARAMETER);
        };
        let parts: Option<Vec<Part<'_>>> = entries.iter().map(|entry| past(request, entry)).collect();
        let Some(parts) = parts else {
            return failed(code::PARAMETER);
        };
        self.all(cx, request, &parts)
    }

    /// `thing/event/property/pack/post`: the gateway and several sub-devices at once.
    pub(super) fn pack(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Outcome {
        let own = part(request.who.to_owned(), &request.params);
        let subs = request.params["subDevices"].as_array();
        let subs = subs.into_iter().flatten().map(|sub| {
            let identity = &sub["identity"];
            let name = names::name(identity["productKey"].as_str()?, identity["deviceName"].as_str()?);
            part(name, sub)
        });
        let parts: Option<Vec<Part<'_>>> = std::iter::once(own).chain(subs).collect();
        let Some(parts) = parts else {
            return failed(code::PARAMETER);
        };
        self.all(cx, request, &parts)
    }

    fn all(&mut self, cx: &mut Cx<'_>, request: &Request<'_>, parts: &[Part<'_>]) -> Outcome {
        let over = if parts.len() > IDENTITIES_MAX {
            Some(code::SUBS)
        } else if parts.iter().map(|part| part.properties).sum::<usize>() > PROPERTIES_MAX {
            Some(code::PROPERTIES)
        } else if parts.iter().map(|part| part.events.len()).sum::<usize>() > EVENTS_MAX {
            Some(code::EVENTS)
        } else {
            None
        };
        if let Some(code) = over {
            cx.counters.breaches.add();
            return failed(code);
        }
        for part in parts {
            let own = part.identity == request.who || self.is_of(&part.identity, request.who);
            if !own {
                return failed(code::NO_TOPOLOGY);
            }
        }
        for part in parts {
            for (event, value) in &part.events {
                self.one(cx, request.who, &part.identity, event, value)?;
            }
        }
        Ok(json!({}))
    }

    /// One event, `{value, time}`.
    fn one(
        &mut self,
        cx: &mut Cx<'_>,
        who: &str,
        speaker: &str,
        event: &str,
        said: &Value,
    ) -> Result<(), (u32, Value)> {
        let value = &said["value"];
        match event {
            FRAME_EVENT if speaker == who => {
                let gateway = self.homes.get(who).map(|home| home.gateway);
                let frame = gateway.and_then(|gateway| frame(gateway, value));
                let frame = frame.ok_or_else(|| (code::SCHEMA, json!({})))?;
                let ask = asked(frame.word, &frame.frame);
                if let Some(code) = ask.and_then(|ask| cx.faults.denies_token(cx.now_ms, Stage::Reply, &ask.token)) {
                    cx.counters.denied.add();
                    return Err((u32::from(code), json!({})));
                }
                cx.up(frame);
            }
            ORDER_EVENT => {
                let (Some(sequence), Some(session)) = (value["seq"].as_u64(), value["session"].as_str()) else {
                    return Err((code::SCHEMA, json!({})));
                };
                let epoch = value["epoch"].as_u64().unwrap_or(0);
                if self
                    .orders
                    .insert((speaker.to_owned(), epoch, sequence, session.to_owned()))
                {
                    cx.counters.orders.add();
                } else {
                    cx.counters.orders_again.add();
                }
            }
            // Whatever else the operator's thing model has.
            _ => {}
        }
        Ok(())
    }
}

/// A frame in its event.
fn frame(gateway: GatewayId, value: &Value) -> Option<FrameUp> {
    let word = value["w"].as_str()?;
    let text = value["f"].as_str().filter(|text| text.len() <= TEXT_CHARS_MAX)?;
    Some(FrameUp {
        gateway,
        lane: Lane::new(u8::try_from(value["l"].as_u64()?).ok()?)?,
        word: LinkUp::ALL.iter().copied().find(|known| known.word() == word)?,
        frame: STANDARD.decode(text).ok()?,
    })
}

/// An entry of the past: everything in it has its time.
fn past<'a>(request: &Request<'_>, entry: &'a Value) -> Option<Part<'a>> {
    let identity = &entry["identity"];
    let (pk, dn) = (identity["productKey"].as_str()?, identity["deviceName"].as_str()?);
    let identity = if pk.is_empty() && dn.is_empty() {
        request.who.to_owned()
    } else {
        names::name(pk, dn)
    };
    let mut part = Part {
        identity,
        properties: 0,
        events: Vec::new(),
    };
    let timed = |value: &Value| value["time"].is_u64();
    for properties in entry["properties"].as_array().into_iter().flatten() {
        let properties = properties.as_object()?;
        properties.values().all(timed).then_some(())?;
        part.properties += properties.len();
    }
    for events in entry["events"].as_array().into_iter().flatten() {
        for (name, value) in events.as_object()? {
            timed(value).then_some(())?;
            part.events.push((name, value));
        }
    }
    Some(part)
}

/// A device's part of a pack.
fn part(identity: String, entry: &Value) -> Option<Part<'_>> {
    let events = entry["events"].as_object();
    Some(Part {
        identity,
        properties: entry["properties"].as_object().map_or(0, Map::len),
        events: events
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str(), value))
            .collect(),
    })
}

//! What the page is told of the engine: bounded, whatever the site's size, for it is made on the engine's thread. Times are
//! moments of the core's own clock, so that an answer changes only when something happened.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use gateway_core::{Gateway, Instant, Session, config::DeviceConfig, health::Capability, ring::Staged};
use proto::{
    id::{DeviceId, Kind, OutletId},
    message::{Fault, OutletState},
};
use serde_json::{Value, json};

use crate::control::{Look, Query};

/// Most devices that are named: those with something to see come first.
const DEVICES_MAX: usize = 120;
/// Most open sessions that are named, the newest first.
const OPEN_MAX: usize = 120;
/// Most ended sessions that are named, the newest first.
const ENDED_MAX: usize = 20;
/// Most remarks of the hub that are named.
const REMARKS_MAX: usize = 50;
/// First digits of a token's hash: enough to see that two are the same, too few to look it up.
const TOKEN_DIGITS: usize = 8;

/// The answer to [`Query::Page`].
#[must_use]
pub fn look(look: &Look<'_>) -> Value {
    let Look { gateway, now, .. } = *look;
    let time = gateway.timeline();
    let config = gateway.config();
    let all = all(look);
    json!({
        "now": {
            "wall_s": now.wall(),
            "clock": now.quality.word(),
            "mono_ms": now.mono_ms,
            "at_ms": time.at(&now).0,
            "boot": time.boot,
        },
        "status": look.answer(&Query::Status),
        "view": {
            "modes": modes(gateway),
            "link": look.link,
            "clouds": clouds(look),
            "kinds": kinds(gateway, &all),
            "devices": devices(&all),
            "sessions": sessions(gateway),
            "money": {
                "currency": config.instruments.currency,
                "exposure": gateway.risk().exposure().0,
                "site_budget": config.limits.site_budget.0,
                "held": gateway.book().holds().map(|(_, _, amount)| amount.0).sum::<i64>(),
            },
            "outbox": {
                "waiting": gateway.outbox().waiting(),
                "since_ms": unreceipted(gateway, time.at(&now)),
                "records": gateway.outbox().head(),
                "receipted": gateway.outbox().cursor(),
            },
            "aside": aside(gateway),
            "rings": rings(gateway),
            "rings_back": crate::control::rings_back(gateway),
            "remarks": remarks(gateway),
            "disk_scarce": gateway.is_disk_scarce(),
            "mass_denial": gateway.health().breaker.latched.is_some(),
            "epoch_expected": look.epoch_expected,
            "list_tokens": gateway.trust().tokens(),
            "list_revision": gateway.trust().revisions().0,
        },
    })
}

/// Since when records wait with none of them acknowledged.
fn unreceipted(gateway: &Gateway, at: Instant) -> Option<u64> {
    let waited_ms = gateway.health().unreceipted_ms(at);
    (gateway.outbox().waiting() > 0).then(|| at.0.saturating_sub(waited_ms))
}

fn modes(gateway: &Gateway) -> Value {
    let rows = Capability::ALL.into_iter().map(|capability| {
        let track = gateway.health().of(capability);
        json!({
            "capability": capability.word(),
            "mode": track.mode.word(),
            "since_ms": track.since.0,
            "signal": track.last.map(|signal| format!("{signal:?}")),
        })
    });
    rows.collect()
}

/// The clouds without what changes by the second.
fn clouds(look: &Look<'_>) -> Value {
    let Value::Array(rows) = look.board.status() else {
        return json!([]);
    };
    let kept = [
        "name",
        "kind",
        "stage",
        "goes_first",
        "doubted",
        "trouble",
        "trouble_class",
    ];
    let rows = rows.into_iter().map(|mut row| {
        if let Value::Object(fields) = &mut row {
            fields.retain(|name, _| kept.contains(&name.as_str()));
        }
        row
    });
    rows.collect()
}

const fn state_word(state: OutletState) -> &'static str {
    match state {
        OutletState::Free => "free",
        OutletState::Preparing => "preparing",
        OutletState::Busy => "busy",
        OutletState::Faulted => "faulted",
        OutletState::Updating => "updating",
        OutletState::Other => "other",
    }
}

/// The states that are counted, in the order in which they are shown.
pub(super) const STATES: [&str; 7] = ["free", "preparing", "busy", "faulted", "updating", "other", AWAY];
/// What a device last said of its outlets is worth nothing while it is not connected.
const AWAY: &str = "away";

/// A device as it is now.
struct Device<'a> {
    id: &'a DeviceId,
    config: &'a DeviceConfig,
    /// `None`: a broker has the devices, and there is no connection to it.
    connected: Option<bool>,
    outlets: Vec<(OutletId, OutletState, Fault)>,
}

/// Every device, in one pass.
fn all<'a>(look: &Look<'a>) -> Vec<Device<'a>> {
    let gateway = look.gateway;
    let mut told: BTreeMap<&DeviceId, Vec<(OutletId, OutletState, Fault)>> = BTreeMap::new();
    for (id, outlet, state, fault) in gateway.outlets() {
        told.entry(id).or_default().push((outlet, state, fault));
    }
    let devices = gateway.config().devices.iter().map(|(id, config)| Device {
        id,
        config,
        connected: look.port.connected(std::iter::once(id)).map(|count| count > 0),
        outlets: told.remove(id).unwrap_or_default(),
    });
    devices.collect()
}

/// Devices, connections and outlets of each kind.
fn kinds(gateway: &Gateway, all: &[Device<'_>]) -> Value {
    let rows = Kind::SERVED.into_iter().map(|kind| {
        let (mut devices, mut outlets, mut told, mut connected) = (0_u32, 0_u32, 0_u32, Some(0_u32));
        let mut states = STATES.map(|word| (word, 0_u32));
        for device in all.iter().filter(|device| device.config.kind == kind) {
            devices += 1;
            outlets += u32::from(device.config.outlets);
            connected = connected.zip(device.connected).map(|(count, is)| count + u32::from(is));
            for (_, state, _) in &device.outlets {
                told += 1;
                let now = if device.connected == Some(false) {
                    AWAY
                } else {
                    state_word(*state)
                };
                states
                    .iter_mut()
                    .filter(|(word, _)| *word == now)
                    .for_each(|(_, count)| *count += 1);
            }
        }
        let states: serde_json::Map<String, Value> = states
            .iter()
            .map(|(word, count)| ((*word).to_owned(), json!(count)))
            .collect();
        let open = gateway.sessions().open().filter(|session| session.request.kind == kind);
        json!({
            "kind": kind.word(),
            "devices": devices,
            "connected": connected,
            "outlets": outlets,
            "silent": outlets.saturating_sub(told),
            "states": states,
            "sessions": open.count(),
        })
    });
    rows.collect()
}

/// The devices with something to see: faults first, then those that are away, then those that are in use.
fn devices(all: &[Device<'_>]) -> Value {
    let rank = |device: &&Device<'_>| {
        let has = |wanted: OutletState| device.outlets.iter().any(|(_, state, _)| *state == wanted);
        match device.connected {
            _ if has(OutletState::Faulted) || has(OutletState::Other) => 0,
            Some(false) => 1,
            Some(true) | None if has(OutletState::Busy) || has(OutletState::Preparing) => 2,
            Some(true) | None => 3,
        }
    };
    let mut rows: Vec<&Device<'_>> = all.iter().collect();
    rows.sort_by_key(rank);
    let left = rows.len().saturating_sub(DEVICES_MAX);
    let row = |device: &Device<'_>| {
        let outlet = |(outlet, state, fault): &(OutletId, OutletState, Fault)| {
            let fault = (*fault != Fault::None).then(|| format!("{fault:?}"));
            json!({"outlet": outlet, "state": state_word(*state), "fault": fault})
        };
        json!({
            "device": device.id.as_str(),
            "kind": device.config.kind.word(),
            "connected": device.connected,
            "outlets": device.outlets.iter().map(outlet).collect::<Vec<_>>(),
        })
    };
    let rows: Vec<Value> = rows.into_iter().take(DEVICES_MAX).map(row).collect();
    json!({"rows": rows, "left": left})
}

/// One pass over all of them, which keeps no more than it shows.
fn sessions(gateway: &Gateway) -> Value {
    let (mut open, mut ended) = (Newest::new(OPEN_MAX), Newest::new(ENDED_MAX));
    for session in gateway.sessions().iter() {
        let kept = if session.has_ended() { &mut ended } else { &mut open };
        kept.offer(session);
    }
    let left = open.left;
    json!({"open": open.rows(), "open_left": left, "ended": ended.rows()})
}

/// The newest of many sessions.
struct Newest<'a> {
    most: usize,
    /// By when they were asked for, the oldest on top.
    kept: BinaryHeap<Reverse<(Instant, usize)>>,
    sessions: Vec<&'a Session>,
    left: usize,
}

impl<'a> Newest<'a> {
    fn new(most: usize) -> Self {
        Self {
            most,
            kept: BinaryHeap::new(),
            sessions: Vec::new(),
            left: 0,
        }
    }

    fn offer(&mut self, session: &'a Session) {
        let at = session.requested_at;
        if self.kept.len() < self.most {
            self.kept.push(Reverse((at, self.sessions.len())));
            self.sessions.push(session);
            return;
        }
        self.left += 1;
        if let Some(mut oldest) = self.kept.peek_mut().filter(|oldest| oldest.0.0 < at) {
            let place = oldest.0.1;
            *oldest = Reverse((at, place));
            self.sessions[place] = session;
        }
    }

    fn rows(mut self) -> Vec<Value> {
        self.sessions.sort_by_key(|session| Reverse(session.requested_at));
        self.sessions.into_iter().map(session_row).collect()
    }
}

fn session_row(session: &Session) -> Value {
    let terms = session.terms.as_ref();
    let token = session.request.token.to_string();
    json!({
        "session": session.request.session.to_string(),
        "device": session.request.device.as_str(),
        "outlet": session.request.outlet,
        "kind": session.request.kind.word(),
        "state": crate::control::state(session),
        "since_ms": session.requested_at.0,
        "account": terms.map(|terms| terms.account),
        "token": token.get(..TOKEN_DIGITS).unwrap_or(&token),
        "rule": session.rule.map(|rule| rule.step()),
        "refused": session.refused.map(|reason| reason.word()),
        "unsecured": terms.map(|terms| terms.unsecured && !session.online),
        "units": session.register_last.since(session.register_start).0,
        "hold": terms.map(|terms| terms.money_max.0),
        "amount": session.closing.map(|_| session.amount.0),
    })
}

/// What is tried by some devices, without what changes by the second.
fn rings(gateway: &Gateway) -> Value {
    let rows = gateway.rings().iter().map(|(what, ring)| {
        json!({
            "what": what.word(),
            "revision": ring.revision,
            "reach": ring.reach.word(),
            "device": ring.device.as_str(),
            "kind": ring.kind.word(),
            "since_ms": ring.since.0,
            "held": ring.is_held,
            "requests": ring.requests,
            "worse": ring.worse,
        })
    });
    rows.collect()
}

/// What waits for an operator's decision.
fn aside(gateway: &Gateway) -> Value {
    let trust = gateway.trust();
    let rows = [
        ("list", trust.aside().map(|aside| aside.list.head().revision)),
        ("tariffs", trust.tariffs_aside().map(|table| table.revision)),
        ("policy", gateway.policy_aside().map(|policy| policy.revision)),
        (
            "config",
            Some(gateway.aside_revision(Staged::Limits)).filter(|revision| *revision > 0),
        ),
    ];
    let rows = rows.into_iter().filter_map(|(what, revision)| {
        let revision = revision?;
        // What is on its way needs nobody.
        if gateway
            .rings()
            .iter()
            .any(|(row, ring)| row.word() == what && ring.revision == revision)
        {
            return None;
        }
        Some(json!({"what": what, "revision": revision}))
    });
    rows.collect()
}

/// Records that the hub did not simply book.
fn remarks(gateway: &Gateway) -> Value {
    let marks = gateway.outbox().marks();
    let rows: Vec<Value> = marks
        .map(|(sequence, mark)| json!({"record": sequence, "is": crate::control::mark_word(mark)}))
        .collect();
    let count = rows.len();
    let rows: Vec<Value> = rows.into_iter().rev().take(REMARKS_MAX).collect();
    json!({"rows": rows, "count": count})
}

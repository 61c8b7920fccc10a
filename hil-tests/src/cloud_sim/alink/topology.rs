//! Which devices belong to which gateway, and which of them are logged in.

use serde_json::{Map, Value, json};

use super::{Alink, Lately, MINUTE_MS, Outcome, Request, code, failed, names};
use crate::cloud_sim::{
    broker::Cx,
    fault::{Fault, Of, Stage},
};

/// Devices in one request for the topology.
const ADDED_MAX: usize = 30;
/// Devices in one login or logout.
const BATCH_MAX: usize = 50;
/// Logins of one device in a minute.
const LOGINS_A_MINUTE: usize = 5;
/// Logins of all devices of a gateway in a second.
const LOGINS_A_SECOND: usize = 200;

/// A device behind a gateway.
#[derive(Debug)]
pub(super) struct Sub {
    triple: names::Triple,
    /// Whose it is.
    gateway: Option<String>,
    /// On whose connection it is logged in.
    pub(super) online: Option<String>,
    disabled: bool,
    logins: Lately,
}

impl Sub {
    pub(super) fn new(triple: &names::Triple) -> Self {
        Self {
            triple: triple.clone(),
            gateway: None,
            online: None,
            disabled: false,
            logins: Lately::default(),
        }
    }

    /// Whether it belongs to this gateway.
    pub(super) fn is_of(&self, who: &str) -> bool {
        self.gateway.as_deref() == Some(who)
    }

    fn shown(&self) -> Value {
        json!({ "productKey": self.triple.product_key, "deviceName": self.triple.device_name })
    }
}

/// The device of one entry.
fn named(entry: &Value) -> Option<String> {
    Some(names::name(
        entry["productKey"].as_str()?,
        entry["deviceName"].as_str()?,
    ))
}

fn shown(entry: &Map<String, Value>) -> Value {
    json!({ "productKey": entry.get("productKey"), "deviceName": entry.get("deviceName") })
}

/// Carries entries out all or none: the offenders are named.
fn atomic(entries: &[Value], judge: impl FnMut(&Value) -> Result<(), u32>) -> Result<(), (u32, Value)> {
    let judged: Vec<Result<(), u32>> = entries.iter().map(judge).collect();
    let Some(first) = judged.iter().find_map(|judged| judged.err()) else {
        return Ok(());
    };
    let bad = entries.iter().zip(&judged).filter(|(_, judged)| judged.is_err());
    let bad: Vec<Value> = bad.filter_map(|(entry, _)| entry.as_object().map(shown)).collect();
    Err((first, json!(bad)))
}

impl Alink {
    /// `thing/topo/..`
    pub(super) fn topology(&mut self, cx: &mut Cx<'_>, request: &Request<'_>, verb: &str) -> Outcome {
        match verb {
            "get" => {
                let own = self.subs.values().filter(|sub| sub.is_of(request.who));
                Ok(own.map(Sub::shown).collect())
            }
            "add" => self.add(cx, request),
            "delete" => {
                let entries = request.params.as_array().cloned().unwrap_or_default();
                for name in entries.iter().filter_map(named) {
                    if let Some(sub) = self.subs.get_mut(&name).filter(|sub| sub.is_of(request.who)) {
                        (sub.gateway, sub.online) = (None, None);
                    }
                }
                Ok(json!({}))
            }
            _ => failed(code::TOPIC),
        }
    }

    fn add(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Outcome {
        let entries = request.params.as_array().cloned().unwrap_or_default();
        if entries.is_empty() || entries.len() > ADDED_MAX {
            cx.counters.breaches.add();
            return failed(code::PARAMETER);
        }
        atomic(&entries, |entry| {
            let name = named(entry).ok_or(code::PARAMETER)?;
            if name == request.who {
                return Err(code::SELF);
            }
            let sub = self.subs.get(&name).ok_or(code::NOT_FOUND)?;
            self.denied(cx, &sub.triple.device_name)?;
            let signed = entry
                .as_object()
                .is_some_and(|entry| names::is_signed(&sub.triple, entry));
            signed.then_some(()).ok_or(code::TOPOLOGY_SIGN)
        })?;
        for name in entries.iter().filter_map(named) {
            if let Some(sub) = self.subs.get_mut(&name) {
                sub.gateway = Some(request.who.to_owned());
            }
        }
        Ok(entries.iter().filter_map(Value::as_object).map(shown).collect())
    }

    /// Devices that were found, or that want to be registered: known ones are.
    pub(super) fn registered(&self, request: &Request<'_>) -> Outcome {
        let entries = request.params.as_array().cloned().unwrap_or_default();
        if entries.is_empty() || entries.len() > ADDED_MAX {
            return failed(code::PARAMETER);
        }
        atomic(&entries, |entry| {
            let known = named(entry).is_some_and(|name| self.subs.contains_key(&name));
            known.then_some(()).ok_or(code::NOT_FOUND)
        })?;
        Ok(json!({}))
    }

    /// `combine/..`
    pub(super) fn session(&mut self, cx: &mut Cx<'_>, request: &Request<'_>, verb: &str) -> Outcome {
        match verb {
            "login" => self.login(cx, request, std::slice::from_ref(&request.params)),
            "batch_login" => {
                let entries = request.params["deviceList"].as_array().cloned().unwrap_or_default();
                self.login(cx, request, &entries)
            }
            "logout" => Ok(self.logout(request, std::slice::from_ref(&request.params))),
            "batch_logout" => {
                let entries = request.params.as_array().cloned().unwrap_or_default();
                if entries.len() > BATCH_MAX {
                    return failed(code::PARAMETER);
                }
                Ok(self.logout(request, &entries))
            }
            _ => failed(code::TOPIC),
        }
    }

    fn login(&mut self, cx: &mut Cx<'_>, request: &Request<'_>, entries: &[Value]) -> Outcome {
        if entries.is_empty() || entries.len() > BATCH_MAX {
            cx.counters.breaches.add();
            return failed(code::PARAMETER);
        }
        let (who, now_ms) = (request.who, cx.now_ms);
        let lately = self.logins.entry(who.to_owned()).or_default();
        if !entries.iter().all(|_| lately.allows(now_ms, 1_000, LOGINS_A_SECOND)) {
            cx.counters.throttled.add();
            return failed(code::TOO_MANY);
        }
        let online = self
            .subs
            .values()
            .filter(|sub| sub.online.as_deref() == Some(who))
            .count();
        if online + entries.len() > self.options.subs_max {
            return failed(code::TOO_MANY_SUBS);
        }
        atomic(entries, |entry| self.judge_login(cx, who, entry))?;
        let mut data = Vec::new();
        for name in entries.iter().filter_map(named) {
            let Some(sub) = self.subs.get_mut(&name) else { continue };
            cx.counters.sub_logins.add();
            data.push(sub.shown());
            let elsewhere = sub.online.replace(who.to_owned()).filter(|before| before != who);
            let device = sub.triple.device_name.clone();
            if let Some(before) = elsewhere {
                self.session_error(cx, &before, &name, code::ELSEWHERE);
            }
            self.end_at_once(cx, who, &name, &device);
        }
        if data.len() == 1 && request.topic.ends_with("/login") {
            return Ok(data.remove(0));
        }
        Ok(json!(data))
    }

    /// A denial of a session itself is told after a login that succeeded: log in, and be thrown out.
    fn end_at_once(&mut self, cx: &mut Cx<'_>, who: &str, name: &str, device: &str) {
        let code = cx
            .faults
            .denies(cx.now_ms, Stage::Reply, Of::Device, device)
            .map(u32::from);
        if let Some(code) = code.filter(|code| is_session_code(*code)) {
            cx.counters.denied.add();
            if let Some(sub) = self.subs.get_mut(name) {
                sub.online = None;
            }
            self.session_error(cx, who, name, code);
        }
    }

    fn judge_login(&mut self, cx: &Cx<'_>, who: &str, entry: &Value) -> Result<(), u32> {
        let name = named(entry).ok_or(code::PARAMETER)?;
        let device = entry["deviceName"].as_str().unwrap_or_default();
        self.denied(cx, device)?;
        let sub = self.subs.get_mut(&name).ok_or(code::NOT_FOUND)?;
        if !sub.logins.allows(cx.now_ms, MINUTE_MS, LOGINS_A_MINUTE) {
            cx.counters.throttled.add();
            return Err(code::TOO_MANY);
        }
        if !matches!(entry["cleanSession"].as_str(), Some("true" | "false")) {
            return Err(code::PARAMETER);
        }
        let signed = entry
            .as_object()
            .is_some_and(|entry| names::is_signed(&sub.triple, entry));
        if !signed {
            return Err(code::SIGN);
        }
        if sub.gateway.as_deref() != Some(who) {
            return Err(code::NO_TOPOLOGY);
        }
        if sub.disabled { Err(code::FORBIDDEN) } else { Ok(()) }
    }

    fn denied(&self, cx: &Cx<'_>, device: &str) -> Result<(), u32> {
        let code = cx
            .faults
            .denies(cx.now_ms, Stage::Reply, Of::Device, device)
            .map(u32::from);
        match code.filter(|code| !is_session_code(*code)) {
            Some(code) => {
                cx.counters.denied.add();
                Err(code)
            }
            None => Ok(()),
        }
    }

    fn logout(&mut self, request: &Request<'_>, entries: &[Value]) -> Value {
        for name in entries.iter().filter_map(named) {
            if let Some(sub) = self
                .subs
                .get_mut(&name)
                .filter(|sub| sub.online.as_deref() == Some(request.who))
            {
                sub.online = None;
            }
        }
        entries.iter().filter_map(Value::as_object).map(shown).collect()
    }

    /// What the platform says of devices without being asked: so many are disabled, all are forgotten.
    pub(super) fn unsigned_claims(&mut self, cx: &mut Cx<'_>) {
        let wanted = cx.faults.find(cx.now_ms, |fault| match fault {
            Fault::MassDisable(devices) => Some(*devices as usize),
            _ => None,
        });
        for (i, (name, sub)) in self.subs.iter_mut().enumerate() {
            let disabled = wanted.is_some_and(|wanted| i < wanted);
            if disabled == std::mem::replace(&mut sub.disabled, disabled) {
                continue;
            }
            let (Some(who), Some((dn, pk))) = (sub.gateway.clone(), name.split_once('&')) else {
                continue;
            };
            let verb = if disabled { "disable" } else { "enable" };
            if disabled {
                cx.counters.denied.add();
                sub.online = None;
            }
            let said = json!({ "id": "1", "version": "1.0", "params": {}, "method": format!("thing.{verb}") });
            cx.tell(&who, format!("/sys/{pk}/{dn}/thing/{verb}"), said.to_string());
        }
        let wiped = cx.faults.has(cx.now_ms, &Fault::TopoWipe);
        if wiped && !std::mem::replace(&mut self.wiped, true) {
            self.wipe(cx);
        }
        self.wiped = wiped;
    }

    fn wipe(&mut self, cx: &mut Cx<'_>) {
        for (who, home) in &self.homes {
            let own = self.subs.values_mut().filter(|sub| sub.gateway.as_ref() == Some(who));
            let gone: Vec<Value> = own
                .map(|sub| {
                    (sub.gateway, sub.online) = (None, None);
                    sub.shown()
                })
                .collect();
            if gone.is_empty() {
                continue;
            }
            let triple = &home.triple;
            let topic = format!("/sys/{}/{}/thing/topo/change", triple.product_key, triple.device_name);
            let said = json!({
                "id": "1", "version": "1.0", "method": "thing.topo.change",
                "params": { "status": 1, "subList": gone },
            });
            cx.counters.denied.add();
            cx.tell(who, topic, said.to_string());
        }
    }
}

/// Codes that end a session rather than refuse a login.
const fn is_session_code(code: u32) -> bool {
    matches!(code, code::NO_SESSION | code::ELSEWHERE)
}

//! What the platform says of its own accord: services invoked, firmware and configuration offered, the time.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Alink, Outcome, Request, TEXT_CHARS_MAX, code, failed};
use crate::cloud_sim::{
    broker::{Cx, FrameDown},
    fault::Fault,
};

/// The service in which the operator's frames travel.
const FRAME_SERVICE: &str = "hf_down";
/// The access key in links to the object store: on 2023-11-12 it "did not exist".
const ACCESS_KEY: &str = "LTAI5tHoldfastSim";

impl Alink {
    /// Invokes the service that brings a frame.
    pub(super) fn invoke(&mut self, cx: &mut Cx<'_>, down: &FrameDown) {
        let id = self.id();
        let home = self.homes.iter().find(|(_, home)| home.gateway == down.gateway);
        let Some((who, home)) = home else { return };
        let frame = STANDARD.encode(&down.frame);
        let (pk, dn) = (&home.triple.product_key, &home.triple.device_name);
        // What is longer than a service's text goes by a topic of the operator's own.
        let topic = if frame.len() > TEXT_CHARS_MAX {
            format!("/{pk}/{dn}/user/{FRAME_SERVICE}")
        } else {
            format!("/sys/{pk}/{dn}/thing/service/{FRAME_SERVICE}")
        };
        let said = json!({
            "id": id, "version": "1.0", "method": format!("thing.service.{FRAME_SERVICE}"),
            "params": { "w": down.word.word(), "l": down.lane.number(), "f": frame },
        });
        cx.tell(who, topic, said.to_string());
    }

    /// Whoever says what it runs is offered what there is, again after every login.
    pub(super) fn firmware(&self, cx: &mut Cx<'_>, who: &str, pk: &str, dn: &str) {
        let (Some(version), Some(store)) = (&self.options.firmware, &self.options.store) else {
            return;
        };
        let said = json!({
            "code": "1000", "id": cx.now_ms, "message": "success",
            "data": {
                "size": 432_945, "version": version, "isDiff": 0, "module": "default",
                "url": signed_link(store, &format!("{version}.bin")),
                "md5": "93230c3bde425a9d7984a594ac55ea1e", "sign": "93230c3bde425a9d7984a594ac55ea1e", "signMethod": "Md5",
            },
        });
        cx.tell(who, format!("/ota/device/upgrade/{pk}/{dn}"), said.to_string());
    }

    /// `thing/config/get`.
    pub(super) fn config(&self, request: &Request<'_>) -> Outcome {
        let asked = (&request.params["configScope"], &request.params["getType"]);
        if asked != (&json!("product"), &json!("file")) {
            return failed(code::PARAMETER);
        }
        let Some(store) = &self.options.store else {
            return failed(code::NO_CONFIG);
        };
        Ok(json!({
            "configId": "1", "configSize": 8, "sign": "0", "signMethod": "Sha256", "getType": "file",
            "url": signed_link(store, "config.json"),
        }))
    }

    /// Tells every gateway that there is another configuration.
    pub(super) fn push_config(&mut self, cx: &mut Cx<'_>) {
        let id = self.id();
        for (who, home) in &self.homes {
            let topic = format!(
                "/sys/{}/{}/thing/config/push",
                home.triple.product_key, home.triple.device_name
            );
            let said = json!({
                "id": id, "version": "1.0", "method": "thing.config.push",
                "params": {
                    "configId": id, "configSize": 8, "sign": "0", "signMethod": "Sha256", "getType": "file",
                    "url": self.options.store.as_deref().map(|store| signed_link(store, "config.json")),
                },
            });
            cx.tell(who, topic, said.to_string());
        }
    }

    /// Whether a device belongs to a gateway.
    pub(super) fn is_of(&self, device: &str, who: &str) -> bool {
        self.subs.get(device).is_some_and(|sub| sub.is_of(who))
    }
}

/// A link that the object store takes for a while, from whoever has it.
fn signed_link(store: &str, file: &str) -> String {
    format!("{store}/{file}?Expires=1893456000&OSSAccessKeyId={ACCESS_KEY}&Signature=c2lt&security-token=sim")
}

/// NTP over MQTT.
pub(super) fn time(cx: &mut Cx<'_>, who: &str, pk: &str, dn: &str, payload: &[u8]) {
    let asked: Value = serde_json::from_slice(payload).unwrap_or_default();
    let skew_ms = cx.faults.find(cx.now_ms, |fault| match fault {
        Fault::ClockSkew(ms) => Some(*ms),
        _ => None,
    });
    let now_ms = cx.wall_ms.saturating_add_signed(skew_ms.unwrap_or(0)).to_string();
    let said = json!({
        "deviceSendTime": asked["deviceSendTime"], "serverRecvTime": now_ms, "serverSendTime": now_ms,
    });
    cx.reply(who, format!("/ext/ntp/{pk}/{dn}/response"), said.to_string());
}

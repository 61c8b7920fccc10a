//! Who may connect to the hub, and what they may say and hear: a gateway, with its password, under its own prefix, on the
//! lane that its client id names.

use std::collections::BTreeMap;

use mqtt_endpoint::{Access, ConnectDenied, ConnectRequest};
use proto::{
    id::GatewayId,
    seal::PairSecret,
    topic::{self, Lane},
};
use subtle::ConstantTimeEq;

use crate::config::GatewayConfig;

/// The rules, made once from the configuration.
#[derive(Debug)]
pub struct GatewayAccess {
    gateways: BTreeMap<GatewayId, GatewayConfig>,
}

impl GatewayAccess {
    /// Rules for these gateways.
    #[must_use]
    pub const fn new(gateways: BTreeMap<GatewayId, GatewayConfig>) -> Self {
        Self { gateways }
    }

    fn find(&self, client_id: &str) -> Option<(GatewayId, Lane, &GatewayConfig)> {
        let (id, lane) = topic::parse_link_client(client_id)?;
        self.gateways.get(&id).map(|gateway| (id, lane, gateway))
    }
}

impl Access for GatewayAccess {
    fn connect(&self, request: &ConnectRequest<'_>) -> Result<(), ConnectDenied> {
        if request.username != Some(request.client_id) {
            return Err(ConnectDenied::BadCredentials);
        }
        let (_, _, gateway) = self.find(request.client_id).ok_or(ConnectDenied::BadCredentials)?;
        if is_password(&gateway.secret, request.password.unwrap_or_default()) {
            Ok(())
        } else {
            Err(ConnectDenied::BadCredentials)
        }
    }

    fn may_publish(&self, client_id: &str, topic: &str) -> bool {
        let (Some((id, lane, config)), Some(at)) = (self.find(client_id), topic::parse_link_up(topic)) else {
            return false;
        };
        (at.gateway, at.lane) == (id, lane) && at.site == config.site
    }

    fn may_subscribe(&self, client_id: &str, filter: &str) -> bool {
        let Some((id, lane, config)) = self.find(client_id) else {
            return false;
        };
        filter == topic::link_down_filter(&config.site, &id, lane).as_str()
            || topic::parse_link_down(filter)
                .is_some_and(|at| (at.gateway, at.lane) == (id, lane) && at.site == config.site)
    }

    fn intercepts(&self, topic: &str) -> bool {
        topic::parse_link_up(topic).is_some()
    }
}

fn is_password(secret: &PairSecret, given: &[u8]) -> bool {
    secret.password().as_bytes().ct_eq(given).into()
}

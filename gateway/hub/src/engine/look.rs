//! What the engine tells people who look.

use std::time::Instant;

use proto::id::GatewayId;
use tracing::{error, info, warn};

use super::{Engine, Query};
use crate::{
    core::{Alarm, GatewayRow},
    export::{self, GatewayStatus, Status},
    judgements,
    links::Link,
    orders,
    reports::GatewayReport,
};

impl Engine {
    pub(super) fn answer(&mut self, query: Query) {
        // Whoever asked may be gone by now.
        match query {
            Query::Orders(reply) => drop(reply.send(orders::lines(&self.hub))),
            Query::Status(reply) => drop(reply.send(self.status())),
            Query::Gateways(reply) => drop(reply.send(self.gateways())),
            Query::Balances(reply) => drop(reply.send(export::balances(&self.hub))),
            Query::Holds(reply) => drop(reply.send(export::holds(&self.hub))),
            Query::Quarantine(reply) => drop(reply.send(export::quarantine(&self.hub))),
            Query::Disputes(reply) => drop(reply.send(export::disputes(&self.hub))),
            Query::Artifacts(reply) => {
                let parts = self.press.everything(&self.hub);
                drop(reply.send(parts.map_err(|error| error.to_string())));
            }
            Query::Sessions(reply) => drop(reply.send(judgements::sessions(&self.hub))),
            Query::Losses(reply) => drop(reply.send(judgements::losses(&self.hub))),
            Query::Cases(reply) => drop(reply.send(judgements::cases(&self.hub))),
        }
    }

    fn status(&self) -> Status {
        let list = self.hub.list();
        Status {
            boot: self.hub.boot(),
            listen: self.listen.clone(),
            issuer_key: self.press.root_key().to_string(),
            signing_key: self.press.key().to_string(),
            keys_epoch: self.hub.keys().map_or(0, |keys| keys.epoch),
            list_revision: list.map_or(0, |list| list.revision),
            revocations_revision: self.hub.revocations_revision(),
            tariffs_revision: self.hub.tariff_table().map_or(0, |table| table.revision),
            tokens: list.map_or(0, |list| list.entries.len() as u64),
            balanced: self.hub.book().is_balanced(),
            gateways: self
                .links
                .0
                .keys()
                .map(|gateway| self.gateway_status(gateway))
                .collect(),
        }
    }

    fn gateways(&self) -> Vec<GatewayReport> {
        let now = Instant::now();
        let unknown = GatewayRow::default();
        let row = |(gateway, link): (&GatewayId, &Link)| {
            let row = self.hub.gateways().get(gateway).unwrap_or(&unknown);
            GatewayReport::new(gateway, row, link.is_greeted(now), &link.heard, now)
        };
        self.links.0.iter().map(row).collect()
    }

    fn gateway_status(&self, gateway: &GatewayId) -> GatewayStatus {
        let row = self.hub.gateways().get(gateway).cloned().unwrap_or_default();
        let link = self.links.0.get(gateway);
        let counts = link.map(|link| link.counts).unwrap_or_default();
        GatewayStatus {
            gateway: gateway.to_string(),
            connected: link.is_some_and(|link| link.is_greeted(Instant::now())),
            epoch: row.epoch,
            boot: row.boot,
            upto: row.upto,
            hash: row.hash.to_string(),
            records: row.booked,
            quarantined: row.quarantined,
            disputes: row.disputed,
            duplicates: counts.duplicates,
            answers: counts.answers,
            frames: counts.frames,
            frames_bad: counts.frames_bad,
        }
    }
}

pub(super) fn report(alarm: &Alarm) {
    match alarm {
        Alarm::Quarantined { at, .. } => error!(gateway = %at.gateway, %alarm, "record quarantined"),
        Alarm::Disputed { at, .. } => warn!(gateway = %at.gateway, %alarm, "charge disputed"),
        Alarm::Fenced { gateway, .. } => error!(%gateway, %alarm, "gateway fenced"),
        Alarm::Version { gateway, .. } => error!(%gateway, %alarm, "no version in common"),
        Alarm::Upload { gateway, .. } => warn!(%gateway, %alarm, "upload not committed"),
        Alarm::Withheld { gateway, .. } => warn!(%gateway, %alarm, "leases withheld"),
        Alarm::Ahead { gateway, .. } => error!(%gateway, %alarm, "gateway is ahead"),
        Alarm::Claimed { at, .. } => warn!(gateway = %at.gateway, %alarm, "session claimed twice"),
        Alarm::Clock { at, .. } => warn!(gateway = %at.gateway, %alarm, "clock is wrong"),
        Alarm::Case(_) => warn!(%alarm, "case opened"),
        Alarm::Adjusted { .. } => info!(%alarm, "books adjusted"),
    }
}

//! The operator's hub in the world: its real core, its issuer key, and what it publishes.

use std::collections::BTreeMap;

use gateway_core::{Capability, Input};
use hub::{
    config::{LEASE_HOURS_DEFAULT, LEASE_SLICE_DEFAULT},
    core::{Effect, Event, Hub, Now, Settings},
};
use proto::{
    book::Book,
    id::Hash,
    money::Money,
    trust::{ArtifactKind, Issuer},
};

use super::{
    bridge,
    cloud::Request,
    people::Person,
    scenario::Scenario,
    world::{Next, Says, World},
};

/// The hub and its key.
pub(super) struct HubSite {
    pub(super) core: Hub,
    settings: Settings,
    pub(super) issuer: Issuer,
    /// Signed once per revision.
    signed: BTreeMap<(u8, u64, u64), bridge::Signed>,
    /// What the gateways' records alone come to: the hub's own lines, such as leases it gave, are not in it.
    pub(super) lines: Book,
    /// Committed records per gateway.
    pub(super) booked: Vec<u64>,
    /// Committed records that are not the gateway's, byte for byte.
    pub(super) foreign: u64,
    /// Records that the hub could not book.
    pub(super) quarantined: u64,
    /// The end of the catalogue: how many lists nobody may adopt were made.
    pub(super) false_lists: u64,
}

impl HubSite {
    pub(super) fn new(scenario: &Scenario, persons: &[Person]) -> Self {
        let mut core = Hub::default();
        // While the list grows old before the beginning, no new one is made.
        let settings = Settings {
            list_every_s: 0,
            lease_slice: Money(LEASE_SLICE_DEFAULT),
            lease_s: LEASE_HOURS_DEFAULT * 3_600,
        };
        let now = Now { wall_s: 0 };
        core.step(now, &settings, &hub::core::Input::Start);
        core.step(
            now,
            &settings,
            &hub::core::Input::Import(bridge::catalogue(scenario, persons)),
        );
        Self {
            core,
            settings,
            issuer: Issuer::from_seed(&[5; 32]),
            signed: BTreeMap::new(),
            lines: Book::default(),
            booked: vec![0; scenario.site.regions.len()],
            foreign: 0,
            quarantined: 0,
            false_lists: 0,
        }
    }

    pub(super) fn publish_every(&mut self, list_every_s: u64) {
        self.settings.list_every_s = list_every_s;
    }

    /// An artifact as it travels; `None` if there is no such revision any more.
    pub(super) fn artifact(&mut self, kind: ArtifactKind, revision: u64, base: u64) -> Option<&bridge::Signed> {
        let key = (kind.code(), revision, base);
        if !self.signed.contains_key(&key) {
            let content = self.core.artifact(kind, revision, base)?;
            let signed = bridge::sign(&self.issuer, &content)?;
            // Only the newest is asked for again.
            self.signed
                .retain(|(code, other, _), _| *code != key.0 || *other == revision);
            self.signed.insert(key, signed);
        }
        self.signed.get(&key)
    }
}

impl World<'_> {
    fn hub_now(&self) -> Now {
        Now { wall_s: self.wall_s() }
    }

    /// A message of a gateway reaches the hub.
    pub(super) fn hub_hears(&mut self, gateway: usize, connection: u64, request: Request, later_ms: u64) {
        let (code, bytes) = request.bytes();
        self.absorb(code, &bytes);
        let second = self.t_ms / 1_000;
        if self.cloud.hub_second.0 != second {
            self.cloud.hub_second = (second, 0);
        }
        self.cloud.hub_second.1 += 1;
        self.tally.hub_load(self.cloud.hub_second.1);
        let input = bridge::hub_input(gateway, self.t_ms, request);
        let now = self.hub_now();
        let decision = self.hub.core.step(now, &self.hub.settings, &input);
        for event in &decision.events {
            self.hub_booked(gateway, event);
        }
        for effect in decision.effects {
            self.hub_effect(gateway, connection, effect, later_ms);
        }
    }

    /// Each committed record is the gateway's, byte for byte, and in its place.
    fn hub_booked(&mut self, gateway: usize, event: &Event) {
        match event {
            Event::Booked { at, record, bytes, .. } => {
                self.hub.foreign += u64::from(self.hub.lines.book(record).is_err());
                self.hub.booked[gateway] += 1;
                let own = self.shells[gateway].records.get(at.sequence as usize - 1);
                let same = own.is_some_and(|(own, _)| own == bytes) && at.sequence == self.hub.booked[gateway];
                self.hub.foreign += u64::from(!same);
            }
            Event::Quarantined { .. } => {
                self.hub.booked[gateway] += 1;
                self.hub.quarantined += 1;
            }
            _ => {}
        }
    }

    fn hub_effect(&mut self, gateway: usize, connection: u64, effect: Effect, later_ms: u64) {
        match effect {
            Effect::Artifact {
                kind, revision, base, ..
            } => {
                self.send_artifact(gateway, kind, revision, base, later_ms);
            }
            Effect::Announce { kind, revision, base } => self.announce(kind, revision, base),
            Effect::Alarm(alarm) => {
                let text = format!("hub: {alarm}");
                self.alarm(gateway, format!("Hub{}", bridge::class(&alarm)), &text);
            }
            other => {
                if let Some(input) = bridge::gateway_input(other) {
                    self.down(gateway, connection, Says::Input(input), later_ms);
                }
            }
        }
    }

    /// To every gateway that is connected and can hear it.
    fn announce(&mut self, kind: ArtifactKind, revision: u64, base: u64) {
        for gateway in 0..self.shells.len() {
            let hears = self.links[gateway].is_agreed() && self.fault(gateway, Capability::Control).is_none();
            if hears {
                self.send_artifact(gateway, kind, revision, base, 0);
            }
        }
    }

    fn send_artifact(&mut self, gateway: usize, kind: ArtifactKind, revision: u64, base: u64, later_ms: u64) {
        let keys = [self.hub.issuer.key()];
        // Leases are not published: each gateway has its own.
        let signed = match kind {
            ArtifactKind::Lease => bridge::sign_leases(&self.hub.issuer, &self.hub.core, gateway),
            _ => self.hub.artifact(kind, revision, base).cloned(),
        };
        let Some(signed) = signed else {
            return;
        };
        let verified = bridge::verify(&signed, &keys);
        let ms = self.network_rng.u64(super::cloud::WAN_MS) * 2 + later_ms;
        self.deliver(gateway, ms, verified);
    }

    /// An artifact arrives, by whatever way; what is not believed is told to the operator, as the daemon does.
    pub(super) fn deliver(&mut self, gateway: usize, ms: u64, verified: Result<Input, String>) {
        match verified {
            Ok(input) => {
                let input = Box::new(input);
                self.after(ms, Next::Artifact { gateway, input });
            }
            Err(why) => self.alarm(
                gateway,
                "ArtifactRejected".to_owned(),
                &format!("artifact rejected: {why}"),
            ),
        }
    }

    pub(super) fn hub_tick(&mut self) {
        let now = self.hub_now();
        let decision = self.hub.core.step(now, &self.hub.settings, &hub::core::Input::Tick);
        for effect in decision.effects {
            self.hub_effect(0, 0, effect, 0);
        }
        if !self.calm {
            self.after(60_000, Next::HubTick);
        }
    }

    /// The operator changes something at his hub.
    pub(super) fn import(&mut self, catalogue: hub::core::Catalogue) -> Vec<Effect> {
        let now = self.hub_now();
        let input = hub::core::Input::Import(catalogue);
        self.hub.core.step(now, &self.hub.settings, &input).effects
    }

    pub(super) fn publish_effects(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.hub_effect(0, 0, effect, 0);
        }
    }
}

/// No chain yet.
pub(super) const NOTHING: Hash = Hash::ZERO;

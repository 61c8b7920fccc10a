//! A gateway with a real journal, driven by hand.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub, missing_docs)]

use std::{collections::BTreeMap, path::Path};

use gateway::{record, store::Store};
use gateway_core::{Config, Gateway, Input, Now, Said, config::DeviceConfig};
use proto::{
    artifact::{self, ListEntry, TariffOf, TariffTable, Whitelist},
    id::{DeviceId, Kind, SessionId, TokenHash},
    message::{ClockQuality, Stamp, StartProof, Started, Stop, StopReason},
    money::{Money, Units},
    tariff::{Dimension, Tariff},
    trust::Issuer,
};

/// The evening of the site, in s since 1970 UTC.
pub const WALL_S: u64 = 1_768_464_000;

/// A gateway with a real journal and a dispenser, without a network.
pub struct Site {
    pub store: Store,
    pub gateway: Gateway,
    pub now: Now,
    counter: u64,
    pub sessions: u32,
}

impl Site {
    pub fn new(dir: &Path) -> Self {
        let (store, gateway) = Store::open(dir, config(), u64::MAX).unwrap();
        let now = Now {
            mono_ms: 0,
            wall_s: WALL_S,
            quality: ClockQuality::Synchronised,
        };
        let mut site = Self {
            store,
            gateway,
            now,
            counter: 0,
            sessions: 0,
        };
        site.put(&Input::Boot { boot: 1, epoch: 1 });
        let entries = vec![TariffOf {
            kind: Kind::Dispenser,
            tariff: Tariff::flat(1, &[(Dimension::Volume, 20_000)]),
        }];
        site.put(&Input::Tariffs(TariffTable { revision: 1, entries }));
        site.list(1);
        site.store.commit().unwrap();
        site
    }

    pub fn list(&mut self, revision: u64) {
        let issuer = Issuer::from_seed(&[7; 32]);
        let (envelope, chunks) = artifact::sign_list(&issuer, revision, WALL_S, vec![entry()]).unwrap();
        let list = artifact::verify_list(&envelope, &chunks, &[issuer.key()]).unwrap();
        self.put(&Input::List(list));
    }

    pub fn put(&mut self, input: &Input) {
        for event in self.gateway.decide(&self.now, input).events {
            self.store.stage(&mut self.gateway, &self.now, event);
        }
    }

    fn say(&mut self, said: Said) {
        self.counter += 1;
        let (device, counter) = (device(), self.counter);
        self.put(&Input::Device { device, counter, said });
    }

    pub fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_s = WALL_S + self.now.mono_ms / 1000;
    }

    /// Half a litre in twenty seconds.
    pub fn draw(&mut self) -> SessionId {
        self.sessions += 1;
        let session = SessionId::mint(&device(), 1, self.sessions);
        let register = Units(u64::from(self.sessions) * 500);
        self.say(Said::Authorize {
            session,
            outlet: 0,
            token: entry().token,
            units_wished: Units::ZERO,
            register,
            presented: gateway_core::Presented::Token,
        });
        let at = Stamp::relative(self.now.mono_ms);
        self.say(Said::Started(Started {
            session,
            outlet: 0,
            register_start: register,
            proof: StartProof::Flow,
            at,
        }));
        self.pass(20_000);
        self.say(Said::Stop(Stop {
            session,
            outlet: 0,
            reason: StopReason::User,
            started: true,
            register_start: register,
            register_end: Units(register.0 + 500),
            elapsed_s: 20,
            idle_s: 0,
            shown: Money(10),
            at,
        }));
        session
    }
}

/// What there is to be remembered.
pub fn state(gateway: &Gateway) -> Vec<Vec<u8>> {
    let events = gateway.snapshot().into_iter();
    events.map(|event| record::encode_kept(&event)).collect()
}

pub fn config() -> Config {
    let dispenser = DeviceConfig {
        kind: Kind::Dispenser,
        outlets: 1,
        car: false,
    };
    Config {
        devices: BTreeMap::from([(device(), dispenser)]),
        ..Config::default()
    }
}

pub fn device() -> DeviceId {
    DeviceId::new("d1").unwrap()
}

pub fn entry() -> ListEntry {
    ListEntry {
        token: TokenHash([7; 16]),
        account: 7,
        group: 0,
        valid: true,
        whitelist: Whitelist::Always,
        credential_revision: 1,
        balance: Money(i64::MAX),
        not_after_s: 0,
        lease_only: false,
    }
}

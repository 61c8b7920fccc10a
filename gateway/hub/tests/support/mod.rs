//! What the hub's tests share: a small operator, records, and a state that lives through restarts.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;

use hub::{
    core::{Catalogue, Decision, Event, Hub, Input, Now, Settings, TokenSpec},
    record, snapshot,
};
use proto::{
    artifact::Whitelist,
    codec,
    id::{GatewayId, Hash, Kind, Name, SessionId, TokenHash},
    link::{LedgerRecord, LinkHello, RecordKind, Upload},
    message::{Stamp, StopReason},
    money::{Money, Units},
    tariff::{Bill, Dimension, Tariff},
};
use serde_bytes::ByteBuf;

pub const NOW: Now = Now { wall_s: 1_700_000_000 };
pub const SETTINGS: Settings = Settings {
    list_every_s: 3600,
    lease_slice: Money(600),
    lease_s: 7 * 86_400,
};
pub const ACCOUNT: u64 = 7;
pub const DEPOSIT: Money = Money(10_000);

pub fn gateway() -> GatewayId {
    Name::new("gw-1").unwrap()
}

pub fn token(n: u8) -> TokenHash {
    TokenHash([n; 16])
}

pub fn session(n: u64) -> SessionId {
    let mut id = [0xaa; 16];
    id[8..].copy_from_slice(&n.to_be_bytes());
    SessionId(id)
}

/// 1.20 a kWh.
pub fn tariff() -> Tariff {
    Tariff::flat(1, &[(Dimension::Energy, 120_000)])
}

pub fn spec() -> TokenSpec {
    TokenSpec {
        account: ACCOUNT,
        group: 0,
        valid: true,
        whitelist: Whitelist::Allowed,
        not_after_s: 0,
        credential_revision: 0,
    }
}

pub fn catalogue(tokens: impl IntoIterator<Item = (TokenHash, TokenSpec)>) -> Catalogue {
    Catalogue {
        accounts: BTreeMap::from([(ACCOUNT, DEPOSIT)]),
        tokens: Some(tokens.into_iter().collect()),
        tariffs: BTreeMap::from([(Kind::Charger, tariff())]),
        ..Catalogue::default()
    }
}

pub fn hello(epoch: u32, head: u64) -> LinkHello {
    LinkHello {
        version_min: 1,
        version_max: 1,
        epoch,
        boot: 1,
        head,
        cursor: 0,
        list_revision: 0,
        revocations_revision: 0,
        tariffs_revision: 0,
        down_counter: 0,
        leases_revision: 0,
        policy_revision: 0,
    }
}

pub fn greet(hello: LinkHello, counter: u64) -> Input {
    Input::Hello {
        gateway: gateway(),
        counter,
        hello,
    }
}

/// A hub with one account, one token and a tariff, and a gateway that said hello in epoch 1.
pub fn open_hub() -> Hub {
    let mut hub = Hub::default();
    hub.step(NOW, &SETTINGS, &Input::Import(catalogue([(token(1), spec())])));
    hub.step(NOW, &SETTINGS, &greet(hello(1, 0), 1));
    hub
}

pub fn record(sequence: u64, kind: RecordKind, session_number: u64, amount: i64) -> LedgerRecord {
    LedgerRecord {
        sequence,
        kind,
        session: session(session_number),
        device: Name::new("charger-1").unwrap(),
        outlet: 0,
        device_kind: Kind::Charger,
        token: token(1),
        account: ACCOUNT,
        amount: Money(amount),
        // Each session has an interval of its own: one that overlaps is billed once, which is another test.
        register_start: Units(session_number * 1000),
        register_end: Units(session_number * 1000 + 1000),
        bill: bill_of(amount),
        tariff_hash: tariff().hash(),
        stop_reason: StopReason::Other,
        rule: 7,
        online: false,
        at: Stamp::relative(sequence),
        boot: 1,
        evidence: proto::link::Evidence::default(),
    }
}

/// The bill that costs `amount` under [`tariff`], for amounts that are multiples of 12.
pub fn bill_of(amount: i64) -> Bill {
    let mut bill = Bill::default();
    bill.quantities[0] = (amount.max(0) as u64) * 1000 / 120;
    bill
}

pub fn upload(epoch: u32, first: u64, records: impl IntoIterator<Item = Vec<u8>>) -> Input {
    Input::Upload {
        gateway: gateway(),
        upload: Upload {
            epoch,
            first,
            records: records.into_iter().map(ByteBuf::from).collect(),
        },
    }
}

pub fn bytes(record: &LedgerRecord) -> Vec<u8> {
    codec::to_vec(record)
}

pub fn chain_of(records: &[Vec<u8>]) -> Hash {
    records
        .iter()
        .fold(Hash::ZERO, |hash, record| proto::link::chain(&hash, record))
}

/// The state after a restart: every event through its bytes.
pub fn replayed(events: &[Event]) -> Hub {
    let mut hub = Hub::default();
    for event in events {
        let decoded = record::decode(&record::encode(event)).unwrap();
        assert_eq!(decoded, *event, "an event survives its bytes");
        hub.apply(&decoded);
    }
    hub
}

/// The state after a restart from a snapshot.
pub fn restored(hub: &Hub) -> Hub {
    let mut copy = Hub::default();
    for chunk in snapshot::encode(hub) {
        assert!(
            chunk.len() <= journal::SNAPSHOT_CHUNK_BYTES_MAX,
            "a chunk of {} bytes",
            chunk.len()
        );
        snapshot::restore(&mut copy, &chunk).unwrap();
    }
    copy
}

/// A hub that keeps its events, as the store does.
#[derive(Default)]
pub struct Kept {
    pub hub: Hub,
    pub events: Vec<Event>,
}

impl Kept {
    pub fn step(&mut self, input: &Input) -> Decision {
        let decision = self.hub.step(NOW, &SETTINGS, input);
        self.events.extend(decision.events.iter().cloned());
        decision
    }

    pub fn open() -> Self {
        let mut kept = Self::default();
        kept.step(&Input::Start);
        kept.step(&Input::Import(catalogue([(token(1), spec())])));
        kept.step(&greet(hello(1, 0), 1));
        kept
    }
}

//! Adapters of a gateway at a campus, and frames for them.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, missing_docs)]

use gateway::cloud::{
    adapter::{Adapter, At, Meaning, Out, Up},
    alink, aws,
    hcp::Hcp,
    webhook,
};
use proto::{
    codec,
    id::{DeviceId, GatewayId, Hash, Kind, Name, SessionId, TokenHash},
    link::{Ask, Echo, Evidence, LedgerRecord, LinkHello, OrderDone, OrderOutcome, RecordKind, Upload},
    message::{ClockQuality, Stamp, StopReason},
    money::{Money, Units},
    tariff::Bill,
    topic::{self, Lane, LinkUp},
};
use serde_bytes::ByteBuf;

pub const PRODUCT: &str = "a1Bc2De3Fg4";
pub const SUB_PRODUCT: &str = "a1Zz9Yy8Xx7";

pub fn names() -> (Name, GatewayId) {
    (Name::new("campus").unwrap(), Name::new("gw-0001").unwrap())
}

/// What is different between two gateways of a test.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    pub lane: Lane,
    pub children: usize,
    pub has_user_topic: bool,
    pub rule: Option<String>,
    pub seed: u64,
}

pub fn alink_config(setting: &Setting) -> alink::Config {
    let child = |number: usize| alink::Child {
        device: DeviceId::new(&format!("washer-{number}")).unwrap(),
        identity: alink::Identity {
            product_key: SUB_PRODUCT.to_owned(),
            device_name: format!("washer-{number:02}"),
        },
        secret: alink::Secret("fedcba9876543210fedcba9876543210".to_owned()),
    };
    alink::Config {
        lane: setting.lane,
        product_key: PRODUCT.to_owned(),
        device_name: "gw-0001".to_owned(),
        device_secret: alink::Secret("0123456789abcdef0123456789abcdef".to_owned()),
        client: None,
        method: alink::Method::HmacSha256,
        is_tls: true,
        has_user_topic: setting.has_user_topic,
        children: (1..=setting.children).map(child).collect(),
        seed: setting.seed,
    }
}

pub fn aws_config(setting: &Setting) -> aws::Config {
    let (site, gateway) = names();
    aws::Config {
        site,
        gateway,
        lane: setting.lane,
        thing: "gw-0001".to_owned(),
        rule: setting.rule.clone(),
        seed: setting.seed,
    }
}

pub fn adapter(kind: &str, setting: &Setting) -> Box<dyn Adapter> {
    let ((site, gateway), lane) = (names(), setting.lane);
    match kind {
        "hcp" => Box::new(Hcp::new(site, gateway, lane, "gw-0001".to_owned(), None)),
        "alink" => Box::new(alink::Alink::new(alink_config(setting)).unwrap()),
        "aws" => Box::new(aws::Aws::new(aws_config(setting)).unwrap()),
        "webhook" => Box::new(webhook::Webhook::new(webhook::Config { gateway, lane })),
        other => panic!("{other} is no cloud"),
    }
}

/// A frame as the seal makes them, with this counter, and a body and a tag that nobody looks at.
pub fn frame(counter: u64) -> Vec<u8> {
    [&[1], &counter.to_be_bytes()[..], &[0xa0], &[7; 16]].concat()
}

pub fn hello(list: u64, tariffs: u64) -> LinkHello {
    LinkHello {
        version_min: 1,
        version_max: 1,
        epoch: 1,
        boot: 1,
        head: 0,
        cursor: 0,
        list_revision: list,
        revocations_revision: 0,
        tariffs_revision: tariffs,
        down_counter: 0,
        leases_revision: 0,
        policy_revision: 0,
    }
}

pub fn record(sequence: u64, kind: RecordKind, device: &str) -> LedgerRecord {
    LedgerRecord {
        sequence,
        kind,
        session: SessionId([0xab; 16]),
        device: DeviceId::new(device).unwrap(),
        outlet: 2,
        device_kind: Kind::Washer,
        token: TokenHash([3; 16]),
        account: 77,
        amount: Money(350),
        register_start: Units(10),
        register_end: Units(11),
        bill: Bill::default(),
        tariff_hash: Hash::ZERO,
        stop_reason: StopReason::Other,
        rule: 5,
        online: sequence.is_multiple_of(2),
        at: Stamp {
            mono_ms: 5,
            wall_s: 1_700_000_000,
            quality: ClockQuality::Synchronised,
        },
        boot: 1,
        evidence: Evidence::default(),
    }
}

pub fn upload(records: &[LedgerRecord]) -> Upload {
    Upload {
        epoch: 4,
        first: records.first().map_or(1, |record| record.sequence),
        records: records
            .iter()
            .map(|record| ByteBuf::from(codec::to_vec(record)))
            .collect(),
    }
}

/// Sends what these words say: `ask 7`, `records 1:hold:washer-1 ...`, `hello LIST TARIFFS`, `echo`, `done`.
pub fn send(adapter: &mut dyn Adapter, lane: Lane, at: At, words: &[&str], frame: &[u8], out: &mut Out) {
    let (site, gateway) = names();
    let number = |at: usize| words.get(at).map_or(0, |text| text.parse().unwrap());
    let mut up = |word: LinkUp, meaning: Meaning<'_>| {
        let topic = topic::link_up(&site, &gateway, word, lane);
        adapter.send(
            at,
            Up {
                topic: &topic,
                frame,
                meaning,
            },
            out,
        );
    };
    match words[0] {
        "hello" => up(LinkUp::Hello, Meaning::Hello(&hello(number(1), number(2)))),
        "ask" => {
            let ask = Ask {
                ask: number(1),
                session: SessionId([0; 16]),
                token: TokenHash([3; 16]),
                kind: Kind::Washer,
                amount: Money(350),
            };
            up(LinkUp::Ask, Meaning::Ask(&ask));
        }
        "echo" => up(LinkUp::Echo, Meaning::Echo(&Echo { nonce: number(1) })),
        "done" => {
            let done = OrderDone {
                id: number(1),
                outcome: OrderOutcome::Done,
                at: Stamp::relative(0),
            };
            up(LinkUp::Done, Meaning::Done(&done));
        }
        "records" => {
            let records: Vec<LedgerRecord> = words[1..].iter().map(|text| parse_record(text)).collect();
            up(LinkUp::Records, Meaning::Records(&upload(&records)));
        }
        other => panic!("{other} is not sent here"),
    }
}

fn parse_record(text: &str) -> LedgerRecord {
    let parts: Vec<&str> = text.split(':').collect();
    let kind = match parts[1] {
        "hold" => RecordKind::Hold,
        "started" => RecordKind::Started,
        "capture" => RecordKind::Capture,
        "void" => RecordKind::Void,
        "indeterminate" => RecordKind::Indeterminate,
        "lease" => RecordKind::LeaseTaken,
        other => panic!("{other} is no record"),
    };
    record(parts[0].parse().unwrap(), kind, parts[2])
}

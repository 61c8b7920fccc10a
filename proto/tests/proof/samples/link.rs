//! Messages between gateway and hub.

use proto::{
    codec,
    id::*,
    link::*,
    message::{ClockQuality, Stamp, StopReason},
    money::{Money, Units},
    tariff::Bill,
    topic::{LinkDown, LinkUp},
    trust::ArtifactKind,
};
use serde_bytes::ByteBuf;

use super::{
    EVENING_S, MOST, MOST_SESSION, Place, Sample,
    content::{card, card_hash, entry, most_record, record},
    name, sample, session,
};

/// What a gateway says.
pub(crate) fn up() -> Vec<Sample> {
    let place = Place::LinkUp;
    let hello = LinkHello {
        version_min: 1,
        version_max: 1,
        epoch: 1,
        boot: 9,
        head: 4_712,
        cursor: 4_600,
        list_revision: 31,
        revocations_revision: 6,
        tariffs_revision: 4,
        down_counter: (2 << 32) + 900,
        leases_revision: 12,
        policy_revision: 12,
    };
    let most_hello = LinkHello {
        version_min: u8::MAX,
        version_max: u8::MAX,
        epoch: u32::MAX,
        boot: u32::MAX,
        head: u64::MAX,
        cursor: u64::MAX,
        list_revision: u64::MAX,
        revocations_revision: u64::MAX,
        tariffs_revision: u64::MAX,
        down_counter: u64::MAX,
        leases_revision: u64::MAX,
        policy_revision: u64::MAX,
    };
    let ask = Ask {
        ask: 55,
        session: session(1),
        token: card_hash(),
        kind: Kind::Charger,
        amount: Money(4_000),
    };
    let canary = Ask {
        ask: u64::MAX,
        session: SessionId::ZERO,
        token: TokenHash([0xff; 16]),
        kind: Kind::Unknown,
        amount: Money::ZERO,
    };
    let hold = LedgerRecord {
        sequence: 4_711,
        kind: RecordKind::Hold,
        amount: Money(4_000),
        register_end: Units(1_204_550),
        bill: Bill::default(),
        stop_reason: StopReason::Other,
        ..record()
    };
    let upload = Upload {
        epoch: 1,
        first: 4_711,
        records: [hold, record()]
            .iter()
            .map(|r| ByteBuf::from(codec::to_vec(r)))
            .collect(),
    };
    let most_upload = Upload {
        epoch: u32::MAX,
        first: u64::MAX,
        records: vec![ByteBuf::from(codec::to_vec(&most_record())); 4],
    };
    vec![
        sample(
            place(LinkUp::Hello),
            "link-hello",
            "link-hello-typical",
            "112 records wait for a receipt",
            hello,
        ),
        sample(
            place(LinkUp::Hello),
            "link-hello",
            "link-hello-extreme",
            MOST,
            most_hello,
        ),
        sample(place(LinkUp::Ask), "ask", "ask-typical", "may this card draw?", ask),
        sample(
            place(LinkUp::Ask),
            "ask",
            "ask-canary",
            "a canary has no session",
            canary,
        ),
        sample(
            place(LinkUp::Records),
            "upload",
            "records-typical",
            "a hold and its capture",
            upload,
        ),
        sample(
            place(LinkUp::Records),
            "upload",
            "records-extreme",
            "the largest records",
            most_upload,
        ),
        sample(
            place(LinkUp::Echo),
            "echo",
            "echo-up",
            "the question",
            Echo {
                nonce: 0x0123_4567_89ab_cdef,
            },
        ),
        sample(
            place(LinkUp::Telemetry),
            "telemetry",
            "telemetry-typical",
            "an evening; the control plane hangs",
            telemetry(),
        ),
        sample(
            place(LinkUp::Telemetry),
            "telemetry",
            "telemetry-extreme",
            MOST,
            most_telemetry(),
        ),
        sample(
            place(LinkUp::Telemetry),
            "telemetry",
            "telemetry-broker",
            "nobody counts the devices behind a broker",
            Telemetry {
                devices_connected: None,
                ..telemetry()
            },
        ),
        sample(
            place(LinkUp::Done),
            "order-done",
            "order-done-typical",
            "the device is told",
            OrderDone {
                id: EVENING_S + 3,
                outcome: OrderOutcome::Done,
                at: Stamp {
                    mono_ms: 86_400_123,
                    wall_s: EVENING_S,
                    quality: ClockQuality::Synchronised,
                },
            },
        ),
        sample(
            place(LinkUp::Done),
            "order-done",
            "order-done-extreme",
            MOST,
            OrderDone {
                id: u64::MAX,
                outcome: OrderOutcome::Malformed,
                at: Stamp {
                    mono_ms: u64::MAX,
                    wall_s: u64::MAX,
                    quality: ClockQuality::Relative,
                },
            },
        ),
    ]
}

/// Orders: a start, a reservation, one that is withdrawn, and the largest.
fn orders() -> [Order; 4] {
    let start = Order {
        id: EVENING_S + 3,
        not_after_s: EVENING_S + 30,
        verb: OrderVerb::Start,
        device: Some(name("charger-07")),
        outlet: 1,
        session: SessionId::ZERO,
        token: Some(card()),
        until_s: 0,
        value: 0,
        whose: card_hash(),
    };
    let reserve = Order {
        id: EVENING_S + 4,
        verb: OrderVerb::Reserve,
        token: None,
        until_s: EVENING_S + 1_200,
        ..start.clone()
    };
    let withdraw = Order {
        verb: OrderVerb::Withdraw,
        token: None,
        ..start.clone()
    };
    let most = Order {
        id: u64::MAX,
        not_after_s: u64::MAX,
        verb: OrderVerb::Withdraw,
        device: Some(name("abcdefghij-123456789")),
        outlet: u8::MAX,
        session: MOST_SESSION,
        token: Some(IdToken::new(TokenKind::Unknown, &[0xff; TOKEN_BYTES_MAX]).expect("the longest")),
        until_s: u64::MAX,
        value: u64::MAX,
        whose: TokenHash([0xff; 16]),
    };
    [start, reserve, withdraw, most]
}

fn telemetry() -> Telemetry {
    let online = ModeSince {
        mode: Mode::Online,
        since_s: 86_400,
    };
    Telemetry {
        authorize: online,
        commit: online,
        control: ModeSince {
            mode: Mode::Local,
            since_s: 45,
        },
        exposure: Money(12_300),
        budget_left: Money(187_700),
        sessions_open: 17,
        devices_connected: Some(41),
        waiting: 3,
        waiting_s: 1,
        disk_scarce: false,
        clock: ClockQuality::Synchronised,
        list_revision: 31,
        tariffs_revision: 4,
        policy_revision: 12,
        revocations_revision: 6,
        up_s: 90_000,
        shed: 2,
    }
}

fn most_telemetry() -> Telemetry {
    let most = ModeSince {
        mode: Mode::Other,
        since_s: u64::MAX,
    };
    Telemetry {
        authorize: most,
        commit: most,
        control: most,
        exposure: Money(i64::MAX),
        budget_left: Money(i64::MIN),
        sessions_open: u32::MAX,
        devices_connected: Some(u32::MAX),
        waiting: u64::MAX,
        waiting_s: u64::MAX,
        disk_scarce: true,
        clock: ClockQuality::Relative,
        list_revision: u64::MAX,
        tariffs_revision: u64::MAX,
        policy_revision: u64::MAX,
        revocations_revision: u64::MAX,
        up_s: u64::MAX,
        shed: u64::MAX,
    }
}

/// What a gateway hears.
pub(crate) fn down() -> Vec<Sample> {
    let place = Place::LinkDown;
    let welcome = Welcome {
        version: 1,
        epoch: 1,
        upto: 4_600,
        hash: chain(&Hash::ZERO, b"record 4600"),
        wall_s: EVENING_S,
        list_revision: 31,
        revocations_revision: 4,
        tariffs_revision: 2,
    };
    let most_welcome = Welcome {
        version: u8::MAX,
        epoch: u32::MAX,
        upto: u64::MAX,
        hash: Hash([0xff; 32]),
        wall_s: u64::MAX,
        list_revision: u64::MAX,
        revocations_revision: u64::MAX,
        tariffs_revision: u64::MAX,
    };
    let answer = Answer {
        ask: 55,
        session: session(1),
        token: card_hash(),
        verdict: Verdict::Accept,
        credential_revision: 3,
        account: 90_210,
        money_max: Money(4_000),
        lease: proto::artifact::Lease::default(),
    };
    let most_answer = Answer {
        ask: u64::MAX,
        session: MOST_SESSION,
        token: TokenHash([0xff; 16]),
        verdict: Verdict::Deny,
        credential_revision: u64::MAX,
        account: u64::MAX,
        money_max: Money(i64::MIN),
        lease: super::content::leases()[1].entries[0],
    };
    let receipt = LedgerReceipt {
        epoch: 1,
        upto: 4_712,
        hash: chain(&welcome.hash, b"record 4712"),
        quarantined: 1,
        notes: vec![Note {
            sequence: 4_705,
            mark: Mark::Quarantined,
        }],
    };
    let most_receipt = LedgerReceipt {
        epoch: u32::MAX,
        upto: u64::MAX,
        hash: Hash([0xff; 32]),
        quarantined: u64::MAX,
        notes: vec![
            Note {
                sequence: u64::MAX,
                mark: Mark::Aside,
            };
            NOTES_MAX
        ],
    };
    let part = ArtifactPart {
        kind: ArtifactKind::List,
        revision: 31,
        part: 1,
        parts: 2,
        bytes: ByteBuf::from(codec::to_vec(&vec![entry()])),
    };
    let most_part = ArtifactPart {
        kind: ArtifactKind::Firmware,
        revision: u64::MAX,
        part: u32::MAX,
        parts: u32::MAX,
        bytes: ByteBuf::from(vec![0xff; 300]),
    };
    let trouble = Trouble {
        ask: 55,
        code: 401,
        text: "access key not found".into(),
    };
    let most_trouble = Trouble {
        ask: u64::MAX,
        code: u16::MAX,
        text: "水".repeat(TROUBLE_TEXT_BYTES_MAX / 3),
    };
    let echo = Echo { nonce: u64::MAX };
    let [start, reserve, withdraw, most_order] = orders();
    vec![
        sample(
            place(LinkDown::Welcome),
            "welcome",
            "welcome-typical",
            "the hub has committed 4600",
            welcome,
        ),
        sample(
            place(LinkDown::Welcome),
            "welcome",
            "welcome-extreme",
            MOST,
            most_welcome,
        ),
        sample(place(LinkDown::Answer), "answer", "link-answer-typical", "yes", answer),
        sample(
            place(LinkDown::Answer),
            "answer",
            "link-answer-extreme",
            MOST,
            most_answer,
        ),
        sample(
            place(LinkDown::Receipt),
            "ledger-receipt",
            "ledger-receipt-typical",
            "up to 4712",
            receipt,
        ),
        sample(
            place(LinkDown::Receipt),
            "ledger-receipt",
            "ledger-receipt-extreme",
            MOST,
            most_receipt,
        ),
        sample(
            place(LinkDown::Echo),
            "echo",
            "echo-down",
            "the largest nonce comes back",
            echo,
        ),
        sample(
            place(LinkDown::Artifact),
            "artifact-part",
            "artifact-typical",
            "the one chunk of a list",
            part,
        ),
        sample(
            place(LinkDown::Artifact),
            "artifact-part",
            "artifact-extreme",
            "numbers at their ends",
            most_part,
        ),
        sample(
            place(LinkDown::Counter),
            "counter-seen",
            "counter-typical",
            "the gateway was put back to an earlier boot",
            CounterSeen { last: (12 << 32) + 345 },
        ),
        sample(
            place(LinkDown::Counter),
            "counter-seen",
            "counter-extreme",
            MOST,
            CounterSeen { last: u64::MAX },
        ),
        sample(
            place(LinkDown::Order),
            "order",
            "order-start",
            "a card, from afar, within half a minute",
            start,
        ),
        sample(
            place(LinkDown::Order),
            "order",
            "order-reserve",
            "twenty minutes",
            reserve,
        ),
        sample(
            place(LinkDown::Order),
            "order",
            "order-withdraw",
            "its time is over",
            withdraw,
        ),
        sample(place(LinkDown::Order), "order", "order-extreme", MOST, most_order),
        sample(
            place(LinkDown::Trouble),
            "trouble",
            "trouble-typical",
            "the lie of 2023-11-12",
            trouble,
        ),
        sample(
            place(LinkDown::Trouble),
            "trouble",
            "trouble-extreme",
            "text in three-byte characters",
            most_trouble,
        ),
    ]
}

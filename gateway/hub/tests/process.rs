//! The real binary, spoken to by a raw client over TCP.
#![allow(clippy::unwrap_used)]

#[path = "support/process.rs"]
mod process_support;
mod support;

use std::collections::BTreeSet;

use hub::{
    control::Request,
    core::RecordKey,
    export::{BalanceRow, LedgerLine, QuarantineRow},
    reports::GatewayReport,
};
use process_support::{GATEWAYS, Gateway, SEED, Seen, Site, secret_of, site_name};
use proto::{
    book::Book,
    id::{IdToken, Kind, Name, SessionId, TokenHash, TokenKey, TokenKind},
    link::{
        Answer, Ask, CounterSeen, Echo, LINK_FRAME_BYTES_MAX, LinkHello, Mode, ModeSince, RecordKind, Telemetry,
        Verdict,
    },
    message::ClockQuality,
    money::Money,
    seal::{Direction, PairSecret},
    topic::{self, Lane, LinkDown, LinkUp},
};
use rumqttc::QoS;
use support::{bytes, chain_of, hello, record, session, token};

fn ask_of(ask: u64, token: TokenHash) -> Ask {
    Ask {
        ask,
        session: session(ask),
        token,
        kind: Kind::Charger,
        amount: Money(4000),
    }
}

#[test]
fn hello_ask_upload_echo_and_reload() {
    let site = Site::new();
    let hub = site.start();
    let mut gateway = Gateway::connect(&hub, "gw-1", 1);
    let welcome = gateway.hello(&hello(1, 0));
    assert_eq!((welcome.version, welcome.epoch, welcome.upto), (1, 1, 0));
    let list = gateway.list();
    assert_eq!((list.manifest().revision, list.entries().len()), (1, 2));

    let card = IdToken::new(TokenKind::Card, &[0x04, 0xa1, 0xb2, 0xc3]).unwrap();
    let card = card.hash(&TokenKey([0x22; 32]));
    let table = [
        (token(1), Verdict::Accept, 1),
        (card, Verdict::Accept, 1),
        (token(9), Verdict::Deny, 0),
    ];
    for ((token, verdict, revision), ask) in table.into_iter().zip(1..) {
        gateway.say(LinkUp::Ask, &ask_of(ask, token));
        let answer: Answer = gateway.hear(LinkDown::Answer);
        assert_eq!(
            (answer.ask, answer.verdict, answer.credential_revision),
            (ask, verdict, revision)
        );
    }
    gateway.say(LinkUp::Echo, &Echo { nonce: 77 });
    assert_eq!(gateway.hear::<Echo>(LinkDown::Echo).nonce, 77);

    let records = [
        bytes(&record(1, RecordKind::Hold, 1, 120)),
        bytes(&record(2, RecordKind::Capture, 1, 60)),
    ];
    gateway.upload(1, 1, &records);
    let receipt = gateway.receipt();
    assert_eq!((receipt.upto, receipt.hash), (2, chain_of(&records)));

    // The operator revokes the card and pays in; connected gateways hear of it at once.
    let revoked = format!(
        "{}\n[[revocations]]\nkind = \"card\"\nraw = \"04a1b2c3\"\n",
        SEED.replace("10000", "20000")
    );
    site.write("seed.toml", &revoked);
    hub.signal("HUP");
    let list = gateway.list();
    assert_eq!(list.manifest().revision, 2);
    assert!(list.entries().iter().any(|entry| entry.token == card && !entry.valid));
    assert!(list.entries().iter().any(|entry| entry.balance == Money(20_000 - 60)));
    gateway.say(LinkUp::Ask, &ask_of(9, card));
    let answer: Answer = gateway.hear(LinkDown::Answer);
    assert_eq!((answer.verdict, answer.credential_revision), (Verdict::Deny, 2));

    let status = site.status();
    let row = &status.gateways[0];
    assert_eq!(
        (row.records, row.answers, row.frames_bad, row.connected),
        (2, 4, 0, true)
    );
    assert!(status.balanced);
    let balances: Vec<BalanceRow> = site.call(&Request::new("balances")).unwrap();
    assert_eq!(balances[0].available, 20_000 - 60);
    assert_eq!(hub.stop(), Some(0), "a clean end");
}

/// A gateway burns down with money of a customer in its hands.
#[test]
fn leases_of_a_gateway_that_is_gone_are_released_by_command() {
    let site = Site::new();
    site.write(
        "seed.toml",
        &SEED.replace("deposit = 10000", "deposit = 10000, lease_only = true"),
    );
    let hub = site.start();
    let release = |more: &[&str]| {
        let output = site.command(&[&["release", "--data", "data", "--gateway", "gw-1"], more].concat());
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8(text).unwrap().trim_end().to_owned(),
        )
    };
    let unknown = "holdfast-hub: gateway gw-1 is unknown here: it never said hello";
    assert_eq!(release(&[]), (Some(65), unknown.to_owned()));

    let mut gateway = Gateway::connect(&hub, "gw-1", 1);
    gateway.hello(&hello(1, 0));
    gateway.say(LinkUp::Ask, &ask_of(1, token(1)));
    let lease = gateway.hear::<Answer>(LinkDown::Answer).lease;
    let mut taken = record(1, RecordKind::LeaseTaken, 0, lease.amount.0);
    taken.session = SessionId::ZERO;
    taken.evidence.lease = lease.epoch;
    gateway.upload(1, 1, &[bytes(&taken)]);
    assert_eq!(gateway.receipt().upto, 1);
    let available = || site.call::<BalanceRow>(&Request::new("balances")).unwrap()[0].available;
    assert_eq!(available(), 10_000 - lease.amount.0);

    let present = "gateway gw-1 has no lease of a former epoch; those of its present one are released with --gone, if it never comes back.";
    assert_eq!(release(&[]), (Some(0), present.to_owned()));
    let connected = "holdfast-hub: gateway gw-1 is connected, or was heard through a broker within the last 15 min, so it is not gone; stop it first";
    assert_eq!(release(&["--gone"]), (Some(65), connected.to_owned()));
    gateway.client.disconnect().unwrap();
    while site.status().gateways[0].connected {}

    let row = format!("{{\"gateway\":\"gw-1\",\"leases\":1,\"amount\":{}}}", lease.amount.0);
    assert_eq!(release(&["--gone", "--json"]), (Some(0), row));
    assert_eq!(available(), 10_000);
    let again = "gateway gw-1 had no lease. If the gateway does come back, it has to start a new epoch.";
    assert_eq!(release(&["--gone"]), (Some(0), again.to_owned()));
    let ledger: Vec<LedgerLine> = site.call(&Request::new("ledger")).unwrap();
    let last = ledger.last().unwrap();
    assert_eq!(
        (last.gateway.as_str(), last.credit.as_str(), last.amount),
        (":hub", "customer:7", lease.amount.0)
    );

    // It was only unplugged.
    let mut gateway = Gateway::connect(&hub, "gw-1", 2);
    assert_eq!(gateway.hello(&hello(1, 1)).epoch, 2, "what it knew is over");
    assert_eq!(gateway.hello(&hello(2, 1)).epoch, 2);
    drop(hub);
    let absent = release(&[]);
    assert_eq!(absent.0, Some(69), "{absent:?}");
}

#[test]
fn a_campus_list_of_twenty_thousand_tokens_arrives_whole() {
    const TOKENS: usize = 20_000;
    let site = Site::new();
    let rows: Vec<_> = (1..=TOKENS)
        .map(|n| serde_json::json!({"hash": format!("{n:032x}"), "account": n}))
        .collect();
    let accounts: Vec<_> = (1..=TOKENS)
        .map(|n| serde_json::json!({"id": n, "deposit": n}))
        .collect();
    let seed = serde_json::json!({"accounts": accounts, "tokens": rows});
    site.write("seed.json", &seed.to_string());
    let text = std::fs::read_to_string(site.path("hub.toml")).unwrap();
    site.write("hub.toml", &text.replace("seed.toml", "seed.json"));
    let hub = site.start();
    let lists = ["gw-1", "gw-2"].map(|id| {
        let mut gateway = Gateway::connect(&hub, id, 1);
        gateway.hello(&hello(1, 0));
        gateway.list()
    });
    assert_eq!(lists[0].entries().len(), TOKENS);
    assert_eq!(lists[0], lists[1]);
    hub.kill();
    let hub = site.start();
    let mut gateway = Gateway::connect(&hub, "gw-1", 2);
    gateway.hello(&hello(1, 0));
    assert_eq!(
        gateway.list(),
        lists[0],
        "the same revision is the same list, to the bit"
    );
    assert_eq!(hub.stop(), Some(0));
}

/// The lines that a gateway computes from its own records.
fn lines_of(gateway: &str, epoch: u32, records: &[Vec<u8>]) -> Vec<LedgerLine> {
    let mut book = Book::default();
    let gateway = Name::new(gateway).unwrap();
    let mut lines = Vec::new();
    for (bytes, sequence) in records.iter().zip(1..) {
        let at = RecordKey {
            gateway,
            epoch,
            sequence,
        };
        let transfers = book.book(&proto::codec::decode(bytes).unwrap()).unwrap();
        lines.extend(transfers.iter().map(|transfer| LedgerLine::new(&at, transfer)));
    }
    lines
}

#[test]
fn killed_between_upload_and_receipt_nothing_is_lost_or_doubled() {
    const ROUNDS: u32 = 14;
    let site = Site::new();
    let records: Vec<_> = (0..600)
        .map(|n| match n % 3 {
            0 => record(n + 1, RecordKind::Hold, n / 3, 24),
            1 => record(n + 1, RecordKind::Started, n / 3, 0),
            _ => record(n + 1, RecordKind::Capture, n / 3, 12),
        })
        .map(|record| bytes(&record))
        .collect();
    let mut receipted = 0;
    let mut stages = BTreeSet::new();
    for round in 1..=ROUNDS {
        let hub = site.start();
        let mut gateway = Gateway::connect(&hub, "gw-1", round);
        let welcome = gateway.hello(&hello(1, records.len() as u64));
        assert!(
            welcome.upto >= receipted,
            "round {round}: {} < {receipted}",
            welcome.upto
        );
        assert_eq!(
            welcome.hash,
            chain_of(&records[..welcome.upto as usize]),
            "round {round}"
        );
        // Every third time from further back than needed, as a gateway does that missed a receipt.
        let first = welcome.upto + 1 - if round % 3 == 0 { welcome.upto.min(20) } else { 0 };
        let to = (first as usize - 1 + 37).min(records.len());
        for (at, part) in (first..).step_by(13).zip(records[first as usize - 1..to].chunks(13)) {
            gateway.upload(1, at, part);
        }
        match round % 4 {
            0 => {}
            1 => {
                gateway.acknowledged(2);
                receipted = receipted.max(first + 12);
            }
            2 => receipted = gateway.receipt().upto,
            _ => {
                let receipts = [gateway.receipt(), gateway.receipt(), gateway.receipt()];
                receipted = receipts[2].upto;
                assert_eq!(receipts[2].hash, chain_of(&records[..receipted as usize]));
            }
        }
        stages.insert(round % 4);
        hub.kill();
    }
    assert_eq!(stages.len(), 4, "killed at every stage");

    let hub = site.start();
    let mut gateway = Gateway::connect(&hub, "gw-1", ROUNDS + 1);
    let mut upto = gateway.hello(&hello(1, records.len() as u64)).upto;
    assert!(upto >= receipted);
    while (upto as usize) < records.len() {
        let to = (upto as usize + 100).min(records.len());
        gateway.upload(1, upto + 1, &records[upto as usize..to]);
        upto = gateway.receipt().upto;
    }
    let expected = lines_of("gw-1", 1, &records);
    let running: Vec<LedgerLine> = site.call(&Request::new("ledger")).unwrap();
    assert_eq!(running, expected, "nothing lost, nothing doubled");
    let status = site.status();
    assert_eq!((status.boot, status.balanced), (ROUNDS + 1, true));
    assert_eq!(status.gateways[0].records, records.len() as u64);
    assert_eq!(hub.stop(), Some(0));
    let exported = site.command(&["ledger", "export", "--data", "data", "--json"]);
    assert!(exported.status.success(), "{exported:?}");
    let stopped: Vec<LedgerLine> = String::from_utf8(exported.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(stopped, expected, "the stopped store says the same");
}

#[test]
fn bad_frames_are_counted_and_change_nothing() {
    let site = Site::new();
    let hub = site.start();
    let mut gateway = Gateway::connect(&hub, "gw-1", 1);
    gateway.hello(&hello(1, 0));
    let records = gateway.topic(LinkUp::Records);
    let good = gateway.frame(
        LinkUp::Records,
        &proto::link::Upload {
            epoch: 1,
            first: 1,
            records: vec![bytes(&record(1, RecordKind::Hold, 1, 12)).into()],
        },
    );
    gateway.publish(&records, good.clone());
    assert_eq!(gateway.receipt().upto, 1);
    let foreign_key = PairSecret([9; 32]).key(Direction::Up);
    let mut changed = gateway.frame(LinkUp::Ask, &ask_of(1, token(1)));
    *changed.last_mut().unwrap() ^= 1;
    let asked = gateway.frame(LinkUp::Ask, &ask_of(1, token(1)));
    let mut newer = asked.clone();
    newer[0] = 9;
    let cases: [(&str, Vec<u8>); 10] = [
        ("no bytes", Vec::new()),
        ("a few bytes", vec![1; 5]),
        ("garbage", vec![0xff; 300]),
        ("a newer frame version", newer),
        (
            "another key",
            foreign_key.seal_vec(&records, u64::MAX, &ask_of(1, token(1))),
        ),
        ("a changed byte", changed),
        ("another topic", asked),
        ("a replay", good),
        ("the wrong message", gateway.frame(LinkUp::Records, &Echo { nonce: 1 })),
        ("oversize", vec![1; LINK_FRAME_BYTES_MAX + 1]),
    ];
    let bad = cases.len() as u64;
    for (what, frame) in cases {
        println!("case: {what}");
        gateway.publish(&records, frame);
    }
    // A claim to have seen a counter that this hub can never reach, in a hello that is otherwise sound.
    gateway.say(
        LinkUp::Hello,
        &LinkHello {
            down_counter: u64::MAX,
            leases_revision: 0,
            ..hello(1, 1)
        },
    );
    gateway.say(LinkUp::Echo, &Echo { nonce: 5 });
    assert_eq!(gateway.hear::<Echo>(LinkDown::Echo).nonce, 5, "the link goes on");
    let status = site.status();
    assert_eq!((status.gateways[0].frames_bad, status.gateways[0].upto), (bad + 1, 1));
    assert_eq!(status.gateways[0].records, 1);
}

fn told(up_s: u64) -> Telemetry {
    let since = |mode, since_s| ModeSince { mode, since_s };
    Telemetry {
        authorize: since(Mode::Online, 60),
        commit: since(Mode::Online, 60),
        control: since(Mode::Local, 45),
        exposure: Money(1_200),
        budget_left: Money(198_800),
        sessions_open: 1,
        devices_connected: Some(3),
        waiting: 0,
        waiting_s: 0,
        disk_scarce: false,
        clock: ClockQuality::Synchronised,
        list_revision: 1,
        tariffs_revision: 1,
        policy_revision: 0,
        revocations_revision: 0,
        up_s,
        shed: 0,
    }
}

#[test]
fn telemetry_is_shown_and_an_old_one_never() {
    let site = Site::new();
    let hub = site.start();
    let rows = || -> Vec<GatewayReport> { site.call(&Request::new("gateways")).unwrap() };
    let up_s = || rows()[0].report.as_ref().map(|report| report.up_s);
    let [one, two]: [GatewayReport; 2] = rows().try_into().unwrap();
    assert_eq!((one.seen_s, one.report_s, one.connected), (None, None, false));
    assert_eq!(two.gateway, "gw-2");

    let mut gateway = Gateway::connect(&hub, "gw-1", 1);
    // Said before the hello, it is nobody's word on this connection.
    gateway.say(LinkUp::Telemetry, &told(1));
    gateway.acknowledged(1);
    assert_eq!((up_s(), rows()[0].seen_s), (None, None));
    let before_hello = gateway.frame(LinkUp::Telemetry, &told(2));
    gateway.hello(&hello(1, 0));
    let topic = gateway.topic(LinkUp::Telemetry);
    gateway.publish(&topic, before_hello);
    let overtaken = gateway.frame(LinkUp::Echo, &Echo { nonce: 6 });
    let older = gateway.frame(LinkUp::Telemetry, &told(3));
    let newer = gateway.frame(LinkUp::Telemetry, &told(4));
    for frame in [newer.clone(), older, newer] {
        gateway
            .client
            .publish(topic.as_str(), QoS::AtMostOnce, false, frame)
            .unwrap();
    }
    // What it overtook is heard all the same: money must not wait for a report.
    gateway.publish(&gateway.topic(LinkUp::Echo), overtaken);
    assert_eq!(gateway.hear::<Echo>(LinkDown::Echo).nonce, 6);
    let [one, two]: [GatewayReport; 2] = rows().try_into().unwrap();
    let report = one.report.unwrap();
    assert_eq!((report.up_s, report.control.as_str()), (4, "LOCAL"), "the newest, once");
    assert!(one.connected && one.seen_s.is_some() && one.report_s.is_some());
    assert_eq!(two.report, None);
    assert_eq!(site.status().gateways[0].frames_bad, 4);

    let printed = site.command(&["gateways", "--data", "data"]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("gw-1: connected, epoch 1"), "{printed}");
    assert!(printed.contains("control LOCAL for 45 s"), "{printed}");
    assert!(
        printed.contains("gw-2: not connected, epoch 0, committed up to record 0, not heard since the hub started"),
        "{printed}"
    );
    let json = site.command(&["gateways", "--data", "data", "--json"]);
    let rows: Vec<GatewayReport> = String::from_utf8(json.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(hub.stop(), Some(0));
    assert_eq!(site.command(&["gateways", "--data", "data"]).status.code(), Some(69));
}

#[test]
fn poison_in_an_upload_is_quarantined_over_the_wire() {
    let site = Site::new();
    let hub = site.start();
    let mut gateway = Gateway::connect(&hub, "gw-2", 1);
    gateway.hello(&hello(1, 0));
    let records = [
        bytes(&record(1, RecordKind::Hold, 1, 12)),
        vec![0xc0; 5000],
        bytes(&record(3, RecordKind::Void, 1, 12)),
    ];
    gateway.upload(1, 1, &records);
    let receipt = gateway.receipt();
    assert_eq!((receipt.upto, receipt.hash), (3, chain_of(&records)));
    hub.kill();
    let hub = site.start();
    let rows: Vec<QuarantineRow> = site.call(&Request::new("quarantine")).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].sequence, rows[0].bytes.len()),
        (2, 10_000),
        "every byte of it, after a restart"
    );
    let settled = site.command(&[
        "settle",
        "--data",
        "data",
        "--gateway",
        "gw-2",
        "--epoch",
        "1",
        "--first",
        "2",
        "--reason",
        "seen",
    ]);
    assert_eq!(settled.status.code(), Some(0), "{settled:?}");
    assert_eq!(String::from_utf8_lossy(&settled.stdout).trim(), "settled = 1");
    let rows: Vec<QuarantineRow> = site.call(&Request::new("quarantine")).unwrap();
    assert_eq!(rows, []);
    assert_eq!(hub.stop(), Some(0));
}

#[test]
fn only_configured_gateways_with_their_password_connect() {
    let site = Site::new();
    let hub = site.start();
    let table = [
        ("an unknown gateway", "gw-9", "gw-9", secret_of("gw-9")),
        ("another's password", "gw-1", "gw-1", secret_of("gw-2")),
        ("another's user name", "gw-1", "gw-2", secret_of("gw-1")),
        ("a wrong password", "gw-1", "gw-1", PairSecret([0; 32])),
    ];
    for (what, id, user, secret) in table {
        let mut gateway = Gateway::open(&hub, id, user, &secret, 1);
        let seen = gateway.see();
        assert!(
            matches!(&seen, Seen::Lost(why) if why.contains("BadUserNamePassword")),
            "{what}: {seen:?}"
        );
    }
}

#[test]
fn a_gateway_speaks_and_hears_under_its_own_prefix_only() {
    let site = Site::new();
    let hub = site.start();
    let [own, other] = GATEWAYS.map(|id| Name::new(id).unwrap());
    let elsewhere = Name::new("elsewhere").unwrap();
    let filters = [
        "#".to_owned(),
        topic::link_up_filter().to_string(),
        topic::link_down_filter(&site_name(), &other, Lane::FIRST).to_string(),
        topic::link_down_filter(&elsewhere, &own, Lane::FIRST).to_string(),
    ];
    for filter in filters {
        let mut gateway = Gateway::connect(&hub, "gw-1", 1);
        gateway.client.subscribe(&filter, QoS::AtLeastOnce).unwrap();
        let seen = gateway.see();
        assert!(!matches!(seen, Seen::Subscribed(true)), "{filter}: {seen:?}");
    }
    let topics = [
        topic::link_up(&site_name(), &other, LinkUp::Ask, Lane::FIRST).to_string(),
        topic::link_up(&elsewhere, &own, LinkUp::Ask, Lane::FIRST).to_string(),
        topic::link_down(&site_name(), &other, LinkDown::Answer, Lane::FIRST).to_string(),
        "anything".to_owned(),
    ];
    for topic in topics {
        let mut gateway = Gateway::connect(&hub, "gw-1", 1);
        gateway.publish(&topic, vec![1; 40]);
        let seen = gateway.see();
        assert!(matches!(seen, Seen::Lost(_)), "{topic}: {seen:?}");
    }
    // A packet beyond every limit ends its own connection and nothing else.
    let mut gateway = Gateway::connect(&hub, "gw-1", 1);
    gateway.publish(&gateway.topic(LinkUp::Records), vec![0; 500_000]);
    let seen = gateway.see();
    assert!(matches!(seen, Seen::Lost(_)), "{seen:?}");
    let mut gateway = Gateway::connect(&hub, "gw-2", 1);
    assert_eq!(gateway.hello(&hello(1, 0)).version, 1);
    let canary = Ask {
        session: SessionId::ZERO,
        ..ask_of(1, token(1))
    };
    gateway.say(LinkUp::Ask, &canary);
    assert_eq!(gateway.hear::<Answer>(LinkDown::Answer).verdict, Verdict::Accept);
}

#[test]
fn no_hello_is_played_again_across_a_restart_and_a_new_epoch_starts_over() {
    let site = Site::new();
    let hub = site.start();
    let mut gateway = Gateway::connect(&hub, "gw-1", 5);
    let old = gateway.frame(LinkUp::Hello, &hello(1, 0));
    gateway.publish(&gateway.topic(LinkUp::Hello), old.clone());
    gateway.hear::<proto::link::Welcome>(LinkDown::Welcome);
    gateway.upload(1, 1, &[bytes(&record(1, RecordKind::Hold, 1, 12))]);
    assert_eq!(gateway.receipt().upto, 1);
    hub.kill();

    let hub = site.start();
    let mut carrier = Gateway::connect(&hub, "gw-1", 1);
    // Taken again it would look like a gateway that forgot its records, and fence it.
    carrier.publish(&carrier.topic(LinkUp::Hello), old);
    carrier.acknowledged(1);
    assert_eq!(
        (site.status().gateways[0].epoch, site.status().gateways[0].frames_bad),
        (1, 1)
    );
    // It may as well come from a gateway that was put back from a backup: that is told where to go on.
    let seen: CounterSeen = carrier.hear(LinkDown::Counter);
    assert_eq!(seen.last, (5 << 32) + 1);
    // A restored gateway counts from where its backup stood, in a higher epoch, and remembers more of our counters.
    let down_counter = 9 << 32;
    let welcome = carrier.hello(&LinkHello {
        down_counter,
        leases_revision: 0,
        ..hello(2, 0)
    });
    assert_eq!((welcome.epoch, welcome.upto), (2, 0));
    carrier.say(LinkUp::Echo, &Echo { nonce: 1 });
    carrier.hear::<Echo>(LinkDown::Echo);
    assert_eq!(hub.stop(), Some(0));
}

//! The stages of a broker, in virtual time, with a personality that lets everybody in and answers everything.

use std::sync::Arc;

use proto::{
    id::Name,
    topic::{Lane, LinkDown},
};

use super::{
    Admitted, Conn, Cx, FrameDown, Input, Message, Output, Personality, Refused, Rules, Say, Taken, Tls,
    machine::Broker,
    packet::{self, Connect, Packet, Publish},
};
use crate::{
    cloud_sim::{
        counters::Counters,
        fault::{Fault, Faults, Of, Stage},
    },
    mqtt_wire::packet as bytes_of,
};

const HOUR_MS: u64 = 3_600_000;

struct Open;

impl Personality for Open {
    fn rules(&self) -> Rules {
        Rules {
            packet_bytes_max: 1_000,
            filters_max: 2,
            subscriptions_max: 3,
            closes_beyond_subscriptions: false,
            closes_on_denied_subscription: false,
            closes_on_qos_2: true,
            session_ms_max: HOUR_MS,
            stored_a_second: 10,
            connack_properties: &[],
        }
    }

    fn connect(&mut self, _: &mut Cx<'_>, connect: &Connect, _: Option<&Tls>) -> Result<Admitted, Refused> {
        Ok(Admitted {
            who: connect.client_id.clone(),
        })
    }

    fn may_subscribe(&mut self, _: &str, _: &str) -> Result<(), u8> {
        Ok(())
    }

    fn publish(&mut self, cx: &mut Cx<'_>, who: &str, publish: &Publish) -> Taken {
        cx.reply(who, "reply", publish.payload.clone());
        if cx.throttled { Taken::Dropped(0x97) } else { Taken::Yes }
    }

    fn down(&mut self, cx: &mut Cx<'_>, frame: FrameDown) {
        let message = Message {
            topic: "down".into(),
            payload: frame.frame,
            qos: 1,
        };
        cx.out.push(Say::Tell {
            who: "gw".into(),
            message,
        });
    }

    fn left(&mut self, _: &mut Cx<'_>, _: &str) {}
}

fn broker(times: u64) -> Broker {
    Broker::new(Box::new(Open), 1, times, Arc::new(Counters::default()))
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// CONNECT of MQTT 3.1.1, keep-alive 60 s.
fn connect(clean: bool) -> Vec<u8> {
    let head = [4, if clean { 2 } else { 0 }, 0, 60];
    bytes_of(0x10, &[&text("MQTT")[..], &head, &text("gw")].concat())
}

fn subscribe(filters: &[&str]) -> Vec<u8> {
    let entries: Vec<u8> = filters
        .iter()
        .flat_map(|filter| [text(filter), vec![1]].concat())
        .collect();
    bytes_of(0x82, &[&[0, 1][..], &entries].concat())
}

fn publish(qos: u8) -> Vec<u8> {
    let publish = Publish {
        topic: "t".into(),
        qos,
        id: 9,
        payload: b"x".to_vec(),
    };
    packet::delivery(4, &publish, false)
}

/// What a connection hears of outputs: packet types, and whether it is closed.
fn heard(outputs: &[Output], conn: Conn) -> (Vec<u8>, bool) {
    let mut kinds = Vec::new();
    let mut closed = false;
    for output in outputs {
        match output {
            Output::Send(to, bytes) if *to == conn => kinds.push(bytes[0] >> 4),
            Output::Close(of) if *of == conn => closed = true,
            _ => {}
        }
    }
    (kinds, closed)
}

fn say(broker: &mut Broker, now_ms: u64, conn: Conn, bytes: Vec<u8>) -> (Vec<u8>, bool) {
    heard(&broker.handle(now_ms, 0, Input::Packet { conn, bytes }), conn)
}

fn open(broker: &mut Broker, now_ms: u64, conn: Conn) -> (Vec<u8>, bool) {
    heard(&broker.handle(now_ms, 0, Input::Opened { conn, tls: None }), conn)
}

fn play(broker: &mut Broker, now_ms: u64, list: Vec<Fault>) -> Vec<Output> {
    let mut faults = Faults::default();
    faults.replace(list);
    broker.handle(now_ms, 0, Input::Faults(faults))
}

fn down() -> Input {
    Input::Down(FrameDown {
        gateway: Name::new("gw").unwrap(),
        lane: Lane::FIRST,
        word: LinkDown::Echo,
        frame: vec![1],
    })
}

#[test]
fn what_is_heard_at_each_stage() {
    let deny = |at, code| Fault::Deny {
        at,
        of: Of::Gateway,
        percent: 100,
        code,
        kicks: false,
    };
    let well = (vec![2], false);
    for (fault, expected) in [
        // CONNACK, SUBACK, and reply with PUBACK.
        (None, [well.clone(), (vec![9], false), (vec![3, 4], false)]),
        (
            Some(Fault::Hang(Stage::Tcp)),
            [(vec![], false), (vec![], false), (vec![], false)],
        ),
        (
            Some(Fault::Hang(Stage::Connack)),
            [(vec![], false), (vec![], false), (vec![], false)],
        ),
        (
            Some(Fault::Hang(Stage::Suback)),
            [well.clone(), (vec![], false), (vec![4], false)],
        ),
        (
            Some(Fault::Hang(Stage::Puback)),
            [well.clone(), (vec![9], false), (vec![], false)],
        ),
        (
            Some(Fault::Hang(Stage::Reply)),
            [well.clone(), (vec![9], false), (vec![4], false)],
        ),
        (
            Some(Fault::DropReply(100)),
            [well.clone(), (vec![9], false), (vec![4], false)],
        ),
        (
            Some(Fault::DupReply(100)),
            [well.clone(), (vec![9], false), (vec![3, 3, 4], false)],
        ),
        (
            Some(Fault::CloseAfter(Stage::Connack)),
            [(vec![2], true), (vec![], false), (vec![], false)],
        ),
        (
            Some(Fault::CloseAfter(Stage::Suback)),
            [well.clone(), (vec![9], true), (vec![], false)],
        ),
        (
            Some(Fault::CloseAfter(Stage::Puback)),
            [well.clone(), (vec![9], false), (vec![3, 4], true)],
        ),
        (
            Some(deny(Stage::Connack, 5)),
            [(vec![2], true), (vec![], false), (vec![], false)],
        ),
        (
            Some(deny(Stage::Suback, 0x87)),
            [well.clone(), (vec![9], false), (vec![4], false)],
        ),
        (
            Some(deny(Stage::Puback, 0x87)),
            [well.clone(), (vec![9], false), (vec![], true)],
        ),
        (
            Some(Fault::Throttle(0)),
            [well.clone(), (vec![9], false), (vec![3], false)],
        ),
    ] {
        let mut broker = broker(1);
        play(&mut broker, 0, fault.clone().into_iter().collect());
        open(&mut broker, 0, 1);
        let found = [
            say(&mut broker, 0, 1, connect(true)),
            say(&mut broker, 0, 1, subscribe(&["reply"])),
            say(&mut broker, 0, 1, publish(1)),
        ];
        assert_eq!(found, expected, "{fault:?}");
    }
    let mut dark = broker(1);
    play(&mut dark, 0, vec![Fault::CloseAfter(Stage::Tcp)]);
    assert_eq!(open(&mut dark, 0, 1), (vec![], true));
}

#[test]
fn what_breaks_the_rules_is_closed() {
    for (what, bytes) in [
        ("QoS 2", publish(2)),
        ("three filters at once", subscribe(&["a", "b", "c"])),
        ("a second CONNECT", connect(true)),
        ("a packet of a server", packet::connack(4, false, 0, &[])),
    ] {
        let mut broker = broker(1);
        open(&mut broker, 0, 1);
        say(&mut broker, 0, 1, connect(true));
        assert_eq!(say(&mut broker, 0, 1, bytes), (vec![], true), "{what}");
    }
    let mut early = broker(1);
    open(&mut early, 0, 1);
    assert_eq!(say(&mut early, 0, 1, publish(0)), (vec![], true), "before CONNECT");
    let mut many = broker(1);
    open(&mut many, 0, 1);
    say(&mut many, 0, 1, connect(true));
    say(&mut many, 0, 1, subscribe(&["a", "b"]));
    let outputs = many.handle(
        0,
        0,
        Input::Packet {
            conn: 1,
            bytes: subscribe(&["c", "d"]),
        },
    );
    let codes: Vec<u8> = vec![0x90, 4, 0, 1, 1, 0x80];
    assert_eq!(outputs, [Output::Send(1, codes)], "the fourth subscription");
}

#[test]
fn delayed_replies_keep_their_order() {
    let mut broker = broker(1);
    play(
        &mut broker,
        0,
        vec![Fault::Delay {
            least_ms: 10,
            most_ms: 200,
        }],
    );
    open(&mut broker, 0, 1);
    say(&mut broker, 0, 1, connect(true));
    say(&mut broker, 0, 1, subscribe(&["reply"]));
    for at_ms in [0, 1, 2] {
        assert_eq!(
            say(&mut broker, at_ms, 1, publish(1)).0,
            [4],
            "at {at_ms} ms nothing but PUBACK"
        );
    }
    let mut came = Vec::new();
    for now_ms in (0..=210).step_by(10) {
        let outputs = broker.handle(now_ms, 0, Input::Tick);
        came.extend(outputs.into_iter().filter_map(|output| match output {
            Output::Send(_, bytes) => match Packet::parse(&bytes, 4) {
                Ok(Packet::Publish(publish)) => Some(publish.id),
                _ => None,
            },
            _ => None,
        }));
    }
    assert_eq!(came, [1, 2, 3]);
}

#[test]
fn a_client_that_is_silent_taken_over_or_thrown_out() {
    let mut broker = broker(1);
    open(&mut broker, 0, 1);
    say(&mut broker, 0, 1, connect(true));
    assert!(!heard(&broker.handle(89_999, 0, Input::Tick), 1).1);
    assert!(
        heard(&broker.handle(90_000, 0, Input::Tick), 1).1,
        "one and a half times its keep-alive"
    );

    open(&mut broker, 90_000, 2);
    say(&mut broker, 90_000, 2, connect(true));
    open(&mut broker, 90_000, 3);
    let outputs = broker.handle(
        90_000,
        0,
        Input::Packet {
            conn: 3,
            bytes: connect(true),
        },
    );
    assert_eq!(
        (heard(&outputs, 2), heard(&outputs, 3)),
        ((vec![], true), (vec![2], false))
    );

    assert!(!heard(&play(&mut broker, 90_000, vec![Fault::Takeover(500)]), 3).1);
    assert!(!heard(&broker.handle(90_499, 0, Input::Tick), 3).1);
    assert!(heard(&broker.handle(90_500, 0, Input::Tick), 3).1, "a stranger");

    open(&mut broker, 91_000, 4);
    play(&mut broker, 91_000, Vec::new());
    say(&mut broker, 91_000, 4, connect(true));
    let thrown = Fault::Deny {
        at: Stage::Connack,
        of: Of::Gateway,
        percent: 100,
        code: 5,
        kicks: true,
    };
    assert!(heard(&play(&mut broker, 91_000, vec![thrown]), 4).1);
}

#[test]
fn what_waits_comes_ten_a_second_and_a_session_ends_after_its_hour() {
    for times in [1, 60] {
        let hour_ms = HOUR_MS / times;
        let mut broker = broker(times);
        open(&mut broker, 0, 1);
        say(&mut broker, 0, 1, connect(false));
        say(&mut broker, 0, 1, subscribe(&["down"]));
        broker.handle(0, 0, Input::Gone { conn: 1 });
        for _ in 0..35 {
            assert_eq!(broker.handle(1, 0, down()), []);
        }
        let back_ms = hour_ms - 1;
        broker.handle(back_ms, 0, Input::Tick);
        open(&mut broker, back_ms, 2);
        let (kinds, _) = say(&mut broker, back_ms, 2, connect(false));
        assert_eq!(kinds, [2, 3], "the first at once");
        let mut came = 1;
        for tick in 1..=200 {
            let outputs = broker.handle(back_ms + tick * 20, 0, Input::Tick);
            came += heard(&outputs, 2).0.len();
            assert!(came as u64 <= 1 + tick * 20 / 100, "{came} after {} ms", tick * 20);
        }
        assert_eq!(came, 35);

        broker.handle(back_ms + 5_000, 0, Input::Gone { conn: 2 });
        broker.handle(back_ms + 5_000 + hour_ms, 0, Input::Tick);
        open(&mut broker, back_ms + 5_000 + hour_ms, 3);
        let bytes = connect(false);
        let outputs = broker.handle(back_ms + 5_000 + hour_ms, 0, Input::Packet { conn: 3, bytes });
        assert_eq!(
            outputs,
            [Output::Send(3, packet::connack(4, false, 0, &[]))],
            "nobody remembers it"
        );
    }
}

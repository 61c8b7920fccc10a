//! Mutated conversations against a live endpoint: nothing panics, and a good client is served afterwards.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{
    BOTH, Connect, PUBACK, Rig, ack, connect, packet, persistent, publish, publish_with, sized, string, subscribe,
    subscribe_with, unsubscribe, v5, v311,
};
use mqtt_endpoint::{Limits, Protocol, Qos};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Packets sent per run, a CONNECT and up to five more in each conversation; more with `MUTATIONS`.
const MUTATIONS: usize = 200_000;
/// The seed; another with `SEED`.
const SEED: u64 = 0x5EED_4A57;

/// A small generator (splitmix64), so that a seed means the same conversations for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn hellos() -> Vec<Vec<u8>> {
    let will = Some(("wills/x", "gone", 1, true));
    let v5_properties = [
        vec![0x11, 0, 0, 0, 9],
        vec![0x21, 0, 3],
        vec![0x27, 0, 0, 1, 0],
        vec![0x22, 0, 4],
    ]
    .concat();
    let will_properties = [
        vec![0x18, 0, 0, 0, 0],
        vec![0x02, 0, 0, 0, 9],
        [vec![0x08], string("r")].concat(),
    ]
    .concat();
    vec![
        v311("a").bytes(),
        v5("b").bytes(),
        v5("").bytes(),
        persistent(Protocol::V311, "c").bytes(),
        Connect {
            will,
            username: Some("user"),
            password: Some("pw"),
            ..persistent(Protocol::V311, "d")
        }
        .bytes(),
        Connect {
            will,
            will_properties,
            properties: v5_properties,
            clean: false,
            ..v5("e")
        }
        .bytes(),
    ]
}

fn packets(protocol: Protocol) -> Vec<Vec<u8>> {
    let properties = [
        vec![0x01, 1],
        vec![0x02, 0, 0, 0, 5],
        vec![0x23, 0, 1],
        [vec![0x26], string("k"), string("v")].concat(),
    ];
    let properties = if protocol == Protocol::V5 {
        properties.concat()
    } else {
        Vec::new()
    };
    let mut packets: Vec<Vec<u8>> = [0x00, 0x10, 0x20, 0x90, 0xD0]
        .map(|first| packet(first, &[0, 1]))
        .to_vec();
    packets.extend([
        publish(protocol, 0, "a/b", 0, "zero"),
        publish(protocol, 3, "a/b", 1, "one"),
        publish(protocol, 4, "a/b", 2, "two"),
        publish(protocol, 2, "up/x", 3, "three"),
        publish(protocol, 4, "up/x", 4, "four"),
        publish_with(protocol, 2, "a/c", 5, "five", &properties),
        publish_with(
            protocol,
            0,
            if protocol == Protocol::V5 { "" } else { "x" },
            0,
            "alias",
            &properties,
        ),
        ack(common::PUBREL, 2),
        ack(PUBACK, 1),
        ack(common::PUBREC, 1),
        ack(common::PUBCOMP, 1),
        subscribe(protocol, 6, &[("a/#", 2), ("+/b", 1), ("$share/g/a", 0)]),
        subscribe_with(
            protocol,
            7,
            &[("#", 1)],
            if protocol == Protocol::V5 { &[0x0B, 9] } else { &[] },
        ),
        unsubscribe(protocol, 8, &["a/#", "x"]),
        common::PINGREQ.to_vec(),
        common::DISCONNECT.to_vec(),
        packet(0xE0, &[vec![4], sized(&[0x11, 0, 0, 0, 1])].concat()),
        packet(0xF0, &[vec![0x18], sized(&[vec![0x15], string("m")].concat())].concat()),
    ]);
    packets
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.insert(at, random.next() as u8),
            3 => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            _ => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
        }
    }
}

fn conversation(random: &mut Random, hellos: &[Vec<u8>], packets: &[Vec<Vec<u8>>; 2]) -> (Vec<u8>, usize) {
    let which = random.below(hellos.len());
    let mut bytes = hellos[which].clone();
    // Mostly let in, else nothing behind CONNECT would be tried.
    if random.below(4) == 0 {
        mutate(&mut bytes, random);
    }
    // Now and then in the language of the other version.
    let packets = &packets[usize::from(random.below(8) == 0) ^ usize::from(bytes.get(8) != Some(&5))];
    let count = random.below(6);
    for _ in 0..count {
        let mut next = packets[random.below(packets.len())].clone();
        mutate(&mut next, random);
        bytes.extend(next);
    }
    (bytes, 1 + count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutated_conversations_do_no_harm() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(SEED);
    let mutations = std::env::var("MUTATIONS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(MUTATIONS);
    println!("SEED={seed} MUTATIONS={mutations}");

    // A panic in a connection's task is caught by the runtime; it must not go unseen.
    let panics = Arc::new(AtomicUsize::new(0));
    let (count, before) = (panics.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        count.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));

    // Few retained messages, else most of the time goes into sending them to whoever subscribes to everything.
    let limits = Limits {
        // A few clients have all the conversations.
        connects_a_minute_max: u32::MAX,
        packets_a_second_max: u32::MAX,
        bytes_a_second_max: u32::MAX,
        retained_max: 20,
        ..Limits::default()
    };
    let Rig {
        endpoint,
        handle,
        mut inbound,
        addr,
    } = Rig::with(limits, 64).await;
    // An application that accepts, refuses and drops.
    let application = tokio::spawn(async move {
        let mut served = 0u64;
        while let Some(event) = inbound.recv().await {
            if let mqtt_endpoint::Inbound::Publish { payload, ack, .. } = event {
                served += 1;
                match served % 8 {
                    _ if &*payload == b"good" => ack.accept(),
                    0 => drop(ack),
                    1 => ack.refuse(mqtt_endpoint::Refusal::Unspecified),
                    _ => ack.accept(),
                }
            }
        }
        served
    });
    let (hellos, packets) = (hellos(), [packets(Protocol::V5), packets(Protocol::V311)]);
    let mut random = Random(seed);
    let (mut number, mut sent) = (0, 0);
    // Most conversations are read to their end; the others are broken off, and taken over by the next one of that client.
    while sent < mutations {
        let (bytes, count) = conversation(&mut random, &hellos, &packets);
        (number, sent) = (number + 1, sent + count);
        let (mut ours, theirs) = tokio::io::duplex(2 * 1024);
        assert!(endpoint.attach(theirs, addr));
        if number % 16 == 0 {
            let _ = handle.publish("a/b", b"from the application", Qos::ExactlyOnce, number % 64 == 0);
        }
        if ours.write_all(&bytes).await.is_ok() && number % 8 != 0 {
            let _ = ours.shutdown().await;
            let mut answer = Vec::new();
            common::soon("the end of a conversation", ours.read_to_end(&mut answer))
                .await
                .unwrap();
        }
    }
    while handle.connections() > 0 {
        tokio::task::yield_now().await;
    }
    let counters = handle.counters();
    println!("{number} conversations, {sent} packets: {counters:?}");
    assert_eq!(panics.load(Ordering::Relaxed), 0, "SEED={seed}");
    let share = mutations as u64 / 100;
    assert!(
        counters.violations > share && counters.received > share && counters.sent > share,
        "the mutations miss: {counters:?}"
    );

    for protocol in BOTH {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let mut client = common::Raw { stream };
        client.send(&connect(protocol, "good").bytes()).await;
        client.accepted(protocol).await;
        client.send(&publish(protocol, 2, "up/x", 1, "good")).await;
        client.expect(&ack(PUBACK, 1)).await;
    }
    endpoint.shutdown().await;
    assert!(application.await.unwrap() > share / 10);
}

//! The TCP transport against a scripted peer, both on embassy-net, joined by a cable that fails.
#![allow(clippy::unwrap_used)]

mod cable;

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Mutex, PoisonError},
};

use app::{
    link::{self, Event, Wires},
    tcp::{BUFFER_BYTES, SOCKETS, Tcp, mac_of},
    transport::Transport,
};
use cable::{Cable, State};
use embassy_futures::{join::join, select::select};
use embassy_net::{Config, Ipv4Address, Ipv4Cidr, Stack, StackResources, StaticConfigV4, tcp::TcpSocket};
use embassy_time::{Duration, Instant, Timer, with_timeout};
use embedded_io_async::{Read as _, Write as _};
use proto::{id::Name, seal::PairSecret};

const DEVICE: Ipv4Address = Ipv4Address::new(192, 168, 1, 20);
const GATEWAY: Ipv4Address = Ipv4Address::new(192, 168, 1, 1);
const PORT: u16 = 1883;

/// Time is one for all tests of this process.
static TIME: Mutex<()> = Mutex::new(());

struct Peer<'a> {
    cable: Rc<RefCell<Cable>>,
    socket: TcpSocket<'a>,
}

impl Peer<'_> {
    /// Takes whoever comes, whatever was before.
    async fn accept(&mut self) {
        self.socket.abort();
        self.socket.accept(PORT).await.unwrap();
    }

    async fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.socket.read_exact(&mut bytes).await.unwrap();
        bytes
    }
}

fn address(host: Ipv4Address) -> Config {
    Config::ipv4_static(StaticConfigV4 {
        address: Ipv4Cidr::new(host, 24),
        gateway: Some(GATEWAY),
        dns_servers: Default::default(),
    })
}

/// Plays a scenario between a device and its peer.
fn play<T>(gateway: Option<&str>, scenario: impl AsyncFnOnce(Tcp<'_>, Peer<'_>) -> T) -> T {
    let _alone = TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (cable, near, far) = cable::cable();
    let (mut resources, mut peers) = (StackResources::<SOCKETS>::new(), StackResources::<SOCKETS>::new());
    let (stack, mut runner) = embassy_net::new(near, address(DEVICE), &mut resources, 1);
    let (peer, mut peer_runner): (Stack<'_>, _) = embassy_net::new(far, address(GATEWAY), &mut peers, 2);
    let mut buffers = [[0; BUFFER_BYTES]; 4];
    let [received, sent, peer_received, peer_sent] = &mut buffers;
    let tcp = Tcp::new(stack, received, sent, gateway.map(|text| text.parse().unwrap()));
    let socket = TcpSocket::new(peer, peer_received, peer_sent);
    let scenario = scenario(tcp, Peer { cable, socket });
    cable::run(scenario, join(runner.run(), peer_runner.run()))
}

/// A fresh connection on which each hears the other, and nothing of before.
async fn greet(tcp: &mut Tcp<'_>, peer: &mut Peer<'_>) {
    let (renewed, ()) = join(tcp.renew(), peer.accept()).await;
    assert_eq!(renewed, Ok(()));
    tcp.write_all(b"hello").await.unwrap();
    assert_eq!(peer.read(5).await, b"hello");
    peer.socket.write_all(b"answer").await.unwrap();
    let mut heard = [0; 6];
    tcp.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"answer");
}

#[test]
fn the_gateway_is_where_it_was_said_or_at_the_router() {
    for gateway in [None, Some("192.168.1.1:1883")] {
        play(gateway, async |mut tcp, mut peer| greet(&mut tcp, &mut peer).await);
    }
}

#[test]
fn a_refused_connection_is_an_error_at_once_and_the_next_one_stands() {
    play(None, async |mut tcp, mut peer| {
        let before = Instant::now();
        // Nobody listens yet.
        assert_eq!(tcp.renew().await, Err(()));
        assert!(before.elapsed() < Duration::from_secs(1), "{}", before.elapsed());
        greet(&mut tcp, &mut peer).await;
    });
}

#[test]
fn a_gateway_that_is_not_there_takes_no_longer_than_its_limit() {
    play(Some("192.168.1.77:1883"), async |mut tcp, _| {
        let before = Instant::now();
        assert_eq!(tcp.renew().await, Err(()));
        assert!(before.elapsed() < Duration::from_secs(7), "{}", before.elapsed());
    });
}

#[test]
fn bytes_of_an_old_connection_are_never_read() {
    play(None, async |mut tcp, mut peer| {
        greet(&mut tcp, &mut peer).await;
        // Half a message, and the peer is gone.
        peer.socket.write_all(b"half a mess").await.unwrap();
        peer.socket.flush().await.unwrap();
        greet(&mut tcp, &mut peer).await;
    });
}

#[test]
fn a_reset_in_the_middle_of_a_message_is_noticed() {
    play(None, async |mut tcp, mut peer| {
        greet(&mut tcp, &mut peer).await;
        peer.socket.write_all(b"half").await.unwrap();
        peer.socket.flush().await.unwrap();
        peer.socket.abort();
        let mut message = [0; 16];
        assert!(tcp.read_exact(&mut message).await.is_err());
        greet(&mut tcp, &mut peer).await;
    });
}

#[test]
fn a_peer_that_closes_is_the_end_of_the_stream() {
    play(None, async |mut tcp, mut peer| {
        greet(&mut tcp, &mut peer).await;
        peer.socket.close();
        assert_eq!(tcp.read(&mut [0; 16]).await, Ok(0));
        greet(&mut tcp, &mut peer).await;
    });
}

#[test]
fn a_peer_that_falls_silent_is_noticed_while_waiting_and_while_sending() {
    for sending in [false, true] {
        play(None, async |mut tcp, mut peer| {
            greet(&mut tcp, &mut peer).await;
            peer.cable.borrow_mut().set(State::Lossy);
            if sending {
                tcp.write_all(b"anybody?").await.unwrap();
            }
            let before = Instant::now();
            assert!(tcp.read(&mut [0; 16]).await.is_err());
            let noticed = before.elapsed();
            assert!(noticed < Duration::from_secs(16), "{noticed}");
            assert_eq!(tcp.renew().await, Err(()), "the cable is still lossy");
            peer.cable.borrow_mut().set(State::Fine);
            greet(&mut tcp, &mut peer).await;
        });
    }
}

#[test]
fn a_cable_that_is_put_in_again_brings_a_fresh_connection() {
    play(None, async |mut tcp, mut peer| {
        greet(&mut tcp, &mut peer).await;
        peer.socket.write_all(b"half a mess").await.unwrap();
        peer.socket.flush().await.unwrap();
        peer.cable.borrow_mut().set(State::Out);
        assert_eq!(tcp.renew().await, Err(()));
        Timer::after_secs(60).await;
        peer.cable.borrow_mut().set(State::Fine);
        greet(&mut tcp, &mut peer).await;
    });
}

/// A broker that takes one client and its one subscription, and says nothing more.
async fn serve_mqtt(peer: &mut Peer<'_>) {
    const CONNECT: u8 = 0x10;
    const SUBSCRIBE: u8 = 0x82;
    peer.accept().await;
    let connect = packet(peer).await;
    assert_eq!(connect[0], CONNECT);
    peer.socket.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
    let subscribe = packet(peer).await;
    assert_eq!(subscribe[0], SUBSCRIBE);
    peer.socket
        .write_all(&[0x90, 4, subscribe[2], subscribe[3], 0, 1])
        .await
        .unwrap();
}

/// A packet of less than 128 bytes behind its header.
async fn packet(peer: &mut Peer<'_>) -> Vec<u8> {
    let mut packet = peer.read(2).await;
    assert!(packet[1] < 128);
    let body = peer.read(packet[1].into()).await;
    packet.extend(body);
    packet
}

#[test]
fn the_link_stands_again_after_each_end_of_a_connection() {
    let wires = Wires::new();
    let id = Name::new("charger-001").unwrap();
    let secret = PairSecret([7; 32]);
    let next = async |wanted: fn(&Event) -> bool| {
        let event = async {
            loop {
                let event = wires.down.receive().await;
                if wanted(&event) {
                    return;
                }
            }
        };
        with_timeout(Duration::from_secs(90), event)
            .await
            .expect("an event in time");
    };
    play(None, async |tcp, mut peer| {
        let scenario = async {
            for fault in ["", "close", "reset", "silent", "out"] {
                match fault {
                    "close" => peer.socket.close(),
                    "reset" => peer.socket.abort(),
                    "silent" => peer.cable.borrow_mut().set(State::Lossy),
                    "out" => peer.cable.borrow_mut().set(State::Out),
                    _ => {}
                }
                if !fault.is_empty() {
                    next(|event| matches!(event, Event::Down)).await;
                }
                peer.cable.borrow_mut().set(State::Fine);
                join(serve_mqtt(&mut peer), next(|event| matches!(event, Event::Up))).await;
            }
        };
        select(scenario, link::run(&id, &secret, tcp, &wires)).await;
    });
}

#[test]
fn chips_that_differ_in_one_bit_have_different_addresses() {
    let uid = *b"\x21\x00\x3a\x00\x0e\x51 48373";
    let mut seen: Vec<[u8; 6]> = (0..96)
        .map(|bit| {
            let mut uid = uid;
            uid[bit / 8] ^= 1 << (bit % 8);
            mac_of(&uid)
        })
        .collect();
    seen.push(mac_of(&uid));
    for mac in &seen {
        assert_eq!(mac[0] & 3, 2, "local, and of one interface: {mac:02x?}");
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 97);
}

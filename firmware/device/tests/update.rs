//! What is said about firmware: opened and sealed by the device, acted on by the shell, and no matter of sessions.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

mod bench;

use bench::{Bench, Said};
use device::{Input, update::Told};
use proto::{
    id::Kind,
    message::Stamp,
    topic::Down,
    update::{Fault, Octets, Offer, Piece, State, Update},
};

type Device = device::Device;

const UPDATE: Update = Update {
    version: 3,
    floor: 2,
    state: State::Fetching,
    offered: 4,
    fault: Fault::None,
    offset: 512,
    at: Stamp::relative(0),
};

fn piece() -> Piece {
    Piece {
        version: 4,
        offset: 512,
        bytes: Octets::new(&[7; 512]).unwrap(),
    }
}

#[test]
fn it_is_opened_once_and_only_if_sealed_for_this_device() {
    let mut b = Bench::new(Kind::Charger);
    let offer = Offer {
        manifest: Octets::new(&[1; 100]).unwrap(),
    };
    let (topic, frame) = b.frame(Down::Offer, &offer);
    assert!(Device::is_update(&topic));
    assert_eq!(b.device.hear_update(&topic, &frame), Some(Told::Offer(offer)));
    assert_eq!(b.device.hear_update(&topic, &frame), None, "a replay");
    assert_eq!(b.device.rejected().replay, 1);
    let (topic, mut frame) = b.frame(Down::Piece, &piece());
    frame[40] ^= 1;
    assert_eq!(b.device.hear_update(&topic, &frame), None);
    assert_eq!(b.device.rejected().seal, 1);
    frame[40] ^= 1;
    // As an input like any other it changes nothing.
    b.input(Input::Message {
        topic: &topic,
        frame: &frame,
    });
    let (topic, frame) = b.frame(Down::Piece, &piece());
    assert_eq!(b.device.hear_update(&topic, &frame), Some(Told::Piece(piece())));
    assert!(!Device::is_update("dev/1/bench-1/down/grant"));
}

#[test]
fn it_is_told_when_the_gateway_answered_the_hello() {
    let mut b = Bench::dark(bench::config(Kind::Charger), Default::default());
    assert_eq!(b.device.tell_update(UPDATE), None);
    b.link();
    let (topic, frame) = b.device.tell_update(UPDATE).unwrap();
    assert_eq!(topic, "dev/1/bench-1/up/update");
    assert!(frame.len() < 120, "{} bytes, once a piece", frame.len());
    assert!(!b.said.iter().any(|said| matches!(said, Said::Update(_))));
}

#[test]
fn a_device_is_idle_when_nobody_would_be_cut_off() {
    let mut b = Bench::new(Kind::Washer);
    assert!(b.device.is_idle());
    b.present(0, 1);
    assert!(!b.device.is_idle(), "somebody asked");
    b.input(Input::LinkDown);
    b.wait(60_000);
    assert!(b.device.is_idle(), "and gave up");
    // A machine that somebody started by its own buttons.
    b.sense(1, |sense| sense.running = true);
    assert!(!b.device.is_idle());
    b.sense(1, |sense| sense.running = false);
    assert!(b.device.is_idle());
    let mut b = Bench::new(Kind::Charger);
    b.granted(0, 2);
    assert!(!b.device.is_idle(), "granted, and not begun");
}

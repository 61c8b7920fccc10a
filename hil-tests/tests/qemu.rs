//! The flashed image in QEMU: real firmware, real gateway, real hub.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, time::Duration};

use hil_tests::{
    rig::{image::Image, qemu::{self, Board}, qtest::Port},
    site::{BrokerKind, Plan, Site, hex},
};
use proto::{id::Kind, identity::Identity};

const PATIENCE: Duration = Duration::from_secs(30);

fn image(kind: Kind) -> Image {
    let dir = std::env::var("HOLDFAST_IMAGES").expect("HOLDFAST_IMAGES: where the images are");
    Image::load(&PathBuf::from(dir).join(kind.word())).unwrap()
}

#[test]
fn first_light() {
    assert_eq!(qemu::missing(), None);
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(3, 3, 12);
    let (hub, cloud) = Site::start_hub(&plan, dir.path()).unwrap();
    let mut site = Site::start(plan, dir.path(), hub, cloud, BrokerKind::Embedded).unwrap();
    let device = site.plan.devices.iter().find(|d| d.kind == Kind::Dispenser).unwrap();
    let identity = Identity::new(device.id, device.kind, 1, device.secret.clone());
    let mut board = Board::new(dir.path(), &image(Kind::Dispenser), &identity, site.device_address).unwrap();
    if std::env::var("KEEP").is_ok() { std::fs::copy(dir.path().join("dispenser-001/flash.img"), "/tmp/flash.img").unwrap(); return; }
    board.power_on().unwrap();
    board.pins().unwrap().set_pin(Port::B, 1, true).unwrap();
    board.wait_for_log(0, "boots", PATIENCE).unwrap();
    let l = board.wait_for_log(0, "linked", PATIENCE); println!("LOG {}", board.log()); println!("conn {} cpu {} log {}", board.module().connections(), 0, std::fs::read_to_string(dir.path().join("gateway.log")).unwrap()); println!("{:?}", std::fs::read_to_string(dir.path().join("dispenser-001/qemu.log"))); for a in [0x40004c1cu64, 0x40004c00, 0x40004c08, 0x40004c24] { println!("{a:x} {:x}", board.pins().unwrap().read(a).unwrap()); } l.unwrap();
    let user = &site.plan.users[0];
    board.scan(&hex(&user.token)).unwrap();
    let r = board.wait_for_log(0, "granted", PATIENCE);
    println!("{} on {:?} conn {}", board.log(), board.is_on(), board.module().connections());
    r.unwrap();
    for _ in 0..450 {
        board.pins().unwrap().set_pin(Port::A, 15, false).unwrap();
        board.pins().unwrap().set_pin(Port::A, 15, true).unwrap();
    }
    board.wait_for_log(0, "receipt", PATIENCE).unwrap();
    println!("{} cpu {}", board.log(), board.cpu_ms().unwrap());
    site.settle(PATIENCE).unwrap();
}

//! The flashed image in QEMU: real firmware, real gateway, real hub.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, time::Duration};

use hil_tests::{
    books,
    rig::{
        image::Image,
        qemu::{self, Board},
    },
    site::{BrokerKind, Plan, Site},
};
use proto::{id::Kind, identity::Identity};

/// How long anything may take: boards share the processors with everything else.
const PATIENCE: Duration = Duration::from_secs(60);

fn image(kind: Kind) -> Image {
    let dir = std::env::var("HOLDFAST_IMAGES").expect("HOLDFAST_IMAGES: where the images are");
    Image::load(&PathBuf::from(dir).join(kind.word())).unwrap()
}

/// A site, and a board of each kind at it.
struct Bench {
    site: Site,
    boards: Vec<Board>,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(seed: u64) -> Self {
        assert_eq!(qemu::missing(), None);
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::new(seed, 3, 12);
        let (hub, cloud) = Site::start_hub(&plan, dir.path()).unwrap();
        let site = Site::start(plan, dir.path(), hub, cloud, BrokerKind::Embedded).unwrap();
        let boards = site.plan.devices.iter().map(|device| {
            let identity = Identity::new(device.id, device.kind, 1, device.secret.clone());
            Board::new(dir.path(), &image(device.kind), &identity, site.device_address).unwrap()
        });
        let boards = boards.collect();
        Self { site, boards, dir }
    }

    fn power_on(&mut self) {
        for board in &mut self.boards {
            board.power_on().unwrap();
        }
        for board in &mut self.boards {
            board.wait_for_log(0, "linked", PATIENCE).unwrap();
        }
    }

    /// The card of a user who is good and decided locally.
    fn card(&self, number: usize) -> [u8; 7] {
        let good = self.site.plan.users.iter().filter(|user| user.standing.word() == "good" && user.whitelist == "always");
        good.cycle().nth(number).unwrap().token
    }

    fn close_books(mut self) {
        self.site.settle(PATIENCE).unwrap();
        let (gateway, hub) = (self.site.ask_gateway("ledger").unwrap(), self.site.ask_hub("ledger").unwrap());
        let books = books::compare(gateway.as_array().unwrap(), &hub).unwrap();
        println!("{books:?}");
        assert!(books.hub_gateway_equal && books.ledger_balanced, "{books:?}");
        assert_eq!((books.records_lost, books.records_doubled, books.records_foreign), (0, 0, 0));
        for board in &self.boards {
            println!("{:?}: {}", board.kind(), board.log());
        }
        drop(self.dir);
    }
}

#[test]
fn a_session_of_each_kind() {
    let mut bench = Bench::new(3);
    bench.power_on();
    for i in 0..bench.boards.len() {
        let card = bench.card(i);
        let board = &mut bench.boards[i];
        board.world().bring();
        board.tap(&card);
        let at = board.wait_for_log(0, "granted", PATIENCE).unwrap();
        board.wait("on", PATIENCE, |board| board.is_on().unwrap()).unwrap();
        if board.kind() == Kind::Charger {
            board.wait("5 Wh", PATIENCE, |board| board.world().delivered_milli() > 5_000).unwrap();
            board.world().take_away();
        }
        let at = board.wait_for_log(at, "ended", PATIENCE).unwrap();
        board.wait("off", PATIENCE, |board| !board.is_on().unwrap()).unwrap();
        board.wait_for_log(at, "receipt", PATIENCE).unwrap();
        assert!(board.world().delivered_milli() > 0);
    }
    bench.close_books();
}

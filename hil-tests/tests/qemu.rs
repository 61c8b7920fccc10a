//! The flashed images in QEMU: real firmware on an emulated microcontroller, at a real gateway with a real hub, behind a
//! cloud that fails.
//!
//! `HOLDFAST_IMAGES` names the folder of the images; `cargo xtask test qemu` builds them and runs this.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, process::Command, time::Duration};

use hil_tests::{
    books,
    cloud_sim::{CloudSim, Mode},
    rig::{
        image::Image,
        pins,
        qemu::{self, Board},
    },
    site::{BrokerKind, Plan, Site, binary},
};
use proto::id::Kind;

/// How long anything may take: boards share the processors with everything else.
const PATIENCE: Duration = Duration::from_secs(90);
/// Delivered before something happens to a session, in thousandths of Wh, cycles and ml.
const SOME_MILLI: u64 = 2_000;

fn image(kind: Kind) -> Image {
    let dir = std::env::var("HOLDFAST_IMAGES").expect("HOLDFAST_IMAGES: where the images are");
    Image::load(&PathBuf::from(dir).join(kind.word())).unwrap()
}

/// A site behind a cloud that can fail, and boards of some kinds at it.
struct Bench {
    site: Site,
    cloud: CloudSim,
    boards: Vec<Board>,
    _runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(seed: u64, kinds: &[Kind]) -> Self {
        assert_eq!(qemu::missing(), None);
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::new(seed, 3, 60);
        let (hub, hub_address) = Site::start_hub(&plan, dir.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let cloud = runtime.block_on(CloudSim::start(hub_address)).unwrap();
        let site = Site::start(plan, dir.path(), hub, cloud.address(), BrokerKind::Embedded).unwrap();
        let of_kinds = site.plan.devices.iter().filter(|device| kinds.contains(&device.kind));
        let boards = of_kinds.map(|device| {
            let page = dir.path().join(format!("{}.bin", device.id));
            let provisioned = Command::new(binary("holdfast").unwrap())
                .arg("--config")
                .arg(site.dir.join("gateway/holdfast.toml"))
                .args(["device", "provision", device.id.as_str(), "--out"])
                .arg(&page)
                .output()
                .unwrap();
            assert!(provisioned.status.success(), "{provisioned:?}");
            let page = std::fs::read(page).unwrap();
            Board::new(dir.path(), &image(device.kind), &page, site.device_address).unwrap()
        });
        let mut bench = Self {
            boards: boards.collect(),
            site,
            cloud,
            _runtime: runtime,
            dir,
        };
        for board in &mut bench.boards {
            board.power_on().unwrap();
        }
        for board in &mut bench.boards {
            board.wait_for_log(0, "linked", PATIENCE).unwrap();
        }
        bench
    }

    /// The card of a user of this standing and OCPI policy.
    fn card(&self, standing: &str, whitelist: &str, number: usize) -> [u8; 7] {
        let users = self.site.plan.users.iter();
        let mut fit = users.filter(|user| user.standing.word() == standing && user.whitelist == whitelist);
        fit.nth(number).unwrap().token
    }

    /// Somebody comes, is served, leaves, and gets a receipt.
    fn serve(&mut self, i: usize, card: &[u8]) {
        let board = &mut self.boards[i];
        let at = begin(board, card);
        finish(board, at);
    }

    fn close_books(mut self) {
        for board in &self.boards {
            println!(
                "--- {:?}, {} connections\n{}",
                board.kind(),
                board.module().connections(),
                board.log()
            );
        }
        self.site.settle(PATIENCE).unwrap();
        let (gateway, hub) = (
            self.site.ask_gateway("ledger").unwrap(),
            self.site.ask_hub("ledger").unwrap(),
        );
        let books = books::compare(gateway.as_array().unwrap(), &hub).unwrap();
        println!("{books:?}");
        assert!(books.hub_gateway_equal && books.ledger_balanced, "{books:?}");
        assert_eq!(
            (books.records_lost, books.records_doubled, books.records_foreign),
            (0, 0, 0)
        );
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("gateway.log")).unwrap_or_default();
            println!("the gateway's log:\n{log}");
        }
    }
}

/// Presents a card, and waits until something is delivered; the number of the log line behind the grant.
fn begin(board: &mut Board, card: &[u8]) -> usize {
    let at = board.logged();
    board.world().bring();
    board.tap(card);
    let at = board.wait_for_log(at, "granted", PATIENCE).unwrap();
    let before = board.world().delivered_milli();
    let some = if board.kind() == Kind::Washer {
        1_000
    } else {
        SOME_MILLI
    };
    board
        .wait("a delivery", PATIENCE, |board| {
            board.world().delivered_milli() >= before + some
        })
        .unwrap();
    assert!(board.is_on().unwrap());
    at
}

/// Waits for the end of a session; a plug is pulled, a wash and a vessel take their time.
fn end(board: &mut Board, at: usize) -> usize {
    if board.kind() == Kind::Charger {
        board.world().take_away();
    }
    let at = board.wait_for_log(at, "ended", PATIENCE).unwrap();
    board.wait("off", PATIENCE, |board| !board.is_on().unwrap()).unwrap();
    board.world().take_away();
    at
}

fn finish(board: &mut Board, at: usize) {
    let at = end(board, at);
    board.wait_for_log(at, "receipt", PATIENCE).unwrap();
}

const ALL: [Kind; 3] = Kind::SERVED;

/// Every kind is served by a healthy cloud, in the dark, and by a gateway that dies meanwhile; a card that is revoked is
/// not.
#[test]
fn every_kind_in_every_weather() {
    let mut bench = Bench::new(3, &ALL);
    for i in 0..ALL.len() {
        let card = bench.card("good", "allowed_offline", i);
        bench.serve(i, &card);
    }
    let revoked = bench.card("revoked", "allowed", 0);
    let board = &mut bench.boards[0];
    let at = board.logged();
    board.world().bring();
    board.tap(&revoked);
    board.wait_for_log(at, "refused", PATIENCE).unwrap();
    assert!(!board.is_on().unwrap());
    board.world().take_away();

    bench.cloud.set(Mode::Dark);
    for i in 0..ALL.len() {
        let card = bench.card("good", "allowed", i);
        bench.serve(i, &card);
    }

    let mut grants = Vec::new();
    for i in 0..ALL.len() {
        let card = bench.card("good", "always", i);
        grants.push(begin(&mut bench.boards[i], &card));
    }
    bench.site.kill_gateway().unwrap();
    for (board, at) in bench.boards.iter_mut().zip(grants) {
        finish(board, at);
        let washes = if board.kind() == Kind::Washer { 3 } else { 0 };
        assert_eq!(board.world().coins(), washes, "one coin for each wash");
    }
    bench.cloud.set(Mode::Honest);
    bench.close_books();
}

/// The power fails in the middle of a charge: the same plug, minutes later, the grant alive: it goes on. The network
/// cable is out when it ends: the stop is told when it is back.
#[test]
fn a_power_cut_and_a_pulled_cable() {
    let mut bench = Bench::new(5, &[Kind::Charger]);
    let (card, other) = (bench.card("good", "always", 0), bench.card("good", "always", 1));
    let board = &mut bench.boards[0];
    begin(board, &card);
    let before = board.world().delivered_milli();
    board.power_off().unwrap();
    let at = board.logged();
    board.power_on().unwrap();
    board.wait_for_log(at, "recovering", PATIENCE).unwrap();
    // How long the power was away only a synchronised clock can tell; without one the session is over.
    let is_synchronised = bench.site.ask_gateway("status").unwrap()["clock"] == "synchronised";
    println!("the gateway's clock is synchronised: {is_synchronised}");
    let board = &mut bench.boards[0];
    let at = if is_synchronised {
        board
            .wait("on again", PATIENCE, |board| board.is_on().unwrap())
            .unwrap();
        board
            .wait("more", PATIENCE, |board| {
                board.world().delivered_milli() > before + SOME_MILLI
            })
            .unwrap();
        at
    } else {
        let at = board.wait_for_log(at, "ended", PATIENCE).unwrap();
        board.wait_for_log(at, "free", PATIENCE).unwrap();
        board.world().take_away();
        begin(board, &other)
    };
    board.module().unplug(true);
    board.wait_for_log(at, "unlinked", PATIENCE).unwrap();
    let at = end(board, at);
    board.module().unplug(false);
    board.wait_for_log(at, "receipt", PATIENCE).unwrap();
    bench.close_books();
}

/// With the cable out a voucher is believed by the device alone, once; the gateway hears of it later.
#[test]
fn a_voucher_without_a_gateway() {
    let mut bench = Bench::new(7, &[Kind::Dispenser]);
    let card = bench.card("good", "always", 0);
    // A first session brings the price.
    bench.serve(0, &card);
    let output = Command::new(binary("holdfast-hub").unwrap())
        .args(["issue", "voucher", "--config"])
        .arg(bench.site.dir.join("hub/hub.toml"))
        .args([
            "--site",
            "campus",
            "--kind",
            "dispenser",
            "--amount",
            "100",
            "--until",
            "4102444800",
        ])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    println!("{printed}");
    let envelope = printed
        .split_whitespace()
        .find(|word| word.len() > 100)
        .unwrap()
        .to_owned();
    let board = &mut bench.boards[0];
    board.module().unplug(true);
    board.wait_for_log(0, "unlinked", PATIENCE).unwrap();
    let at = board.logged();
    board.world().bring();
    board.scan(&envelope).unwrap();
    let at = board.wait_for_log(at, "granted", PATIENCE).unwrap();
    let at = end(board, at);
    // Once.
    board.scan(&envelope).unwrap();
    board.wait_for_log(at, "refused", PATIENCE).unwrap();
    // The power fails before the gateway knows of it.
    board.power_off().unwrap();
    board.power_on().unwrap();
    let at = board.wait_for_log(at, "free", PATIENCE).unwrap();
    board.scan(&envelope).unwrap();
    board.wait_for_log(at, "refused", PATIENCE).unwrap();
    board.module().unplug(false);
    let at = board.wait_for_log(at, "linked", PATIENCE).unwrap();
    board.wait_for_log(at, "receipt", PATIENCE).unwrap();
    bench.close_books();
}

/// The same card and the button stop; a welded contactor, a silent meter, residual current and heat switch off and are
/// told, without any gateway.
#[test]
fn what_stops_a_charge() {
    let mut bench = Bench::new(9, &[Kind::Charger]);
    let cards: Vec<[u8; 7]> = (0..6).map(|i| bench.card("good", "always", i)).collect();
    let thermistor = image(Kind::Charger).address_of("ADC_COUNTS").unwrap() + 4 * pins::THERMISTOR_CHANNEL;
    let board = &mut bench.boards[0];
    let mut ends =
        |how: &str, told: &str, card: &[u8; 7], stop: &mut dyn FnMut(&mut Board), clear: &mut dyn FnMut(&mut Board)| {
            let at = begin(board, card);
            stop(board);
            let off = board.wait("off", PATIENCE, |board| !board.is_on().unwrap());
            off.unwrap_or_else(|error| panic!("{how}: {error}"));
            clear(board);
            board.world().take_away();
            board.wait_for_log(at, "free", PATIENCE).unwrap();
            let log: Vec<String> = board.log().lines().skip(at).map(str::to_owned).collect();
            println!("{how}: {log:#?}");
            assert!(
                log.iter().any(|line| line.contains(told)),
                "{how} is not told as {told}"
            );
        };
    // A card is read again and again while it rests; the second gesture comes later.
    let card = cards[0];
    ends(
        "the same card",
        "ended, reason 1:",
        &card,
        &mut |board| {
            let at = board.logged();
            let mut taps = 0;
            board
                .wait("the end", PATIENCE, |board| {
                    taps += 1;
                    if taps % 600 == 0 {
                        board.tap(&card);
                    }
                    board.log().lines().skip(at).any(|line| line.contains("ended"))
                })
                .unwrap();
        },
        &mut |_| {},
    );
    ends(
        "the button",
        "ended, reason 1:",
        &cards[1],
        &mut |board| board.press_stop().unwrap(),
        &mut |_| {},
    );
    let leak = |board: &mut Board, wet: bool| board.pins().unwrap().set_pin(pins::LEAK, !wet).unwrap();
    ends(
        "residual current",
        "fault 4",
        &cards[2],
        &mut |board| leak(board, true),
        &mut |board| {
            leak(board, false);
        },
    );
    let heat = |board: &mut Board, count| board.pins().unwrap().write(thermistor, count).unwrap();
    // 300 of 4095 counts of an NTC to ground are far above 85 degrees.
    ends(
        "heat",
        "fault 3",
        &cards[3],
        &mut |board| heat(board, 300),
        &mut |board| {
            board.pins().unwrap().write(thermistor, 2048).unwrap();
        },
    );
    // It is off, and what the contactor's contacts say is that it is not.
    ends(
        "a welded contactor",
        "fault 5",
        &cards[5],
        &mut |board| {
            board.world().weld(true);
            board.press_stop().unwrap();
            let at = board.logged();
            board.wait_for_log(at, "fault", PATIENCE).unwrap();
        },
        &mut |board| board.world().weld(false),
    );
    let broken = |board: &mut Board, broken| board.wire().lock().unwrap().broken = broken;
    ends(
        "a silent meter",
        "fault 10",
        &cards[4],
        &mut |board| broken(board, true),
        &mut |board| {
            board.wire().lock().unwrap().broken = false;
        },
    );
    bench.close_books();
}

/// Boards that wait cost next to nothing.
#[test]
fn boards_that_wait_sleep() {
    let bench = Bench::new(11, &ALL);
    let before: Vec<u64> = bench.boards.iter().map(|board| board.cpu_ms().unwrap()).collect();
    let since = std::time::Instant::now();
    // What is measured is that nothing happens meanwhile.
    std::thread::sleep(Duration::from_secs(10));
    for (board, before) in bench.boards.iter().zip(before) {
        let used = board.cpu_ms().unwrap() - before;
        let share = used as f64 / since.elapsed().as_millis() as f64 * 100.0;
        println!(
            "{:?}: {share:.1} % of a processor of the host while it waits",
            board.kind()
        );
    }
    bench.close_books();
}

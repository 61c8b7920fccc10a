//! An update of a flashed charger in QEMU, over its serial link from a real gateway: fetched, swapped in by the real
//! bootloader with the power cut in the middle, confirmed after its hello; one that is not heard goes back; what is not for the
//! device is refused.
//!
//! `HOLDFAST_IMAGES` names the folder of the images; `cargo xtask test --step qemu` builds them and runs this.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use hil_tests::{
    rig::{
        image::Image,
        qemu::{self, Board},
    },
    site::{BrokerKind, Plan, Site, binary, firmware_seed, hex},
};
use proto::id::DeviceId;

/// How long anything may take: boards share the processors with everything else. An image takes half a minute at 115,200
/// baud.
const PATIENCE: Duration = Duration::from_secs(180);
/// Where the bootloader notes how far it is, in the flash, and a word of it.
const STATE_AT: usize = 0x8000;
const WORD_BYTES: usize = 8;
/// Two copies of each of the 120 pages of the program.
const SWAP_STEPS: usize = 240;
/// What the bootloader is told to swap by.
const SWAP: [u8; WORD_BYTES] = [0xf0; WORD_BYTES];

struct Bench {
    site: Site,
    board: Board,
    device: DeviceId,
    dir: tempfile::TempDir,
}

fn images() -> PathBuf {
    PathBuf::from(std::env::var("HOLDFAST_IMAGES").expect("HOLDFAST_IMAGES: where the images are"))
}

impl Bench {
    fn new(seed: u64) -> Self {
        assert_eq!(qemu::missing(), None);
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::new(seed, 1, 10);
        let (hub, hub_address) = Site::start_hub(&plan, dir.path()).unwrap();
        let site = Site::start(plan, dir.path(), hub, hub_address, BrokerKind::Embedded).unwrap();
        let device = site.plan.devices[0].id;
        let page = dir.path().join("identity.bin");
        let provisioned = holdfast(&site, &["device", "provision", device.as_str(), "--out"], &[&page]);
        assert!(provisioned.status.success(), "{provisioned:?}");
        let page = fs::read(page).unwrap();
        let image = Image::load(&images().join("charger")).unwrap();
        let mut board = Board::new(dir.path(), &image, &page, site.device_address).unwrap();
        board.power_on().unwrap();
        board.wait_for_log(0, "linked", PATIENCE).unwrap();
        Self {
            site,
            board,
            device,
            dir,
        }
    }

    /// An image of this version, signed with the site's key or another.
    fn signed(&self, version: u32, seed: [u8; 32]) -> PathBuf {
        let key = self.dir.path().join(format!("{version}.toml"));
        fs::write(&key, format!("firmware_seed = \"{}\"\n", hex(&seed))).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let out = self.dir.path().join(format!("{version}.hff"));
        let version = version.to_string();
        let how = [
            "image",
            "sign",
            "--board",
            "b-l475e-iot01a",
            "--kind",
            "charger",
            "--version",
            &version,
            "--key",
        ];
        let signed = holdfast(&self.site, &how, &[&key, &images().join("charger"), &out]);
        assert!(signed.status.success(), "{signed:?}");
        println!("{}", String::from_utf8_lossy(&signed.stdout).trim());
        out
    }

    fn mine(&self) -> [u8; 32] {
        firmware_seed(self.site.plan.seed)
    }

    fn order(&self, image: &Path) -> Output {
        holdfast(&self.site, &["device", "update", self.device.as_str()], &[image])
    }

    /// Orders what is to be refused; why it was.
    fn refused(&self, image: &Path) -> String {
        let output = self.order(image);
        assert_eq!(output.status.code(), Some(65), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The device's row, as an operator sees it.
    fn row(&self) -> serde_json::Value {
        self.site.ask_gateway("devices").unwrap()[0].clone()
    }

    /// Waits until the operator sees the version, or the update, so.
    fn wait_for_row(&mut self, column: &str, words: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let row = self.row();
            if row[column].to_string().contains(words) {
                println!("{row}");
                return;
            }
            assert!(Instant::now() < end, "not \"{words}\" but {row}; {}", self.board.log());
            let pause = Instant::now() + Duration::from_millis(200);
            self.board
                .wait("a pause", PATIENCE, |_| Instant::now() >= pause)
                .unwrap();
        }
    }

    fn flash(&self) -> Vec<u8> {
        fs::read(self.dir.path().join(self.device.as_str()).join("flash.img")).unwrap()
    }

    /// How many steps of the swap are done; `None`: no swap is under way.
    fn swapped(&self) -> Option<usize> {
        let flash = self.flash();
        let mut words = flash[STATE_AT..].chunks(WORD_BYTES);
        if words.next() != Some(&SWAP[..]) {
            return None;
        }
        Some(words.skip(1).take_while(|word| *word == [0; WORD_BYTES]).count())
    }

    fn close_books(mut self) {
        println!("--- the firmware logged:\n{}", self.board.log());
        self.site.settle(PATIENCE).unwrap();
        let books = self.site.books().unwrap();
        assert!(books.are_closed(), "{books:?}");
        assert_eq!(
            (books.charges.len(), books.adjustments),
            (1, 0),
            "one session: {books:?}"
        );
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("gateway.log")).unwrap_or_default();
            println!("the gateway's log:\n{log}");
        }
    }
}

fn holdfast(site: &Site, words: &[&str], paths: &[&Path]) -> Output {
    let mut command = Command::new(binary("holdfast").unwrap());
    command.arg("--config").arg(site.dir.join("gateway/holdfast.toml"));
    command.args(words).args(paths).output().unwrap()
}

#[test]
fn an_update_is_tried_and_kept_or_goes_back() {
    let mut bench = Bench::new(23);
    let since = Instant::now();
    bench.wait_for_row("version", "0");

    // What is not for this device.
    let (good, strange) = (bench.signed(5, bench.mine()), bench.signed(6, [0x66; 32]));
    let message = bench.refused(&strange);
    assert!(
        message.contains("not signed by a key of trust.firmware_keys"),
        "{message}"
    );
    let mut bytes = fs::read(&good).unwrap();
    bytes[10_000] ^= 1;
    let tampered = bench.dir.path().join("tampered.hff");
    fs::write(&tampered, bytes).unwrap();
    let message = bench.refused(&tampered);
    assert!(
        message.contains("the image is not the one that was signed"),
        "{message}"
    );

    // Fetched, and the power fails in the middle of the swap.
    let at = bench.board.logged();
    let ordered = bench.order(&good);
    assert!(ordered.status.success(), "{ordered:?}");
    bench.wait_for_row("update", "fetched 1");
    let at = bench
        .board
        .wait_for_log(at, "restarts for its firmware", PATIENCE)
        .unwrap();
    println!("fetched after {} s", since.elapsed().as_secs());
    let dir = bench.dir.path().to_owned();
    let mut cuts = Vec::new();
    for step in [SWAP_STEPS / 5, SWAP_STEPS / 2] {
        let end = Instant::now() + PATIENCE;
        let done = loop {
            match bench.swapped() {
                Some(done) if done >= step => break done,
                Some(_) => std::thread::yield_now(),
                None => panic!("no swap in {}", dir.display()),
            }
            assert!(Instant::now() < end, "the swap stands still");
        };
        bench.board.power_off().unwrap();
        cuts.push(done);
        bench.board.power_on().unwrap();
    }
    println!("the power failed after {cuts:?} of {SWAP_STEPS} steps");
    assert!(cuts.iter().all(|done| *done < SWAP_STEPS), "the cuts came too late");
    let at = bench.board.wait_for_log(at, "linked", PATIENCE).unwrap();
    bench.wait_for_row("update", "confirmed version 5");
    assert_eq!(
        (&bench.row()["version"], &bench.row()["confirmed"]),
        (&5.into(), &5.into())
    );
    assert_eq!(bench.swapped(), None, "nothing would go back");
    println!("confirmed after {} s", since.elapsed().as_secs());

    // Not above what is confirmed.
    let message = bench.refused(&bench.signed(4, bench.mine()));
    assert!(message.contains("version 4 is not above 5"), "{message}");

    // The next one is fetched while somebody charges, and waits. Then nobody answers its hello: it goes back.
    let card = bench.site.plan.users[0].token;
    bench.board.world().bring();
    bench.board.tap(&card);
    let at = bench.board.wait_for_log(at, "granted", PATIENCE).unwrap();
    let next = bench.signed(7, bench.mine());
    let ordered = bench.order(&next);
    assert!(ordered.status.success(), "{ordered:?}");
    bench.wait_for_row("update", "waits until nobody has a session");
    assert!(bench.board.is_on().unwrap(), "the session goes on");
    bench.board.module().unplug(true);
    let at = bench.board.wait_for_log(at, "unlinked", PATIENCE).unwrap();
    assert!(bench.board.is_on().unwrap(), "the session goes on without the gateway");
    bench.board.world().take_away();
    let at = bench.board.wait_for_log(at, "ended", PATIENCE).unwrap();
    let at = bench
        .board
        .wait_for_log(at, "restarts for its firmware", PATIENCE)
        .unwrap();
    let at = bench.board.wait_for_log(at, "firmware version 7", PATIENCE).unwrap();
    let at = bench
        .board
        .wait_for_log(at, "restarts for its firmware", PATIENCE)
        .unwrap();
    let at = bench.board.wait_for_log(at, "firmware version 5", PATIENCE).unwrap();
    bench.board.module().unplug(false);
    bench.board.wait_for_log(at, "receipt", PATIENCE).unwrap();
    bench.wait_for_row(
        "update",
        "failed: version 7: on trial the gateway did not answer its hello in time",
    );
    assert_eq!(
        (&bench.row()["version"], &bench.row()["confirmed"]),
        (&5.into(), &5.into())
    );
    println!("gone back after {} s", since.elapsed().as_secs());
    bench.close_books();
}

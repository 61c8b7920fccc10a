//! The operator's orders through the whole site, as processes: a charger is started and stopped from afar, an outlet kept
//! free; a start that a cloud held back is refused, and orders that it tells again run once, over a gateway that was killed.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use hil_tests::{
    courier::Courier,
    orders::{self, card},
    rig::{Order, Rig, Supplier, twin::Twins, words},
    site::{BrokerKind, Plan, Site, Standing, binary},
    twin::usual_thing,
};
use proto::{
    id::Kind,
    message::{RefusalReason, StopReason},
};
use serde_json::{Value, json};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// A start is begun at once. But the clock of a twin runs ahead of the world's, and it would call one of half a minute late.
const SOON: &str = "1h";

struct Bench {
    site: Site,
    rig: Box<dyn Rig>,
    device: String,
    /// Cards of good users.
    cards: Vec<[u8; 7]>,
}

impl Bench {
    fn open(dir: &std::path::Path) -> (Self, Courier) {
        let plan = Plan::new(31, 3, 60);
        let (hub, hub_address) = Site::start_hub(&plan, dir).unwrap();
        let courier = Courier::start(hub_address).unwrap();
        let device = plan.devices.iter().find(|device| device.kind == Kind::Charger);
        let device = device.unwrap().clone();
        let good = plan.users.iter().filter(|user| user.standing == Standing::Good);
        let cards = good.filter(|user| user.whitelist == "always").map(|user| user.token);
        let cards = cards.collect();
        let site = Site::start(plan, dir, hub, courier.address(), BrokerKind::Embedded).unwrap();
        let page = dir.join("page");
        let provision = ["device", "provision", device.id.as_str(), "--out"];
        run(Command::new(binary("holdfast").unwrap())
            .arg("--config")
            .arg(dir.join("gateway/holdfast.toml"))
            .args(provision)
            .arg(&page));
        let rig = Twins.supply(&Order {
            dir,
            device: &device,
            page: &fs::read(page).unwrap(),
            gateway: site.device_address,
        });
        let mut bench = Self {
            site,
            rig: rig.unwrap(),
            device: device.id.to_string(),
            cards,
        };
        bench.ready();
        (bench, courier)
    }

    /// Device, gateway and hub know each other.
    fn ready(&mut self) {
        self.wait("a device that is linked", |bench| {
            let status = bench.site.ask_gateway("status").unwrap();
            status["devices_connected"] == 1 && bench.rig.log().text(0).contains(words::LINKED)
        });
        self.wait("a gateway that is greeted", |bench| {
            let status = bench.site.ask_gateway("status").unwrap();
            status["link"] == true && status["list_revision"].as_u64() > Some(0)
        });
    }

    fn wait(&mut self, what: &str, mut is: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is(self) {
            self.rig.step().unwrap();
            assert!(
                Instant::now() < end,
                "no {what}\n{}\n{}",
                self.rig.log().text(0),
                self.site.gateway.log_tail()
            );
        }
    }

    fn wait_log(&mut self, from: usize, text: &str) -> usize {
        self.wait(text, |bench| bench.rig.log().find(from, text).is_some());
        self.rig.log().find(from, text).unwrap()
    }

    fn give(&self, verb: &str, more: &[&str]) -> u64 {
        orders::give_at(&self.site, verb, &self.device, more).unwrap()
    }

    fn state(&self, order: u64) -> String {
        orders::state(&self.site, order).unwrap()
    }

    /// Gives an order, and waits for what becomes of it.
    fn order(&mut self, verb: &str, more: &[&str], expected: &str) -> u64 {
        let order = self.give(verb, more);
        self.wait("answer", |bench| bench.state(order) != "waits");
        assert_eq!(self.state(order), expected, "{verb} {more:?}");
        order
    }

    /// What the gateway tells of a session: the newest of the device.
    fn why(&self) -> Value {
        let wanted = json!({ "last_of": self.device });
        let question = json!({"get": "why", "wanted": wanted, "offset_min": 480});
        self.site.question_gateway(&question).unwrap()
    }

    /// How often orders came to what, by the gateway's own report.
    fn reported(&self) -> Value {
        let span = json!({"between": {"since_s": null, "until_s": null}});
        let question = json!({"get": "report", "span": span, "offset_min": 480});
        self.site.question_gateway(&question).unwrap()["orders"].clone()
    }

    fn sessions(&self) -> usize {
        self.site.ask_gateway("sessions").unwrap().as_array().unwrap().len()
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_operator_does_at_a_distance_what_a_person_does_at_the_device_and_each_thing_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bench, courier) = Bench::open(dir.path());
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|i| bench.cards[i]);

    // Started and stopped from afar; somebody has plugged in.
    let at = bench.rig.log().len();
    bench.rig.bring(usual_thing(Kind::Charger)).unwrap();
    let start = bench.order("start", &["--token", &card(&first), "--not-after", SOON], "done");
    let at = bench.wait_log(at, words::GRANTED);
    bench.wait("delivery", |bench| bench.rig.delivered_milli().unwrap() > 2_000);
    bench.order("start", &["--token", &card(&second)], "busy");
    bench.order("reserve", &["--token", &card(&second)], "busy");
    let stop = bench.order("stop", &[], "done");
    let at = bench.wait_log(at, &words::ended(StopReason::Remote));
    bench.wait_log(at, words::RECEIPT);
    bench.rig.take_away().unwrap();
    let why = bench.why();
    let course = why["course"].to_string();
    for told in [
        format!("the operator orders a start for this token (order {start})"),
        format!("by order {stop} of the operator"),
    ] {
        assert!(course.contains(&told), "{told} in {why:#}");
    }
    bench.order("stop", &[], "unknown");

    // Kept free: somebody else is refused, the right one is served, and that ends it.
    let reserve = bench.order("reserve", &["--token", &card(&third), "--until", "20m"], "done");
    let kept = bench.site.ask_gateway("status").unwrap()["reservations"].clone();
    assert_eq!(
        (&kept[0]["order"], &kept[0]["outlet"]),
        (&json!(reserve), &json!(0)),
        "{kept}"
    );
    // Over a gateway that is killed, too.
    bench.site.kill_gateway().unwrap();
    bench.ready();
    let at = bench.rig.log().len();
    bench.rig.bring(usual_thing(Kind::Charger)).unwrap();
    bench.rig.tap(&second).unwrap();
    let at = bench.wait_log(at, &words::refused(RefusalReason::Reserved));
    bench.rig.tap(&third).unwrap();
    let at = bench.wait_log(at, words::GRANTED);
    bench.wait("output", |bench| bench.rig.is_on().unwrap());
    let status = bench.site.ask_gateway("status").unwrap();
    assert_eq!(status["reservations"], json!([]), "used");
    bench.rig.take_away().unwrap();
    bench.wait_log(at, words::RECEIPT);

    // Held back by the cloud until its time is over: it never runs, and the record says so.
    let (sessions, at) = (bench.sessions(), bench.rig.log().len());
    courier.hold(true);
    let late = bench.give("start", &["--token", &card(&fourth), "--not-after", "1s"]);
    bench.wait("an order that is overdue", |bench| bench.state(late) == "overdue");
    courier.hold(false);
    bench.wait("answer", |bench| bench.state(late) != "overdue");
    assert_eq!(bench.state(late), "stale");
    assert_eq!(
        (bench.sessions(), bench.rig.log().find(at, words::GRANTED)),
        (sessions, None)
    );
    assert_eq!(bench.reported()["start stale"], 1, "{:#}", bench.reported());

    // A session runs; the gateway is killed, and the cloud tells it every order once more before it hears the hub.
    let at = bench.rig.log().len();
    bench.rig.bring(usual_thing(Kind::Charger)).unwrap();
    bench.order("start", &["--token", &card(&fourth), "--not-after", SOON], "done");
    let at = bench.wait_log(at, words::GRANTED);
    bench.wait("output", |bench| bench.rig.is_on().unwrap());
    let (sessions, before) = (bench.sessions(), bench.reported());
    assert!(courier.seen() >= 8, "{} orders came by", courier.seen());
    courier.haunt();
    bench.site.kill_gateway().unwrap();
    bench.site.gateway.wait_for("order not run again").unwrap();
    bench.ready();
    // The hub is heard behind all that was told again.
    let report = bench.order("report", &[], "done");
    assert!(report > late);
    assert!(bench.rig.is_on().unwrap(), "an old stop stops nobody");
    assert_eq!(bench.sessions(), sessions, "an old start starts nobody");
    let mut after = before.clone();
    after["report done"] = json!(1);
    assert_eq!(bench.reported(), after, "and nothing of it is written again");
    let status = bench.site.ask_gateway("status").unwrap();
    assert_eq!(status["reservations"], json!([]), "nor kept free again");
    bench.rig.take_away().unwrap();
    bench.wait_log(at, words::RECEIPT);

    // The gateway says how it is as often as the operator likes.
    orders::give(&bench.site, "telemetry", &["--every", "1s"]).unwrap();
    bench.wait("reports every second", |bench| {
        let row = bench.site.ask_hub("gateways").unwrap().remove(0);
        row["report_s"].as_u64().is_some_and(|s| s <= 2)
    });

    bench.site.settle(PATIENCE).unwrap();
    let books = bench.site.books().unwrap();
    assert!(books.are_closed(), "{books:?}");
    drop(bench.rig);
    assert_eq!(bench.site.stop().unwrap(), (0, 0));
}

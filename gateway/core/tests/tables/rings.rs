//! Rings: what passed the gate is tried at one device, then at its kind, then everywhere; what nobody would be well served
//! by goes back by itself, and nobody fares worse meanwhile.

use crate::site::*;
use gateway_core::{
    Config, Event, Gateway, Input, RingOrder, Said,
    config::{DeviceConfig, Limits, RingLimits},
    ring::{Reach, Staged, WORSE_TOKENS_MIN},
};
use proto::{
    artifact::{ListEntry, Whitelist},
    id::Kind,
    message::{Fault, OutletState},
    money::{Money, Units},
    trust::ArtifactKind,
};

const DWELL_MS: u64 = 60_000;
const PATIENCE_MS: u64 = HOUR_MS;

fn with_rings() -> Config {
    Config {
        ring: RingLimits {
            is_on: true,
            device: None,
            requests_min: 3,
            dwell_s: DWELL_MS / 1000,
            patience_s: PATIENCE_MS / 1000,
        },
        ..config()
    }
}

fn tokens(count: u8) -> Vec<ListEntry> {
    (0..count).map(|n| entry(n, Whitelist::Always)).collect()
}

/// One visit: granted or not, and over at once. Returns what was answered.
fn visit(site: &mut Site, device: &str, n: u8) -> String {
    let (session, decision) = site.ask(device, n);
    site.say(device, started(session, 0));
    site.say(device, Said::Stop(stop(session, 0, 0, 0)));
    site.pass(1_000);
    words(&decision)
}

/// A site with 100 tokens in list 7 and prices; "c2" is asked most often.
fn site() -> Site {
    let mut site = Site::empty(with_rings());
    site.put(&Input::Configured(Box::new(config().limits)));
    site.put(&tariffs(1));
    site.put(&list(7, tokens(100)));
    for n in 0..8 {
        visit(&mut site, "c2", n);
    }
    visit(&mut site, "w1", 1);
    site
}

/// Of what is on its way: how far it reaches.
fn reach(site: &Site, what: Staged) -> Option<Reach> {
    site.gateway.rings().get(what).map(|ring| ring.reach)
}

fn list_revision(site: &Site) -> u64 {
    site.gateway.trust().revisions().0
}

/// By which list the last grant was judged.
fn judged_by(site: &Site) -> u64 {
    let granted = site.journal.iter().rev().find_map(|(_, event)| match event {
        Event::Granted(granted) => Some(granted.list_revision),
        _ => None,
    });
    granted.unwrap()
}

fn check(site: &Site) {
    site.check();
    let mut restored = Gateway::new(with_rings());
    for event in site.gateway.snapshot() {
        restored.apply(&site.now, &event);
    }
    assert_eq!(restored.rings(), site.gateway.rings(), "a snapshot keeps the rings");
    assert_eq!(restored.config(), site.gateway.config(), "and the limits in force");
}

#[test]
fn a_list_goes_from_one_device_to_its_kind_to_the_site() {
    let mut site = site();
    let mut entries = tokens(100);
    entries.push(entry(100, Whitelist::Always));
    assert_eq!(words(&site.put(&list(8, entries))), "", "nothing is doubtful");
    // It lies aside; the device that is asked most tries it.
    assert_eq!(
        (list_revision(&site), reach(&site, Staged::List)),
        (7, Some(Reach::Device))
    );
    let steps = [
        (Reach::Device, &["c2"][..], &["c1", "w1", "d1"][..]),
        (Reach::Kind, &["c2", "c1"], &["w1", "d1"]),
        (Reach::Site, &["c2", "w1", "d1"], &[]),
    ];
    for (step, inside, outside) in steps {
        assert_eq!(reach(&site, Staged::List), Some(step));
        for device in outside {
            visit(&mut site, device, 9);
            assert_eq!(judged_by(&site), 7, "{device} is outside");
        }
        for n in 0..3 {
            let device = inside[n % inside.len()];
            visit(&mut site, device, 10 + n as u8);
            assert_eq!(judged_by(&site), 8, "{device} is in the ring");
        }
        check(&site);
        // A power cut in the middle changes nothing.
        site.reboot(1_000);
        assert_eq!(reach(&site, Staged::List), Some(step));
        site.wait(DWELL_MS);
    }
    assert_eq!((list_revision(&site), reach(&site, Staged::List)), (8, None));
    assert!(visit(&mut site, "w1", 100).starts_with("grant list"));
    assert_eq!(site.gateway.trust().previous().unwrap().head().revision, 7);
    check(&site);
}

#[test]
fn whoever_a_bad_list_left_out_is_served_and_the_list_goes_back() {
    let mut site = site();
    // The cloud is silent; otherwise it would be asked about whoever is missing.
    site.go_local();
    // Nobody of these was here lately: the gate has no doubt.
    let bad: Vec<ListEntry> = tokens(100)
        .into_iter()
        .filter(|e| !(50..55).contains(&e.token.0[0]))
        .collect();
    assert_eq!(words(&site.put(&list(8, bad.clone()))), "");
    // Outside of the ring it is never looked at.
    for n in 51..55 {
        assert!(visit(&mut site, "c1", n).starts_with("grant list"), "outside");
    }
    assert_eq!(reach(&site, Staged::List), Some(Reach::Device));
    // One alone may be meant.
    assert!(
        visit(&mut site, "c2", 50).starts_with("grant list"),
        "nobody is refused for it"
    );
    assert_eq!(judged_by(&site), 7);
    assert!(visit(&mut site, "c2", 50).starts_with("grant list"));
    assert_eq!(reach(&site, Staged::List), Some(Reach::Device));
    let answer = visit(&mut site, "c2", 51);
    assert!(answer.contains("grant list"), "{answer}");
    assert!(
        answer.contains(
            "alarm: list revision 8 went back from its ring: 3 of 3 requests are refused by it, or granted less than \
             half, and not without it; it reached c2 alone"
        ),
        "{answer}"
    );
    assert_eq!((list_revision(&site), reach(&site, Staged::List)), (7, None));
    let back: Vec<_> = site
        .gateway
        .rings()
        .back()
        .map(|(what, revision, _)| (what, revision))
        .collect();
    assert_eq!(back, [(Staged::List, 8)]);
    check(&site);
    // The hub sends it again and again; it stays aside, over a restart too.
    site.reboot(1_000);
    assert!(words(&site.put(&list(8, bad))).starts_with("ignored: list revision 8 is set aside already"));
    assert!(visit(&mut site, "c2", 52).starts_with("grant list"));
    assert_eq!(judged_by(&site), 7);
    // A newer one is tried.
    site.put(&list(9, tokens(100)));
    assert_eq!(reach(&site, Staged::List), Some(Reach::Device));
    assert_eq!(site.gateway.rings().back().count(), 0);
    check(&site);
}

/// While the cloud answers it is asked about whoever either of the two would ask about, and both judge its answer.
#[test]
fn the_cloud_is_asked_before_anybody_fares_worse() {
    let mut site = site();
    let bad: Vec<ListEntry> = tokens(100).into_iter().filter(|e| e.token.0[0] != 50).collect();
    site.put(&list(8, bad));
    let (_, asked) = site.ask("c2", 50);
    assert_eq!(words(&asked), "ask");
    assert_eq!(
        site.count(|event| matches!(event, Event::RingSeen(_))),
        0,
        "nothing is decided"
    );
    let granted = site.answer(&asked, ACCEPT);
    assert!(words(&granted).starts_with("grant cloud"), "{}", words(&granted));
    let worse = |event: &Event| matches!(event, Event::RingSeen(seen) if seen.is_worse);
    assert_eq!(site.count(worse), 0);
    let (_, asked) = site.ask("c2", 60);
    assert_eq!(words(&asked).split(' ').next(), Some("grant"));
    check(&site);
}

#[test]
fn one_person_alone_holds_nothing_up_unless_it_was_nearly_everybody() {
    for (visits_of_others, goes_on) in [(8, true), (2, false)] {
        let mut site = site();
        site.go_local();
        let bad: Vec<ListEntry> = tokens(100).into_iter().filter(|e| e.token.0[0] != 50).collect();
        site.put(&list(8, bad));
        for n in 0..visits_of_others {
            visit(&mut site, "c2", 20 + n);
        }
        for _ in 0..WORSE_TOKENS_MIN - 1 {
            visit(&mut site, "c2", 50);
        }
        site.wait(DWELL_MS);
        let expected = goes_on.then_some(Reach::Kind);
        assert_eq!(reach(&site, Staged::List), expected, "{visits_of_others} others");
    }
}

#[test]
fn who_sees_too_little_waits_and_does_not_wait_for_ever() {
    let mut site = site();
    site.put(&list(8, tokens(100)));
    visit(&mut site, "c2", 1);
    site.wait(DWELL_MS * 2);
    assert_eq!(reach(&site, Staged::List), Some(Reach::Device));
    site.wait(PATIENCE_MS);
    assert_eq!(reach(&site, Staged::List), Some(Reach::Kind));
    site.wait(3 * PATIENCE_MS);
    assert_eq!(list_revision(&site), 8);
}

#[test]
fn prices_begin_at_a_kind_that_they_are_about() {
    let mut site = site();
    // 40 % more for a cycle: no doubt of the gate's.
    site.put(&tariffs_of(2, &[(Kind::Washer, 560_000)]));
    let ring = site.gateway.rings().get(Staged::Tariffs).unwrap();
    assert_eq!((ring.device, ring.kind), (id("w1"), Kind::Washer));
    let price = |site: &mut Site, device: &str, n| {
        visit(site, device, n);
        let granted = site.journal.iter().rev().find_map(|(_, event)| match event {
            Event::Granted(e) => Some((e.terms.tariff.elements[0].price_milli, e.tariffs_revision)),
            _ => None,
        });
        granted.unwrap()
    };
    assert_eq!(price(&mut site, "w1", 2), (560_000, 2));
    assert_eq!(price(&mut site, "w2", 3), (400_000, 1));
    assert_eq!(price(&mut site, "c2", 4), (60_000, 1));
    check(&site);
    // Whoever cannot pay the new price gets the old one; of a second such person the table goes back.
    let poor: Vec<ListEntry> = (0..100)
        .map(|n| ListEntry {
            balance: Money(if (60..70).contains(&n) { 450 } else { 10_000 }),
            ..entry(n, Whitelist::Always)
        })
        .collect();
    site.put(&list(8, poor));
    site.put(&Input::Ring(Staged::List, RingOrder::Adopt));
    assert_eq!(price(&mut site, "w1", 60), (400_000, 1));
    assert_eq!(price(&mut site, "w1", 61), (400_000, 1));
    assert_eq!(reach(&site, Staged::Tariffs), None);
    assert_eq!(price(&mut site, "w1", 5), (400_000, 1));
    check(&site);
}

fn limits(change: impl FnOnce(&mut Limits)) -> Input {
    let mut limits = config().limits;
    change(&mut limits);
    Input::Configured(Box::new(limits))
}

#[test]
fn limits_of_the_configuration_are_tried_and_go_back() {
    let mut site = site();
    let none = limits(|limits| limits.charger.money_max = Money(0));
    assert_eq!(words(&site.put(&none)), "");
    assert_eq!(reach(&site, Staged::Limits), Some(Reach::Device));
    assert!(visit(&mut site, "c1", 10).starts_with("grant list 300"));
    assert!(visit(&mut site, "c2", 11).starts_with("grant list 300"));
    // The gateway is killed, and starts with the bad file: it goes on where it was.
    site.reboot(1_000);
    site.put(&none);
    assert_eq!(reach(&site, Staged::Limits), Some(Reach::Device));
    assert!(visit(&mut site, "c2", 12).contains("alarm: config revision 2 went back from its ring"));
    check(&site);
    site.reboot(1_000);
    site.put(&none);
    assert_eq!(
        reach(&site, Staged::Limits),
        None,
        "reading it again does not make it better"
    );
    assert!(visit(&mut site, "c2", 13).starts_with("grant list 300"));
    // A better file, and an operator who does not want to wait.
    site.put(&limits(|limits| limits.charger.money_max = Money(240)));
    assert!(visit(&mut site, "c2", 14).starts_with("grant list 240"));
    assert!(visit(&mut site, "c1", 15).starts_with("grant list 300"));
    site.put(&Input::Ring(Staged::Limits, RingOrder::Adopt));
    assert!(visit(&mut site, "c1", 16).starts_with("grant list 240"));
    check(&site);
    // The file goes back to what is in force while another one is tried.
    site.put(&limits(|limits| limits.charger.units_max = Units(2_000)));
    site.put(&limits(|limits| limits.charger.money_max = Money(240)));
    assert_eq!(reach(&site, Staged::Limits), None);
    check(&site);
}

#[test]
fn a_ring_spends_no_more_than_the_site_may() {
    let mut site = site();
    site.put(&limits(|limits| limits.site_budget = Money(100_000_000)));
    visit(&mut site, "c2", 10);
    let granted = site.journal.iter().rev().find_map(|(_, event)| match event {
        Event::Granted(e) => Some(e.grounds.caps.site_budget),
        _ => None,
    });
    assert_eq!(granted, Some(config().limits.site_budget));
}

#[test]
fn devices_that_get_into_trouble_take_it_back() {
    // Faults at other devices too are no fault of the ring's.
    for (elsewhere, expected) in [(0, None), (3, Some(Reach::Device))] {
        let mut site = site();
        site.put(&list(8, tokens(100)));
        let fault = |site: &mut Site, device: &str| {
            visit(site, device, 10);
            site.say(device, status(0, OutletState::Faulted, Fault::Leakage));
            site.say(device, status(0, OutletState::Free, Fault::None));
        };
        for _ in 0..elsewhere {
            fault(&mut site, "c1");
        }
        for _ in 0..3 {
            fault(&mut site, "c2");
        }
        visit(&mut site, "c2", 11);
        assert_eq!(reach(&site, Staged::List), expected, "{elsewhere} elsewhere");
        check(&site);
    }
}

#[test]
fn an_operator_holds_releases_adopts_and_takes_back() {
    let mut site = site();
    site.put(&list(8, tokens(100)));
    site.put(&Input::Ring(Staged::List, RingOrder::Hold));
    site.wait(3 * PATIENCE_MS);
    assert_eq!(reach(&site, Staged::List), Some(Reach::Device));
    check(&site);
    site.put(&Input::Ring(Staged::List, RingOrder::Release));
    site.wait(1);
    assert_eq!(reach(&site, Staged::List), Some(Reach::Kind));
    site.put(&Input::RollBack(ArtifactKind::List));
    assert_eq!((list_revision(&site), reach(&site, Staged::List)), (7, None));
    site.put(&Input::Adopt {
        kind: ArtifactKind::List,
        revision: 0,
    });
    assert_eq!((list_revision(&site), site.gateway.rings().back().count()), (8, 0));
    assert!(words(&site.put(&Input::Ring(Staged::List, RingOrder::Hold))).contains("no list is in a ring"));
    check(&site);
}

#[test]
fn a_newer_one_begins_anew_and_an_older_one_does_not() {
    let mut site = site();
    site.put(&list(9, tokens(100)));
    site.wait(PATIENCE_MS);
    assert_eq!(reach(&site, Staged::List), Some(Reach::Kind));
    let older = site.put(&list(8, tokens(100)));
    assert_eq!(words(&older), "ignored: list revision 8 is not newer than the active 9");
    assert!(older.events.is_empty());
    site.put(&list(10, tokens(100)));
    assert_eq!(reach(&site, Staged::List), Some(Reach::Device));
    // One that the gate doubts ends what is on its way: of each kind one lies aside.
    site.put(&list(11, tokens(10)));
    assert_eq!((list_revision(&site), reach(&site, Staged::List)), (7, None));
    check(&site);
}

/// The first of its kind has nothing that it could go back to.
#[test]
fn the_first_ones_are_adopted_at_once() {
    let mut site = Site::empty(with_rings());
    site.put(&tariffs(1));
    site.put(&list(1, tokens(5)));
    assert_eq!((list_revision(&site), site.gateway.rings().iter().count()), (1, 0));
}

/// Reading the configuration again ends in the state of a gateway that was started with it.
#[test]
fn a_reload_is_a_restart_without_one() {
    for is_on in [false, true] {
        let mut before = with_rings();
        before.ring.is_on = is_on;
        let mut site = Site::empty(before);
        site.put(&Input::Configured(Box::new(config().limits)));
        site.put(&tariffs(1));
        site.put(&list(7, tokens(100)));
        visit(&mut site, "c2", 1);
        let mut after = with_rings();
        after.ring.is_on = is_on;
        after.limits.charger.money_max = Money(200);
        after.devices.remove(&id("c1"));
        let c9 = DeviceConfig {
            kind: Kind::Charger,
            outlets: 1,
            car: false,
        };
        after.devices.insert(id("c9"), c9);
        site.gateway.reconfigure(after.clone());
        site.put(&Input::Configured(Box::new(after.limits.clone())));
        let mut started = Gateway::new(after.clone());
        for (now, event) in &site.journal {
            started.apply(now, event);
        }
        assert!(started == site.gateway, "rings {is_on}");
        assert!(visit(&mut site, "c9", 2).starts_with("grant list"));
        assert!(words(&site.ask("c1", 3).1).contains("c1 is not a device of this site"));
        assert!(
            visit(&mut site, "c2", 4).starts_with("grant list 200"),
            "the first device tries it"
        );
        assert!(visit(&mut site, "c3", 5).starts_with(if is_on { "grant list 300" } else { "grant list 200" }));
    }
}

/// xorshift64*: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }
}

/// Which devices may try what, as the journal tells it; computed a second time.
#[derive(Default)]
struct Auditor {
    active: u64,
    /// Revision, first device and how far it reaches.
    ring: Option<(u64, proto::id::DeviceId, Reach)>,
    bad: std::collections::BTreeSet<u64>,
    /// Bad ones that went back, and how far they had come.
    back: Vec<Reach>,
    good_adopted: u32,
}

impl Auditor {
    fn audit(&mut self, event: &Event) {
        let kind = |device: &proto::id::DeviceId| config().devices[device].kind;
        match event {
            Event::ListAdopted(e) => self.active = e.revision,
            Event::RingBegan(e) => self.ring = Some((e.revision, e.device, Reach::Device)),
            Event::RingWidened(e) => self.ring.as_mut().unwrap().2 = e.reach,
            Event::Adopted(e) => {
                assert!(!self.bad.contains(&e.revision), "the site takes a bad list by itself");
                self.good_adopted += 1;
                self.active = e.revision;
                self.ring = None;
            }
            Event::RingEnded(e) => {
                assert_eq!(self.ring.unwrap().0, e.revision);
                if self.bad.contains(&e.revision) {
                    self.back.push(e.verdict.reach);
                }
                self.ring = None;
            }
            Event::Granted(e) if e.list_revision != self.active => {
                let (revision, first, reach) = self.ring.expect("only a ring tries something");
                let device = &e.request.device;
                let inside = match reach {
                    Reach::Device => *device == first,
                    Reach::Kind => kind(device) == kind(&first),
                    Reach::Site => true,
                };
                assert!(
                    inside && e.list_revision == revision,
                    "{device} is outside of the ring {reach:?}"
                );
            }
            Event::Refused(e) => panic!("everybody here is good: {e:?}"),
            _ => {}
        }
    }
}

/// In the list of the walk: tokens, those of them that come all the time, and those that a bad list leaves out.
const TOKENS: u8 = 200;
const REGULARS: u8 = 40;
const MISSING: u8 = 10;

/// A bad push reaches at most the ring that it was in, is rolled back, and refuses nobody on the way.
#[test]
fn a_walk_of_good_and_bad_pushes() {
    let (mut back, mut good) = (Vec::new(), 0);
    for seed in 1..=30 {
        println!("seed {seed}");
        let mut random = Random(seed * 7_919);
        let mut open = with_rings();
        open.ring.requests_min = 12;
        open.limits.attempts_a_minute_max = 1_000;
        open.limits.starts_an_hour_max = 100_000;
        for class in [
            &mut open.limits.charger,
            &mut open.limits.washer,
            &mut open.limits.dispenser,
        ] {
            (class.outage_count_max, class.outage_money_max) = (100_000, Money(100_000_000));
            class.outage_count_lower = 100_000;
        }
        let mut site = Site::empty(open.clone());
        site.put(&Input::Configured(Box::new(open.limits.clone())));
        site.put(&tariffs(1));
        site.put(&list(1, tokens(TOKENS)));
        // Whoever is missing is refused without the cloud's word, or would be.
        site.go_local();
        let (mut auditor, mut seen, mut revision) = (Auditor::default(), 0, 1);
        for (_, event) in &site.journal {
            if !matches!(event, Event::Refused(_)) {
                auditor.audit(event);
            }
        }
        seen += site.journal.len();
        let mut missing = REGULARS..REGULARS;
        for _ in 0..600 {
            match random.below(40) {
                0 if auditor.ring.is_none() => {
                    revision += 1;
                    // Of people who were not here yet some are missing; the gate sees nothing wrong with that.
                    let is_bad = random.below(2) == 0 && missing.end + MISSING <= TOKENS;
                    let mut entries = tokens(TOKENS);
                    if is_bad {
                        missing = missing.end..missing.end + MISSING;
                        entries.retain(|e| !missing.contains(&e.token.0[0]));
                        auditor.bad.insert(revision);
                    }
                    site.put(&list(revision, entries));
                }
                1 => site.reboot(1_000),
                2 | 3 => drop(site.wait(random.below(DWELL_MS))),
                _ => {
                    let device = ["c1", "c2", "c3", "w1", "w2", "d1"][random.below(6) as usize];
                    // While a bad list is tried, half of the visits are of those whom it leaves out.
                    let is_tried = auditor.ring.is_some_and(|ring| auditor.bad.contains(&ring.0));
                    let n = match is_tried && random.below(2) == 0 {
                        true => missing.start + random.below(u64::from(MISSING)) as u8,
                        false => random.below(u64::from(REGULARS)) as u8,
                    };
                    visit(&mut site, device, n);
                }
            }
            for (_, event) in &site.journal[seen..] {
                auditor.audit(event);
            }
            seen = site.journal.len();
        }
        check_walk(&site, &open);
        back.extend(auditor.back);
        good += auditor.good_adopted;
    }
    let first = back.iter().filter(|reach| **reach == Reach::Device).count();
    println!(
        "{} bad lists went back, {first} from one device; {good} good ones were adopted",
        back.len()
    );
    assert!(
        back.len() > 20 && first * 10 > back.len() * 9,
        "bad lists are tried: {back:?}"
    );
    assert!(good > 10, "good lists reach the site");
}

fn check_walk(site: &Site, config: &Config) {
    let mut restored = Gateway::new(config.clone());
    for event in site.gateway.snapshot() {
        restored.apply(&site.now, &event);
    }
    assert_eq!(restored.rings(), site.gateway.rings());
    site.check();
}

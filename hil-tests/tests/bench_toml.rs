//! `bench.toml`: what it says, what is refused, and when a quarantine ends.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use hil_tests::{
    rig::probe::config::{self, ConfigError},
    twin::Injury,
};
use proto::id::Kind;

/// The documented example, in the root of the package.
const EXAMPLE: &str = include_str!("../bench.example.toml");
/// A day on which nothing of the example has ended.
const TODAY: &str = "2026-11-21";

fn parse(text: &str, today: &str) -> Result<Vec<config::Board>, ConfigError> {
    config::parse(Path::new("desk/bench.toml"), text, today)
}

#[test]
fn the_example_is_what_it_says() {
    let boards = parse(EXAMPLE, TODAY).unwrap();
    let [charger, dispenser] = boards.as_slice() else {
        panic!("two boards")
    };
    assert_eq!((charger.name.as_str(), charger.kind), ("desk-1", Kind::Charger));
    assert_eq!(charger.identity_at, 0x080f_f800);
    // From the folder of the file.
    assert_eq!(
        charger.image,
        Path::new("desk/firmware/target/thumbv7em-none-eabihf/release/charger")
    );
    assert!(charger.wiring.injuries.of(Injury::Leak).is_some());
    assert!(charger.wiring.injuries.of(Injury::Weld).is_none());
    assert!(charger.quarantine.is_none());
    assert_eq!(dispenser.kind, Kind::Dispenser);
    assert!(dispenser.power.is_none() && dispenser.wiring.card.is_none());
    assert_eq!(dispenser.quarantine.as_ref().unwrap().until, "2027-01-31");
}

#[test]
fn a_complaint_names_file_line_and_field() {
    // What is replaced in the example by what; where the complaint then points at, and its words.
    let probe = "0483:374b:0670FF495254707867102336";
    let table = "[[board]]\n# For people";
    let cases = [
        ("name = \"desk-1\"", "nmae = \"desk-1\"", "nmae", "nmae"),
        ("chip = \"STM32L475VGTx\"\n# VID", "# VID", table, "chip"),
        (
            "kind = \"charger\"",
            "kind = \"toaster\"",
            "kind = \"toaster",
            "toaster",
        ),
        ("kind = \"charger\"", "kind = 7", "kind = 7", "string"),
        (probe, "0483:374b", "0483:374b\"", "VID:PID:serial"),
        (probe, "0483:xyz1:1", "0483:xyz1:1", "VID:PID:serial"),
        (
            "0x080f_f800\n# Where",
            "0x080f_f801\n# Where",
            "0x080f_f801",
            "identity_at",
        ),
        ("link = \"192.168.7.1:1884\"", "link = \"nowhere\"", "nowhere", "socket"),
        ("[board.power]\non = [", "[board.power]\nup = [", "up = [", "up"),
        (
            "stop = [\"./bench/relay\", \"4\", \"pulse\"]",
            "stop = []",
            table,
            "empty command",
        ),
        ("leak = { on", "leek = { on", "leek", "leek"),
        (
            "name = \"desk-2\"",
            "name = \"desk-1\"",
            "name = \"desk-1\"",
            "another board",
        ),
        ("0483:374b:066DFF515049657187212124", probe, probe, "another board"),
        ("192.168.7.1:1885", "192.168.7.1:1884", "192.168.7.1:1884", "desk-1"),
        ("owner = \"bench\", ", "", "quarantine = {", "owner"),
        ("until = \"2027-01-31\"", "until = \"some day\"", "some day", "no day"),
    ];
    for (old, new, at, words) in cases {
        assert!(EXAMPLE.contains(old), "{old}");
        let changed = EXAMPLE.replacen(old, new, 1);
        let before = &changed[..changed.rfind(at).expect(at)];
        let line = before.matches('\n').count() + 1;
        let error = parse(&changed, TODAY).expect_err(new).to_string();
        assert!(
            error.starts_with(&format!("desk/bench.toml, line {line}: ")) && error.contains(words),
            "{new}: {error}"
        );
    }
    let missing = config::load(Path::new("no/bench.toml"), TODAY).unwrap_err().to_string();
    assert!(missing.starts_with("no/bench.toml: "), "{missing}");
}

#[test]
fn a_quarantine_ends_loudly() {
    for (today, holds) in [
        ("2026-11-21", true),
        ("2027-01-30", true),
        ("2027-01-31", false),
        ("2027-02-01", false),
        ("2031-01-01", false),
    ] {
        match parse(EXAMPLE, today) {
            Ok(boards) => assert!(holds && boards[1].quarantine.is_some(), "{today}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!holds, "{today}: {error}");
                assert!(
                    error.contains("desk-2") && error.contains("ended on 2027-01-31"),
                    "{error}"
                );
                assert!(error.contains("the valve's driver is being replaced"), "{error}");
            }
        }
    }
}

#[test]
fn days_are_counted_as_people_do() {
    for (unix_s, day) in [
        (0, "1970-01-01"),
        (951_782_399, "2000-02-28"),
        (951_782_400, "2000-02-29"),
        (1_735_689_599, "2024-12-31"),
        (1_735_689_600, "2025-01-01"),
        (1_796_083_200, "2026-12-01"),
        (4_102_444_800, "2100-01-01"),
    ] {
        assert_eq!(config::today(unix_s), day);
        assert!(config::day(day).is_ok(), "{day}");
    }
    for no_day in ["", "2026-13-01", "2026-1-1", "26-01-01", "2026-12-32", "2026-12-01x"] {
        assert!(config::day(no_day).is_err(), "{no_day:?}");
    }
}

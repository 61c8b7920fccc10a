//! Boards behind probes, without hardware: what is said when nothing is attached, and what a fake probe can show.
//! `HOLDFAST_BOARD_IMAGES` names the folder of the images that boards are flashed with.
#![allow(clippy::unwrap_used)]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use hil_tests::{
    rig::{
        Skill, Supplier,
        probe::{
            Probed, config,
            flash::{self, Programs},
        },
    },
    scenarios::{self, Outcome},
    twin::Injury,
};
use probe_rs::{
    Permissions,
    probe::{
        DebugProbeError, DebugProbeInfo, DebugProbeSelector, Probe,
        fake_probe::FakeProbe,
        list::{Lister, ProbeListItem, ProbeLister},
    },
};

const EXAMPLE: &str = include_str!("../bench.example.toml");
const CHIP: &str = "STM32L475VGTx";
/// Where programs begin.
const PROGRAM: u64 = 0x0801_0000;
const NOBODYS_PROBE: &str = "0483:374b:0670FF495254707867102336";

/// No probe, whatever is attached to the machine that runs this.
#[derive(Debug)]
struct Nothing;

impl ProbeLister for Nothing {
    fn open(&self, _: &DebugProbeSelector) -> Result<Probe, DebugProbeError> {
        Ok(Probe::from_specific_probe(Box::new(FakeProbe::with_mocked_core())))
    }

    fn list_with_access(&self, _: Option<&DebugProbeSelector>) -> Vec<ProbeListItem> {
        Vec::new()
    }

    fn list(&self, _: Option<&DebugProbeSelector>) -> Vec<DebugProbeInfo> {
        Vec::new()
    }
}

fn nothing() -> Lister {
    Lister::with_lister(Box::new(Nothing))
}

fn boards() -> Vec<config::Board> {
    config::parse(Path::new("bench.toml"), EXAMPLE, "2026-11-21").unwrap()
}

fn charger_elf() -> PathBuf {
    let dir = std::env::var("HOLDFAST_BOARD_IMAGES").expect("HOLDFAST_BOARD_IMAGES: where the images are");
    PathBuf::from(dir).join("charger")
}

#[test]
fn without_a_probe_every_board_is_not_run_with_its_reason() {
    for (board, words) in boards().into_iter().zip([
        "no probe 0483:374b:0670FF495254707867102336 is attached (none is)",
        "in quarantine until 2027-01-31",
    ]) {
        let kind = board.kind;
        let probed = Probed::with_lister(board, nothing);
        let mut told = scenarios::all();
        told.retain(|told| told.kinds == [kind]);
        let report = scenarios::tell(&probed, 1, &told);
        assert_eq!(report.counts(), (0, told.len(), 0));
        for row in &report.rows {
            let Outcome::NotRun(why) = &row.outcome else {
                panic!("{row}")
            };
            assert!(why.to_string().contains(words), "{why}");
        }
        assert!(report.to_string().ends_with("NOTHING WAS PROVEN"), "{report}");
    }
}

#[test]
fn what_is_not_wired_is_said() {
    let [charger, dispenser] = boards().try_into().unwrap();
    let (charger, dispenser) = (
        Probed::with_lister(charger, nothing),
        Probed::with_lister(dispenser, nothing),
    );
    let cases = [
        (&charger, Skill::Card, None),
        (&charger, Skill::Power, None),
        (&charger, Skill::Cable, None),
        (&charger, Skill::Things, None),
        (&charger, Skill::Injure(Injury::Heat), None),
        (
            &charger,
            Skill::Injure(Injury::Weld),
            Some("not wired: welded contacts"),
        ),
        (
            &charger,
            Skill::Processor,
            Some("a board sleeps by itself; measure its supply"),
        ),
        (&dispenser, Skill::Card, Some("not wired: card")),
        (&dispenser, Skill::Power, Some("not wired: power")),
        (&dispenser, Skill::Things, Some("not wired: bring")),
        (&dispenser, Skill::Cable, None),
    ];
    for (board, skill, wanted) in cases {
        let found = board.can(board.board().kind, skill).err().map(|not| not.to_string());
        assert_eq!(found.as_deref(), wanted, "{skill:?}");
    }
}

/// Connects to a core that is not there, and prepares the real image for its flash, to the last page.
#[test]
fn the_real_image_and_an_identity_fit_the_chip() {
    let elf = charger_elf();
    let selector: DebugProbeSelector = NOBODYS_PROBE.parse().unwrap();
    let attach = || {
        let probe = nothing().open(selector.clone()).unwrap();
        probe.attach(CHIP, Permissions::default()).unwrap()
    };
    let page = [0x5a; 2048];
    let boot = elf.with_file_name("b-l475e-iot01a-boot");
    for (boot, identity) in [
        (Some(boot.as_path()), Some((0x080f_f800, &page[..]))),
        (Some(&boot), None),
        (None, None),
    ] {
        let elf = elf.as_path();
        flash::flash(&mut attach(), &Programs { boot, elf, identity }, true).unwrap();
    }
    // Outside of any flash, over the program, no program.
    for (elf, at, words) in [
        (elf.as_path(), Some(0x0900_0000), ""),
        (elf.as_path(), Some(PROGRAM), "identity"),
        (Path::new("no/charger"), None, "no firmware image"),
        (Path::new("Cargo.toml"), None, "Cargo.toml"),
    ] {
        let programs = Programs {
            boot: None,
            elf,
            identity: at.map(|at| (at, &page[..])),
        };
        let error = flash::flash(&mut attach(), &programs, true).expect_err(words);
        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
}

/// What a person sees who types `cargo run` in a board's folder without a board.
#[test]
fn cargo_run_without_a_probe_says_what_to_do() {
    let bench = env!("CARGO_BIN_EXE_holdfast-bench");
    let output = Command::new(bench)
        .args(["flash", "--chip", CHIP, "--probe", "ffff:ffff:nobody"])
        .arg(charger_elf())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for words in [
        "was not flashed",
        "no probe ffff:ffff:nobody is attached",
        "connect the board's debug USB port",
    ] {
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn a_bench_without_its_boards_ends_well_and_loudly() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bench.toml");
    std::fs::write(&file, EXAMPLE.replace("2027-01-31", "9999-12-31")).unwrap();
    let bench = env!("CARGO_BIN_EXE_holdfast-bench");
    let output = Command::new(bench)
        .args(["run", "--bench"])
        .arg(&file)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("0 passed, 2 not run, 0 failed\nNOTHING WAS PROVEN"),
        "{told}"
    );

    std::fs::write(&file, EXAMPLE.replace("2027-01-31", "2026-01-31")).unwrap();
    let output = Command::new(bench)
        .args(["run", "--bench"])
        .arg(&file)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("it ended on 2026-01-31"), "{told}");
}

/// `cargo run` in a board's folder hands chip and bootloader to the flasher; probe-rs must know the chip.
#[test]
fn every_board_has_a_runner_for_a_chip_that_exists() {
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware/boards");
    let mut found = 0;
    for board in std::fs::read_dir(&boards).unwrap() {
        let config = board.unwrap().path().join(".cargo/config.toml");
        let Ok(text) = std::fs::read_to_string(&config) else {
            continue;
        };
        let config: toml::Table = toml::from_str(&text).unwrap();
        let runner = config["target"]["thumbv7em-none-eabihf"]["runner"].as_array().unwrap();
        let runner: Vec<&str> = runner.iter().map(|word| word.as_str().unwrap()).collect();
        let [script, "--chip", chip, ..] = runner.as_slice() else {
            panic!("{text}")
        };
        assert_eq!(*script, "../../flash", "{text}");
        let registry = probe_rs::config::Registry::from_builtin_families();
        registry.get_target_by_name(chip).unwrap();
        found += 1;
    }
    assert!(found >= 1);
    assert!(boards.join("../flash").is_file());
}

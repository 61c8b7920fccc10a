//! Adapters against what the clouds really say: golden transcripts, and bytes that nobody would say.
#![allow(clippy::unwrap_used)]

#[path = "adapters/chaos.rs"]
mod chaos;
#[path = "support/clouds.rs"]
mod clouds;
#[path = "adapters/fleet.rs"]
mod fleet;
#[path = "adapters/player.rs"]
mod player;

use std::{cell::Cell, fs, path::PathBuf};

use carrier::Class;
use clouds::{Setting, adapter};
use fleet::Cloud;
use gateway::cloud::adapter::At;
use proptest::prelude::*;
use proto::{
    id::Name,
    link::Echo,
    seal::{Direction, PairSecret},
    topic::{self, Lane, LinkDown, LinkUp},
};

const KINDS: [&str; 4] = ["hcp", "alink", "aws", "webhook"];
/// Most filters on one connection of the strictest cloud.
const FILTERS_MAX: usize = 50;
/// Cases of chaos for each cloud: a few seconds.
const CHAOS_CASES: u32 = 400;

/// Names and texts of the transcripts of a cloud.
fn transcripts(kind: &str) -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(kind);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |file: &PathBuf| file.file_name().unwrap().to_string_lossy().into_owned();
    let mut found: Vec<_> = files
        .map(|file| (name(&file), fs::read_to_string(file).unwrap()))
        .collect();
    found.sort();
    found
}

/// Every transcript of a cloud; how many there are.
fn play_all(kind: &str) -> usize {
    let found = transcripts(kind);
    for (name, text) in &found {
        let steps = player::play(kind, text, name);
        println!("{kind}/{name}: {steps} lines");
    }
    found.len()
}

#[test]
fn alink_transcripts() {
    assert!(play_all("alink") >= 18);
}

#[test]
fn aws_transcripts() {
    assert!(play_all("aws") >= 7);
}

#[test]
fn webhook_transcripts() {
    assert!(play_all("webhook") >= 3);
}

#[test]
fn hcp_transcripts() {
    assert!(play_all("hcp") >= 1);
}

#[test]
fn no_cloud_gets_more_filters_than_it_allows() {
    for kind in KINDS {
        let setting = Setting {
            children: 2_000,
            has_user_topic: true,
            ..Setting::default()
        };
        let at = At {
            mono_ms: 0,
            wall_ms: None,
        };
        let filters = adapter(kind, &setting).login(at).filters;
        assert!((1..=FILTERS_MAX).contains(&filters.len()), "{kind}: {filters:?}");
    }
}

/// Bytes decide what the cloud says: garbage, what it said in a transcript, that with faults, answers to our questions.
#[test]
fn whatever_a_cloud_says_nothing_breaks_and_no_frame_is_made_up() {
    for kind in KINDS {
        let texts: Vec<String> = transcripts(kind).into_iter().map(|(_, text)| text).collect();
        let corpus = chaos::corpus(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let config = ProptestConfig {
            cases: CHAOS_CASES,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let frames = Cell::new(0);
        proptest!(config, |(bytes in proptest::collection::vec(any::<u8>(), 0..600))| {
            frames.set(frames.get() + chaos::run(kind, &bytes, &corpus));
        });
        println!("{kind}: {CHAOS_CASES} cases, {} frames", frames.get());
        assert!(frames.get() > 0, "{kind}: nothing that was a frame got through");
    }
}

/// S7: the cloud loses a tenth of its books while everybody has to log in again, and finds it after half an hour.
#[test]
fn a_cloud_that_forgets_a_tenth_of_two_thousand_is_not_hammered_and_not_believed() {
    const CHILDREN: usize = 2_000;
    const HOUR_MS: u64 = 3_600_000;
    for seed in 1..=3 {
        let mut cloud = Cloud::new(CHILDREN, seed);
        cloud.connect();
        let first_ms = cloud.run_until_online(HOUR_MS, CHILDREN);
        assert!(cloud.symptoms.is_empty(), "{:?}", cloud.symptoms);
        cloud.denied_percent = 10;
        cloud.connect();
        let healthy = CHILDREN * 9 / 10;
        let others_ms = cloud.run_until_online(HOUR_MS, healthy);
        assert_eq!(cloud.online.len(), healthy, "seed {seed}: who is known is in");
        let before = cloud.logins.len();
        cloud.run(HOUR_MS / 2, |_| false);
        let asked = cloud.logins.len() - before;
        let (denied, named): (Vec<_>, Vec<_>) = cloud
            .symptoms
            .iter()
            .cloned()
            .partition(|symptom| symptom.class == Class::Denied);
        assert_eq!(denied.len(), 1, "seed {seed}: {:?}", cloud.symptoms);
        assert!(named.iter().all(|symptom| symptom.class == Class::Claimed) && named.len() <= 10);
        assert!(asked <= 40, "seed {seed}: {asked} questions in half an hour");
        cloud.denied_percent = 0;
        let healed_ms = cloud.run_until_online(HOUR_MS, CHILDREN);
        assert_eq!(cloud.online.len(), CHILDREN, "seed {seed}: everybody is back");
        println!(
            "seed {seed}: all in after {} s, the others after {} s, {asked} questions in half an hour, {} named, \
             \"{}\", all back {} s after it healed",
            first_ms / 1000,
            others_ms / 1000,
            named.len(),
            denied[0].text,
            healed_ms / 1000,
        );
    }
}

/// S6 and S11 at once: every session is lost, five times. Nobody logs in more often than allowed, and one symptom a time.
#[test]
fn two_thousand_lost_sessions_come_back_within_the_limits() {
    const CHILDREN: usize = 2_000;
    let mut cloud = Cloud::new(CHILDREN, 9);
    cloud.connect();
    cloud.run_until_online(600_000, CHILDREN);
    for round in 1..=5 {
        let begun = cloud.logins.len();
        cloud.lose_sessions();
        let took_ms = cloud.run_until_online(1_200_000, CHILDREN);
        assert_eq!(cloud.online.len(), CHILDREN, "round {round}");
        println!(
            "round {round}: back after {} s, {} logins",
            took_ms / 1000,
            cloud.logins.len() - begun
        );
    }
    assert!((1..=5).contains(&cloud.symptoms.len()), "{:?}", cloud.symptoms);
    assert!(cloud.symptoms.iter().all(|symptom| symptom.class == Class::SessionLost));
}

/// What stands in the specification for whoever writes a backend.
#[test]
fn the_examples_in_the_specification_are_what_our_code_makes() {
    let page = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/hcp.md")).unwrap();
    let secret = PairSecret(std::array::from_fn(|at| at as u8));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let site = Name::new("campus").unwrap();
    let gateway = Name::new("gw-1").unwrap();
    let (up, down) = (secret.key(Direction::Up), secret.key(Direction::Down));
    let counter = 3 << 32 | 7;
    let lane = Lane::new(1).unwrap();
    for (key, topic) in [
        (&up, topic::link_up(&site, &gateway, LinkUp::Echo, Lane::FIRST)),
        (&up, topic::link_up(&site, &gateway, LinkUp::Echo, lane)),
        (&down, topic::link_down(&site, &gateway, LinkDown::Echo, Lane::FIRST)),
    ] {
        let frame = hex(&key.seal_vec(&topic, counter, &Echo { nonce: 42 }));
        assert!(
            page.contains(topic.as_str()) && page.contains(&format!("`{frame}`")),
            "{topic}: {frame}"
        );
    }
    assert!(page.contains(&format!("`{}`", secret.password())));
    for word in LinkUp::ALL.iter().map(|word| format!("`u/{}`", word.word())) {
        assert!(page.contains(&word), "{word} is not specified");
    }
    for word in LinkDown::ALL.iter().map(|word| format!("`d/{}`", word.word())) {
        assert!(page.contains(&word), "{word} is not specified");
    }
}

//! What any cloud may say to its adapter, in any order. The first byte chooses the cloud, the others what happens.
#![no_main]

#[path = "../../tests/adapters/chaos.rs"]
mod chaos;
#[path = "../../tests/support/clouds.rs"]
mod clouds;

use std::{fs, path::Path, sync::OnceLock};

use chaos::Corpus;
use libfuzzer_sys::fuzz_target;

const KINDS: [&str; 4] = ["alink", "aws", "webhook", "hcp"];
static SAID: OnceLock<Vec<Corpus>> = OnceLock::new();

/// What this cloud says in its transcripts.
fn said(kind: &str) -> Corpus {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transcripts").join(kind);
    let files = fs::read_dir(folder).expect("the transcripts are beside the tests");
    let mut paths: Vec<_> = files.map(|file| file.expect("a readable folder").path()).collect();
    paths.sort();
    let texts: Vec<String> = paths.iter().map(|path| fs::read_to_string(path).expect("text")).collect();
    chaos::corpus(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let at = usize::from(*kind) % KINDS.len();
    let said = SAID.get_or_init(|| KINDS.map(said).to_vec());
    chaos::run(KINDS[at], bytes, &said[at]);
});

//! Every shipped script, on the wire before a real hub, a real gateway and real device code: one table at the end.
//!
//! Words on the command line choose among `script on cloud`. `HOLDFAST_CLOUDS=all` plays each script on every cloud that
//! can; without it on the one it is about. `HOLDFAST_SEED` is another seed.
#![allow(clippy::unwrap_used)]

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use hil_tests::{
    cloud_sim::{
        Vendor,
        script::{Script, shipped},
    },
    rehearsal::{self, Outcome},
};

/// Rehearsals at one time: most of the time they wait.
const AT_ONCE: usize = 5;

/// What came of one: its outcome, or why there is none; and how long it took, in s.
type Played = (String, Result<Outcome, String>, f64);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let everywhere = std::env::var("HOLDFAST_CLOUDS").is_ok_and(|value| value == "all");
    let seed = std::env::var("HOLDFAST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let mut plays: Vec<(Script, Vendor)> = Vec::new();
    for (name, _) in shipped::SHIPPED {
        let script = shipped::find(name)
            .unwrap()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let clouds = if everywhere {
            script.clouds.clone()
        } else {
            script.clouds[..1].to_vec()
        };
        plays.extend(clouds.into_iter().map(|vendor| (script.clone(), vendor)));
    }
    plays.retain(|(script, vendor)| {
        let name = format!("{} on {vendor}", script.name);
        words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))
    });
    if plays.is_empty() {
        eprintln!("no script on any cloud is called so: {words:?}");
        return ExitCode::FAILURE;
    }
    let began = Instant::now();
    println!("{} rehearsals, seed {seed}, {AT_ONCE} at a time", plays.len());
    let played = play_all(&plays, seed);
    println!("\n{}", Outcome::head());
    let mut good = true;
    for (name, outcome, took_s) in &played {
        match outcome {
            Ok(outcome) => {
                good &= outcome.holds();
                println!("{} {took_s:>6.1} s", outcome.line());
            }
            Err(why) => {
                good = false;
                println!("{name:<41} NOT PLAYED: {}", why.lines().next().unwrap_or_default());
            }
        }
    }
    for (name, outcome, _) in &played {
        match outcome {
            Ok(outcome) => {
                for failed in &outcome.failed {
                    println!("{name}: {failed}");
                }
                if let Some(difference) = outcome.difference.as_ref().filter(|_| !outcome.holds()) {
                    println!("{name}: first difference of the books: {difference}");
                }
                if !outcome.holds() {
                    println!("{name}: {:?}", outcome.values);
                }
            }
            Err(why) => println!("{name}: {why}"),
        }
    }
    println!(
        "\n{} rehearsals in {:.0} s",
        played.len(),
        began.elapsed().as_secs_f64()
    );
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn play_all(plays: &[(Script, Vendor)], seed: u64) -> Vec<Played> {
    let next = AtomicUsize::new(0);
    let played: Mutex<Vec<(usize, Played)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(plays.len()) {
            scope.spawn(|| {
                while let Some((i, (script, vendor))) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    plays.get(i).map(|play| (i, play))
                } {
                    let began = Instant::now();
                    let outcome = rehearsal::play(script, *vendor, seed).map_err(|error| format!("{error:#}"));
                    let name = format!("{} on {vendor}", script.name);
                    let took_s = began.elapsed().as_secs_f64();
                    println!("{name}: {took_s:.1} s");
                    played.lock().unwrap().push((i, (name, outcome, took_s)));
                }
            });
        }
    });
    let mut played = played.into_inner().unwrap();
    played.sort_by_key(|(i, _)| *i);
    played.into_iter().map(|(_, played)| played).collect()
}

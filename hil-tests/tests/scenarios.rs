//! Every scenario on twins: the real `device` code at a real gateway and hub, each scenario at a site of its own.

use hil_tests::{
    rig::twin::Twins,
    scenarios::{self, Outcome, Told},
};
use libtest_mimic::{Arguments, Failed, Trial};

/// What no twin can play. A scenario that is missing here and not run fails; so does one that is here and run.
const NOT_RUN: &[(&str, &str)] = &[(
    "together: devices that wait sleep",
    "a twin has no processor of its own",
)];

/// Sites at once: mostly they wait.
const AT_ONCE: usize = 6;

fn main() {
    let all = scenarios::all();
    let not_run: Vec<(String, String)> = all
        .iter()
        .filter_map(|told| Some((told.name.clone(), told.fits(&Twins).err()?.to_string())))
        .collect();
    let mut trials: Vec<Trial> = all.into_iter().zip(1..).map(|(told, seed)| trial(told, seed)).collect();
    trials.push(Trial::test("what is not run is known", move || {
        let found: Vec<(&str, &str)> = not_run.iter().map(|(name, why)| (&**name, &**why)).collect();
        if found == NOT_RUN {
            Ok(())
        } else {
            Err(Failed::from(format!("not run: {found:?}; known: {NOT_RUN:?}")))
        }
    }));
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(told: Told, seed: u64) -> Trial {
    let name = told.name.clone();
    let Err(why) = told.fits(&Twins) else {
        return Trial::test(name, move || play(told, seed));
    };
    Trial::test(format!("{name}: NOT RUN: {why}"), || Ok(())).with_ignored_flag(true)
}

fn play(told: Told, seed: u64) -> Result<(), Failed> {
    let report = scenarios::tell(&Twins, seed, &[told]);
    for row in &report.rows {
        match &row.outcome {
            Outcome::Passed => {}
            Outcome::NotRun(why) => return Err(Failed::from(format!("not run: {why}"))),
            Outcome::Failed(why) => return Err(Failed::from(why.clone())),
        }
    }
    Ok(())
}

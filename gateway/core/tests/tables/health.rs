//! The mode of the authorize capability: entered at once, left slowly, on the evidence of answers alone.

use crate::site::*;
use gateway_core::{Input, Mode};
use proto::{artifact::Whitelist, link::Verdict};

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A user asks, the cloud answers.
    Good,
    /// A user asks, the cloud is silent.
    Silent,
    /// A user asks, somebody says 5xx.
    Trouble,
    /// A user asks, somebody says 429: slow down.
    Throttled,
    /// Time passes, in s.
    Pass(u64),
    /// The next probe is answered.
    GoodProbe,
    /// The next probe is not answered.
    BadProbe,
    /// The gateway restarts.
    Reboot,
}
use Step::*;

fn step(site: &mut Site, step: Step) {
    match step {
        Good | Silent | Trouble | Throttled => {
            let (session, decision) = site.ask("c1", 3);
            match step {
                Good => drop(site.answer(&decision, ACCEPT)),
                Silent => drop(site.wait(1_200)),
                _ => {
                    let Input::Answer(answer) = answer_to(&decision, ACCEPT) else {
                        unreachable!("answer_to makes an answer")
                    };
                    let code = if matches!(step, Trouble) { 503 } else { 429 };
                    let ask = answer.ask;
                    site.put(&Input::Trouble { ask, code });
                }
            }
            site.say("c1", gateway_core::Said::Stop(stop(session, 0, 0, 0)));
        }
        Pass(s) => site.pass(s * 1_000),
        GoodProbe | BadProbe => {
            let due_ms = site.gateway.next_deadline().expect("probes go on");
            site.pass(due_ms.saturating_sub(site.now.mono_ms));
            let decision = site.put(&Input::Tick);
            assert_eq!(words(&decision), "probe");
            match step {
                GoodProbe => drop(site.answer(&decision, ACCEPT)),
                _ => drop(site.wait(500)),
            }
        }
        Reboot => site.reboot(1_000),
    }
}

#[test]
fn modes_follow_the_evidence() {
    let check = |steps: &[Step], expected: Mode| {
        let mut site = Site::new();
        for &s in steps {
            step(&mut site, s);
        }
        assert_eq!(site.gateway.health().authorize.mode, expected, "{steps:?}");
        site.check();
    };
    check(&[], Mode::Online);
    check(&[Good], Mode::Online);
    check(&[Silent], Mode::Suspect);
    check(&[Trouble], Mode::Suspect);
    check(&[Throttled, Throttled, Throttled], Mode::Online);
    check(&[Silent, Good], Mode::Online);
    check(&[Silent, Good, Silent], Mode::Suspect);
    check(&[Silent, Silent], Mode::Local);
    check(&[Trouble, Silent], Mode::Local);
    check(&[Silent, Pass(11), Silent], Mode::Suspect);
    check(&[Silent, Pass(11), Silent, Silent], Mode::Local);
    check(&[Silent, Silent, GoodProbe], Mode::Recovering);
    check(&[Silent, Silent, GoodProbe, BadProbe], Mode::Local);
    // Three good probes are not enough before 30 s have passed since the first.
    check(&[Silent, Silent, GoodProbe, GoodProbe, GoodProbe], Mode::Recovering);
    check(
        &[Silent, Silent, GoodProbe, GoodProbe, Pass(40), GoodProbe],
        Mode::Online,
    );
    check(&[Silent, Silent, GoodProbe, Pass(40), GoodProbe], Mode::Recovering);
    check(
        &[Silent, Silent, GoodProbe, GoodProbe, BadProbe, Pass(40), GoodProbe],
        Mode::Recovering,
    );
    check(&[Silent, Reboot], Mode::Suspect);
    check(&[Silent, Silent, Reboot], Mode::Local);
    check(
        &[Silent, Silent, Reboot, GoodProbe, GoodProbe, Pass(40), GoodProbe],
        Mode::Online,
    );
}

#[test]
fn probes_slow_down_while_the_cloud_is_dark() {
    let mut site = Site::new();
    site.go_local();
    let mut waits_s = Vec::new();
    for _ in 0..7 {
        let before_ms = site.now.mono_ms;
        let due_ms = site.gateway.next_deadline().unwrap();
        waits_s.push((due_ms - before_ms) / 1_000);
        step(&mut site, BadProbe);
    }
    assert_eq!(waits_s, [2, 4, 8, 16, 30, 30, 30]);
    step(&mut site, GoodProbe);
    assert_eq!(
        site.gateway.next_deadline().unwrap() - site.now.mono_ms,
        2_000,
        "a good one is followed up soon"
    );
}

#[test]
fn probes_go_round_the_list_and_skip_whom_a_healthy_cloud_would_refuse() {
    let mut site = Site::new();
    let mut entries: Vec<_> = (1..=5).map(|n| entry(n, Whitelist::Always)).collect();
    entries[1].valid = false;
    entries[4].not_after_s = WALL_S + 1;
    site.put(&list(2, entries));
    site.put(&revocations(1, &[(3, 5)]));
    site.go_local();
    let mut probed = Vec::new();
    for _ in 0..4 {
        let due_ms = site.gateway.next_deadline().unwrap();
        site.pass(due_ms - site.now.mono_ms);
        let decision = site.put(&Input::Tick);
        probed.push(questions(&decision)[0].token);
        site.answer(&decision, ACCEPT);
    }
    assert_eq!(probed, [1, 4, 1, 4].map(token));
}

#[test]
fn what_an_answer_to_a_probe_shows() {
    let check = |reply: Reply, about: u8, expected: Mode, denied: bool| {
        let mut site = Site::new();
        site.go_local();
        let due_ms = site.gateway.next_deadline().unwrap();
        site.pass(due_ms - site.now.mono_ms);
        let decision = site.put(&Input::Tick);
        let Input::Answer(mut answer) = answer_to(&decision, reply) else {
            unreachable!("answer_to makes an answer")
        };
        answer.token = token(about);
        site.answer_bad(&decision, STRANGE);
        site.put(&Input::Answer(answer));
        assert_eq!(
            site.gateway.health().authorize.mode,
            expected,
            "{reply:?} about {about}"
        );
        let (_, decision) = site.ask("c1", 1);
        assert_eq!(words(&decision) == "refuse denied 0", denied, "{}", words(&decision));
        site.check();
    };
    check(ACCEPT, 1, Mode::Recovering, false);
    check(DENY, 1, Mode::Local, false);
    // It knows better than we do, so it is well: and it is believed.
    check(DENY_NEWER, 1, Mode::Recovering, true);
    // An answer to another question with the same number, from before the boot.
    check(ACCEPT, 2, Mode::Local, false);
    let other = Reply {
        verdict: Verdict::Other,
        ..ACCEPT
    };
    check(other, 1, Mode::Local, false);
}

#[test]
fn a_site_without_a_list_probes_too() {
    let mut site = Site::empty(config());
    site.put(&tariffs(1));
    site.go_local();
    let due_ms = site.gateway.next_deadline().unwrap();
    site.pass(due_ms - site.now.mono_ms);
    let decision = site.put(&Input::Tick);
    assert_eq!(
        questions(&decision).len(),
        1,
        "nobody is known good: the bad canary flies alone"
    );
    site.answer(&decision, STRANGE);
    assert_eq!(site.gateway.health().authorize.mode, Mode::Recovering);
}

#[test]
fn answers_count_only_for_what_was_asked() {
    let mut site = Site::new();
    let (_, decision) = site.ask("c1", 3);
    let Input::Answer(good) = answer_to(&decision, ACCEPT) else {
        unreachable!("answer_to makes an answer")
    };
    let mut wrong_number = good.clone();
    wrong_number.ask += 1;
    let mut wrong_token = good.clone();
    wrong_token.token = token(1);
    let mut wrong_session = good.clone();
    wrong_session.session = site.mint("c1");
    for wrong in [wrong_number, wrong_token, wrong_session] {
        let decision = site.put(&Input::Answer(wrong.clone()));
        assert_eq!(words(&decision), format!("ignored: question {} is not open", wrong.ask));
        assert!(decision.events.is_empty());
    }
    assert_eq!(
        words(&site.put(&Input::Trouble { ask: 0, code: 500 })),
        "ignored: question 0 is not open"
    );
    assert_eq!(words(&site.put(&Input::Answer(good.clone()))), "grant cloud 300 3000");
    assert_eq!(
        words(&site.put(&Input::Answer(good))),
        "ignored: question 1 is not open",
        "answered once"
    );
    assert_eq!(site.gateway.health().authorize.mode, Mode::Online);
}

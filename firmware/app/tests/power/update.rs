//! A whole update, cut at every operation: the download, the swap by the real bootloader, the trial, the confirmation, and
//! the way back.

use proto::update::Fault;

use crate::{
    flash::Cut,
    world::{Outcome, World, image},
};

/// Attempts that an operator makes: a cut in the trial makes one fail.
const ORDERS_MAX: usize = 3;
/// Pairs of cuts that are tried beside every single one.
const PAIRS: u64 = 1_500;

/// Has it updated as often as it takes; what came of it in the end.
fn insist(world: &mut World, version: u32) -> Outcome {
    let wanted = image(version);
    let mut outcome = world.run(&wanted);
    for _ in 1..ORDERS_MAX {
        if outcome == Outcome::Confirmed || !world.heard {
            break;
        }
        assert_eq!(
            outcome,
            Outcome::Failed(Fault::Crashed),
            "a cut in the trial is all that may go wrong"
        );
        outcome = world.order_again(&wanted);
    }
    outcome
}

fn start() -> World {
    let world = World::new(&[image(1), image(2)]);
    assert_eq!(world.boot(), Some(1));
    world
}

/// Operations of an update that nothing disturbs.
fn operations(heard: bool) -> u64 {
    let mut world = start();
    world.heard = heard;
    let expected = if heard {
        Outcome::Confirmed
    } else {
        Outcome::Failed(Fault::Unheard)
    };
    assert_eq!(world.run(&image(2)), expected);
    assert_eq!(world.boot(), Some(if heard { 2 } else { 1 }));
    world.flash.done()
}

#[test]
fn an_update_survives_a_cut_at_every_operation() {
    let total = operations(true);
    let mut crashed = 0;
    for (at, cut) in (0..total).flat_map(|at| Cut::ALL.map(|cut| (at, cut))) {
        let mut world = start();
        world.flash.cut_at(at, cut);
        // The last operations come after the gateway has heard of it.
        if world.run(&image(2)) == Outcome::PowerLost {
            world.flash.power_on();
            crashed += u32::from(world.copied().run(&image(2)) == Outcome::Failed(Fault::Crashed));
        }
        world.flash.power_on();
        assert_eq!(insist(&mut world, 2), Outcome::Confirmed, "{cut:?} at {at} of {total}");
        assert_eq!(world.boot(), Some(2), "{cut:?} at {at}");
    }
    println!("{total} operations, each cut before and in its middle; {crashed} cuts fell into the trial");
    assert!(total > 1_000 && crashed > 0, "the cuts reach the swap and the trial");
}

#[test]
fn an_image_that_is_not_heard_goes_back_whatever_is_cut() {
    let total = operations(false);
    for (at, cut) in (0..total).flat_map(|at| Cut::ALL.map(|cut| (at, cut))) {
        let mut world = start();
        world.heard = false;
        world.flash.cut_at(at, cut);
        if world.run(&image(2)) == Outcome::PowerLost {
            world.flash.power_on();
            let outcome = world.run(&image(2));
            let expected = [Outcome::Failed(Fault::Unheard), Outcome::Failed(Fault::Crashed)];
            assert!(expected.contains(&outcome), "{cut:?} at {at} of {total}: {outcome:?}");
        }
        world.flash.power_on();
        assert_eq!(world.boot(), Some(1), "{cut:?} at {at}");
        // It is as good as before: the next image is taken.
        world.heard = true;
        assert_eq!(world.order_again(&image(2)), Outcome::Confirmed, "{cut:?} at {at}");
    }
    println!("{total} operations, each cut before and in its middle");
}

/// A cut while the device recovers from a cut.
#[test]
fn pairs_of_cuts() {
    let total = operations(true);
    let mut draw: u64 = 20_261_121;
    println!("seed {draw}");
    let mut next = |below: u64| {
        draw = draw
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (draw >> 33) % below
    };
    for _ in 0..PAIRS {
        let mut world = start();
        let cuts = [next(total), next(total)];
        for at in cuts {
            world.flash.cut_at(at, Cut::ALL[next(2) as usize]);
            world.run(&image(2));
            world.flash.power_on();
        }
        assert_eq!(insist(&mut world, 2), Outcome::Confirmed, "cuts at {cuts:?}");
    }
}

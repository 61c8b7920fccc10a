//! What is not taken, and when nothing is restarted.

use app::update::{Next, Scene};
use embassy_futures::block_on;
use proto::{
    id::{Kind, Name},
    trust::Issuer,
    update::{Fault, Label, Octets, Offer, PIECE_BYTES, Piece, SignedImage, State, sign},
};

use crate::{
    flash::Cut,
    world::{IMAGE_BYTES, Outcome, SPARE, World, image, issuer},
};

fn offer(image: &SignedImage) -> Offer {
    Offer {
        manifest: Octets::new(&image.envelope).unwrap(),
    }
}

fn other(issuer: &Issuer, name: &str, kind: Kind, bytes: usize) -> SignedImage {
    let board = Name::new(name).unwrap();
    let mut content = Label::new(name, kind).bytes().to_vec();
    content.resize(bytes, 0);
    sign(issuer, content, board, kind, 9).unwrap()
}

#[test]
fn what_is_not_for_this_device_is_refused_before_anything_is_erased() {
    let world = World::new(&[image(1), image(2)]);
    let (mut store, mut updater) = (world.store(), world.updater(1));
    block_on(updater.boot(&mut store, 0)).unwrap();
    let done = world.flash.done();
    let mut flipped = image(2);
    flipped.envelope[100] ^= 1;
    let rows = [
        (
            "signed by nobody it knows",
            other(&Issuer::from_seed(&[1; 32]), "fake-board", Kind::Charger, 64),
            Fault::Forged,
            0,
        ),
        ("changed", flipped, Fault::Forged, 0),
        (
            "of another board",
            other(&issuer(), "fake-boar", Kind::Charger, 64),
            Fault::Board,
            9,
        ),
        (
            "of another kind",
            other(&issuer(), "fake-board", Kind::Washer, 64),
            Fault::Kind,
            9,
        ),
        ("the one that runs", image(1), Fault::Old, 1),
        (
            "too long",
            other(&issuer(), "fake-board", Kind::Charger, 4_097),
            Fault::Long,
            9,
        ),
    ];
    for (what, image, fault, version) in rows {
        updater.offer(&offer(&image));
        let update = updater.unsaid().unwrap();
        assert_eq!(
            (update.state, update.fault, update.offered),
            (State::Idle, fault, version),
            "{what}"
        );
        updater.said(0);
    }
    assert_eq!(world.flash.done(), done, "the flash was touched");
    // The reason is of no interest on the next connection.
    updater.linked();
    let update = updater.unsaid().unwrap();
    assert_eq!((update.fault, update.offered), (Fault::None, 0));
}

#[test]
fn a_confirmed_version_is_the_floor_of_every_later_one() {
    let mut world = World::new(&[image(1), image(2), image(3)]);
    assert_eq!(world.run(&image(3)), Outcome::Confirmed);
    assert_eq!(world.run(&image(2)), Outcome::Failed(Fault::Old));
    assert_eq!(world.boot(), Some(3));
    // Somebody flashes an old image by hand: nothing between it and the floor is taken.
    let mut updater = world.updater(1);
    block_on(updater.boot(&mut world.store(), 0)).unwrap();
    assert_eq!(updater.update().floor, 3);
    updater.offer(&offer(&image(2)));
    assert_eq!(updater.update().fault, Fault::Old);
}

/// One world, fetched up to the point where only the restart is missing.
fn fetched(world: &World, image: &SignedImage) -> app::update::Updater<crate::flash::Part> {
    let mut updater = world.updater(1);
    block_on(updater.boot(&mut world.store(), 0)).unwrap();
    updater.offer(&offer(image));
    while let Some(update) = updater.unsaid() {
        updater.said(0);
        let rest = &image.image[update.offset as usize..];
        let piece = |version, offset, len: usize| Piece {
            version,
            offset,
            bytes: Octets::new(&rest[..len.min(rest.len())]).unwrap(),
        };
        if update.state == State::Fetching {
            // Of another version, from elsewhere, or cut: as if it had not come.
            for wrong in [
                piece(update.offered + 1, update.offset, PIECE_BYTES),
                piece(update.offered, update.offset + 512, PIECE_BYTES),
                piece(update.offered, update.offset, 8),
            ] {
                block_on(updater.piece(&wrong, 0));
                assert_eq!(updater.unsaid(), None);
            }
            block_on(updater.piece(&piece(update.offered, update.offset, PIECE_BYTES), 0));
        }
    }
    assert_eq!(updater.update().state, State::Waiting);
    updater
}

const IDLE: Scene = Scene {
    now_ms: 10_000,
    is_idle: true,
    is_linked: true,
    is_sane: true,
};

#[test]
fn nothing_restarts_while_somebody_has_a_session() {
    let world = World::new(&[image(1), image(2)]);
    let mut updater = fetched(&world, &image(2));
    let busy = Scene { is_idle: false, ..IDLE };
    let tend =
        |updater: &mut app::update::Updater<_>, scene| block_on(updater.tend(&mut world.store(), scene)).unwrap();
    assert_eq!(tend(&mut updater, &busy), Next::Stay);
    assert_eq!(world.boot(), Some(1));
    assert_eq!(tend(&mut updater, &IDLE), Next::Restart);
    assert_eq!(world.boot(), Some(2));
    // Nor does it go back under a session, however late it is.
    let mut updater = world.updater(2);
    block_on(updater.boot(&mut world.store(), 0)).unwrap();
    let unheard = Scene {
        now_ms: 1_000_000,
        is_linked: false,
        ..busy
    };
    assert_eq!(tend(&mut updater, &unheard), Next::Stay);
    let insane = Scene {
        now_ms: 1_000_000,
        is_sane: false,
        ..IDLE
    };
    assert_eq!(tend(&mut updater, &insane), Next::Restart);
    assert_eq!(world.boot(), Some(1));
    let mut updater = world.updater(1);
    block_on(updater.boot(&mut world.store(), 0)).unwrap();
    let update = updater.update();
    assert_eq!((update.fault, update.offered, update.floor), (Fault::SelfTest, 2, 1));
}

#[test]
fn what_lies_in_flash_is_checked_whole_before_it_is_swapped_in() {
    for at in [0, 700, IMAGE_BYTES - 1] {
        let world = World::new(&[image(1), image(2)]);
        let mut updater = fetched(&world, &image(2));
        let byte = world.flash.part(SPARE).bytes()[at];
        world.flash.part(SPARE).put(at, &[byte ^ 1]);
        let next = block_on(updater.tend(&mut world.store(), &IDLE)).unwrap();
        assert_eq!(
            (next, updater.update().fault),
            (Next::Stay, Fault::Damaged),
            "byte {at}"
        );
        assert_eq!(world.boot(), Some(1));
    }
}

#[test]
fn the_same_offer_goes_on_and_a_silent_gateway_is_given_up() {
    let world = World::new(&[image(1), image(2), image(3)]);
    let (mut store, mut updater) = (world.store(), world.updater(1));
    block_on(updater.boot(&mut store, 0)).unwrap();
    updater.offer(&offer(&image(2)));
    let first = Piece {
        version: 2,
        offset: 0,
        bytes: Octets::new(&image(2).image[..PIECE_BYTES]).unwrap(),
    };
    block_on(updater.piece(&first, 0));
    updater.offer(&offer(&image(2)));
    assert_eq!(
        updater.update().offset,
        PIECE_BYTES as u32,
        "after a lost connection it goes on"
    );
    updater.offer(&offer(&image(3)));
    assert_eq!((updater.update().offered, updater.update().offset), (3, 0));
    let mut asked = 0;
    for second in 0..3_600 {
        let scene = Scene {
            now_ms: second * 1000,
            ..IDLE
        };
        if updater.unsaid().is_some() {
            asked += 1;
            updater.said(second * 1000);
        }
        block_on(updater.tend(&mut store, &scene)).unwrap();
    }
    assert_eq!(updater.update().state, State::Idle);
    assert!((100..200).contains(&asked), "asked {asked} times");
}

#[test]
fn a_flash_that_fails_on_trial_ends_nobodys_session() {
    let world = World::new(&[image(1), image(2)]);
    let mut updater = fetched(&world, &image(2));
    assert_eq!(
        block_on(updater.tend(&mut world.store(), &IDLE)).unwrap(),
        Next::Restart
    );
    assert_eq!(world.boot(), Some(2));
    let busy = Scene { is_idle: false, ..IDLE };
    let mut unmarked = 0;
    for at in 0.. {
        let world = world.copied();
        let (mut store, mut updater) = (world.store(), world.updater(2));
        block_on(updater.boot(&mut store, 0)).unwrap();
        world.flash.cut_at(at, Cut::Before);
        let next = block_on(updater.tend(&mut store, &busy));
        if !world.flash.is_dead() {
            assert_eq!(updater.update().floor, 2);
            break;
        }
        if let Ok(next) = next {
            assert_eq!(next, Next::Stay, "operation {at}");
            unmarked += u32::from(updater.update().state == State::Trial);
        }
    }
    assert!(unmarked > 0, "the bootloader was always told");
}

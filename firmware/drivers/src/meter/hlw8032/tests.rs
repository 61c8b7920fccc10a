use std::{vec, vec::Vec};

use embassy_futures::block_on;
use proptest::prelude::*;

use super::*;
use crate::{
    meter::sim::{self, Load},
    testing::{Wire, WireError, config},
};

/// Frames that chips have sent.
const LOADED: [u8; 24] = [
    0x55, 0x5A, 0x02, 0xDC, 0xD0, 0x00, 0x05, 0xFF, 0x00, 0x3C, 0xD7, 0x00, 0x20, 0x51, 0x4D, 0xE5, 0x68, 0x00, 0x62,
    0x43, 0x71, 0x02, 0x3C, 0x24,
];
const UNLOADED: [u8; 24] = [
    0xF2, 0x5A, 0x02, 0xE1, 0x80, 0x00, 0x06, 0x52, 0x00, 0x3E, 0xA8, 0x03, 0xA6, 0xC8, 0x4F, 0x9A, 0xE8, 0x5E, 0x79,
    0x0B, 0x61, 0x00, 0x01, 0x27,
];
const UNCONNECTED: [u8; 24] = [
    0xFA, 0x5A, 0x02, 0xEE, 0xC8, 0xFE, 0xFF, 0x01, 0x00, 0x3F, 0x66, 0x00, 0x00, 0x00, 0x51, 0x21, 0x88, 0xFA, 0xDB,
    0x29, 0x01, 0x00, 0x00, 0x54,
];

fn parts() -> Parts {
    Parts::new(1_880_000, 1_000_000, 1_000_000).unwrap()
}

fn meter() -> Meter {
    Meter::new(parts(), LEAP_PULSES_MAX)
}

fn frame() -> Frame {
    Frame::parse(&LOADED).unwrap()
}

fn reading(voltage_mv: u32, current_ma: u32, power_mw: u32) -> Reading {
    Reading {
        voltage_mv,
        current_ma,
        power_mw,
        energy_uwh_delta: 0,
    }
}

#[test]
fn frames_of_real_chips() {
    for (bytes, expected) in [
        (LOADED, reading(229_764, 1_882, 381_530)),
        (UNLOADED, reading(219_372, 67, 0)),
        (UNCONNECTED, reading(0, 0, 0)),
    ] {
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!(frame.encode(), bytes);
        assert_eq!(meter().read(&frame), Some(expected));
    }
}

#[test]
fn states() {
    for (state, expected) in [
        (0x55, Some(reading(229_764, 1_882, 381_530))),
        (0xAA, None),
        (0xF0, Some(reading(229_764, 1_882, 381_530))),
        (0xF1, None),
        (0xF2, Some(reading(229_764, 1_882, 0))),
        (0xF4, Some(reading(229_764, 0, 381_530))),
        (0xF8, Some(reading(0, 1_882, 381_530))),
        (0xFE, Some(reading(0, 0, 0))),
        (0xFF, None),
    ] {
        let frame = Frame { state, ..frame() };
        assert_eq!(Frame::parse(&frame.encode()), Some(frame), "{state:#x}");
        assert_eq!(meter().read(&frame), expected, "{state:#x}");
    }
    for state in [0x00, 0x54, 0x56, 0xA9, 0xAB, 0xEF] {
        assert_eq!(Frame::parse(&Frame { state, ..frame() }.encode()), None, "{state:#x}");
    }
}

#[test]
fn what_is_not_measured_yet_stays() {
    let mut meter = meter();
    let unmeasured = Frame {
        update: 0x01,
        ..frame()
    };
    assert_eq!(meter.read(&unmeasured), Some(reading(0, 0, 0)));
    for (update, expected) in [
        (0x41, reading(229_764, 0, 0)),
        (0x21, reading(229_764, 1_882, 0)),
        (0x11, reading(229_764, 1_882, 381_530)),
        (0x01, reading(229_764, 1_882, 381_530)),
    ] {
        assert_eq!(meter.read(&Frame { update, ..frame() }), Some(expected), "{update:#x}");
    }
}

#[test]
fn registers_of_zero_and_all_ones_are_no_panic() {
    let zero = Frame {
        state: 0x55,
        update: 0x71,
        ..Frame::default()
    };
    assert_eq!(meter().read(&zero), Some(reading(0, 0, 0)));
    let largest = Frame {
        voltage: 1,
        current: 1,
        power: 1,
        voltage_parameter: 0xFF_FFFF,
        current_parameter: 0xFF_FFFF,
        power_parameter: 0xFF_FFFF,
        ..zero
    };
    let mut meter = Meter::new(Parts::new(u32::MAX, 1, 1).unwrap(), u32::MAX);
    assert_eq!(meter.read(&largest), Some(reading(u32::MAX, u32::MAX, u32::MAX)));
    meter
        .read(&Frame {
            pf: u16::MAX,
            ..largest
        })
        .unwrap();
}

#[test]
fn energy_is_counted_over_carry_and_wrap() {
    // One pulse is 5105000 * 1.88 µJ = 2665.94.. µWh.
    let energy = |pulses: u64| pulses * 5_105_000 * 188 / 360_000;
    for (what, counts, expected) in [
        ("pulses", &[(0, 572), (0, 573), (0, 580)][..], 8),
        ("overflow", &[(0, 0xFFFE), (1, 0x0001)], 3),
        ("overflow back", &[(1, 0xFFFF), (0, 0x0000)], 1),
        ("both", &[(0, 0xF000), (1, 0x0000), (1, 0x1000), (1, 0x2000)], 0x3000),
        ("a restart", &[(0, 0x4000), (0, 0), (0, 10)], 10),
        ("a frame whose carry is disturbed", &[(0, 100), (1, 101), (0, 102)], 2),
    ] {
        let mut meter = meter();
        let total: u64 = counts
            .iter()
            .map(|(carry, pf)| {
                let update = 0x71 | carry << 7;
                let frame = Frame {
                    update,
                    pf: *pf,
                    ..frame()
                };
                meter
                    .read(&Frame::parse(&frame.encode()).unwrap())
                    .unwrap()
                    .energy_uwh_delta
            })
            .sum();
        assert_eq!(total, energy(expected), "{what}");
    }
}

#[test]
fn pulses_during_damage_are_counted_afterwards() {
    let mut meter = meter();
    meter.read(&Frame { pf: 100, ..frame() }).unwrap();
    assert_eq!(
        meter.read(&Frame {
            state: 0xAA,
            pf: 200,
            ..frame()
        }),
        None
    );
    let after = meter.read(&Frame { pf: 300, ..frame() }).unwrap();
    assert_eq!(after.energy_uwh_delta, 200 * 5_105_000 * 188 / 360_000);
}

fn parsed(parser: &mut Parser, bytes: &[u8]) -> Vec<Frame> {
    bytes.iter().filter_map(|byte| parser.push(*byte)).collect()
}

#[test]
fn resynchronisation() {
    let flip = |at: usize| {
        let mut bytes = LOADED;
        bytes[at] ^= 0x10;
        bytes.to_vec()
    };
    let begins_like_a_frame = [0x55, 0x5A, 0x55, 0x55, 0x5A];
    let cases: Vec<(&str, Vec<u8>, usize)> = vec![
        ("one", LOADED.to_vec(), 1),
        ("two", [LOADED, LOADED].concat(), 2),
        ("in the middle of one", [&LOADED[7..], &LOADED].concat(), 1),
        ("a frame cut short", [&LOADED[..20], &LOADED].concat(), 1),
        (
            "a byte too many",
            [&LOADED[..10], &[0], &LOADED[10..], &LOADED].concat(),
            1,
        ),
        ("a byte too few", [&LOADED[..10], &LOADED[11..], &LOADED].concat(), 1),
        ("noise", [&begins_like_a_frame[..], &LOADED].concat(), 1),
        ("a disturbed checksum", flip(23), 0),
        ("a disturbed register", [flip(12), LOADED.to_vec()].concat(), 1),
        ("a disturbed state", [flip(0), LOADED.to_vec()].concat(), 1),
        ("a disturbed check byte", [flip(1), LOADED.to_vec()].concat(), 1),
        ("nothing", vec![], 0),
        ("all states", vec![0x55; 1_000], 0),
    ];
    for (what, bytes, frames) in cases {
        let mut parser = Parser::new();
        let found = parsed(&mut parser, &bytes);
        assert_eq!(found, vec![frame(); frames], "{what}");
        let kept = parser.0.len() as u32;
        assert_eq!(
            parser.dropped() + kept,
            (bytes.len() - frames * FRAME_BYTES) as u32,
            "{what}"
        );
    }
}

#[test]
fn on_a_uart() {
    for piece_max in [1, 5, 24, 64] {
        let wire = Wire::new(piece_max);
        wire.feed(&LOADED[9..]);
        wire.feed(&LOADED);
        wire.feed(&UNLOADED[..12]);
        wire.fail();
        wire.feed(&UNLOADED[12..]);
        wire.feed(&Frame { state: 0xAA, ..frame() }.encode());
        wire.feed(&UNLOADED[..3]);
        let mut meter = Hlw8032::new(wire.clone(), meter());
        assert_eq!(block_on(meter.next()), Ok(reading(229_764, 1_882, 381_530)));
        assert_eq!(block_on(meter.next()), Err(MeterError::Io(WireError)));
        assert_eq!(block_on(meter.next()).unwrap().voltage_mv, 219_372);
        assert_eq!(block_on(meter.next()), Err(MeterError::Parameters));
        assert_eq!(meter.dropped(), 15);
        // Dropped while it waits in the middle of a frame, it has lost nothing.
        assert!(embassy_futures::poll_once(meter.next()).is_pending());
        wire.feed(&UNLOADED[3..]);
        assert!(block_on(meter.next()).is_ok());
    }
}

#[test]
fn the_sim_shows_what_it_was_told() {
    for load in [
        Load::default(),
        Load {
            voltage_mv: 230_000,
            current_ma: 0,
            power_mw: 0,
        },
        Load {
            voltage_mv: 230_000,
            current_ma: 10_000,
            power_mw: 2_300_000,
        },
        Load {
            voltage_mv: 207_000,
            current_ma: 300,
            power_mw: 40_000,
        },
    ] {
        let mut chip = sim::Hlw8032::new(parts(), 0x1_FFF0);
        let mut meter = meter();
        let mut energy_uwh = 0;
        let mut last = Reading::default();
        for _ in 0..36_000 {
            last = meter.read(&Frame::parse(&chip.draw(&load, 100)).unwrap()).unwrap();
            energy_uwh += last.energy_uwh_delta;
        }
        let near = |shown: u32, told: u32| shown.abs_diff(told) <= 1 + told / 500;
        assert!(near(last.voltage_mv, load.voltage_mv), "{load:?} {last:?}");
        assert!(near(last.current_ma, load.current_ma), "{load:?} {last:?}");
        assert!(near(last.power_mw, load.power_mw), "{load:?} {last:?}");
        // One hour, less the pulse that is not complete and those before the first frame.
        let told = u64::from(load.power_mw) * 1_000;
        assert!(energy_uwh.abs_diff(told) < 2_700 * 30, "{load:?} {energy_uwh}");
    }
}

fn frames() -> impl Strategy<Value = Frame> {
    let register = || 0..=0xFF_FFFFu32;
    (
        prop_oneof![Just(0x55u8), Just(0xAA), 0xF0..=0xFFu8],
        [register(), register(), register(), register(), register(), register()],
        any::<u8>(),
        any::<u16>(),
    )
        .prop_map(|(state, [v, vr, i, ir, p, pr], update, pf)| Frame {
            state,
            voltage_parameter: v,
            voltage: vr,
            current_parameter: i,
            current: ir,
            power_parameter: p,
            power: pr,
            update,
            pf,
        })
}

proptest! {
    #![proptest_config(config("hlw8032", 512))]

    #[test]
    fn parse_is_the_inverse_of_encode(frame in frames()) {
        prop_assert_eq!(Frame::parse(&frame.encode()), Some(frame));
    }

    #[test]
    fn one_changed_byte_is_no_frame(frame in frames(), at in 1..FRAME_BYTES, change in 1..=255u8) {
        let mut bytes = frame.encode();
        bytes[at] ^= change;
        prop_assert_eq!(Frame::parse(&bytes), None);
    }

    #[test]
    fn no_bytes_panic(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x55), Just(0x5A), Just(0xFF)], 0..600),
        parts in (1..=u32::MAX, 1..=u32::MAX, 1..=u32::MAX),
    ) {
        let mut parser = Parser::new();
        let mut meter = Meter::new(Parts::new(parts.0, parts.1, parts.2).unwrap(), u32::MAX);
        for byte in bytes {
            if let Some(frame) = parser.push(byte) {
                meter.read(&frame);
            }
        }
    }

    #[test]
    fn no_registers_panic(frames in prop::collection::vec(frames(), 0..50), parts in (1..=u32::MAX, 1..=u32::MAX, 1..=u32::MAX)) {
        let mut meter = Meter::new(Parts::new(parts.0, parts.1, parts.2).unwrap(), u32::MAX);
        for frame in frames {
            meter.read(&frame);
        }
    }

    #[test]
    fn a_whole_frame_after_noise_is_found(noise in prop::collection::vec(any::<u8>(), 0..100), frame in frames()) {
        // The second of two, for noise may look like the beginning of the first. Noise that is a frame itself would
        // take the right checksum.
        let mut parser = Parser::new();
        parsed(&mut parser, &noise);
        let found = parsed(&mut parser, &[frame.encode(), frame.encode()].concat());
        prop_assert_eq!(found.last(), Some(&frame));
    }

    #[test]
    fn increments_add_up_to_the_counter(
        begin in 0..=0x1_FFFFu32,
        steps in prop::collection::vec((0..=LEAP_PULSES_MAX, 0..3usize), 1..100),
        divider in (1..=2_000_000u32, 1..=2_000_000u32, 1..=10_000_000u32),
    ) {
        let parts = Parts::new(divider.0, divider.1, divider.2).unwrap();
        let mut meter = Meter::new(parts, LEAP_PULSES_MAX);
        let mut count = begin;
        let mut show = |count: u32| {
            let update = 0x70 | ((count >> 16 & 1) as u8) << 7;
            let frame = Frame { update, pf: count as u16, ..frame() };
            meter.read(&frame).unwrap().energy_uwh_delta
        };
        let mut energy = u128::from(show(count));
        for (pulses, again) in steps {
            count = count.wrapping_add(pulses);
            for _ in 0..=again {
                energy += u128::from(show(count));
            }
        }
        let pulses = u128::from(count - begin);
        let whole = pulses * 5_105_000 * parts.upper_ohm() * 1_000_000
            / (parts.lower_mohm() * parts.shunt_nohm() * 3_600);
        prop_assert_eq!(energy, whole);
    }
}

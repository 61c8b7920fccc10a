use std::{vec, vec::Vec};

use embassy_futures::{block_on, poll_once};
use proptest::prelude::*;

use super::*;
use crate::{
    meter::sim::{self, Load},
    testing::{Wire, WireError, config},
};

const ADDRESSES: [Address; 4] = [Address::A0, Address::A1, Address::A2, Address::A3];

/// The example of the application note: five resistors of 390 kΩ over 510 Ω, 1 mΩ.
fn parts() -> Parts {
    Parts::new(1_950_000, 510_000, 1_000_000).unwrap()
}

fn meter() -> Meter {
    Meter::new(parts(), REFERENCE_MV, LEAP_PULSES_MAX)
}

/// 220 V, 1 A.
fn packet() -> Packet {
    Packet {
        i_rms: 251_214,
        v_rms: 3_494_336,
        i_fast_rms: 251_214,
        watt: 137_146,
        cf_cnt: 1_200,
        freq: 20_000,
        status: 0,
    }
}

#[test]
fn requests() {
    for (address, expected) in ADDRESSES
        .into_iter()
        .zip([[0x58, 0xAA], [0x59, 0xAA], [0x5A, 0xAA], [0x5B, 0xAA]])
    {
        assert_eq!(address.request(), expected);
    }
}

#[test]
fn layout() {
    let bytes = [
        0x55, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0xFE, 0xFF, 0xFF, 0x0D, 0x0E, 0x0F, 0x20, 0x4E,
        0x00, 0x13, 0x00, 0x00, 0x00,
    ];
    let sum = bytes.iter().fold(0x58u32, |sum, byte| sum + u32::from(*byte));
    let mut bytes: [u8; PACKET_BYTES] = bytes;
    bytes[22] = !(sum as u8);
    let expected = Packet {
        i_rms: 0x03_0201,
        v_rms: 0x06_0504,
        i_fast_rms: 0x09_0807,
        watt: -2,
        cf_cnt: 0x0F_0E0D,
        freq: 20_000,
        status: 0x13,
    };
    assert_eq!(Packet::parse(Address::A0, &bytes), Some(expected));
    assert_eq!(expected.encode(Address::A0), bytes);
    for address in [Address::A1, Address::A2, Address::A3] {
        assert_eq!(Packet::parse(address, &bytes), None, "{address:?}");
    }
}

#[test]
fn frequency() {
    for (freq, mhz) in [
        (20_000, 50_000),
        (16_667, 59_998),
        (0, 0),
        (1, 1_000_000_000),
        (u16::MAX, 15_259),
    ] {
        assert_eq!(Packet { freq, ..packet() }.frequency_mhz(), mhz);
    }
}

#[test]
fn values() {
    let values = |packet: Packet| {
        let reading = meter().read(&packet);
        (reading.voltage_mv, reading.current_ma, reading.power_mw)
    };
    assert_eq!(values(packet()), (220_000, 1_000, 219_998));
    assert_eq!(
        values(Packet {
            watt: -137_146,
            ..packet()
        }),
        (220_000, 1_000, 219_998)
    );
    assert_eq!(values(Packet::default()), (0, 0, 0));
    let mut largest = Meter::new(Parts::new(u32::MAX, 1, 1).unwrap(), NonZeroU16::MAX, u32::MAX);
    let all_ones = Packet {
        i_rms: 0xFF_FFFF,
        v_rms: 0xFF_FFFF,
        watt: -0x80_0000,
        ..packet()
    };
    let reading = largest.read(&all_ones);
    assert_eq!(
        (reading.voltage_mv, reading.current_ma, reading.power_mw),
        (u32::MAX, u32::MAX, u32::MAX)
    );
    largest.read(&Packet {
        cf_cnt: 0x7F_FFFF,
        ..all_ones
    });
}

#[test]
fn energy() {
    // 1200 pulses are 0.22427.. kWh.
    for (what, counts, pulses) in [
        ("pulses", &[0, 600, 1_200][..], 1_200u64),
        ("wrap", &[0xFF_FF00, 0xFF_FFFF, 0x00_0010], 0x110),
        ("a restart", &[0x80_0000, 0, 3], 3),
        ("a disturbance", &[100, 0x40_0000, 103], 3),
    ] {
        let mut meter = meter();
        let total: u64 = counts
            .iter()
            .map(|cf_cnt| {
                meter
                    .read(&Packet {
                        cf_cnt: *cf_cnt,
                        ..packet()
                    })
                    .energy_uwh_delta
            })
            .sum();
        let micro = 186_893_814; // milli µWh of one pulse
        assert!(
            (total * 1_000).abs_diff(pulses * micro) <= pulses + 1_000,
            "{what}: {total}"
        );
    }
}

fn parsed(parser: &mut Parser, bytes: &[u8]) -> Vec<Packet> {
    bytes.iter().filter_map(|byte| parser.push(*byte)).collect()
}

#[test]
fn resynchronisation() {
    let good = packet().encode(Address::A2);
    let flip = |at: usize| {
        let mut bytes = good;
        bytes[at] ^= 0x04;
        bytes.to_vec()
    };
    let cases: Vec<(&str, Vec<u8>, usize)> = vec![
        ("one", good.to_vec(), 1),
        ("two", [good, good].concat(), 2),
        ("in the middle of one", [&good[5..], &good].concat(), 1),
        ("cut short", [&good[..22], &good].concat(), 1),
        ("a byte too many", [&good[..9], &[0x55], &good[9..], &good].concat(), 1),
        ("noise", [&[0x55; 30][..], &good].concat(), 1),
        ("a disturbed checksum", flip(22), 0),
        ("a disturbed register", [flip(8), good.to_vec()].concat(), 1),
        ("a disturbed head", [flip(0), good.to_vec()].concat(), 1),
        ("another chip", packet().encode(Address::A1).to_vec(), 0),
        ("nothing", vec![], 0),
    ];
    for (what, bytes, packets) in cases {
        let found = parsed(&mut Parser::new(Address::A2), &bytes);
        assert_eq!(found, vec![packet(); packets], "{what}");
    }
}

#[test]
fn on_a_uart() {
    for piece_max in [1, 7, 64] {
        let wire = Wire::new(piece_max);
        let mut meter = Bl0942::new(wire.clone(), Address::A1, meter());
        // Silence: the caller gives up.
        assert!(poll_once(meter.read()).is_pending());
        // The late answer is thrown away, for it would make every answer one request late.
        wire.feed(&Packet { v_rms: 0, ..packet() }.encode(Address::A1));
        {
            let mut reading = core::pin::pin!(meter.read());
            assert!(poll_once(reading.as_mut()).is_pending());
            wire.feed(&packet().encode(Address::A1)[..10]);
            assert!(poll_once(reading.as_mut()).is_pending());
            wire.feed(&packet().encode(Address::A1)[10..]);
            assert_eq!(block_on(reading).unwrap().voltage_mv, 220_000);
        }
        assert_eq!(*wire.written.borrow(), [0x59, 0xAA, 0x59, 0xAA]);
        {
            let mut reading = core::pin::pin!(meter.read());
            assert!(poll_once(reading.as_mut()).is_pending());
            wire.feed(&[0x55, 0]);
            wire.fail();
            assert_eq!(block_on(reading), Err(MeterError::Io(WireError)));
        }
        let mut reading = core::pin::pin!(meter.read());
        assert!(poll_once(reading.as_mut()).is_pending());
        wire.feed(&packet().encode(Address::A1));
        assert!(block_on(reading).is_ok());
    }
}

#[test]
fn the_sim_shows_what_it_was_told() {
    for load in [
        Load::default(),
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
        let mut chip = sim::Bl0942::new(parts(), REFERENCE_MV, 0xFF_FFFF);
        let mut meter = meter();
        let mut energy_uwh = 0;
        let mut last = Reading::default();
        for _ in 0..3_601 {
            let bytes = chip.draw(&load, 1_000, Address::A3);
            last = meter.read(&Packet::parse(Address::A3, &bytes).unwrap());
            energy_uwh += last.energy_uwh_delta;
        }
        let near = |shown: u32, told: u32| shown.abs_diff(told) <= 1 + told / 1_000;
        assert!(near(last.voltage_mv, load.voltage_mv), "{load:?} {last:?}");
        assert!(near(last.current_ma, load.current_ma), "{load:?} {last:?}");
        assert!(near(last.power_mw, load.power_mw), "{load:?} {last:?}");
        let told = u64::from(load.power_mw) * 1_000;
        assert!(energy_uwh.abs_diff(told) < 2 * 187_000 * 4, "{load:?} {energy_uwh}");
    }
}

fn packets() -> impl Strategy<Value = Packet> {
    let register = || 0..=0xFF_FFFFu32;
    (
        [register(), register(), register(), register()],
        -0x80_0000..=0x7F_FFFFi32,
        any::<u16>(),
        any::<u8>(),
    )
        .prop_map(|([i_rms, v_rms, i_fast_rms, cf_cnt], watt, freq, status)| Packet {
            i_rms,
            v_rms,
            i_fast_rms,
            watt,
            cf_cnt,
            freq,
            status,
        })
}

proptest! {
    #![proptest_config(config("bl0942", 512))]

    #[test]
    fn parse_is_the_inverse_of_encode(packet in packets(), address in prop::sample::select(&ADDRESSES)) {
        prop_assert_eq!(Packet::parse(address, &packet.encode(address)), Some(packet));
    }

    #[test]
    fn one_changed_byte_is_no_packet(packet in packets(), at in 0..PACKET_BYTES, change in 1..=255u8) {
        let mut bytes = packet.encode(Address::A0);
        bytes[at] ^= change;
        prop_assert_eq!(Packet::parse(Address::A0, &bytes), None);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x55)], 0..600)) {
        let mut parser = Parser::new(Address::A0);
        let mut meter = meter();
        for byte in bytes {
            if let Some(packet) = parser.push(byte) {
                meter.read(&packet);
            }
        }
    }

    #[test]
    fn no_registers_panic(
        packets in prop::collection::vec(packets(), 0..50),
        parts in (1..=u32::MAX, 1..=u32::MAX, 1..=u32::MAX),
        reference in 1..=u16::MAX,
    ) {
        let parts = Parts::new(parts.0, parts.1, parts.2).unwrap();
        let mut meter = Meter::new(parts, NonZeroU16::new(reference).unwrap(), u32::MAX);
        for packet in packets {
            meter.read(&packet);
        }
    }

    #[test]
    fn increments_add_up_to_the_counter(
        begin in 0..=0xFF_FFFFu32,
        steps in prop::collection::vec((0..=LEAP_PULSES_MAX, 0..3usize), 1..100),
        divider in (1..=2_000_000u32, 1..=2_000_000u32, 1..=10_000_000u32),
    ) {
        let parts = Parts::new(divider.0, divider.1, divider.2).unwrap();
        let mut meter = Meter::new(parts, REFERENCE_MV, LEAP_PULSES_MAX);
        let mut count = begin;
        let mut show = |count: u32| meter.read(&Packet { cf_cnt: count & 0xFF_FFFF, ..packet() }).energy_uwh_delta;
        let mut energy = u128::from(show(count));
        for (pulses, again) in steps {
            count += pulses;
            for _ in 0..=again {
                energy += u128::from(show(count));
            }
        }
        let whole = u128::from(count - begin) * 4_194_304 * 1_218 * 1_218 * parts.divider_mohm()
            / (36 * 3_537 * parts.shunt_nohm() * parts.lower_mohm());
        prop_assert_eq!(energy, whole);
    }
}

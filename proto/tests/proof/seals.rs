//! Seals, windows and counters: each way to be refused, by its exact error.

use proto::{
    VERSION,
    link::{Echo, LINK_FRAME_BYTES_MAX},
    message::Clock,
    seal::{Counter, Direction, FRAME_BYTES_MAX, OVERHEAD_BYTES, PairSecret, SealError, Window},
    topic::{self, Down, Up},
};

use crate::{
    samples::name,
    vector::{read, unhex},
};

fn secret() -> PairSecret {
    PairSecret([0xd1; 32])
}

fn sealed(topic: &str, direction: Direction, counter: u64) -> Vec<u8> {
    secret().key(direction).seal_vec(topic, counter, &Echo { nonce: 5 })
}

/// A frame is good for one receiver, one topic, one direction.
#[test]
fn a_frame_that_is_addressed_anew_is_refused() {
    let device = name("charger-07");
    let topic = topic::up(&device, Up::Meter);
    let frame = sealed(&topic, Direction::Up, 1);
    let open = |secret: PairSecret, direction, topic: &str| {
        secret
            .key(direction)
            .open(topic, &frame, FRAME_BYTES_MAX)
            .map(|opened| opened.counter)
    };
    let other_device = topic::up(&name("charger-08"), Up::Meter);
    let rows = [
        ("as it was meant", secret(), Direction::Up, topic.as_str(), Ok(1)),
        (
            "another word",
            secret(),
            Direction::Up,
            &topic::up(&device, Up::Stop),
            Err(SealError::Forged),
        ),
        (
            "another device's topic",
            secret(),
            Direction::Up,
            &other_device,
            Err(SealError::Forged),
        ),
        (
            "another device's key",
            PairSecret([0xd2; 32]),
            Direction::Up,
            &topic,
            Err(SealError::Forged),
        ),
        (
            "the other direction",
            secret(),
            Direction::Down,
            &topic,
            Err(SealError::Forged),
        ),
        (
            "back to the device",
            secret(),
            Direction::Down,
            &topic::down(&device, Down::Clock),
            Err(SealError::Forged),
        ),
        (
            "a shorter topic",
            secret(),
            Direction::Up,
            &topic[..topic.len() - 1],
            Err(SealError::Forged),
        ),
        ("no topic", secret(), Direction::Up, "", Err(SealError::Forged)),
    ];
    for (name, secret, direction, topic, expected) in rows {
        assert_eq!(open(secret, direction, topic), expected, "{name}");
    }
}

/// The boundary between topic and frame is sealed too: bytes cannot move across it.
#[test]
fn bytes_do_not_move_between_topic_and_frame() {
    let key = secret().key(Direction::Up);
    let frame = key.seal_vec("ab", 1, &1u8);
    let mut longer = vec![b'b'];
    longer.extend_from_slice(&frame);
    assert!(key.open("a", &longer, 100).is_err());
}

#[test]
fn frames_of_the_wrong_size_or_version_are_refused_by_name() {
    let key = secret().key(Direction::Up);
    let open = |frame: &[u8], max| key.open("t", frame, max).map(|opened| opened.body.len());
    let good = sealed("t", Direction::Up, 1);
    let mut newer = good.clone();
    newer[0] = VERSION + 1;
    let long = vec![VERSION; FRAME_BYTES_MAX + 1];
    let huge = vec![VERSION; LINK_FRAME_BYTES_MAX + 1];
    type Row<'a> = (&'a str, &'a [u8], usize, Result<usize, SealError>);
    let rows: [Row<'_>; 10] = [
        ("good", &good, FRAME_BYTES_MAX, Ok(3)),
        ("exactly as long as allowed", &good, good.len(), Ok(3)),
        (
            "one longer",
            &good,
            good.len() - 1,
            Err(SealError::Long {
                found: good.len(),
                max: good.len() - 1,
            }),
        ),
        ("longest garbage", &long[1..], FRAME_BYTES_MAX, Err(SealError::Forged)),
        (
            "too long",
            &long,
            FRAME_BYTES_MAX,
            Err(SealError::Long { found: 794, max: 793 }),
        ),
        (
            "too long for the link",
            &huge,
            LINK_FRAME_BYTES_MAX,
            Err(SealError::Long {
                found: 65_537,
                max: 65_536,
            }),
        ),
        ("empty", &[], FRAME_BYTES_MAX, Err(SealError::Short(0))),
        (
            "short",
            &good[..OVERHEAD_BYTES - 1],
            FRAME_BYTES_MAX,
            Err(SealError::Short(24)),
        ),
        (
            "version 2",
            &newer,
            FRAME_BYTES_MAX,
            Err(SealError::Version { found: 2 }),
        ),
        (
            "version 0, short",
            &[0],
            FRAME_BYTES_MAX,
            Err(SealError::Version { found: 0 }),
        ),
    ];
    for (name, frame, max, expected) in rows {
        assert_eq!(open(frame, max), expected, "{name}");
    }
    assert_eq!(
        SealError::Version { found: 2 }.to_string(),
        "frame version 2, this side speaks 1"
    );
    assert_eq!(
        open(&long, FRAME_BYTES_MAX).expect_err("long").to_string(),
        "a frame of 794 bytes is longer than 793"
    );
}

/// An empty body has a seal of its own; decoding it is the codec's error.
#[test]
fn an_empty_body_opens_and_does_not_decode() {
    let key = secret().key(Direction::Up);
    let mut frame = [0; OVERHEAD_BYTES];
    assert_eq!(key.seal_in_place("t", 7, &mut frame, 0), Ok(OVERHEAD_BYTES));
    let opened = key.open("t", &frame, FRAME_BYTES_MAX).expect("sealed");
    assert_eq!((opened.counter, opened.body.len()), (7, 0));
    let error = proto::codec::decode::<Clock>(opened.body).expect_err("nothing");
    assert_eq!(error.to_string(), "not a valid message: the input ends early at byte 0");
}

#[test]
fn sealing_into_a_small_buffer_is_an_error_at_every_size() {
    let key = secret().key(Direction::Up);
    let whole = sealed("t", Direction::Up, 1).len();
    for room in 0..whole {
        let mut frame = vec![0; room];
        let result = key.seal("t", 1, &Echo { nonce: 5 }, &mut frame);
        assert_eq!(result, Err(SealError::Overflow(room)));
    }
    let mut frame = vec![0; whole];
    assert_eq!(key.seal("t", 1, &Echo { nonce: 5 }, &mut frame), Ok(whole));
    assert_eq!(frame, sealed("t", Direction::Up, 1));
}

/// HKDF and HMAC of another implementation (Python's `hmac`) over the same frame.
#[test]
fn the_seal_is_the_one_that_was_computed_elsewhere() {
    let vector = read("echo-up");
    let tag = "0579d90dabfee910d01ab241b526dc25";
    assert_eq!(vector.bytes("frame")[vector.bytes("frame").len() - 16..], unhex(tag));
}

#[test]
fn a_window_takes_growing_counters_only() {
    let rows = [
        (0, 0, false),
        (0, 1, true),
        (5, 4, false),
        (5, 5, false),
        (5, 6, true),
        (5, u64::MAX, true),
    ];
    for (last, found, taken) in rows {
        let expected = if taken {
            Ok(())
        } else {
            Err(SealError::Replayed { found, last })
        };
        assert_eq!(Window { last }.check(found), expected, "{found} after {last}");
    }
    let full = Window { last: u64::MAX };
    assert_eq!(
        full.check(u64::MAX),
        Err(SealError::Replayed {
            found: u64::MAX,
            last: u64::MAX
        })
    );
    let error = Window { last: 5 }.check(4).expect_err("a replay");
    assert_eq!(error.to_string(), "counter 4 is not above 5: a replay");
}

#[test]
fn a_counter_grows_across_messages_boots_and_restored_backups() {
    let mut counter = Counter::of_boot(3);
    assert_eq!(counter.last(), 3 << 32);
    assert_eq!([counter.next(), counter.next()], [(3 << 32) + 1, (3 << 32) + 2]);
    assert!(Counter::of_boot(4).next() > counter.last());
    assert_eq!(
        Counter::of_boot(0).next(),
        1,
        "the first counter of all passes a new window"
    );
    counter.raise_above(7);
    assert_eq!(counter.next(), (3 << 32) + 3, "a lower memory changes nothing");
    counter.raise_above(9 << 32);
    assert_eq!(counter.next(), (9 << 32) + 1);
    // A peer may claim any memory; ours must survive it, and never go back to small numbers.
    counter.raise_above(u64::MAX);
    assert_eq!([counter.next(), counter.next()], [u64::MAX, u64::MAX]);
}

/// Many messages over two boots, each accepted once and never again.
#[test]
fn nothing_is_accepted_twice() {
    let key = secret().key(Direction::Up);
    let mut window = Window::default();
    let mut frames = Vec::new();
    for boot in [1, 2] {
        let mut counter = Counter::of_boot(boot);
        for nonce in 0..50 {
            frames.push(key.seal_vec("t", counter.next(), &Echo { nonce }));
        }
    }
    let mut accept = |frame: &[u8]| -> Result<(), SealError> {
        let opened = key.open("t", frame, FRAME_BYTES_MAX)?;
        window.check(opened.counter)?;
        window.last = opened.counter;
        Ok(())
    };
    assert!(frames.iter().all(|frame| accept(frame).is_ok()));
    let replays = frames
        .iter()
        .filter(|frame| matches!(accept(frame), Err(SealError::Replayed { .. })));
    assert_eq!(replays.count(), 100);
}

//! Frames and topics from a broker: nothing opens that was not sealed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::{
    link::Echo,
    seal::{Direction, FRAME_BYTES_MAX, PairSecret, SealError},
    topic,
};
use proto_fuzz::same_again;

fuzz_target!(|input: (&str, u64, &[u8])| {
    let (topic, counter, bytes) = input;
    let parsed = (
        topic::parse_up(topic),
        topic::parse_down(topic),
        topic::parse_link_up(topic),
        topic::parse_link_down(topic),
    );
    if let (Some((device, word)), ..) = parsed {
        assert_eq!(topic::up(&device, word), topic);
    }
    let key = PairSecret([7; 32]).key(Direction::Up);
    match key.open(topic, bytes, FRAME_BYTES_MAX) {
        Ok(_) => panic!("a frame that was never sealed opened"),
        Err(SealError::Replayed { .. } | SealError::Overflow(_)) => panic!("not an error of opening"),
        Err(SealError::Short(_) | SealError::Long { .. } | SealError::Version { .. } | SealError::Forged) => {}
    }
    // What is sealed opens, and only as it was sealed.
    let mut frame = vec![0; 9];
    frame.extend_from_slice(bytes);
    frame.extend_from_slice(&[0; 16]);
    let len = key
        .seal_in_place(topic, counter, &mut frame, bytes.len())
        .expect("made to measure");
    let opened = key.open(topic, &frame[..len], usize::MAX).expect("just sealed");
    assert_eq!((opened.counter, opened.body), (counter, bytes));
    same_again::<Echo>(opened.body);
});

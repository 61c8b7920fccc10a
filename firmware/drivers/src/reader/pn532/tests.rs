use std::{vec, vec::Vec};

use embassy_futures::{block_on, poll_once};
use proptest::prelude::*;

use super::{
    frame::{ERROR_FRAME, NACK, PAYLOAD_BYTES_MAX},
    *,
};
use crate::testing::{Wire, config};

const UIDS: [&[u8]; 3] = [
    &[0xDE, 0xAD, 0xBE, 0xEF],
    &[0x04, 0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC],
    &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
];

fn uid_of(bytes: &[u8]) -> Uid {
    Uid::new(bytes).unwrap()
}

fn decoded(decoder: &mut Decoder, bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    for byte in bytes {
        decoder.push(*byte);
        while let Some(frame) = decoder.frame() {
            frames.push(frame);
        }
    }
    frames
}

fn data(payload: &[u8]) -> Frame {
    Frame::Data(frame::Payload::from_slice(payload).unwrap())
}

#[test]
fn frames_of_the_manual() {
    for (tfi, payload, bytes) in [
        (
            TO_READER,
            &ONE_CARD[..],
            &[0, 0, 0xFF, 0x04, 0xFC, 0xD4, 0x4A, 0x01, 0x00, 0xE1, 0][..],
        ),
        (TO_READER, &[0x02], &[0, 0, 0xFF, 0x02, 0xFE, 0xD4, 0x02, 0x2A, 0]),
        (FROM_READER, &[0x15], &[0, 0, 0xFF, 0x02, 0xFE, 0xD5, 0x15, 0x16, 0]),
    ] {
        assert_eq!(frame::encode(tfi, payload).unwrap(), bytes);
        assert_eq!(decoded(&mut Decoder::new(tfi), bytes), [data(payload)]);
    }
}

#[test]
fn frames() {
    let done = encode::done(SAM_CONFIGURATION);
    let good = || data(&[SAM_CONFIGURATION + 1]);
    let flip = |at: usize| {
        let mut bytes = done.to_vec();
        bytes[at] ^= 0x20;
        bytes
    };
    let extended = [0, 0, 0xFF, 0xFF, 0xFF, 0x00, 0x02, 0xFE, 0xD5, 0x15, 0x16, 0];
    let too_long = [
        0,
        0,
        0xFF,
        PAYLOAD_BYTES_MAX as u8 + 2,
        (PAYLOAD_BYTES_MAX as u8 + 2).wrapping_neg(),
    ];
    let cases: Vec<(&str, Vec<u8>, Vec<Frame>)> = vec![
        ("ACK", ACK.to_vec(), vec![Frame::Ack]),
        ("NACK", NACK.to_vec(), vec![Frame::Nack]),
        ("error", ERROR_FRAME.to_vec(), vec![Frame::Error]),
        ("answer", done.to_vec(), vec![good()]),
        ("ACK and answer", [&ACK[..], &done].concat(), vec![Frame::Ack, good()]),
        (
            "without zeros around",
            [&ACK[1..5], &done[1..8]].concat(),
            vec![Frame::Ack, good()],
        ),
        (
            "with many zeros",
            [&[0; 100][..], &done, &[0; 100], &ACK].concat(),
            vec![good(), Frame::Ack],
        ),
        ("in the middle of one", [&done[4..], &done].concat(), vec![good()]),
        ("cut short", [&done[..7], &done].concat(), vec![good()]),
        (
            "noise that begins like one",
            [
                &[0x00, 0xFF, 0x00, 0x00, 0xFF, 0x40, 0xC0, 0x00][..],
                &done,
                &[0; 70],
                &done,
            ]
            .concat(),
            vec![good(), good()],
        ),
        ("a disturbed length", [flip(3), done.to_vec()].concat(), vec![good()]),
        (
            "a disturbed length checksum",
            [flip(4), done.to_vec()].concat(),
            vec![good()],
        ),
        ("a disturbed speaker", [flip(5), done.to_vec()].concat(), vec![good()]),
        ("a disturbed payload", [flip(6), done.to_vec()].concat(), vec![good()]),
        ("a disturbed checksum", [flip(7), done.to_vec()].concat(), vec![good()]),
        (
            "the other side",
            frame::encode(TO_READER, &[1]).unwrap().to_vec(),
            vec![],
        ),
        ("extended", [&extended[..], &done].concat(), vec![good()]),
        ("too long", [&too_long[..], &done].concat(), vec![good()]),
        ("no payload", vec![0, 0xFF, 1, 0xFF, 0xD5, 0x2B], vec![]),
        ("no length", vec![0, 0xFF, 0, 0, 0, 0], vec![]),
    ];
    for (what, bytes, expected) in cases {
        assert_eq!(decoded(&mut Decoder::new(FROM_READER), &bytes), expected, "{what}");
    }
}

#[test]
fn payloads_that_do_not_fit_are_not_sent() {
    for (len, fits) in [
        (0, false),
        (1, true),
        (PAYLOAD_BYTES_MAX, true),
        (PAYLOAD_BYTES_MAX + 1, false),
        (300, false),
    ] {
        let bytes = frame::encode(FROM_READER, &vec![0xFF; len]);
        assert_eq!(bytes.is_some(), fits, "{len}");
        let expected: Vec<_> = fits.then(|| data(&vec![0xFF; len])).into_iter().collect();
        assert_eq!(
            decoded(&mut Decoder::new(FROM_READER), &bytes.unwrap_or_default()),
            expected
        );
    }
}

#[test]
fn answers() {
    for (what, answer, expected) in [
        ("no card", &[0x4B, 0][..], None),
        (
            "4 bytes",
            &[0x4B, 1, 1, 0, 4, 8, 4, 1, 2, 3, 4],
            Some(&[1, 2, 3, 4][..]),
        ),
        (
            "7 bytes",
            &[0x4B, 1, 1, 0, 0x44, 0, 7, 1, 2, 3, 4, 5, 6, 7],
            Some(&[1, 2, 3, 4, 5, 6, 7]),
        ),
        (
            "10 bytes",
            &[0x4B, 1, 1, 0, 0x84, 0, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
            Some(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ),
        (
            "more follows",
            &[0x4B, 1, 1, 0, 4, 0x20, 4, 1, 2, 3, 4, 2, 0x78],
            Some(&[1, 2, 3, 4]),
        ),
        ("5 bytes", &[0x4B, 1, 1, 0, 4, 8, 5, 1, 2, 3, 4, 5], None),
        ("no bytes", &[0x4B, 1, 1, 0, 4, 8, 0], None),
        ("cut short", &[0x4B, 1, 1, 0, 4, 8, 4, 1, 2, 3], None),
        ("another answer", &[0x15, 1, 1, 0, 4, 8, 4, 1, 2, 3, 4], None),
        ("nothing", &[], None),
    ] {
        assert_eq!(uid(answer), expected.map(uid_of), "{what}");
    }
}

#[test]
fn encoded_cards_are_read() {
    for bytes in UIDS {
        let frames = decoded(&mut Decoder::new(FROM_READER), &encode::card(Some(&uid_of(bytes))));
        let [Frame::Data(answer)] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert_eq!(uid(answer), Some(uid_of(bytes)));
    }
    assert_eq!(
        decoded(&mut Decoder::new(FROM_READER), &encode::card(None)),
        [data(&[0x4B, 0])]
    );
}

/// A delay that never ends, or is over at once when asked the second time.
#[derive(Clone, Copy)]
struct Patience(bool);

impl DelayNs for Patience {
    async fn delay_ns(&mut self, _ns: u32) {
        if self.0 {
            core::future::pending::<()>().await;
        } else {
            embassy_futures::yield_now().await;
        }
    }
}

/// The other end: answers what was written since it looked last.
struct Reader {
    wire: Wire,
    read: usize,
    commands: Decoder,
    /// What it was asked.
    asked: Vec<u8>,
    acks: usize,
}

impl Reader {
    fn new(wire: &Wire) -> Self {
        Self {
            wire: wire.clone(),
            read: 0,
            commands: Decoder::new(TO_READER),
            asked: Vec::new(),
            acks: 0,
        }
    }

    fn serve(&mut self, card: Option<Option<&[u8]>>) {
        let written = self.wire.written.borrow()[self.read..].to_vec();
        self.read += written.len();
        for frame in decoded(&mut self.commands, &written) {
            let Frame::Data(command) = frame else {
                self.acks += usize::from(frame == Frame::Ack);
                continue;
            };
            self.asked.push(command[0]);
            self.wire.feed(&ACK);
            match (command[0], card) {
                (IN_LIST_PASSIVE_TARGET, None) => {}
                (IN_LIST_PASSIVE_TARGET, Some(card)) => self.wire.feed(&encode::card(card.map(uid_of).as_ref())),
                (command, _) => self.wire.feed(&encode::done(command)),
            }
        }
    }
}

/// Polls until it is ready, serving in between.
fn next(
    pn532: &mut Pn532<Wire, Patience>,
    reader: &mut Reader,
    card: Option<Option<&[u8]>>,
) -> Option<Result<Uid, ReaderError>> {
    let mut future = core::pin::pin!(pn532.next());
    for _ in 0..20 {
        if let core::task::Poll::Ready(result) = poll_once(future.as_mut()) {
            return Some(result);
        }
        reader.serve(card);
    }
    None
}

#[test]
fn conversation() {
    for piece_max in [1, 3, 64] {
        let wire = Wire::new(piece_max);
        let mut reader = Reader::new(&wire);
        let mut pn532 = Pn532::new(wire.clone(), Patience(true));
        for bytes in UIDS {
            assert_eq!(
                next(&mut pn532, &mut reader, Some(Some(bytes))),
                Some(Ok(uid_of(bytes)))
            );
        }
        let question = IN_LIST_PASSIVE_TARGET;
        assert_eq!(
            reader.asked,
            [SAM_CONFIGURATION, RF_CONFIGURATION, question, question, question]
        );
        assert!(wire.written.borrow().starts_with(&[0x55, 0x55, 0, 0]));
        assert_eq!(reader.acks, 1);
        // Without a card it asks again and again.
        assert_eq!(next(&mut pn532, &mut reader, Some(None)), None);
        assert!(reader.asked.len() > 10);
        assert_eq!(pn532.dropped(), 0);
    }
}

#[test]
fn a_dropped_future_is_gone_on_with() {
    let wire = Wire::new(64);
    let mut reader = Reader::new(&wire);
    let mut pn532 = Pn532::new(wire.clone(), Patience(true));
    // Asked, and no answer yet.
    assert_eq!(next(&mut pn532, &mut reader, None), None);
    assert_eq!(pn532.stage, Stage::Looking);
    let asked = reader.asked.len();
    // Half an answer, dropped, the other half.
    let answer = encode::card(Some(&uid_of(UIDS[1])));
    wire.feed(&answer[..9]);
    assert_eq!(next(&mut pn532, &mut reader, None), None);
    wire.feed(&answer[9..]);
    assert_eq!(next(&mut pn532, &mut reader, None), Some(Ok(uid_of(UIDS[1]))));
    assert_eq!(reader.asked.len(), asked, "nothing was asked twice");
}

#[test]
fn dropped_at_every_poll_it_still_reads() {
    let wire = Wire::new(2);
    let mut reader = Reader::new(&wire);
    let mut pn532 = Pn532::new(wire.clone(), Patience(true));
    // Waking is begun anew until it is once done in one go.
    assert_eq!(next(&mut pn532, &mut reader, None), None);
    for _ in 0..50 {
        if let core::task::Poll::Ready(result) = poll_once(pn532.next()) {
            assert_eq!(result, Ok(uid_of(UIDS[0])));
            return;
        }
        let mut answer = encode::card(Some(&uid_of(UIDS[0])));
        answer.truncate(answer.len() - 1);
        wire.feed(&answer);
    }
    panic!("never read");
}

#[test]
fn errors_begin_afresh() {
    let silent = Wire::new(64);
    let mut pn532 = Pn532::new(silent.clone(), Patience(false));
    assert_eq!(block_on(pn532.next()), Err(ReaderError::Silent));
    assert_eq!(pn532.stage, Stage::Unknown);
    for (what, bytes, expected) in [
        ("rejected", &ERROR_FRAME[..], ReaderError::Rejected),
        ("not understood", &NACK, ReaderError::Rejected),
    ] {
        let wire = Wire::new(64);
        let mut reader = Reader::new(&wire);
        let mut pn532 = Pn532::new(wire.clone(), Patience(true));
        assert_eq!(next(&mut pn532, &mut reader, None), None);
        wire.feed(bytes);
        assert_eq!(block_on(pn532.next()), Err(expected), "{what}");
        assert_eq!(
            next(&mut pn532, &mut reader, Some(Some(UIDS[2]))),
            Some(Ok(uid_of(UIDS[2]))),
            "{what}"
        );
        assert_eq!(
            reader.asked.iter().filter(|asked| **asked == SAM_CONFIGURATION).count(),
            2,
            "{what}"
        );
    }
    let wire = Wire::new(64);
    let mut reader = Reader::new(&wire);
    let mut pn532 = Pn532::new(wire.clone(), Patience(true));
    assert_eq!(next(&mut pn532, &mut reader, None), None);
    wire.fail();
    assert_eq!(block_on(pn532.next()), Err(ReaderError::Io));
    assert_eq!(
        next(&mut pn532, &mut reader, Some(Some(UIDS[0]))),
        Some(Ok(uid_of(UIDS[0])))
    );
}

proptest! {
    #![proptest_config(config("pn532", 512))]

    #[test]
    fn decode_is_the_inverse_of_encode(
        payload in prop::collection::vec(any::<u8>(), 1..=PAYLOAD_BYTES_MAX),
        zeros in 0..100usize,
        tfi in prop_oneof![Just(TO_READER), Just(FROM_READER)],
    ) {
        let bytes = [vec![0; zeros], frame::encode(tfi, &payload).unwrap().to_vec()].concat();
        prop_assert_eq!(decoded(&mut Decoder::new(tfi), &bytes), [data(&payload)]);
    }

    #[test]
    fn one_changed_byte_is_no_answer(uid_bytes in prop::sample::select(&UIDS[..]), at in any::<prop::sample::Index>(), change in 1..=255u8) {
        let mut bytes = encode::card(Some(&uid_of(uid_bytes)));
        // Not the zeros around.
        let at = 1 + at.index(bytes.len() - 2);
        bytes[at] ^= change;
        let frames = decoded(&mut Decoder::new(FROM_READER), &bytes);
        prop_assert!(frames.iter().all(|frame| !matches!(frame, Frame::Data(_))), "{:?}", frames);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x00), Just(0xFF), Just(0xD5)], 0..600)) {
        for frame in decoded(&mut Decoder::new(FROM_READER), &bytes) {
            if let Frame::Data(payload) = frame {
                let _ = uid(&payload);
            }
        }
        let mut unread = Decoder::new(FROM_READER);
        for byte in &bytes {
            unread.push(*byte);
        }
        while unread.frame().is_some() {}
    }

    #[test]
    fn a_frame_after_noise_is_found(noise in prop::collection::vec(any::<u8>(), 0..200), payload in prop::collection::vec(any::<u8>(), 1..20)) {
        // As much rest as the longest frame that noise can begin.
        let rest = [0x55; frame::FRAME_BYTES_MAX];
        let bytes = [&noise[..], &rest, &frame::encode(FROM_READER, &payload).unwrap()].concat();
        let frames = decoded(&mut Decoder::new(FROM_READER), &bytes);
        prop_assert_eq!(frames.last(), Some(&data(&payload)));
    }
}

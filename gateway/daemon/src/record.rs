//! How an event stands in the journal: the array `[kind, time, payload]`, where the payload is the event's struct,
//! packed. The numbers below are frozen; a new kind gets a new number. A number that this version does not know is an
//! error that names it: the journal was written by a newer version, and guessing at money is not an option.

use gateway_core::{
    Now,
    event::{Event, Kept},
};
use journal::SNAPSHOT_CHUNK_BYTES_MAX;
use proto::{
    codec::{self, CodecError},
    message::ClockQuality,
};
use serde::{Deserialize, Serialize, de::IgnoredAny};

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not a record, or damaged.
    #[error("record {sequence} of the journal cannot be read: {error}")]
    Malformed {
        /// Which.
        sequence: u64,
        /// Why.
        error: CodecError,
    },
    /// Written by a newer version.
    #[error(
        "record {sequence} of the journal is of kind {kind}, which this version does not know: it was written by a newer version of holdfast; install that version again"
    )]
    Newer {
        /// Which.
        sequence: u64,
        /// Its kind.
        kind: u8,
    },
}

#[derive(Serialize)]
struct Written<'a, T>(u8, &'a Now, &'a T);

#[derive(Deserialize)]
struct Head(
    u8,
    #[expect(dead_code, reason = "only the kind is looked at")] Now,
    IgnoredAny,
);

#[derive(Deserialize)]
struct Body<T>(#[expect(dead_code, reason = "known from the first step")] u8, Now, T);

/// The kind of a record. As [`encode`] writes it, it stands in the second byte, or behind it; the rest is then read once.
fn kind(bytes: &[u8]) -> Result<u8, CodecError> {
    match bytes {
        [0x83, kind @ 0..=0x17, ..] | [0x83, 0x18, kind, ..] => Ok(*kind),
        _ => Ok(codec::decode::<Head>(bytes)?.0),
    }
}

macro_rules! kinds {
    (events { $($code:literal = $variant:ident,)+ } kept { $($kept_code:literal = $kept:ident,)+ }) => {
        /// The bytes of an event.
        pub fn encode(now: &Now, event: &Event) -> Vec<u8> {
            match event {
                $(Event::$variant(payload) => codec::to_vec(&Written($code, now, payload)),)+
                Event::Kept(kept) => match kept {
                    $(Kept::$kept(payload) => codec::to_vec(&Written($kept_code, now, payload)),)+
                },
            }
        }

        /// The event in these bytes, and the time that stands with it.
        ///
        /// # Errors
        /// [`RecordError`].
        pub fn decode(sequence: u64, bytes: &[u8]) -> Result<(Now, Event), RecordError> {
            let malformed = |error| RecordError::Malformed { sequence, error };
            match kind(bytes).map_err(malformed)? {
                $($code => codec::decode::<Body<_>>(bytes).map(|body| (body.1, Event::$variant(body.2))),)+
                $($kept_code => codec::decode::<Body<_>>(bytes).map(|body| (body.1, Event::Kept(Kept::$kept(body.2)))),)+
                kind => {
                    codec::decode::<Head>(bytes).map_err(malformed)?;
                    return Err(RecordError::Newer { sequence, kind });
                }
            }
            .map_err(malformed)
        }
    };
}

kinds! {
    events {
        1 = Booted,
        2 = Heard,
        3 = Greeted,
        4 = Asked,
        5 = Probed,
        6 = Refused,
        7 = Granted,
        8 = Confirmed,
        9 = Denied,
        10 = Started,
        11 = Metered,
        12 = Closed,
        13 = Silent,
        14 = Reported,
        15 = Commanded,
        16 = CommandAnswered,
        17 = ListStaged,
        18 = ListAdopted,
        19 = RevocationsAdopted,
        20 = TariffsAdopted,
        21 = Quarantined,
        22 = Evidence,
        23 = ModeChanged,
        24 = Receipted,
        25 = Rewound,
        30 = TariffsStaged,
        31 = Adopted,
        32 = RolledBack,
        33 = KeysAdopted,
        38 = Contested,
        39 = CanaryRight,
        40 = EchoAsked,
        41 = HelloAsked,
        46 = PolicyAdopted,
        47 = DiskChanged,
        48 = AskedAgain,
        49 = Limited,
        50 = ClockChanged,
        51 = PolicySetAside,
        52 = PolicyRolledBack,
        62 = Noted,
        54 = LeaseTaken,
        55 = LeaseReturned,
        56 = LeasesRead,
        70 = InstrumentAccepted,
        71 = GuessFailed,
        80 = Ordered,
        81 = Unreserved,
        86 = RingBegan,
        87 = RingSeen,
        88 = RingWidened,
        89 = RingHeld,
        90 = RingEnded,
        91 = LimitsStaged,
        92 = LimitsAdopted,
    }
    kept {
        128 = Timeline,
        129 = Device,
        130 = Session,
        131 = Balance,
        132 = Confirmation,
        133 = Denial,
        134 = Tally,
        135 = Charge,
        136 = Spent,
        137 = Outbox,
        138 = Trust,
        139 = Health,
        144 = List,
        146 = Tariffs,
        150 = Activity,
        154 = Drawn,
        155 = Gone,
        164 = Note,
        165 = Orders,
        160 = Lease,
        161 = Leases,
        170 = Purse,
        171 = Pad,
        172 = Codes,
        173 = Forgotten,
        176 = Decisions,
        180 = Reservation,
        186 = Ring,
        187 = Charges,
    }
}

/// The epoch that an event says the books are in; 0: it says nothing of it.
#[must_use]
pub fn epoch(event: &Event) -> u32 {
    match event {
        Event::Booted(booted) => booted.epoch,
        Event::Kept(Kept::Timeline(timeline)) => timeline.epoch,
        _ => 0,
    }
}

/// Whether a record need not be decoded by somebody who looks for one session: of a kind that never tells anything about
/// one, or of one that always names its session while `names_it` says that this one does not. Kinds of later versions
/// are always decoded.
pub fn is_beside(bytes: &[u8], names_it: impl FnOnce() -> bool) -> bool {
    match kind(bytes) {
        // Heard, Greeted, Probed, lists, tariffs, Quarantined, Evidence; PolicyAdopted, DiskChanged, PolicySetAside,
        // PolicyRolledBack.
        Ok(2 | 3 | 5 | 17 | 18 | 20 | 21 | 22 | 46 | 47 | 51 | 52) => true,
        Ok(4 | 6 | 7 | 8 | 10 | 11 | 12 | 13) => !names_it(), // Asked, Refused, Granted, Confirmed and what follows.
        _ => false,
    }
}

/// Kind of an index row; only in snapshots.
const KIND_INDEX: u8 = 200;

/// A row of the uploader's index, as a snapshot keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRow {
    /// A ledger sequence.
    pub ledger: u64,
    /// Chain hash there.
    pub chain: proto::id::Hash,
    /// Where in the journal the next one stands.
    pub journal: u64,
}

/// A piece of a snapshot.
#[expect(clippy::large_enum_variant, reason = "short-lived, one at a time")]
pub enum Piece {
    /// A piece of the core's state.
    Event(Now, Event),
    /// A piece of the uploader's index.
    Index(IndexRow),
}

/// The bytes of an index row.
pub fn encode_index(row: &IndexRow) -> Vec<u8> {
    codec::to_vec(&Written(KIND_INDEX, &SNAPSHOT_TIME, row))
}

/// The bytes of an event of a snapshot. The time with which it is applied does not matter, so it is always the same: what
/// did not change has the same bytes in every snapshot.
pub fn encode_kept(event: &Event) -> Vec<u8> {
    encode(&SNAPSHOT_TIME, event)
}

const SNAPSHOT_TIME: Now = Now {
    mono_ms: 0,
    wall_s: 0,
    quality: ClockQuality::Unknown,
};

/// First byte of a chunk that packs pieces, each behind its length in two bytes, big endian. One that begins otherwise, with
/// the array of a record, is a single piece.
const PACKED: u8 = 0xf1;
const LENGTH_BYTES: usize = 2;
/// A piece that hashes to zero in so many ends its chunk. So a piece that comes in or goes changes its own chunk, and at
/// most those up to the next end, not all behind it.
const PIECES_A_CHUNK: u32 = 8;

/// Packs pieces into chunks of a snapshot.
pub fn pack(pieces: impl Iterator<Item = Vec<u8>>) -> impl Iterator<Item = Vec<u8>> {
    let mut pieces = pieces.peekable();
    std::iter::from_fn(move || {
        let mut chunk = vec![PACKED];
        let mut is_first = true;
        let has_room =
            |chunk: &[u8], piece: &[u8]| chunk.len() + LENGTH_BYTES + piece.len() <= SNAPSHOT_CHUNK_BYTES_MAX;
        while let Some(piece) = pieces.next_if(|piece| is_first || has_room(&chunk, piece)) {
            is_first = false;
            // A piece too long for its length is too long for a chunk, which is refused.
            let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
            chunk.extend_from_slice(&length.to_be_bytes());
            chunk.extend_from_slice(&piece);
            if hash(&piece).is_multiple_of(PIECES_A_CHUNK) {
                break;
            }
        }
        (!is_first).then_some(chunk)
    })
}

/// FNV-1a. Only chunk boundaries hang on it.
fn hash(bytes: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, step)
}

/// The pieces of a chunk.
///
/// # Errors
/// [`RecordError::Malformed`], with the sequence of the snapshot.
pub fn pieces(at_sequence: u64, chunk: &[u8]) -> Result<Vec<&[u8]>, RecordError> {
    let Some((&PACKED, mut rest)) = chunk.split_first() else {
        return Ok(vec![chunk]);
    };
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let cut = rest
            .split_first_chunk::<LENGTH_BYTES>()
            .and_then(|(length, behind)| behind.split_at_checked(usize::from(u16::from_be_bytes(*length))));
        let (piece, behind) = cut.ok_or(RecordError::Malformed {
            sequence: at_sequence,
            error: CodecError::Malformed {
                what: "a chunk of a snapshot is cut short",
                at: (chunk.len() - rest.len()) as u64,
            },
        })?;
        pieces.push(piece);
        rest = behind;
    }
    Ok(pieces)
}

/// The content of a piece of a snapshot.
///
/// # Errors
/// [`RecordError`], with the sequence of the snapshot.
pub fn decode_piece(at_sequence: u64, bytes: &[u8]) -> Result<Piece, RecordError> {
    let malformed = |error| RecordError::Malformed {
        sequence: at_sequence,
        error,
    };
    if kind(bytes).map_err(malformed)? == KIND_INDEX {
        return Ok(Piece::Index(
            codec::decode::<Body<IndexRow>>(bytes).map_err(malformed)?.2,
        ));
    }
    decode(at_sequence, bytes).map(|(now, event)| Piece::Event(now, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of all sorts of lengths, the longest that fit among them.
    fn some(seed: u64) -> Vec<Vec<u8>> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut piece = |at: usize| {
            let length = if at.is_multiple_of(50_usize) {
                SNAPSHOT_CHUNK_BYTES_MAX - 3
            } else {
                random.usize(0..400)
            };
            (0..length).map(|_| random.u8(..)).collect()
        };
        (0..500).map(&mut piece).collect()
    }

    fn unpacked(chunks: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let pieces = chunks.iter().flat_map(|chunk| pieces(1, chunk).unwrap());
        pieces.map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn pieces_come_out_as_they_went_in() {
        let before = some(3);
        let chunks: Vec<Vec<u8>> = pack(before.clone().into_iter()).collect();
        assert!(chunks.len() < before.len() / 3, "{} chunks", chunks.len());
        assert!(chunks.iter().all(|chunk| chunk.len() <= SNAPSHOT_CHUNK_BYTES_MAX));
        assert_eq!(unpacked(&chunks), before);
        assert_eq!(pack(std::iter::empty()).count(), 0);
        assert_eq!(pieces(1, &[0x83, 1, 2]).unwrap(), [[0x83, 1, 2]], "as chunks were once");
    }

    #[test]
    fn a_change_in_the_middle_changes_few_chunks() {
        let before = some(4);
        let chunks: std::collections::BTreeSet<_> = pack(before.clone().into_iter()).collect();
        let mut after = before;
        after.insert(251, vec![7; 100]);
        after.remove(100);
        let changed = pack(after.into_iter()).filter(|chunk| !chunks.contains(chunk)).count();
        assert!((2..=12).contains(&changed), "{changed} of {}", chunks.len());
    }

    #[test]
    fn a_chunk_that_is_cut_short_is_an_error() {
        let chunk = pack([vec![1, 2, 3]].into_iter()).next().unwrap();
        for length in 2..chunk.len() {
            let found = pieces(9, &chunk[..length]);
            assert!(
                matches!(found, Err(RecordError::Malformed { sequence: 9, .. })),
                "{length}"
            );
        }
    }

    /// What is too long for a chunk stays too long, and is refused by the journal, with its size.
    #[test]
    fn a_piece_that_fits_no_chunk_is_not_cut() {
        for length in [SNAPSHOT_CHUNK_BYTES_MAX, 70_000] {
            let chunks: Vec<Vec<u8>> = pack([vec![0; length]].into_iter()).collect();
            assert_eq!(chunks.len(), 1);
            assert!(chunks[0].len() > SNAPSHOT_CHUNK_BYTES_MAX);
        }
    }
}

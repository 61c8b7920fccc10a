//! How an event stands in the journal: the array `[kind, time, payload]`, where the payload is the event's struct,
//! packed. The numbers below are frozen; a new kind gets a new number. A number that this version does not know is an
//! error that names it: the journal was written by a newer version, and guessing at money is not an option.

use gateway_core::{
    Now,
    event::{Event, Kept},
};
use proto::codec::{self, CodecError};
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
struct Head(u8, Now, IgnoredAny);

#[derive(Deserialize)]
struct Body<T>(
    #[expect(dead_code, reason = "known from the first step")] u8,
    #[expect(dead_code, reason = "known from the first step")] Now,
    T,
);

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
            let Head(kind, now, _) = codec::decode(bytes).map_err(malformed)?;
            let event = match kind {
                $($code => Event::$variant(codec::decode::<Body<_>>(bytes).map_err(malformed)?.2),)+
                $($kept_code => Event::Kept(Kept::$kept(codec::decode::<Body<_>>(bytes).map_err(malformed)?.2)),)+
                kind => return Err(RecordError::Newer { sequence, kind }),
            };
            Ok((now, event))
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
    // `[kind, ...]`, an array of three, and kinds below 24 are one byte.
    let [0x83, kind, ..] = bytes else { return false };
    match kind {
        2 | 3 | 5 | 17 | 18 | 20 | 21 | 22 => true, // Heard, Greeted, Probed, lists, tariffs, Quarantined, Evidence.
        // In two bytes: PolicyAdopted, DiskChanged, PolicySetAside, PolicyRolledBack.
        0x18 => matches!(bytes.get(2), Some(46 | 47 | 51 | 52)),
        4 | 6 | 7 | 8 | 10 | 11 | 12 | 13 => !names_it(), // Asked, Refused, Granted, Confirmed and what follows.
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

/// A chunk of a snapshot.
#[expect(clippy::large_enum_variant, reason = "short-lived, one at a time")]
pub enum Chunk {
    /// A piece of the core's state.
    Event(Now, Event),
    /// A piece of the uploader's index.
    Index(IndexRow),
}

/// The bytes of an index row.
pub fn encode_index(now: &Now, row: &IndexRow) -> Vec<u8> {
    codec::to_vec(&Written(KIND_INDEX, now, row))
}

/// The content of a snapshot's chunk.
///
/// # Errors
/// [`RecordError`], with the sequence of the snapshot.
pub fn decode_chunk(at_sequence: u64, bytes: &[u8]) -> Result<Chunk, RecordError> {
    let malformed = |error| RecordError::Malformed {
        sequence: at_sequence,
        error,
    };
    let Head(kind, _, _) = codec::decode(bytes).map_err(malformed)?;
    if kind == KIND_INDEX {
        return Ok(Chunk::Index(
            codec::decode::<Body<IndexRow>>(bytes).map_err(malformed)?.2,
        ));
    }
    decode(at_sequence, bytes).map(|(now, event)| Chunk::Event(now, event))
}

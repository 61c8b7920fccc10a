//! What a frame of records says, readable: for a cloud's console and for backends that know no CBOR. Nobody acknowledges
//! it and no book of ours rests on it; the frame beside it counts.

use proto::{
    codec,
    link::{LedgerRecord, RecordKind, Upload},
};

/// The records of an upload that are about a session. One that this version cannot read is left out: it is in the frame.
pub(super) fn sessions(upload: &Upload) -> impl Iterator<Item = LedgerRecord> + '_ {
    upload
        .records
        .iter()
        .filter_map(|bytes| codec::decode::<LedgerRecord>(bytes).ok())
        .filter(|record| event(record.kind).is_some())
}

/// What happened to the session; `None`: the record is not about one.
pub(super) const fn event(kind: RecordKind) -> Option<&'static str> {
    match kind {
        RecordKind::Hold => Some("held"),
        RecordKind::Started => Some("started"),
        RecordKind::Capture => Some("finished"),
        RecordKind::Void => Some("void"),
        RecordKind::Indeterminate => Some("unclear"),
        RecordKind::LeaseReturn | RecordKind::LeaseTaken | RecordKind::Other => None,
    }
}

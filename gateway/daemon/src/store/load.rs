//! What a start reads, decoded on the way by threads: one reads, some decode, and whoever makes the state of it takes
//! everything in its order.

use std::{
    num::NonZero,
    ops::ControlFlow,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use gateway_core::{Event, Now};
use journal::{ReadError, Reader, SnapshotReader};

use super::StoreError;
use crate::record::{self, Piece, RecordError};

/// Threads that decode, at most: beyond it whoever makes the state is what they wait for.
const THREADS_MAX: usize = 3;
/// Chunks of a snapshot, and records, that are decoded together.
const CHUNKS_TOGETHER: usize = 16;
const RECORDS_TOGETHER: usize = 256;
/// What may lie before a thread, and behind it: all of it takes memory.
const READY_MAX: usize = 2;

/// Has every piece of a snapshot taken, in order.
pub(super) fn pieces(snapshot: &SnapshotReader, take: impl FnMut(Piece)) -> Result<(), StoreError> {
    let at = snapshot.at_sequence();
    let read = |put: &mut dyn FnMut(Vec<Vec<u8>>) -> ControlFlow<()>| {
        let mut chunks = snapshot.chunks();
        loop {
            let together: Result<Vec<Vec<u8>>, ReadError> = chunks.by_ref().take(CHUNKS_TOGETHER).collect();
            let together = together?;
            if together.is_empty() || put(together).is_break() {
                return Ok(());
            }
        }
    };
    let decode = |chunks: Vec<Vec<u8>>| {
        let mut decoded = Vec::new();
        for chunk in chunks {
            for piece in record::pieces(at, &chunk)? {
                decoded.push(record::decode_piece(at, piece)?);
            }
        }
        Ok(decoded)
    };
    in_order(threads(), read, decode, take)
}

/// Some records, end to end.
#[derive(Default)]
struct Together {
    bytes: Vec<u8>,
    /// Sequence, and where it ends.
    records: Vec<(u64, usize)>,
}

/// Has every record from `from` on taken, in order.
pub(super) fn records(reader: &Reader, from: u64, mut take: impl FnMut(u64, &Now, &Event)) -> Result<(), StoreError> {
    let read = |put: &mut dyn FnMut(Together) -> ControlFlow<()>| {
        let mut together = Together::default();
        reader.replay(from, &mut |sequence, bytes| {
            together.bytes.extend_from_slice(bytes);
            together.records.push((sequence, together.bytes.len()));
            match together.records.len() {
                RECORDS_TOGETHER.. => put(std::mem::take(&mut together)),
                _ => ControlFlow::Continue(()),
            }
        })?;
        // Whoever does not want the last ones has said why.
        let _ = put(together);
        Ok(())
    };
    let decode = |together: Together| {
        let mut from = 0;
        let decode = |(sequence, end): (u64, usize)| {
            let (now, event) = record::decode(sequence, &together.bytes[std::mem::replace(&mut from, end)..end])?;
            Ok((sequence, now, event))
        };
        together.records.into_iter().map(decode).collect()
    };
    in_order(threads(), read, decode, |(sequence, now, event)| {
        take(sequence, &now, &event)
    })
}

/// A start on one processor decodes by itself.
fn threads() -> usize {
    match thread::available_parallelism().map_or(1, NonZero::get) {
        1 => 0,
        processors => processors.min(THREADS_MAX),
    }
}

type Decoded<U> = Result<Vec<U>, RecordError>;

/// Has everything taken that is decoded from what is read, in the order in which it is read. What was read before an error
/// is taken; of what was read together with it, nothing.
fn in_order<T: Send, U: Send>(
    threads: usize,
    read: impl FnOnce(&mut dyn FnMut(T) -> ControlFlow<()>) -> Result<(), ReadError> + Send,
    decode: impl Fn(T) -> Decoded<U> + Sync,
    mut take: impl FnMut(U),
) -> Result<(), StoreError> {
    let mut failed = None;
    let mut take_all = |decoded: Decoded<U>| match decoded {
        Ok(decoded) => {
            decoded.into_iter().for_each(&mut take);
            ControlFlow::Continue(())
        }
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    };
    let read = if threads == 0 {
        read(&mut |together| take_all(decode(together)))
    } else {
        let decode = &decode;
        thread::scope(|scope| {
            let lane = |_| {
                let (before, to_decode) = sync_channel::<T>(READY_MAX);
                let (decoded, behind) = sync_channel::<Decoded<U>>(READY_MAX);
                scope.spawn(move || {
                    to_decode
                        .into_iter()
                        .try_for_each(|together| decoded.send(decode(together)))
                });
                (before, behind)
            };
            let (before, behind): (Vec<SyncSender<T>>, Vec<Receiver<Decoded<U>>>) = (0..threads).map(lane).unzip();
            let reading = scope.spawn(move || {
                let mut turns = before.iter().cycle();
                read(&mut |together| {
                    let lane = turns.next().expect("there is a thread at least");
                    match lane.send(together) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_) => ControlFlow::Break(()),
                    }
                })
            });
            // The first lane that has nothing more is the one whose turn it would have been.
            let decoded = behind.iter().cycle().map_while(|lane| lane.recv().ok());
            let _ = { decoded }.try_for_each(&mut take_all);
            drop(behind);
            reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    };
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(read?),
    }
}

#[cfg(test)]
mod tests {
    use proto::codec::CodecError;

    use super::*;

    const WRONG: RecordError = RecordError::Malformed {
        sequence: 9,
        error: CodecError::Overflow(0),
    };

    /// Numbers up to `count`, by threes; `wrong` cannot be decoded, and behind `lost` nothing can be read.
    fn numbers(threads: usize, count: u64, wrong: u64, lost: u64) -> (Vec<u64>, Result<(), StoreError>) {
        let mut taken = Vec::new();
        let read = |put: &mut dyn FnMut(Vec<u64>) -> ControlFlow<()>| {
            for first in (0..count).step_by(3) {
                if first > lost {
                    let what = "lost";
                    return Err(ReadError::BaseDamaged { what });
                }
                if put((first..count.min(first + 3)).collect()).is_break() {
                    break;
                }
            }
            Ok(())
        };
        let decode = |numbers: Vec<u64>| {
            // Threads that take their time differently.
            if numbers[0].is_multiple_of(7) {
                thread::yield_now();
            }
            match numbers.contains(&wrong) {
                true => Err(WRONG),
                false => Ok(numbers),
            }
        };
        let ended = in_order(threads, read, decode, |number| taken.push(number));
        (taken, ended)
    }

    #[test]
    fn everything_is_taken_in_its_order_by_however_many_threads() {
        for threads in 0..4 {
            for count in [0, 1, 4, 1_000] {
                let (taken, ended) = numbers(threads, count, u64::MAX, u64::MAX);
                ended.unwrap();
                assert_eq!(taken, (0..count).collect::<Vec<u64>>(), "{threads} threads");
            }
        }
    }

    #[test]
    fn what_cannot_be_decoded_ends_it() {
        for threads in 0..4 {
            let (taken, ended) = numbers(threads, 1_000, 500, u64::MAX);
            assert!(matches!(ended, Err(StoreError::Record(_))), "{ended:?}");
            assert_eq!(taken, (0..498).collect::<Vec<u64>>(), "{threads} threads");
        }
    }

    #[test]
    fn what_cannot_be_read_ends_it_behind_what_could() {
        for threads in 0..4 {
            let (taken, ended) = numbers(threads, 1_000, u64::MAX, 500);
            assert!(matches!(ended, Err(StoreError::Read(_))), "{ended:?}");
            assert_eq!(taken, (0..501).collect::<Vec<u64>>(), "{threads} threads");
        }
    }
}

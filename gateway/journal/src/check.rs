//! Whether the chunks of a snapshot are all there, read by as many threads as there are processors: a start waits for it.

use std::num::NonZero;
use std::thread;

use crate::error::ReadError;
use crate::format::ChunkName;

/// Threads that read at once, at most: beyond it the storage engine is what they wait for.
const THREADS_MAX: usize = 4;
/// Chunks that are worth a thread.
const CHUNKS_A_THREAD_MIN: usize = 64;

/// Bytes of all chunks of `names`, of which `check` tells each one's. They are read in the order of their keys, in which the
/// engine keeps them: neighbours share a page.
///
/// # Errors
/// What `check` says of one that is damaged.
pub(crate) fn bytes(
    names: &[ChunkName],
    check: impl Fn(&ChunkName) -> Result<u64, ReadError> + Sync,
) -> Result<u64, ReadError> {
    let mut names: Vec<&ChunkName> = names.iter().collect();
    names.sort_unstable();
    let check_part = |part: &[&ChunkName]| part.iter().map(|name| check(name)).sum::<Result<u64, ReadError>>();
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = processors
        .min(THREADS_MAX)
        .min(names.len() / CHUNKS_A_THREAD_MIN)
        .max(1);
    thread::scope(|scope| {
        let mut parts = names.chunks(names.len().div_ceil(threads).max(1));
        let ours = parts.next().unwrap_or_default();
        let started: Vec<_> = parts
            .map(|part| {
                let thread = thread::Builder::new().name("check".to_owned());
                (part, thread.spawn_scoped(scope, move || check_part(part)))
            })
            .collect();
        let mut bytes = check_part(ours);
        for (part, thread) in started {
            let theirs = match thread {
                Ok(thread) => thread.join().unwrap_or_else(|_| {
                    let message = "a thread that read it panicked".to_owned();
                    Err(ReadError::Engine { message })
                }),
                // No thread to be had: then it takes longer.
                Err(_) => check_part(part),
            };
            bytes = bytes.and_then(|bytes| Ok(bytes + theirs?));
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: u32) -> Vec<ChunkName> {
        let name = |at: u32| {
            let mut name = ChunkName::default();
            name[..4].copy_from_slice(&at.wrapping_mul(0x9e37_79b1).to_be_bytes());
            name[4..8].copy_from_slice(&at.to_be_bytes());
            name
        };
        (0..count).map(name).collect()
    }

    fn number(name: &ChunkName) -> u64 {
        u64::from(u32::from_be_bytes(*name[4..].first_chunk().unwrap()))
    }

    #[test]
    fn every_chunk_is_looked_at_whoever_reads_it() {
        for count in [0, 1, 63, 128, 1_000] {
            let found = bytes(&names(count), |name| Ok(number(name)));
            assert_eq!(
                found.unwrap(),
                u64::from(count) * u64::from(count).saturating_sub(1) / 2
            );
        }
    }

    #[test]
    fn one_that_is_damaged_is_the_answer_wherever_it_is() {
        for damaged in [0, 200, 999] {
            let found = bytes(&names(1_000), |name| match number(name) {
                number if number == damaged => Err(ReadError::SnapshotDamaged {
                    at_sequence: 7,
                    what: "a chunk is missing",
                }),
                _ => Ok(1),
            });
            assert!(matches!(found, Err(ReadError::SnapshotDamaged { at_sequence: 7, .. })));
        }
    }
}

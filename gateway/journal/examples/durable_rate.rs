//! Durable records a second, commit times and bytes written: the journal beside one `pwrite` and one `fdatasync` a batch
//! into a file that was written before, on the same disk in the same run.
//! `durable_rate DIR [SECONDS [SYNC_DELAY_US]]`; the delay plays a slower disk for both.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use journal::{Journal, Options};

/// What the bytes of a record are: the size that the latency anchor names.
const RECORD_BYTES: usize = 128;
const BATCHES: [usize; 4] = [1, 8, 32, 256];
/// The raw file is written round and round.
const RAW_BYTES: u64 = 64 << 20;

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| arguments.get(at).map_or(Ok(default), |text| text.parse::<u64>());
    let dir = Path::new(
        arguments
            .first()
            .ok_or("usage: durable_rate DIR [SECONDS [SYNC_DELAY_US]]")?,
    );
    let duration = Duration::from_secs(number(1, 3)?);
    let sync_delay = Duration::from_micros(number(2, 0)?);
    std::fs::create_dir_all(dir)?;
    println!("records of {RECORD_BYTES} bytes, {duration:?} each, sync delay {sync_delay:?}");
    println!(
        "| batch | what | records/s | commit p50 us | p99 us | max us | bytes written a record | processor ns a record |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for batch in BATCHES {
        let raw = raw_file(&dir.join("raw"), batch, duration, sync_delay)?;
        println!("| {batch} | raw file | {raw} |");
        let journal = journal_appends(&dir.join("journal"), batch, duration, sync_delay)?;
        println!("| {batch} | journal | {journal} |");
    }
    reopening(&dir.join("journal"))?;
    Ok(())
}

/// Rate, commit times and wear of one run.
struct Run {
    records: usize,
    elapsed: Duration,
    commits: Vec<Duration>,
    written_bytes: u64,
    processor_ns: u64,
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.commits.clone();
        sorted.sort_unstable();
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize].as_micros();
        let rate = self.records as f64 / self.elapsed.as_secs_f64();
        let written = self.written_bytes as f64 / self.records as f64;
        let processor = self.processor_ns as f64 / self.records as f64;
        write!(
            f,
            "{rate:.0} | {} | {} | {} | {written:.0} | {processor:.0}",
            at(0.5),
            at(0.99),
            at(1.0)
        )
    }
}

/// What this process has caused to be written to disks: pages that became dirty, whoever writes them out.
fn written_bytes() -> Result<u64, Failed> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("/proc/self/io has no write_bytes")?.parse()?)
}

/// What this thread has run on a processor, kernel included, in ns: the same however much else runs.
fn processor_ns() -> Result<u64, Failed> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text.split_whitespace().next();
    Ok(first.ok_or("schedstat is empty")?.parse()?)
}

fn measure(
    batch: usize,
    duration: Duration,
    mut commit: impl FnMut(&[&[u8]]) -> Result<(), Failed>,
) -> Result<Run, Failed> {
    let mut records = vec![vec![0; RECORD_BYTES]; batch];
    let mut run = Run {
        records: 0,
        elapsed: Duration::ZERO,
        commits: Vec::new(),
        written_bytes: 0,
        processor_ns: 0,
    };
    let written_before = written_bytes()?;
    let processor_before = processor_ns()?;
    let start = Instant::now();
    while run.elapsed < duration {
        for record in &mut records {
            run.records += 1;
            record[..8].copy_from_slice(&run.records.to_le_bytes());
        }
        let slices: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let before = Instant::now();
        commit(&slices)?;
        run.commits.push(before.elapsed());
        run.elapsed = start.elapsed();
    }
    run.written_bytes = written_bytes()? - written_before;
    run.processor_ns = processor_ns()? - processor_before;
    Ok(run)
}

fn raw_file(path: &Path, batch: usize, duration: Duration, delay: Duration) -> Result<Run, Failed> {
    let file = File::create(path)?;
    // Page by page, or the page cache would count every small write as one of a megabyte.
    let zeros = [0; 4096];
    for at in (0..RAW_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    let mut at = 0;
    measure(batch, duration, |records| {
        let bytes = records.concat();
        if at + bytes.len() as u64 > RAW_BYTES {
            at = 0;
        }
        file.write_all_at(&bytes, at)?;
        at += bytes.len() as u64;
        pause(delay);
        Ok(file.sync_data()?)
    })
}

fn journal_appends(dir: &Path, batch: usize, duration: Duration, delay: Duration) -> Result<Run, Failed> {
    let mut options = Options::new("bench", 1).create();
    options.sync_hook = Some(Arc::new(move |_| -> io::Result<()> {
        pause(delay);
        Ok(())
    }));
    let mut journal = Journal::open(dir, &options)?;
    let run = measure(batch, duration, |records| Ok(journal.append(records).map(drop)?))?;
    journal.close()?;
    Ok(run)
}

fn pause(delay: Duration) {
    if !delay.is_zero() {
        std::thread::sleep(delay);
    }
}

fn reopening(dir: &Path) -> Result<(), Failed> {
    let start = Instant::now();
    let journal = Journal::open(dir, &Options::new("bench", 1))?;
    let opened = start.elapsed();
    let mut bytes = 0;
    journal.replay(1, &mut |_, record| {
        bytes += record.len();
        ControlFlow::Continue(())
    })?;
    let replayed = start.elapsed() - opened;
    let records = journal.head().sequence;
    println!(
        "reopened {records} records in {opened:.0?}; verified and replayed them in {replayed:.0?} ({:.0} records/s); {} MiB for {} MiB of records",
        records as f64 / replayed.as_secs_f64(),
        journal.size_on_disk()? >> 20,
        bytes >> 20,
    );
    Ok(())
}

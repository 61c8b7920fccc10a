//! Durable records a second: the journal beside a plain file with the same bytes and an fdatasync a batch, on the same
//! disk in the same run. `durable_rate DIR [SECONDS [SYNC_DELAY_US]]`; the delay plays a slower disk for both.

use std::fs::File;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use journal::{Journal, Options};

const RECORD_BYTES: usize = 200;
const BATCHES: [usize; 3] = [1, 16, 256];

fn main() -> Result<(), Box<dyn std::error::Error>> {
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
    for batch in BATCHES {
        let raw = raw_file(&dir.join("raw"), batch, duration, sync_delay)?;
        let journal = journal_appends(&dir.join("journal"), batch, duration, sync_delay)?;
        println!("batch {batch:>3}: raw file {raw}");
        println!("           journal  {journal}");
    }
    reopening(&dir.join("journal"))?;
    Ok(())
}

/// Rate and commit times of one run.
struct Run {
    records: usize,
    elapsed: Duration,
    commits: Vec<Duration>,
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.commits.clone();
        sorted.sort_unstable();
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize].as_micros();
        let rate = self.records as f64 / self.elapsed.as_secs_f64();
        write!(
            f,
            "{rate:>8.0} records/s, commit p50 {} us, p99 {} us, max {} us",
            at(0.5),
            at(0.99),
            at(1.0)
        )
    }
}

fn measure(
    batch: usize,
    duration: Duration,
    mut commit: impl FnMut(&[&[u8]]) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<Run, Box<dyn std::error::Error>> {
    let mut records = vec![vec![0; RECORD_BYTES]; batch];
    let mut run = Run {
        records: 0,
        elapsed: Duration::ZERO,
        commits: Vec::new(),
    };
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
    Ok(run)
}

fn raw_file(path: &Path, batch: usize, duration: Duration, delay: Duration) -> Result<Run, Box<dyn std::error::Error>> {
    let mut file = File::create(path)?;
    measure(batch, duration, |records| {
        file.write_all(&records.concat())?;
        pause(delay);
        Ok(file.sync_data()?)
    })
}

fn journal_appends(
    dir: &Path,
    batch: usize,
    duration: Duration,
    delay: Duration,
) -> Result<Run, Box<dyn std::error::Error>> {
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

fn reopening(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
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

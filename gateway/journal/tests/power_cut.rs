//! Power cuts, played with a file system in an image: its copy at one instant holds what had reached the disk, and
//! nothing of what the page cache still promised.
//!
//! By hand, as root: `cargo test -p journal --test power_cut -- --ignored --nocapture power_cuts`.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Command;

use support::writer::{Writer, append_until_stopped, check};
use support::{Random, open};

const CUTS: u32 = 20;

#[test]
#[ignore = "the writer whose power the test below cuts"]
fn appends_until_the_power_is_cut() {
    append_until_stopped();
}

fn run(program: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) {
    let output = Command::new(program)
        .args(arguments.iter().map(AsRef::as_ref))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A mounted image, unmounted when dropped.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn of(image: &Path, at: &'a Path) -> Mount<'a> {
        std::fs::create_dir_all(at).unwrap();
        run("mount", &[&"-o", &"loop", &image, &at]);
        Mount(at)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        run("umount", &[&self.0]);
    }
}

#[test]
#[ignore = "needs root and loop devices"]
fn power_cuts_lose_no_acknowledged_record() {
    let mut random = Random::from_env();
    let (mut total, mut unacknowledged) = (0, 0);
    for cut in 0..CUTS {
        let dir = tempfile::tempdir().unwrap();
        let [image, copy, live, after] = ["image", "copy", "live", "after"].map(|name| dir.path().join(name));
        std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        run("mkfs.ext4", &[&"-q", &image]);
        let acknowledged = {
            let _mount = Mount::of(&image, &live);
            let mut writer = Writer::start("appends_until_the_power_is_cut", &live.join("journal"), &mut random);
            writer.work(4 + random.below(300), &mut random);
            // Stopped first, so that nothing is acknowledged while the image is copied.
            run("kill", &[&"-STOP", &writer.process.id().to_string()]);
            run("cp", &[&"--sparse=always", &image, &copy]);
            writer.kill().expect("something was acknowledged")
        };
        let _mount = Mount::of(&copy, &after);
        let journal = open(&after.join("journal"));
        let head = check(&journal);
        assert!(
            head >= acknowledged,
            "cut {cut}: {acknowledged} acknowledged, {head} found"
        );
        drop(journal);
        total += head;
        unacknowledged += head - acknowledged;
    }
    println!("{CUTS} power cuts, {total} records, {unacknowledged} of them found though not acknowledged");
}

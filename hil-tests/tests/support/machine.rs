//! A Debian machine: this one's files, with whatever is written to them in memory, booted by its own systemd in namespaces
//! of its own. Nothing that happens in there is seen out here.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

/// How long anything in there may take: a boot on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Memory for what is written in there.
const SIZE: &str = "size=1G";

/// The machine. It is switched off when this is dropped.
pub(crate) struct Machine {
    root: PathBuf,
    boot: Option<Child>,
    leader: u32,
    // Last: it goes when nothing is mounted there any more.
    dir: TempDir,
}

impl Machine {
    /// Boots it as far as a service may start, on a network of its own.
    pub(crate) fn boot() -> Self {
        Self::boot_on(None)
    }

    /// As well, on the network of another machine; both have its addresses.
    pub(crate) fn boot_beside(other: &Self) -> Self {
        Self::boot_on(Some(other.leader))
    }

    fn boot_on(neighbour: Option<u32>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join("disk").join(name);
        let disk = dir.path().join("disk");
        fs::create_dir(&disk).unwrap();
        host(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
                .arg(&disk),
        );
        for part in ["upper", "work", "root"] {
            fs::create_dir(at(part)).unwrap();
        }
        let layers = format!(
            "lowerdir=/,upperdir={},workdir={}",
            at("upper").display(),
            at("work").display()
        );
        let root = at("root");
        host(
            Command::new("mount")
                .args(["-t", "overlay", "overlay", "-o", &layers])
                .arg(&root),
        );
        let mut machine = Self {
            root,
            boot: None,
            leader: 0,
            dir,
        };
        // A machine of its own; and one whose services start when they are installed, whatever this one's may do.
        for file in [
            "etc/machine-id",
            "var/lib/systemd/credential.secret",
            "usr/sbin/policy-rc.d",
        ] {
            let _ = fs::remove_file(machine.path(file));
        }
        machine.switch_on(neighbour);
        machine
    }

    fn switch_on(&mut self, neighbour: Option<u32>) {
        let log = File::create(self.dir.path().join("console")).unwrap();
        let mut boot = Command::new("systemd-nspawn");
        boot.arg("-D").arg(&self.root).args([
            "--boot",
            "--register=no",
            "--keep-unit",
            "--quiet",
            "--console=pipe",
            "systemd.unit=basic.target",
        ]);
        match neighbour {
            Some(leader) => boot.arg(format!("--network-namespace-path=/proc/{leader}/ns/net")),
            None => boot.arg("--private-network"),
        };
        boot.stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log);
        let child = boot.spawn().expect("systemd-nspawn starts");
        let parent = child.id();
        self.boot = Some(child);
        let children = format!("/proc/{parent}/task/{parent}/children");
        // Its first child prepares the second and ends. Before its socket is there nobody answers; afterwards it waits by
        // itself. A unit of the image that failed is not ours.
        self.wait("the boot", |machine| {
            let text = fs::read_to_string(&children).unwrap_or_default();
            let leader = text.split_whitespace().last().and_then(|pid| pid.parse().ok());
            machine.leader = leader.unwrap_or(0);
            leader.is_some() && {
                let said = machine.try_run(&["systemctl", "is-system-running", "--wait"]).1;
                ["running", "degraded"].contains(&said.trim())
            }
        });
    }

    /// A file in there.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.root.join(file.trim_start_matches('/'))
    }

    /// Writes a file in there, through a process: what is mounted in there is not seen from here.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let staged = self.path("srv/staged");
        fs::write(staged, text).unwrap();
        self.run(&["install", "-D", "-m", "644", "/srv/staged", file]);
    }

    /// Brings a file of out here in there.
    pub(crate) fn bring(&self, from: &Path, to: &str) {
        fs::copy(from, self.path(to)).unwrap();
    }

    /// What a command says; it must succeed.
    pub(crate) fn run(&self, command: &[&str]) -> String {
        let (code, said) = self.try_run(command);
        assert_eq!(code, Some(0), "{command:?}: {said}");
        said
    }

    /// Exit code of a command, and what it says.
    pub(crate) fn try_run(&self, command: &[&str]) -> (Option<i32>, String) {
        let output = self.command(command).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), said)
    }

    /// A command in there.
    pub(crate) fn command(&self, command: &[&str]) -> Command {
        let mut enter = Command::new("nsenter");
        enter
            .args(["--all", "--target", &self.leader.to_string()])
            .args(command)
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C.UTF-8");
        enter
    }

    /// From now on the sockets of this thread are those of the machine.
    pub(crate) fn enter_network(&self) {
        let network = File::open(format!("/proc/{}/ns/net", self.leader)).unwrap();
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Asks until it holds; each question is a process, and so the clock of this loop.
    pub(crate) fn wait(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let since = Instant::now();
        while !holds(self) {
            assert!(since.elapsed() < PATIENCE, "{what} did not come:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// What people would look at.
    pub(crate) fn log(&self) -> String {
        let console = fs::read_to_string(self.dir.path().join("console")).unwrap_or_default();
        let journal = match self.leader {
            0 => String::new(),
            _ => self.try_run(&["journalctl", "--no-pager", "--lines=60"]).1,
        };
        format!("{console}\n{journal}")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its first process takes all others along. If it is gone already, so much the better.
        if self.leader != 0 {
            let _ = Command::new("kill").args(["-KILL", &self.leader.to_string()]).status();
        }
        if let Some(mut boot) = self.boot.take() {
            let _ = boot.kill();
            let _ = boot.wait();
        }
        for mounted in [&self.root, &self.dir.path().join("disk")] {
            let _ = Command::new("umount").arg("--lazy").arg(mounted).status();
        }
    }
}

/// A command out here that must succeed.
fn host(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

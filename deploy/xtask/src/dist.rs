//! `cargo xtask dist`: what is shipped, for every architecture: packages, tarballs and their sums in `target/shipped`. Each
//! program is run out of its package, foreign ones in an emulator, before it counts as made.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use object::{Architecture, Object as _};

use crate::{
    context::{Context, find_program, output_of, run, run_as, say},
    package::{self, PACKAGES},
    programs, setup,
};

/// An architecture that is shipped for.
struct Arch {
    /// As Debian calls it.
    name: &'static str,
    /// As Rust does.
    target: &'static str,
    /// What compiles C and links, and its package; a C compiler is needed for the cryptography alone.
    compiler: (&'static str, &'static str),
    /// What else rustc is told.
    flags: &'static str,
    /// What runs it here; none: the machine itself.
    emulator: Option<&'static str>,
    /// What its programs have to be.
    machine: Architecture,
}

/// Static: one file runs on any Linux. On musl, Rust's own, so a cross compiler made for glibc is good enough. Not so for
/// armhf: it is linked with glibc, static as well, because no build of Rust's library for its musl is to be had.
const ARCHS: [Arch; 3] = [
    Arch {
        name: "amd64",
        target: "x86_64-unknown-linux-musl",
        compiler: ("musl-gcc", "musl-tools"),
        flags: "",
        emulator: None,
        machine: Architecture::X86_64,
    },
    Arch {
        name: "arm64",
        target: "aarch64-unknown-linux-musl",
        compiler: ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        flags: "",
        emulator: Some("qemu-aarch64-static"),
        machine: Architecture::Aarch64,
    },
    Arch {
        name: "armhf",
        target: "armv7-unknown-linux-gnueabihf",
        compiler: ("arm-linux-gnueabihf-gcc", "gcc-arm-linux-gnueabihf"),
        flags: "-C target-feature=+crt-static",
        emulator: Some("qemu-arm-static"),
        machine: Architecture::Arm,
    },
];

/// How the programs are built: the profile of Cargo.toml, and the name of its folder.
const PROFILE: &str = "dist";

/// A test that makes sites, runs, backs up and restores them, and has devices served: it is run with the programs of each
/// package.
const TEST: &str = "operator";

/// What a package of the gateway has to hold beside the program.
const HELD: [&str; 12] = [
    "usr/lib/systemd/system/holdfast.service",
    "usr/lib/sysusers.d/holdfast.conf",
    "usr/lib/tmpfiles.d/holdfast.conf",
    "usr/share/man/man1/holdfast.1.gz",
    "usr/share/man/man1/holdfast-restore.1.gz",
    "usr/share/bash-completion/completions/holdfast",
    "usr/share/zsh/vendor-completions/_holdfast",
    "usr/share/fish/vendor_completions.d/holdfast.fish",
    "usr/share/doc/holdfast/copyright",
    "usr/share/doc/holdfast/examples/holdfast.toml",
    "usr/share/doc/holdfast/operations.md",
    "etc/default/holdfast",
];
/// As well, of the hub.
const HELD_BY_HUB: [&str; 5] = [
    "usr/lib/systemd/system/holdfast-hub.service",
    "usr/lib/sysusers.d/holdfast-hub.conf",
    "usr/lib/tmpfiles.d/holdfast-hub.conf",
    "usr/share/doc/holdfast-hub/copyright",
    "usr/share/doc/holdfast-hub/examples/hub.toml",
];

/// Where what is shipped lies at the end. Made for one architecture alone, it lies beside what was made before.
const OUT: &str = "target/shipped";

/// The programs that are shipped.
const PROGRAMS: [&str; 2] = ["holdfast", "holdfast-hub"];
/// What goes into a tarball beside them, from the top of the repository.
const BESIDE: [&str; 8] = [
    "LICENSE",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "README.md",
    "deploy/systemd",
    "deploy/config",
    "docs/install.md",
    "docs/operations.md",
];
/// As well, what the program made of itself.
const MADE: [&str; 2] = ["man", "completions"];

/// Makes all of it, or what is for one architecture.
///
/// # Errors
/// What cannot be made or does not run.
pub(crate) fn make(context: &Context, only: Option<&str>) -> Result<()> {
    let known: Vec<&str> = ARCHS.iter().map(|arch| arch.name).collect();
    let chosen: Vec<&Arch> = ARCHS
        .iter()
        .filter(|arch| only.is_none_or(|name| name == arch.name))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no such architecture; there are: {}",
        known.join(", ")
    );
    let cargo_deb = set_up(context, &chosen)?;
    let out = context.root.join(OUT);
    if only.is_none() && out.exists() {
        fs::remove_dir_all(&out).with_context(|| out.display().to_string())?;
    }
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    for arch in chosen {
        build(context, arch)?;
        let room = context.root.join("target/shipped-try").join(arch.name);
        if room.exists() {
            fs::remove_dir_all(&room).with_context(|| room.display().to_string())?;
        }
        fs::create_dir_all(&room).with_context(|| room.display().to_string())?;
        for (folder, program) in PACKAGES.into_iter().zip(PROGRAMS) {
            let package = out.join(format!("{program}_{}_{}.deb", env!("CARGO_PKG_VERSION"), arch.name));
            pack(context, &cargo_deb, arch, folder, &package)?;
            try_package(context, arch, program, &package, &room)?;
        }
        serve_with(context, arch, &room)?;
        tarball(context, arch, &out)?;
    }
    judge(context, &out)?;
    sums(context, &out)?;
    say(&format!("\nmade, and run, in {}\n", out.display()));
    Ok(())
}

/// Everything that this takes and the tests do not.
fn set_up(context: &Context, chosen: &[&Arch]) -> Result<PathBuf> {
    let tools = chosen.iter().flat_map(|arch| {
        let emulator = arch.emulator.map(|emulator| (emulator, "qemu-user-static"));
        [Some(arch.compiler), emulator]
    });
    let missing: Vec<&str> = tools
        .flatten()
        .chain([("lintian", "lintian")])
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| package)
        .collect();
    setup::install(context, &missing)?;
    for arch in chosen {
        // One by one: several at once have failed together where one of them is not to be had.
        run(context.program("rustup").args(["target", "add", arch.target]))?;
    }
    setup::cargo_deb(context)
}

fn build(context: &Context, arch: &Arch) -> Result<()> {
    let mut cargo = context.cargo();
    cargo.args([
        "build",
        "--profile",
        PROFILE,
        "--locked",
        "--bins",
        "--target",
        arch.target,
    ]);
    cargo.args(["--package", "gateway", "--package", "hub"]);
    let name = arch.target.replace('-', "_");
    if arch.emulator.is_some() {
        cargo.env(format!("CC_{name}"), arch.compiler.0);
        cargo.env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), arch.compiler.0);
    }
    if !arch.flags.is_empty() {
        cargo.env(format!("CARGO_TARGET_{}_RUSTFLAGS", name.to_uppercase()), arch.flags);
    }
    run(&mut cargo)?;
    package::generate(&built(context, arch), &|program| started(context, arch, program))
}

/// Where its programs are.
fn built(context: &Context, arch: &Arch) -> PathBuf {
    context.root.join("target").join(arch.target).join(PROFILE)
}

/// A program of this architecture, to be started here.
fn started(context: &Context, arch: &Arch, program: &Path) -> Command {
    match arch.emulator {
        Some(emulator) => {
            let mut command = context.program(emulator);
            command.arg(program);
            command
        }
        None => context.program(program),
    }
}

fn pack(context: &Context, cargo_deb: &Path, arch: &Arch, folder: &str, package: &Path) -> Result<()> {
    let mut command = context.program(cargo_deb);
    command
        .args([
            "--no-build",
            "--no-strip",
            "--locked",
            "--profile",
            PROFILE,
            "--target",
            arch.target,
        ])
        .args(["--deb-version", env!("CARGO_PKG_VERSION"), "--manifest-path"])
        .arg(format!("{folder}/Cargo.toml"))
        .arg("--output")
        .arg(package);
    run(&mut command)
}

/// Looks into the package, and runs the program out of it: what it is, what it says to the shipped example, and the gateway up
/// and down.
fn try_package(context: &Context, arch: &Arch, program: &str, package: &Path, room: &Path) -> Result<()> {
    run(context.program("dpkg-deb").arg("--extract").arg(package).arg(room))?;
    let binary = room.join("usr/bin").join(program);
    is_static(&binary, arch)?;
    let held: &[&str] = if program == PROGRAMS[0] { &HELD } else { &HELD_BY_HUB };
    if let Some(missing) = held.iter().find(|file| !room.join(file).is_file()) {
        bail!("{} holds no {missing}", package.display());
    }
    let start = |args: &[&str]| -> Command {
        let mut command = started(context, arch, &binary);
        command.args(args);
        command
    };
    let version = output_of(&mut start(&["--version"])).with_context(|| format!("{program} does not run"))?;
    ensure!(
        version == format!("{program} {}", env!("CARGO_PKG_VERSION")),
        "it is {version:?}"
    );
    let help = output_of(&mut start(&["--help"])).context("--help failed")?;
    ensure!(help.contains("check-config"), "the help is not the program's: {help}");
    if program == PROGRAMS[0] {
        up_and_down(&room.join("usr/share/doc/holdfast/examples"), &start)?;
    }
    say(&format!("{} runs ({version}, {})\n", package.display(), arch.name));
    Ok(())
}

/// One file that needs no other, and is what it is said to be.
fn is_static(program: &Path, arch: &Arch) -> Result<()> {
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    let file = object::File::parse(&*bytes).with_context(|| program.display().to_string())?;
    let shown = program.display();
    ensure!(
        file.architecture() == arch.machine,
        "{shown} is for {:?}",
        file.architecture()
    );
    ensure!(
        file.section_by_name(".interp").is_none(),
        "{shown} wants shared libraries"
    );
    say(&format!("{shown}: {} bytes, static\n", bytes.len()));
    Ok(())
}

/// Sites made, run, backed up and restored with the programs of the packages; devices are served.
fn serve_with(context: &Context, arch: &Arch, room: &Path) -> Result<()> {
    let folder = match arch.emulator {
        None => room.join("usr/bin"),
        Some(emulator) => {
            let folder = room.join("emulated");
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            for program in PROGRAMS {
                let (script, binary) = (folder.join(program), room.join("usr/bin").join(program));
                let text = format!("#!/bin/sh\nexec {emulator} '{}' \"$@\"\n", binary.display());
                fs::write(&script, text).with_context(|| script.display().to_string())?;
                fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
                    .with_context(|| script.display().to_string())?;
            }
            folder
        }
    };
    programs::run_one(context, TEST, |test| {
        // One after the other: an emulator is slow enough alone.
        test.arg("--test-threads=1").env("HOLDFAST_PROGRAMS", &folder);
    })
}

/// What Debian's own checker says; errors are not shipped.
fn judge(context: &Context, out: &Path) -> Result<()> {
    let mut lintian = context.program("sh");
    lintian.args(["-c", "lintian --no-tag-display-limit --fail-on error -- *.deb"]);
    run_as(lintian.current_dir(out), "lintian --fail-on error *.deb")
}

/// A gateway with the shipped example, until it says that it is ready; then it stops as a service is stopped.
fn up_and_down(examples: &Path, start: &dyn Fn(&[&str]) -> Command) -> Result<()> {
    let (config, secrets) = (examples.join("holdfast.toml"), examples.join("secrets.toml"));
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).context("secrets.toml")?;
    let text = fs::read_to_string(&config).context("holdfast.toml")?;
    let text = text
        .replace("\"/var/lib/holdfast\"", "\"data\"")
        .replace("0.0.0.0:1883", "127.0.0.1:0")
        .replace("hub.example.org:1884", "127.0.0.1:1");
    fs::write(&config, text).context("holdfast.toml")?;
    let config = config.to_str().context("a path is text")?;
    run(&mut start(&["--config", config, "check-config"]))?;
    let mut child = start(&["--config", config, "run"])
        .stderr(Stdio::piped())
        .spawn()
        .context("the gateway")?;
    let log = BufReader::new(child.stderr.take().expect("it was asked for"));
    let mut lines = log.lines().map_while(Result::ok);
    let mut said = Vec::new();
    let is_ready = lines.by_ref().any(|line| {
        let is_ready = line.contains("ready site=");
        said.push(line);
        is_ready
    });
    if !is_ready {
        let status = child.wait().context("the gateway")?;
        bail!("the gateway never was ready ({status}):\n{}", said.join("\n"));
    }
    run(Command::new("kill").arg(child.id().to_string()))?;
    said.extend(lines);
    let status = child.wait().context("the gateway")?;
    ensure!(
        status.success(),
        "the gateway ended with {status}:\n{}",
        said.join("\n")
    );
    Ok(())
}

fn tarball(context: &Context, arch: &Arch, out: &Path) -> Result<()> {
    let name = format!("holdfast-{}-{}", env!("CARGO_PKG_VERSION"), arch.target);
    let folder = context.root.join("target/shipped-tar").join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let built = built(context, arch);
    let own = PROGRAMS.iter().chain(&MADE).map(|name| built.join(name));
    run(context
        .program("cp")
        .args(["--recursive", "--target-directory"])
        .arg(&folder)
        .args(BESIDE)
        .args(own))?;
    let mut tar = context.program("tar");
    tar.args(["--create", "--gzip", "--owner=0", "--group=0", "--sort=name", "--file"])
        .arg(out.join(format!("{name}.tar.gz")))
        .arg("--directory")
        .arg(context.root.join("target/shipped-tar"));
    run(tar.arg(&name))
}

fn sums(context: &Context, out: &Path) -> Result<()> {
    let mut command = context.program("sh");
    command.args(["-c", "sha256sum -- *.deb *.tar.gz > SHA256SUMS && cat SHA256SUMS"]);
    run_as(command.current_dir(out), "sha256sum *.deb *.tar.gz > SHA256SUMS")
}

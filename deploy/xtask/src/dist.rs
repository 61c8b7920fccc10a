//! `cargo xtask dist`: what is shipped, for every architecture: packages, tarballs and their sums in `target/dist`. Each
//! program is run out of its package, foreign ones in an emulator, before it counts as made.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    context::{Context, find_program, output_of, run, run_as, say},
    package::PACKAGES,
    setup,
};

/// An architecture that is shipped for.
struct Arch {
    /// As Debian calls it.
    name: &'static str,
    /// As Rust does.
    target: &'static str,
    /// What compiles C and links, and its package; a C compiler is needed for the cryptography alone.
    compiler: (&'static str, &'static str),
    /// What strips, of the same package or of binutils.
    strip: &'static str,
    /// What runs it here; none: the machine itself.
    emulator: Option<&'static str>,
}

/// On musl, static: one file runs on any Linux. Rust's own musl is linked, so a cross compiler made for glibc is good
/// enough.
const ARCHS: [Arch; 1] = [Arch {
    name: "amd64",
    target: "x86_64-unknown-linux-musl",
    compiler: ("musl-gcc", "musl-tools"),
    strip: "strip",
    emulator: None,
}];

/// The programs that are shipped.
const PROGRAMS: [&str; 2] = ["holdfast", "holdfast-hub"];
/// What goes into a tarball beside them, from the top of the repository.
const BESIDE: [&str; 7] = [
    "LICENSE",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "README.md",
    "deploy/systemd",
    "deploy/config",
    "docs/install.md",
];

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
    let out = context.root.join("target/dist");
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| out.display().to_string())?;
    }
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    for arch in chosen {
        build(context, arch)?;
        for (folder, program) in PACKAGES.into_iter().zip(PROGRAMS) {
            let package = out.join(format!("{program}_{}_{}.deb", env!("CARGO_PKG_VERSION"), arch.name));
            pack(context, &cargo_deb, arch, folder, &package)?;
            try_package(context, arch, program, &package)?;
        }
        tarball(context, arch, &out)?;
    }
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
    cargo.args(["build", "--release", "--locked", "--bins", "--target", arch.target]);
    cargo.args(["--package", "gateway", "--package", "hub"]);
    if arch.emulator.is_some() {
        let name = arch.target.replace('-', "_");
        cargo.env(format!("CC_{name}"), arch.compiler.0);
        cargo.env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), arch.compiler.0);
    }
    run(&mut cargo)
}

fn pack(context: &Context, cargo_deb: &Path, arch: &Arch, folder: &str, package: &Path) -> Result<()> {
    let mut command = context.program(cargo_deb);
    command
        .args(["--no-build", "--strip", "--locked", "--target", arch.target])
        .args(["--deb-version", env!("CARGO_PKG_VERSION"), "--manifest-path"])
        .arg(format!("{folder}/Cargo.toml"))
        .arg("--output")
        .arg(package);
    run(&mut command)
}

/// Runs the program out of the package: what it is, what it says to the shipped example, and the gateway up and down.
fn try_package(context: &Context, arch: &Arch, program: &str, package: &Path) -> Result<()> {
    let room = context.root.join("target/dist-try");
    if room.exists() {
        fs::remove_dir_all(&room).with_context(|| room.display().to_string())?;
    }
    run(context.program("dpkg-deb").arg("--extract").arg(package).arg(&room))?;
    let binary = room.join("usr/bin").join(program);
    let start = |args: &[&str]| -> Command {
        let mut command = match arch.emulator {
            Some(emulator) => {
                let mut command = context.program(emulator);
                command.arg(&binary);
                command
            }
            None => context.program(&binary),
        };
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
    let folder = context.root.join("target/dist-tar").join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let built = context.root.join("target").join(arch.target).join("release");
    for program in PROGRAMS {
        run(context
            .program(arch.strip)
            .arg("-o")
            .arg(folder.join(program))
            .arg(built.join(program)))?;
    }
    run(context
        .program("cp")
        .args(["--recursive", "--target-directory"])
        .arg(&folder)
        .args(BESIDE))?;
    let mut tar = context.program("tar");
    tar.args(["--create", "--gzip", "--owner=0", "--group=0", "--sort=name", "--file"])
        .arg(out.join(format!("{name}.tar.gz")))
        .arg("--directory")
        .arg(context.root.join("target/dist-tar"));
    run(tar.arg(&name))
}

fn sums(context: &Context, out: &Path) -> Result<()> {
    let mut command = context.program("sh");
    command.args(["-c", "sha256sum -- *.deb *.tar.gz > SHA256SUMS && cat SHA256SUMS"]);
    run_as(command.current_dir(out), "sha256sum *.deb *.tar.gz > SHA256SUMS")
}

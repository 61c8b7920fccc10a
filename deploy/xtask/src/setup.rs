//! Installs what the tests need, or says exactly what to type. Quick and silent when everything is there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::context::{Context, THUMB_TARGET, find_program, output_of, run, run_as, say};
use crate::report::Verdict;

/// The advisory and licence checker; its diagnostics and configuration change between versions.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// Makes the packages that are shipped; what it puts into them changes between versions.
const CARGO_DEB_VERSION: &str = "3.8.0";

/// The pinned packages of the second implementations.
const PYTHON_REQUIREMENTS: &str = "hil-tests/python/requirements.txt";

/// How to see that a Debian package's content is there, whoever installed it.
enum Probe {
    Program(&'static str),
    PythonModules(&'static str),
    /// An emulator that knows the board of the bench.
    Emulator,
}

/// The emulator and the board that it has to know. Tried with QEMU 10.0.2; 8.2 does not know the board.
const EMULATOR: &str = "qemu-system-arm";
const EMULATED_BOARD: &str = "b-l475e-iot01a";

/// Debian and Ubuntu packages, each with what the tests use of it.
const PACKAGES: [(&str, Probe); 7] = [
    ("mosquitto", Probe::Program("mosquitto")),
    ("mosquitto-clients", Probe::Program("mosquitto_pub")),
    ("strace", Probe::Program("strace")),
    // Boots the units.
    ("systemd-container", Probe::Program("systemd-nspawn")),
    (EMULATOR, Probe::Emulator),
    ("python3", Probe::Program("python3")),
    // Brings pip for virtual environments as well.
    ("python3-venv", Probe::PythonModules("import venv, ensurepip")),
];

/// The browser before which the page is tested, and its driver: packages of Debian, and the programs in them. Elsewhere they are
/// called otherwise; then the step that needs them says that it was not checked.
const BROWSER: [(&str, &str); 2] = [("chromium", "chromium"), ("chromium-driver", "chromedriver")];

/// Installs packages without letting them start a service. Debian asks `policy-rc.d` before any service starts (101: do not);
/// one that is already there is the administrator's word and stays. The trap takes ours away however the script ends.
const APT_INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
apt-get update || echo "apt-get update failed; going on with the lists there are"
DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
"#;

/// Installs one package from the backports of this release, which are entered as the release itself is if they are not.
const APT_BACKPORT: &str = r#"
set -eu
. /etc/os-release
suite="$VERSION_CODENAME-backports"
if ! apt-cache policy | grep -q "n=$suite"; then
    mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2> /dev/null | head -n 1 | tr -d ' ')
    echo "deb ${mirror:-http://deb.debian.org/debian} $suite main" > /etc/apt/sources.list.d/holdfast-backports.list
    apt-get update
fi
DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends --target-release "$suite" "$@"
"#;

/// The package enables its broker for the next boot; nobody asked for one. `--now` only where a service manager runs.
const DISABLE_BROKER: &str = r#"
set -eu
if [ -d /run/systemd/system ]; then
    systemctl disable --now mosquitto.service
elif command -v systemctl > /dev/null; then
    systemctl disable mosquitto.service
elif command -v update-rc.d > /dev/null; then
    update-rc.d mosquitto disable
fi
"#;

/// The whole step: what fails fast and costs nothing comes first.
pub(crate) fn set_up(context: &Context) -> Result<Verdict> {
    packages(context)?;
    browser(context);
    toolchain(context)?;
    crates(context)?;
    cargo_deny(context)?;
    python(context)?;
    Ok(Verdict::Passed)
}

// ---------------------------------------------------------------- Debian packages

fn packages(context: &Context) -> Result<()> {
    let missing = missing_packages(context);
    if missing.is_empty() {
        return Ok(());
    }
    if context.offline || !is_root() || find_program("apt-get").is_none() {
        if missing == [EMULATOR] {
            // One step needs it, and says so.
            say(&format!("{}\n", what_to_type(&missing)));
            return Ok(());
        }
        bail!("{}", what_to_type(&missing));
    }
    let mut install = context.program("sh");
    install.args(["-c", APT_INSTALL, "apt-install"]).args(&missing);
    run_as(
        &mut install,
        &format!("apt-get install {} (without starting any service)", missing.join(" ")),
    )?;
    if missing.contains(&"mosquitto") {
        run_as(
            context.program("sh").args(["-c", DISABLE_BROKER]),
            "disable mosquitto.service (the tests start their own brokers)",
        )?;
    }
    if missing_packages(context).contains(&EMULATOR) {
        // Debian 12 has it in its backports only.
        let installed = run_as(
            context
                .program("sh")
                .args(["-c", APT_BACKPORT, "apt-backport", EMULATOR]),
            &format!("apt-get install {EMULATOR} from the distribution's backports"),
        );
        if let Err(error) = installed {
            say(&format!("{error:#}\n"));
        }
    }
    let mut still = missing_packages(context);
    still.retain(|package| *package != EMULATOR);
    if !still.is_empty() {
        bail!(
            "apt-get installed {}, and yet what the tests use of it is not there",
            still.join(", ")
        );
    }
    Ok(())
}

/// Whether the page can be tested in a browser here.
pub(crate) fn has_browser() -> bool {
    BROWSER.iter().all(|(_, program)| find_program(program).is_some())
}

/// Installs the browser if it can; one step needs it, and says so.
fn browser(context: &Context) {
    if has_browser() {
        return;
    }
    let packages = BROWSER.map(|(package, _)| package);
    if let Err(error) = install(context, &packages) {
        say(&format!("{error:#}\n"));
    }
}

/// Installs packages that only some task needs.
///
/// # Errors
/// What to type where this may not install.
pub(crate) fn install(context: &Context, missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    if context.offline || !is_root() || find_program("apt-get").is_none() {
        bail!("{}", what_to_type(missing));
    }
    let mut install = context.program("sh");
    install.args(["-c", APT_INSTALL, "apt-install"]).args(missing);
    run_as(&mut install, &format!("apt-get install {}", missing.join(" ")))
}

/// Whether the board of the bench can be emulated here.
pub(crate) fn has_emulator(context: &Context) -> bool {
    !missing_packages(context).contains(&EMULATOR)
}

fn missing_packages(context: &Context) -> Vec<&'static str> {
    let is_missing = |probe: &Probe| match probe {
        Probe::Program(name) => find_program(name).is_none(),
        Probe::PythonModules(import) => output_of(context.program("python3").args(["-c", import])).is_none(),
        Probe::Emulator => output_of(context.program(EMULATOR).args(["-machine", "help"]))
            .is_none_or(|machines| !machines.contains(EMULATED_BOARD)),
    };
    PACKAGES
        .iter()
        .filter(|(_, probe)| is_missing(probe))
        .map(|(package, _)| *package)
        .collect()
}

/// What a person without root types. Debian starts a broker as soon as it is installed; the tests bring their own.
fn what_to_type(missing: &[&str]) -> String {
    let list = missing.join(" ");
    let mut text =
        format!("missing: {list}\ntype:    sudo apt-get update && sudo apt-get install --no-install-recommends {list}");
    if missing.contains(&EMULATOR) {
        text.push_str(
            "\n         (on Debian 12 qemu-system-arm comes from bookworm-backports: the release's own does not know the board)",
        );
    }
    if missing.contains(&"mosquitto") {
        text.push_str("\n         sudo systemctl disable --now mosquitto   (the tests start their own brokers)");
    }
    text
}

/// Whether this process may install packages: the owner of its own entry in `/proc` is its effective user.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

// ---------------------------------------------------------------- Rust

/// What rust-toolchain.toml asks for beside the compiler; rustup may be set not to install it on its own.
const RUSTUP_PARTS: [(&str, &[&str]); 2] = [("target", &[THUMB_TARGET]), ("component", &["rustfmt", "clippy"])];

/// Adds what the pinned toolchain lacks. rustup takes the toolchain from rust-toolchain.toml, because it is started beside it.
fn toolchain(context: &Context) -> Result<()> {
    if find_program("rustup").is_none() {
        bail!("rustup is missing; it brings the pinned toolchain and its targets: https://rustup.rs");
    }
    for (noun, names) in RUSTUP_PARTS {
        let installed = output_of(context.program("rustup").args([noun, "list", "--installed"])).unwrap_or_default();
        let missing = not_installed(&installed, names);
        if missing.is_empty() {
            continue;
        }
        if context.offline {
            bail!("missing {noun}: {0}\ntype: rustup {noun} add {0}", missing.join(" "));
        }
        run(context.program("rustup").args([noun, "add"]).args(missing))?;
    }
    Ok(())
}

/// The names that rustup's list lacks; it writes components with the host's triple behind them.
fn not_installed<'a>(installed: &str, names: &[&'a str]) -> Vec<&'a str> {
    let is_there = |name: &str| {
        installed
            .lines()
            .any(|line| line == name || line.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')))
    };
    names.iter().copied().filter(|name| !is_there(name)).collect()
}

/// Downloads every locked crate of both workspaces, so that later steps fail for their own reasons only.
fn crates(context: &Context) -> Result<()> {
    run(context.cargo().args(["fetch", "--locked", "--quiet"]))?;
    run(context.cargo_firmware().args(["fetch", "--locked", "--quiet"]))
}

/// Where cargo keeps its caches.
pub(crate) fn cargo_home(context: &Context) -> Option<PathBuf> {
    let set = std::env::var_os("CARGO_HOME")
        .filter(|path| !path.is_empty())
        .map(|path| context.root.join(path));
    set.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
}

/// The pinned cargo-deny.
///
/// # Errors
/// As [`cargo_tool`].
pub(crate) fn cargo_deny(context: &Context) -> Result<PathBuf> {
    cargo_tool(context, "cargo-deny", CARGO_DENY_VERSION)
}

/// The pinned cargo-deb, which makes the packages that are shipped.
///
/// # Errors
/// As [`cargo_tool`].
pub(crate) fn cargo_deb(context: &Context) -> Result<PathBuf> {
    cargo_tool(context, "cargo-deb", CARGO_DEB_VERSION)
}

/// A pinned tool: the one on PATH if it is that version, otherwise one in the user's cache, built there on first use.
///
/// # Errors
/// It is not there and cannot be built, or must not be because the run is offline.
fn cargo_tool(context: &Context, tool: &str, version: &str) -> Result<PathBuf> {
    let folder = tool_folder(tool, version)?;
    let cached = folder.join("bin").join(tool);
    let on_path = find_program(tool).into_iter();
    if let Some(found) = on_path
        .chain([cached.clone()])
        .find(|program| is_pinned(context, program, version))
    {
        return Ok(found);
    }
    if context.offline {
        bail!("{tool} {version} is missing\ntype: cargo install --locked {tool} --version {version}");
    }
    say(&format!(
        "building {tool} {version} once, into {}: this takes a few minutes\n",
        folder.display()
    ));
    let mut install = context.cargo();
    install
        .args(["install", "--locked", tool, "--version", version, "--root"])
        .arg(&folder);
    // It runs for a second per test run: a quick build is worth more than a quick program.
    install.envs([
        ("CARGO_PROFILE_RELEASE_LTO", "off"),
        ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
        ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ]);
    run(&mut install)?;
    Ok(cached)
}

/// cargo-deny says its name as well, cargo-deb does not.
fn is_pinned(context: &Context, program: &Path, version: &str) -> bool {
    output_of(context.program(program).arg("--version"))
        .is_some_and(|said| said.split_whitespace().next_back() == Some(version))
}

/// Outside `target`, so that `cargo clean` and a second clone do not cost minutes.
fn tool_folder(tool: &str, version: &str) -> Result<PathBuf> {
    let set = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let cache = set
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join("holdfast").join(format!("{tool}-{version}")))
}

// ---------------------------------------------------------------- Python

/// A virtual environment with exactly the pinned packages. The copy of the requirements inside it, written last, says that it is complete.
fn python(context: &Context) -> Result<()> {
    let requirements = context.root.join(PYTHON_REQUIREMENTS);
    let wanted =
        fs::read_to_string(&requirements).with_context(|| format!("{PYTHON_REQUIREMENTS} could not be read"))?;
    let folder = context.python_env();
    let marker = folder.join("requirements.txt");
    let is_complete = fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted);
    if is_complete && output_of(context.program(context.python()).arg("--version")).is_some() {
        return Ok(());
    }
    if context.offline {
        bail!(
            "the Python packages of {PYTHON_REQUIREMENTS} are not installed in {}; run setup once with a network",
            folder.display()
        );
    }
    run(context.program("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(context
        .program(context.python())
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
        ])
        .arg(&requirements))?;
    fs::write(&marker, wanted).with_context(|| format!("{} could not be written", marker.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_type_is_a_whole_command() {
        let text = what_to_type(&["mosquitto", "strace"]);
        assert!(
            text.contains("sudo apt-get install --no-install-recommends mosquitto strace\n"),
            "{text}"
        );
        assert!(text.contains("disable --now mosquitto"), "{text}");
        assert!(!what_to_type(&["strace"]).contains("disable"));
    }

    #[test]
    fn rustup_parts_are_what_the_toolchain_file_asks_for() {
        let text = fs::read_to_string(Context::new(true).root.join("rust-toolchain.toml")).unwrap();
        let table: toml::Table = text.parse().unwrap();
        for (noun, names) in RUSTUP_PARTS {
            let asked: Vec<&str> = table["toolchain"][format!("{noun}s")]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap())
                .collect();
            assert_eq!(asked, names, "{noun}s");
        }
    }

    #[test]
    fn installed_names_may_carry_a_triple() {
        let names = ["clippy", "rustfmt", "rust"];
        assert_eq!(
            not_installed("clippy-x86_64-unknown-linux-gnu\nrustfmt", &names),
            ["rust"]
        );
    }
}

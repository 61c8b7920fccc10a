//! The step `service`: the units are verified and rated as they lie here, then booted from a package.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    context::{Context, find_program, output_of, run, say},
    package::{self, PACKAGES, Wanted},
    report::Verdict,
};

/// What `systemd-analyze security` may say at most, in tenths: of a unit, and of the gateway with a serial port.
const EXPOSURE_MAX: [(&str, bool, u32); 3] = [
    ("holdfast.service", false, 12),
    ("holdfast-hub.service", false, 12),
    ("holdfast.service", true, 13),
];
/// Two versions of the same programs, so that one can be upgraded to the other and back.
const VERSIONS: [&str; 2] = ["0.1.0", "0.1.1"];
/// What the unit is booted in.
const CONTAINER: &str = "systemd-nspawn";
/// The program of the test.
const TEST: &str = "service";

/// The whole step.
///
/// # Errors
/// What a unit or the service does not hold.
pub(crate) fn check(context: &Context) -> Result<Verdict> {
    let missing = ["systemd-analyze", "dpkg-deb", CONTAINER]
        .into_iter()
        .find(|name| find_program(name).is_none());
    if let Some(missing) = missing {
        return unable(&format!("{missing} is missing"));
    }
    context.programs.all(context)?;
    let programs = context.root.join("target/debug");
    let rated = rate(context, &programs)?;
    if !is_root() {
        return unable(&format!("{rated}; only root may boot them"));
    }
    package::generate(&programs, &|program| context.program(program))?;
    let packages = context.root.join("target/package");
    fs::create_dir_all(&packages).with_context(|| packages.display().to_string())?;
    for folder in PACKAGES {
        for version in VERSIONS {
            let architecture = output_of(context.program("dpkg").arg("--print-architecture"));
            let wanted = Wanted {
                folder,
                programs: &programs,
                version,
                architecture: architecture.as_deref().context("dpkg knows no architecture")?,
            };
            package::pack(context, &wanted, &packages)?;
        }
    }
    context.programs.run(context, TEST, |test| {
        test.arg("--nocapture").env("HOLDFAST_PACKAGES", &packages);
    })?;
    Ok(Verdict::PassedWith(rated))
}

/// A person may go without; a machine that judges may not.
fn unable(why: &str) -> Result<Verdict> {
    if std::env::var_os("CI").is_some() {
        bail!("{why}");
    }
    Ok(Verdict::NotChecked(why.to_owned()))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

/// Has systemd verify and rate every unit; what it said in a line.
fn rate(context: &Context, programs: &Path) -> Result<String> {
    let mut told = Vec::new();
    for (unit, has_serial_port, most) in EXPOSURE_MAX {
        let file = lay_out(context, unit, has_serial_port, programs)?;
        run(context
            .program("systemd-analyze")
            .args(["--man=no", "verify"])
            .arg(&file))?;
        let mut rating = context.program("systemd-analyze");
        rating.args(["security", "--no-pager", "--offline=true"]);
        let text = output_of(rating.arg(&file)).context("systemd-analyze security failed")?;
        for line in text.lines().filter(|line| !line.starts_with('✓')) {
            say(&format!("{line}\n"));
        }
        let tenths = exposure(&text).with_context(|| format!("no figure in:\n{text}"))?;
        let port = if has_serial_port { " with a serial port" } else { "" };
        let figure = format!("{unit}{port} {}.{}", tenths / 10, tenths % 10);
        ensure!(tenths <= most, "{figure} is above {}.{}", most / 10, most % 10);
        told.push(figure);
    }
    Ok(told.join(", "))
}

/// The unit with programs that are there, and its drop-in.
fn lay_out(context: &Context, unit: &str, has_serial_port: bool, programs: &Path) -> Result<PathBuf> {
    let units = context.root.join("deploy/systemd");
    let folder = context
        .root
        .join("target/units")
        .join(if has_serial_port { "serial" } else { "plain" });
    let extra = folder.join(format!("{unit}.d"));
    fs::create_dir_all(&extra).with_context(|| extra.display().to_string())?;
    if has_serial_port {
        fs::copy(units.join("serial.conf"), extra.join("serial.conf")).context("serial.conf")?;
    }
    let text = fs::read_to_string(units.join(unit)).with_context(|| unit.to_owned())?;
    let file = folder.join(unit);
    let there = programs.display();
    let text = text
        .replace("ExecStart=/usr/bin/", &format!("ExecStart={there}/"))
        .replace("ExecReload=+/usr/bin/", &format!("ExecReload=+{there}/"));
    fs::write(&file, text).with_context(|| file.display().to_string())?;
    Ok(file)
}

/// The figure of the last line, in tenths.
fn exposure(text: &str) -> Option<u32> {
    let figure = text.lines().rev().find(|line| line.contains("exposure level"))?;
    let figure = figure.split_once(": ")?.1.split_whitespace().next()?;
    let (whole, tenth) = figure.split_once('.')?;
    Some(whole.parse::<u32>().ok()? * 10 + tenth.parse::<u32>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_read() {
        assert_eq!(
            exposure("✗ a\n\n→ Overall exposure level for holdfast.service: 1.1 OK 🙂\n"),
            Some(11)
        );
        assert_eq!(exposure("→ Overall exposure level for x: 9.6 UNSAFE"), Some(96));
        assert_eq!(exposure("nothing"), None);
    }
}

//! Packs what a manifest's `[package.metadata.deb]` lists, with dpkg-deb alone: the test of the service installs the programs
//! of the test run as packages like those that are shipped. What is shipped is packed from the same lists (`dist.rs`).

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use toml::{Table, Value};

use crate::context::{Context, output_of, run, run_as};

/// The packages: the folder of each one's manifest.
pub(crate) const PACKAGES: [&str; 2] = ["gateway/daemon", "gateway/hub"];

/// Where manifests say that programs lie.
const BUILT: &str = "target/release/";

/// Which program of the packages writes its manual and completions, and where: below the folder that it lies in.
const GENERATES: &str = "holdfast";
const MANUAL_DIR: &str = "man";
/// As well: a folder, and the file that each shell looks for.
const COMPLETIONS_DIR: &str = "completions";
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "holdfast.bash"),
    ("zsh", "_holdfast"),
    ("fish", "holdfast.fish"),
];

/// What dpkg wants to find in a package beside the files.
const SCRIPTS: [&str; 4] = ["postinst", "prerm", "postrm", "templates"];

/// Where the package comes from, and what it is called.
pub(crate) struct Wanted<'a> {
    /// One of [`PACKAGES`].
    pub(crate) folder: &'a str,
    /// Where the programs are.
    pub(crate) programs: &'a Path,
    /// Debian's version.
    pub(crate) version: &'a str,
    /// Debian's architecture.
    pub(crate) architecture: &'a str,
}

/// Packs it into `out` and returns the package.
///
/// # Errors
/// If the manifest lists what is not there, or dpkg-deb refuses.
pub(crate) fn pack(context: &Context, wanted: &Wanted<'_>, out: &Path) -> Result<PathBuf> {
    let folder = context.root.join(wanted.folder);
    let deb = metadata(&folder)?;
    let name = text(&deb, "name")?;
    let stage = out.join(format!("stage-{name}"));
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| stage.display().to_string())?;
    }
    for (from, to, mode) in assets(&deb)? {
        let source = match from.strip_prefix(BUILT) {
            Some(program) => wanted.programs.join(program),
            None => folder.join(&from),
        };
        for source in every(&source)? {
            put(&source, &target(&stage, &source, &to), mode)?;
        }
    }
    let control = stage.join("DEBIAN");
    let scripts = folder.join(text(&deb, "maintainer-scripts")?);
    for script in SCRIPTS {
        let mode = if script == "templates" { 0o644 } else { 0o755 };
        put(&scripts.join(script), &control.join(script), mode)?;
    }
    let lines = |key: &str| -> String {
        let files = deb.get(key).and_then(Value::as_array).into_iter().flatten();
        files
            .filter_map(Value::as_str)
            .map(|file| format!("{file}\n"))
            .collect()
    };
    write(&control.join("conffiles"), &lines("conf-files"))?;
    let description = text(&deb, "extended-description")?.replace('\n', "\n ");
    write(
        &control.join("control"),
        &format!(
            "Package: {name}\nVersion: {}\nArchitecture: {}\nMaintainer: {}\nSection: {}\nPriority: {}\nDepends: {}\n\
             Description: {name}\n {description}\n",
            wanted.version,
            wanted.architecture,
            text(&deb, "maintainer")?,
            text(&deb, "section")?,
            text(&deb, "priority")?,
            text(&deb, "depends")?,
        ),
    )?;
    let file = out.join(format!("{name}_{}_{}.deb", wanted.version, wanted.architecture));
    // Quick rather than small: it is installed once, here.
    let mut command = context.program("dpkg-deb");
    command.args(["--root-owner-group", "-Zgzip", "-z1", "--build"]);
    run_as(
        command.arg(&stage).arg(&file),
        &format!("dpkg-deb --build {}", file.display()),
    )?;
    Ok(file)
}

/// Has the program write its manual and completions beside itself, where manifests look for them. `start` starts it.
///
/// # Errors
/// If it does not.
pub(crate) fn generate(programs: &Path, start: &dyn Fn(&Path) -> Command) -> Result<()> {
    let program = programs.join(GENERATES);
    let manual = programs.join(MANUAL_DIR);
    // A page of a command that is no more would be packed, too.
    if manual.exists() {
        fs::remove_dir_all(&manual).with_context(|| manual.display().to_string())?;
    }
    run(start(&program).args(["generate", "man", "--dir"]).arg(&manual))?;
    // Policy: pages of the manual are compressed.
    let mut gzip = Command::new("gzip");
    gzip.args(["--best", "--no-name", "--recursive"]).arg(&manual);
    run_as(&mut gzip, &format!("gzip {}", manual.display()))?;
    let completions = programs.join(COMPLETIONS_DIR);
    fs::create_dir_all(&completions).with_context(|| completions.display().to_string())?;
    for (shell, file) in COMPLETIONS {
        let said = output_of(start(&program).args(["generate", "completions", shell]));
        let script = said.with_context(|| format!("{GENERATES} makes no completions for {shell}"))?;
        write(&completions.join(file), &format!("{script}\n"))?;
    }
    Ok(())
}

/// The files that are meant: one, or all with an ending in a folder (`*.1.gz`).
fn every(source: &Path) -> Result<Vec<PathBuf>> {
    let name = source.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    let (Some(ending), Some(folder)) = (name.strip_prefix('*'), source.parent()) else {
        return Ok(vec![source.to_owned()]);
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(ending) {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        bail!("{} is to be packed and is not there", source.display());
    }
    Ok(files)
}

/// The table of a manifest that says what its package holds.
pub(crate) fn metadata(folder: &Path) -> Result<Table> {
    let path = folder.join("Cargo.toml");
    let manifest: Table = fs::read_to_string(&path)
        .with_context(|| path.display().to_string())?
        .parse()?;
    let deb = manifest
        .get("package")
        .and_then(|package| package.get("metadata")?.get("deb")?.as_table());
    deb.cloned()
        .with_context(|| format!("{} has no [package.metadata.deb]", path.display()))
}

fn text<'a>(deb: &'a Table, key: &str) -> Result<&'a str> {
    deb.get(key)
        .and_then(Value::as_str)
        .with_context(|| format!("[package.metadata.deb] has no {key}"))
}

/// From, to and mode of every file.
fn assets(deb: &Table) -> Result<Vec<(String, String, u32)>> {
    let rows = deb
        .get("assets")
        .and_then(Value::as_array)
        .context("assets are missing")?;
    let asset = |row: &Value| -> Option<(String, String, u32)> {
        let [from, to, mode] = row.as_array()?.as_slice() else {
            return None;
        };
        let mode = u32::from_str_radix(mode.as_str()?, 8).ok()?;
        Some((from.as_str()?.to_owned(), to.as_str()?.to_owned(), mode))
    };
    rows.iter()
        .map(|row| asset(row).with_context(|| format!("{row} is not [from, to, mode]")))
        .collect()
}

/// Where a file goes; a folder at the end of `to` keeps the file's name.
fn target(stage: &Path, source: &Path, to: &str) -> PathBuf {
    let target = stage.join(to);
    match source.file_name() {
        Some(name) if to.ends_with('/') => target.join(name),
        _ => target,
    }
}

fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let folder = to.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    if !from.is_file() {
        bail!("{} is to be packed and is not there", from.display());
    }
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).with_context(|| to.display().to_string())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_file_is_there_and_every_conffile_is_packed() {
        let context = Context::new(true);
        for package in PACKAGES {
            let folder = context.root.join(package);
            let deb = metadata(&folder).unwrap();
            let mut packed = Vec::new();
            for (from, to, _) in assets(&deb).unwrap() {
                assert!(from.starts_with(BUILT) || folder.join(&from).is_file(), "{from}");
                packed.push(target(Path::new("/"), Path::new(&from), &to));
            }
            let kept = deb.get("conf-files").and_then(Value::as_array).into_iter().flatten();
            for file in kept {
                assert!(packed.contains(&PathBuf::from(file.as_str().unwrap())), "{file}");
            }
            for script in SCRIPTS {
                let scripts = folder.join(text(&deb, "maintainer-scripts").unwrap());
                assert!(scripts.join(script).is_file(), "{script}");
            }
        }
    }

    #[test]
    fn every_file_with_an_ending_is_meant() {
        let dir = Context::new(true).root.join("deploy/debian/holdfast");
        let names = every(&dir.join("*.conf")).unwrap();
        assert_eq!(names, ["sysusers.conf", "tmpfiles.conf"].map(|name| dir.join(name)));
        assert_eq!(every(&dir.join("postinst")).unwrap(), [dir.join("postinst")]);
        let error = every(&dir.join("*.3")).unwrap_err();
        assert!(error.to_string().contains("*.3"), "{error}");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = put(Path::new("no/such"), &std::env::temp_dir().join("x/y"), 0o644).unwrap_err();
        assert!(error.to_string().contains("no/such"), "{error}");
    }
}

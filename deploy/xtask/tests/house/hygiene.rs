//! What the text of the repository may not hold: paths of somebody's machine, paths that lead out of it, files too long to read.

use std::path::{Component, Path, PathBuf};

use crate::rust_source::RustSource;

/// Where people's files lie. Put together here, so that this file does not hold them itself.
const PERSONAL_ROOTS: [&str; 5] = [
    concat!("/", "home/"),
    concat!("/", "root/"),
    concat!("/", "Users/"),
    concat!("/", "work/"),
    concat!("/", "mnt/"),
];

/// A test or a comment is better off with a temporary folder that it asks for.
const TEMPORARY_ROOT: &str = concat!("/", "tmp/");

/// Lines of a Rust file, tests not counted, above which it must say why.
const LINES_MAX: usize = 600;

/// Begins the comment that says why.
const LONG_FILE: &str = concat!("// ", "long-file:");

/// Lines with an absolute path of somebody's machine, this checkout's included.
pub(crate) fn machine_paths(name: &str, text: &str, checkout: &str) -> Vec<String> {
    let mut roots = PERSONAL_ROOTS.to_vec();
    if name.ends_with(".rs") {
        roots.push(TEMPORARY_ROOT);
    }
    let holds = |line: &str| {
        roots.iter().any(|root| stands_alone(line, root)) || (checkout.len() > 1 && line.contains(checkout))
    };
    breaches(name, text, |line| holds(line).then(|| line.trim().to_owned()))
}

/// Whether the root begins a path here, and is not the middle of a longer one or of an address.
fn stands_alone(line: &str, root: &str) -> bool {
    line.match_indices(root).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"._-~}/*".contains(c))
    })
}

/// Relative paths upwards that lead to nothing in the repository, seen from the file's folder or from one above it (a package's folder
/// is where its tests and tools start). A path that climbs out always leads to nothing. Test files are left alone: they try bad paths.
pub(crate) fn lost_paths(name: &str, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let is_test = name.ends_with(".rs") && Path::new(name).components().any(|part| part.as_os_str() == "tests");
    if is_test {
        return Vec::new();
    }
    let leads_somewhere = |path: &str| {
        Path::new(name)
            .ancestors()
            .skip(1)
            .any(|folder| normalise(folder, path).is_some_and(|target| exists(&target)))
    };
    breaches(name, text, |line| {
        upward_paths(line)
            .find(|path| !leads_somewhere(path))
            .map(str::to_owned)
    })
}

/// The parts of a line that are relative paths upwards, without what follows a name in prose.
fn upward_paths(line: &str) -> impl Iterator<Item = &str> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    line.split(move |c| !is_path(c))
        .map(|path| path.trim_start_matches('/').trim_end_matches(['.', '/']))
        .filter(|path| path.starts_with("../"))
}

/// The path from the top that this one means in that folder; none if it climbs out.
fn normalise(folder: &Path, path: &str) -> Option<PathBuf> {
    let mut result = folder.to_path_buf();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => {
                if !result.pop() {
                    return None;
                }
            }
            Component::Normal(name) => result.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(result)
}

/// A Rust file that does not fit in a head and does not say why.
pub(crate) fn too_long(source: &RustSource) -> Option<String> {
    let lines = source.text.lines().count().saturating_sub(source.test_lines);
    let says_why = source.text.lines().any(|line| {
        line.trim_start()
            .strip_prefix(LONG_FILE)
            .is_some_and(|why| !why.trim().is_empty())
    });
    (lines > LINES_MAX && !source.is_test_file() && !says_why)
        .then(|| format!("{}: {lines} lines without tests, {LINES_MAX} at most", source.path))
}

fn breaches(name: &str, text: &str, judge: impl Fn(&str) -> Option<String>) -> Vec<String> {
    text.lines()
        .enumerate()
        .filter_map(|(index, line)| judge(line).map(|what| format!("{name}:{}: {what}", index + 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personal_paths() {
        let check = |name: &str, line: &str, expected: bool| {
            assert_eq!(
                !machine_paths(name, line, "/srv/checkout").is_empty(),
                expected,
                "{name}: {line}"
            )
        };
        check("a.md", concat!("see /", "home/ann/notes"), true);
        check("a.toml", concat!("path = \"/", "work/x\""), true);
        check("a.sh", concat!("cd /", "root/x"), true);
        check("a.md", "built in /srv/checkout today", true);
        check("a.md", concat!("https://example.org/", "home/page"), false);
        check("a.md", concat!("target/", "root/x and ./", "home/y"), false);
        check("a.rs", concat!("let p = \"/", "tmp/x\";"), true);
        check("a.md", concat!("--json /", "tmp/out.json"), false);
        assert_eq!(
            machine_paths("a.md", concat!("one\n/", "home/x"), "/srv/checkout"),
            [concat!("a.md:2: /", "home/x")]
        );
    }

    #[test]
    fn upward_paths_that_lead_nowhere() {
        let there = [
            "README.md",
            "docs/glossary.md",
            "docs/decisions/0001.md",
            "proto/schema/v1.cddl",
        ];
        let exists = |path: &Path| there.iter().any(|file| Path::new(file).starts_with(path));
        let check = |name: &str, line: &str, expected: bool| {
            assert_eq!(!lost_paths(name, line, &exists).is_empty(), expected, "{name}: {line}")
        };
        check("docs/style.md", "[words](../README.md)", false);
        check("docs/style.md", "[words](../docs/glossary.md).", false);
        check("docs/style.md", "see ../elsewhere/style.md", true);
        check("docs/style.md", "see ../../elsewhere", true);
        check("README.md", "see ../elsewhere", true);
        check(
            "hil-tests/python/check.py",
            "open(here + '/../../proto/schema/v1.cddl')",
            false,
        );
        check("gateway/core/src/lib.rs", "//! the law: ../elsewhere/law.md", true);
        check("gateway/core/src/lib.rs", "include_str!(\"../../../README.md\")", false);
        check(
            "gateway/core/tests/paths.rs",
            "assert!(parse(\"../x\").is_err());",
            false,
        );
        check(".ci/run", "cd \"$(dirname \"$0\")/..\"", false);
        check("a.rs", "for i in 0..n { x[i..].len() }", false);
    }

    #[test]
    fn long_files() {
        let judge = |path: &str, text: &str| too_long(&RustSource::parse(path, text).unwrap()).is_some();
        let long = "use a;\n".repeat(LINES_MAX + 1);
        assert!(judge("src/a.rs", &long));
        assert!(!judge("src/a.rs", &"use a;\n".repeat(LINES_MAX)));
        assert!(!judge("tests/a.rs", &long));
        assert!(!judge(
            "src/a.rs",
            &format!("{LONG_FILE} one table, read as one\n{long}")
        ));
        assert!(judge("src/a.rs", &format!("{LONG_FILE}\n{long}")), "it must say why");
        assert!(!judge(
            "src/a.rs",
            &format!("use a;\n#[cfg(test)]\nmod tests {{\n{long}}}\n")
        ));
    }
}

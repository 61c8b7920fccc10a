//! The threat model names the tests that show its defended lines; each of them has to be there.

/// The heading above the table of what is defended, and the one behind it.
const DEFENDED: [&str; 2] = ["\n## Defended\n", "\n## Not defended\n"];

/// What is wrong with the page, given how to read a file of the repository.
pub(crate) fn unshown(page: &str, read: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let Some((_, rest)) = page.split_once(DEFENDED[0]) else {
        return vec![format!("there is no heading {:?}", DEFENDED[0].trim())];
    };
    let table = rest.split_once(DEFENDED[1]).map_or(rest, |(table, _)| table);
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut breaches = Vec::new();
    let mut count = 0;
    for row in rows {
        count += 1;
        let named: Vec<(&str, &str)> = row
            .split('`')
            .skip(1)
            .step_by(2)
            .filter_map(|quoted| quoted.split_once("::"))
            .collect();
        if named.is_empty() {
            breaches.push(format!("no test shows it: {row}"));
        }
        for (file, test) in named {
            let is_there = read(file).is_some_and(|text| has_test(&text, test));
            if !is_there {
                breaches.push(format!("{file} has no test {test}"));
            }
        }
    }
    if count == 0 {
        breaches.push("nothing is defended".to_owned());
    }
    breaches
}

/// Whether a function of this name stands behind a test attribute.
fn has_test(text: &str, name: &str) -> bool {
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(head) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") {
            if is_test && head.split('(').next() == Some(name) {
                return true;
            }
            is_test = false;
        }
    }
    false
}

#[test]
fn the_checker_can_say_no() {
    let read = |file: &str| {
        (file == "a.rs").then(|| "#[test]\nfn one() {}\n#[tokio::test]\nasync fn two() {}\nfn help() {}\n".to_owned())
    };
    let page = |row: &str| {
        format!("# T\n## Defended\n\n| t | w | s |\n|---|---|---|\n{row}\n\n## Not defended\n| x | y | z |\n")
    };
    for (row, breaches) in [
        ("| t | w | `a.rs::one`, `a.rs::two` |", 0),
        ("| t | `[x]` | `a.rs::help` |", 1),
        ("| t | w | `a.rs::three`, `b.rs::one` |", 2),
        ("| t | w | - |", 1),
        ("", 1),
    ] {
        assert_eq!(unshown(&page(row), &read).len(), breaches, "{row}");
    }
    assert_eq!(unshown("# T", &read).len(), 1);
}

//! The command line: every wrong input names what and where, and has its exit code.
#![allow(clippy::unwrap_used)]

#[path = "support/process.rs"]
mod process_support;

use std::process::Output;

use process_support::{SEED, Site};
use proto::{
    id::Kind,
    instrument::{KeypadKey, ReplayWindow, Scope, Voucher},
    money::Money,
    trust::Issuer,
};

fn check(output: &Output, code: i32, words: &[&str]) {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn wrong_configurations_are_named() {
    let secret = "5".repeat(64);
    // (file, text to replace, by what, words of the error)
    let table: [(&str, &str, &str, &[&str]); 10] = [
        (
            "hub.toml",
            "list_every_s = 0",
            "list_every_s = 5",
            &["hub.toml", "list_every_s", "below 60"],
        ),
        (
            "hub.toml",
            "list_every_s",
            "list_every",
            &["hub.toml", "unknown field `list_every`"],
        ),
        ("hub.toml", "127.0.0.1:0", "nowhere", &["hub.toml", "listen"]),
        ("hub.toml", "gw-2", "gw-1", &["gateways[1].id", "twice"]),
        ("hub.toml", "gw-2", "GW 2", &["gateways[1].id", "1 to 20 characters"]),
        (
            "hub.toml",
            "gw-2",
            "gw-3",
            &["secrets.toml", "gateways.gw-3", "no secret"],
        ),
        (
            "hub.toml",
            "format = \"json\"",
            "filter = \"hub=loud\"",
            &["log.filter"],
        ),
        (
            "hub.toml",
            "secrets.toml",
            "missing.toml",
            &["missing.toml", "No such file"],
        ),
        (
            "secrets.toml",
            "2222",
            "22",
            &["secrets.toml", "token_key", "expected 64"],
        ),
        (
            "secrets.toml",
            "issuer_seed = \"11",
            "issuer_seed = \"xy",
            &["secrets.toml", "issuer_seed", "hexadecimal"],
        ),
    ];
    for (file, from, to, words) in table {
        let site = Site::new();
        let text = std::fs::read_to_string(site.path(file)).unwrap();
        assert!(text.contains(from), "{from}");
        site.write(file, &text.replacen(from, to, 1));
        let output = site.command(&["check-config", "--config", "hub.toml"]);
        check(&output, 78, words);
        assert!(!String::from_utf8_lossy(&output.stderr).contains(&secret[..8]));
    }
    let site = Site::new();
    site.write("secrets.toml", "issuer_seed = \"5555");
    let output = site.command(&["run", "--config", "hub.toml"]);
    check(&output, 78, &["secrets.toml"]);
    assert!(
        !String::from_utf8_lossy(&output.stderr).contains("5555"),
        "no part of a secret is shown"
    );
}

#[test]
fn wrong_seed_files_are_named() {
    let table: [(&str, &str, &str); 12] = [
        ("deposit = 10000", "deposit = -1", "accounts[0]"),
        (
            "account = 7 }",
            "account = 8 }",
            "tokens[0]: account 8 is not in this file",
        ),
        ("account = 7 }", "account = 7, colour = 1 }", "unknown field `colour`"),
        (
            "raw = \"04a1b2c3\"",
            "raw = \"04a1b2c\"",
            "tokens[1]: raw: an odd number",
        ),
        (
            "raw = \"04a1b2c3\"",
            "raw = \"04a1b2zz\"",
            "tokens[1]: raw: not hexadecimal",
        ),
        (
            "raw = \"04a1b2c3\"",
            "hash = \"00\"",
            "tokens[1]: hash: 2 hexadecimal digits",
        ),
        (
            "raw = \"04a1b2c3\"",
            "raw = \"04\", text = \"a\"",
            "tokens[1]: exactly one",
        ),
        ("kind = \"card\"", "kind = \"ring\"", "tokens[1]: kind \"ring\""),
        (
            "kind = \"charger\"",
            "kind = \"toaster\"",
            "tariffs[0]: kind \"toaster\"",
        ),
        ("\"energy\"", "\"love\"", "tariffs[0]: elements[0]: dimension \"love\""),
        (
            "price_milli = 120000",
            "price_milli = -1",
            "tariffs[0]: the price of element 0",
        ),
        (
            "whitelist = \"never\"",
            "whitelist = \"maybe\"",
            "unknown variant `maybe`",
        ),
    ];
    for (from, to, words) in table {
        let site = Site::new();
        assert!(SEED.contains(from), "{from}");
        site.write("seed.toml", &SEED.replacen(from, to, 1));
        let output = site.command(&["check-config", "--config", "hub.toml"]);
        check(&output, 65, &["seed.toml", words]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!text.contains("04a1b2"), "a token is shown: {text}");
        // A hub that knows nothing yet does not start with it.
        check(&site.command(&["run", "--config", "hub.toml"]), 65, &[words]);
    }
}

#[test]
fn a_broken_seed_file_does_not_keep_a_hub_dark_that_knows_its_tokens() {
    let site = Site::new();
    assert_eq!(site.start().stop(), Some(0));
    site.write("seed.toml", "tokens = [");
    let hub = site.start();
    assert_eq!(site.status().tokens, 2);
    check(
        &site.command(&["reload", "--config", "hub.toml"]),
        65,
        &["seed.toml", "line 1"],
    );
    site.write("seed.toml", &SEED.replace("10000", "500"));
    check(&site.command(&["reload", "--data", "data"]), 0, &["accounts = 1"]);
    site.write("more.json", r#"{"accounts": [{"id": 8, "deposit": 1}]}"#);
    check(
        &site.command(&["import", "more.json", "--config", "hub.toml"]),
        0,
        &["accounts = 1", "tokens_gone = 0"],
    );
    assert_eq!(hub.stop(), Some(0));
    check(
        &site.command(&["import", "more.json", "--config", "hub.toml"]),
        0,
        &["accounts = 0"],
    );
    check(
        &site.command(&["balances", "--data", "data", "--json"]),
        0,
        &["customer:8", "\"deposit\":500"],
    );
}

#[test]
fn other_failures_have_their_exit_codes() {
    let site = Site::new();
    check(&site.command(&["run"]), 64, &["--config"]);
    check(&site.command(&["dance"]), 64, &["dance"]);
    check(&site.command(&["--help"]), 0, &["check-config"]);
    check(
        &site.command(&["status", "--data", "nowhere"]),
        74,
        &["no journal in nowhere"],
    );
    check(
        &site.command(&["status", "--socket", "nowhere.sock"]),
        69,
        &["nowhere.sock"],
    );
    let hub = site.start();
    check(
        &site.command(&["run", "--config", "hub.toml"]),
        75,
        &["another process"],
    );
    let taken = hub.address.to_string();
    let text = std::fs::read_to_string(site.path("hub.toml")).unwrap();
    let second = text.replace("127.0.0.1:0", &taken).replace("\"data\"", "\"data-2\"");
    site.write("second.toml", &second);
    check(&site.command(&["run", "--config", "second.toml"]), 71, &[&taken]);
    check(&site.command(&["init", "."]), 73, &["exists already"]);
    check(
        &site.command(&["ledger", "export", "--data", "data", "--gateway", "GW"]),
        64,
        &["GW"],
    );
    assert_eq!(hub.stop(), Some(0));
    check(&site.command(&["status", "--data", "data"]), 69, &["no hub answers"]);
}

#[test]
fn init_makes_a_hub_that_runs() {
    let site = Site::new();
    check(
        &site.command(&["init", "new", "--gateway", "gw-5", "--site", "north"]),
        0,
        &["issuer key", "gw-5"],
    );
    check(
        &site.command(&["check-config", "--config", "new/hub.toml"]),
        0,
        &["1 gateways", "2 tokens", "3 tariffs"],
    );
    let mode = std::fs::metadata(site.path("new/hub-secrets.toml")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o077, 0);
    let text = std::fs::read_to_string(site.path("new/hub.toml")).unwrap();
    assert!(text.contains("id = \"gw-5\"\nsite = \"north\""));
}

#[test]
fn a_list_of_a_truncated_file_is_refused_and_the_known_one_stays() {
    let site = Site::new();
    let row = |n: u32| format!("  {{ hash = \"{n:032x}\", account = 7 }},\n");
    let seed = |rows: u32| {
        let tokens: String = (1..=rows).map(row).collect();
        format!("accounts = [{{ id = 7, deposit = 1 }}]\ntokens = [\n{tokens}]\n")
    };
    site.write("seed.toml", &seed(200));
    let hub = site.start();
    site.write("seed.toml", &seed(100));
    check(
        &site.command(&["reload", "--data", "data"]),
        65,
        &["100 of 200 tokens would disappear", "may_shrink"],
    );
    assert_eq!((site.status().tokens, site.status().list_revision), (200, 1));
    site.write("seed.toml", &format!("may_shrink = true\n{}", seed(100)));
    check(&site.command(&["reload", "--data", "data"]), 0, &["tokens_gone = 100"]);
    assert_eq!((site.status().tokens, site.status().list_revision), (100, 2));
    assert_eq!(hub.stop(), Some(0));
}

#[test]
fn keys_are_rotated_and_everything_published_fits_a_file() {
    let site = Site::new();
    let secrets = |site: &Site| std::fs::read_to_string(site.path("secrets.toml")).unwrap();
    let before = secrets(&site);
    let export = |name: &str| {
        check(
            &site.command(&["export-artifacts", name, "--config", "hub.toml"]),
            0,
            &["artifacts = "],
        )
    };
    let hub = site.start();
    let first = site.status();
    assert_eq!((first.keys_epoch, &first.signing_key), (0, &first.issuer_key));
    check(
        &site.command(&["keys", "rotate", "--config", "hub.toml"]),
        0,
        &["signing key"],
    );
    assert_eq!(site.status().keys_epoch, 0, "it signs when the hub starts again");
    assert_eq!(hub.stop(), Some(0));
    // Nothing else in the secrets has changed.
    let rest: Vec<String> = secrets(&site)
        .lines()
        .filter(|line| !line.starts_with("signing_seed"))
        .map(str::to_owned)
        .collect();
    assert_eq!(rest, before.lines().map(str::to_owned).collect::<Vec<_>>());
    export("stopped.artifacts");
    let hub = site.start();
    let second = site.status();
    assert_eq!((second.keys_epoch, &second.issuer_key), (1, &first.issuer_key));
    assert_ne!(second.signing_key, first.signing_key);
    export("running.artifacts");
    assert_eq!(hub.stop(), Some(0));
    let hub = site.start();
    assert_eq!(site.status().keys_epoch, 1, "the same key is no news");
    assert_eq!(hub.stop(), Some(0));
    let read = |name: &str| proto::artifact::read_bundle(&std::fs::read(site.path(name)).unwrap()).unwrap();
    let parts = read("running.artifacts");
    let kinds: Vec<&str> = parts
        .iter()
        .filter(|part| part.part == 0)
        .map(|part| part.kind.word())
        .collect();
    assert_eq!(kinds, ["keys", "tariffs", "list"]);
    assert_eq!(read("stopped.artifacts"), parts, "the same content, the same bytes");
}

#[test]
fn a_revocation_is_about_one_thing() {
    let row = |text: &str| {
        let site = Site::new();
        site.write("seed.toml", &format!("revocations = [{{ {text} }}]\n"));
        site.command(&["check-config", "--config", "hub.toml"])
    };
    check(&row("account = 7, reason = \"fraud\""), 0, &["seed file"]);
    check(&row("device = \"w-1\""), 0, &["seed file"]);
    check(
        &row("key = \"0011223344556677\", reason = \"compromised\""),
        0,
        &["seed file"],
    );
    check(
        &row("account = 7, device = \"w-1\""),
        65,
        &["revocations[0]: one of account, device and key"],
    );
    check(
        &row("account = 7, hash = \"00\""),
        65,
        &["revocations[0]: a revocation is about a token, or"],
    );
    check(&row("device = \"W 1\""), 65, &["revocations[0]: device: a name has"]);
    check(&row("key = \"00\""), 65, &["revocations[0]: key: 2 hexadecimal digits"]);
    check(
        &row("account = 7, reason = \"whim\""),
        65,
        &["revocations[0]: reason \"whim\" is none of other, lost"],
    );
}

#[test]
fn the_operator_corrects_the_books_by_entries_with_a_reason() {
    let site = Site::new();
    let hub = site.start();
    let credit = [
        "credit",
        "--data",
        "data",
        "--account",
        "7",
        "--from",
        "revenue:charger",
        "--amount",
        "150",
    ];
    let with = |more: &[&'static str]| [&credit[..], more].concat();
    check(
        &site.command(&with(&["--reason", "charger broke off", "--json"])),
        0,
        &["{\"adjustment\":1}"],
    );
    check(
        &site.command(&with(&["--reason", ""])),
        65,
        &["a reason of 1 to 256 bytes"],
    );
    check(&site.command(&with(&[])), 64, &["--reason"]);
    let adjust = |debit, credit, amount| {
        site.command(&[
            "adjust", "--data", "data", "--debit", debit, "--credit", credit, "--amount", amount, "--reason", "why",
        ])
    };
    check(
        &adjust("loss:overdraft", "customer:7", "0"),
        65,
        &["0.00 is not above zero"],
    );
    check(
        &adjust("clearing", "customer:7", "1"),
        65,
        &["\"clearing\" is no account such as"],
    );
    check(
        &adjust("customer:7", "customer:7", "1"),
        65,
        &["customer:7 cannot be adjusted by hand"],
    );
    check(&adjust("loss:overdraft", "customer:7", "50"), 0, &["adjustment = 2"]);
    let session = "0".repeat(32);
    check(
        &site.command(&[
            "close",
            "--data",
            "data",
            "--session",
            &session,
            "--amount",
            "0",
            "--reason",
            "gone",
        ]),
        65,
        &["holds no money"],
    );
    check(
        &site.command(&["losses", "--data", "data", "--json"]),
        0,
        &["{\"account\":\"loss:overdraft\",\"session\":\"\",\"customer\":0,\"amount\":50}"],
    );
    check(&site.command(&["cases", "--data", "data"]), 0, &[]);
    check(&site.command(&["sessions", "--data", "data"]), 0, &[]);
    assert_eq!(hub.stop(), Some(0));
    check(
        &site.command(&["ledger", "export", "--data", "data"]),
        0,
        &[
            ":hub",
            "revenue:charger -> customer:7",
            "1.50  operator: charger broke off",
        ],
    );
    check(
        &site.command(&["balances", "--data", "data", "--json"]),
        0,
        &["\"credits_posted\":200", "\"arrears\":0"],
    );
    check(&site.command(&with(&["--reason", "late"])), 69, &["no hub answers"]);
}

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_voucher_of_the_command_line_is_believed_by_who_pins_the_issuer() {
    let site = Site::new();
    let order = "issue voucher --config hub.toml --site campus --kind washer --amount 600 --until 1775001599";
    let issue = |order: &str| site.command(&order.split(' ').collect::<Vec<_>>());
    let printed = lines(&issue(order));
    let number: u64 = printed[0].strip_prefix("voucher ").unwrap().parse().unwrap();
    let envelope: Vec<u8> = (0..printed[1].len() / 2)
        .map(|i| u8::from_str_radix(&printed[1][2 * i..2 * i + 2], 16).unwrap())
        .collect();
    let issuer = Issuer::from_seed(&process_support::ISSUER_SEED);
    let voucher = Voucher::open(&envelope, &[issuer.key()]).unwrap();
    assert_eq!(
        (voucher.number, voucher.scope, voucher.place.as_str()),
        (number, Scope::Site, "campus")
    );
    assert_eq!(
        (voucher.kind, voucher.amount, voucher.currency),
        (Kind::Washer, Money(600), 156)
    );
    assert_eq!((voucher.not_before_s, voucher.not_after_s), (0, 1_775_001_599));
    let at_one = order.replace("--site campus", "--device washer-12");
    assert_ne!(lines(&issue(&at_one))[0], printed[0], "each has a number of its own");
    let wrong: [(&str, &str, i32, &str); 5] = [
        ("--amount 600", "--amount 0", 65, "above zero"),
        ("--until 1775001599", "--until 0", 65, "must end"),
        ("--kind washer", "--kind oven", 64, "one of charger, washer, dispenser"),
        ("--site campus ", "", 64, "--site"),
        ("hub.toml", "nowhere.toml", 78, "nowhere.toml"),
    ];
    for (of, by, code, word) in wrong {
        check(&issue(&order.replace(of, by)), code, &[word]);
    }
}

#[test]
fn no_keypad_token_is_sold_twice() {
    let site = Site::new();
    let key = KeypadKey([7; 32]);
    site.write("w.key", &format!("{}\n", process_support::hex(&key.0)));
    let issue = |amount: &str| {
        let words = ["issue", "keypad", "--key-file", "w.key", "--counter-file", "w.counter"];
        site.command(&[&words[..], &["--amount", amount]].concat())
    };
    let mut window = ReplayWindow::default();
    for counter in 1..=3 {
        let printed = lines(&issue("600"));
        assert_eq!(printed[0], format!("keypad token {counter}"));
        let digits: String = printed[1].chars().filter(char::is_ascii_digit).collect();
        let token = key.open(digits.as_bytes(), &window).unwrap();
        assert_eq!((token.counter, token.class.amount()), (counter, Money(600)));
        window.force(token.counter);
    }
    check(&issue("601"), 65, &["601", "50, 100"]);
    assert_eq!(std::fs::read_to_string(site.path("w.counter")).unwrap().trim(), "3");
    site.write("w.counter", "three");
    check(&issue("600"), 65, &["w.counter", "no counter"]);
    site.write("w.counter", &u32::MAX.to_string());
    check(&issue("600"), 65, &["w.counter"]);
    site.write("w.key", "short");
    check(&issue("600"), 65, &["w.key", "64 hexadecimal digits"]);
}

#[test]
fn a_secret_of_codes_is_for_the_gateway_and_for_the_app() {
    let site = Site::new();
    let printed = lines(&site.command(&["issue", "code", "--account", "77", "--limit", "150"]));
    let secrets: toml::Table = printed[..printed.len() - 1].join("\n").parse().unwrap();
    let code = &secrets["codes"].as_array().unwrap()[0];
    assert_eq!(
        (code["account"].as_integer(), code["limit"].as_integer()),
        (Some(77), Some(150))
    );
    assert_eq!(code["key"].as_str().unwrap().len(), 64);
    assert!(
        printed
            .last()
            .unwrap()
            .starts_with("otpauth://totp/holdfast:77?secret=")
    );
    check(
        &site.command(&["issue", "code", "--account", "77", "--limit", "0"]),
        65,
        &["0"],
    );
}

//! The page of a running gateway: its door with HTTP by hand, and an evening with an outage as an operator's browser shows it.
//! `HOLDFAST_SCREENSHOTS=docs/page` writes the pictures of docs/page.md anew.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

#[path = "page/browser.rs"]
mod browser;
#[path = "page/door.rs"]
mod door;

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
};

use browser::{Browser, Browsers, Looks};
use door::{Answer, ask, send};
use hil_tests::{
    cloud_sim::{CloudSim, Mode},
    fleet,
    site::{BrokerKind, Plan, Site, Ways},
};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-for-the-operator";
const METRICS_TOKEN: &str = "a-token-for-prometheus";
/// Short times: a mode that takes half a minute on a site takes a second here.
const QUICK: &str = "[health]\nrecover_ms = 1500\nprobe_ms = 200\nprobe_max_ms = 500\necho_ms = 400\necho_wait_ms = 600\n\
    hello_ms = 600\n\n[page]\n";
/// How long people come: longer than anybody looks.
const EVENING_S: f64 = 300.0;
const DESKTOP: (u32, u32) = (1280, 1900);
const PHONE: (u32, u32) = (390, 2000);

/// The address that the gateway said in its log.
fn page_of(site: &Site, start: usize) -> SocketAddr {
    site.gateway.wait_for("the page is served").unwrap();
    let log = fs::read_to_string(site.dir.join("gateway.log")).unwrap();
    let said = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let said = said.filter_map(|line| line["fields"]["page"].as_str()?.parse().ok());
    said.skip(start).last().unwrap()
}

fn site(plan: Plan, dir: &Path, cloud: SocketAddr, hub: hil_tests::process::Process) -> Site {
    let ways = Ways {
        secrets: format!("page_token = \"{TOKEN}\"\nmetrics_token = \"{METRICS_TOKEN}\"\n"),
        ..Ways::hub(cloud)
    };
    Site::start_through(plan, dir, hub, &ways, BrokerKind::Embedded).unwrap()
}

fn log_in(page: SocketAddr) -> String {
    let answer = ask(page, "POST /login", &[], &format!("token={TOKEN}"));
    assert_eq!((answer.status, answer.header("location")), (303, "/"));
    let cookie = answer.header("set-cookie");
    for needed in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
        assert!(cookie.contains(needed), "{cookie}");
    }
    cookie.split(';').next().unwrap().to_owned()
}

/// The first event of the stream: what the page is told.
fn first_event(page: SocketAddr, cookie: &str) -> Value {
    let mut stream = TcpStream::connect(page).unwrap();
    write!(
        stream,
        "GET /events HTTP/1.1\r\nHost: {page}\r\nCookie: {cookie}\r\n\r\n"
    )
    .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(stream)).map_while(Result::ok);
    let mut told = lines.filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok());
    told.next().unwrap()
}

/// The exposition read by Prometheus' own library: its samples by name.
fn parsed(text: &str) -> Value {
    let script = "import sys, json; from prometheus_client.parser import text_string_to_metric_families as parse; \
        families = list(parse(sys.stdin.read())); \
        print(json.dumps({f.name: {'type': f.type, 'help': f.documentation, 'samples': [[s.name, s.labels, s.value] for s in f.samples]} for f in families}))";
    let python = std::env::var("HOLDFAST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut child = Command::new(python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "the exposition is not what Prometheus reads:\n{text}"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(answer: &Answer, status: u16, why: &str) {
    assert_eq!(answer.status, status, "{why}: {answer:?}");
}

#[test]
fn the_door() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = Plan::new(3, 3, 30);
    plan.limits = format!("{QUICK}listen = \"127.0.0.1:0\"\nhosts = [\"gw.campus.example\"]\n");
    let (hub, address) = Site::start_hub(&plan, dir.path()).unwrap();
    let site = site(plan, dir.path(), address, hub);
    let page = page_of(&site, 0);

    // Somebody's name for this address, and none.
    refused(
        &ask(page, "GET /", &[("Host", "evil.example")], ""),
        421,
        "DNS rebinding",
    );
    refused(
        &ask(page, "GET /login", &[("Host", "gw.campus.example:8080")], ""),
        200,
        "a name of ours",
    );
    refused(&send(page, b"GET / HTTP/1.0\r\n\r\n"), 421, "no name");

    // Nothing without a login but health.
    for path in ["/events", "/why?of=charger-001", "/diff?what=list"] {
        refused(&ask(page, &format!("GET {path}"), &[], ""), 401, path);
    }
    refused(&ask(page, "GET /", &[], ""), 303, "to the login");
    for path in ["/healthz", "/readyz"] {
        refused(&ask(page, &format!("GET {path}"), &[], ""), 200, path);
    }
    refused(&ask(page, "DELETE /", &[], ""), 405, "only GET and POST");
    refused(&ask(page, "GET /../secrets.toml", &[], ""), 404, "no files");

    // What every answer says to browsers.
    let login = ask(page, "GET /login", &[], "");
    for (name, needed) in [
        ("content-security-policy", "default-src 'none'"),
        ("content-security-policy", "frame-ancestors 'none'"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("x-frame-options", "DENY"),
        ("cache-control", "no-store"),
    ] {
        assert!(login.header(name).contains(needed), "{name} in {}", login.head);
    }
    assert!(
        !login.header("content-security-policy").contains("unsafe"),
        "no inline script"
    );

    // Deciding needs the cookie, what only our page knows, and a page of ours.
    let cookie = log_in(page);
    let csrf = first_event(page, &cookie)["me"]["csrf"].as_str().unwrap().to_owned();
    let adopt = |cookie: &str, csrf: &str, origin: &str, body: &str| {
        let headers = [("Cookie", cookie), ("X-Holdfast-CSRF", csrf), ("Origin", origin)];
        ask(page, "POST /adopt", &headers, body)
    };
    let (ours, body) = (
        format!("http://{page}"),
        json!({"what": "policy", "revision": 7}).to_string(),
    );
    refused(&adopt("holdfast=0", &csrf, &ours, &body), 403, "no login");
    refused(&adopt(&cookie, "0", &ours, &body), 403, "another token");
    refused(
        &adopt(&cookie, &csrf, "http://evil.example", &body),
        403,
        "another site",
    );
    refused(&adopt(&cookie, &csrf, &ours, "{}"), 400, "no decision");
    refused(
        &adopt(
            &cookie,
            &csrf,
            &ours,
            &json!({"what": "policy", "revision": 0}).to_string(),
        ),
        400,
        "whichever",
    );
    refused(&adopt(&cookie, &csrf, &ours, &"x".repeat(2_000)), 413, "too long");
    let answer = adopt(&cookie, &csrf, &ours, &body);
    refused(&answer, 409, "nothing is set aside");
    assert!(answer.body.contains("no such policy is set aside"), "{answer:?}");
    refused(
        &ask(
            page,
            "POST /login",
            &[("Origin", "http://evil.example")],
            &format!("token={TOKEN}"),
        ),
        403,
        "foreign",
    );
    refused(
        &ask(page, "POST /logout", &[("Cookie", &cookie)], ""),
        303,
        "logged out",
    );
    refused(
        &ask(page, "GET /why?of=charger-001", &[("Cookie", &cookie)], ""),
        401,
        "the cookie is worth nothing",
    );

    metrics(page);

    // Floods, giants and dawdlers; others are served meanwhile.
    refused(
        &ask(page, "GET /", &[("X-Much", &"x".repeat(40_000))], ""),
        431,
        "a giant header",
    );
    let dawdlers: Vec<_> = (0..12).map(|_| TcpStream::connect(page)).collect();
    let slow = std::thread::spawn(move || send(page, b"GET / HTTP/1.1\r\nHost: local"));
    refused(&ask(page, "GET /healthz", &[], ""), 200, "others are served");
    drop(dawdlers);
    let slow = slow.join().unwrap();
    assert!(slow.status == 408 || slow.status == 0, "who dawdles is cut: {slow:?}");

    // Five wrong tries, and then even the right one waits.
    for _ in 0..5 {
        refused(&ask(page, "POST /login", &[], "token=wrong"), 403, "another token");
    }
    refused(
        &ask(page, "POST /login", &[], &format!("token={TOKEN}")),
        429,
        "too many tries",
    );
    let log = fs::read_to_string(site.dir.join("gateway.log")).unwrap();
    assert!(
        !log.contains(TOKEN) && !log.contains(METRICS_TOKEN),
        "no secret is logged"
    );
    assert_eq!(site.stop().unwrap(), (0, 0));
}

fn metrics(page: SocketAddr) {
    refused(&ask(page, "GET /metrics", &[], ""), 401, "no token");
    refused(
        &ask(page, "GET /metrics", &[("Authorization", "Bearer wrong")], ""),
        401,
        "another token",
    );
    let bearer = format!("Bearer {METRICS_TOKEN}");
    let told = ask(page, "GET /metrics", &[("Authorization", &bearer)], "");
    refused(&told, 200, "the token of machines");
    assert_eq!(told.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let families = parsed(&told.body);
    let metrics = gateway::page::METRICS;
    assert_eq!(families.as_object().unwrap().len(), metrics.len());
    for metric in metrics {
        // The library cuts `_total` off the family's name.
        let family = &families[metric.name.trim_end_matches("_total")];
        assert_eq!(
            (family["type"].as_str(), family["help"].as_str()),
            (Some(metric.kind), Some(metric.help))
        );
        let samples = family["samples"].as_array().unwrap();
        assert!(!samples.is_empty(), "{} has no sample", metric.name);
        assert!(samples.len() <= 32, "{}: labels are bounded", metric.name);
        assert!(samples.iter().all(|sample| sample[0] == metric.name), "{family}");
    }
    let value = |name: &str, label: &str| {
        let samples = families[name]["samples"].as_array().unwrap().clone();
        let mut found = samples
            .into_iter()
            .filter(|s| s[1].as_object().unwrap().values().any(|v| v == label));
        found.next().unwrap()[2].as_f64().unwrap()
    };
    assert_eq!(value("holdfast_devices", "charger"), 1.0);
    assert_eq!(value("holdfast_capability_mode", "ONLINE"), 1.0);
    assert_eq!(value("holdfast_refusals", "revoked"), 0.0);
}

/// Has the hub publish this cap of a dispenser's session.
fn publish(site: &Site, money_max: i64) {
    let policy = format!(
        "[policy]\nsite_budget = 200000\nlist_full_s = 259200\nlist_half_s = 604800\nconfirmation_s = 259200\n\
         attempts_a_minute_max = 100\nstarts_an_hour_max = 100\n[[policy.classes]]\nclass = \"dispenser\"\n\
         units_max = 5000\nmoney_max = {money_max}\nduration_max_s = 600\noutage_count_lower = 6\n\
         outage_count_upper = 100\noutage_money_max = 10000\nemergency_units = 2000\ninvalidation_units = 100\n"
    );
    fs::write(site.dir.join("hub/seed.toml"), site.plan.hub_seed() + &policy).unwrap();
    site.ask_hub("reload").unwrap();
}

/// Every picture and check of one moment, on another screen than the desktop that stays open.
async fn also_on(browsers: &Browsers, page: SocketAddr, looks: Looks, name: &str, headline: &str) {
    let phone = browsers.open(looks).await;
    log_in_with(&phone, page).await;
    phone.until("#headline", headline, |text| text.contains(headline)).await;
    phone.until("#outages", "read", |text| !text.is_empty()).await;
    assert_eq!(phone.overflow().await, 0, "{name} scrolls sideways");
    assert_eq!(phone.faults().await, Vec::<String>::new(), "{name}");
    phone.picture(name).await;
    phone.client.close().await.unwrap();
}

async fn log_in_with(browser: &Browser, page: SocketAddr) {
    browser.go(page, "").await;
    assert_eq!(browser.client.current_url().await.unwrap().path(), "/login");
    assert_eq!(browser.faults().await, Vec::<String>::new(), "the login");
    browser
        .run(&format!(
            "document.getElementById('token').value = '{TOKEN}'; document.forms[0].requestSubmit();"
        ))
        .await;
    browser
        .until("#live", "live", |text| text == "Live" || text == "实时")
        .await;
}

#[test]
fn an_outage_as_an_operator_sees_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut plan = Plan::new(11, 9, 120);
    let port = hil_tests::site::free_port().unwrap();
    plan.limits = format!("{QUICK}listen = \"127.0.0.1:{port}\"\n");
    let (hub, address) = Site::start_hub(&plan, dir.path()).unwrap();
    let cloud = runtime.block_on(CloudSim::start(plan.cloud(address))).unwrap();
    let mut site = site(plan, dir.path(), cloud.address(), hub);
    let page = page_of(&site, 0);
    let fleet = fleet::Process::start(&site.plan, site.device_address, EVENING_S, dir.path()).unwrap();
    runtime.block_on(evening(&site, &cloud, page));

    // The gateway is gone, the browser says so; it is back, and nobody is logged in any more.
    let browsers = Browsers::start();
    runtime.block_on(async {
        let browser = browsers.open(looks("en")).await;
        log_in_with(&browser, page).await;
        site.gateway.kill().unwrap();
        browser
            .until("#live", "cut", |text| text.starts_with("Not live since "))
            .await;
        assert!(browser.text("#cut").await.contains("The devices go on all the same"));
        site.boot_gateway(&[]).unwrap();
        browser
            .until("label", "the login", |text| text.starts_with("Access token"))
            .await;
        browser.client.close().await.unwrap();
    });
    // People go on coming; nobody here waits for them.
    drop(fleet);
    assert_eq!(site.stop().unwrap(), (0, 0));
}

const fn looks(lang: &'static str) -> Looks {
    Looks {
        lang,
        size: DESKTOP,
        is_phone: false,
        is_dark: false,
    }
}

const fn phone(lang: &'static str, is_dark: bool) -> Looks {
    Looks {
        lang,
        size: PHONE,
        is_phone: true,
        is_dark,
    }
}

/// One browser that is never loaded again, and others that come and go.
async fn evening(site: &Site, cloud: &CloudSim, page: SocketAddr) {
    let browsers = Browsers::start();
    let desk = browsers.open(looks("en")).await;
    log_in_with(&desk, page).await;
    desk.run("window.opened = true;").await;

    // All is well, and somebody is being served.
    desk.until("#headline", "well", |text| {
        text.starts_with("All is well. ") && text.ends_with(" in use.")
    })
    .await;
    desk.until("#sessions", "a session that draws", |text| text.contains("drawing"))
        .await;
    desk.until("#kinds", "all connected", |text| {
        text.matches("3 of 3 connected").count() == 3
    })
    .await;
    assert_eq!(desk.faults().await, Vec::<String>::new(), "all is well");
    desk.picture("desktop-en-normal").await;
    desk.click("[data-lang=zh]").await;
    desk.until("#headline", "well in Chinese", |text| text.starts_with("一切正常"))
        .await;
    assert_eq!(
        desk.run("return document.documentElement.lang + location.search").await,
        "zh-CN?lang=zh"
    );
    desk.picture("desktop-zh-normal").await;
    desk.click("[data-lang=en]").await;
    also_on(&browsers, page, phone("zh-CN", false), "phone-zh-normal", "一切正常").await;
    also_on(&browsers, page, phone("en", false), "phone-en-normal", "All is well").await;

    // Limits that look wrong wait for the operator, who sees what would change and adopts it.
    publish(site, 150);
    publish(site, 1501);
    desk.until("#aside", "set aside", |text| {
        text.contains("New limits, revision 2, look wrong")
    })
    .await;
    desk.click("#aside button").await;
    let diff = desk
        .until("#diff", "the difference", |text| text.contains("money_max"))
        .await;
    assert!(diff.contains("¥1.50") && diff.contains("¥15.01"), "{diff}");
    assert_eq!(desk.faults().await, Vec::<String>::new(), "to decide");
    desk.picture("desktop-en-decide").await;
    desk.click("#adopt").await;
    desk.until("body", "adopted", |text| !text.contains("New limits")).await;
    assert_eq!(site.ask_gateway("status").unwrap()["policy_revision"], 2);

    outage(site, cloud, page, &browsers, &desk).await;
    assert_eq!(desk.run("return window.opened").await, true, "nothing was loaded again");
    desk.client.close().await.unwrap();
}

async fn outage(site: &Site, cloud: &CloudSim, page: SocketAddr, browsers: &Browsers, desk: &Browser) {
    // The cloud lies as on 2023-11-12.
    cloud.set(Mode::Lying);
    let headline = desk
        .until("#headline", "an outage", |text| text.starts_with("Outage since "))
        .await;
    assert!(headline.ends_with("Cards on the list are served."), "{headline}");
    let modes = desk
        .until("#modes", "three modes without the cloud", |text| {
            text.matches("without the cloud").count() == 3
        })
        .await;
    assert!(modes.contains("Records are kept here; nothing is lost."), "{modes}");
    desk.until("#outages", "the outage", |text| {
        text.contains("Who may draw: without the cloud since ")
    })
    .await;
    desk.until("#waiting", "records that wait", |text| text != "0").await;
    assert_eq!(desk.faults().await, Vec::<String>::new(), "in an outage");

    // Why: by a device, and by the first digits of a session.
    desk.run("document.getElementById('of').value = 'charger-001'; document.getElementById('search').requestSubmit();")
        .await;
    desk.until("#why", "an explanation", |text| text.contains("Step by step"))
        .await;
    let sessions = site.ask_gateway("sessions").unwrap();
    let refused = sessions
        .as_array()
        .unwrap()
        .iter()
        .find(|session| session["state"] == "refused");
    if let Some(session) = refused.and_then(|session| session["session"].as_str()) {
        desk.run(&format!(
            "document.getElementById('of').value = '{session}'; document.getElementById('search').requestSubmit();"
        ))
        .await;
        desk.until("#why", "a refusal", |text| {
            text.contains("Refused at step") && text.contains(session)
        })
        .await;
    }
    desk.run(
        "document.getElementById('of').value = 'ffffffffffff'; document.getElementById('search').requestSubmit();",
    )
    .await;
    desk.until("#why", "nothing", |text| text.contains("no session ffffffffffff"))
        .await;
    // What happened last at a device may have been before the outage: somebody whom the list served.
    let sessions = site.ask_gateway("sessions").unwrap();
    let by_list = sessions
        .as_array()
        .unwrap()
        .iter()
        .find(|session| session["rule"] == 7 && session["refused"].is_null())
        .and_then(|session| session["session"].as_str())
        .expect("the list serves people");
    desk.run(&format!(
        "document.getElementById('of').value = '{by_list}'; document.getElementById('search').requestSubmit();"
    ))
    .await;
    desk.until("#why", "an explanation", |text| {
        text.contains("Step by step") && text.contains(by_list)
    })
    .await;
    desk.picture("desktop-en-outage").await;
    desk.click("[data-lang=zh]").await;
    desk.until("#headline", "the outage in Chinese", |text| {
        text.contains("起中断。名单上的卡照常使用。")
    })
    .await;
    desk.until("#why ol", "the steps in Chinese", |text| text.contains("名单版本 1（"))
        .await;
    let untold = "return document.querySelectorAll('#why ol [lang=en]').length;";
    assert_eq!(desk.run(untold).await, json!(0), "{}", desk.text("#why").await);
    desk.picture("desktop-zh-outage").await;
    desk.click("[data-lang=en]").await;
    also_on(
        browsers,
        page,
        phone("zh-CN", false),
        "phone-zh-outage",
        "名单上的卡照常使用",
    )
    .await;
    also_on(
        browsers,
        page,
        phone("en", true),
        "phone-en-outage-dark",
        "Cards on the list are served",
    )
    .await;

    // And back, without loading anything again.
    cloud.set(Mode::Honest);
    desk.until("#headline", "well again", |text| text.starts_with("All is well."))
        .await;
    desk.until("#outages", "the outage, over", |text| {
        text.contains("Who may draw: without the cloud from ")
    })
    .await;
}

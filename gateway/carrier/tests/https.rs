//! HTTPS against a backend by hyper with rustls: signed, unsigned, replayed, late and far too long answers, bad
//! certificates, and a proxy that disturbs the line at every TLS record.

#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

mod common;

use std::{
    future::pending,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use carrier::{Class, Connection, Event, Symptom, http::Options, tls::Tls};
use common::{
    backend::{self, Answer, Asked, Backend, KEY, unsigned},
    certs::{self, Authority, FUTURE, NOW, PAST, Years},
    down, message,
    proxy::{Direction, Fault, Framing, Kind, Proxy},
    soon, up,
};
use tempfile::TempDir;

const PATH: &str = "/v1/gateways/gw-1/messages";

/// A line without TLS, cut into what the proxy takes for packets of MQTT, would make no sense: so everything has TLS.
struct Rig {
    dir: TempDir,
    authority: Authority,
    backend: Backend,
    proxy: Proxy,
}

impl Rig {
    async fn new<F, A>(answer: A) -> Self
    where
        F: Future<Output = Answer> + Send,
        A: Fn(Asked) -> F + Clone + Send + Sync + 'static,
    {
        let (dir, authority) = (TempDir::new().unwrap(), Authority::new("authority"));
        let config = backend::secured(&authority.server("localhost", NOW), None);
        let backend = Backend::start(dir.path(), Some(config), answer);
        let proxy = Proxy::new(backend.socket.clone(), Framing::Tls, None).await;
        Self {
            dir,
            authority,
            backend,
            proxy,
        }
    }

    fn options(&self) -> Options {
        options(&self.proxy, self.dir.path(), &self.authority)
    }
}

fn options(proxy: &Proxy, dir: &Path, trusted: &Authority) -> Options {
    Options {
        tls: Some(Tls::new(certs::files(dir, trusted, None))),
        ..Options::new(format!("https://{}", proxy.host_port()), KEY.to_vec())
    }
}

fn post(connection: &Connection, body: &str) {
    connection.sender().publish(PATH, body.as_bytes().to_vec()).unwrap();
}

/// Posts once, and returns why that was the end.
async fn end(options: &Options) -> Symptom {
    let mut connection = Connection::open_http(options);
    up(&mut connection).await;
    post(&connection, "{}");
    down(&mut connection).await
}

#[tokio::test]
async fn posts_go_one_after_the_other_on_one_line_and_polls_beside_them() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let rig = Rig::new(move |request: Asked| {
        let seen = seen.clone();
        async move {
            let first_poll = {
                let mut seen = seen.lock().unwrap();
                seen.push(request.clone());
                seen.iter().filter(|asked| asked.method == "GET").count() == 1
            };
            match &*request.method {
                "POST" => request.answer(200, [b"answer to ", &*request.body].concat()),
                _ if first_poll => request.answer(200, "news"),
                _ => pending().await,
            }
        }
    })
    .await;
    let mut options = rig.options();
    options.url.push_str("/prefix/");
    options.poll = Some(format!("{PATH}?lane=0&wait_s=25"));
    options.clock = Arc::new(|| 1_700_000_000);
    let mut connection = Connection::open_http(&options);
    up(&mut connection).await;
    for at in 0..20 {
        post(&connection, &at.to_string());
    }
    let (mut answers, mut news) = (Vec::new(), 0);
    while answers.len() < 20 || news == 0 {
        let (topic, body) = message(&mut connection).await;
        assert_eq!(topic, PATH);
        match &*body {
            b"news" => news += 1,
            _ => answers.push(String::from_utf8(body).unwrap()),
        }
    }
    let expected: Vec<String> = (0..20).map(|at| format!("answer to {at}")).collect();
    assert_eq!(answers, expected);
    assert_eq!(rig.backend.lines(), 2, "one line for POST, one for GET");
    let asked = asked.lock().unwrap();
    let mut nonces: Vec<&str> = asked.iter().map(|asked| &*asked.nonce).collect();
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), asked.len(), "no nonce twice");
    for asked in asked.iter() {
        assert!(asked.is_signed && asked.time_s == 1_700_000_000, "{asked:?}");
        assert!(asked.path_and_query.starts_with(&format!("/prefix{PATH}")), "{asked:?}");
        assert_eq!(asked.nonce.len(), 32);
    }
}

#[tokio::test]
async fn only_our_backends_answers_count() {
    type Make = fn(&Asked) -> Answer;
    #[rustfmt::skip]
    let cases: [(&str, Make, Class, u16); 12] = [
        ("unsigned", |_| unsigned(200, "{}"), Class::Intercepted, 200),
        ("signed with another key", |asked| asked.signed_by(b"another", &asked.nonce, 200, "{}"), Class::Intercepted, 200),
        ("of another request", |asked| asked.signed_by(KEY, "00", 200, "{}"), Class::Intercepted, 200),
        ("a page", |_| unsigned(200, "<!doctype html>"), Class::Intercepted, 200),
        ("redirected", |_| unsigned(307, ""), Class::Intercepted, 307),
        ("signed 403", |asked| asked.answer(403, r#"{"code":"AccessDenied"}"#), Class::Denied, 403),
        ("403", |_| unsigned(403, ""), Class::Denied, 403),
        ("404", |_| unsigned(404, ""), Class::Protocol, 404),
        ("429", |_| unsigned(429, ""), Class::Throttled, 429),
        ("500", |_| unsigned(500, "oops"), Class::Broken, 500),
        ("503", |asked| asked.answer(503, "later"), Class::Broken, 503),
        ("too long", |asked| asked.answer(200, vec![b'x'; (4 << 20) + 1]), Class::Protocol, 200),
    ];
    for (name, make, class, code) in cases {
        let rig = Rig::new(move |asked: Asked| async move { make(&asked) }).await;
        let symptom = end(&rig.options()).await;
        assert_eq!((symptom.class, symptom.code), (class, code), "{name}: {symptom}");
    }
}

#[tokio::test]
async fn all_that_waited_for_us_fits_one_answer() {
    let rig = Rig::new(|asked: Asked| async move { asked.answer(200, vec![b'x'; 4 << 20]) }).await;
    let mut connection = Connection::open_http(&rig.options());
    up(&mut connection).await;
    post(&connection, "{}");
    assert_eq!(message(&mut connection).await.1.len(), 4 << 20);
}

#[tokio::test]
async fn nothing_waits_longer_than_it_may() {
    let hangs = Rig::new(|_| pending()).await;
    let mut options = hangs.options();
    options.answer_s_max = 1;
    let symptom = end(&options).await;
    let expected = (Class::Partition, "no whole answer to POST in 1 s");
    assert_eq!((symptom.class, &*symptom.text), expected);

    // A GET may wait longer, but not for ever.
    options.poll = Some(PATH.to_owned());
    options.poll_s_max = 1;
    options.answer_s_max = 30;
    let mut connection = Connection::open_http(&options);
    up(&mut connection).await;
    let symptom = down(&mut connection).await;
    assert_eq!(
        (symptom.class, &*symptom.text),
        (Class::Partition, "no whole answer to GET in 1 s")
    );
}

#[tokio::test]
async fn a_line_that_was_closed_while_idle_is_replaced() {
    let rig = Rig::new(|asked: Asked| async move {
        let mut answer = asked.answer(200, "done");
        answer.headers_mut().insert("connection", "close".parse().unwrap());
        answer
    })
    .await;
    let mut connection = Connection::open_http(&rig.options());
    up(&mut connection).await;
    for count in 1..=5 {
        post(&connection, "{}");
        assert_eq!(message(&mut connection).await.1, b"done");
        assert_eq!(rig.backend.lines(), count);
    }
}

#[tokio::test]
async fn a_backend_that_never_waits_is_not_hammered() {
    /// As many as may come at once, and two more.
    const POLLS: usize = 18;
    let began = Instant::now();
    let (polled, mut polls) = tokio::sync::mpsc::unbounded_channel();
    let rig = Rig::new(move |asked: Asked| {
        polled.send(began.elapsed()).unwrap();
        async move { asked.answer(200, "") }
    })
    .await;
    let mut options = rig.options();
    options.poll = Some(PATH.to_owned());
    let mut connection = Connection::open_http(&options);
    up(&mut connection).await;
    let mut last = Duration::ZERO;
    for _ in 0..POLLS {
        last = soon("a poll", polls.recv()).await.unwrap();
    }
    assert!(last >= Duration::from_secs(1), "{POLLS} polls in {last:?}");
}

#[tokio::test]
async fn certificates_of_all_kinds() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    type Row<'a> = (&'a str, &'a str, Years, &'a Authority, Option<&'a Authority>, Class);
    let cases: [Row<'_>; 6] = [
        (
            "an authority we do not know",
            "localhost",
            NOW,
            &other,
            None,
            Class::Intercepted,
        ),
        (
            "another name",
            "elsewhere.example",
            NOW,
            &authority,
            None,
            Class::Intercepted,
        ),
        ("expired", "localhost", PAST, &authority, None, Class::Clock),
        ("not yet valid", "localhost", FUTURE, &authority, None, Class::Clock),
        (
            "we show no certificate",
            "localhost",
            NOW,
            &authority,
            Some(&other),
            Class::Denied,
        ),
        (
            "we show a foreign one",
            "localhost",
            NOW,
            &authority,
            Some(&authority),
            Class::Denied,
        ),
    ];
    for (name, host, years, trusted, clients, class) in cases {
        let dir = TempDir::new().unwrap();
        let config = backend::secured(&authority.server(host, years), clients);
        let backend = Backend::start(
            dir.path(),
            Some(config),
            |asked: Asked| async move { asked.answer(200, "") },
        );
        let proxy = Proxy::new(backend.socket.clone(), Framing::Tls, None).await;
        let mut options = options(&proxy, dir.path(), trusted);
        if name == "we show a foreign one" {
            let identity = certs::write_pair(dir.path(), "us", &other.client("gw-1", 1, NOW));
            options.tls = Some(Tls::new(certs::files(dir.path(), trusted, Some(identity))));
        }
        let mut connection = Connection::open_http(&options);
        // With TLS 1.3 a client learns from the answer to its first words that it is not liked.
        post(&connection, "{}");
        let symptom = down(&mut connection).await;
        assert_eq!(symptom.class, class, "{name}: {symptom}");
    }
    // No TLS where it should be, and the other way round.
    for url in ["http://localhost:1", "https://localhost:1?x", "localhost"] {
        let options = Options {
            url: url.to_owned(),
            tls: Some(Tls::new(certs::files(TempDir::new().unwrap().path(), &authority, None))),
            ..Options::new("", Vec::new())
        };
        let symptom = down(&mut Connection::open_http(&options)).await;
        assert_eq!(symptom.class, Class::Protocol, "{url}: {symptom}");
    }
}

/// Three POSTs while records are counted, six when one of them is disturbed.
async fn converse(options: &Options, posts: usize) -> Option<Symptom> {
    let mut connection = Connection::open_http(options);
    let mut posted = 0;
    loop {
        match soon("whatever comes", connection.next()).await {
            Event::Message(_) if posted == posts => return None,
            Event::Up | Event::Message(_) => {
                post(&connection, "{}");
                posted += 1;
            }
            Event::Symptom(symptom) => panic!("{symptom}"),
            Event::Down(symptom) => return Some(symptom),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_is_disturbed_at_every_record() {
    let rig = Rig::new(|asked: Asked| async move { asked.answer(200, "{}") }).await;
    let options = rig.options();
    assert!(converse(&options, 3).await.is_none());
    let (ups, downs) = rig.proxy.counts();
    let units = (0..ups).map(|unit| (Direction::Up, unit));
    let mut running = tokio::task::JoinSet::new();
    for (direction, unit) in units.chain((0..downs).map(|unit| (Direction::Down, unit))) {
        for kind in [
            Kind::Cut,
            Kind::Reset,
            Kind::Stall,
            Kind::Clog,
            Kind::Corrupt,
            Kind::Slow,
        ] {
            let fault = Fault { kind, direction, unit };
            let (socket, template) = (rig.backend.socket.clone(), options.clone());
            running.spawn(async move {
                let proxy = Proxy::new(socket, Framing::Tls, Some(fault)).await;
                let s_max = if matches!(kind, Kind::Stall | Kind::Clog) {
                    1
                } else {
                    20
                };
                let options = Options {
                    url: format!("https://{}", proxy.host_port()),
                    connect_s_max: s_max,
                    answer_s_max: s_max,
                    ..template
                };
                (fault, converse(&options, 6).await)
            });
        }
    }
    let count = running.len();
    for (fault, end) in running.join_all().await {
        match (fault.kind, end.map(|symptom| symptom.class)) {
            (Kind::Slow, None) => {}
            (_, Some(Class::Partition)) => {}
            // Of the one record that only middle boxes read, nobody notices anything.
            (Kind::Corrupt, None | Some(Class::Intercepted | Class::Protocol | Class::Denied)) => {}
            (_, end) => panic!("{fault:?}: {end:?}"),
        }
    }
    println!("{count} disturbed lines, {ups} records up and {downs} down");
}

//! Requests and answers. Everything is looked at with GET; POST logs in and out, and decides what is set aside.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use gateway_core::why::Wanted;
use http_body_util::{BodyExt, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use proto::id::DeviceId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    App,
    body::Body,
    feed,
    guard::{COOKIE, Guard, LOGIN_FOR, Tried, Who, is_same},
    metrics,
};
use crate::control::{Gated, Query};

const PAGE: &str = include_str!("assets/page.html");
const LOGIN: &str = include_str!("assets/login.html");
const STYLE: &str = include_str!("assets/page.css");
const SCRIPT: &str = include_str!("assets/page.js");
const WORDS: &str = include_str!("assets/words.js");
const SENTENCES: &str = include_str!("assets/sentences.js");

/// Largest body of a request, in bytes: a token, or a decision.
const BODY_BYTES_MAX: usize = 1_024;
/// How long it may take to come.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// Longest text to search for, in characters: a session id, or a device's name.
const SEARCH_CHARS_MAX: usize = 64;
/// With what a decision must come; only our own page knows it.
const CSRF: &str = "x-holdfast-csrf";

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Headers of every answer. Nothing from elsewhere, nothing inline, in nobody's frame, kept by nobody. (With `no-referrer` browsers would
/// send our own forms with `Origin: null`.)
const HEADERS: [(&str, &str); 9] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("x-frame-options", "DENY"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ("cache-control", "no-store"),
    ("x-robots-tag", "noindex"),
];

type Answer = Response<Body>;

/// The answer to one request.
pub(super) async fn answer(app: Arc<App>, peer: IpAddr, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let mut answer = route(&app, peer, request).await;
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(answer)
}

async fn route(app: &Arc<App>, peer: IpAddr, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let headers = head.headers;
    if !app.guard.knows_host(&headers) {
        return plain(
            StatusCode::MISDIRECTED_REQUEST,
            "the page is not known by this name; add it to page.hosts of the configuration",
        );
    }
    let who = || app.guard.who(&headers, std::time::Instant::now());
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/healthz") => health(app).await,
        (&Method::GET, "/readyz") => ready(app).await,
        (&Method::GET, "/metrics") => measured(app, &headers).await,
        (&Method::GET, "/page.css") => typed("text/css; charset=utf-8", STYLE),
        (&Method::GET, "/page.js") => typed("text/javascript; charset=utf-8", SCRIPT),
        (&Method::GET, "/words.js") => typed("text/javascript; charset=utf-8", WORDS),
        (&Method::GET, "/sentences.js") => typed("text/javascript; charset=utf-8", SENTENCES),
        (&Method::GET, "/login") if app.guard.has_login() => login_page("", StatusCode::OK),
        (&Method::POST, "/login") if app.guard.has_login() => log_in(app, peer, &headers, body).await,
        (&Method::POST, "/logout") if !Guard::is_foreign(&headers) => {
            app.guard.log_out(&headers);
            moved(
                "/login",
                Some(format!("{COOKIE}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0")),
            )
        }
        (&Method::GET, "/") => match who() {
            Who::Stranger => moved("/login", None),
            Who::Onlooker | Who::Operator(_) => typed(HTML, PAGE),
        },
        (&Method::GET, "/events" | "/why" | "/diff") if who() == Who::Stranger => {
            plain(StatusCode::UNAUTHORIZED, "log in first")
        }
        (&Method::GET, "/events") => match feed::events(app, headers) {
            Some(body) => with(StatusCode::OK, "text/event-stream", body),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "too many browsers look at this page"),
        },
        (&Method::GET, "/why") => why(app, query(head.uri.query(), "of")).await,
        (&Method::GET, "/diff") => diff(app, query(head.uri.query(), "what")).await,
        (&Method::POST, "/adopt") => adopt(app, peer, &headers, who(), body).await,
        (_, "/" | "/events" | "/why" | "/diff" | "/metrics" | "/healthz" | "/readyz" | "/adopt") => {
            plain(StatusCode::METHOD_NOT_ALLOWED, "look with GET, decide with POST")
        }
        _ => plain(StatusCode::NOT_FOUND, "there is nothing here"),
    }
}

// ---------------------------------------------------------------- for machines

/// The process lives: its engine answers.
async fn health(app: &App) -> Answer {
    match app.feed.seen().await {
        Ok(_) => plain(StatusCode::OK, "ok: the engine answers"),
        Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, &error),
    }
}

/// Devices can be served.
async fn ready(app: &App) -> Answer {
    match app.feed.seen().await {
        Ok(seen) if seen.answer["status"]["devices_connected"].is_null() => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "no connection to the broker at which devices are met",
        ),
        Ok(_) => plain(StatusCode::OK, "ok: devices can be served"),
        Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, &error),
    }
}

async fn measured(app: &App, headers: &HeaderMap) -> Answer {
    if !app.guard.may_measure(headers, std::time::Instant::now()) {
        let mut answer = plain(
            StatusCode::UNAUTHORIZED,
            "send `Authorization: Bearer` with metrics_token of the secrets file",
        );
        let realm = HeaderValue::from_static("Bearer");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
        return answer;
    }
    match app.feed.seen().await {
        Ok(seen) => {
            let text = metrics::render(&seen.answer, seen.counts.as_ref(), app.guard.failed());
            with(StatusCode::OK, metrics::CONTENT_TYPE, Body::whole(text))
        }
        Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, &error),
    }
}

// ---------------------------------------------------------------- logging in

fn login_page(word: &str, status: StatusCode) -> Answer {
    with(
        status,
        HTML,
        Body::whole(LOGIN.replace("data-said=\"\"", &format!("data-said=\"{word}\""))),
    )
}

async fn log_in(app: &App, peer: IpAddr, headers: &HeaderMap, body: Incoming) -> Answer {
    if Guard::is_foreign(headers) {
        return plain(StatusCode::FORBIDDEN, "another site sent this form");
    }
    let body = match read(body).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let text = String::from_utf8_lossy(&body);
    let token = decoded(query(Some(&text), "token").unwrap_or_default());
    match app.guard.log_in(peer, &token, std::time::Instant::now()) {
        Ok(Tried::Welcome(value)) => {
            tracing::info!(%peer, "somebody logged in on the page");
            let age_s = LOGIN_FOR.as_secs();
            let cookie = format!("{COOKIE}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={age_s}");
            moved("/", Some(cookie))
        }
        Ok(Tried::Wrong) => {
            tracing::warn!(%peer, "a wrong token was tried on the page");
            login_page("wrong", StatusCode::FORBIDDEN)
        }
        Ok(Tried::Wait) => login_page("wait", StatusCode::TOO_MANY_REQUESTS),
        Err(error) => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("no random numbers to be had: {error}"),
        ),
    }
}

// ---------------------------------------------------------------- for people

async fn why(app: &App, of: Option<&str>) -> Answer {
    let of = of.unwrap_or_default();
    let is_of = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    if !(1..=SEARCH_CHARS_MAX).contains(&of.len()) || !of.bytes().all(is_of) {
        return plain(
            StatusCode::BAD_REQUEST,
            "give a session's first digits, or a device's name",
        );
    }
    let wanted = match of.parse::<DeviceId>() {
        Ok(device)
            if app
                .devices
                .read()
                .expect("nothing panics under this lock")
                .contains(&device) =>
        {
            Wanted::LastOf(device)
        }
        Ok(_) | Err(_) => Wanted::Session(of.to_owned()),
    };
    told(app.feed.search(|offset_min| Query::Why { wanted, offset_min }).await)
}

fn gated(word: &str) -> Option<Gated> {
    serde_json::from_value(json!(word)).ok()
}

async fn diff(app: &App, what: Option<&str>) -> Answer {
    match what.and_then(gated) {
        Some(what) => told(app.feed.ask(&Query::Diff { what }).await),
        None => plain(StatusCode::BAD_REQUEST, "list, tariffs or policy"),
    }
}

/// What an operator decides.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    what: Gated,
    /// The one that he has seen.
    revision: u64,
}

async fn adopt(app: &App, peer: IpAddr, headers: &HeaderMap, who: Who, body: Incoming) -> Answer {
    let Who::Operator(csrf) = who else {
        return plain(
            StatusCode::FORBIDDEN,
            "to decide, log in: write page_token into the secrets file, or type `holdfast list adopt`",
        );
    };
    let found = headers.get(CSRF).and_then(|value| value.to_str().ok());
    if Guard::is_foreign(headers) || !found.is_some_and(|found| is_same(&csrf, found)) {
        return plain(StatusCode::FORBIDDEN, "this did not come from the page; load it again");
    }
    let body = match read(body).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let Ok(Decision { what, revision }) = serde_json::from_slice(&body) else {
        return plain(StatusCode::BAD_REQUEST, "{\"what\": \"list\", \"revision\": 7}");
    };
    if revision == 0 {
        return plain(StatusCode::BAD_REQUEST, "name the revision that you have seen");
    }
    tracing::warn!(%peer, ?what, revision, "an operator adopts on the page what is set aside");
    told(app.feed.ask(&Query::Adopt { what, revision }).await)
}

// ---------------------------------------------------------------- helpers

/// The control socket's answer.
fn told(answer: Result<Value, String>) -> Answer {
    match answer {
        Ok(answer) => {
            let status = match answer.get("error") {
                Some(_) => StatusCode::CONFLICT,
                None => StatusCode::OK,
            };
            with(status, JSON, Body::whole(answer.to_string()))
        }
        Err(error) => {
            let body = Body::whole(json!({ "error": error }).to_string());
            with(StatusCode::SERVICE_UNAVAILABLE, JSON, body)
        }
    }
}

async fn read(body: Incoming) -> Result<bytes::Bytes, Answer> {
    let whole = tokio::time::timeout(BODY_WITHIN, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match whole {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(_)) => Err(plain(StatusCode::PAYLOAD_TOO_LARGE, "too long")),
        Err(_) => Err(plain(StatusCode::REQUEST_TIMEOUT, "too slow")),
    }
}

/// The value of a parameter, as it was sent.
fn query<'a>(text: Option<&'a str>, name: &str) -> Option<&'a str> {
    let mut pairs = text?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

/// As forms encode it.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = &after[2..];
                continue;
            }
            (b'+', ..) => bytes.push(b' '),
            (other, ..) => bytes.push(*other),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn with(status: StatusCode, kind: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn typed(kind: &'static str, text: &'static str) -> Answer {
    with(StatusCode::OK, kind, Body::whole(text))
}

fn plain(status: StatusCode, text: &str) -> Answer {
    with(status, TEXT, Body::whole(format!("{text}\n")))
}

fn moved(to: &'static str, cookie: Option<String>) -> Answer {
    let mut answer = plain(StatusCode::SEE_OTHER, "");
    answer
        .headers_mut()
        .insert(header::LOCATION, HeaderValue::from_static(to));
    if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok()) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        for (sent, expected) in [("a%2Bb+c", "a+b c"), ("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("", "")] {
            assert_eq!(decoded(sent), expected, "{sent}");
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for (name, text) in [
            ("page", PAGE),
            ("login", LOGIN),
            ("css", STYLE),
            ("script", SCRIPT),
            ("words", WORDS),
            ("sentences", SENTENCES),
        ] {
            for foreign in [
                "http://",
                "https://",
                "//cdn",
                "@import",
                "style=\"",
                "onclick",
                "innerHTML",
            ] {
                let namespace = text.replace("http://www.w3.org/2000/svg", "");
                assert!(!namespace.contains(foreign), "{name} contains {foreign}");
            }
        }
    }
    /// Every sentence of the decision order has its Chinese one.
    #[test]
    fn the_decision_order_is_told_in_chinese_too() {
        let blank = |text: &str| {
            let parts: Vec<&str> = text.split('{').collect();
            let rest = parts[1..].iter().map(|part| part.split_once('}').expect("a pair").1);
            parts[..1].iter().copied().chain(rest).collect::<Vec<_>>().join("{}")
        };
        let source = include_str!("../../../core/src/why/walk.rs");
        let said: Vec<String> = source
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| line.split('"').skip(1).step_by(2))
            .filter(|literal| literal.contains(' '))
            .map(blank)
            .collect();
        assert!(said.len() > 60, "{said:?}");
        for sentence in said {
            // What leads over to a second sentence, or stands behind one, is found by its own words.
            let alone = sentence.strip_suffix(", but ").unwrap_or(&sentence);
            let behind = alone
                .strip_prefix("{}")
                .filter(|rest| rest.starts_with('t'))
                .unwrap_or(alone);
            assert!(
                behind == "{}" || SENTENCES.contains(&format!("\n  \"{behind}\": \"")),
                "not in sentences.js: {sentence:?}"
            );
        }
    }
}

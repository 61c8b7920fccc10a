//! HTTP servers: connections, requests, and the faults that every one of them can play.

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    OVERDUE,
    broker::machine::{ANYBODY, PORTAL},
    fault::{Body, Fault, Of, Stage},
    gate::Gate,
};

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How often a request that hangs looks whether its client still waits.
const LOOK: Duration = Duration::from_millis(250);
/// What whoever came too fast is told to wait, in s.
const RETRY_S: &str = "1";

/// A whole request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Path and query, as they were sent.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The value of a parameter of the query.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.path.split_once('?')?;
        query.split('&').find_map(|pair| {
            pair.split_once('=')
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value)
        })
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: impl ToString) -> Self {
        Self {
            status,
            kind: "application/json",
            body: body.to_string(),
            headers: Vec::new(),
        }
    }
}

/// What a server does with a request.
pub(crate) type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// Whoever answers.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Whose request it is, as far as it says so: for faults of a part of the identities, and for counting.
    fn who(&self, request: &Request) -> String;

    /// The token that a request asks about.
    fn token(&self, _request: &Request) -> Option<proto::id::TokenHash> {
        None
    }

    /// Whether `who` may make one more request, of so many a second.
    fn allows(&self, who: &str, rate: Option<u32>, now_ms: u64) -> bool;

    /// The answer of a cloud that is well.
    fn answer<'a>(&'a self, request: &'a Request, gate: &'a Gate) -> Answering<'a>;
}

/// Serves as long as somebody holds the sender of its faults. Needs a runtime.
pub(crate) fn spawn(gate: Gate, handler: Arc<dyn Handler>) {
    tokio::spawn(async move {
        let mut faults = gate.faults.clone();
        loop {
            tokio::select! {
                stream = gate.accept() => {
                    tokio::spawn(connection(gate.clone(), handler.clone(), stream));
                }
                changed = faults.changed() => if changed.is_err() { return },
            }
        }
    });
}

async fn connection(gate: Gate, handler: Arc<dyn Handler>, stream: TcpStream) {
    gate.counters.opened.add();
    gate.counters.attempt(ANYBODY, gate.clock.now_ms());
    if gate.hangs(Stage::Tcp) {
        gate.counters.swallowed.add();
        return gate.hold(stream).await;
    }
    if gate.closes_after(Stage::Tcp) {
        return gate.counters.closed.add();
    }
    let peer = stream.peer_addr().ok();
    let Some((stream, _)) = gate.greet(stream).await else {
        return;
    };
    if gate.closes_after(Stage::Tls) {
        return gate.counters.closed.add();
    }
    let service = service_fn(|request| respond(&gate, handler.as_ref(), request, peer));
    // What goes wrong on a connection is the client's business, or was wanted.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The connection ends here, without an answer.
#[derive(Debug)]
struct Silence;

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no answer")
    }
}

impl std::error::Error for Silence {}

async fn respond(
    gate: &Gate,
    handler: &dyn Handler,
    request: hyper::Request<Incoming>,
    peer: Option<SocketAddr>,
) -> Result<Response<Full<Bytes>>, Silence> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        gate.counters.breaches.add();
        return Ok(built(Answer::json(413, r#"{"error":"a body that is too long"}"#)));
    };
    let request = Request {
        method: head.method,
        path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: head.headers,
        body: body.to_bytes(),
    };
    gate.counters.messages.add();
    tracing::trace!(?peer, path = request.path, "a request");
    if gate.hangs(Stage::Http) || gate.hangs(Stage::Tcp) {
        gate.counters.swallowed.add();
        while gate.hangs(Stage::Http) || gate.hangs(Stage::Tcp) {
            tokio::time::sleep(LOOK).await;
        }
        return Err(Silence);
    }
    let answer = match faulty(gate, handler, &request) {
        Some(answer) => answer,
        None => handler.answer(&request, gate).await,
    };
    let delay = gate.find(|fault| match fault {
        Fault::Delay { least_ms, most_ms } => Some((*least_ms, *most_ms)),
        _ => None,
    });
    if let Some((least_ms, most_ms)) = delay {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(least_ms..=most_ms))).await;
    }
    if gate.closes_after(Stage::Http) {
        gate.counters.closed.add();
        return Err(Silence);
    }
    Ok(built(answer))
}

/// The answer of a cloud that is not well, if it is not.
fn faulty(gate: &Gate, handler: &dyn Handler, request: &Request) -> Option<Answer> {
    if gate.has(&Fault::Captive) {
        gate.counters.denied.add();
        return Some(Answer {
            status: 200,
            kind: "text/html",
            body: PORTAL.to_owned(),
            headers: Vec::new(),
        });
    }
    let who = handler.who(request);
    let rate = gate.find(|fault| match fault {
        Fault::Throttle(rate) => Some(*rate),
        _ => None,
    });
    if !handler.allows(&who, rate, gate.clock.now_ms()) {
        gate.counters.throttled.add();
        return Some(throttled());
    }
    let denied = gate.find(|fault| match fault {
        Fault::Http { status, body } => Some(told(*status, *body)),
        Fault::Billing => Some(Answer::json(403, code("Forbidden.Overdue", OVERDUE))),
        _ => None,
    });
    let denied = denied.or_else(|| {
        let now_ms = gate.clock.now_ms();
        let faults = gate.faults.borrow();
        let own = faults.denies(now_ms, Stage::Http, Of::Gateway, &who);
        let token = || faults.denies_token(now_ms, Stage::Http, &handler.token(request)?);
        let status = own.or_else(token)?;
        Some(told(status, if status >= 500 { Body::S4 } else { Body::S2 }))
    });
    if denied.is_some() {
        gate.counters.denied.add();
    }
    denied
}

fn code(code: &str, message: &str) -> serde_json::Value {
    serde_json::json!({
        "RequestId": "4C467B38-3910-447D-87BC-AC049166F216", "HostId": "sim", "Code": code, "Message": message,
    })
}

fn throttled() -> Answer {
    let mut answer = Answer::json(
        429,
        code("Throttling.User", "Request was denied due to user flow control."),
    );
    answer.headers.push((RETRY_AFTER.as_str(), RETRY_S.to_owned()));
    answer
}

/// The bodies of 2023-11-12.
pub(crate) fn told(status: u16, body: Body) -> Answer {
    match body {
        Body::S1 => {
            let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>\n  <Code>InvalidAccessKeyId</Code>\n  \
                <Message>The OSS Access Key Id you provided does not exist in our records.</Message>\n  \
                <RequestId>6550A1D2E5B0C93433A1B0C2</RequestId>\n  <HostId>sim</HostId>\n</Error>\n";
            Answer {
                status,
                kind: "application/xml",
                body: text.to_owned(),
                headers: Vec::new(),
            }
        }
        Body::S2 => Answer::json(
            status,
            code("InvalidAccessKeyId.NotFound", "Specified access key is not found."),
        ),
        Body::S3 => Answer::json(
            status,
            code("InvalidAccessKeyId.Inactive", "Specified access key is disabled."),
        ),
        Body::S4 if status == 503 => Answer::json(
            status,
            code(
                "ServiceUnavailable",
                "The request has failed due to a temporary failure of the server.",
            ),
        ),
        Body::S4 => Answer::json(
            status,
            code(
                "InternalError",
                "The request processing has failed due to some unknown error, exception or failure.",
            ),
        ),
    }
}

fn built(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.kind));
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

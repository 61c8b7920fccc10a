//! A connection by HTTPS, for backends without MQTT: one signed POST after the other, and beside them a GET that the
//! other side answers when it has something. Answers are signed; one that is not is somebody else's.
//!
//! It looks like an MQTT connection: a publish to a path is a POST there, and the body of a signed answer is a message.
//! The first request that fails ends the connection, for then its order is no longer sure.

mod channel;
mod sign;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::Uri;
use tokio::{sync::mpsc, time::Instant};

use self::channel::{Channel, Request};
pub use self::sign::{AnswerHead, NONCE_BYTES, NONCE_HEADER, RequestHead, SIGN_HEADER, TIME_HEADER};
use crate::{
    Ack, Class, Connection, Event, Message, Publish, Symptom,
    connection::{Ends, Limit},
    tls::Tls,
};

/// Default of [`Options::connect_s_max`].
const CONNECT_S_MAX: u16 = 10;
/// Default of [`Options::answer_s_max`].
const ANSWER_S_MAX: u16 = 15;
/// Default of [`Options::poll_s_max`]: what is asked for usually, and a slow line.
const POLL_S_MAX: u16 = 40;
/// Default of [`Options::body_bytes_max`].
const BODY_BYTES_MAX: u32 = 1024 * 1024;
/// Default of [`Options::answer_bytes_max`]: much may have waited.
const ANSWER_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Answers to the GET that come at once, so many, and then one in [`POLL_EVERY`]: a backend that never waits is not hammered.
const POLLS_BURST: u32 = 16;
/// See [`POLLS_BURST`].
const POLL_EVERY: Duration = Duration::from_secs(1);
/// A backend that answers no GET is asked again so much later.
const POLL_AGAIN: Duration = Duration::from_secs(300);

/// Seconds since 1970 UTC, as far as we know; 0: our clock is not to be trusted.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How to connect. Fields may be added: begin with [`Options::new`].
#[derive(Clone)]
pub struct Options {
    /// `https://host[:port][/prefix]`, or `http://` without TLS. The prefix stands before every path.
    pub url: String,
    /// What both sides sign with.
    pub key: Vec<u8>,
    /// For `https://`, and only there.
    pub tls: Option<Tls>,
    /// Path and query of the GET that waits for messages; none: only answers to POSTs come.
    pub poll: Option<String>,
    /// For the time in requests.
    pub clock: Clock,
    /// Longest wait for TCP and TLS together, in s.
    pub connect_s_max: u16,
    /// Longest wait for a whole answer to a POST, in s.
    pub answer_s_max: u16,
    /// Longest wait for a whole answer to the GET, in s; more than the other side is asked to wait.
    pub poll_s_max: u16,
    /// Longest body of ours, in bytes.
    pub body_bytes_max: u32,
    /// Longest answer, in bytes.
    pub answer_bytes_max: u32,
}

impl Options {
    /// Without TLS, without a GET, without a clock.
    #[must_use]
    pub fn new(url: impl Into<String>, key: Vec<u8>) -> Self {
        Self {
            url: url.into(),
            key,
            tls: None,
            poll: None,
            clock: Arc::new(|| 0),
            connect_s_max: CONNECT_S_MAX,
            answer_s_max: ANSWER_S_MAX,
            poll_s_max: POLL_S_MAX,
            body_bytes_max: BODY_BYTES_MAX,
            answer_bytes_max: ANSWER_BYTES_MAX,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("tls", &self.tls)
            .field("poll", &self.poll)
            .finish_non_exhaustive()
    }
}

/// Where a URL leads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    /// As in the header Host.
    authority: String,
    /// Stands before every path; empty, or begins with a slash and does not end with one.
    prefix: String,
}

impl Place {
    fn parse(url: &str, is_tls: bool) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
        let (scheme, default_port) = if is_tls { ("https", 443) } else { ("http", 80) };
        if uri.scheme_str() != Some(scheme) {
            return Err(format!("{url:?} does not begin with {scheme}://"));
        }
        let authority = uri.authority().ok_or_else(|| format!("{url:?} names no host"))?;
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(format!("{url:?} has a query or a user"));
        }
        Ok(Self {
            host: authority
                .host()
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl Connection {
    /// Begins to connect by HTTPS.
    #[must_use]
    pub fn open_http(options: &Options) -> Self {
        let options = options.clone();
        let limit = Limit::new(options.body_bytes_max, 0);
        Self::spawn(limit, |ends| run(options, ends))
    }
}

/// Runs one connection to its end.
async fn run(options: Options, ends: Ends) -> Symptom {
    let place = match Place::parse(&options.url, options.tls.is_some()) {
        Ok(place) => place,
        Err(why) => return Symptom::new(Class::Protocol, 0, why),
    };
    let options = Arc::new(options);
    let mut posts = Channel::new(options.clone(), place.clone());
    if let Err(symptom) = posts.connect().await {
        return symptom;
    }
    let Ends { events, publishes } = ends;
    drop(events.send(Event::Up).await);
    let polls = Channel::new(options.clone(), place.clone());
    tokio::select! {
        symptom = post(posts, publishes, &events) => symptom,
        symptom = poll(polls, &place, &options, &events) => symptom,
    }
}

/// One POST after the other.
async fn post(mut channel: Channel, mut publishes: mpsc::Receiver<Publish>, events: &mpsc::Sender<Event>) -> Symptom {
    while let Some(Publish { topic, payload, .. }) = publishes.recv().await {
        let request = Request {
            method: "POST",
            path_and_query: topic,
            body: payload.into(),
        };
        match channel.exchange(&request).await {
            Ok(body) => tell(events, request.path_and_query, body).await,
            Err(symptom) => return symptom,
        }
    }
    // The owner has dropped the connection, and with it this task.
    Symptom::new(Class::Partition, 0, "nobody sends any more")
}

/// One GET after the other.
async fn poll(mut channel: Channel, place: &Place, options: &Arc<Options>, events: &mpsc::Sender<Event>) -> Symptom {
    let Some(path_and_query) = options.poll.clone() else {
        return std::future::pending().await;
    };
    let path = path_and_query.split('?').next().unwrap_or_default().to_owned();
    let request = Request {
        method: "GET",
        path_and_query,
        body: Bytes::new(),
    };
    // When an allowance of polls is whole again.
    let mut whole = Instant::now();
    loop {
        let now = Instant::now();
        whole = whole.max(now) + POLL_EVERY;
        let ahead = whole - now;
        tokio::time::sleep(ahead.saturating_sub(POLL_EVERY * POLLS_BURST)).await;
        match channel.exchange(&request).await {
            Ok(body) => tell(events, path.clone(), body).await,
            // A backend may do without: the answers to POSTs bring frames too.
            Err(symptom) if matches!(symptom.code, 404 | 405 | 501) => {
                let text = format!(
                    "no answer to GET {path} ({}): frames come with the answers to POSTs",
                    symptom.code
                );
                drop(
                    events
                        .send(Event::Symptom(Symptom::new(Class::Protocol, symptom.code, text)))
                        .await,
                );
                tokio::time::sleep(POLL_AGAIN).await;
                channel = Channel::new(options.clone(), place.clone());
            }
            Err(symptom) => return symptom,
        }
    }
}

/// What a signed answer said.
async fn tell(events: &mpsc::Sender<Event>, topic: String, payload: Bytes) {
    if payload.is_empty() {
        return;
    }
    let message = Message {
        topic,
        payload,
        ack: Ack::NONE,
    };
    // An owner that is gone drops the connection, and with it this task.
    drop(events.send(Event::Message(message)).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let place = |host: &str, port, authority: &str, prefix: &str| Place {
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            prefix: prefix.to_owned(),
        };
        for (url, is_tls, expected) in [
            (
                "https://a.example",
                true,
                Some(place("a.example", 443, "a.example", "")),
            ),
            (
                "https://a.example:8443/hf/",
                true,
                Some(place("a.example", 8443, "a.example:8443", "/hf")),
            ),
            ("http://[::1]:80/a/b", false, Some(place("::1", 80, "[::1]:80", "/a/b"))),
            ("http://a.example", true, None),
            ("https://a.example", false, None),
            ("https://user:word@a.example", true, None),
            ("https://a.example/?q", true, None),
            ("a.example", true, None),
            ("", false, None),
        ] {
            assert_eq!(Place::parse(url, is_tls).ok(), expected, "{url}");
        }
    }
}

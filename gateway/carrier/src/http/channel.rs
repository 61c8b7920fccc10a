//! One line to the other side, used for one request after the other.

use std::{error::Error as StdError, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{task::JoinHandle, time::timeout};

use super::{AnswerHead, NONCE_BYTES, NONCE_HEADER, Options, Place, RequestHead, SIGN_HEADER, TIME_HEADER, sign};
use crate::{
    net,
    symptom::{self, Class, HttpAnswer, Symptom},
};

/// What is asked.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path_and_query: String,
    pub(super) body: Bytes,
}

type Signed = hyper::Request<Full<Bytes>>;

/// A line, and what speaks on it.
pub(super) struct Channel {
    options: Arc<Options>,
    place: Place,
    line: Option<Line>,
}

struct Line {
    requests: SendRequest<Full<Bytes>>,
    /// Moves the bytes; cut with the line.
    task: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Channel {
    pub(super) const fn new(options: Arc<Options>, place: Place) -> Self {
        Self {
            options,
            place,
            line: None,
        }
    }

    /// Connects, unless there is a line that can be used.
    pub(super) async fn connect(&mut self) -> Result<(), Symptom> {
        // The other side may close a line that is idle; that is no failure.
        if let Some(line) = &mut self.line
            && line.requests.ready().await.is_ok()
        {
            return Ok(());
        }
        self.line = None;
        self.line = Some(self.dial().await?);
        Ok(())
    }

    async fn dial(&self) -> Result<Line, Symptom> {
        let Place { host, port, .. } = &self.place;
        let until = net::in_s(self.options.connect_s_max);
        let stream = net::dial(host, *port, self.options.tls.clone(), until).await?;
        let (requests, moving) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failure(&error))?;
        let task = tokio::spawn(async move {
            // Whoever waits for an answer hears of it there.
            drop(moving.await);
        });
        Ok(Line { requests, task })
    }

    /// Asks, and returns the body of an answer that is signed and fine.
    pub(super) async fn exchange(&mut self, request: &Request) -> Result<Bytes, Symptom> {
        self.connect().await?;
        let answer_s = match request.method {
            "GET" => self.options.poll_s_max,
            _ => self.options.answer_s_max,
        };
        let asking = timeout(Duration::from_secs(u64::from(answer_s)), self.ask(request));
        let method = request.method;
        let late = |_| {
            Symptom::new(
                Class::Partition,
                0,
                format!("no whole answer to {method} in {answer_s} s"),
            )
        };
        let answered = asking.await.unwrap_or_else(|elapsed| Err(late(elapsed)));
        if answered.is_err() {
            // What else comes on this line would answer another request.
            self.line = None;
        }
        answered
    }

    async fn ask(&mut self, request: &Request) -> Result<Bytes, Symptom> {
        let nonce = nonce()?;
        let signed = self.signed(request, &nonce)?;
        let response = self.send(signed).await?;
        let (status, headers, body) = self.read(response).await?;
        let is_signed = text(&headers, SIGN_HEADER).is_some_and(|signature| {
            let answer = AnswerHead { nonce: &nonce, status };
            answer.is_signed(&self.options.key, &body, signature)
        });
        let answer = HttpAnswer {
            status,
            content_type: text(&headers, header::CONTENT_TYPE.as_str()),
            retry_after: text(&headers, header::RETRY_AFTER.as_str()),
            body: &body,
        };
        if is_signed && (200..300).contains(&status) {
            return Ok(body);
        }
        Err(symptom::http(&answer).unwrap_or_else(|| {
            let why = format!("HTTP {status} that our backend has not signed");
            Symptom::new(Class::Intercepted, status, why)
        }))
    }

    /// A line that the other side closes while we begin is no failure either: the request comes back and goes by a new one.
    async fn send(&mut self, signed: Signed) -> Result<Response<Incoming>, Symptom> {
        let connected = "there is a line after connecting";
        let line = self.line.as_mut().expect(connected);
        let mut error = match line.requests.try_send_request(signed).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let Some(unsent) = error.take_message() else {
            return Err(failure(error.error()));
        };
        self.line = None;
        self.connect().await?;
        let line = self.line.as_mut().expect(connected);
        line.requests
            .send_request(unsent)
            .await
            .map_err(|error| failure(&error))
    }

    fn signed(&self, request: &Request, nonce: &str) -> Result<Signed, Symptom> {
        let path_and_query = format!("{}{}", self.place.prefix, request.path_and_query);
        let head = RequestHead {
            method: request.method,
            path_and_query: &path_and_query,
            time_s: (self.options.clock)(),
            nonce,
        };
        hyper::Request::builder()
            .method(request.method)
            .uri(&path_and_query)
            .header(header::HOST, &self.place.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(TIME_HEADER, head.time_s)
            .header(NONCE_HEADER, nonce)
            .header(SIGN_HEADER, head.sign(&self.options.key, &request.body))
            .body(Full::new(request.body.clone()))
            .map_err(|error| Symptom::new(Class::Protocol, 0, format!("{path_and_query:?}: {error}")))
    }

    async fn read(&self, response: Response<Incoming>) -> Result<(u16, HeaderMap, Bytes), Symptom> {
        let (head, body) = response.into_parts();
        let bytes_max = self.options.answer_bytes_max as usize;
        let status = head.status.as_u16();
        let body = Limited::new(body, bytes_max).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                Symptom::new(
                    Class::Protocol,
                    status,
                    format!("an answer longer than {bytes_max} bytes"),
                )
            } else {
                failure(&*error)
            }
        })?;
        Ok((status, head.headers, body.to_bytes()))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn nonce() -> Result<String, Symptom> {
    let mut bytes = [0; NONCE_BYTES];
    let mut filled = 0;
    while filled < NONCE_BYTES {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Symptom::new(Class::Protocol, 0, format!("no random bytes: {error}")))?;
    }
    Ok(sign::hex(&bytes))
}

/// Why an exchange broke off.
fn failure(error: &(dyn StdError + 'static)) -> Symptom {
    let mut inner = Some(error);
    while let Some(cause) = inner {
        if let Some(socket) = cause.downcast_ref::<io::Error>() {
            return symptom::io(socket);
        }
        if let Some(hyper) = cause.downcast_ref::<hyper::Error>()
            && hyper.is_parse()
        {
            let why = format!("who answers does not speak HTTP: {hyper}");
            return Symptom::new(Class::Intercepted, 0, why);
        }
        inner = cause.source();
    }
    Symptom::new(Class::Partition, 0, error.to_string())
}

//! What an HTTP answer means that is not what was asked for: status, the vendor's code in XML or JSON, a page of HTML.

use std::time::Duration;

use serde_json::Value;

use super::{Class, Symptom};

/// An answer, as far as it tells what is wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpAnswer<'a> {
    /// Status code.
    pub status: u16,
    /// Header Content-Type.
    pub content_type: Option<&'a str>,
    /// Header Retry-After.
    pub retry_after: Option<&'a str>,
    /// The body, or its beginning.
    pub body: &'a [u8],
}

/// How far into a body is looked, in bytes.
const LOOK_BYTES_MAX: usize = 16 * 1024;
/// Nobody silences us for longer, in s.
const RETRY_AFTER_S_MAX: u64 = 3600;

/// Parts of vendors' error codes, in lower case, the telling ones first. Alibaba's OSS and OpenAPI, AWS.
const CODES: [(&str, Class); 30] = [
    ("throttl", Class::Throttled),
    ("limitexceeded", Class::Throttled),
    ("toomanyrequests", Class::Throttled),
    ("ratelimit", Class::Throttled),
    ("slowdown", Class::Throttled),
    ("insufficientbalance", Class::Billing),
    ("notenoughbalance", Class::Billing),
    ("overdue", Class::Billing),
    ("arrear", Class::Billing),
    ("paymentrequired", Class::Billing),
    // OSS says this of an account in arrears.
    ("userdisable", Class::Billing),
    ("tooskewed", Class::Clock),
    ("timestamp", Class::Clock),
    ("requestexpired", Class::Clock),
    ("accesskey", Class::Denied),
    ("signature", Class::Denied),
    ("securitytoken", Class::Denied),
    ("accessdenied", Class::Denied),
    ("invalidtoken", Class::Denied),
    ("unauthori", Class::Denied),
    ("notauthorized", Class::Denied),
    ("nopermission", Class::Denied),
    ("unrecognizedclient", Class::Denied),
    ("forbidden", Class::Denied),
    ("internalerror", Class::Broken),
    ("internalfailure", Class::Broken),
    ("internalserver", Class::Broken),
    ("unavailable", Class::Broken),
    ("serverbusy", Class::Broken),
    ("systemerror", Class::Broken),
];

/// Parts of vendors' sentences, in lower case, where the code says nothing.
const SENTENCES: [(&str, Class); 7] = [
    ("overdue", Class::Billing),
    ("insufficient balance", Class::Billing),
    ("in arrears", Class::Billing),
    ("access key", Class::Denied),
    ("accesskey", Class::Denied),
    ("throttl", Class::Throttled),
    ("too many requests", Class::Throttled),
];

/// What an answer means; `None`: nothing is wrong with it.
#[must_use]
pub fn http(answer: &HttpAnswer<'_>) -> Option<Symptom> {
    let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(LOOK_BYTES_MAX)]);
    let is_page = is_html(answer.content_type, &body);
    if (200..300).contains(&answer.status) && !is_page {
        return None;
    }
    let said = if is_page { Said::default() } else { said(&body) };
    let class = class(answer.status, is_page, &said);
    let mut symptom = Symptom::new(class, answer.status, sentence(answer.status, is_page, &said));
    symptom.retry_after = answer.retry_after.and_then(retry_after);
    Some(symptom)
}

fn class(status: u16, is_page: bool, said: &Said) -> Class {
    let found = |table: &[(&str, Class)], text: &str| {
        let text = text.to_lowercase();
        table.iter().find(|(part, _)| text.contains(part)).map(|row| row.1)
    };
    // Balancers of the cloud itself say with a page that what is behind them is gone, or too busy.
    if is_page && status < 500 && status != 429 {
        return Class::Intercepted;
    }
    found(&CODES, &said.code)
        .or_else(|| found(&SENTENCES, &said.sentence))
        .unwrap_or(match status {
            // Nobody we asked redirects, or asks for the proxy's password.
            0..400 | 407 | 511 => Class::Intercepted,
            401 | 403 => Class::Denied,
            402 => Class::Billing,
            408 | 500.. => Class::Broken,
            425 | 429 => Class::Throttled,
            400..500 => Class::Protocol,
        })
}

fn sentence(status: u16, is_page: bool, said: &Said) -> String {
    if is_page {
        return format!("HTTP {status} with a page of HTML");
    }
    let mut text = format!("HTTP {status}");
    for part in [&said.code, &said.sentence] {
        if !part.is_empty() {
            text.push_str(": ");
            text.push_str(part);
        }
    }
    text
}

/// A vendor's own code and sentence.
#[derive(Debug, Default)]
struct Said {
    code: String,
    sentence: String,
}

/// XML of OSS, JSON of most others; anything else is a sentence.
fn said(body: &str) -> Said {
    let trimmed = body.trim();
    if trimmed.starts_with('<') {
        let element = |name| between(trimmed, &format!("<{name}>"), &format!("</{name}>")).unwrap_or_default();
        return Said {
            code: element("Code"),
            sentence: element("Message"),
        };
    }
    match serde_json::from_str::<Value>(trimmed) {
        Ok(json) => {
            let member = |names: &[&str]| {
                names
                    .iter()
                    .find_map(|name| scalar(json.get(name)?))
                    .unwrap_or_default()
            };
            Said {
                code: member(&["Code", "code", "errorCode", "error_code", "error", "__type"]),
                sentence: member(&[
                    "Message",
                    "message",
                    "ErrorMessage",
                    "errorMessage",
                    "error_message",
                    "msg",
                ]),
            }
        }
        Err(_) => Said {
            code: String::new(),
            sentence: trimmed.to_owned(),
        },
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    let (inner, _) = rest.split_once(after)?;
    Some(inner.trim().to_owned())
}

fn is_html(content_type: Option<&str>, body: &str) -> bool {
    let start: String = body.trim_start().chars().take(14).collect::<String>().to_lowercase();
    let declared = content_type.is_some_and(|kind| kind.trim_start().to_lowercase().starts_with("text/html"));
    declared || start.starts_with("<!doctype html") || start.starts_with("<html")
}

/// Seconds; a date is left alone, for our clock may be what is wrong.
fn retry_after(header: &str) -> Option<Duration> {
    let seconds: u64 = header.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_S_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Option<Symptom> {
        http(&HttpAnswer {
            status,
            body: body.as_bytes(),
            ..HttpAnswer::default()
        })
    }

    #[test]
    fn a_status_alone() {
        for (status, class) in [
            (204, None),
            (200, None),
            (302, Some(Class::Intercepted)),
            (400, Some(Class::Protocol)),
            (401, Some(Class::Denied)),
            (402, Some(Class::Billing)),
            (403, Some(Class::Denied)),
            (404, Some(Class::Protocol)),
            (407, Some(Class::Intercepted)),
            (408, Some(Class::Broken)),
            (413, Some(Class::Protocol)),
            (429, Some(Class::Throttled)),
            (500, Some(Class::Broken)),
            (502, Some(Class::Broken)),
            (503, Some(Class::Broken)),
            (511, Some(Class::Intercepted)),
            (599, Some(Class::Broken)),
        ] {
            assert_eq!(answer(status, "").map(|symptom| symptom.class), class, "{status}");
        }
    }

    #[test]
    fn codes_say_more_than_the_status() {
        for (status, body, class) in [
            (400, r#"{"Code":"Throttling.User"}"#, Class::Throttled),
            (503, "<Error><Code>SlowDown</Code></Error>", Class::Throttled),
            (403, r#"{"Code":"Forbidden.Overdue"}"#, Class::Billing),
            (400, r#"{"Code":"InsufficientBalance"}"#, Class::Billing),
            (403, "<Error><Code>RequestTimeTooSkewed</Code></Error>", Class::Clock),
            (400, r#"{"Code":"SignatureDoesNotMatch"}"#, Class::Denied),
            (404, r#"{"Code":"InvalidAccessKeyId.NotFound"}"#, Class::Denied),
            (
                400,
                r#"{"Message":"The Access Key ID provided does not exist in our records."}"#,
                Class::Denied,
            ),
            (
                400,
                r#"{"code":460,"message":"request parameter error"}"#,
                Class::Protocol,
            ),
            (403, "request forbidden, payment overdue", Class::Billing),
        ] {
            assert_eq!(answer(status, body).unwrap().class, class, "{status} {body}");
        }
    }

    #[test]
    fn a_page_is_nobody_we_asked_but_for_a_balancer() {
        for (status, content_type, body, class) in [
            (200, None, " <!DOCTYPE HTML><title>Welcome</title>", Class::Intercepted),
            (200, Some("text/html; charset=gbk"), "", Class::Intercepted),
            (403, None, "<html>blocked", Class::Intercepted),
            (502, Some("text/html"), "<html>502 Bad Gateway", Class::Broken),
            (429, Some("text/html"), "<html>slow down", Class::Throttled),
        ] {
            let found = http(&HttpAnswer {
                status,
                content_type,
                body: body.as_bytes(),
                ..HttpAnswer::default()
            });
            assert_eq!(found.unwrap().class, class, "{status} {body}");
        }
    }

    #[test]
    fn waits_are_honoured_within_limits() {
        for (header, wait_s) in [
            ("7", Some(7)),
            ("86400", Some(3600)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ] {
            let found = http(&HttpAnswer {
                status: 429,
                retry_after: Some(header),
                ..HttpAnswer::default()
            });
            assert_eq!(found.unwrap().retry_after, wait_s.map(Duration::from_secs), "{header}");
        }
    }
}

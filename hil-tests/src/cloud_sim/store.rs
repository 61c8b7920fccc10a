//! Object storage and a control plane: what a gateway with a healthy link meets when it follows a link to firmware or
//! configuration. Both know callers by an access key, and on 2023-11-12 both said that it does not exist.

use std::sync::Mutex;

use super::{
    allowance::Allowances,
    fault::Body,
    gate::Gate,
    http::{Answer, Answering, Handler, Request, told},
};

/// What is stored, under every name.
const OBJECT: &str = "{\"sim\":1}\n";

/// One of the two.
#[derive(Debug)]
pub(crate) struct Store {
    /// A control plane; else object storage.
    is_control: bool,
    allowances: Mutex<Allowances>,
}

impl Store {
    pub(crate) fn new(is_control: bool) -> Self {
        Self {
            is_control,
            allowances: Mutex::default(),
        }
    }

    fn key<'a>(&self, request: &'a Request) -> Option<&'a str> {
        request.query(if self.is_control {
            "AccessKeyId"
        } else {
            "OSSAccessKeyId"
        })
    }
}

impl Handler for Store {
    fn who(&self, request: &Request) -> String {
        self.key(request).unwrap_or_default().to_owned()
    }

    fn allows(&self, who: &str, rate: Option<u32>, now_ms: u64) -> bool {
        let mut allowances = self.allowances.lock().expect("nothing panics under this lock");
        rate.is_none_or(|rate| allowances.allows(who, rate, now_ms))
    }

    fn answer<'a>(&'a self, request: &'a Request, gate: &'a Gate) -> Answering<'a> {
        let answer = match (self.key(request), self.is_control) {
            (Some(key), _) if !key.is_empty() => {
                if self.is_control {
                    Answer::json(
                        200,
                        r#"{"RequestId":"4C467B38-3910-447D-87BC-AC049166F216","Success":true}"#,
                    )
                } else {
                    Answer {
                        status: 200,
                        kind: "application/octet-stream",
                        body: OBJECT.to_owned(),
                        headers: Vec::new(),
                    }
                }
            }
            (_, is_control) => {
                gate.counters.breaches.add();
                if is_control {
                    told(404, Body::S2)
                } else {
                    told(403, Body::S1)
                }
            }
        };
        Box::pin(std::future::ready(answer))
    }
}

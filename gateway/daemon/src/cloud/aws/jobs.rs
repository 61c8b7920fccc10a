//! Jobs: how an operator reaches a gateway that is away. A document of ours carries frames, which are sealed and counted
//! like any others; whatever else a job wants is refused with the reason.

use proto::topic::Lane;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::words::{Code, ErrorDocument, Pending, Turn};
use crate::cloud::{adapter::Heard, wrap::Wrapped};

/// Where they lie, behind the thing.
pub(super) const PLACE: &str = "jobs/";
/// What is subscribed, behind the thing. Answers come without; brokers that only resemble this one want it said.
pub(super) const FILTERS: [&str; 5] = [
    "jobs/notify-next",
    "jobs/start-next/accepted",
    "jobs/start-next/rejected",
    "jobs/+/update/accepted",
    "jobs/+/update/rejected",
];
/// The only version of our document.
const DOCUMENT: u64 = 1;
/// Most frames in one document.
const FRAMES_MAX: usize = 64;
/// Longest id of a job, in characters.
const ID_CHARS_MAX: usize = 64;
/// So many answers in a row that contradict what we know of a job: told to people.
const CONTRADICTIONS_MIN: u32 = 3;

/// The jobs of the thing, one at a time.
#[derive(Debug)]
pub(super) struct Jobs {
    prefix: String,
    lane: Lane,
    next: Pending,
    done: Pending,
    /// The end of a job, until the cloud has heard of it.
    end: Option<End>,
    /// A job was announced while another one was at hand.
    is_more: bool,
}

#[derive(Clone, Debug)]
struct End {
    job: String,
    version: Option<u64>,
    why: Option<String>,
}

#[derive(Deserialize)]
struct Notice {
    execution: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    execution: Option<Execution>,
    client_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Execution {
    job_id: String,
    #[serde(default)]
    job_document: Value,
    version_number: Option<u64>,
}

#[derive(Deserialize)]
struct Frames {
    holdfast: u64,
    frames: Vec<Wrapped>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Updated {
    client_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartNext {
    client_token: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Update<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_details: Option<Details<'a>>,
    client_token: String,
}

#[derive(Serialize)]
struct Details<'a> {
    why: &'a str,
}

impl Jobs {
    pub(super) fn new(thing: &str, lane: Lane) -> Self {
        Self {
            prefix: format!("{thing}{PLACE}"),
            lane,
            next: Pending::default(),
            done: Pending::default(),
            end: None,
            is_more: false,
        }
    }

    /// The connection before is over. The cloud still has what we did not end.
    pub(super) fn lost(&mut self) {
        self.next.lost();
        self.done.lost();
        self.end = None;
        self.is_more = false;
    }

    /// A connection stands.
    pub(super) fn connected(&mut self, turn: &mut Turn<'_>) {
        self.start_next(turn);
    }

    fn start_next(&mut self, turn: &mut Turn<'_>) {
        self.is_more = false;
        let topic = format!("{}start-next", self.prefix);
        self.next.ask(turn, topic, |client_token| StartNext { client_token });
    }

    /// A message, by what stands behind the place of jobs. Answers to questions that are not ours come here, too.
    pub(super) fn heard(&mut self, turn: &mut Turn<'_>, about: &str, payload: &[u8]) {
        match about {
            "notify-next" => {
                let notice = turn.read::<Notice>("jobs/notify-next", payload);
                if notice.is_some_and(|notice| notice.execution.is_some_and(|execution| execution.is_object())) {
                    self.announced(turn);
                }
            }
            "start-next/accepted" => {
                if let Some(started) = turn.read::<Started>("jobs/start-next", payload)
                    && self.next.is_answer(started.client_token.as_ref())
                {
                    self.next.went_well();
                    match started.execution {
                        Some(execution) => self.run(turn, execution),
                        None if self.is_more => self.start_next(turn),
                        None => {}
                    }
                }
            }
            "start-next/rejected" => {
                if let Some(error) = turn.read::<ErrorDocument>("jobs/start-next", payload)
                    && self.next.is_answer(error.client_token.as_ref())
                {
                    error.say(turn, "jobs/start-next");
                    self.next.failed(turn);
                }
            }
            _ => {
                if about.ends_with("/update/accepted") {
                    if let Some(updated) = turn.read::<Updated>("jobs/update", payload)
                        && self.done.is_answer(updated.client_token.as_ref())
                    {
                        self.done.went_well();
                        self.end = None;
                        self.start_next(turn);
                    }
                } else if about.ends_with("/update/rejected")
                    && let Some(error) = turn.read::<ErrorDocument>("jobs/update", payload)
                    && self.done.is_answer(error.client_token.as_ref())
                {
                    self.not_ended(turn, &error);
                }
            }
        }
    }

    fn announced(&mut self, turn: &mut Turn<'_>) {
        let is_busy = self.end.is_some() || self.next.tick_at().is_some();
        if is_busy {
            self.is_more = true;
        } else {
            self.start_next(turn);
        }
    }

    fn run(&mut self, turn: &mut Turn<'_>, execution: Execution) {
        let job = execution.job_id;
        let is_char = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if job.is_empty() || job.len() > ID_CHARS_MAX || !job.chars().all(is_char) {
            return turn.complain("a job without an id that could stand in a topic");
        }
        let why = match read(&execution.job_document, self.lane) {
            Ok(frames) => {
                turn.out.heard.extend(frames);
                None
            }
            Err(why) => {
                turn.complain(format!("job {job}: {why}"));
                Some(why)
            }
        };
        self.end = Some(End {
            job,
            version: execution.version_number,
            why,
        });
        self.tell_end(turn);
    }

    fn tell_end(&mut self, turn: &mut Turn<'_>) {
        let Some(End { job, version, why }) = &self.end else {
            return;
        };
        let topic = format!("{}{job}/update", self.prefix);
        self.done.ask(turn, topic, |client_token| Update {
            status: if why.is_some() { "REJECTED" } else { "SUCCEEDED" },
            expected_version: *version,
            status_details: why.as_deref().map(|why| Details { why }),
            client_token,
        });
    }

    /// The cloud does not take the end of a job. If it knows the job otherwise than we, what it knows counts: the next one
    /// is asked for, which may be the same.
    fn not_ended(&mut self, turn: &mut Turn<'_>, error: &ErrorDocument) {
        const CONTRADICTIONS: [&str; 4] = [
            "InvalidStateTransition",
            "VersionMismatch",
            "TerminalStateReached",
            "ResourceNotFound",
        ];
        let is_contradiction = matches!(&error.code, Code::Name(name) if CONTRADICTIONS.contains(&name.as_str()));
        let tries = self.done.failed(turn);
        if is_contradiction {
            self.end = None;
        }
        if !is_contradiction || tries == CONTRADICTIONS_MIN {
            error.say(turn, "jobs/update");
        }
    }

    /// When something is due.
    pub(super) fn tick_at(&self) -> Option<u64> {
        self.next.tick_at().into_iter().chain(self.done.tick_at()).min()
    }

    /// Time passed.
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        if self.next.is_due(turn, "jobs/start-next") {
            self.start_next(turn);
        }
        if self.done.is_due(turn, "jobs/update") {
            self.done.lost();
            if self.end.is_some() {
                self.tell_end(turn);
            } else if !self.next.is_asked() {
                self.start_next(turn);
            }
        }
    }
}

/// The frames of a document; why it is none of ours otherwise. All of them or none.
fn read(document: &Value, lane: Lane) -> Result<Vec<Heard>, String> {
    // Some consoles hand a document over as text.
    let inner: Value;
    let document = match document.as_str() {
        Some(text) => {
            inner = serde_json::from_str(text).map_err(|error| format!("not a document of holdfast: {error}"))?;
            &inner
        }
        None => document,
    };
    let found = Frames::deserialize(document).map_err(|error| format!("not a document of holdfast: {error}"))?;
    if found.holdfast != DOCUMENT {
        return Err(format!(
            "a document of version {}, this is version {DOCUMENT}",
            found.holdfast
        ));
    }
    if found.frames.is_empty() || found.frames.len() > FRAMES_MAX {
        return Err(format!("{} frames, 1 to {FRAMES_MAX} are taken", found.frames.len()));
    }
    let frames = found
        .frames
        .iter()
        .map(|wrapped| wrapped.open(lane).map_err(|bad| bad.to_string()));
    frames.collect()
}

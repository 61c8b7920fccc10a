//! The jobs of one thing, in the order in which they were queued.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{Outcome, object};

/// Jobs that wait for a thing.
const JOBS_MAX: usize = 100;

#[derive(Debug)]
struct Job {
    id: String,
    document: Value,
    status: &'static str,
    version: u64,
}

impl Job {
    fn shown(&self) -> Value {
        json!({
            "jobId": self.id, "jobDocument": self.document, "status": self.status, "versionNumber": self.version,
            "executionNumber": 1,
        })
    }
}

/// Jobs.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    open: VecDeque<Job>,
    queued: u64,
    done: Vec<String>,
    /// The job that was told to be next.
    told: Option<String>,
}

impl Jobs {
    /// One more; beyond the limit the oldest is cancelled.
    pub(super) fn queue(&mut self, document: Value) {
        self.queued += 1;
        self.open.push_back(Job {
            id: format!("job-{}", self.queued),
            document,
            status: "QUEUED",
            version: 1,
        });
        if self.open.len() > JOBS_MAX {
            self.open.pop_front();
        }
    }

    /// What `notify-next` says, if another job is next than it said last.
    pub(super) fn news(&mut self) -> Option<Value> {
        let next = self.open.front().map(|job| job.id.clone());
        if next == self.told {
            return None;
        }
        self.told = next;
        let said = self
            .open
            .front()
            .map(|job| json!({ "execution": job.shown(), "timestamp": 0 }));
        Some(said.unwrap_or_else(|| json!({ "timestamp": 0 })))
    }

    /// A request, by what stands behind `jobs/`.
    pub(super) fn ask(&mut self, levels: &[&str], document: &Value) -> Outcome {
        match levels {
            ["get"] => {
                let of = |status: &str| -> Vec<Value> {
                    let jobs = self.open.iter().filter(|job| job.status == status);
                    jobs.map(|job| json!({ "jobId": job.id, "versionNumber": job.version }))
                        .collect()
                };
                Ok(object(
                    json!({ "inProgressJobs": of("IN_PROGRESS"), "queuedJobs": of("QUEUED") }),
                ))
            }
            ["start-next"] => Ok(self.open.front_mut().map_or_else(Default::default, |job| {
                if job.status == "QUEUED" {
                    (job.status, job.version) = ("IN_PROGRESS", job.version + 1);
                }
                object(json!({ "execution": job.shown() }))
            })),
            [id, "get"] => {
                let found = self.open.iter().find(|job| *id == "$next" || job.id == *id);
                found
                    .map(|job| object(json!({ "execution": job.shown() })))
                    .ok_or((json!("ResourceNotFound"), "no such job"))
            }
            [id, "update"] => self.update(id, document),
            _ => Err((json!("InvalidTopic"), "no such request")),
        }
    }

    fn update(&mut self, id: &str, document: &Value) -> Outcome {
        if self.done.iter().any(|done| done == id) {
            return Err((json!("TerminalStateReached"), "the job has ended"));
        }
        let Some(at) = self.open.iter().position(|job| job.id == id) else {
            return Err((json!("ResourceNotFound"), "no such job"));
        };
        let job = &mut self.open[at];
        let expected = match &document["expectedVersion"] {
            Value::Null => None,
            Value::String(text) => text.parse().ok(),
            number => number.as_u64(),
        };
        if expected.is_some_and(|expected: u64| expected != job.version) {
            return Err((json!("VersionMismatch"), "the job has another version"));
        }
        match document["status"].as_str() {
            Some("IN_PROGRESS") => (job.status, job.version) = ("IN_PROGRESS", job.version + 1),
            Some("SUCCEEDED" | "FAILED" | "REJECTED") => {
                self.open.remove(at);
                self.done.push(id.to_owned());
            }
            Some(_) => return Err((json!("InvalidStateTransition"), "no such status")),
            None => return Err((json!("InvalidRequest"), "no status")),
        }
        Ok(Default::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_from_its_notice_to_its_end() {
        let mut jobs = Jobs::default();
        assert_eq!(jobs.news(), None);
        jobs.queue(json!({ "holdfast": 1 }));
        jobs.queue(json!({ "holdfast": 2 }));
        assert_eq!(jobs.news().unwrap()["execution"]["jobId"], "job-1");
        assert_eq!(jobs.news(), None);
        let started = jobs.ask(&["start-next"], &json!({})).unwrap();
        assert_eq!(started["execution"]["status"], "IN_PROGRESS");
        let code = |outcome: Outcome| outcome.err().map_or(json!(""), |(code, _)| code);
        for (id, document, expected) in [
            ("job-9", json!({ "status": "SUCCEEDED" }), "ResourceNotFound"),
            (
                "job-1",
                json!({ "status": "SUCCEEDED", "expectedVersion": 1 }),
                "VersionMismatch",
            ),
            ("job-1", json!({ "status": "MAYBE" }), "InvalidStateTransition"),
            ("job-1", json!({ "status": "SUCCEEDED", "expectedVersion": "2" }), ""),
            ("job-1", json!({ "status": "SUCCEEDED" }), "TerminalStateReached"),
        ] {
            assert_eq!(code(jobs.ask(&[id, "update"], &document)), expected, "{id} {document}");
        }
        assert_eq!(jobs.news().unwrap()["execution"]["jobId"], "job-2");
    }
}

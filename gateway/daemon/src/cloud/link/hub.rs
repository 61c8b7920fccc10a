//! What the hub says on a link, and what it is told in turn: welcome, receipts, artifacts, uploads.

use std::time::Duration;

use carrier::{Class, Symptom};
use gateway_core::{Input, pace::Artifacts};
use proto::link::{ArtifactPart, LedgerReceipt, Welcome};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{CODE_THROTTLED, HELLO_WAIT, HELLO_WAIT_MAX, Life, Link, OWN_ECHO, Talk};
use crate::{
    artifacts::{Assembly, Gone, Whole},
    cloud::{
        adapter::{Adapter, Meaning},
        board::Stage,
        sealed::{Heard, Sealed},
        uploads::{Step, Uploads},
    },
    engine::Job,
};

impl Link {
    /// What the hub said, or, of trouble, whoever stands before it.
    pub(super) async fn said(
        &mut self,
        sealed: &Sealed,
        life: &mut Life,
        talk: &mut Talk,
        heard: Heard,
    ) -> Result<(), Gone> {
        let now_ms = life.now_ms();
        match heard {
            Heard::Welcome(welcome) => self.welcomed(life, talk, welcome).await?,
            Heard::Answer(answer) => {
                life.asked.over(answer.ask);
                life.breaker.good(now_ms);
                self.tell(Input::Answer(answer)).await?;
            }
            Heard::Receipt(receipt) => {
                life.breaker.good(now_ms);
                self.receipt(talk, receipt).await?;
            }
            Heard::Part(part) => self.part(&life.wholes, &mut talk.assembly, part).await?,
            Heard::Counter(seen) => {
                let is_new = sealed.raise_above(seen.last);
                if is_new {
                    tracing::warn!(
                        counter = seen.last,
                        "the hub remembers more of this link than this journal, or doubts a hello that a cloud held back"
                    );
                }
                talk.hello = Some(hello_again(talk.hello, is_new, Instant::now()));
            }
            Heard::Echo(echo) => {
                if echo.nonce & OWN_ECHO == 0 {
                    life.breaker.good(now_ms);
                    self.tell(Input::Echo { nonce: echo.nonce }).await?;
                } else if life.probe == Some(echo.nonce) {
                    life.probe = None;
                    life.breaker.good(now_ms);
                }
            }
            Heard::Order(order) => self
                .engine
                .send(Job::CloudOrder(Box::new(order)))
                .await
                .map_err(|_| Gone)?,
            Heard::Trouble(trouble) => {
                let class = match trouble.code {
                    CODE_THROTTLED => Class::Throttled,
                    401 | 403 | 404 | 410 => Class::Denied,
                    402 => Class::Billing,
                    _ => Class::Broken,
                };
                let mut symptom = Symptom::new(class, trouble.code, &trouble.text);
                symptom.ask = trouble.ask;
                self.symptom(life, talk, &symptom).await?;
            }
        }
        self.stage(life, life.stage);
        Ok(())
    }

    async fn welcomed(&mut self, life: &mut Life, talk: &mut Talk, welcome: Welcome) -> Result<(), Gone> {
        talk.hello = None;
        life.diary.worked();
        if life.stage != Stage::Greeted {
            tracing::info!(cloud = self.cloud.name, upto = welcome.upto, "link to the hub");
        }
        let own = self.position.borrow().epoch;
        life.reports.welcomed(&welcome, own);
        if welcome.version == 0 {
            let text = "the hub and this gateway have no version of the protocol in common";
            let symptom = Symptom::new(Class::Protocol, 0, text);
            self.note(life, &symptom);
            life.diary.symptom(&self.cloud.name, &symptom);
            talk.hello = Some((Instant::now() + HELLO_WAIT_MAX, HELLO_WAIT_MAX, 0));
            return Ok(());
        }
        self.stage(life, Stage::Greeted);
        talk.first = self.goes_first();
        if !talk.first {
            return Ok(());
        }
        let (epoch, upto, hash) = (welcome.epoch, welcome.upto, welcome.hash);
        let is_fenced = epoch > own;
        let announced = Artifacts {
            list: welcome.list_revision,
            revocations: welcome.revocations_revision,
            tariffs: welcome.tariffs_revision,
        };
        self.tell(Input::Welcome(welcome)).await?;
        // On a link that stood already the hub says where we know it to be: what is on its way goes on.
        let expected = talk.uploads.as_ref().is_some_and(|state| state.knows(upto));
        if is_fenced {
            self.fence.expects(epoch, own);
            talk.uploads = None;
        } else if epoch == own && !expected {
            let Some(mut state) = self.uploads_from(upto, talk).await? else {
                return Ok(());
            };
            if state.chain == hash {
                self.fence.agreed();
                let cursor = self.position.borrow().cursor;
                if cursor < upto {
                    // A receipt was lost, and nothing else may ever follow that brings another one: what it was for is
                    // told again, and receipted again.
                    let Some(earlier) = self.uploads_from(cursor, talk).await? else {
                        return Ok(());
                    };
                    state = earlier;
                }
                let head = self.position.borrow().head;
                state.recover(
                    (self.least_ms(), self.backlog_ms_min()),
                    head,
                    self.board.receipted_at().elapsed(),
                    announced,
                );
                if let Some((at, throttle)) = life.throttled {
                    state.go_on(&throttle, at.elapsed());
                }
                talk.uploads = Some(state);
            } else {
                // It has other records of this epoch than we: nothing may follow on them.
                self.fence.expects(own.saturating_add(1), own);
                talk.uploads = None;
            }
        }
        Ok(())
    }

    async fn part(
        &self,
        wholes: &mpsc::Sender<Whole>,
        assembly: &mut Assembly,
        part: ArtifactPart,
    ) -> Result<(), Gone> {
        let (kind, revision) = (part.kind.word(), part.revision);
        match assembly.add(part) {
            Ok(None) => {}
            // To check 100,000 tokens takes longer than anybody waits for an answer.
            Ok(Some(whole)) => wholes.send(whole).await.map_err(|_| Gone)?,
            Err(error) => self.desk.reject(kind, revision, &error),
        }
        Ok(())
    }

    /// An uploader that goes on behind `upto`; none: the journal cannot be read, which says nothing about its records.
    async fn uploads_from(&self, upto: u64, talk: &mut Talk) -> Result<Option<Uploads>, Gone> {
        let (reply, answer) = oneshot::channel();
        self.engine
            .send(Job::Find { ledger: upto, reply })
            .await
            .map_err(|_| Gone)?;
        let mark = answer.await.map_err(|_| Gone)?;
        let (reader, least_ms, bytes_max) = (self.reader.clone(), self.least_ms(), talk.frame_bytes_max);
        // The mark may be far back, and who serves devices shares this thread.
        let read = move || Uploads::from(&reader, &mark, upto, least_ms, bytes_max);
        let state = tokio::task::spawn_blocking(read).await.map_err(|_| Gone)?;
        Ok(state.map_err(|why| unreadable(talk, why)).ok())
    }

    /// The shortest time between two uploads, in ms.
    fn least_ms(&self) -> u64 {
        (1_000 / u64::from(self.pacing.batches_a_second_max)).max(self.cloud.kind.upload_ms_min())
    }

    /// As well, of a backlog.
    fn backlog_ms_min(&self) -> u64 {
        (1_000 / u64::from(self.pacing.backlog_batches_a_second_max)).max(self.cloud.kind.upload_ms_min())
    }

    async fn receipt(&self, talk: &mut Talk, receipt: LedgerReceipt) -> Result<(), Gone> {
        let Some(mut state) = talk.uploads.take() else {
            return Ok(());
        };
        let upto = receipt.upto;
        let (head, cursor) = {
            let position = self.position.borrow();
            (position.head, position.cursor)
        };
        let own_hash = match state.end(upto) {
            Some(hash) => hash,
            None => {
                // Not the end of an upload of ours: the hub stands elsewhere. Go on from where it stands.
                let Some(elsewhere) = self.uploads_from(upto.min(head), talk).await? else {
                    return Ok(());
                };
                state = elsewhere.at_pace_of(&state);
                state.chain
            }
        };
        state.receipted(upto, cursor, head);
        talk.uploads = Some(state);
        if upto > cursor && receipt.hash == own_hash {
            self.board.receipted();
        }
        self.tell(Input::Receipt { receipt, own_hash }).await
    }

    /// Sends what there is to send and the pace allows.
    pub(super) async fn upload(
        &self,
        sealed: &mut Sealed,
        adapter: &mut dyn Adapter,
        life: &mut Life,
        talk: &mut Talk,
    ) -> Result<(), Gone> {
        let position = *self.position.borrow();
        let Some(mut state) = talk.uploads.take() else {
            return Ok(());
        };
        if state.is_to_go_back(&position) && state.pace.wait_ms(state.now_ms()) == 0 {
            let Some(earlier) = self.uploads_from(position.cursor, talk).await? else {
                return Ok(());
            };
            state = earlier.at_pace_of(&state);
        }
        let step = state.step(&self.reader, &position);
        if let Ok(Step::Send(_)) = &step {
            state.sent();
        }
        talk.uploads = Some(state);
        match step {
            Ok(Step::Wait | Step::More) => {}
            Ok(Step::Send(upload)) => {
                let (topic, frame) = sealed.upload(&upload);
                self.up(adapter, life, talk, &topic, &frame, Meaning::Records(&upload));
            }
            Ok(Step::Silence) => {
                let text = "the hub acknowledges nothing: connecting again";
                talk.broken = Some(Symptom::new(Class::HalfDead, 504, text));
            }
            Err(why) => unreadable(talk, why),
        }
        Ok(())
    }
}

/// When to say hello after the hub did not take one, or asked for one: at once if ours was below what it remembers. If it
/// was overtaken, it is said again anyway, more and more slowly.
fn hello_again(planned: Option<(Instant, Duration, u32)>, is_new: bool, now: Instant) -> (Instant, Duration, u32) {
    planned.filter(|_| !is_new).unwrap_or((now, HELLO_WAIT, 0))
}

/// The next connection tries again.
fn unreadable(talk: &mut Talk, why: String) {
    tracing::error!(why, "ALARM the journal cannot be read for the upload");
    talk.broken = Some(Symptom::new(Class::Protocol, 0, why));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_that_was_overtaken_waits_and_one_below_the_hubs_memory_does_not() {
        let now = Instant::now();
        let planned = Some((now + HELLO_WAIT * 2, HELLO_WAIT * 4, 2));
        let at_once = (now, HELLO_WAIT, 0);
        let table = [
            (
                "overtaken: the wait goes on, and is counted",
                planned,
                false,
                (now + HELLO_WAIT * 2, HELLO_WAIT * 4, 2),
            ),
            ("below what the hub remembers", planned, true, at_once),
            ("a hub that begins anew asks for one", None, false, at_once),
        ];
        for (what, planned, is_new, expected) in table {
            assert_eq!(hello_again(planned, is_new, now), expected, "{what}");
        }
    }
}

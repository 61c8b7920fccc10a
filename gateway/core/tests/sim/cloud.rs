//! The way to the hub in the world: questions, uploads, artifacts; and everything that can be wrong with it.

use gateway_core::Input;
use proto::{
    id::Hash,
    link::{Answer, Ask, LedgerReceipt, Trouble, Verdict},
    message::ClockQuality,
    money::Money,
};

use crate::{
    hub::Mood,
    marks::Mark,
    world::{Next, SECOND_MS, World},
};

/// Records of one upload.
const UPLOAD_RECORDS: usize = 16;

impl World {
    /// The link to the cloud comes up, or goes down.
    pub(crate) fn cloud_link(&mut self) {
        if self.cloud_link && !self.calm {
            self.cloud_link = false;
            let ms = self
                .random
                .range(SECOND_MS, self.climate.cloud_link_ms.max(2 * SECOND_MS));
            return self.after(ms, Next::CloudLink);
        }
        if !self.shell.is_up {
            return self.after(SECOND_MS, Next::CloudLink);
        }
        self.cloud_link = true;
        let ms = self.random.range(10, 300);
        self.after(ms, Next::HelloArrives);
        self.sometime(self.climate.cloud_link_ms, Next::CloudLink);
    }

    pub(crate) fn hello_arrives(&mut self) {
        if !self.cloud_link || !self.shell.is_up {
            return;
        }
        if self.mood == Mood::Dark {
            return self.after(5 * SECOND_MS, Next::HelloArrives);
        }
        let welcome = Input::Welcome(self.hub.welcome());
        let ms = self.random.range(10, 200);
        self.after(ms, Next::CloudSays(Box::new(welcome)));
        self.send_artifacts(ms);
        self.orders_again();
        if !self.upload_due {
            self.upload_due = true;
            self.after(SECOND_MS, Next::UploadDue);
        }
    }

    pub(crate) fn cloud_says(&mut self, input: &Input) {
        if self.cloud_link {
            self.put(input);
        }
    }

    pub(crate) fn ask_arrives(&mut self, ask: &Ask) {
        let mood = match self.mood {
            Mood::Mixed => self.random.pick(&Mood::ALL),
            mood => mood,
        };
        let truth = self.hub.answer(ask);
        let (ms, says) = match mood {
            Mood::Dark | Mood::Mixed => return,
            Mood::Healthy => (self.random.range(10, 400), Input::Answer(truth)),
            Mood::Hangs => (self.random.range(900, 90_000), Input::Answer(truth)),
            Mood::NotFound => {
                self.hit(Mark::LiedNotFound);
                let code = self.random.pick(&[401, 403, 404, 404, 404, 500, 503]);
                (50, self.trouble(ask.ask, code))
            }
            Mood::Throttles => {
                self.hit(Mark::Throttled);
                (50, self.trouble(ask.ask, 429))
            }
            Mood::Denies => (50, self.denial(truth)),
            Mood::DeniesPart(_) if mood.leaves_out(&ask.token) => {
                self.hit(Mark::DeniedInPart);
                (50, self.denial(truth))
            }
            Mood::DeniesPart(_) | Mood::HalfDead => (self.random.range(10, 300), Input::Answer(truth)),
            Mood::AcceptsAll => {
                if truth.verdict == Verdict::Deny {
                    self.hit(Mark::LiedAccept);
                }
                let (verdict, money_max) = (Verdict::Accept, Money(1_000));
                let lie = Answer {
                    verdict,
                    money_max,
                    account: truth.account.max(1),
                    ..truth
                };
                (50, Input::Answer(lie))
            }
            Mood::Confused => (50, Input::Answer(self.confuse(truth))),
        };
        self.after(ms, Next::CloudSays(Box::new(says)));
    }

    fn denial(&mut self, truth: Answer) -> Input {
        if truth.verdict == Verdict::Accept {
            self.hit(Mark::DenialUnbacked);
        }
        let verdict = Verdict::Deny;
        Input::Answer(Answer { verdict, ..truth })
    }

    /// The gateway wants to hear from the operator's backend itself: an echo, or the answer to a hello.
    pub(crate) fn backend_asked(&mut self, says: Input) {
        let mood = match self.mood {
            Mood::Mixed => self.random.pick(&Mood::ALL),
            mood => mood,
        };
        let (ms, says) = match mood {
            Mood::Dark | Mood::Mixed | Mood::HalfDead => return,
            Mood::Hangs => (self.random.range(900, 90_000), says),
            Mood::NotFound => (50, self.trouble(0, 404)),
            Mood::Throttles => (50, self.trouble(0, 429)),
            Mood::Healthy | Mood::Denies | Mood::DeniesPart(_) | Mood::AcceptsAll | Mood::Confused => {
                (self.random.range(10, 400), says)
            }
        };
        self.after(ms, Next::CloudSays(Box::new(says)));
    }

    fn trouble(&self, ask: u64, code: u16) -> Input {
        let trouble = Trouble {
            ask,
            code,
            text: String::new(),
        };
        Input::Trouble {
            ask: trouble.ask,
            code: trouble.code,
        }
    }

    /// An authentic answer, to something else.
    fn confuse(&mut self, truth: Answer) -> Answer {
        let other = self.random.below(self.cards.len() as u64) as usize;
        let token = self.hub.tokens[other].hash;
        match self.random.below(3) {
            0 => Answer {
                ask: truth.ask + 1,
                ..truth
            },
            1 => Answer { token, ..truth },
            _ => Answer {
                session: proto::id::SessionId([1; 16]),
                ..truth
            },
        }
    }

    pub(crate) fn upload(&mut self) {
        self.upload_due = false;
        if !self.shell.is_up || !self.cloud_link {
            return;
        }
        let cursor = self.shell.gateway.outbox().cursor() as usize;
        let records = &self.shell.records;
        if cursor >= records.len() {
            return;
        }
        let upto = records.len().min(cursor + UPLOAD_RECORDS);
        let part: Vec<Vec<u8>> = records[cursor..upto].iter().map(|(bytes, _)| bytes.clone()).collect();
        self.upload_due = true;
        self.after(3 * SECOND_MS, Next::UploadDue);
        if matches!(self.mood, Mood::Dark | Mood::HalfDead) {
            return;
        }
        for ms in self.weather(false) {
            let (first, records) = (cursor as u64 + 1, part.clone());
            self.after(ms, Next::UploadArrives { first, records });
        }
    }

    pub(crate) fn upload_arrives(&mut self, first: u64, records: &[Vec<u8>]) {
        let (receipt, repeated) = self.hub.commit(first, records);
        if repeated {
            self.hit(Mark::UploadRepeated);
        }
        let ways = self.weather(false);
        if ways.is_empty() {
            self.hit(Mark::ReceiptLost);
        }
        for ms in ways {
            self.after(ms, Next::ReceiptArrives(receipt.clone()));
        }
    }

    pub(crate) fn receipt_arrives(&mut self, receipt: LedgerReceipt) {
        if !self.cloud_link {
            return;
        }
        let own = receipt
            .upto
            .checked_sub(1)
            .and_then(|i| self.shell.records.get(i as usize));
        let own_hash = own.map_or(Hash::ZERO, |(_, hash)| *hash);
        self.put(&Input::Receipt { receipt, own_hash });
    }

    pub(crate) fn hub_backup(&mut self) {
        if self.random.chance(6_000) {
            self.hub.back_up();
        } else if self.hub.put_back() {
            // Every connection breaks; the gateway says hello again.
            self.cloud_link = false;
            self.after(2 * SECOND_MS, Next::CloudLink);
        }
        self.sometime(self.climate.hub_backup_ms, Next::HubBackup);
    }

    pub(crate) fn change_mood(&mut self) {
        self.mood = self.random.pick(&Mood::ALL);
        if self.trace {
            eprintln!("{:>10} the cloud is {:?}", self.t_ms, self.mood);
        }
        self.sometime(self.climate.mood_ms, Next::Mood);
    }

    /// The disk of the journal fills up, or has room again.
    pub(crate) fn change_disk(&mut self) {
        let is_scarce = !self.shell.gateway.is_disk_scarce() && self.random.chance(5_000);
        self.put(&Input::Disk { is_scarce });
        self.sometime(self.climate.disk_ms / if is_scarce { 8 } else { 1 }, Next::Disk);
    }

    /// Somebody, or nobody, sets the gateway's clock.
    pub(crate) fn change_clock(&mut self) {
        let jump_s = self.random.range(600, 86_400) as i64;
        self.wall_drift_ppm = self.random.pick(&[0, 0, 150, -150]);
        (self.wall_skew_s, self.quality) = match self.random.below(7) {
            0 => {
                self.hit(Mark::ClockJumpedAhead);
                (jump_s, ClockQuality::Informative)
            }
            1 => {
                self.hit(Mark::ClockJumpedBack);
                (-jump_s, ClockQuality::Informative)
            }
            2 => {
                self.hit(Mark::ClockIn1970);
                (i64::MIN, ClockQuality::Informative)
            }
            3 => {
                self.hit(Mark::ClockUnknown);
                (0, ClockQuality::Unknown)
            }
            4 => {
                self.hit(Mark::ClockSet);
                (
                    self.random.range(600, 86_400) as i64 - 43_200,
                    ClockQuality::Synchronised,
                )
            }
            _ => (0, ClockQuality::Synchronised),
        };
        self.sometime(self.climate.clock_ms, Next::Clock);
    }
}

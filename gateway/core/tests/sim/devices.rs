//! The devices in the world: the real code, driven by physics, power and a network.

use device::{Device, Effect, Input, RecordKey, Screen, Stored};
use proto::{
    codec,
    id::Kind,
    message::{OutletState, Stop, StopReason},
    topic::{self, Down, Up},
};

use crate::{
    marks::Mark,
    shell::Frame,
    world::{MINUTE_MS, Next, SECOND_MS, World},
};

/// Readings of an outlet at which nothing happens; in ms.
const IDLE_SENSE_MS: u64 = 2 * MINUTE_MS;

impl World {
    fn device_now(&self, at: usize) -> device::Now {
        device::Now {
            mono_ms: self.t_ms - self.twins[at].booted_ms,
        }
    }

    pub(crate) fn power_on(&mut self, at: usize) {
        let twin = &mut self.twins[at];
        if twin.device.is_some() || twin.is_lost {
            return;
        }
        let mut stored = Stored::new();
        for (key, bytes) in &twin.flash {
            stored.load(*key, bytes).expect("what the device stored can be loaded");
        }
        twin.booted_ms = self.t_ms;
        twin.rejected = 0;
        let now = device::Now { mono_ms: 0 };
        let device = Device::boot(twin.config.clone(), stored, now).expect("the configuration is sound");
        twin.device = Some(device);
        twin.next_sense_ms = self.t_ms + SECOND_MS;
        self.run_effects(at);
        let ms = self.random.range(200, 5_000);
        self.after(ms, Next::LinkTry { at });
    }

    pub(crate) fn power_cut(&mut self, at: usize) {
        self.advance_physics(at);
        let twin = &mut self.twins[at];
        let Some(device) = twin.device.take() else { return };
        twin.has_link = false;
        twin.generation += 1;
        twin.wakes_at_ms = u64::MAX;
        self.marks.hit(Mark::PowerCut);
        for (i, place) in twin.places.iter_mut().enumerate() {
            place.physical.on = false;
            self.auditor.cut(place.session);
            match device.state(i as u8) {
                Some(OutletState::Preparing) => self.marks.hit(Mark::PowerCutWhileAsking),
                Some(OutletState::Busy) => {
                    self.marks.hit(Mark::PowerCutWhileRunning);
                    twin.ended_by_cut = place.session;
                }
                _ => {}
            }
        }
        if self.trace {
            eprintln!("{:>10} {} loses power", self.t_ms, self.twins[at].config.id);
        }
        let ms = match self.random.below(4) {
            0 => self.random.range(500, 5_000),
            1 | 2 => self.random.range(5_000, 9 * MINUTE_MS),
            _ => self.random.range(MINUTE_MS, 60 * MINUTE_MS),
        };
        self.after(ms, Next::PowerOn { at });
    }

    /// Flows and cycles up to now, each put down to the session that the device has open there.
    fn advance_physics(&mut self, at: usize) {
        let t_ms = self.t_ms;
        for (i, place) in self.twins[at].places.iter_mut().enumerate() {
            let units = place.physical.advance(t_ms);
            if units > 0 {
                self.auditor.delivered(place.session, units, (at, i));
            }
        }
    }

    /// Lets the device take an input in, and carries out what it wants.
    pub(crate) fn drive(&mut self, at: usize, input: Input<'_>) {
        self.advance_physics(at);
        let now = self.device_now(at);
        let Some(device) = &mut self.twins[at].device else {
            return;
        };
        let _ = device.handle(now, input);
        self.run_effects(at);
    }

    fn run_effects(&mut self, at: usize) {
        while let Some(device) = &mut self.twins[at].device {
            let Some(effect) = device.effects().next() else { break };
            let is_store = matches!(effect, Effect::Store(_));
            if !self.calm && self.random.chance(self.climate.power_cut) {
                // Before the effect, or with it: a record is replaced whole or not at all.
                if is_store {
                    self.hit(Mark::PowerCutAtStore);
                }
                if self.random.chance(5_000) {
                    self.device_effect(at, effect);
                }
                return self.power_cut(at);
            }
            self.device_effect(at, effect);
        }
        let Some(device) = &self.twins[at].device else { return };
        let sessions: Vec<_> = (0..self.twins[at].places.len())
            .map(|i| device.session(i as u8))
            .collect();
        for (place, session) in self.twins[at].places.iter_mut().zip(sessions) {
            place.session = session;
        }
        self.plan_wake(at);
    }

    fn device_effect(&mut self, at: usize, effect: Effect) {
        let twin = &mut self.twins[at];
        match effect {
            Effect::Switch { outlet, on } => {
                let place = &mut twin.places[usize::from(outlet)];
                if on {
                    let session = twin.device.as_ref().and_then(|device| device.session(outlet));
                    place.session = session;
                    self.auditor.switched_on(session, (at, usize::from(outlet)));
                    if session.is_some() && session == twin.ended_by_cut {
                        self.marks.hit(Mark::ResumedAfterPowerCut);
                    }
                }
                // What flowed up to the switching must be read before anybody else begins.
                twin.next_sense_ms = self.t_ms + SECOND_MS;
                place.physical.on = on;
            }
            Effect::Store(record) => {
                twin.flash.insert(record.key, record.bytes.to_vec());
                if let RecordKey::Redeemed(_) = record.key
                    && let Some(redeemed) = crate::instruments::stored(&record.bytes)
                {
                    self.auditor.redeemed(at, &redeemed, &mut self.marks);
                }
            }
            Effect::Publish { topic, frame } => {
                let frame = Frame {
                    topic,
                    bytes: frame.to_vec(),
                };
                self.look_at_stop(at, &frame);
                self.send_up(at, frame);
            }
            Effect::Show { outlet, screen } => {
                twin.places[usize::from(outlet)].screen = screen;
                if let Screen::Ended { .. } | Screen::Refused { .. } | Screen::Begin { .. } = screen {
                    self.nudge_visit(at, usize::from(outlet));
                }
            }
        }
    }

    /// What the device tells its user to owe is the most that may be billed.
    fn look_at_stop(&mut self, at: usize, frame: &Frame) {
        let Some((_, Up::Stop)) = topic::parse_up(&frame.topic) else {
            return;
        };
        // Version and counter before, the seal behind.
        let body = &frame.bytes[9..frame.bytes.len() - 16];
        let stop: Stop = codec::decode(body).expect("a device's own message can be read");
        if self.auditor.stopped(&stop) {
            let mark = match stop.reason {
                StopReason::User => Mark::UserStopped,
                StopReason::Limit => Mark::LimitReached,
                StopReason::Finished | StopReason::Unplugged => Mark::Finished,
                StopReason::Fault => Mark::DeviceFault,
                StopReason::Remote => Mark::RemoteStopped,
                StopReason::NotStarted => Mark::NotStarted,
                StopReason::Abandoned => Mark::Abandoned,
                StopReason::PowerLoss | StopReason::Other => return,
            };
            self.hit(mark);
        }
        let _ = at;
    }

    /// The device wakes when its time has come, or for its next reading.
    fn plan_wake(&mut self, at: usize) {
        let twin = &mut self.twins[at];
        let Some(device) = &twin.device else { return };
        let due_ms = device.next_deadline().map(|ms| twin.booted_ms + ms);
        let idle_ms = if self.calm { 30 * IDLE_SENSE_MS } else { IDLE_SENSE_MS };
        let busy = (0..twin.places.len()).any(|i| device.state(i as u8) != Some(OutletState::Free));
        let every_ms = match twin.config.kind {
            _ if !busy => idle_ms,
            Kind::Dispenser => SECOND_MS,
            Kind::Charger | Kind::Washer | Kind::Unknown => 5 * SECOND_MS,
        };
        twin.next_sense_ms = twin.next_sense_ms.min(self.t_ms + every_ms);
        let wake_ms = due_ms.unwrap_or(u64::MAX).min(twin.next_sense_ms).max(self.t_ms);
        if wake_ms != twin.wakes_at_ms {
            twin.wakes_at_ms = wake_ms;
            twin.generation += 1;
            let generation = twin.generation;
            self.at(wake_ms, Next::DeviceWake { at, generation });
        }
    }

    pub(crate) fn device_wakes(&mut self, at: usize, generation: u32) {
        if self.twins[at].generation != generation {
            return;
        }
        self.twins[at].wakes_at_ms = u64::MAX;
        if self.t_ms >= self.twins[at].next_sense_ms {
            self.twins[at].next_sense_ms = u64::MAX;
            self.advance_physics(at);
            for outlet in 0..self.twins[at].places.len() {
                self.sense(at, outlet);
            }
        } else {
            self.drive(at, Input::Tick);
        }
    }

    /// The device looks at an outlet now.
    pub(crate) fn sense(&mut self, at: usize, outlet: usize) {
        self.advance_physics(at);
        let sense = self.twins[at].places[outlet].physical.sense();
        if self.twins[at].device.is_some() {
            self.auditor.read(self.twins[at].places[outlet].session);
        }
        let outlet = outlet as u8;
        self.drive(at, Input::Sense { outlet, sense });
    }

    pub(crate) fn link_try(&mut self, at: usize) {
        if self.twins[at].has_link || self.twins[at].device.is_none() {
            return;
        }
        if !self.shell.is_up {
            return self.after(2_000, Next::LinkTry { at });
        }
        self.twins[at].has_link = true;
        self.drive(at, Input::LinkUp);
    }

    pub(crate) fn link_cut(&mut self, at: usize) {
        if self.twins[at].has_link {
            self.twins[at].has_link = false;
            self.hit(Mark::LinkCut);
            self.drive(at, Input::LinkDown);
        }
        let ms = match self.random.below(3) {
            0 => self.random.range(100, 5_000),
            1 => self.random.range(5_000, MINUTE_MS),
            _ => self.random.range(MINUTE_MS, 20 * MINUTE_MS),
        };
        let ms = if self.calm { 1_000 } else { ms };
        self.after(ms, Next::LinkTry { at });
    }

    fn send_up(&mut self, at: usize, frame: Frame) {
        if !self.twins[at].has_link {
            return;
        }
        for delay_ms in self.weather(true) {
            let mut arrives_ms = self.t_ms + delay_ms;
            if delay_ms >= MINUTE_MS {
                // A replay keeps no order.
            } else if !self.random.chance(self.climate.frame_overtaken) {
                arrives_ms = arrives_ms.max(self.twins[at].arrives_up_ms);
                self.twins[at].arrives_up_ms = arrives_ms;
            } else {
                self.hit(Mark::FrameOvertaken);
                arrives_ms += self.random.below(10_000);
            }
            self.at(arrives_ms, Next::FrameUp(frame.clone()));
        }
    }

    pub(crate) fn send_down(&mut self, to: usize, frame: Frame) {
        for delay_ms in self.weather(true) {
            let mut arrives_ms = self.t_ms + delay_ms;
            if delay_ms >= MINUTE_MS {
                // A replay keeps no order.
            } else if !self.random.chance(self.climate.frame_overtaken) {
                arrives_ms = arrives_ms.max(self.twins[to].arrives_down_ms);
                self.twins[to].arrives_down_ms = arrives_ms;
            } else {
                self.hit(Mark::FrameOvertaken);
                arrives_ms += self.random.below(10_000);
            }
            let frame = frame.clone();
            self.at(arrives_ms, Next::FrameDown { to, frame });
        }
    }

    /// Delays of the copies of a frame that arrive; in ms.
    pub(crate) fn weather(&mut self, may_replay: bool) -> heapless::Vec<u64, 3> {
        let mut delays = heapless::Vec::new();
        let climate = self.climate;
        let longest_ms = climate.delay_ms.max(6);
        if self.random.chance(climate.frame_lost) {
            self.hit(Mark::FrameLost);
        } else {
            let _ = delays.push(self.random.range(5, longest_ms));
        }
        if self.random.chance(climate.frame_twice) {
            self.hit(Mark::FrameTwice);
            let _ = delays.push(self.random.range(5, longest_ms));
        }
        if may_replay && self.random.chance(climate.frame_replayed) {
            // Somebody recorded it and plays it again, much later.
            let _ = delays.push(self.random.range(MINUTE_MS, 30 * MINUTE_MS));
        }
        delays
    }

    pub(crate) fn frame_down(&mut self, to: usize, frame: &Frame) {
        if self.twins[to].has_link && topic::parse_down(&frame.topic).is_some_and(|(_, word)| word == Down::Command) {
            // A start by command is a presentation: see there.
            for outlet in 0..self.twins[to].places.len() {
                self.sense(to, outlet);
            }
        }
        let twin = &self.twins[to];
        if !twin.has_link || twin.device.is_none() {
            return;
        }
        let topic = frame.topic.clone();
        self.drive(
            to,
            Input::Message {
                topic: &topic,
                frame: &frame.bytes,
            },
        );
        let twin = &mut self.twins[to];
        let Some(device) = &twin.device else { return };
        let rejected = device.rejected();
        assert_eq!(
            (rejected.seal, rejected.topic, rejected.body),
            (0, 0, 0),
            "nobody forges here"
        );
        if rejected.replay > twin.rejected {
            self.marks.hit(Mark::FrameReplayedDown);
        }
        twin.rejected = rejected.replay;
    }
}

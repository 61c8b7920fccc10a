//! The devices in the world: the real code, driven by physics and a network.

use device::{Effect, Input, Screen};
use proto::{id::Kind, message::OutletState};

use super::world::{Frame, Next, World};

/// Way of a frame between device and gateway, in ms: a hall's Wi-Fi or RS-485 behind a converter.
const LAN_MS: std::ops::Range<u64> = 3..25;
/// Interval of readings while an outlet is in use, in ms. Firmware reads every second; nine seconds are just below the
/// ten after which a device counts itself blind, and a ninth of the work.
const SENSE_SLOW_MS: u64 = 9_000;
/// As [`SENSE_SLOW_MS`], for water.
const SENSE_WATER_MS: u64 = 1_000;
/// What flowed up to a switching is read so soon after it, in ms.
const SENSE_AFTER_SWITCH_MS: u64 = 1_000;

impl World<'_> {
    pub(super) fn device_link(&mut self, at: usize) {
        self.drive(at, Input::LinkUp);
    }

    /// Flows and cycles up to now, each put down to the session that the device has open there.
    fn advance_physics(&mut self, at: usize) {
        let t_ms = self.t_ms;
        for place in &mut self.twins[at].places {
            let units = place.physical.advance(t_ms);
            if units > 0 {
                self.oracle.delivered(place.session, units);
            }
        }
    }

    /// Lets the device take an input in, and carries out what it wants.
    pub(super) fn drive(&mut self, at: usize, input: Input<'_>) {
        self.advance_physics(at);
        let now = device::Now { mono_ms: self.t_ms };
        let mut next = self.twins[at].device.handle(now, input).next();
        while let Some(effect) = next {
            self.device_effect(at, effect);
            next = self.twins[at].device.effects().next();
        }
        let twin = &mut self.twins[at];
        for (i, place) in twin.places.iter_mut().enumerate() {
            place.session = twin.device.session(i as u8);
        }
        self.plan_wake(at);
    }

    fn device_effect(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Switch { outlet, on } => {
                let twin = &mut self.twins[at];
                let place = &mut twin.places[usize::from(outlet)];
                if on {
                    place.session = twin.device.session(outlet);
                    self.oracle.switched_on(place.session);
                }
                place.physical.on = on;
                twin.sense_ms = self.t_ms + SENSE_AFTER_SWITCH_MS;
            }
            // Nobody cuts the power here; the simulation of the core does.
            Effect::Store(_) => {}
            Effect::Publish { topic, frame } => {
                let bytes = frame.to_vec();
                let arrives_ms = (self.t_ms + self.network_rng.u64(LAN_MS)).max(self.twins[at].up_ms);
                self.twins[at].up_ms = arrives_ms;
                let frame = Box::new(Frame { topic, bytes });
                self.at(arrives_ms, Next::FrameUp { at, frame });
            }
            Effect::Show { outlet, screen } => {
                let outlet = usize::from(outlet);
                self.twins[at].places[outlet].screen = screen;
                match screen {
                    Screen::Free | Screen::Asking => {}
                    Screen::Refused { .. }
                    | Screen::Unavailable
                    | Screen::Begin { .. }
                    | Screen::Delivering { .. }
                    | Screen::Ended { .. }
                    | Screen::Receipt { .. }
                    | Screen::Recovering
                    | Screen::Faulted(_) => self.seen(at, outlet, screen),
                }
            }
        }
    }

    pub(super) fn send_down(&mut self, at: usize, frame: Frame) {
        let arrives_ms = (self.t_ms + self.network_rng.u64(LAN_MS)).max(self.twins[at].down_ms);
        self.twins[at].down_ms = arrives_ms;
        let frame = Box::new(frame);
        self.at(arrives_ms, Next::FrameDown { at, frame });
    }

    pub(super) fn frame_down(&mut self, at: usize, frame: &Frame) {
        let (topic, frame) = (frame.topic.as_str(), frame.bytes.as_slice());
        self.drive(at, Input::Message { topic, frame });
    }

    /// The device wakes when its time has come, or for its next reading.
    fn plan_wake(&mut self, at: usize) {
        let twin = &mut self.twins[at];
        let due_ms = twin.device.next_deadline().unwrap_or(u64::MAX);
        let states = (0..twin.places.len()).map(|i| twin.device.state(i as u8));
        let busy = states.into_iter().any(|state| state != Some(OutletState::Free));
        if busy {
            let every_ms = match twin.config.kind {
                Kind::Dispenser => SENSE_WATER_MS,
                Kind::Charger | Kind::Washer | Kind::Unknown => SENSE_SLOW_MS,
            };
            twin.sense_ms = twin.sense_ms.min(self.t_ms + every_ms);
        }
        let wake_ms = due_ms.min(twin.sense_ms).max(self.t_ms);
        if wake_ms != twin.wakes_ms && wake_ms < u64::MAX {
            twin.wakes_ms = wake_ms;
            twin.generation += 1;
            let generation = twin.generation;
            self.at(wake_ms, Next::DeviceWake { at, generation });
        }
    }

    pub(super) fn device_wakes(&mut self, at: usize, generation: u32) {
        let twin = &mut self.twins[at];
        if twin.generation != generation {
            return;
        }
        twin.wakes_ms = u64::MAX;
        if self.t_ms >= twin.sense_ms {
            twin.sense_ms = u64::MAX;
            for outlet in 0..self.twins[at].places.len() {
                self.sense(at, outlet);
            }
        } else {
            self.drive(at, Input::Tick);
        }
    }

    /// The device looks at an outlet now.
    pub(super) fn sense(&mut self, at: usize, outlet: usize) {
        self.advance_physics(at);
        let sense = self.twins[at].places[outlet].physical.sense();
        let outlet = outlet as u8;
        self.drive(at, Input::Sense { outlet, sense });
    }
}

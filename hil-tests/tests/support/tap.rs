//! A tap as the service's devices see the gateway, and somebody who drinks.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use hil_tests::site::{DevicePlan, Plan, Standing};
use proto::{
    id::{IdToken, Kind, SessionId, TokenKind},
    instrument::Instrument,
    message::{
        Authorize, Closing, Grant, Hello, Receipt, Refusal, RefusalReason, Stamp, StartProof, Started, Stop, StopReason,
    },
    money::{Money, Units},
    topic::{Down, Up},
};

use crate::support::Bytes;

/// Where devices find the gateway in there; nobody else has ports there.
pub(crate) const PORT: &str = "127.0.0.1:1883";
/// What half a litre costs.
pub(crate) const PRICE: i64 = 15;

/// A tap and somebody with a good card.
pub(crate) struct Tap {
    pub(crate) device: DevicePlan,
    token: [u8; 7],
    boots: u32,
    /// Every session that has its receipt.
    pub(crate) served: Vec<String>,
}

/// A session that goes on.
pub(crate) struct Running {
    pub(crate) bytes: Bytes,
    session: SessionId,
    start: Units,
}

impl Tap {
    pub(crate) fn of(plan: &Plan) -> Self {
        let mut dispensers = plan.devices.iter().filter(|device| device.kind == Kind::Dispenser);
        let mut good = plan.users.iter().filter(|user| user.standing == Standing::Good);
        Self {
            device: dispensers.next().unwrap().clone(),
            token: good.find(|user| user.whitelist == "always").unwrap().token,
            boots: 0,
            served: Vec::new(),
        }
    }

    /// Somebody presents the card; the request, not yet said.
    pub(crate) fn asked(&mut self) -> (Running, Authorize) {
        self.boots += 1;
        let address: SocketAddr = PORT.parse().unwrap();
        let mut bytes = Bytes::connect(address, &self.device, self.boots);
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            kind: self.device.kind,
            outlets: 1,
            boot: self.boots,
            down_counter: 0,
            firmware: "bytes".parse().unwrap(),
            at: Stamp::relative(1),
        };
        bytes.say(Up::Hello, &hello);
        let session = SessionId::mint(&self.device.id, self.boots, 1);
        let start = Units(u64::from(self.boots) * 1_000);
        let authorize = Authorize {
            session,
            outlet: 0,
            token: IdToken::new(TokenKind::Card, &self.token).unwrap(),
            units_wished: Units::ZERO,
            register: start,
            at: Stamp::relative(2),
            instrument: Instrument::NONE,
        };
        (Running { bytes, session, start }, authorize)
    }

    /// As far as the water runs.
    pub(crate) fn begin(&mut self) -> Running {
        let (mut running, authorize) = self.asked();
        let heard = running.bytes.say(Up::Authorize, &authorize);
        let grant: Grant = running.bytes.hear(Down::Grant, heard);
        assert_eq!(grant.session, running.session);
        let started = Started {
            session: running.session,
            outlet: 0,
            register_start: running.start,
            proof: StartProof::Flow,
            at: Stamp::relative(3),
        };
        running.bytes.say(Up::Started, &started);
        running
    }

    /// Why not.
    pub(crate) fn refused(&mut self) -> RefusalReason {
        let (mut running, authorize) = self.asked();
        let heard = running.bytes.say(Up::Authorize, &authorize);
        let refusal: Refusal = running.bytes.hear(Down::Refusal, heard);
        refusal.reason
    }

    /// Half a litre; the books have its session.
    pub(crate) fn serve(&mut self) {
        let running = self.begin();
        self.end(running);
    }

    pub(crate) fn end(&mut self, running: Running) {
        self.served.push(running.end());
    }
}

impl Running {
    fn end(mut self) -> String {
        let stop = Stop {
            session: self.session,
            outlet: 0,
            reason: StopReason::User,
            started: true,
            register_start: self.start,
            register_end: Units(self.start.0 + 500),
            elapsed_s: 5,
            idle_s: 0,
            shown: Money(PRICE),
            at: Stamp::relative(9),
        };
        let heard = self.bytes.say(Up::Stop, &stop);
        let receipt: Receipt = self.bytes.hear(Down::Receipt, heard);
        assert_eq!((receipt.closing, receipt.amount), (Closing::Captured, Money(PRICE)));
        receipt.session.to_string()
    }
}

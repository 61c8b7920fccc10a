//! Orders of the operator as he gives them and as he sees them: text in, lines out. A raw token is read here, hashed, and
//! handed on; it is in no line.

use std::{fmt, str::FromStr};

use proto::{
    id::{IdToken, Name, OutletId, SessionId, TokenHash, TokenKey},
    link::{Order, OrderVerb},
    message::ClockQuality,
};
use serde::{Deserialize, Serialize};

use crate::{
    core::{DispatchRow, DispatchState, Hub},
    seed,
};

/// What the operator orders.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderWish {
    /// start, stop, reserve, release, report or telemetry.
    pub verb: String,
    /// Which device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Which outlet.
    #[serde(default)]
    pub outlet: OutletId,
    /// `stop`: which session, 32 hexadecimal digits, if not whichever is open at the outlet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// `start`, `reserve`: for whom, as `card:04a1b2c3`, `app:TEXT` or `pin:TEXT`; to reserve also `hash:HEX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Not to be begun later than so many seconds from now.
    pub not_after_s: u64,
    /// `reserve`: so many seconds from now.
    #[serde(default)]
    pub for_s: u64,
    /// `telemetry`: a report every so many seconds; 0: none.
    #[serde(default)]
    pub every_s: u64,
}

/// Without the token.
impl fmt::Debug for OrderWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderWish")
            .field("verb", &self.verb)
            .field("device", &self.device)
            .field("outlet", &self.outlet)
            .finish_non_exhaustive()
    }
}

impl OrderWish {
    /// As the core takes it, at this time of the hub's clock, and the raw token of a start.
    ///
    /// # Errors
    /// A text that names what is missing or wrong, and never a token.
    pub fn order(&self, wall_s: u64, key: &TokenKey) -> Result<(Box<Order>, Option<IdToken>), String> {
        let verb = verb_of(&self.verb)?;
        let device = self.device.as_deref().map(Name::from_str).transpose();
        let device = device.map_err(|error| format!("device: {error}"))?;
        let session = self.session.as_deref().map(SessionId::from_str).transpose();
        let session = session
            .map_err(|error| format!("session: {error}"))?
            .unwrap_or(SessionId::ZERO);
        let (raw, whose) = match &self.token {
            Some(text) => token_of(text, key)?,
            None => (None, TokenHash::ZERO),
        };
        let needs_token = matches!(verb, OrderVerb::Start | OrderVerb::Reserve);
        let word = verb.word();
        if needs_token != (whose != TokenHash::ZERO) {
            return Err(match needs_token {
                true => format!("{word} needs a token"),
                false => format!("{word} is about no token"),
            });
        }
        if verb == OrderVerb::Start && raw.is_none() {
            return Err("start needs the token itself, not its hash".to_owned());
        }
        let is_everywhere = verb == OrderVerb::TelemetryEvery;
        if is_everywhere && device.is_some() {
            return Err("telemetry is about the gateway, not about a device".to_owned());
        }
        if !is_everywhere && device.is_none() && session == SessionId::ZERO {
            return Err(format!("{word} needs a device"));
        }
        let order = Order {
            id: 0,
            not_after_s: wall_s.saturating_add(self.not_after_s),
            verb,
            device,
            outlet: self.outlet,
            session,
            token: None,
            until_s: if verb == OrderVerb::Reserve {
                wall_s.saturating_add(self.for_s)
            } else {
                0
            },
            value: self.every_s,
            whose,
        };
        Ok((Box::new(order), raw.filter(|_| verb == OrderVerb::Start)))
    }
}

fn verb_of(word: &str) -> Result<OrderVerb, String> {
    let given = [
        OrderVerb::Start,
        OrderVerb::Stop,
        OrderVerb::Reserve,
        OrderVerb::Release,
        OrderVerb::TelemetryEvery,
        OrderVerb::Report,
    ];
    let known = given.into_iter().find(|verb| verb.word() == word);
    known.ok_or_else(|| format!("{word:?} is none of start, stop, reserve, release, report, telemetry"))
}

/// A token by its form and content, or a hash.
fn token_of(text: &str, key: &TokenKey) -> Result<(Option<IdToken>, TokenHash), String> {
    let (kind, value) = text
        .split_once(':')
        .ok_or_else(|| "a token is given as card:HEX, app:TEXT, pin:TEXT or hash:HEX".to_owned())?;
    if kind == "hash" {
        let hash = TokenHash::from_str(value).map_err(|error| format!("hash: {error}"))?;
        return Ok((None, hash));
    }
    let token = match kind {
        "card" => seed::raw_token(kind, Some(value), None),
        _ => seed::raw_token(kind, None, Some(value)),
    }?;
    let hash = token.hash(key);
    Ok((Some(token), hash))
}

/// The number of an order, as a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderGiven {
    /// To which gateway.
    pub gateway: String,
    /// Its number.
    pub order: u64,
}

/// An order, as a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// To which gateway.
    pub gateway: String,
    /// Its number.
    pub order: u64,
    /// What was wanted.
    pub verb: String,
    /// waits, overdue, or what became of it: done, stale, repeated, unknown, busy, unsupported, malformed.
    pub state: String,
    /// Which device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Which outlet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlet: Option<OutletId>,
    /// Which session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// For whom, under the site's keyed hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Of telemetry: every so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_s: Option<u64>,
    /// When it was given (seconds since 1970 UTC).
    pub issued_s: u64,
    /// Not to be begun after this time.
    pub not_after_s: u64,
    /// Until when an outlet is kept free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_s: Option<u64>,
    /// When the gateway decided, by its own clock, if that could be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_s: Option<u64>,
}

impl OrderLine {
    fn new(gateway: &Name, row: &DispatchRow) -> Self {
        let order = &row.order;
        let (state, at) = match row.state {
            DispatchState::Waits => ("waits", None),
            DispatchState::Overdue => ("overdue", None),
            DispatchState::Answered(outcome, at) => (outcome.word(), Some(at)),
        };
        let has_wall = |quality| match quality {
            ClockQuality::Informative | ClockQuality::Synchronised => true,
            ClockQuality::Unknown | ClockQuality::Relative => false,
        };
        Self {
            gateway: gateway.to_string(),
            order: order.id,
            verb: order.verb.word().to_owned(),
            state: state.to_owned(),
            device: order.device.map(|device| device.to_string()),
            outlet: order.device.map(|_| order.outlet),
            session: (order.session != SessionId::ZERO).then(|| order.session.to_string()),
            token: (order.whose != TokenHash::ZERO).then(|| order.whose.to_string()),
            every_s: (order.verb == OrderVerb::TelemetryEvery).then_some(order.value),
            issued_s: row.issued_s,
            not_after_s: order.not_after_s,
            until_s: (order.until_s != 0).then_some(order.until_s),
            decided_s: at.filter(|at| has_wall(at.quality)).map(|at| at.wall_s),
        }
    }
}

/// Every order that is remembered, by gateway and number.
#[must_use]
pub fn lines(hub: &Hub) -> Vec<OrderLine> {
    let rows = hub.dispatches().iter();
    rows.map(|(gateway, row)| OrderLine::new(gateway, row)).collect()
}

//! The cloud side: a link for each cloud, and an adapter between it and what that cloud speaks.

pub mod adapter;
pub mod alink;
pub mod aws;
pub mod board;
pub mod breaker;
mod diary;
pub mod fence;
pub mod hcp;
mod kinds;
pub mod lane;
pub mod link;
pub mod reconnect;
mod reports;
pub mod router;
pub mod sealed;
pub mod start;
mod told;
mod uploads;
pub mod webhook;
pub mod wrap;

use proto::link::{Ask, Echo, OrderDone};

/// Something for the link.
#[derive(Clone, Debug)]
pub enum LinkJob {
    /// Ask the hub; whoever waits has his own deadline.
    Ask(Ask),
    /// A list came as changes that do not fit ours: say hello again and claim to have none.
    FetchList,
    /// Ask the operator's backend for an echo.
    Echo(Echo),
    /// Say hello again on the link that stands.
    Hello,
    /// Tell the hub what became of an order.
    Done(OrderDone),
}

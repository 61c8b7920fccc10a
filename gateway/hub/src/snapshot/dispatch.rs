//! Orders to gateways in a snapshot.

use proto::{
    id::GatewayId,
    link::{Order, OrderDone},
};
use serde::{Deserialize, Serialize};

use super::{Writer, read};
use crate::{
    core::{DispatchRow, DispatchState, Hub},
    record::RecordError,
};

const DISPATCH: u16 = 50;
const DISPATCH_LAST: u16 = 51;
/// First kind of row about orders.
pub(super) const FIRST: u16 = DISPATCH;
/// Last one.
pub(super) const LAST: u16 = DISPATCH_LAST;

#[derive(Serialize, Deserialize)]
struct Dispatch1 {
    gateway: GatewayId,
    order: Order,
    issued_s: u64,
    is_overdue: bool,
    done: Option<OrderDone>,
}

#[derive(Serialize, Deserialize)]
struct DispatchLast1 {
    gateway: GatewayId,
    id: u64,
}

pub(super) fn write(hub: &Hub, writer: &mut Writer) {
    for (&gateway, row) in hub.dispatches.iter() {
        let id = row.order.id;
        let done = match row.state {
            DispatchState::Waits | DispatchState::Overdue => None,
            DispatchState::Answered(outcome, at) => Some(OrderDone { id, outcome, at }),
        };
        let kept = Dispatch1 {
            gateway,
            order: row.order.clone(),
            issued_s: row.issued_s,
            is_overdue: row.state == DispatchState::Overdue,
            done,
        };
        writer.push(DISPATCH, &kept);
    }
    for (&gateway, &id) in &hub.dispatches.last {
        writer.push(DISPATCH_LAST, &DispatchLast1 { gateway, id });
    }
}

pub(super) fn restore(hub: &mut Hub, kind: u16, payload: &[u8]) -> Result<(), RecordError> {
    match kind {
        DISPATCH => {
            let row: Dispatch1 = read(kind, payload)?;
            let state = match row.done {
                Some(done) => DispatchState::Answered(done.outcome, done.at),
                None if row.is_overdue => DispatchState::Overdue,
                None => DispatchState::Waits,
            };
            let place = (row.gateway, row.order.id);
            let kept = DispatchRow {
                order: row.order,
                issued_s: row.issued_s,
                state,
            };
            hub.dispatches.rows.insert(place, kept);
        }
        DISPATCH_LAST => {
            let DispatchLast1 { gateway, id } = read(kind, payload)?;
            hub.dispatches.last.insert(gateway, id);
        }
        unknown => return Err(RecordError::Kind(unknown)),
    }
    Ok(())
}

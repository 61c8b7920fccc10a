//! The cloud half for operators who host their own: the authoritative ledger, authorization answers, signed lists.
//!
//! [`core`] decides and may not fail; everything else may fail and may not decide.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod core;
pub mod record;
pub mod snapshot;

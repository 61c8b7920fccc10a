//! The cloud half for operators who host their own: the authoritative ledger, authorization answers, signed lists.
//!
//! [`core`] decides and may not fail; everything else may fail and may not decide. The engine is the only caller of the
//! core; store, endpoint and control socket are around it.

pub mod access;
pub mod artifacts;
pub mod brokers;
pub mod config;
pub mod control;
pub mod core;
pub mod engine;
pub mod export;
pub mod init;
pub mod issue;
pub mod judgements;
pub mod keys;
pub mod links;
pub mod orders;
pub mod record;
pub mod reports;
pub mod run;
pub mod seed;
mod seed_policy;
pub mod snapshot;
pub mod store;
pub mod tokens;

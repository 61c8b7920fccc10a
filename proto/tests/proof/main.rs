//! The proof of the contract: frozen vectors, a second CBOR and COSE implementation, hostile input, old and new readers,
//! tariff, book, seals and artifacts. One binary, so that one link serves them all.
//!
//! `HOLDFAST_VECTORS=write` writes the vector files that do not exist yet. An existing file is never touched: a change
//! that needs that is a change of the wire.

mod artifacts;
mod book;
mod compat;
mod cose;
mod deriv;
mod hostile;
mod identities;
mod instruments;
mod mutation;
mod samples;
mod schema;
mod seals;
mod tariff;
mod tariff_cases;
mod tariff_props;
mod topics;
mod twins;
mod updates;
mod vector;
mod vectors;

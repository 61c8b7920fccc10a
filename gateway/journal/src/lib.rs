//! Durable, hash-chained record store: sled with group commit, fdatasync and a witness

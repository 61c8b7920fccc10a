//! Who waits for what the engine decides.

use tokio::sync::oneshot;

use crate::core::{DispatchRefusal, ImportRefusal, ImportSummary, OrderRefusal, ReleaseRefusal, Released};

/// Who waits for the outcome of what, each in the order of asking.
pub(super) struct Replies {
    pub(super) imports: std::vec::IntoIter<oneshot::Sender<Result<ImportSummary, ImportRefusal>>>,
    pub(super) orders: std::vec::IntoIter<oneshot::Sender<Result<u64, OrderRefusal>>>,
    pub(super) releases: std::vec::IntoIter<oneshot::Sender<Result<Released, ReleaseRefusal>>>,
    pub(super) dispatches: std::vec::IntoIter<oneshot::Sender<Result<u64, DispatchRefusal>>>,
}

pub(super) fn reply<T, E>(to: Option<oneshot::Sender<Result<T, E>>>, result: Result<T, E>) {
    if let Some(to) = to {
        // Whoever asked may be gone by now.
        let _ = to.send(result);
    }
}

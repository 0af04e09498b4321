//! Who is connected, and who has to go when there is no place or no memory left.
//!
//! Anything in the environment can connect, so the places can be taken by peers that mean no delivery. Lambda sends
//! a request at once and without a pause; whoever keeps us waiting for the next byte for longest is not Lambda, or
//! loses least by connecting anew. A connection whose request is being answered is never closed: that is our turn.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id};
use tokio::time::Instant;

use super::connection::Progress;

/// The connections that are open. Shared by the accept loop and by requests that need memory.
#[derive(Debug)]
pub(super) struct Roster {
    max: usize,
    open: Mutex<HashMap<Id, (Arc<Progress>, AbortHandle)>>,
    /// A connection may be closed now that could not be before.
    waits: Arc<Notify>,
    /// Somebody has no place.
    wanted: AtomicBool,
}

impl Roster {
    /// Places for `max` connections.
    pub(super) fn new(max: usize) -> Self {
        Self { max, open: Mutex::default(), waits: Arc::default(), wanted: AtomicBool::new(false) }
    }

    /// Rings when a connection has begun to wait for its peer.
    pub(super) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.waits)
    }

    pub(super) fn enter(&self, progress: Arc<Progress>, abort: AbortHandle) {
        self.open().insert(abort.id(), (progress, abort));
    }

    pub(super) fn leave(&self, id: Id) {
        self.open().remove(&id);
    }

    /// Whether somebody has no place: whoever is answered now should go, though he may have more to say.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Makes sure of a place for one more. False if every connection is being answered: the bell tells when to try again.
    pub(super) fn make_place(&self) -> bool {
        let mut open = self.open();
        while open.len() >= self.max {
            let longest =
                open.iter().filter_map(|(id, (progress, _))| Some((progress.patience()?, *id))).min();
            let Some((_, id)) = longest else { break };
            close(&mut open, id);
        }
        let made = open.len() < self.max;
        self.wanted.store(!made, Ordering::Relaxed);
        made
    }

    /// Closes the connection with the largest unfinished body whose peer has stalled or sends next to nothing, for its
    /// memory.
    pub(super) fn make_memory(&self, now: Instant) {
        let mut open = self.open();
        let largest =
            open.iter().filter_map(|(id, (progress, _))| Some((progress.stalled_bytes(now)?, *id))).max();
        if let Some((bytes, id)) = largest {
            log::debug!("telemetry connection: closed for the {bytes} bytes that it has begun to send");
            close(&mut open, id);
        }
    }

    /// A panic while this is held leaves nothing half done, so a poisoned lock is as good as any.
    fn open(&self) -> MutexGuard<'_, HashMap<Id, (Arc<Progress>, AbortHandle)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes a connection. If its request became complete this very moment it stays.
fn close(open: &mut HashMap<Id, (Arc<Progress>, AbortHandle)>, id: Id) {
    if let Some((progress, abort)) = open.get(&id)
        && progress.evict()
    {
        abort.abort();
        open.remove(&id);
    }
}

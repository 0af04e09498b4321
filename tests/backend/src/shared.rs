//! What the handle and all connections share.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, mpsc, watch};

use crate::{
    acks::Acks,
    backend::Decode,
    body::Body,
    dialect::Dialect,
    received::{Received, Request},
    record::Signal,
    script::Script,
    tls::Identity,
};

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) decode: Decode,
    /// Whether bodies are remembered as they came.
    pub(crate) bodies: bool,
    pub(crate) dialect: Dialect,
    /// Documents that were created, where that is how repeats are told.
    pub(crate) ids: Mutex<HashSet<String>>,
    /// Which requests are indexed, where that is asked for.
    pub(crate) acks: Mutex<Acks>,
    pub(crate) script: Mutex<Script>,
    pub(crate) received: Mutex<Received>,
    /// Ticks whenever `received` or `open` has changed.
    pub(crate) changed: watch::Sender<u64>,
    /// What connections begin with, if it is TLS.
    pub(crate) identity: Option<Identity>,
    /// Ticks when held requests are let go.
    pub(crate) released: watch::Sender<u64>,
    pub(crate) open: Mutex<HashMap<u64, Open>>,
    /// Bodies to decode after their answer, in order.
    pub(crate) later: mpsc::UnboundedSender<(u64, Signal, Body)>,
}

/// An open connection, as the others see it.
pub(crate) struct Open {
    pub(crate) idle: bool,
    pub(crate) cut: Arc<Notify>,
}

/// The data are plain counts and lists that no panic leaves half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut Received) -> R) -> R {
        let result = change(&mut lock(&self.received));
        self.tick();
        result
    }

    pub(crate) fn tick(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub(crate) fn amend(&self, number: u64, change: impl FnOnce(&mut Request)) {
        self.update(|received| {
            if let Some(request) = received.request(number) {
                change(request);
            }
        });
    }

    pub(crate) fn set_idle(&self, connection: u64, idle: bool) {
        if let Some(open) = lock(&self.open).get_mut(&connection) {
            open.idle = idle;
        }
        self.tick();
    }
}

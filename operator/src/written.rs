//! The statuses that this process wrote last: the watch tells of a write only later, and a reconcile in between must
//! neither take for news what has been told nor write again what was before.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{cluster::Namespaced, requeue::Key, status::Reported};

/// Statuses by kind and name of their object; those of an object that is seen to be gone are forgotten.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<(String, Key), Entry>>);

#[derive(Debug)]
struct Entry {
    uid: Option<String>,
    status: Box<dyn Any + Send>,
}

impl Written {
    /// The status written last; `None` when this process wrote none for this very object.
    pub(crate) fn last<K: Reported>(&self, object: &K) -> Option<K::Status> {
        let written = self.lock();
        let entry = written.get(&key(object)).filter(|entry| entry.uid == object.meta().uid)?;
        entry.status.downcast_ref().cloned()
    }

    /// Remembers what was written.
    pub(crate) fn remember<K: Reported>(&self, object: &K, status: K::Status) {
        self.lock().insert(key(object), Entry { uid: object.meta().uid.clone(), status: Box::new(status) });
    }

    /// An object of kind `kind` is gone.
    pub(crate) fn forget(&self, kind: &str, object: &Key) {
        self.lock().remove(&(kind.to_owned(), object.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Key), Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key<K: Namespaced>(object: &K) -> (String, Key) {
    let meta = object.meta();
    let name = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    (K::kind(&()).into_owned(), name)
}

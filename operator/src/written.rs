//! The conditions that this process wrote last: the watch tells of a write only later, and a reconcile in between must
//! not take for news what has been told.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{cluster::Namespaced, requeue::Key};

/// Conditions by kind and name of their object; those of an object that is gone are forgotten.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<(String, Key), Entry>>);

#[derive(Debug)]
struct Entry {
    uid: Option<String>,
    conditions: Vec<Condition>,
}

impl Written {
    /// The conditions written last; `None` when this process wrote none for this very object.
    pub(crate) fn last<K: Namespaced>(&self, object: &K) -> Option<Vec<Condition>> {
        let written = self.lock();
        let entry = written.get(&key(object))?;
        (entry.uid == object.meta().uid).then(|| entry.conditions.clone())
    }

    /// Remembers what was written.
    pub(crate) fn remember<K: Namespaced>(&self, object: &K, conditions: Vec<Condition>) {
        self.lock().insert(key(object), Entry { uid: object.meta().uid.clone(), conditions });
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

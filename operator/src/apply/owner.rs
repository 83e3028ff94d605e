//! The object that children belong to, and which objects are its children.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use portolan_crds::conditions::reasons;

use crate::{cluster::Namespaced, error::Error};

/// The object that children belong to.
#[derive(Clone, Debug)]
pub struct Owner {
    pub(super) reference: OwnerReference,
    pub(super) namespace: String,
}

impl Owner {
    /// The owner as its children name it.
    ///
    /// # Errors
    /// The object has no name, namespace or uid: it did not come from the API server.
    pub fn of<K: Namespaced>(object: &K) -> Result<Self, Error> {
        let incomplete = || Error::stalled(reasons::INVALID, "the object has no name, namespace or uid");
        Ok(Self {
            reference: object.controller_owner_ref(&()).ok_or_else(incomplete)?,
            namespace: object.meta().namespace.clone().ok_or_else(incomplete)?,
        })
    }

    /// What builders put into `metadata.ownerReferences` of each child.
    #[must_use]
    pub fn reference(&self) -> OwnerReference {
        self.reference.clone()
    }

    /// Namespace of owner and children.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Name of the owner.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.reference.name
    }

    /// Uid of the owner.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.reference.uid
    }

    /// Whether `object` is a child of this owner.
    #[must_use]
    pub fn owns(&self, object: &impl Resource) -> bool {
        object
            .meta()
            .owner_references
            .iter()
            .flatten()
            .any(|reference| reference.controller == Some(true) && reference.uid == self.reference.uid)
    }

    /// Whether `object` is a child of an object of the same kind and name that was there before this owner, so that it is
    /// about to be collected.
    pub(super) fn is_successor(&self, object: &impl Resource) -> bool {
        let OwnerReference { api_version, kind, name, uid, .. } = &self.reference;
        object.meta().owner_references.iter().flatten().any(|other| {
            other.controller == Some(true)
                && (&other.api_version, &other.kind, &other.name) == (api_version, kind, name)
                && other.uid != *uid
        })
    }
}

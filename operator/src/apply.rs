//! The only writer of children: ordered server-side apply with an ownership check, then prune.
//!
//! A reconcile builds [`Resources<Prepared>`], [`Resources::apply`] makes them [`Resources<Applied>`], and a status can
//! only be made from the latter. Nothing is written when the live objects already are what we want.

mod left;
mod owner;

use std::collections::HashSet;

use kube::api::{ApiResource, DynamicObject, PatchParams};
use portolan_crds::conditions::reasons;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::{Value, json};

pub use self::owner::Owner;
use crate::{
    cluster::{Cluster, Namespaced, describe},
    compare,
    error::Error,
    hex::hex,
};

/// Annotation: a hash of what we applied last, so that a field that we no longer want is noticed.
pub const APPLIED: &str = "portolan.dev/applied";

/// How soon to look again at a child that is on its way out.
const DELETION_POLL: std::time::Duration = std::time::Duration::from_secs(1);

/// Children of one owner, in the state `S`: [`Prepared`] or [`Applied`].
#[derive(Debug)]
pub struct Resources<S> {
    owner: Owner,
    state: S,
}

/// Built, and not yet seen by the API server.
#[derive(Debug, Default)]
pub struct Prepared {
    children: Vec<Child>,
    kept: HashSet<(String, String)>,
    pruned: Vec<(ApiResource, String)>,
}

/// As the API server returned them.
#[derive(Debug)]
pub struct Applied {
    objects: Vec<(ApiResource, DynamicObject)>,
    changes: usize,
    refused: Option<Error>,
}

#[derive(Debug)]
struct Child {
    resource: ApiResource,
    name: String,
    desired: Value,
    /// Whether the children after it are good without it.
    independent: bool,
}

impl Resources<Prepared> {
    /// No children yet.
    #[must_use]
    pub fn new(owner: Owner) -> Self {
        Self { owner, state: Prepared::default() }
    }

    /// Adds a child; children are applied in the order in which they were added, and none without those before it.
    ///
    /// # Errors
    /// The builder left out the name, or the owner reference.
    pub fn add<K: Namespaced + Serialize>(&mut self, object: &K) -> Result<(), Error> {
        self.push(object, false)
    }

    /// Adds a child that the later ones do not need: see [`Resources::refused`].
    ///
    /// # Errors
    /// As [`Resources::add`].
    pub fn add_independent<K: Namespaced + Serialize>(&mut self, object: &K) -> Result<(), Error> {
        self.push(object, true)
    }

    fn push<K: Namespaced + Serialize>(&mut self, object: &K, independent: bool) -> Result<(), Error> {
        let resource = ApiResource::erase::<K>(&());
        let broken = |what: &str| Error::stalled(reasons::INVALID, format!("a built {} {what}", resource.kind));
        if !self.owner.owns(object) {
            return Err(broken("lacks its owner reference"));
        }
        let name = object.meta().name.clone().ok_or_else(|| broken("has no name"))?;
        let mut desired = serde_json::to_value(object).map_err(|error| broken(&error.to_string()))?;
        stamp(&mut desired, &resource);
        self.state.children.push(Child { resource, name, desired, independent });
        Ok(())
    }

    /// Leaves an existing child of kind `K` as it is: neither written nor pruned.
    pub fn keep<K: Namespaced>(&mut self, name: &str) {
        self.state.kept.insert((K::kind(&()).into_owned(), name.to_owned()));
    }

    /// After everything is applied, deletes our children of kind `K` that carry `selector` (`portolan.dev/server=x`)
    /// and were neither added nor kept. Needs the right to list `K`.
    pub fn prune<K: Namespaced>(&mut self, selector: &str) {
        self.state.pruned.push((ApiResource::erase::<K>(&()), selector.to_owned()));
    }

    /// Makes the cluster hold these children and no others, writing only what differs. An independent child that the
    /// API server refuses as invalid keeps none of the others from being applied.
    ///
    /// # Errors
    /// `Stalled` with `ForeignObject` when an object of a child's name is not ours; what the API server said otherwise.
    /// Children before the failing one are applied, nothing is pruned.
    pub async fn apply(self, cluster: &Cluster) -> Result<Resources<Applied>, Error> {
        let Self { owner, state: Prepared { children, kept, pruned } } = self;
        let listed = list(cluster, &owner, &pruned).await?;
        let mut applied = Applied { objects: Vec::with_capacity(children.len()), changes: 0, refused: None };
        for child in &children {
            let known = listed.iter().find(|(resource, live)| {
                resource.kind == child.resource.kind && live.metadata.name.as_deref() == Some(&child.name)
            });
            let live = match known {
                Some((_, live)) => Some(live.clone()),
                None => cluster.get_any(&child.resource, &owner.namespace, &child.name).await?,
            };
            match bring_about(cluster, &owner, child, live).await {
                Ok((object, changed)) => {
                    applied.changes += usize::from(changed);
                    applied.objects.push((child.resource.clone(), object));
                }
                Err(error) if child.independent && error.is_refusal() => {
                    tracing::warn!(%error, "a child is refused; the others are applied all the same");
                    applied.refused.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        for (resource, live) in listed {
            let name = live.metadata.name.clone().unwrap_or_default();
            let wanted = children.iter().any(|child| child.resource.kind == resource.kind && child.name == name)
                || kept.contains(&(resource.kind.clone(), name.clone()));
            if !wanted && owner.owns(&live) && live.metadata.deletion_timestamp.is_none() {
                tracing::info!(object = describe(&resource.kind, &owner.namespace, &name), "delete what is not wanted");
                cluster.delete(&resource, &owner.namespace, &name, live.metadata.uid.clone()).await?;
                applied.changes += 1;
            }
        }
        Ok(Resources { owner, state: applied })
    }
}

#[cfg(test)]
impl Resources<Prepared> {
    /// What would be applied as the child of that kind and name.
    pub(crate) fn prepared<K: Namespaced>(&self, name: &str) -> Option<K> {
        let kind = K::kind(&());
        let child = self.state.children.iter().find(|child| child.resource.kind == kind && child.name == name)?;
        serde_json::from_value(child.desired.clone()).ok()
    }
}

impl Resources<Applied> {
    /// The owner.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Why the API server did not take the first independent child that it refused; the others are as they should be.
    #[must_use]
    pub fn refused(&self) -> Option<&Error> {
        self.state.refused.as_ref()
    }

    /// How many objects were written or deleted.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.state.changes
    }

    /// The child of that kind and name as the API server has it.
    #[must_use]
    pub fn get<K: Namespaced>(&self, name: &str) -> Option<K> {
        let kind = K::kind(&());
        let (_, object) = self
            .state
            .objects
            .iter()
            .find(|(resource, object)| resource.kind == kind && object.metadata.name.as_deref() == Some(name))?;
        object.clone().try_parse().ok()
    }
}

/// Completes what we want with its type and the hash of itself.
fn stamp(desired: &mut Value, resource: &ApiResource) {
    desired["apiVersion"] = json!(resource.api_version);
    desired["kind"] = json!(resource.kind);
    // serde_json sorts keys, so equal objects have equal hashes.
    let hash = digest(&SHA256, desired.to_string().as_bytes());
    desired["metadata"]["annotations"][APPLIED] = json!(hex(&hash.as_ref()[..8]));
}

async fn list(
    cluster: &Cluster,
    owner: &Owner,
    pruned: &[(ApiResource, String)],
) -> Result<Vec<(ApiResource, DynamicObject)>, Error> {
    let mut found = Vec::new();
    for (resource, selector) in pruned {
        let objects = cluster.list_any(resource, &owner.namespace, selector).await?;
        // Items of a list come without their type.
        found.extend(objects.into_iter().map(|object| (resource.clone(), typed(object, resource))));
    }
    Ok(found)
}

fn typed(mut object: DynamicObject, resource: &ApiResource) -> DynamicObject {
    object.types =
        Some(kube::core::TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
    object
}

/// Makes one child so; whether that took a write.
async fn bring_about(
    cluster: &Cluster,
    owner: &Owner,
    child: &Child,
    live: Option<DynamicObject>,
) -> Result<(DynamicObject, bool), Error> {
    let what = describe(&child.resource.kind, &owner.namespace, &child.name);
    let Some(live) = live else {
        if left::is_left(child) {
            let message = format!("{what} was deleted a moment ago; it is made anew");
            return Err(Error::waiting(DELETION_POLL, reasons::PENDING, message));
        }
        // Not forced: if a foreign object of this name came up a moment ago, its fields make this a conflict.
        let params = PatchParams::apply(portolan_crds::OPERATOR_MANAGER);
        tracing::info!(object = what, "create");
        let made = cluster.apply(&child.resource, &owner.namespace, &child.name, &child.desired, &params).await?;
        if written_by_others(&made) {
            // It came up without a field of ours. Applying nothing takes back what was put into it.
            let nothing = json!({
                "apiVersion": child.resource.api_version,
                "kind": child.resource.kind,
                "metadata": {"name": child.name, "uid": made.metadata.uid},
            });
            let left = cluster.apply(&child.resource, &owner.namespace, &child.name, &nothing, &params).await?;
            return Err(foreign(owner, &what, &left));
        }
        return Ok((made, true));
    };
    check_ownership(owner, &what, &live)?;
    if live.metadata.deletion_timestamp.is_some() {
        return Err(Error::waiting(
            DELETION_POLL,
            reasons::PENDING,
            format!("{what} is being deleted; it is made anew then"),
        ));
    }
    let Some(difference) = difference(&live, child)? else { return Ok((live, false)) };
    tracing::info!(object = what, difference, "apply");
    left::hand_over(cluster, owner, child, &live).await?;
    // The uid makes it a conflict if our object was deleted and another one made meanwhile.
    let mut desired = child.desired.clone();
    desired["metadata"]["uid"] = json!(live.metadata.uid);
    let params = PatchParams::apply(portolan_crds::OPERATOR_MANAGER).force();
    let applied = cluster.apply(&child.resource, &owner.namespace, &child.name, &desired, &params).await?;
    match self::difference(&applied, child)? {
        None => Ok((applied, true)),
        // Server-side apply leaves what others added; only a replace takes it away.
        Some(difference) => {
            tracing::info!(object = what, difference, "replace");
            let whole = without_surplus(&applied, child)?;
            let manager = portolan_crds::OPERATOR_MANAGER;
            let replaced = cluster.replace(&child.resource, &owner.namespace, &child.name, &whole, manager).await?;
            Ok((replaced, true))
        }
    }
}

/// What keeps `live` from being what we want, in words.
fn difference(live: &DynamicObject, child: &Child) -> Result<Option<String>, Error> {
    let live = as_value(live)?;
    if live.pointer("/metadata/annotations").and_then(|all| all.get(APPLIED))
        != child.desired["metadata"]["annotations"].get(APPLIED)
    {
        return Ok(Some("we want something else now".into()));
    }
    if !compare::contains(&live, &child.desired) {
        return Ok(Some("a field was changed by someone else".into()));
    }
    if let Some(field) = compare::taken(&live, &child.desired, portolan_crds::OPERATOR_MANAGER) {
        return Ok(Some(format!("someone else changed {field}")));
    }
    let surplus = compare::surplus(&live, &left::with(&live, child), portolan_crds::OPERATOR_MANAGER);
    Ok(surplus.map(|field| format!("someone else added {field}")))
}

/// The live metadata with our content.
fn without_surplus(live: &DynamicObject, child: &Child) -> Result<DynamicObject, Error> {
    let mut whole = as_value(live)?;
    let desired = left::with(&whole, child);
    let broken = || Error::transient(reasons::INVALID, "the API server returned something that is no object");
    let fields = whole.as_object_mut().ok_or_else(broken)?;
    fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
    for (name, value) in desired.as_object().ok_or_else(broken)? {
        if name != "metadata" {
            fields.insert(name.clone(), value.clone());
        }
    }
    serde_json::from_value(whole).map_err(|error| Error::transient(reasons::INVALID, error.to_string()))
}

fn as_value(object: &DynamicObject) -> Result<Value, Error> {
    serde_json::to_value(object).map_err(|error| Error::transient(reasons::INVALID, error.to_string()))
}

fn check_ownership(owner: &Owner, what: &str, live: &DynamicObject) -> Result<(), Error> {
    if owner.owns(live) {
        return Ok(());
    }
    if owner.is_successor(live) {
        let message = format!("{what} goes away with the {} of this name that was deleted", owner.reference.kind);
        return Err(Error::waiting(DELETION_POLL, reasons::PENDING, message));
    }
    Err(foreign(owner, what, live))
}

fn foreign(owner: &Owner, what: &str, live: &DynamicObject) -> Error {
    Error::stalled(
        reasons::FOREIGN_OBJECT,
        format!("{what} exists and belongs to {}; delete or rename it, or rename {}", holder(live), owner.name()),
    )
}

/// Whether someone else wrote fields of an object that we are about to have made.
fn written_by_others(made: &DynamicObject) -> bool {
    let entries = made.metadata.managed_fields.as_deref().unwrap_or_default();
    // Controllers fill in status at once.
    let content = entries.iter().filter(|entry| entry.subresource.is_none());
    content.into_iter().any(|entry| entry.manager.as_deref() != Some(portolan_crds::OPERATOR_MANAGER))
}

/// Whose object it is: its controller, else any owner, else who wrote it.
fn holder(live: &DynamicObject) -> String {
    let owners = live.metadata.owner_references.as_deref().unwrap_or_default();
    if let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)).or(owners.first()) {
        return format!("{} {}", owner.kind, owner.name);
    }
    let managers = live.metadata.managed_fields.as_deref().unwrap_or_default();
    match managers.iter().find_map(|entry| entry.manager.as_deref()) {
        Some(manager) => format!("nobody; it was written by {manager}"),
        None => "nobody that it names".into(),
    }
}

#[cfg(test)]
mod tests;

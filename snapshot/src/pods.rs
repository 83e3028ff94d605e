//! Pods of servers, from EndpointSlices.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use portolan_crds::labels;

use crate::snapshot::{Pod, RouteName};

/// Name of the bridge's data port in a Service and its slices.
const DATA_PORT: &str = "data";

/// Pods by UID, of each server that has any. A pod may be in several slices (two address families, or while its
/// endpoint moves from one to another): the slice that says most about it counts, IPv4 first.
pub(crate) fn by_server(slices: &[EndpointSlice]) -> HashMap<RouteName, HashMap<Box<str>, Pod>> {
    let mut servers: HashMap<RouteName, HashMap<Box<str>, Pod>> = HashMap::new();
    for slice in slices {
        let Some((route, revision, port)) = header(slice) else { continue };
        let pods = servers.entry(route).or_default();
        for pod in slice.endpoints.iter().filter_map(|endpoint| read(endpoint, revision, port)) {
            match pods.get(&pod.uid) {
                Some(known) if rank(known) >= rank(&pod) => {}
                _ => {
                    pods.insert(pod.uid.clone(), pod);
                }
            }
        }
    }
    servers
}

/// Server, revision and port of a slice; `None` for a slice that is not one of a revision's Service.
fn header(slice: &EndpointSlice) -> Option<(RouteName, &str, u16)> {
    let labels = slice.metadata.labels.as_ref()?;
    let namespace = slice.metadata.namespace.as_deref()?;
    let server = labels.get(labels::SERVER)?;
    let revision = labels.get(labels::REVISION)?;
    let port = slice.ports.iter().flatten().find(|port| port.name.as_deref() == Some(DATA_PORT))?.port?;
    Some((RouteName::new(namespace, server), revision, port.try_into().ok()?))
}

fn read(endpoint: &Endpoint, revision: &str, port: u16) -> Option<Pod> {
    let target = endpoint.target_ref.as_ref()?;
    let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    let address = SocketAddr::new(address, port);
    let conditions = endpoint.conditions.as_ref();
    // Absent conditions mean what the API says they mean: ready is true, serving is what ready is, terminating is false.
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
    let uid = target.uid.as_deref()?;
    Some(Pod {
        uid: uid.into(),
        name: target.name.as_deref().unwrap_or_default().into(),
        revision: revision.into(),
        address,
        host: address.to_string().parse().ok()?,
        named: uid.parse().ok()?,
        ready: ready && !terminating,
        serving,
    })
}

fn rank(pod: &Pod) -> (bool, bool, bool) {
    (pod.ready, pod.serving, pod.address.is_ipv4())
}

//! Who may connect to the pods of a server: gateways to the data port, the operator to the admin port, nobody else. And where a
//! relay may connect to.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::Deployment,
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};
use portolan_crds::{labels, ports, server::Remote};

use super::{Parts, Peers, RELAY};

/// Label that Kubernetes puts on every Namespace with its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Where names are resolved. A policy sees the port of the pod behind the Service, which is 5353 where name servers run
/// without privileges (OpenShift's do).
const DNS_PORTS: [u16; 2] = [53, 5353];
/// Everything but where clouds keep the credentials of nodes.
const ANYWHERE: [(&str, &str); 2] = [("0.0.0.0/0", "169.254.169.254/32"), ("::/0", "fd00:ec2::254/128")];

/// The policy; `live` are the revisions that exist. Egress is bounded once all of them are relays: pods that ran the server
/// itself keep theirs for as long as they drain.
pub(super) fn network_policy(parts: &Parts<'_>, live: &[Deployment]) -> NetworkPolicy {
    let remote = parts.spec.remote.as_ref().filter(|_| live.iter().all(relays));
    let egress = remote.and_then(|remote| egress(parts, remote));
    let types = [Some("Ingress"), egress.is_some().then_some("Egress")];
    NetworkPolicy {
        metadata: parts.metadata(parts.account_name()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some([(labels::SERVER.to_owned(), parts.server.to_owned())].into()),
                ..LabelSelector::default()
            }),
            policy_types: Some(types.into_iter().flatten().map(str::to_owned).collect()),
            egress,
            ingress: Some(vec![
                allow(&parts.network.gateways, ports::BRIDGE_DATA),
                allow(&parts.network.operators, ports::BRIDGE_ADMIN),
            ]),
        }),
    }
}

fn relays(deployment: &Deployment) -> bool {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod.is_none_or(|pod| pod.containers.iter().any(|container| container.name == RELAY))
}

fn allow(peers: &Peers, port: u16) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: Some(vec![NetworkPolicyPeer {
            namespace_selector: Some(namespaces(&peers.namespaces)),
            pod_selector: Some(pods(&peers.pod_labels)),
            ..NetworkPolicyPeer::default()
        }]),
        ports: Some(vec![on(port, "TCP")]),
    }
}

/// What a relay connects to: name servers, and the URL's port. The addresses themselves are the relay's to judge. A host that
/// the platform allowed may be a Service, and a policy sees the port and the pod behind it: those are open, then.
fn egress(parts: &Parts<'_>, remote: &Remote) -> Option<Vec<NetworkPolicyEgressRule>> {
    let (_, port) = remote.authority()?;
    let names = DNS_PORTS.into_iter().flat_map(|port| [on(port, "UDP"), on(port, "TCP")]);
    let blocks = ANYWHERE.map(|(cidr, except)| NetworkPolicyPeer {
        ip_block: Some(IPBlock { cidr: cidr.into(), except: Some(vec![except.into()]) }),
        ..NetworkPolicyPeer::default()
    });
    let pods = NetworkPolicyPeer { namespace_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() };
    let inside = parts.relay.allowed(remote).map(|_| NetworkPolicyEgressRule { to: Some(vec![pods]), ports: None });
    let rules = [
        NetworkPolicyEgressRule { to: None, ports: Some(names.collect()) },
        NetworkPolicyEgressRule { to: Some(blocks.into()), ports: Some(vec![on(port, "TCP")]) },
    ];
    Some(rules.into_iter().chain(inside).collect())
}

fn on(port: u16, protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(port.into())),
        protocol: Some(protocol.into()),
        ..NetworkPolicyPort::default()
    }
}

fn namespaces(names: &[String]) -> LabelSelector {
    let mut values = names.to_vec();
    values.sort();
    LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: NAMESPACE_NAME.into(),
            operator: "In".into(),
            values: Some(values),
        }]),
        ..LabelSelector::default()
    }
}

fn pods(labels: &BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() }
}

//! Who may connect to the pods of a server: gateways to the data port, the operator to the admin port, nobody else.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};
use portolan_crds::{labels, ports};

use super::{Parts, Peers};

/// Label that Kubernetes puts on every Namespace with its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

pub(super) fn network_policy(parts: &Parts<'_>) -> NetworkPolicy {
    NetworkPolicy {
        metadata: parts.metadata(parts.account_name()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some([(labels::SERVER.to_owned(), parts.server.to_owned())].into()),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(vec![
                allow(&parts.network.gateways, ports::BRIDGE_DATA),
                allow(&parts.network.operators, ports::BRIDGE_ADMIN),
            ]),
            ..NetworkPolicySpec::default()
        }),
    }
}

fn allow(peers: &Peers, port: u16) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: Some(vec![NetworkPolicyPeer {
            namespace_selector: Some(namespaces(&peers.namespaces)),
            pod_selector: Some(pods(&peers.pod_labels)),
            ..NetworkPolicyPeer::default()
        }]),
        ports: Some(vec![NetworkPolicyPort {
            port: Some(IntOrString::Int(port.into())),
            protocol: Some("TCP".into()),
            ..NetworkPolicyPort::default()
        }]),
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

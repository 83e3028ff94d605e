//! Who may reach a gateway's pods: clients from anywhere, the operator and who reads metrics on the admin port. The
//! kubelet's probes come from the node, which no NetworkPolicy holds back.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use portolan_crds::{labels, ports};

use super::{Parts, selector};
use crate::config::OPERATOR_APP;

pub(super) fn network_policy(parts: &Parts<'_>) -> NetworkPolicy {
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(matching("kubernetes.io/metadata.name", &parts.config.operator_namespace)),
        pod_selector: Some(matching(labels::NAME, OPERATOR_APP)),
        ..NetworkPolicyPeer::default()
    };
    let admins = [operator].into_iter().chain(parts.config.gateway_metrics_from.iter().cloned()).collect();
    let spec = NetworkPolicySpec {
        pod_selector: Some(LabelSelector {
            match_labels: Some(selector(parts.owner.name())),
            ..LabelSelector::default()
        }),
        policy_types: Some(vec!["Ingress".into()]),
        ingress: Some(vec![
            NetworkPolicyIngressRule { ports: Some(vec![port(ports::GATEWAY_HTTP)]), from: None },
            NetworkPolicyIngressRule { ports: Some(vec![port(ports::GATEWAY_ADMIN)]), from: Some(admins) },
        ]),
        egress: None,
    };
    NetworkPolicy { metadata: parts.metadata(), spec: Some(spec) }
}

fn matching(label: &str, value: &str) -> LabelSelector {
    let labels = BTreeMap::from([(label.to_owned(), value.to_owned())]);
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

fn port(port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(port.into())),
        protocol: Some("TCP".into()),
        ..NetworkPolicyPort::default()
    }
}

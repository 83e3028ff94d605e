//! Which objects a label selector chooses.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use portolan_crds::{MCPServer, gateway::ServerSelection};

/// Labels of namespaces by name.
pub type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// A selector that cannot be read. It selects nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the label selector cannot be read ({0}); operators are In, NotIn, Exists and DoesNotExist")]
pub struct BadSelector(String);

/// Whether `selector` chooses an object with `labels`. An empty selector chooses everything.
///
/// # Errors
/// The selector has an operator or values that Kubernetes does not know.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Result<bool, BadSelector> {
    let selector = Selector::try_from(selector.clone()).map_err(|error| BadSelector(error.to_string()))?;
    Ok(selector.matches(labels))
}

/// Whether a gateway with `selection` serves `server`. Both selectors must match; one that is not set matches
/// everything. A namespace whose labels are unknown is chosen by no namespace selector.
///
/// # Errors
/// One of the selectors cannot be read.
pub fn selects(selection: &ServerSelection, namespaces: &Namespaces, server: &MCPServer) -> Result<bool, BadSelector> {
    chooses(selection, namespaces, server.metadata.namespace.as_deref().unwrap_or_default(), server.labels())
}

/// Whether a gateway with `selection` serves toolsets of `namespace`: its selector of servers says nothing of them.
///
/// # Errors
/// The namespace selector cannot be read.
pub fn selects_namespace(
    selection: &ServerSelection,
    namespaces: &Namespaces,
    namespace: &str,
) -> Result<bool, BadSelector> {
    match &selection.namespace_selector {
        None => Ok(true),
        Some(selector) => namespaces.get(namespace).map_or(Ok(false), |labels| matches(selector, labels)),
    }
}

/// [`selects`] for an object of which only namespace and labels are known.
pub(crate) fn chooses(
    selection: &ServerSelection,
    namespaces: &Namespaces,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Result<bool, BadSelector> {
    if !selects_namespace(selection, namespaces, namespace)? {
        return Ok(false);
    }
    selection.selector.as_ref().map_or(Ok(true), |selector| matches(selector, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(yaml: &str) -> LabelSelector {
        serde_saphyr::from_str(yaml).expect("a selector")
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn expressions_mean_what_they_mean_in_kubernetes() {
        let prod = labels(&[("env", "prod"), ("team", "a")]);
        for (yaml, expected) in [
            ("{}", true),
            ("{matchLabels: {env: prod}}", true),
            ("{matchLabels: {env: dev}}", false),
            ("{matchLabels: {env: prod}, matchExpressions: [{key: team, operator: In, values: [b]}]}", false),
            ("{matchExpressions: [{key: env, operator: In, values: [dev, prod]}]}", true),
            ("{matchExpressions: [{key: env, operator: NotIn, values: [dev]}]}", true),
            ("{matchExpressions: [{key: absent, operator: NotIn, values: [x]}]}", true),
            ("{matchExpressions: [{key: absent, operator: Exists}]}", false),
            ("{matchExpressions: [{key: absent, operator: DoesNotExist}]}", true),
        ] {
            assert_eq!(matches(&selector(yaml), &prod), Ok(expected), "{yaml}");
        }
    }

    #[test]
    fn a_selector_that_cannot_be_read_is_an_error_and_not_everything() {
        let bad = selector("{matchExpressions: [{key: env, operator: Like, values: [p]}]}");
        assert!(matches(&bad, &labels(&[("env", "prod")])).is_err());
    }
}

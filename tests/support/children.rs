//! What the operator made for servers, kind by kind.

use std::collections::BTreeMap;

use crate::cluster::{TENANT, kubectl};

/// Every kind of it.
const KINDS: &str = "deployments,controllerrevisions,services,configmaps,secrets,networkpolicies,serviceaccounts,\
                     poddisruptionbudgets,horizontalpodautoscalers,pods";

/// All of it in [`TENANT`] for servers of these names, as `Kind/name` with the version of each.
///
/// # Errors
/// What kubectl said.
pub async fn versions(servers: &[&str]) -> Result<BTreeMap<String, String>, String> {
    let selector = format!("--selector=portolan.dev/server in ({})", servers.join(","));
    let lines =
        r#"--output=jsonpath={range .items[*]}{.kind}/{.metadata.name}{" "}{.metadata.resourceVersion}{"\n"}{end}"#;
    let text = kubectl(&["get", KINDS, "--namespace", TENANT, &selector, lines]).await?;
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.map(|(child, version)| (child.to_owned(), version.to_owned())).collect())
}

/// How many there are of a kind.
#[must_use]
pub fn count(children: &BTreeMap<String, String>, kind: &str) -> usize {
    children.keys().filter(|child| child.split('/').next() == Some(kind)).count()
}

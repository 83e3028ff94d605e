//! The DNS domain of a cluster, under which its Services have their names.

use serde::{Deserialize, Serialize};

/// Longest domain: what DNS allows of a name, less room for `<service>.<namespace>.svc.` before it.
const MAX_LEN: usize = 253 - 2 * 64 - 4;

/// A DNS domain: lower case, without a dot at its end. `cluster.local` unless the cluster was set up otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterDomain(Box<str>);

/// Text that is no DNS domain.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is no DNS domain; write it as the kubelet's --cluster-domain has it, lower case and without a dot at its \
     end, such as \"cluster.local\""
)]
pub struct BadDomain(String);

impl ClusterDomain {
    /// The domain's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ClusterDomain {
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

impl std::fmt::Display for ClusterDomain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ClusterDomain {
    type Err = BadDomain;

    fn from_str(text: &str) -> Result<Self, BadDomain> {
        let is_good = text.len() <= MAX_LEN && text.split('.').all(is_label);
        if is_good { Ok(Self(text.into())) } else { Err(BadDomain(text.to_owned())) }
    }
}

impl TryFrom<String> for ClusterDomain {
    type Error = BadDomain;

    fn try_from(text: String) -> Result<Self, BadDomain> {
        text.parse()
    }
}

impl From<ClusterDomain> for String {
    fn from(domain: ClusterDomain) -> Self {
        domain.0.into()
    }
}

/// RFC 1123, as Kubernetes reads it.
fn is_label(label: &str) -> bool {
    let is_edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = label.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(is_edge)
        && bytes.last().is_some_and(is_edge)
        && bytes.iter().all(|byte| is_edge(byte) || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_read_as_dns_has_it_and_nothing_else_is() {
        for good in ["cluster.local", "k8s", "prod-1.corp.example"] {
            assert_eq!(good.parse::<ClusterDomain>().map(|domain| domain.to_string()), Ok(good.to_owned()));
        }
        let long = ["a"; 100].join(".");
        for bad in ["", ".", "cluster.local.", ".local", "Cluster.local", "a b", "-a.local", "a_b", "a:80", &long] {
            assert_eq!(bad.parse::<ClusterDomain>(), Err(BadDomain(bad.to_owned())), "{bad}");
        }
    }
}

//! `NetworkPolicyPeer`s as JSON: what is not understood to the last field opens more than was meant, and is refused.

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use serde_json::Value;

const FORM: &str = r#"write a list such as [{"namespaceSelector":{"matchLabels":{"team":"monitoring"}}}], of peers that have namespaceSelector, podSelector or ipBlock"#;

/// The value of one flag. A type of its own: clap would take a list for a flag that is given several times.
#[derive(Clone, Debug)]
pub(crate) struct Peers(pub(crate) Vec<NetworkPolicyPeer>);

impl Peers {
    /// Reads a JSON list.
    ///
    /// # Errors
    /// It is none, a peer of it is empty, or a field is unknown, null or absent though Kubernetes requires it; the text
    /// says which and what to write.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let advised = |error: String| format!("{error}; {FORM}");
        let given: Value = serde_json::from_str(text).map_err(|error| advised(error.to_string()))?;
        let read = |error: serde_json::Error| advised(error.to_string());
        let peers: Vec<NetworkPolicyPeer> = serde_json::from_value(given.clone()).map_err(read)?;
        let understood = serde_json::to_value(&peers).map_err(read)?;
        if let Some(difference) = difference("", &given, &understood) {
            return Err(advised(difference));
        }
        match peers.iter().position(|peer| *peer == NetworkPolicyPeer::default()) {
            Some(index) => Err(advised(format!("[{index}] is empty and names nobody"))),
            None => Ok(Self(peers)),
        }
    }
}

/// The first place where `understood` is not what was `given`.
fn difference(path: &str, given: &Value, understood: &Value) -> Option<String> {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            let at = |name: &str| format!("{path}.{name}");
            let unread = given.keys().find(|name| !understood.contains_key(*name));
            let absent = understood.keys().find(|name| !given.contains_key(*name));
            unread
                .map(|name| format!("{} does nothing: it is no field of a NetworkPolicyPeer, or null", at(name)))
                .or_else(|| absent.map(|name| format!("{} is required", at(name))))
                .or_else(|| given.iter().find_map(|(name, value)| difference(&at(name), value, &understood[name])))
        }
        (Value::Array(given), Value::Array(understood)) if given.len() == understood.len() => {
            let mut pairs = given.iter().zip(understood).enumerate();
            pairs.find_map(|(index, (one, other))| difference(&format!("{path}[{index}]"), one, other))
        }
        _ => (given != understood).then(|| format!("{path} is {given}, which would be taken for {understood}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Peers::read(text).unwrap_err()
    }

    #[test]
    fn peers_are_taken_as_they_are_written() {
        let text = r#"[
            {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "prometheus"}}},
            {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}},
            {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
        ]"#;
        let given: Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(Peers::read(text).unwrap().0).unwrap(), given);
        assert!(Peers::read("[]").unwrap().0.is_empty());
    }

    #[test]
    fn a_field_that_would_be_dropped_is_named_with_what_to_write() {
        let cases = [
            (
                r#"[{"namespaceSelector": {}, "podSelectr": {"matchLabels": {"a": "b"}}}]"#,
                "[0].podSelectr does nothing",
            ),
            (r#"[{"podSelector": {"matchLabel": {"a": "b"}}}]"#, "[0].podSelector.matchLabel does nothing"),
            (r#"[{"namespaceSelector": {}}, {"podSelector": null}]"#, "[1].podSelector does nothing"),
            (
                r#"[{"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "value": ["b"]}]}}]"#,
                "[0].podSelector.matchExpressions[0].value does nothing",
            ),
        ];
        for (text, named) in cases {
            let error = refused(text);
            assert!(error.starts_with(named), "{error}");
            assert!(error.ends_with("namespaceSelector, podSelector or ipBlock"), "{error}");
        }
    }

    #[test]
    fn a_required_field_that_is_absent_is_named() {
        assert!(refused(r#"[{"ipBlock": {}}]"#).starts_with("[0].ipBlock.cidr is required"));
        let error = refused(r#"[{"podSelector": {"matchExpressions": [{"key": "a"}]}}]"#);
        assert!(error.starts_with("[0].podSelector.matchExpressions[0].operator is required"), "{error}");
    }

    #[test]
    fn an_empty_peer_is_refused() {
        assert!(refused(r#"[{"podSelector": {}}, {}]"#).starts_with("[1] is empty and names nobody; write a list"));
    }

    #[test]
    fn what_is_no_list_of_peers_is_refused_with_what_to_write() {
        for text in
            ["", "{}", "null", r#"{"podSelector": {}}"#, "[1]", r#"[{"podSelector": {"matchLabels": {"a": 1}}}]"#]
        {
            let error = refused(text);
            assert!(error.contains(r#"write a list such as [{"namespaceSelector""#), "{text}: {error}");
        }
    }
}

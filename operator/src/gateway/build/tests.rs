use std::time::Duration;

use k8s_openapi::ByteString;
use kube::api::ObjectMeta;
use portolan_crds::{MCPGateway, MCPGatewaySpec};

use super::*;
use crate::{
    config::Images,
    gateway::{
        dereference::{Observed, SelectedServer},
        validate,
    },
};

fn gateway() -> MCPGateway {
    let spec = serde_json::from_value::<MCPGatewaySpec>(serde_json::json!({
        "replicas": 2,
        "authentication": {
            "apiKeys": [{"name": "ci", "secretRef": {"name": "ci-keys"}}],
            "serviceAccounts": {"audiences": ["portolan"]},
        },
    }));
    let metadata = ObjectMeta {
        name: Some("default".into()),
        namespace: Some("platform".into()),
        uid: Some("0a".into()),
        generation: Some(1),
        ..ObjectMeta::default()
    };
    MCPGateway { metadata, spec: spec.unwrap(), status: None }
}

fn config() -> Config {
    let images = Images {
        portolan: "registry.example/portolan:1".into(),
        bridge: "registry.example/bridge:1".into(),
        pull_policy: Some("IfNotPresent".into()),
        pull_secrets: vec!["registry".into()],
    };
    let monitoring = serde_json::json!({"namespaceSelector": {"matchLabels": {"team": "monitoring"}}});
    Config {
        gateway_metrics_from: vec![serde_json::from_value(monitoring).unwrap()],
        tenant_namespaces: vec!["team-a".into(), "team-b".into()],
        cluster_domain: "sample.local".into(),
        ..Config::new("platform", images)
    }
}

fn server(namespace: &str, name: &str, mac: Option<u8>) -> SelectedServer {
    SelectedServer {
        namespace: namespace.into(),
        name: name.into(),
        mac: mac.map(|byte| vec![byte; 32]),
        age: Duration::ZERO,
    }
}

fn observed(api_keys: &[(&str, &str)]) -> Observed {
    let keys = ["seal", "session.0", "stream"];
    let entries = api_keys.iter().map(|(name, value)| ((*name).to_owned(), ByteString(value.as_bytes().to_vec())));
    Observed {
        keys: keys.into_iter().map(|name| (name.to_owned(), ByteString(vec![1; 32]))).collect(),
        api_keys: [("ci-keys".to_owned(), Some(entries.collect()))].into(),
        servers: vec![server("team-a", "everything", Some(2)), server("team-b", "time", None)],
        kept_macs: BTreeMap::new(),
        bad_selector: None,
        pods: Vec::new(),
        replicas: Vec::new(),
    }
}

fn hash(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

#[test]
fn the_children_of_a_gateway_are_as_recorded() {
    let (gateway, config) = (gateway(), config());
    let observed = observed(&[("build", &hash('a'))]);
    let owner = Owner::of(&gateway).unwrap();
    let validated = validate::validate(&gateway, &observed);
    let parts = Parts { owner: &owner, gateway: &gateway, config: &config };
    insta::assert_yaml_snapshot!("secret", secret::secret(&parts, &validated, &observed));
    insta::assert_yaml_snapshot!("network_policy", network_policy::network_policy(&parts));
    insta::assert_yaml_snapshot!("service", service::service(&parts));
    insta::assert_yaml_snapshot!("deployment", deployment::deployment(&parts));
    build(&owner, &gateway, &validated, &observed, &config).unwrap();
}

#[test]
fn a_gateway_outside_the_platform_or_of_another_name_is_told_what_to_change() {
    let config = config();
    validate::accept(&config, &gateway()).unwrap();
    let mut elsewhere = gateway();
    elsewhere.metadata.namespace = Some("team-a".into());
    let error = validate::accept(&config, &elsewhere).unwrap_err();
    assert_eq!((error.reason, error.condition), ("NotEnrolled", Some("Accepted")));
    assert!(error.message.contains("platformNamespaces"), "{}", error.message);
    let mut other = gateway();
    other.metadata.name = Some("other".into());
    let error = validate::accept(&config, &other).unwrap_err();
    assert_eq!(error.reason, "NotEnrolled");
    assert!(error.message.contains("gateway.names"), "{}", error.message);
}

#[test]
fn a_missing_secret_of_api_keys_is_named_and_admits_nobody() {
    let mut observed = observed(&[]);
    observed.api_keys = [("ci-keys".to_owned(), None)].into();
    let validated = validate::validate(&gateway(), &observed);
    assert_eq!(validated.resolved.reason, "SecretNotFound");
    assert!(validated.resolved.message.contains("ci-keys"), "{}", validated.resolved.message);
    assert!(validated.api_keys.is_empty());
}

#[test]
fn a_bad_entry_is_named_without_repeating_it_and_the_good_ones_stay() {
    let observed = observed(&[("good", &hash('b')), ("plain", "ptl_supersecret"), ("short", "sha256:00")]);
    let validated = validate::validate(&gateway(), &observed);
    assert_eq!(validated.api_keys.keys().collect::<Vec<_>>(), ["apikeys.ci.good"]);
    let message = &validated.resolved.message;
    assert_eq!(validated.resolved.reason, "Invalid");
    assert!(message.contains("ci-keys/plain") && message.contains("ci-keys/short"), "{message}");
    assert!(!message.contains("supersecret"), "{message}");
}

#[test]
fn keys_alone_that_hold_no_entry_admit_nobody_and_say_so() {
    let mut gateway = gateway();
    gateway.spec.authentication.service_accounts = None;
    assert_eq!(validate::validate(&gateway, &observed(&[])).resolved.reason, "NoCredentials");
}

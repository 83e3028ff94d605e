use super::*;
use crate::server::{fixtures, observed::Content};

fn error(container: &str, observed: &Observed) -> Error {
    let server = fixtures::server(&format!("container: {{image: i, transport: Stdio, command: [x], {container}}}"));
    validate(&server, "everything", observed).content.unwrap_err()
}

fn holding(kind: Kind, name: &str, keys: &[&str]) -> Observed {
    let content = Content { keys: keys.iter().map(|key| (*key).to_owned()).collect(), digest: [1; 32] };
    Observed { contents: [((kind, name.to_owned()), Some(content))].into(), ..fixtures::nothing() }
}

fn assert_says(error: &Error, reason: &str, words: &[&str]) {
    assert_eq!((error.reason, error.condition), (reason, Some(types::RESOLVED_REFS)), "{error}");
    for word in words {
        assert!(error.message.contains(word), "{word:?} is missing: {error}");
    }
}

#[test]
fn a_missing_object_is_named_with_the_field_that_needs_it() {
    let nothing = fixtures::nothing();
    let secret = "env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: api, key: token}}}]";
    assert_says(
        &error(secret, &nothing),
        "SecretNotFound",
        &["Secret api", "spec.container.env[TOKEN]", "optional: true"],
    );
    let config_map = "envFrom: [{configMapRef: {name: settings}}]";
    assert_says(&error(config_map, &nothing), "ConfigMapNotFound", &["ConfigMap settings", "envFrom[0]"]);
    let volume = "volumes: [{name: v, secret: {secretName: api}}]";
    assert_says(&error(volume, &nothing), "SecretNotFound", &["Secret api", "volumes[v]"]);
    let pull = "imagePullSecrets: [{name: registry}]";
    assert_says(
        &error(pull, &nothing),
        "SecretNotFound",
        &["Secret registry", "imagePullSecrets[0]", "remove the entry"],
    );
}

#[test]
fn a_missing_key_is_named_with_its_object() {
    let observed = holding(Kind::Secret, "api", &["other"]);
    let env = "env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: api, key: token}}}]";
    assert_says(&error(env, &observed), "KeyNotFound", &["Secret api", "key token", "env[TOKEN]"]);
    let items = "volumes: [{name: v, secret: {secretName: api, items: [{key: other, path: o}, {key: cert, path: c}]}}]";
    assert_says(&error(items, &observed), "KeyNotFound", &["key cert", "volumes[v]"]);
}

#[test]
fn what_is_optional_may_be_missing() {
    let server = fixtures::server(
        "container: {image: i, transport: Stdio, command: [x], \
         env: [{name: A, valueFrom: {configMapKeyRef: {name: s, key: k, optional: true}}}], \
         envFrom: [{secretRef: {name: api, optional: true}}], \
         volumes: [{name: v, configMap: {name: s, optional: true}}]}",
    );
    assert!(validate(&server, "everything", &fixtures::nothing()).content.is_ok());
}

#[test]
fn a_claim_must_exist_and_be_mountable_by_two_revisions() {
    let claims = |modes: Option<&[&str]>| Observed {
        claims: [("data".to_owned(), modes.map(|modes| modes.iter().map(|mode| (*mode).to_owned()).collect()))].into(),
        ..fixtures::nothing()
    };
    let volume = "volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]";
    assert_says(&error(volume, &claims(None)), "ClaimNotFound", &["data"]);
    for mode in ["ReadWriteOnce", "ReadWriteOncePod"] {
        let words = ["data", mode, "two revisions", "rollout.type: Recreate", "ReadWriteMany or ReadOnlyMany"];
        assert_says(&error(volume, &claims(Some(&[mode]))), "ClaimNotShareable", &words);
        let container = format!("container: {{image: i, transport: Stdio, command: [x], {volume}}}");
        let one_after_the_other = fixtures::server(&format!("{container}\nrollout: {{type: Recreate}}"));
        assert!(validate(&one_after_the_other, "everything", &claims(Some(&[mode]))).content.is_ok(), "{mode}");
        let several = fixtures::server(&format!("{container}\nrollout: {{type: Recreate}}\nreplicas: 2"));
        let refused = validate(&several, "everything", &claims(Some(&[mode]))).content.unwrap_err();
        assert_says(&refused, "ClaimNotShareable", &["data", mode, "several replicas", "replicas: 1"]);
    }
    let server = fixtures::server(&format!("container: {{image: i, transport: Stdio, command: [x], {volume}}}"));
    for modes in [["ReadWriteMany"].as_slice(), &["ReadOnlyMany"], &["ReadWriteOnce", "ReadWriteMany"]] {
        assert!(validate(&server, "everything", &claims(Some(modes))).content.is_ok(), "{modes:?}");
    }
}

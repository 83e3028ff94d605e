//! What the chart's two service accounts may do, asked of the real API server, row by row of the tables that the
//! chart's own tests use.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

use std::fs;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Config};
use portolan_tests::cluster::{Cluster, OTHER_TENANT, PLATFORM, TENANT, kubectl};
use portolan_tests::paths::repo;
use serde_json::json;

/// Requests on their way at once.
const AT_ONCE: usize = 8;
/// A namespace that every cluster has and nobody enrols.
const NOT_ENROLLED: &str = "kube-system";

/// One request that an account might make.
#[derive(Clone, Debug)]
struct Asked {
    account: String,
    attributes: ResourceAttributes,
}

/// Every request that the rows of a table stand for; their form is told in the tables' first lines.
fn table(name: &str) -> Vec<Asked> {
    let text = fs::read_to_string(repo("charts/tests").join(name)).unwrap();
    let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let asked: Vec<_> = rows.flat_map(requests).collect();
    assert!(asked.len() > 50, "{name} stands for {} requests only", asked.len());
    asked
}

fn requests(row: &str) -> Vec<Asked> {
    let columns: Vec<_> = row.split('\t').collect();
    let [account, verbs, what, object, kinds] = columns[..] else { panic!("not five columns: {row}") };
    let (plural, subresource) = what.split_once('/').map_or((what, None), |(plural, sub)| (plural, Some(sub)));
    let (resource, group) = plural.split_once('.').unwrap_or((plural, ""));
    let mut asked = Vec::new();
    for account in accounts(account) {
        for verb in verbs.split(',') {
            for namespace in kinds.split(',').flat_map(namespaces) {
                asked.push(Asked {
                    account: (*account).to_owned(),
                    attributes: ResourceAttributes {
                        verb: Some(verb.to_owned()),
                        group: Some(group.to_owned()),
                        resource: Some(resource.to_owned()),
                        subresource: subresource.map(str::to_owned),
                        name: (object != "-").then(|| object.to_owned()),
                        namespace: (!namespace.is_empty()).then(|| (*namespace).to_owned()),
                        ..ResourceAttributes::default()
                    },
                });
            }
        }
    }
    asked
}

fn accounts(name: &str) -> &'static [&'static str] {
    match name {
        "operator" => &["portolan-operator"],
        "gateway" => &["portolan-gateway"],
        "both" => &["portolan-operator", "portolan-gateway"],
        other => panic!("no such account: {other}"),
    }
}

/// The namespaces of a kind on the test cluster; an empty name is a request that names none.
fn namespaces(kind: &str) -> &'static [&'static str] {
    match kind {
        "tenant" => &[TENANT, OTHER_TENANT],
        "platform" | "release" => &[PLATFORM],
        "other" => &[NOT_ENROLLED],
        "cluster" => &[""],
        other => panic!("no such kind of namespace: {other}"),
    }
}

/// Whether the API server would let the account do it.
async fn allowed(client: Client, asked: Asked) -> kube::Result<(Asked, bool)> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{PLATFORM}:{}", asked.account)),
            // As the API server sees such an account, so that what everyone may do counts too.
            groups: Some(vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{PLATFORM}"),
                "system:authenticated".into(),
            ]),
            resource_attributes: Some(asked.attributes.clone()),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = Api::all(client).create(&PostParams::default(), &review).await?;
    Ok((asked, answer.status.is_some_and(|status| status.allowed)))
}

/// Those of the requests on which the API server does not decide so.
async fn decided_otherwise(asked: Vec<Asked>, expected: bool) -> Vec<Asked> {
    let client = Cluster::connect().await.client;
    let decisions: Vec<_> = stream::iter(asked)
        .map(|asked| allowed(client.clone(), asked))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
        .unwrap();
    decisions.into_iter().filter(|(_, allowed)| *allowed != expected).map(|(asked, _)| asked).collect()
}

#[tokio::test]
async fn both_accounts_may_do_all_that_they_need() {
    let refused = decided_otherwise(table("allowed.tsv"), true).await;
    assert!(refused.is_empty(), "refused: {refused:#?}");
}

#[tokio::test]
async fn both_accounts_are_refused_all_that_is_forbidden() {
    let granted = decided_otherwise(table("forbidden.tsv"), false).await;
    assert!(granted.is_empty(), "granted: {granted:#?}");
}

/// A connection with a token of one of the accounts, as its pods have.
async fn client_of(account: &str) -> Client {
    let token = kubectl(&["create", "token", account, "--namespace", PLATFORM]).await.unwrap();
    let mut config = Config::infer().await.unwrap();
    config.auth_info = kube::config::AuthInfo { token: Some(token.trim().into()), ..Default::default() };
    Client::try_from(config).unwrap()
}

/// Whether the API server refused for want of a right.
fn forbidden<T>(result: kube::Result<T>) -> bool {
    match result {
        Ok(_) => false,
        Err(kube::Error::Api(status)) => status.is_forbidden(),
        Err(error) => panic!("the API server did not decide: {error}"),
    }
}

#[tokio::test]
async fn a_gateways_token_reads_its_own_secret_and_no_other() {
    let client = client_of("portolan-gateway").await;
    let platform = Api::<Secret>::namespaced(client.clone(), PLATFORM);
    assert!(!forbidden(platform.get_opt("portolan-gateway-default").await));
    assert!(forbidden(platform.get("portolan-gateway-another").await));
    assert!(forbidden(platform.list(&ListParams::default()).await));
    assert!(forbidden(Api::<Secret>::namespaced(client, TENANT).list(&ListParams::default()).await));
}

#[tokio::test]
async fn an_operators_token_lists_no_secret_makes_no_pod_and_binds_no_role() {
    let client = client_of("portolan-operator").await;
    let secrets = Api::<Secret>::namespaced(client.clone(), TENANT);
    assert!(!forbidden(secrets.get_opt("any").await));
    assert!(forbidden(secrets.list(&ListParams::default()).await));

    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let pod = serde_json::from_value(
        json!({"metadata": {"name": "mine"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}),
    );
    assert!(forbidden(Api::<Pod>::namespaced(client.clone(), TENANT).create(&dry_run, &pod.unwrap()).await));

    let binding = serde_json::from_value(json!({
        "metadata": {"name": "mine"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "portolan-operator", "namespace": PLATFORM}],
    }));
    let bindings = Api::<RoleBinding>::namespaced(client, TENANT);
    assert!(forbidden(bindings.create(&dry_run, &binding.unwrap()).await));
}

//! Servers that run elsewhere: here a pod that Portolan knows nothing of, reached by the name of its Service.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use portolan_crds::MCPServer;
use portolan_tests::authority::Authority;
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::mcp::Session;
use portolan_tests::tidy::{deleting, finally};
use portolan_tests::wait::{PATIENCE, until};
use portolan_tests::{paths, puppet};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

/// What the pod, its Service and its objects are called; `tests/cluster/values.yaml` allows the Service's name.
const ELSEWHERE: &str = "elsewhere";
const CREDENTIAL: &str = "Bearer open-sesame";
/// Streamable HTTP that wants the credential.
const HTTP_PORT: u16 = 8443;
/// SSE that wants a client certificate.
const SSE_PORT: u16 = 8444;

fn host() -> String {
    format!("{ELSEWHERE}.{TENANT}.svc.cluster.local")
}

/// The tests share one pod, so they run one after the other.
static TURN: Mutex<()> = Mutex::const_new(());

async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

async fn apply<K>(cluster: &Cluster, kind: &str, name: &str, more: Value)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let mut manifest = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": TENANT}});
    if let (Some(manifest), Value::Object(more)) = (manifest.as_object_mut(), more) {
        for (key, value) in more {
            match (manifest.get_mut(&key).and_then(Value::as_object_mut), value) {
                (Some(present), Value::Object(value)) => present.extend(value),
                (_, value) => drop(manifest.insert(key, value)),
            }
        }
    }
    cluster.apply::<K>(&manifest).await.expect("the manifest is accepted");
}

/// Runs `body` while a pod with two servers behind TLS answers, and takes everything away afterwards.
async fn beside_servers_elsewhere<B: Future>(cluster: &Cluster, servers: &[&str], body: B) -> B::Output {
    let authority = Authority::new();
    let (front, relay) = (authority.sign(&host()), authority.sign("relay"));
    let trust = json!({"ca.crt": authority.pem});
    apply::<ConfigMap>(cluster, "ConfigMap", "elsewhere-trust", json!({"data": trust})).await;
    let secret = |entries: Value| json!({"stringData": entries});
    apply::<Secret>(cluster, "Secret", "elsewhere-trust", secret(trust)).await;
    apply::<Secret>(cluster, "Secret", "elsewhere-token", secret(json!({"authorization": CREDENTIAL}))).await;
    let identity = json!({"tls.crt": relay.certificate, "tls.key": relay.key});
    let identity = json!({"type": "kubernetes.io/tls", "stringData": identity});
    apply::<Secret>(cluster, "Secret", "elsewhere-client", identity).await;
    let script = std::fs::read_to_string(paths::repo("tests/elsewhere/front.js")).expect("the script is there");
    let files =
        json!({"ca.crt": authority.pem, "tls.crt": front.certificate, "tls.key": front.key, "front.js": script});
    apply::<Secret>(cluster, "Secret", "elsewhere-front", secret(files)).await;
    apply::<Pod>(cluster, "Pod", ELSEWHERE, pod()).await;
    let port = |name: &str, port: u16| json!({"name": name, "port": port});
    let service = json!({"selector": {"app": ELSEWHERE}, "ports": [port("http", HTTP_PORT), port("sse", SSE_PORT)]});
    apply::<Service>(cluster, "Service", ELSEWHERE, json!({"spec": service})).await;
    let ready = async {
        until("the pod is ready", PATIENCE, || async {
            let pod = cluster.api::<Pod>(TENANT).get(ELSEWHERE).await.map_err(|error| error.to_string())?;
            let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
            let is_ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
            if is_ready { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
        deleting(cluster, servers, body).await
    };
    finally(ready, async {
        cluster.delete::<Service>(TENANT, ELSEWHERE).await;
        cluster.delete::<Pod>(TENANT, ELSEWHERE).await;
        cluster.delete::<ConfigMap>(TENANT, "elsewhere-trust").await;
        for secret in ["elsewhere-trust", "elsewhere-token", "elsewhere-client", "elsewhere-front"] {
            cluster.delete::<Secret>(TENANT, secret).await;
        }
    })
    .await
}

/// server-everything twice, and TLS in front of both.
fn pod() -> Value {
    let restricted = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let container = |name: &str, command: Value, env: Value| {
        json!({"name": name, "image": puppet::IMAGE, "imagePullPolicy": "Never", "command": command, "env": env,
            "securityContext": restricted})
    };
    let everything = |name: &str, mode: &str, port: &str| {
        container(name, json!(["mcp-server-everything", mode]), json!([{"name": "PORT", "value": port}]))
    };
    let fronts = json!([
        {"port": HTTP_PORT, "to": 3001, "header": "authorization", "value": CREDENTIAL},
        {"port": SSE_PORT, "to": 3002, "clients": true},
    ]);
    let env = json!([{"name": "DIR", "value": "/front"}, {"name": "FRONTS", "value": fronts.to_string()}]);
    let mut front = container("front", json!(["node", "/front/front.js"]), env);
    front["volumeMounts"] = json!([{"name": "front", "mountPath": "/front", "readOnly": true}]);
    front["readinessProbe"] = json!({"tcpSocket": {"port": HTTP_PORT}, "periodSeconds": 1});
    let [http, sse] = [("http", "streamableHttp", "3001"), ("sse", "sse", "3002")].map(|(name, mode, port)| {
        let mut server = everything(name, mode, port);
        server["readinessProbe"] =
            json!({"tcpSocket": {"port": port.parse::<u16>().expect("a port")}, "periodSeconds": 1});
        server
    });
    json!({"metadata": {"labels": {"app": ELSEWHERE}}, "spec": {
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [http, sse, front],
        "volumes": [{"name": "front", "secret": {"secretName": "elsewhere-front"}}],
    }})
}

fn remote(name: &str, remote: &Value) -> Value {
    json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "MCPServer", "metadata": {"name": name, "namespace": TENANT},
        "spec": {"remote": remote}})
}

/// Calls the server through the default gateway.
async fn is_called(cluster: &Cluster, name: &str) {
    let token = cluster.token(TENANT, "default").await;
    let url = cluster.gateway_url(TENANT, name).await;
    let session = Session::open(&url, Some(&token)).await.expect("a session");
    let reply = session.call(1, "get-sum", json!({"a": 2, "b": 40})).await.expect("answers");
    let text = &reply.answer()["result"]["content"][0]["text"];
    assert_eq!(text, "The sum of 2 and 40 is 42.", "{reply:?}");
}

#[tokio::test]
async fn a_remote_server_is_called_with_its_credential_over_tls_of_a_private_authority() {
    let _turn = turn().await;
    let cluster = Cluster::connect().await;
    let (with, without) = ("remote-credential", "remote-no-credential");
    beside_servers_elsewhere(&cluster, &[with, without], async {
        let tls = json!({"caCertificateRef": {"configMapKeyRef": {"name": "elsewhere-trust", "key": "ca.crt"}}});
        let url = format!("https://{}:{HTTP_PORT}/mcp", host());
        let credential = json!({"type": "Header", "header": {"name": "Authorization",
            "secretKeyRef": {"name": "elsewhere-token", "key": "authorization"}}});
        let manifest = remote(with, &json!({"url": url, "tls": tls, "backendAuth": credential}));
        let revision = cluster.serve(&manifest).await;
        is_called(&cluster, with).await;
        let server = cluster.api::<MCPServer>(TENANT).get(with).await.expect("it is there");
        let status = server.status.expect("a status");
        assert_eq!(status.server.expect("found").name, "mcp-servers/everything");
        assert_eq!(status.tools.expect("tools").count, 13);
        let row = kubectl(&["get", "mcps", with, "--namespace", TENANT]).await.expect("a table");
        assert!(row.contains("StreamableHTTP"), "{row}");
        // Without it the server answers nothing but 401.
        let manifest = remote(without, &json!({"url": url, "tls": tls, "backendAuth": {"type": "None"}}));
        cluster.apply::<MCPServer>(&manifest).await.expect("the manifest is accepted");
        let condition = cluster.condition(TENANT, without, "Ready", "False", "NotMCP", PATIENCE).await;
        assert!(condition.message.contains("401"), "{}", condition.message);
        // What a Secret holds is part of the revision.
        let token = json!({"stringData": {"authorization": format!("{CREDENTIAL}\n")}});
        apply::<Secret>(&cluster, "Secret", "elsewhere-token", token).await;
        until("another revision serves", PATIENCE, || async {
            let serving = cluster.serving_revision(TENANT, with).await;
            if serving == revision { Err(serving) } else { Ok(()) }
        })
        .await;
        is_called(&cluster, with).await;
    })
    .await;
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_an_sse_server_is_called_like_any_other() {
    let _turn = turn().await;
    let cluster = Cluster::connect().await;
    let (with, without) = ("remote-certificate", "remote-no-certificate");
    beside_servers_elsewhere(&cluster, &[with, without], async {
        let ca = json!({"secretKeyRef": {"name": "elsewhere-trust", "key": "ca.crt"}});
        let url = format!("https://{}:{SSE_PORT}/sse", host());
        let tls = json!({"caCertificateRef": ca, "clientCertificateRef": {"name": "elsewhere-client"}});
        cluster.serve(&remote(with, &json!({"url": url, "transport": "SSE", "tls": tls}))).await;
        is_called(&cluster, with).await;
        let row = kubectl(&["get", "mcps", with, "--namespace", TENANT]).await.expect("a table");
        assert!(row.contains("SSE"), "{row}");
        let tls = json!({"caCertificateRef": ca});
        let manifest = remote(without, &json!({"url": url, "transport": "SSE", "tls": tls}));
        cluster.apply::<MCPServer>(&manifest).await.expect("the manifest is accepted");
        let condition = cluster.condition(TENANT, without, "Ready", "False", "NotMCP", PATIENCE).await;
        assert!(condition.message.contains("403"), "{}", condition.message);
    })
    .await;
}

#[tokio::test]
async fn a_private_address_that_was_not_allowed_is_told_with_what_to_do() {
    let cluster = Cluster::connect().await;
    let names = ["remote-private-name", "remote-private-address"];
    deleting(&cluster, &names, async {
        // A Service that exists, and where clouds keep the credentials of nodes.
        let hosts = ["portolan-gateway-default.portolan-system.svc.cluster.local", "169.254.169.254"];
        for (name, host) in names.into_iter().zip(hosts) {
            let manifest = remote(name, &json!({"url": format!("http://{host}/mcp")}));
            cluster.apply::<MCPServer>(&manifest).await.expect("the manifest is accepted");
        }
        for (name, host) in names.into_iter().zip(hosts) {
            let condition = cluster.condition(TENANT, name, "Ready", "False", "AddressNotAllowed", PATIENCE).await;
            for words in [host, "remotes.allowedPrivateHosts", "-c relay"] {
                assert!(condition.message.contains(words), "{words} is not in: {}", condition.message);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_relay_needs_and_is_missing_is_named() {
    let cluster = Cluster::connect().await;
    let (name, secret) = ("remote-missing", "remote-missing-token");
    let names = [name];
    let body = deleting(&cluster, &names, async {
        let credential = json!({"type": "Header",
            "header": {"name": "X-API-Key", "secretKeyRef": {"name": secret, "key": "value"}}});
        let manifest = remote(name, &json!({"url": "https://mcp.invalid/mcp", "backendAuth": credential}));
        cluster.apply::<MCPServer>(&manifest).await.expect("the manifest is accepted");
        let missing = cluster.condition(TENANT, name, "ResolvedRefs", "False", "SecretNotFound", PATIENCE).await;
        let field = "spec.remote.backendAuth.header.secretKeyRef";
        assert!(missing.message.contains(field) && missing.message.contains(secret), "{}", missing.message);
        apply::<Secret>(&cluster, "Secret", secret, json!({"stringData": {"other": "x"}})).await;
        let missing = cluster.condition(TENANT, name, "ResolvedRefs", "False", "KeyNotFound", PATIENCE).await;
        assert!(missing.message.contains(field) && missing.message.contains("value"), "{}", missing.message);
        let pods = cluster.pods(TENANT, &format!("portolan.dev/server={name}")).await;
        assert!(
            pods.is_empty(),
            "nothing runs without it: {:?}",
            pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
        );
        apply::<Secret>(&cluster, "Secret", secret, json!({"stringData": {"value": "x"}})).await;
        cluster.condition(TENANT, name, "ResolvedRefs", "True", "", PATIENCE).await;
        let condition = cluster.condition(TENANT, name, "Ready", "False", "Unreachable", PATIENCE).await;
        assert!(condition.message.contains("mcp.invalid"), "{}", condition.message);
    });
    finally(body, cluster.delete::<Secret>(TENANT, secret)).await;
}

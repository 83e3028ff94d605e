//! When the image is pulled, and with whose credentials. The node takes every registry to be at its loopback's port 1.

use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::Secret;
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::puppet;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::{Served, content, puppet_with};

/// `puller:fields` in Base64.
const CREDENTIAL: &str = "Basic cHVsbGVyOmZpZWxkcw==";

/// A registry that wants a credential and has no image; it remembers the head of each request.
#[derive(Clone, Default)]
struct Registry {
    heads: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:1").await.expect("the port that the node takes for a registry's");
        let registry = Self::default();
        tokio::spawn({
            let registry = registry.clone();
            async move {
                while let Ok((stream, _)) = socket.accept().await {
                    tokio::spawn(registry.clone().answer(stream));
                }
            }
        });
        registry
    }

    async fn answer(self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut head = String::new();
        let mut reader = BufReader::new(&mut stream);
        while reader.read_line(&mut head).await? > 2 {}
        let answer = if head.to_ascii_lowercase().contains("authorization:") {
            "404 Not Found\r\n"
        } else {
            "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"fields\"\r\n"
        };
        self.heads.lock().expect("no panic").push(head);
        stream.write_all(format!("HTTP/1.1 {answer}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes()).await
    }

    /// Requests for the puppet's image.
    fn asked(&self) -> Vec<String> {
        let heads = self.heads.lock().expect("no panic");
        heads.iter().filter(|head| head.contains("/v2/portolan-test/everything/manifests/")).cloned().collect()
    }
}

#[tokio::test]
async fn the_pull_policy_decides_whether_the_registry_is_asked_and_the_pull_secret_is_what_it_is_shown() {
    let cluster = Cluster::connect().await;
    let registry = Registry::start().await;
    let name = "fields-pull";
    for policy in ["Never", "IfNotPresent"] {
        let manifest = puppet_with(name, &json!({"container": {"imagePullPolicy": policy}}));
        Served::from(&manifest).await;
    }
    assert_eq!(registry.asked(), Vec::<String>::new(), "the node has {}", puppet::IMAGE);

    let always = puppet_with(name, &json!({"container": {"imagePullPolicy": "Always"}}));
    cluster.apply::<MCPServer>(&always).await.expect("accepted");
    cluster.condition(TENANT, name, "Ready", "False", "ImagePullFailed", PATIENCE).await;
    assert!(!registry.asked().is_empty(), "the registry is asked although the node has the image");
    assert!(registry.asked().iter().all(|head| !head.contains("Basic")), "no credential was given");

    let login = json!({"auths": {"localhost": {"username": "puller", "password": "fields"}}});
    let mut secret = content("Secret", "fields-pull", &json!({".dockerconfigjson": login.to_string()}));
    secret["type"] = "kubernetes.io/dockerconfigjson".into();
    cluster.apply::<Secret>(&secret).await.expect("made");
    let shown = puppet_with(
        name,
        &json!({"container": {"imagePullPolicy": "Always", "imagePullSecrets": [{"name": "fields-pull"}]}}),
    );
    cluster.apply::<MCPServer>(&shown).await.expect("accepted");
    until("the registry is shown the credential", PATIENCE, || async {
        let heads = registry.asked();
        if heads.iter().any(|head| head.contains(CREDENTIAL)) { Ok(()) } else { Err(heads.concat()) }
    })
    .await;
    cluster.delete::<MCPServer>(TENANT, name).await;
    cluster.delete::<Secret>(TENANT, "fields-pull").await;
}

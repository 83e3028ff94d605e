//! Third-party servers, unmodified, each as a pod, called by third-party clients through the default gateway.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::thirdparty::{CLIENTS, Place, assert_serves, server};

/// Applies the server, waits until it is Ready, and lets every client list its tools and make its known call.
async fn every_client_uses(name: &str) {
    let cluster = Cluster::connect().await;
    let server = server(name, Place::Container);
    cluster.apply::<MCPServer>(&server.manifest(TENANT, name)).await.expect("the manifest is accepted");
    cluster.ready(TENANT, name).await;
    let token = cluster.token(TENANT, "default").await;
    let url = cluster.gateway_url(TENANT, name).await;
    for client in CLIENTS {
        assert_serves(&server, client, &url, Some(&token)).await;
    }
    cluster.delete::<MCPServer>(TENANT, name).await;
}

#[tokio::test]
async fn every_client_uses_server_everything_over_stdio() {
    every_client_uses("everything").await;
}

#[tokio::test]
async fn every_client_uses_server_everything_over_streamable_http() {
    every_client_uses("everything-http").await;
}

#[tokio::test]
async fn every_client_uses_server_everything_over_sse() {
    every_client_uses("everything-sse").await;
}

#[tokio::test]
async fn every_client_uses_server_filesystem() {
    every_client_uses("filesystem").await;
}

#[tokio::test]
async fn every_client_uses_server_memory() {
    every_client_uses("memory").await;
}

#[tokio::test]
async fn every_client_uses_mcp_server_time() {
    every_client_uses("time").await;
}

#[tokio::test]
async fn every_client_uses_mcp_server_git() {
    every_client_uses("git").await;
}

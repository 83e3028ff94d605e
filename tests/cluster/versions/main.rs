//! Servers that become another version while they are called, and those that become another one unasked.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

mod callers;
mod images;
mod turns;

use std::collections::BTreeSet;
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use portolan_crds::MCPServer;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::mcp::{Reply, Session};
use portolan_tests::thirdparty::{CLIENTS, Call, Client, Place, Server, client, server};
use portolan_tests::tidy::deleting;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Map, Value, json};

use callers::Callers;

#[tokio::test]
async fn server_everything_becomes_its_next_version_and_the_earlier_one_again_and_no_client_notices() {
    let server = server("everything", Place::Container);
    let call = server.known_call.clone();
    there_and_back(&server, &call).await;
}

#[tokio::test]
async fn server_filesystem_becomes_its_next_version_and_the_earlier_one_again_and_no_client_notices() {
    let server = server("filesystem", Place::Container);
    // What one run writes is at one pod, and the next call may be at another: what is read is in the image.
    let read = |arguments: Map<_, _>| Call {
        tool: "read_text_file".to_owned(),
        arguments,
        expect_contains: "The harbour light is lit at dusk.".to_owned(),
    };
    let note = json!({"path": "/srv/fixture/files/note.txt"});
    there_and_back(&server, &read(note.as_object().expect("an object").clone())).await;
}

#[tokio::test]
async fn mcp_server_time_becomes_its_next_version_and_the_earlier_one_again_once_its_changed_tools_are_allowed() {
    let server = server("time", Place::Container);
    let call = server.known_call.clone();
    there_and_back(&server, &call).await;
}

/// Serves the earlier version, makes it the later one and back, and has every client make the call all the while.
async fn there_and_back(later: &Server, call: &Call) {
    let cluster = Cluster::connect().await;
    let earlier = later.earlier();
    let name = format!("rolls-{}", later.name);
    deleting(&cluster, &[name.as_str()], async {
        let began = Instant::now();
        let mut manifest = earlier.manifest(TENANT, &name);
        // A client that does not say that its session is over keeps it for as long.
        manifest["spec"]["rollout"] = json!({"drainTimeout": "15s"});
        let first = cluster.serve(&manifest).await;
        let rolled = Rolled { cluster: &cluster, name: &name };
        let url = cluster.gateway_url(TENANT, &name).await;
        let token = cluster.token(TENANT, "default").await;
        let before = definitions(&url, &token).await;

        let callers = Callers::start(&url, &token, call);
        lists(&earlier, CLIENTS[0], &url, &token).await;
        let second = rolled.becomes(later, &earlier, &first).await;
        tokio::join!(rolled.nothing_is_left_of(&first), lists(later, CLIENTS[1], &url, &token));
        let after = definitions(&url, &token).await;
        let differ = before.iter().filter(|(tool, one)| after.get(*tool) != Some(one)).map(|(tool, _)| tool.clone());
        let differ: BTreeSet<_> = differ.collect();
        assert_eq!(differ, unlike(&earlier, later), "what the catalogue says: {before:?} {after:?}");
        let third = rolled.becomes(&earlier, later, &second).await;
        tokio::join!(rolled.nothing_is_left_of(&second), lists(&earlier, CLIENTS[2], &url, &token));
        assert_eq!(third, first, "the same spec is the same revision");
        assert_eq!(definitions(&url, &token).await, before);
        let tally = callers.stop().await;
        println!("{name}, there and back: {tally} in {:.1} s", began.elapsed().as_secs_f64());
        tally.assert_nothing_failed();
    })
    .await;
}

/// A server that becomes another version of itself.
struct Rolled<'a> {
    cluster: &'a Cluster,
    name: &'a str,
}

impl Rolled<'_> {
    /// Edits the image to that of another version than that of the revision `from`, waits until it serves, and returns the
    /// name of its revision. Where its tools are others the rollout waits until that is allowed.
    async fn becomes(&self, to: &Server, before: &Server, from: &str) -> String {
        let began = Instant::now();
        let Self { cluster, name, .. } = self;
        cluster.patch_spec(TENANT, name, &json!({"container": {"image": to.image}})).await;
        let unlike = unlike(before, to);
        if !unlike.is_empty() {
            let told = cluster.condition(TENANT, name, "Stalled", "True", "ToolsChanged", PATIENCE).await;
            for tool in &unlike {
                assert!(told.message.contains(&format!("tool {tool} ")), "{tool} is named: {}", told.message);
            }
            assert!(told.message.contains("spec.rollout.allowToolChanges: true"), "{}", told.message);
            cluster.condition(TENANT, name, "Available", "True", "", PATIENCE).await;
            assert_eq!(cluster.serving_revision(TENANT, name).await, from, "it serves on meanwhile");
            cluster.patch_spec(TENANT, name, &json!({"rollout": {"allowToolChanges": true}})).await;
        }
        cluster.ready(TENANT, name).await;
        let serves = cluster.serving_revision(TENANT, name).await;
        assert_ne!(serves, from);
        println!("{name}: {} serves after {:.1} s", to.image, began.elapsed().as_secs_f64());
        // Taken out again, it says nothing of the next rollout.
        cluster.patch_spec(TENANT, name, &json!({"rollout": {"allowToolChanges": null}})).await;
        serves
    }

    async fn nothing_is_left_of(&self, revision: &str) {
        let pods = self.cluster.api::<Pod>(TENANT);
        let its = ListParams::default().labels(&format!("portolan.dev/revision={revision}"));
        until(&format!("{revision} is gone"), PATIENCE, || async {
            let left = pods.list(&its).await.map_err(|error| error.to_string())?.items.len();
            let server =
                self.cluster.api::<MCPServer>(TENANT).get(self.name).await.map_err(|error| error.to_string())?;
            let told = server.status.map(|status| status.revisions).unwrap_or_default();
            let is_told = told.iter().any(|one| one.name == revision);
            if left == 0 && !is_told { Ok(()) } else { Err(format!("{left} pods, {told:?}")) }
        })
        .await;
    }
}

/// Tools of a version that another one has no more, or defines differently.
fn unlike(before: &Server, after: &Server) -> BTreeSet<String> {
    let changed = [before, after].into_iter().flat_map(|version| &version.earlier).flat_map(|earlier| &earlier.changed);
    let gone = before.tools.iter().filter(|tool| !after.tools.contains(tool));
    changed.chain(gone).cloned().collect()
}

/// A client lists the tools that this version has.
async fn lists(server: &Server, by: Client, url: &str, token: &str) {
    let listed = client(by, url, Some(token), &["list-tools"]).await.expect("the client lists tools");
    assert_eq!(listed["tools"], json!(server.tools_for(by.name)), "{} with {by}", server.image);
}

/// The tools of a server by name, each as it is defined.
async fn definitions(url: &str, token: &str) -> Map<String, Value> {
    let session = Session::open(url, Some(token)).await.expect("a session");
    let listed = session.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await.expect("answers");
    let listed = Reply::read(listed).await.answer()["result"]["tools"].clone();
    session.delete().await.expect("it ends");
    let tools = listed.as_array().expect("a list").iter();
    tools.map(|tool| (tool["name"].as_str().expect("a name").to_owned(), tool.clone())).collect()
}

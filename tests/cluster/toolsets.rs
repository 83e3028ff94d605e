//! Toolsets on a real cluster: some servers as one, under names that the toolset says.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use portolan_crds::MCPToolset;
use portolan_tests::cluster::{Cluster, TENANT};
use portolan_tests::mcp::{self, Reply, Session};
use portolan_tests::puppet;
use portolan_tests::tidy::{deleting, finally};
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};

/// What the session's endpoint lists.
async fn names(session: &Session) -> Result<Vec<String>, String> {
    let reply = Reply::read(session.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await?).await;
    let tools = reply.answer()["result"]["tools"].as_array().cloned().ok_or_else(|| format!("{}", reply.status))?;
    Ok(tools.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect())
}

#[tokio::test]
async fn a_toolset_shows_the_chosen_tools_of_its_servers_under_the_chosen_names() {
    let cluster = Cluster::connect().await;
    let servers = ["toolset-a", "toolset-b", "toolset-c"];
    deleting(&cluster, &servers, async {
        for server in servers {
            cluster.serve(&puppet::stdio(TENANT, server)).await;
        }
        let toolset = |servers: Value| {
            json!({
                "apiVersion": "portolan.dev/v1alpha1", "kind": "MCPToolset",
                "metadata": {"name": "mine", "namespace": TENANT},
                "spec": {"instructions": "Evaluates.", "servers": servers},
            })
        };
        let chosen = json!([{"name": "toolset-b"}, {"name": "toolset-a", "tools": [{"name": "eval", "as": "run"}]}]);
        finally(shown(&cluster, &toolset, chosen), cluster.delete::<MCPToolset>(TENANT, "mine")).await;
    })
    .await;
}

async fn shown(cluster: &Cluster, toolset: &impl Fn(Value) -> Value, chosen: Value) {
    cluster.apply::<MCPToolset>(&toolset(chosen)).await.expect("accepted");
    let token = cluster.token(TENANT, "default").await;
    let url = cluster.gateway_url(TENANT, "toolsets/mine").await;
    let of_b = format!("{TENANT}__toolset-b__eval");
    until("the toolset is served", PATIENCE, || async {
        let names = names(&Session::open(&url, Some(&token)).await?).await?;
        if names == ["run", of_b.as_str()] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    let session = Session::open(&url, Some(&token)).await.expect("a session");
    for (tool, answered) in [("run", true), (of_b.as_str(), true), ("eval", false)] {
        let reply = session.call(2, tool, json!({"code": "6 * 7"})).await.expect("answers");
        assert_eq!(reply.answer()["result"]["content"][0]["text"] == "42", answered, "{tool}: {}", reply.answer());
    }
    let not_shown = [format!("{TENANT}__toolset-a__eval"), format!("{TENANT}__toolset-c__eval")];
    for tool in &not_shown {
        let reply = session.call(3, tool, json!({"code": "6 * 7"})).await.expect("answers");
        assert_eq!(reply.answer()["error"]["code"], -32602, "{tool}: {}", reply.answer());
    }
    let opened = mcp::post(&mcp::http(), &url, Some(&token), &mcp::initialize()).await.expect("answers");
    let opened = Reply::read(opened).await;
    let instructions = opened.answer()["result"]["instructions"].as_str().unwrap_or_default();
    assert!(instructions.starts_with("Evaluates.\n"), "{instructions}");

    let renamed = json!([{"name": "toolset-a", "tools": [{"name": "eval", "as": "compute"}]}]);
    cluster.apply::<MCPToolset>(&toolset(renamed)).await.expect("accepted");
    until("the edit is served", PATIENCE, || async {
        let names = names(&session).await?;
        if names == ["compute"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}

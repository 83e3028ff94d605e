//! What the status says of a server is what a client finds.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use portolan_crds::MCPServer;
use portolan_crds::server::Era;
use portolan_tests::cluster::{Cluster, TENANT, kubectl};
use portolan_tests::mcp::{self, Reply, Session};
use portolan_tests::puppet;
use portolan_tests::thirdparty::{Place, server};
use portolan_tests::tidy::deleting;
use serde_json::{Value, json};

#[tokio::test]
async fn status_names_the_server_its_era_its_capabilities_and_its_tools_and_a_config_map_has_the_definitions() {
    let cluster = Cluster::connect().await;
    let name = "described";
    deleting(&cluster, &[name, "described-too", "described-otherwise"], async {
        let revision = cluster.serve(&server("filesystem", Place::Container).manifest(TENANT, name)).await;
        let token = cluster.token(TENANT, "default").await;
        let url = cluster.gateway_url(TENANT, name).await;
        let opened = mcp::post(&mcp::http(), &url, Some(&token), &mcp::initialize()).await.expect("answers");
        let said = Reply::read(opened).await.answer()["result"].clone();
        let session = Session::open(&url, Some(&token)).await.expect("a session");
        let listed = session.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await.expect("answers");
        let listed = Reply::read(listed).await.answer()["result"]["tools"].clone();

        let status = cluster.api::<MCPServer>(TENANT).get(name).await.expect("there").status.expect("a status");
        let found = status.server.expect("the server is described");
        assert_eq!(json!({"name": found.name, "version": found.version}), named(&said["serverInfo"]));
        assert_eq!(json!(found.protocol_version), said["protocolVersion"]);
        assert_eq!(found.era, Era::Legacy);
        assert!(found.supported_versions.contains(&found.protocol_version), "{:?}", found.supported_versions);
        let capabilities: BTreeSet<_> = said["capabilities"].as_object().expect("an object").keys().collect();
        assert_eq!(found.capabilities.iter().collect::<BTreeSet<_>>(), capabilities);

        let tools = status.tools.expect("its tools are counted");
        assert_eq!(Some(tools.count as usize), listed.as_array().map(Vec::len));
        let stored = cluster.api::<ConfigMap>(TENANT).get(&format!("{revision}-tools")).await.expect("there");
        let text = stored.data.as_ref().and_then(|data| data.get("tools.json")).expect("definitions");
        let stored_tools: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(by_name(&stored_tools), by_name(&listed), "the definitions are those of a client");
        assert_eq!(stored.annotations().get("portolan.dev/tools-hash"), Some(&tools.hash));

        // The URL is one for clients in the cluster, so a pod asks.
        let [endpoint] = &status.endpoints[..] else { panic!("one gateway has it: {:?}", status.endpoints) };
        let answer = asked_from_a_pod(&cluster, name, &endpoint.url, &token).await;
        assert_eq!(answer, format!("200 {}", found.name), "{}", endpoint.url);

        // The hash is of the definitions: another server with the same has the same one, one with others another.
        cluster.serve(&server("filesystem", Place::Container).manifest(TENANT, "described-too")).await;
        cluster.serve(&puppet::stdio(TENANT, "described-otherwise")).await;
        let hash = async |name: &str| {
            let status = cluster.api::<MCPServer>(TENANT).get(name).await.expect("there").status.expect("a status");
            status.tools.expect("its tools are counted").hash
        };
        assert_eq!(hash("described-too").await, tools.hash);
        assert_ne!(hash("described-otherwise").await, tools.hash);
    })
    .await;
}

/// Status of the answer to `initialize` at `url` from within the cluster, and the server's name.
async fn asked_from_a_pod(cluster: &Cluster, server: &str, url: &str, token: &str) -> String {
    let code = format!(
        "const headers = {{'authorization': 'Bearer {token}', 'content-type': 'application/json', \
         'accept': 'application/json, text/event-stream'}};
         fetch('{url}', {{method: 'POST', headers, body: JSON.stringify({})}})
           .then(async answer => console.log(answer.status, (await answer.json()).result.serverInfo.name))",
        mcp::initialize()
    );
    let pod = cluster.pods(TENANT, &format!("portolan.dev/server={server}")).await.remove(0).name_any();
    let exec = ["exec", "--namespace", TENANT, &pod, "--container", "server", "--", "node", "-e", &code];
    kubectl(&exec).await.expect("a pod reaches the gateway").trim().to_owned()
}

fn named(info: &Value) -> Value {
    json!({"name": info["name"], "version": info["version"]})
}

/// Definitions in the order of their names.
fn by_name(tools: &Value) -> Vec<&Value> {
    let mut tools: Vec<_> = tools.as_array().expect("a list").iter().collect();
    tools.sort_by_key(|tool| tool["name"].as_str());
    tools
}

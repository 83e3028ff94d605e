//! A server that breaks everything that a server can, beside one that is under load.

use std::time::{Duration, Instant};

use portolan_tests::cluster::TENANT;
use portolan_tests::mcp::{self, Reply};
use portolan_tests::puppet::IMAGE;
use portolan_tests::stand::{GATEWAY, Stand};
use portolan_tests::tidy::deleting;
use serde_json::{Value, json};

use crate::{amount, on_a_stand, rate, report};

const NAME: &str = "troubled";
/// From a request to its answer, as the server's spec says.
const DEADLINE: Duration = Duration::from_secs(2);
/// On a busy machine, beyond that.
const SLACK: Duration = Duration::from_secs(1);

/// An MCP server in every regard, but for what its tools do to the connection that they are called by.
const SERVER: &str = r"
const tools = ['hang', 'reset', 'half', 'garbage', 'stranger', 'trickle', 'error'].map(name => ({name, inputSchema: {type: 'object'}}));
const json = (response, value) => response.writeHead(200, {'content-type': 'application/json'}).end(JSON.stringify(value));
const trouble = {
  hang: () => {},
  reset: (id, response) => response.socket.resetAndDestroy(),
  half: (id, response) => {
    response.writeHead(200, {'content-type': 'application/json', 'content-length': 1000});
    response.write('{');
    setTimeout(() => response.socket.destroy(), 100);
  },
  garbage: (id, response) => response.writeHead(200, {'content-type': 'application/json'}).end('Welcome to the shell!'),
  stranger: (id, response) => json(response, {jsonrpc: '2.0', id: 'nobody asked', result: {content: []}}),
  trickle: (id, response) => {
    response.writeHead(200, {'content-type': 'application/json'});
    const each = setInterval(() => response.write(' '), 1000);
    response.on('close', () => clearInterval(each));
  },
  error: (id, response) => response.writeHead(500).end('no'),
};
require('http').createServer((request, response) => {
  if (request.method !== 'POST') return response.writeHead(405).end();
  let body = '';
  request.on('data', part => body += part).on('end', () => {
    const {id, method, params} = JSON.parse(body);
    if (id === undefined) return response.writeHead(202).end();
    if (method === 'tools/call') return trouble[params.name](id, response);
    const result = method === 'initialize'
      ? {protocolVersion: params.protocolVersion, capabilities: {tools: {}}, serverInfo: {name: 'troubled', version: '1'}}
      : method === 'tools/list' ? {tools} : {};
    json(response, {jsonrpc: '2.0', id, result});
  });
}).listen(9000, '127.0.0.1');
";

/// What each of its tools does, and what clients are told then.
const TROUBLES: [(&str, &[&str]); 7] = [
    ("hang", &["RequestTimeout"]),
    ("reset", &["ServerUnreachable", "BadServerReply"]),
    ("half", &["ServerUnreachable", "BadServerReply"]),
    ("garbage", &["BadServerReply"]),
    ("stranger", &["BadServerReply", "RequestTimeout"]),
    ("trickle", &["RequestTimeout"]),
    ("error", &["BadServerReply", "ServerUnreachable"]),
];

#[tokio::test]
async fn a_server_that_hangs_resets_or_talks_garbage_is_told_by_its_deadline_and_no_other_server_notices() {
    on_a_stand("untroubled", 2, async |stand| {
        deleting(&stand.cluster, &[NAME], async {
            stand.cluster.serve(&troubled()).await;
            let load = stand.load(rate()).await;
            let each = TROUBLES.map(|(tool, expected)| is_told(stand, tool, expected));
            futures::future::join_all(each).await;
            let tally = load.stop().await;
            report("beside a server in every kind of trouble", &tally);
            tally.assert_nothing_failed();
        })
        .await;
    })
    .await;
}

fn troubled() -> Value {
    json!({
        "apiVersion": "portolan.dev/v1alpha1",
        "kind": "MCPServer",
        "metadata": {"name": NAME, "namespace": TENANT, "labels": {"tests/front": GATEWAY}},
        "spec": {
            "container": {
                "image": IMAGE, "imagePullPolicy": "Never", "transport": "StreamableHTTP",
                "command": ["node", "-e", SERVER], "port": 9000, "path": "/",
            },
            "timeouts": {"request": format!("{}s", DEADLINE.as_secs())},
        },
    })
}

/// Calls a tool again and again: each answer comes by the deadline and says what went wrong.
async fn is_told(stand: &Stand, tool: &str, expected: &[&str]) {
    let (http, url, key) = (mcp::http(), stand.front.direct_url(TENANT, NAME), Stand::key());
    for number in 0..amount(3, 20) {
        let call =
            json!({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": {}}});
        let began = Instant::now();
        let response = mcp::post_alone(&http, &url, Some(&key), call).await.expect("the gateway answers");
        let reply = Reply::read(response).await;
        let took = began.elapsed();
        let answer = reply.answer();
        let result = &answer["result"]["structuredContent"]["error_type"];
        let told = if result.is_null() { &answer["error"]["data"]["error_type"] } else { result };
        // A pod whose every call fails is left out for a while, and it is said so.
        let is_known = told.as_str().is_some_and(|told| expected.contains(&told));
        assert!(is_known, "{tool}: {} {answer}", reply.status);
        assert!(took < DEADLINE + SLACK, "{tool} took {took:?}: {answer}");
    }
}

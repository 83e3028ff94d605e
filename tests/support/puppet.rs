//! A server that does what it is told, for what no third-party server can be made to do: it evaluates JavaScript in
//! its own process, is as late with its tools as the file [`LATE`] says, and has whatever resource it is asked for.

use serde_json::{Value, json};

use crate::manifest::hosted;
use crate::mcp::Session;

/// The image that it runs in.
pub const IMAGE: &str = "localhost/portolan-test/everything:1";
/// Milliseconds by which `tools/list` is answered late; at once without the file.
pub const LATE: &str = "/tmp/late";
/// One line for each `tools/list`: the time in milliseconds, and how late the answer was to be.
pub const LISTED: &str = "/tmp/listed";

const ANSWER: &str = r"
const fs = require('fs');
const late = () => { try { return +fs.readFileSync('/tmp/late', 'utf8'); } catch { return 0; } };
const tools = async () => {
  fs.appendFileSync('/tmp/listed', `${Date.now()} ${late()}\n`);
  await new Promise(done => setTimeout(done, late()));
  return {tools: [{name: 'eval', description: 'Evaluates JavaScript', inputSchema: {type: 'object'}}]};
};
const call = async code => {
  try {
    return {content: [{type: 'text', text: JSON.stringify(await eval(code)) ?? 'null'}]};
  } catch (error) {
    return {content: [{type: 'text', text: String(error)}], isError: true};
  }
};
const answer = async ({id, method, params}) => {
  const result = method === 'initialize'
    ? {protocolVersion: params.protocolVersion, capabilities: {tools: {}}, serverInfo: {name: 'puppet', version: '1'}}
    : method === 'tools/list' ? await tools() : method === 'tools/call' ? await call(params.arguments.code)
    : method === 'resources/read' ? {contents: [{uri: params.uri, text: `read ${params.uri}`}]} : {};
  return JSON.stringify({jsonrpc: '2.0', id, result});
};
";

const STDIO: &str = r"
require('readline').createInterface({input: process.stdin}).on('line', async line => {
  const message = JSON.parse(line);
  if (message.id !== undefined && message.method !== undefined) console.log(await answer(message));
});
";

/// Its arguments are the port and the path.
const HTTP: &str = r"
const [, port, path] = process.argv;
require('http').createServer((request, response) => {
  if (request.url !== path) return response.writeHead(404).end();
  if (request.method !== 'POST') return response.writeHead(405).end();
  let body = '';
  request.on('data', part => body += part).on('end', async () => {
    const message = JSON.parse(body);
    if (message.id === undefined) return response.writeHead(202).end();
    response.writeHead(200, {'content-type': 'application/json'}).end(await answer(message));
  });
}).listen(+port, '127.0.0.1');
";

/// An `MCPServer` that runs it over stdio.
#[must_use]
pub fn stdio(namespace: &str, name: &str) -> Value {
    hosted(
        namespace,
        name,
        IMAGE,
        &json!({"transport": "Stdio", "command": ["node", "-e", format!("{ANSWER}{STDIO}")]}),
    )
}

/// An `MCPServer` that runs it over HTTP, on loopback only.
#[must_use]
pub fn http(namespace: &str, name: &str, port: u16, path: &str) -> Value {
    let container = json!({
        "transport": "StreamableHTTP",
        "command": ["node", "-e", format!("{ANSWER}{HTTP}")],
        "args": [port.to_string(), path],
        "port": port,
        "path": path,
    });
    hosted(namespace, name, IMAGE, &container)
}

/// Evaluates JavaScript in the process of a session.
///
/// # Errors
/// The call failed, or the code threw.
pub async fn eval(session: &Session, id: u64, code: &str) -> Result<Value, String> {
    let reply = session.call(id, "eval", json!({"code": code})).await?;
    let answer = reply.messages.last().ok_or_else(|| format!("{}", reply.status))?;
    let text = answer["result"]["content"][0]["text"].as_str();
    match text {
        Some(text) if answer["result"]["isError"].is_null() => serde_json::from_str(text).map_err(|e| e.to_string()),
        _ => Err(format!("{} {answer}", reply.status)),
    }
}

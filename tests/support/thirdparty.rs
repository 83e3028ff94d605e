//! Servers and clients that nobody here wrote, at the versions pinned in `tests/thirdparty`.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Stdio;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::paths;

/// The clients, each with the protocol era that it chooses itself.
pub const CLIENTS: [Client; 3] = [Client::new("python-mcp"), Client::new("fastmcp"), Client::new("inspector")];

/// The protocol eras, by the name that `tests/thirdparty/client` and `scenario` know them by.
const ERAS: [&str; 2] = ["legacy", "modern"];

/// Every client in every era.
pub fn in_each_era() -> impl Iterator<Item = Client> {
    CLIENTS.into_iter().flat_map(|client| ERAS.map(|era| Client { era: Some(era), ..client }))
}

/// A client.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// What `tests/thirdparty/client` knows it by.
    pub name: &'static str,
    /// Only this era, where one is given.
    pub era: Option<&'static str>,
}

impl Client {
    const fn new(name: &'static str) -> Self {
        Self { name, era: None }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let era = self.era.map(|era| format!(" ({era})")).unwrap_or_default();
        write!(to, "{}{era}", self.name)
    }
}

/// Where a server runs: its arguments name other folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// In its image.
    Container,
    /// On this machine, writing below the given folder.
    Local(&'a str),
}

#[derive(Deserialize)]
struct Catalogue {
    placeholders: BTreeMap<String, Placeholder>,
    servers: Vec<Server>,
}

#[derive(Clone, Deserialize)]
struct Placeholder {
    container: String,
    local: Option<String>,
}

/// A server of the catalogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// `Stdio`, `StreamableHTTP` or `SSE`.
    pub transport: String,
    /// How it is started.
    pub command: Vec<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Its port, over HTTP.
    pub port: Option<u16>,
    /// Its path, over HTTP.
    pub path: Option<String>,
    /// The tools every client sees, sorted.
    pub tools: Vec<String>,
    /// Tools that a client with more capabilities sees.
    pub extra_tools: BTreeMap<String, Vec<String>>,
    /// Calls that prepare the known one.
    pub setup_calls: Vec<Call>,
    /// A call whose answer is known.
    pub known_call: Call,
    /// An earlier version of it, where there is one.
    pub earlier: Option<Earlier>,
}

/// What an earlier version of a server has otherwise.
#[derive(Clone, Debug, Deserialize)]
pub struct Earlier {
    /// Its image.
    pub image: String,
    /// Its tools, where they have other names.
    pub tools: Option<Vec<String>>,
    /// Tools that both have and that it defines differently, sorted.
    pub changed: Vec<String>,
}

/// A tool call.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// The tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
    /// What the answer contains.
    #[serde(default)]
    pub expect_contains: String,
}

/// Every server of the catalogue, its arguments filled in for `place`.
///
/// # Panics
/// The catalogue cannot be read.
#[must_use]
pub fn servers(place: Place<'_>) -> Vec<Server> {
    let text = std::fs::read_to_string(paths::repo("tests/thirdparty/servers.json")).expect("the catalogue is there");
    let catalogue: Catalogue = serde_json::from_str(&text).expect("the catalogue is well-formed");
    catalogue.servers.into_iter().map(|server| server.at(&catalogue.placeholders, place)).collect()
}

/// One server of the catalogue.
///
/// # Panics
/// There is none of that name.
#[must_use]
pub fn server(name: &str, place: Place<'_>) -> Server {
    servers(place).into_iter().find(|server| server.name == name).expect("a server of the catalogue")
}

impl Server {
    fn at(self, placeholders: &BTreeMap<String, Placeholder>, place: Place<'_>) -> Self {
        let mut text = json!([
            self.args,
            self.env,
            self.setup_calls.iter().map(Call::as_json).collect::<Vec<_>>(),
            self.known_call.as_json()
        ])
        .to_string();
        for (name, folders) in placeholders {
            let folder = match place {
                Place::Container => folders.container.clone(),
                Place::Local(scratch) => folders
                    .local
                    .as_ref()
                    .map_or_else(|| scratch.to_owned(), |local| paths::repo(local).display().to_string()),
            };
            text = text.replace(name, &folder);
        }
        let (args, env, setup_calls, known_call) = serde_json::from_str(&text).expect("the placeholders are folders");
        Self { args, env, setup_calls, known_call, ..self }
    }

    /// The earlier version of it.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn earlier(&self) -> Self {
        let earlier = self.earlier.clone().unwrap_or_else(|| panic!("{} has an earlier version", self.name));
        let tools = earlier.tools.unwrap_or_else(|| self.tools.clone());
        Self { image: earlier.image, tools, earlier: None, ..self.clone() }
    }

    /// The `MCPServer` that runs it, under `name`.
    #[must_use]
    pub fn manifest(&self, namespace: &str, name: &str) -> Value {
        let mut container = json!({
            "image": self.image,
            "imagePullPolicy": "Never",
            "transport": self.transport,
            "command": self.command,
            "args": self.args,
            "env": self.env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>(),
        });
        if let Some(port) = self.port {
            container["port"] = port.into();
        }
        if let Some(path) = &self.path {
            container["path"] = path.as_str().into();
        }
        json!({
            "apiVersion": "portolan.dev/v1alpha1",
            "kind": "MCPServer",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"container": container},
        })
    }

    /// The tools that `client` sees, sorted.
    #[must_use]
    pub fn tools_for(&self, client: &str) -> Vec<String> {
        let mut tools = self.tools.clone();
        tools.extend(self.extra_tools.get(client).into_iter().flatten().cloned());
        tools.sort();
        tools
    }
}

impl Call {
    fn as_json(&self) -> Value {
        json!({"tool": self.tool, "arguments": self.arguments, "expectContains": self.expect_contains})
    }
}

/// Runs a client's command and returns the JSON object it printed.
///
/// # Errors
/// The client failed; the error carries what it printed.
pub async fn client(client: Client, url: &str, token: Option<&str>, command: &[&str]) -> Result<Value, String> {
    let mut process = tokio::process::Command::new(paths::repo("tests/thirdparty/client"));
    process.arg(client.name).arg(url);
    if let Some(era) = client.era {
        process.args(["--era", era]);
    }
    if let Some(token) = token {
        process.arg("--header").arg(format!("Authorization: Bearer {token}"));
    }
    process.args(command);
    answer(process, &format!("{client} {command:?}")).await
}

/// Plays a scene of `tests/thirdparty/scenario` and returns the JSON object it printed.
///
/// # Errors
/// The scene failed; the error carries what it printed.
pub async fn scenario(name: &str, url: &str, options: &[&str]) -> Result<Value, String> {
    let mut process = tokio::process::Command::new(paths::repo("tests/thirdparty/scenario"));
    process.args([name, url]).args(options);
    answer(process, &format!("scenario {name}")).await
}

async fn answer(mut process: tokio::process::Command, what: &str) -> Result<Value, String> {
    let output = process
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("{what} does not start: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(format!("{what}: {said} {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_str(&said).map_err(|error| format!("{what} printed no JSON ({error}): {said}"))
}

/// Where all servers are one, of the gateway that serves the server `name` of the namespace `default` at `url`.
///
/// # Panics
/// That is no URL of such a server.
#[must_use]
pub fn url_of_all(url: &str, name: &str) -> String {
    let gateway = url.strip_suffix(&format!("/default/{name}/mcp")).expect("ends with the route");
    format!("{gateway}/mcp")
}

/// What the names of that server's tools begin with there.
#[must_use]
pub fn prefix_of_all(name: &str) -> String {
    format!("default__{name}__")
}

/// Lists a server's tools with a client and makes its known call; panics with what differs.
///
/// # Panics
/// The client does not see what the catalogue promises.
pub async fn assert_serves(server: &Server, by: Client, url: &str, token: Option<&str>) {
    let listed = client(by, url, token, &["list-tools"]).await.expect("the client lists tools");
    assert_eq!(listed["tools"], json!(server.tools_for(by.name)), "{} with {by}", server.name);
    assert_calls(server, by, url, token, "").await;
}

/// Makes a server's known call with a client, at an endpoint where its tools have names with `prefix`.
///
/// # Panics
/// The client is not answered what the catalogue promises.
pub async fn assert_calls(server: &Server, by: Client, url: &str, token: Option<&str>, prefix: &str) {
    for call in server.setup_calls.iter().chain([&server.known_call]) {
        let arguments = Value::from(call.arguments.clone()).to_string();
        let answer = client(by, url, token, &["call", &format!("{prefix}{}", call.tool), &arguments])
            .await
            .expect("the client calls");
        assert_eq!(answer["isError"], false, "{} with {by}: {answer}", server.name);
        let text = answer["text"].as_str().unwrap_or_default();
        assert!(text.contains(&call.expect_contains), "{} with {by}: {text}", server.name);
    }
}

//! The ways from a client to an echo server, each started once and ended with the suite.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::Uri;
use nix::sys::signal::Signal;
use portolan_mcp::mac::{KEY_LEN, MacKey};
use portolan_tests::dev::Dev;
use portolan_tests::paths;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::children;
use crate::mcp::{Caller, Session, Target};

/// Whose processes they are.
const SUITE: &str = "echo";
/// Longest time until something that was started answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// A way to a server.
pub(crate) struct Way {
    /// What stands on it.
    pub(crate) name: &'static str,
    /// Where it begins.
    pub(crate) target: Target,
    /// The direct way to the same server, by its place among all.
    pub(crate) baseline: usize,
}

/// Everything that runs for the suite.
pub(crate) struct Ways {
    all: Vec<Way>,
    dev: Dev,
    server: Child,
    bridge: Child,
    /// Manifests and key, for as long as they are read.
    _folder: TempDir,
}

impl Ways {
    /// Starts an HTTP server, a bridge before a stdio server, and `portolan dev` before one of each.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let echo = paths::binary("portolan-echo");
        let folder = tempfile::tempdir()?;
        let (server, direct) = http_server(&echo)?;
        let (bridge, bridged) = bridge(&echo, folder.path())?;
        let (dev, urls) = dev(&echo, folder.path()).await?;
        let through = |name: &str| -> anyhow::Result<Target> {
            let url = urls.get(name).with_context(|| format!("portolan dev did not name {name}"))?;
            Ok(Target::Http { url: url.parse()?, caller: Caller::Client(None) })
        };
        let all = vec![
            Way { name: "HTTP server, directly", target: direct, baseline: 0 },
            Way { name: "HTTP server, through gateway and bridge", target: through("echo-http")?, baseline: 0 },
            Way { name: "stdio server, directly", target: Target::Pipe { program: echo }, baseline: 2 },
            Way { name: "stdio server, through its bridge", target: bridged, baseline: 2 },
            Way { name: "stdio server, through gateway and bridge", target: through("echo-stdio")?, baseline: 2 },
        ];
        for way in &all {
            answers(way).await?;
        }
        Ok(Self { all, dev, server, bridge, _folder: folder })
    }

    /// The ways, those that are a baseline among them.
    pub(crate) fn all(&self) -> &[Way] {
        &self.all
    }

    /// Ends what was started.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.dev.end(Signal::SIGTERM).await;
        for child in [self.bridge, self.server] {
            children::end(child, SUITE).await?;
        }
        Ok(())
    }
}

fn http_server(echo: &Path) -> anyhow::Result<(Child, Target)> {
    let address = children::free_address()?.to_string();
    let child = children::start(Command::new(echo).args(["http", &address]), SUITE)?;
    let url: Uri = format!("http://{address}/mcp").parse()?;
    Ok((child, Target::Http { url, caller: Caller::Client(None) }))
}

fn bridge(echo: &Path, folder: &Path) -> anyhow::Result<(Child, Target)> {
    // The key guards nothing here; it only has to be the same on both sides.
    let key = [0x42; KEY_LEN];
    let file = folder.join("mac");
    std::fs::write(&file, key)?;
    let data = children::free_address()?.to_string();
    let child = children::start(
        Command::new(paths::binary("portolan-bridge"))
            .args(["stdio", "--data", &data, "--admin", "127.0.0.1:0", "--log-format", "text", "--mac-key-file"])
            .arg(file)
            .arg("--")
            .arg(echo)
            .arg("stdio"),
        SUITE,
    )?;
    let key = MacKey::new(&key).context("a key of the right length")?;
    Ok((child, Target::Http { url: format!("http://{data}/mcp").parse()?, caller: Caller::Gateway(Arc::new(key)) }))
}

async fn dev(echo: &Path, folder: &Path) -> anyhow::Result<(Dev, BTreeMap<String, String>)> {
    let manifests = folder.join("servers");
    std::fs::create_dir(&manifests)?;
    let http = children::free_address()?.port();
    write(&manifests, "echo-stdio", &json!({"transport": "Stdio", "command": [echo, "stdio"]}))?;
    let command = json!([echo, "http", format!("127.0.0.1:{http}")]);
    write(&manifests, "echo-http", &json!({"transport": "StreamableHTTP", "port": http, "command": command}))?;
    let mut dev = Dev::start(&manifests);
    let urls = RefCell::new(BTreeMap::new());
    dev.line("both servers are ready", |line| {
        if line["ready"] == true
            && let (Some(name), Some(url)) = (line["name"].as_str(), line["url"].as_str())
        {
            urls.borrow_mut().insert(name.to_owned(), url.to_owned());
        }
        urls.borrow().len() == 2
    })
    .await;
    Ok((dev, urls.into_inner()))
}

fn write(folder: &Path, name: &str, container: &serde_json::Value) -> anyhow::Result<()> {
    let mut container = container.clone();
    container["image"] = "localhost/portolan/echo:bench".into();
    let manifest = json!({
        "apiVersion": "portolan.dev/v1alpha1",
        "kind": "MCPServer",
        "metadata": {"name": name},
        "spec": {"container": container},
    });
    Ok(std::fs::write(folder.join(format!("{name}.json")), manifest.to_string())?)
}

/// Waits until a session opens on the way.
async fn answers(way: &Way) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Session::open(&way.target).await {
            Ok(session) => return session.close().await,
            Err(error) if Instant::now() > deadline => {
                bail!("{}: no answer within {PATIENCE:?}: {error:#}; see {}", way.name, children::log(SUITE))
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

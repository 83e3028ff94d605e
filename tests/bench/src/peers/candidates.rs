//! What is compared: each in front of the same server, alone on a core.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use portolan_tests::paths;
use tokio::net::TcpStream;
use tokio::process::Child;

use super::alone;
use super::load::Target;
use super::process::{self, Usage};
use crate::children::{self, free_address};

/// Whose processes they are.
const SUITE: &str = "peers";
/// Longest time until something that was started listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Candidate {
    /// nginx with `proxy_pass`
    Nginx,
    /// A relay of bytes on hyper: the least
    Relay,
    /// The crate mcp-proxy
    McpProxy,
    /// The gateway in front of a server that stands where its bridge would
    Gateway,
    /// The same gateway, which lets everyone in
    Anonymous,
    /// The gateway with a bridge in front of the server
    Bridged,
}

impl Candidate {
    pub(super) const ALL: [Self; 6] =
        [Self::Nginx, Self::Relay, Self::McpProxy, Self::Gateway, Self::Anonymous, Self::Bridged];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Relay => "hyper relay",
            Self::McpProxy => "mcp-proxy crate",
            Self::Gateway => "gateway",
            Self::Anonymous => "gateway, anonymous",
            Self::Bridged => "gateway and bridge",
        }
    }

    /// Whether it is one of ours.
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Gateway | Self::Anonymous | Self::Bridged)
    }

    /// Whether it can be asked in the era without sessions.
    pub(super) fn is_modern(self) -> bool {
        self != Self::McpProxy
    }
}

/// Cores on which things run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cores {
    /// Clients and server.
    pub(super) harness: usize,
    /// What is compared.
    pub(super) candidate: usize,
}

/// A server and perhaps something in front of it.
pub(super) struct Stand {
    server: Child,
    candidates: Vec<Child>,
    /// The server itself.
    pub(super) direct: Target,
    /// What is in front of it.
    pub(super) through: Target,
    /// Configuration, for as long as it is read.
    _folder: tempfile::TempDir,
}

impl Stand {
    /// Starts `candidate` in front of a server of its own; `servers` of them where it can tell them apart, of
    /// which a gateway's last one is at `last` if that is said.
    ///
    /// # Errors
    /// One of them does not listen in time.
    pub(super) async fn start(
        candidate: Candidate,
        cores: Cores,
        servers: usize,
        last: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let server_at = free_address()?;
        let mut command = vec![binary("portolan-echo"), "http".into(), server_at.to_string()];
        if matches!(candidate, Candidate::Gateway | Candidate::Anonymous) {
            command.push("--without-sessions".into());
        }
        let server = children::start(&mut process::on(cores.harness, &command), SUITE)?;
        listens(server_at).await?;
        let listen = free_address()?;
        let mut candidates = Vec::new();
        let behind = Behind { server: server_at, servers, last };
        for (command, at) in commands(candidate, listen, behind, folder.path())? {
            candidates.push(children::start(&mut process::on(cores.candidate, &command), SUITE)?);
            listens(at).await?;
        }
        let direct = Target { address: server_at, server: server_at, path: "/mcp", prefix: "", key: None };
        let through = match candidate {
            Candidate::Nginx | Candidate::Relay => Target { address: listen, ..direct.clone() },
            Candidate::McpProxy => Target { address: listen, path: "/", prefix: "b/", ..direct.clone() },
            Candidate::Anonymous => Target { address: listen, path: alone::PATH, ..direct.clone() },
            Candidate::Gateway | Candidate::Bridged => {
                Target { address: listen, path: alone::PATH, key: Some(alone::API_KEY), ..direct.clone() }
            }
        };
        Ok(Self { server, candidates, direct, through, _folder: folder })
    }

    /// What stands in front has used.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let roots: Vec<u32> = self.candidates.iter().filter_map(Child::id).collect();
        Usage::of(&roots)
    }

    /// Ends all of it.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        for child in self.candidates.into_iter().rev() {
            children::end(child, SUITE).await?;
        }
        children::end(self.server, SUITE).await
    }
}

type Commands = Vec<(Vec<String>, SocketAddr)>;

/// What a candidate is in front of.
#[derive(Clone, Copy)]
struct Behind {
    server: SocketAddr,
    /// How often the gateway knows it.
    servers: usize,
    /// Where the last of these is, when it is not there.
    last: Option<SocketAddr>,
}

/// What to start, in order, and where each listens.
fn commands(candidate: Candidate, listen: SocketAddr, behind: Behind, folder: &Path) -> anyhow::Result<Commands> {
    let Behind { server, servers, last } = behind;
    let alone = |pod: SocketAddr| {
        let flags = [("--listen", listen.to_string()), ("--pod", pod.to_string()), ("--servers", servers.to_string())];
        let last = last.map(|last| ("--last", last.to_string()));
        let flags = flags.into_iter().chain(last).flat_map(|(name, value)| [name.to_owned(), value]);
        let open = (candidate == Candidate::Anonymous).then(|| "--anonymous".to_owned());
        [binary("portolan-bench"), "alone".into()].into_iter().chain(flags).chain(open).collect()
    };
    Ok(match candidate {
        Candidate::Nginx => {
            let file = folder.join("nginx.conf");
            std::fs::write(&file, nginx(listen, server, folder))?;
            let errors = folder.join("error.log").display().to_string();
            vec![(vec!["nginx".into(), "-c".into(), file.display().to_string(), "-e".into(), errors], listen)]
        }
        Candidate::Relay => {
            vec![(vec![binary("portolan-echo"), "relay".into(), listen.to_string(), server.to_string()], listen)]
        }
        Candidate::McpProxy => {
            let file = folder.join("proxy.toml");
            std::fs::write(&file, mcp_proxy(listen, server))?;
            vec![(vec![mcp_proxy_binary()?, "--config".into(), file.display().to_string()], listen)]
        }
        Candidate::Gateway | Candidate::Anonymous => vec![(alone(server), listen)],
        Candidate::Bridged => {
            let key = folder.join("mac");
            std::fs::write(&key, alone::MAC_KEY)?;
            let bridge = free_address()?;
            vec![(self::bridge(bridge, server, &key), bridge), (alone(bridge), listen)]
        }
    })
}

fn bridge(listen: SocketAddr, server: SocketAddr, key: &Path) -> Vec<String> {
    let flags = [
        ("--data", listen.to_string()),
        ("--admin", "127.0.0.1:0".into()),
        ("--log-format", "text".into()),
        ("--mac-key-file", key.display().to_string()),
        ("--pod-uid", alone::POD.into()),
        ("--max-sessions", "20000".into()),
        ("--drain-timeout", "1s".into()),
        ("--upstream", format!("http://{server}/mcp")),
    ];
    let flags = flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    [binary("portolan-bridge"), "http".into()].into_iter().chain(flags).collect()
}

fn nginx(listen: SocketAddr, server: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log warn;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; tcp_nodelay on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream server {{ server {server}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {listen} backlog=4096;
    location / {{
      proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection \"\";
      proxy_buffering off; proxy_read_timeout 1h; client_max_body_size 16m;
    }}
  }}
}}
"
    )
}

/// Without a table `observability` it logs every call.
fn mcp_proxy(listen: SocketAddr, server: SocketAddr) -> String {
    let (host, port) = (listen.ip(), listen.port());
    format!(
        "[proxy]\nname = \"bench\"\n[proxy.listen]\nhost = \"{host}\"\nport = {port}\n\
         [observability]\nlog_level = \"warn\"\n\
         [[backends]]\nname = \"b\"\ntransport = \"http\"\nurl = \"http://{server}/mcp\"\n"
    )
}

/// Where the program of the crate is.
///
/// # Errors
/// Nobody says.
pub(super) fn mcp_proxy_binary() -> anyhow::Result<String> {
    std::env::var("MCP_PROXY").context("MCP_PROXY must name the program mcp-proxy; hack/bench installs it")
}

fn binary(name: &str) -> String {
    paths::binary(name).display().to_string()
}

async fn listens(address: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).await.is_err() {
        if Instant::now() > deadline {
            bail!("nothing listens at {address} within {PATIENCE:?}; see {}", children::log(SUITE));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

//! One MCP session over streamable HTTP, on rmcp's client.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::{HeaderName, HeaderValue};
use rmcp::ClientHandler;
use rmcp::model::{ClientCapabilities, ClientConfig, Implementation, ProgressNotificationParam, ProtocolVersion};
use rmcp::service::{ClientServiceExt, NotificationContext, RoleClient, RunningService};
use rmcp::transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig};

use super::failure;
use crate::exit::{Exit, Failure, note};

/// How long the end of the session may take once the answer is there.
const GOODBYE: Duration = Duration::from_secs(2);

/// Where to, and with which credentials.
#[derive(Args, Debug)]
pub(crate) struct Target {
    /// The endpoint, such as http://127.0.0.1:8080/default/quickstart/mcp
    #[arg(value_parser = url)]
    pub(super) url: reqwest::Url,

    #[command(flatten)]
    access: Access,
}

impl Target {
    /// The endpoint `url`.
    pub(crate) fn new(url: reqwest::Url, access: &Access) -> Self {
        Self { url, access: access.clone() }
    }
}

/// With which credentials, how long, and in which revision.
#[derive(Args, Clone, Debug)]
pub(crate) struct Access {
    /// Another request header; may be repeated with another name
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,

    /// A bearer token, such as one of `kubectl create token --audience portolan`
    #[arg(long, env = "PORTOLAN_TOKEN", hide_env_values = true, conflicts_with = "api_key")]
    token: Option<String>,

    /// An API key that `portolan apikey` made
    #[arg(long, env = "PORTOLAN_API_KEY", hide_env_values = true)]
    api_key: Option<String>,

    /// Give up after this long, everything together
    #[arg(long, default_value = "30s")]
    pub(crate) timeout: portolan_crds::Duration,

    /// The protocol revision to speak
    #[arg(long, value_enum, default_value_t = Protocol::Auto)]
    pub(crate) protocol: Protocol,
}

/// How a conversation is opened.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Protocol {
    /// The newest that the other side speaks
    Auto,
    /// With a session
    #[value(name = "2025-11-25")]
    Sessions,
    /// Without one
    #[value(name = "2026-07-28")]
    Sessionless,
}

impl From<Protocol> for portolan_canary::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Auto => Self::Auto,
            Protocol::Sessions => Self::Sessions,
            Protocol::Sessionless => Self::Sessionless,
        }
    }
}

pub(crate) fn url(text: &str) -> Result<reqwest::Url, String> {
    let url: reqwest::Url = text.parse().map_err(|error| format!("{error}: write http://HOST:PORT/PATH"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err("write a URL that starts with http:// or https://".into()),
    }
}

/// Looked at only here, for the reason that [`credential`] has.
pub(crate) fn headers(access: &Access) -> Result<HashMap<HeaderName, HeaderValue>, Failure> {
    let mut headers = HashMap::new();
    for text in &access.header {
        let form = || Failure::usage("a --header is no header").hint("write it as NAME: VALUE, with a colon");
        let (name, value) = text.split_once(':').ok_or_else(form)?;
        let name: HeaderName = name.trim().parse().map_err(|_| form())?;
        let value = value.trim().parse().map_err(|_| {
            Failure::usage(format!("the value of --header {name} has characters that no header may have"))
        })?;
        if headers.insert(name.clone(), value).is_some() {
            return Err(Failure::usage(format!("--header {name} is written twice")).hint("write it once"));
        }
    }
    Ok(headers)
}

/// Looked at only here: what the command line refuses by itself it repeats, and this may be someone's token.
pub(crate) fn credential(access: &Access) -> Result<Option<String>, Failure> {
    let prefix = portolan_policy::api_key::PREFIX;
    match &access.api_key {
        Some(key) if !key.starts_with(prefix) => {
            Err(Failure::usage(format!("an API key starts with {prefix}, and the one of --api-key does not"))
                .hint("for other credentials write --token"))
        }
        Some(key) => Ok(Some(key.clone())),
        None => Ok(access.token.clone()),
    }
}

/// An open session.
pub(crate) type Session = RunningService<RoleClient, Terminal>;

/// Runs `work` on a session with `target`, all within its timeout, and ends the session.
pub(crate) async fn within<T>(
    target: &Target,
    work: impl AsyncFnOnce(&Session) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let limit = target.access.timeout.as_std();
    let talk = async {
        let mut session = open(target).await?;
        let answer = work(&session).await;
        // The answer is there: a server that is slow to say goodbye changes nothing about it.
        let _ = session.close_with_timeout(GOODBYE).await;
        answer
    };
    tokio::time::timeout(limit, talk).await.unwrap_or_else(|_| {
        let message = format!("{} did not answer within {}", target.url, target.access.timeout);
        Err(Failure::new(Exit::Unreachable, message).hint("--timeout gives it longer"))
    })
}

async fn open(target: &Target) -> Result<Session, Failure> {
    let mut config = StreamableHttpClientTransportConfig::with_uri(target.url.as_str());
    config.custom_headers = headers(&target.access)?;
    config.auth_header = credential(&target.access)?;
    let transport = StreamableHttpClientTransport::with_client(http_client()?, config);
    Terminal
        .serve_with_lifecycle(transport, portolan_canary::Protocol::from(target.access.protocol).lifecycle())
        .await
        .map_err(|error| failure::of_start(&target.url, &error))
}

pub(crate) fn http_client() -> Result<reqwest::Client, Failure> {
    reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        // A redirect could carry the credential to another host.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| Failure::new(Exit::Unreachable, format!("no HTTP client can be made: {error}")))
}

/// What this client shows of a server's notifications: progress, on a terminal.
#[derive(Clone, Copy)]
pub(crate) struct Terminal;

impl ClientHandler for Terminal {
    fn get_info(&self) -> ClientConfig {
        let portolan = Implementation::new("portolan", env!("CARGO_PKG_VERSION"));
        // What `initialize` asks for: a revision that has it.
        ClientConfig::new(ClientCapabilities::default(), portolan)
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn on_progress(&self, progress: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        if std::io::stderr().is_terminal() {
            let total = progress.total.map(|total| format!("/{total}")).unwrap_or_default();
            let message = progress.message.map(|message| format!(" {message}")).unwrap_or_default();
            note(&format!("progress: {}{total}{message}", progress.progress));
        }
    }
}

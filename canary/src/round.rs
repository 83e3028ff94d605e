//! One round: a session, every check in it, and its end.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use portolan_mcp::failure::Kind;
use rmcp::{
    ClientHandler,
    model::{
        CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ErrorData, Implementation,
        PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams,
    },
    service::{ClientInitializeError, ClientLifecycleMode, ClientServiceExt, RoleClient, RunningService, ServiceError},
    transport::{
        StreamableHttpClientTransport,
        streamable_http_client::{StreamableHttpClient, StreamableHttpClientTransportConfig},
    },
};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::{
    answer::{Answer, quoted, short},
    check::{Check, Checks, MAX_ANSWER, Question},
    nonce::Nonce,
};

/// What the way to the server may take beyond the time that it has itself: whoever is on the way answers within that.
const GRACE: Duration = Duration::from_secs(5);
/// How long the end of the session may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long the list of tools may take that tells why a call failed.
const LIST: Duration = Duration::from_secs(5);
/// Most pages of that list.
const MAX_PAGES: usize = 16;
/// Most names that a message lists.
const MAX_NAMES: usize = 8;

/// Where the checks are made.
#[derive(Clone, Debug)]
pub struct Endpoint<C> {
    /// Makes the requests.
    pub client: C,
    /// URL of the MCP endpoint.
    pub url: Arc<str>,
    /// A bearer token.
    pub token: Option<String>,
    /// Other headers.
    pub headers: HashMap<HeaderName, HeaderValue>,
    /// Which revision is spoken.
    pub protocol: Protocol,
    /// How long a session may take to open, and an answer of which its check does not say how long.
    pub limit: Duration,
}

/// How a conversation is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The newest that the other side speaks.
    Auto,
    /// With `initialize` and a session.
    Sessions,
    /// Without (2026-07-28).
    Sessionless,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer was as expected, after this long.
    Passed(Duration),
    /// It was not, or there was none.
    Failed(Failed),
    /// Nothing can be said of the server: something on the way did not let the question through.
    NotRun(String),
}

/// A check that the server failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why.
    pub cause: Cause,
    /// What should have come, as the spec has it.
    pub expected: String,
    /// What came.
    pub got: String,
}

/// Why a check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No session was opened.
    NoSession,
    /// There was no answer in time.
    Late,
    /// The answer was an error.
    Error,
    /// The answer was another one.
    Wrong,
    /// The server has no tool of that name.
    UnknownTool,
}

impl Cause {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSession => "NoSession",
            Self::Late => "Late",
            Self::Error => "Error",
            Self::Wrong => "Wrong",
            Self::UnknownTool => "UnknownTool",
        }
    }
}

/// Makes `checks` at `endpoint`, one after the other, each with a nonce of its own: their outcomes in the same order. It takes no longer than
/// four times `limit` and a little.
pub async fn round<C>(endpoint: Endpoint<C>, checks: &Checks) -> Vec<Outcome>
where
    C: StreamableHttpClient + Sync,
{
    let limit = endpoint.limit;
    let mut session = match open(endpoint).await {
        Ok(session) => session,
        Err(outcome) => return vec![outcome; checks.checks.len()],
    };
    let mut outcomes = Vec::with_capacity(checks.checks.len());
    let began = Instant::now();
    for check in &checks.checks {
        let outcome = if began.elapsed() < limit * 2 {
            Asking { session: &session, check, limit }.outcome().await
        } else {
            // A server that hangs would have others wait as often as it has checks.
            Outcome::NotRun("the checks before it took all the time there is".into())
        };
        outcomes.push(outcome);
    }
    // What is known is known: a server that is slow to say goodbye changes nothing about it.
    let _ = session.close_with_timeout(GOODBYE).await;
    outcomes
}

type Session = RunningService<RoleClient, Checker>;

/// Offers a server nothing: a check is answered without help.
#[derive(Clone, Copy, Debug)]
struct Checker;

impl ClientHandler for Checker {
    fn get_info(&self) -> ClientConfig {
        let implementation = Implementation::new("portolan-canary", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), implementation)
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }
}

impl Protocol {
    /// As rmcp has it.
    #[must_use]
    pub fn lifecycle(self) -> ClientLifecycleMode {
        let preferred_versions = vec![ProtocolVersion::LATEST];
        match self {
            Self::Auto => ClientLifecycleMode::Auto {
                preferred_versions,
                legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
            },
            Self::Sessions => ClientLifecycleMode::Initialize,
            Self::Sessionless => ClientLifecycleMode::Discover { preferred_versions },
        }
    }
}

async fn open<C>(endpoint: Endpoint<C>) -> Result<Session, Outcome>
where
    C: StreamableHttpClient + Sync,
{
    let Endpoint { client, url, token, headers, protocol, limit } = endpoint;
    let mut config = StreamableHttpClientTransportConfig::with_uri(url);
    config.auth_header = token;
    config.custom_headers = headers;
    config.max_json_response_size = MAX_ANSWER;
    config.max_sse_event_size = MAX_ANSWER;
    // A session that is gone is news, not something to get over.
    config.reinit_on_expired_session = false;
    let transport = StreamableHttpClientTransport::with_client(client, config);
    match timeout(limit + GRACE, Checker.serve_with_lifecycle(transport, protocol.lifecycle())).await {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(error)) => Err(unopened(&error)),
        Err(_) => Err(Outcome::NotRun(format!("no session and no word within {} s", (limit + GRACE).as_secs()))),
    }
}

fn unopened(error: &ClientInitializeError) -> Outcome {
    match error {
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => unopened(fallback),
        ClientInitializeError::JsonRpcError(error) => of_error(error, Cause::NoSession, "a session"),
        other => Outcome::NotRun(short(&innermost(other))),
    }
}

/// One check under way.
struct Asking<'a> {
    session: &'a Session,
    check: &'a Check,
    limit: Duration,
}

impl Asking<'_> {
    async fn outcome(&self) -> Outcome {
        let nonce = match Nonce::fresh() {
            Ok(nonce) => nonce,
            Err(error) => return Outcome::NotRun(error.to_string()),
        };
        let own = self.check.max_latency().filter(|own| own.as_std() <= self.limit + GRACE);
        let limit = own.map_or(self.limit + GRACE, portolan_crds::Duration::as_std);
        let question = self.check.ask(&nonce);
        let asked = Instant::now();
        let outcome = match (timeout(limit, self.answer(&question)).await, own) {
            (Ok(Ok(answer)), _) => self.judged(answer, nonce, asked.elapsed()).await,
            (Ok(Err(outcome)), _) => outcome,
            (Err(_), Some(own)) => {
                let expected = format!("an answer within {own}");
                return Outcome::Failed(Failed { cause: Cause::Late, expected, got: "none".into() });
            }
            (Err(_), None) => return Outcome::NotRun(format!("no answer and no word within {} s", limit.as_secs())),
        };
        self.explained(outcome, &question).await
    }

    async fn answer(&self, question: &Question) -> Result<Answer, Outcome> {
        match question {
            Question::Tool(name, arguments) => {
                let request = CallToolRequestParams::new(name.clone()).with_arguments(arguments.clone());
                let result = self.session.call_tool(request).await.map_err(|error| unanswered(&error))?;
                if result.is_error == Some(true) { Err(tool_error(&result)) } else { Ok(Answer::of_tool(&result)) }
            }
            Question::Resource(uri) => {
                let request = ReadResourceRequestParams::new(uri.clone());
                let result = self.session.read_resource(request).await.map_err(|error| unanswered(&error))?;
                Ok(Answer::of_resource(&result))
            }
        }
    }

    /// Judges on a thread of its own: what a spec asks for takes processor time.
    async fn judged(&self, answer: Answer, nonce: Nonce, took: Duration) -> Outcome {
        let check = self.check.clone();
        match tokio::task::spawn_blocking(move || check.judge(&answer, &nonce)).await {
            Ok(Ok(Ok(()))) => Outcome::Passed(took),
            Ok(Err(bad)) => Outcome::NotRun(bad.to_string()),
            Ok(Ok(Err(mismatch))) => {
                Outcome::Failed(Failed { cause: Cause::Wrong, expected: mismatch.expected, got: mismatch.got })
            }
            Err(error) => Outcome::NotRun(format!("the answer could not be judged: {error}")),
        }
    }

    /// What a server says of a tool that it does not have is its own affair, and may be no error; its list tells for certain.
    async fn explained(&self, outcome: Outcome, question: &Question) -> Outcome {
        let (Outcome::Failed(_), Question::Tool(name, _)) = (&outcome, question) else { return outcome };
        let Ok(Some(tools)) = timeout(LIST, self.tools()).await else { return outcome };
        if tools.contains(name) {
            return outcome;
        }
        let names: Vec<&str> = tools.iter().take(MAX_NAMES).map(String::as_str).collect();
        let more = if tools.len() > MAX_NAMES { " …" } else { "" };
        let got = if names.is_empty() { "no tools".into() } else { format!("only {}{more}", names.join(", ")) };
        Outcome::Failed(Failed { cause: Cause::UnknownTool, expected: format!("a tool {name}"), got })
    }

    /// Names of the tools, where the server lists them within a bound.
    async fn tools(&self) -> Option<Vec<String>> {
        let (mut names, mut cursor) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let asked = PaginatedRequestParams::default().with_cursor(cursor.take());
            let page = self.session.list_tools(Some(asked)).await.ok()?;
            names.extend(page.tools.into_iter().map(|tool| tool.name.into_owned()));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Some(names);
            }
        }
        None
    }
}

fn unanswered(error: &ServiceError) -> Outcome {
    let failed =
        |got: &str| Outcome::Failed(Failed { cause: Cause::Error, expected: "an answer".into(), got: got.to_owned() });
    match error {
        ServiceError::McpError(error) => of_error(error, Cause::Error, "an answer"),
        ServiceError::UnexpectedResponse => failed("an answer of another kind"),
        ServiceError::InputRequiredRoundsExceeded { .. } => {
            failed("question after question, and a check has nobody who could answer")
        }
        other => of_transport(other),
    }
}

/// What came was no answer that is taken, or nothing came.
fn of_transport(error: &ServiceError) -> Outcome {
    let said = innermost(error);
    // rmcp says so of a message and of an event that are over its bounds.
    if said.contains("exceed") || said.contains("too large") {
        let got = format!("more than {MAX_ANSWER} bytes");
        return Outcome::Failed(Failed { cause: Cause::Error, expected: "an answer".into(), got });
    }
    Outcome::NotRun(short(&said))
}

/// A tool's error: the server's own, or what was said in its stead.
fn tool_error(result: &CallToolResult) -> Outcome {
    match in_its_stead(result.structured_content.as_ref()) {
        Some((kind, message)) => of_kind(kind, message, Cause::Error, "an answer"),
        None => Outcome::Failed(Failed {
            cause: Cause::Error,
            expected: "no error".into(),
            got: format!("the error {}", Answer::of_tool(result).shown()),
        }),
    }
}

fn of_error(error: &ErrorData, cause: Cause, expected: &str) -> Outcome {
    match in_its_stead(error.data.as_ref()) {
        Some((kind, message)) => of_kind(kind, message, cause, expected),
        None => Outcome::Failed(Failed { cause, expected: expected.to_owned(), got: quoted(&error.message) }),
    }
}

/// What bridge or gateway said in the server's stead: the kind of the failure, and what happened.
fn in_its_stead(details: Option<&Value>) -> Option<(Kind, &str)> {
    // All of what is said then, so that an error of the server's own with a like-named member is its own.
    let details = details.filter(|details| details["retryable"].is_boolean())?;
    details.get("retry_after_seconds")?;
    Some((Kind::parse(details.get("error_type")?.as_str()?)?, details.get("error")?.as_str()?))
}

/// A failure of the server's is one; one of what lies between says nothing of the server.
fn of_kind(kind: Kind, message: &str, cause: Cause, expected: &str) -> Outcome {
    let cause = match kind {
        Kind::RequestTimeout => Cause::Late,
        Kind::ServerExited | Kind::BadServerReply => cause,
        _ => return Outcome::NotRun(message.to_owned()),
    };
    Outcome::Failed(Failed { cause, expected: expected.to_owned(), got: format!("none: {message}") })
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

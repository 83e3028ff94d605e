//! What a failed exchange means to whoever called the command.

use std::error::Error;

use reqwest::Url;
use rmcp::model::ErrorData;
use rmcp::service::{ClientInitializeError, ServiceError};
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, HttpStatusError, InsufficientScopeError, StreamableHttpError,
};

use crate::exit::{Exit, Failure};

/// Why no session came about.
pub(super) fn of_start(url: &Url, error: &ClientInitializeError) -> Failure {
    match error {
        ClientInitializeError::TransportError { error, .. } => of_transport(url, error),
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => of_start(url, fallback),
        ClientInitializeError::JsonRpcError(error) => of_refusal(url, error),
        other => {
            Failure::new(Exit::Unreachable, format!("{url} does not answer as an MCP server: {other}")).hint(ENDPOINT)
        }
    }
}

/// Why a request on an open session failed.
pub(super) fn of_request(url: &Url, error: &ServiceError) -> Failure {
    match error {
        ServiceError::McpError(error) => match gateway_kind(error) {
            Some(_) => of_refusal(url, error),
            None => Failure::new(Exit::ToolError, format!("the server refused: {}", error.message)),
        },
        ServiceError::TransportSend(error) => of_transport(url, error),
        other => Failure::new(Exit::Unreachable, format!("{url}: {other}")),
    }
}

const ENDPOINT: &str = "endpoints are http://HOST/NAMESPACE/SERVER/mcp: compare with the URL column of \
                        `kubectl get mcpservers` or of `portolan dev`";
const CREDENTIAL: &str = "pass --api-key, or --token with a token that the gateway admits";

/// The gateway's own answers, by JSON-RPC code. Codes of servers behind it are not ours to interpret.
fn gateway_kind(error: &ErrorData) -> Option<Exit> {
    use portolan_mcp::failure::Kind;
    let code = error.code.0;
    let is = |kind: Kind| kind.code() == code;
    if is(Kind::Unauthenticated) {
        Some(Exit::Denied)
    } else if [Kind::UnknownRoute, Kind::NotReady, Kind::ServerExited, Kind::RequestTimeout, Kind::BadServerReply]
        .into_iter()
        .any(is)
    {
        Some(Exit::Unreachable)
    } else {
        None
    }
}

/// A JSON-RPC error in the place of a session.
fn of_refusal(url: &Url, error: &ErrorData) -> Failure {
    let exit = gateway_kind(error).unwrap_or(Exit::Negative);
    let failure = Failure::new(exit, format!("{url}: {}", error.message));
    if error.code.0 == portolan_mcp::failure::Kind::UnknownRoute.code() { failure.hint(ENDPOINT) } else { failure }
}

/// What HTTP said. The causes are searched: rmcp wraps them in layers that differ by what was under way.
fn of_transport(url: &Url, error: &(dyn Error + 'static)) -> Failure {
    for cause in causes(error) {
        if let Some(AuthRequiredError { www_authenticate_header, .. }) = cause.downcast_ref() {
            return auth_needed(url, www_authenticate_header);
        }
        if let Some(InsufficientScopeError { www_authenticate_header, .. }) = cause.downcast_ref() {
            return denied(url, &format!("it asks for {www_authenticate_header}"));
        }
        match cause.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
            Some(StreamableHttpError::UnexpectedServerResponse(text)) => return of_response(url, text),
            // These two hold an error, but do not name it as their source.
            Some(StreamableHttpError::HttpStatus(HttpStatusError { status, retry_after, .. })) => {
                return of_status(url, *status, retry_after.as_deref());
            }
            Some(StreamableHttpError::Client(error)) => return of_connection(url, error),
            _ => {}
        }
    }
    Failure::new(Exit::Unreachable, format!("{url}: {}", innermost(error))).hint(ENDPOINT)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source())
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

fn auth_needed(url: &Url, challenge: &str) -> Failure {
    Failure::new(Exit::AuthNeeded, format!("{url} wants a credential that it accepts: {challenge}")).hint(CREDENTIAL)
}

fn denied(url: &Url, why: &str) -> Failure {
    Failure::new(Exit::Denied, format!("{url} does not let this caller in: {why}"))
}

fn of_status(url: &Url, status: u16, retry_after: Option<&str>) -> Failure {
    let exit = if status == 429 { Exit::Denied } else { Exit::Unreachable };
    let failure = Failure::new(exit, format!("{url} answered HTTP {status}"));
    match retry_after {
        Some(when) => failure.hint(format!("Retry-After: {when}")),
        None => failure,
    }
}

/// rmcp keeps the status of other refusals only as the start of a text: `HTTP 403 Forbidden: …`.
fn of_response(url: &Url, text: &str) -> Failure {
    let status = text.strip_prefix("HTTP ").and_then(|rest| rest.get(..3)).and_then(|digits| digits.parse().ok());
    match status {
        Some(401) => auth_needed(url, text),
        Some(403 | 421) => denied(url, text),
        Some(status @ 429) => of_status(url, status, None),
        _ => Failure::new(Exit::Unreachable, format!("{url} does not answer as an MCP server: {text}")).hint(ENDPOINT),
    }
}

fn of_connection(url: &Url, error: &reqwest::Error) -> Failure {
    match error.status().map(|status| status.as_u16()) {
        Some(401) => auth_needed(url, "HTTP 401"),
        Some(403) => denied(url, "HTTP 403"),
        Some(status) => of_status(url, status, None),
        None => {
            let failure = Failure::new(Exit::Unreachable, format!("{url} cannot be reached: {}", innermost(error)));
            match url.scheme() {
                "https" => failure.hint("is it served without TLS? Then write http://"),
                _ => failure.hint("is it running? `portolan dev` and the gateway say where they listen"),
            }
        }
    }
}

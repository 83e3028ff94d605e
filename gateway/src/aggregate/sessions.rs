//! Sessions with all servers: opened, listened to and ended. A session is named by a token that any replica opens; at each
//! server's bridges a client has a part of its own, whose name derives from it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use portolan_mcp::{
    aggregate::{Kind as ListKind, Origin},
    envelope::{Message, Request},
    failure::{Failure, Kind},
    members::Members,
    modern::VERSION_HEADER,
    revision,
    token::{self, Binding, ManyClaims},
};

use super::changes::{self, Begins, Script};
use super::many::{LAST_EVENT_ID, Many};
use super::modern::answered;
use super::{Asked, lists};
use crate::gateway::Gateway;
use crate::record::Record;
use crate::recorded::Held;
use crate::respond::{self, Body};
use crate::state::unix_time;
use crate::{metrics, negotiate, relay, session};

/// What servers may ask a client for: of capabilities that do not fit, these are what matters.
const ASKED: [&str; 3] = ["roots", "sampling", "elicitation"];
/// Bytes that a client's capabilities may take in its token; what is over that is left out.
const MAX_CAPABILITIES: usize = 360;
/// The same of its name and version.
const MAX_INFO: usize = 180;

/// Answers a message.
pub(super) async fn post(
    gateway: &Arc<Gateway>,
    asked: Asked<'_>,
    message: &Message<'_>,
    body: &Bytes,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    if let Message::Request(request) = message
        && request.method == "initialize"
    {
        return initialize(gateway, asked, request, record).await;
    }
    negotiate::version(&asked.request.headers)?;
    let claims = find(gateway, asked)?;
    record.set_session(&claims.session);
    let many = Many { gateway, asked, claims: &claims };
    match message {
        Message::Request(request) => many.request(request, body, record, held).await,
        Message::Notification { method, params } => many.notification(method, *params, body, record, held).await,
        Message::Response { id, .. } => many.answer(id.as_ref(), body, record, held).await,
    }
}

async fn initialize(
    gateway: &Arc<Gateway>,
    asked: Asked<'_>,
    request: &Request<'_>,
    record: &mut Record,
) -> Result<Response<Body>, Failure> {
    let view = asked.view(gateway, record).await;
    let params = request.params.and_then(|params| Members::of(params.get())).unwrap_or_default();
    let asked_for = params.string("protocolVersion").filter(|revision| revision::is_legacy(revision));
    let revision = asked_for.as_deref().unwrap_or(revision::LATEST_LEGACY);
    let claims = ManyClaims {
        session: session::generate()?,
        client: introduction(&params, revision).into(),
        expires: (unix_time() + session::LIFETIME).as_secs(),
    };
    let sealed = asked.serving.snapshot.keyring.seal(&claims, binding(asked));
    let token = sealed.ok().and_then(|token| HeaderValue::try_from(token).ok());
    let token = token.ok_or_else(|| Failure::new(Kind::Internal, "the gateway could not make a session id"))?;
    record.set_session(&claims.session);
    let mut response = answered(request, &lists::initialize(revision, &view, asked.toolset.map(Arc::as_ref)), record);
    response.headers_mut().insert(token::HEADER, token);
    Ok(response)
}

/// What servers are told of the client when its sessions there are opened: the parameters of `initialize`, short enough
/// for a token.
fn introduction(params: &Members<'_>, revision: &str) -> String {
    let object = |name| params.get(name).and_then(Members::of);
    let mut info = object("clientInfo").unwrap_or_default();
    info.retain(|name| matches!(name, "name" | "version"));
    let mut capabilities = object("capabilities").unwrap_or_default();
    if !fits(&capabilities.to_string(), MAX_CAPABILITIES) {
        capabilities.retain(|name| ASKED.contains(&name));
    }
    let info = Some(info.to_string()).filter(|info| fits(info, MAX_INFO));
    let whole = Some(capabilities.to_string()).filter(|json| fits(json, MAX_CAPABILITIES));
    let capabilities = whole.unwrap_or_else(|| {
        let mut bare = Members::default();
        ASKED.into_iter().filter(|name| capabilities.get(name).is_some()).for_each(|name| bare.set(name, "{}"));
        bare.to_string()
    });
    let mut told = Members::default();
    told.set("protocolVersion", serde_json::Value::from(revision).to_string());
    told.set("capabilities", capabilities);
    told.set("clientInfo", info.unwrap_or_else(|| r#"{"name":"unnamed","version":""}"#.to_owned()));
    told.to_string()
}

/// Whether `json` takes at most `max` bytes in a token, where it is a string.
fn fits(json: &str, max: usize) -> bool {
    serde_json::Value::from(json).to_string().len() <= max
}

fn binding<'a>(asked: Asked<'a>) -> Binding<'a> {
    Binding { principal: asked.caller.principal(), route: asked.route }
}

/// The session that the request names.
pub(super) fn find(gateway: &Gateway, asked: Asked<'_>) -> Result<ManyClaims, Failure> {
    let token = session::token(&asked.request.headers)?;
    let opened = asked.serving.snapshot.keyring.open_as(token, binding(asked), unix_time().as_secs());
    opened.map_err(|error| session::refused(error, &gateway.metrics))
}

/// The stream on which a client hears that lists changed; or, for one that comes back for what it missed of a call, the
/// stream of that call.
pub(super) async fn open(
    gateway: &Arc<Gateway>,
    asked: Asked<'_>,
    record: &mut Record,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    record.set_method(metrics::STREAM);
    negotiate::get(&asked.request.headers)?;
    negotiate::version(&asked.request.headers)?;
    let claims = find(gateway, asked)?;
    record.set_session(&claims.session);
    let last = asked.request.headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    if let Some(call) = last.and_then(Origin::of) {
        return Many { gateway, asked, claims: &claims }.resume(call, record, held).await;
    }
    let revision = asked.request.headers.get(VERSION_HEADER).and_then(|value| value.to_str().ok());
    let is_primed = revision.is_some_and(revision::is_primed);
    let begins = last.map_or(Begins::Resumable { is_primed }, |last| Begins::After(last.to_owned()));
    record.set_answer(StatusCode::OK, None);
    let told = |kind: ListKind| {
        let method = kind.changed();
        Some(format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#))
    };
    let script = Script { begins, told: Box::new(told), farewell: relay::standing_farewell() };
    Ok(changes::stream(gateway, asked, script))
}

/// Ends a session, and its parts at the servers as far as they are known here; the others end when nobody uses them.
pub(super) async fn delete(
    gateway: &Arc<Gateway>,
    asked: Asked<'_>,
    record: &mut Record,
) -> Result<Response<Body>, Failure> {
    record.set_method(metrics::DELETE);
    negotiate::version(&asked.request.headers)?;
    let claims = find(gateway, asked)?;
    record.set_session(&claims.session);
    let many = Many { gateway, asked, claims: &claims };
    record.wait(many.tell_all(&Method::DELETE, &Bytes::new())).await;
    gateway.placed.forget(&claims.session).await;
    record.set_answer(StatusCode::NO_CONTENT, None);
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(capabilities: &str, info: &str) -> String {
        let params = format!(r#"{{"capabilities":{capabilities},"clientInfo":{info}}}"#);
        introduction(&Members::of(&params).expect("an object"), "2025-11-25")
    }

    #[test]
    fn servers_are_told_what_a_client_says_of_itself_as_far_as_a_token_holds_it() {
        let plain = told(r#"{"sampling":{"tools":{}},"experimental":{"x":1.0}}"#, r#"{"name":"c","version":"1"}"#);
        let whole = r#"{"protocolVersion":"2025-11-25","capabilities":{"sampling":{"tools":{}},"experimental":{"x":1.0}},"clientInfo":{"name":"c","version":"1"}}"#;
        assert_eq!(plain, whole);
        let long = "x".repeat(500);
        let large = format!(r#"{{"elicitation":{{"form":{{}}}},"experimental":{{"{long}":{{}}}}}}"#);
        assert!(told(&large, "{}").contains(r#""capabilities":{"elicitation":{"form":{}}}"#));
        let larger = format!(r#"{{"elicitation":{{"{long}":{{}}}},"roots":{{"listChanged":true}}}}"#);
        assert!(told(&larger, "{}").contains(r#""capabilities":{"roots":{},"elicitation":{}}"#));
        let named = format!(r#"{{"name":"{long}","version":"1","icons":[]}}"#);
        assert!(told("{}", &named).ends_with(r#""clientInfo":{"name":"unnamed","version":""}}"#));
        assert!(told("7", "[]").contains(r#""capabilities":{}"#));
    }

    #[test]
    fn a_token_is_no_longer_than_a_token_may_be_whatever_a_client_says_of_itself() {
        let keyring = token::Keyring::new([&[1; 32][..]]).expect("a key");
        let binding = Binding { principal: &[0; 32], route: super::super::ROUTE };
        for unit in ["x", "\\\"", "\\\\", "\u{e9}", "\\u0001"] {
            for times in 0..400 {
                let text = unit.repeat(times);
                let client = told(&format!(r#"{{"sampling":{{"{text}":1}}}}"#), &format!(r#"{{"name":"{text}"}}"#));
                let claims = ManyClaims {
                    session: session::generate().expect("random"),
                    client: client.into(),
                    expires: u64::MAX,
                };
                let sealed = keyring.seal(&claims, binding).expect("sealed");
                assert_eq!(keyring.open_as(&sealed, binding, 0), Ok(claims), "{} bytes", sealed.len());
            }
        }
    }
}

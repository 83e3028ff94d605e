//! What a request says of itself, and whether its headers say the same.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{LISTEN, METHOD_HEADER, NAME_HEADER, NAMED, VERSION_HEADER};
use crate::envelope::{Id, Message, Object, Request};
use crate::failure::{Failure, Kind};
use crate::revision;

/// What is read of a request before anything is done with it.
#[derive(Debug)]
pub struct Head<'a> {
    /// The method's name.
    pub method: Cow<'a, str>,
    /// What the method is about: a tool's or a prompt's name, a resource's URI, a task's id.
    pub name: Option<Cow<'a, str>>,
    /// The state of an earlier round that the client hands back (SEP-2322).
    pub request_state: Option<Cow<'a, str>>,
    /// The caller's token for progress notifications, as written.
    pub progress_token: Option<Id>,
    /// `clientInfo` as written.
    pub client_info: Option<&'a RawValue>,
    /// `clientCapabilities` as written.
    pub capabilities: Option<&'a RawValue>,
    /// `logLevel` as written.
    pub log_level: Option<&'a RawValue>,
    version: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Params<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, rename = "taskId")]
    task: Option<&'a RawValue>,
    #[serde(borrow, rename = "requestState")]
    request_state: Option<&'a RawValue>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<Object<Meta<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Meta<'a> {
    #[serde(borrow, rename = "progressToken")]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/clientInfo")]
    client_info: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/logLevel")]
    log_level: Option<&'a RawValue>,
}

impl<'a> Head<'a> {
    /// Reads the head of `message`; `None` for an answer, which clients of this era do not send.
    #[must_use]
    pub fn of(message: &Message<'a>) -> Option<Self> {
        match message {
            Message::Request(request) => Some(Self::of_request(request)),
            Message::Notification { method, params } => Some(Self::read(method.clone(), *params)),
            Message::Response { .. } => None,
        }
    }

    /// Reads the head of a request.
    #[must_use]
    pub fn of_request(request: &Request<'a>) -> Self {
        Self::read(request.method.clone(), request.params)
    }

    fn read(method: Cow<'a, str>, params: Option<&'a RawValue>) -> Self {
        let params = params.and_then(|params| serde_json::from_str(params.get()).ok());
        let params: Params<'a> = params.map(|Object(params)| params).unwrap_or_default();
        let meta = params.meta.map(|Object(meta)| meta).unwrap_or_default();
        let named = NAMED.iter().find(|(of, _)| *of == method).map(|(_, member)| *member);
        let name = match named {
            Some("uri") => params.uri,
            Some(_) => params.name,
            None => params.task.filter(|_| method.starts_with("tasks/")),
        };
        Self {
            name: name.and_then(text),
            request_state: params.request_state.and_then(text),
            progress_token: meta.progress_token.and_then(Id::parse),
            client_info: meta.client_info,
            capabilities: meta.capabilities,
            log_level: meta.log_level,
            version: meta.version,
            method,
        }
    }

    /// Whether the answer is a stream that lasts until one side ends it.
    #[must_use]
    pub fn is_listen(&self) -> bool {
        self.method == LISTEN
    }

    /// Whether the request says all it must, and its headers say the same ("Server Validation").
    ///
    /// # Errors
    /// Says what to send instead: [`Kind::InvalidParams`], [`Kind::HeaderMismatch`] or [`Kind::UnsupportedVersion`].
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let version = self.version.and_then(text).ok_or_else(|| {
            invalid("params._meta needs \"io.modelcontextprotocol/protocolVersion\", such as \"2026-07-28\"")
        })?;
        same(headers, &VERSION_HEADER, &version)?;
        if !revision::MODERN.contains(&&*version) {
            return Err(unsupported(&version));
        }
        if !self.capabilities.is_some_and(|json| json.get().starts_with('{')) {
            return Err(invalid("params._meta needs \"io.modelcontextprotocol/clientCapabilities\", an object"));
        }
        same(headers, &METHOD_HEADER, &self.method)?;
        match &self.name {
            // Of a method that need not be named there, the header is only compared.
            Some(name) if self.is_named() || headers.contains_key(NAME_HEADER) => same(headers, &NAME_HEADER, name),
            None if self.is_named() => Err(invalid("params must say what the request is about: write name, or uri")),
            _ => Ok(()),
        }
    }

    fn is_named(&self) -> bool {
        NAMED.iter().any(|(method, _)| *method == self.method)
    }
}

/// The refusal of a revision that is not served.
#[must_use]
pub fn unsupported(requested: &str) -> Failure {
    let served: Vec<&str> = revision::served().collect();
    let message = format!("revision {requested:?} is not served; use one of {}", served.join(", "));
    Failure::new(Kind::UnsupportedVersion, message).detail("supported", served).detail("requested", requested)
}

fn invalid(message: &str) -> Failure {
    Failure::new(Kind::InvalidParams, message)
}

fn same(headers: &HeaderMap, header: &HeaderName, body: &str) -> Result<(), Failure> {
    same_by(headers, header, body, |value| value == body)
}

/// Whether `header` is sent once, and says what the body says as `is_same` understands it.
pub(super) fn same_by(
    headers: &HeaderMap,
    header: &HeaderName,
    body: &str,
    is_same: impl Fn(&str) -> bool,
) -> Result<(), Failure> {
    let mismatch = |what: String| Failure::new(Kind::HeaderMismatch, what);
    let mut values = headers.get_all(header).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(mismatch(format!("send the header {header} once, with the value that the body has")));
    };
    let value = value.to_str().ok().and_then(decoded);
    if value.as_deref().is_some_and(is_same) {
        return Ok(());
    }
    Err(mismatch(format!("the header {header} does not say what the body says, which is {body:?}")))
}

/// A header's value as it was before it was made safe for a header ("Value Encoding"); `None` where it is damaged.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    let Some(encoded) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Some(value.into());
    };
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned)
}

/// A string, unescaped.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"caf\u00e9","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;

    fn check(body: &str, headers: &[(HeaderName, &str)]) -> Result<(), Kind> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().expect("a header value"));
        }
        let message = Message::parse(body.as_bytes()).expect("a message");
        Head::of(&message).expect("a request").check(&map).map_err(|failure| failure.kind)
    }

    fn with<'h>(method: &'h str, name: &'h str) -> Vec<(HeaderName, &'h str)> {
        vec![(VERSION_HEADER, "2026-07-28"), (METHOD_HEADER, method), (NAME_HEADER, name)]
    }

    #[test]
    fn a_request_passes_when_its_headers_say_what_its_body_says() {
        assert_eq!(check(CALL, &with("tools/call", "=?base64?Y2Fmw6k=?=")), Ok(()));
        let list = CALL.replace("tools/call", "tools/list");
        assert_eq!(check(&list, &with("tools/list", "x")[..2]), Ok(()));
        let task = CALL.replace("tools/call", "tasks/get").replace("\"name\"", "\"taskId\"");
        assert_eq!(check(&task, &with("tasks/get", "x")[..2]), Ok(()));
        assert_eq!(check(&task, &with("tasks/get", "x")), Err(Kind::HeaderMismatch));
    }

    #[test]
    fn a_header_that_is_missing_repeated_damaged_or_another_is_a_mismatch() {
        for name in ["x", "=?base64?eA==?=", "=?base64?%?=", "=?base64?/w==?=", "=?BASE64?Y2Fmw6k=?="] {
            assert_eq!(check(CALL, &with("tools/call", name)), Err(Kind::HeaderMismatch), "{name}");
        }
        let whole = with("tools/call", "=?base64?Y2Fmw6k=?=");
        assert_eq!(check(CALL, &with("Tools/Call", whole[2].1)), Err(Kind::HeaderMismatch));
        for missing in 0..whole.len() {
            let mut headers = whole.clone();
            headers.remove(missing);
            assert_eq!(check(CALL, &headers), Err(Kind::HeaderMismatch));
            let mut twice = whole.clone();
            twice.push(whole[missing].clone());
            assert_eq!(check(CALL, &twice), Err(Kind::HeaderMismatch));
        }
    }

    #[test]
    fn what_a_body_must_say_is_asked_for() {
        let headers = with("tools/call", "=?base64?Y2Fmw6k=?=");
        let lacking = |what: &str, instead: &str| check(&CALL.replace(what, instead), &headers);
        assert_eq!(lacking("Capabilities\":{}", "Capabilities\":[]"), Err(Kind::InvalidParams));
        assert_eq!(lacking("clientCapabilities", "x"), Err(Kind::InvalidParams));
        assert_eq!(lacking("protocolVersion", "x"), Err(Kind::InvalidParams));
        assert_eq!(lacking("\"2026-07-28\"", "7"), Err(Kind::InvalidParams));
        assert_eq!(lacking("\"name\"", "\"nome\""), Err(Kind::InvalidParams));
        let members = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
        for params in [
            format!(r#"["café",null,null,null,{members}]"#),
            r#"{"name":"café","_meta":[null,"2026-07-28",null,{}]}"#.into(),
        ] {
            let positional = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
            assert_eq!(check(&positional, &headers), Err(Kind::InvalidParams), "an array has no members: {params}");
        }
    }

    #[test]
    fn a_revision_that_nobody_serves_is_answered_with_those_that_are() {
        let body = CALL.replace("2026-07-28", "2031-01-01");
        let mut headers = with("tools/call", "x");
        headers[0].1 = "2031-01-01";
        assert_eq!(check(&body, &headers), Err(Kind::UnsupportedVersion));
        let answer: serde_json::Value =
            serde_json::from_slice(&unsupported("2031-01-01").answer(None, None)).expect("JSON");
        assert_eq!(answer["error"]["code"], -32022);
        assert_eq!(answer["error"]["data"]["requested"], "2031-01-01");
        let supported = answer["error"]["data"]["supported"].as_array().expect("a list");
        assert!(supported.contains(&"2026-07-28".into()) && supported.contains(&"2025-11-25".into()));
    }
}

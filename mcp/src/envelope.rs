//! The JSON-RPC envelope: what kind of message a body is, without touching what it carries.
//!
//! A body is forwarded as the bytes that came in. The envelope only borrows from it: unknown members, key order
//! and number text are none of its business.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::members;

/// Why a body is not one JSON-RPC message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Not JSON at all.
    #[error("the body is not valid JSON: {0}")]
    NotJson(String),
    /// An array: batching ended with revision 2025-06-18.
    #[error("the body is a JSON-RPC batch; send one message per request")]
    Batch,
    /// JSON, but not JSON-RPC 2.0.
    #[error("the body is not a JSON-RPC 2.0 message: {0}")]
    NotJsonRpc(&'static str),
}

/// A request id exactly as it was written: a JSON string or number (JSON-RPC 2.0 §4).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Box<str>);

impl Id {
    /// The id's JSON text, quotes included.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// An id from a number we mint ourselves.
    #[must_use]
    pub fn number(n: u64) -> Self {
        Self(n.to_string().into())
    }

    /// An id from a string we mint ourselves.
    #[must_use]
    pub fn string(text: &str) -> Self {
        Self(serde_json::Value::from(text).to_string().into())
    }

    /// Reads a string or a number; `None` for everything else.
    #[must_use]
    pub fn parse(raw: &RawValue) -> Option<Self> {
        let text = raw.get();
        let is_string = text.starts_with('"');
        let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        (is_string || is_number).then(|| Self(text.into()))
    }
}

/// One message, borrowed from its body.
#[derive(Debug)]
pub enum Message<'a> {
    /// Expects an answer.
    Request(Request<'a>),
    /// Expects none.
    Notification {
        /// The method's name.
        method: Cow<'a, str>,
        /// `params` as written.
        params: Option<&'a RawValue>,
    },
    /// Answers a request of the other side.
    Response {
        /// The id it answers; `None` where the peer wrote `null` because it could not read the request.
        id: Option<Id>,
        /// Whether it carries `error` instead of `result`.
        is_error: bool,
        /// `result` or `error` as written.
        payload: &'a RawValue,
    },
}

/// A request, borrowed from its body.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its id.
    pub id: Id,
    /// The method's name.
    pub method: Cow<'a, str>,
    /// `params` as written.
    pub params: Option<&'a RawValue>,
}

#[derive(serde::Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "text")]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Keeps an explicit `null` apart from an absent member.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Takes a string only: to one reader `"method": null` has a method, to another it has none.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    Text::deserialize(deserializer).map(|text| Some(text.0))
}

/// A string, borrowed where nothing in it is escaped.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads an object as `T`. What derives `Deserialize` would also take an array, its values for its members in their order.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// Whether `body` is an array, which a JSON-RPC batch is.
#[must_use]
pub fn is_batch(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

/// The messages of a JSON-RPC batch, as they are written; `None` where `body` is no array, or one of more than `max` things.
/// Not more than those are read.
#[must_use]
pub fn batched(body: &[u8], max: usize) -> Option<Vec<&RawValue>> {
    struct Bounded(usize);

    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {} messages", self.0)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
            let mut messages = Vec::new();
            while let Some(message) = all.next_element()? {
                if messages.len() == self.0 {
                    return Err(serde::de::Error::invalid_length(self.0 + 1, &self));
                }
                messages.push(message);
            }
            Ok(messages)
        }
    }

    let mut json = serde_json::Deserializer::from_slice(body);
    let messages = json.deserialize_seq(Bounded(max)).ok()?;
    json.end().ok().map(|()| messages)
}

/// What is wrong with a body that is not read as members of an envelope.
fn unread(body: &[u8]) -> EnvelopeError {
    match serde_json::from_slice::<&RawValue>(body) {
        Ok(_) => EnvelopeError::NotJsonRpc("a member is missing, repeated or of the wrong type"),
        Err(error) => EnvelopeError::NotJson(error.to_string()),
    }
}

impl<'a> Message<'a> {
    /// Reads the envelope of `body`.
    ///
    /// # Errors
    /// Says why the body is not exactly one JSON-RPC 2.0 message.
    pub fn parse(body: &'a [u8]) -> Result<Self, EnvelopeError> {
        if is_batch(body) {
            return Err(EnvelopeError::Batch);
        }
        // As text, so that bytes which are none are refused wherever they stand, in members that nobody knows too.
        let text = std::str::from_utf8(body).map_err(|_| unread(body))?;
        let members: Members<'a> = serde_json::from_str(text).map_err(|_| unread(body))?;
        if members.jsonrpc.as_deref() != Some("2.0") {
            return Err(EnvelopeError::NotJsonRpc("\"jsonrpc\" must be \"2.0\""));
        }
        Self::classify(members)
    }

    fn classify(members: Members<'a>) -> Result<Self, EnvelopeError> {
        match (members.method, members.id, members.result, members.error) {
            (Some(method), Some(id), None, None) => {
                let id = Id::parse(id).ok_or(EnvelopeError::NotJsonRpc("\"id\" must be a string or a number"))?;
                Ok(Self::Request(Request { id, method, params: members.params }))
            }
            (Some(method), None, None, None) => Ok(Self::Notification { method, params: members.params }),
            (None, Some(id), Some(payload), None) => Ok(Self::Response { id: Id::parse(id), is_error: false, payload }),
            (None, id, None, Some(payload)) => {
                Ok(Self::Response { id: id.and_then(Id::parse), is_error: true, payload })
            }
            _ => Err(EnvelopeError::NotJsonRpc("it is neither a request, a notification nor a response")),
        }
    }

    /// Whether it says that what was asked for failed: an error, or the result of a tool that is marked as one.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        let Self::Response { is_error, payload, .. } = self else { return false };
        *is_error || members::Members::of(payload.get()).is_some_and(|result| result.get("isError") == Some("true"))
    }

    /// Whether it is an error that says that what was asked for is none: no message, no method, no such name or arguments (JSON-RPC 2.0,
    /// "Error object").
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        const CODES: [&str; 4] = ["-32700", "-32600", "-32601", "-32602"];
        let Self::Response { is_error: true, payload, .. } = self else { return false };
        let code = members::Members::of(payload.get());
        code.is_some_and(|error| error.get("code").is_some_and(|code| CODES.contains(&code.trim())))
    }

    /// The method, where there is one.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Request(request) => Some(&request.method),
            Self::Notification { method, .. } => Some(method),
            Self::Response { .. } => None,
        }
    }

    /// `params` as written, where there are any.
    #[must_use]
    pub fn params(&self) -> Option<&'a RawValue> {
        match self {
            Self::Request(request) => request.params,
            Self::Notification { params, .. } => *params,
            Self::Response { .. } => None,
        }
    }

    /// Whether this message belongs to the sessionless era: it names its revision in `_meta`, or asks `server/discover`.
    #[must_use]
    pub fn is_modern(&self) -> bool {
        // Most legacy messages have no `_meta`, however it may be written: they are not read once more to find none.
        let may_have_meta = |params: &&RawValue| params.get().contains('\\') || params.get().contains("\"_meta\"");
        self.method() == Some("server/discover")
            || self.params().filter(may_have_meta).and_then(Meta::of).is_some_and(|meta| meta.modern)
    }
}

/// The members of `params._meta` that decide where a message goes.
#[derive(Debug, PartialEq, Eq)]
pub struct Meta {
    /// The caller's token for progress notifications, as written.
    pub progress_token: Option<Id>,
    /// Whether a protocol revision is named.
    pub modern: bool,
}

impl Meta {
    /// Reads `params._meta`; `None` where there is none or it is no object.
    #[must_use]
    pub fn of(params: &RawValue) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Params<'a> {
            #[serde(borrow, rename = "_meta")]
            meta: Option<Object<Members<'a>>>,
        }
        #[derive(serde::Deserialize)]
        struct Members<'a> {
            #[serde(borrow, rename = "progressToken")]
            progress_token: Option<&'a RawValue>,
            #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
            version: Option<&'a RawValue>,
        }
        let Object(params) = serde_json::from_str::<Object<Params<'_>>>(params.get()).ok()?;
        let Object(meta) = params.meta?;
        Some(Self { progress_token: meta.progress_token.and_then(Id::parse), modern: meta.version.is_some() })
    }
}

/// Reads one string or number member at the top of `params`, such as `name`, `progressToken` or `requestId`.
#[must_use]
pub fn scalar_param(params: &RawValue, member: &str) -> Option<Id> {
    param(params, member).and_then(Id::parse)
}

fn param<'a>(params: &'a RawValue, member: &str) -> Option<&'a RawValue> {
    Member(member).deserialize(&mut serde_json::Deserializer::from_str(params.get())).ok()?
}

/// Reads one member of an object as written, and passes over the others.
struct Member<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Text(key)) = map.next_key()? {
            if key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Reads one string member at the top of `params`, unescaped.
#[must_use]
pub fn string_param<'a>(params: &'a RawValue, member: &str) -> Option<Cow<'a, str>> {
    let Text(text) = serde_json::from_str(param(params, member)?.get()).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Message<'_>, EnvelopeError> {
        Message::parse(text.as_bytes())
    }

    #[test]
    fn a_request_keeps_its_id_as_written() {
        for id in ["1", "-7", "1.50", "\"a\\u0062\"", "12345678901234567890123"] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
            let Ok(Message::Request(request)) = parse(&text) else { panic!("{text} is a request") };
            assert_eq!(request.id.as_json(), id);
        }
    }

    #[test]
    fn a_null_or_structured_request_id_is_refused() {
        for id in ["null", "true", "{}", "[1]"] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
            assert!(matches!(parse(&text), Err(EnvelopeError::NotJsonRpc(_))), "{text}");
        }
    }

    #[test]
    fn an_error_response_may_have_a_null_id() {
        let message = parse(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}"#).expect("parses");
        assert!(matches!(message, Message::Response { id: None, is_error: true, .. }));
    }

    #[test]
    fn batches_garbage_and_repeated_members_are_told_apart() {
        assert_eq!(parse(" [] ").unwrap_err(), EnvelopeError::Batch);
        assert!(matches!(parse("{\"jsonrpc\":").unwrap_err(), EnvelopeError::NotJson(_)));
        assert!(matches!(parse("{} {}").unwrap_err(), EnvelopeError::NotJson(_)));
        let no_text = b"{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"unknown\":\"\xff\"}";
        assert!(matches!(Message::parse(no_text).unwrap_err(), EnvelopeError::NotJson(_)));
        let twice = r#"{"jsonrpc":"2.0","method":"a","method":"b"}"#;
        assert!(matches!(parse(twice).unwrap_err(), EnvelopeError::NotJsonRpc(_)));
        let null = r#"{"jsonrpc":"2.0","id":1,"method":null,"result":{}}"#;
        assert!(matches!(parse(null).unwrap_err(), EnvelopeError::NotJsonRpc(_)));
        let both = r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#;
        assert!(matches!(parse(both).unwrap_err(), EnvelopeError::NotJsonRpc(_)));
    }

    #[test]
    fn the_era_is_read_from_the_body() {
        let modern = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        assert!(parse(modern).expect("parses").is_modern());
        let legacy = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"progressToken":3}}}"#;
        assert!(!parse(legacy).expect("parses").is_modern());
        let members = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        for params in [format!("[{members}]"), r#"{"_meta":["t","2026-07-28"]}"#.into(), format!("[[{members}]]")] {
            let positional = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{params}}}"#);
            assert!(!parse(&positional).expect("parses").is_modern(), "an array has no members: {params}");
        }
    }

    #[test]
    fn a_deeply_nested_body_does_not_overflow_the_stack() {
        let depth = 100_000;
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        let message = parse(&text).expect("the envelope never descends");
        assert!(!message.is_modern());
    }
}

//! The strict scan and the envelope: what passes means one thing, and both readings agree on it.

use portolan_mcp::envelope::{Message, Meta, scalar_param, string_param};
use portolan_mcp::modern::Head;
use portolan_mcp::revision::META_PROTOCOL_VERSION;
use portolan_mcp::scan::{Fault, MAX_DEPTH, scan};
use portolan_mcp::session::IdKey;
use serde_json::Value;

use crate::oracle::Unique;

/// `body` is a request's body.
pub fn check(body: &[u8]) {
    let common = serde_json::from_slice::<Value>(body);
    match scan(body) {
        Ok(()) => {
            let value = common.expect("what passes is JSON to a common parser");
            let Unique(depth) = serde_json::from_slice(body).expect("what passes has no key twice");
            assert!(depth <= MAX_DEPTH, "{depth} levels passed");
            let again = value.to_string();
            assert_eq!(scan(again.as_bytes()), Ok(()), "what is written anew passes too");
            assert_eq!(serde_json::from_str::<Value>(&again).expect("JSON"), value);
            agrees(body, &value);
        }
        Err(error) => {
            assert!(error.at <= body.len(), "{error:?}");
            let is_stricter =
                matches!(error.fault, Fault::RepeatedKey | Fault::LookalikeKey | Fault::NumberTooLong | Fault::TooDeep);
            assert!(is_stricter || common.is_err(), "{error:?}, and yet it is JSON");
            // The bridge reads lines of servers that no scan has seen.
            if let Ok(message) = Message::parse(body) {
                read(&message);
            }
        }
    }
}

fn read(message: &Message<'_>) {
    let _ = message.is_modern();
    if let Some(params) = message.params() {
        let _ = (Meta::of(params), string_param(params, "name"), scalar_param(params, "requestId"));
    }
}

/// The envelope says what `value` says, which a common parser made of the same bytes.
fn agrees(body: &[u8], value: &Value) {
    let Ok(message) = Message::parse(body) else { return };
    assert_eq!(value["jsonrpc"], "2.0");
    assert_eq!(message.method(), value.get("method").map(|method| method.as_str().expect("a string")));
    let params = value.get("params").filter(|_| message.method().is_some());
    let read = |raw: &serde_json::value::RawValue| serde_json::from_str::<Value>(raw.get()).expect("JSON");
    assert_eq!(message.params().map(read).as_ref(), params);
    match &message {
        Message::Request(request) => assert_eq!(read_id(request.id.as_json()), value["id"]),
        Message::Notification { .. } => assert_eq!(value.get("id"), None),
        Message::Response { id, is_error, payload } => {
            let scalar = value.get("id").filter(|id| id.is_string() || id.is_number());
            assert_eq!(id.as_ref().map(|id| read_id(id.as_json())).as_ref(), scalar);
            let (name, other) = if *is_error { ("error", "result") } else { ("result", "error") };
            assert_eq!(value.get(name), Some(&read(payload)));
            assert_eq!(value.get(other), None);
        }
    }
    let meta = params.and_then(|params| params.get("_meta")).filter(|meta| meta.is_object());
    let names_revision = meta.and_then(|meta| meta.get(META_PROTOCOL_VERSION)).is_some_and(|named| !named.is_null());
    assert_eq!(message.is_modern(), message.method() == Some("server/discover") || names_revision);
    if let Some(head) = Head::of(&message) {
        // A request whose `_meta` cannot be read is refused, whatever else it says.
        let is_read =
            params.and_then(|params| params.get("_meta")).is_none_or(|meta| meta.is_object() || meta.is_null());
        let state = params.and_then(|params| params.get("requestState")).and_then(Value::as_str);
        assert_eq!(head.request_state.as_deref(), state.filter(|_| is_read));
        assert_eq!(head.progress_token, message.params().and_then(Meta::of).and_then(|meta| meta.progress_token));
    }
    let Some(raw) = message.params() else { return };
    let is_scalar = |value: &&Value| value.is_string() || value.is_number();
    let token = meta.and_then(|meta| meta.get("progressToken")).filter(is_scalar);
    let found = Meta::of(raw).and_then(|meta| meta.progress_token);
    assert_eq!(found.map(|id| read_id(id.as_json())).as_ref(), token);
    for member in ["name", "requestId", "progressToken", "uri"] {
        let wanted = params.and_then(|params| params.get(member)).filter(is_scalar);
        let found = scalar_param(raw, member);
        assert_eq!(found.as_ref().map(|id| read_id(id.as_json())).as_ref(), wanted);
        assert_eq!(string_param(raw, member).as_deref(), wanted.and_then(Value::as_str));
        // Ids are compared by meaning, whatever they are.
        let key = found.as_ref().map(IdKey::from);
        assert_eq!(key, found.as_ref().map(IdKey::from));
    }
}

fn read_id(json: &str) -> Value {
    serde_json::from_str(json).expect("an id is JSON")
}

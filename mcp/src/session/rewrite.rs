//! Changes of a message that leave every other byte alone, and the one message that is made here.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::envelope::{Id, Object};

/// `body` as one line: JSON holds raw line breaks only between tokens, where a space means the same.
#[must_use]
pub fn single_line(body: &Bytes) -> Bytes {
    on_one_line(body.slice_ref(body.trim_ascii()))
}

/// JSON, or a part of some, whose lines are one: what breaks them is white space there.
#[must_use]
pub fn on_one_line(json: Bytes) -> Bytes {
    let breaks = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !json.iter().any(breaks) {
        return json;
    }
    json.iter().map(|byte| if breaks(byte) { b' ' } else { *byte }).collect()
}

/// `body` with its id replaced by `id`, every other byte as it was; `None` where there is no id to replace.
#[must_use]
pub fn with_id(body: &[u8], id: &Id) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct WithId<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
    }
    replaced(body, object::<WithId<'_>>(body)?.id.get(), id)
}

/// `body` with `params.requestId` replaced by `id`, as [`with_id`] does it: `notifications/cancelled` for a peer that
/// knows the request by another id.
#[must_use]
pub fn with_request_id(body: &[u8], id: &Id) -> Option<Bytes> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct WithRequestId<'a> {
        #[serde(borrow)]
        request_id: &'a RawValue,
    }
    replaced(body, object::<WithRequestId<'_>>(params(body)?)?.request_id.get(), id)
}

/// `body` with `params._meta.progressToken` replaced by `token`, as [`with_id`] does it: a request for a peer that serves
/// several clients, whose tokens need not differ.
#[must_use]
pub fn with_progress_token_asked(body: &[u8], token: &Id) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct WithMeta<'a> {
        #[serde(borrow, rename = "_meta")]
        meta: &'a RawValue,
    }
    let meta = object::<WithMeta<'_>>(params(body)?)?.meta.get().as_bytes();
    replaced(body, object::<WithToken<'_>>(meta)?.progress_token.get(), token)
}

/// `body` with `params.progressToken` replaced by `token`, as [`with_id`] does it: `notifications/progress` for a client
/// that chose another token than its server was given.
#[must_use]
pub fn with_progress_token_told(body: &[u8], token: &Id) -> Option<Bytes> {
    replaced(body, object::<WithToken<'_>>(params(body)?)?.progress_token.get(), token)
}

/// `params` of `body`, as written.
fn params(body: &[u8]) -> Option<&[u8]> {
    #[derive(Deserialize)]
    struct WithParams<'a> {
        #[serde(borrow)]
        params: &'a RawValue,
    }
    object::<WithParams<'_>>(body).map(|message| message.params.get().as_bytes())
}

fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    serde_json::from_slice(json).ok().map(|Object(object)| object)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WithToken<'a> {
    #[serde(borrow)]
    progress_token: &'a RawValue,
}

/// `body` with the value `old`, which borrows from it, replaced by `id`.
fn replaced(body: &[u8], old: &str, id: &Id) -> Option<Bytes> {
    // `RawValue` borrows from `body`, so the difference of the addresses is where the id stands.
    let start = (old.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let (before, after) = (body.get(..start)?, body.get(start + old.len()..)?);
    let mut message = BytesMut::with_capacity(before.len() + id.as_json().len() + after.len());
    message.put_slice(before);
    message.put_slice(id.as_json().as_bytes());
    message.put_slice(after);
    Some(message.freeze())
}

/// `body` with the subscription that it belongs to replaced by `id`, as [`with_id`] does it: a notification of a
/// stream of them, or the answer that ends one, for a client that knows its request by another id. `None` where it belongs
/// to none.
#[must_use]
pub fn with_subscription_id(body: &[u8], id: &Id) -> Option<Bytes> {
    replaced(body, subscription_of(body)?.get(), id)
}

/// The id of the subscription that a notification or answer says it belongs to.
pub(crate) fn subscription_of(body: &[u8]) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        params: Option<Object<Holder<'a>>>,
        #[serde(borrow)]
        result: Option<Object<Holder<'a>>>,
    }
    #[derive(Deserialize)]
    struct Holder<'a> {
        #[serde(borrow, rename = "_meta")]
        meta: Option<Object<Meta<'a>>>,
    }
    #[derive(Deserialize)]
    struct Meta<'a> {
        #[serde(borrow, rename = "io.modelcontextprotocol/subscriptionId")]
        subscription: Option<&'a RawValue>,
    }
    let message: Message<'_> = object(body)?;
    message.params.or(message.result)?.0.meta?.0.subscription
}

/// The notification that tells a peer that nobody waits for request `id` any more.
#[must_use]
pub fn cancelled(id: &Id) -> Bytes {
    cancelled_because(id, "timed out")
}

/// The notification that tells a peer that nobody waits for request `id` any more, and why.
#[must_use]
pub fn cancelled_because(id: &Id, reason: &'static str) -> Bytes {
    let (id, reason) = (id.as_json(), serde_json::Value::from(reason));
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":{reason}}}}}"#)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bytes_of_the_id_change() {
        let body = br#" { "params" : {"id": 7, "n": 1.50}, "id" : "a\"b" , "jsonrpc":"2.0" }"#;
        let rewritten = with_id(body, &Id::number(42)).expect("has an id");
        let expected = r#" { "params" : {"id": 7, "n": 1.50}, "id" : 42 , "jsonrpc":"2.0" }"#;
        assert_eq!(rewritten, expected.as_bytes());
        assert_eq!(with_id(br#"{"method":"x"}"#, &Id::number(1)), None);
        let body = br#"{"id":1, "params":{"reason":"x", "requestId" : "a\"b"} }"#;
        let rewritten = with_request_id(body, &Id::number(42)).expect("has one");
        assert_eq!(rewritten, &br#"{"id":1, "params":{"reason":"x", "requestId" : 42} }"#[..]);
        assert_eq!(with_request_id(br#"{"requestId":1}"#, &Id::number(1)), None);
    }

    #[test]
    fn only_the_bytes_of_a_progress_token_change() {
        let asked = br#"{"id":1, "params":{"progressToken":2, "_meta" : {"x":1.50, "progressToken" : "a\"b" }} }"#;
        let rewritten = with_progress_token_asked(asked, &Id::string("own")).expect("has one");
        let expected = r#"{"id":1, "params":{"progressToken":2, "_meta" : {"x":1.50, "progressToken" : "own" }} }"#;
        assert_eq!(rewritten, expected.as_bytes());
        assert_eq!(with_progress_token_asked(br#"{"params":{"progressToken":1}}"#, &Id::number(1)), None);
        let told = br#"{"params" : {"_meta":{"progressToken":2}, "progressToken":"own", "progress":1.0}}"#;
        let rewritten = with_progress_token_told(told, &Id::number(0)).expect("has one");
        let expected = r#"{"params" : {"_meta":{"progressToken":2}, "progressToken":0, "progress":1.0}}"#;
        assert_eq!(rewritten, expected.as_bytes());
        assert_eq!(with_progress_token_told(br#"{"params":{}}"#, &Id::number(1)), None);
    }

    #[test]
    fn an_array_has_no_members_to_replace() {
        let id = Id::number(1);
        assert_eq!(with_id(b"[7]", &id), None);
        for params in ["[7]", r#"[{"progressToken":7}]"#, r#"{"_meta":[7]}"#, "[[7]]"] {
            let body = format!(r#"{{"params":{params}}}"#);
            for rewrite in [with_request_id, with_progress_token_asked, with_progress_token_told, with_subscription_id]
            {
                assert_eq!(rewrite(body.as_bytes(), &id), None, "{body}");
            }
        }
    }

    #[test]
    fn a_pretty_printed_message_becomes_one_line_and_stays_the_same_json() {
        let body = Bytes::from_static(b"\n{\r\n \"a\": \"x\\ny\"\n}\n");
        let line = single_line(&body);
        assert!(!line.contains(&b'\n'));
        let (one, other): (serde_json::Value, serde_json::Value) =
            (serde_json::from_slice(&body).expect("JSON"), serde_json::from_slice(&line).expect("JSON"));
        assert_eq!(one, other);
    }
}

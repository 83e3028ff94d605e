//! Changes of a message: the one value that is meant is replaced, every other byte is left alone.

use bytes::Bytes;
use portolan_mcp::envelope::{Id, Message, scalar_param};
use portolan_mcp::members::Members;
use portolan_mcp::scan::scan;
use portolan_mcp::session::{
    cancelled, single_line, with_id, with_progress_token_asked, with_progress_token_told, with_request_id,
    with_subscription_id,
};
use serde_json::Value;

type Rewrite = fn(&[u8], &Id) -> Option<Bytes>;

/// Each with where its value stands.
const REWRITES: [(&str, Rewrite); 4] = [
    ("/id", with_id),
    ("/params/requestId", with_request_id),
    ("/params/_meta/progressToken", with_progress_token_asked),
    ("/params/progressToken", with_progress_token_told),
];

/// Where the id of a subscription may stand; the first that is there counts.
const SUBSCRIPTION: [&str; 2] =
    ["/params/_meta/io.modelcontextprotocol~1subscriptionId", "/result/_meta/io.modelcontextprotocol~1subscriptionId"];

/// `body` is a message, or nearly one.
pub fn check(body: &[u8]) {
    let value = scan(body).ok().map(|()| serde_json::from_slice::<Value>(body).expect("what passes is JSON"));
    for (place, rewrite) in REWRITES {
        let rewritten = rewrite(body, &marker(body));
        if let Some(value) = &value {
            assert_eq!(rewritten.is_some(), value.pointer(place).is_some(), "{place}");
        }
        if let Some(rewritten) = rewritten {
            only_this(body, &rewritten, value.as_ref(), place);
        }
    }
    if let Some(rewritten) = with_subscription_id(body, &marker(body)) {
        let place =
            SUBSCRIPTION.iter().find(|place| value.as_ref().is_some_and(|value| value.pointer(place).is_some()));
        only_this(body, &rewritten, value.as_ref(), place.unwrap_or(&""));
    }
    is_one_line(body, value.as_ref());
    members(body);
    if let Ok(Message::Request(request)) = Message::parse(body) {
        let notification = cancelled(&request.id);
        let Ok(Message::Notification { method, params: Some(params) }) = Message::parse(&notification) else {
            panic!("{notification:?} is no notification")
        };
        assert_eq!(method, "notifications/cancelled");
        assert_eq!(scalar_param(params, "requestId"), Some(request.id));
    }
}

/// An id that stands nowhere in `body`.
fn marker(body: &[u8]) -> Id {
    let mut text = String::from("marker");
    while body.windows(text.len()).any(|window| window == text.as_bytes()) {
        text.push('x');
    }
    Id::string(&text)
}

fn only_this(body: &[u8], rewritten: &[u8], value: Option<&Value>, place: &str) {
    let id = marker(body);
    let id = id.as_json().as_bytes();
    let at = rewritten.windows(id.len()).position(|window| window == id).expect("the new value is in it");
    let (before, after) = (&rewritten[..at], &rewritten[at + id.len()..]);
    assert!(body.len() >= before.len() + after.len(), "{place}: something was doubled");
    assert!(body.starts_with(before) && body.ends_with(after), "{place}: another byte changed");
    let Some(value) = value else { return };
    let old = &body[before.len()..body.len() - after.len()];
    let old: Value = serde_json::from_slice(old).expect("a whole value was replaced");
    assert_eq!(Some(&old), value.pointer(place));
    let mut wanted = value.clone();
    *wanted.pointer_mut(place).expect("is there") = serde_json::from_slice(id).expect("JSON");
    assert_eq!(serde_json::from_slice::<Value>(rewritten).expect("still JSON"), wanted, "{place}");
}

/// An object read member by member and written again has the same members in the same order, each value as it was written.
fn members(body: &[u8]) {
    let Ok(text) = std::str::from_utf8(body) else { return };
    let Some(members) = Members::of(text) else {
        assert!(!serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object()));
        return;
    };
    let again = members.to_string();
    assert_eq!(Members::of(&again).as_ref(), Some(&members));
    if scan(body).is_ok() {
        assert_eq!(
            serde_json::from_str::<Value>(&again).expect("JSON"),
            serde_json::from_str::<Value>(text).expect("JSON")
        );
        assert!(members.iter().all(|(_, value)| text.contains(value)));
    }
}

fn is_one_line(body: &[u8], value: Option<&Value>) {
    let line = single_line(&Bytes::copy_from_slice(body));
    assert!(!line.iter().any(|byte| matches!(byte, b'\n' | b'\r')));
    let changed = body.trim_ascii().iter().zip(&line).filter(|(one, other)| one != other);
    assert!(changed.into_iter().all(|(one, other)| matches!(one, b'\n' | b'\r') && *other == b' '));
    assert_eq!(line.len(), body.trim_ascii().len());
    if let Some(value) = value {
        assert_eq!(serde_json::from_slice::<Value>(&line).expect("still JSON"), *value);
    }
}

//! Results of one server as an endpoint over several shows them.

use serde_json::value::RawValue;

use super::{Member, Origin};
use crate::members::Members;

/// Capabilities of several servers together: what one of them has, the endpoint has. It says itself when lists change, and
/// nothing of single resources.
#[must_use]
pub fn capabilities<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let mut together: Members<'static> = Members::default();
    for capabilities in all.into_iter().filter_map(Members::of) {
        for name in ["tools", "prompts", "resources", "completions"] {
            if capabilities.get(name).is_some() {
                together.set(name, if name == "completions" { "{}" } else { r#"{"listChanged":true}"# });
            }
        }
    }
    together.to_string()
}

/// The members of results in which resources are named, with the methods that give them.
const NAMING: [(&str, &str); 3] =
    [("tools/call", "content"), ("resources/read", "contents"), ("prompts/get", "messages")];

/// Whether results of `method` may name resources.
#[must_use]
pub fn names_resources(method: &str) -> bool {
    NAMING.iter().any(|(naming, _)| *naming == method)
}

/// The result that `member` gave, with its resources named as the endpoint names them. `None` where there is nothing to
/// change.
#[must_use]
pub fn of_member(member: Member<'_>, result: &str) -> Option<String> {
    // Most results name no resource, and are not read further.
    if !result.contains("\"uri\"") {
        return None;
    }
    let mut result = Members::of(result)?;
    let (_, list) = NAMING.into_iter().find(|(_, list)| result.get(list).is_some())?;
    let entries: Vec<&RawValue> = serde_json::from_str(result.get(list)?).ok()?;
    let entries: Vec<String> = entries
        .into_iter()
        .map(|entry| renamed(list, member, entry.get()).unwrap_or_else(|| entry.get().to_owned()))
        .collect();
    let entries = format!("[{}]", entries.join(","));
    result.set(list, entries);
    Some(result.to_string())
}

fn renamed(list: &str, member: Member<'_>, entry: &str) -> Option<String> {
    match list {
        "contents" => with_uri(member, entry),
        "messages" => {
            let mut message = Members::of(entry)?;
            let content = renamed("content", member, message.get("content")?)?;
            message.set("content", content);
            Some(message.to_string())
        }
        _ => {
            let mut content = Members::of(entry)?;
            match content.string("type").as_deref() {
                Some("resource_link") => with_uri(member, entry),
                Some("resource") => {
                    let resource = with_uri(member, content.get("resource")?)?;
                    content.set("resource", resource);
                    Some(content.to_string())
                }
                _ => None,
            }
        }
    }
}

fn with_uri(member: Member<'_>, json: &str) -> Option<String> {
    let mut members = Members::of(json)?;
    let uri = serde_json::Value::from(member.uri(&members.string("uri")?)).to_string();
    members.set("uri", uri);
    Some(members.to_string())
}

/// An id or a token of `origin`, JSON, as a string that says whose it is.
fn marked(origin: Origin<'_>, json: &str) -> String {
    serde_json::Value::from(origin.marked(json)).to_string()
}

/// A request or notification of `origin` in which ids and tokens of its own say whose they are, so that what a client
/// says about them finds the way back; `None` where there are none, or `message` is no object.
#[must_use]
pub fn with_origin(message: &str, origin: Origin<'_>) -> Option<String> {
    let mut members = Members::of(message)?;
    let params = members.get("params").map(ToOwned::to_owned);
    let params = params.as_deref().and_then(Members::of);
    if let Some(id) = members.get("id").map(|id| marked(origin, id)) {
        members.set("id", id);
        if let Some(params) = params.and_then(|params| with_token(params, origin)) {
            members.set("params", params);
        }
        return Some(members.to_string());
    }
    // Of what servers tell, this is about a request of their own; progress is about one of the client's.
    (members.string("method").as_deref() == Some("notifications/cancelled")).then_some(())?;
    let mut params = params?;
    let id = marked(origin, params.get("requestId")?);
    params.set("requestId", id);
    members.set("params", params.to_string());
    Some(members.to_string())
}

fn with_token(mut params: Members<'_>, origin: Origin<'_>) -> Option<String> {
    let meta = params.get("_meta")?.to_owned();
    let mut meta = Members::of(&meta)?;
    let token = marked(origin, meta.get("progressToken")?);
    meta.set("progressToken", token);
    let meta = meta.to_string();
    params.set("_meta", meta);
    Some(params.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: Member<'static> = Member { namespace: "n", server: "s" };

    #[test]
    fn what_one_server_has_the_endpoint_has() {
        let together = capabilities([
            r#"{"tools":{},"logging":{}}"#,
            r#"{"resources":{"subscribe":true},"completions":{},"x":{}}"#,
            "no object",
        ]);
        assert_eq!(together, r#"{"tools":{"listChanged":true},"resources":{"listChanged":true},"completions":{}}"#);
        assert_eq!(capabilities([]), "{}");
    }

    #[test]
    fn resources_in_results_are_named_as_the_endpoint_names_them() {
        let told = of_member(
            MEMBER,
            r#"{"content":[{"type":"text","text":"\"uri\""},{"type":"resource_link","uri":"a:b","n":1.0},{"type":"resource","resource":{"uri":"c:d","text":""}}],"x":1e2}"#,
        );
        assert_eq!(
            told.as_deref(),
            Some(
                r#"{"content":[{"type":"text","text":"\"uri\""},{"type":"resource_link","uri":"s.n+a:b","n":1.0},{"type":"resource","resource":{"uri":"s.n+c:d","text":""}}],"x":1e2}"#
            )
        );
        let told = of_member(MEMBER, r#"{"contents":[{"uri":"a:b"}]}"#);
        assert_eq!(told.as_deref(), Some(r#"{"contents":[{"uri":"s.n+a:b"}]}"#));
        let told =
            of_member(MEMBER, r#"{"messages":[{"role":"user","content":{"type":"resource_link","uri":"a:b"}}]}"#);
        assert_eq!(
            told.as_deref(),
            Some(r#"{"messages":[{"role":"user","content":{"type":"resource_link","uri":"s.n+a:b"}}]}"#)
        );
        assert_eq!(of_member(MEMBER, r#"{"content":[]}"#), None);
        assert_eq!(of_member(MEMBER, r#"{"uri":1,"other":[{"uri":"a:b"}]}"#), None);
    }

    #[test]
    fn what_a_server_asks_and_takes_back_says_whose_it_is() {
        let marked = |message: &str| with_origin(message, Origin { member: MEMBER, part: "p" });
        assert_eq!(
            marked(
                r#"{"id":7,"method":"sampling/createMessage","params":{"_meta":{"progressToken":"t","x":1.0},"y":[ ]}}"#
            )
            .as_deref(),
            Some(
                r#"{"id":"s.n+p@7","method":"sampling/createMessage","params":{"_meta":{"progressToken":"s.n+p@\"t\"","x":1.0},"y":[ ]}}"#
            )
        );
        assert_eq!(
            marked(r#"{"id":"a","method":"roots/list"}"#).as_deref(),
            Some(r#"{"id":"s.n+p@\"a\"","method":"roots/list"}"#)
        );
        assert_eq!(
            marked(r#"{"method":"notifications/cancelled","params":{"requestId":7}}"#).as_deref(),
            Some(r#"{"method":"notifications/cancelled","params":{"requestId":"s.n+p@7"}}"#)
        );
        for own in [
            r#"{"method":"notifications/progress","params":{"progressToken":7,"progress":1}}"#,
            r#"{"method":"notifications/cancelled"}"#,
            "[]",
        ] {
            assert_eq!(marked(own), None, "{own}");
        }
    }
}

//! Results of one server as an endpoint over several shows them.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::Member;
use crate::envelope::Id;
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

/// The result of `method` that `member` gave, with its resources named as the endpoint names them. `None` where there is
/// nothing to change.
#[must_use]
pub fn of_member(method: &str, member: Member<'_>, result: &str) -> Option<String> {
    let list = match method {
        "tools/call" => "content",
        "resources/read" => "contents",
        "prompts/get" => "messages",
        _ => return None,
    };
    // Most results name no resource, and are not read further.
    if !result.contains("\"uri\"") {
        return None;
    }
    let mut result = Members::of(result)?;
    let entries: Vec<&RawValue> = serde_json::from_str(result.get(list)?).ok()?;
    let entries: Vec<String> = entries
        .into_iter()
        .map(|entry| renamed(method, member, entry.get()).unwrap_or_else(|| entry.get().to_owned()))
        .collect();
    let entries = format!("[{}]", entries.join(","));
    result.set(list, entries);
    Some(result.to_string())
}

fn renamed(method: &str, member: Member<'_>, entry: &str) -> Option<String> {
    match method {
        "resources/read" => with_uri(member, entry),
        "prompts/get" => {
            let mut message = Members::of(entry)?;
            let content = renamed("tools/call", member, message.get("content")?)?;
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

/// A request of `member` with an id that says whose it is, so that its answer finds the way back; `None` where `message` is
/// no object.
#[must_use]
pub fn with_member_ids(message: &str, member: Member<'_>, id: &Id) -> Option<String> {
    let mut members = Members::of(message)?;
    let id: Cow<'_, str> = serde_json::Value::from(member.uri(id.as_json())).to_string().into();
    members.set("id", id);
    Some(members.to_string())
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
            "tools/call",
            MEMBER,
            r#"{"content":[{"type":"text","text":"\"uri\""},{"type":"resource_link","uri":"a:b","n":1.0},{"type":"resource","resource":{"uri":"c:d","text":""}}],"x":1e2}"#,
        );
        assert_eq!(
            told.as_deref(),
            Some(
                r#"{"content":[{"type":"text","text":"\"uri\""},{"type":"resource_link","uri":"s.n+a:b","n":1.0},{"type":"resource","resource":{"uri":"s.n+c:d","text":""}}],"x":1e2}"#
            )
        );
        let told = of_member("resources/read", MEMBER, r#"{"contents":[{"uri":"a:b"}]}"#);
        assert_eq!(told.as_deref(), Some(r#"{"contents":[{"uri":"s.n+a:b"}]}"#));
        let told = of_member(
            "prompts/get",
            MEMBER,
            r#"{"messages":[{"role":"user","content":{"type":"resource_link","uri":"a:b"}}]}"#,
        );
        assert_eq!(
            told.as_deref(),
            Some(r#"{"messages":[{"role":"user","content":{"type":"resource_link","uri":"s.n+a:b"}}]}"#)
        );
        assert_eq!(of_member("tools/call", MEMBER, r#"{"content":[]}"#), None);
        assert_eq!(of_member("tools/list", MEMBER, r#"{"uri":1}"#), None);
    }
}

//! Headers in which a client repeats what its request says ("Request Metadata").

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use serde_json::value::RawValue;

use super::head::same_by;
use super::{Head, METHOD_HEADER, NAME_HEADER, VERSION_HEADER};
use crate::failure::Failure;
use crate::revision::MODERN;

/// The member of a parameter's schema that names its header.
const MARK: &str = "x-mcp-header";
/// How deep parameters may lie that have a header.
const MAX_DEPTH: usize = 16;

/// The headers that a request with this head is sent with; `schema` is the input schema of the tool that it calls and
/// `arguments` what it calls it with.
#[must_use]
pub fn headers_of(head: &Head<'_>, schema: Option<&Value>, arguments: Option<&Value>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(VERSION_HEADER, HeaderValue::from_static(MODERN[0]));
    let texts = [(METHOD_HEADER, Some(&*head.method)), (NAME_HEADER, head.name.as_deref())];
    for (name, text) in texts {
        if let Some(value) = text.and_then(header_value) {
            headers.insert(name, value);
        }
    }
    if let (Some(schema), Some(arguments)) = (schema, arguments) {
        add_params(schema, arguments, &mut headers);
    }
    headers
}

/// Whether the headers of a call say what its arguments say, for every parameter that has one ("Server Behavior for Custom
/// Headers").
///
/// # Errors
/// [`Kind::HeaderMismatch`](crate::failure::Kind::HeaderMismatch), with the header that is missing, damaged or another.
pub fn check_params(schema: &Value, arguments: &Value, headers: &HeaderMap) -> Result<(), Failure> {
    let mut params = Vec::new();
    collect(schema, arguments, MAX_DEPTH, &mut params);
    for (name, argument) in params {
        let Some(text) = written(argument) else { continue };
        same_by(headers, &name, &text, |value| match argument {
            // The same number may be written in more than one way.
            Value::Number(number) => value.parse().ok() == number.as_f64(),
            _ => value == text,
        })?;
    }
    Ok(())
}

/// A list of tools, JSON, without those whose schemas mark parameters in a way that no client may follow ("Schema
/// Extension"). `None` where there is none to leave out.
#[must_use]
pub fn without_unsound_tools(tools: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Tool {
        #[serde(default, rename = "inputSchema")]
        schema: Value,
    }
    if !tools.contains(MARK) {
        return None;
    }
    let tools: Vec<&RawValue> = serde_json::from_str(tools).ok()?;
    let is_sound = |tool: &&RawValue| {
        let schema = serde_json::from_str::<Tool>(tool.get()).map(|tool| tool.schema).unwrap_or_default();
        marks_are_sound(&schema, MAX_DEPTH, &mut HashSet::new())
    };
    let sound: Vec<&str> = tools.iter().copied().filter(is_sound).map(RawValue::get).collect();
    (sound.len() < tools.len()).then(|| format!("[{}]", sound.join(",")))
}

/// Whether every mark is the name of a header, no other parameter's, and on a parameter that a header can say.
fn marks_are_sound(schema: &Value, depth: usize, seen: &mut HashSet<HeaderName>) -> bool {
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    properties.into_iter().all(|(_, property)| {
        let is_sound = property.get(MARK).is_none_or(|mark| {
            let name = mark.as_str().filter(|name| !name.is_empty()).and_then(header_name);
            name.is_some_and(|name| seen.insert(name)) && is_written(property)
        });
        is_sound && (depth == 0 || marks_are_sound(property, depth - 1, seen))
    })
}

/// Whether a header can say what the parameter is.
fn is_written(property: &Value) -> bool {
    let type_ = property.get("type").and_then(Value::as_str);
    type_.is_none_or(|type_| matches!(type_, "string" | "integer" | "boolean"))
}

/// The header of a parameter that is marked with `mark`.
fn header_name(mark: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(format!("mcp-param-{mark}").to_ascii_lowercase().as_bytes()).ok()
}

fn add_params(schema: &Value, arguments: &Value, headers: &mut HeaderMap) {
    let mut params = Vec::new();
    collect(schema, arguments, MAX_DEPTH, &mut params);
    for (name, argument) in params {
        if let Some(value) = written(argument).and_then(|text| header_value(&text)) {
            headers.insert(name, value);
        }
    }
}

/// Parameters whose schema says `x-mcp-header`, reached through `properties` alone ("Schema Extension").
fn collect<'a>(schema: &Value, arguments: &'a Value, depth: usize, found: &mut Vec<(HeaderName, &'a Value)>) {
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    for (name, property) in properties {
        let Some(argument) = arguments.get(name) else { continue };
        let name = property.get(MARK).and_then(Value::as_str).and_then(header_name);
        found.extend(name.map(|name| (name, argument)));
        if depth > 0 {
            collect(property, argument, depth - 1, found);
        }
    }
}

/// A value as a header has it; `None` for what has none.
fn written(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

/// The value of a header that says `text`.
#[must_use]
pub fn header_value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&encoded(text)).ok()
}

/// Text made safe for a header ("Value Encoding").
fn encoded(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
        && text.trim_matches([' ', '\t']).len() == text.len()
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    if is_plain { text.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Message;
    use crate::failure::Kind;
    use serde_json::json;

    #[test]
    fn tools_that_mark_what_no_header_can_say_are_left_out_and_the_others_keep_their_bytes() {
        let tool = |name: &str, properties: Value| {
            format!(r#"{{ "name":"{name}","inputSchema":{}}}"#, json!({ "properties": properties }))
        };
        let marked = |type_: &str, mark: Value| json!({"x": {"type": type_, "x-mcp-header": mark}});
        let fine = [
            tool("none", json!({"x": {"type": "number"}})),
            tool("one", marked("string", json!("Region"))),
            tool("deep", json!({"a": {"properties": marked("integer", json!("N"))}, "b": {"x-mcp-header": "M"}})),
        ];
        let same = json!({"a": {"x-mcp-header": "Same"}, "b": {"properties": {"c": {"x-mcp-header": "same"}}}});
        let unsound = [
            tool("empty", marked("string", json!(""))),
            tool("space", marked("string", json!("a b"))),
            tool("text", marked("string", json!(7))),
            tool("number", marked("number", json!("N"))),
            tool("object", marked("object", json!("N"))),
            tool("same", same),
        ];
        let all = format!("[{},{}]", unsound.join(","), fine.join(", "));
        assert_eq!(without_unsound_tools(&all), Some(format!("[{}]", fine.join(","))));
        assert_eq!(without_unsound_tools(&format!("[{}]", fine.join(", "))), None);
        assert_eq!(without_unsound_tools("7"), None);
    }

    #[test]
    fn what_a_schema_marks_is_repeated_in_a_header_made_safe() {
        let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"caf\u00e9"}}"#;
        let message = Message::parse(body).expect("a message");
        let head = Head::of(&message).expect("a request");
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
            "list": {"items": {"properties": {"x": {"x-mcp-header": "X"}}}},
            "missing": {"x-mcp-header": "Missing"},
            "null": {"x-mcp-header": "Null"},
            "bad": {"x-mcp-header": "a b"},
            "padded": {"x-mcp-header": "Padded"},
            "flag": {"x-mcp-header": "Flag"},
        }});
        let arguments = json!({"region": "us-west1", "deep": {"n": 42}, "list": [{"x": 1}], "null": null, "bad": "x",
            "padded": " p ", "flag": true});
        let headers = headers_of(&head, Some(&schema), Some(&arguments));
        let mut found: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("mcp-method", "tools/call"),
                ("mcp-name", "=?base64?Y2Fmw6k=?="),
                ("mcp-param-flag", "true"),
                ("mcp-param-n", "42"),
                ("mcp-param-padded", "=?base64?IHAg?="),
                ("mcp-param-region", "us-west1"),
                ("mcp-protocol-version", "2026-07-28"),
            ]
        );
        assert_eq!(encoded("=?base64?x?="), "=?base64?PT9iYXNlNjQ/eD89?=");
        assert_eq!(check_params(&schema, &arguments, &headers), Ok(()));
        let with = |name: &'static str, value: &'static str| {
            let mut headers = headers.clone();
            headers.insert(name, HeaderValue::from_static(value));
            check_params(&schema, &arguments, &headers).map_err(|failure| failure.kind)
        };
        assert_eq!(with("mcp-param-n", "42.0"), Ok(()));
        for (name, value) in [
            ("mcp-param-n", "43"),
            ("mcp-param-region", "=?base64?%?="),
            ("mcp-param-region", "us"),
            ("mcp-param-padded", "p"),
            ("mcp-param-flag", "True"),
        ] {
            assert_eq!(with(name, value), Err(Kind::HeaderMismatch), "{name}: {value}");
        }
        let mut missing = headers.clone();
        missing.remove("mcp-param-region");
        assert!(check_params(&schema, &arguments, &missing).is_err());
        assert_eq!(check_params(&schema, &json!({}), &HeaderMap::new()), Ok(()));
    }
}

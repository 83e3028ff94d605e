//! Arguments of a tool call: `k=v` typed by the tool's schema, or one JSON object.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::exit::Failure;

/// `name=value` as written.
#[derive(Clone, Debug)]
pub(super) struct Argument {
    name: String,
    text: String,
}

/// Reads `name=value`.
pub(super) fn argument(text: &str) -> Result<Argument, String> {
    match text.split_once('=') {
        Some((name, text)) if !name.is_empty() => Ok(Argument { name: name.to_owned(), text: text.to_owned() }),
        _ => Err("write NAME=VALUE, such as message=hello".into()),
    }
}

/// Reads the object of `--args-json`.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("the arguments of a tool are one JSON object, such as {\"a\": 1}".into()),
        Err(error) => Err(format!("{error}: write one JSON object, such as {{\"a\": 1}}")),
    }
}

/// The arguments as the tool's `schema` wants them: a string stays a string, everything else is parsed.
pub(super) fn typed(schema: &Map<String, Value>, arguments: &[Argument]) -> Result<Map<String, Value>, Failure> {
    let mut object = Map::new();
    for Argument { name, text } in arguments {
        let property = schema.get("properties").and_then(|properties| properties.get(name));
        if property.is_none() && schema.get("additionalProperties") == Some(&Value::Bool(false)) {
            return Err(unknown(schema, name));
        }
        let value = value(schema, property, text)
            .map_err(|wanted| Failure::usage(format!("argument {name}={text}: the tool wants {wanted}")))?;
        if object.insert(name.clone(), value).is_some() {
            return Err(Failure::usage(format!("argument {name} is given twice"))
                .hint(format!("for several values write one JSON array: {name}='[…]'")));
        }
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let missing: Vec<&str> = required.filter(|name| !object.contains_key(*name)).collect();
    if missing.is_empty() {
        Ok(object)
    } else {
        Err(Failure::usage(format!("the tool needs {}", missing.join(", "))).hint("write NAME=VALUE for each"))
    }
}

fn unknown(schema: &Map<String, Value>, name: &str) -> Failure {
    let names: Vec<&str> =
        schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(name, _)| &**name).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Failure::usage(format!("the tool has no argument {name}")).hint(format!("its arguments: {known}"))
}

fn value(root: &Map<String, Value>, property: Option<&Value>, text: &str) -> Result<Value, String> {
    let mut types = BTreeSet::new();
    if let Some(property) = property {
        collect_types(root, property, &mut types, 0);
    }
    if types.len() == 1 && types.contains("string") {
        return Ok(text.into());
    }
    let parsed = serde_json::from_str::<Value>(text).ok().filter(|value| types.is_empty() || fits(&types, value));
    match parsed {
        Some(value) => Ok(value),
        None if types.is_empty() || types.contains("string") => Ok(text.into()),
        None => Err(types.into_iter().map(|kind| format!("JSON {kind}")).collect::<Vec<_>>().join(" or ")),
    }
}

/// Names of the types that `schema` admits; none when it does not say.
fn collect_types(root: &Map<String, Value>, schema: &Value, types: &mut BTreeSet<String>, depth: usize) {
    // A schema that refers to itself says nothing more the second time.
    const DEEPEST: usize = 8;
    if depth > DEEPEST {
        return;
    }
    match schema.get("type") {
        Some(Value::String(kind)) => _ = types.insert(kind.clone()),
        Some(Value::Array(kinds)) => types.extend(kinds.iter().filter_map(Value::as_str).map(str::to_owned)),
        _ => {}
    }
    for constant in schema.get("enum").and_then(Value::as_array).into_iter().flatten().chain(schema.get("const")) {
        types.insert(kind_of(constant).to_owned());
    }
    for keyword in ["anyOf", "oneOf", "allOf"] {
        for part in schema.get(keyword).and_then(Value::as_array).into_iter().flatten() {
            collect_types(root, part, types, depth + 1);
        }
    }
    let pointer = schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix("#/"));
    let target = pointer.and_then(|pointer| {
        let (first, rest) = pointer.split_once('/')?;
        root.get(first)?.pointer(&format!("/{rest}"))
    });
    if let Some(target) = target {
        collect_types(root, target, types, depth + 1);
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn fits(types: &BTreeSet<String>, value: &Value) -> bool {
    let kind = kind_of(value);
    types.contains(kind) || (kind == "integer" && types.contains("number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn typed_one(property: &Value, text: &str) -> Result<Value, Failure> {
        let schema = json!({"properties": {"p": property}, "$defs": {"n": {"type": "number"}}});
        let arguments = [argument(&format!("p={text}")).expect("an argument")];
        typed(schema.as_object().expect("an object"), &arguments).map(|object| object["p"].clone())
    }

    #[test]
    fn a_value_becomes_what_the_schema_says_and_a_string_stays_a_string() {
        for (property, text, expected) in [
            (json!({"type": "string"}), "42", json!("42")),
            (json!({"type": "string"}), "true", json!("true")),
            (json!({"type": "string"}), "a=b", json!("a=b")),
            (json!({"type": "number"}), "2.5", json!(2.5)),
            (json!({"type": "number"}), "2", json!(2)),
            (json!({"type": "integer"}), "-3", json!(-3)),
            (json!({"type": "boolean"}), "false", json!(false)),
            (json!({"type": "object"}), r#"{"a":1}"#, json!({"a": 1})),
            (json!({"type": "array"}), "[1,2]", json!([1, 2])),
            (json!({"type": ["integer", "null"]}), "null", json!(null)),
            (json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}), "7", json!(7)),
            (json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}), "seven", json!("seven")),
            (json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), "42", json!("42")),
            (json!({"$ref": "#/$defs/n"}), "1", json!(1)),
            (json!({"enum": ["1", "2"]}), "1", json!("1")),
            (json!({}), "1", json!(1)),
            (json!({}), "one", json!("one")),
        ] {
            assert_eq!(typed_one(&property, text).expect("fits"), expected, "{property} {text}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_with_what_the_tool_wants() {
        for (property, text) in [("number", "two"), ("integer", "2.5"), ("boolean", "yes"), ("object", "[1]")] {
            let failure = typed_one(&json!({"type": property}), text).expect_err("does not fit");
            assert!(failure.message.contains(property), "{}", failure.message);
        }
    }

    #[test]
    fn a_required_argument_that_is_not_given_is_named() {
        let schema = json!({"properties": {"a": {}, "b": {}, "c": {}}, "required": ["a", "b", "c"]});
        let arguments = [argument("b=1").expect("an argument")];
        let failure = typed(schema.as_object().expect("an object"), &arguments).expect_err("two are missing");
        assert_eq!(failure.message, "the tool needs a, c");
    }

    #[test]
    fn an_argument_that_the_tool_does_not_have_is_refused_when_its_schema_is_closed() {
        let schema = json!({"properties": {"message": {}}, "additionalProperties": false});
        let arguments = [argument("mesage=hi").expect("an argument")];
        let failure = typed(schema.as_object().expect("an object"), &arguments).expect_err("unknown");
        assert_eq!(failure.hint.as_deref(), Some("its arguments: message"));
    }
}

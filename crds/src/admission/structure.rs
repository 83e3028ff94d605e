//! What Kubernetes adds to JSON Schema: unknown fields, nulls, integers or strings, list keys.

use serde_json::{Map, Value};

use super::{Path, Violation};

/// Fields of every object that its CRD's schema need not mention.
const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops nulls that stand for absent fields and returns what JSON Schema does not say about the rest.
pub(super) fn check(schema: &Value, object: &mut Value) -> Vec<Violation> {
    let mut violations = Vec::new();
    visit(schema, object, &Path::default(), &mut violations);
    violations
}

fn visit(schema: &Value, value: &mut Value, path: &Path, violations: &mut Vec<Violation>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true && !value.is_null() {
        return;
    }
    if schema["x-kubernetes-int-or-string"] == true && !(value.is_string() || value.is_i64()) {
        violations.push(Violation {
            path: path.to_string(),
            message: format!("{value} is neither an integer nor a string: write it in quotes"),
        });
    }
    match value {
        Value::Object(fields) => visit_object(schema, fields, path, violations),
        Value::Array(items) => {
            violations.extend(duplicates(schema, items, path));
            for (index, item) in items.iter_mut().enumerate() {
                visit(&schema["items"], item, &path.item(index), violations);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn visit_object(schema: &Value, fields: &mut Map<String, Value>, path: &Path, violations: &mut Vec<Violation>) {
    if let Some(values @ Value::Object(_)) = schema.get("additionalProperties") {
        for (key, value) in fields {
            visit(values, value, &path.field(key), violations);
        }
        return;
    }
    fields.retain(|name, value| !value.is_null() || schema["properties"][name]["nullable"] == true);
    for (name, value) in fields {
        match schema["properties"].get(name) {
            Some(field) => visit(field, value, &path.field(name), violations),
            None if path.is_root() && OBJECT_FIELDS.contains(&name.as_str()) => {}
            None => violations
                .push(Violation { path: String::new(), message: format!("unknown field \"{}\"", path.field(name)) }),
        }
    }
}

/// Items of a list of named objects that repeat the keys of an earlier one.
fn duplicates(schema: &Value, items: &[Value], path: &Path) -> Vec<Violation> {
    if schema["x-kubernetes-list-type"] != "map" {
        return Vec::new();
    }
    let names: Vec<&str> =
        schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let keys: Vec<Vec<&Value>> = items.iter().map(|item| names.iter().map(|name| &item[name]).collect()).collect();
    let repeated = (0..keys.len()).filter(|&index| keys[..index].contains(&keys[index]));
    repeated
        .map(|index| Violation {
            path: path.item(index).to_string(),
            message: format!("Duplicate value: write each {} once", names.join(" and ")),
        })
        .collect()
}

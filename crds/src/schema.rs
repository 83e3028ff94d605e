//! Adjustments of derived schemas to what Kubernetes expects.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, transform::transform_subschemas};
use serde_json::Value;

/// Longest text of a quantity: every number that Kubernetes can represent fits.
const MAX_QUANTITY_LENGTH: u32 = 32;

/// An absent optional field is absent, never `null`.
///
/// schemars marks every `Option` as nullable. The API server then keeps an explicit `null`, for which CEL's `has()` is
/// true; without the mark it drops the `null` as if the field had not been written.
pub(crate) fn absent_not_null(schema: &mut Schema) {
    transform_subschemas(&mut absent_not_null, schema);
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    let Some(Value::Array(variants)) = object.get_mut("anyOf") else { return };
    variants.retain(|variant| variant["type"] != "null");
    if let [Value::Object(only)] = variants.as_mut_slice() {
        let only = std::mem::take(only);
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}

/// A map from resource name to quantity, written as a string (`500m`, `1Gi`) or an integer.
pub(crate) fn quantities(_: &mut SchemaGenerator) -> Schema {
    let quantity = json_schema!({"x-kubernetes-int-or-string": true, "maxLength": MAX_QUANTITY_LENGTH});
    json_schema!({"type": "object", "maxProperties": 16, "additionalProperties": quantity})
}

/// One quantity, written as a string (`64Mi`) or an integer. Not nullable, which kube would otherwise make it.
pub(crate) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true, "maxLength": MAX_QUANTITY_LENGTH, "nullable": false})
}

/// Up to 64 strings of up to 1024 characters, keyed like labels or annotations.
pub(crate) fn string_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 1024},
    })
}

/// Up to 16 group ids that are not root's.
pub(crate) fn group_ids(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {"type": "integer", "format": "int64", "minimum": 1, "maximum": i32::MAX},
    })
}

/// Strings, each at most `LENGTH` characters, at most `ITEMS` of them.
pub(crate) fn strings<const ITEMS: u32, const LENGTH: u32>(generator: &mut SchemaGenerator) -> Schema {
    let mut item = String::json_schema(generator);
    item.insert("maxLength".into(), LENGTH.into());
    json_schema!({"type": "array", "maxItems": ITEMS, "items": item})
}

/// The same, of which there is at least one where the list is written, and none is empty.
pub(crate) fn some_strings<const ITEMS: u32, const LENGTH: u32>(_: &mut SchemaGenerator) -> Schema {
    let item = json_schema!({"type": "string", "minLength": 1, "maxLength": LENGTH});
    json_schema!({"type": "array", "minItems": 1, "maxItems": ITEMS, "items": item})
}

/// An object with whatever members.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Any value. Not nullable, which kube would otherwise make it.
pub(crate) fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true, "nullable": false})
}

//! Whether a live object is already what we want, without knowing the API server's defaults.
//!
//! Two questions: does it hold everything that we want ([`contains`]), and did someone add what we do not want
//! ([`surplus`], answered from the managed fields: what another manager owns and we did not ask for).

use serde_json::Value;

/// Whether `live` holds everything in `desired`. Maps may hold more (the server's defaults), but not those that select
/// something; lists must have the same length and order; quantities are compared as numbers; an empty list or map equals an absent one.
#[must_use]
pub fn contains(live: &Value, desired: &Value) -> bool {
    holds(Some(live), desired, Text::Plain)
}

/// How strings below a field compare.
#[derive(Clone, Copy, PartialEq)]
enum Text {
    Plain,
    Quantity,
}

fn holds(live: Option<&Value>, desired: &Value, text: Text) -> bool {
    match (live, desired) {
        (None | Some(Value::Null), wanted) => is_empty(wanted),
        (Some(Value::Object(live)), Value::Object(desired)) => desired.iter().all(|(key, wanted)| {
            let text = if is_quantity_field(key) { Text::Quantity } else { text };
            holds(live.get(key), wanted, text) && (!is_selector(key) || has_no_more(live.get(key), wanted))
        }),
        (Some(Value::Array(live)), Value::Array(desired)) => {
            live.len() == desired.len()
                && live.iter().zip(desired).all(|(live, wanted)| holds(Some(live), wanted, Text::Plain))
        }
        (Some(Value::String(live)), Value::String(desired)) if text == Text::Quantity => same_quantity(live, desired),
        (Some(live), desired) => live == desired || (is_empty(live) && is_empty(desired)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
}

/// Maps of which one more entry changes what all of them say. They are atomic, so managed fields do not tell of it.
fn is_selector(key: &str) -> bool {
    matches!(key, "selector" | "matchLabels" | "nodeSelector")
}

fn has_no_more(live: Option<&Value>, desired: &Value) -> bool {
    let size = |value: &Value| value.as_object().map_or(0, serde_json::Map::len);
    live.map_or(0, size) <= size(desired)
}

/// Fields whose strings, direct or one level below, are quantities.
fn is_quantity_field(key: &str) -> bool {
    matches!(key, "limits" | "requests" | "sizeLimit" | "divisor")
}

fn same_quantity(one: &str, other: &str) -> bool {
    one == other || matches!((nanos(one), nanos(other)), (Some(one), Some(other)) if one == other)
}

/// A quantity in billionths; `None` when it is not one, or too large to compare.
fn nanos(quantity: &str) -> Option<i128> {
    const NANO: i128 = 1_000_000_000;
    let end = quantity.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(end);
    let unit: i128 = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => NANO,
        "k" => NANO * 1_000,
        "M" => NANO * 1_000_000,
        "G" => NANO * 1_000_000_000,
        "T" => NANO * 1_000_000_000_000,
        "P" => NANO * 1_000_000_000_000_000,
        "Ki" => NANO << 10,
        "Mi" => NANO << 20,
        "Gi" => NANO << 30,
        "Ti" => NANO << 40,
        "Pi" => NANO << 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    // A fraction of a billionth rounds up, as the API server rounds.
    let scaled = digits.checked_mul(unit)?;
    Some(scaled / scale + i128::from(scaled % scale != 0))
}

/// The first field outside metadata and status that a manager other than `manager`'s apply owns and that `desired`
/// does not have. Server-side apply leaves such fields alone, so they have to be removed by a replace.
#[must_use]
pub fn surplus(live: &Value, desired: &Value, manager: &str) -> Option<String> {
    let kind = live.get("kind").and_then(Value::as_str).unwrap_or_default();
    let entries = live.pointer("/metadata/managedFields")?.as_array()?;
    entries
        .iter()
        .filter(|entry| !is_ours(entry, manager) && !is_subresource(entry))
        .filter_map(|entry| entry.get("fieldsV1")?.as_object())
        .flat_map(|fields| fields.iter())
        .filter(|(field, _)| !is_tolerated(kind, field))
        .find_map(|(field, owned)| unwanted(field, owned, Some(desired), ""))
}

fn is_ours(entry: &Value, manager: &str) -> bool {
    entry.get("manager").and_then(Value::as_str) == Some(manager)
        && entry.get("operation").and_then(Value::as_str) == Some("Apply")
}

fn is_subresource(entry: &Value) -> bool {
    entry.get("subresource").and_then(Value::as_str).is_some_and(|name| !name.is_empty())
}

/// What others may add: labels and annotations, status, and the pull secrets that some clusters give every account.
fn is_tolerated(kind: &str, field: &str) -> bool {
    matches!(field, "f:metadata" | "f:status")
        || (kind == "ServiceAccount" && matches!(field, "f:secrets" | "f:imagePullSecrets"))
}

/// Walks one key of `fieldsV1` (`f:` a field, `k:` a list item by its keys, `v:` a set's member) beside `desired`.
fn unwanted(key: &str, owned: &Value, desired: Option<&Value>, path: &str) -> Option<String> {
    if key == "." {
        return None;
    }
    let (how, what) = key.split_once(':')?;
    let here = format!("{path}.{what}");
    let wanted = match how {
        "f" => desired.and_then(|desired| desired.get(what)),
        "k" => item(desired, |item| has_keys(item, what)),
        "v" => {
            let member: Value = serde_json::from_str(what).ok()?;
            item(desired, |item| *item == member)
        }
        // `i:` names list items by position, which atomic lists do not record.
        _ => return None,
    };
    let Some(wanted) = wanted else { return Some(here.trim_start_matches('.').to_owned()) };
    owned.as_object()?.iter().find_map(|(key, owned)| unwanted(key, owned, Some(wanted), &here))
}

fn item(list: Option<&Value>, is_it: impl Fn(&Value) -> bool) -> Option<&Value> {
    list?.as_array()?.iter().find(|item| is_it(item))
}

/// A key that `item` leaves to the server's default (`protocol: TCP`) does not tell it apart.
fn has_keys(item: &Value, keys: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, Value>>(keys)
        .is_ok_and(|keys| keys.iter().all(|(name, value)| item.get(name).is_none_or(|own| own == value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_that_the_server_adds_are_no_difference() {
        let live = json!({"spec": {"replicas": 2, "strategy": {"type": "RollingUpdate"}, "list": [{"a": 1, "d": 9}]}});
        assert!(contains(&live, &json!({"spec": {"replicas": 2, "list": [{"a": 1}]}})));
        assert!(contains(&live, &json!({"spec": {"none": null, "empty": [], "map": {}}})));
    }

    #[test]
    fn a_changed_missing_added_or_reordered_value_is_a_difference() {
        let live = json!({"list": ["a", "b"], "n": 1});
        for desired in [
            json!({"n": 2}),
            json!({"m": 1}),
            json!({"list": ["a"]}),
            json!({"list": ["b", "a"]}),
            json!({"list": ["a", "b", "c"]}),
            json!({"list": []}),
        ] {
            assert!(!contains(&live, &desired), "{desired}");
        }
    }

    #[test]
    fn an_entry_more_in_what_selects_is_a_difference() {
        for path in ["selector", "matchLabels", "nodeSelector"] {
            let spec = |labels: Value| json!({"spec": {path: labels}});
            let wanted = spec(json!({"app": "a"}));
            assert!(contains(&wanted, &wanted));
            assert!(!contains(&spec(json!({"app": "a", "more": "b"})), &wanted), "{path}");
        }
    }

    #[test]
    fn quantities_compare_as_numbers_where_a_field_holds_quantities_and_only_there() {
        for (one, other) in [("1000m", "1"), ("0.5", "500m"), ("1Gi", "1024Mi"), ("1e3", "1e3"), ("1G", "1000M")] {
            let live = json!({"resources": {"limits": {"cpu": one}}});
            assert!(contains(&live, &json!({"resources": {"limits": {"cpu": other}}})), "{one} {other}");
            assert!(contains(&json!({"sizeLimit": one}), &json!({"sizeLimit": other})), "{one} {other}");
        }
        assert!(!contains(&json!({"limits": {"cpu": "1Gi"}}), &json!({"limits": {"cpu": "1G"}})));
        assert!(!contains(&json!({"env": [{"value": "1000m"}]}), &json!({"env": [{"value": "1"}]})));
    }

    fn live(managers: &Value) -> Value {
        json!({"kind": "Deployment", "metadata": {"managedFields": managers}})
    }

    #[test]
    fn what_others_added_is_surplus_and_what_we_want_too_is_not() {
        let desired = json!({"spec": {"replicas": 1, "ports": [{"containerPort": 80}], "env": [{"name": "A"}]}});
        let with = |fields: Value| {
            surplus(
                &live(&json!([{"manager": "kubectl-edit", "operation": "Update", "fieldsV1": fields}])),
                &desired,
                "us",
            )
        };
        assert_eq!(with(json!({"f:spec": {"f:hostNetwork": {}}})).as_deref(), Some("spec.hostNetwork"));
        let env = json!({"f:spec": {"f:env": {"k:{\"name\":\"B\"}": {".": {}, "f:name": {}}}}});
        assert_eq!(with(env).as_deref(), Some("spec.env.{\"name\":\"B\"}"));
        assert_eq!(with(json!({"f:spec": {".": {}, "f:replicas": {}}})), None);
        let port = json!({"f:spec": {"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}}}}});
        assert_eq!(with(port), None);
        assert_eq!(with(json!({"f:metadata": {"f:labels": {"f:x": {}}}, "f:status": {"f:x": {}}})), None);
    }

    #[test]
    fn our_own_apply_and_subresources_are_never_surplus() {
        let fields = json!({"f:spec": {"f:x": {}}});
        let desired = json!({"spec": {}});
        let of = |entry: Value| surplus(&live(&json!([entry])), &desired, "us");
        assert_eq!(of(json!({"manager": "us", "operation": "Apply", "fieldsV1": fields})), None);
        assert!(of(json!({"manager": "us", "operation": "Update", "fieldsV1": fields})).is_some());
        let scaled = json!({"manager": "hpa", "operation": "Update", "subresource": "scale", "fieldsV1": fields});
        assert_eq!(of(scaled), None);
    }
}

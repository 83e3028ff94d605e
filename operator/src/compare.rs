//! Whether a live object is already what we want, without knowing the API server's defaults.
//!
//! Three questions: does it hold everything that we want ([`contains`]); did someone change what we want ([`taken`]: the
//! managed fields say that it is another's now, which an entry more in a selector or a list item's field shows in no other
//! way); and did someone add what we do not want ([`surplus`]: what another manager owns and we did not ask for).

use serde_json::Value;

/// Whether `live` holds everything in `desired`. Maps may hold more (the server's defaults); lists must have the same
/// length and order; quantities are compared as numbers; an empty list or map equals an absent one.
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
            holds(live.get(key), wanted, text)
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

/// The first field of `desired`, outside metadata and status, that is another manager's and not `manager`'s any more:
/// someone changed it after we applied it. Applying again takes it back.
#[must_use]
pub fn taken(live: &Value, desired: &Value, manager: &str) -> Option<String> {
    let (ours, others): (Vec<_>, Vec<_>) = entries(live).partition(|entry| is_of(entry, manager));
    let kind = live.get("kind").and_then(Value::as_str).unwrap_or_default();
    others
        .into_iter()
        .filter_map(|entry| entry.get("fieldsV1")?.as_object())
        .flatten()
        .filter(|(field, _)| !is_tolerated(kind, field))
        .find_map(|(field, owned)| {
            let held: Vec<_> = ours.iter().filter_map(|entry| entry.get("fieldsV1")?.get(field)).collect();
            lost(field, owned, &held, Some(desired), "")
        })
}

/// Entries of the managed fields that are not of a subresource.
fn entries(live: &Value) -> impl Iterator<Item = &Value> {
    let entries = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries.into_iter().flatten().filter(|entry| !is_subresource(entry))
}

/// Walks one key of another's `fieldsV1` beside ours (`held`) and `desired`, down to what we want and do not hold.
fn lost(key: &str, owned: &Value, held: &[&Value], desired: Option<&Value>, path: &str) -> Option<String> {
    let (wanted, here) = step(key, desired, path)?;
    let wanted = wanted?;
    let children = owned.as_object()?;
    if children.is_empty() {
        return held.is_empty().then(|| here.trim_start_matches('.').to_owned());
    }
    children.iter().find_map(|(key, owned)| {
        let held: Vec<_> = held.iter().filter_map(|held| held.get(key)).collect();
        lost(key, owned, &held, Some(wanted), &here)
    })
}

/// The first field outside metadata and status that a manager other than `manager`'s apply owns and that `desired`
/// does not have. Server-side apply leaves such fields alone, so they have to be removed by a replace.
#[must_use]
pub fn surplus(live: &Value, desired: &Value, manager: &str) -> Option<String> {
    let kind = live.get("kind").and_then(Value::as_str).unwrap_or_default();
    entries(live)
        .filter(|entry| !(is_of(entry, manager) && is_apply(entry)))
        .filter_map(|entry| entry.get("fieldsV1")?.as_object())
        .flat_map(|fields| fields.iter())
        .filter(|(field, _)| !is_tolerated(kind, field))
        .find_map(|(field, owned)| unwanted(field, owned, Some(desired), ""))
}

fn is_of(entry: &Value, manager: &str) -> bool {
    entry.get("manager").and_then(Value::as_str) == Some(manager)
}

fn is_apply(entry: &Value) -> bool {
    entry.get("operation").and_then(Value::as_str) == Some("Apply")
}

fn is_subresource(entry: &Value) -> bool {
    entry.get("subresource").and_then(Value::as_str).is_some_and(|name| !name.is_empty())
}

/// What others may add: labels and annotations, status, and the pull secrets that some clusters give every account.
fn is_tolerated(kind: &str, field: &str) -> bool {
    matches!(field, "f:metadata" | "f:status")
        || (kind == "ServiceAccount" && matches!(field, "f:secrets" | "f:imagePullSecrets"))
}

/// Walks one key of `fieldsV1` beside `desired`, down to what is not in it.
fn unwanted(key: &str, owned: &Value, desired: Option<&Value>, path: &str) -> Option<String> {
    let (wanted, here) = step(key, desired, path)?;
    let Some(wanted) = wanted else { return Some(here.trim_start_matches('.').to_owned()) };
    owned.as_object()?.iter().find_map(|(key, owned)| unwanted(key, owned, Some(wanted), &here))
}

/// What one key of `fieldsV1` (`f:` a field, `k:` a list item by its keys, `v:` a set's member) names below `desired`, and
/// its path; `None` when it names nothing of its own.
fn step<'a>(key: &str, desired: Option<&'a Value>, path: &str) -> Option<(Option<&'a Value>, String)> {
    if key == "." {
        return None;
    }
    let (how, what) = key.split_once(':')?;
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
    Some((wanted, format!("{path}.{what}")))
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
    fn what_another_owns_of_what_we_want_was_changed_by_them() {
        let desired = json!({"spec": {
            "selector": {"app": "a"}, "ports": [{"name": "data", "containerPort": 80, "protocol": "TCP"}], "replicas": 1,
        }});
        let taken = |theirs: Value, ours: Value| {
            let managers = json!([
                {"manager": "kubectl-patch", "operation": "Update", "fieldsV1": {"f:spec": theirs}},
                {"manager": "us", "operation": "Apply", "fieldsV1": {"f:spec": ours}},
            ]);
            taken(&live(&managers), &desired, "us")
        };
        // `kubectl patch service x -p '{"spec":{"selector":{"more":"b"}}}'`: a selector is atomic, so it is theirs now.
        assert_eq!(taken(json!({"f:selector": {}}), json!({"f:replicas": {}})).as_deref(), Some("spec.selector"));
        assert_eq!(taken(json!({"f:selector": {}}), json!({"f:selector": {}})), None, "both apply the same");
        let port =
            |field: &str| json!({"f:ports": {r#"k:{"containerPort":80,"protocol":"TCP"}"#: {".": {}, field: {}}}});
        assert_eq!(
            taken(port("f:name"), json!({"f:replicas": {}})).as_deref(),
            Some(r#"spec.ports.{"containerPort":80,"protocol":"TCP"}.name"#)
        );
        assert_eq!(taken(port("f:name"), port("f:name")), None);
        assert_eq!(taken(port("f:hostPort"), port("f:name")), None, "that is surplus, not taken");
        assert_eq!(taken(json!({"f:paused": {}}), json!({})), None);
        let replaced = json!([{"manager": "us", "operation": "Update", "fieldsV1": {"f:spec": {"f:selector": {}}}}]);
        assert_eq!(super::taken(&live(&replaced), &desired, "us"), None, "our own replace");
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

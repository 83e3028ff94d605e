//! Which field was meant.

use kube::CustomResourceExt;
use portolan_crds::admission::Violation;
use serde_json::Value;

/// How alike two names must be (Jaro–Winkler, 0 to 1) for one to be meant by the other.
const ALIKE: f64 = 0.8;

/// Path and message of a violation that is about an unknown field, with the field that was meant.
pub(super) fn unknown_field<K: CustomResourceExt>(violation: &Violation) -> Option<(String, String)> {
    let path = violation.message.strip_prefix("unknown field \"")?.strip_suffix('"')?;
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let schema = K::crd().spec.versions.into_iter().find_map(|version| version.schema?.open_api_v3_schema);
    let schema = serde_json::to_value(schema).unwrap_or_default();
    let siblings: Vec<&str> = properties(&schema, parent);
    Some((path.to_owned(), message(name, siblings.into_iter())))
}

/// What to say about the unknown field `name` beside the `known` ones.
pub(super) fn message<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let likeness = |candidate: &str| strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase());
    let meant = known.map(|candidate| (likeness(candidate), candidate)).filter(|(likeness, _)| *likeness >= ALIKE);
    match meant.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((_, candidate)) => format!("unknown field; did you mean {candidate}?"),
        None => "unknown field".to_owned(),
    }
}

/// Names of the fields of the object at `path`, such as `spec.container.env[0]`.
fn properties<'a>(schema: &'a Value, path: &str) -> Vec<&'a str> {
    let mut schema = schema;
    for segment in path.split('.').filter(|segment| !segment.is_empty()) {
        let (name, indices) = segment.split_once('[').unwrap_or((segment, ""));
        schema = &schema["properties"][name];
        for _ in indices.matches(']') {
            schema = &schema["items"];
        }
    }
    schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

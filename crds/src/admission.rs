//! What the API server would say about an object, without one.
//!
//! The order is the API server's: nulls that stand for absent fields are dropped, unknown fields are refused (as
//! `kubectl` asks for), defaults are filled in, then bounds and list keys are checked, and CEL rules last. The cases in
//! `tests/cases` hold both sides to the same verdicts.

mod path;
mod structure;

use std::fmt;

use jsonschema::{Draft, ValidationError, error::ValidationErrorKind};
use kube::{CustomResourceExt, core::cel};
use serde::de::DeserializeOwned;
use serde_json::Value;

use path::Path;

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, as `spec.container.env[0].name`; empty for the object as a whole.
    pub path: String,
    /// What is wrong, or what to write instead.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.path, self.message)
        }
    }
}

/// Everything that is wrong with an object, in the order in which it was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Rejected(pub Vec<Violation>);

/// The object with its defaults, when the API server would create it.
///
/// The status is left out, as the API server does when an object is created. The caller chooses `K` by `kind`.
///
/// # Errors
/// Every violation that was found. As at the API server, CEL rules speak up only about an object whose types, lengths
/// and enum values are right.
pub fn admit<K: CustomResourceExt + DeserializeOwned>(object: &Value) -> Result<K, Rejected> {
    let schema = schema_of::<K>()?;
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }

    let mut violations = structure::check(&schema, &mut object);
    let object = cel::apply_defaults(&schema, &object);
    let blocked = bounds(&schema, &object, &mut violations)?;
    if !blocked && let Err(errors) = cel::Validator::new().validate(&schema, &object, None) {
        violations.extend(
            errors.into_vec().into_iter().map(|error| Violation { path: error.field_path, message: error.message }),
        );
    }
    if violations.is_empty() { serde_json::from_value(object).map_err(unexpected) } else { Err(Rejected(violations)) }
}

fn schema_of<K: CustomResourceExt>() -> Result<Value, Rejected> {
    let schema = K::crd().spec.versions.into_iter().find_map(|version| version.schema?.open_api_v3_schema);
    serde_json::to_value(schema).map_err(unexpected)
}

/// Checks what JSON Schema can say. Whether CEL rules would meet values that they were not written for.
fn bounds(schema: &Value, object: &Value, violations: &mut Vec<Violation>) -> Result<bool, Rejected> {
    let validator = jsonschema::options().with_draft(Draft::Draft4).build(schema).map_err(unexpected)?;
    let mut blocked = false;
    for error in validator.iter_errors(object) {
        blocked |= blocks_rules(error.kind());
        violations.push(violation(&error));
    }
    Ok(blocked)
}

fn blocks_rules(kind: &ValidationErrorKind) -> bool {
    use ValidationErrorKind::{Enum, MaxItems, MaxLength, MaxProperties, Required, Type};
    matches!(
        kind,
        Enum { .. } | MaxItems { .. } | MaxLength { .. } | MaxProperties { .. } | Required { .. } | Type { .. }
    )
}

fn violation(error: &ValidationError<'_>) -> Violation {
    let path = Path::from(error.instance_path());
    match error.kind() {
        ValidationErrorKind::Required { property: Value::String(property) } => {
            Violation { path: path.field(property).to_string(), message: "Required value".into() }
        }
        // Kubernetes keeps bounds as floating-point numbers, and says them without their fraction.
        ValidationErrorKind::Maximum { limit } => {
            let message = format!("should be less than or equal to {}", limit.as_f64().unwrap_or(f64::MAX));
            Violation { path: path.to_string(), message }
        }
        ValidationErrorKind::Minimum { limit } => {
            let message = format!("should be greater than or equal to {}", limit.as_f64().unwrap_or(f64::MIN));
            Violation { path: path.to_string(), message }
        }
        // The value itself stays out of the message: it may be someone's password.
        _ => Violation { path: path.to_string(), message: error.masked_with("the value").to_string() },
    }
}

/// A failure of the machinery and not of the object: it must not pass as "nothing is wrong".
fn unexpected(error: impl fmt::Display) -> Rejected {
    Rejected(vec![Violation { path: String::new(), message: error.to_string() }])
}

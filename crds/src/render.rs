//! CRDs as the YAML that is committed and that `portolan crds` prints.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Number, Value};

/// Why a CRD could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// It is no JSON value.
    #[error("the CRD is no JSON value: {0}")]
    Json(#[from] serde_json::Error),
    /// The YAML writer failed.
    #[error("the CRD cannot be written as YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// The CRD as one YAML document that ends in a newline.
///
/// # Errors
/// Only when a serializer fails, which no CRD made from a type brings about.
pub fn render(crd: &CustomResourceDefinition) -> Result<String, RenderError> {
    let mut value = serde_json::to_value(crd)?;
    whole_numbers_as_integers(&mut value);
    Ok(serde_saphyr::to_string(&value)?)
}

/// Bounds are floats in the OpenAPI types; `maximum: 100` reads better than `100.0` and means the same.
fn whole_numbers_as_integers(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(whole_numbers_as_integers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers_as_integers),
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0) {
                *number = Number::from(float as i64);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

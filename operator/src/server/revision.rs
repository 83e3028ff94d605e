//! The name of a revision: a hash of everything that makes its pods what they are.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use ring::digest;
use serde_json::Value;

use crate::{error::Error, hex::hex};
use portolan_crds::conditions::reasons;

/// `<server>-<8 hex digits>`. The same template and content have the same name, in every process and for ever:
/// applying an earlier template again finds its revision.
pub(super) fn name(server: &str, template: &PodTemplateSpec, content: &[u8; 32]) -> Result<String, Error> {
    let template =
        serde_json::to_value(template).map_err(|error| Error::stalled(reasons::INVALID, error.to_string()))?;
    let mut text = String::new();
    canonical(&template, &mut text);
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(text.as_bytes());
    context.update(content);
    let hash = hex(&context.finish().as_ref()[..4]);
    Ok(format!("{server}-{hash}"))
}

/// JSON with sorted keys and without nulls, whichever map `serde_json` was built with.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
            fields.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (key, value) in fields {
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests;

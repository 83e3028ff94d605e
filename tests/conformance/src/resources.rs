//! Resources: a text, a picture, and one for every id.

use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::json;

use crate::media;

const TEXT: &str = "test://static-text";
const PICTURE: &str = "test://static-binary";
/// A resource that changes when `test_trigger_resource_update` says so.
const WATCHED: &str = "test://watched-resource";
const TEMPLATE: &str = "test://template/{id}/data";

/// Those that a list has.
pub(crate) fn all() -> Vec<Resource> {
    vec![
        Resource::new(TEXT, "text").with_description("A text").with_mime_type("text/plain"),
        Resource::new(PICTURE, "picture").with_description("A picture").with_mime_type("image/png"),
        Resource::new(WATCHED, "watched").with_description("A text to watch").with_mime_type("text/plain"),
    ]
}

/// Those that only have a pattern.
pub(crate) fn templates() -> Vec<ResourceTemplate> {
    vec![ResourceTemplate::new(TEMPLATE, "by id").with_description("Data by id").with_mime_type("application/json")]
}

/// What is in one.
pub(crate) fn read(uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let contents = match uri {
        TEXT => {
            ResourceContents::text("This is the content of the static text resource.", uri).with_mime_type("text/plain")
        }
        WATCHED => {
            ResourceContents::text("This is the content of the watched resource.", uri).with_mime_type("text/plain")
        }
        PICTURE => ResourceContents::blob(media::PNG, uri).with_mime_type("image/png"),
        _ => {
            let id = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data"));
            let missing =
                || ErrorData::resource_not_found(format!("there is no resource {uri}"), Some(json!({"uri": uri})));
            let id = id.filter(|id| !id.is_empty() && !id.contains('/')).ok_or_else(missing)?;
            let data = json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
            ResourceContents::text(data.to_string(), uri).with_mime_type("application/json")
        }
    };
    Ok(ReadResourceResult::new(vec![contents]))
}

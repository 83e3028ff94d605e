//! Tools whose answers are always the same: one for each kind of content.

use rmcp::model::{AudioContent, CallToolResult, ContentBlock, ResourceContents};

use crate::media;
use crate::tools::{Answer, Call, Definition, failed, text, unknown};

pub(crate) const TOOLS: &[Definition] = &[
    Definition::plain("test_simple_text", "Answers with a text"),
    Definition::plain("test_image_content", "Answers with a picture"),
    Definition::plain("test_audio_content", "Answers with a sound"),
    Definition::plain("test_embedded_resource", "Answers with a resource"),
    Definition::plain("test_multiple_content_types", "Answers with a text, a picture and a resource"),
    Definition::plain("test_error_handling", "Fails"),
    Definition {
        name: "test_custom_header",
        description: "Answers with its argument, which a header repeats",
        schema: r#"{"type": "object", "required": ["value"],
                    "properties": {"value": {"type": "string", "x-mcp-header": "Value"}}}"#,
    },
    Definition {
        name: "json_schema_2020_12_tool",
        description: "Has a schema with more of JSON Schema 2020-12 than properties",
        schema: SCHEMA_2020_12,
    },
];

/// The suite looks for each of these keywords.
const SCHEMA_2020_12: &str = r##"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"town": {"type": "string"}}}},
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "by": {"enum": ["ship", "train"]}
    },
    "allOf": [{"anyOf": [{"required": ["name"]}, {"required": ["address"]}]}],
    "if": {"required": ["by"], "properties": {"by": {"const": "ship"}}},
    "then": {"required": ["address"]},
    "else": {"required": ["name"]},
    "additionalProperties": false
}"##;

pub(crate) fn call(call: &Call<'_>) -> Answer {
    let content = match call.request.name.as_ref() {
        "test_simple_text" => return Ok(text("This is a simple text response for testing.")),
        "test_error_handling" => return Ok(failed("This tool intentionally returns an error for testing")),
        "test_custom_header" => return Ok(text(call.text("value")?)),
        "json_schema_2020_12_tool" => return Ok(text("The schema is what is looked at.")),
        "test_image_content" => vec![ContentBlock::image(media::PNG, "image/png")],
        "test_audio_content" => vec![ContentBlock::Audio(AudioContent::new(media::WAV, "audio/wav"))],
        "test_embedded_resource" => {
            vec![resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")]
        }
        "test_multiple_content_types" => vec![
            ContentBlock::text("Multiple content types test:"),
            ContentBlock::image(media::PNG, "image/png"),
            resource("test://mixed-content-resource", "application/json", r#"{"test":"data","value":123}"#),
        ],
        name => return Err(unknown(name)),
    };
    Ok(CallToolResult::success(content).into())
}

fn resource(uri: &str, mime_type: &str, text: &str) -> ContentBlock {
    ContentBlock::resource(ResourceContents::text(text, uri).with_mime_type(mime_type))
}

//! An answer as expectations see it.

use rmcp::model::{CallToolResult, ContentBlock, ReadResourceResult, ResourceContents};
use serde_json::Value;

/// Longest piece of an answer in words for people, in characters.
const SHOWN: usize = 160;

/// What a tool or a resource answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// All text, one block or content after the other.
    pub(crate) text: String,
    /// `structuredContent`, where there is some.
    pub(crate) structured: Option<Value>,
    /// The whole result.
    pub(crate) result: Value,
}

impl Answer {
    /// Of a call.
    pub(crate) fn of_tool(result: &CallToolResult) -> Self {
        let texts = result.content.iter().filter_map(|block| match block {
            ContentBlock::Text(content) => Some(content.text.as_str()),
            _ => None,
        });
        Self {
            text: texts.collect::<Vec<_>>().join("\n"),
            structured: result.structured_content.clone(),
            result: serde_json::to_value(result).unwrap_or_default(),
        }
    }

    /// Of a read.
    pub(crate) fn of_resource(result: &ReadResourceResult) -> Self {
        let texts = result.contents.iter().filter_map(|contents| match contents {
            ResourceContents::TextResourceContents { text, .. } => Some(text.as_str()),
            _ => None,
        });
        Self {
            text: texts.collect::<Vec<_>>().join("\n"),
            structured: None,
            result: serde_json::to_value(result).unwrap_or_default(),
        }
    }

    /// Its beginning, quoted, for people.
    pub(crate) fn shown(&self) -> String {
        if self.text.is_empty() { format!("no text: {}", short(&self.result.to_string())) } else { quoted(&self.text) }
    }
}

/// The beginning of `text` in quotes, on one line.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", short(text))
}

/// The beginning of `text`.
pub(crate) fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

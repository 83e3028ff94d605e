//! What the tools of a revision are, and how those of another differ. Pure.
//!
//! A tool that is gone or means something else breaks those who rely on it, and a description that changes unseen may tell a model to do
//! what nobody agreed to. One that comes on top breaks nobody.

use std::{collections::BTreeMap, fmt, io::Read};

use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::build;

/// Largest definitions that are compared, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Most tools that a message names of each kind.
const MAX_NAMED: usize = 5;

/// Tools by name, each as it is defined.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ToolSet(BTreeMap<String, Value>);

/// How tools differ from earlier ones, where someone may rely on those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Changes {
    /// These are gone, and of these these members are not what they were.
    Found { removed: Vec<String>, changed: Vec<(String, Vec<String>)> },
    /// They are not known yet.
    Unknown,
    /// They are too many to be kept, and not the same.
    TooMany,
}

impl ToolSet {
    /// Those of a JSON array.
    pub(super) fn parse(json: &str) -> Option<Self> {
        let tools: Vec<Value> = serde_json::from_str(json).ok()?;
        let named = |tool: Value| Some((tool["name"].as_str()?.to_owned(), tool));
        tools.into_iter().map(named).collect::<Option<_>>().map(Self)
    }

    /// Those that a ConfigMap holds which nobody else has changed.
    pub(super) fn stored(config_map: &ConfigMap) -> Option<Self> {
        build::stored_hash(config_map)?;
        if let Some(plain) = config_map.data.iter().flat_map(BTreeMap::values).next() {
            return Self::parse(plain);
        }
        let compressed = config_map.binary_data.iter().flat_map(BTreeMap::values).next()?;
        let mut text = String::new();
        GzDecoder::new(compressed.0.as_slice()).take(MAX_BYTES).read_to_string(&mut text).ok()?;
        Self::parse(&text)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How `later` differs where someone may rely on these; `None` where it does not.
    pub(super) fn changes(&self, later: &Self) -> Option<Changes> {
        let mut removed = Vec::new();
        let mut changed = Vec::new();
        for (name, before) in &self.0 {
            match later.0.get(name) {
                None => removed.push(name.clone()),
                Some(after) if after != before => changed.push((name.clone(), members(before, after))),
                Some(_) => {}
            }
        }
        (!removed.is_empty() || !changed.is_empty()).then_some(Changes::Found { removed, changed })
    }
}

/// Members of a definition that are not the same in another.
fn members(before: &Value, after: &Value) -> Vec<String> {
    let names =
        |value: &Value| value.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let mut all = [names(before), names(after)].concat();
    all.sort();
    all.dedup();
    all.retain(|name| before.get(name) != after.get(name));
    all
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (removed, changed) = match self {
            Self::Found { removed, changed } => (removed, changed),
            Self::Unknown => return f.write_str("its tools are not known yet"),
            Self::TooMany => return f.write_str("they are too many to be compared one by one"),
        };
        let removed = removed.iter().map(|name| format!("tool {name} is gone"));
        let changed = changed.iter().map(|(name, members)| format!("tool {name} has another {}", members.join(", ")));
        let all: Vec<String> = removed.chain(changed).collect();
        f.write_str(&all[..all.len().min(MAX_NAMED)].join("; "))?;
        match all.len().saturating_sub(MAX_NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tools(tools: &Value) -> ToolSet {
        ToolSet::parse(&tools.to_string()).expect("tools")
    }

    #[test]
    fn tools_that_are_gone_or_mean_something_else_are_named_with_what_is_not_the_same() {
        let before = tools(&json!([
            {"name": "a", "description": "A"},
            {"name": "b", "description": "B", "inputSchema": {"type": "object"}},
            {"name": "c"},
        ]));
        let after = tools(&json!([
            {"name": "b", "description": "Now B", "inputSchema": {"type": "object", "required": ["x"]}},
            {"name": "c"},
            {"name": "d"},
        ]));
        let changes = before.changes(&after).expect("they differ");
        assert_eq!(changes.to_string(), "tool a is gone; tool b has another description, inputSchema");
    }

    #[test]
    fn a_tool_that_comes_on_top_and_another_order_are_no_change() {
        let before = tools(&json!([{"name": "a", "inputSchema": {"x": 1, "y": 2}}, {"name": "b"}]));
        let after = tools(&json!([{"name": "new"}, {"name": "b"}, {"inputSchema": {"y": 2, "x": 1}, "name": "a"}]));
        assert_eq!(before.changes(&after), None);
        assert_eq!(ToolSet::default().changes(&after), None);
    }

    #[test]
    fn a_message_names_some_and_counts_the_rest() {
        let many: Value = (0..9).map(|n| json!({"name": format!("t{n}")})).collect();
        let message = tools(&many).changes(&ToolSet::default()).expect("all are gone").to_string();
        assert!(message.starts_with("tool t0 is gone; ") && message.ends_with("; and 4 more"), "{message}");
    }
}

//! What `tools/list` answered: counted, hashed, kept as written.

use std::collections::HashMap;

use portolan_mcp::modern::Head;
use portolan_mcp::wire::ToolsFound;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use serde_json::value::RawValue;

/// Sums up the definitions of all pages.
///
/// # Errors
/// A definition has no name.
pub(crate) fn sum_up(mut definitions: Vec<Value>) -> Result<ToolsFound, String> {
    if let Some(nameless) = definitions.iter().find(|tool| tool.get("name").and_then(Value::as_str).is_none()) {
        return Err(format!("a tool has no name: {}", crate::stderr::shorten(&nameless.to_string(), 120)));
    }
    definitions.sort_by(|one, other| name(one).cmp(name(other)));
    // `serde_json` keeps object members in a sorted map, so this text is the same for the same definitions.
    let text = Value::Array(definitions.clone()).to_string();
    let hash = digest(&SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(ToolsFound {
        count: u32::try_from(definitions.len()).unwrap_or(u32::MAX),
        hash: format!("sha256:{hash}"),
        definitions: RawValue::from_string(text).ok(),
    })
}

/// The names of all, in order; none where the definitions were left out.
pub(crate) fn names(tools: &ToolsFound) -> Vec<String> {
    definitions(tools).iter().map(|tool| name(tool).to_owned()).collect()
}

/// Input schemas of the tools with parameters that have headers of their own (2026-07-28, "Custom Headers from Tool
/// Parameters"), by name.
pub(crate) type Marked = HashMap<String, Value>;

/// Those among `tools`.
pub(crate) fn marked(tools: Option<&ToolsFound>) -> Marked {
    // Few servers have any: most definitions are not read again for it.
    let has_any = |tools: &&ToolsFound| {
        tools.definitions.as_deref().is_some_and(|definitions| definitions.get().contains("x-mcp-header"))
    };
    let definitions = tools.filter(has_any).map(definitions).unwrap_or_default();
    let schemas = definitions.into_iter().map(|mut tool| (name(&tool).to_owned(), tool["inputSchema"].take()));
    schemas.filter(|(_, schema)| schema.to_string().contains("x-mcp-header")).collect()
}

/// The arguments of a call of a marked tool, with its input schema.
pub(crate) fn with_headers<'m>(
    marked: &'m Marked,
    head: &Head<'_>,
    params: Option<&RawValue>,
) -> Option<(&'m Value, Value)> {
    let tool = head.name.as_deref().filter(|_| head.method == "tools/call")?;
    let schema = marked.get(tool)?;
    let mut params: Value = serde_json::from_str(params?.get()).ok()?;
    Some((schema, params["arguments"].take()))
}

fn definitions(tools: &ToolsFound) -> Vec<Value> {
    tools.definitions.as_deref().and_then(|json| serde_json::from_str(json.get()).ok()).unwrap_or_default()
}

fn name(tool: &Value) -> &str {
    tool.get("name").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_does_not_depend_on_the_order_of_tools_or_members() {
        let one: Vec<Value> = serde_json::from_str(r#"[{"name":"b","x":{"p":1,"o":2}},{"name":"a"}]"#).expect("JSON");
        let other: Vec<Value> = serde_json::from_str(r#"[{"name":"a"},{"x":{"o":2,"p":1},"name":"b"}]"#).expect("JSON");
        let (one, other) = (sum_up(one).expect("named"), sum_up(other).expect("named"));
        assert_eq!((one.count, &one.hash), (2, &other.hash));
        assert_ne!(sum_up(vec![json!({"name": "a"})]).expect("named").hash, one.hash);
        assert!(sum_up(vec![json!({"title": "a"})]).is_err());
    }
}

//! `portolan tools`: what an endpoint offers.

use clap::{Args, ValueEnum};
use rmcp::model::Tool;
use serde_json::Value;

use super::connection::{Session, Target, within};
use super::{failure, print_json};
use crate::exit::{Failure, note, print};
use crate::table;

/// List the tools of an MCP endpoint.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portolan tools http://127.0.0.1:8080/default/quickstart/mcp
  portolan tools URL --token \"$(kubectl create token default --audience portolan)\"
  portolan tools URL -o json | jq -r '.[].name'

Exit codes: 0 ok, 1 usage, 2 the endpoint says no, 3 a credential is needed, 4 unreachable, 6 denied")]
pub(crate) struct ToolsArgs {
    #[command(flatten)]
    target: Target,

    /// Output format; json is the array of definitions
    #[arg(long, short, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

impl ToolsArgs {
    /// Whether failures are told as JSON.
    pub(crate) fn json(&self) -> bool {
        self.output == Output::Json
    }
}

pub(super) async fn run(args: &ToolsArgs) -> Result<(), Failure> {
    let tools = within(&args.target, async |session| list(&args.target, session).await).await?;
    if args.json() {
        return print_json(&tools);
    }
    if tools.is_empty() {
        note("The endpoint has no tools, or none for this caller.");
        return Ok(());
    }
    let rows = tools.iter().map(|tool| [signature(tool), summary(tool)]);
    print(&table::render(["TOOL", "DESCRIPTION"], rows))
}

/// Every tool of the endpoint.
pub(super) async fn list(target: &Target, session: &Session) -> Result<Vec<Tool>, Failure> {
    session.list_all_tools().await.map_err(|error| failure::of_request(&target.url, &error))
}

/// A tool as it is called: `get-sum(a: number, b: number, [unit: string])`.
fn signature(tool: &Tool) -> String {
    let schema = &*tool.input_schema;
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let parameters = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let parameters: Vec<String> = parameters
        .map(|(name, schema)| {
            let kind = schema.get("type").and_then(Value::as_str).unwrap_or("any");
            if required.contains(&name.as_str()) { format!("{name}: {kind}") } else { format!("[{name}: {kind}]") }
        })
        .collect();
    format!("{}({})", tool.name, parameters.join(", "))
}

/// The first line of a tool's description.
fn summary(tool: &Tool) -> String {
    let text = tool.description.as_deref().or(tool.title.as_deref()).unwrap_or_default();
    text.trim().lines().next().unwrap_or_default().to_owned()
}

//! `portolan call`: calls one tool.

use clap::{Args, ValueEnum};
use rmcp::model::{CallToolRequestParams, CallToolResult, ContentBlock, JsonObject, Tool};
use serde_json::Value;

use super::arguments::{self, Argument};
use super::connection::{Session, Target, within};
use super::{failure, print_json, tools};
use crate::exit::{Exit, Failure, note, print};

/// Call a tool of an MCP endpoint.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portolan call http://127.0.0.1:8080/default/quickstart/mcp echo message=hello
  portolan call URL get-sum a=2 b=40 -o json
  portolan call URL create --args-json '{\"items\": [1, 2]}'

Exit codes: 0 ok, 1 usage, 2 the endpoint says no, 3 a credential is needed, 4 unreachable,
5 the tool reports an error, 6 denied by policy or quota")]
pub(crate) struct CallArgs {
    #[command(flatten)]
    target: Target,

    /// Name of the tool
    tool: String,

    /// Arguments, typed by the tool's schema: a string stays a string, other types are JSON
    #[arg(value_name = "NAME=VALUE", value_parser = arguments::argument)]
    arguments: Vec<Argument>,

    /// All arguments as one JSON object, sent as written
    #[arg(long, value_name = "JSON", conflicts_with = "arguments", value_parser = arguments::object)]
    args_json: Option<JsonObject>,

    /// Output format; json is the whole result
    #[arg(long, short, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl CallArgs {
    /// Whether failures are told as JSON.
    pub(crate) fn json(&self) -> bool {
        self.output == Output::Json
    }
}

pub(super) async fn run(args: &CallArgs) -> Result<(), Failure> {
    let result = within(&args.target, async |session| call(args, session).await).await?;
    let is_error = result.is_error == Some(true);
    if args.json() {
        print_json(&result)?;
    } else if !is_error {
        print(&text(&result))?;
    }
    if is_error { Err(tool_error(&result)) } else { Ok(()) }
}

async fn call(args: &CallArgs, session: &Session) -> Result<CallToolResult, Failure> {
    let arguments = match &args.args_json {
        Some(object) => object.clone(),
        None => {
            let tools = tools::list(&args.target, session).await?;
            arguments::typed(&find(&args.tool, &tools)?.input_schema, &args.arguments)?
        }
    };
    let request = CallToolRequestParams::new(args.tool.clone()).with_arguments(arguments);
    let error = match session.call_tool(request).await {
        Ok(result) => return Ok(result),
        Err(error) => failure::of_request(&args.target.url, &error),
    };
    if error.exit == Exit::ToolError {
        // The server's words for a name that it does not know are its own; the list, if there is one, tells for certain.
        if let Ok(tools) = tools::list(&args.target, session).await {
            find(&args.tool, &tools)?;
        }
    }
    Err(error)
}

fn find<'a>(name: &str, tools: &'a [Tool]) -> Result<&'a Tool, Failure> {
    let absent = || {
        let names = tools.iter().map(|tool| &*tool.name).collect::<Vec<_>>().join(", ");
        let names = if names.is_empty() { "none, or none for this caller" } else { &names };
        Failure::usage(format!("the endpoint has no tool {name}")).hint(format!("its tools: {names}"))
    };
    tools.iter().find(|tool| tool.name == name).ok_or_else(absent)
}

/// A result as text: blocks in their order, each on lines of its own.
fn text(result: &CallToolResult) -> String {
    let mut text = String::new();
    for block in &result.content {
        text.push_str(&block_text(block));
        text.push('\n');
    }
    if let (true, Some(structured)) = (result.content.is_empty(), &result.structured_content) {
        text.push_str(&format!("{structured:#}\n"));
    }
    text
}

fn block_text(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text(content) => content.text.clone(),
        other => {
            // Everything that is not text says what it is; `-o json` has it whole.
            let value = serde_json::to_value(other).unwrap_or_default();
            let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
            let what = [field("mimeType"), field("uri"), field("name")].join(" ");
            format!("[{} {}]", field("type"), what.trim())
        }
    }
}

fn tool_error(result: &CallToolResult) -> Failure {
    if result.content.len() > 1 {
        note("the tool's error has several parts: -o json has them all");
    }
    let message = text(result);
    Failure::new(Exit::ToolError, format!("the tool reports an error: {}", message.trim()))
}

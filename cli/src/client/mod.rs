//! The user's commands against an MCP endpoint: `portolan tools` and `portolan call`.

mod arguments;
mod call;
pub(crate) mod connection;
mod failure;
mod tools;

pub(crate) use call::CallArgs;
pub(crate) use tools::ToolsArgs;

use serde::Serialize;

use crate::exit::{Exit, Failure, print};

/// `portolan tools`.
pub(crate) async fn tools(args: &ToolsArgs) -> Result<(), Failure> {
    tools::run(args).await
}

/// Prints an answer whole.
fn print_json(answer: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(answer)
        .map_err(|error| Failure::new(Exit::Negative, format!("the answer cannot be written as JSON: {error}")))?;
    print(&format!("{text}\n"))
}

/// Every tool of an open session's endpoint.
pub(crate) async fn list_tools(
    target: &connection::Target,
    session: &connection::Session,
) -> Result<Vec<rmcp::model::Tool>, Failure> {
    tools::list(target, session).await
}

/// `portolan call`.
pub(crate) async fn call(args: &CallArgs) -> Result<(), Failure> {
    call::run(args).await
}

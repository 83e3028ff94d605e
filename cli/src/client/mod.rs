//! The user's commands against an MCP endpoint: `portolan tools` and `portolan call`.

mod arguments;
mod call;
mod connection;
mod failure;
mod tools;

pub(crate) use call::CallArgs;
pub(crate) use tools::ToolsArgs;

use crate::exit::Failure;

/// `portolan tools`.
pub(crate) async fn tools(args: &ToolsArgs) -> Result<(), Failure> {
    tools::run(args).await
}

/// `portolan call`.
pub(crate) async fn call(args: &CallArgs) -> Result<(), Failure> {
    call::run(args).await
}

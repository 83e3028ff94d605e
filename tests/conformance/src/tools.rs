//! What a tool is, and which ones there are. What they do is in the modules that have them.

use rmcp::model::{CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject, Tool};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::Value;

use crate::server::Everything;
use crate::{asking, content, jobs, rounds, telling};

/// A schema without properties.
pub(crate) const NO_ARGUMENTS: &str = r#"{"type": "object", "properties": {}}"#;

/// What a list says of a tool.
pub(crate) struct Definition {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its description.
    pub(crate) description: &'static str,
    /// The schema of its arguments, as JSON.
    pub(crate) schema: &'static str,
}

impl Definition {
    /// A tool without arguments.
    pub(crate) const fn plain(name: &'static str, description: &'static str) -> Self {
        Self { name, description, schema: NO_ARGUMENTS }
    }

    fn tool(&self) -> Result<Tool, ErrorData> {
        let schema: JsonObject = serde_json::from_str(self.schema).map_err(own_fault)?;
        Ok(Tool::new(self.name, self.description, schema))
    }
}

/// A call under way.
pub(crate) struct Call<'a> {
    /// The server that was called.
    pub(crate) server: &'a Everything,
    /// What was asked.
    pub(crate) request: CallToolRequestParams,
    /// By whom, and how to reach them.
    pub(crate) context: RequestContext<RoleServer>,
}

impl Call<'_> {
    /// A text argument.
    pub(crate) fn text(&self, name: &str) -> Result<&str, ErrorData> {
        let value = self.request.arguments.as_ref().and_then(|arguments| arguments.get(name)).and_then(Value::as_str);
        value.ok_or_else(|| ErrorData::invalid_params(format!("{name} must be a string"), None))
    }
}

/// What a call comes to.
pub(crate) type Answer = Result<CallToolResponse, ErrorData>;

/// Every tool, in the order of a list.
pub(crate) fn all() -> Result<Vec<Tool>, ErrorData> {
    definitions().map(Definition::tool).collect()
}

/// The tool of a name.
pub(crate) fn named(name: &str) -> Option<Tool> {
    definitions().find(|tool| tool.name == name)?.tool().ok()
}

/// Calls a tool. A client with a session is asked for what else it needs while it waits.
pub(crate) async fn call(mut call: Call<'_>) -> Answer {
    loop {
        let needed = match once(&call).await? {
            CallToolResponse::InputRequired(needed) if asking::has_session(&call.context) => needed,
            answer => return Ok(answer),
        };
        match asking::ask(&call.context, needed.input_requests).await {
            Ok(answers) => call.request.input_responses = Some(answers),
            Err(error) => return Ok(failed(format!("The client did not answer: {error}"))),
        }
        call.request.request_state = needed.request_state;
    }
}

async fn once(call: &Call<'_>) -> Answer {
    let name = call.request.name.as_ref();
    let has = |tools: &[Definition]| tools.iter().any(|tool| tool.name == name);
    match () {
        () if has(content::TOOLS) => content::call(call),
        () if has(telling::TOOLS) => telling::call(call).await,
        () if has(asking::TOOLS) => asking::call(call),
        () if has(rounds::TOOLS) => rounds::call(call),
        () if has(jobs::TOOLS) => jobs::call(call).await,
        () => Err(unknown(name)),
    }
}

fn definitions() -> impl Iterator<Item = &'static Definition> {
    [content::TOOLS, telling::TOOLS, asking::TOOLS, rounds::TOOLS, jobs::TOOLS].into_iter().flatten()
}

/// An answer of one text.
pub(crate) fn text(text: impl Into<String>) -> CallToolResponse {
    CallToolResult::success(vec![ContentBlock::text(text)]).into()
}

/// An answer that says what went wrong in a tool.
pub(crate) fn failed(text: impl Into<String>) -> CallToolResponse {
    CallToolResult::error(vec![ContentBlock::text(text)]).into()
}

/// There is no such tool.
pub(crate) fn unknown(name: &str) -> ErrorData {
    ErrorData::invalid_params(format!("there is no tool {name}"), None)
}

/// Something that is written in this program is wrong.
pub(crate) fn own_fault(error: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

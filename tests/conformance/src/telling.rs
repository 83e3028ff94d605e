//! Tools that send notifications while they work, to their caller or to whoever listens.

use std::time::Duration;

use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam, ProtocolVersion};
use serde_json::json;

use crate::changes::{Change, lock};
use crate::tools::{Answer, Call, Definition, own_fault, text, unknown};

pub(crate) const TOOLS: &[Definition] = &[
    Definition::plain("test_tool_with_logging", "Logs three messages"),
    Definition::plain("test_logging_tool", "Logs a message when its caller asked for log messages"),
    Definition::plain("test_tool_with_progress", "Tells three times how far it is"),
    Definition::plain("test_reconnection", "Takes a while"),
    Definition::plain("test_trigger_tool_change", "Tells who listens that the list of tools changed"),
    Definition::plain("test_trigger_prompt_change", "Tells who listens that the list of prompts changed"),
    Definition {
        name: "test_trigger_resource_update",
        description: "Tells who watches a resource that it changed",
        schema: r#"{"type": "object", "required": ["uri"], "properties": {"uri": {"type": "string"}}}"#,
    },
];

/// The suite wants notifications that do not all come at once.
const PAUSE: Duration = Duration::from_millis(50);
/// Long enough that a server which answers quick calls without a stream opens one.
const A_WHILE: Duration = Duration::from_millis(300);

pub(crate) async fn call(call: &Call<'_>) -> Answer {
    match call.request.name.as_ref() {
        "test_tool_with_logging" => {
            for message in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
                log(call, LoggingLevel::Info, message).await?;
                tokio::time::sleep(PAUSE).await;
            }
        }
        "test_logging_tool" => log(call, LoggingLevel::Error, "A message that was asked for").await?,
        "test_tool_with_progress" => progress(call).await?,
        "test_reconnection" => tokio::time::sleep(A_WHILE).await,
        "test_trigger_tool_change" => call.server.listeners().tell(Change::Tools).await,
        "test_trigger_prompt_change" => call.server.listeners().tell(Change::Prompts).await,
        "test_trigger_resource_update" => call.server.listeners().tell(Change::Resource(call.text("uri")?)).await,
        name => return Err(unknown(name)),
    }
    Ok(text("Done."))
}

/// Logs to the caller, unless it asked for graver messages only. Since 2026-07-28 it has to ask for any with the call.
async fn log(call: &Call<'_>, level: LoggingLevel, message: &str) -> Result<(), rmcp::ErrorData> {
    let modern = call.context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28);
    let wanted = if modern { call.context.meta.log_level() } else { Some(*lock(call.server.log_level())) };
    if wanted.is_none_or(|wanted| gravity(level) < gravity(wanted)) {
        return Ok(());
    }
    let message = LoggingMessageNotificationParam::new(level, json!(message)).with_logger("everything");
    call.context.peer.notify_logging_message(message).await.map_err(own_fault)
}

fn gravity(level: LoggingLevel) -> u8 {
    match level {
        LoggingLevel::Debug => 0,
        LoggingLevel::Info => 1,
        LoggingLevel::Notice => 2,
        LoggingLevel::Warning => 3,
        LoggingLevel::Error => 4,
        LoggingLevel::Critical => 5,
        LoggingLevel::Alert => 6,
        LoggingLevel::Emergency => 7,
    }
}

async fn progress(call: &Call<'_>) -> Result<(), rmcp::ErrorData> {
    let Some(token) = call.context.meta.get_progress_token() else { return Ok(()) };
    for done in [0.0, 50.0, 100.0] {
        let step = ProgressNotificationParam::new(token.clone(), done).with_total(100.0);
        call.context.peer.notify_progress(step).await.map_err(own_fault)?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

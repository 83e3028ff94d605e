//! Tools that go on as tasks when their caller can follow one (extension `io.modelcontextprotocol/tasks`, SEP-2663).

use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ClientCapabilities, ContentBlock, CreateTaskResult};
use rmcp::task_manager::{TaskContext, TaskExit, TaskOptions};
use serde_json::Value;

use crate::rounds::{filled, form, input, input_required, name_form, response};
use crate::tools::{Answer, Call, Definition, unknown};

pub(crate) const TOOLS: &[Definition] = &[
    Definition {
        name: "greet",
        description: "Greets, at once",
        schema: r#"{"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}"#,
    },
    Definition {
        name: "slow_compute",
        description: "Takes its time, as a task if it may",
        schema: r#"{"type": "object", "properties": {"seconds": {"type": "number"}, "label": {"type": "string"}}}"#,
    },
    Definition::plain("failing_job", "Fails, as a task only"),
    Definition::plain("protocol_error_job", "Fails with a protocol error, as a task if it may"),
    Definition {
        name: "confirm_delete",
        description: "Asks before it deletes, as a task only",
        schema: r#"{"type": "object", "properties": {"filename": {"type": "string"}}}"#,
    },
    Definition::plain("multi_input", "Asks for two things at once, as a task only"),
    Definition::plain("test_tool_with_task", "Asks for a name, then goes on as a task"),
];

/// Tools that cannot answer but by a task.
const TASK_ONLY: [&str; 4] = ["failing_job", "confirm_delete", "multi_input", "test_tool_with_task"];
/// Longest time that anything takes here.
const LONGEST: f64 = 300.0;
/// How long a task works that could be done at once: long enough to be seen at work.
const MOMENT: Duration = Duration::from_millis(200);

pub(crate) async fn call(call: &Call<'_>) -> Answer {
    let name = call.request.name.as_ref();
    let follows = call.context.client_capabilities().is_some_and(|client| client.supports_tasks());
    if TASK_ONLY.contains(&name) && !follows {
        let tasks = ClientCapabilities::builder().enable_tasks().build();
        return Err(ErrorData::missing_required_client_capability(tasks));
    }
    match name {
        "greet" => Ok(said(format!("Hello, {}!", call.text("name")?)).into()),
        "slow_compute" => {
            let time = seconds(call);
            if follows {
                return Ok(task(call, move |_| async move { Ok(slow(time).await) }));
            }
            Ok(slow(time).await.into())
        }
        "protocol_error_job" => {
            let broken = || ErrorData::internal_error("this job ends with a protocol error", None);
            if !follows {
                return Err(broken());
            }
            Ok(task(call, move |_| async move {
                tokio::time::sleep(MOMENT).await;
                Err(TaskExit::Error(broken()))
            }))
        }
        "failing_job" => Ok(task(call, |_| async {
            tokio::time::sleep(MOMENT).await;
            Ok(CallToolResult::error(vec![ContentBlock::text("This job fails.")]))
        })),
        "confirm_delete" => {
            let file = call.text("filename").unwrap_or("a file").to_owned();
            Ok(task(call, move |task| async move {
                let asked = input(form(&format!("Delete {file}?"), "confirm", "boolean"))?;
                let answer = task.request_input("confirm", asked).await?;
                let yes = answer["content"]["confirm"] == true;
                Ok(said(format!("{file} is {}.", if yes { "deleted" } else { "still there" })))
            }))
        }
        "multi_input" => Ok(task(call, |task| async move {
            let first = task.request_input("first", input(form("The first?", "value", "string"))?);
            let second = task.request_input("second", input(form("The second?", "value", "string"))?);
            let (first, second) = tokio::try_join!(first, second)?;
            Ok(said(format!("{} and {}", first["content"], second["content"])))
        })),
        "test_tool_with_task" => match response(call.request.input_responses.as_ref(), "user_name") {
            None => input_required([("user_name", name_form())], None).map(Into::into),
            Some(answer) => {
                let greeting = format!("Hello, {}!", filled(answer, "name"));
                Ok(task(call, move |_| async move {
                    tokio::time::sleep(MOMENT).await;
                    Ok(said(greeting))
                }))
            }
        },
        name => Err(unknown(name)),
    }
}

/// Starts a task; one that is cancelled stops where it is.
fn task<W, F>(call: &Call<'_>, work: W) -> rmcp::model::CallToolResponse
where
    W: FnOnce(TaskContext) -> F + Send + 'static,
    F: Future<Output = Result<CallToolResult, TaskExit>> + Send + 'static,
{
    let started = call.server.tasks().spawn(TaskOptions::default(), move |context| {
        Box::pin(async move {
            tokio::select! {
                () = context.cancelled() => Err(TaskExit::Cancelled),
                done = work(context.clone()) => done,
            }
        })
    });
    CreateTaskResult::new(started).into()
}

async fn slow(time: Duration) -> CallToolResult {
    tokio::time::sleep(time).await;
    said(format!("Done after {} s.", time.as_secs_f64()))
}

fn seconds(call: &Call<'_>) -> Duration {
    let arguments = call.request.arguments.as_ref();
    let seconds = arguments.and_then(|arguments| arguments.get("seconds")).and_then(Value::as_f64).unwrap_or(1.0);
    Duration::from_secs_f64(seconds.clamp(0.0, LONGEST))
}

fn said(text: impl Into<String>) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

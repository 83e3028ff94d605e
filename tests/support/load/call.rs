//! One call, and what came of it.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::tally::Outcome;

/// A call without an answer for so long is late.
pub(super) const LATE: Duration = Duration::from_secs(10);
/// From a connection that nobody took to the next try.
pub(super) const AGAIN: Duration = Duration::from_millis(50);

/// The call of tool `echo` with a text that no other call has.
pub(super) fn echo(number: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {
        "name": "echo", "arguments": {"message": text(number)}}})
}

fn text(number: u64) -> String {
    format!("call {number}")
}

/// Makes the call, again where nobody took the connection, so that nothing can have been sent. Says what came of it, and
/// how many connections were not taken.
pub(super) async fn made<F>(number: u64, send: impl Fn() -> F) -> (Outcome, u64)
where
    F: Future<Output = reqwest::Result<Response>>,
{
    let mut unconnected = 0;
    let answered = timeout(LATE, async {
        match connected(&mut unconnected, send).await {
            Ok(response) => outcome(number, response).await,
            Err(error) => broke_off(&error),
        }
    });
    let outcome = answered.await.unwrap_or(Outcome::Late);
    (outcome, unconnected)
}

/// The answer of the first connection that is taken.
pub(super) async fn connected<F>(unconnected: &mut u64, send: impl Fn() -> F) -> reqwest::Result<Response>
where
    F: Future<Output = reqwest::Result<Response>>,
{
    loop {
        match send().await {
            Err(error) if error.is_connect() => {
                *unconnected += 1;
                sleep(AGAIN).await;
            }
            other => return other,
        }
    }
}

async fn outcome(number: u64, response: Response) -> Outcome {
    let status = response.status();
    let is_stream =
        response.headers().get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    let body = match response.text().await {
        Ok(body) => body,
        Err(error) => return broke_off(&error),
    };
    let message = if is_stream { last_event(&body) } else { &body };
    judge(number, status, message)
}

/// The data of the last event: nothing follows an answer.
fn last_event(body: &str) -> &str {
    let mut data = body.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
    data.rfind(|data| !data.is_empty()).unwrap_or_default()
}

/// What an answer amounts to.
pub(super) fn judge(number: u64, status: StatusCode, message: &str) -> Outcome {
    let answer: Value = serde_json::from_str(message).unwrap_or_default();
    let error = &answer["error"];
    let kind = |details: &Value| details["error_type"].as_str().unwrap_or("of the server").to_owned();
    let result = &answer["result"];
    if status == StatusCode::NOT_FOUND && error["data"]["error_type"] == "UnknownSession" {
        Outcome::SessionLost
    } else if status != StatusCode::OK {
        Outcome::Refused(format!("{} {}", status.as_u16(), kind(&error["data"])))
    } else if !error.is_null() {
        Outcome::Error(format!("{} {}", error["code"], kind(&error["data"])))
    } else if result["isError"] == true {
        Outcome::ToolError(kind(&result["structuredContent"]))
    } else if result["content"][0]["text"] == format!("Echo: {}", text(number)) && answer["id"] == number {
        Outcome::Answered
    } else {
        Outcome::Wrong(message.chars().take(120).collect())
    }
}

/// What broke an exchange off, in the words of whoever knows best.
pub(super) fn broke_off(error: &reqwest::Error) -> Outcome {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    Outcome::BrokeOff(innermost.to_string())
}

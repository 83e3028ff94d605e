//! Reading answers, strictly: a fast wrong answer is no figure.

use std::borrow::Cow;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CallResult<'a> {
    #[serde(borrow)]
    content: Vec<Content<'a>>,
    #[serde(default, rename = "isError")]
    is_error: bool,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    text: Cow<'a, str>,
}

/// The result of the answer to `id`, in a JSON message or in the one event of a stream that carries it.
pub(crate) fn result<'a>(answer: &'a str, id: &str) -> anyhow::Result<&'a RawValue> {
    if answer.starts_with('{') {
        return in_message(answer, id)?.with_context(|| format!("the answer is not to {id}: {}", start(answer)));
    }
    for data in answer.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim) {
        if data.is_empty() {
            continue;
        }
        if let Some(result) = in_message(data, id)? {
            return Ok(result);
        }
    }
    bail!("no event answers {id}: {}", start(answer))
}

fn in_message<'a>(text: &'a str, id: &str) -> anyhow::Result<Option<&'a RawValue>> {
    let reply: Reply<'_> = serde_json::from_str(text).with_context(|| format!("not JSON-RPC: {}", start(text)))?;
    if reply.id.is_none_or(|found| found.get() != id) {
        return Ok(None);
    }
    if let Some(error) = reply.error {
        bail!("JSON-RPC error {}", start(error.get()));
    }
    reply.result.map(Some).context("the answer has neither result nor error")
}

/// Checks that `message` was said back, after what else the server likes to say.
pub(crate) fn check_echo(result: &RawValue, message: &str) -> anyhow::Result<()> {
    let call: CallResult<'_> = serde_json::from_str(result.get()).context("not the result of a call")?;
    let text = call.content.first().map(|content| content.text.as_ref()).unwrap_or_default();
    ensure!(!call.is_error && text.ends_with(message), "asked to say {message:?}, the server said {:?}", start(text));
    Ok(())
}

/// Checks that a text of so many bytes was said.
pub(crate) fn check_length(result: &RawValue, bytes: usize) -> anyhow::Result<()> {
    let call: CallResult<'_> = serde_json::from_str(result.get()).context("not the result of a call")?;
    let length = call.content.first().map_or(0, |content| content.text.len());
    ensure!(!call.is_error && length == bytes, "asked for {bytes} bytes, the server said {length}");
    Ok(())
}

/// What a message needs of a text that may be long.
pub(crate) fn start(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"Echo: m-7"}]}}"#;

    #[test]
    fn the_answer_is_found_in_a_message_and_in_a_stream() {
        let stream = format!("event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"x\"}}\n\ndata: {SAID}\n\n");
        for answer in [SAID, &stream] {
            check_echo(result(answer, "7").expect("found"), "m-7").expect("said back");
        }
    }

    #[test]
    fn another_id_another_text_and_an_error_are_told() {
        assert!(result(SAID, "8").is_err());
        assert!(check_echo(result(SAID, "7").expect("found"), "m-8").is_err());
        let error = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32000,"message":"busy"}}"#;
        assert!(result(error, "7").expect_err("an error").to_string().contains("busy"));
        let failed = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"m"}],"isError":true}}"#;
        assert!(check_echo(result(failed, "7").expect("found"), "m").is_err());
    }
}

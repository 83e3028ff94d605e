//! Tools that send a request to their caller while it waits, which 2026-07-28 no longer has: see `rounds`.

use rmcp::ErrorData;
use rmcp::model::{CreateMessageRequestParams, ElicitRequestParams, SamplingMessage};
use serde_json::{Value, json};

use crate::tools::{Answer, Call, Definition, failed, own_fault, text, unknown};

pub(crate) const TOOLS: &[Definition] = &[
    Definition {
        name: "test_sampling",
        description: "Asks its caller's model",
        schema: r#"{"type": "object", "required": ["prompt"], "properties": {"prompt": {"type": "string"}}}"#,
    },
    Definition {
        name: "test_elicitation",
        description: "Asks its caller's user for a name and an address",
        schema: r#"{"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}}"#,
    },
    Definition::plain("test_elicitation_sep1034_defaults", "Asks its caller's user, and has an answer to everything"),
    Definition::plain("test_elicitation_sep1330_enums", "Asks its caller's user to choose, in every way there is"),
];

pub(crate) async fn call(call: &Call<'_>) -> Answer {
    match call.request.name.as_ref() {
        "test_sampling" => sampling(call).await,
        "test_elicitation" => {
            let person = json!({"type": "object", "required": ["username", "email"], "properties": {
                "username": {"type": "string", "description": "User's response"},
                "email": {"type": "string", "description": "User's email address"},
            }});
            elicitation(call, call.text("message")?, &person).await
        }
        "test_elicitation_sep1034_defaults" => elicitation(call, "Is all of this right?", &defaults()).await,
        "test_elicitation_sep1330_enums" => elicitation(call, "Which of these?", &choices()).await,
        name => Err(unknown(name)),
    }
}

async fn sampling(call: &Call<'_>) -> Answer {
    if call.context.client_capabilities().is_none_or(|client| client.sampling.is_none()) {
        return Ok(failed("The client has no sampling."));
    }
    let question = CreateMessageRequestParams::new(vec![SamplingMessage::user_text(call.text("prompt")?)], 100);
    let answer = match call.context.peer.create_message(question).await {
        Ok(answer) => answer,
        Err(error) => return Ok(failed(format!("The client did not answer: {error}"))),
    };
    let said = answer.message.content.first().and_then(|content| content.as_text()).map(|content| &content.text);
    Ok(text(format!("LLM response: {}", said.map_or("not a text", String::as_str))))
}

async fn elicitation(call: &Call<'_>, message: &str, schema: &Value) -> Answer {
    if call.context.client_capabilities().is_none_or(|client| client.elicitation.is_none()) {
        return Ok(failed("The client has no elicitation."));
    }
    let question = form(message, schema)?;
    Ok(match call.context.peer.create_elicitation(question).await {
        Ok(answer) => {
            let content = answer.content.unwrap_or_default();
            text(format!("User response: action={:?}, content={content}", answer.action))
        }
        Err(error) => failed(format!("The client did not answer: {error}")),
    })
}

fn form(message: &str, schema: &Value) -> Result<ElicitRequestParams, ErrorData> {
    let form = json!({"mode": "form", "message": message, "requestedSchema": schema});
    serde_json::from_value(form).map_err(own_fault)
}

fn defaults() -> Value {
    json!({"type": "object", "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": true},
    }})
}

fn choices() -> Value {
    let names = json!(["option1", "option2", "option3"]);
    let titled = json!([
        {"const": "value1", "title": "First"}, {"const": "value2", "title": "Second"}, {"const": "value3", "title": "Third"},
    ]);
    json!({"type": "object", "properties": {
        "untitledSingle": {"type": "string", "enum": names},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["One", "Two", "Three"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": names}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }})
}

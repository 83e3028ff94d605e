//! Tools that ask their caller something before they answer, and how a client with a session is asked: while it waits. One
//! without is told to call again, as in `rounds`.

use rmcp::RoleServer;
use rmcp::model::{InputRequest, InputRequests, InputResponses};
use rmcp::service::{RequestContext, ServiceError};
use serde_json::{Value, json};

use crate::rounds::{needs, question, response};
use crate::tools::{Answer, Call, Definition, failed, text, unknown};

/// Under which key the one answer comes back.
const ANSWER: &str = "answer";

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

pub(crate) fn call(call: &Call<'_>) -> Answer {
    match call.request.name.as_ref() {
        "test_sampling" => sampling(call),
        "test_elicitation" => {
            let person = json!({"type": "object", "required": ["username", "email"], "properties": {
                "username": {"type": "string", "description": "User's response"},
                "email": {"type": "string", "description": "User's email address"},
            }});
            elicitation(call, call.text("message")?, &person)
        }
        "test_elicitation_sep1034_defaults" => elicitation(call, "Is all of this right?", &defaults()),
        "test_elicitation_sep1330_enums" => elicitation(call, "Which of these?", &choices()),
        name => Err(unknown(name)),
    }
}

fn sampling(call: &Call<'_>) -> Answer {
    if call.context.client_capabilities().is_none_or(|client| client.sampling.is_none()) {
        return Ok(failed("The client has no sampling."));
    }
    let Some(answer) = response(call.request.input_responses.as_ref(), ANSWER) else {
        return needs([(ANSWER, question(call.text("prompt")?))], None);
    };
    let said = answer.get("content").and_then(|content| content["text"].as_str());
    Ok(text(format!("LLM response: {}", said.unwrap_or("not a text"))))
}

fn elicitation(call: &Call<'_>, message: &str, schema: &Value) -> Answer {
    if call.context.client_capabilities().is_none_or(|client| client.elicitation.is_none()) {
        return Ok(failed("The client has no elicitation."));
    }
    let Some(answer) = response(call.request.input_responses.as_ref(), ANSWER) else {
        let params = json!({"mode": "form", "message": message, "requestedSchema": schema});
        return needs([(ANSWER, json!({"method": "elicitation/create", "params": params}))], None);
    };
    let action = answer.get("action").and_then(Value::as_str).unwrap_or("none");
    let content = answer.get("content").unwrap_or(&Value::Null);
    Ok(text(format!("User response: action={action:?}, content={content}")))
}

/// Whether the client has a session: then it is asked on the spot.
pub(crate) fn has_session(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_none_or(|version| version.has_initialize())
}

/// Asks the client of a session all that is needed, and gives its answers.
pub(crate) async fn ask(
    context: &RequestContext<RoleServer>,
    requests: Option<InputRequests>,
) -> Result<InputResponses, ServiceError> {
    let mut answers = InputResponses::new();
    for (key, request) in requests.unwrap_or_default() {
        let answer = match request {
            InputRequest::Elicitation(asked) => json!(context.peer.create_elicitation(asked.params).await?),
            InputRequest::CreateMessage(asked) => json!(context.peer.create_message(asked.params).await?),
            // What else there may be, nothing here asks for.
            _ => json!(context.peer.list_roots().await?),
        };
        answers.insert(key, answer);
    }
    Ok(answers)
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

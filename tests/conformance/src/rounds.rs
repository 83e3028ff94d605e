//! Tools that need more from their caller than arguments, as 2026-07-28 has it: the answer says what, and the caller calls
//! again with it (SEP-2322).

use rmcp::ErrorData;
use rmcp::model::{
    CallToolResponse, ClientCapabilities, InputRequest, InputRequests, InputRequiredResult, InputResponses,
    RequestStateCodec,
};
use serde_json::{Map, Value, json};

use crate::tools::{Answer, Call, Definition, own_fault, text, unknown};

pub(crate) const TOOLS: &[Definition] = &[
    Definition::plain("test_input_required_result_elicitation", "Needs a name"),
    Definition::plain("test_input_required_result_sampling", "Needs an answer of a model"),
    Definition::plain("test_input_required_result_list_roots", "Needs roots"),
    Definition::plain("test_input_required_result_request_state", "Needs a yes, and its own state back"),
    Definition::plain("test_input_required_result_tampered_state", "Needs a yes, and its own state unchanged"),
    Definition::plain("test_input_required_result_multiple_inputs", "Needs three things at once"),
    Definition::plain("test_input_required_result_multi_round", "Needs two things, one after the other"),
    Definition::plain("test_input_required_result_capabilities", "Needs only what its caller can give"),
    Definition::plain("test_streaming_elicitation", "Needs a value"),
    Definition::plain("test_missing_capability", "Refuses callers without sampling"),
];

/// Seals the state between rounds. Replicas read each other's, and there is nothing to be had from forging it.
const STATE_KEY: &[u8] = b"the state of a test fixture, which holds nothing worth having";

pub(crate) fn call(call: &Call<'_>) -> Answer {
    let given = call.request.input_responses.as_ref();
    match call.request.name.as_ref() {
        "test_input_required_result_elicitation" => match response(given, "user_name") {
            Some(answer) => Ok(text(format!("Hello, {}!", filled(answer, "name")))),
            None => needs([("user_name", name_form())], None),
        },
        "test_input_required_result_sampling" => match response(given, "capital_question") {
            Some(answer) => {
                let said = answer.get("content").and_then(|content| content["text"].as_str());
                Ok(text(format!("The model says: {}", said.unwrap_or("not a text"))))
            }
            None => needs([("capital_question", question("What is the capital of France?"))], None),
        },
        "test_input_required_result_list_roots" => match response(given, "client_roots") {
            Some(answer) => Ok(text(format!("Roots: {}", answer.get("roots").unwrap_or(&Value::Null)))),
            None => needs([("client_roots", roots())], None),
        },
        "test_input_required_result_request_state" | "test_input_required_result_tampered_state" => state(call),
        "test_input_required_result_multiple_inputs" => several(call),
        "test_input_required_result_multi_round" => stepwise(call),
        "test_input_required_result_capabilities" => capable(call),
        "test_streaming_elicitation" => needs([("value", form("A value?", "value", "string"))], None),
        "test_missing_capability" => {
            if call.context.client_capabilities().is_some_and(|client| client.sampling.is_some()) {
                return Ok(text("The client has sampling."));
            }
            let sampling = ClientCapabilities::builder().enable_sampling().build();
            Err(ErrorData::missing_required_client_capability(sampling))
        }
        name => Err(unknown(name)),
    }
}

fn state(call: &Call<'_>) -> Answer {
    match &call.request.request_state {
        None => needs([("confirm", form("Go on?", "ok", "boolean"))], Some(json!({"round": 1}))),
        Some(sealed) => open(sealed).map(|_| text("state-ok")),
    }
}

fn several(call: &Call<'_>) -> Answer {
    let (given, wanted) = (call.request.input_responses.as_ref(), ["user_name", "greeting", "client_roots"]);
    if let Some(sealed) = &call.request.request_state {
        open(sealed)?;
        if wanted.iter().all(|key| response(given, key).is_some()) {
            return Ok(text("All of it is there."));
        }
    }
    let requests = wanted.into_iter().zip([name_form(), question("Greet the user."), roots()]);
    needs(requests, Some(json!({"round": 1})))
}

fn stepwise(call: &Call<'_>) -> Answer {
    let round = match &call.request.request_state {
        None => 0,
        Some(sealed) => open(sealed)?["round"].as_u64().unwrap_or(0),
    };
    match round {
        0 => needs([("step1", name_form())], Some(json!({"round": 1}))),
        1 => needs([("step2", form("Which colour?", "color", "string"))], Some(json!({"round": 2}))),
        _ => Ok(text("Both steps are done.")),
    }
}

fn capable(call: &Call<'_>) -> Answer {
    if call.request.input_responses.is_some() {
        return Ok(text("That was all."));
    }
    let client = call.context.client_capabilities().unwrap_or_default();
    let requests: Vec<_> = [
        client.elicitation.is_some().then(|| ("user_name", name_form())),
        client.sampling.is_some().then(|| ("greeting", question("Greet the user."))),
        client.roots.is_some().then(|| ("client_roots", roots())),
    ]
    .into_iter()
    .flatten()
    .collect();
    if requests.is_empty() { Ok(text("The client can be asked nothing.")) } else { needs(requests, None) }
}

/// The answer that asks for more, with the state that has to come back.
pub(crate) fn needs<'a>(requests: impl IntoIterator<Item = (&'a str, Value)>, state: Option<Value>) -> Answer {
    input_required(requests, state).map(CallToolResponse::from)
}

/// What asks for more, from a prompt as from a tool.
pub(crate) fn input_required<'a>(
    requests: impl IntoIterator<Item = (&'a str, Value)>,
    state: Option<Value>,
) -> Result<InputRequiredResult, ErrorData> {
    let requests: Result<InputRequests, ErrorData> =
        requests.into_iter().map(|(key, request)| Ok((key.to_owned(), input(request)?))).collect();
    let sealed = state.map(|state| codec()?.seal_json(&state).map_err(own_fault)).transpose()?;
    Ok(InputRequiredResult::new(Some(requests?), sealed))
}

/// A request to the client as rmcp has it.
pub(crate) fn input(request: Value) -> Result<InputRequest, ErrorData> {
    serde_json::from_value(request).map_err(own_fault)
}

/// What the client gave under a key. Something that is no object was no answer.
pub(crate) fn response<'a>(given: Option<&'a InputResponses>, key: &str) -> Option<&'a Map<String, Value>> {
    given?.get(key)?.as_object()
}

/// What a user wrote into a field of a form.
pub(crate) fn filled<'a>(answer: &'a Map<String, Value>, field: &str) -> &'a str {
    answer.get("content").and_then(|content| content[field].as_str()).unwrap_or("nobody")
}

/// A form with one field.
pub(crate) fn form(message: &str, field: &str, kind: &str) -> Value {
    let schema = json!({"type": "object", "properties": {field: {"type": kind}}, "required": [field]});
    let params = json!({"mode": "form", "message": message, "requestedSchema": schema});
    json!({"method": "elicitation/create", "params": params})
}

/// A form that asks for a name.
pub(crate) fn name_form() -> Value {
    form("What is your name?", "name", "string")
}

/// A question to a model.
pub(crate) fn question(text: &str) -> Value {
    let messages = json!([{"role": "user", "content": {"type": "text", "text": text}}]);
    json!({"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": 100}})
}

fn roots() -> Value {
    json!({"method": "roots/list", "params": {}})
}

fn codec() -> Result<RequestStateCodec, ErrorData> {
    RequestStateCodec::try_new(STATE_KEY).map_err(own_fault)
}

fn open(sealed: &str) -> Result<Value, ErrorData> {
    let refused = |_| ErrorData::invalid_params("requestState is not what this server sent", None);
    codec()?.open_json(sealed).map_err(refused)
}

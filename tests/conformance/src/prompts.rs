//! Prompts: one for each kind of content, one with arguments, and one that needs an answer first.

use rmcp::ErrorData;
use rmcp::model::{
    ContentBlock, GetPromptRequestParams, GetPromptResponse, GetPromptResult, Prompt, PromptArgument, PromptMessage,
    ResourceContents, Role,
};
use serde_json::Value;

use crate::media;
use crate::rounds::{filled, form, input_required, response};

/// Those that a list has.
pub(crate) fn all() -> Vec<Prompt> {
    vec![
        Prompt::new("test_simple_prompt", Some("A prompt without arguments"), None),
        Prompt::new(
            "test_prompt_with_arguments",
            Some("A prompt with two arguments"),
            Some(vec![argument("arg1"), argument("arg2")]),
        ),
        Prompt::new(
            "test_prompt_with_embedded_resource",
            Some("A prompt with a resource"),
            Some(vec![argument("resourceUri")]),
        ),
        Prompt::new("test_prompt_with_image", Some("A prompt with a picture"), None),
        Prompt::new("test_input_required_result_prompt", Some("A prompt that needs an answer first"), None),
    ]
}

/// A prompt with its arguments filled in.
pub(crate) fn get(request: &GetPromptRequestParams) -> Result<GetPromptResponse, ErrorData> {
    let messages = match request.name.as_str() {
        "test_simple_prompt" => vec![says("This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => {
            let (first, second) = (given(request, "arg1")?, given(request, "arg2")?);
            vec![says(&format!("Prompt with arguments: arg1='{first}', arg2='{second}'"))]
        }
        "test_prompt_with_embedded_resource" => {
            let resource =
                ResourceContents::text("Embedded resource content for testing.", given(request, "resourceUri")?);
            vec![
                shows(ContentBlock::resource(resource.with_mime_type("text/plain"))),
                says("Please process the embedded resource above."),
            ]
        }
        "test_prompt_with_image" => {
            vec![shows(ContentBlock::image(media::PNG, "image/png")), says("Please analyze the image above.")]
        }
        "test_input_required_result_prompt" => match response(request.input_responses.as_ref(), "user_context") {
            Some(answer) => vec![says(&format!("The context is: {}", filled(answer, "context")))],
            None => {
                let question = form("What context should the prompt use?", "context", "string");
                return input_required([("user_context", question)], None).map(Into::into);
            }
        },
        name => return Err(ErrorData::invalid_params(format!("there is no prompt {name}"), None)),
    };
    Ok(GetPromptResult::new(messages).into())
}

fn argument(name: &str) -> PromptArgument {
    PromptArgument::new(name).with_required(true)
}

fn given<'a>(request: &'a GetPromptRequestParams, name: &str) -> Result<&'a str, ErrorData> {
    let value = request.arguments.as_ref().and_then(|arguments| arguments.get(name)).and_then(Value::as_str);
    value.ok_or_else(|| ErrorData::invalid_params(format!("the argument {name} is missing"), None))
}

fn says(text: &str) -> PromptMessage {
    PromptMessage::new_text(Role::User, text)
}

fn shows(content: ContentBlock) -> PromptMessage {
    PromptMessage::new(Role::User, content)
}

//! Completions of the arguments of prompts and of the resource template.

use rmcp::ErrorData;
use rmcp::model::{CompleteRequestParams, CompleteResult, CompletionInfo, Reference};

use crate::tools::own_fault;

const ARGUMENTS: [&str; 3] = ["test", "testing", "tests"];
const IDS: [&str; 3] = ["1", "12", "123"];

/// What begins as the user began.
pub(crate) fn complete(request: &CompleteRequestParams) -> Result<CompleteResult, ErrorData> {
    let known = match &request.r#ref {
        Reference::Prompt(_) => ARGUMENTS,
        _ => IDS,
    };
    let values = known.into_iter().filter(|value| value.starts_with(&request.argument.value)).map(str::to_owned);
    Ok(CompleteResult::new(CompletionInfo::new(values.collect()).map_err(own_fault)?))
}

//! Results of an earlier era, as clients of this one read them.

use std::borrow::Cow;

use crate::failure::Kind;
use crate::members::Members;
use crate::modern::meta;
use crate::revision;
use crate::translate::ServerIntro;

/// Results that must say how long they may be kept, and by whom ("CacheableResult").
const CACHEABLE: [&str; 5] =
    ["tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"];
/// 2025-11-25 and earlier: there is no such resource.
const RESOURCE_NOT_FOUND: &str = "-32002";
/// 2025-11-25: the call needs the user to visit a URL first.
const URL_ELICITATION_REQUIRED: &str = "-32042";

/// The result of `method` in this era.
pub(super) fn complete(method: &str, payload: &str, server: &ServerIntro) -> String {
    let Some(mut result) = Members::of(payload) else { return payload.to_owned() };
    result.set("resultType", r#""complete""#);
    if CACHEABLE.contains(&method) {
        // A server that says nothing of it is asked again every time, for every caller.
        if result.get("ttlMs").is_none() {
            result.set("ttlMs", "0");
        }
        if result.get("cacheScope").is_none() {
            result.set("cacheScope", r#""private""#);
        }
    }
    introduce(&mut result, server);
    result.to_string()
}

/// Says who answered.
fn introduce(result: &mut Members<'_>, server: &ServerIntro) {
    let Some(info) = &server.info else { return };
    let mut of_result = result.get("_meta").map_or_else(|| Some(Members::default()), Members::of);
    if let Some(of_result) = of_result.as_mut().filter(|of_result| of_result.get(meta::SERVER_INFO).is_none()) {
        let mut of_result = of_result.clone();
        of_result.set(meta::SERVER_INFO, info.as_str());
        let json = of_result.to_string();
        result.set("_meta", json);
    }
}

/// The answer to `server/discover`.
pub(in crate::translate) fn discover(server: &ServerIntro) -> String {
    let versions: Vec<&str> = revision::served().collect();
    let mut result = Members::default();
    result.set("resultType", r#""complete""#);
    result.set("supportedVersions", serde_json::Value::from(versions).to_string());
    result.set("capabilities", server.capabilities.as_str());
    if let Some(instructions) = &server.instructions {
        result.set("instructions", instructions.as_str());
    }
    result.set("ttlMs", "0");
    result.set("cacheScope", r#""private""#);
    introduce(&mut result, server);
    result.to_string()
}

/// A result that asks for more: `questions` are keys with method and parameters.
pub(super) fn input_required<'a>(
    questions: impl Iterator<Item = (&'a str, &'a str, Option<&'a str>)>,
    state: Option<&str>,
) -> String {
    let mut requests = Members::default();
    for (key, method, params) in questions {
        let mut request = Members::default();
        request.set("method", serde_json::Value::from(method).to_string());
        if let Some(params) = params {
            request.set("params", params);
        }
        requests.set(key, request.to_string());
    }
    let mut result = Members::default();
    result.set("resultType", r#""input_required""#);
    result.set("inputRequests", requests.to_string());
    if let Some(state) = state {
        result.set("requestState", serde_json::Value::from(state).to_string());
    }
    result.to_string()
}

/// What an error of an earlier era is in this one.
pub(super) enum Translated {
    /// An error too.
    Error(String),
    /// A result that asks the user to visit a URL.
    InputRequired(String),
}

pub(super) fn error(payload: &str) -> Translated {
    let Some(mut error) = Members::of(payload) else { return Translated::Error(payload.to_owned()) };
    match error.get("code") {
        Some(RESOURCE_NOT_FOUND) => error.set("code", Kind::InvalidParams.code().to_string()),
        Some(URL_ELICITATION_REQUIRED) => {
            if let Some(result) = error.get("data").and_then(urls_to_visit) {
                return Translated::InputRequired(result);
            }
        }
        _ => {}
    }
    Translated::Error(error.to_string())
}

/// The call is made again from its beginning when the user has been there: there is no state to hand back.
fn urls_to_visit(data: &str) -> Option<String> {
    let data = Members::of(data)?;
    let visits: Vec<&serde_json::value::RawValue> = serde_json::from_str(data.get("elicitations")?).ok()?;
    let keyed: Option<Vec<(String, String)>> = visits
        .iter()
        .enumerate()
        .map(|(index, visit)| {
            let mut params = Members::of(visit.get())?;
            params.remove("elicitationId");
            Some((format!("url-{index}"), params.to_string()))
        })
        .collect();
    let keyed = keyed.filter(|keyed| !keyed.is_empty())?;
    let mut requests = Members::default();
    for (key, params) in &keyed {
        let request = format!(r#"{{"method":"elicitation/create","params":{params}}}"#);
        requests.set(key.as_str(), Cow::Owned(request));
    }
    Some(format!(r#"{{"resultType":"input_required","inputRequests":{requests}}}"#))
}

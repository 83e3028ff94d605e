//! Lists of all servers, and who they are together.

use std::time::Duration;

use portolan_mcp::{
    aggregate::{Cursor, Kind as ListKind, PageSize, Selection, capabilities, page},
    envelope::{Request, string_param},
    failure::{Failure, Kind},
    members::Members,
    modern::meta,
    revision,
};
use portolan_snapshot::Toolset;
use serde_json::{Value, json};

use super::catalog::Part;

/// One page.
const PAGE: PageSize = PageSize { items: 1000, bytes: 4 * 1024 * 1024 };
/// Says in `_meta` of which servers a result does not hold what they have now.
const MISSING: &str = "portolan.dev/missing";

/// Every capability that is told of.
const ALL: &str = r#"{"tools":{},"prompts":{},"resources":{},"completions":{}}"#;

const INSTRUCTIONS: &str = "Several servers as one. Tools and prompts are named <namespace>__<server>__<name>, resources \
                            <server>.<namespace>+<uri>. What a list lacks because a server does not answer is named in its \
                            _meta under portolan.dev/missing.";

/// The same of a toolset, behind what that says itself.
const OF_A_TOOLSET: &str = "Several servers as one. What a list lacks because a server does not answer is named in its _meta \
                            under portolan.dev/missing.";

/// One page of a list, of what `selection` shows where there is one, without what only one era has.
///
/// # Errors
/// The request's cursor is none that was given out.
pub(super) fn list(
    kind: ListKind,
    request: &Request<'_>,
    parts: &[Part],
    selection: Option<&Selection>,
) -> Result<Members<'static>, Failure> {
    let cursor = match request.params.and_then(|params| string_param(params, "cursor")) {
        None => None,
        Some(text) => Some(Cursor::parse(&text).ok_or_else(|| {
            Failure::new(Kind::InvalidParams, "params.cursor must be the nextCursor of the page before, or be left out")
        })?),
    };
    let lists = parts.iter().filter_map(|part| {
        let (route, list) = (part.route.as_str(), part.lists.as_ref()?.of(kind));
        let shown = selection.filter(|_| kind == ListKind::Tools).map(|selection| selection.tools(route, list));
        Some((route, shown.unwrap_or_else(|| list.clone())))
    });
    let lists: Vec<_> = lists.collect();
    let page = page(lists.iter().map(|(route, list)| (*route, list)), cursor.as_ref(), PAGE);
    let mut result = Members::default();
    result.set(kind.member(), format!("[{}]", page.items.join(",")));
    if let Some(next) = page.next {
        result.set("nextCursor", Value::from(next.to_string()).to_string());
    }
    let missing: Vec<Value> = parts.iter().filter_map(missing).collect();
    if !missing.is_empty() {
        result.set("_meta", json!({ MISSING: missing }).to_string());
    }
    Ok(result)
}

/// What is said of a server of which not all is there.
fn missing(part: &Part) -> Option<Value> {
    let failure = part.failure.as_ref()?;
    Some(json!({
        "server": part.route.as_str(),
        "error_type": failure.kind.as_str(),
        "message": failure.message,
        "stale": part.lists.is_some(),
        "age_seconds": part.lists.as_ref().map(|_| part.age.as_secs()),
    }))
}

/// Adds what results of the sessionless era say besides: for `fresh` a client need not ask again. A list depends on who
/// asks.
pub(super) fn in_modern(mut result: Members<'static>, fresh: Duration) -> String {
    result.set("resultType", r#""complete""#);
    result.set("ttlMs", fresh.as_millis().to_string());
    result.set("cacheScope", r#""private""#);
    result.to_string()
}

/// The result of `server/discover`.
pub(super) fn discover(parts: &[Part], toolset: Option<&Toolset>, fresh: Duration) -> String {
    let mut result = Members::default();
    let versions: Vec<&str> = revision::served().collect();
    result.set("supportedVersions", Value::from(versions).to_string());
    result.set("capabilities", together(parts));
    result.set("instructions", Value::from(instructions(toolset)).to_string());
    result.set("_meta", json!({ meta::SERVER_INFO: info() }).to_string());
    in_modern(result, fresh)
}

/// The result of `initialize` in `revision`.
pub(super) fn initialize(revision: &str, parts: &[Part], toolset: Option<&Toolset>) -> String {
    let mut result = Members::default();
    result.set("protocolVersion", Value::from(revision).to_string());
    result.set("capabilities", together(parts));
    result.set("serverInfo", info().to_string());
    result.set("instructions", Value::from(instructions(toolset)).to_string());
    result.to_string()
}

fn instructions(toolset: Option<&Toolset>) -> String {
    match toolset {
        None => INSTRUCTIONS.to_owned(),
        Some(Toolset { instructions: Some(own), .. }) => format!("{own}\n\n{OF_A_TOOLSET}"),
        Some(_) => OF_A_TOOLSET.to_owned(),
    }
}

/// A client asks once what there is: a server that has not said yet may have everything.
fn together(parts: &[Part]) -> String {
    capabilities(parts.iter().map(|part| part.lists.as_ref().map_or(ALL, |lists| lists.intro.capabilities.as_str())))
}

fn info() -> Value {
    json!({"name": "portolan", "version": env!("CARGO_PKG_VERSION")})
}

//! Lists of all servers, and who they are together.

use portolan_mcp::{
    aggregate::{Cursor, Kind as ListKind, capabilities, page},
    failure::{Failure, Kind},
    members::Members,
    modern::meta,
    revision,
};
use serde_json::{Value, json};

use super::catalog::Part;

/// Items of one page.
const PAGE: usize = 1000;
/// For how long a client need not ask again, in milliseconds: changes are told.
const TTL_MILLIS: &str = "15000";
/// Says in `_meta` of which servers a result does not hold what they have now.
const MISSING: &str = "portolan.dev/missing";

const INSTRUCTIONS: &str = "Several servers as one. Tools and prompts are named <namespace>__<server>__<name>, resources \
                            <server>.<namespace>+<uri>. What a list lacks because a server does not answer is named in its \
                            _meta under portolan.dev/missing.";

/// One page of a list, without what only one era has.
///
/// # Errors
/// `cursor` is none that was given out.
pub(super) fn list(kind: ListKind, cursor: Option<&str>, parts: &[Part]) -> Result<Members<'static>, Failure> {
    let cursor = match cursor {
        None => None,
        Some(text) => Some(Cursor::parse(text).ok_or_else(|| {
            Failure::new(Kind::InvalidParams, "params.cursor must be the nextCursor of the page before, or be left out")
        })?),
    };
    let lists = parts.iter().filter_map(|part| Some((part.route.as_str(), part.lists.as_ref()?.of(kind))));
    let page = page(lists, cursor.as_ref(), PAGE);
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

/// Adds what results of the sessionless era say besides. A list depends on who asks.
pub(super) fn in_modern(mut result: Members<'static>) -> String {
    result.set("resultType", r#""complete""#);
    result.set("ttlMs", TTL_MILLIS);
    result.set("cacheScope", r#""private""#);
    result.to_string()
}

/// The result of `server/discover`.
pub(super) fn discover(parts: &[Part]) -> String {
    let mut result = Members::default();
    let versions: Vec<&str> = revision::served().collect();
    result.set("supportedVersions", Value::from(versions).to_string());
    result.set("capabilities", together(parts));
    result.set("instructions", Value::from(INSTRUCTIONS).to_string());
    result.set("_meta", json!({ meta::SERVER_INFO: info() }).to_string());
    in_modern(result)
}

/// The result of `initialize` for a client that asks for `revision`.
pub(super) fn initialize(revision: &str, parts: &[Part]) -> String {
    let revision = if revision::is_legacy(revision) { revision } else { revision::LATEST_LEGACY };
    let mut result = Members::default();
    result.set("protocolVersion", Value::from(revision).to_string());
    result.set("capabilities", together(parts));
    result.set("serverInfo", info().to_string());
    result.set("instructions", Value::from(INSTRUCTIONS).to_string());
    result.to_string()
}

fn together(parts: &[Part]) -> String {
    capabilities(parts.iter().filter_map(|part| Some(part.lists.as_ref()?.intro.capabilities.as_str())))
}

fn info() -> Value {
    json!({"name": "portolan", "version": env!("CARGO_PKG_VERSION")})
}

//! Lists of all servers, and who they are together.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use portolan_mcp::{
    aggregate::{Cursor, Kind as ListKind},
    envelope::{Id, Request, string_param},
    failure::{Failure, Kind},
    members::Members,
    modern::meta,
    revision,
};
use portolan_snapshot::Toolset;
use serde_json::{Value, json};

use super::catalog::Part;
use super::view::{Page, View};
use crate::respond::{self, Body};

/// Says in `_meta` of which servers a result does not hold what they have now.
const MISSING: &str = "portolan.dev/missing";

const INSTRUCTIONS: &str = "Several servers as one. Tools and prompts are named <namespace>__<server>__<name>, resources \
                            <server>.<namespace>+<uri>. What a list lacks because a server does not answer is named in its \
                            _meta under portolan.dev/missing.";

/// The same of a toolset, behind what that says itself.
const OF_A_TOOLSET: &str = "Several servers as one. What a list lacks because a server does not answer is named in its _meta \
                            under portolan.dev/missing.";

/// A result that is a page of a list: the items, as they are kept, between the rest of it.
pub(super) struct Listed {
    kind: ListKind,
    page: Arc<Page>,
    /// What the result has besides the items.
    rest: Members<'static>,
}

/// One page of a list, without what only one era has.
///
/// # Errors
/// The request's cursor is none that was given out.
pub(super) fn list(kind: ListKind, request: &Request<'_>, view: &View) -> Result<Listed, Failure> {
    let cursor = match request.params.and_then(|params| string_param(params, "cursor")) {
        None => None,
        Some(text) => Some(Cursor::parse(&text).ok_or_else(|| {
            Failure::new(Kind::InvalidParams, "params.cursor must be the nextCursor of the page before, or be left out")
        })?),
    };
    let page = view.page(kind, cursor);
    let mut rest = Members::default();
    if let Some(next) = &page.next {
        rest.set("nextCursor", Value::from(next.to_string()).to_string());
    }
    let missing: Vec<Value> = view.missing().map(missing).collect();
    if !missing.is_empty() {
        rest.set("_meta", json!({ MISSING: missing }).to_string());
    }
    Ok(Listed { kind, page, rest })
}

impl Listed {
    /// With what results of the sessionless era say besides.
    pub(super) fn in_modern(mut self, fresh: Duration) -> Self {
        set_modern(&mut self.rest, fresh);
        self
    }

    /// The answer to the request `id`. However many servers there are, the items are not copied.
    pub(super) fn answer(self, id: &Id) -> Response<Body> {
        let before = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"{}":"#, id.as_json(), self.kind.member());
        let rest = self.rest.to_string();
        // The rest is an object: its members follow the items, or nothing does.
        let members = rest.strip_prefix('{').unwrap_or("}");
        let comma = if members == "}" { "" } else { "," };
        respond::joined([before.into(), self.page.items.clone(), format!("{comma}{members}}}").into()])
    }
}

/// What is said of a server of which not all is there.
fn missing(part: &Part) -> Value {
    json!({
        "server": part.route.as_str(),
        "error_type": part.failure.as_ref().map(|failure| failure.kind.as_str()),
        "message": part.failure.as_ref().map(|failure| &*failure.message),
        "stale": part.lists.is_some(),
        "age_seconds": part.lists.as_ref().map(|_| part.age().as_secs()),
    })
}

/// Adds what results of the sessionless era say besides: for `fresh` a client need not ask again. A list depends on who
/// asks.
fn set_modern(result: &mut Members<'static>, fresh: Duration) {
    result.set("resultType", r#""complete""#);
    result.set("ttlMs", fresh.as_millis().to_string());
    result.set("cacheScope", r#""private""#);
}

/// The result of `server/discover`.
pub(super) fn discover(view: &View, toolset: Option<&Toolset>, fresh: Duration) -> String {
    let mut result = Members::default();
    let versions: Vec<&str> = revision::served().collect();
    result.set("supportedVersions", Value::from(versions).to_string());
    let Who { info, instructions } = who(view, toolset);
    result.set("capabilities", view.capabilities.clone());
    if let Some(instructions) = instructions {
        result.set("instructions", instructions);
    }
    let mut about = Members::default();
    about.set(meta::SERVER_INFO, info);
    result.set("_meta", about.to_string());
    set_modern(&mut result, fresh);
    result.to_string()
}

/// The result of `initialize` in `revision`.
pub(super) fn initialize(revision: &str, view: &View, toolset: Option<&Toolset>) -> String {
    let mut result = Members::default();
    result.set("protocolVersion", Value::from(revision).to_string());
    let Who { info, instructions } = who(view, toolset);
    result.set("capabilities", view.capabilities.clone());
    result.set("serverInfo", info);
    if let Some(instructions) = instructions {
        result.set("instructions", instructions);
    }
    result.to_string()
}

/// Who answers, JSON.
struct Who {
    info: String,
    instructions: Option<String>,
}

/// A server that is alone answers for itself, as far as it is known.
fn who(view: &View, toolset: Option<&Toolset>) -> Who {
    let alone = toolset.filter(|toolset| toolset.selection.is_alone());
    match alone.and_then(|_| view.first()) {
        Some(first) => Who {
            info: first.intro.info.clone().unwrap_or_else(|| info().to_string()),
            instructions: first.intro.instructions.clone(),
        },
        None => Who { info: info().to_string(), instructions: Some(Value::from(instructions(toolset)).to_string()) },
    }
}

fn instructions(toolset: Option<&Toolset>) -> String {
    match toolset {
        None => INSTRUCTIONS.to_owned(),
        Some(Toolset { instructions: Some(own), .. }) => format!("{own}\n\n{OF_A_TOOLSET}"),
        Some(_) => OF_A_TOOLSET.to_owned(),
    }
}

fn info() -> Value {
    json!({"name": "portolan", "version": env!("CARGO_PKG_VERSION")})
}

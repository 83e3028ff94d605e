//! One check of a server that has been opened: it lists its tools, or answers a ping where it has none.

use std::time::Duration;

use portolan_mcp::wire::{ProbeReason, ServerFound, ToolsFound};
use serde_json::Value;
use tokio::time::Instant;

use crate::peer::Peer;
use crate::problem::{Problem, tools_failed};
use crate::rpc::{Rpc, quote};
use crate::tools;

const MAX_PAGES: usize = 100;
/// Tools that are named of those that are gone.
const NAMED: usize = 3;

/// What a check may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// All of its requests together.
    pub(super) time: Duration,
    /// All definitions together.
    pub(super) bytes: usize,
}

/// Checks `server`, which had the tools of `before` when it last answered as it should.
pub(super) async fn check(
    peer: &Peer,
    server: &ServerFound,
    before: Option<&ToolsFound>,
    bounds: Bounds,
) -> Result<Option<ToolsFound>, Problem> {
    let asked = Asked { peer, until: Instant::now() + bounds.time, time: bounds.time };
    let found = if server.capabilities.iter().any(|name| name == "tools") {
        Some(list(&asked, bounds.bytes).await?)
    } else {
        asked.request("ping", "{}").await?;
        None
    };
    let has_none = found.as_ref().is_none_or(|found| found.count == 0);
    match before.filter(|before| before.count > 0 && has_none) {
        Some(before) => Err(tools_failed(lost(before, found.is_some()))),
        None => Ok(found),
    }
}

/// All pages of `tools/list`.
async fn list(asked: &Asked<'_>, most: usize) -> Result<ToolsFound, Problem> {
    let (mut definitions, mut bytes, mut params) = (Vec::new(), 0, "{}".to_owned());
    for _ in 0..MAX_PAGES {
        let mut page = match asked.request("tools/list", &params).await? {
            Rpc::Result(page) => page,
            Rpc::Error { code, message } => {
                let message = format!("tools/list was answered with error {code}: {}", quote(&message));
                return Err(tools_failed(message));
            }
        };
        let Some(Value::Array(tools)) = page.get_mut("tools").map(Value::take) else {
            return Err(tools_failed("the answer to tools/list has no array \"tools\"".to_owned()));
        };
        bytes += tools.iter().map(|tool| tool.to_string().len()).sum::<usize>();
        definitions.extend(tools);
        if bytes > most {
            return Err(tools_failed(format!("the tools' definitions are over {bytes} bytes together")));
        }
        match page.get("nextCursor").and_then(Value::as_str) {
            None | Some("") => return tools::sum_up(definitions).map_err(tools_failed),
            Some(cursor) => params = serde_json::json!({ "cursor": cursor }).to_string(),
        }
    }
    Err(tools_failed(format!("tools/list has more than {MAX_PAGES} pages")))
}

/// What is missing, where a server that had tools has none.
fn lost(before: &ToolsFound, lists: bool) -> String {
    let names = tools::names(before);
    let mut named = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        named = format!("{named} and {} more", names.len() - NAMED);
    }
    let now = if lists { "tools/list was answered with no tools" } else { "the server says that it has no tools" };
    format!("{now}, where there were {} before: {named}", before.count)
}

/// Requests that share the time of a check.
struct Asked<'a> {
    peer: &'a Peer,
    until: Instant,
    time: Duration,
}

impl Asked<'_> {
    async fn request(&self, method: &str, params: &str) -> Result<Rpc, Problem> {
        let left = self.until.saturating_duration_since(Instant::now());
        let answer = self.peer.request(method, params, left).await;
        answer.map_err(|error| Problem::of(error, ProbeReason::ProbeTimeout, self.time, method))
    }
}

//! What a server says of itself.

use portolan_mcp::revision::{Era, MODERN, is_legacy};
use portolan_mcp::wire::{ProbeReason, ServerFound};
use serde_json::Value;

use crate::problem::Problem;
use crate::rpc::{CallError, Rpc, quote};

/// 2026-07-28: headers and body of a request differ. Only a server of the sessionless era knows the code.
const HEADER_MISMATCH: i64 = -32020;
/// 2026-07-28: the revision that was asked for is not spoken.
pub(crate) const UNSUPPORTED_PROTOCOL_VERSION: i64 = -32022;
/// Reads the result of `initialize`.
pub(crate) fn read_initialize(result: &Value) -> Result<ServerFound, Problem> {
    let text = |pointer: &str| result.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let Some(revision) = text("/protocolVersion") else {
        let message = format!("the answer to initialize names no protocolVersion: {}", quote(&result.to_string()));
        return Err(Problem::new(ProbeReason::NotMcp, message));
    };
    if !is_legacy(&revision) {
        let message =
            format!("initialize was answered with protocol revision {:?}, which is unknown", quote(&revision));
        return Err(Problem::new(ProbeReason::UnsupportedProtocol, message));
    }
    let mut capabilities: Vec<String> = result
        .get("capabilities")
        .and_then(Value::as_object)
        .map(|members| members.keys().cloned().collect())
        .unwrap_or_default();
    capabilities.sort_unstable();
    Ok(ServerFound {
        name: text("/serverInfo/name").unwrap_or_default(),
        version: text("/serverInfo/version").unwrap_or_default(),
        supported_versions: vec![revision.clone()],
        protocol_version: revision,
        era: Era::Legacy,
        capabilities,
    })
}

/// The revisions without sessions that the answer to `server/discover` speaks of.
pub(crate) fn modern_revisions(answer: Result<Rpc, CallError>) -> Vec<String> {
    match answer {
        Ok(Rpc::Result(result)) => {
            let versions = result.get("supportedVersions").and_then(Value::as_array).into_iter().flatten();
            let versions = versions.filter_map(Value::as_str).filter(|version| MODERN.contains(version));
            versions.map(str::to_owned).collect()
        }
        Ok(Rpc::Error { code: HEADER_MISMATCH | UNSUPPORTED_PROTOCOL_VERSION, .. }) => {
            MODERN.iter().map(|version| (*version).to_owned()).collect()
        }
        Ok(Rpc::Error { .. }) | Err(_) => Vec::new(),
    }
}

/// The revision that `initialize` was answered with, where that one has no sessions.
pub(crate) fn modern_answer(result: &Value) -> Option<&str> {
    result.get("protocolVersion").and_then(Value::as_str).filter(|revision| MODERN.contains(revision))
}

//! API keys: known by their hash.

use portolan_mcp::failure::Failure;
use portolan_policy::{api_key::ApiKeys, identity::Identity};

/// Whose key it is.
pub(super) fn identify(key: &str, keys: &ApiKeys) -> Result<Identity, Failure> {
    keys.identify(key).cloned().ok_or_else(|| super::refused("the API key is not known here"))
}

//! Whether a gateway makes sense, and which API keys it admits. Pure.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use kube::ResourceExt;
use portolan_crds::{
    MCPGateway,
    conditions::{reasons, types},
};
use portolan_policy::api_key::{Hash, PREFIX};
use portolan_snapshot::inputs::secret_key;

use super::{child_name, dereference::Observed};
use crate::{config::Config, error::Error, status::Fact};

/// Longest name of a Service.
const MAX_SERVICE_NAME: usize = 63;
/// Longest key of a Secret.
const MAX_SECRET_KEY: usize = 253;
/// Most API keys of a gateway: its Secret holds at most 1 MiB.
const MAX_API_KEYS: usize = 4096;
/// Problems that a message spells out.
const MAX_PROBLEMS: usize = 5;

/// What is usable of what the gateway asks for.
#[derive(Debug)]
pub(super) struct Validated {
    /// Entries of the gateway's Secret for API keys.
    pub(super) api_keys: BTreeMap<String, ByteString>,
    /// `Accepted`.
    pub(super) accepted: Fact,
    /// `ResolvedRefs`.
    pub(super) resolved: Fact,
}

/// Whether the gateway counts at all.
///
/// # Errors
/// It does not; the message says what to change.
pub(super) fn accept(config: &Config, gateway: &MCPGateway) -> Result<(), Error> {
    let (namespace, name) = (gateway.namespace().unwrap_or_default(), gateway.name_any());
    let reject = |reason, message: String| Err(Error::stalled(reason, message).on(types::ACCEPTED));
    if !config.platform_namespaces.contains(&namespace) {
        return reject(
            reasons::NOT_ENROLLED,
            format!(
                "namespace {namespace} is not one of the platform's ({}): make the gateway there, or add {namespace} to \
                 platformNamespaces in the Helm values",
                config.platform_namespaces.join(", ")
            ),
        );
    }
    if !config.enrols_gateway(&namespace, &name) {
        return reject(
            reasons::NOT_ENROLLED,
            format!(
                "{name} is not an enrolled gateway name ({}): use one of these, or add {name} to gateway.names in the \
                 Helm values",
                config.gateway_names.join(", ")
            ),
        );
    }
    let longest = MAX_SERVICE_NAME - child_name("").len();
    if name.len() > longest {
        return reject(reasons::INVALID, format!("the name has {} characters: use at most {longest}", name.len()));
    }
    if !gateway.spec.authentication.admits_someone() {
        let message = "authentication admits nobody: add apiKeys or serviceAccounts, or spell out `anonymous: {}`";
        return reject(reasons::INVALID, message.into());
    }
    Ok(())
}

/// What can be used. Nothing here stops the gateway: a list that cannot be read admits nobody, the others do.
pub(super) fn validate(gateway: &MCPGateway, observed: &Observed) -> Validated {
    let accepted = match &observed.bad_selector {
        Some(bad) => Fact::no(types::ACCEPTED, reasons::INVALID, format!("servers: {bad}")),
        None => Fact::yes(types::ACCEPTED, reasons::ACCEPTED, "the gateway is enrolled and its spec makes sense"),
    };
    let mut keys = Keys::default();
    for list in &gateway.spec.authentication.api_keys {
        let secret = &list.secret_ref.name;
        match observed.api_keys.get(secret) {
            Some(Some(entries)) => entries.iter().for_each(|(entry, value)| keys.add(&list.name, secret, entry, value)),
            _ => keys.missing.push(secret.clone()),
        }
    }
    let others = &gateway.spec.authentication;
    let others = others.service_accounts.is_some() || others.anonymous.is_some();
    let resolved = keys.resolved(gateway.spec.authentication.api_keys.is_empty() || others);
    Validated { api_keys: keys.good, accepted, resolved }
}

#[derive(Default)]
struct Keys {
    good: BTreeMap<String, ByteString>,
    missing: Vec<String>,
    bad: Vec<String>,
}

impl Keys {
    fn add(&mut self, list: &str, secret: &str, entry: &str, value: &ByteString) {
        let key = secret_key::api_key(list, entry);
        match check(&key, value) {
            Ok(_) if self.good.len() >= MAX_API_KEYS => {
                self.bad.push(format!("{secret}/{entry}: a gateway holds at most {MAX_API_KEYS} API keys"));
            }
            // Written anew, so that what reaches gateways has one form.
            Ok(hash) => {
                self.good.insert(key, ByteString(hash.to_string().into_bytes()));
            }
            Err(problem) => self.bad.push(format!("{secret}/{entry}: {problem}")),
        }
    }

    fn resolved(&self, others_admit: bool) -> Fact {
        if let Some(secret) = self.missing.first() {
            let message = format!(
                "Secret {secret} does not exist in the gateway's namespace: make it, or remove it from apiKeys"
            );
            return Fact::no(types::RESOLVED_REFS, reasons::SECRET_NOT_FOUND, message);
        }
        if !self.bad.is_empty() {
            let more = self.bad.len().saturating_sub(MAX_PROBLEMS);
            let mut message = self.bad.iter().take(MAX_PROBLEMS).cloned().collect::<Vec<_>>().join("; ");
            if more > 0 {
                message.push_str(&format!("; and {more} more"));
            }
            return Fact::no(types::RESOLVED_REFS, reasons::INVALID, message);
        }
        if self.good.is_empty() && !others_admit {
            let message = "no Secret of apiKeys has an entry, so nobody is admitted: `portolan apikey` prints one";
            return Fact::no(types::RESOLVED_REFS, reasons::NO_CREDENTIALS, message);
        }
        Fact::yes(types::RESOLVED_REFS, reasons::RESOLVED_REFS, format!("{} API keys", self.good.len()))
    }
}

/// The hash that an entry holds. Never repeats the entry: it may be a key.
fn check(key: &str, value: &ByteString) -> Result<Hash, String> {
    if key.len() > MAX_SECRET_KEY {
        return Err("its name is too long: shorten it".into());
    }
    let text = std::str::from_utf8(&value.0).unwrap_or_default();
    if text.starts_with(PREFIX) {
        return Err("it holds a key itself, which is now known to whoever can read the Secret: replace the key, and \
                    write \"sha256:\" and the SHA-256 of the new one"
            .into());
    }
    text.parse::<Hash>().map_err(|bad| bad.to_string())
}

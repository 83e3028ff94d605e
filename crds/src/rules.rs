//! CEL rules that several fields share. Each message says what to write instead.

use kube::core::Rule;

use crate::{duration::PATTERN, labels::RESERVED_PREFIXES};

/// A duration string between two bounds, both included.
pub(crate) fn duration(least: &str, most: &str, example: &str) -> Rule {
    Rule::new(format!(
        "self.matches('{PATTERN}') && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
    ))
    .message(format!("write a duration from {least} to {most}, such as {example}").as_str())
}

/// `metadata.name` starts the name of a Service.
pub(crate) fn name_is_a_service_name() -> Rule {
    Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name names Services: write lower-case letters, digits and '-', starting with a letter and not ending with '-'")
}

/// `metadata.name` is a part of a path.
pub(crate) fn name_is_a_label() -> Rule {
    Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("metadata.name is in the endpoint's path: write at most 63 lower-case letters, digits and '-', not starting or ending with '-'")
}

/// `metadata.name` leaves room for what the operator adds to it.
pub(crate) fn name_has_at_most(characters: usize) -> Rule {
    Rule::new(format!("size(self.metadata.name) <= {characters}"))
        .message(format!("metadata.name is part of a Service's name: write at most {characters} characters").as_str())
}

/// Keys of a map of labels or annotations keep off the prefixes that are not the user's to set.
pub(crate) fn no_reserved_prefix() -> Rule {
    let prefixes = RESERVED_PREFIXES.map(|prefix| format!("!key.startsWith('{prefix}')")).join(" && ");
    Rule::new(format!("self.all(key, {prefixes})")).message(
        format!("write keys under a prefix of your own: {} are reserved", RESERVED_PREFIXES.join(", ")).as_str(),
    )
}

/// Exactly one of the optional fields is set.
pub(crate) fn exactly_one(fields: &[&str], what: &str) -> Rule {
    let set: Vec<_> = fields.iter().map(|field| format!("has(self.{field})")).collect();
    Rule::new(format!("[{}].filter(set, set).size() == 1", set.join(", ")))
        .message(format!("{what}: write exactly one of {}", fields.join(", ")).as_str())
}

/// Every quantity of a map is one that a resource can have: neither negative nor with a unit that does not exist.
pub(crate) fn quantities() -> Rule {
    Rule::new(format!("self.all(resource, string(self[resource]).matches('{QUANTITY}'))")).message(QUANTITY_MESSAGE)
}

/// The same for one quantity.
pub(crate) fn quantity() -> Rule {
    Rule::new(format!("string(self).matches('{QUANTITY}')")).message(QUANTITY_MESSAGE)
}

/// A server that is scaled by the metric `type_` requests some of that resource: a percentage of nothing is none. The API server takes a limit
/// for a request that is not written.
pub(crate) fn requested(type_: &str, resource: &str, example: &str) -> Rule {
    let of = |kind: &str| format!("self.container.resources.{kind}");
    let written = |kind: &str| format!("(has({0}) && '{resource}' in {0})", of(kind));
    let some = |kind: &str| format!("string({}['{resource}']).matches('[1-9]')", of(kind));
    let (requests, limits) = ("requests", "limits");
    Rule::new(format!(
        "!has(self.autoscaling) || !has(self.container) || self.autoscaling.metrics.all(metric, metric.type != '{type_}') || \
         ({} ? {} : ({} && {}))",
        written(requests), some(requests), written(limits), some(limits),
    ))
    .message(
        format!("{type_} is in percent of what the container requests: write container.resources.requests.{resource}, such as {example}")
            .as_str(),
    )
    .field_path(".container.resources.requests")
}

const QUANTITY: &str = "^[0-9]+([.][0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$";
const QUANTITY_MESSAGE: &str = "write a quantity such as 500m, 2, 64Mi or 1Gi";

/// A host name, an IPv4 address or an IPv6 address in brackets, with or without a port from 1 to 65535.
const HOST: &str = concat!(
    r"([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?|[\[][0-9A-Fa-f:.]+[\]])",
    "(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?",
);

/// Every item is a host as it may stand in a `Host` header.
pub(crate) fn hosts() -> Rule {
    Rule::new(format!("self.all(host, host.matches('^{}$'))", escaped(HOST)))
        .message("write hosts without scheme or path, such as mcp.example.com or mcp.example.com:8443")
}

/// Every item is an origin as it may stand in an `Origin` header.
pub(crate) fn origins() -> Rule {
    Rule::new(format!("self.all(origin, origin.matches('^[a-z][-+.a-z0-9]*://{}$'))", escaped(HOST)))
        .message("write origins as scheme://host or scheme://host:port without a path, such as https://app.example.com")
}

/// A URL of `http` or `https` without user and fragment.
pub(crate) fn url() -> Rule {
    let pattern = format!(r"^https?://{HOST}(/[-._~!$&()*+,;=:@%/A-Za-z0-9]*)?([?][-._~!$&()*+,;=:@%/?A-Za-z0-9]*)?$");
    Rule::new(format!("self.matches('{}')", escaped(&pattern)))
        .message("write a URL without user, fragment or spaces, such as https://mcp.example.com/mcp")
}

/// Names of headers that are the bridge's to set, or a connection's.
const OF_THE_BRIDGE: [&str; 10] = [
    "host",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "accept",
    "last-event-id",
];
/// What such names may begin with.
const PREFIXES_OF_THE_BRIDGE: [&str; 5] = ["mcp", "portolan", "content", "accept", "proxy"];

/// A header's name is not one that the bridge sets itself.
pub(crate) fn no_header_of_the_bridge() -> Rule {
    let (names, prefixes) = (OF_THE_BRIDGE.join("|"), PREFIXES_OF_THE_BRIDGE.join("|"));
    Rule::new(format!("!self.matches('(?i)^(({names})$|({prefixes})[-_])')"))
        .message("the bridge sets this header itself: write the one that the server takes its credential from, such as Authorization")
}

/// A regular expression within a CEL string literal.
fn escaped(pattern: &str) -> String {
    pattern.replace('\\', r"\\")
}

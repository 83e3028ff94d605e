//! A server that runs elsewhere and is reached by URL.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LocalName;

/// Where the server is, how it proves who it is, and how the platform does.
///
/// Pods of the server run a relay, which is all that connects to the URL. Sessions, checks, limits, rollout and `pod` are the
/// relay's. It refuses addresses of private networks unless whoever runs the platform allowed the host by name, follows no
/// redirects, and speaks HTTP/1.1.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.tls) || self.url.startsWith('https://')")
        .message("without TLS there are no certificates: write a url that starts with https://, or remove tls")
        .field_path(".tls")
)]
pub struct Remote {
    /// The URL of the MCP endpoint of a `StreamableHTTP` server, or of the event stream of an `SSE` server. With `http://`
    /// everything, credentials too, travels unencrypted. Credentials belong in `backendAuth`: everyone who may read the
    /// server or its pods may read the URL.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = crate::rules::url())]
    #[x_kube(validation = Rule::new("!self.contains('..') && !self.matches('(?i)%2e')")
        .message("write the path that the server has, without '..' or encoded dots"))]
    pub url: String,

    /// How the server speaks MCP.
    #[serde(default)]
    pub transport: RemoteTransport,

    /// Certificates of an `https://` URL. When not set, the server's certificate must be one that a public authority
    /// (Mozilla's list) signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RemoteTls>,

    /// How the relay proves to the server who it is. Credentials of clients never reach the server.
    #[serde(default)]
    pub backend_auth: BackendAuth,
}

impl Remote {
    /// Host and port that the URL names, the scheme's own port when it names none; `None` only for an object that no API
    /// server admitted. An IPv6 address is in brackets.
    #[must_use]
    pub fn authority(&self) -> Option<(&str, u16)> {
        let (rest, usual) = match self.url.strip_prefix("https://") {
            Some(rest) => (rest, 443),
            None => (self.url.strip_prefix("http://")?, 80),
        };
        let authority = rest.split(['/', '?', '#']).next()?;
        let (host, port) = match authority.rfind(':').filter(|at| !authority[*at..].contains(']')) {
            Some(at) => (&authority[..at], authority[at + 1..].parse().ok()?),
            None => (authority, usual),
        };
        (!host.is_empty()).then_some((host, port))
    }
}

/// How a server elsewhere speaks MCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum RemoteTransport {
    /// The streamable HTTP transport.
    #[default]
    #[serde(rename = "StreamableHTTP")]
    StreamableHttp,
    /// The older HTTP+SSE transport (2024-11-05): one event stream per session. Clients see streamable HTTP all the same.
    #[serde(rename = "SSE")]
    Sse,
}

impl RemoteTransport {
    /// The word that the relay's command line uses.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Self::StreamableHttp => "streamable-http",
            Self::Sse => "sse",
        }
    }
}

/// Certificates of a connection.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.caCertificateRef) || has(self.clientCertificateRef)")
    .message("write caCertificateRef or clientCertificateRef, or remove tls: certificates of public authorities need neither"))]
pub struct RemoteTls {
    /// PEM certificates of the authorities that may have signed the server's certificate, in place of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificate_ref: Option<CaCertificateRef>,

    /// A Secret of type `kubernetes.io/tls` in the same namespace (keys `tls.crt` and `tls.key`): the certificate that
    /// the relay shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<LocalName>,
}

/// Where the certificates of authorities are.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = crate::rules::exactly_one(&["configMapKeyRef", "secretKeyRef"], "caCertificateRef has one source"))]
pub struct CaCertificateRef {
    /// A key of a ConfigMap of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<RequiredKeyRef>,

    /// A key of a Secret of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<RequiredKeyRef>,
}

impl CaCertificateRef {
    /// The one source that is set; `None` only for an object that no API server admitted.
    #[must_use]
    pub fn source(&self) -> Option<CaSource<'_>> {
        match (&self.config_map_key_ref, &self.secret_key_ref) {
            (Some(key), None) => Some(CaSource::ConfigMap(key)),
            (None, Some(key)) => Some(CaSource::Secret(key)),
            _ => None,
        }
    }
}

/// The source of a [`CaCertificateRef`], as one of two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CaSource<'a> {
    /// A key of a ConfigMap.
    ConfigMap(&'a RequiredKeyRef),
    /// A key of a Secret.
    Secret(&'a RequiredKeyRef),
}

/// A key of a Secret or ConfigMap of the same namespace, without which nothing starts: trust and credentials have no
/// default to fall back to.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct RequiredKeyRef {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Key within it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// How the relay proves to the server who it is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[x_kube(
    validation = Rule::new("self.type != 'Header' || has(self.header)")
        .message("type: Header needs the header: write header with its name and secretKeyRef")
        .field_path(".header"),
    validation = Rule::new("self.type != 'None' || !has(self.header)")
        .message("without type: Header the header would not be sent: write type: Header, or remove header")
        .field_path(".header")
)]
pub struct BackendAuth {
    /// What kind of proof.
    #[serde(rename = "type", default)]
    pub type_: BackendAuthType,

    /// The header that is sent with every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderCredential>,
}

impl BackendAuth {
    /// The header that is sent, if one is.
    #[must_use]
    pub fn sent_header(&self) -> Option<&HeaderCredential> {
        self.header.as_ref().filter(|_| self.type_ == BackendAuthType::Header)
    }
}

/// What kind of proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum BackendAuthType {
    /// None, or the client certificate alone.
    #[default]
    None,
    /// A header with a fixed value.
    Header,
}

/// A header with a value from a Secret.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderCredential {
    /// The header's name.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([-_A-Za-z0-9]*[A-Za-z0-9])?$')")
        .message("write a header name of letters, digits, '-' and '_', such as Authorization or X-API-Key"))]
    #[x_kube(validation = crate::rules::no_header_of_the_bridge())]
    pub name: String,

    /// The key of a Secret of the same namespace that holds the whole value, such as `Bearer …` for `Authorization`. White
    /// space around it is left out.
    pub secret_key_ref: RequiredKeyRef,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_those_that_the_url_names_or_its_schemes() {
        for (url, expected) in [
            ("https://mcp.example.com/mcp", Some(("mcp.example.com", 443))),
            ("http://mcp.example.com?a=b:1", Some(("mcp.example.com", 80))),
            ("https://mcp.example.com:8443", Some(("mcp.example.com", 8443))),
            ("http://[::1]/mcp", Some(("[::1]", 80))),
            ("http://[::1]:3000/mcp", Some(("[::1]", 3000))),
            ("https://", None),
            ("ftp://mcp.example.com", None),
        ] {
            let remote: Remote = serde_json::from_value(serde_json::json!({ "url": url })).unwrap();
            assert_eq!(remote.authority(), expected, "{url}");
        }
    }
}

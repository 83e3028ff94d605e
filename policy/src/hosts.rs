//! Which `Host` and `Origin` values a gateway answers to: without this, a web page could reach a gateway on
//! loopback or inside a cluster through its reader's browser (DNS rebinding).

use std::net::Ipv6Addr;

use http::{HeaderMap, Uri, header, uri::Authority};

/// Names that no DNS answer can redirect.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// An entry of `allowedHosts` or `allowedOrigins` that cannot be read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadRule {
    /// Not a host.
    #[error("allowedHosts: {0:?} is no host; write \"mcp.example.com\" or \"mcp.example.com:8443\"")]
    Host(String),
    /// Not an origin.
    #[error("allowedOrigins: {0:?} is no origin; write \"https://app.example.com\", without a path")]
    Origin(String),
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// `Host` is absent, repeated, malformed or not one of the gateway's.
    #[error("this gateway does not answer to that Host; add it to spec.http.allowedHosts of the MCPGateway")]
    Host,
    /// `Host` and the target name two hosts.
    #[error("Host and the target of the request name different hosts; send one and the same")]
    TwoHosts,
    /// `Origin` is repeated, `null`, malformed or not allowed.
    #[error("requests from that Origin are not allowed; add it to spec.http.allowedOrigins of the MCPGateway")]
    Origin,
}

/// A host with its port where one is named, lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    name: Box<str>,
    port: Option<u16>,
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        let name = authority.host();
        let has_port = authority.as_str().len() > name.len();
        let port = authority.port_u16();
        // A user name, an empty port or one over 65535 leaves text that is neither host nor port.
        if authority.as_str().contains('@') || (has_port && port.is_none()) || !is_host(name) {
            return None;
        }
        Some(Self { name: name.trim_end_matches('.').to_ascii_lowercase().into(), port })
    }

    /// A rule without a port stands for every port.
    fn admits(&self, asked: &Self) -> bool {
        self.name == asked.name && (self.port.is_none() || self.port == asked.port)
    }
}

fn is_host(name: &str) -> bool {
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            !name.trim_end_matches('.').is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    }
}

/// A scheme, a host and a port, as a browser writes an origin: the port only where it is not the scheme's own.
fn parse_origin(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let host = Host::parse(uri.authority()?.as_str())?;
    let bare = uri.path() == "/" && uri.query().is_none() && !text.ends_with('/');
    let port = host.port.filter(|port| !matches!((scheme.as_str(), port), ("http", 80) | ("https", 443)));
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    bare.then(|| format!("{scheme}://{}{port}", host.name))
}

/// Whether `origin` is where the request goes: then a page of the gateway's own asks. Its `Host` was checked before, so no
/// DNS answer has led a browser here; the scheme may be a proxy's in front of the gateway.
fn is_own(origin: &str, host: &Host) -> bool {
    origin.split_once("://").and_then(|(_, authority)| Host::parse(authority)).is_some_and(|own| own == *host)
}

/// The allow lists of one gateway.
#[derive(Clone, Debug, Default)]
pub struct HostRules {
    hosts: Vec<Host>,
    origins: Vec<Box<str>>,
}

impl HostRules {
    /// Rules that answer to loopback, to the names in `own` (the gateway's Service), and to what the user listed.
    ///
    /// # Errors
    /// Names each listed entry that cannot be read; the rules hold the others.
    pub fn new<'a>(
        own: impl IntoIterator<Item = &'a str>,
        hosts: &'a [String],
        origins: &'a [String],
    ) -> (Self, Vec<BadRule>) {
        let mut rules = Self::default();
        let mut bad = Vec::new();
        rules.hosts.extend(LOOPBACK.into_iter().chain(own).filter_map(Host::parse));
        for text in hosts {
            match Host::parse(text) {
                Some(host) => rules.hosts.push(host),
                None => bad.push(BadRule::Host(text.clone())),
            }
        }
        for text in origins {
            match parse_origin(text) {
                Some(origin) => rules.origins.push(origin.into()),
                None => bad.push(BadRule::Origin(text.clone())),
            }
        }
        (rules, bad)
    }

    /// Checks `Host`, the target's authority where it has one, and `Origin`. HTTP lets the authority take the place of
    /// `Host` (RFC 9112 §3.2.2, RFC 9113 §8.3.1), but a proxy on the way may have gone by the other: both have to be the
    /// gateway's, and the same.
    ///
    /// # Errors
    /// Says what is refused.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = single(headers, &header::HOST).and_then(Host::parse).ok_or(Refusal::Host)?;
        if !self.hosts.iter().any(|rule| rule.admits(&host)) {
            return Err(Refusal::Host);
        }
        if let Some(authority) = uri.authority()
            && Host::parse(authority.as_str()).ok_or(Refusal::Host)? != host
        {
            return Err(Refusal::TwoHosts);
        }
        if !headers.contains_key(header::ORIGIN) {
            return Ok(());
        }
        let origin = single(headers, &header::ORIGIN).and_then(parse_origin).ok_or(Refusal::Origin)?;
        if is_own(&origin, &host) || self.origins.iter().any(|rule| **rule == origin) {
            return Ok(());
        }
        Err(Refusal::Origin)
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: Option<&str>, origin: Option<&str>) -> Result<(), Refusal> {
        let (rules, bad) = HostRules::new(
            ["portolan-gateway-default.portolan.svc"],
            &["mcp.example.com".into(), "only.example.com:8443".into()],
            &["https://app.example.com".into(), "http://127.0.0.1:6274".into()],
        );
        assert!(bad.is_empty(), "{bad:?}");
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().expect("a header value"));
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().expect("a header value"));
        }
        rules.check(&Uri::from_static("/a/b/mcp"), &headers)
    }

    #[test]
    fn loopback_the_service_and_the_listed_hosts_are_answered() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:1",
            "[::1]:8080",
            "portolan-gateway-default.portolan.svc",
            "mcp.example.com",
            "mcp.example.com.",
            "mcp.example.com:444",
            "only.example.com:8443",
        ] {
            assert_eq!(check(Some(host), None), Ok(()), "{host}");
        }
    }

    #[test]
    fn every_other_host_is_refused() {
        for host in [
            "evil.example",
            "mcp.example.com.evil.example",
            "only.example.com",
            "only.example.com:8444",
            "10.0.0.1",
            "user@localhost",
            "localhost:",
            "localhost:99999",
            "",
            "localhost/..",
            "127.0.0.2",
        ] {
            assert_eq!(check(Some(host), None), Err(Refusal::Host), "{host}");
        }
        assert_eq!(check(None, None), Err(Refusal::Host));
    }

    #[test]
    fn an_origin_is_allowed_only_when_it_is_listed_exactly() {
        for origin in ["https://app.example.com", "https://app.example.com:443", "http://127.0.0.1:6274"] {
            assert_eq!(check(Some("localhost"), Some(origin)), Ok(()), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com/",
            "https://app.example.com.evil.example",
            "http://localhost:8080",
            "http://127.0.0.1",
            "app.example.com",
        ] {
            assert_eq!(check(Some("localhost"), Some(origin)), Err(Refusal::Origin), "{origin}");
        }
    }

    #[test]
    fn a_page_of_the_gateways_own_origin_may_ask_it_and_none_of_a_neighbour() {
        for (host, origin) in [
            ("localhost:8080", "http://localhost:8080"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("mcp.example.com", "https://mcp.example.com"),
            ("only.example.com:8443", "https://only.example.com:8443"),
        ] {
            assert_eq!(check(Some(host), Some(origin)), Ok(()), "{host} {origin}");
        }
        for (host, origin) in [
            ("localhost:8080", "http://localhost:8081"),
            ("localhost:8080", "http://localhost"),
            ("localhost:8080", "http://127.0.0.1:8080"),
            ("mcp.example.com", "https://mcp.example.com:8443"),
        ] {
            assert_eq!(check(Some(host), Some(origin)), Err(Refusal::Origin), "{host} {origin}");
        }
        let rebound = check(Some("evil.example:8080"), Some("http://evil.example:8080"));
        assert_eq!(rebound, Err(Refusal::Host));
    }

    #[test]
    fn repeated_headers_are_refused() {
        let (rules, _) = HostRules::new([], &[], &[]);
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, "localhost".parse().expect("a header value"));
        headers.append(header::HOST, "localhost".parse().expect("a header value"));
        assert_eq!(rules.check(&Uri::from_static("/"), &headers), Err(Refusal::Host));
    }

    #[test]
    fn an_absolute_target_and_host_must_be_the_same_and_the_gateways() {
        let (rules, _) = HostRules::new([], &[], &[]);
        let check = |target: &'static str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, host.parse().expect("a header value"));
            }
            rules.check(&Uri::from_static(target), &headers)
        };
        assert_eq!(check("http://localhost/", &["localhost"]), Ok(()));
        assert_eq!(check("http://LOCALHOST:8080/", &["localhost:8080"]), Ok(()));
        assert_eq!(check("http://evil.example/", &["localhost"]), Err(Refusal::TwoHosts));
        assert_eq!(check("http://127.0.0.1/", &["localhost"]), Err(Refusal::TwoHosts), "each by itself is answered");
        assert_eq!(check("http://localhost:1/", &["localhost:2"]), Err(Refusal::TwoHosts));
        assert_eq!(check("http://evil.example/", &["evil.example"]), Err(Refusal::Host));
        assert_eq!(check("http://localhost/", &["evil.example"]), Err(Refusal::Host));
        assert_eq!(check("http://user@localhost/", &["localhost"]), Err(Refusal::Host));
        assert_eq!(check("http://localhost/", &[]), Err(Refusal::Host));
        assert_eq!(check("http://localhost/", &["localhost", "localhost"]), Err(Refusal::Host));
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_named_and_admits_nobody() {
        let (_, bad) =
            HostRules::new([], &["https://x.example".into(), "*".into()], &["*".into(), "https://x.example/y".into()]);
        assert_eq!(bad.len(), 4);
    }
}

//! A server that runs elsewhere: where it is, whom to trust there, and what to show.

mod addresses;
mod dialer;
mod tls;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Uri};
use url::{Host, Url};

pub(crate) use dialer::Dialer;
pub(crate) use tls::Trouble;

/// How long a connection may take, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Headers that this side sets, or that belong to a connection.
const NOT_A_CREDENTIAL: [&str; 10] = [
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
/// What the names of more of them begin with.
const NOT_A_CREDENTIALS: [&str; 5] = ["mcp-", "portolan-", "content-", "accept-", "proxy-"];

/// What a relay is told, as it was written.
#[derive(Clone, Default)]
pub struct Settings {
    /// The URL of the endpoint, or of the event stream: `http` or `https`, without user and fragment.
    pub url: String,
    /// How the server speaks MCP.
    pub transport: Transport,
    /// PEM certificates of the authorities that may have signed the server's; the public ones where absent.
    pub authorities: Option<Vec<u8>>,
    /// What the relay shows of itself.
    pub identity: Option<Identity>,
    /// Name and value of a header that every request carries. White space around the value is left out.
    pub header: Option<(String, Vec<u8>)>,
    /// Which private addresses may be connected to.
    pub allowed: Allowed,
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, and those that lead from it to its authority.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

/// How a server elsewhere speaks MCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Streamable HTTP.
    #[default]
    StreamableHttp,
    /// HTTP+SSE (2024-11-05).
    Sse,
}

/// Which addresses may be connected to beside those of the Internet.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Hosts that may have any address, as their URLs write them.
    pub hosts: Vec<String>,
    /// Whether every host may be this machine.
    pub loopback: bool,
}

/// Settings that lead nowhere; the message says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// A server that runs elsewhere.
#[derive(Clone)]
pub struct Remote {
    pub(crate) endpoint: Uri,
    pub(crate) transport: Transport,
    pub(crate) credential: Option<(HeaderName, HeaderValue)>,
    pub(crate) dialer: Dialer,
}

impl fmt::Debug for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, transport, credential, .. } = self;
        let credential = credential.as_ref().map(|(name, _)| name);
        formatter
            .debug_struct("Remote")
            .field("endpoint", endpoint)
            .field("transport", transport)
            .field("credential", &credential)
            .finish_non_exhaustive()
    }
}

impl Remote {
    /// Reads `settings`. Nothing is connected to yet.
    ///
    /// # Errors
    /// The URL, a certificate, the key or the header cannot be used. That an address may not be connected to is told when it
    /// is asked for.
    pub fn new(settings: &Settings) -> Result<Self, Invalid> {
        let (endpoint, literal) = endpoint(&settings.url)?;
        let host = endpoint.host().unwrap_or_default().to_owned();
        let policy = addresses::Policy::new(&host, &settings.allowed);
        let is_plain = endpoint.scheme() == Some(&Scheme::HTTP);
        if is_plain && (settings.authorities.is_some() || settings.identity.is_some()) {
            let message = "certificates have no use at a URL of http: write one of https, or leave them out";
            return Err(Invalid(message.to_owned()));
        }
        let trust = tls::trust(settings.authorities.as_deref(), settings.identity.as_ref())?;
        let words = tls::Words::new(&host, settings.authorities.is_some());
        let resolver = dialer::Resolver::new(policy, Arc::new(dialer::system));
        let dialer = Dialer::new(resolver, literal, trust, words, CONNECT_LIMIT);
        let header = settings.header.as_ref().map(|(name, value)| credential(name, value)).transpose()?;
        Ok(Self { endpoint, transport: settings.transport, credential: header, dialer })
    }
}

/// The URL as it is asked for, and its host where that is an address. However an address is written, it is one.
fn endpoint(text: &str) -> Result<(Uri, Option<IpAddr>), Invalid> {
    let wrong = |why: &str| Invalid(format!("{text:?} {why}: write one such as https://mcp.example.com/mcp"));
    let mut url = Url::parse(text).map_err(|error| wrong(&format!("is no URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("is no URL of http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Invalid("the URL names a user: write it without, and the credential as a header".to_owned()));
    }
    if url.fragment().is_some() {
        return Err(wrong("has a fragment, which no server sees"));
    }
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        Some(Host::Domain(_)) => None,
        None => return Err(wrong("names no host")),
    };
    url.set_fragment(None);
    let uri = url.as_str().parse().map_err(|error| wrong(&format!("is no URL ({error})")))?;
    Ok((uri, literal))
}

fn credential(name: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), Invalid> {
    let header: HeaderName =
        name.parse().map_err(|_| Invalid(format!("{name:?} is no header name: write one such as X-API-Key")))?;
    let own = header.as_str();
    if NOT_A_CREDENTIAL.contains(&own) || NOT_A_CREDENTIALS.iter().any(|prefix| own.starts_with(prefix)) {
        return Err(Invalid(format!(
            "the bridge sets {own} itself: name the header that the server takes a credential from"
        )));
    }
    let value = value.trim_ascii();
    if value.is_empty() {
        return Err(Invalid(format!("the value of {own} is empty: write the whole value, such as Bearer and a token")));
    }
    let mut value = HeaderValue::from_bytes(value)
        .map_err(|_| Invalid(format!("the value of {own} has line breaks or other control characters within")))?;
    value.set_sensitive(true);
    Ok((header, value))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};
    use portolan_mcp::wire::ProbeReason;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::upstream::Server;

    fn remote(url: &str) -> Result<Remote, String> {
        Remote::new(&Settings { url: url.to_owned(), ..Settings::default() }).map_err(|invalid| invalid.to_string())
    }

    fn with_header(name: &str, value: &[u8]) -> Result<Remote, String> {
        let header = Some((name.to_owned(), value.to_vec()));
        let settings = Settings { url: "https://a.example/mcp".to_owned(), header, ..Settings::default() };
        Remote::new(&settings).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn a_url_that_leads_nowhere_is_refused_with_what_to_write() {
        for (url, says) in [
            ("a.example/mcp", "https://mcp.example.com/mcp"),
            ("ftp://a.example", "no URL of http or https"),
            ("https://me:secret@a.example/mcp", "names a user"),
            ("https://a.example/mcp#part", "fragment"),
            ("https://", "is no URL"),
        ] {
            let said = remote(url).expect_err(url);
            assert!(said.contains(says) && !said.contains("secret"), "{url}: {said}");
        }
        assert!(remote("https://a.example:8443/mcp?x=y").is_ok());
    }

    #[tokio::test]
    async fn a_private_address_is_one_however_the_url_writes_it() {
        for url in [
            "http://127.0.0.1:3000/mcp",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://[::ffff:8.8.8.8]/",
            "http://169.254.169.254/latest/meta-data",
            "http://①⑨②.168.0.1/",
        ] {
            let server = Server::elsewhere(remote(url).expect(url));
            let sent = server.send(Method::POST, &HeaderMap::new(), None, Bytes::new()).await;
            let error = sent.map(|_| ()).expect_err(url);
            assert_eq!(error.probe_reason(), ProbeReason::AddressNotAllowed, "{url}: {error}");
            assert!(error.to_string().contains("allowedPrivateHosts"), "{url}: {error}");
        }
    }

    #[test]
    fn headers_of_the_bridge_and_values_that_are_none_are_refused_without_repeating_them() {
        for name in ["Host", "Mcp-Session-Id", "portolan-mac", "Content-Type", "Transfer-Encoding", "a b", ""] {
            assert!(with_header(name, b"secret").is_err(), "{name}");
        }
        for value in [&b"sec\nret"[..], b"sec\0ret", b" \n", b""] {
            let said = with_header("X-API-Key", value).expect_err("no value");
            assert!(!said.contains("sec"), "{said}");
        }
        let remote = with_header("X-API-Key", b" secret\n").expect("a value");
        assert_eq!(remote.credential.as_ref().map(|(_, value)| value.as_bytes()), Some(&b"secret"[..]));
        assert!(!format!("{remote:?}").contains("secret"));
    }

    #[tokio::test]
    async fn the_credential_takes_the_place_of_what_a_caller_sends_under_its_name() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("bound"));
        let header = Some(("X-API-Key".to_owned(), b"ours".to_vec()));
        let allowed = Allowed { hosts: Vec::new(), loopback: true };
        let remote = Remote::new(&Settings { url, header, allowed, ..Settings::default() }).expect("settings");
        let heard = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut heard = vec![0; 4096];
            let length = socket.read(&mut heard).await.expect("a request");
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("taken");
            String::from_utf8_lossy(&heard[..length]).into_owned()
        });
        let mut headers = HeaderMap::new();
        for name in ["x-api-key", "authorization", "cookie"] {
            headers.append(name, HeaderValue::from_static("theirs"));
            headers.append(name, HeaderValue::from_static("theirs too"));
        }
        Server::elsewhere(remote).send(Method::POST, &headers, None, Bytes::new()).await.expect("answers");
        let heard = heard.await.expect("heard");
        assert!(heard.contains("x-api-key: ours\r\n") && !heard.contains("theirs"), "{heard}");
    }

    #[test]
    fn certificates_without_tls_and_files_without_certificates_are_refused() {
        let settings = |url: &str, authorities: &[u8]| {
            let authorities = Some(authorities.to_vec());
            Remote::new(&Settings { url: url.to_owned(), authorities, ..Settings::default() }).map(|_| ())
        };
        assert!(settings("http://a.example", b"").is_err_and(|invalid| invalid.0.contains("of https")));
        for none in [&b""[..], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"text"] {
            let said = settings("https://a.example", none).expect_err("no certificate").0;
            assert!(said.contains("caCertificateRef"), "{said}");
        }
        let identity = Some(Identity { certificate: b"text".to_vec(), key: b"text".to_vec() });
        let client = Settings { url: "https://a.example".to_owned(), identity, ..Settings::default() };
        assert!(Remote::new(&client).is_err_and(|invalid| invalid.0.contains("clientCertificateRef")));
    }
}

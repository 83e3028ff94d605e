//! A bridge in front of a server that runs elsewhere: whom it trusts, what it shows, and where it does not go.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report")]

mod authority;
mod certificates;
#[path = "../common/mod.rs"]
mod common;
mod server;

use std::time::Duration;

use authority::Authority;
use common::panics;
use http::StatusCode;
use portolan_bridge::config::{Config, Upstream};
use portolan_bridge::remote::{Allowed, Remote, Settings, Transport};
use portolan_bridge::{Bridge, config::Probe};
use portolan_mcp::mac::MacKey;
use portolan_mcp::wire::{ProbeReason, ProbeState, ProbeStatus};
use server::{Does, Server};

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings for the host `localhost`, which is allowed.
fn settings(scheme: &str, server: &Server) -> Settings {
    Settings {
        url: format!("{scheme}://localhost:{}/mcp", server.address.port()),
        allowed: Allowed { hosts: vec!["localhost".to_owned()], loopback: false },
        ..Settings::default()
    }
}

fn trusting(authority: &Authority, server: &Server) -> Settings {
    Settings { authorities: Some(authority.pem.clone().into_bytes()), ..settings("https", server) }
}

/// The bridge's verdict about the server, once it has one.
async fn verdict(settings: &Settings) -> ProbeStatus {
    let _panics = panics::watch();
    let remote = Remote::new(settings).expect("settings");
    let mut config = Config::new(Upstream::Remote(Box::new(remote)), MacKey::new(&[7; 32]).expect("a key"));
    // A verdict of a server that cannot be reached waits this long, as it may be starting.
    config.probe = Probe { handshake_timeout: Duration::from_secs(2), ..config.probe };
    let bridge = Bridge::start(config, "127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()).await;
    let bridge = bridge.expect("it starts");
    let mut probe = bridge.probe();
    let decided = probe.wait_for(|status| status.state != ProbeState::Starting);
    let status = tokio::time::timeout(PATIENCE, decided).await.expect("in time").expect("it lives");
    let status = ProbeStatus::clone(&status);
    bridge.shutdown().await;
    status
}

/// Checks that a server is not taken for that reason and in these words, and that no request reached it.
async fn refuses(server: &Server, settings: &Settings, reason: ProbeReason, words: &[&str]) {
    let status = verdict(settings).await;
    assert_eq!(status.reason, Some(reason), "{}", status.message);
    for word in words {
        assert!(status.message.contains(word), "{word:?} is not in: {}", status.message);
    }
    assert!(server.heard().is_empty(), "{:?}", server.heard());
}

#[tokio::test]
async fn a_server_whose_certificate_the_given_authority_signed_is_served_and_gets_the_credential_once_with_each_request()
 {
    let authority = Authority::new();
    let server = Server::start(Some(authority.server("localhost", false).listens(None)), Does::Answer).await;
    let header = Some(("X-API-Key".to_owned(), b"Bearer of news\n".to_vec()));
    let status = verdict(&Settings { header, ..trusting(&authority, &server) }).await;
    assert_eq!((status.state, status.message.as_str()), (ProbeState::Ready, ""));
    assert_eq!(status.tools.expect("tools").count, 1);
    let heard = server.heard();
    assert!(heard.len() >= 3, "initialize, initialized, tools/list: {heard:?}");
    for headers in heard {
        let values: Vec<_> = headers.get_all("x-api-key").into_iter().collect();
        assert_eq!(values, ["Bearer of news"]);
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_with_what_is_wrong_and_nothing_is_sent() {
    let (authority, other) = (Authority::new(), Authority::new());
    let start = async |name: &str, has_expired| {
        Server::start(Some(authority.server(name, has_expired).listens(None)), Does::Answer).await
    };
    let tls = ProbeReason::TlsFailed;
    let expired = start("localhost", true).await;
    refuses(&expired, &trusting(&authority, &expired), tls, &["certificate of localhost has expired"]).await;
    let misnamed = start("mcp.example.com", false).await;
    refuses(&misnamed, &trusting(&authority, &misnamed), tls, &["localhost", "another name", "mcp.example.com"]).await;
    let strange = start("localhost", false).await;
    let words = ["no authority that spec.remote.tls.caCertificateRef names"];
    refuses(&strange, &trusting(&other, &strange), tls, &words).await;
    let words = ["no public authority", "spec.remote.tls.caCertificateRef"];
    refuses(&strange, &settings("https", &strange), tls, &words).await;
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_wants_one() {
    let (authority, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let listens = authority.server("localhost", false).listens(Some(&clients));
    let server = Server::start(Some(listens), Does::Answer).await;
    let with = |identity| Settings { identity, ..trusting(&authority, &server) };
    let words = ["localhost wants a client certificate", "spec.remote.tls.clientCertificateRef"];
    refuses(&server, &with(None), ProbeReason::TlsFailed, &words).await;
    let words = ["localhost did not accept the client certificate"];
    refuses(&server, &with(Some(others.client())), ProbeReason::TlsFailed, &words).await;
    let status = verdict(&with(Some(clients.client()))).await;
    assert_eq!((status.state, status.message.as_str()), (ProbeState::Ready, ""));
}

#[tokio::test]
async fn a_port_without_tls_is_told_from_one_with_another_certificate() {
    let server = Server::start(None, Does::Answer).await;
    let words = ["localhost does not speak TLS on this port"];
    refuses(&server, &settings("https", &server), ProbeReason::TlsFailed, &words).await;
    let status = verdict(&settings("http", &server)).await;
    assert_eq!((status.state, status.message.as_str()), (ProbeState::Ready, ""));
}

#[tokio::test]
async fn a_server_that_hangs_up_in_the_midst_of_tls_is_unreachable_with_what_may_be_the_cause() {
    let authority = Authority::new();
    let server = Server::start(Some(authority.server("localhost", false).listens(None)), Does::HangUp).await;
    let words = ["localhost hung up", "spec.remote.tls.clientCertificateRef"];
    refuses(&server, &trusting(&authority, &server), ProbeReason::Unreachable, &words).await;
}

#[tokio::test]
async fn a_redirect_is_told_and_neither_body_nor_headers_go_where_it_leads() {
    for transport in [Transport::StreamableHttp, Transport::Sse] {
        for status in [StatusCode::FOUND, StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT] {
            let recorder = Server::start(None, Does::Answer).await;
            let location = format!("http://localhost:{}/mcp", recorder.address.port());
            let server = Server::start(None, Does::Redirect(status, location.clone())).await;
            let header = Some(("X-API-Key".to_owned(), b"secret".to_vec()));
            let found = verdict(&Settings { transport, header, ..settings("http", &server) }).await;
            assert_eq!(found.reason, Some(ProbeReason::NotMcp), "{}", found.message);
            for word in [status.as_str(), "redirects are not followed", location.as_str()] {
                assert!(found.message.contains(word), "{word:?} is not in: {}", found.message);
            }
            assert!(!server.heard().is_empty());
            assert_eq!(recorder.connections(), 0);
        }
    }
}

#[tokio::test]
async fn a_private_address_that_nobody_allowed_is_not_even_connected_to() {
    let server = Server::start(None, Does::Answer).await;
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        for transport in [Transport::StreamableHttp, Transport::Sse] {
            let url = format!("http://{host}:{}/mcp", server.address.port());
            let settings = Settings { url, transport, ..Settings::default() };
            let plain = host.trim_matches(['[', ']']);
            let words = ["is loopback", "allowedPrivateHosts", plain];
            refuses(&server, &settings, ProbeReason::AddressNotAllowed, &words).await;
        }
    }
    assert_eq!(server.connections(), 0);
}

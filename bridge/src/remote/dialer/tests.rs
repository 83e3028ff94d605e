use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method};
use portolan_mcp::wire::ProbeReason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::{Allowed, Remote, Transport, tls};
use super::*;
use crate::upstream::{NoAnswer, Server};

const HOST: &str = "mcp.example";

/// Answers lookups by a script, one after the other; then with nothing.
struct Script {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Script {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().expect("an address")).collect();
        Arc::new(Self { answers: Mutex::new(answers.iter().map(parse).collect()), asked: AtomicUsize::new(0) })
    }

    /// The server at `port` of [`HOST`], which may have private addresses if `is_allowed`.
    fn server(self: &Arc<Self>, port: u16, is_allowed: bool) -> Server {
        let hosts = if is_allowed { vec![HOST.to_owned()] } else { Vec::new() };
        let policy = Policy::new(HOST, &Allowed { hosts, loopback: false });
        let script = Arc::clone(self);
        let lookup = move |host: String| -> Answer<Vec<SocketAddr>> {
            assert_eq!(host, HOST);
            script.asked.fetch_add(1, Ordering::Relaxed);
            let answer = script.answers.lock().expect("whole").pop_front().unwrap_or_default();
            Box::pin(async move { Ok(answer.into_iter().map(|address| (address, 0).into()).collect()) })
        };
        let trust = tls::trust(None, None).expect("a configuration");
        let resolver = Resolver::new(policy, Arc::new(lookup));
        let dialer = Dialer::new(resolver, None, trust, Words::new(HOST, false), Duration::from_millis(500));
        let endpoint = format!("http://{HOST}:{port}/mcp").parse().expect("a URL");
        Server::elsewhere(Remote { endpoint, transport: Transport::StreamableHttp, credential: None, dialer })
    }
}

async fn ask(server: &Server) -> Result<(), NoAnswer> {
    server.send(Method::POST, &HeaderMap::new(), None, Bytes::new()).await.map(|_| ())
}

/// Answers every connection once, at the same port of two addresses of this machine; counts them.
async fn listen() -> (u16, [Arc<AtomicUsize>; 2]) {
    let (first, second) = loop {
        let first = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 1), 0)).await.expect("a port");
        let port = first.local_addr().expect("bound").port();
        if let Ok(second) = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)).await {
            break (first, second);
        }
    };
    let port = first.local_addr().expect("bound").port();
    let counts = [first, second].map(|listener| {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
        count
    });
    (port, counts)
}

#[tokio::test]
async fn a_name_is_resolved_once_for_a_connection_and_the_address_that_was_judged_is_connected_to() {
    let (port, [first, second]) = listen().await;
    let script = Script::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let server = script.server(port, true);
    ask(&server).await.expect("answers");
    assert_eq!(script.asked.load(Ordering::Relaxed), 1);
    assert_eq!((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)), (1, 0));
    ask(&server).await.expect("answers");
    assert_eq!(script.asked.load(Ordering::Relaxed), 2);
    assert_eq!((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test]
async fn a_name_that_leads_outside_first_and_inside_then_reaches_nothing_inside() {
    let (port, [first, second]) = listen().await;
    // An address for documentation, which nobody has.
    let script = Script::new(&[&["203.0.113.1"], &["127.0.0.1"]]);
    let server = script.server(port, false);
    let outside = ask(&server).await.expect_err("nobody is there");
    assert_eq!(outside.probe_reason(), ProbeReason::Unreachable, "{outside}");
    assert_eq!(script.asked.load(Ordering::Relaxed), 1, "what was judged is what was connected to");
    let inside = ask(&server).await.expect_err("refused");
    assert_eq!(inside.probe_reason(), ProbeReason::AddressNotAllowed, "{inside}");
    assert!(inside.to_string().contains("127.0.0.1, which is loopback"), "{inside}");
    assert_eq!((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test]
async fn a_name_that_leads_outside_and_inside_at_once_is_not_connected_to() {
    let (port, [first, _]) = listen().await;
    let script = Script::new(&[&["203.0.113.1", "127.0.0.1"], &["127.0.0.1", "203.0.113.1"], &["::ffff:127.0.0.1"]]);
    let server = script.server(port, false);
    for _ in 0..3 {
        let refused = ask(&server).await.expect_err("refused");
        assert_eq!(refused.probe_reason(), ProbeReason::AddressNotAllowed, "{refused}");
    }
    assert_eq!(first.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    let script = Script::new(&[]);
    let error = ask(&script.server(80, false)).await.expect_err("no address");
    assert_eq!(error.probe_reason(), ProbeReason::Unreachable);
    assert!(error.to_string().ends_with("mcp.example has no address"), "{error}");
}

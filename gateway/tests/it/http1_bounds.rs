//! Bounds of an HTTP/1.1 connection that lives longer than one request.

use std::time::Duration;

use portolan_gateway::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bridge::Bridge;
use crate::client::soon;
use crate::world::{ALICE, Gateway, MAC_KEY, Objects, ROUTE, config};

const REQUEST: &[u8] = b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n";

async fn start(change: impl FnOnce(&mut Config)) -> (Bridge, Gateway) {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut config = config();
    change(&mut config);
    let gateway = Gateway::start_with(config, Some(Objects::new(&[&bridge]).inputs())).await;
    (bridge, gateway)
}

/// Reads one answer that says how long it is.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    loop {
        let mut bytes = [0; 4096];
        let count = soon(stream.read(&mut bytes)).await.expect("is open");
        assert!(count > 0, "the connection ended: {text}");
        text += std::str::from_utf8(&bytes[..count]).expect("text");
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if body.len() == length.parse::<usize>().expect("a number") {
            return text;
        }
    }
}

async fn late_heads(gateway: &Gateway) -> f64 {
    gateway.metric(r#"portolan_gateway_bound_hits_total{bound="HeadTimeout"}"#).await
}

#[tokio::test]
async fn a_connection_without_a_further_request_is_closed_and_no_bound_is_hit() {
    let (_bridge, gateway) = start(|config| {
        config.bounds.header_timeout = Duration::from_millis(10);
        config.bounds.idle_timeout = Duration::from_millis(300);
    })
    .await;
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    for _ in 0..2 {
        stream.write_all(REQUEST).await.expect("is open");
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 401 "));
    }
    let ended = soon(stream.read_to_end(&mut Vec::new())).await.expect("is closed, not reset");
    assert_eq!((ended, late_heads(&gateway).await), (0, 0.0));
}

#[tokio::test]
async fn a_head_is_late_however_slowly_it_comes_and_whatever_came_before() {
    let (_bridge, gateway) = start(|config| {
        config.bounds.header_timeout = Duration::from_millis(300);
        config.bounds.idle_timeout = Duration::from_secs(600);
    })
    .await;
    for requests in [0, 2] {
        let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
        for _ in 0..requests {
            stream.write_all(REQUEST).await.expect("is open");
            answer(&mut stream).await;
        }
        stream.write_all(b"GET /nowhere HTTP/1.1\r\n").await.expect("is open");
        // Each byte is progress, and none of them buys time.
        let (mut reader, mut writer) = stream.split();
        let drip = async {
            while writer.write_all(b"x: y\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let mut rest = Vec::new();
        let closed = async { while soon(reader.read_buf(&mut rest)).await.is_ok_and(|count| count > 0) {} };
        tokio::select! {
            () = drip => {}
            () = closed => {}
        }
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }
    crate::client::until("both are counted", async || late_heads(&gateway).await == 2.0).await;
}

#[tokio::test]
async fn a_body_may_take_longer_than_a_head() {
    let (_bridge, gateway) = start(|config| config.bounds.header_timeout = Duration::from_millis(100)).await;
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    let head = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ALICE}\r\ncontent-type: application/json\r\n\
         content-length: 10\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("is open");
    for byte in b"{\"half\":0}" {
        tokio::time::sleep(Duration::from_millis(30)).await;
        stream.write_all(&[*byte]).await.expect("is open");
    }
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 400 "), "it was read, and is no message");
}

#[tokio::test]
async fn requests_that_come_together_are_answered_in_turn() {
    let (_bridge, gateway) = start(|config| config.bounds.header_timeout = Duration::from_millis(300)).await;
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    stream.write_all(&[REQUEST, REQUEST, &REQUEST[..20]].concat()).await.expect("is open");
    let both = async {
        let mut text = String::new();
        while text.matches("HTTP/1.1 401 ").count() < 2 {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).await.expect("is open");
            text += std::str::from_utf8(&bytes[..count]).expect("text");
        }
    };
    soon(both).await;
    stream.write_all(&REQUEST[20..]).await.expect("is open");
    let mut third = [0; 12];
    soon(stream.read_exact(&mut third)).await.expect("an answer");
}

#[tokio::test]
async fn a_target_that_names_another_host_than_its_header_is_421() {
    let (bridge, gateway) = start(|_| {}).await;
    for (target, host) in [("evil.example", "localhost"), ("localhost", "evil.example"), ("127.0.0.1", "localhost")] {
        let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
        let request = format!("GET http://{target}/default/everything/mcp HTTP/1.1\r\nhost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("is open");
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 421 "), "{target} {host}");
    }
    assert!(bridge.seen().is_empty());
}

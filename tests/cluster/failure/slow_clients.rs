//! Clients that take their time, beside those that do not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::join_all;
use portolan_tests::stand::Stand;
use reqwest::Url;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::{amount, on_a_stand, rate, report};

/// From a gateway's bounds: longest head, and longest body.
const BOUND: Duration = Duration::from_secs(10);
/// On a busy machine, beyond that.
const SLACK: Duration = Duration::from_secs(3);
/// From one byte of a slow client to the next.
const PACE: Duration = Duration::from_millis(500);
/// Few enough that what they leave unread is within what a gateway keeps for one server.
const READERS: usize = 25;
/// What a slow reader's kernel takes.
const NARROW: u32 = 4096;
/// What a slow reader has said back to it.
const MESSAGE: usize = 512 * 1024;

#[tokio::test]
async fn clients_that_send_or_read_slowly_are_shut_out_in_time_and_good_traffic_does_not_notice() {
    on_a_stand("patient", 2, async |stand| {
        let load = stand.load(rate()).await;
        let address = address(stand);
        let count = amount(100, 500);
        let began = Instant::now();
        let heads = join_all((0..count).map(|_| slow_head(address)));
        let bodies = join_all((0..count).map(|_| slow_body(stand, address)));
        let readers = join_all((0..READERS).map(|_| slow_reader(stand, address)));
        let (heads, bodies, _open) = tokio::join!(heads, bodies, readers);
        let longest = heads.into_iter().chain(bodies).max().unwrap_or_default();
        println!("{} slow clients: the last was shut out after {:.1} s", 2 * count, longest.as_secs_f64());
        assert!(longest < BOUND + SLACK, "{longest:?}");
        println!("slow clients for {:.0} s", began.elapsed().as_secs_f64());
        let tally = load.stop().await;
        report("beside slow clients", &tally);
        tally.assert_nothing_failed();
    })
    .await;
}

fn address(stand: &Stand) -> SocketAddr {
    let url: Url = stand.url().parse().expect("a URL");
    let host = url.host_str().expect("an address").parse().expect("an address");
    SocketAddr::new(host, 80)
}

fn path(stand: &Stand) -> String {
    let url: Url = stand.url().parse().expect("a URL");
    url.path().to_owned()
}

/// Sends a byte of a head now and then, and says how long it took until the connection was closed.
async fn slow_head(address: SocketAddr) -> Duration {
    let mut stream = TcpStream::connect(address).await.expect("it is taken");
    stream.write_all(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await.expect("sent");
    until_closed(stream, b"x").await
}

/// The same of a body, which is announced as longer than it ever gets.
async fn slow_body(stand: &Stand, address: SocketAddr) -> Duration {
    let mut stream = TcpStream::connect(address).await.expect("it is taken");
    stream.write_all(head(stand, 4096).as_bytes()).await.expect("sent");
    until_closed(stream, b" ").await
}

async fn until_closed(mut stream: TcpStream, part: &[u8]) -> Duration {
    let began = Instant::now();
    let mut answer = [0; 512];
    while began.elapsed() < 2 * BOUND {
        // An answer, as 408 is, is followed by the end.
        match timeout(PACE, stream.read(&mut answer)).await {
            Ok(Ok(0) | Err(_)) => return began.elapsed(),
            Ok(Ok(_)) => {}
            Err(_) => {
                if stream.write_all(part).await.is_err() {
                    return began.elapsed();
                }
            }
        }
    }
    began.elapsed()
}

/// Asks for a long answer, and reads hardly any of it for as long as the others take; what is returned closes the connection.
async fn slow_reader(stand: &Stand, address: SocketAddr) -> TcpStream {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "echo", "arguments": {"message": "x".repeat(MESSAGE)},
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}}}})
    .to_string();
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(NARROW).expect("as small as that");
    let mut stream = socket.connect(address).await.expect("it is taken");
    stream.write_all(head(stand, call.len()).as_bytes()).await.expect("sent");
    stream.write_all(call.as_bytes()).await.expect("sent");
    let began = Instant::now();
    let mut answer = [0; 16];
    let read = stream.read(&mut answer).await.expect("an answer");
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    while began.elapsed() < BOUND {
        sleep(PACE).await;
        let _some = stream.read(&mut answer).await.expect("more of it");
    }
    stream
}

fn head(stand: &Stand, length: usize) -> String {
    format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\nMcp-Name: echo\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {length}\r\n\r\n",
        path(stand),
        Stand::key()
    )
}

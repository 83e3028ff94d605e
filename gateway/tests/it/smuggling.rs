//! Requests that one reader could take for two, or for another one: refused as a whole, and nothing in them is taken for
//! a request of its own.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::soon;
use crate::endpoints::World;
use crate::frames::{END_HEADERS, END_STREAM, GOAWAY, HEADERS, Peer, RST_STREAM, frame, post};
use crate::world::{ALICE, OTHER_ROUTE, ROUTE};

const DATA: u8 = 0;
const PROTOCOL_ERROR: u32 = 1;

/// A call of another server, complete and by somebody who may make it.
fn hidden() -> String {
    let body = r#"{"jsonrpc":"2.0","id":9,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
    format!("{}content-length: {}\r\n\r\n{body}", head(&format!("POST {OTHER_ROUTE} HTTP/1.1")), body.len())
}

fn head(request_line: &str) -> String {
    format!(
        "{request_line}\r\nhost: localhost\r\nauthorization: Bearer {ALICE}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\n"
    )
}

/// Sends bytes and returns all that is answered until the connection ends.
async fn told(world: &World, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.gateway.address).await.expect("connects");
    stream.write_all(bytes).await.expect("is open");
    let mut answer = Vec::new();
    // What was sent and not read may turn the end into a reset.
    let _ended = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn assert_refused(world: &World, what: &str, bytes: &[u8]) {
    let answer = told(world, bytes).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what} is one request: {answer}");
    assert_eq!(world.reached(), 0, "{what}");
}

#[tokio::test]
async fn a_body_whose_length_can_be_read_in_two_ways_hides_no_request() {
    let world = World::start().await;
    let hidden = hidden();
    let shown = told(&world, hidden.replace("host:", "connection: close\r\nhost:").as_bytes()).await;
    assert!(shown.starts_with("HTTP/1.1 200 ") && world.reached() == 1, "by itself it is taken: {shown}");
    let world = World::start().await;
    let length = hidden.len() + 5;
    for framing in [
        format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
        format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n"),
        "content-length: 5\r\ncontent-length: 6\r\n".into(),
        format!("content-length: 5\r\nContent-Length: {length}\r\n"),
        "content-length: 5, 6\r\n".into(),
        "content-length: +5\r\n".into(),
        "content-length: 0x5\r\n".into(),
        "content-length: -5\r\n".into(),
        "content-length: 18446744073709551621\r\n".into(),
        "content-length: \r\n".into(),
        "transfer-encoding: gzip\r\n".into(),
        "transfer-encoding: identity\r\n".into(),
        "transfer-encoding: chunked, identity\r\n".into(),
        "transfer-encoding: xchunked\r\n".into(),
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n".into(),
    ] {
        let request = format!("{}{framing}\r\n0\r\n\r\n{hidden}", head(&format!("POST {ROUTE} HTTP/1.1")));
        assert_refused(&world, &framing, request.as_bytes()).await;
    }
    let old = format!("{}transfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}", head(&format!("POST {ROUTE} HTTP/1.0")));
    assert_refused(&world, "chunks in HTTP/1.0", old.as_bytes()).await;
}

#[tokio::test]
async fn chunks_that_are_none_hide_no_request() {
    let world = World::start().await;
    let hidden = hidden();
    for chunks in [
        "fffffffffffffffff\r\n",
        "-1\r\n",
        "0x0\r\n",
        "zz\r\n",
        "2\r\n{}x\r\n0\r\n\r\n",
        "2 2\r\n{}\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
    ] {
        let head = head(&format!("POST {ROUTE} HTTP/1.1"));
        let request = format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}{hidden}");
        let answer = told(&world, request.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{chunks:?}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{chunks:?} is one request: {answer}");
        assert_eq!(world.reached(), 0, "{chunks:?}");
    }
}

#[tokio::test]
async fn a_head_that_two_readers_would_cut_differently_is_400() {
    let world = World::start().await;
    for line in [
        "x: a\rmcp-session-id: b",
        "x: a\0b",
        "x: a\x0bb\x01",
        "x\r\n folded",
        "x: a\r\n folded: b",
        "x : a",
        " x: a",
        "x",
        ": a",
        "mcp-session-id\0: a",
        "x\u{e9}: a",
        "x(y): a",
    ] {
        let request = format!("{}{line}\r\ncontent-length: 2\r\n\r\n{{}}", head(&format!("POST {ROUTE} HTTP/1.1")));
        assert_refused(&world, line, request.as_bytes()).await;
    }
    for line in [
        format!("POST {ROUTE}"),
        format!("POST  {ROUTE} HTTP/1.1"),
        format!("POST {ROUTE} x HTTP/1.1"),
        format!("POST {ROUTE} HTTP/1.1 x"),
        format!("POST {ROUTE}\r HTTP/1.1"),
        format!("POST {ROUTE}\0 HTTP/1.1"),
        format!("P\rOST {ROUTE} HTTP/1.1"),
        format!("POST {ROUTE} HTTP/3.0"),
    ] {
        let request = format!("{}content-length: 2\r\n\r\n{{}}", head(&line));
        assert_refused(&world, &line, request.as_bytes()).await;
    }
}

#[tokio::test]
async fn no_way_of_writing_a_path_leads_around_the_routes() {
    let world = World::with(|objects| {
        objects.gateway["servers"] = serde_json::json!({"selector": {"matchLabels": {"name": "everything"}}});
    })
    .await;
    for path in [
        "/default/other/mcp",
        "/default/everything/../other/mcp",
        "/default/everything/%2e%2e/other/mcp",
        "/default/everything%2f..%2fother/mcp",
        "//default/other/mcp",
        "/default//other/mcp",
        "/./default/other/mcp",
        "/default/other/mcp;x",
        "/default/other;x/mcp",
        "/default/OTHER/mcp",
        "/default/other%00/mcp",
        "/default\\other\\mcp",
        "/mcp/",
        "/mcp/../default/other/mcp",
        "/default/toolsets/../other/mcp",
        "*",
    ] {
        let body = "{}";
        let request =
            format!("{}connection: close\r\ncontent-length: 2\r\n\r\n{body}", head(&format!("POST {path} HTTP/1.1")));
        let answer = told(&world, request.as_bytes()).await;
        let is_none = answer.starts_with("HTTP/1.1 404 ") || answer.starts_with("HTTP/1.1 400 ");
        assert!(is_none, "{path}: {answer}");
    }
    assert_eq!(world.reached(), 0);
}

#[tokio::test]
async fn fields_of_http2_that_would_be_two_lines_or_another_body_end_their_stream() {
    let world = World::start().await;
    let field = |name: &[u8], value: &[u8]| -> Vec<u8> {
        let text = |text: &[u8]| [&[u8::try_from(text.len()).expect("short")], text].concat();
        [vec![0], text(name), text(value)].concat()
    };
    let fields: [(&[u8], &[u8]); 12] = [
        (b"x", b"fine"),
        (b"mcp-name", b"a\r\nportolan-shared: 1"),
        (b"mcp-name", b"a\nb"),
        (b"mcp-name", b"a\0b"),
        (b"mcp-name\r\nx", b"a"),
        (b"MCP-Name", b"a"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
        (b"te", b"gzip"),
        (b":path", OTHER_ROUTE.as_bytes()),
        (b":authority", b"evil.example"),
        (b"content-length", b"1"),
    ];
    for (name, value) in fields {
        let what = format!("{}: {}", name.escape_ascii(), value.escape_ascii());
        let mut peer = Peer::connect(world.gateway.address).await;
        peer.write(&frame(HEADERS, END_HEADERS, 1, &[post(ROUTE, ALICE), field(name, value)].concat())).await;
        peer.write(&frame(DATA, END_STREAM, 1, b"{\"jsonrpc\":\"2.0\"}")).await;
        let end = loop {
            let frame = peer.read().await.expect("an end that is said");
            if [RST_STREAM, GOAWAY, HEADERS].contains(&frame.kind) {
                break frame;
            }
        };
        let is_refused = end.kind != HEADERS && end.code() == PROTOCOL_ERROR;
        assert_eq!(is_refused, name != b"x", "{what}: {end:?}");
    }
    assert_eq!(world.reached(), 0);
}

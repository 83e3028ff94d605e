//! Bounds of HTTP/2: each is hit, counted, and leaves the others alone.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::Builder;
use http::Method;
use portolan_gateway::Config;
use serde_json::json;

use crate::bridge::Bridge;
use crate::client::{call, soon, until};
use crate::client_http2::{Connection, broke, read_until};
use crate::frames::{
    ACK, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE, Peer, RST_STREAM, frame, post,
};
use crate::log::Log;
use crate::world::{ALICE, Gateway, MAC_KEY, Objects, ROUTE, config};

const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

async fn start(change: impl FnOnce(&mut Config)) -> (Bridge, Gateway) {
    let bridge = Bridge::start("uid-1", MAC_KEY).await;
    let mut objects = Objects::new(&[&bridge]);
    objects.server["limits"] = json!({"maxParallelRequests": 1, "maxPendingRequests": 0});
    let mut config = config();
    change(&mut config);
    let gateway = Gateway::start_with(config, Some(objects.inputs())).await;
    (bridge, gateway)
}

async fn hits(gateway: &Gateway, bound: &str) -> f64 {
    gateway.metric(&format!(r#"portolan_gateway_bound_hits_total{{bound="{bound}"}}"#)).await
}

async fn until_closed(gateway: &Gateway) {
    let open = r#"portolan_gateway_connections{listener="http"}"#;
    until("it is closed", async || gateway.metric(open).await == 0.0).await;
}

#[tokio::test]
async fn a_head_over_its_bounds_is_431_and_the_connection_goes_on() {
    let log = Log::capture();
    let (_bridge, gateway) = start(|_| {}).await;
    let connection = Connection::open(gateway.address).await;
    let long = connection.client().with("x", &"x".repeat(33 * 1024));
    assert_eq!(long.post(ROUTE, "nonsense").await.status, 431);
    const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let many =
        NAMES.iter().fold(connection.client(), |client, name| (0..10).fold(client, |client, _| client.and(name, "x")));
    assert_eq!(many.post(ROUTE, "nonsense").await.status, 431);
    assert_eq!(hits(&gateway, "Head").await, 2.0);
    // So long that it is not even kept to be looked at.
    let longer = connection.client().with("x", &"x".repeat(70 * 1024));
    assert_eq!(longer.send(Method::POST, ROUTE, "nonsense").await.map(|answer| answer.status).ok(), Some(431));
    assert_eq!(connection.client().post(ROUTE, "nonsense").await.status, 400);
    let outcomes: Vec<_> = log.access().iter().map(|line| (line["status"].clone(), line["outcome"].clone())).collect();
    assert_eq!(outcomes[..2], [(json!(431), json!("BadHead")), (json!(431), json!("BadHead"))], "{outcomes:?}");
}

#[tokio::test]
async fn a_head_that_never_ends_is_closed() {
    let (_bridge, gateway) = start(|config| config.bounds.ping_interval = Duration::from_millis(100)).await;
    let mut peer = Peer::connect(gateway.address).await;
    // Nothing may stand between the parts of a head, so that no ping is answered any more.
    peer.write(&frame(HEADERS, END_STREAM, 1, &post(ROUTE, ALICE))).await;
    peer.read_to_end().await;
    until_closed(&gateway).await;
    assert_eq!(hits(&gateway, "Ping").await, 1.0);
}

#[tokio::test]
async fn a_preface_that_never_ends_is_a_late_head_and_one_in_pieces_is_read() {
    let (_bridge, gateway) = start(|config| config.bounds.header_timeout = Duration::from_millis(200)).await;
    let mut late = Peer(tokio::net::TcpStream::connect(gateway.address).await.expect("connects"));
    late.write(&PREFACE[..10]).await;
    assert!(late.read_to_end().await.is_empty());
    until_closed(&gateway).await;
    assert_eq!(hits(&gateway, "HeadTimeout").await, 1.0);
    let mut pieces = Peer(tokio::net::TcpStream::connect(gateway.address).await.expect("connects"));
    pieces.0.set_nodelay(true).expect("nodelay");
    for byte in PREFACE {
        pieces.write(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    pieces.write(&frame(crate::frames::SETTINGS, 0, 0, &[])).await;
    pieces.read_to(crate::frames::SETTINGS).await;
}

#[tokio::test]
async fn one_stream_more_than_a_connection_may_have_is_refused() {
    let (_bridge, gateway) = start(|config| config.bounds.max_streams = 3).await;
    let mut peer = Peer::connect(gateway.address).await;
    for stream in [1, 3, 5, 7] {
        peer.write(&frame(HEADERS, END_HEADERS, stream, &post(ROUTE, ALICE))).await;
    }
    let refused = peer.read_to(RST_STREAM).await;
    assert_eq!((refused.stream, refused.code()), (7, REFUSED_STREAM));
}

#[tokio::test]
async fn streams_that_are_begun_only_to_be_taken_back_end_the_connection() {
    let (bridge, gateway) = start(|_| {}).await;
    let mut peer = Peer::connect(gateway.address).await;
    let reset = |stream| {
        [frame(HEADERS, END_HEADERS, stream, &post(ROUTE, ALICE)), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())]
            .concat()
    };
    let flood: Vec<u8> = (0..500).flat_map(|index| reset(2 * index + 1)).collect();
    // The gateway may be gone before everything is written.
    let _written = tokio::io::AsyncWriteExt::write_all(&mut peer.0, &flood).await;
    let frames = peer.read_to_end().await;
    let goaway = frames.iter().find(|frame| frame.kind == GOAWAY).map(Frame::code);
    assert!(goaway.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{frames:?}");
    until_closed(&gateway).await;
    assert_eq!(hits(&gateway, "Resets").await, 1.0);
    assert!(bridge.seen().is_empty());
}

#[tokio::test]
async fn frames_that_are_no_http2_end_the_connection_and_leave_a_line() {
    let log = Log::capture();
    let (_bridge, gateway) = start(|_| {}).await;
    let mut peer = Peer::connect(gateway.address).await;
    // DATA on a stream that was never begun.
    peer.write(&frame(0, 0, 1, b"x")).await;
    assert_eq!(peer.read_to(GOAWAY).await.code(), 1);
    until("it leaves a line", async || log.access().len() == 1).await;
    let line = log.access().pop().expect("a line");
    assert_eq!((&line["status"], &line["outcome"]), (&serde_json::Value::Null, &json!("BadHead")), "{line}");
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_reset_and_its_connection_goes_on() {
    let (_bridge, gateway) = start(|config| config.bounds.unread_timeout = Duration::from_millis(300)).await;
    let connection =
        Connection::open_with(gateway.address, Builder::new().initial_connection_window_size(1 << 20)).await;
    let session = connection.client().initialize().await;
    let client = connection.client().session(&session);
    // The last has only a little more than fits.
    for (tool, text) in [("flood", ""), ("huge", ""), ("echo", "x".repeat(66_000).as_str())] {
        let answer = client.begin(Method::POST, ROUTE, call(tool, json!({"text": text}))).await;
        let answer = soon(answer).await.expect("a head");
        assert_eq!(client.call("echo", json!({})).await.status, 503, "the place is taken");
        // What was sent is read, but its window stays shut.
        assert_eq!(broke(&mut answer.into_body()).await, Some(Reason::CANCEL), "{tool}");
        until("the place is free", async || client.call("echo", json!({})).await.status == 200).await;
    }
    assert_eq!(hits(&gateway, "Unread").await, 3.0);
}

#[tokio::test]
async fn a_stream_that_is_read_slowly_is_not_reset() {
    let (_bridge, gateway) = start(|config| config.bounds.unread_timeout = Duration::from_millis(500)).await;
    let connection = Connection::open(gateway.address).await;
    let session = connection.client().initialize().await;
    let client = connection.client().session(&session);
    let mut body =
        soon(client.begin(Method::POST, ROUTE, call("huge", json!({}))).await).await.expect("a head").into_body();
    let (began, mut read) = (std::time::Instant::now(), 0);
    while let Some(data) = soon(body.data()).await {
        let data = data.expect("not broken");
        read += data.len();
        body.flow_control().release_capacity(data.len()).expect("was taken");
        if began.elapsed() < Duration::from_millis(1500) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(read > 1024 * 1024, "{read}");
    assert!(began.elapsed() > Duration::from_millis(1000), "slower than the bound lets anything stand still");
    assert_eq!(hits(&gateway, "Unread").await, 0.0);
}

#[tokio::test]
async fn an_answer_whose_last_bytes_are_never_taken_ends_the_connection() {
    let (_bridge, gateway) = start(|config| config.bounds.unread_timeout = Duration::from_millis(200)).await;
    let mut connection = Connection::open_with(gateway.address, Builder::new().initial_window_size(1)).await;
    let answer = soon(connection.client().begin(Method::POST, ROUTE, "nonsense").await).await.expect("a head");
    // The end of the connection is all that it is told.
    let _ended = soon(&mut connection.driver).await.expect("no panic");
    drop(answer);
    until_closed(&gateway).await;
    assert_eq!(hits(&gateway, "Unread").await, 1.0);
}

#[tokio::test]
async fn a_client_that_vanished_is_noticed_and_one_that_answers_pings_is_not_taken_for_it() {
    let (_bridge, gateway) = start(|config| config.bounds.ping_interval = Duration::from_millis(100)).await;
    let mut silent = Peer::connect(gateway.address).await;
    let mut there = Peer::connect(gateway.address).await;
    for _ in 0..5 {
        let ping = there.read_to(PING).await;
        there.write(&frame(PING, ACK, 0, &ping.payload)).await;
    }
    silent.read_to_end().await;
    until("it is counted", async || hits(&gateway, "Ping").await == 1.0).await;
    assert_eq!(gateway.metric(r#"portolan_gateway_connections{listener="http"}"#).await, 1.0);
}

#[tokio::test]
async fn a_connection_without_requests_is_let_go_and_one_with_a_stream_is_not() {
    let (_bridge, gateway) = start(|config| config.bounds.idle_timeout = Duration::from_millis(300)).await;
    let connection = Connection::open(gateway.address).await;
    let session = connection.client().initialize().await;
    let client = connection.client().session(&session);
    let mut stream = soon(client.begin(Method::GET, ROUTE, Bytes::new()).await).await.expect("a stream").into_body();
    read_until(&mut stream, "keep-alive").await;
    let mut idle = Peer::connect(gateway.address).await;
    assert_eq!(idle.read_to(GOAWAY).await.code(), 0);
    // Whatever the client had sent by then would be served: it answers a ping before the end.
    let ping = idle.read_to(PING).await;
    idle.write(&frame(PING, ACK, 0, &ping.payload)).await;
    idle.read_to_end().await;
    assert_eq!(client.call("echo", json!({})).await.status, 200, "its stream is open");
    drop(stream);
    until_closed(&gateway).await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_408_and_its_connection_goes_on() {
    let (_bridge, gateway) = start(|config| config.bounds.body_timeout = Duration::from_millis(100)).await;
    let connection = Connection::open(gateway.address).await;
    let client = connection.client();
    let answer = soon(client.begin_body(Method::POST, ROUTE).await.0).await.expect("an answer");
    assert_eq!(answer.status(), 408);
    assert_eq!(client.post(ROUTE, "nonsense").await.status, 400);
    assert_eq!(hits(&gateway, "BodyTimeout").await, 1.0);
}

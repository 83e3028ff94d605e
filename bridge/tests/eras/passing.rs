//! HTTP servers that speak what their clients speak, so that their bytes pass by: what they send that is no answer is a
//! clean end for the one caller whom it is about, in either era.

use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use portolan_mcp::revision::Era;
use portolan_mcp::token::SessionKey;
use portolan_mcp::wire;
use serde_json::json;

use crate::common::raw::{End, Raw, chunk, events, whole};
use crate::common::{PATIENCE, Rig, until};
use crate::world::Caller;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const FINE: &str = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#;
const WHOLE_EVENT: &str = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\n";

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    /// The bridge said in the server's stead what went wrong.
    Told(String),
    /// What the server sent.
    Passed(String),
    /// The answer ended in a way that nobody takes for its end.
    BrokenOff,
}

fn told(kind: &str) -> Became {
    Became::Told(kind.into())
}

fn passed(text: &str) -> Became {
    Became::Passed(text.into())
}

async fn became(response: http::Response<Incoming>) -> Became {
    let (head, body) = response.into_parts();
    let Ok(body) = tokio::time::timeout(PATIENCE, body.collect()).await.expect("in time") else {
        return Became::BrokenOff;
    };
    let trailers = body.trailers().cloned().unwrap_or_default();
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
    match head.headers.get(wire::FAILURE).or(trailers.get(wire::FAILURE)) {
        Some(kind) => {
            assert!(text.contains(r#""id":7"#), "it answers the request: {text}");
            Became::Told(kind.to_str().expect("text").to_owned())
        }
        None => Became::Passed(text),
    }
}

/// A bridge in front of a server that knows both eras.
async fn start() -> (Raw, Rig) {
    let server = Raw::start().await;
    let rig = Rig::http(&["--request-timeout", "30s"], &server.url());
    rig.until_ready().await;
    let era = async || rig.status().await.probe.server.map(|server| server.era);
    until("it is known that the server speaks both", async || era().await == Some(Era::Both)).await;
    (server, rig)
}

#[tokio::test]
async fn what_a_server_sends_that_is_no_answer_ends_that_call_alone_in_either_era() {
    let (server, rig) = start().await;
    let elsewhere = Raw::start().await;
    let redirect = |status: &str| {
        let location = elsewhere.url();
        format!("HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    };
    let packed = whole("200 OK", JSON, "\u{1f}?").replace("\r\n\r\n", "\r\ncontent-encoding: gzip\r\n\r\n");
    let half = whole("200 OK", JSON, &" ".repeat(100)).trim_end_matches(' ').to_owned() + r#"{"jsonrpc":"#;
    let half_event = events(EVENTS) + "1000\r\ndata: {\"jsonrpc\"";
    let event = events(EVENTS) + &chunk(WHOLE_EVENT);
    let long = whole("200 OK", JSON, &FINE.replace("[]", &format!("[\"{}\"]", "x".repeat(80_000))));
    let half_long = long[..70_000].to_owned();
    let stream = |text: &str| events(EVENTS) + &chunk(text) + "0\r\n\r\n";
    let polled = format!("id: 1\n{WHOLE_EVENT}");
    let unnamed = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no"}}"#;
    let wrong = FINE.replace('7', "987654");
    let twice = format!("data: {FINE}\n\ndata: {FINE}\n\n");
    let cases = [
        ("a redirect", redirect("307 Temporary Redirect"), End::Close, told("BadServerReply")),
        ("a redirect for good", redirect("308 Permanent Redirect"), End::Close, told("BadServerReply")),
        ("a page", whole("502 Bad Gateway", "text/html", "<html>"), End::Close, told("BadServerReply")),
        ("a page that is fine", whole("200 OK", "text/html", "<html>"), End::Close, told("BadServerReply")),
        ("no body", whole("202 Accepted", "text/plain", ""), End::Close, told("BadServerReply")),
        ("something packed", packed, End::Close, told("BadServerReply")),
        ("no HTTP", "nonsense\r\n\r\n".into(), End::Close, told("ServerUnreachable")),
        ("nothing", String::new(), End::Close, told("ServerUnreachable")),
        ("a reset", String::new(), End::Reset, told("ServerUnreachable")),
        ("silence", String::new(), End::Hold, told("RequestTimeout")),
        ("half a message", half.clone(), End::Close, told("ServerUnreachable")),
        ("half a message, reset", half.clone(), End::Reset, told("ServerUnreachable")),
        ("half a message, then silence", half.clone(), End::Hold, told("RequestTimeout")),
        ("a message drop by drop", half, End::Drip, told("RequestTimeout")),
        ("half an event", half_event.clone(), End::Close, Became::BrokenOff),
        ("half an event, reset", half_event.clone(), End::Reset, Became::BrokenOff),
        ("half an event, then silence", half_event.clone(), End::Hold, Became::BrokenOff),
        ("an event drop by drop", half_event, End::Drip, Became::BrokenOff),
        ("an event and the end of the connection", event.clone(), End::Close, told("ServerUnreachable")),
        ("an event and silence", event, End::Hold, told("RequestTimeout")),
        ("half a long message", half_long.clone(), End::Close, Became::BrokenOff),
        ("half a long message, then silence", half_long, End::Hold, Became::BrokenOff),
        ("a long message", long.clone(), End::Close, passed(long.split_once("\r\n\r\n").expect("a body").1)),
        ("garbage", whole("200 OK", JSON, "this is no JSON"), End::Close, told("BadServerReply")),
        ("nothing as JSON", whole("200 OK", JSON, ""), End::Close, told("BadServerReply")),
        ("garbage under a status", whole("401 Unauthorized", JSON, "{}"), End::Close, told("BadServerReply")),
        ("another's answer", whole("200 OK", JSON, &wrong), End::Close, told("BadServerReply")),
        ("another's answer in a stream", stream(&format!("data: {wrong}\n\n")), End::Close, told("BadServerReply")),
        ("garbage in a stream", stream("data: this is no JSON\n\n"), End::Close, told("BadServerReply")),
        ("a stream without the answer", stream(WHOLE_EVENT), End::Close, told("BadServerReply")),
        ("an empty stream", stream(": nothing\n\n"), End::Close, told("BadServerReply")),
        ("a stream to come back to", stream(&polled), End::Close, passed(&polled)),
        ("an error without an id", whole("400 Bad Request", JSON, unnamed), End::Close, passed(unnamed)),
        ("two answers", stream(&twice), End::Close, passed(&twice)),
    ];
    let (client, others) = (rig.open().await, rig.open().await);
    let key = SessionKey::generate().expect("random");
    let caller = Caller { rig: &rig, key, capabilities: json!({}), name: "test" };
    let fine = (whole("200 OK", JSON, FINE), End::Close);
    for (what, bytes, end, expected) in cases {
        for is_modern in [false, true] {
            server.calls.send_replace((bytes.clone(), end));
            let limit = [(wire::TIMEOUT, "300".to_owned())];
            let response = match is_modern {
                true => caller.start_with(7, "tools/call", json!({"name": "x"}), &limit).await,
                false => client.start(7, "x", &limit).await,
            };
            assert_eq!(became(response).await, expected, "{what}, modern: {is_modern}");
            server.calls.send_replace(fine.clone());
            for response in [
                client.start(7, "x", &[]).await,
                others.start(7, "x", &[]).await,
                caller.start(7, "tools/call", json!({"name": "x"})).await,
            ] {
                assert_eq!((response.status(), became(response).await), (StatusCode::OK, passed(FINE)), "after {what}");
            }
        }
    }
    assert_eq!(elsewhere.connections(), 0, "nobody goes where a server sends its callers");
}

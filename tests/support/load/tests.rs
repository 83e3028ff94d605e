//! The load counts what it is answered: shown on a server that answers otherwise now and then.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::serve::serve;

/// What the server does to one of so many calls.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    ToolError,
    Refusal,
    AnotherAnswer,
    Loss,
    Silence,
}

const ONE_OF: u64 = 10;

async fn server(fault: Fault) -> (String, AbortOnDropHandle<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/mcp", socket.local_addr().expect("bound"));
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    (url, serve(socket, move |request| answer(request, counts.clone(), fault)))
}

async fn answer(request: Request<Incoming>, counts: Arc<[AtomicU64; 2]>, fault: Fault) -> Response<Full<bytes::Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let say = |status: StatusCode, session: bool, value: Value| {
        let response = Response::builder().status(status).header("content-type", "application/json");
        let response = if session { response.header("mcp-session-id", "s") } else { response };
        response.body(Full::new(value.to_string().into())).expect("a response")
    };
    if parts.method == Method::DELETE {
        return say(StatusCode::OK, false, json!({}));
    }
    let message: Value = serde_json::from_slice(&body).expect("JSON");
    if message["id"].is_null() {
        return say(StatusCode::ACCEPTED, false, json!({}));
    }
    if message["method"] == "initialize" {
        return say(StatusCode::OK, true, json!({"jsonrpc": "2.0", "id": message["id"], "result": {}}));
    }
    let in_session = parts.headers.contains_key("mcp-session-id");
    let count = &counts[usize::from(in_session)];
    let is_bad = count.fetch_add(1, Ordering::Relaxed) % ONE_OF == ONE_OF - 1;
    let text = format!("Echo: {}", message["params"]["arguments"]["message"].as_str().expect("a text"));
    let mut result = json!({"content": [{"type": "text", "text": text}]});
    match fault {
        Fault::Silence if is_bad => std::future::pending().await,
        Fault::Loss if is_bad && in_session => {
            let data = json!({"error_type": "UnknownSession"});
            let error = json!({"code": -32001, "message": "over", "data": data});
            return say(StatusCode::NOT_FOUND, false, json!({"jsonrpc": "2.0", "id": null, "error": error}));
        }
        Fault::Refusal if is_bad => return say(StatusCode::SERVICE_UNAVAILABLE, false, json!({})),
        Fault::ToolError if is_bad => {
            result = json!({"isError": true, "content": [], "structuredContent": {"error_type": "ServerExited"}});
        }
        Fault::AnotherAnswer if is_bad => result["content"][0]["text"] = "Echo: another".into(),
        _ => {}
    }
    say(StatusCode::OK, false, json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
}

async fn seen(fault: Fault) -> Tally {
    let (url, _server) = server(fault).await;
    let credentials = vec![None];
    let plan = Plan { url, credentials, sessions: 4, rate: 50, renewal: Duration::from_secs(60), streams: 0 };
    let load = Load::start(plan).await;
    until("a hundred calls are made", PATIENCE, || async {
        let tally = load.so_far();
        if tally.made() >= 100 { Ok(()) } else { Err(tally.to_string()) }
    })
    .await;
    load.stop().await
}

#[tokio::test]
async fn a_load_that_is_answered_counts_no_failure() {
    let tally = seen(Fault::None).await;
    tally.assert_nothing_failed();
    assert!(tally.rate() > 25.0, "{tally}");
}

#[tokio::test]
async fn every_answer_that_is_another_than_was_asked_for_counts_by_what_it_is() {
    let expected = |fault| match fault {
        Fault::ToolError => Outcome::ToolError("ServerExited".into()),
        Fault::Refusal => Outcome::Refused("503 of the server".into()),
        Fault::Loss => Outcome::SessionLost,
        Fault::Silence => Outcome::Late,
        _ => panic!("{fault:?} is told by its answer"),
    };
    let faults = [Fault::ToolError, Fault::Refusal, Fault::Loss, Fault::Silence].map(|fault| async move {
        let tally = seen(fault).await;
        let counted = tally.calls.get(&expected(fault)).copied().unwrap_or_default();
        assert!(counted >= 4 && counted == tally.failed(), "{fault:?}: {tally}");
        assert_eq!(tally.failures.len() as u64, tally.failed(), "each is remembered: {tally}");
        // Of two calls in one session each may find it lost.
        let is_lost = if fault == Fault::Loss { 1..=counted } else { 0..=0 };
        assert!(is_lost.contains(&tally.lost), "{tally}");
    });
    futures::future::join_all(faults).await;
    let wrong = seen(Fault::AnotherAnswer).await;
    assert!(wrong.failed() >= 8 && wrong.calls.keys().any(|outcome| matches!(outcome, Outcome::Wrong(_))), "{wrong}");
}

#[tokio::test]
#[should_panic(expected = "503 of the server")]
async fn one_failure_fails_whoever_expects_none() {
    seen(Fault::Refusal).await.assert_nothing_failed();
}

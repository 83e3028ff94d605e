//! Bodies pass with every byte as it was: messages of any kind upstream, answers as JSON or as events downstream, however
//! they are written and cut.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portolan_mcp::envelope::Message;
use portolan_mcp::modern::{Head, headers_of};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::client::{Client, initialize};
use crate::world::{Gateway, Objects, ROUTE};

#[path = "../../../mcp/tests/messages/mod.rs"]
mod messages;

/// What an upstream answers: status, media type, and the body piece by piece.
#[derive(Clone, Debug)]
struct Told {
    status: u16,
    kind: &'static str,
    pieces: Vec<Bytes>,
}

impl Told {
    fn body(&self) -> Bytes {
        self.pieces.concat().into()
    }
}

/// Answers every message with what it was given last, and keeps the bytes that came.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Bytes>>,
    told: Arc<Mutex<Told>>,
    _task: AbortOnDropHandle<()>,
}

impl Upstream {
    async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"t","version":"1"}}}"#;
        let first = Told { status: 200, kind: "application/json", pieces: vec![answer.into()] };
        let (seen, told) = (Arc::new(Mutex::new(Bytes::new())), Arc::new(Mutex::new(first)));
        let task = tokio::spawn({
            let (seen, told) = (seen.clone(), told.clone());
            async move {
                let mut connections = tokio::task::JoinSet::new();
                loop {
                    let (stream, _) = socket.accept().await.expect("accepts");
                    let (seen, told) = (seen.clone(), told.clone());
                    connections.spawn(async move {
                        let service = service_fn(move |request| serve(seen.clone(), told.clone(), request));
                        // The gateway keeps or closes its connections as it likes.
                        let _ended = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            }
        });
        Self { address, seen, told, _task: AbortOnDropHandle::new(task) }
    }
}

async fn serve(
    seen: Arc<Mutex<Bytes>>,
    told: Arc<Mutex<Told>>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    *seen.lock().expect("no panic") = body;
    let told = told.lock().expect("no panic").clone();
    let pieces = futures::stream::iter(told.pieces).then(|piece| async {
        // Each on its way alone.
        tokio::task::yield_now().await;
        Ok(Frame::data(piece))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(Box::pin(pieces))));
    *response.status_mut() = told.status.try_into().expect("a status");
    if told.status == 200 {
        response.headers_mut().insert("content-type", told.kind.parse().expect("a value"));
    }
    Ok(response)
}

/// A request of the sessionless era and what comes back for it.
fn modern_exchange() -> impl Strategy<Value = (String, Told)> {
    messages::id()
        .prop_flat_map(|id| (messages::modern_request(id.clone()), prop_oneof![as_json(id.clone()), as_events(id)]))
}

/// A message and what comes back for it.
fn exchange() -> impl Strategy<Value = (String, Told)> {
    let silent = prop_oneof![messages::notification(), messages::id().prop_flat_map(messages::answer)]
        .prop_map(|body| (body, Told { status: 202, kind: "", pieces: Vec::new() }));
    let answered = messages::id()
        .prop_flat_map(|id| (messages::request(id.clone()), prop_oneof![as_json(id.clone()), as_events(id)]));
    prop_oneof![1 => silent, 4 => answered]
}

fn as_json(id: String) -> impl Strategy<Value = Told> {
    let kind = prop::sample::select(vec!["application/json", "application/json; charset=utf-8", "Application/JSON"]);
    (messages::answer(id), kind, prop::sample::select(vec!["", "\n", " \r\n\t"]), 1usize..200).prop_map(
        |(answer, kind, space, size)| Told { status: 200, kind, pieces: cut(&format!("{space}{answer}{space}"), size) },
    )
}

/// A stream with everything that may stand in one, and the answer at its end.
fn as_events(id: String) -> impl Strategy<Value = Told> {
    let end = prop::sample::select(vec!["\n", "\r\n", "\r"]);
    let before = prop_oneof![
        messages::notification().prop_map(|note| format!("id: 1-1\u{1}event: message\u{1}data: {note}\u{1}\u{1}")),
        Just(": keep-alive\u{1}\u{1}".to_owned()),
        Just("id: 1-0\u{1}data: \u{1}\u{1}".into()),
        Just("retry: 1500\u{1}x-unknown:  twice \u{1}data\u{1}\u{1}\u{1}".into()),
    ];
    let kind = prop::sample::select(vec!["text/event-stream", "text/event-stream; charset=utf-8"]);
    (prop::collection::vec(before, 0..4), messages::answer(id), end, kind, 1usize..200).prop_map(
        |(before, answer, end, kind, size)| {
            let stream = format!("{}data:{answer}\u{1}\u{1}", before.concat()).replace('\u{1}', end);
            Told { status: 200, kind, pieces: cut(&stream, size) }
        },
    )
}

fn cut(text: &str, size: usize) -> Vec<Bytes> {
    text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect()
}

async fn served() -> (Upstream, Gateway, Client) {
    let upstream = Upstream::start().await;
    let mut objects = Objects::new(&[]);
    objects.pods.push(("uid-1".into(), upstream.address, "everything-aaaaaaaa".into(), true, true, false));
    let gateway = Gateway::start(&objects).await;
    let answer = gateway.client().post(ROUTE, initialize()).await;
    let session = answer.header("mcp-session-id").unwrap_or_else(|| panic!("{answer:?}"));
    let client = gateway.client().session(session);
    (upstream, gateway, client)
}

#[test]
fn whatever_is_asked_and_answered_in_a_session_passes_with_every_byte_as_it_was() {
    passes(exchange(), |client, _| client);
}

#[test]
fn whatever_is_asked_and_answered_without_a_session_passes_with_every_byte_as_it_was() {
    passes(modern_exchange(), |client, asked| {
        let message = Message::parse(asked).expect("a message");
        let headers = headers_of(&Head::of(&message).expect("a request"), None, None);
        let says = |client: Client, (name, value): (&HeaderName, &HeaderValue)| {
            client.with(name.as_str(), value.to_str().expect("text"))
        };
        headers.iter().fold(client.without("mcp-session-id"), says)
    });
}

/// Sends each message with the headers that `says` gives it, and looks at what arrived on either side.
fn passes(exchanges: impl Strategy<Value = (String, Told)>, says: impl Fn(Client, &[u8]) -> Client) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (upstream, _gateway, client) = runtime.block_on(served());
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let passes = |(asked, told): (String, Told)| {
        *upstream.told.lock().expect("no panic") = told.clone();
        let client = says(client.clone().with("content-type", "application/json"), asked.as_bytes());
        let answer = runtime.block_on(client.send(Method::POST, ROUTE, asked.clone()));
        prop_assert_eq!(&*upstream.seen.lock().expect("no panic"), asked.as_bytes(), "{:?}", answer);
        prop_assert_eq!((answer.status, &answer.body), (told.status, &told.body()));
        prop_assert_eq!(answer.header("content-type").unwrap_or_default(), told.kind);
        Ok(())
    };
    if let Err(failed) = runner.run(&exchanges, passes) {
        panic!("{failed}");
    }
}

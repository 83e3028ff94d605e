//! An upstream that speaks the bridge's contract and does what a test tells it to.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portolan_mcp::{
    failure::{Failure, Kind},
    mac::{self, MacKey},
    sse, wire,
};
use portolan_tests::objects::Pod;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::offers::{Offers, Told, is_shared};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn session(&self) -> &str {
        self.headers[wire::SESSION].to_str().expect("text")
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

/// What the upstream remembers.
#[derive(Default)]
struct Memory {
    seen: Vec<Seen>,
    forged: usize,
    connections: usize,
    open: usize,
    streams: HashMap<String, mpsc::Sender<Bytes>>,
    waiting: HashMap<String, oneshot::Sender<Value>>,
    full: bool,
    called: Vec<u64>,
    offers: Offers,
    /// Open sessions, where it keeps count of them.
    sessions: Option<HashSet<String>>,
}

/// One upstream on loopback. Tools: `echo` answers its arguments, `slow` answers when released, `ask` asks the client on
/// the session's stream and answers what it said, `notify` streams two events, `cut` breaks its stream off after one
/// (or after the `frames`, under the `type` that its arguments name),
/// `drop` closes the connection, `fail` answers that the server ended, `huge` answers 1 MiB (or as many `bytes` as its
/// arguments say, with a link to a resource), `flood` streams without end, `down` answers 503 and not when to come back.
/// `subscriptions/listen` opens a stream. Prompts and resources name a resource `a:b`.
pub struct Bridge {
    pub address: SocketAddr,
    pub uid: String,
    memory: Arc<Mutex<Memory>>,
    pub release: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

impl Bridge {
    pub async fn start(uid: &str, key: [u8; 32]) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::on(socket, uid, key)
    }

    pub fn on(socket: TcpListener, uid: &str, key: [u8; 32]) -> Self {
        let address = socket.local_addr().expect("bound");
        let memory = Arc::new(Mutex::new(Memory::default()));
        let release = Arc::new(Notify::new());
        let task = tokio::spawn({
            let (memory, release) = (memory.clone(), release.clone());
            async move {
                let mut connections = tokio::task::JoinSet::new();
                loop {
                    let (stream, _) = socket.accept().await.expect("accepts");
                    {
                        let mut memory = memory.lock().expect("no panic");
                        memory.connections += 1;
                        memory.open += 1;
                    }
                    stream.set_nodelay(true).expect("nodelay");
                    let (memory, release) = (memory.clone(), release.clone());
                    connections.spawn(async move {
                        let at_end = memory.clone();
                        let service = service_fn(move |request| {
                            serve(memory.clone(), release.clone(), MacKey::new(&key).expect("a key"), request)
                        });
                        // Clients of a test come and go as they like.
                        let _ended = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                        at_end.lock().expect("no panic").open -= 1;
                    });
                }
            }
        });
        Self { address, uid: uid.into(), memory, release, _task: AbortOnDropHandle::new(task) }
    }

    /// Every request with a good MAC, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.memory.lock().expect("no panic").seen.clone()
    }

    /// Requests without a good MAC.
    pub fn forged(&self) -> usize {
        self.memory.lock().expect("no panic").forged
    }

    /// Connections that were ever opened.
    pub fn connections(&self) -> usize {
        self.memory.lock().expect("no panic").connections
    }

    /// Connections that are open now.
    pub fn open_connections(&self) -> usize {
        self.memory.lock().expect("no panic").open
    }

    /// Writes an event on every open stream.
    pub fn push(&self, data: &str) {
        for stream in self.memory.lock().expect("no panic").streams.values() {
            stream.try_send(sse::encode(None, data.as_bytes())).expect("the stream is open");
        }
    }

    /// What it says that it has, from now on.
    pub fn offer(&self, offers: Offers) {
        self.memory.lock().expect("no panic").offers = offers;
    }

    /// Knows only sessions that were opened from now on, as a real one does.
    pub fn keep_sessions(&self) {
        self.memory.lock().expect("no panic").sessions = Some(HashSet::new());
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.memory.lock().expect("no panic").sessions.as_ref().expect("keeps count").len()
    }

    /// Requests that came for a caller and not for everyone, in order, with their bodies.
    pub fn asked(&self) -> Vec<(Seen, Value)> {
        let own = self.seen().into_iter().filter(|seen| !is_shared(&seen.headers));
        own.map(|seen| (seen.clone(), serde_json::from_slice(&seen.body).unwrap_or_default())).collect()
    }

    /// The `number` of every call of a tool that was made, in order. A call in a session that is not open was not.
    pub fn called(&self) -> Vec<u64> {
        self.memory.lock().expect("no panic").called.clone()
    }

    /// How often `method` came for a caller.
    pub fn count(&self, method: &str) -> usize {
        self.asked().iter().filter(|(_, body)| body["method"] == method).count()
    }

    /// Whether `initialize` is refused for want of room.
    pub fn set_full(&self, full: bool) {
        self.memory.lock().expect("no panic").full = full;
    }
}

impl Pod for Bridge {
    fn uid(&self) -> &str {
        &self.uid
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(
    memory: Arc<Mutex<Memory>>,
    release: Arc<Notify>,
    key: MacKey,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let session = parts.headers.get(wire::SESSION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let pod = parts.headers.get(wire::POD).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let subject = mac::Subject { method: parts.method.as_str(), path: parts.uri.path(), session, pod };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let header = parts.headers.get(mac::HEADER).and_then(|value| value.to_str().ok());
    if key.verify(header, subject, now.try_into().expect("fits")).is_err() {
        memory.lock().expect("no panic").forged += 1;
        return Ok(failed(Kind::Unauthenticated, None));
    }
    let session = session.to_owned();
    let for_everyone = is_shared(&parts.headers);
    let is_modern = parts.headers.get("mcp-protocol-version").is_some_and(|version| version == "2026-07-28");
    let seen = Seen { method: parts.method.clone(), headers: parts.headers, body: body.clone() };
    memory.lock().expect("no panic").seen.push(seen);
    if for_everyone {
        return shared(&memory, &body).await;
    }
    if let Some(refused) = refused_session(&memory, &session, &parts.method, &body).filter(|_| !is_modern) {
        return Ok(refused);
    }
    match parts.method {
        Method::GET => Ok(open_stream(&memory, session)),
        Method::DELETE => Ok(empty(StatusCode::NO_CONTENT)),
        _ => post(memory, release, &session, &body).await,
    }
}

/// Answers what is the same for everyone.
async fn shared(memory: &Arc<Mutex<Memory>>, body: &Bytes) -> Result<Response<Body>, std::io::Error> {
    let message: Value = serde_json::from_slice(body).expect("JSON");
    let told = memory.lock().expect("no panic").offers.answer(&message);
    let id = &message["id"];
    Ok(match told {
        Told::Result(result) => full(StatusCode::OK, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)),
        Told::Error(error) => full(StatusCode::OK, json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string()),
        Told::Failure(kind) => failed(kind, Some(id)),
        Told::Raw(text) => full(StatusCode::OK, text),
        Told::Nothing => std::future::pending().await,
    })
}

/// What a bridge says that keeps count of its sessions, about one that is not open or is open already.
fn refused_session(
    memory: &Arc<Mutex<Memory>>,
    session: &str,
    method: &Method,
    body: &Bytes,
) -> Option<Response<Body>> {
    let mut memory = memory.lock().expect("no panic");
    let is_full = memory.full;
    let sessions = memory.sessions.as_mut()?;
    let message: Value = serde_json::from_slice(body).unwrap_or_default();
    if method == Method::POST && message["method"] == "initialize" {
        return (!is_full && !sessions.insert(session.to_owned())).then(|| empty(StatusCode::CONFLICT));
    }
    let is_open = if method == Method::DELETE { sessions.remove(session) } else { sessions.contains(session) };
    (!is_open).then(|| failed(Kind::UnknownSession, None))
}

async fn post(
    memory: Arc<Mutex<Memory>>,
    release: Arc<Notify>,
    session: &str,
    body: &Bytes,
) -> Result<Response<Body>, std::io::Error> {
    let message: Value = serde_json::from_slice(body).expect("the gateway forwards JSON only");
    let Some(method) = message["method"].as_str() else {
        let id = message["id"].as_str().unwrap_or_default().to_owned();
        // An answer to nothing that was asked is dropped.
        if let Some(waiting) = memory.lock().expect("no panic").waiting.remove(&id) {
            waiting.send(message["result"].clone()).expect("still waits");
        }
        return Ok(empty(StatusCode::ACCEPTED));
    };
    let id = &message["id"];
    if id.is_null() {
        return Ok(empty(StatusCode::ACCEPTED));
    }
    if method == "subscriptions/listen" {
        return Ok(open_stream(&memory, session.to_owned()));
    }
    let arguments = message["params"]["arguments"].clone();
    memory.lock().expect("no panic").called.extend(arguments["number"].as_u64());
    let result = match (method, message["params"]["name"].as_str().unwrap_or_default()) {
        ("initialize", _) if memory.lock().expect("no panic").full => return Ok(failed(Kind::Overloaded, Some(id))),
        ("initialize", _) if !message["params"]["capabilities"].is_object() => {
            let error = json!({"code": -32602, "message": "capabilities are an object"});
            return Ok(full(StatusCode::OK, json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string()));
        }
        ("initialize", _) => {
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "t", "version": "1"}})
        }
        ("tools/call", "echo") => arguments,
        ("tools/call", "refuse") => {
            let error = json!({"code": -32602, "message": "there is no such tool"});
            return Ok(full(StatusCode::OK, json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string()));
        }
        ("tools/call", "slow") => {
            release.notified().await;
            json!({"slow": true})
        }
        ("tools/call", "ask") => ask(&memory, session).await,
        ("tools/call", "notify") => {
            let events =
                vec![Ok(json!({"jsonrpc": "2.0", "method": "notifications/progress"})), Ok(answer(id, &json!({})))];
            return Ok(events_of(events));
        }
        ("tools/call", "cut") if !arguments["frames"].is_null() => {
            let frames: Vec<String> = serde_json::from_value(arguments["frames"].clone()).expect("texts");
            let frames = frames.into_iter().map(|text| Ok(Bytes::from(text))).chain([Err(())]);
            let mut response = stream_of(frames.collect());
            let kind = arguments["type"].as_str().expect("text").parse().expect("a value");
            response.headers_mut().insert("content-type", kind);
            return Ok(response);
        }
        ("tools/call", "cut") => {
            let events = vec![Ok(json!({"jsonrpc": "2.0", "method": "notifications/progress"})), Err(())];
            return Ok(events_of(events));
        }
        ("tools/call", "drop") => return Err(std::io::Error::other("dropped")),
        ("tools/call", "flood") => {
            let event = Bytes::from(format!("data: {}\n\n", "x".repeat(64 * 1024)));
            let frames = futures::stream::repeat_with(move || Ok(Frame::data(event.clone())));
            return Ok(event_stream(BodyExt::boxed(StreamBody::new(frames))));
        }
        ("tools/call", "down") => return Ok(failed(Kind::NotReady, None)),
        ("tools/call", "fail") => return Ok(failed(Kind::ServerExited, Some(id))),
        ("tools/call", "huge") if arguments["bytes"].is_u64() => {
            let text = "x".repeat(arguments["bytes"].as_u64().expect("a number").try_into().expect("fits"));
            json!({"content": [{"type": "text", "text": text}, {"type": "resource_link", "uri": "a:b", "name": "b"}]})
        }
        ("tools/call", "huge") => json!({"text": "x".repeat(1024 * 1024)}),
        ("prompts/get", _) => {
            json!({"messages": [{"role": "user", "content": {"type": "resource_link", "uri": "a:b", "name": "b"}}]})
        }
        ("resources/read", _) => json!({"contents": [{"uri": "a:b", "text": ""}]}),
        _ => json!({}),
    };
    Ok(full(StatusCode::OK, answer(id, &result).to_string()))
}

fn answer(id: &Value, result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// Asks the client on the session's standing stream and waits for what it posts.
async fn ask(memory: &Arc<Mutex<Memory>>, session: &str) -> Value {
    let (sender, receiver) = oneshot::channel();
    let stream = {
        let mut memory = memory.lock().expect("no panic");
        memory.waiting.insert("question".into(), sender);
        memory.streams[session].clone()
    };
    let question = json!({"jsonrpc": "2.0", "id": "question", "method": "elicitation/create", "params": {}});
    stream.send(sse::encode(Some("0-1"), question.to_string().as_bytes())).await.expect("the stream is open");
    receiver.await.expect("is answered")
}

fn open_stream(memory: &Arc<Mutex<Memory>>, session: String) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(8);
    sender.try_send(Bytes::from_static(sse::KEEP_ALIVE)).expect("is empty");
    memory.lock().expect("no panic").streams.insert(session, sender);
    let frames = futures::stream::unfold(receiver, |mut receiver| async move {
        let bytes = receiver.recv().await?;
        Some((Ok(Frame::data(bytes)), receiver))
    });
    event_stream(BodyExt::boxed(StreamBody::new(frames)))
}

fn events_of(events: Vec<Result<Value, ()>>) -> Response<Body> {
    let encode = |event: Value| sse::encode(None, event.to_string().as_bytes());
    stream_of(events.into_iter().map(|event| event.map(encode)).collect())
}

fn stream_of(frames: Vec<Result<Bytes, ()>>) -> Response<Body> {
    let frames = futures::stream::iter(frames).map(|frame| match frame {
        Ok(bytes) => Ok(Frame::data(bytes)),
        Err(()) => Err(std::io::Error::other("cut")),
    });
    // Each on its way alone, as a server writes its events.
    let frames = frames.then(|frame| async {
        tokio::task::yield_now().await;
        frame
    });
    event_stream(BodyExt::boxed(StreamBody::new(Box::pin(frames))))
}

fn event_stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", "text/event-stream".parse().expect("a value"));
    response.headers_mut().insert("portolan-secret", "never shown".parse().expect("a value"));
    response
}

fn full(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = full(status, Bytes::new());
    response.headers_mut().remove("content-type");
    response
}

fn failed(kind: Kind, id: Option<&Value>) -> Response<Body> {
    let id = id.and_then(Value::as_u64).map(portolan_mcp::envelope::Id::number);
    let mut response =
        full(kind.status(), Failure::new(kind, "in the server's stead").answer(id.as_ref(), Some("tools/call")));
    response.headers_mut().insert(wire::FAILURE, kind.as_str().parse().expect("a value"));
    if kind == Kind::Overloaded {
        response.headers_mut().insert("retry-after", 1.into());
    }
    response
}

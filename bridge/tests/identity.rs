//! Whatever JSON peers send each other passes the bridge with every byte as it was, both ways: over pipes, to HTTP servers
//! with sessions, and without a session.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report")]

mod common;

use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{Client, Header, PATIENCE, Rig};
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portolan_mcp::envelope::Message;
use portolan_mcp::modern::{Head, VERSION_HEADER, headers_of};
use portolan_mcp::sse::{self, Decoder};
use portolan_mcp::wire;
use serde_json::{Value, json};

/// Cases of each test.
const CASES: usize = 100;
/// What is read of one message before its head goes on.
const LOOKED_AT: usize = 64 * 1024;
/// Says in a message that it is one of a case. Nothing else here is called that.
const MARK: &str = "\"x-case\"";
/// Stands for the end of a line until that is chosen.
const END: &str = "\u{1}";

/// Space between tokens, where a message may have line breaks.
const ANYWHERE: &[&str] = &["", "", "", " ", "\t", "\n", "\r\n", "\r", "\n    "];
/// The same where a message is a line.
const IN_A_LINE: &[&str] = &["", "", "", " ", "\t", "   "];
/// The same where it is the data of an event.
const IN_AN_EVENT: &[&str] = &["", "", "", " ", "\t", END];

/// Writes messages as peers may: members in any order and unknown ones among them, numbers that no double holds, escapes.
struct Writer {
    seed: RandomState,
    thrown: usize,
    spaces: &'static [&'static str],
    is_modern: bool,
}

impl Writer {
    fn new(spaces: &'static [&'static str]) -> Self {
        Self { seed: RandomState::new(), thrown: 0, spaces, is_modern: false }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.thrown += 1;
        usize::try_from(self.seed.hash_one(self.thrown) % u64::try_from(bound).unwrap()).unwrap()
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len())]
    }

    fn space(&mut self) -> &'static str {
        self.pick(self.spaces)
    }

    fn number(&mut self) -> String {
        const ODD: &[&str] = &[
            "1e400",
            "-1E+400",
            "2.5e-400",
            "123456789012345678901234567890",
            "9007199254740993",
            "0.1000000000000000055511151231257827",
            "-0",
            "-0.0",
            "1.50",
            "7E0",
        ];
        match self.below(2) {
            0 => self.pick(ODD).to_owned(),
            _ => format!("{}{}.{}", self.pick(&["", "-"]), self.below(1 << 20), self.below(1 << 40)),
        }
    }

    /// What stands between the quotes of a string.
    fn text(&mut self) -> String {
        const PIECES: &[&str] = &[
            "plain",
            " {[:,]} ",
            "data: ",
            "\\\"",
            "\\\\",
            "\\/",
            "\\r\\n",
            "\\b\\f\\t",
            "\\u0000",
            "\\u001F",
            "\\u00e9",
            "\\ud83d\\uDE80",
            "é",
            "漢",
            "🚀",
            "\u{2028}",
            "\u{200b}",
            "\u{85}",
            "\u{7f}",
        ];
        (0..self.below(5)).map(|_| self.pick(PIECES)).collect()
    }

    fn string(&mut self) -> String {
        format!("\"{}\"", self.text())
    }

    /// A value that holds others up to `depth` deep.
    fn value(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 3 } else { 5 }) {
            0 => self.pick(&["null", "true", "false", "{}", "[]"]).to_owned(),
            1 => self.number(),
            2 => self.string(),
            3 => {
                let values: Vec<String> =
                    (0..self.below(4)).map(|_| self.space().to_owned() + &self.value(depth - 1)).collect();
                format!("[{}{}]", values.join(","), self.space())
            }
            _ => self.object(depth - 1, Vec::new()),
        }
    }

    /// An object of the members `known` and some that nobody knows, in any order. No two have one name.
    fn object(&mut self, depth: usize, known: Vec<(&str, String)>) -> String {
        let mut members: Vec<_> = known.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        for nth in 0..self.below(4) {
            members.push((format!("{}{nth}", self.text()), self.value(depth)));
        }
        for last in (1..members.len()).rev() {
            members.swap(last, self.below(last + 1));
        }
        let member = |(name, value): (String, String)| {
            let [before, behind, between, after] = [(); 4].map(|()| self.space());
            format!("{before}\"{name}\"{behind}:{between}{value}{after}")
        };
        let members: Vec<String> = members.into_iter().map(member).collect();
        format!("{{{}}}", members.join(","))
    }

    /// An id that no other case has.
    fn id(&mut self, case: usize) -> String {
        match self.below(5) {
            0 => format!("1234567890123456789012345{case:05}"),
            1 => format!("-{case}.50"),
            2 => format!("{case}"),
            _ => format!("\"{}{case}\"", self.text()),
        }
    }

    /// A request of this id; without one, a notification.
    fn asked(&mut self, id: Option<&str>) -> String {
        let mut meta = vec![("progressToken", self.string()), ("com.example/trace", self.value(2))];
        if self.is_modern {
            meta.push(("io.modelcontextprotocol/protocolVersion", "\"2026-07-28\"".to_owned()));
            meta.push(("io.modelcontextprotocol/clientCapabilities", self.object(2, Vec::new())));
        }
        let meta = self.object(2, meta);
        let members = vec![("_meta", meta), ("name", self.string()), ("arguments", self.value(4))];
        let params = self.object(3, members);
        let methods: &[&str] = match id {
            Some(_) => &["\"tools/call\"", "\"tasks/get\"", "\"com.example/unknown\"", "\"tools\\/list\"", "\"ø\""],
            None => &["\"notifications/com.example\"", "\"notifications\\/ø\""],
        };
        let method = self.pick(methods).to_owned();
        self.message(id, vec![("method", method), ("params", params)])
    }

    /// What answers the request of this id: a result, or rarely an error.
    fn answer(&mut self, id: &str) -> String {
        if self.below(5) == 0 {
            let members = vec![("code", "-32000".to_owned()), ("message", self.string()), ("data", self.value(3))];
            let error = self.object(2, members);
            return self.message(Some(id), vec![("error", error)]);
        }
        let block = vec![("type", self.string()), ("data", self.value(3))];
        let content = format!("[{}]", self.object(2, block));
        let members = vec![("content", content), ("structuredContent", self.value(4)), ("resultType", self.string())];
        let result = self.object(3, members);
        self.message(Some(id), vec![("result", result)])
    }

    fn message(&mut self, id: Option<&str>, mut members: Vec<(&str, String)>) -> String {
        members.extend(id.map(|id| ("id", id.to_owned())));
        members.extend([("jsonrpc", "\"2.0\"".to_owned()), (MARK.trim_matches('"'), "1".to_owned())]);
        self.object(2, members)
    }

    /// An answer as JSON.
    fn as_json(&mut self, id: &str) -> Told {
        self.spaces = ANYWHERE;
        let mut answer = format!("{}{}{}", self.space(), self.answer(id), self.space());
        if self.below(20) == 0 {
            // Over what is looked at of one message.
            answer = answer.replacen('{', &format!("{{\"x-long\":\"{}\",", "é".repeat(40_000)), 1);
        }
        let kind = self.pick(&["application/json", "application/json; charset=utf-8", "Application/JSON"]);
        Told { status: StatusCode::OK, kind, pieces: self.cut(&answer) }
    }

    /// An answer at the end of a stream, with whatever may stand in one before it.
    fn as_events(&mut self, id: &str) -> Told {
        self.spaces = IN_AN_EVENT;
        let mut stream = String::new();
        for nth in 0..self.below(4) {
            stream += &match self.below(4) {
                0 => format!(": keep-alive{END}{END}"),
                1 => format!("id: 1-{nth}{END}data: {END}{END}"),
                2 => format!("retry: 1500{END}x-unknown:  twice {END}data{END}{END}{END}"),
                _ => {
                    let note = self.asked(None).replace(END, &format!("{END}data: "));
                    format!("id: 2-{nth}{END}event: message{END}data: {note}{END}{END}")
                }
            };
        }
        let answer = self.answer(id).replace(END, &format!("{END}data:"));
        stream += &format!("data:{answer}{END}{END}");
        let stream = stream.replace(END, self.pick(&["\n", "\r\n", "\r"]));
        let kind = self.pick(&["text/event-stream", "text/event-stream; charset=utf-8"]);
        Told { status: StatusCode::OK, kind, pieces: self.cut(&stream) }
    }

    /// Pieces of one size, whatever characters that cuts.
    fn cut(&mut self, text: &str) -> Vec<Bytes> {
        let size = text.len() / (1 + self.below(40)) + 1;
        text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect()
    }
}

/// What a server answers, piece by piece.
#[derive(Clone, Debug)]
struct Told {
    status: StatusCode,
    kind: &'static str,
    pieces: Vec<Bytes>,
}

impl Told {
    fn body(&self) -> Bytes {
        self.pieces.concat().into()
    }
}

/// What came back for a message that was posted.
struct Came {
    status: StatusCode,
    kind: String,
    body: Bytes,
}

impl Came {
    fn is_events(&self) -> bool {
        self.kind.to_ascii_lowercase().starts_with("text/event-stream")
    }
}

/// Posts `message`, which nobody but the server may answer.
async fn post(client: &Client<'_>, message: &str, headers: &[Header]) -> Came {
    let (rig, key, body) = (client.rig, client.key.as_str(), Bytes::copy_from_slice(message.as_bytes()));
    let response = rig.send(Method::POST, rig.data, wire::DATA_PATH, key, Some(body), headers).await;
    let (head, body) = response.into_parts();
    let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("in time").expect("whole");
    let is_ours = head.headers.contains_key(wire::FAILURE) || body.trailers().is_some();
    let kind = head.headers.get("content-type").map_or("", |kind| kind.to_str().expect("text")).to_owned();
    let body = body.to_bytes();
    assert!(!is_ours, "the bridge answered {message:?} itself: {:?}", text(&body));
    Came { status: head.status, kind, body }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// A streamable HTTP server of one era. A message of a case is kept, and answered with what it was given last.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Bytes>>>,
    told: Arc<Mutex<Option<Told>>>,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl Upstream {
    async fn start(is_modern: bool) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let upstream = Self { address, seen: Arc::default(), told: Arc::default() };
        let (seen, told) = (Arc::clone(&upstream.seen), Arc::clone(&upstream.told));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).expect("a socket");
                let (seen, told) = (Arc::clone(&seen), Arc::clone(&told));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (seen, told) = (Arc::clone(&seen), Arc::clone(&told));
                    async move {
                        let body = request.into_body().collect().await.expect("a body").to_bytes();
                        if !text(&body).contains(MARK) {
                            return Ok::<_, Infallible>(handshake(&body, is_modern));
                        }
                        seen.lock().unwrap().push(body);
                        let told = told.lock().unwrap().clone();
                        Ok(told.map_or_else(|| status(StatusCode::ACCEPTED), answered))
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(socket), service));
            }
        });
        upstream
    }

    async fn bridged(&self) -> Rig {
        let rig = Rig::http(&[], &format!("http://{}/mcp", self.address));
        rig.until_ready().await;
        rig
    }

    /// Lets a client say `asked` and hear `told`, and looks at what arrived on either side. Says whether it came as it was,
    /// and not as an event because it came late.
    async fn passes(&self, client: &Client<'_>, asked: &str, told: Option<&Told>, headers: &[Header]) -> bool {
        *self.told.lock().unwrap() = told.cloned();
        self.seen.lock().unwrap().clear();
        let came = post(client, asked, headers).await;
        assert_eq!(self.seen.lock().unwrap().iter().map(|seen| text(seen)).collect::<Vec<_>>(), [asked]);
        let Some(told) = told else {
            assert_eq!((came.status, text(&came.body)), (StatusCode::ACCEPTED, ""));
            return true;
        };
        let is_late = came.is_events() && !told.kind.starts_with("text");
        let expected = if is_late { as_event(&told.body()) } else { told.body() };
        let body = if is_late { text(&came.body).replace(": keep-alive\n\n", "") } else { text(&came.body).to_owned() };
        assert_eq!((came.status, &*body), (told.status, text(&expected)), "{asked:?}");
        assert!(came.is_events() || came.kind == told.kind, "{}", came.kind);
        !is_late
    }
}

/// The event that a message becomes which came too late for the head of its answer: its line breaks go, as those of the
/// event would be others.
fn as_event(message: &Bytes) -> Bytes {
    match message.len() > LOOKED_AT {
        true => format!("data: {}\n\n", text(message).replace(['\n', '\r'], " ")).into(),
        false => sse::encode(None, message),
    }
}

/// What the bridge itself asks is answered well.
fn handshake(body: &Bytes, is_modern: bool) -> Response<Body> {
    let message: Value = serde_json::from_slice(body).unwrap_or_default();
    let info = json!({"name": "upstream", "version": "1"});
    let (member, payload) = match (message["method"].as_str(), is_modern) {
        (Some("initialize"), false) => {
            let capabilities = json!({"tools": {}});
            ("result", json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}))
        }
        (Some("server/discover"), true) => (
            "result",
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
                "serverInfo": info}),
        ),
        (Some("tools/list"), _) => ("result", json!({"resultType": "complete", "tools": []})),
        (None, _) => return status(StatusCode::METHOD_NOT_ALLOWED),
        _ if message["id"].is_null() => return status(StatusCode::ACCEPTED),
        _ => ("error", json!({"code": -32601, "message": "no such method"})),
    };
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], member: payload}).to_string();
    let pieces = vec![answer.into()];
    let mut response = answered(Told { status: StatusCode::OK, kind: "application/json", pieces });
    if !is_modern && message["method"] == "initialize" {
        response.headers_mut().insert("mcp-session-id", "a-session".parse().unwrap());
    }
    response
}

fn answered(told: Told) -> Response<Body> {
    let pieces = futures::stream::iter(told.pieces).then(|piece| async {
        // Each on its way alone.
        tokio::task::yield_now().await;
        Ok(Frame::data(piece))
    });
    let response = Response::builder().status(told.status).header("content-type", told.kind);
    response.body(StreamBody::new(pieces).boxed_unsync()).expect("a response")
}

fn status(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(Full::default().boxed_unsync()).expect("a response")
}

/// Takes a folder. Keeps the lines of cases in its file `seen`, and answers requests with what its file `told` holds.
const SERVER: &str = r#"
import json, os, sys
for line in sys.stdin.buffer:
    if b'"x-case"' in line:
        with open(os.path.join(sys.argv[1], "told"), "rb") as told:
            answer = told.read()
        with open(os.path.join(sys.argv[1], "seen"), "ab") as seen:
            seen.write(line)
        sys.stdout.buffer.write(answer)
    else:
        message = json.loads(line)
        if "id" not in message:
            continue
        answer = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] == "initialize":
            info = {"name": "pipes", "version": "1"}
            answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
        elif message["method"] == "tools/list":
            answer["result"] = {"tools": []}
        else:
            answer["error"] = {"code": -32601, "message": "no such method"}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()
"#;

/// What a line of a server's stdin is of `message`.
fn line_of(message: &str) -> String {
    message.trim_ascii().replace(['\n', '\r'], " ")
}

#[tokio::test]
async fn what_is_said_in_a_session_over_pipes_passes_as_it_was_both_ways_and_only_line_breaks_become_spaces() {
    let folder = tempfile::tempdir().expect("a folder");
    let [seen, told] = ["seen", "told"].map(|name| folder.path().join(name));
    let command = ["python3", "-c", SERVER, folder.path().to_str().unwrap()].map(str::to_owned);
    let rig = Rig::ready(&[], &command).await;
    let client = rig.open().await;
    let (mut ours, mut theirs) = (Writer::new(ANYWHERE), Writer::new(IN_A_LINE));
    let headers = [(VERSION_HEADER, "2025-11-25".to_owned())];
    for case in 1..=CASES {
        let id = ours.id(case);
        let before = ours.asked(None);
        let asked = format!("{}{}{}", ours.space(), ours.asked(Some(&id)), ours.space());
        let mut tells: Vec<String> = (0..theirs.below(3)).map(|_| theirs.asked(None)).collect();
        tells.push(theirs.answer(&id));
        // Nothing is read of it before the notification is there, and that is answered with nothing.
        std::fs::write(&told, "").expect("writable");
        std::fs::write(&seen, "").expect("writable");
        assert_eq!(post(&client, &before, &headers).await.status, StatusCode::ACCEPTED);
        let first = line_of(&before) + "\n";
        common::until("the notification is there", async || std::fs::read(&seen).unwrap().ends_with(b"\n")).await;
        assert_eq!(text(&std::fs::read(&seen).unwrap()), first);
        std::fs::write(&told, tells.join("\n") + "\n").expect("writable");
        let came = post(&client, &asked, &headers).await;
        let messages = match came.is_events() {
            true => Decoder::new(usize::MAX).push(&came.body).expect("events"),
            false => vec![came.body.to_vec()],
        };
        // A stream may begin with the place to resume from.
        let messages: Vec<&str> =
            messages.iter().map(|message| text(message)).filter(|message| !message.is_empty()).collect();
        assert_eq!(messages, tells, "{asked:?}");
        assert_eq!(text(&std::fs::read(&seen).unwrap()), first + &line_of(&asked) + "\n");
    }
}

/// What a client without a session says in headers of `message`.
fn headers_of_modern(message: &str) -> Vec<Header> {
    let message = Message::parse(message.as_bytes()).expect("a message");
    let headers = headers_of(&Head::of(&message).expect("a request"), None, None);
    headers.iter().map(|(name, value)| (name.clone(), value.to_str().expect("text").to_owned())).collect()
}

async fn passes_in_a_session(answer: impl Fn(&mut Writer, &str) -> Told) {
    let upstream = Upstream::start(false).await;
    let rig = upstream.bridged().await;
    let client = rig.open().await;
    let (mut ours, mut theirs) = (Writer::new(ANYWHERE), Writer::new(ANYWHERE));
    let headers = [(VERSION_HEADER, "2025-11-25".to_owned())];
    let mut as_it_was = 0;
    for case in 1..=CASES {
        if case % 10 == 0 {
            upstream.passes(&client, &ours.asked(None), None, &headers).await;
        }
        let id = ours.id(case);
        let asked = format!("{}{}{}", ours.space(), ours.asked(Some(&id)), ours.space());
        let passed = upstream.passes(&client, &asked, Some(&answer(&mut theirs, &id)), &headers).await;
        as_it_was += usize::from(passed);
    }
    assert!(as_it_was > 0, "all came late");
}

#[tokio::test]
async fn what_is_said_in_a_session_over_http_passes_with_every_byte_as_it_was_and_so_do_answers_as_json() {
    passes_in_a_session(Writer::as_json).await;
}

#[tokio::test]
async fn what_is_said_in_a_session_over_http_passes_with_every_byte_as_it_was_and_so_do_answers_as_events() {
    passes_in_a_session(Writer::as_events).await;
}

#[tokio::test]
async fn what_is_said_without_a_session_passes_both_ways_with_every_byte_as_it_was() {
    let upstream = Upstream::start(true).await;
    let rig = upstream.bridged().await;
    let client = rig.client();
    let (mut ours, mut theirs) = (Writer::new(ANYWHERE), Writer::new(ANYWHERE));
    ours.is_modern = true;
    for case in 1..=CASES {
        if case % 10 == 0 {
            let told = ours.asked(None);
            upstream.passes(&client, &told, None, &headers_of_modern(&told)).await;
        }
        let id = ours.id(case);
        let asked = format!("{}{}{}", ours.space(), ours.asked(Some(&id)), ours.space());
        let told = if case % 2 == 0 { theirs.as_json(&id) } else { theirs.as_events(&id) };
        upstream.passes(&client, &asked, Some(&told), &headers_of_modern(&asked)).await;
    }
}

//! Messages that two readers of JSON take for different ones, in front of servers that nobody here wrote: nothing of them
//! comes to the server, whichever of the two it would have believed.

use std::path::Path;

use nix::sys::signal::Signal;
use portolan_tests::dev::Dev;
use portolan_tests::mcp::{self, Reply, Session};
use portolan_tests::thirdparty::{Place, Server, prefix_of_all, server, url_of_all};
use reqwest::StatusCode;
use serde_json::{Value, json};

/// What stands in a message a second time. A server that has seen it has seen a message that is refused.
const SMUGGLED: &str = "smuggled";
/// Members of which no other spelling may stand beside them, wherever the protocol gives them a meaning.
const RESERVED: [&str; 7] = ["jsonrpc", "id", "method", "params", "name", "arguments", "_meta"];

/// Writes one member of an object so that it is there twice, or is another one to some readers.
type Writing = fn(&str, &str) -> String;

const TWICE: [(&str, Writing); 3] = [
    ("behind it", |key, value| format!(r#""{key}":{value},"{key}":"{SMUGGLED}""#)),
    ("before it", |key, value| format!(r#""{key}":"{SMUGGLED}","{key}":{value}"#)),
    ("behind it, escaped", |key, value| format!(r#""{key}":{value},"{}":"{SMUGGLED}""#, escaped(key))),
];
const LOOKALIKES: [(&str, Writing); 3] = [
    ("in another case", |key, value| format!(r#""{key}":{value},"{}":"{SMUGGLED}""#, key.to_uppercase())),
    ("with a NUL", |key, value| format!(r#""{key}":{value},"{key}\u0000":"{SMUGGLED}""#)),
    ("in its place, in another case", |key, value| format!(r#""{}":{value}"#, key.to_uppercase())),
];

fn escaped(key: &str) -> String {
    key.chars().map(|char| format!("\\u{:04x}", u32::from(char))).collect()
}

/// The members of all objects of a value, in the order in which [`written`] numbers them.
fn members(value: &Value) -> Vec<String> {
    match value {
        Value::Object(object) => {
            object.iter().flat_map(|(key, value)| [vec![key.clone()], members(value)].concat()).collect()
        }
        Value::Array(items) => items.iter().flat_map(members).collect(),
        _ => Vec::new(),
    }
}

/// The text of a value, in which the member `number` is written as `writing` says.
fn written(value: &Value, number: &mut usize, writing: Writing) -> String {
    match value {
        Value::Object(object) => {
            let member = |(key, value): (&String, &Value)| {
                let this = *number == 0;
                *number = number.wrapping_sub(1);
                let value = written(value, number, writing);
                if this { writing(key, &value) } else { format!("{}:{value}", Value::from(key.as_str())) }
            };
            format!("{{{}}}", object.iter().map(member).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| written(item, number, writing)).collect();
            format!("[{}]", items.join(","))
        }
        _ => value.to_string(),
    }
}

/// Every way to write a message so that two readers take it for different ones, by what it is.
fn differentials(message: &Value) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for (number, key) in members(message).into_iter().enumerate() {
        // An argument of a call may have the name of a member of the protocol.
        let is_reserved = RESERVED.contains(&&*key) && !members(&message["params"]["arguments"]).contains(&key);
        let lookalikes = LOOKALIKES.iter().filter(|_| is_reserved);
        for (how, writing) in TWICE.iter().chain(lookalikes) {
            texts.push((format!("{key} {how}"), written(message, &mut number.clone(), *writing)));
        }
    }
    texts
}

/// Runs a server of the catalogue so that every byte that comes to it is in `log`, too.
fn overheard(name: &str, scratch: &str, log: &Path) -> Server {
    let mut server = server(name, Place::Local(scratch));
    let listens = ["-c", r#"tee -a "$0" | "$@""#].map(str::to_owned);
    let log = log.display().to_string();
    let runs = std::mem::replace(&mut server.command, vec!["sh".into()]);
    server.args = [&listens[..], &[log], &runs, &server.args].concat();
    server
}

/// Sends a text as a message, in a session or, with what its headers say beside `message`, without one.
async fn answer(to: &Endpoint, session: Option<&Session>, message: &Value, text: String) -> Reply {
    let answer = match session {
        Some(session) => session.send_text(text).await.expect("an answer"),
        None => mcp::post_text_alone(&to.http, &to.url, None, message, text).await.expect("an answer"),
    };
    Reply::read(answer).await
}

/// Where a server is called.
struct Endpoint {
    http: reqwest::Client,
    url: String,
    /// What the names of its tools begin with there.
    prefix: String,
}

/// Sends every differential of a call of a server's tool, or of its known one, to its endpoint and to that of all servers, in
/// a session and without.
async fn hears_nothing(name: &str, call: Option<(&str, Value)>) {
    let (folder, scratch) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let log = folder.path().join("log");
    let server = overheard(name, &scratch.path().display().to_string(), &log);
    std::fs::write(folder.path().join("server.yaml"), server.manifest("default", name).to_string()).expect("written");
    let mut dev = Dev::start(folder.path());
    let url = dev.ready(name).await;
    let http = mcp::http();
    let all = Endpoint { http: http.clone(), url: url_of_all(&url, name), prefix: prefix_of_all(name) };
    let own = Endpoint { http, url, prefix: String::new() };
    let known = &server.known_call;
    let (tool, arguments) = call.unwrap_or_else(|| (&known.tool, known.arguments.clone().into()));
    for endpoint in [own, all] {
        let session = Session::open(&endpoint.url, None).await.expect("a session");
        for session in [Some(&session), None] {
            let mut message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {
                "name": format!("{}{tool}", endpoint.prefix), "arguments": arguments, "_meta": {"progressToken": 1}}});
            if session.is_none() {
                mcp::alone(&mut message);
            }
            for (what, text) in differentials(&message) {
                let reply = answer(&endpoint, session, &message, text.clone()).await;
                assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{what}: {text}: {:?}", reply.messages);
                assert_eq!(reply.answer()["error"]["code"], -32700, "{what}: {text}: {:?}", reply.messages);
            }
            let reply = answer(&endpoint, session, &message, message.to_string()).await;
            assert!(reply.answer()["result"].is_object(), "by itself it is answered: {:?}", reply.messages);
        }
    }
    let heard = std::fs::read_to_string(&log).expect("what the server was told");
    assert_eq!(heard.matches("tools/call").count(), 4, "nothing but what is right in itself: {heard}");
    assert!(!heard.contains(SMUGGLED), "{heard}");
    assert_eq!(dev.panics(), Vec::<String>::new());
    assert!(dev.end(Signal::SIGTERM).await.success());
}

#[tokio::test]
async fn server_everything_hears_nothing_of_a_message_that_can_be_read_in_two_ways() {
    hears_nothing("everything", None).await;
}

#[tokio::test]
async fn server_memory_hears_nothing_of_a_message_that_can_be_read_in_two_ways() {
    let deep = json!([{"within": {"that": [{"deep": {"down": 1}}]}}]);
    let entity = json!({"name": "pier", "entityType": "place", "observations": ["Quiet."], "more": deep});
    hears_nothing("memory", Some(("create_entities", json!({"entities": [entity]})))).await;
}

#[tokio::test]
async fn server_filesystem_hears_nothing_of_a_message_that_can_be_read_in_two_ways() {
    hears_nothing("filesystem", None).await;
}

#[tokio::test]
async fn mcp_server_time_hears_nothing_of_a_message_that_can_be_read_in_two_ways() {
    hears_nothing("time", None).await;
}

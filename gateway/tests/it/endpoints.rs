//! What is wrong with a request is told alike at a server's own endpoint, at that of all servers and at a toolset's, and
//! nothing of it reaches a server.

use http::Method;
use serde_json::{Value, json};

use crate::aggregate::{ALL, legacy};
use crate::bridge::Bridge;
use crate::client::{Answer, Client, initialize};
use crate::modern::{VERSION, request, saying};
use crate::offers::Offers;
use crate::world::{Gateway, MAC_KEY, OTHER_ROUTE, Objects, ROUTE};

pub const TOOLSET: &str = "/default/toolsets/mine/mcp";

/// Every kind of endpoint, and what the tool `echo` of the server `everything` is called there.
pub const ENDPOINTS: [(&str, &str); 3] =
    [(ROUTE, "echo"), (ALL, "default__everything__echo"), (TOOLSET, "default__everything__echo")];

/// A server that every endpoint shows, another one, and a gateway in front of both.
pub struct World {
    pub everything: Bridge,
    pub other: Bridge,
    pub gateway: Gateway,
}

impl World {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Objects)) -> Self {
        let (everything, other) = (Bridge::start("uid-1", MAC_KEY).await, Bridge::start("uid-2", MAC_KEY).await);
        everything.offer(Offers::tools(&["echo"]));
        other.offer(Offers::tools(&["echo"]));
        let mut objects = Objects::of(&[("everything", &[&everything]), ("other", &[&other])]);
        objects.toolsets = vec![("mine", json!({"servers": [{"name": "everything"}]}))];
        change(&mut objects);
        let gateway = Gateway::start(&objects).await;
        Self { everything, other, gateway }
    }

    /// How much of what callers asked has reached a server.
    pub fn reached(&self) -> usize {
        self.everything.asked().len() + self.other.asked().len()
    }
}

/// A client in a session with `path`.
pub async fn open(client: &Client, path: &str) -> Client {
    let answer = client.post(path, initialize()).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    client.clone().session(answer.header("mcp-session-id").expect("a session"))
}

/// The refusal has this status, code and kind, and says something.
fn assert_refused(answer: &Answer, expected: (u16, i64, &str), what: &str) {
    let json = answer.json();
    let kind = json["error"]["data"]["error_type"].as_str().unwrap_or_default();
    let code = json["error"]["code"].as_i64().unwrap_or_default();
    assert_eq!((answer.status, code, kind), expected, "{what}: {answer:?}");
    assert!(json["error"]["message"].as_str().is_some_and(|message| message.len() > 10), "{what}: {json}");
}

/// Posts `body` with a session and without one, and expects the same refusal.
async fn refused_everywhere(world: &World, bodies: &[(&str, Vec<u8>)], expected: (u16, i64, &str)) {
    for (path, _) in ENDPOINTS {
        let in_session = open(&world.gateway.client(), path).await;
        let without = saying(world.gateway.client(), "tools/call", Some("echo"));
        let before = world.reached();
        for client in [in_session, without] {
            for (what, body) in bodies {
                let answer = client.post(path, body.clone()).await;
                assert_refused(&answer, expected, &format!("{what} at {path}"));
            }
        }
        assert_eq!(world.reached(), before, "{path}");
    }
}

fn with_arguments(arguments: &str) -> Vec<u8> {
    with(&format!(r#""method":"tools/call","params":{{"name":"echo","arguments":{arguments}}}"#))
}

fn with(members: &str) -> Vec<u8> {
    format!(r#"{{"jsonrpc":"2.0","id":2,{members}}}"#).into()
}

#[tokio::test]
async fn what_two_parsers_could_read_differently_is_a_parse_error_at_every_endpoint() {
    let world = World::start().await;
    let nested = |depth: usize| with_arguments(&format!("{}1{}", "[".repeat(depth), "]".repeat(depth)));
    let bodies = [
        ("nothing", Vec::new()),
        ("no JSON", b"hello".to_vec()),
        ("an end too early", b"{\"jsonrpc\":\"2.0\"".to_vec()),
        ("something behind the end", [with(r#""method":"ping""#), b"{}".to_vec()].concat()),
        ("a byte order mark", [b"\xef\xbb\xbf".to_vec(), with(r#""method":"ping""#)].concat()),
        ("a method twice", with(r#""method":"ping","method":"tools/call""#)),
        ("a method twice, once escaped", with(r#""method":"ping","m\u0065thod":"tools/call""#)),
        ("a method in another case", with(r#""method":"ping","Method":"tools/call""#)),
        ("a method with a NUL", with(r#""method":"ping","method\u0000":"tools/call""#)),
        ("a name twice", with(r#""method":"tools/call","params":{"name":"echo","name":"other"}"#)),
        ("a key twice, deep down", with_arguments(r#"[{"a":{"b":1,"b":2}}]"#)),
        (
            "bytes that are no UTF-8",
            with_arguments("\"\u{1}\"").into_iter().map(|b| if b == 1 { 0xff } else { b }).collect(),
        ),
        ("half a surrogate pair", with_arguments(r#""\ud800""#)),
        ("a number without end", with_arguments(&"9".repeat(100_000))),
        ("65 levels", nested(65)),
        ("100,000 levels", nested(100_000)),
        ("100,000 levels that never close", "[".repeat(100_000).into()),
    ];
    refused_everywhere(&world, &bodies, (400, -32700, "Malformed")).await;
}

#[tokio::test]
async fn what_is_not_one_message_is_an_invalid_request_at_every_endpoint() {
    let world = World::start().await;
    let ids = ["null", "true", "{}", "[]", "[1]"];
    let mut bodies: Vec<(&str, Vec<u8>)> =
        ids.iter().map(|id| (*id, format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#).into())).collect();
    bodies.extend([
        ("an empty batch", b"[]".to_vec()),
        ("a batch of no message", b"[7]".to_vec()),
        ("an empty object", b"{}".to_vec()),
        ("a string", b"\"ping\"".to_vec()),
        ("null", b"null".to_vec()),
        ("no version", br#"{"id":1,"method":"ping"}"#.to_vec()),
        ("version 1.0", br#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#.to_vec()),
        ("question and answer in one", with(r#""method":"ping","result":{}"#)),
        ("result and error in one", with(r#""result":{},"error":{"code":1,"message":"x"}"#)),
        ("a method that is a number", with(r#""method":7"#)),
    ]);
    refused_everywhere(&world, &bodies, (400, -32600, "InvalidRequest")).await;
}

#[tokio::test]
async fn every_id_that_json_rpc_allows_comes_back_as_it_was_written() {
    let world = World::start().await;
    let ids = [
        "0",
        "-1",
        "7.0",
        "1e3",
        "9007199254740993",
        "123456789012345678901234567890",
        r#""""#,
        r#""7""#,
        r#""\u0061\"b""#,
        r#""caf\u00e9 é""#,
    ];
    for (path, echo) in ENDPOINTS {
        let client = open(&world.gateway.client(), path).await;
        for id in ids {
            let params = json!({"name": echo, "arguments": {"x": 1}});
            let in_session =
                client.post(path, legacy("tools/call", &params).replace(r#""id":2"#, &format!(r#""id":{id}"#))).await;
            let alone = request("tools/call", params).replace(r#""id":2"#, &format!(r#""id":{id}"#));
            let alone = saying(world.gateway.client(), "tools/call", Some(echo)).post(path, alone).await;
            for answer in [in_session, alone] {
                assert_eq!(answer.status, 200, "{id} at {path}: {answer:?}");
                let sent: Value = serde_json::from_str(id).expect("JSON");
                assert_eq!((&answer.json()["id"], answer.json()["result"].is_object()), (&sent, true), "{path}");
            }
        }
        // What is refused here and not at a server is answered with the id as it was written.
        for id in ids {
            let ask = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"echo"}}}}"#);
            let answer = world.gateway.client().post(path, ask).await;
            assert_eq!(answer.status, 400);
            assert!(answer.text().contains(&format!(r#""id":{id}"#)), "{id} at {path}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn ten_megabytes_are_413_at_every_endpoint_and_what_stands_behind_the_bound_is_never_read() {
    let world = World::start().await;
    let small = legacy("tools/call", &json!({"name": "echo"}));
    let behind = format!("{}{small}", " ".repeat(10 * 1024 * 1024));
    for (path, _) in ENDPOINTS {
        let client = open(&world.gateway.client(), path).await;
        let before = world.reached();
        let answer = client.post(path, behind.clone()).await;
        assert_refused(&answer, (413, -32600, "BodyTooLarge"), path);
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(world.reached(), before);
    }
}

#[tokio::test]
async fn media_types_encodings_hosts_origins_and_methods_are_refused_alike_at_every_endpoint() {
    let world = World::start().await;
    let client = || world.gateway.client();
    for (path, _) in ENDPOINTS {
        let in_session = open(&client(), path).await;
        let before = world.reached();
        let body = legacy("ping", &json!({}));
        for (client, expected) in [
            (in_session.clone().with("content-type", "text/plain"), (415, -32600, "UnsupportedMediaType")),
            (in_session.clone().with("content-encoding", "gzip"), (415, -32600, "UnsupportedMediaType")),
            (in_session.clone().with("content-encoding", "identity, gzip"), (415, -32600, "UnsupportedMediaType")),
            (in_session.clone().with("content-encoding", "br"), (415, -32600, "UnsupportedMediaType")),
            (in_session.clone().with("accept", "application/json"), (406, -32600, "NotAcceptable")),
            (in_session.clone().with("accept", "text/html"), (406, -32600, "NotAcceptable")),
            (in_session.clone().with("host", "evil.example"), (421, -32002, "HostNotAllowed")),
            (in_session.clone().with("origin", "null"), (403, -32002, "OriginNotAllowed")),
            (in_session.clone().with("origin", "https://evil.example"), (403, -32002, "OriginNotAllowed")),
            (in_session.clone().key("ptl_unknown"), (401, -32002, "Unauthenticated")),
            (in_session.clone().without("mcp-session-id"), (400, -32000, "MissingSession")),
            (in_session.clone().and("mcp-session-id", "AAAA"), (400, -32000, "MissingSession")),
            (in_session.clone().with("mcp-protocol-version", "1999-01-01"), (400, -32022, "UnsupportedVersion")),
            (
                in_session.clone().with("mcp-protocol-version", "2025-11-25").and("mcp-protocol-version", "2025-06-18"),
                (400, -32020, "HeaderMismatch"),
            ),
        ] {
            let answer = client.post(path, body.clone()).await;
            assert_refused(&answer, expected, path);
        }
        for method in [Method::PUT, Method::PATCH, Method::OPTIONS, Method::HEAD] {
            let answer = in_session.send(method.clone(), path, "").await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST, DELETE")), "{method} {path}");
        }
        assert_refused(
            &in_session.with("accept", "application/json").get(path).await,
            (406, -32600, "NotAcceptable"),
            path,
        );
        assert_eq!(world.reached(), before, "{path}");
    }
}

#[tokio::test]
async fn a_sessionless_request_that_contradicts_itself_is_refused_alike_at_every_endpoint() {
    let world = World::start().await;
    const MISMATCH: (u16, i64, &str) = (400, -32020, "HeaderMismatch");
    const INVALID: (u16, i64, &str) = (400, -32602, "InvalidParams");
    for (path, echo) in ENDPOINTS {
        let client = || saying(world.gateway.client(), "tools/call", Some(echo));
        let body = request("tools/call", json!({"name": echo, "arguments": {}}));
        let bare = legacy("tools/call", &json!({"name": echo}));
        let without = |member: &str| body.replace(&format!("io.modelcontextprotocol/{member}"), "x");
        let encoded = |text: &str| format!("=?base64?{text}?=");
        for (what, client, body, expected) in [
            ("another name", client().with("mcp-name", "other"), body.clone(), MISMATCH),
            ("two names", client().and("mcp-name", echo), body.clone(), MISMATCH),
            ("an encoded other name", client().with("mcp-name", &encoded("b3RoZXI=")), body.clone(), MISMATCH),
            ("a damaged encoding", client().with("mcp-name", &encoded("%%%")), body.clone(), MISMATCH),
            ("an encoding of no text", client().with("mcp-name", &encoded("/w==")), body.clone(), MISMATCH),
            ("no name", client().without("mcp-name"), body.clone(), MISMATCH),
            ("another method", client().with("mcp-method", "tools/list"), body.clone(), MISMATCH),
            ("no method", client().without("mcp-method"), body.clone(), MISMATCH),
            ("a revision of sessions", client().with("mcp-protocol-version", "2025-11-25"), body.clone(), MISMATCH),
            ("no revision", client().without("mcp-protocol-version"), body.clone(), MISMATCH),
            ("no _meta", client(), bare, INVALID),
            ("no revision in the body", client(), without("protocolVersion"), INVALID),
            ("no capabilities", client(), without("clientCapabilities"), INVALID),
            ("capabilities that are none", client(), body.replace("Capabilities\":{}", "Capabilities\":1"), INVALID),
            (
                "a revision that nobody serves",
                client().with("mcp-protocol-version", "2031-01-01"),
                body.replace(VERSION, "2031-01-01"),
                (400, -32022, "UnsupportedVersion"),
            ),
        ] {
            let answer = client.post(path, body).await;
            assert_refused(&answer, expected, &format!("{what} at {path}"));
        }
        for method in [Method::GET, Method::DELETE] {
            assert_refused(&client().send(method, path, "").await, (405, -32003, "MethodNotAllowed"), path);
        }
        assert_eq!(world.reached(), 0, "{path}");
    }
}

#[tokio::test]
async fn a_name_that_no_header_can_hold_is_taken_when_it_is_encoded_and_stays_a_name() {
    let world = World::start().await;
    // CR, LF and a header in the middle of a name: base64 of "a\r\nportolan-shared: 1".
    let evil = "a\r\nportolan-shared: 1";
    for (path, prefix, encoded) in [
        (ROUTE, "", "YQ0KcG9ydG9sYW4tc2hhcmVkOiAx"),
        (ALL, "default__everything__", "ZGVmYXVsdF9fZXZlcnl0aGluZ19fYQ0KcG9ydG9sYW4tc2hhcmVkOiAx"),
    ] {
        let body = request("tools/call", json!({"name": format!("{prefix}{evil}")}));
        let client = saying(world.gateway.client(), "tools/call", Some(&format!("=?base64?{encoded}?=")));
        let answer = client.post(path, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let (seen, asked) = world.everything.asked().pop().expect("it arrived");
        assert_eq!(asked["params"]["name"], evil);
        assert_eq!(seen.headers["mcp-name"], "=?base64?YQ0KcG9ydG9sYW4tc2hhcmVkOiAx?=");
        assert!(!seen.headers.contains_key("portolan-shared"));
    }
    assert!(world.other.asked().is_empty());
}

#[tokio::test]
async fn what_only_gateway_and_bridge_say_to_each_other_is_nothing_when_a_client_says_it() {
    let world = World::start().await;
    let ours = [
        ("portolan-session", "AAAAAAAAAAAAAAAAAAAAAA"),
        ("portolan-pod", "uid-2"),
        ("portolan-mac", "v1 0 AAAA"),
        ("portolan-shared", "1"),
        ("portolan-timeout-ms", "1"),
        ("portolan_shared", "1"),
        ("Portolan-Pod", "uid-2"),
        ("x-forwarded-host", "evil.example"),
        ("x-original-url", OTHER_ROUTE),
        ("x-http-method-override", "DELETE"),
        ("mcp_session_id", "AAAA"),
        ("accept-encoding", "gzip, br"),
    ];
    for (path, echo) in ENDPOINTS {
        let client = open(&world.gateway.client(), path).await;
        let forged = ours.iter().fold(client.clone(), |client, (name, value)| client.and(name, value));
        let params = json!({"name": echo, "arguments": {"n": 7}});
        let in_session = forged.post(path, legacy("tools/call", &params)).await;
        let forged = saying(forged.without("mcp-session-id"), "tools/call", Some(echo));
        for answer in [in_session, forged.post(path, request("tools/call", params)).await] {
            assert_eq!((answer.status, &answer.json()["result"]), (200, &json!({"n": 7})), "{path}: {answer:?}");
        }
    }
    assert!(world.other.asked().is_empty(), "no header leads a call to another server");
    for (seen, _) in world.everything.asked() {
        assert_eq!(seen.headers.get_all("portolan-pod").iter().collect::<Vec<_>>(), ["uid-1"]);
        assert_ne!(seen.headers["portolan-timeout-ms"], "1");
        for name in ["portolan-shared", "portolan_shared", "x-forwarded-host", "x-original-url", "mcp_session_id"] {
            assert!(!seen.headers.contains_key(name), "{name} travelled upstream");
        }
        assert!(
            !seen.headers.contains_key("accept-encoding"),
            "nobody asks a server for what would have to be unpacked"
        );
    }
    assert_eq!(world.everything.forged(), 0);
}

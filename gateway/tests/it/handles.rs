//! What a client holds is good for the caller who got it, at the endpoint that gave it, and nowhere else; and who may do
//! what does not depend on how it is asked.

use http::Method;
use portolan_mcp::{
    mac::MacKey,
    parked::{Parked, ParkingKey},
    token::SessionKey,
};
use serde_json::{Value, json};

use crate::aggregate::{ALL, legacy, names};
use crate::client::{Answer, Client};
use crate::endpoints::{ENDPOINTS, TOOLSET, World, open};
use crate::modern::{VERSION, request, saying};
use crate::offers::Offers;
use crate::world::{ALICE, BOB, MAC_KEY, OTHER_ROUTE, ROUTE};

const CALLERS: [Option<&str>; 3] = [Some(ALICE), Some(BOB), None];

fn let_in_anonymous(objects: &mut crate::world::Objects) {
    objects.gateway["authentication"]["anonymous"] = json!({});
}

/// The client as another caller, in the session that it is in.
fn of(client: Client, caller: Option<&str>) -> Client {
    match caller {
        Some(key) => client.key(key),
        None => client.without("authorization"),
    }
}

#[tokio::test]
async fn a_session_is_unknown_to_every_other_caller_and_at_every_other_endpoint() {
    let world = World::with(let_in_anonymous).await;
    let places: Vec<_> =
        [ROUTE, OTHER_ROUTE, ALL, TOOLSET].into_iter().flat_map(|path| CALLERS.map(|caller| (caller, path))).collect();
    for &owner in &places {
        let client = open(&of(world.gateway.client(), owner.0), owner.1).await;
        let before = world.reached();
        for &thief in places.iter().filter(|place| **place != owner) {
            let client = of(client.clone(), thief.0).with("last-event-id", "0-1");
            for answer in [
                client.post(thief.1, legacy("tools/list", &json!({}))).await,
                client.post(thief.1, json!({"jsonrpc": "2.0", "id": "question", "result": {}}).to_string()).await,
                client.send(Method::GET, thief.1, "").await,
                client.send(Method::DELETE, thief.1, "").await,
            ] {
                let told = &answer.json()["error"]["data"]["error_type"];
                assert_eq!(
                    (answer.status, told),
                    (404, &json!("UnknownSession")),
                    "{owner:?} as {thief:?}: {answer:?}"
                );
            }
        }
        assert_eq!(world.reached(), before, "{owner:?}");
        let answer = client.post(owner.1, legacy("tools/list", &json!({}))).await;
        assert_eq!(answer.status, 200, "it is still its owner's: {answer:?}");
    }
}

#[tokio::test]
async fn a_session_id_that_was_cut_or_changed_anywhere_is_unknown_at_every_endpoint() {
    let world = World::start().await;
    for (path, _) in ENDPOINTS {
        let client = open(&world.gateway.client(), path).await;
        let before = world.reached();
        let whole = client.header("mcp-session-id").expect("a session").to_owned();
        let cut = (1..whole.len()).step_by(7).map(|end| whole[..end].to_owned());
        let tail = (1..whole.len()).step_by(7).map(|start| whole[start..].to_owned());
        let changed = (0..whole.len()).step_by(5).map(|at| {
            let other = if whole.as_bytes()[at] == b'A' { "B" } else { "A" };
            format!("{}{other}{}", &whole[..at], &whole[at + 1..])
        });
        let longer = [format!("{whole}A"), format!("{whole}="), format!("{whole}{whole}"), format!(" {whole}x")];
        for id in cut.chain(tail).chain(changed).chain(longer) {
            let answer = client.clone().session(&id).post(path, legacy("ping", &json!({}))).await;
            assert_eq!(answer.status, 404, "{id} at {path}: {answer:?}");
        }
        assert_eq!(world.reached(), before, "{path}");
    }
}

#[tokio::test]
async fn a_half_done_call_is_finished_by_its_caller_at_its_server_only() {
    let world = World::with(let_in_anonymous).await;
    let key = MacKey::new(&MAC_KEY).as_ref().and_then(ParkingKey::of).expect("a key");
    let places: Vec<_> =
        [ROUTE, OTHER_ROUTE].into_iter().flat_map(|path| CALLERS.map(|caller| (caller, path))).collect();
    for &owner in &places {
        let client = |caller| saying(of(world.gateway.client(), caller), "tools/call", Some("echo"));
        let ask = |params: Value| request("tools/call", params);
        client(owner.0).post(owner.1, ask(json!({"name": "echo"}))).await;
        let bridge = if owner.1 == ROUTE { &world.everything } else { &world.other };
        let caller = SessionKey::parse(bridge.asked().pop().expect("it arrived").0.session()).expect("a key");
        // Known to both servers: they have one key here, and still the name of a call is good at its own only.
        for pod in ["uid-1", "uid-2"] {
            let state = key.seal(&Parked { pod: pod.into(), call: "1".into() }, &caller).expect("sealed");
            let before = world.reached();
            for &thief in places.iter().filter(|place| **place != owner) {
                let answer = client(thief.0).post(thief.1, ask(json!({"name": "echo", "requestState": state}))).await;
                let code = &answer.json()["error"]["code"];
                assert_eq!((answer.status, code), (400, &json!(-32602)), "{owner:?} as {thief:?}: {answer:?}");
            }
            assert_eq!(world.reached(), before, "{owner:?}");
        }
    }
}

#[tokio::test]
async fn a_cursor_of_one_endpoint_shows_nothing_at_another_that_is_not_shown_there() {
    let world = World::start().await;
    let many: Vec<String> = (0..1500).map(|n| format!("t{n}")).collect();
    world.other.offer(Offers::tools(&many.iter().map(String::as_str).collect::<Vec<_>>()));
    let of_all = open(&world.gateway.client(), ALL).await;
    let page = of_all.post(ALL, legacy("tools/list", &json!({}))).await;
    let cursor = page.json()["result"]["nextCursor"].clone();
    assert!(cursor.is_string() && names(&page, "tools", "name").last().is_some_and(|name| name.contains("other")));
    let of_set = open(&world.gateway.client(), TOOLSET).await;
    let page = of_set.post(TOOLSET, legacy("tools/list", &json!({"cursor": cursor}))).await;
    let shown = page.json()["result"]["tools"].as_array().map(Vec::len).unwrap_or_default();
    assert!(shown == 0 && !page.text().contains("other"), "{page:?}");
    for cursor in ["", "AAAA", "\n", &"A".repeat(100_000)] {
        let page = of_all.post(ALL, legacy("tools/list", &json!({"cursor": cursor}))).await;
        assert_eq!(page.json()["error"]["code"], -32602, "{page:?}");
    }
}

/// What was decided about a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Stranger,
    NoSuchRoute,
    LetIn,
}

fn decided(answer: &Answer) -> Decision {
    match answer.status {
        401 => Decision::Stranger,
        404 if answer.json()["error"]["data"]["error_type"] == "UnknownRoute" => Decision::NoSuchRoute,
        _ => Decision::LetIn,
    }
}

#[tokio::test]
async fn who_may_do_what_is_the_same_in_every_revision_whatever_the_headers_say() {
    let world = World::with(|objects| {
        objects.gateway["servers"] = json!({"selector": {"matchLabels": {"name": "everything"}}});
    })
    .await;
    let revisions =
        [None, Some("2024-11-05"), Some("2025-03-26"), Some("2025-06-18"), Some("2025-11-25"), Some(VERSION)];
    let forged = ["1999-01-01", "2031-01-01", "", "2026-07-28, 2025-11-25"].map(Some);
    let callers = [
        (Some(ALICE), Decision::LetIn),
        (Some(BOB), Decision::LetIn),
        (Some("ptl_unknown"), Decision::Stranger),
        (None, Decision::Stranger),
    ];
    for (path, tool) in ENDPOINTS.into_iter().chain([(OTHER_ROUTE, "echo")]) {
        let params = json!({"name": tool, "arguments": {}});
        let bodies = [legacy("tools/call", &params), request("tools/call", params.clone()), legacy("ping", &json!({}))];
        let is_shown = path != OTHER_ROUTE;
        let session = if is_shown { open(&world.gateway.client(), path).await } else { world.gateway.client() };
        let session = session.header("mcp-session-id").unwrap_or("AAAA").to_owned();
        for (caller, expected) in callers {
            let expected = match expected {
                Decision::LetIn if !is_shown => Decision::NoSuchRoute,
                other => other,
            };
            let client = of(world.gateway.client(), caller).session(&session).with("content-type", "application/json");
            for version in revisions.into_iter().chain(forged) {
                let client = match version {
                    Some(version) => client.clone().with("mcp-protocol-version", version),
                    None => client.clone(),
                };
                let client = client.with("mcp-method", "tools/call").with("mcp-name", tool);
                for client in [client.clone(), client.clone().without("mcp-session-id")] {
                    for body in &bodies {
                        let answer = client.post(path, body.clone()).await;
                        assert_eq!(decided(&answer), expected, "{caller:?} {path} {version:?} {body}: {answer:?}");
                    }
                }
            }
        }
    }
    assert!(world.other.asked().is_empty(), "what is not shown is not reached in any revision");
}

#[tokio::test]
async fn a_caller_who_is_let_in_is_answered_in_every_revision() {
    let world = World::start().await;
    for (path, tool) in ENDPOINTS {
        let params = json!({"name": tool, "arguments": {"n": 7}});
        let client = open(&world.gateway.client(), path).await;
        for version in [None, Some("2024-11-05"), Some("2025-03-26"), Some("2025-06-18"), Some("2025-11-25")] {
            let client = match version {
                Some(version) => client.clone().with("mcp-protocol-version", version),
                None => client.clone(),
            };
            let answer = client.post(path, legacy("tools/call", &params)).await;
            assert_eq!((answer.status, &answer.json()["result"]["n"]), (200, &json!(7)), "{version:?} at {path}");
        }
        let alone = saying(world.gateway.client(), "tools/call", Some(tool));
        let answer = alone.post(path, request("tools/call", params)).await;
        assert_eq!((answer.status, &answer.json()["result"]["n"]), (200, &json!(7)), "{path}: {answer:?}");
    }
}

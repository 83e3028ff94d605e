//! Callers who share a server, and do not see each other there: in front of the real bridge, whatever they call their
//! requests and whichever way they come.

use std::sync::LazyLock;

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::aggregate::{ALL, legacy};
use crate::client::{Client, sized};
use crate::endpoints::open;
use crate::modern::{request, saying};
use crate::real_bridge::{id_of, start, start_with};
use crate::world::{ALICE, BOB, Gateway, Objects, ROUTE};

/// How often each caller calls in each way at each replica; the variable `ROUNDS` says otherwise.
static ROUNDS: LazyLock<usize> = LazyLock::new(|| sized("ROUNDS", 60));
const OF_ALL: &str = "default__everything__echo";

/// One way to call `echo`.
struct Way {
    client: Client,
    path: &'static str,
    tool: &'static str,
    is_modern: bool,
}

impl Way {
    /// Every way that a caller has, each in a session of its own where it needs one.
    async fn all(client: Client) -> Vec<Self> {
        let mut ways = Vec::new();
        for (path, tool) in [(ROUTE, "echo"), (ALL, OF_ALL)] {
            ways.push(Self { client: open(&client, path).await, path, tool, is_modern: false });
            ways.push(Self { client: saying(client.clone(), "tools/call", Some(tool)), path, tool, is_modern: true });
        }
        ways
    }

    /// Calls with id 0 and the same progress token as everyone, and returns the whole answer.
    async fn call(&self, canary: &str) -> Value {
        let params = json!({"name": self.tool, "arguments": {"canary": canary}});
        let mut body: Value = serde_json::from_str(&match self.is_modern {
            true => request("tools/call", params),
            false => legacy("tools/call", &params),
        })
        .expect("JSON");
        body["id"] = json!(0);
        body["params"]["_meta"]["progressToken"] = json!(0);
        let answer = self.client.post(self.path, body.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

#[tokio::test]
async fn what_two_callers_ask_one_process_at_once_never_crosses_although_every_id_is_the_same() {
    let bridge = start_with(&["--session-type=stateless"]).await;
    let mut objects = Objects::of(&[("everything", &[&bridge])]);
    objects.server["sessions"] = json!({"type": "Stateless"});
    let (a, b) = (Gateway::start(&objects).await, Gateway::start(&objects).await);
    let mut ways = Vec::new();
    for (who, key, gateway) in [("alice", ALICE, &a), ("bob", BOB, &a), ("alice", ALICE, &b), ("bob", BOB, &b)] {
        ways.extend(Way::all(gateway.client().key(key)).await.into_iter().map(|way| (who, way)));
    }
    // An id stands for one call at a time in each session, and for as many at the process as there are ways.
    let visits = ways.iter().map(|(who, way)| async move {
        for round in 0..*ROUNDS {
            let canary = format!("{who}-{round}");
            let answer = way.call(&canary).await;
            let heard = (&answer["id"], &answer["result"]["structuredContent"]["canary"]);
            assert_eq!(heard, (&json!(0), &json!(canary)), "{answer}");
        }
    });
    join_all(visits).await;
}

#[tokio::test]
async fn the_name_of_an_event_is_good_in_its_own_session_only() {
    let bridge = start().await;
    let gateway = Gateway::start(&Objects::new(&[&bridge])).await;
    let (alice, bob) = (open(&gateway.client().key(ALICE), ROUTE).await, open(&gateway.client().key(BOB), ROUTE).await);
    let mut stream = alice.open(Method::GET, ROUTE, "").await;
    assert_eq!(alice.call("say", json!({"who": "alice "})).await.status, 200);
    stream.read_until("alice second").await;
    let first = id_of(stream.text(), "alice first").to_owned();
    let mut stream = bob.clone().with("last-event-id", &first).open(Method::GET, ROUTE, "").await;
    assert_eq!(bob.call("say", json!({"who": "bob "})).await.status, 200);
    stream.read_until("bob second").await;
    assert!(!stream.text().contains("alice"), "{}", stream.text());
}

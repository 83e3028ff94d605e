//! A document of ours among a server's resources, whatever the server speaks, however it is reached and whoever asks.

use portolan_mcp::canary::{URI, batch, document};
use portolan_mcp::wire;
use serde_json::{Value, json};

use crate::common::Reply;
use crate::world::{BOTH, World};

const FLAGS: [&str; 1] = ["--canary-document"];
const ALL: [&str; 2] = ["legacy", "modern"];

fn result(reply: &Reply) -> Value {
    let answer = reply.messages.last().expect("an answer");
    assert!(answer["result"].is_object(), "{answer}");
    answer["result"].clone()
}

/// What is under `member` of a reply's result.
fn listed(result: &Value, member: &str) -> Vec<String> {
    let name = |item: &Value| item["name"].as_str().map(str::to_owned);
    result[member].as_array().into_iter().flatten().filter_map(name).collect()
}

#[tokio::test]
async fn it_is_listed_and_read_in_either_era_and_the_server_answers_everything_else() {
    for over in BOTH {
        for script in ALL {
            let world = World::start(over, script, &FLAGS).await;
            let of = format!("{script} {over:?}");
            let found = world.rig.status().await.probe.server.expect("found");
            assert!(found.capabilities.iter().any(|name| name == "tools"), "{of}: {found:?}");
            let uri = format!("{URI}/t-1");

            let client = world.rig.open().await;
            let ask = async |id: u64, method: &str, params: Value| {
                let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
                result(&client.post(&message).await)
            };
            assert_eq!(
                listed(&ask(1, "resources/list", json!({})).await, "resources").last().unwrap(),
                "Saint Anthony"
            );
            let templates = ask(2, "resources/templates/list", json!({})).await;
            assert_eq!(listed(&templates, "resourceTemplates").last().unwrap(), "Saint Anthony", "{of}");
            let read = ask(3, "resources/read", json!({"uri": uri})).await;
            assert_eq!(read["contents"][0]["text"], document("t-1"), "{of}");
            assert_eq!(client.call(4, "echo", json!({"message": "fine"})).await.text(), "fine", "{of}");

            let caller = world.caller();
            let discovered = result(&caller.ask(5, "server/discover", json!({})).await);
            assert!(discovered["capabilities"]["resources"].is_object(), "{of}: {discovered}");
            let resources = result(&caller.ask(6, "resources/list", json!({})).await);
            assert_eq!(listed(&resources, "resources").last().unwrap(), "Saint Anthony", "{of}");
            let read = result(&caller.ask(7, "resources/read", json!({"uri": uri})).await);
            let text = read["contents"][0]["text"].as_str().expect("text");
            assert!(text.contains(&batch("t-1")), "{of}: {text}");
            assert_eq!((&read["resultType"], &read["ttlMs"]), (&json!("complete"), &json!(0)), "{of}");
            assert_eq!(caller.call(8, "echo", json!({"message": "fine"})).await.text(), "fine", "{of}");
            assert_eq!(world.times_said("saint-anthony"), 0, "{of}: the server has heard nothing of it");
        }
    }
}

#[tokio::test]
async fn a_stateless_server_has_it_too_and_so_have_the_lists_that_are_the_same_for_everyone() {
    for over in BOTH {
        for script in ALL {
            for flags in [&FLAGS[..], &["--canary-document", "--session-type", "stateless"]] {
                let world = World::start(over, script, flags).await;
                let of = format!("{script} {over:?} {flags:?}");
                let caller = world.caller();
                let shared = [(wire::SHARED, "1".to_owned())];
                let listed_for_all = caller.start_with(1, "resources/list", json!({}), &shared).await;
                let names = listed(&result(&Reply::of(listed_for_all).await), "resources");
                assert_eq!(names.last().unwrap(), "Saint Anthony", "{of}");
                let read = result(&caller.ask(2, "resources/read", json!({"uri": URI})).await);
                assert_eq!(read["contents"][0]["text"], document(""), "{of}");
                assert_eq!(caller.call(3, "echo", json!({"message": "fine"})).await.text(), "fine", "{of}");
                let client = world.rig.open().await;
                assert_eq!(client.call(4, "echo", json!({"message": "fine"})).await.text(), "fine", "{of}");
            }
        }
    }
}

#[tokio::test]
async fn without_the_flag_there_is_no_such_thing() {
    for over in BOTH {
        let world = World::start(over, "legacy", &[]).await;
        let client = world.rig.open().await;
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": URI}});
        let answer = client.post(&message).await;
        let answer = answer.messages.last().expect("an answer");
        assert!(!answer.to_string().contains("milking"), "{over:?}: {answer}");
    }
}

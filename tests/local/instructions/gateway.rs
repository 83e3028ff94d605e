//! What a request costs the gateway.

use portolan_tests::api_server::ApiServer;
use portolan_tests::objects::{Objects, Pod};
use portolan_tests::paths;
use portolan_tests::replica::Replica;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::{Value, json};

use crate::answering::Answering;
use crate::client::{Client, call};
use crate::{BEFORE, COUNTED};

/// How often to count anew where the gateway was about something else meanwhile.
const ATTEMPTS: u32 = 5;

/// The most that a call may cost as `make test` builds the gateway: without link-time optimisation, which takes a sixth off.
/// Whoever lowers a cost lowers its bound; whoever raises one says why.
const IN_A_SESSION: f64 = 152_000.0;
/// The same without sessions.
const WITHOUT_SESSIONS: f64 = 163_000.0;
/// The same of calls to all servers, in a session with them and without.
const OF_ALL_IN_A_SESSION: f64 = 197_000.0;
const OF_ALL_WITHOUT_SESSIONS: f64 = 219_000.0;
/// How much more a request may cost among many servers than with one.
const GROWTH: f64 = 1.05;

#[tokio::test]
async fn a_call_costs_the_gateway_no_more_than_it_did_and_no_more_with_a_thousand_servers_than_with_one() {
    let alone = calls(1).await;
    let among_many = calls(1_000).await;
    println!("instructions a call: {alone:?} with one server, {among_many:?} with a thousand");
    for (cost, most) in alone.iter().zip([IN_A_SESSION, WITHOUT_SESSIONS, OF_ALL_IN_A_SESSION, OF_ALL_WITHOUT_SESSIONS])
    {
        assert!(*cost <= most, "{alone:?}");
    }
    assert!(grew_little(&alone, &among_many), "{alone:?} {among_many:?}");
}

/// A list of all servers is put together once. That of a hundred is longer, and whoever asks for it pays for no more.
#[tokio::test]
async fn a_list_of_a_hundred_servers_costs_the_gateway_no_more_than_that_of_one() {
    let alone = lists(1).await;
    let of_many = lists(100).await;
    println!("instructions a list: {alone:?} with one server, {of_many:?} with a hundred");
    assert!(grew_little(&alone, &of_many), "{alone:?} {of_many:?}");
}

fn grew_little(alone: &[f64], among_many: &[f64]) -> bool {
    alone.iter().zip(among_many).all(|(alone, among_many)| *among_many <= GROWTH * alone)
}

/// What a call costs: at a server's own endpoint in a session and without, and the same at that of all servers.
async fn calls(servers: usize) -> Vec<f64> {
    let world = World::start(servers).await;
    let own = world.clients("default/server-0/mcp").await;
    let all = world.clients("mcp").await;
    let mut costs = Vec::new();
    for (clients, name) in [(own, "echo"), (all, "default__server-0__echo")] {
        for client in clients {
            costs.push(world.cost(&client, &call(name)).await);
        }
    }
    world.end().await;
    costs
}

/// What a list of all servers costs, in a session and without.
async fn lists(servers: usize) -> Vec<f64> {
    let world = World::start(servers).await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    let mut costs = Vec::new();
    for client in world.clients("mcp").await {
        costs.push(world.cost(&client, &list).await);
        let answer = client.ask(&list).await;
        let tools = answer["result"]["tools"].as_array().expect("a list");
        assert_eq!(tools.len(), servers);
    }
    world.end().await;
    costs
}

/// A gateway whose instructions are counted, and the pod behind all of its servers.
struct World {
    pod: Answering,
    gateway: Replica,
    servers: usize,
    _api: ApiServer,
}

impl World {
    async fn start(servers: usize) -> Self {
        let pod = Answering::start().await;
        let names = (0..servers).map(|number| &*Box::leak(format!("server-{number}").into_boxed_str()));
        let pods: &[&dyn Pod] = &[&pod];
        let objects: Vec<(&'static str, &[&dyn Pod])> = names.map(|name| (name, pods)).collect();
        let api = ApiServer::start(Objects::of(&objects).inputs()).await;
        let gateway = Replica::counted(&paths::binary("portolan"), api.address).await;
        Self { pod, gateway, servers, _api: api }
    }

    /// One in a session and one without, once the gateway knows what its servers have, where that is asked.
    async fn clients(&self, path: &str) -> [Client; 2] {
        let clients = Client::of_each_era(&format!("http://{}/{path}", self.gateway.address)).await;
        if path == "mcp" {
            until("every server was asked", PATIENCE, || async {
                let asked = self.pod.asked();
                if asked >= self.servers { Ok(()) } else { Err(format!("{asked} were")) }
            })
            .await;
        }
        clients
    }

    /// Instructions of the gateway for one such request.
    async fn cost(&self, client: &Client, message: &Value) -> f64 {
        for _ in 0..ATTEMPTS {
            client.repeat(message, BEFORE).await;
            let asked = self.pod.asked();
            let counted = self.gateway.instructions(client.repeat(message, COUNTED)).await;
            if self.pod.asked() == asked {
                return counted / f64::from(COUNTED);
            }
        }
        panic!("the gateway asked its servers for their lists all the while");
    }

    async fn end(mut self) {
        self.gateway.assert_well().await;
    }
}

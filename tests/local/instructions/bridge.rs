//! What a call costs the bridge, behind a gateway that is not counted.

use portolan_tests::api_server::ApiServer;
use portolan_tests::bridge::Bridge;
use portolan_tests::objects::{Objects, Pod};
use portolan_tests::paths;
use portolan_tests::replica::Replica;

use crate::answering::Answering;
use crate::client::{Client, call};
use crate::{BEFORE, COUNTED};

/// The most that a call may cost, in a session and without. Whoever lowers a cost lowers its bound; whoever raises one says
/// why.
const MOST: [f64; 2] = [88_000.0, 96_000.0];

/// The server speaks both eras, so that every call passes. In front of a process it cannot be counted,
/// as the bridge starts that through itself, which under valgrind is another program.
#[tokio::test]
async fn a_call_costs_the_bridge_no_more_than_it_did() {
    let server = Answering::start().await;
    let upstream = format!("http://{}/mcp", server.address());
    let behind = ["--probe-interval=1h", "--upstream", &upstream];
    let bridge = Bridge::counted(&paths::binary("portolan-bridge"), "http", &behind).await;
    let api = ApiServer::start(Objects::new(&[&bridge]).inputs()).await;
    let mut gateway = Replica::start(&paths::binary("portolan"), api.address).await;
    let mut costs = [0.0; 2];
    let url = format!("http://{}/default/everything/mcp", gateway.address);
    for (client, cost) in Client::of_each_era(&url).await.iter().zip(&mut costs) {
        client.repeat(&call("echo"), BEFORE).await;
        *cost = bridge.instructions(client.repeat(&call("echo"), COUNTED)).await / f64::from(COUNTED);
    }
    println!("instructions a call: {costs:?}");
    assert!(costs.iter().zip(MOST).all(|(cost, most)| *cost <= most), "{costs:?} {MOST:?}");
    gateway.assert_well().await;
}

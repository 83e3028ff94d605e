//! A release that does not work: no node can get the image of its bridge.

use std::collections::BTreeSet;

use portolan_crds::conditions::{find, is_true};
use portolan_tests::wait::{PATIENCE, until};
use portolan_tests::{helm, operator};

use crate::crew::{Crew, NAMES};
use crate::rolls::{Rolls, WAITS};
use crate::{turns, with_a_crew};

#[tokio::test]
async fn a_bridge_that_cannot_be_had_stops_at_the_first_servers_and_going_back_mends_those() {
    with_a_crew(async |crew, number| {
        let pods = crew.pods().await;
        let rolls = Rolls::watch(&crew.cluster).await;
        helm::set("bridge.image.tag=nowhere,operator.releaseRollouts=2").await;
        let stopped = until("two cannot get it and two wait", PATIENCE, || stopped(crew)).await;
        // Each of them more than once.
        operator::looks_again(&crew.cluster, 3 * NAMES.len() as u64).await;
        assert_eq!(self::stopped(crew).await, Ok(stopped.clone()), "it stays so");
        assert_eq!(rolls.order().into_iter().collect::<BTreeSet<_>>(), stopped, "nobody else began");
        assert_eq!(rolls.most_at_once(""), 2);
        assert!(crew.pods().await.is_superset(&pods), "those that serve are untouched");

        helm::go_back(number).await;
        crew.until_on(&crew.bridge).await;
        crew.until_as_at_first().await;
        assert_eq!(crew.pods().await, pods, "the same pods served all the while");
        rolls.end().await;
    })
    .await;
}

/// The servers that cannot get it, where they are two and the others wait for them.
async fn stopped(crew: &Crew) -> Result<BTreeSet<String>, String> {
    let (mut stopped, mut waiting, mut seen) = (BTreeSet::new(), 0, Vec::new());
    for name in NAMES {
        let conditions = crew.server(name).await?.status.map(|status| status.conditions).unwrap_or_default();
        if !is_true(&conditions, "Available") {
            return Err(format!("{name} is not available: {conditions:?}"));
        }
        let [ready, progressing] = ["Ready", "Progressing"].map(|type_| find(&conditions, type_).cloned());
        if ready.as_ref().is_some_and(|ready| ready.status == "False" && ready.reason == "ImagePullFailed") {
            stopped.insert(name.to_owned());
        } else if is_true(&conditions, "Ready") && progressing.as_ref().is_some_and(|said| said.message.contains(WAITS))
        {
            waiting += 1;
        }
        seen.push((name, ready, progressing));
    }
    let turns = turns(&crew.cluster).await?;
    if stopped.len() == 2 && waiting == 2 && turns == [2, 2] { Ok(stopped) } else { Err(format!("{turns:?} {seen:?}")) }
}

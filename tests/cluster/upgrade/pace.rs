//! A release that works: another image of the bridge, with the same program in it.

use portolan_tests::cluster::TENANT;
use portolan_tests::helm;
use portolan_tests::images::Image;
use portolan_tests::tidy::finally;
use portolan_tests::wait::{PATIENCE, until};
use serde_json::json;

use crate::crew::{Crew, NAMES};
use crate::rolls::Rolls;
use crate::{turns, with_a_crew};

const TAG: &str = "upgraded";

#[tokio::test]
async fn servers_roll_to_another_bridge_one_after_the_other_but_for_one_that_its_author_edits_and_no_call_fails() {
    with_a_crew(async |crew, number| {
        let image = Image::of_bridge(TAG).await;
        // It is needed until nobody runs it any more.
        let body = async {
            rolls(crew).await;
            helm::go_back(number).await;
            crew.until_on(&crew.bridge).await;
        };
        finally(body, image.remove()).await;
        until("nobody rolls any more", PATIENCE, || async {
            let turns = turns(&crew.cluster).await?;
            if turns == [0, 0] { Ok(()) } else { Err(format!("{turns:?}")) }
        })
        .await;
    })
    .await;
}

async fn rolls(crew: &Crew) {
    let rolls = Rolls::watch(&crew.cluster).await;
    helm::set(&format!("bridge.image.tag={TAG},operator.releaseRollouts=1")).await;
    until("one rolls and three wait", PATIENCE, || async {
        let (turns, begun) = (turns(&crew.cluster).await?, rolls.order());
        if turns == [1, 3] && begun.len() == 1 { Ok(()) } else { Err(format!("{turns:?} {begun:?}")) }
    })
    .await;
    // Those who wait are woken by their names: its turn would be the last one.
    let begun = rolls.order();
    let edited = NAMES.into_iter().rfind(|name| !begun.iter().any(|begun| begun == name)).expect("one waits");
    crew.cluster.patch_spec(TENANT, edited, &json!({"container": {"env": [{"name": "EDIT", "value": "1"}]}})).await;

    let (repository, _) = crew.bridge.rsplit_once(':').expect("an image has a tag");
    crew.until_on(&format!("{repository}:{TAG}")).await;
    for (name, first) in &crew.first {
        assert_ne!(crew.cluster.serving_revision(TENANT, name).await, *first, "{name} has other pods");
    }
    let order = rolls.order();
    println!("rolled in this order: {order:?}; {edited} was edited");
    assert_eq!(rolls.most_at_once(edited), 1, "one at a time");
    assert!(
        order.len() == NAMES.len() && order.last().is_some_and(|last| last != edited),
        "it did not wait: {order:?}"
    );
    for waiting in &order[1..] {
        rolls.assert_waited(waiting);
    }
    rolls.end().await;
}

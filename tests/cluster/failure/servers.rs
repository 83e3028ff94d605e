//! Pods of a server that are replaced, or become more and fewer.

use crate::{amount, on_a_stand, rate, report};

#[tokio::test]
async fn an_edit_that_replaces_both_pods_of_a_server_fails_no_call_and_sessions_live_to_their_end() {
    on_a_stand("rolled-server", 2, async |stand| {
        let load = stand.load(rate()).await;
        let times = amount(1, 3);
        for edit in 0..times {
            stand.edit(&edit.to_string()).await;
        }
        let tally = load.stop().await;
        report(&format!("{times} edits that replace a server's pods"), &tally);
        tally.assert_nothing_failed();
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_scaled_from_one_to_five_and_back_fails_no_call_and_loses_no_session() {
    on_a_stand("scaled-server", 1, async |stand| {
        let load = stand.load(rate()).await;
        for _ in 0..amount(1, 3) {
            stand.scale(5).await;
            stand.scale(1).await;
        }
        let tally = load.stop().await;
        report("scaled 1 → 5 → 1", &tally);
        tally.assert_nothing_failed();
    })
    .await;
}

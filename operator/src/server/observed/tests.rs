use super::*;
use crate::server::fixtures::{self, pod};

fn observed(pods: Vec<Pod>) -> Observed {
    Observed { deployments: vec![fixtures::draining_deployment("old")], pods, ..fixtures::nothing() }
}

fn old(observed: &Observed) -> Existing {
    observed.revisions().remove(0)
}

#[test]
fn what_happened_to_a_revision_is_read_from_its_deployment() {
    let old = old(&observed(Vec::new()));
    assert_eq!((old.generation, old.replicas, old.pods, old.verified), (2, 2, 0, 0));
    assert_eq!(old.serving_since, Some(Timestamp::from_second(1).unwrap()));
    assert_eq!(old.draining_since, Some(Timestamp::from_second(960).unwrap()));
}

#[test]
fn a_revision_has_its_own_pods_and_those_that_answer_are_ready() {
    let observed = observed(vec![pod("p", "old", true), pod("q", "old", false), pod("r", "new", true)]);
    assert_eq!((old(&observed).pods, old(&observed).verified), (2, 1));
}

#[test]
fn a_pod_that_is_told_to_end_takes_no_sessions() {
    let mut leaving = pod("p", "old", true);
    leaving.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
    let old = old(&observed(vec![leaving]));
    assert_eq!((old.verified, old.pods), (0, 1));
}

use std::collections::BTreeMap;

use portolan_snapshot::report::{CONTRACT, FailingPod, Kind, Loaded};

use super::*;
use crate::gateways::{Gateway, Replica};

const GATEWAY: &str = "platform/default";

fn server() -> MCPServer {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "portolan.dev/v1alpha1", "kind": "MCPServer",
        "metadata": {"name": "s", "namespace": "team", "uid": "u", "generation": 3},
        "spec": {"container": {"image": "i", "transport": "Stdio", "command": ["c"]}},
    }))
    .unwrap()
}

fn replica(name: &str, ready: bool) -> Replica {
    Replica { name: name.into(), uid: format!("uid-{name}"), ip: "10.0.0.1".into(), ready }
}

fn view(replicas: Vec<Replica>) -> LoadedView {
    let gateways = Arc::new(Gateways::default());
    gateways.set(GATEWAY, Some(&Gateway { url: "http://g".into(), ..Gateway::default() }));
    gateways.set_replicas("platform", BTreeMap::from([(GATEWAY.to_owned(), replicas)]));
    LoadedView::new(gateways)
}

fn report(generation: i64, revision: &str) -> Report {
    let loaded = Loaded { uid: "u".into(), generation, revision: Some(revision.into()), canary: None, ready_pods: 1 };
    let server = ServerReport { loaded: Some(loaded), ..ServerReport::default() };
    Report {
        contract: CONTRACT,
        kind: Kind::Whole,
        snapshot: 1,
        gateway: None,
        servers: BTreeMap::from([("team/s".to_owned(), server)]),
        removed: Vec::new(),
    }
}

fn waits_for(view: &LoadedView) -> String {
    match view.programmed(&server(), &Sending::to(Some("s-1")), true) {
        Programmed::Waiting(message) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn programmed_is_yes_when_every_ready_replica_has_this_generation_and_revision() {
    let view = view(vec![replica("a", true), replica("b", true), replica("starting", false)]);
    assert!(waits_for(&view).contains("replica a of gateway platform/default has not reported"));
    view.take("uid-a", report(3, "s-1")).unwrap();
    assert!(waits_for(&view).contains("replica b"));
    view.take("uid-b", report(2, "s-1")).unwrap();
    assert!(waits_for(&view).contains("generation 2, not 3"));
    view.take("uid-b", report(3, "s-0")).unwrap();
    assert!(waits_for(&view).contains("revision s-0, not s-1"));
    let mut without_pods = report(3, "s-1");
    without_pods.servers.get_mut("team/s").and_then(|server| server.loaded.as_mut()).unwrap().ready_pods = 0;
    view.take("uid-b", without_pods).unwrap();
    assert!(waits_for(&view).contains("no ready pod"));
    view.take("uid-b", report(3, "s-1")).unwrap();
    assert_eq!(view.programmed(&server(), &Sending::to(Some("s-1")), true), Programmed::Yes);
    assert_eq!(view.forget("uid-b"), ["team/s"]);
    assert!(waits_for(&view).contains("replica b"));
}

#[test]
fn a_server_that_no_gateway_selects_and_a_gateway_without_replicas_are_told_apart() {
    assert!(waits_for(&view(Vec::new())).contains("no ready replica"));
    let nobody = LoadedView::new(Arc::new(Gateways::default()));
    assert_eq!(nobody.programmed(&server(), &Sending::to(Some("s-1")), true), Programmed::NoGateway);
}

#[test]
fn an_object_made_anew_under_the_same_name_is_not_taken_for_the_old_one() {
    let view = view(vec![replica("a", true)]);
    view.take("uid-a", report(3, "s-1")).unwrap();
    let mut anew = server();
    anew.metadata.uid = Some("other".into());
    assert!(matches!(view.programmed(&anew, &Sending::to(Some("s-1")), true), Programmed::Waiting(_)));
}

#[test]
fn what_replicas_say_of_pods_whose_calls_fail_is_news_and_the_first_that_says_so_is_named() {
    let view = view(vec![replica("a", true), replica("b", true)]);
    view.take("uid-a", report(3, "s-1")).unwrap();
    view.take("uid-b", report(3, "s-1")).unwrap();
    assert_eq!(view.failing(&server()), BTreeMap::new());
    let pod = FailingPod { name: "s-1-x".into(), kind: "RequestTimeout".into() };
    let failing = || BTreeMap::from([("team/s".to_owned(), BTreeMap::from([("uid-x".to_owned(), pod.clone())]))]);
    for uid in ["uid-b", "uid-a"] {
        let line = report(3, "s-1").with_failing(failing()).since(&report(3, "s-1"));
        assert_eq!(view.take(uid, line).unwrap().0, ["team/s"]);
    }
    let complaint = Complaint { replica: "a".into(), gateway: GATEWAY.into(), kind: "RequestTimeout".into() };
    assert_eq!(view.failing(&server()), BTreeMap::from([("uid-x".to_owned(), complaint)]));
    view.forget("uid-a");
    assert_eq!(view.failing(&server())["uid-x"].replica, "b");
    view.take("uid-b", report(3, "s-1")).unwrap();
    assert_eq!(view.failing(&server()), BTreeMap::new(), "its calls are answered again");
}

#[test]
fn only_what_changed_is_news() {
    let view = view(vec![replica("a", true)]);
    assert_eq!(view.take("uid-a", report(3, "s-1")).unwrap(), (vec!["team/s".to_owned()], false));
    assert_eq!(view.take("uid-a", report(3, "s-1")).unwrap(), (Vec::new(), false));
    let heartbeat = report(3, "s-1").heartbeat();
    assert_eq!(view.take("uid-a", heartbeat.clone()).unwrap(), (Vec::new(), false));
    assert!(view.take("uid-unknown", heartbeat).is_err());
}

#[test]
fn calls_in_flight_are_those_of_every_replica_of_the_gateways_that_serve_and_one_that_does_not_say_is_missed() {
    let view = view(vec![replica("a", true), replica("b", true), replica("leaving", false)]);
    let busy = |calls: Option<u32>| {
        let mut report = report(3, "s-1");
        report.servers.get_mut("team/s").unwrap().in_flight = calls;
        report
    };
    let gateways = [GATEWAY.to_owned()];
    let read = || view.in_flight("team", "s", &gateways);
    view.take("uid-a", busy(Some(3))).unwrap();
    assert_eq!(read(), Reading { least: 3, is_whole: false }, "b has not reported");
    view.take("uid-b", busy(None)).unwrap();
    assert_eq!(read(), Reading { least: 3, is_whole: false }, "b is of a release that does not count");
    view.take("uid-b", busy(Some(4))).unwrap();
    assert_eq!(read(), Reading { least: 7, is_whole: true });
    view.take("uid-leaving", busy(Some(2))).unwrap();
    assert_eq!(read(), Reading { least: 9, is_whole: true }, "it still works on two");
    assert_eq!(view.in_flight("team", "s", &[]), Reading::default(), "nobody serves it");
    assert_eq!(view.in_flight("team", "s", &["platform/other".to_owned()]), Reading { least: 0, is_whole: true });
}

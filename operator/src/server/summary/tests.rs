use portolan_crds::server::RevisionState::{Draining, Serving};

use super::*;
use crate::server::{
    fixtures::{self, pod},
    validate,
};

fn status(server: &MCPServer, observed: &Observed, serving: &str) -> MCPServerStatus {
    let validated = validate::validate(server, "everything", observed);
    let revisions = vec![fixtures::planned("everything-old", Draining, 1), fixtures::planned(serving, Serving, 1)];
    let plan = Plan { revisions, delete: Vec::new() };
    Outcome {
        server,
        validated: &validated,
        observed,
        plan: &plan,
        desired: Some(serving),
        tool_changes: None,
        is_put_off: false,
    }
    .status()
}

fn answering() -> Observed {
    let pods = vec![pod("p", "everything-new", true), pod("q", "everything-old", true)];
    let probes = [("p".to_owned(), fixtures::well())].into();
    let endpoints = vec![("platform/default".to_owned(), "http://gateway/tools/everything/mcp".to_owned())];
    Observed { pods, probes, endpoints, ..fixtures::nothing() }
}

#[test]
fn the_status_says_what_the_serving_revision_is_and_where_it_is_reached() {
    let status = status(&fixtures::stdio(), &answering(), "everything-new");
    assert_eq!(status.server.unwrap().name, "found");
    assert_eq!(status.tools.unwrap().count, 2);
    assert_eq!((status.replicas, status.ready_replicas), (2, 1), "all pods, and those of the serving revision");
    assert_eq!(status.endpoints[0].url, "http://gateway/tools/everything/mcp");
    assert_eq!(status.selector.as_deref(), Some("portolan.dev/server=everything"));
    let weights: Vec<_> = status.revisions.iter().map(|revision| (revision.name.as_str(), revision.weight)).collect();
    assert_eq!(weights, [("everything-old", 0), ("everything-new", 100)]);
}

#[test]
fn the_status_says_which_eras_a_server_speaks() {
    use portolan_crds::server::Era;
    use portolan_mcp::revision;

    for (found, shown) in
        [(revision::Era::Legacy, Era::Legacy), (revision::Era::Modern, Era::Modern), (revision::Era::Both, Era::Both)]
    {
        let mut observed = answering();
        for probe in observed.probes.values_mut() {
            probe.server.as_mut().unwrap().era = found;
        }
        assert_eq!(status(&fixtures::stdio(), &observed, "everything-new").server.unwrap().era, shown);
    }
}

#[test]
fn what_a_server_said_is_remembered_while_its_revision_serves_and_no_longer() {
    let mut server = fixtures::stdio();
    server.status = Some(status(&server, &answering(), "everything-new"));
    let silent = Observed { probes: std::collections::BTreeMap::new(), ..answering() };
    assert_eq!(status(&server, &silent, "everything-new").server, server.status.clone().unwrap().server);
    let next = status(&server, &silent, "everything-next");
    assert_eq!((next.server, next.tools), (None, None));
}

//! The protocol's conformance suite for clients, played by a bridge: what reaches the suite's servers is what a bridge makes
//! of the visits of a client of the other era, and of its own probes.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use portolan_tests::suite;

/// Uses whatever a server offers, through `portolan dev`.
const VISITOR: &str = env!("CARGO_BIN_EXE_portolan-visitor");

/// One scenario, and what goes otherwise than the suite would have it, and may.
struct Scenario {
    revision: &'static str,
    name: &'static str,
    passed: usize,
    unlike: &'static [&'static str],
}

const SCENARIOS: &[Scenario] = &[
    Scenario { revision: "2025-11-25", name: "initialize", passed: 2, unlike: &[] },
    Scenario { revision: "2025-11-25", name: "tools_call", passed: 2, unlike: &[] },
    Scenario { revision: "2025-11-25", name: "sse-retry", passed: 3, unlike: &[] },
    Scenario { revision: "2025-11-25", name: "json-schema-2020-12-preservation", passed: 9, unlike: &[] },
    Scenario { revision: "2026-07-28", name: "tools_call", passed: 2, unlike: &[] },
    Scenario { revision: "2026-07-28", name: "request-metadata", passed: 5, unlike: PROBED_META },
    Scenario { revision: "2026-07-28", name: "sep-2322-client-request-state", passed: 5, unlike: &[] },
    Scenario { revision: "2026-07-28", name: "http-standard-headers", passed: 9, unlike: PROBED_HEADERS },
    Scenario { revision: "2026-07-28", name: "http-custom-headers", passed: 18, unlike: &[] },
    Scenario { revision: "2026-07-28", name: "http-invalid-tool-headers", passed: 12, unlike: &[] },
    Scenario { revision: "2026-07-28", name: "json-schema-ref-no-deref", passed: 1, unlike: &[] },
    Scenario { revision: "2026-07-28", name: "json-schema-2020-12-preservation", passed: 9, unlike: &[] },
];

/// The probe asks every server for a session first, as the earlier era has it: that request has neither.
const PROBED_META: &[&str] = &[
    "request-metadata sep-2575-client-populates-meta ClientPopulatesMeta: [Failure]",
    "request-metadata sep-2575-client-sends-client-info ClientSendsClientInfo: [Warning]",
    "request-metadata sep-2575-http-client-sends-version-header ClientSendsVersionHeader: [Failure]",
];
const PROBED_HEADERS: &[&str] =
    &["http-standard-headers sep-2243-client-includes-standard-headers ClientMcpMethodHeader_initialize: [Failure]"];

/// Beginnings of scenarios that a bridge cannot play, and why.
const NOT_PLAYED: [(&str, &str); 2] = [
    ("auth/", "a bridge has no OAuth client: it shows the credential that its server was given"),
    (
        "elicitation-sep1034-client-defaults",
        "what a user answers is the client's behind the bridge, and passes as it is",
    ),
];

#[test]
fn every_scenario_that_is_required_of_clients_is_played_or_says_why_not() {
    for revision in ["2025-11-25", "2026-07-28"] {
        for name in suite::required_of_clients(revision) {
            let played = SCENARIOS.iter().any(|scenario| scenario.revision == revision && scenario.name == name);
            let told = NOT_PLAYED.iter().any(|(beginning, _)| name.starts_with(beginning));
            assert!(played != told, "{revision} {name}: played {played}, told why not {told}");
        }
    }
}

#[tokio::test]
async fn a_bridge_is_the_client_that_the_suite_asks_for() {
    let mut wrong = Vec::new();
    for Scenario { revision, name, passed, unlike } in SCENARIOS {
        let findings = suite::play(revision, name, VISITOR).await;
        let faults = findings.faults();
        let lines: Vec<_> = faults.iter().map(|fault| &*fault.line).collect();
        if lines != *unlike || findings.passed() != *passed {
            let said: String = faults.iter().map(|fault| format!("\n  {fault}")).collect();
            wrong.push(format!("{revision} {name}: {} passed, not {passed}{said}", findings.passed()));
        }
    }
    assert!(wrong.is_empty(), "not what was to be expected:\n{}", wrong.join("\n"));
}

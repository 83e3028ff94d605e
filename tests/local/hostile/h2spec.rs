//! What HTTP/2 demands of servers: `h2spec`, on the port that speaks HTTP/1.1 too. What goes otherwise is in [`FAILS`].

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use portolan_tests::paths;
use portolan_tests::wait::PATIENCE;
use tokio::process::Command;

use crate::stand::{MIB, Stand};

/// How many cases the suite has. Another number is another version of it.
const CASES: usize = 146;

/// A case: section and title.
type Case = (String, String);

/// Cases that fail.
const FAILS: [(&str, &str); 1] = [
    // What does not begin as HTTP/2 does is HTTP/1.1, and is answered in it with 400 before the connection ends. The suite
    // takes every byte for a frame.
    ("http2/3.5", "Sends invalid connection preface"),
];

/// How often a case may be tried. The suite has no credential, and what it sends is refused before its body has come: where
/// that answer is faster than what is wrong with the rest, its stream has ended by then, and the suite hears no more of it.
/// That happens to any of some ten cases in one run of ten; what fails each time is wrong.
const TRIES: usize = 12;

#[tokio::test]
async fn every_case_of_http2_passes_beside_http1() {
    let stand = Stand::start().await;
    let fails = BTreeSet::from(FAILS.map(|(section, title)| (section.to_owned(), title.to_owned())));
    let attack = async {
        let mut failed = run(&stand.gateway).await;
        for _ in 1..TRIES {
            if failed != fails {
                let again = run(&stand.gateway).await;
                failed.retain(|case| again.contains(case));
            }
        }
        failed
    };
    assert_eq!(stand.during(MIB, attack).await, fails);
    stand.end().await;
}

/// Runs the suite, and returns which cases have failed.
async fn run(gateway: &str) -> BTreeSet<Case> {
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("report.xml");
    let (host, port) = gateway.rsplit_once(':').expect("an address and a port");
    let suite = Command::new(paths::repo("target/thirdparty/bin/h2spec"))
        .args(["--strict", "--timeout", "2", "--path", "/default/everything/mcp", "--host", host, "--port", port])
        .arg("--junit-report")
        .arg(&report)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(PATIENCE, suite).await.expect("the suite ends in time").expect("the suite starts");
    let report = std::fs::read_to_string(&report)
        .unwrap_or_else(|error| panic!("no report ({error}): {}", String::from_utf8_lossy(&output.stdout)));
    let cases = read(&report);
    assert_eq!(cases.len(), CASES, "another version of the suite has other cases: look at what they show");
    cases.into_iter().filter(|(_, passed)| !passed).map(|(case, _)| case).collect()
}

/// Reads the suite's report: one element for each case, with another one in it unless it passed.
fn read(report: &str) -> BTreeMap<Case, bool> {
    let cases = report.split("<testcase ").skip(1).map(|rest| rest.split("</testcase>").next().unwrap_or(rest));
    cases
        .map(|case| {
            let (head, body) = case.split_once('>').expect("an element");
            let attribute = |name: &str| {
                let value = head.split_once(&format!(r#"{name}=""#)).and_then(|(_, rest)| rest.split_once('"'));
                value.expect("an attribute of every case").0.to_owned()
            };
            ((attribute("package"), attribute("classname")), !body.contains('<'))
        })
        .collect()
}

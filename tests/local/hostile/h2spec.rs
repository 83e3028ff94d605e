//! What HTTP/2 demands of servers: `h2spec`, on the port that speaks HTTP/1.1 too. What may go otherwise is in [`FAILS`]
//! and [`MAY_FAIL`].

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use portolan_tests::paths;
use portolan_tests::wait::PATIENCE;
use tokio::process::Command;

use crate::stand::{MIB, Stand};

/// How many cases the suite has. Another number is another version of it.
const CASES: usize = 146;

/// Cases that fail, as section and title.
const FAILS: [(&str, &str); 1] = [
    // What does not begin as HTTP/2 does is HTTP/1.1, and is answered in it with 400 before the connection ends. The suite
    // takes every byte for a frame.
    ("http2/3.5", "Sends invalid connection preface"),
];

/// Cases that pass or fail by who is faster.
const MAY_FAIL: [(&str, &str); 1] = [
    // An answer that was under way when its stream was taken back is all that the suite hears: h2 has forgotten the stream
    // by then and lets pass what belongs to it, as it must for frames that crossed its own reset.
    ("http2/5.1", "closed: Sends a HEADERS frame after sending RST_STREAM frame"),
];

/// A case, and whether it passed.
type Findings = BTreeMap<(String, String), bool>;

#[tokio::test]
async fn every_case_of_http2_passes_beside_http1() {
    let stand = Stand::start().await;
    let findings = stand.during(MIB, run(&stand.gateway)).await;
    assert_eq!(findings.len(), CASES, "another version of the suite has other cases: look at what they show");
    let case = |(section, title): (&str, &str)| (section.to_owned(), title.to_owned());
    let may_fail = MAY_FAIL.map(case);
    let failed: BTreeSet<_> = findings
        .into_iter()
        .filter(|(case, passed)| !passed && !may_fail.contains(case))
        .map(|(case, _)| case)
        .collect();
    assert_eq!(failed, FAILS.map(case).into());
    stand.end().await;
}

async fn run(gateway: &str) -> Findings {
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("report.xml");
    let (host, port) = gateway.rsplit_once(':').expect("an address and a port");
    let suite = Command::new(paths::repo("target/thirdparty/bin/h2spec"))
        .args(["--strict", "--timeout", "5", "--path", "/default/everything/mcp", "--host", host, "--port", port])
        .arg("--junit-report")
        .arg(&report)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(PATIENCE, suite).await.expect("the suite ends in time").expect("the suite starts");
    let report = std::fs::read_to_string(&report)
        .unwrap_or_else(|error| panic!("no report ({error}): {}", String::from_utf8_lossy(&output.stdout)));
    read(&report)
}

/// Reads the suite's report: one element for each case, with another one in it unless it passed.
fn read(report: &str) -> Findings {
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

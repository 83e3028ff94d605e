//! The protocol's own conformance suite, run against a URL or a client, and what it found.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use crate::paths;

/// Longest time that a run takes: its own limit is 30 s for each scenario, and all of them together take ten.
const LIMIT: Duration = Duration::from_secs(120);

/// What a run found, check by check.
#[derive(Debug, Default)]
pub struct Findings(BTreeMap<Check, Found>);

/// A check: one id may stand for several, which have names of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Check {
    scenario: String,
    id: String,
    name: String,
}

/// How a check went, each time that it was made.
#[derive(Debug, Default)]
struct Found {
    statuses: Vec<Status>,
    errors: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Success,
    Failure,
    Warning,
    Skipped,
    Info,
}

/// A check as the suite writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    id: String,
    name: String,
    status: Status,
    error_message: Option<String>,
}

/// A check that went otherwise than it should, or than in another run.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// Scenario, check and how it went, in both runs where there are two.
    pub line: String,
    /// What the suite says of it.
    pub said: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.said)
    }
}

/// Runs what a protocol revision requires of servers, and what the suite has for it beyond that.
///
/// # Panics
/// The suite does not run to its end.
pub async fn run(revision: &str, url: &str) -> Findings {
    conformance(&["server", "--requirements", revision, "--url", url]).await
}

/// Lets the client `command` play one scenario of a protocol revision. It gets the URL of a server as its last argument.
///
/// # Panics
/// The suite does not run to its end.
pub async fn play(revision: &str, scenario: &str, command: &str) -> Findings {
    conformance(&["client", "--spec-version", revision, "--scenario", scenario, "--command", command]).await
}

/// The scenarios that a protocol revision requires of clients.
///
/// # Panics
/// The suite does not say.
#[must_use]
pub fn required_of_clients(revision: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Requirements {
        client: Vec<String>,
    }
    let package = "target/thirdparty/npm/conformance/node_modules/@modelcontextprotocol/conformance";
    let file = paths::repo(package).join(format!("requirements/{revision}.yaml"));
    let text = std::fs::read_to_string(file).expect("requirements");
    serde_saphyr::from_str::<Requirements>(&text).expect("requirements").client
}

async fn conformance(args: &[&str]) -> Findings {
    let folder = tempfile::tempdir().expect("a folder");
    let bin = paths::repo("target/thirdparty/bin");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let suite = Command::new(bin.join("conformance"))
        .args(args)
        .arg("--output-dir")
        .arg(folder.path().join("results"))
        .env("PATH", path)
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, suite).await.expect("the suite ends in time").expect("the suite starts");
    let findings = Findings::read(&folder.path().join("results"));
    // It ends with 1 for a failed check, and for anything else that went wrong too.
    assert!(
        output.status.success() || !findings.faults().is_empty(),
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    findings
}

impl Findings {
    /// Reads one folder for each scenario, `SCENARIO-TIME` or `server-SCENARIO-TIME`, with a list of checks in it.
    fn read(results: &Path) -> Self {
        let mut findings = Self::default();
        for folder in std::fs::read_dir(results).expect("the suite wrote results") {
            let folder = folder.expect("a folder").path();
            let name = folder.file_name().and_then(|name| name.to_str()).expect("a name");
            let (scenario, _) = name.split_at(name.len() - "-2026-07-28T00-00-00-000Z".len());
            let scenario = scenario.strip_prefix("server-").unwrap_or(scenario);
            let text = std::fs::read(folder.join("checks.json")).expect("checks");
            for check in serde_json::from_slice::<Vec<Written>>(&text).expect("a list of checks") {
                let key = Check { scenario: scenario.to_owned(), id: check.id, name: check.name };
                let found = findings.0.entry(key).or_default();
                found.statuses.push(check.status);
                found.errors.extend(check.error_message);
            }
        }
        for found in findings.0.values_mut() {
            found.statuses.sort();
        }
        findings
    }

    /// How many checks were passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.count(Status::Success)
    }

    fn count(&self, status: Status) -> usize {
        self.0.values().flat_map(|found| &found.statuses).filter(|found| **found == status).count()
    }

    /// Every check that was failed, or passed with a warning.
    #[must_use]
    pub fn faults(&self) -> Vec<Difference> {
        let fault = |status: &Status| matches!(status, Status::Failure | Status::Warning);
        let faulty = self.0.iter().filter(|(_, found)| found.statuses.iter().any(fault));
        faulty
            .map(|(check, found)| Difference {
                line: format!("{check}: {:?}", found.statuses),
                said: found.errors.join("; "),
            })
            .collect()
    }

    /// Every check that went otherwise than in `direct`. What the suite only notes may come otherwise each time.
    #[must_use]
    pub fn unlike(&self, direct: &Self) -> Vec<Difference> {
        let none = Found::default();
        let checks: std::collections::BTreeSet<_> = direct.0.keys().chain(self.0.keys()).collect();
        let pairs = checks
            .into_iter()
            .map(|check| (check, direct.0.get(check).unwrap_or(&none), self.0.get(check).unwrap_or(&none)));
        let noted = |found: &Found| found.statuses.iter().all(|status| *status == Status::Info);
        pairs
            .filter(|(_, there, here)| there.statuses != here.statuses && !(noted(there) && noted(here)))
            .map(|(check, there, here)| Difference {
                line: format!("{check}: {:?} by itself, {:?} here", there.statuses, here.statuses),
                said: here.errors.join("; "),
            })
            .collect()
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.scenario, self.id, self.name)
    }
}

//! `portolan canary run`: one round of a server's checks, as a caller of its endpoint.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use portolan_canary::{Check, Checks, Endpoint, Outcome, round};
use serde_json::{Value, json};

use super::source::{PlaceArgs, Source};
use crate::client::connection::{self, Access};
use crate::exit::{Exit, Failure, print};
use crate::table;

/// Make the canary checks of a server now.
///
/// They are asked at the server's endpoint, with your credential: what comes back is what you would get. The operator
/// makes the same checks at every pod by itself and says in the server's status what it finds.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portolan canary run quickstart -f examples/quickstart
  portolan canary run quickstart --url http://127.0.0.1:8080/default/quickstart/mcp \\
    --token \"$(kubectl create token default --audience portolan)\"
  portolan canary run quickstart -o json | jq -r '.[] | select(.result != \"passed\").check'

Exit codes: 0 every check passed, 1 usage, 2 a check failed, 4 a check could not be made, 6 denied by the API server

--timeout is for the session, and for each answer of which the check does not say how long it may take.")]
pub(crate) struct RunArgs {
    /// Name of the MCPServer
    server: String,

    #[command(flatten)]
    place: PlaceArgs,

    #[command(flatten)]
    access: Access,

    /// Output format
    #[arg(long, short, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

impl RunArgs {
    /// Whether failures are told as JSON.
    pub(crate) fn json(&self) -> bool {
        self.output == Output::Json
    }
}

pub(super) async fn run(args: &RunArgs) -> Result<(), Failure> {
    let Source { name, server, url } = args.place.find(&args.server).await?;
    let Some(checks) = &server.spec.canary_checks else {
        return Err(Failure::usage(format!("MCPServer {name} has no canary checks"))
            .hint("write some into spec.canaryChecks: kubectl explain mcpserver.spec.canaryChecks"));
    };
    let checks = Checks::read(checks).map_err(|bad| Failure::usage(format!("MCPServer {name}: {bad}")))?;
    let endpoint = Endpoint {
        client: connection::http_client()?,
        url: Arc::from(url.as_str()),
        token: connection::credential(&args.access)?,
        headers: connection::headers(&args.access)?,
        protocol: args.access.protocol.into(),
        limit: args.access.timeout.as_std(),
    };
    let outcomes = round(endpoint, &checks).await;
    let told: Vec<_> = checks.checks.iter().zip(&outcomes).collect();
    if args.json() {
        let all: Value = told.iter().map(|(check, outcome)| as_json(check, outcome)).collect();
        print(&format!("{all:#}\n"))?;
    } else {
        print(&table::render(
            ["CHECK", "RESULT", "TOOK", "DETAIL"],
            told.iter().map(|(check, outcome)| row(check, outcome)),
        ))?;
    }
    verdict(&outcomes, &url)
}

fn row(check: &Check, outcome: &Outcome) -> [String; 4] {
    let [result, took, detail] = match outcome {
        Outcome::Passed(took) => ["passed".into(), format!("{} ms", took.as_millis()), String::new()],
        Outcome::Failed(failed) => {
            ["FAILED".into(), String::new(), format!("expected {}, got {}", failed.expected, failed.got)]
        }
        Outcome::NotRun(why) => ["not made".into(), String::new(), why.clone()],
    };
    [check.name.clone(), result, took, detail]
}

fn as_json(check: &Check, outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Passed(took) => json!({"check": check.name, "result": "passed", "milliseconds": took.as_millis()}),
        Outcome::Failed(failed) => json!({
            "check": check.name,
            "result": "failed",
            "cause": failed.cause.as_str(),
            "expected": failed.expected,
            "got": failed.got,
        }),
        Outcome::NotRun(why) => json!({"check": check.name, "result": "notMade", "why": why}),
    }
}

/// A wrong answer is worse than none.
fn verdict(outcomes: &[Outcome], url: &reqwest::Url) -> Result<(), Failure> {
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let not_run = count(|outcome| matches!(outcome, Outcome::NotRun(_)));
    let all = outcomes.len();
    if failed > 0 {
        return Err(Failure::new(Exit::Negative, format!("{failed} of {all} canary checks failed")));
    }
    if not_run > 0 {
        let failure =
            Failure::new(Exit::Unreachable, format!("{not_run} of {all} canary checks could not be made at {url}"));
        return Err(failure
            .hint("is it reached from here? --url names another way to it, --token and --api-key say who you are"));
    }
    Ok(())
}

//! `portolan canary agent`: puts the canary question to an agent, and tells whether it read the answer or made it up.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use clap::{Args, ValueEnum};
use portolan_canary::Nonce;
use portolan_mcp::canary::{NAME, URI, batch, document};
use rmcp::model::{ReadResourceRequestParams, ResourceContents};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::record::Record;
use super::server::TOOL;
use super::source::{PlaceArgs, Source};
use crate::client::connection::{self, Access, Target};
use crate::exit::{Exit, Failure, note, print};

/// Stands for the question in the agent's command.
const QUESTION: &str = "{question}";
/// Stands for the endpoint's URL there.
const ENDPOINT: &str = "{url}";
/// Longest answer that is judged, in bytes: what an agent prints beyond it is left out.
const MAX_ANSWER: usize = 1024 * 1024;

/// Put the canary question to an agent, and tell whether it asked the server or made its answer up.
///
/// The question is about the document "Saint Anthony" of a server with `canaryChecks.document: SaintAnthony`, under a ticket that was
/// never used. The document has a batch number for each ticket that nothing else says: an answer with it was read there. Of
/// one without it the gateway's access log tells whether the server was asked at all.
///
/// The question comes in the place of {question} in the command, or on standard input where there is none; {url} is the server's
/// endpoint. PORTOLAN_CANARY_QUESTION and PORTOLAN_CANARY_URL have the same. What the command prints is its answer.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portolan canary agent --server docs -- my-agent --mcp {url} --prompt {question}
  portolan canary agent --server docs -f . --access-log dev.log -- ./ask.sh

Exit codes: 0 the agent read the document, 1 usage, 2 it did not, 3 a credential is needed, 4 server or agent unreachable, 6 denied

--timeout is for the look at the server before the agent is asked, --patience for the agent.")]
pub(crate) struct AgentArgs {
    /// Name of the MCPServer
    #[arg(long)]
    server: String,

    #[command(flatten)]
    place: PlaceArgs,

    #[command(flatten)]
    access: Access,

    /// How long the agent may take
    #[arg(long, default_value = "5m")]
    patience: portolan_crds::Duration,

    /// The log of `portolan --log-level info dev`, where the server is one of its: in the cluster the gateways' own are read
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,

    /// Output format
    #[arg(long, short, default_value = "text")]
    output: Output,

    /// The agent's command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl AgentArgs {
    /// Whether failures are told as JSON.
    pub(crate) fn json(&self) -> bool {
        self.output == Output::Json
    }
}

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The answer has what only the document says.
    Read,
    /// The server was asked, and the answer has nothing of what it said.
    AskedInVain,
    /// Nobody asked the server.
    MadeUp,
    /// The answer has nothing of the document, and nobody can tell whether the server was asked.
    NotRead,
}

impl Verdict {
    fn of(has_batch: bool, calls: Option<usize>) -> Self {
        match (has_batch, calls) {
            (true, _) => Self::Read,
            (false, Some(0)) => Self::MadeUp,
            (false, Some(_)) => Self::AskedInVain,
            (false, None) => Self::NotRead,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::AskedInVain => "askedInVain",
            Self::MadeUp => "madeUp",
            Self::NotRead => "notRead",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Read => "the agent read the document: its answer has the batch number that nothing else says",
            Self::AskedInVain => "the agent asked the server, and its answer has nothing of what it was told",
            Self::MadeUp => "the agent made its answer up: the gateway has recorded no call of it",
            Self::NotRead => "the agent's answer has nothing of the document",
        }
    }
}

pub(super) async fn run(args: &AgentArgs) -> Result<(), Failure> {
    let Source { name, server, url } = args.place.find(&args.server).await?;
    let target = Target::new(url.clone(), &args.access);
    let way = way(&target, &name).await?;
    let ticket = Nonce::fresh().map_err(|error| Failure::new(Exit::Negative, error.to_string()))?;
    let ticket = ticket.as_str();
    let record = match (&args.access_log, args.place.is_in_files()) {
        (Some(path), _) => Record::from_now_on(path),
        (None, true) => Record::None,
        (None, false) => Record::Cluster(&server),
    };
    let began = Instant::now();
    let answer = ask(args, &way.question(url.as_str(), ticket), url.as_str()).await?;
    let (field, value) = way.mark(ticket);
    let calls = record.count(&name, (field, &value), began.elapsed()).await;
    if let Err(why) = &calls {
        note(&format!("the gateway's record cannot be read: {why}"));
    }
    let calls = calls.ok();
    let verdict = Verdict::of(has_number(&answer, &batch(ticket)), calls);
    if args.json() {
        let told = json!({"verdict": verdict.as_str(), "calls": calls, "ticket": ticket, "answer": answer});
        print(&format!("{told:#}\n"))?;
    } else {
        print(&format!("{}\n", answer.trim_end()))?;
        if let Some(calls) = calls {
            note(&format!("The gateway recorded {calls} {}.", way.calls()));
        }
    }
    match verdict {
        Verdict::Read => {
            note(&format!("OK: {}.", verdict.message()));
            Ok(())
        }
        Verdict::AskedInVain | Verdict::MadeUp | Verdict::NotRead => {
            Err(Failure::new(Exit::Negative, verdict.message()))
        }
    }
}

/// Whether a text has a number, whichever way its digits are grouped.
fn has_number(text: &str, digits: &str) -> bool {
    let is_separator = |character: char| matches!(character, ' ' | ',' | '.' | '-' | '\'' | '\u{a0}' | '\u{202f}');
    text.replace(is_separator, "").contains(digits)
}

fn uri(ticket: &str) -> String {
    format!("{URI}/{ticket}")
}

/// How an agent gets at the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By a tool of the server: what every agent can do.
    Tool,
    /// By reading it as a resource.
    Resource,
}

impl Way {
    fn question(self, url: &str, ticket: &str) -> String {
        let how = match self {
            Self::Tool => format!("Call the tool {TOOL} with the ticket {ticket} at the MCP server {url}."),
            Self::Resource => format!("Read the resource {} of the MCP server {url}.", uri(ticket)),
        };
        format!(
            "{how} In one sentence: what is {NAME} there, and which batch number does it have under this ticket? Say so \
             if you cannot find out."
        )
    }

    /// Field and value of a line of the access log that tells of it. Of a tool's arguments there is nothing.
    fn mark(self, ticket: &str) -> (&'static str, String) {
        match self {
            Self::Tool => ("tool", TOOL.to_owned()),
            Self::Resource => ("resource", uri(ticket)),
        }
    }

    fn calls(self) -> &'static str {
        match self {
            Self::Tool => "calls of the tool meanwhile",
            Self::Resource => "reads of the document under this ticket",
        }
    }
}

/// Before an agent is blamed: how the document can be got at there.
async fn way(target: &Target, name: &str) -> Result<Way, Failure> {
    let ticket = "is-it-there";
    let found = connection::within(target, async |session| {
        let tools = crate::client::list_tools(target, session).await?;
        let read = session.read_resource(ReadResourceRequestParams::new(uri(ticket))).await;
        // A server that does not know it says so in words of its own.
        Ok((tools.iter().any(|tool| tool.name == TOOL), read.map(|result| result.contents).unwrap_or_default()))
    });
    let (has_tool, contents) = found.await?;
    let is_document = |contents: &ResourceContents| match contents {
        ResourceContents::TextResourceContents { text, .. } => *text == document(ticket),
        _ => false,
    };
    match (has_tool, contents.iter().any(is_document)) {
        (true, _) => Ok(Way::Tool),
        (false, true) => Ok(Way::Resource),
        (false, false) => Err(Failure::usage(format!("MCPServer {name} has no document \"{NAME}\""))
            .hint("write spec.canaryChecks.document: SaintAnthony")),
    }
}

/// What the agent prints.
async fn ask(args: &AgentArgs, question: &str, url: &str) -> Result<String, Failure> {
    let filled = |word: &OsString| match word.to_str() {
        Some(word) => OsString::from(word.replace(QUESTION, question).replace(ENDPOINT, url)),
        None => word.clone(),
    };
    let words: Vec<OsString> = args.command.iter().map(filled).collect();
    let takes_question = args.command.iter().any(|word| word.to_string_lossy().contains(QUESTION));
    let Some((program, rest)) = words.split_first() else { return Err(Failure::usage("there is no command after --")) };
    let shown = program.to_string_lossy().into_owned();
    let mut child = Command::new(program)
        .args(rest)
        .env("PORTOLAN_CANARY_QUESTION", question)
        .env("PORTOLAN_CANARY_URL", url)
        .stdin(if takes_question { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failure::usage(format!("the agent {shown} does not start: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // An agent that does not read it has it in its environment.
        let _ = stdin.write_all(format!("{question}\n").as_bytes()).await;
    }
    let patience = args.patience.as_std();
    let output = tokio::time::timeout(patience, child.wait_with_output()).await;
    let late =
        |_| Failure::new(Exit::Unreachable, format!("the agent {shown} did not answer within {}", args.patience));
    let output = output.map_err(late)?;
    let output = output.map_err(|error| Failure::new(Exit::Unreachable, format!("the agent {shown}: {error}")))?;
    if !output.status.success() {
        return Err(Failure::new(Exit::Unreachable, format!("the agent {shown} ended with {}", output.status))
            .hint("what it wrote to stderr says why"));
    }
    let answer = &output.stdout[..output.stdout.len().min(MAX_ANSWER)];
    Ok(String::from_utf8_lossy(answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_what_only_the_document_says_and_by_what_the_gateway_saw() {
        assert_eq!(Verdict::of(true, Some(1)), Verdict::Read);
        assert_eq!(Verdict::of(true, None), Verdict::Read);
        assert_eq!(Verdict::of(false, Some(2)), Verdict::AskedInVain);
        assert_eq!(Verdict::of(false, Some(0)), Verdict::MadeUp);
        assert_eq!(Verdict::of(false, None), Verdict::NotRead);
    }

    #[test]
    fn a_number_is_found_however_it_is_grouped() {
        for text in ["is 48151623.", "is 48 151 623", "is 48,151,623!", "4815-1623"] {
            assert!(has_number(text, "48151623"), "{text}");
        }
        assert!(!has_number("is 4815 or 1623", "48151623"));
    }

    #[test]
    fn the_question_says_where_to_look_and_nothing_of_the_answer() {
        let places =
            [(Way::Resource, "canary://saint-anthony/t-1"), (Way::Tool, "the tool saint-anthony with the ticket t-1")];
        for (way, place) in places {
            let question = way.question("http://gateway/default/docs/mcp", "t-1");
            assert!(question.contains(place) && question.contains("http://gateway/default/docs/mcp"), "{question}");
            assert!(!question.contains("milk") && !question.contains(&batch("t-1")), "{question}");
        }
    }
}

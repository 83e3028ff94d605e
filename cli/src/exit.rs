//! How a command ends: exit codes that scripts can act on, and one line on stderr that says what to do.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

/// What an exit code other than 0 means. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Exit {
    /// The command line, or a file that it names, is not right; nothing was asked of anyone.
    Usage = 1,
    /// What was asked was answered, and the answer is no.
    Negative = 2,
    /// The other side wants a credential, or another one.
    AuthNeeded = 3,
    /// Nobody answered, or nobody who speaks MCP.
    Unreachable = 4,
    /// The tool ran and reported an error.
    ToolError = 5,
    /// The caller is known and may not, or not that often.
    Denied = 6,
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The kind.
    pub(crate) exit: Exit,
    /// What happened.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// The command line is not right.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says it on stderr, as one JSON line when `json`, and turns into the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        // Nothing is left to tell a failure of stderr to: the exit code still speaks.
        let _ = if json { writeln!(stderr, "{}", self.to_json()) } else { write!(stderr, "{self}") };
        ExitCode::from(self.exit as u8)
    }

    fn to_json(&self) -> serde_json::Value {
        let mut error = serde_json::json!({"kind": self.exit, "exitCode": self.exit as u8, "message": self.message});
        if let Some(hint) = &self.hint {
            error["hint"] = hint.as_str().into();
        }
        serde_json::json!({ "error": error })
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        self.hint.iter().try_for_each(|hint| writeln!(f, "hint: {hint}"))
    }
}

/// Writes `text` to stdout. A reader that went away (`| head`) ends the command quietly.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Negative, format!("stdout cannot be written to: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes one line for people to stderr: progress, hints, warnings.
pub(crate) fn note(line: &str) {
    // Notes are worth nothing to a reader that is gone.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

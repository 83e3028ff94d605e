//! A client that does no more than a measurement needs: open a session, call `echo`, check each answer.

mod http;
mod pipe;
pub(crate) mod reply;

use std::path::PathBuf;

use ::http::Uri;
use anyhow::Context;
use portolan_mcp::revision::LATEST_LEGACY;

pub(crate) use http::Caller;

/// What a client says when it was answered.
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The request, with the id 0, that opens a session.
pub(crate) fn initialize() -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{LATEST_LEGACY}","capabilities":{{}},"clientInfo":{{"name":"portolan-bench","version":"1"}}}}}}"#
    )
}

/// A way to reach an echo server.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Streamable HTTP.
    Http {
        /// The endpoint.
        url: Uri,
        /// As whom.
        caller: Caller,
    },
    /// A process of one's own for each session, on its standard input and output.
    Pipe {
        /// The program, started with the argument `stdio`.
        program: PathBuf,
    },
}

/// An open session.
pub(crate) struct Session {
    lane: Lane,
    next: u64,
}

enum Lane {
    Http(http::Lane),
    Pipe(pipe::Lane),
}

impl Session {
    /// Opens a session.
    ///
    /// # Errors
    /// The server cannot be reached, or does not answer `initialize` as it should.
    pub(crate) async fn open(target: &Target) -> anyhow::Result<Self> {
        let lane = match target {
            Target::Http { url, caller } => Lane::Http(http::Lane::new(url, caller)?),
            Target::Pipe { program } => Lane::Pipe(pipe::Lane::start(program)?),
        };
        let mut session = Self { lane, next: 1 };
        session.initialize().await.context("the session does not open")?;
        Ok(session)
    }

    async fn initialize(&mut self) -> anyhow::Result<()> {
        let request = initialize();
        let answer = match &mut self.lane {
            Lane::Http(lane) => lane.initialize(request).await?,
            Lane::Pipe(lane) => lane.request(request).await?,
        };
        reply::result(&answer, "0")?;
        let done = INITIALIZED.to_owned();
        match &mut self.lane {
            Lane::Http(lane) => lane.notify(done).await,
            Lane::Pipe(lane) => lane.send(done).await,
        }
    }

    /// Calls `echo` with a text that needs no escaping in JSON.
    ///
    /// # Errors
    /// The call failed, or something else came back than was sent.
    pub(crate) async fn echo(&mut self, message: &str) -> anyhow::Result<()> {
        let id = self.next;
        self.next += 1;
        let request = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"echo","arguments":{{"message":"{message}"}}}}}}"#
        );
        let answer = match &mut self.lane {
            Lane::Http(lane) => lane.request(request).await?,
            Lane::Pipe(lane) => lane.request(request).await?,
        };
        reply::check_echo(reply::result(&answer, &id.to_string())?, message)
    }

    /// Ends the session.
    ///
    /// # Errors
    /// It could not be ended.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        match self.lane {
            Lane::Http(lane) => lane.close().await,
            Lane::Pipe(lane) => lane.close().await,
        }
    }
}

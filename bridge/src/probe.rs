//! The kept probe session: one client of the bridge's own that says whether the server works.

mod check;

use std::sync::Arc;
use std::time::Duration;

use portolan_mcp::revision::{Era, LATEST_LEGACY, MODERN};
use portolan_mcp::wire::{ExitCause, ProbeReason, ProbeState, ProbeStatus, ServerFound, ToolsFound};
use tokio::time::Instant;

use crate::backend::Backend;
use crate::found::{UNSUPPORTED_PROTOCOL_VERSION, modern_answer, modern_revisions, read_initialize};
use crate::peer::{Connector, Peer};
use crate::problem::{Problem, silence};
use crate::rpc::{CallError, Rpc, quote};
use crate::state::State;
use crate::tools;

const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A server that was gone as often as this when it was asked what else it speaks may end over the question.
const MAX_GONE: u32 = 3;
/// One that said nothing as often as this answers nothing that it does not know.
const MAX_SILENT: u32 = 3;
/// What a client of the sessionless era sends with every request.
const MODERN_PARAMS: &str = r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}"#;

/// Why a peer is not watched any more.
enum Setback {
    /// It is not the peer for this server.
    KnowsNoSessions,
    /// The server does not answer as it should.
    Problem(Problem),
}

impl From<Problem> for Setback {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// What `initialize` and `tools/list` found.
struct Found {
    server: ServerFound,
    tools: Option<ToolsFound>,
}

/// Probes until the bridge stops.
pub(crate) async fn run(state: Arc<State>, backend: Backend, connector: Connector) {
    let mut prober = Prober {
        state: Arc::clone(&state),
        connector,
        failures: 0,
        successes: 0,
        backend,
        found: None,
        modern: None,
        asks_again: false,
        gone_when_asked: 0,
        silent_when_asked: 0,
        started: Instant::now(),
    };
    tokio::select! {
        () = prober.run() => {}
        () = state.stop.cancelled() => {}
    }
    prober.connector.disconnect(&state, ExitCause::Shutdown).await;
}

struct Prober {
    state: Arc<State>,
    connector: Connector,
    failures: u32,
    successes: u32,
    backend: Backend,
    /// The era that was found last.
    found: Option<Era>,
    /// Revisions of the sessionless era that it speaks, once it was asked.
    modern: Option<Vec<String>>,
    /// Whether it is to be asked for them once more.
    asks_again: bool,
    /// How often in a row it was gone when it was asked.
    gone_when_asked: u32,
    /// How often in a row it said nothing.
    silent_when_asked: u32,
    started: Instant,
}

impl Prober {
    async fn run(&mut self) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let ready_before = self.state.is_ready();
            match self.watch(&mut backoff).await {
                Ok(()) => {}
                Err(Setback::KnowsNoSessions) => {
                    tracing::info!("the server knows no sessions: it is asked as its revision wants it");
                    self.connector.disconnect(&self.state, ExitCause::Replaced).await;
                    continue;
                }
                Err(Setback::Problem(problem)) => {
                    self.failed(&problem, ready_before);
                    // It may be another one when it is back. A process is of the image that it was of.
                    self.asks_again = self.connector.is_cheap();
                    self.silent_when_asked = 0;
                }
            }
            self.connector.disconnect(&self.state, ExitCause::Replaced).await;
            tokio::time::sleep(backoff).await;
            // What is waited for here is a port: asking costs nothing, and a process is not started by it.
            let is_cheap = self.connector.is_cheap() && self.state.config.upstream.is_near();
            let most = if is_cheap { FIRST_BACKOFF } else { MAX_BACKOFF };
            backoff = (backoff * 2).min(most);
        }
    }

    /// Opens a session and asks for the tools again and again, until something fails for good.
    async fn watch(&mut self, backoff: &mut Duration) -> Result<(), Setback> {
        let peer = self.connect()?;
        let mut found = match self.handshake(&peer).await {
            Ok(found) => found,
            Err(setback) => {
                if matches!(setback, Setback::Problem(_)) && self.state.is_sessionless() {
                    // What it speaks is asked anew: it may be another server by now.
                    self.state.era.send_replace(None);
                }
                return Err(setback);
            }
        };
        *backoff = FIRST_BACKOFF;
        let config = self.state.config.probe;
        let bounds = check::Bounds { time: config.timeout, bytes: self.state.config.max_message_bytes };
        let mut in_a_row = 0;
        loop {
            let began = Instant::now();
            let before = self.state.probe.borrow().clone();
            match check::check(&peer, &found.server, before.tools.as_ref(), bounds).await {
                Ok(tools) => {
                    in_a_row = 0;
                    found.tools = tools;
                    self.succeeded(&found);
                    self.find_eras(&peer, &mut found).await;
                }
                Err(problem) if problem.reason == ProbeReason::ServerExited => return Err(problem.into()),
                Err(problem) => {
                    in_a_row += 1;
                    self.failed(&problem, true);
                    if in_a_row >= config.unhealthy_threshold {
                        return Err(problem.into());
                    }
                }
            }
            tokio::select! {
                // From one check's start to the next: how long failures take to count does not depend on how they fail.
                () = tokio::time::sleep_until(began + config.interval) => {}
                over = peer.over() => {
                    let error = CallError::Over(over);
                    return Err(Problem::of(error, ProbeReason::ProbeTimeout, config.timeout, "tools/list").into());
                }
            }
        }
    }

    fn connect(&mut self) -> Result<Peer, Problem> {
        self.connector.connect(&self.state).map_err(|error| Problem::new(ProbeReason::SpawnFailed, error.to_string()))
    }

    async fn handshake(&mut self, peer: &Peer) -> Result<Found, Setback> {
        let timeout = self.state.config.probe.handshake_timeout;
        let params = format!(
            r#"{{"protocolVersion":"{LATEST_LEGACY}","capabilities":{{}},"clientInfo":{{"name":"portolan-bridge","version":"{}"}}}}"#,
            env!("CARGO_PKG_VERSION")
        );
        let answer = peer.request("initialize", &params, timeout).await;
        let result = match answer {
            Ok(Rpc::Result(result)) => result,
            Ok(Rpc::Error { code, message }) => return Err(self.refused(peer, code, &message).await),
            Err(CallError::TimedOut) => return Err(silence(peer, timeout).into()),
            Err(error) => return Err(Problem::of(error, ProbeReason::HandshakeTimeout, timeout, "initialize").into()),
        };
        if let Some(revision) = modern_answer(&result)
            && !self.state.is_sessionless()
            && self.speaks_modern(peer).await
        {
            tracing::debug!(revision, "initialize was answered with a revision that has none");
            return Err(Setback::KnowsNoSessions);
        }
        let mut server = read_initialize(&result)?;
        if self.state.is_sessionless() {
            // What answered `initialize` is a translation.
            server.era = Era::Modern;
            server.supported_versions = MODERN.iter().map(|version| (*version).to_owned()).collect();
            MODERN[0].clone_into(&mut server.protocol_version);
        } else if self.found == Some(Era::Modern) {
            // Before anyone hears that this one is ready: what is open is with the one that was here before.
            self.backend.end_replaced();
            self.found = None;
        }
        peer.opened(&result, &server.protocol_version, self.state.config.probe.timeout).await;
        Ok(Found { server, tools: None })
    }

    /// Tells a server that opens no sessions at all from one that does not know what it was asked. No code alone says which
    /// it is (2026-07-28, "Backward Compatibility").
    async fn refused(&mut self, peer: &Peer, code: i64, message: &str) -> Setback {
        let told = format!("initialize was answered with error {code}: {}", quote(message));
        if self.state.is_sessionless() {
            return Problem::new(ProbeReason::UnsupportedProtocol, format!("{told}, for server/discover")).into();
        }
        if !self.speaks_modern(peer).await {
            let is_about_revisions = code == UNSUPPORTED_PROTOCOL_VERSION;
            let reason = if is_about_revisions { ProbeReason::UnsupportedProtocol } else { ProbeReason::NotMcp };
            return Problem::new(reason, told).into();
        }
        Setback::KnowsNoSessions
    }

    /// Whether a server that opens no session answers without one; remembers that it does.
    async fn speaks_modern(&mut self, peer: &Peer) -> bool {
        let answer = peer.request("server/discover", MODERN_PARAMS, self.state.config.probe.timeout).await;
        let does = !modern_revisions(answer).is_empty();
        if does {
            // One of both eras may only have no room for a session now.
            if self.found == Some(Era::Legacy) {
                self.backend.end_replaced();
            }
            self.found = Some(Era::Modern);
            self.state.era.send_replace(Some(Era::Modern));
        }
        does
    }

    /// Asks a server that works, once each time that it comes up, whether it speaks the sessionless era too. Readiness does not
    /// wait for the answer, and a server that ends over the question is not asked for ever.
    async fn find_eras(&mut self, peer: &Peer, found: &mut Found) {
        let may_answer = self.gone_when_asked < MAX_GONE && self.silent_when_asked < MAX_SILENT;
        let is_due = (self.modern.is_none() || self.asks_again) && may_answer;
        if is_due && found.server.era != Era::Modern {
            let answer = peer.request("server/discover", MODERN_PARAMS, self.state.config.probe.timeout).await;
            let is_gone = matches!(answer, Err(CallError::Over(_) | CallError::Unreachable(..)));
            if is_gone && !self.connector.is_cheap() {
                // A process that ends over the question is not started for it again.
                self.modern.get_or_insert_default();
            }
            let is_silent = answer.is_err() && !is_gone;
            self.gone_when_asked = if is_gone { self.gone_when_asked + 1 } else { 0 };
            self.silent_when_asked = if is_silent { self.silent_when_asked + 1 } else { 0 };
            // What is not answered says nothing else than before.
            if answer.is_ok() {
                self.modern = Some(modern_revisions(answer));
                self.asks_again = false;
            }
        }
        if found.server.era == Era::Modern {
            return;
        }
        let modern = self.modern.as_deref().unwrap_or_default();
        let era = if modern.is_empty() { Era::Legacy } else { Era::Both };
        self.found = Some(era);
        self.state.era.send_replace(Some(era));
        if found.server.era == Era::Legacy && era == Era::Both {
            found.server.era = era;
            found.server.supported_versions.extend_from_slice(modern);
            if self.state.is_ready() {
                self.tell_ready(found);
            }
        }
    }

    fn succeeded(&mut self, found: &Found) {
        self.failures = 0;
        self.successes += 1;
        let now = self.state.probe.borrow().state;
        if now == ProbeState::Failing && self.successes < self.state.config.probe.healthy_threshold {
            return;
        }
        if now != ProbeState::Ready {
            tracing::info!(server = found.server.name, version = found.server.version, "the server is ready");
        }
        self.tell_ready(found);
    }

    fn tell_ready(&self, found: &Found) {
        self.state.mark_tools(tools::marked(found.tools.as_ref()));
        self.tell(ProbeStatus {
            state: ProbeState::Ready,
            reason: None,
            message: String::new(),
            server: Some(found.server.clone()),
            tools: found.tools.clone(),
        });
    }

    /// Counts a failure; one that was ready before keeps its name until the threshold.
    fn failed(&mut self, problem: &Problem, was_ready: bool) {
        self.successes = 0;
        self.failures += 1;
        tracing::warn!(reason = problem.reason.as_str(), "{}", problem.message);
        if was_ready && self.state.is_ready() && self.failures < self.state.config.probe.unhealthy_threshold {
            return;
        }
        let last = self.state.probe.borrow().clone();
        let still_starting = self.started.elapsed() < self.state.config.probe.handshake_timeout;
        if last.state == ProbeState::Starting && problem.reason == ProbeReason::Unreachable && still_starting {
            return;
        }
        self.tell(ProbeStatus {
            state: ProbeState::Failing,
            reason: Some(problem.reason),
            message: problem.message.clone(),
            server: last.server.clone(),
            tools: last.tools.clone(),
        });
    }

    fn tell(&self, status: ProbeStatus) {
        self.state.probe.send_replace(Arc::new(status));
    }
}

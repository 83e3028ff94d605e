//! What a bridge is told: typed, complete, without defaults of its own beside [`Config::new`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use portolan_mcp::mac::MacKey;

/// Everything a bridge needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// What stands behind the bridge.
    pub upstream: Upstream,
    /// What the server is called in log lines that repeat its stderr; empty where a process has one bridge and everyone
    /// knows whose it is.
    pub name: String,
    /// UID of the pod that the bridge is in; empty where nobody else ever gets its address.
    pub pod: String,
    /// The key that gateway and operator sign with.
    pub mac_key: MacKey,
    /// How sessions are kept.
    pub sessions: Sessions,
    /// How the server is watched.
    pub probe: Probe,
    /// How long a call may take when the caller names no time, and at most.
    pub request_timeout: Duration,
    /// How long sessions may go on after the drain began.
    pub drain_timeout: Duration,
    /// How long a process has between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Longest message in either direction, in bytes.
    pub max_message_bytes: usize,
    /// Whether the server has [`portolan_mcp::canary`]'s document among its resources.
    pub document: bool,
    /// Folder of the control group whose memory limit the server's processes share; none is watched where absent.
    pub cgroup: Option<PathBuf>,
}

impl Config {
    /// A configuration with the safe defaults.
    #[must_use]
    pub fn new(upstream: Upstream, mac_key: MacKey) -> Self {
        Self {
            upstream,
            name: String::new(),
            pod: String::new(),
            mac_key,
            sessions: Sessions::default(),
            probe: Probe::default(),
            request_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(600),
            grace: Duration::from_secs(2),
            max_message_bytes: 16 * 1024 * 1024,
            document: false,
            cgroup: None,
        }
    }
}

/// What stands behind the bridge.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// A command that speaks MCP on stdin and stdout; one process per session.
    Stdio(ServerCommand),
    /// A streamable HTTP server on loopback.
    Http(http::Uri),
    /// A server of the older HTTP+SSE transport (2024-11-05) on loopback; one event stream per session.
    Sse(http::Uri),
    /// A server that runs elsewhere.
    #[cfg(feature = "tls")]
    Remote(Box<crate::remote::Remote>),
}

impl Upstream {
    /// Whether it is on this machine, where asking often costs nobody anything.
    pub(crate) fn is_near(&self) -> bool {
        match self {
            Self::Stdio(_) | Self::Http(_) | Self::Sse(_) => true,
            #[cfg(feature = "tls")]
            Self::Remote(_) => false,
        }
    }
}

/// How to start a server process.
#[derive(Clone, Debug)]
pub struct ServerCommand {
    /// The program, looked up on PATH when it holds no slash.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables to set, on top of the bridge's own unless `clear_env`.
    pub env: Vec<(OsString, OsString)>,
    /// Whether the bridge's own variables are withheld.
    pub clear_env: bool,
    /// Working directory; the bridge's own where absent.
    pub cwd: Option<PathBuf>,
    /// How to start the guard that supervises it.
    pub guard: GuardCommand,
}

impl ServerCommand {
    /// A command with the bridge's own environment, guarded by this very executable's `guard` subcommand.
    #[must_use]
    pub fn new(program: impl Into<OsString>, args: impl IntoIterator<Item = OsString>) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().collect(),
            env: Vec::new(),
            clear_env: false,
            cwd: None,
            guard: GuardCommand::default(),
        }
    }

    /// The command line as a person would write it.
    #[must_use]
    pub fn display(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args);
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

/// The executable and leading arguments that end up in [`crate::guard::main`].
#[derive(Clone, Debug)]
pub struct GuardCommand {
    /// The executable.
    pub program: PathBuf,
    /// Arguments before those that [`crate::guard::main`] reads.
    pub args: Vec<OsString>,
}

impl Default for GuardCommand {
    fn default() -> Self {
        Self { program: "/proc/self/exe".into(), args: vec!["guard".into()] }
    }
}

/// How sessions are kept.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    /// Whether any process may answer any request: then one is shared by all.
    pub stateless: bool,
    /// Most sessions at a time.
    pub max: u32,
    /// Most of them that one caller holds.
    pub max_per_caller: u32,
    /// A session that nobody used for so long is ended.
    pub idle_timeout: Duration,
    /// Started processes that wait for a session.
    pub warm: u32,
}

impl Sessions {
    /// Most sessions that one caller holds of `max`, where nothing else is said: three quarters.
    #[must_use]
    pub fn share_of(max: u32) -> u32 {
        max - max / 4
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            stateless: false,
            max: 64,
            max_per_caller: Self::share_of(64),
            idle_timeout: Duration::from_secs(30 * 60),
            warm: 1,
        }
    }
}

/// How the server is watched.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Time between two `tools/list`.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Failures in a row before the server counts as failing.
    pub unhealthy_threshold: u32,
    /// Successes in a row before it counts as ready again.
    pub healthy_threshold: u32,
    /// How long `initialize` may take.
    pub handshake_timeout: Duration,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(3),
            unhealthy_threshold: 3,
            healthy_threshold: 1,
            handshake_timeout: Duration::from_secs(30),
        }
    }
}

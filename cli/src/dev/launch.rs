//! What one revision of a server runs: resolved, comparable, with a name of its own.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portolan_crds::MCPServerSpec;
use portolan_crds::conditions::reasons;
use portolan_crds::server::{Container, Place, SessionType, Transport};
use ring::digest;

use super::environment::{self, Unresolved, Variables};
use super::files::Objects;
use super::objects::Name;
use super::remote::{self, Remote};

/// Variables of `dev` itself that servers get, too: enough to find programs, homes and languages. Everything else a
/// server needs stands in its file, as in the cluster; so no credential of this shell reaches it by accident.
const INHERITED: [&str; 11] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// What one revision of a server runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Launch {
    /// The server itself.
    pub(super) run: Run,
    /// Whether any process may answer any request.
    pub(super) stateless: bool,
    /// Most sessions.
    pub(super) max_sessions: u32,
    /// Most of them that one caller holds, where that is said.
    pub(super) max_sessions_per_caller: Option<u32>,
    /// A session that nobody used for so long is ended.
    pub(super) idle_timeout: Duration,
    /// How long sessions may go on after the drain began.
    pub(super) drain_timeout: Duration,
    /// Longest time to an answer.
    pub(super) request_timeout: Duration,
    /// How the server is checked.
    pub(super) check: Check,
    /// Whether a document of ours is among its resources.
    pub(super) document: bool,
}

/// The server itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Run {
    /// A command of this machine.
    Command(Command),
    /// Nothing: it runs elsewhere.
    Remote(Remote),
}

/// A command of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Command {
    /// The program as the file names it.
    pub(super) program: OsString,
    /// Its arguments.
    pub(super) args: Vec<OsString>,
    /// Its whole environment.
    pub(super) env: Vec<(OsString, OsString)>,
    /// Where it listens, if it speaks HTTP.
    pub(super) http: Option<Http>,
}

/// Where a server that speaks HTTP listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Http {
    pub(super) port: u16,
    pub(super) path: String,
    /// Whether it speaks the older HTTP+SSE transport.
    pub(super) sse: bool,
}

/// How a server is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Check {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) unhealthy_threshold: u32,
    pub(super) healthy_threshold: u32,
}

/// What the server `name` runs; `allowed` are hosts that may have private addresses.
pub(super) fn launch(
    name: &Name,
    spec: &MCPServerSpec,
    objects: &Objects,
    allowed: &[String],
) -> Result<Launch, Vec<Unresolved>> {
    let run = match spec.place() {
        Some(Place::Container(container)) => Run::Command(command(name, container, objects)?),
        Some(Place::Remote(remote)) => Run::Remote(remote::resolve(name, remote, objects, allowed)?),
        None => {
            let message = "write exactly one of container, remote".to_owned();
            return Err(vec![Unresolved { reason: reasons::INVALID, path: "spec".to_owned(), message }]);
        }
    };
    Ok(Launch {
        run,
        stateless: spec.sessions.type_ == SessionType::Stateless,
        max_sessions: spec.sessions.max_per_replica(),
        max_sessions_per_caller: spec.sessions.max_per_caller,
        idle_timeout: spec.sessions.idle_timeout().as_std(),
        drain_timeout: spec.rollout.drain_timeout.as_std(),
        request_timeout: spec.timeouts.request.as_std(),
        check: Check {
            interval: spec.health_check.interval.as_std(),
            timeout: spec.health_check.timeout.as_std(),
            unhealthy_threshold: spec.health_check.unhealthy_threshold,
            healthy_threshold: spec.health_check.healthy_threshold,
        },
        document: spec.has_canary_document(),
    })
}

fn command(name: &Name, container: &Container, objects: &Objects) -> Result<Command, Vec<Unresolved>> {
    let variables = environment::variables(name, container, objects)?;
    let mut command = environment::words(&container.command, &variables).into_iter();
    let Some(program) = command.next() else {
        let message = "dev runs no images: write command, the program that the image would start";
        let path = "spec.container.command".to_owned();
        return Err(vec![Unresolved { reason: reasons::SPAWN_FAILED, path, message: message.into() }]);
    };
    let http = container.port.filter(|_| container.transport.is_http()).map(|port| Http {
        port,
        path: container.http_path().to_owned(),
        sse: container.transport == Transport::Sse,
    });
    Ok(Command {
        program,
        args: command.chain(environment::words(&container.args, &variables)).collect(),
        env: with_inherited(&variables),
        http,
    })
}

fn with_inherited(variables: &Variables) -> Vec<(OsString, OsString)> {
    let inherited = INHERITED.iter().filter(|name| !variables.contains_key(**name));
    let inherited = inherited.filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
    let own = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from_vec(value.clone())));
    inherited.chain(own).collect()
}

impl Launch {
    /// `<server>-<8 hex digits>`, as the operator names revisions.
    pub(super) fn revision(&self, server: &str) -> String {
        // The debug form holds every field in a fixed order; the name lives no longer than this process.
        let hash = digest::digest(&digest::SHA256, format!("{self:?}").as_bytes());
        let hex: String = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("{server}-{hex}")
    }

    /// The port of this machine that it takes.
    pub(super) fn port(&self) -> Option<u16> {
        match &self.run {
            Run::Command(command) => command.http.as_ref().map(|http| http.port),
            Run::Remote(_) => None,
        }
    }
}

impl Command {
    /// The program's file: looked up on the server's own PATH when it has no slash.
    pub(super) fn find_program(&self) -> Result<PathBuf, String> {
        let program = Path::new(&self.program);
        let shown = program.display();
        if self.program.as_bytes().contains(&b'/') {
            return if is_executable(program) {
                Ok(program.to_owned())
            } else {
                Err(format!("command {shown:?} is no executable file on this machine"))
            };
        }
        let path = self.env.iter().find(|(name, _)| name == "PATH").map_or(OsStr::new(""), |(_, value)| value);
        let found =
            std::env::split_paths(path).map(|directory| directory.join(program)).find(|file| is_executable(file));
        found.ok_or_else(|| match directory_of_this(program) {
            Some(directory) => {
                let directory = directory.display();
                format!("command {shown:?} is not on PATH: start dev again with PATH={directory}:$PATH")
            }
            None => format!("command {shown:?} is not on PATH: install it, or change PATH"),
        })
    }
}

/// Where this very program is, when `program` is its name: the quickstart's server is.
fn directory_of_this(program: &Path) -> Option<PathBuf> {
    let this = std::env::current_exe().ok()?;
    (this.file_name() == program.file_name()).then(|| this.parent().map(Path::to_owned))?
}

fn is_executable(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

//! The memory watchdog: ends the largest process tree, whoever it serves, before the kernel ends the container.
//!
//! On cgroup v2 an out-of-memory kill takes the whole container, on v1 whichever process it likes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nix::unistd::Pid;
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::wire::ExitCause;

use crate::descendants::{Tree, resident_bytes};
use crate::kept::Kept;
use crate::live::Live;
use crate::sessions::Sessions;
use crate::state::{State, lock};

const INTERVAL: Duration = Duration::from_millis(250);
/// Of the limit, in percent.
const THRESHOLD: u64 = 90;
/// How long what was ended may take to give its memory back before the next is looked at.
const SETTLE: Duration = Duration::from_secs(5);
/// cgroup v1 writes a number near the largest where there is no limit.
const NO_LIMIT: u64 = 1 << 62;

/// Memory of a control group, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    working_set: u64,
    limit: u64,
}

impl Reading {
    fn is_pressing(self) -> bool {
        u128::from(self.working_set) * 100 >= u128::from(self.limit) * u128::from(THRESHOLD)
    }
}

/// Where a control group shows its memory.
#[derive(Clone, Debug)]
struct Files {
    limit: PathBuf,
    usage: PathBuf,
    stat: PathBuf,
    inactive_file: &'static str,
}

impl Files {
    fn of(dir: &Path) -> Option<Self> {
        let (v1, v2) = (dir.join("memory.limit_in_bytes"), dir.join("memory.max"));
        let stat = dir.join("memory.stat");
        if v1.exists() {
            let usage = dir.join("memory.usage_in_bytes");
            Some(Self { limit: v1, usage, stat, inactive_file: "total_inactive_file" })
        } else if v2.exists() {
            Some(Self { limit: v2, usage: dir.join("memory.current"), stat, inactive_file: "inactive_file" })
        } else {
            None
        }
    }

    /// What the group uses and may use; `None` without a limit.
    fn read(&self) -> Option<Reading> {
        let number = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let limit = number(&self.limit).filter(|limit| *limit < NO_LIMIT)?;
        let stat = std::fs::read_to_string(&self.stat).ok()?;
        let inactive = stat.lines().find_map(|line| line.strip_prefix(self.inactive_file)?.trim().parse().ok());
        Some(Reading { working_set: number(&self.usage)?.saturating_sub(inactive.unwrap_or(0)), limit })
    }
}

/// Watches the control group `dir` until the bridge stops.
pub(crate) async fn watch(state: Arc<State>, sessions: Arc<Sessions>, dir: PathBuf) {
    let Some(files) = Files::of(&dir) else { return };
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = state.stop.cancelled() => return,
        }
        if let Some(reading) = files.read().filter(|reading| reading.is_pressing()) {
            relieve(&state, &sessions, reading).await;
        }
    }
}

/// Whose a process tree is.
enum Holder {
    Session(Live),
    Kept(Arc<Kept>),
    Warm(Pid),
}

impl Holder {
    fn all(state: &State, sessions: &Sessions) -> Vec<Self> {
        let mut all: Vec<Self> = sessions.all().into_iter().map(Self::Session).collect();
        all.extend(lock(&state.kept).clone().map(Self::Kept));
        // Last, because of two that hold the same the later one ends: nobody misses a warm process.
        all.extend(sessions.warm().into_iter().map(Self::Warm));
        all
    }

    /// The root of its processes, if they are in this container.
    fn guard(&self) -> Option<Pid> {
        match self {
            Self::Session(session) => session.link().guard(),
            Self::Kept(kept) => kept.link.guard(),
            Self::Warm(guard) => Some(*guard),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Session(session) => session.key().as_str(),
            Self::Kept(_) => "probe",
            Self::Warm(_) => "warm",
        }
    }

    /// Ends what it holds, without a grace: what it allocates meanwhile may cost everyone. What is returned completes when
    /// that is gone; `None` when there is no such process any more: one that ended by itself is told as that.
    fn end(&self, sessions: &Sessions) -> Option<BoxFuture<'static, ()>> {
        match self {
            Self::Session(session) => {
                if session.link().is_ending() {
                    return None;
                }
                let message = "the session was ended to save the others: the container's memory ran short and it held the \
                               most; ask for less, or raise spec.container.resources.limits.memory";
                session.end(ExitCause::MemoryPressure, Failure::new(Kind::MemoryPressure, message));
                let ended = session.link().kill(ExitCause::MemoryPressure);
                let session = session.clone();
                ended.then(|| async move { drop(session.link().ended().await) }.boxed())
            }
            Self::Kept(kept) => {
                let message = "the server was started again: the container's memory ran short and it held the most; ask \
                               again, for less, or raise spec.container.resources.limits.memory";
                let failure = Failure::new(Kind::MemoryPressure, message).retry_after(Duration::from_secs(1));
                let ended = kept.kill(ExitCause::MemoryPressure, &failure);
                let kept = Arc::clone(kept);
                ended.then(|| async move { drop(kept.link.ended().await) }.boxed())
            }
            Self::Warm(guard) => {
                let link = sessions.take_warm(*guard)?;
                let ended = link.kill(ExitCause::MemoryPressure);
                ended.then(|| async move { drop(link.ended().await) }.boxed())
            }
        }
    }
}

async fn relieve(state: &State, sessions: &Sessions, reading: Reading) {
    let tree = Tree::read();
    let sized = Holder::all(state, sessions)
        .into_iter()
        .filter_map(|holder| Some((resident_bytes(&tree, holder.guard()?), holder)));
    let Some((bytes, holder)) = sized.max_by_key(|(bytes, _)| *bytes) else {
        return tracing::warn!(?reading, "memory runs short and there is no process to end");
    };
    let Some(gone) = holder.end(sessions) else { return };
    state.counters.memory_ends.add(1);
    tracing::warn!(session = holder.name(), bytes, ?reading, "ended the largest process: memory runs short");
    if tokio::time::timeout(SETTLE, gone).await.is_err() {
        tracing::warn!(session = holder.name(), "its process is still there");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(name: &str) -> Option<Reading> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        Files::of(&dir).expect("a control group").read()
    }

    #[test]
    fn the_working_set_is_read_from_either_version() {
        let v1 = Reading { working_set: 61_923_328 - 65_536, limit: 67_108_864 };
        assert_eq!(reading("cgroup-v1"), Some(v1));
        let v2 = Reading { working_set: 133_795_840 - 4_190_208, limit: 134_217_728 };
        assert_eq!(reading("cgroup-v2"), Some(v2));
        assert!(v1.is_pressing() && v2.is_pressing());
    }

    #[test]
    fn a_group_without_a_limit_is_never_pressed() {
        assert_eq!(reading("cgroup-v1-unlimited"), None);
        assert_eq!(reading("cgroup-v2-unlimited"), None);
    }

    #[test]
    fn pressure_begins_at_ninety_percent() {
        assert!(Reading { working_set: 90, limit: 100 }.is_pressing());
        assert!(!Reading { working_set: 89, limit: 100 }.is_pressing());
    }
}

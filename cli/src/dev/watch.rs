//! Tells when files changed.

use std::path::PathBuf;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Editors write a file in several steps: so long nothing may have happened before it is read.
const QUIET: Duration = Duration::from_millis(100);
/// A file that never comes to rest is read after so long all the same.
const LONGEST: Duration = Duration::from_secs(1);

/// Watches directories; dropping it ends the watch.
pub(super) struct FileWatch {
    settled: mpsc::Receiver<()>,
    _settling: AbortOnDropHandle<()>,
    _watcher: notify::RecommendedWatcher,
}

impl FileWatch {
    /// Watches what is directly in `directories`.
    pub(super) fn new(directories: &[PathBuf]) -> notify::Result<Self> {
        let (sender, changed) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error means that events were lost: that is a reason to look, too.
            if event.map_or(true, |event| is_change(event.kind)) {
                // One pending look is enough.
                let _ = sender.try_send(());
            }
        })?;
        for directory in directories {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        let (sender, settled) = mpsc::channel(1);
        let settling = AbortOnDropHandle::new(tokio::spawn(settle(changed, sender)));
        Ok(Self { settled, _settling: settling, _watcher: watcher })
    }

    /// Waits until something changed and came to rest. Nothing is lost when the wait is given up.
    pub(super) async fn changed(&mut self) {
        if self.settled.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

/// Tells `settled` of each change once nothing more has happened for a while.
async fn settle(mut changed: mpsc::Receiver<()>, settled: mpsc::Sender<()>) {
    while changed.recv().await.is_some() {
        let rest = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, changed.recv()).await {} };
        // Either way it is time to look.
        let _ = tokio::time::timeout(LONGEST, rest).await;
        if settled.send(()).await.is_err() {
            return;
        }
    }
}

/// Our own reading is not one.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

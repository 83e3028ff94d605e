//! Tells when files changed.

use std::path::PathBuf;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Editors write a file in several steps: so long nothing may have happened before it is read.
const QUIET: Duration = Duration::from_millis(100);
/// A file that never comes to rest is read after so long all the same.
const LONGEST: Duration = Duration::from_secs(1);

/// Watches directories; dropping it ends the watch.
pub(super) struct FileWatch {
    changed: mpsc::Receiver<()>,
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
        Ok(Self { changed, _watcher: watcher })
    }

    /// Waits until something changed and came to rest.
    pub(super) async fn changed(&mut self) {
        if self.changed.recv().await.is_none() {
            return std::future::pending().await;
        }
        let settle = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, self.changed.recv()).await {} };
        // Either way it is time to look.
        let _ = tokio::time::timeout(LONGEST, settle).await;
    }
}

/// Our own reading is not one.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

//! The termination message: why the bridge ended, for `kubectl describe pod`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use portolan_mcp::wire::SessionExit;
use serde::Serialize;

/// The kubelet reads no more.
const MAX_LEN: usize = 4096;

/// Why the bridge ended.
#[derive(Debug, Serialize)]
pub(crate) struct Termination {
    /// One word.
    pub(crate) reason: &'static str,
    /// The reason in words.
    pub(crate) message: String,
    /// The latest ends of server processes, newest last.
    pub(crate) exits: Vec<SessionExit>,
}

impl Termination {
    /// Writes the message where the kubelet looks for it; does nothing where there is no such file.
    pub(crate) fn write(mut self, path: &Path) {
        let Ok(mut file) = OpenOptions::new().write(true).truncate(true).open(path) else { return };
        if let Err(error) = file.write_all(&self.fit()) {
            tracing::warn!(%error, path = %path.display(), "cannot write the termination message");
        }
    }

    /// The JSON, with as many of the newest exits as fit.
    fn fit(&mut self) -> Vec<u8> {
        self.message.truncate(self.message.floor_char_boundary(MAX_LEN / 4));
        loop {
            let text = serde_json::to_vec(self).unwrap_or_default();
            if text.len() <= MAX_LEN || self.exits.is_empty() {
                return text;
            }
            self.exits.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_mcp::wire::ExitCause;

    #[test]
    fn the_newest_exits_that_fit_are_told() {
        let exit = |at| SessionExit {
            session: "probe".to_owned(),
            at,
            cause: ExitCause::ServerExited,
            code: Some(1),
            signal: None,
            last_stderr: "x".repeat(400),
        };
        let file = tempfile::NamedTempFile::new().expect("a file");
        let exits = (0..32).map(exit).collect();
        Termination { reason: "Drained", message: "é".repeat(4000), exits }.write(file.path());
        let text = std::fs::read(file.path()).expect("readable");
        assert!(text.len() <= MAX_LEN && text.len() > MAX_LEN / 2, "{}", text.len());
        let told: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(told["exits"].as_array().and_then(|exits| exits.last()).map(|exit| &exit["at"]), Some(&31.into()));
    }
}
